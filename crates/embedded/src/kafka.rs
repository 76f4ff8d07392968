//! A durable Kafka log in the process: enough of Apache Kafka for one machine.
//!
//! What it speaks: produce (idempotent too), fetch with long polling, offsets by time, topics and
//! their configuration, consumer groups of the classic protocol and their commits. What is absent:
//! replication, transactions, compaction, access control and TLS. It trusts its clients, so it
//! belongs on the loopback interface.
//!
//! Invariants:
//! - A record is acknowledged, and visible to a consumer, only after `fdatasync` of the file it
//!   stands in.
//! - Batches are stored as they were sent, if their records can be read; the log of a partition is
//!   a run of batches without a hole in its offsets.
//! - An offset is given out once. What is damaged is not passed over in silence: the broker says
//!   where, and does not start.
//! - Each partition has one writer. After a failed write or sync it writes nothing more, and the
//!   broker ends with an error.
//! - A batch sent again by an idempotent producer is stored once, also over a restart.

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
use service::places::Places;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{catalog::Catalog, group::Group, memory::Memory, offsets::Offsets, partition::Signals};

/// There is one node, and it leads every partition for ever.
const NODE_ID: i32 = 1;
const LEADER_EPOCH: i32 = 0;
/// Connections at once, each of which may hold an answer of 8 MiB.
const CONNECTIONS_MAX: usize = 256;
/// How often groups are checked for members that fell silent.
const GROUP_TICK: Duration = Duration::from_millis(100);
/// How long a write waits where no more files may be open.
const FILES_FREE_WITHIN: Duration = Duration::from_secs(30);
/// How long a stopping broker lets connections finish what they have begun.
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// Why the log could not start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is not free or not this machine's.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        source: io::Error,
    },
    /// Another process works in the directory.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// Reading or writing failed, for example because the disk is full. What was acknowledged is
    /// safe.
    #[error("kafka log storage failed in {}: {source}", path.display())]
    Storage { path: PathBuf, source: io::Error },
    /// Data that was durable once is damaged. Nothing is repaired by guessing.
    #[error("{} is damaged; put it back from a copy", .0.display())]
    Corrupt(PathBuf),
    /// Damage in the middle of a partition's file: an unfinished write would be at its end. The
    /// file is left as it is.
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
    /// Records are missing from the end of a partition: somebody has read further than the log
    /// goes. New records would take the offsets of the missing ones, and that reader would pass
    /// them over.
    #[error(
        "{} ends before offset {end}, and {reader} has already read up to {committed}: confirmed records are missing. \
         Put the files back from a copy; or, to go on without these records: touch {}",
        path.display(), damaged(&segment::path(path, *committed)).display()
    )]
    Behind {
        /// The partition's directory.
        path: PathBuf,
        /// Who has read further.
        reader: String,
        /// The offset that it reads next.
        committed: i64,
        /// The offset that the next record would get.
        end: i64,
    },
    /// A task of the broker ended by itself.
    #[error("kafka log task failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// The name under which a person puts a segment aside, so that it is made anew of what can be read
/// of it.
fn damaged(segment: &Path) -> PathBuf {
    segment.with_extension("log.damaged")
}

/// Where the log lives and listens.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Everything is kept in its sub-directory `kafka`.
    pub data_dir: PathBuf,
    /// Port 0 takes any free one. Clients are told the address they connected to.
    pub listen: SocketAddr,
    /// How often segments past their topic's `retention.ms` or `retention.bytes` are looked for.
    pub retention_interval: Duration,
}

impl Options {
    /// The given places, with retention looked after twice a minute.
    pub fn new(data_dir: impl Into<PathBuf>, listen: SocketAddr) -> Self {
        Self { data_dir: data_dir.into(), listen, retention_interval: Duration::from_secs(30) }
    }
}

/// A running log. Dropping it does not stop the log; cancelling the token given to [`start`] does.
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
    /// The partition's number.
    pub partition: i32,
    /// The offset of the next record.
    pub offset: i64,
    directory: PathBuf,
}

impl End {
    /// The error for a reader who has already read up to `committed`, which is further than this.
    pub fn behind(&self, reader: &str, committed: i64) -> Error {
        Error::Behind { path: self.directory.clone(), reader: reader.to_owned(), committed, end: self.offset }
    }
}

impl Handle {
    /// The bound address, which is also the one advertised.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where all partitions ended when the log was opened, before anything was taken.
    pub fn ends(&self) -> &[End] {
        &self.ends
    }

    /// Whether the log has ended, one way or the other.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits for the end: `Ok` after the shutdown token was cancelled and everything is on disk.
    ///
    /// # Errors
    /// The log ended by itself, usually [`Error::Storage`].
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
    /// Locked as long as the broker lives.
    _lock: File,
}

/// Opens the log in `options.data_dir` and serves it until `shutdown` is cancelled.
///
/// Checks the ends of all partitions first, so that it takes longer (a second for each gigabyte
/// read) after large writes.
///
/// # Errors
/// The address is taken, the directory is in use or unwritable, or the data is damaged.
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
    /// Ends the owners of the partitions; cancelled last, so that requests under way are still
    /// answered.
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
        let places = Places::new(service::files::engine_connections().min(CONNECTIONS_MAX));
        let mut accepting = std::pin::pin!(places.accept(&self.listener));
        let mut group_tick = tokio::time::interval(GROUP_TICK);
        let mut retention_tick = tokio::time::interval(retention_interval);
        loop {
            tokio::select! {
                () = self.broker.shutdown.cancelled() => return Ok(()),
                Some(error) = self.failed.recv() => return Err(error),
                (stream, place) = &mut accepting => {
                    connections.spawn(connection::serve(stream, place, Arc::clone(&self.broker)));
                    accepting.set(places.accept(&self.listener));
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

/// Opens a file, trying again for a while where no more may be open just now. Blocks.
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

/// Replaces a file so that a crash leaves the old or the new content.
fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut file = patiently(|| File::create(&unfinished))?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    path.parent().map_or(Ok(()), sync_directory)
}
