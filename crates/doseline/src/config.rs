//! Configuration: defaults < file < environment `DOSELINE__SECTION__KEY` < flags, then
//! [`Config::faults`].
//!
//! Every field's comment says what changes when it is turned. `docs/configuration.md` is the same
//! as a table; a test keeps both in step.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use figment::{
    Figment,
    providers::{Env, Format as _, Serialized, Toml},
};
use serde::{Deserialize, Serialize};
use telemetry::{device_time, plausibility::Plausibility, topic::is_id};

/// Prefix of environment variables; sections and keys are separated by two underscores.
pub const ENV_PREFIX: &str = "DOSELINE__";

/// Everything that can be configured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What is logged, and how.
    pub log: Log,
    /// The MQTT broker.
    pub mqtt: Mqtt,
    /// The Kafka cluster.
    pub kafka: Kafka,
    /// The ClickHouse server.
    pub clickhouse: ClickHouse,
    /// The MQTT to Kafka role.
    pub bridge: Bridge,
    /// The Kafka to ClickHouse role.
    pub load: Load,
    /// The role that judges.
    pub monitor: Monitor,
    /// The dashboard role.
    pub serve: Serve,
    /// Every HTTP port.
    pub http: Http,
    /// Limits of the quarantine.
    pub quarantine: Quarantine,
    /// What a device's clock may show.
    pub device_time: device_time::Limits,
    /// Plausible ranges by device model; a model that is not named has the widest.
    pub plausibility: Plausibility,
}

/// `[log]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `text` for people, `json` for collectors.
    pub format: LogFormat,
    /// Levels by target, e.g. `info,bridge=debug`; more detail costs CPU.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".to_owned() }
    }
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line a message.
    Text,
    /// One JSON object a message.
    Json,
}

/// `[mqtt]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mqtt {
    /// Host name or address of the broker.
    pub host: String,
    /// Its port: 1883, or 8883 with `[mqtt.tls]`.
    pub port: u16,
    /// User name, where the broker asks for one.
    pub username: Option<String>,
    /// Password; better in `password_file` or `DOSELINE__MQTT__PASSWORD`.
    pub password: Option<Secret>,
    /// File whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// TLS; absent = plain TCP.
    pub tls: Option<Tls>,
}

impl Default for Mqtt {
    fn default() -> Self {
        Self {
            host: "localhost".to_owned(),
            port: 1883,
            username: None,
            password: None,
            password_file: None,
            tls: None,
        }
    }
}

/// `[mqtt.tls]` and `[kafka.tls]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the authorities that sign the broker's certificate.
    pub ca: PathBuf,
    /// PEM file of our certificate, for mutual TLS.
    pub certificate: Option<PathBuf>,
    /// PEM file of its key.
    pub key: Option<PathBuf>,
}

/// `[kafka]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kafka {
    /// `host:port` of at least one broker.
    pub brokers: Vec<String>,
    /// Partitions of each topic; fixed once `migrate` has created them. More = more loaders side by
    /// side.
    pub partitions: u32,
    /// Copies of each partition; 3 survives the loss of a broker.
    pub replication: u32,
    /// Copies that must confirm a record before a device gets its receipt; 2 with replication 3.
    pub min_insync_replicas: u32,
    /// Days Kafka keeps records; at least 7, because Kafka is the only copy until the loader has
    /// written.
    pub retention_days: u32,
    /// TLS; absent = plain TCP.
    pub tls: Option<Tls>,
    /// SASL user and password; absent = none.
    pub sasl: Option<Sasl>,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: vec!["localhost:9092".to_owned()],
            partitions: 12,
            replication: 3,
            min_insync_replicas: 2,
            retention_days: 7,
            tls: None,
            sasl: None,
        }
    }
}

/// `[kafka.sasl]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sasl {
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub mechanism: String,
    /// User name.
    pub username: String,
    /// Password; better in `password_file` or `DOSELINE__KAFKA__SASL__PASSWORD`.
    pub password: Option<Secret>,
    /// File whose first line is the password.
    pub password_file: Option<PathBuf>,
}

/// `[clickhouse]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClickHouse {
    /// Address of the HTTP interface.
    pub url: String,
    /// User name.
    pub username: String,
    /// Password; better in `password_file` or `DOSELINE__CLICKHOUSE__PASSWORD`.
    pub password: Option<Secret>,
    /// File whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// Whether `migrate` makes ClickHouse sync each insert to disk: survives power loss, costs
    /// write latency.
    pub fsync: bool,
}

impl Default for ClickHouse {
    fn default() -> Self {
        Self {
            url: "http://localhost:8123".to_owned(),
            username: "default".to_owned(),
            password: None,
            password_file: None,
            fsync: true,
        }
    }
}

/// `[bridge]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bridge {
    /// Address of `/livez`, `/readyz` and `/metrics`.
    pub http: SocketAddr,
    /// MQTT client id of this instance; each instance needs its own, and must keep it across
    /// restarts.
    pub client_id: String,
    /// Connections to the broker; each acknowledges in order, so a stalled partition stalls fewer
    /// devices with more. More than one needs a `share_group`.
    pub connections: u16,
    /// Group of a shared subscription; instances and connections of one group share the load.
    /// Without one the subscription is plain: right for one bridge with one connection, and kept by
    /// Mosquitto over a restart, which forgets shared ones.
    pub share_group: Option<String>,
    /// Messages the broker may send ahead of our acknowledgement, for each connection.
    pub receive_maximum: u16,
    /// How long the broker keeps our session while we are away, s.
    pub session_expiry_s: u32,
    /// Whether devices get receipts; off for devices that do not listen to any.
    pub receipts: bool,
    /// Unconfirmed payloads kept in memory, MiB; at the limit the broker is slowed.
    pub in_flight_mib: u32,
    /// Age of the oldest unconfirmed message at which `/readyz` fails, s.
    pub unconfirmed_age_max_s: u32,
    /// `keep` takes and flags reports of devices that nobody registered; `policy` asks the registry
    /// in ClickHouse, and quarantines them where the tenant's policy says so.
    pub unknown_devices: UnknownDevices,
}

impl Default for Bridge {
    fn default() -> Self {
        Self {
            http: SocketAddr::from(([127, 0, 0, 1], 9601)),
            client_id: "doseline-bridge-1".to_owned(),
            connections: 1,
            share_group: None,
            receive_maximum: 4_000,
            session_expiry_s: 86_400,
            receipts: true,
            in_flight_mib: 64,
            unconfirmed_age_max_s: 30,
            unknown_devices: UnknownDevices::Keep,
        }
    }
}

/// What becomes of reports of devices that nobody registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownDevices {
    /// Kept, and flagged in `fleet`.
    Keep,
    /// As the registry's policies say, by tenant.
    Policy,
}

/// `[load]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Load {
    /// Address of `/livez`, `/readyz` and `/metrics`.
    pub http: SocketAddr,
    /// Consumer group; loaders with the same group share the partitions.
    pub group: String,
    /// A batch is written at this many rows.
    pub batch_rows_max: u32,
    /// A batch is written at this many MiB of records; also bounds memory for each partition.
    pub batch_mib_max: u32,
    /// MiB of records in memory over all partitions; at the limit polling pauses. Smaller saves
    /// memory, larger lets more partitions make large batches at once.
    pub memory_mib_max: u32,
    /// Time between two batches of a partition, ms; a record that comes after a pause is written
    /// within 50 ms. The larger, the fewer and cheaper inserts, the later the data.
    pub batch_age_ms: u32,
    /// Batches of all partitions that are written at once; those that are due meanwhile go on
    /// growing, for 2 s at most. About as many as ClickHouse has processors: more get in each
    /// other's way, fewer leave it idle.
    pub batches_max: u32,
    /// Boots whose ledgers are kept in memory, over all partitions; the others are read back when
    /// needed.
    pub ledgers_max: u32,
    /// Age of the oldest unwritten record at which `/readyz` fails, s.
    pub unwritten_age_max_s: u32,
    /// How long a batch of Kafka that cannot be read holds up its partition before it is given up
    /// and recorded in `kafka_losses`, s. Longer leaves more time to mend the broker; what follows
    /// in the partition waits meanwhile.
    pub unreadable_after_s: u32,
    /// Silence after which Kafka gives a loader's partitions to another, and a paused loader stops
    /// writing, s. Shorter = sooner taken over; Kafka's `group.min.session.timeout.ms` (6 s by
    /// default) is the least it accepts.
    pub session_timeout_s: u32,
    /// How long `/readyz` fails after Kafka was found to have deleted records that were not
    /// written, s.
    pub loss_shown_s: u32,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            http: SocketAddr::from(([127, 0, 0, 1], 9602)),
            group: "doseline-load".to_owned(),
            batch_rows_max: 150_000,
            batch_mib_max: 32,
            memory_mib_max: 64,
            batch_age_ms: 500,
            batches_max: 2,
            ledgers_max: 200_000,
            unwritten_age_max_s: 60,
            unreadable_after_s: 3_600,
            session_timeout_s: 45,
            loss_shown_s: 3_600,
        }
    }
}

/// `[monitor]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Monitor {
    /// Address of `/livez`, `/readyz` and `/metrics`.
    pub http: SocketAddr,
    /// Pause between two passes, ms: shorter sees data earlier and asks ClickHouse more often.
    pub interval_ms: u32,
    /// How long a sterilizer's data are awaited after a use, and after the use has arrived, before
    /// their absence is a breach, s: longer raises fewer alerts that later data take back, and
    /// raises them later.
    pub late_s: u32,
    /// Time without a finished pass at which `/readyz` fails, s.
    pub stalled_s: u32,
    /// Whether alerts go to Kafka (`doseline.alerts.v1`).
    pub kafka: bool,
    /// Alertmanager's `http://HOST:9093/api/v2/alerts`; none tells nobody.
    pub webhook: Option<String>,
    /// Between two repetitions of what fires, s; Alertmanager takes what is not repeated four times
    /// as resolved.
    pub webhook_repeat_s: u32,
    /// Share of a device's injections that must keep the tolerance, with 95 % confidence: more
    /// fails more devices.
    pub coverage: f64,
    /// Visits below which no device is said to fail: fewer judges sooner and on less.
    pub sessions_min: u64,
    /// Alarm budget, false alarms of a device in a year: more finds drift sooner and alarms for
    /// nothing more often.
    pub false_alarms_per_device_year: f64,
    /// Visits of a device in a day, over which the budget is split.
    pub sessions_per_day: f64,
    /// Set-point bands of a channel, over which the budget is split: as many as the model with the
    /// most has.
    pub bands: u32,
    /// How far ahead of leaving the tolerance an alert is raised, days.
    pub forecast_days: u32,
    /// Percent of what left a syringe beyond which its mass balance is off.
    pub mass_balance_pct: u32,
    /// Opening days of its site after which a device is silent.
    pub silent_days: u32,
    /// Percent below which a battery is low.
    pub battery_pct: u32,
}

impl Default for Monitor {
    fn default() -> Self {
        let limits = monitor::limits::Limits::default();
        Self {
            http: SocketAddr::from(([127, 0, 0, 1], 9603)),
            interval_ms: 2_000,
            late_s: 5,
            stalled_s: 120,
            kafka: true,
            webhook: None,
            webhook_repeat_s: 60,
            coverage: limits.coverage,
            sessions_min: limits.sessions_min,
            false_alarms_per_device_year: limits.false_alarms,
            sessions_per_day: limits.sessions_per_day,
            bands: limits.bands,
            forecast_days: limits.forecast_days,
            mass_balance_pct: limits.mass_balance_pct,
            silent_days: limits.fleet.silent_days,
            battery_pct: limits.fleet.battery_pct,
        }
    }
}

/// `[serve]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Serve {
    /// Address of the dashboard.
    pub http: SocketAddr,
}

impl Default for Serve {
    fn default() -> Self {
        Self { http: SocketAddr::from(([127, 0, 0, 1], 9600)) }
    }
}

/// `[http]`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Host names by which the HTTP ports may be called, besides their addresses and `localhost`:
    /// those of a proxy or a container. A request for another is refused.
    pub names: Vec<String>,
}

/// `[quarantine]`: at 80 % of a limit the loader warns, at 100 % it reports an error. Nothing is
/// deleted by itself.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quarantine {
    /// Rows in quarantine; at this many somebody should have looked.
    pub rows_max: u64,
    /// MiB of payloads in quarantine.
    pub mib_max: u32,
    /// Age of the oldest row, days. `quarantine purge` refuses rows that are younger.
    pub age_days_max: u32,
}

impl Default for Quarantine {
    fn default() -> Self {
        Self { rows_max: 1_000_000, mib_max: 1_024, age_days_max: 90 }
    }
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The password given, or the first line of its file.
///
/// # Errors
/// Names the file that could not be read.
pub fn secret(value: Option<&Secret>, file: Option<&Path>) -> Result<Option<Secret>, String> {
    let Some(path) = file else { return Ok(value.cloned()) };
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Some(Secret(text.lines().next().unwrap_or_default().to_owned())))
}

/// What is wrong with a configuration: where, which key, its value, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// File, `environment` or `defaults`.
    pub origin: String,
    /// `section.key`.
    pub key: String,
    /// What is wrong with the value, and what would be right.
    pub text: String,
}

impl Fault {
    /// Where a person finds what would be right.
    pub fn hint(&self) -> &'static str {
        match self.text == NO_SUCH_FILE {
            true => "name an existing file with --config, or with DOSELINE_CONFIG",
            false => "docs/configuration.md says what each key means; `doseline check` looks without starting anything",
        }
    }
}

/// What is said about a file that is not there.
const NO_SUCH_FILE: &str = "no such file";

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.is_empty() {
            true => write!(f, "{}: {}", self.origin, self.text),
            false => write!(f, "{}: {}: {}", self.origin, self.key, self.text),
        }
    }
}

/// Origin of a value that nobody set.
const DEFAULTS: &str = "defaults";

/// What `doseline up` uses where no file is named.
const SINGLE_NODE: &str = include_str!("../../../config/single-node.toml");

/// Where values come from beside the environment.
#[derive(Clone, Copy, Default)]
pub struct Sources<'a> {
    /// The file named with `--config`.
    pub file: Option<&'a Path>,
    /// Whether `config/single-node.toml` stands for a file that is not named.
    pub is_single_node: bool,
    /// Configuration of a running `doseline up`. Its engines win over everything, because a flag or
    /// the absence of any configuration has named it. The rest stands for a file that is not named,
    /// except for `[log]`, which is that process's own.
    pub running: Option<&'a Config>,
}

/// Reads defaults, file or what stands for it, and the environment, and validates them.
///
/// # Errors
/// Every fault found.
pub fn load(sources: Sources<'_>) -> Result<Config, Vec<Fault>> {
    let Sources { file, is_single_node, running } = sources;
    let mut figment = Figment::from(Serialized::defaults(Config::default()));
    if let (Some(running), None) = (running, file) {
        figment = figment.merge(Serialized::defaults(Config { log: Log::default(), ..running.clone() }));
    }
    if is_single_node && file.is_none() {
        figment = figment.merge(Toml::string(SINGLE_NODE));
    }
    if let Some(path) = file {
        if !path.is_file() {
            let text = NO_SUCH_FILE.to_owned();
            return Err(vec![Fault { origin: path.display().to_string(), key: String::new(), text }]);
        }
        figment = figment.merge(Toml::file_exact(path));
    }
    figment = figment.merge(Env::prefixed(ENV_PREFIX).split("__"));
    if let Some(Config { mqtt, kafka, clickhouse, .. }) = running {
        figment = figment
            .merge(Serialized::default("mqtt", mqtt))
            .merge(Serialized::default("kafka", kafka))
            .merge(Serialized::default("clickhouse", clickhouse));
    }
    let config: Config =
        figment.extract().map_err(|error| error.into_iter().map(|error| type_fault(&error)).collect::<Vec<_>>())?;
    let faults: Vec<_> = config
        .faults()
        .into_iter()
        .map(|(key, text)| {
            // A default that does not fit what the file says is the file's to set.
            let origin = match (origin(figment.find_metadata(&key)), file) {
                (origin, Some(path)) if origin == DEFAULTS => path.display().to_string(),
                (origin, _) => origin,
            };
            Fault { origin, key, text }
        })
        .collect();
    if faults.is_empty() { Ok(config) } else { Err(faults) }
}

fn type_fault(error: &figment::Error) -> Fault {
    let value = match &error.kind {
        figment::error::Kind::UnknownField(field, expected) => {
            format!("no such key {field:?}; keys here are {}", expected.join(", "))
        }
        // The value may be the password.
        figment::error::Kind::InvalidType(_, expected) | figment::error::Kind::InvalidValue(_, expected)
            if error.path.last().is_some_and(|key| key.contains("password")) =>
        {
            format!("the value is of another type than expected: {expected}; quote it")
        }
        kind => without_source(&kind.to_string()),
    };
    Fault { origin: origin(error.metadata.as_ref()), key: error.path.join("."), text: value }
}

/// What is said about a file that is not TOML, without the line that it quotes: a password may
/// stand there.
fn without_source(text: &str) -> String {
    let is_quoted =
        |line: &str| line.trim_start_matches(|letter: char| letter == ' ' || letter.is_ascii_digit()).starts_with('|');
    text.lines().filter(|line| !is_quoted(line)).collect::<Vec<_>>().join(": ")
}

/// An address without what stands before its `@`, which may be a password.
fn without_user(url: &str) -> &str {
    url.rsplit('@').next().unwrap_or_default()
}

fn origin(metadata: Option<&figment::Metadata>) -> String {
    match metadata {
        Some(metadata) => match metadata.source.as_ref().and_then(|source| source.file_path()) {
            Some(path) => path.display().to_string(),
            None if metadata.name.contains("environment") => format!("environment {ENV_PREFIX}*"),
            None => DEFAULTS.to_owned(),
        },
        None => "configuration".to_owned(),
    }
}

impl Config {
    /// Files that are named and cannot be read, as faults. They are read when they are needed,
    /// perhaps on another machine; so only `doseline check` looks.
    pub fn unreadable_files(&self) -> Vec<Fault> {
        let (mqtt, kafka, clickhouse) = (&self.mqtt, &self.kafka, &self.clickhouse);
        let mut files = vec![
            ("mqtt.password_file".to_owned(), mqtt.password_file.as_ref()),
            ("clickhouse.password_file".to_owned(), clickhouse.password_file.as_ref()),
            ("kafka.sasl.password_file".to_owned(), kafka.sasl.as_ref().and_then(|sasl| sasl.password_file.as_ref())),
        ];
        for (section, tls) in [("mqtt", &mqtt.tls), ("kafka", &kafka.tls)] {
            let Some(tls) = tls else { continue };
            files.push((format!("{section}.tls.ca"), Some(&tls.ca)));
            files.push((format!("{section}.tls.certificate"), tls.certificate.as_ref()));
            files.push((format!("{section}.tls.key"), tls.key.as_ref()));
        }
        let unreadable = files.into_iter().filter_map(|(key, path)| {
            let path = path?;
            let error = std::fs::read(path).err()?;
            let text = format!("{}: {error}; name a file that this user can read", path.display());
            Some(Fault { origin: "configuration".to_owned(), key, text })
        });
        unreadable.collect()
    }

    /// Every fault, as (key, what is wrong and what would be right). Touches neither network nor
    /// disk.
    pub fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut check = |good: bool, key: &str, text: String| {
            if !good {
                faults.push((key.to_owned(), text));
            }
        };
        let least = |least: u32| format!("must be at least {least}");
        check(!self.mqtt.host.is_empty(), "mqtt.host", "must not be empty".to_owned());
        check(self.mqtt.port > 0, "mqtt.port", "must not be 0".to_owned());
        both(&mut check, "mqtt", self.mqtt.password.is_some(), self.mqtt.password_file.is_some());
        check(!self.kafka.brokers.is_empty(), "kafka.brokers", "must name at least one host:port".to_owned());
        for broker in &self.kafka.brokers {
            let port = broker.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then(|| port.parse::<u16>()));
            check(matches!(port, Some(Ok(1..))), "kafka.brokers", format!("{broker:?} must be host:port"));
        }
        check((1..=10_000).contains(&self.kafka.partitions), "kafka.partitions", "must be 1..10000".to_owned());
        check(self.kafka.replication >= 1, "kafka.replication", least(1));
        check(
            (1..=self.kafka.replication.max(1)).contains(&self.kafka.min_insync_replicas),
            "kafka.min_insync_replicas",
            format!("{} must be 1..kafka.replication ({})", self.kafka.min_insync_replicas, self.kafka.replication),
        );
        check(
            self.kafka.retention_days >= 7,
            "kafka.retention_days",
            format!(
                "{} days; at least 7, because Kafka is the only copy until the loader has written",
                self.kafka.retention_days
            ),
        );
        if let Some(sasl) = &self.kafka.sasl {
            let known = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
            let text = format!("{:?} must be one of {}", sasl.mechanism, known.join(", "));
            check(known.contains(&sasl.mechanism.as_str()), "kafka.sasl.mechanism", text);
            both(&mut check, "kafka.sasl", sasl.password.is_some(), sasl.password_file.is_some());
        }
        let http = self.clickhouse.url.starts_with("http://") || self.clickhouse.url.starts_with("https://");
        check(
            http,
            "clickhouse.url",
            format!("{:?} must begin with http:// or https://", without_user(&self.clickhouse.url)),
        );
        both(&mut check, "clickhouse", self.clickhouse.password.is_some(), self.clickhouse.password_file.is_some());
        let ids = [("bridge.client_id", &self.bridge.client_id), ("load.group", &self.load.group)];
        for (key, id) in ids.into_iter().chain(self.bridge.share_group.iter().map(|id| ("bridge.share_group", id))) {
            check(is_id(id), key, format!("{id:?} must match [A-Za-z0-9][A-Za-z0-9_-]{{0,63}}"));
        }
        let (bridge, load) = (&self.bridge, &self.load);
        check((1..=64).contains(&bridge.connections), "bridge.connections", "must be 1..64".to_owned());
        check(
            bridge.connections == 1 || bridge.share_group.is_some(),
            "bridge.connections",
            format!("{} connections need bridge.share_group, a group that shares the messages", bridge.connections),
        );
        check(bridge.receive_maximum >= 1, "bridge.receive_maximum", least(1));
        check(bridge.in_flight_mib >= 4, "bridge.in_flight_mib", least(4));
        check(bridge.unconfirmed_age_max_s >= 1, "bridge.unconfirmed_age_max_s", least(1));
        check(
            (1_000..=1_000_000).contains(&load.batch_rows_max),
            "load.batch_rows_max",
            "must be 1000..1000000".to_owned(),
        );
        check((1..=1_024).contains(&load.batch_mib_max), "load.batch_mib_max", "must be 1..1024".to_owned());
        check(
            (load.batch_mib_max..=65_536).contains(&load.memory_mib_max),
            "load.memory_mib_max",
            format!("{} must be load.batch_mib_max ({})..65536", load.memory_mib_max, load.batch_mib_max),
        );
        check((10..=60_000).contains(&load.batch_age_ms), "load.batch_age_ms", "must be 10..60000".to_owned());
        check(load.batches_max >= 1, "load.batches_max", least(1));
        check(load.ledgers_max >= 1_000, "load.ledgers_max", least(1_000));
        check(load.unwritten_age_max_s >= 1, "load.unwritten_age_max_s", least(1));
        check(load.unreadable_after_s >= 60, "load.unreadable_after_s", least(60));
        check(self.quarantine.rows_max >= 1, "quarantine.rows_max", least(1));
        check(self.quarantine.mib_max >= 1, "quarantine.mib_max", least(1));
        check(
            self.quarantine.age_days_max >= self.kafka.retention_days,
            "quarantine.age_days_max",
            format!(
                "{} days must be at least kafka.retention_days ({}): a day that can be rebuilt from Kafka is not to be deleted",
                self.quarantine.age_days_max, self.kafka.retention_days
            ),
        );
        let timeout = load.session_timeout_s;
        check((1..=3_600).contains(&timeout), "load.session_timeout_s", format!("{timeout} must be 1..3600"));
        let monitor = &self.monitor;
        check((100..=60_000).contains(&monitor.interval_ms), "monitor.interval_ms", "must be 100..60000".to_owned());
        check(monitor.late_s <= 604_800, "monitor.late_s", "must be at most 604800, a week".to_owned());
        check(monitor.stalled_s >= 10, "monitor.stalled_s", least(10));
        check(
            (5..=3_600).contains(&monitor.webhook_repeat_s),
            "monitor.webhook_repeat_s",
            "must be 5..3600".to_owned(),
        );
        let is_address = |url: &String| url.starts_with("http://") || url.starts_with("https://");
        check(
            monitor.webhook.as_ref().is_none_or(is_address),
            "monitor.webhook",
            format!(
                "{:?} must be an address like http://alertmanager:9093/api/v2/alerts",
                without_user(monitor.webhook.as_deref().unwrap_or_default())
            ),
        );
        let shares = [
            ("monitor.coverage", monitor.coverage, 0.9..=0.999),
            ("monitor.false_alarms_per_device_year", monitor.false_alarms_per_device_year, 0.01..=10.0),
            ("monitor.sessions_per_day", monitor.sessions_per_day, 0.1..=100.0),
        ];
        for (key, value, range) in shares {
            check(range.contains(&value), key, format!("{value} must be {}..{}", range.start(), range.end()));
        }
        let counts = [
            ("monitor.sessions_min", monitor.sessions_min, 2..=1_000),
            ("monitor.bands", monitor.bands.into(), 1..=20),
            ("monitor.forecast_days", monitor.forecast_days.into(), 1..=365),
            ("monitor.mass_balance_pct", monitor.mass_balance_pct.into(), 1..=100),
            ("monitor.silent_days", monitor.silent_days.into(), 1..=365),
            ("monitor.battery_pct", monitor.battery_pct.into(), 1..=100),
        ];
        for (key, value, range) in counts {
            check(range.contains(&value), key, format!("{value} must be {}..{}", range.start(), range.end()));
        }
        for (key, text) in self.device_time.faults() {
            check(false, &format!("device_time.{key}"), text);
        }
        for (key, text) in self.plausibility.faults() {
            check(false, &format!("plausibility.{key}"), text);
        }
        faults
    }
}

fn both(check: &mut impl FnMut(bool, &str, String), section: &str, password: bool, file: bool) {
    check(
        !(password && file),
        &format!("{section}.password_file"),
        "give password or password_file, not both".to_owned(),
    );
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::Value;

    use super::*;

    fn repository(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
    }

    fn faults(toml: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broken.toml");
        fs::write(&path, toml).unwrap();
        let faults = load(Sources { file: Some(&path), ..Sources::default() }).unwrap_err();
        faults.iter().map(|fault| fault.to_string().replace(&format!("{}/", folder.path().display()), "")).collect()
    }

    #[test]
    fn no_fault_shows_a_password() {
        for toml in [
            "[mqtt]\npassword = \"hunter2\n",
            "[mqtt]\npassword = \"hunter2\" x\n",
            "[mqtt]\npassword = 70072\n",
            "[clickhouse]\npassword = [\"hunter2\"]\n",
            "[clickhouse]\nurl = \"tcp://user:hunter2@host:9000\"\n",
            "[monitor]\nwebhook = \"ftp://user:hunter2@host/\"\n",
        ] {
            let told = faults(toml).join("\n");
            assert!(!told.contains("hunter2") && !told.contains("70072"), "{told}");
            assert!(!told.is_empty() && !told.contains("Some("), "{told}");
        }
        let told = faults("[mqtt]\nport = 1883\npassword = \"hunter2\n");
        assert!(told[0].contains("line 3"), "{told:?}");
    }

    #[test]
    fn files_that_are_not_there_are_named() {
        let tls = "ca = \"/nowhere/ca.pem\"\ncertificate = \"/nowhere/c.pem\"\nkey = \"/nowhere/k.pem\"\n";
        let toml = format!(
            "[mqtt]\npassword_file = \"/nowhere/mqtt\"\n[mqtt.tls]\n{tls}[kafka.tls]\n{tls}\
             [kafka.sasl]\nmechanism = \"PLAIN\"\nusername = \"u\"\npassword_file = \"/nowhere/kafka\"\n\
             [clickhouse]\npassword_file = \"/nowhere/clickhouse\"\n"
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("doseline.toml");
        fs::write(&path, toml).unwrap();
        let config = load(Sources { file: Some(&path), ..Sources::default() }).unwrap();
        let told: Vec<_> = config.unreadable_files().iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 9, "{told:#?}");
        assert!(told[0].starts_with("configuration: mqtt.password_file: /nowhere/mqtt: No such file"), "{told:#?}");
        assert!(Config::default().unreadable_files().is_empty());
    }

    /// ClickHouse and the dashboard have no TLS there, and the dashboard asks for no password. The
    /// MQTT port asks for certificates.
    #[test]
    fn compose_publishes_on_the_loopback_interface_what_has_no_lock() {
        let text = fs::read_to_string(repository("deploy").join("compose.yaml")).unwrap();
        let published: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("ports: ")).collect();
        assert_eq!(published.len(), text.matches("ports:").count(), "each in one line");
        let open = published.iter().filter(|ports| !ports.starts_with("[\"127.0.0.1:"));
        assert_eq!(open.collect::<Vec<_>>(), [&"[\"8883:8883\"]"], "{published:?}");
        assert!(published.iter().all(|ports| !ports.contains(',')), "{published:?}");
    }

    #[test]
    fn every_file_in_config_is_valid() {
        for entry in fs::read_dir(repository("config")).unwrap() {
            let path = entry.unwrap().path();
            load(Sources { file: Some(&path), ..Sources::default() })
                .unwrap_or_else(|faults| panic!("{}: {faults:?}", path.display()));
        }
    }

    #[test]
    fn the_reference_names_every_key_and_its_default() {
        let reference = fs::read_to_string(repository("docs/configuration.md")).unwrap();
        let Value::Object(sections) = serde_json::to_value(Config::default()).unwrap() else { panic!("no sections") };
        for (section, keys) in sections {
            let Some(keys) = keys.as_object().filter(|keys| !keys.is_empty()) else { continue };
            for (key, default) in keys {
                let default = match default {
                    Value::Null => "none".to_owned(),
                    Value::String(text) => format!("`{text}`"),
                    Value::Array(_) => format!("`{default}`"),
                    other => other.to_string(),
                };
                let row = format!("| `{section}.{key}` | {default} |");
                assert!(reference.contains(&row), "docs/configuration.md lacks `{row}`");
            }
        }
        for (name, plausibility_range) in telemetry::plausibility::Ranges::default().named() {
            let row = format!("`[{}, {}]`", plausibility_range.0, plausibility_range.1);
            assert!(
                reference.lines().any(|line| line.contains(&format!("| `{name}` |")) && line.contains(&row)),
                "docs/configuration.md lacks {name} {row}"
            );
        }
    }

    #[test]
    fn a_fault_names_file_key_value_and_remedy() {
        let check = |toml: &str, expected: &str| {
            let faults = faults(toml);
            assert!(faults.iter().any(|fault| fault == expected), "{faults:?} lacks {expected}");
        };
        check("[mqtt]\nport = \"high\"", "broken.toml: mqtt.port: invalid type: found string \"high\", expected u16");
        check(
            "[mqtt]\nprot = 1",
            "broken.toml: mqtt.prot: no such key \"prot\"; keys here are host, port, username, password, password_file, tls",
        );
        check("[kafka]\nbrokers = [\"localhost\"]", "broken.toml: kafka.brokers: \"localhost\" must be host:port");
        check("[monitor]\ncoverage = 95", "broken.toml: monitor.coverage: 95 must be 0.9..0.999");
        check("[monitor]\nbands = 0", "broken.toml: monitor.bands: 0 must be 1..20");
        check("[kafka]\nreplication = 1", "broken.toml: kafka.min_insync_replicas: 2 must be 1..kafka.replication (1)");
        check(
            "[clickhouse]\nurl = \"tcp://x\"",
            "broken.toml: clickhouse.url: \"tcp://x\" must begin with http:// or https://",
        );
        check("[load]\ngroup = \"a b\"", "broken.toml: load.group: \"a b\" must match [A-Za-z0-9][A-Za-z0-9_-]{0,63}");
        check("[load]\nsession_timeout_s = 0", "broken.toml: load.session_timeout_s: 0 must be 1..3600");
        check(
            "[quarantine]\nage_days_max = 3",
            "broken.toml: quarantine.age_days_max: 3 days must be at least kafka.retention_days (7): a day that can be rebuilt \
             from Kafka is not to be deleted",
        );
        check("[device_time]\nage_max_days = 41", "broken.toml: device_time.age_max_days: 41 must be 42..3650");
        check(
            "[plausibility.pen]\ndepth_um = [9, 1]",
            "broken.toml: plausibility.pen.depth_um: [9, 1] is empty; write [least, most]",
        );
        assert_eq!(
            load(Sources { file: Some(Path::new("/absent.toml")), ..Sources::default() }).unwrap_err()[0].to_string(),
            "/absent.toml: no such file"
        );
    }

    #[test]
    fn the_engines_of_a_running_up_win_and_the_rest_is_the_file_s() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        let toml = "[kafka]\npartitions = 7\n[mqtt.tls]\nca = \"/ca.pem\"\n[quarantine]\nrows_max = 5\n";
        fs::write(&path, toml).unwrap();
        let mut running = load(Sources { is_single_node: true, ..Sources::default() }).unwrap();
        running.mqtt.port = 4_711;
        running.quarantine.rows_max = 9;
        running.log.format = LogFormat::Json;
        let alone = load(Sources { running: Some(&running), ..Sources::default() }).unwrap();
        assert_eq!((alone.mqtt.port, alone.kafka.replication, alone.quarantine.rows_max), (4_711, 1, 9));
        assert_eq!(alone.log.format, LogFormat::Text, "the other process logs as it likes");
        let both = load(Sources { file: Some(&path), running: Some(&running), ..Sources::default() }).unwrap();
        assert_eq!((both.mqtt.port, both.kafka.partitions, both.quarantine.rows_max), (4_711, 1, 5));
        assert!(both.mqtt.tls.is_none());
    }

    #[test]
    fn secrets_do_not_show() {
        let config = Mqtt { password: Some(Secret("hunter2".to_owned())), ..Mqtt::default() };
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
