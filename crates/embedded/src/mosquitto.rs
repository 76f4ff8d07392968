//! Eclipse Mosquitto as a child process: the MQTT broker of `doseline up`.
//!
//! What it does: find the program ([`find`]), write its configuration, start it, start it again
//! when it dies, and end it so that its sessions are on disk.
//!
//! Absent: access control and TLS. The broker must only be reachable on the loopback interface or
//! behind a guarded proxy.
//!
//! Invariants:
//! - The broker is told to end when this process ends, however that happens: the kernel sends it
//!   SIGTERM, and it saves its sessions. One that needs long for that outlives this process.
//! - One broker uses a data directory at a time. It holds a lock there until it ends, even if this
//!   process has been killed. The next start waits for it to end, and kills it if it does not.
//! - Signals from a terminal do not reach the broker. It ends when the shutdown token is cancelled,
//!   after the roles that read from it.

mod child;
mod program;

use async_recursion::async_recursion as boxed;
use std::{
    collections::VecDeque,
    fmt::Write as _,
    fs::{self, DirBuilder, File, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    net::{SocketAddr, TcpListener},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::{
    net::TcpStream,
    task::{JoinError, JoinHandle},
};
use tokio_util::sync::CancellationToken;

use self::child::Child;
pub use self::program::{Program, REMEDY, find};

/// Name of the configuration file in [`Options::dir`].
const CONFIGURATION: &str = "mosquitto.conf";
/// Name of the file in [`Options::dir`] that holds the broker's sessions and messages. Each save
/// replaces the whole file.
pub const DATABASE: &str = "mosquitto.db";
/// Name of the file that the broker keeps locked.
const LOCK: &str = "mosquitto.lock";
/// How long the broker may take from its start until it accepts a connection.
const READY_WITHIN: Duration = Duration::from_secs(15);
/// How long [`Handle::join`] waits for the broker to save its sessions and end. A broker that needs
/// longer is left running, because killing it would lose what it has not saved. The next start
/// waits for it.
const STOP_WITHIN: Duration = Duration::from_secs(3);
/// How long the broker of an earlier process may take to end. The time is enough to save full
/// queues to a slow disk; a broker that takes longer hangs.
const PREDECESSOR_WITHIN: Duration = Duration::from_secs(60);
/// How long a killed process may take to end.
const KILLED_WITHIN: Duration = Duration::from_secs(5);
/// Pauses before the broker is started again: the first one and the longest one.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// A broker that has run for this long is healthy. The next pause is then the first one again.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);
/// How often a free port is searched. Another process may take the port before the broker starts.
const PORT_TRIES: usize = 5;
/// How often a starting broker is checked, and also the lock of an earlier broker.
const POLL_EVERY: Duration = Duration::from_millis(10);
/// How often the broker saves its sessions while it runs, s. It also saves them when it ends.
const SAVE_EVERY_S: u32 = 300;
/// How many days the broker keeps the session of a client that does not come back. The time spans
/// restarts.
pub const SESSION_DAYS: u32 = 90;

/// Why the broker could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program is missing or cannot be used.
    #[error("{0}; {REMEDY}")]
    Program(String),
    /// The address is in use, or does not belong to this machine.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The requested address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// A file of the broker cannot be used.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What was tried, as a verb.
        what: &'static str,
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The broker ended before it accepted a connection.
    #[error("mosquitto ended as soon as it was started ({status}); its last lines:\n{lines}")]
    Ended {
        status: String,
        /// Its last log lines.
        lines: String,
    },
    /// The broker cannot read its own file.
    #[error(
        "the MQTT broker cannot read its file {}: {fault}. In it are the bridge's session and messages that the broker had \
         acknowledged and the bridge had not read. Restore the file from a backup, or move it aside and start again: devices send \
         again what they have no receipt for, and what was acknowledged to a device that waits for none is lost", path.display()
    )]
    Database {
        path: PathBuf,
        /// What is wrong with the file.
        fault: String,
    },
    /// The broker runs but accepts no connection.
    #[error("mosquitto took no connection on {address} within {READY_WITHIN:?}; its last lines:\n{lines}")]
    Silent {
        /// Address on which it should listen.
        address: SocketAddr,
        /// Its last log lines.
        lines: String,
    },
}

/// Where the broker listens, and what it may store.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of configuration and sessions. It is created if missing, and only its owner may read
    /// it.
    pub dir: PathBuf,
    /// Address to listen on; port 0 selects any free port.
    pub listen: SocketAddr,
    /// The program, from [`find`].
    pub program: Program,
    pub limits: BrokerLimits,
}

#[derive(Clone, Copy, Debug)]
pub struct BrokerLimits {
    /// Size of the largest accepted packet, bytes. A packet grows on its way to a subscriber, so
    /// leave room for that.
    pub packet_bytes_max: u32,
    /// Messages that one subscriber may have unacknowledged.
    pub inflight_max: u16,
    /// Messages that may wait for one subscriber. The broker drops messages beyond this limit or
    /// the next one, and its log says so.
    pub queue_messages_max: u32,
    /// Size of the messages that may wait for one subscriber, bytes.
    pub queue_bytes_max: u32,
    pub connections_max: u32,
}

/// The state of a running broker. Clones are cheap.
#[derive(Clone, Debug, Default)]
pub struct Status(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    restarts: AtomicU64,
    pid: AtomicU64,
}

impl Status {
    pub fn restarts(&self) -> u64 {
        self.0.restarts.load(Ordering::Relaxed)
    }

    /// Process id of the broker; 0 while it does not run.
    pub fn pid(&self) -> u64 {
        self.0.pid.load(Ordering::Relaxed)
    }
}

/// A running broker. Dropping the handle does not stop the broker; cancelling the token that
/// [`start`] took does.
#[derive(Debug)]
pub struct Handle {
    address: SocketAddr,
    status: Status,
    task: JoinHandle<bool>,
}

impl Handle {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn status(&self) -> Status {
        self.status.clone()
    }

    /// Waits until the broker has ended, after the shutdown token was cancelled. Returns whether it
    /// has saved its sessions. `false` means that it is still saving them, or was not running.
    ///
    /// # Errors
    /// The task that supervises the broker crashed.
    #[boxed]
    pub async fn join(self) -> Result<bool, JoinError> {
        self.task.await
    }
}

/// Waits until no broker of an earlier process uses the folder, and kills a broker that does not
/// end. Its port is free afterwards.
///
/// # Errors
/// [`Error::File`] if the folder cannot be used.
#[boxed]
pub async fn wait_for_predecessor(dir: &Path) -> Result<(), Error> {
    if dir.join(LOCK).exists() {
        lock(dir, PREDECESSOR_WITHIN).await?;
    }
    Ok(())
}

/// Starts the broker, waits until it accepts connections, and supervises it until `shutdown` is
/// cancelled.
///
/// # Errors
/// Any [`Error`]. None of them can be cured by a retry.
#[boxed]
pub async fn start(options: Options, shutdown: CancellationToken) -> Result<Handle, Error> {
    make_dir(&options.dir)?;
    let database = options.dir.join(DATABASE);
    // With an empty file the broker itself would start without its sessions and say nothing.
    if fs::metadata(&database).is_ok_and(|file| file.len() == 0) {
        return Err(Error::Database { path: database, fault: "it is empty".to_owned() });
    }
    let lock = lock(&options.dir, PREDECESSOR_WITHIN).await?;
    let mut tries = PORT_TRIES;
    let (address, child) = loop {
        let address = free(options.listen)?;
        write_configuration(&options, address)?;
        match launch(&options, &lock, address).await {
            Ok(child) => break (address, child),
            Err(Error::Ended { status, lines }) if options.listen.port() == 0 && tries > 1 => {
                tracing::debug!(%address, status, lines, "mosquitto ended; trying another port");
                tries -= 1;
            }
            Err(error) => return Err(error),
        }
    };
    tracing::info!(%address, version = options.program.version, "mqtt broker serves");
    let status = Status::default();
    let keeper = Keeper { options, lock, address, status: status.clone(), shutdown };
    Ok(Handle { address, status, task: tokio::spawn(keeper.run(child)) })
}

struct Keeper {
    options: Options,
    lock: File,
    address: SocketAddr,
    status: Status,
    shutdown: CancellationToken,
}

impl Keeper {
    /// Returns whether the broker ended when it was asked to. A broker does so after it has saved
    /// its sessions.
    async fn run(self, mut child: Child) -> bool {
        let mut pause = BACKOFF.0;
        loop {
            let started = Instant::now();
            self.status.0.pid.store(child.id().into(), Ordering::Relaxed);
            let ended = tokio::select! {
                ended = child.ended() => ended,
                () = self.shutdown.cancelled() => return stop(child).await,
            };
            self.status.0.pid.store(0, Ordering::Relaxed);
            if started.elapsed() >= HEALTHY_AFTER {
                pause = BACKOFF.0;
            }
            tracing::error!(status = ended, lines = child.last_lines(), "mqtt broker died; starting it again");
            child = loop {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = self.shutdown.cancelled() => return false,
                }
                pause = (pause * 2).min(BACKOFF.1);
                match launch(&self.options, &self.lock, self.address).await {
                    Ok(child) => break child,
                    Err(error) => tracing::error!(%error, "mqtt broker does not start; trying again in {pause:?}"),
                }
            };
            self.status.0.restarts.fetch_add(1, Ordering::Relaxed);
            tracing::info!(address = %self.address, "mqtt broker serves again");
        }
    }
}

/// Ends the broker and waits until its sessions are on disk.
async fn stop(mut child: Child) -> bool {
    child.signal(Signal::TERM);
    let ended = tokio::time::timeout(STOP_WITHIN, child.ended()).await.is_ok();
    if !ended {
        tracing::warn!(pid = child.id(), "mqtt broker still saves its sessions; the next start waits for it");
    }
    ended
}

/// Starts the program and waits until it accepts connections.
async fn launch(options: &Options, lock: &File, address: SocketAddr) -> Result<Child, Error> {
    let mut child = Child::spawn(&options.program.path, &options.dir, CONFIGURATION, lock).await?;
    note(lock, child.id());
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        let connected = tokio::select! {
            status = child.ended() => return Err(ended(&options.dir, status, child.last_lines())),
            connected = TcpStream::connect(address) => connected,
        };
        if connected.is_ok() {
            return Ok(child);
        }
        if Instant::now() > deadline {
            child.signal(Signal::KILL);
            return Err(Error::Silent { address, lines: child.last_lines() });
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// Finds the reason for the broker's end in its last log lines.
fn ended(dir: &Path, status: String, lines: String) -> Error {
    if lines.contains("Couldn't open database") {
        let fault = lines.lines().map(str::trim).filter(|line| line.starts_with("Error")).collect::<Vec<_>>().join(" ");
        return Error::Database { path: dir.join(DATABASE), fault };
    }
    Error::Ended { status, lines }
}

/// Returns the address itself, or a free one for port 0. It checks here that the port is free,
/// because the broker's own message would name no flag of ours.
fn free(listen: SocketAddr) -> Result<SocketAddr, Error> {
    let bound = TcpListener::bind(listen).and_then(|listener| listener.local_addr());
    bound.map_err(|source| Error::Listen { address: listen, source })
}

fn make_dir(dir: &Path) -> Result<(), Error> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    // The folder may have existed before, with access for other users.
    let made = made.and_then(|()| fs::set_permissions(dir, fs::Permissions::from_mode(0o700)));
    made.map_err(|source| Error::File { what: "make the broker's folder", path: dir.to_owned(), source })
}

/// Locks the broker's folder. A broker whose `up` has ended may still hold the lock while it ends;
/// one that does not end is killed.
async fn lock(dir: &Path, patience: Duration) -> Result<File, Error> {
    let path = dir.join(LOCK);
    let failed = |source| Error::File { what: "lock", path: path.clone(), source };
    let open = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = open.map_err(failed)?;
    let began = Instant::now();
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => {
                // From here on a child may hold the lock before it has written its own process id.
                // An old id must not be read as its id.
                file.set_len(0).map_err(failed)?;
                return Ok(file);
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        if !told {
            tracing::info!("waiting for the mqtt broker of an earlier start to end");
            told = true;
        }
        if began.elapsed() > patience + KILLED_WITHIN {
            return Err(failed(io::Error::new(
                io::ErrorKind::WouldBlock,
                "another mosquitto uses it and does not end",
            )));
        }
        if began.elapsed() > patience {
            kill_predecessor(&mut file);
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// Kills the process whose id is in the lock file. This process is alive, because the lock is held.
fn kill_predecessor(lock: &mut File) {
    let mut text = String::new();
    if lock.rewind().and_then(|()| lock.read_to_string(&mut text)).is_err() {
        return;
    }
    let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) else { return };
    if let Ok(process) = pidfd_open(pid, PidfdFlags::empty())
        && pidfd_send_signal(process, Signal::KILL).is_ok()
    {
        tracing::warn!(pid = pid.as_raw_nonzero(), "killed the mqtt broker of an earlier start, which did not end");
    }
}

/// Writes the process id of the lock's holder into the lock file.
fn note(mut lock: &File, pid: u32) {
    let written = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{pid}"));
    if let Err(error) = written {
        tracing::warn!(%error, "the mqtt broker's process id could not be written down");
    }
}

fn write_configuration(options: &Options, address: SocketAddr) -> Result<(), Error> {
    let path = options.dir.join(CONFIGURATION);
    let text = configuration(&options.limits, address, rustix::process::geteuid().is_root());
    let mut file = File::options();
    let file = file.write(true).create(true).truncate(true).mode(0o600).open(&path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| Error::File { what: "write", path, source })
}

/// The broker's configuration file. Its paths are relative to the broker's folder, which is its
/// working directory.
fn configuration(limits: &BrokerLimits, address: SocketAddr, is_root: bool) -> String {
    let BrokerLimits { packet_bytes_max, inflight_max, queue_messages_max, queue_bytes_max, connections_max } = limits;
    let mut text = format!(
        "# Written by `doseline up` at each start; changes are lost.\n\
         listener {port} {ip}\n\
         allow_anonymous true\n\
         persistence true\n\
         persistence_location ./\n\
         autosave_interval {SAVE_EVERY_S}\n\
         persistent_client_expiration {SESSION_DAYS}d\n\
         max_connections {connections_max}\n\
         max_packet_size {packet_bytes_max}\n\
         max_inflight_messages {inflight_max}\n\
         max_queued_messages {queue_messages_max}\n\
         max_queued_bytes {queue_bytes_max}\n\
         set_tcp_nodelay true\n\
         sys_interval 0\n\
         log_dest stderr\n\
         log_timestamp false\n\
         connection_messages false\n\
         log_type error\nlog_type warning\nlog_type notice\nlog_type information\n",
        port = address.port(),
        ip = address.ip(),
    );
    if is_root {
        // Without this line the broker would switch to the user `mosquitto`. That user may not read
        // the folder, and the kernel would no longer end the broker together with this process.
        let _ = writeln!(text, "user root");
    }
    text
}

/// The last lines of the broker's log.
#[derive(Debug, Default)]
struct Lines(VecDeque<String>);

impl Lines {
    const MAX: usize = 8;

    fn push(&mut self, line: &str) {
        if self.0.len() == Self::MAX {
            self.0.pop_front();
        }
        self.0.push_back(format!("  {line}"));
    }

    fn text(&self) -> String {
        self.0.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

/// Writes a line of the broker's log into the log of this process.
fn repeat(line: &str) {
    match level(line) {
        tracing::Level::ERROR => tracing::error!(target: "mosquitto", "{line}"),
        tracing::Level::WARN => tracing::warn!(target: "mosquitto", "{line}"),
        _ => tracing::debug!(target: "mosquitto", "{line}"),
    }
}

/// The level of a log line. Mosquitto writes no level, but starts errors and warnings with that
/// word.
fn level(line: &str) -> tracing::Level {
    // Mosquitto writes this at each start as root.
    let is_known = line.starts_with("Warning: Mosquitto should not be run as root");
    if line.starts_with("Error") {
        tracing::Level::ERROR
    } else if (line.starts_with("Warning") && !is_known) || line.contains("messages are being dropped") {
        tracing::Level::WARN
    } else {
        tracing::Level::DEBUG
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_log_have_levels() {
        for (line, expected) in [
            ("Error: Address already in use", tracing::Level::ERROR),
            ("Warning: Unable to drop privileges", tracing::Level::WARN),
            ("Warning: Mosquitto should not be run as root/administrator.", tracing::Level::DEBUG),
            ("Outgoing messages are being dropped for client bridge-0.", tracing::Level::WARN),
            ("mosquitto version 2.0.11 running", tracing::Level::DEBUG),
        ] {
            assert_eq!(level(line), expected, "{line}");
        }
    }

    /// A hanging broker of an earlier process holds its folder, and perhaps its port. The lock file
    /// names the process.
    #[tokio::test]
    async fn a_predecessor_is_waited_for_and_then_killed() {
        let dir = tempfile::tempdir().unwrap();
        let script =
            "trap '' TERM; exec 9<>mosquitto.lock; flock 9; echo $$ >mosquitto.lock; echo held; exec sleep 600 >&-";
        let mut hanging = std::process::Command::new("sh");
        hanging.args(["-c", script]).current_dir(dir.path()).stdout(std::process::Stdio::piped());
        let mut hanging = hanging.spawn().unwrap();
        // The child closes its output after it has taken the lock.
        hanging.stdout.take().unwrap().read_to_string(&mut String::new()).unwrap();
        let (began, patience) = (Instant::now(), Duration::from_millis(300));
        lock(dir.path(), patience).await.unwrap();
        assert!(began.elapsed() >= patience);
        assert!(!hanging.wait().unwrap().success(), "killed");
    }

    #[test]
    fn a_database_that_cannot_be_read_is_named() {
        let lines = "  mosquitto version 2.0.11\n  Error: Unrecognised file format.\n  Error: Couldn't open database.";
        let error = ended(Path::new("/data"), "exit code 1".to_owned(), lines.to_owned());
        let text = error.to_string();
        for part in ["/data/mosquitto.db: Error: Unrecognised file format.", "move it aside", "Restore the file"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(matches!(ended(Path::new("/data"), "exit code 3".to_owned(), String::new()), Error::Ended { .. }));
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let mut lines = Lines::default();
        (0..20).for_each(|n| lines.push(&n.to_string()));
        assert_eq!(lines.text().lines().map(str::trim).collect::<Vec<_>>().join(","), "12,13,14,15,16,17,18,19");
    }

    #[test]
    fn only_root_names_a_user() {
        let limits = BrokerLimits {
            packet_bytes_max: 1,
            inflight_max: 2,
            queue_messages_max: 3,
            queue_bytes_max: 4,
            connections_max: 5,
        };
        let address = SocketAddr::from(([127, 0, 0, 1], 1883));
        let text = configuration(&limits, address, false);
        assert!(text.contains("\nlistener 1883 127.0.0.1\n") && text.contains("\nmax_queued_bytes 4\n"), "{text}");
        assert!(!text.contains("user"), "{text}");
        assert!(configuration(&limits, address, true).ends_with("\nuser root\n"));
    }
}
