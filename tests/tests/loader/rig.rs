//! Engines, a schema, topics and loaders for the tests.

use std::time::Duration;

use harness::{ClickHouse, Kafka, wait_until_committed};
use load::{Limits, Loader, Options, TopicSpec};
use prost::Message as _;
use rdkafka::{
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer},
};
use telemetry::{kafka, v1};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use warehouse::{Warehouse, migrate};

/// The receipt time of the first record. Each further record is one microsecond later.
pub const RECEIVED_US: i64 = 1_750_000_000_000_000;

pub struct Rig {
    pub clickhouse: ClickHouse,
    pub kafka: Kafka,
    pub warehouse: Warehouse,
    /// Kafka's time of the produced records, ms since 1970; `None` = the present time.
    pub timestamp_ms: Option<i64>,
    producer: ThreadedProducer<DefaultProducerContext>,
    produced: i64,
    partitions: u32,
    replication: u32,
}

pub struct Running {
    shutdown: CancellationToken,
    pub task: JoinHandle<Result<(), load::Error>>,
    pub handle: load::Handle,
}

impl Running {
    /// Ends the loader as SIGTERM does.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.expect("the loader does not panic").expect("the loader ends well");
    }

    /// Drops the loader in the middle of its work.
    pub async fn abandon(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

impl Rig {
    pub async fn start(partitions: u32) -> Self {
        Self::on(Kafka::start(), (partitions, 1)).await
    }

    /// On a cluster of its own; the numbers of partitions and of copies of each.
    pub async fn on(kafka: Kafka, numbers: (u32, u32)) -> Self {
        let rig = Self::without_topics(kafka, numbers).await;
        rig.ensure_topics().await;
        rig.ensure_topics().await;
        rig
    }

    /// As [`Rig::on`], without the topics.
    pub async fn without_topics(kafka: Kafka, (partitions, replication): (u32, u32)) -> Self {
        let clickhouse = ClickHouse::start();
        let warehouse = Warehouse::new(clickhouse.warehouse_options()).expect("a valid address");
        migrate::migrate(&warehouse, migrate::Options::default()).await.expect("migrate");
        let mut config = kafka.config();
        config.set("partitioner", "murmur2_random").set("linger.ms", "2").set("message.max.bytes", "4000000");
        let producer = config.create().expect("create a producer");
        Self { clickhouse, kafka, warehouse, timestamp_ms: None, producer, produced: 0, partitions, replication }
    }

    /// Creates the topics as `doseline migrate` does.
    pub async fn ensure_topics(&self) -> Vec<load::Ensured> {
        let spec = TopicSpec {
            partitions: self.partitions,
            replication: self.replication,
            min_insync_replicas: 1,
            retention: Duration::from_secs(7 * 86_400),
        };
        load::ensure_topics(&self.options().kafka, &spec, &self.warehouse).await.expect("ensure topics")
    }

    pub fn options(&self) -> Options {
        Options {
            kafka: load::Kafka {
                brokers: self.kafka.bootstrap(),
                session_timeout: Duration::from_secs(6),
                topics: kafka::Topics::default(),
                ..load::Kafka::default()
            },
            limits: Limits { rows_max: 5_000, age_max: Duration::from_millis(100), ..Limits::default() },
            ..Options::default()
        }
    }

    pub async fn load(&self, options: Options) -> Running {
        Self::run(Loader::bind(options, self.warehouse.clone()).await.expect("valid options"))
    }

    pub fn run(loader: Loader) -> Running {
        let shutdown = CancellationToken::new();
        let handle = loader.handle();
        let task = tokio::spawn(loader.run(shutdown.clone()));
        Running { shutdown, task, handle }
    }

    /// Produces a report as the bridge does.
    pub fn report(&mut self, device: &str, report: &v1::Report) {
        let topic = format!("doseline/v1/acme/berlin/{device}/report");
        self.produce(kafka::REPORTS_TOPIC, &format!("acme/{device}"), &topic, &report.encode_to_vec(), &[]);
    }

    /// Produces any record, with the bridge's headers and further ones.
    pub fn produce(&mut self, to: &str, key: &str, topic: &str, payload: &[u8], more: &[(&str, &str)]) {
        self.produce_into(None, to, key, topic, payload, more);
    }

    /// As [`Rig::produce`], into a given partition, which may be the wrong one.
    pub fn produce_into(
        &mut self,
        partition: Option<i32>,
        to: &str,
        key: &str,
        topic: &str,
        payload: &[u8],
        more: &[(&str, &str)],
    ) {
        let received_at = (RECEIVED_US + self.produced).to_string();
        self.produced += 1;
        let header = |key, value| Header { key, value: Some(value) };
        let mut headers = OwnedHeaders::new()
            .insert(header(kafka::TOPIC_HEADER, topic))
            .insert(header(kafka::RECEIVED_AT_HEADER, received_at.as_str()));
        for (key, value) in more {
            headers = headers.insert(header(key, value));
        }
        let mut record = BaseRecord::to(to).key(key).payload(payload).headers(headers);
        record.partition = partition;
        record.timestamp = self.timestamp_ms;
        self.producer.send(record).map_err(|(error, _)| error).expect("room in the producer's queue");
    }

    pub fn flush(&self) {
        self.producer.flush(Duration::from_secs(30)).expect("produce");
    }

    /// Waits until everything in Kafka is written.
    pub async fn written(&self) {
        // The loaders continue, because they have threads of their own.
        tokio::task::block_in_place(|| wait_until_committed(&self.clickhouse, &self.kafka));
    }
}
