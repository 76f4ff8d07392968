//! Copies of what the loader refuses, in Kafka's quarantine topic: a person finds everything that
//! was refused in one place and can replay it from there.

use std::future::Future;

use rdkafka::error::KafkaError;
use service::producer::{ConfirmingProducer, Outgoing};
use telemetry::kafka::{DETAIL_HEADER, REASON_HEADER, RECEIVED_AT_HEADER, SOURCE_HEADER, TOPIC_HEADER};

use crate::{batch::Refusal, options::Kafka};

/// Takes copies.
pub trait Copies: Send + Sync + 'static {
    /// Returns when all are durable.
    fn confirm(&self, refusals: &[Refusal]) -> impl Future<Output = Result<(), KafkaError>> + Send;
}

/// Kafka's quarantine topic.
pub struct QuarantineTopic {
    producer: ConfirmingProducer,
    topic: String,
}

/// Room for the largest record the bridge forwards.
const MESSAGE_BYTES_MAX: &str = "4194304";
/// A record that takes longer counts as failed and is sent again.
const MESSAGE_TIMEOUT_MS: &str = "30000";

impl QuarantineTopic {
    /// Prepares the producer; nothing is sent.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(kafka: &Kafka) -> Result<Self, KafkaError> {
        let mut config = kafka.client();
        // A copy may be there twice, after a crash or a repeated attempt; so idempotence, whose
        // fatal errors would need the producer to be rebuilt, gives nothing here.
        config
            .set("acks", "all")
            .set("enable.idempotence", "false")
            .set("partitioner", "murmur2_random")
            .set("message.max.bytes", MESSAGE_BYTES_MAX)
            .set("message.timeout.ms", MESSAGE_TIMEOUT_MS)
            .set("queue.buffering.max.kbytes", "16384")
            .set("linger.ms", "5");
        Ok(Self { producer: ConfirmingProducer::new(&config)?, topic: kafka.topics.quarantine.clone() })
    }
}

impl Copies for QuarantineTopic {
    async fn confirm(&self, refusals: &[Refusal]) -> Result<(), KafkaError> {
        let mut pending = Vec::new();
        for refusal in refusals {
            let received_at = refusal.received_at.to_string();
            let headers = [
                (REASON_HEADER, refusal.reason.as_str()),
                (TOPIC_HEADER, refusal.topic.as_str()),
                (SOURCE_HEADER, refusal.source),
                (RECEIVED_AT_HEADER, received_at.as_str()),
                (DETAIL_HEADER, refusal.detail.as_str()),
            ];
            let (topic, key, payload) = (self.topic.as_str(), refusal.key.as_deref(), &refusal.payload);
            pending.push(self.producer.enqueue(Outgoing { topic, key, payload, headers: &headers }).await?);
        }
        for record in pending {
            record.confirmed().await?;
        }
        Ok(())
    }
}
