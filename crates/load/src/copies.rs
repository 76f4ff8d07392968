//! Copies of what the loader refuses, in Kafka's quarantine topic: a person finds everything that
//! was refused in one place and can replay it from there.

use std::{future::Future, time::Duration};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use telemetry::kafka::{DETAIL_HEADER, REASON_HEADER, RECEIVED_AT_HEADER, SOURCE_HEADER, TOPIC_HEADER};

use crate::{batch::Refusal, options::Kafka};

/// Takes copies.
pub trait Copies: Send + Sync + 'static {
    /// Returns when all are durable.
    fn confirm(&self, refusals: &[Refusal]) -> impl Future<Output = Result<(), KafkaError>> + Send;
}

/// Logs librdkafka's messages at the debug level: each failed attempt reports its error as well.
pub(crate) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
    }
}

/// Kafka's quarantine topic.
pub struct QuarantineTopic {
    producer: FutureProducer<Quiet>,
    topic: String,
}

/// Room for the largest record the bridge forwards.
const MESSAGE_BYTES_MAX: &str = "4194304";
/// A record that takes longer counts as failed and is sent again.
const MESSAGE_TIMEOUT_MS: &str = "30000";
/// Between two attempts to enqueue, when the producer's queue is full.
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(20);

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
        Ok(Self { producer: config.create_with_context(Quiet)?, topic: kafka.topics.quarantine.clone() })
    }
}

impl Copies for QuarantineTopic {
    async fn confirm(&self, refusals: &[Refusal]) -> Result<(), KafkaError> {
        let mut pending = Vec::new();
        for refusal in refusals {
            let received_at = refusal.received_at.to_string();
            let header = |key, value| Header { key, value: Some(value) };
            let headers = OwnedHeaders::new_with_capacity(5)
                .insert(header(REASON_HEADER, refusal.reason.as_str()))
                .insert(header(TOPIC_HEADER, refusal.topic.as_str()))
                .insert(header(SOURCE_HEADER, refusal.source))
                .insert(header(RECEIVED_AT_HEADER, received_at.as_str()))
                .insert(header(DETAIL_HEADER, refusal.detail.as_str()));
            let mut record = FutureRecord::to(&self.topic).payload(&refusal.payload).headers(headers);
            if let Some(key) = &refusal.key {
                record = record.key(key);
            }
            pending.push(loop {
                match self.producer.send_result(record) {
                    Ok(delivery) => break delivery,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                        record = back;
                        tokio::time::sleep(QUEUE_FULL_WAIT).await;
                    }
                    Err((error, _)) => return Err(error),
                }
            });
        }
        for delivery in pending {
            match delivery.await {
                Ok(Ok(_)) => {}
                Ok(Err((error, _))) => return Err(error),
                Err(_) => return Err(KafkaError::Canceled),
            }
        }
        Ok(())
    }
}
