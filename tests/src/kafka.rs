//! Apache Kafka in KRaft mode, with one broker or several; each is also a controller.

mod client;
mod locked;
mod node;
mod secured;
mod surgery;

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};

pub use client::Record;
pub use node::{Node, java};
pub use surgery::{Observer, Offsets};

use crate::poll;

const READY_WITHIN: Duration = Duration::from_secs(180);

/// A cluster on 127.0.0.1 that never creates a topic by itself.
///
/// A start takes seconds. Tests of one file may share a cluster through a `static OnceLock<Kafka>`
/// if each uses topics of its own. The processes end with the test process.
pub struct Kafka {
    nodes: Vec<Node>,
}

impl Kafka {
    /// Starts a cluster of one broker.
    pub fn start() -> Self {
        Self::cluster(1)
    }

    /// Starts a cluster of `size` brokers. Kafka's internal topics have up to three copies.
    pub fn cluster(size: usize) -> Self {
        let mut nodes = Node::plan(size);
        // Each node is formatted by a process of its own, in parallel.
        std::thread::scope(|scope| {
            for node in &mut nodes {
                scope.spawn(|| node.format());
            }
        });
        let mut kafka = Self { nodes };
        kafka.start_again();
        kafka
    }

    /// Starts every node that does not run, with its data, and waits until all are there.
    pub fn start_again(&mut self) {
        for node in &mut self.nodes {
            if !node.runs() {
                node.launch();
            }
        }
        self.wait_until_ready();
    }

    /// Kills all nodes with SIGKILL.
    pub fn kill(&mut self) {
        self.nodes.iter_mut().for_each(Node::kill);
    }

    /// Stops all nodes with SIGTERM, in order.
    pub fn stop(&mut self) {
        self.nodes.iter_mut().for_each(Node::stop);
    }

    /// A node by its index from 0; its id in Kafka is one more.
    pub fn node(&mut self, index: usize) -> &mut Node {
        &mut self.nodes[index]
    }

    /// `HOST:PORT,..` for `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<_> = self.nodes.iter().map(Node::address).collect();
        addresses.join(",")
    }

    /// Waits until the cluster knows every running node, and no other.
    pub fn wait_until_ready(&mut self) {
        let running: Vec<_> = self.nodes.iter_mut().filter_map(|node| node.runs().then(|| node.id())).collect();
        let consumer: BaseConsumer = self.config().create().expect("create a Kafka client");
        poll(READY_WITHIN, "kafka to be ready", || {
            for node in &mut self.nodes {
                if running.contains(&node.id()) {
                    node.alive().unwrap_or_else(|ended| panic!("{ended}"));
                }
            }
            let metadata = consumer.fetch_metadata(None, Duration::from_secs(1)).map_err(|error| error.to_string())?;
            let mut known: Vec<_> = metadata.brokers().iter().map(rdkafka::metadata::MetadataBroker::id).collect();
            known.sort_unstable();
            if known == running { Ok(()) } else { Err(format!("the cluster has nodes {known:?}, not {running:?}")) }
        });
    }
}
