//! Sends what a person replays out of quarantine to Kafka: records as the bridge sends them, with
//! the header that marks a replay.
//!
//! They go through Kafka because the loader is the only writer. A record may reach the topic twice
//! without harm: see [`crate::batch`].

use async_recursion::async_recursion as boxed;
use service::producer::{ConfirmingProducer, Outgoing};
use telemetry::{
    kafka::{RECEIVED_AT_HEADER, REPLAY_HEADER, REPLAYED_AT_HEADER, REPLAYED_BY_HEADER, TOPIC_HEADER, Topics},
    quarantine::Id,
};

use crate::{error::Error, options::Kafka};

/// A message that is replayed out of quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The row of quarantine.
    pub id: Id,
    /// Whether it is a status, not a report.
    pub is_status: bool,
    pub key: String,
    /// The report as protobuf, or the status as JSON.
    pub value: Vec<u8>,
    /// The MQTT topic it came in on.
    pub topic: String,
    /// When the bridge received it first, us since 1970.
    pub received_at: i64,
}

/// Sends the replays of one command.
pub struct Replayer {
    producer: ConfirmingProducer,
    topics: Topics,
    by: String,
    at_us: i64,
}

impl Replayer {
    /// Prepares the producer; nothing is sent. `by` is the person who asked for the replay, `at_us`
    /// the time (us since 1970).
    ///
    /// # Errors
    /// [`Error::Kafka`] when librdkafka refuses the configuration.
    pub fn new(kafka: &Kafka, by: &str, at_us: i64) -> Result<Self, Error> {
        let mut config = kafka.client();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            .set("message.max.bytes", "4194304")
            .set("message.timeout.ms", "30000")
            .set("queue.buffering.max.kbytes", "65536")
            .set("linger.ms", "5");
        let producer = ConfirmingProducer::new(&config)?;
        Ok(Self { producer, topics: kafka.topics.clone(), by: by.to_owned(), at_us })
    }

    /// Sends records and returns when Kafka has confirmed all of them. At most 32 MiB at a time.
    ///
    /// # Errors
    /// [`Error::Kafka`]: some may have been confirmed; sending all of them again does no harm.
    #[boxed]
    pub async fn produce(&self, records: &[Record]) -> Result<(), Error> {
        let mut pending = Vec::new();
        for record in records {
            let (id, received_at) = (record.id.to_string(), record.received_at.to_string());
            let at = self.at_us.to_string();
            let headers = [
                (TOPIC_HEADER, record.topic.as_str()),
                (RECEIVED_AT_HEADER, &received_at),
                (REPLAY_HEADER, &id),
                (REPLAYED_BY_HEADER, &self.by),
                (REPLAYED_AT_HEADER, &at),
            ];
            let topic = if record.is_status { &self.topics.status } else { &self.topics.reports };
            let (key, payload) = (Some(record.key.as_bytes()), record.value.as_slice());
            pending.push(self.producer.enqueue(Outgoing { topic, key, payload, headers: &headers }).await?);
        }
        for record in pending {
            record.confirmed().await?;
        }
        Ok(())
    }
}
