//! `doseline`: the only binary. It reads the configuration, connects the roles, handles signals and
//! offers the sub-commands.
//!
//! Absent: the work of the roles. It is in their crates, which do not know each other.
//!
//! A command that fails prints `error:` and `hint:` to standard error. A service does the same,
//! except that with JSON logs it writes one log line. Lists are tables, or with `--json` one object
//! for each line.
//!
//! Exit codes: 0 done, 1 failed or a difference found, 2 wrong usage, 64 invalid configuration.

mod alerts;
mod audit;
mod broker;
mod calc;
mod certs;
mod check;
mod command;
mod config;
mod devices;
mod give_up;
mod grants;
mod group;
mod hint;
mod impact;
mod incident;
mod migrate;
mod monitor;
mod options;
mod ports;
mod progress;
mod quarantine;
mod rebuild;
mod reconcile;
mod roles;
mod running;
mod simulate;
mod supervise;
mod table;
mod token;
mod trace;
mod up;
mod upkeep;
mod writer;

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::EnvFilter;

use crate::{
    config::{Config, LogFormat, Sources},
    hint::{Explanation, one_line},
};

/// Decoded reports and column texts are many small allocations that are freed again soon.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the bridge's thread sleeps before it waits for the next message.
const BRIDGE_REST: Duration = Duration::from_millis(5);

/// Exit code of an invalid configuration (`EX_USAGE` of sysexits.h).
const INVALID_CONFIGURATION: u8 = 64;

#[derive(Parser)]
#[command(name = "doseline", version, about, long_about = None, arg_required_else_help = true, after_help = HELP)]
struct Cli {
    /// Configuration file (TOML). Environment variables DOSELINE__SECTION__KEY and flags override
    /// it
    #[arg(long, global = true, value_name = "FILE", env = "DOSELINE_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

const HELP: &str = "\
Examples:
  doseline up --simulate 25                       everything on this machine, with 25 simulated devices
  doseline alerts list                            alerts that wait for a person, in that running `up`
  doseline check --connect --data-dir /srv/data   is the `up` that runs there as it should be?
  doseline check --config services.toml           is the configuration right? (no network)
  doseline migrate --config services.toml         create or upgrade tables and topics
  doseline bridge --config services.toml          MQTT to Kafka
  doseline load --config services.toml            Kafka to ClickHouse
  doseline monitor --config services.toml         verdicts and alerts
  doseline serve --config services.toml           dashboard
  doseline certs list --dir secrets               certificates, and until when they are valid
  doseline grants --passwords secrets             users and rights for ClickHouse, as SQL
  doseline quarantine list --config services.toml what could not be used, and why
  doseline audit list                             who did what
  doseline trace --item hp-0017                   where has it been, and on whom
  doseline impact --calibration cal-2026-0117     which injections does it put in question
  doseline token create --role viewer --tenant acme --config services.toml   opens the dashboard
  doseline calc saturation --kpa 313              a formula on numbers of your own
  doseline reconcile --config services.toml       is everything there, once?

Which engines a sub-command uses:
  --data-dir DIR   those of the `doseline up` that runs with this data directory, whatever else
                   names engines; other settings come from --config, or without it from that `up`
  --config FILE    those that the file names
  environment      those that it names: any variable DOSELINE__MQTT__*, DOSELINE__KAFKA__* or
                   DOSELINE__CLICKHOUSE__*
  none of these    those of the `doseline up` that runs with ./doseline-data
Services (bridge, load, monitor, serve) use those of the configuration. For simulate the first is
--up-data-dir.

Lists are tables with a header. With --json they are one JSON object a line, with times in us since
1970. An empty list prints nothing and says so on standard error. Reports (reconcile, rebuild, trace)
are one JSON object.

A command that fails prints `error: ...` and, where there is a remedy, `hint: ...` on standard
error. With log.format = json, a service logs one line instead.
Exit codes: 0 done, 1 failed or a difference found, 2 wrong usage, 64 invalid configuration.";

#[derive(Subcommand)]
enum Command {
    /// Run everything on one machine, with embedded engines
    Up(up::Arguments),
    /// Run the MQTT to Kafka role
    #[command(after_help = "Example:\n  doseline bridge --config services.toml")]
    Bridge,
    /// Run the Kafka to ClickHouse role
    #[command(after_help = "Example:\n  doseline load --config services.toml")]
    Load,
    /// Run the role that computes verdicts and alerts
    Monitor(monitor::Arguments),
    /// Run the dashboard
    #[command(after_help = "Example:\n  doseline serve --config services.toml")]
    Serve,
    /// Run a fleet of simulated devices against the configured MQTT broker
    Simulate(simulate::Arguments),
    /// Create or upgrade the ClickHouse tables and the Kafka topics
    Migrate(migrate::Arguments),
    /// Validate the configuration, and with --connect try each connection
    Check(check::Arguments),
    /// Compare what devices say, Kafka, tables and sums; name every difference
    Reconcile(reconcile::Arguments),
    /// Load a closed ingest day again from Kafka, compare it, and swap it in
    Rebuild(rebuild::Arguments),
    /// Give up a batch of Kafka that cannot be read and holds up its partition
    GiveUp(give_up::Arguments),
    /// List and edit the registry of devices
    Devices(devices::Arguments),
    /// Work through the quarantine: list, show, replay, purge
    Quarantine(quarantine::Arguments),
    /// Show open alerts, and acknowledge them
    Alerts(alerts::Arguments),
    /// Trace items, sessions, lots and cycles in both directions
    Trace(trace::Arguments),
    /// List the injections that a failed calibration puts in doubt
    Impact(impact::Arguments),
    /// Record what people report, and list it
    Incident(incident::Arguments),
    /// Make, renew, revoke and list certificates of broker, bridge, roles, devices and gateways
    Certs(certs::Arguments),
    /// Create, list and revoke the tokens that open the dashboard
    Token(token::Arguments),
    /// Write users, rights and row policies for ClickHouse, and rules for Kafka
    Grants(grants::Arguments),
    /// List what people did, and what became of it
    Audit(audit::Arguments),
    /// Every formula on your own numbers: JSON on standard input or flags in, JSON out
    Calc(calc::Arguments),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return calc::usage(&error),
    };
    // Arithmetic needs no configuration, so an invalid one must not prevent it.
    if let Command::Calc(arguments) = cli.command {
        return calc::run(arguments);
    }
    // Certificates are made before there is a configuration.
    if let Command::Certs(arguments) = cli.command {
        return certs::run(arguments).unwrap_or_else(|error| failed(&error));
    }
    let file = cli.config.as_deref();
    let running = match cli.command.engines() {
        Engines::Own => Ok(None),
        Engines::Found(data_dir) => running::wanted(data_dir, file.is_some()),
    };
    let running = match running {
        Ok(running) => running,
        Err(error) => return failed(&error),
    };
    let is_single_node = matches!(cli.command, Command::Up(_));
    let sources = Sources { file, is_single_node, running: running.as_ref().map(|running| &running.config) };
    let config = match config::load(sources) {
        Ok(config) => config,
        Err(faults) => return invalid(&faults),
    };
    if let Err(fault) = log(&config) {
        return invalid(&[fault]);
    }
    let logs_failure = cli.command.is_service() && config.log.format == LogFormat::Json;
    let outcome = run(cli.command, config);
    // Only `up` has an engine. It either succeeds or reports the reason.
    let status = i32::from(outcome.is_err());
    let code = match outcome {
        Ok(code) => code,
        Err(error) if logs_failure => {
            let Explanation { error, hint } = Explanation::of(&error);
            tracing::error!(hint, "{error}");
            ExitCode::FAILURE
        }
        Err(error) => failed(&error),
    };
    embedded::clickhouse::exit_if_running(status);
    code
}

fn failed(error: &anyhow::Error) -> ExitCode {
    Explanation::of(error).print();
    ExitCode::FAILURE
}

fn invalid(faults: &[config::Fault]) -> ExitCode {
    for fault in faults {
        eprintln!("error: {}", one_line(&fault.to_string()));
    }
    if let Some(fault) = faults.first() {
        eprintln!("hint: {}", fault.hint());
    }
    ExitCode::from(INVALID_CONFIGURATION)
}

/// How a sub-command finds its engines.
enum Engines<'a> {
    /// It starts them, needs none, or is a service whose configuration names them.
    Own,
    /// Through a configuration, or in a running `up`: in the named directory or the default one.
    Found(Option<&'a Path>),
}

impl Command {
    /// Whether this runs until it is stopped, and writes logs.
    fn is_service(&self) -> bool {
        match self {
            Self::Up(_) | Self::Bridge | Self::Load | Self::Serve => true,
            Self::Monitor(arguments) => !arguments.once,
            _ => false,
        }
    }

    /// How this sub-command finds its engines.
    fn engines(&self) -> Engines<'_> {
        let beside = match self {
            Self::Check(arguments) if !arguments.connect && arguments.beside.data_dir.is_none() => return Engines::Own,
            Self::Monitor(arguments) if !arguments.once && arguments.beside.data_dir.is_none() => return Engines::Own,
            Self::Up(_)
            | Self::Bridge
            | Self::Load
            | Self::Serve
            | Self::Grants(_)
            | Self::Calc(_)
            | Self::Certs(_)
            | Self::Token(_) => return Engines::Own,
            Self::Simulate(arguments) => return Engines::Found(arguments.up_data_dir.as_deref()),
            Self::Check(arguments) => &arguments.beside,
            Self::Monitor(arguments) => &arguments.beside,
            Self::Migrate(arguments) => &arguments.beside,
            Self::Reconcile(arguments) => &arguments.beside,
            Self::Rebuild(arguments) => &arguments.beside,
            Self::GiveUp(arguments) => &arguments.beside,
            Self::Devices(arguments) => &arguments.beside,
            Self::Quarantine(arguments) => &arguments.beside,
            Self::Alerts(arguments) => &arguments.beside,
            Self::Trace(arguments) => &arguments.beside,
            Self::Impact(arguments) => &arguments.beside,
            Self::Incident(arguments) => &arguments.beside,
            Self::Audit(arguments) => &arguments.beside,
        };
        Engines::Found(beside.data_dir.as_deref())
    }
}

fn run(command: Command, config: Config) -> anyhow::Result<ExitCode> {
    let runtime = runtime(&command)?;
    let outcome = runtime.block_on(async {
        match command {
            Command::Up(arguments) => up::run(arguments, config).await,
            Command::Bridge => roles::bridge(config).await,
            Command::Load => roles::load(config).await,
            Command::Serve => roles::serve(config).await,
            Command::Monitor(arguments) => monitor::run(arguments, config).await,
            Command::Simulate(arguments) => simulate::run(arguments, config).await,
            Command::Migrate(_) => migrate::run(config).await,
            Command::Check(arguments) => {
                let mut faults = config.unusable_files();
                faults.extend(config.exposed_dashboard());
                if faults.is_empty() { check::run(arguments, config).await } else { Ok(invalid(&faults)) }
            }
            Command::Reconcile(arguments) => reconcile::run(arguments, config).await,
            Command::Rebuild(arguments) => rebuild::run(arguments, config).await,
            Command::GiveUp(arguments) => give_up::run(arguments, config).await,
            Command::Devices(arguments) => devices::run(arguments, config).await,
            Command::Quarantine(arguments) => quarantine::run(arguments, config).await,
            Command::Alerts(arguments) => alerts::run(arguments, config).await,
            Command::Trace(arguments) => trace::run(arguments, config).await,
            Command::Impact(arguments) => impact::run(arguments, config).await,
            Command::Incident(arguments) => incident::run(arguments, config).await,
            Command::Token(arguments) => token::run(arguments, &config),
            Command::Grants(arguments) => grants::run(arguments, config).await,
            Command::Audit(arguments) => audit::run(arguments, config).await,
            Command::Calc(arguments) => Ok(calc::run(arguments)),
            Command::Certs(arguments) => certs::run(arguments),
        }
    });
    // A blocking call into an engine must not delay the end of the process.
    runtime.shutdown_background();
    outcome
}

/// Builds the runtime. Messages reach the bridge one by one, and waking a thread costs more than
/// handling a message. So one thread runs all tasks of the bridge, and it sleeps for a moment when
/// it has nothing to do. It then takes everything that has arrived meanwhile, messages and
/// confirmations. It does not sleep while there is work.
fn runtime(command: &Command) -> std::io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if matches!(command, Command::Bridge) {
        builder.worker_threads(1).on_thread_park(|| std::thread::sleep(BRIDGE_REST));
    }
    builder.enable_all().build()
}

fn log(config: &Config) -> Result<(), config::Fault> {
    let filter = EnvFilter::try_new(&config.log.filter).map_err(|error| config::Fault {
        origin: "configuration".to_owned(),
        key: "log.filter".to_owned(),
        text: format!("{:?}: {error}; write levels by target, e.g. info,bridge=debug", config.log.filter),
    })?;
    let stderr = std::io::stderr;
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_ansi(stderr().is_terminal());
    match config.log.format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().init(),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn flags_do_not_clash() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_data_directory_means_the_running_up_and_to_the_simulator_its_outboxes() {
        let engines = |arguments: &[&str]| {
            let cli = Cli::try_parse_from([&["doseline"], arguments].concat()).unwrap();
            match cli.command.engines() {
                Engines::Own => None,
                Engines::Found(data_dir) => Some(data_dir.map(|path| path.display().to_string())),
            }
        };
        let named = Some(Some("d".to_owned()));
        assert_eq!(engines(&["alerts", "list", "--data-dir", "d"]), named);
        assert_eq!(engines(&["alerts", "--data-dir", "d", "list"]), named);
        assert_eq!(engines(&["check", "--connect"]), Some(None));
        assert_eq!(engines(&["check", "--data-dir", "d"]), named);
        assert_eq!(engines(&["check"]), None, "nothing is connected");
        assert_eq!(engines(&["simulate", "--data-dir", "d"]), Some(None));
        assert_eq!(engines(&["simulate", "--up-data-dir", "d"]), named);
        assert_eq!(engines(&["monitor", "--once"]), Some(None));
        assert_eq!(engines(&["monitor"]), None);
        assert_eq!(engines(&["up", "--data-dir", "d"]), None);
    }
}
