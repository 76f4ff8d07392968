//! A log for one test, and clients with the configuration that doseline uses.

use std::{
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use embedded::kafka::{self, Error, Handle, Options};
use rdkafka::{
    ClientConfig, ClientContext, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    message::OwnedMessage,
    producer::{DeliveryResult, ProducerContext, ThreadedProducer},
    types::RDKafkaErrorCode,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(180);

pub struct Log {
    runtime: Runtime,
    handle: Handle,
    shutdown: CancellationToken,
    directory: PathBuf,
    temporary: Option<TempDir>,
}

impl Log {
    pub fn start() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let log = Self::open_at(temporary.path());
        Self { temporary: Some(temporary), ..log }
    }

    /// A log in an existing folder.
    pub fn open_at(directory: &Path) -> Self {
        Self::open(Runtime::new().unwrap(), directory, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    fn open(runtime: Runtime, directory: &Path, listen: SocketAddr) -> Self {
        let shutdown = CancellationToken::new();
        let mut options = Options::new(directory, listen);
        options.retention_interval = Duration::from_millis(100);
        let handle = runtime.block_on(kafka::start(options, shutdown.clone())).unwrap();
        Self { runtime, handle, shutdown, directory: directory.to_owned(), temporary: None }
    }

    pub fn address(&self) -> SocketAddr {
        self.handle.address()
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub fn create(&self, topic: &str, partitions: i32, configuration: &[(&str, &str)]) {
        create(self.address(), topic, partitions, configuration);
    }

    pub fn stop(self) -> Result<(), Error> {
        self.shutdown.cancel();
        self.runtime.block_on(self.handle.join())
    }

    /// Stops the log and keeps its data.
    pub fn keep(self) -> TempDir {
        self.shutdown.cancel();
        self.runtime.block_on(self.handle.join()).unwrap();
        self.temporary.unwrap()
    }

    pub fn restart(self) -> Self {
        self.restart_after(|_| {})
    }

    /// Stops the log, lets `meanwhile` change the data, and starts the log at the same address.
    pub fn restart_after(self, meanwhile: impl FnOnce(&Log)) -> Self {
        let address = self.address();
        self.shutdown.cancel();
        wait_until("the log has stopped", || self.handle.is_finished());
        meanwhile(&self);
        Self { temporary: self.temporary, ..Self::open(self.runtime, &self.directory, address) }
    }
}

pub fn create(address: SocketAddr, topic: &str, partitions: i32, configuration: &[(&str, &str)]) {
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let new = configuration.iter().fold(new, |new, (name, value)| new.set(name, value));
    let admin = admin(address);
    let created = Runtime::new().unwrap().block_on(admin.create_topics(&[new], &AdminOptions::new())).unwrap();
    assert!(created[0].is_ok(), "{created:?}");
}

pub fn admin(address: SocketAddr) -> AdminClient<DefaultClientContext> {
    config(address).create().unwrap()
}

fn config(address: SocketAddr) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", address.to_string())
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "500");
    config
}

/// The offset or error of each record, as reported.
pub type Delivered = Arc<Mutex<Vec<Result<i64, RDKafkaErrorCode>>>>;

#[derive(Default)]
pub struct Recorder(Delivered);

impl ClientContext for Recorder {}

impl ProducerContext for Recorder {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let outcome = result.as_ref().map(Message::offset).map_err(|(error, _)| error.rdkafka_error_code().unwrap());
        self.0.lock().unwrap().push(outcome);
    }
}

/// A producer as the bridge uses it: idempotent, with all acknowledgements.
pub fn producer(address: SocketAddr) -> (ThreadedProducer<Recorder>, Delivered) {
    let mut config = config(address);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random")
        .set("message.max.bytes", "3000000")
        .set("linger.ms", "2");
    let delivered = Delivered::default();
    let recorder = Recorder(Arc::clone(&delivered));
    (ThreadedProducer::from_config_and_context(&config, recorder).unwrap(), delivered)
}

/// A consumer as the loader uses it: partitions are assigned by hand.
pub fn consumer(address: SocketAddr) -> BaseConsumer {
    group_consumer(address, "by-hand")
}

pub fn group_consumer(address: SocketAddr, group: &str) -> BaseConsumer {
    config(address)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("check.crcs", "true")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "200")
        .set("fetch.message.max.bytes", "4000000")
        .create()
        .unwrap()
}

/// Reads a topic from its start, in the order of each partition. Fails if there are more than
/// `count` records.
pub fn read_all(address: SocketAddr, topic: &str, partitions: i32, count: usize) -> Vec<OwnedMessage> {
    let consumer = consumer(address);
    let mut offsets = TopicPartitionList::new();
    for partition in 0..partitions {
        offsets.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    let marks = |partition| consumer.fetch_watermarks(topic, partition, Duration::from_secs(60)).unwrap();
    let there: i64 = (0..partitions).map(marks).map(|(low, high)| high - low).sum();
    assert_eq!(usize::try_from(there).unwrap(), count, "records in the log");
    consumer.assign(&offsets).unwrap();
    let deadline = Instant::now() + DEADLINE;
    let mut records = Vec::with_capacity(count);
    while records.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} records", records.len());
        if let Some(record) = consumer.poll(Duration::from_millis(100)) {
            records.push(record.unwrap().detach());
        }
    }
    records
}

pub fn poll_until(consumers: &[&BaseConsumer], reached: impl Fn() -> bool) {
    wait_until("the group has settled", || {
        for consumer in consumers {
            // Without records only errors arrive. Those of a rebalance pass.
            let _ = consumer.poll(Duration::from_millis(10));
        }
        reached()
    });
}

pub fn wait_until(what: &str, reached: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !reached() {
        assert!(Instant::now() < deadline, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
