//! `doseline up`: everything on one machine, in this process, and the MQTT broker in a process of
//! its own. The engines start first, then the schema is applied, then the roles start. When all of
//! them serve, one ready line is printed. At the end, producers stop before consumers.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Args;
use embedded::{clickhouse, kafka, mosquitto};
use service::{health::Obstacle, role_faults::RoleFaults, secret::Secret};
use tokio::time::Instant;
use warehouse::{Warehouse, loader::Shard};

use crate::{
    broker,
    config::{Config, LogFormat},
    group::{Group, STOP_WITHIN, stopped_by_signal},
    hint::{Hint as _, fault},
    migrate, options, ports, roles, running, simulate,
    supervise::supervise_from,
    upkeep::{self, Rounds},
    writer,
};

/// Below this much free space everything stops, while the engines can still write what they must.
const FREE_BYTES_MIN: u64 = 256 * 1024 * 1024;
/// How often free space is checked.
const FREE_BYTES_INTERVAL: Duration = Duration::from_secs(2);
/// How long the broker may be away before `/readyz` of the bridge fails. A broker that ends is
/// started again within a second.
const BROKER_AWAY: Duration = Duration::from_secs(5);
/// Longest wait until bridge and loader serve.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Longest wait for the first pass of the monitor after that. Reports are taken in the meantime.
const FIRST_PASS_WITHIN: Duration = Duration::from_secs(20);
/// Pause between two looks at the readiness of a role.
const READY_LOOK: Duration = Duration::from_millis(20);

/// Flags of `doseline up`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  doseline up
  doseline up --simulate 25
  doseline up --data-dir /var/lib/doseline --http-port 0

When every role serves, one line is printed on stdout:
  ready mqtt=HOST:PORT kafka=HOST:PORT clickhouse=http://HOST:PORT dashboard=http://HOST:PORT
Logs go to stderr. Ctrl-C stops it. The next start continues with the same data.

While it serves, other sub-commands find it without any configuration: its addresses are in
running.json in the data directory. From another working directory, name that:
  doseline alerts list --data-dir DIR")]
pub struct Arguments {
    /// Where all data is kept
    #[arg(long, value_name = "DIR", default_value = "./doseline-data")]
    data_dir: PathBuf,
    /// Port of the MQTT broker; 0 = any free port
    #[arg(long, value_name = "PORT", default_value_t = 1883)]
    mqtt_port: u16,
    /// Address the MQTT broker listens on. It asks for no password: outside of the loopback
    /// interface anybody may publish
    #[arg(long, value_name = "ADDRESS", default_value_t = Ipv4Addr::LOCALHOST.into())]
    mqtt_bind: IpAddr,
    /// Port of the embedded Kafka log; 0 = any free port
    #[arg(long, value_name = "PORT", default_value_t = 9092)]
    kafka_port: u16,
    /// Port of the embedded ClickHouse's HTTP interface; 0 = any free port
    #[arg(long, value_name = "PORT", default_value_t = 8123)]
    clickhouse_port: u16,
    /// Port of the dashboard; 0 = any free port
    #[arg(long, value_name = "PORT", default_value_t = 9600)]
    http_port: u16,
    /// Number of simulated devices. The fleet has four weeks of past data with planted faults, then
    /// runs live
    #[arg(long, value_name = "N", default_value_t = 0)]
    simulate: u32,
    /// The MQTT broker, Mosquitto 2.0 or newer. Default: the first one in PATH, /usr/sbin or
    /// /usr/local/sbin
    #[arg(long, value_name = "FILE", env = "DOSELINE_MOSQUITTO")]
    mosquitto: Option<PathBuf>,
    /// ClickHouse as a library (libchdb.so). Default: the one in the cache folder of `cargo xtask`
    #[arg(long, value_name = "FILE", env = "DOSELINE_LIBCHDB")]
    libchdb: Option<PathBuf>,
}

/// How much later than its child processes this process may receive a signal.
const SIGNAL_WITHIN: Duration = Duration::from_millis(100);

/// Runs until a signal, a failure or a full disk.
pub async fn run(arguments: Arguments, config: Config) -> anyhow::Result<ExitCode> {
    let stop = stopped_by_signal()?;
    // Before anything is opened, so that the broker begins with the raised limit.
    let files = service::files::limit();
    tracing::debug!(files, "files that may be open");
    // Only this user may read the files of this process and of its broker.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    room_to_start(&arguments.data_dir)?;
    let _lock = running::lock(&arguments.data_dir)?;
    let mut machine =
        Machine { engines: Group::new(), behind_kafka: Group::new(), bridge: Group::new(), fleet: Group::new() };
    let outcome = tokio::select! {
        () = stop.cancelled() => Ok(()),
        outcome = machine.serve(&arguments, config) => outcome,
        failure = disk_full(&arguments.data_dir) => Err(failure),
    };
    // A signal to the whole process group also ends the child processes of a start. The start may
    // then fail a moment before this process receives the signal.
    let was_stopped = outcome.is_err() && tokio::time::timeout(SIGNAL_WITHIN, stop.cancelled()).await.is_ok();
    let outcome = if was_stopped { Ok(()) } else { outcome };
    let stopped = machine.stop(Instant::now() + STOP_WITHIN).await;
    outcome.and(stopped).map(|()| ExitCode::SUCCESS)
}

/// Everything that runs, in the order of its start.
struct Machine {
    engines: Group,
    /// The roles that read what Kafka holds: loader, monitor, dashboard.
    behind_kafka: Group,
    bridge: Group,
    fleet: Group,
}

impl Machine {
    /// Starts everything and returns only when something fails.
    async fn serve(&mut self, arguments: &Arguments, mut config: Config) -> anyhow::Result<()> {
        let started = Instant::now();
        broker::wait_for_predecessor(&arguments.data_dir).await?;
        ports::check(&[
            (ports::MQTT, SocketAddr::from((arguments.mqtt_bind, arguments.mqtt_port))),
            ("--kafka-port", loopback(arguments.kafka_port)),
            ("--clickhouse-port", loopback(arguments.clickhouse_port)),
            ("--http-port", loopback(arguments.http_port)),
        ])
        .await?;
        let (addresses, ends, broker) = self.start_engines(arguments, &mut config).await?;
        migrate::apply(&config).await.context("prepare tables and topics")?;
        compare_positions(&options::warehouse(&config)?, &ends).await?;
        if arguments.simulate > 0 {
            let warehouse = options::warehouse(&config)?;
            simulate::register_models(&warehouse).await.context("register the simulated models")?;
        }
        let dashboard = self.start_roles(arguments, &config, broker).await?;
        tracing::info!(seconds = format!("{:.1}", started.elapsed().as_secs_f64()), "everything serves");
        let _written = running::write(&arguments.data_dir, &config, &dashboard)?;
        let Addresses { mqtt, kafka, clickhouse } = addresses;
        println!("ready mqtt={mqtt} kafka={kafka} clickhouse=http://{clickhouse} dashboard={dashboard}");
        if config.log.format == LogFormat::Text {
            let program = std::env::current_exe().unwrap_or_else(|_| "doseline".into());
            eprint!("{}", welcome(clickhouse, &dashboard, &program, &arguments.data_dir));
        }
        if arguments.simulate > 0 {
            let fleet = simulate::demo(&config, arguments.simulate, arguments.data_dir.join("simulator"))?;
            let shutdown = self.fleet.shutdown();
            self.fleet.spawn("simulator", async { device::simulate::run(fleet, shutdown).await.map(drop) });
        }
        Err(self.failure().await)
    }

    async fn start_engines(
        &mut self,
        arguments: &Arguments,
        config: &mut Config,
    ) -> anyhow::Result<(Addresses, Vec<kafka::End>, mosquitto::Status)> {
        let data_dir = &arguments.data_dir;
        let shutdown = self.engines.shutdown();
        let library = library(arguments.libchdb.as_deref())?;
        let program = mosquitto::find(arguments.mosquitto.as_deref())?;
        tracing::info!(data_dir = %data_dir.display(), "starting the engines");

        let kafka = kafka::Options::new(data_dir, loopback(arguments.kafka_port));
        let kafka = kafka::start(kafka, shutdown.clone()).await.context("start the Kafka log (--kafka-port)")?;
        let (kafka_address, ends) = (kafka.address(), kafka.ends().to_vec());
        self.engines.spawn("Kafka log", kafka.join());
        config.bridge.client_id = broker::client_id(data_dir, &config.bridge.client_id)?;
        let mqtt = SocketAddr::from((arguments.mqtt_bind, arguments.mqtt_port));
        let mqtt = broker::start(data_dir, mqtt, program, &bridge_options(config)?, shutdown.clone()).await?;
        let (mqtt_address, broker) = (reachable(mqtt.address()), mqtt.status());
        self.engines.spawn("MQTT broker", async { mqtt.join().await.map(drop) });
        let password = new_password();
        let listen = loopback(arguments.clickhouse_port);
        let mut clickhouse = clickhouse::Options::new(data_dir.join("clickhouse"), listen, library, password.as_str());
        clickhouse.names.clone_from(&config.http.names);
        let clickhouse =
            clickhouse::start(clickhouse, shutdown).await.context("start ClickHouse (--clickhouse-port)")?;
        let addresses = Addresses { mqtt: mqtt_address, kafka: kafka_address, clickhouse: clickhouse.address() };
        self.engines.spawn("ClickHouse", clickhouse.join());
        config.mqtt.host = addresses.mqtt.ip().to_string();
        config.mqtt.port = addresses.mqtt.port();
        config.kafka.brokers = vec![addresses.kafka.to_string()];
        config.clickhouse.url = format!("http://{}", addresses.clickhouse);
        config.clickhouse.username = clickhouse::OWNER.to_owned();
        (config.clickhouse.password, config.clickhouse.password_file) = (Some(Secret::new(password)), None);
        Ok((addresses, ends, broker))
    }

    async fn start_roles(
        &mut self,
        arguments: &Arguments,
        config: &Config,
        broker: mosquitto::Status,
    ) -> anyhow::Result<String> {
        let warehouse = options::warehouse(config)?;
        // Several `up` may run on one machine, so only ports that a user names are fixed.
        let anywhere = Some(loopback(0));
        let load = load::Options { http: anywhere, ..options::load(config)? };
        let (load_handle, load_http) = roles::start_load(&mut self.behind_kafka, config, load, &warehouse).await?;
        let rounds =
            Rounds::new("enrolment", upkeep::ENROL_EVERY, self.behind_kafka.shutdown()).reported_to(&load_handle);
        self.behind_kafka.spawn("enrolment", upkeep::enrol(warehouse.clone(), rounds));

        // Nothing depends on monitor and dashboard: what they show is in the warehouse, and stays
        // there.
        let (faults, shutdown) = (RoleFaults::default(), self.behind_kafka.shutdown());
        let options = monitor::Options { http: anywhere, ..options::monitor(config)? };
        let monitor = monitor::Monitor::bind(options.clone(), warehouse.clone()).await?;
        let (monitor_handle, monitor_http) = (monitor.handle(), monitor.http_address());
        let options = monitor::Options { http: monitor_http, ..options };
        let (again, stop) = (warehouse.clone(), shutdown.clone());
        let bind = move || monitor::Monitor::bind(options.clone(), again.clone());
        let run = move |monitor: monitor::Monitor| monitor.run(stop.clone());
        self.behind_kafka
            .spawn("monitor", supervise_from("monitor", faults.clone(), shutdown.clone(), monitor, bind, run));

        let writer = writer::start(&mut self.behind_kafka, config, &warehouse);
        let options = options::dashboard(config, loopback(arguments.http_port), faults.clone(), writer);
        let dashboard = dashboard::Dashboard::bind(options.clone(), warehouse.clone()).await?;
        let (address, url) = (dashboard.address(), dashboard.url());
        let options = dashboard::Options { listen: address, ..options };
        let (again, stop) = (warehouse, shutdown.clone());
        let bind = move || dashboard::Dashboard::bind(options.clone(), again.clone());
        let run = move |dashboard: dashboard::Dashboard| dashboard.run(stop.clone());
        self.behind_kafka
            .spawn("dashboard", supervise_from("dashboard", faults.clone(), shutdown, dashboard, bind, run));

        let bridge = bridge::Options { http: anywhere, ..bridge_options(config)? };
        let bridge_handle = roles::start_bridge(&mut self.bridge, config, bridge)?;
        let rounds = Rounds::new("broker watch", upkeep::BROKER_EVERY, self.bridge.shutdown());
        self.bridge.spawn("broker watch", upkeep::count_restarts(broker, bridge_handle.clone(), rounds));

        self.until_ready(&bridge_handle, &load_handle).await?;
        self.until_judged(&monitor_handle, &faults).await?;
        for (role, http) in [("bridge", bridge_handle.http()), ("load", load_http), ("monitor", monitor_http)] {
            if let Some(http) = http {
                tracing::info!(role, metrics = format!("http://{http}/metrics"), "role serves");
            }
        }
        Ok(url)
    }

    /// Waits until bridge and loader serve.
    async fn until_ready(&mut self, bridge: &bridge::Handle, load: &load::Handle) -> anyhow::Result<()> {
        let ready = async {
            bridge.ready().await;
            while !load.readiness().ready {
                tokio::time::sleep(READY_LOOK).await;
            }
        };
        tokio::select! {
            () = ready => Ok(()),
            failure = self.failure() => Err(failure),
            () = tokio::time::sleep(READY_WITHIN) => {
                let obstacles = bridge.readiness().obstacles.into_iter().chain(load.readiness().obstacles);
                let obstacles: Vec<_> = obstacles.map(|Obstacle { part, reason }| format!("{part}: {reason}")).collect();
                bail!("not ready within {READY_WITHIN:?}: {}", obstacles.join("; "))
            }
        }
    }

    /// Waits for the monitor's first pass, for a while: the monitor may have much to read, or fail,
    /// and neither must keep reports from being taken.
    async fn until_judged(&mut self, monitor: &monitor::Handle, faults: &RoleFaults) -> anyhow::Result<()> {
        let judged = async {
            while !monitor.readiness().ready && faults.lines().is_empty() {
                tokio::time::sleep(READY_LOOK).await;
            }
        };
        tokio::select! {
            () = judged => {}
            failure = self.failure() => return Err(failure),
            () = tokio::time::sleep(FIRST_PASS_WITHIN) => {
                tracing::warn!("the monitor has not finished its first pass yet");
            }
        }
        Ok(())
    }

    /// Waits for the first task of any group to end by itself.
    async fn failure(&mut self) -> anyhow::Error {
        tokio::select! {
            failure = self.engines.failure() => failure,
            failure = self.behind_kafka.failure() => failure,
            failure = self.bridge.failure() => failure,
            failure = self.fleet.failure() => failure,
        }
    }

    /// Ends everything, producers first.
    async fn stop(self, deadline: Instant) -> anyhow::Result<()> {
        let Self { engines, behind_kafka, bridge, fleet } = self;
        // The engines need the rest of the time.
        let roles = deadline - Duration::from_millis(1_500);
        let fleet = fleet.stop(roles).await;
        let bridge = bridge.stop(roles).await;
        let behind_kafka = behind_kafka.stop(roles).await;
        fleet.and(bridge).and(behind_kafka).and(engines.stop(deadline).await)
    }
}

struct Addresses {
    mqtt: SocketAddr,
    kafka: SocketAddr,
    clickhouse: SocketAddr,
}

/// The bridge beside its broker: the broker keeps its session however long nothing runs, and
/// `/readyz` of the bridge soon says that the broker is away.
fn bridge_options(config: &Config) -> anyhow::Result<bridge::Options> {
    let mut options = options::bridge(config)?;
    options.mqtt.session_expiry = broker::SESSION_KEPT;
    options.limits.disconnected = BROKER_AWAY;
    Ok(options)
}

/// The address under which this process reaches a listener. A listener on every address is reached
/// on the loopback interface.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => loopback(address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::from((Ipv6Addr::LOCALHOST, address.port())),
        _ => address,
    }
}

/// A text for the first start: the address of the page, a command to try next, and how to stop.
fn welcome(clickhouse: SocketAddr, dashboard: &str, program: &Path, data_dir: &Path) -> String {
    let (program, data_dir) = (program.display(), data_dir.display());
    format!(
        "page: {dashboard}\n\
         try next: {program} alerts list --data-dir {data_dir} \
         (or: curl 'http://{clickhouse}/' -d 'SELECT * FROM doseline.open_alerts FORMAT Vertical')\n\
         stop: Ctrl-C; the data stay in {data_dir}, and the next start goes on from there\n"
    )
}

/// The password of the roles in ClickHouse, new at each start. Commands read it in the data
/// directory.
fn new_password() -> String {
    format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>())
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// The path of ClickHouse as a library: the named file, or the newest in the cache folder.
fn library(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = named {
        if !path.is_file() {
            let text = format!("--libchdb {}: no such file", path.display());
            return Err(fault(text, "name an existing libchdb.so; `cargo xtask engines` fetches one"));
        }
        return Ok(path.to_owned());
    }
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set")
        .hint("name libchdb.so with --libchdb")?;
    let engines = cache.join("doseline/engines");
    let found = fs::read_dir(&engines).into_iter().flatten().flatten().map(|entry| entry.path().join("libchdb.so"));
    found
        .filter(|path| path.is_file())
        .max()
        .with_context(|| format!("no libchdb.so in {}", engines.display()))
        .hint("`cargo xtask engines` fetches it, or name it with --libchdb")
}

/// Compares how far the loader has read, according to ClickHouse, with the ends of the Kafka log,
/// before the bridge writes. A batch that was begun and not committed counts as read. If the log
/// has lost records, a new record would get the offset of a lost one, and the loader would skip it.
async fn compare_positions(warehouse: &Warehouse, ends: &[kafka::End]) -> anyhow::Result<()> {
    let incarnations = warehouse.topic_incarnations().await.context("read the positions of the loader")?;
    for end in ends {
        let incarnation = incarnations
            .iter()
            .filter(|incarnation| incarnation.topic == end.topic)
            .max_by_key(|incarnation| incarnation.incarnation);
        let Some(incarnation) = incarnation else { continue };
        let shard = Shard { incarnation: incarnation.incarnation, partition: end.partition };
        let progress = warehouse.progress(shard).await.context("read the positions of the loader")?;
        // A closed shard has an end that no log reaches.
        let read_end = progress.read_end().and_then(|end| i64::try_from(end).ok());
        if let Some(read_end) = read_end.filter(|read_end| *read_end > end.offset) {
            return Err(end.behind("the loader", read_end).into());
        }
    }
    Ok(())
}

/// Checks free space before anything is opened: an engine that starts on a full disk fails late and
/// leaves incomplete files.
fn room_to_start(data_dir: &Path) -> anyhow::Result<()> {
    let there = data_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    match clickhouse::free_bytes(there) {
        Ok(free) if free < FREE_BYTES_MIN => {
            let (free, least) = (free >> 20, FREE_BYTES_MIN >> 20);
            let text =
                format!("only {free} MiB are free in {}, and {least} MiB are needed to start", data_dir.display());
            Err(fault(text, "free some space, or choose another directory with --data-dir; nothing was opened"))
        }
        // If the directory cannot be read, the step that opens it reports that.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Waits until the disk is nearly full.
async fn disk_full(data_dir: &Path) -> anyhow::Error {
    loop {
        match clickhouse::free_bytes(data_dir) {
            Ok(free) if free < FREE_BYTES_MIN => {
                let text = format!(
                    "only {} MiB are free in {}: everything was stopped before the disk was full",
                    free >> 20,
                    data_dir.display()
                );
                return fault(text, "free some space and start again; nothing is lost");
            }
            Ok(_) => {}
            Err(error) => return anyhow::Error::new(error).context(format!("look at {}", data_dir.display())),
        }
        tokio::time::sleep(FREE_BYTES_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_welcome_is_three_lines_with_the_addresses_and_the_folder_of_this_run() {
        let text =
            welcome(loopback(18123), "http://127.0.0.1:19600", Path::new("target/doseline"), Path::new("./trial"));
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "page: http://127.0.0.1:19600",
                "try next: target/doseline alerts list --data-dir ./trial \
                 (or: curl 'http://127.0.0.1:18123/' -d 'SELECT * FROM doseline.open_alerts FORMAT Vertical')",
                "stop: Ctrl-C; the data stay in ./trial, and the next start goes on from there",
            ]
        );
    }
}
