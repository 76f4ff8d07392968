//! ClickHouse inside this process: `libchdb.so` behind ClickHouse's own HTTP interface. Clients use
//! it like a server.
//!
//! - Each statement has a connection of its own. If the statement only read or inserted, the next
//!   one with the same database and settings may use its connection. No statement sees the settings
//!   of another. A session keeps its connection.
//! - The owner, a user with a password, has all rights in the engine. Every other client is a
//!   reader, see `reader`.
//! - Readers have threads, memory and waiting places of their own, so they never take those of the
//!   owner.
//! - The engine gets the data of an `INSERT` piece by piece, and returns a result piece by piece if
//!   its format allows this. Memory does not grow with either.
//! - A body that ends early cancels its `INSERT`. If its data was one block, no row stays.

mod compression;
mod engine;
mod exception;
mod execution;
mod http;
mod idle;
mod library;
mod native;
mod quote;
mod reader;
mod reply;
mod request;
mod session;
mod statement;
mod unserved;
mod workers;

use async_recursion::async_recursion as boxed;
use engine::Engine;
use http::{Server, Share};
use service::connection_slots::{ConnectionSlots, Slot};
use service::origin_guard::OriginGuard;
use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use workers::Workers;

pub use request::OWNER;
pub use unserved::read_requests;

/// How long running statements may take to end by themselves when the server stops.
const DRAIN_TIME: Duration = Duration::from_millis(1000);
/// How long killed statements may take to end.
const KILL_TIME: Duration = Duration::from_millis(700);
/// How long a client may take to send the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// How often expired sessions are removed.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(5);

/// Options of the engine and its server.
#[derive(Clone)]
pub struct Options {
    /// Folder of the data; it is created if missing. One process may use it at a time.
    pub data_dir: PathBuf,
    /// Address to listen on; port 0 selects any free port.
    pub listen: SocketAddr,
    /// Path of `libchdb.so`. A process can open only one.
    pub library: PathBuf,
    /// How many statements of the owner run at once, each on a thread and a connection of its own.
    pub connections_max: usize,
    /// How many statements of readers run at once, in addition.
    pub readers_max: usize,
    /// How many requests may wait for a running statement to end. Further requests get
    /// `TOO_MANY_SIMULTANEOUS_QUERIES`.
    pub waiting_max: usize,
    /// How long a request waits before it gets that answer.
    pub waiting_time: Duration,
    /// Password of the user [`OWNER`], who has all rights in the engine. A client without it can
    /// only read.
    pub password: String,
    /// The database that readers may read.
    pub database: String,
    /// Tables of this database that readers may not read. A view with its definer's rights can
    /// still read them.
    pub hidden: Vec<String>,
    /// Names under which clients may address this port, besides its address.
    pub names: Vec<String>,
    /// Memory limit of the engine, bytes; `None` = half of the machine's memory.
    pub memory_max_bytes: Option<u64>,
}

impl Options {
    /// Options with 16 connections for the owner and 4 for readers, 256 waiting requests for 30 s,
    /// and half of the machine's memory. Readers may read the database `doseline`, except
    /// `unit_secret`, the key of the pseudonyms.
    pub fn new(
        data_dir: impl Into<PathBuf>,
        listen: SocketAddr,
        library: impl Into<PathBuf>,
        password: impl Into<String>,
    ) -> Self {
        Self {
            data_dir: data_dir.into(),
            listen,
            library: library.into(),
            connections_max: 16,
            readers_max: 4,
            waiting_max: 256,
            waiting_time: Duration::from_secs(30),
            password: password.into(),
            database: "doseline".to_owned(),
            hidden: vec!["unit_secret".to_owned()],
            names: Vec::new(),
            memory_max_bytes: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("data_dir", &self.data_dir)
            .field("listen", &self.listen)
            .field("library", &self.library)
            .field("connections_max", &self.connections_max)
            .field("readers_max", &self.readers_max)
            .field("waiting_max", &self.waiting_max)
            .field("waiting_time", &self.waiting_time)
            .field("password", &"redacted")
            .field("database", &self.database)
            .field("hidden", &self.hidden)
            .field("names", &self.names)
            .field("memory_max_bytes", &self.memory_max_bytes)
            .finish()
    }
}

/// Why the engine does not start, or has ended. None of these errors can be cured by a retry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `libchdb.so` is missing or is not the expected library.
    #[error("cannot open the ClickHouse library {}: {reason}", path.display())]
    Library {
        path: PathBuf,
        /// The loader's message.
        reason: String,
    },
    /// The data directory cannot be created, locked or written.
    #[error("cannot use the data directory {}", path.display())]
    DataDir {
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Another process uses the data directory.
    #[error("the data directory {} is in use by process {pid}", path.display())]
    Locked {
        path: PathBuf,
        /// Id of that process, if its lock file names it.
        pid: String,
    },
    /// The process already runs an engine.
    #[error("this process already runs a ClickHouse engine, and there can be only one")]
    AlreadyRunning,
    /// The engine does not start.
    #[error("the ClickHouse engine does not start with its data in {}: {reason}", path.display())]
    Boot {
        /// The data directory.
        path: PathBuf,
        /// The engine's message.
        reason: String,
    },
    /// The address is in use, or does not belong to this machine.
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
    /// The system gives no more threads.
    #[error("cannot start threads")]
    Threads(#[source] std::io::Error),
    /// Killed statements did not end, so the engine could not be closed.
    #[error("{0} statements did not end in time; the engine was left to the end of the process")]
    StillRunning(usize),
    /// A task ended that should run on.
    #[error("the ClickHouse server ended unexpectedly: {0}")]
    Ended(String),
}

/// A running server.
#[derive(Debug)]
pub struct Handle {
    address: SocketAddr,
    version: String,
    task: JoinHandle<Result<(), Error>>,
}

impl Handle {
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same address as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The engine's version, for example `26.7.2.1`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Waits until the server has ended and all connections are closed. That takes at most 2 s
    /// after the cancellation of its token.
    ///
    /// # Errors
    /// The server ended by itself, or statements did not end.
    #[boxed]
    pub async fn join(self) -> Result<(), Error> {
        self.task.await.unwrap_or_else(|error| Err(Error::Ended(error.to_string())))
    }
}

/// Free space on the disk of the data that this user may take, bytes. For a path without a disk
/// (`/sys`) it is the greatest number.
///
/// # Errors
/// The directory does not exist.
pub fn free_bytes(data_dir: &Path) -> std::io::Result<u64> {
    let filesystem = rustix::fs::statvfs(data_dir)?;
    if filesystem.f_blocks == 0 {
        return Ok(u64::MAX);
    }
    Ok(filesystem.f_bavail.saturating_mul(filesystem.f_frsize))
}

/// One engine for each process, because the library keeps its state in globals.
static RUNNING: AtomicBool = AtomicBool::new(false);

/// Ends the process with a status if the engine runs or is starting; otherwise it does nothing. A
/// program calls this before it returns from `main`. A normal exit would run the library's
/// destructors, which free memory that the engine's threads use. The process would then end by
/// SIGSEGV instead of with its status.
pub fn exit_if_running(status: i32) {
    if RUNNING.load(Ordering::Acquire) {
        library::exit_without_destructors(status);
    }
}

/// The claim on the one engine of this process. Dropping it allows the next engine.
struct Only;

impl Only {
    fn claim() -> Result<Self, Error> {
        if RUNNING.swap(true, Ordering::AcqRel) { Err(Error::AlreadyRunning) } else { Ok(Self) }
    }
}

impl Drop for Only {
    fn drop(&mut self) {
        RUNNING.store(false, Ordering::Release);
    }
}

/// Starts the engine and its server; both are ready when this returns. They end when `shutdown` is
/// cancelled, and [`Handle::join`] waits for that. A program that ends earlier calls
/// [`exit_if_running`].
///
/// # Errors
/// Any [`Error`] except those about the end.
#[boxed]
pub async fn start(options: Options, shutdown: CancellationToken) -> Result<Handle, Error> {
    let only = Only::claim()?;
    let (data_dir, lock) = lock(&options.data_dir)?;
    let listen = |source| Error::Listen { address: options.listen, source };
    let listener = TcpListener::bind(options.listen).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;

    let (owner, readers) = (options.connections_max.max(1), options.readers_max.max(1));
    let workers = Workers::start(owner.saturating_add(readers)).map_err(Error::Threads)?;
    let (booted, boot) = oneshot::channel();
    let boot_options = options.clone();
    workers.submit(move || {
        // If the caller no longer waits, no code closes the engine. It then counts as running until
        // the process ends.
        let only = ManuallyDrop::new(only);
        let _ = booted.send((Engine::boot(&boot_options, &data_dir), only));
    });
    let (engine, only) = boot.await.map_err(|_| Error::Ended("the engine's thread ended while booting".to_owned()))?;
    let only = ManuallyDrop::into_inner(only);
    let engine = Arc::new(engine?);
    let version = engine.identity.version.clone();
    tracing::info!(%address, version, "clickhouse engine ready");

    let server = Arc::new(Server {
        engine,
        workers,
        owner: Share::new(owner, options.waiting_max),
        readers: Share::new(readers, options.waiting_max),
        bodies: Semaphore::new(http::READER_BODIES_MAX),
        waiting_time: options.waiting_time,
        password: options.password,
        guard: OriginGuard::new(address, &options.names),
    });
    let task = tokio::spawn(async move {
        let connections = serve(&server, &listener, &shutdown).await;
        drop(listener);
        let result = stop(&server, connections).await;
        match result {
            // An engine that still runs stays the only engine of the process. Its data directory
            // stays locked until the process ends.
            Err(Error::StillRunning(_)) => std::mem::forget((lock, only)),
            _ => drop((lock, only)),
        }
        result
    });
    Ok(Handle { address, version, task })
}

/// Creates the data directory and locks it as long as the file lives. The kernel releases the lock
/// of a killed process.
fn lock(data_dir: &Path) -> Result<(PathBuf, File), Error> {
    let failed = |source| Error::DataDir { path: data_dir.to_owned(), source };
    std::fs::create_dir_all(data_dir).map_err(failed)?;
    let data_dir = data_dir.canonicalize().map_err(failed)?;
    let path = data_dir.join("lock");
    let mut file = File::options().create(true).truncate(false).read(true).write(true).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            return Err(Error::Locked { path: data_dir, pid: pid.trim().to_owned() });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok((data_dir, file))
}

/// Accepts connections until the shutdown. Returns the connections that are then open.
async fn serve(server: &Arc<Server>, listener: &TcpListener, shutdown: &CancellationToken) -> JoinSet<()> {
    let slots = ConnectionSlots::new(service::files::engine_connections());
    let mut accepting = std::pin::pin!(slots.accept(listener));
    let mut connections = JoinSet::new();
    let mut expiry = tokio::time::interval(EXPIRY_INTERVAL);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return connections,
            _ = expiry.tick() => {
                let engine = Arc::clone(&server.engine);
                server.workers.submit(move || engine.sessions.expire());
            }
            Some(_) = connections.join_next() => {}
            (stream, slot) = &mut accepting => {
                connections.spawn(serve_connection(Arc::clone(server), stream, slot, shutdown.clone()));
                accepting.set(slots.accept(listener));
            }
        }
    }
}

async fn serve_connection(server: Arc<Server>, stream: TcpStream, slot: Slot, shutdown: CancellationToken) {
    let working = slot.clone();
    // Replies are written in large pieces, and small ones must not wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |request| {
        let (server, work) = (Arc::clone(&server), working.work());
        async move {
            let mut response = server.answer(request).await;
            response.body_mut().hold(work);
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let result = service::listener::serve_connection(stream, &slot, service, HEAD_TIME, &shutdown).await;
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
}

/// Lets running statements end, kills those that do not, and closes the engine.
async fn stop(server: &Arc<Server>, mut connections: JoinSet<()>) -> Result<(), Error> {
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_TIME, drained).await.is_err() {
        server.engine.abandon_all();
        connections.shutdown().await;
    }
    let ended = async { tokio::join!(server.owner.all(), server.readers.all()) };
    if tokio::time::timeout(KILL_TIME, ended).await.is_err() {
        tracing::warn!("statements go on although they were killed; the process ends without closing the engine");
        return Err(Error::StillRunning(server.owner.running() + server.readers.running()));
    }
    let (closed, close) = oneshot::channel();
    let engine = Arc::clone(&server.engine);
    server.workers.submit(move || {
        engine.close();
        let _ = closed.send(());
    });
    server.workers.close();
    close.await.map_err(|_| Error::Ended("the engine's thread ended while closing".to_owned()))?;
    tracing::info!("clickhouse engine closed");
    Ok(())
}
