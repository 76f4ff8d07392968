//! Wiring, start and stop.

use async_recursion::async_recursion as boxed;
use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use service::health::{self, Readiness, Role};
use tokio::{
    sync::{Notify, Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Options,
    confirmations::{Confirmations, Failure},
    connection::{Connection, Shared},
    health::Health,
    metrics::Metrics,
    receipts::{PendingReceipt, ReceiptQueue, ReceiptSender},
    replicas::Replicas,
    sink::Sink,
};

/// At shutdown: how long Kafka may take to confirm what is in flight, ...
const DRAIN_WITHIN: Duration = Duration::from_millis(2000);
/// ... the broker to take the acknowledgements, and the receipts, ...
const LEAVE_WITHIN: Duration = Duration::from_millis(500);
/// ... and the producer to end.
const CLOSE_WITHIN: Duration = Duration::from_millis(900);
/// How often the age of the oldest message is published.
const OBSERVE_EVERY: Duration = Duration::from_millis(500);

/// Runs a bridge until `shutdown`, then ends within 4 s.
///
/// What cannot be reached is retried with back-off for as long as it takes; see
/// [`Handle::readiness`] for what is missing.
///
/// # Errors
/// Invalid options, an HTTP address that cannot be bound, or a part of the bridge that ended by
/// itself.
#[boxed]
pub async fn run(options: Options, shutdown: CancellationToken) -> Result<(), Error> {
    Bridge::new(options)?.run(shutdown).await
}

/// What is known about a running bridge.
#[derive(Clone)]
pub struct Handle {
    confirmations: Arc<Confirmations>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    http: Arc<OnceLock<SocketAddr>>,
    changed: Arc<Notify>,
}

impl Handle {
    /// Whether data moves, and if not, why.
    pub fn readiness(&self) -> Readiness {
        let now = Instant::now();
        self.health.readiness(now, self.confirmations.oldest(now))
    }

    /// Waits until the bridge is ready for the first time.
    #[boxed]
    pub async fn ready(&self) {
        while !self.readiness().ready {
            // Every observation notifies this.
            self.changed.notified().await;
        }
    }

    /// The metrics in the OpenMetrics text format.
    pub fn metrics(&self) -> String {
        self.observe();
        self.metrics.text()
    }

    /// Adds restarts of the broker that the caller runs.
    pub fn broker_restarted(&self, times: u64) {
        self.metrics.broker_restarts.inc_by(times);
    }

    /// The registry was read by the caller, or why it could not be.
    pub fn registry_read(&self, trouble: Option<&str>) {
        self.health.registry(Instant::now(), trouble);
    }

    /// Where HTTP is served, once it is.
    pub fn http(&self) -> Option<SocketAddr> {
        self.http.get().copied()
    }

    fn observe(&self) {
        let now = Instant::now();
        let oldest = self.confirmations.oldest(now);
        self.metrics.registry_age.set(self.health.registry_age(now).as_secs_f64());
        self.metrics.oldest_unconfirmed.set(oldest.map_or(0.0, |oldest| oldest.age.as_secs_f64()));
    }
}

impl Role for Handle {
    fn readiness(&self) -> Readiness {
        Self::readiness(self)
    }

    fn metrics(&self) -> String {
        Self::metrics(self)
    }
}

/// A bridge that is set up and not running yet.
pub struct Bridge {
    options: Arc<Options>,
    sink: Arc<Sink>,
    replicas: Replicas,
    failures: mpsc::UnboundedReceiver<Failure>,
    receipts: Option<(ReceiptQueue, mpsc::UnboundedReceiver<PendingReceipt>)>,
    handle: Handle,
}

impl Bridge {
    /// Checks the options and sets everything up. Must be called in a Tokio runtime.
    ///
    /// # Errors
    /// [`Error::Option`], or [`Error::Producer`] where librdkafka refuses a property.
    pub fn new(options: Options) -> Result<Self, Error> {
        options.validate()?;
        let metrics = Arc::new(Metrics::new());
        let (connections, receipts) = (options.mqtt.connections.into(), options.mqtt.receipts);
        let health = Arc::new(Health::new(options.limits, connections, receipts));
        let (confirmations, failures) = Confirmations::new(Arc::clone(&metrics), Arc::clone(&health));
        let sink = Sink::new(&options, Arc::clone(&confirmations), Arc::clone(&metrics), Arc::clone(&health))?;
        let receipts = receipts.then(|| ReceiptQueue::new(options.limits.receipts_queued, Arc::clone(&metrics)));
        let handle = Handle { confirmations, health, metrics, http: Arc::default(), changed: Arc::default() };
        let replicas = Replicas::new(&options.kafka)?;
        Ok(Self { options: Arc::new(options), sink: Arc::new(sink), replicas, failures, receipts, handle })
    }

    /// For watching it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs until `shutdown`, then ends within 4 s.
    ///
    /// # Errors
    /// [`Error::Listen`], or [`Error::Ended`] when a part ended by itself; the others are stopped
    /// then.
    #[boxed]
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let Self { options, sink, replicas, failures, receipts, handle } = self;
        // A token of the bridge: a part that ends by itself stops the others, but not the caller.
        let stop = shutdown.child_token();
        let (close, finish) = (CancellationToken::new(), CancellationToken::new());
        let mut background = JoinSet::new();
        serve_http(&options, &handle, &mut background).await?;
        background.spawn(observe(handle.clone()));
        let supervised = Arc::clone(&sink);
        background.spawn(async move {
            supervised.supervise(failures).await;
            "kafka supervisor"
        });
        background.spawn(replicas.run(Arc::clone(&handle.health)));
        let mut senders = JoinSet::new();
        let mut connections = JoinSet::new();
        if registry_read(&options, &stop).await && sink.verify(&stop).await {
            let (receipts, queue) = receipts.unzip();
            if let Some(queue) = queue {
                let link = options.mqtt.connections.into();
                let (health, metrics) = (Arc::clone(&handle.health), Arc::clone(&handle.metrics));
                let sender = ReceiptSender {
                    options: Arc::clone(&options),
                    queue,
                    link,
                    health,
                    metrics,
                    finish: finish.clone(),
                };
                senders.spawn(sender.run());
            }
            let shared = Arc::new(Shared {
                options: Arc::clone(&options),
                sink: Arc::clone(&sink),
                receipts,
                budget: Arc::new(Semaphore::new(options.limits.in_flight_bytes.min(Semaphore::MAX_PERMITS))),
                health: Arc::clone(&handle.health),
                metrics: Arc::clone(&handle.metrics),
                shutdown: stop.clone(),
                close: close.clone(),
            });
            for index in 0..options.mqtt.connections {
                connections.spawn(Connection::new(index, Arc::clone(&shared)).run());
            }
        }
        let ended = tokio::select! {
            () = stop.cancelled() => None,
            Some(ended) = background.join_next() => Some(ended.map_or_else(|error| error.to_string(), str::to_owned)),
            Some(ended) = connections.join_next() => Some(describe("MQTT connection", ended)),
            Some(ended) = senders.join_next() => Some(describe("receipts", ended)),
        };
        stop.cancel();
        drain(&handle, &sink, (close, connections), (finish, senders)).await;
        background.shutdown().await;
        match ended {
            // Ended because of the shutdown, noticed in either order.
            None => Ok(()),
            Some(_) if shutdown.is_cancelled() => Ok(()),
            Some(task) => Err(Error::Ended(task)),
        }
    }
}

/// Waits until the registry was read, if there is one; false if the bridge stops before.
async fn registry_read(options: &Options, stop: &CancellationToken) -> bool {
    let Some(mut current) = options.registry.clone() else { return true };
    if current.borrow().is_none() {
        tracing::info!("waiting for the registry of devices before anything is received");
    }
    tokio::select! {
        read = current.wait_for(Option::is_some) => read.is_ok(),
        () = stop.cancelled() => false,
    }
}

fn describe(task: &str, ended: Result<(), tokio::task::JoinError>) -> String {
    ended.map_or_else(|error| format!("{task}: {error}"), |()| task.to_owned())
}

/// Waits for Kafka's confirmations first, then for the acknowledgements and receipts that follow
/// from them, then for the ends of the connections.
async fn drain(
    handle: &Handle,
    sink: &Arc<Sink>,
    (close, mut connections): (CancellationToken, JoinSet<()>),
    (finish, mut senders): (CancellationToken, JoinSet<()>),
) {
    let began = Instant::now();
    if timeout(DRAIN_WITHIN, handle.confirmations.drained()).await.is_err() {
        let messages = handle.metrics.in_flight_messages.get();
        tracing::warn!(messages, "kafka did not confirm all messages in time; the broker will deliver them again");
    }
    close.cancel();
    finish.cancel();
    let left = timeout(LEAVE_WITHIN, async {
        while connections.join_next().await.is_some() {}
        while senders.join_next().await.is_some() {}
    });
    if left.await.is_err() {
        tracing::warn!("the MQTT broker did not take all acknowledgements and receipts in time; they are sent again");
    }
    connections.shutdown().await;
    senders.shutdown().await;
    let sink = Arc::clone(sink);
    let closed = tokio::task::spawn_blocking(move || sink.close());
    if timeout(CLOSE_WITHIN, closed).await.is_err() {
        tracing::warn!("the kafka producer did not end in time");
    }
    tracing::info!(ms = began.elapsed().as_millis() as u64, "bridge stopped");
}

async fn serve_http(options: &Options, handle: &Handle, background: &mut JoinSet<&'static str>) -> Result<(), Error> {
    let listener = health::bind(options.http).await.map_err(|(address, source)| Error::Listen { address, source })?;
    let Some(listener) = listener else { return Ok(()) };
    if let Ok(bound) = listener.local_addr() {
        tracing::info!(address = %bound, "the HTTP port listens");
        let _ = handle.http.set(bound);
    }
    // It ends with the other tasks in the background.
    let served = health::serve(listener, options.http_names.clone(), handle.clone(), CancellationToken::new());
    background.spawn(async move {
        served.await;
        "http"
    });
    Ok(())
}

async fn observe(handle: Handle) -> &'static str {
    let mut every = tokio::time::interval(OBSERVE_EVERY);
    loop {
        every.tick().await;
        handle.observe();
        handle.changed.notify_waiters();
    }
}
