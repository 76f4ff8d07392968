//! The librdkafka producer: its configuration, and its callbacks.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{Producer as _, ProducerContext},
};

use service::producer::PolledProducer;

use crate::{
    confirmations::Confirmations,
    options::{Options, RECORD_OVERHEAD_BYTES},
};

/// Defaults that a property may change.
const DEFAULTS: [(&str, &str); 2] = [
    ("linger.ms", "25"),
    // After this long librdkafka reports a record as failed, and the bridge produces it again.
    ("message.timeout.ms", "60000"),
];

/// Receives delivery reports on librdkafka's polling thread.
pub(crate) struct Context {
    /// Which producer this is: a rebuilt one has a larger number.
    pub generation: u64,
    pub confirmations: Arc<Confirmations>,
}

pub(crate) type Producer = PolledProducer<Context>;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // `error` receives each error too, once for each state; librdkafka's own lines repeat with
        // each attempt.
        tracing::debug!(?level, facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Fatal) => self.confirmations.producer_died(self.generation, reason),
            // This follows the errors of the single brokers, which give the reason.
            Some(RDKafkaErrorCode::AllBrokersDown) => {}
            _ => self.confirmations.client_error(reason),
        }
    }
}

impl ProducerContext for Context {
    /// Number of the record in [`Confirmations`].
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        match result {
            Ok(_) => self.confirmations.confirm(number),
            Err((error, _)) => self.confirmations.fail(self.generation, number, error),
        }
    }
}

/// The configuration of every producer of this bridge.
pub(crate) fn configuration(options: &Options) -> ClientConfig {
    let kafka = &options.kafka;
    let mut config = kafka.properties.client(&kafka.brokers, &DEFAULTS);
    if config.get("client.id").is_none() {
        config.set("client.id", &options.mqtt.client_id);
    }
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random")
        // Bytes are the limit, not the number of messages.
        .set("queue.buffering.max.messages", "0")
        .set("queue.buffering.max.kbytes", kafka.queue_kbytes.to_string())
        .set("message.max.bytes", (options.mqtt.packet_bytes_max + RECORD_OVERHEAD_BYTES).to_string());
    config
}

/// Looks at the topics: all there, with one number of partitions. Blocks for `timeout` at most.
///
/// Returns that number, or what is wrong.
pub(crate) fn verify(producer: &Producer, topics: [&str; 3], timeout: Duration) -> Result<usize, String> {
    let context = producer.context();
    // All topics: asking for one by name would create it on a broker that creates topics by itself.
    let metadata = producer.client().fetch_metadata(None, timeout).map_err(|error| {
        let why = context.confirmations.last_client_error().unwrap_or_else(|| error.to_string());
        format!("kafka does not answer: {why}")
    })?;
    let partitions: BTreeMap<&str, usize> =
        metadata.topics().iter().map(|topic| (topic.name(), topic.partitions().len())).collect();
    let mut counts = Vec::new();
    for topic in topics {
        match partitions.get(topic) {
            Some(count) if *count > 0 => counts.push(*count),
            _ => return Err(format!("kafka topic {topic} does not exist; `doseline migrate` creates it")),
        }
    }
    match counts.as_slice() {
        [first, rest @ ..] if rest.iter().all(|count| count == first) => Ok(*first),
        _ => Err(format!("kafka topics {topics:?} have {counts:?} partitions; the numbers must be equal")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_guarantees_hang_on_is_set() {
        let mut options = Options::default();
        options.kafka.properties.insert("linger.ms".to_owned(), "20".to_owned());
        let config = configuration(&options);
        for (name, value) in [
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("partitioner", "murmur2_random"),
            ("queue.buffering.max.kbytes", "131072"),
            ("message.max.bytes", "2228224"),
            ("linger.ms", "20"),
            ("client.id", "doseline-bridge-1"),
        ] {
            assert_eq!(config.get(name), Some(value), "{name}");
        }
        config.create_native_config().unwrap();
    }
}
