//! `doseline`: the one binary. It reads configuration, wires the roles together, handles signals and offers the
//! sub-commands.
//!
//! Absent: everything the roles do; that is in their crates, which never see each other.
//!
//! Exit codes: 0 done, 1 failed or a difference found, 2 wrong usage, 64 invalid configuration.

mod alerts;
mod broker;
mod calc;
mod check;
mod config;
mod devices;
mod group;
mod impact;
mod incident;
mod migrate;
mod monitor;
mod options;
mod progress;
mod quarantine;
mod rebuild;
mod reconcile;
mod roles;
mod simulate;
mod trace;
mod up;
mod upkeep;

use std::{io::IsTerminal as _, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

/// Decoded reports and texts of columns are many small pieces, made and given back again and again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the bridge's thread rests before it waits for the next message.
const BRIDGE_REST: Duration = Duration::from_millis(5);

/// Exit code of an invalid configuration (`EX_USAGE` of sysexits.h).
const INVALID_CONFIGURATION: u8 = 64;

#[derive(Parser)]
#[command(name = "doseline", version, about, long_about = None, arg_required_else_help = true, after_help = HELP)]
struct Cli {
    /// Configuration file (TOML). Environment variables DOSELINE__SECTION__KEY and flags win over it
    #[arg(long, global = true, value_name = "FILE", env = "DOSELINE_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

const HELP: &str = "\
Examples:
  doseline up --simulate 25                       everything on this machine, with 25 simulated devices
  doseline check --config services.toml           is the configuration right? (no network)
  doseline migrate --config services.toml         create or upgrade tables and topics
  doseline bridge --config services.toml          MQTT to Kafka
  doseline load --config services.toml            Kafka to ClickHouse
  doseline monitor --config services.toml         verdicts and alerts
  doseline serve --config services.toml           dashboard
  doseline quarantine list --config services.toml what could not be used, and why
  doseline trace --item hp-0017                   where has it been, and on whom
  doseline impact --calibration cal-2026-0117     which injections does it put in question
  doseline calc saturation --kpa 313              a formula on numbers of your own
  doseline reconcile --config services.toml       is everything there, once?

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
    /// Run the role that judges: verdicts and alerts
    Monitor(monitor::Arguments),
    /// Run the dashboard
    #[command(after_help = "Example:\n  doseline serve --config services.toml")]
    Serve,
    /// Run a fleet of simulated devices against the configured MQTT broker
    Simulate(simulate::Arguments),
    /// Create or upgrade the ClickHouse tables and the Kafka topics
    #[command(
        after_help = "Example:\n  doseline migrate --config services.toml\n\nCan be run again at any time; what is there stays."
    )]
    Migrate,
    /// Validate the configuration, and with --connect try each connection
    Check(check::Arguments),
    /// Compare what devices say, Kafka, tables and sums; name every difference
    Reconcile(reconcile::Arguments),
    /// Make a closed ingest day again from Kafka, compare, and swap it in
    Rebuild(rebuild::Arguments),
    /// Keep the registry of devices
    Devices(devices::Arguments),
    /// Work through what could not be used: list, show, replay, purge
    Quarantine(quarantine::Arguments),
    /// Show open alerts, and acknowledge them
    Alerts(alerts::Arguments),
    /// Follow the links of sterility, both ways
    Trace(trace::Arguments),
    /// List the injections that a failed calibration puts in question
    Impact(impact::Arguments),
    /// Record what people report, and list it
    Incident(incident::Arguments),
    /// Every formula on numbers of your own: JSON on standard input or flags in, JSON out
    Calc(calc::Arguments),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return calc::usage(&error),
    };
    // Arithmetic needs no configuration, and a wrong one must not stand in its way.
    if let Command::Calc(arguments) = cli.command {
        return calc::run(arguments);
    }
    let config = match config::load(cli.config.as_deref(), matches!(cli.command, Command::Up(_))) {
        Ok(config) => config,
        Err(faults) => {
            for fault in faults {
                eprintln!("invalid configuration: {fault}");
            }
            return ExitCode::from(INVALID_CONFIGURATION);
        }
    };
    if let Err(error) = log(&config) {
        eprintln!("invalid configuration: log.filter {:?}: {error:#}", config.log.filter);
        return ExitCode::from(INVALID_CONFIGURATION);
    }
    match run(cli.command, config) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
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
            Command::Migrate => migrate::run(config).await,
            Command::Check(arguments) => check::run(arguments, config).await,
            Command::Reconcile(arguments) => reconcile::run(arguments, config).await,
            Command::Rebuild(arguments) => rebuild::run(arguments, config).await,
            Command::Devices(arguments) => devices::run(arguments, config).await,
            Command::Quarantine(arguments) => quarantine::run(arguments, config).await,
            Command::Alerts(arguments) => alerts::run(arguments, config).await,
            Command::Trace(arguments) => trace::run(arguments, config).await,
            Command::Impact(arguments) => impact::run(arguments, config).await,
            Command::Incident(arguments) => incident::run(arguments, config).await,
            Command::Calc(arguments) => Ok(calc::run(arguments)),
        }
    });
    // A blocking call into an engine must not hold up the end.
    runtime.shutdown_background();
    outcome
}

/// Messages reach the bridge one by one, and waking a thread costs more than a message does. So one thread has all of the
/// bridge's tasks, and once it has nothing left to do it rests: what comes meanwhile, messages and confirmations alike, is
/// taken at once. While there is work it does not rest.
fn runtime(command: &Command) -> std::io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if matches!(command, Command::Bridge) {
        builder.worker_threads(1).on_thread_park(|| std::thread::sleep(BRIDGE_REST));
    }
    builder.enable_all().build()
}

fn log(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log.filter)?;
    let stderr = std::io::stderr;
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_ansi(stderr().is_terminal());
    match config.log.format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().init(),
    }
    Ok(())
}
