//! The options of a loader, their defaults and their bounds.

use std::{io, net::SocketAddr, time::Duration};

use rdkafka::ClientConfig;
use service::kafka::Properties;
use telemetry::{device_time, kafka::Topics, plausibility::Plausibility};

use crate::{error::Error, settings};

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
    /// Name of this loader in intents and logs; each loader needs its own.
    pub instance: String,
    /// Address of `/livez`, `/readyz` and `/metrics`. `None` serves none; port 0 takes any free
    /// port.
    pub http: Option<SocketAddr>,
    /// Host names by which that port may be called besides its address.
    pub http_names: Vec<String>,
}

impl Options {
    /// The options of a configuration.
    ///
    /// # Errors
    /// The password file of Kafka cannot be read.
    pub fn new(
        kafka: &service::kafka::Kafka,
        load: &settings::Load,
        plausibility: &Plausibility,
        device_time: device_time::Limits,
        http_names: Vec<String>,
    ) -> io::Result<Self> {
        Ok(Self {
            kafka: Kafka::new(kafka, load)?,
            limits: Limits::new(load),
            plausibility: plausibility.clone(),
            device_time,
            http: Some(load.http),
            http_names,
            ..Self::default()
        })
    }
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
#[derive(Clone, Debug)]
pub struct Kafka {
    /// Bootstrap brokers, `host:port[,host:port]`.
    pub brokers: String,
    /// Consumer group.
    pub group: String,
    /// Further properties of librdkafka, such as `security.protocol`. Properties that a guarantee
    /// depends on have no effect.
    pub properties: Properties,
    pub topics: Topics,
    /// After this long without a heartbeat Kafka gives a loader's partitions to another loader, 1
    /// s..=1 h. A process that was paused for this long stops writing. A shorter time moves the
    /// partitions sooner, but a short stall then causes a rebalance.
    pub session_timeout: Duration,
}

impl Kafka {
    /// The configuration of a client. What the caller sets afterwards, no property can change.
    pub(crate) fn client(&self) -> ClientConfig {
        self.properties.client(&self.brokers, &[])
    }

    /// The connection of a configuration.
    ///
    /// # Errors
    /// The password file cannot be read.
    pub fn new(kafka: &service::kafka::Kafka, load: &settings::Load) -> io::Result<Self> {
        Ok(Self {
            brokers: kafka.bootstrap(),
            group: load.group.clone(),
            properties: kafka.properties()?,
            topics: Topics::default(),
            session_timeout: Duration::from_secs(load.session_timeout_s.into()),
        })
    }
}

impl Default for Kafka {
    fn default() -> Self {
        let load = settings::Load::default();
        Self {
            brokers: service::kafka::Kafka::default().bootstrap(),
            group: load.group,
            properties: Properties::default(),
            topics: Topics::default(),
            session_timeout: Duration::from_secs(load.session_timeout_s.into()),
        }
    }
}

/// Bounds: those of [`settings::Load`], and what cannot be configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A batch is written when it has this many events; one report may exceed it.
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
    /// Boots whose ledgers stay in memory, over all partitions.
    pub ledger_cache_boots: usize,
    /// Inserts of one batch that run at once, into independent tables.
    pub inserts_max: usize,
    /// Bytes of records in memory over all partitions, at least `bytes_max`: in queues, and in
    /// batches that are being written. The rows made of them come on top, see
    /// [`Limits::rows_in_memory_max`].
    pub memory_max: usize,
    pub loss_shown: Duration,
    pub unwritten_age_max: Duration,
    /// How long a batch that cannot be read delays its partition before it is given up and recorded
    /// as lost. A longer time leaves more time to repair the broker; later records wait meanwhile.
    pub unreadable_after: Duration,
    /// At shutdown, how long the batches that are being written may take to finish.
    pub drain_max: Duration,
}

impl Limits {
    fn new(load: &settings::Load) -> Self {
        Self {
            rows_max: load.batch_rows_max as usize,
            bytes_max: load.batch_mib_max as usize * 1024 * 1024,
            age_max: Duration::from_millis(load.batch_age_ms.into()),
            batches_max: load.batches_max as usize,
            ledger_cache_boots: load.ledgers_max as usize,
            inserts_max: 2,
            memory_max: load.memory_mib_max as usize * 1024 * 1024,
            loss_shown: Duration::from_secs(load.loss_shown_s.into()),
            unwritten_age_max: Duration::from_secs(load.unwritten_age_max_s.into()),
            unreadable_after: Duration::from_secs(load.unreadable_after_s.into()),
            drain_max: Duration::from_secs(4),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(&settings::Load::default())
    }
}

/// Full batches whose rows may be in memory at once.
const BATCHES_AT_ONCE: usize = 2;

impl Limits {
    /// Rows that may be in memory at once, over all partitions.
    pub fn rows_in_memory_max(&self) -> usize {
        BATCHES_AT_ONCE * self.rows_max
    }
}

impl Options {
    /// Refuses what a configuration cannot set; the configuration has checked the rest.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let refuse = |option, value: String, expected| Err(Error::Option { option, value, expected });
        if self.limits.inserts_max == 0 {
            return refuse("inserts_max", "0".to_owned(), "at least 1");
        }
        if self.instance.is_empty() {
            return refuse("instance", String::new(), "a name");
        }
        Ok(())
    }
}
