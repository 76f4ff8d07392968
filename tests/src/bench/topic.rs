//! The topic of reports, filled as the bridge fills it, as fast as Kafka accepts records.

use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use telemetry::kafka::{RECEIVED_AT_HEADER, REPORTS_TOPIC, TOPIC_HEADER};

use super::data::Fleet;
use super::say;
use crate::Kafka;

const WITHIN: Duration = Duration::from_secs(120);
const PROGRESS: Duration = Duration::from_secs(10);

/// Produces the first reports of a fleet, with the bridge's key, headers and partitioner, and
/// checks that Kafka has them.
pub fn fill(kafka: &Kafka, fleet: Fleet, reports: u64) {
    let mut config = kafka.config();
    config.set("partitioner", "murmur2_random").set("enable.idempotence", "true").set("linger.ms", "5");
    config.set("queue.buffering.max.messages", "0").set("queue.buffering.max.kbytes", "262144");
    let producer: ThreadedProducer<DefaultProducerContext> = config.create().expect("create a producer");
    let (before, began) = (count(kafka), Instant::now());
    let mut told = began;
    for number in 0..reports {
        let sent = fleet.sent(number);
        let received_at = sent.received_at.to_string();
        let headers = OwnedHeaders::new_with_capacity(2)
            .insert(Header { key: TOPIC_HEADER, value: Some(&sent.topic) })
            .insert(Header { key: RECEIVED_AT_HEADER, value: Some(&received_at) });
        let mut record = BaseRecord::to(REPORTS_TOPIC).key(&sent.key).payload(&sent.payload).headers(headers);
        while let Err((error, back)) = producer.send(record) {
            assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
            std::thread::sleep(Duration::from_millis(5));
            record = back;
        }
        if told.elapsed() > PROGRESS {
            told = Instant::now();
            say(&format!("   {number} of {reports} reports in Kafka"));
        }
    }
    producer.flush(WITHIN).expect("produce");
    assert_eq!(count(kafka) - before, reports, "records in Kafka");
    say(&format!(
        "   {reports} reports of {} devices in Kafka after {:.0} s",
        fleet.devices,
        began.elapsed().as_secs_f64()
    ));
}

/// Number of records in the topic.
pub fn count(kafka: &Kafka) -> u64 {
    kafka.end_offsets(REPORTS_TOPIC).values().map(|end| end.unsigned_abs()).sum()
}
