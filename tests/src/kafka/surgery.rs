//! Interventions that a cluster should not suffer, and ways to observe it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::Kafka;
use super::node::java;
use crate::{Process, Scratch, poll};

const WITHIN: Duration = Duration::from_secs(240);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Offsets, by topic and partition.
pub type Offsets = BTreeMap<(String, i32), i64>;

/// Reads from a cluster, on any thread.
pub struct Observer {
    consumer: BaseConsumer,
    topics: Vec<String>,
    partitions: i32,
}

impl Observer {
    /// The ends of all partitions.
    pub fn ends(&self) -> Result<Offsets, String> {
        let mut ends = Offsets::new();
        for topic in &self.topics {
            // Leaders may have died since the last call.
            self.consumer.fetch_metadata(Some(topic), ANSWER_WITHIN).map_err(|error| error.to_string())?;
            for partition in 0..self.partitions {
                let bounds = self.consumer.fetch_watermarks(topic, partition, ANSWER_WITHIN);
                let (_, end) = bounds.map_err(|error| error.to_string())?;
                ends.insert((topic.clone(), partition), end);
            }
        }
        Ok(ends)
    }

    /// The commits of the group; partitions without a commit are absent.
    pub fn committed(&self) -> Result<Offsets, String> {
        let list = self.list(Offset::Invalid);
        let list = self.consumer.committed_offsets(list, ANSWER_WITHIN).map_err(|error| error.to_string())?;
        let committed = list.elements().into_iter().filter_map(|element| match element.offset() {
            Offset::Offset(offset) => Some(((element.topic().to_owned(), element.partition()), offset)),
            _ => None,
        });
        Ok(committed.collect())
    }

    /// Sets all commits of the group to 0. Kafka refuses that while the group has members.
    pub fn rewind(&self) -> Result<(), String> {
        self.consumer.commit(&self.list(Offset::Offset(0)), CommitMode::Sync).map_err(|error| error.to_string())
    }

    fn list(&self, offset: Offset) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for topic in &self.topics {
            for partition in 0..self.partitions {
                list.add_partition_offset(topic, partition, offset).expect("a valid offset");
            }
        }
        list
    }
}

impl Kafka {
    /// An observer of topics with this number of partitions, and of a group, without joining the
    /// group.
    pub fn observer(&self, group: &str, topics: &[&str], partitions: i32) -> Observer {
        let mut config: ClientConfig = self.config();
        config.set("group.id", group).set("enable.auto.commit", "false");
        let consumer = config.create().expect("create a Kafka consumer");
        Observer { consumer, topics: topics.iter().map(|topic| (*topic).to_owned()).collect(), partitions }
    }

    /// Waits until every partition of these topics has all of its copies in sync.
    pub fn wait_until_in_sync(&self, topics: &[&str]) {
        let consumer: BaseConsumer = self.config().create().expect("create a Kafka client");
        poll(WITHIN, "all copies to be in sync", || {
            for topic in topics {
                let metadata =
                    consumer.fetch_metadata(Some(topic), ANSWER_WITHIN).map_err(|error| error.to_string())?;
                for partition in metadata.topics()[0].partitions() {
                    if partition.isr().len() < partition.replicas().len() || partition.leader() < 0 {
                        return Err(format!("{topic} {} has {:?} in sync", partition.id(), partition.isr()));
                    }
                }
            }
            Ok(())
        });
    }

    /// The node that leads a partition, by its index from 0. A partition may have no leader for a
    /// moment.
    pub fn leader(&self, topic: &str, partition: usize) -> usize {
        let consumer: BaseConsumer = self.config().create().expect("create a Kafka client");
        poll(WITHIN, "a leader", || {
            let metadata = consumer.fetch_metadata(Some(topic), ANSWER_WITHIN).map_err(|error| error.to_string())?;
            let leader = metadata.topics()[0].partitions().get(partition).map_or(-1, |partition| partition.leader());
            usize::try_from(leader - 1).map_err(|_| format!("{topic} {partition} has the leader {leader}"))
        })
    }

    /// Assigns these copies to one partition, by node id. With fewer than `min.insync.replicas` it
    /// accepts no records.
    pub fn reassign(&self, topic: &str, partition: i32, nodes: &[i32]) {
        let scratch = Scratch::new("reassign");
        let plan = format!(
            r#"{{"version":1,"partitions":[{{"topic":"{topic}","partition":{partition},"replicas":{nodes:?}}}]}}"#
        );
        fs::write(scratch.join("plan.json"), plan).expect("write a plan");
        let mut command = java();
        command.args(["org.apache.kafka.tools.reassign.ReassignPartitionsCommand", "--execute"]);
        command.args(["--bootstrap-server", &self.bootstrap(), "--reassignment-json-file"]);
        command.arg(scratch.join("plan.json"));
        let mut process = Process::start("kafka reassign", command, &scratch.join("log"), None);
        let status = process.wait(WITHIN);
        assert!(status.success(), "kafka reassign ended with {status}:\n{}", process.log());
    }
}
