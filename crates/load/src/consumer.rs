//! The librdkafka consumer: its configuration, and its callbacks.
//!
//! A rebalance is answered in two ways. The callback gives revoked partitions up at once. It only
//! notes assigned ones: they have to wait until ClickHouse has answered where to start. The polling
//! thread then assigns them with explicit offsets. It continues to poll meanwhile, and librdkafka
//! keeps the group membership alive.

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

/// A rebalance that the polling thread has to carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rebalance {
    /// This consumer gets these partitions as soon as it assigns them.
    Assigned(Vec<(String, i32)>),
    /// This consumer no longer has these partitions.
    Revoked(Vec<(String, i32)>),
}

/// State that the callbacks share with the polling thread.
pub(crate) struct Context {
    handle: Handle,
    rebalances: Mutex<Vec<Rebalance>>,
    /// The consumer is closing: no partition is assigned any more.
    closing: AtomicBool,
}

pub(crate) type Consumer = BaseConsumer<Context>;

impl Context {
    pub fn new(handle: Handle) -> Self {
        Self { handle, rebalances: Mutex::default(), closing: AtomicBool::new(false) }
    }

    /// The rebalances since the last call, in order.
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

/// The state of a consumer that is not in its group. `None` for a member, also while it has to
/// answer a rebalance.
fn outside(state: &str, join_state: &str) -> Option<String> {
    let joining = matches!(join_state, "init" | "wait-join" | "wait-metadata" | "wait-sync");
    (state != "up" || joining).then(|| format!("{state}, {join_state}"))
}

/// The revoked partitions that were assigned. librdkafka refuses an answer that names another one,
/// for example a partition whose start is still being looked up. An empty answer is valid.
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
        // The group then revokes the partitions after the session time-out.
        tracing::warn!(%error, "rebalance could not be answered");
    }
}

fn names(partitions: &TopicPartitionList) -> Vec<(String, i32)> {
    partitions.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect()
}

/// The configuration of the consumer. Properties that a guarantee depends on come last, so that the
/// operator's properties cannot change them.
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
        // The broker answers as soon as it has any record: batches are collected here, not in the
        // broker.
        .set("fetch.min.bytes", "1")
        .set("fetch.wait.max.ms", "100")
        // The queue of librdkafka for each partition; inboxes have limits of their own.
        .set("queued.max.messages.kbytes", "2048")
        // If that queue is full, the next fetch waits for this long; the default is a second.
        .set("fetch.queue.backoff.ms", "20")
        .set("statistics.interval.ms", "5000");
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_consumer_outside_its_group_is_known() {
        assert_eq!(outside("up", "steady"), None);
        assert_eq!(outside("up", "wait-assign-call"), None);
        assert_eq!(outside("wait-coord", "init").unwrap(), "wait-coord, init");
        assert_eq!(outside("up", "wait-join").unwrap(), "up, wait-join");
    }

    #[test]
    fn properties_that_a_guarantee_depends_on_are_set() {
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
