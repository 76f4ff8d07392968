//! The options of a loader, their defaults and their bounds.

use std::{collections::BTreeMap, fmt, net::SocketAddr, time::Duration};

use rdkafka::ClientConfig;
use telemetry::{
    device_time,
    kafka::{QUARANTINE_TOPIC, REPORTS_TOPIC, STATUS_TOPIC},
    plausibility::Plausibility,
};

use crate::error::Error;

/// The largest `rows_max`: it keeps the sums of squares of a batch within 64 bits.
pub const ROWS_MAX: usize = 2_000_000;

/// Options of a loader.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where records come from.
    pub kafka: Kafka,
    /// When a batch is written, and other bounds.
    pub limits: Limits,
    /// What is plausible, by model. A change is safe at any time; it changes which later events are
    /// quarantined.
    pub plausibility: Plausibility,
    /// What a device's clock may show. A change is safe at any time; it changes which later events
    /// have the device's time.
    pub device_time: device_time::Limits,
    /// Name of this loader in intents and logs; different for each loader.
    pub instance: String,
    /// Where `/livez`, `/readyz` and `/metrics` are served; `None` serves none, port 0 takes any
    /// free port.
    pub http: Option<SocketAddr>,
    /// Names by which that port may be called besides its address.
    pub http_names: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kafka: Kafka::default(),
            limits: Limits::default(),
            plausibility: Plausibility::default(),
            device_time: device_time::Limits::default(),
            instance: format!("load-{}", std::process::id()),
            http: None,
            http_names: Vec::new(),
        }
    }
}

/// The Kafka side.
#[derive(Clone)]
pub struct Kafka {
    /// Bootstrap brokers, `host:port[,host:port]`.
    pub brokers: String,
    /// Consumer group; loaders of one group share the partitions.
    pub group: String,
    /// Further librdkafka properties (`security.protocol`, `sasl.password`, ...). Properties that a
    /// guarantee depends on cannot be set.
    pub properties: BTreeMap<String, String>,
    /// Names of the topics.
    pub topics: Topics,
    /// After this long without a heartbeat Kafka gives a loader's partitions to another loader, 1
    /// s..=1 h. A process that was paused for this long stops writing. A shorter time moves the
    /// partitions sooner, but a short stall then causes a rebalance.
    pub session_timeout: Duration,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: "localhost:9092".to_owned(),
            group: "doseline-load".to_owned(),
            properties: BTreeMap::new(),
            topics: Topics::default(),
            session_timeout: Duration::from_secs(45),
        }
    }
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka")
            .field("brokers", &self.brokers)
            .field("group", &self.group)
            .field("properties (values redacted)", &self.properties.keys().collect::<Vec<_>>())
            .field("topics", &self.topics)
            .field("session_timeout", &self.session_timeout)
            .finish()
    }
}

/// The configuration that every librdkafka client of this loader begins with.
pub(crate) fn client_config(kafka: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("log.connection.close", "false").set("reconnect.backoff.max.ms", "2000");
    for (name, value) in &kafka.properties {
        config.set(name, value);
    }
    config.set("bootstrap.servers", &kafka.brokers);
    config
}

/// Names of the Kafka topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    pub reports: String,
    pub status: String,
    /// What could not be used.
    pub quarantine: String,
}

impl Default for Topics {
    fn default() -> Self {
        Self {
            reports: REPORTS_TOPIC.to_owned(),
            status: STATUS_TOPIC.to_owned(),
            quarantine: QUARANTINE_TOPIC.to_owned(),
        }
    }
}

impl Topics {
    /// All names.
    pub fn all(&self) -> [&str; 3] {
        [&self.reports, &self.status, &self.quarantine]
    }
}

/// Bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A batch is written at this many events, 1..=[`ROWS_MAX`]; it may exceed it by one report.
    pub rows_max: usize,
    /// A batch is written at this many bytes of records. As many again may wait in memory for each
    /// partition.
    pub bytes_max: usize,
    /// A partition writes at most one batch in this time, counted from the end of the batch before.
    /// A record that arrives after a pause is written within 50 ms. A larger value means fewer and
    /// cheaper inserts, a smaller one fresher data.
    pub age_max: Duration,
    /// Batches of all partitions that are written at once. A batch that is due meanwhile continues
    /// to grow, for at most 2 s. More batches than ClickHouse has processors slow each other down.
    pub batches_max: usize,
    /// Boots whose ledgers are kept in memory, over all partitions; others are read back when
    /// needed.
    pub ledger_cache_boots: usize,
    /// Inserts of one batch that run at once, to independent tables.
    pub inserts_max: usize,
    /// Bytes of records in memory over all partitions, from `bytes_max`: in queues, and in batches
    /// that are being written. At the limit polling pauses. The rows made of them come on top, see
    /// [`Limits::room`].
    pub memory_max: usize,
    /// How long `/readyz` fails after Kafka was found to have deleted records that were not
    /// written. Their loss stays in `kafka_losses`.
    pub loss_shown: Duration,
    /// Age of the oldest unwritten record at which `/readyz` fails.
    pub unwritten_age_max: Duration,
    /// How long a batch that cannot be read delays its partition before it is given up and recorded
    /// as lost. A longer time leaves more time to repair the broker; later records wait meanwhile.
    pub unreadable_after: Duration,
    /// How long batches that are being written may take to finish at the end.
    pub drain_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rows_max: 150_000,
            bytes_max: 32 << 20,
            age_max: Duration::from_millis(500),
            batches_max: 2,
            ledger_cache_boots: 200_000,
            inserts_max: 2,
            memory_max: 64 << 20,
            loss_shown: Duration::from_secs(3_600),
            unwritten_age_max: Duration::from_secs(60),
            unreadable_after: Duration::from_secs(3_600),
            drain_max: Duration::from_secs(4),
        }
    }
}

/// Full batches whose rows may be in memory at once.
const BATCHES_AT_ONCE: usize = 2;

impl Limits {
    /// Rows that may be in memory at once, over all partitions.
    pub fn room(&self) -> usize {
        BATCHES_AT_ONCE * self.rows_max
    }
}

impl Options {
    /// Refuses what is out of range.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let refuse = |option, value: String, expected| Err(Error::Option { option, value, expected });
        let Limits { rows_max, bytes_max, age_max, ledger_cache_boots, inserts_max, .. } = self.limits;
        if rows_max == 0 || rows_max > ROWS_MAX {
            return refuse("rows_max", rows_max.to_string(), "1..=2000000");
        }
        if bytes_max < 1 << 20 {
            return refuse("bytes_max", bytes_max.to_string(), "at least 1 MiB, or one record may not fit");
        }
        if self.limits.memory_max < bytes_max {
            return refuse(
                "memory_max",
                self.limits.memory_max.to_string(),
                "at least bytes_max, or one batch may not fit",
            );
        }
        if age_max.is_zero() {
            return refuse("age_max", "0".to_owned(), "more than 0");
        }
        if ledger_cache_boots == 0 {
            return refuse("ledger_cache_boots", "0".to_owned(), "at least 1");
        }
        if self.limits.batches_max == 0 {
            return refuse("batches_max", "0".to_owned(), "at least 1");
        }
        if inserts_max == 0 {
            return refuse("inserts_max", "0".to_owned(), "at least 1");
        }
        let timeout = self.kafka.session_timeout;
        if timeout < Duration::from_secs(1) || timeout > Duration::from_secs(3600) {
            return refuse("session_timeout", format!("{timeout:?}"), "1 s..=1 h");
        }
        if self.instance.is_empty() {
            return refuse("instance", String::new(), "a name");
        }
        if let Some((key, fault)) = self.plausibility.faults().into_iter().next() {
            return refuse("plausibility", format!("{key}: {fault}"), "[least, most] within the widest range");
        }
        if let Some((key, fault)) = self.device_time.faults().into_iter().next() {
            return refuse("device_time", format!("{key}: {fault}"), "a value within its range");
        }
        Ok(())
    }
}
