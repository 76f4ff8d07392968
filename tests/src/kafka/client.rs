//! Topics and records of a cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::Kafka;
use crate::poll;

const ANSWER_WITHIN: Duration = Duration::from_secs(120);

/// A record of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Number of its partition.
    pub partition: i32,
    /// Its offset in the partition.
    pub offset: i64,
    /// The key; `None` if it has none.
    pub key: Option<Vec<u8>>,
    /// The value; empty if it has none.
    pub value: Vec<u8>,
    /// The headers in their order; a header without a value is empty.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    /// The first header of this name, as text.
    pub fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(header, _)| header == name)?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    fn of(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().into_iter().flat_map(Headers::iter);
        Self {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().unwrap_or_default().to_vec(),
            headers: headers.map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec())).collect(),
        }
    }
}

impl Kafka {
    /// Settings of a client of this cluster, to which a test adds its own.
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap());
        config.set("reconnect.backoff.ms", "20").set("reconnect.backoff.max.ms", "200");
        config
    }

    /// Creates a topic with a copy on each of up to three brokers, and waits until each partition
    /// has a leader.
    pub fn create_topic(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let replicas = i32::try_from(self.nodes.len().min(3)).expect("at most three");
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(replicas));
        let new = settings.iter().fold(new, |new, (name, value)| new.set(name, value));
        let options = AdminOptions::new().operation_timeout(Some(ANSWER_WITHIN));
        let results = block_on(self.admin().create_topics([&new], &options)).expect("create a topic");
        for result in results {
            result.unwrap_or_else(|(topic, error)| panic!("create topic {topic}: {error}"));
        }
        let consumer = self.consumer();
        poll(ANSWER_WITHIN, "leaders of a new topic", || {
            let metadata = consumer.fetch_metadata(Some(topic), ANSWER_WITHIN).map_err(|error| error.to_string())?;
            let led = metadata.topics()[0].partitions().iter().filter(|partition| partition.leader() > 0).count();
            if i32::try_from(led) == Ok(partitions) { Ok(()) } else { Err(format!("{led} of {partitions} have one")) }
        });
    }

    /// Deletes a topic.
    pub fn delete_topic(&self, topic: &str) {
        let options = AdminOptions::new().operation_timeout(Some(ANSWER_WITHIN));
        for result in block_on(self.admin().delete_topics(&[topic], &options)).expect("delete a topic") {
            result.unwrap_or_else(|(topic, error)| panic!("delete topic {topic}: {error}"));
        }
    }

    /// Deletes the records below an offset, as retention does.
    pub fn delete_records(&self, topic: &str, partition: i32, below: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(below)).expect("a valid offset");
        let options = AdminOptions::new().operation_timeout(Some(ANSWER_WITHIN));
        let deleted = block_on(self.admin().delete_records(&list, &options)).expect("delete records");
        assert!(deleted.elements().iter().all(|element| element.error().is_ok()), "{deleted:?}");
    }

    /// Deletes a topic and creates it again, empty.
    pub fn make_again(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        self.delete_topic(topic);
        poll(ANSWER_WITHIN, "a topic to be gone", || match self.end_offsets(topic) {
            ends if ends.is_empty() => Ok(()),
            ends => Err(format!("it has {ends:?}")),
        });
        self.create_topic(topic, partitions, settings);
    }

    /// Commits an offset for every partition of a topic, in the name of a group without members.
    pub fn reset_group(&self, group: &str, topic: &str, offset: i64) {
        let consumer: BaseConsumer = self.config().set("group.id", group).create().expect("create a Kafka consumer");
        let mut list = TopicPartitionList::new();
        for partition in self.end_offsets(topic).into_keys() {
            list.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("a valid offset");
        }
        poll(ANSWER_WITHIN, "a group's offsets to be reset", || {
            consumer.commit(&list, rdkafka::consumer::CommitMode::Sync).map_err(|error| error.to_string())
        });
    }

    /// The offset after the last record, by partition; empty if the topic does not exist.
    pub fn end_offsets(&self, topic: &str) -> BTreeMap<i32, i64> {
        let bounds = bounds(&self.consumer(), topic);
        bounds.into_iter().map(|(partition, (_, end))| (partition, end)).collect()
    }

    /// Every record in a topic at the time of the call, by partition and offset.
    pub fn records(&self, topic: &str) -> Vec<Record> {
        let consumer = self.consumer();
        let mut open: BTreeMap<_, _> = bounds(&consumer, topic);
        open.retain(|_, (start, end)| start < end);
        let mut list = TopicPartitionList::new();
        for (partition, (start, _)) in &open {
            list.add_partition_offset(topic, *partition, Offset::Offset(*start)).expect("a valid offset");
        }
        consumer.assign(&list).expect("assign partitions");
        let mut records = Vec::new();
        poll(ANSWER_WITHIN, "the end of a topic", || {
            while !open.is_empty()
                && let Some(message) = consumer.poll(Duration::from_millis(100))
            {
                let record = match message {
                    Ok(message) => Record::of(&message),
                    // The end of a partition may be a marker instead of a record; the client
                    // reports that.
                    Err(rdkafka::error::KafkaError::PartitionEOF(partition)) => {
                        open.remove(&partition);
                        continue;
                    }
                    Err(error) => return Err(error.to_string()),
                };
                let Some((_, end)) = open.get(&record.partition) else { continue };
                let (last, partition) = (record.offset + 1 >= *end, record.partition);
                if record.offset < *end {
                    records.push(record);
                }
                if last {
                    open.remove(&partition);
                }
            }
            if open.is_empty() { Ok(()) } else { Err(format!("{} records, still open {open:?}", records.len())) }
        });
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }

    fn consumer(&self) -> BaseConsumer {
        let mut config = self.config();
        // The group is only named, never joined: partitions are assigned by hand, and nothing is
        // committed.
        config.set("group.id", "harness").set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        config.create().expect("create a Kafka consumer")
    }

    pub(super) fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().expect("create a Kafka admin client")
    }
}

/// First offset and end, by partition. A broker may not know the leaders of a new topic yet.
fn bounds(consumer: &BaseConsumer, topic: &str) -> BTreeMap<i32, (i64, i64)> {
    poll(ANSWER_WITHIN, "a topic's offsets", || {
        let metadata = consumer.fetch_metadata(Some(topic), ANSWER_WITHIN).map_err(|error| error.to_string())?;
        let partitions = metadata.topics()[0].partitions().iter().map(rdkafka::metadata::MetadataPartition::id);
        let bounds = |partition| consumer.fetch_watermarks(topic, partition, ANSWER_WITHIN);
        partitions
            .map(|partition| Ok((partition, bounds(partition).map_err(|error| error.to_string())?)))
            .collect::<Result<_, String>>()
    })
}
