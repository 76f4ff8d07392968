//! An MQTT 3.1.1 and 5 broker in the process: rmqtt, with what it leaves to plugins.
//!
//! Retained messages, shared subscriptions, wills and sessions that outlive their connection are kept in memory and end with
//! the process: receipts make the broker's own durability unnecessary. What is absent: access control, TLS and
//! persistence. It belongs on the loopback interface or behind something that guards it.
//!
//! Invariants:
//! - What is bound for a shared subscription (the bridge's) is not dropped for want of room. At
//!   [`Options::queue_messages_max`] or [`Options::queue_bytes_max`] its publishers wait for their acknowledgement, and after
//!   a while are disconnected without it, so that they send again.
//! - What is dropped (queues of plain subscribers that are full, sessions that expire) is counted and logged.
//! - The broker's tasks live in a runtime of their own and end with it.

mod gate;
mod retained;
mod shares;
mod topic;
mod unsent;

use std::{
    io,
    net::SocketAddr,
    num::NonZeroU16,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rmqtt::{context::ServerContext, hook::Type, server::MqttServer};
use tokio::{runtime::Runtime, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use self::gate::{Gate, Hooks};

/// Threads that serve connections.
const THREADS: usize = 2;
/// How long a subscriber may refuse to read before its connection is closed; its session is kept.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
const STOP_TIME: Duration = Duration::from_secs(2);
/// The one listener; rmqtt asks for a number to tell listeners apart.
const LISTENER: u16 = 1;
/// How often the gate's count is compared with the queues.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Why the broker could not start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is not free or not this machine's.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// The reason.
        reason: String,
    },
    /// The broker's threads could not be started.
    #[error("cannot start the mqtt broker's threads: {0}")]
    Threads(#[from] io::Error),
    /// The broker ended by itself.
    #[error("mqtt broker ended: {0}")]
    Ended(String),
}

/// Where the broker listens and what it holds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Port 0 takes any free one.
    pub listen: SocketAddr,
    /// Bytes of the largest packet taken or sent.
    pub packet_bytes_max: u32,
    /// Unacknowledged messages to one subscriber; a subscriber's own receive maximum may lower it.
    pub inflight_max: NonZeroU16,
    /// Messages for shared subscriptions that may wait for their subscribers, over all of them; a plain subscriber's queue
    /// holds as many.
    pub queue_messages_max: usize,
    /// Payload bytes of the messages for shared subscriptions that may wait.
    pub queue_bytes_max: usize,
    /// How long a publisher is kept waiting while the queue is full before it is disconnected.
    pub publish_patience: Duration,
    /// Connections at once.
    pub connections_max: usize,
    /// Topics that may have a retained message.
    pub retained_max: usize,
    /// For how long a session is kept at most, whatever its client asked for.
    pub session_expiry_max: Duration,
}

impl Options {
    /// The defaults for one machine: packets of 4 MiB, 100,000 messages or 256 MiB waiting, 10,000 connections.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            packet_bytes_max: 4 << 20,
            inflight_max: NonZeroU16::MIN.saturating_add(999),
            queue_messages_max: 100_000,
            queue_bytes_max: 256 << 20,
            publish_patience: Duration::from_secs(5),
            connections_max: 10_000,
            retained_max: 100_000,
            session_expiry_max: Duration::from_secs(24 * 3600),
        }
    }
}

/// Counts messages the broker let go. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Dropped(Arc<AtomicU64>);

impl Dropped {
    /// Messages dropped since the start, all reasons together.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A running broker. Dropping it does not stop the broker; cancelling the token given to [`start`] does.
#[derive(Debug)]
pub struct Handle {
    address: SocketAddr,
    dropped: Dropped,
    task: JoinHandle<Result<(), Error>>,
}

impl Handle {
    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The count of messages dropped.
    pub fn dropped(&self) -> Dropped {
        self.dropped.clone()
    }

    /// Waits for the end: `Ok` after the shutdown token was cancelled.
    ///
    /// # Errors
    /// The broker ended by itself.
    pub async fn join(self) -> Result<(), Error> {
        self.task.await.map_err(|error| Error::Ended(error.to_string()))?
    }
}

/// The broker's runtime, which may be dropped anywhere.
struct Threads(Option<Runtime>);

impl Threads {
    fn new() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("mqtt")
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// Closes every connection and waits for the threads.
    async fn stop(mut self) {
        if let Some(runtime) = self.0.take() {
            let stopped = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(STOP_TIME));
            // Only a panic in the shutdown itself, after which there is nothing left to stop.
            let _ = stopped.await;
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Starts the broker and serves until `shutdown` is cancelled.
///
/// # Errors
/// The address is taken, or threads cannot be started.
pub async fn start(options: Options, shutdown: CancellationToken) -> Result<Handle, Error> {
    let threads = Threads::new()?;
    let dropped = Dropped::default();
    let gate = Arc::new(Gate::new(&options));
    let Some(runtime) = threads.0.as_ref() else { return Err(Error::Ended("no threads".to_owned())) };
    let serving = runtime.spawn(serve(options.clone(), Arc::clone(&gate), dropped.clone()));
    let listening = |reason: String| Error::Listen { address: options.listen, reason };
    let (address, server) = serving.await.map_err(|error| Error::Ended(error.to_string()))?.map_err(listening)?;
    let running = runtime.spawn(server);
    let task = tokio::spawn(async move {
        let outcome = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            ended = running => Err(Error::Ended(ended.err().map_or_else(|| "it stopped serving".to_owned(), |error| error.to_string()))),
        };
        threads.stop().await;
        outcome
    });
    tracing::info!(%address, "mqtt broker serves");
    Ok(Handle { address, dropped, task })
}

/// Binds and wires the broker; returns the bound address and the broker as a future that does not end.
async fn serve(
    options: Options,
    gate: Arc<Gate>,
    dropped: Dropped,
) -> Result<(SocketAddr, impl Future<Output = ()> + Send), String> {
    let listener = listener(&options).map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    // Its overload check refuses connections by the machine's load average, which on a shared machine is somebody else's.
    let context = ServerContext::new().busy_check_enable(false).build().await;
    *context.extends.shared_subscription_mut().await = Box::new(shares::RoundRobin::default());
    *context.extends.retain_mut().await = Box::new(retained::Retained::new(options.retained_max));
    let hooks = Hooks { gate: Arc::clone(&gate), dropped, unsent: Arc::default() };
    let register = context.extends.hook_mgr().register();
    for event in [
        Type::ClientDisconnected,
        Type::MessageAcked,
        Type::MessageDelivered,
        Type::MessageDropped,
        Type::MessagePublishCheckAcl,
        Type::SessionSubscribed,
        Type::SessionUnsubscribed,
        Type::SessionTerminated,
    ] {
        register.add(event, Box::new(hooks.clone())).await;
    }
    register.start().await;
    let server = MqttServer::new(context.clone()).listener_by_id(listener, LISTENER).build();
    let serving = async move {
        let mut checks = tokio::time::interval(CHECK_INTERVAL);
        let serving = server.run();
        tokio::pin!(serving);
        loop {
            tokio::select! {
                _ = &mut serving => return,
                _ = checks.tick() => gate.check(&context).await,
            }
        }
    };
    Ok((address, serving))
}

fn listener(options: &Options) -> rmqtt::Result<rmqtt::net::Listener> {
    rmqtt::net::Builder::new()
        .name("doseline")
        .laddr(options.listen)
        // A port of one's own that is still cooling down after a restart can be bound again.
        .reuseaddr(Some(true))
        .nodelay(true)
        .max_connections(options.connections_max)
        .max_handshaking_limit(options.connections_max)
        .max_packet_size(options.packet_bytes_max)
        .max_inflight(options.inflight_max)
        // The gate keeps messages for shared subscriptions below its limit; the rest is room for what passes it meanwhile.
        .max_mqueue_len(options.queue_messages_max.saturating_mul(4))
        .send_timeout(SEND_TIMEOUT)
        .max_session_expiry_interval(options.session_expiry_max)
        // A message waits for its subscriber without end, and is sent again on reconnection only, as MQTT 5 wants it.
        .message_expiry_interval(Duration::ZERO)
        .message_retry_interval(Duration::ZERO)
        .bind()?
        .tcp()
}
