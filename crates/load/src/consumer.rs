//! The librdkafka consumer: its configuration, and its callbacks.
//!
//! A rebalance is answered in two ways. Revoked partitions are let go at once, in the callback.
//! Assigned ones have to wait until ClickHouse has said where to start: the callback only notes
//! them, and the polling thread makes the assignment with explicit offsets when they are known,
//! polling on meanwhile (librdkafka keeps the group membership alive and waits).

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use rdkafka::{
    ClientConfig, ClientContext, Statistics, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    types::RDKafkaRespErr,
};

use crate::{options::Kafka, status::Handle};

/// What a rebalance asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rebalance {
    /// These partitions are ours as soon as we assign them.
    Assigned(Vec<(String, i32)>),
    /// These are ours no more.
    Revoked(Vec<(String, i32)>),
}

/// What the callbacks leave for the polling thread.
pub(crate) struct Context {
    handle: Handle,
    rebalances: Mutex<Vec<Rebalance>>,
    /// The consumer is going away: nothing is taken any more.
    closing: AtomicBool,
}

pub(crate) type Consumer = BaseConsumer<Context>;

impl Context {
    pub fn new(handle: Handle) -> Self {
        Self { handle, rebalances: Mutex::default(), closing: AtomicBool::new(false) }
    }

    /// What has come in since the last call, in order.
    pub fn take(&self) -> Vec<Rebalance> {
        std::mem::take(&mut *service::lock(&self.rebalances))
    }

    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    fn note(&self, rebalance: Rebalance) {
        service::lock(&self.rebalances).push(rebalance);
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let down = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
        let refused = error.rdkafka_error_code() == Some(RDKafkaErrorCode::Authentication);
        let told = (down || refused) && self.handle.kafka(Some(reason));
        let code = error.rdkafka_error_code().map_or_else(|| "unknown".to_owned(), |code| format!("{code:?}"));
        if self.handle.consumer_error(code, reason) || told {
            tracing::warn!(%error, reason, "kafka");
        }
    }

    fn stats(&self, statistics: Statistics) {
        if statistics.brokers.values().any(|broker| broker.state == "UP") && self.handle.kafka(None) {
            tracing::info!("kafka is reachable");
        }
        self.handle.outside(statistics.cgrp.as_ref().and_then(|group| outside(&group.state, &group.join_state)));
        for (name, topic) in &statistics.topics {
            for (partition, numbers) in &topic.partitions {
                if numbers.hi_offset >= 0 {
                    self.handle.high(name, *partition, numbers.hi_offset);
                }
            }
        }
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let list = names(partitions);
        if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            if self.closing.load(Ordering::Relaxed) {
                answer(consumer.incremental_assign(&TopicPartitionList::new()));
            } else {
                self.note(Rebalance::Assigned(list));
            }
        } else {
            answer(held(consumer, partitions).and_then(|held| consumer.incremental_unassign(&held)));
            self.note(Rebalance::Revoked(list));
        }
    }
}

/// The state of a consumer that is not in its group; none for a member, also for one that is about
/// to answer a rebalance.
fn outside(state: &str, join_state: &str) -> Option<String> {
    let joining = matches!(join_state, "init" | "wait-join" | "wait-metadata" | "wait-sync");
    (state != "up" || joining).then(|| format!("{state}, {join_state}"))
}

/// Those that have been assigned: librdkafka refuses the whole answer for one that is not, e.g.
/// because its start was still being looked up. An empty answer is one too.
fn held(consumer: &BaseConsumer<Context>, revoked: &TopicPartitionList) -> Result<TopicPartitionList, KafkaError> {
    let (assignment, mut held) = (consumer.assignment()?, TopicPartitionList::new());
    for element in revoked.elements() {
        if assignment.find_partition(element.topic(), element.partition()).is_some() {
            held.add_partition(element.topic(), element.partition());
        }
    }
    Ok(held)
}

fn answer(result: Result<(), KafkaError>) {
    if let Err(error) = result {
        // The group then takes the partitions back by itself after the session time-out.
        tracing::warn!(%error, "rebalance could not be answered");
    }
}

fn names(partitions: &TopicPartitionList) -> Vec<(String, i32)> {
    partitions.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect()
}

/// The configuration of the consumer. What the guarantees hang on comes last and cannot be set
/// otherwise.
pub(crate) fn configuration(kafka: &Kafka, instance: &str) -> ClientConfig {
    let mut config = kafka.client();
    if config.get("client.id").is_none() {
        config.set("client.id", instance);
    }
    let timeout = kafka.session_timeout.as_millis();
    config
        .set("group.id", &kafka.group)
        .set("session.timeout.ms", timeout.to_string())
        .set("heartbeat.interval.ms", (timeout / 10).clamp(100, 3_000).to_string())
        .set("max.poll.interval.ms", timeout.max(300_000).to_string())
        .set("partition.assignment.strategy", "cooperative-sticky")
        // An offset that Kafka does not have is an error, never a silent jump.
        .set("auto.offset.reset", "error")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("check.crcs", "true")
        // Small fetches are answered at once when there is anything: batches are made here, not in
        // the broker.
        .set("fetch.min.bytes", "1")
        .set("fetch.wait.max.ms", "100")
        // What waits in librdkafka, for each partition; records wait in inboxes with limits of
        // their own.
        .set("queued.max.messages.kbytes", "2048")
        // Where as much waits, the next fetch is put off by this long; a second, by default.
        .set("fetch.queue.backoff.ms", "20")
        .set("statistics.interval.ms", "5000");
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_without_its_group_says_how_far_it_has_come() {
        assert_eq!(outside("up", "steady"), None);
        assert_eq!(outside("up", "wait-assign-call"), None);
        assert_eq!(outside("wait-coord", "init").unwrap(), "wait-coord, init");
        assert_eq!(outside("up", "wait-join").unwrap(), "up, wait-join");
    }

    #[test]
    fn what_guarantees_hang_on_is_set() {
        let mut kafka = Kafka::default();
        kafka.properties.insert("auto.offset.reset".to_owned(), "latest".to_owned());
        kafka.properties.insert("client.rack".to_owned(), "r1".to_owned());
        let config = configuration(&kafka, "load-1");
        for (name, value) in [
            ("auto.offset.reset", "error"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("check.crcs", "true"),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("client.rack", "r1"),
            ("client.id", "load-1"),
        ] {
            assert_eq!(config.get(name), Some(value), "{name}");
        }
        config.create_native_config().unwrap();
    }
}
