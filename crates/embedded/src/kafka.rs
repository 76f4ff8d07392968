//! A durable Kafka log inside this process: enough of Apache Kafka for one machine.
//!
//! It supports produce (also idempotent), fetch with long polling, offsets by time, topics with
//! configuration, and consumer groups of the classic protocol with commits. Absent: replication,
//! transactions, compaction, access control and TLS. It trusts its clients, so it belongs on the
//! loopback interface.
//!
//! Invariants:
//! - A record is acknowledged, and visible to a consumer, only after the `fdatasync` of its file.
//! - A batch is stored as it was sent, provided that its records can be read. The log of a
//!   partition is a sequence of batches without a gap in its offsets.
//! - An offset is given out once. The broker never skips damage silently: it reports the place and
//!   does not start.
//! - Each partition has one writer. After a failed write or sync the writer stops, and the broker
//!   ends with an error.
//! - A batch that an idempotent producer sends twice is stored once, also across a restart.

mod api;
mod batch;
mod catalog;
mod config;
mod connection;
mod context;
mod coordination;
mod fetch;
mod group;
mod memory;
mod offsets;
mod partition;
mod produce;
mod producers;
mod records;
mod segment;
mod shape;
mod topics;

use async_recursion::async_recursion as boxed;
use std::{
    collections::HashMap,
    fs::File,
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use service::connection_slots::ConnectionSlots;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{catalog::Catalog, group::Group, memory::Memory, offsets::Offsets, partition::Signals};

/// There is only one node, and it always leads every partition.
const NODE_ID: i32 = 1;
const LEADER_EPOCH: i32 = 0;
/// Connections at once. Each may hold an answer of 8 MiB.
const CONNECTIONS_MAX: usize = 256;
/// How often groups are checked for silent members.
const GROUP_TICK: Duration = Duration::from_millis(100);
/// How long a write waits if the process may not open another file.
const FILES_FREE_WITHIN: Duration = Duration::from_secs(30);
/// How long a stopping broker lets connections finish their requests.
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// Why the log could not start, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is in use, or does not belong to this machine.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The requested address.
        address: SocketAddr,
        source: io::Error,
    },
    /// Another process uses the directory.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// Reading or writing failed, for example because the disk is full. Acknowledged records are
    /// safe.
    #[error("kafka log storage failed in {}: {source}", path.display())]
    Storage { path: PathBuf, source: io::Error },
    /// Durable data is damaged. The broker does not guess a repair.
    #[error("{} is damaged; put it back from a copy", .0.display())]
    Corrupt(PathBuf),
    /// Damage in the middle of a partition's file. An unfinished write would be at its end. The
    /// file is left unchanged.
    #[error(
        "{} is damaged at byte {position}: the record with offset {offset} cannot be read there, and confirmed ones follow. \
         Put the file back from a copy; or, to go on without what cannot be read: mv {} {}",
        path.display(), path.display(), damaged(path).display()
    )]
    Damaged {
        path: PathBuf,
        /// The first byte that does not continue the log.
        position: u64,
        /// The offset expected there.
        offset: i64,
    },
    /// Records are missing from the end of a partition: a reader has read further than the log
    /// reaches. New records would get the offsets of the missing ones, and that reader would skip
    /// them.
    #[error(
        "{} ends before offset {end}, and {reader} has already read up to {committed}: confirmed records are missing. \
         Put the files back from a copy; or, to go on without these records: touch {}",
        path.display(), damaged(&segment::path(path, *committed)).display()
    )]
    Behind {
        /// The partition's directory.
        path: PathBuf,
        /// The reader that has read further.
        reader: String,
        /// The offset that this reader would read next.
        committed: i64,
        /// The offset that the next record would get.
        end: i64,
    },
    /// A task of the broker ended unexpectedly.
    #[error("kafka log task failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// The name under which a person puts a damaged segment aside. The next start builds a new segment
/// from what can be read of it.
fn damaged(segment: &Path) -> PathBuf {
    segment.with_extension("log.damaged")
}

/// Where the log keeps its data and listens.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The sub-directory `kafka` of this folder holds all data.
    pub data_dir: PathBuf,
    /// Address to listen on; port 0 selects any free port. Clients are told the address that they
    /// connected to.
    pub listen: SocketAddr,
    /// How often segments past their topic's `retention.ms` or `retention.bytes` are searched.
    pub retention_interval: Duration,
}

impl Options {
    /// Options with these places, and a search for old segments every 30 s.
    pub fn new(data_dir: impl Into<PathBuf>, listen: SocketAddr) -> Self {
        Self { data_dir: data_dir.into(), listen, retention_interval: Duration::from_secs(30) }
    }
}

/// A running log. Dropping the handle does not stop the log; cancelling the token that [`start`]
/// took does.
#[derive(Debug)]
pub struct Handle {
    address: SocketAddr,
    ends: Vec<End>,
    task: JoinHandle<Result<(), Error>>,
}

/// Where a partition ended when the log was opened.
#[derive(Clone, Debug)]
pub struct End {
    pub topic: String,
    pub partition: i32,
    /// The offset of the next record.
    pub offset: i64,
    directory: PathBuf,
}

impl End {
    /// The error for a reader that has already read up to `committed`, beyond this end.
    pub fn behind(&self, reader: &str, committed: i64) -> Error {
        Error::Behind { path: self.directory.clone(), reader: reader.to_owned(), committed, end: self.offset }
    }
}

impl Handle {
    /// The bound address, which clients are also told.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where all partitions ended when the log was opened, before it accepted a request.
    pub fn ends(&self) -> &[End] {
        &self.ends
    }

    /// Whether the log has ended, for any reason.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits for the end. `Ok` means that the shutdown token was cancelled and everything is on
    /// disk.
    ///
    /// # Errors
    /// The log ended unexpectedly, usually with [`Error::Storage`].
    #[boxed]
    pub async fn join(self) -> Result<(), Error> {
        self.task.await?
    }
}

/// What all connections share.
#[derive(Debug)]
struct Broker {
    catalog: Catalog,
    offsets: Offsets,
    groups: Mutex<HashMap<String, Group>>,
    appended: watch::Sender<u64>,
    memory: Memory,
    shutdown: CancellationToken,
    /// Locked until the broker ends.
    _lock: File,
}

/// Opens the log in `options.data_dir` and serves it until `shutdown` is cancelled.
///
/// It first checks the ends of all partitions. After large writes the start therefore takes longer,
/// about a second for each gigabyte that it reads.
///
/// # Errors
/// The address is in use, the directory is in use or not writable, or the data is damaged.
#[boxed]
pub async fn start(options: Options, shutdown: CancellationToken) -> Result<Handle, Error> {
    let listening = |source| Error::Listen { address: options.listen, source };
    let listener = TcpListener::bind(options.listen).await.map_err(listening)?;
    let address = listener.local_addr().map_err(listening)?;
    let (failures, failed) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let tracker = TaskTracker::new();
    let appended = watch::Sender::new(0);
    let signals = Signals { appended, failures, shutdown: stop.clone(), tracker: tracker.clone() };
    let directory = options.data_dir.join("kafka");
    let token = shutdown.clone();
    let broker = tokio::task::spawn_blocking(move || open(&directory, signals, token)).await??;
    let ends = broker.catalog.ends();
    let service = Service { listener, broker: Arc::new(broker), failed, stop, tracker };
    let task = tokio::spawn(service.run(options.retention_interval));
    tracing::info!(%address, "kafka log serves");
    Ok(Handle { address, ends, task })
}

fn open(directory: &Path, signals: Signals, shutdown: CancellationToken) -> Result<Broker, Error> {
    let failed = |source| Error::Storage { path: directory.to_owned(), source };
    std::fs::create_dir_all(directory).map_err(failed)?;
    let lock = File::create(directory.join("lock")).map_err(failed)?;
    lock.try_lock().map_err(|_| Error::InUse(directory.to_owned()))?;
    let appended = signals.appended.clone();
    let catalog = Catalog::open(directory, signals)?;
    let offsets = Offsets::open(directory.join("offsets.json"))?;
    let ends = catalog.ends();
    for (group, topic, partition, committed) in offsets.all() {
        let end = ends.iter().find(|end| end.topic == topic && end.partition == partition);
        if let Some(end) = end.filter(|end| committed > end.offset) {
            return Err(end.behind(&format!("the group {group}"), committed));
        }
    }
    Ok(Broker {
        catalog,
        offsets,
        groups: Mutex::default(),
        appended,
        memory: Memory::default(),
        shutdown,
        _lock: lock,
    })
}

struct Service {
    listener: TcpListener,
    broker: Arc<Broker>,
    failed: mpsc::Receiver<Error>,
    /// Ends the owners of the partitions. It is cancelled last, so that running requests still get
    /// their answer.
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Service {
    async fn run(mut self, retention_interval: Duration) -> Result<(), Error> {
        let mut connections = JoinSet::new();
        let outcome = self.serve(&mut connections, retention_interval).await;
        if outcome.is_ok() {
            let drained = async { while connections.join_next().await.is_some() {} };
            if tokio::time::timeout(DRAIN_TIME, drained).await.is_err() {
                tracing::debug!("closing connections with unanswered requests");
            }
        }
        connections.shutdown().await;
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
        outcome
    }

    async fn serve(&mut self, connections: &mut JoinSet<()>, retention_interval: Duration) -> Result<(), Error> {
        let slots = ConnectionSlots::new(service::files::engine_connections().min(CONNECTIONS_MAX));
        let mut accepting = std::pin::pin!(slots.accept(&self.listener));
        let mut group_tick = tokio::time::interval(GROUP_TICK);
        let mut retention_tick = tokio::time::interval(retention_interval);
        loop {
            tokio::select! {
                () = self.broker.shutdown.cancelled() => return Ok(()),
                Some(error) = self.failed.recv() => return Err(error),
                (stream, slot) = &mut accepting => {
                    connections.spawn(connection::serve(stream, slot, Arc::clone(&self.broker)));
                    accepting.set(slots.accept(&self.listener));
                }
                Some(ended) = connections.join_next() => ended?,
                _ = group_tick.tick() => self.broker.tick_groups(),
                _ = retention_tick.tick() => self.broker.retain(),
            }
        }
    }
}

impl Broker {
    fn tick_groups(&self) {
        let now = Instant::now();
        self.groups.lock().retain(|_, group| {
            group.tick(now);
            !group.is_empty()
        });
    }

    fn retain(&self) {
        for (_, topic) in self.catalog.topics() {
            topic.partitions.iter().for_each(partition::Partition::retain);
        }
    }
}

/// Opens a file, and tries again for a while if the process may not open another one. This blocks.
fn patiently(open: impl Fn() -> io::Result<File>) -> io::Result<File> {
    let deadline = Instant::now() + FILES_FREE_WITHIN;
    loop {
        match open() {
            Err(error) if is_out_of_files(&error) && Instant::now() < deadline => {
                tracing::warn!(%error, "waiting for a file to be closed");
                std::thread::sleep(GROUP_TICK);
            }
            opened => return opened,
        }
    }
}

fn is_out_of_files(error: &io::Error) -> bool {
    let errors = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
    error.raw_os_error().is_some_and(|code| errors.iter().any(|known| known.raw_os_error() == code))
}

/// Makes the names in a directory durable.
fn sync_directory(directory: &Path) -> io::Result<()> {
    patiently(|| File::open(directory))?.sync_all()
}

/// Replaces a file. A crash leaves either the old or the new content.
fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut file = patiently(|| File::create(&unfinished))?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    path.parent().map_or(Ok(()), sync_directory)
}
