//! Moves records from Kafka to ClickHouse, each exactly once.
//!
//! Every record of the reports, status, quarantine and commands topics becomes rows, sums and
//! ledgers in the warehouse. The polling thread hands each record to the owner of its partition.
//! The owner collects a batch, decodes it, and writes it.
//!
//! Boundary: Kafka on one side, the warehouse on the other. No MQTT, no receipts, no verdicts, and
//! no state of its own: ClickHouse holds all of it. Offsets that the loader commits to Kafka serve
//! people who watch the lag. One offset it obeys: a person's request to give up an unreadable batch
//! of Kafka is an offset too, committed for a group of its own ([`give_up`]).
//!
//! Invariants:
//! - The core (`batch`, `owner`) reaches ClickHouse, Kafka and clocks only through
//!   [`store::Store`], [`copies::Copies`], [`inbox::Inbox`] and [`clock::Clock`]. It gives the same
//!   rows for the same records and ledgers.
//! - A loader has one owner for each of its partitions. Another loader may have one too: the scheme
//!   bears that. Owners share permits, and no state. Each queue is bounded in bytes.
//! - Nothing is dropped: what cannot be used is in quarantine before the batch is committed.
//!
//! Start reading at [`owner`], whose header names the steps of a batch, then `batch` (which rows a
//! batch becomes) and `poller` (how a partition gets its owner). [`history`] reads a range of Kafka
//! again, for `rebuild` and `reconcile`.

mod aggregate;
pub mod batch;
pub mod clock;
pub mod commands;
mod consumer;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod copies;
pub mod decode;
mod elsewhere;
mod error;
pub mod give_up;
pub mod history;
pub mod inbox;
pub mod lease;
mod ledgers;
#[cfg(feature = "contract")]
pub mod measure;
pub mod metrics;
pub mod options;
pub mod owner;
mod partition;
mod poller;
mod record;
pub mod replay;
pub mod settings;
#[cfg(any(test, feature = "contract"))]
pub mod simulation;
mod start;
pub mod status;
pub mod store;
mod tables;
mod topic_ids;
mod topics;
mod unread;

use async_recursion::async_recursion as boxed;
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use service::health;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use warehouse::{Warehouse, loader::TopicIncarnation};

use crate::{
    batch::{DECODER_VERSION, DecodeRules},
    clock::{Clock, SystemClock},
    copies::QuarantineTopic,
    owner::Shared,
    poller::Poller,
    topics::Watch,
};
pub use crate::{
    error::Error,
    options::{Kafka, Limits, Options},
    status::Handle,
    topics::{Ensured, TopicSpec, ensure_topics, inspect_topics},
};

/// A loader that has bound its address and has not started.
pub struct Loader {
    options: Options,
    warehouse: Warehouse,
    handle: Handle,
    listener: Option<TcpListener>,
    clock: Arc<dyn Clock>,
    decoder_version: u32,
}

/// How long the consumer may take to leave its group at the end.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);
/// Time between two checks for missing topics.
const TOPICS_EVERY: Duration = Duration::from_secs(2);

impl Loader {
    /// Checks the options and binds the HTTP address.
    ///
    /// # Errors
    /// [`Error::Option`] or [`Error::Listen`].
    #[boxed]
    pub async fn bind(options: Options, warehouse: Warehouse) -> Result<Self, Error> {
        options.validate()?;
        let listening = |(address, source)| Error::Listen { address, source };
        let listener = health::bind(options.http).await.map_err(listening)?;
        let handle = Handle::new(options.limits, Arc::new(SystemClock));
        let clock = Arc::new(SystemClock);
        Ok(Self { options, warehouse, handle, listener, clock, decoder_version: DECODER_VERSION })
    }

    /// Replaces the machine's clock, for a test that needs an ingest day that is over.
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Replaces the version of this program's decoder, for a test that plays an upgrade.
    pub fn with_decoder_version(self, decoder_version: u32) -> Self {
        Self { decoder_version, ..self }
    }

    /// State and metrics of this loader.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.listener.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Loads until `shutdown`, then finishes the batches that are being written.
    ///
    /// # Errors
    /// An error that a person must act on; all others are retried inside.
    #[boxed]
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let Self { options, warehouse, handle, listener, clock, decoder_version } = self;
        let rules =
            DecodeRules { decoder_version, ..DecodeRules::new(options.plausibility.clone(), options.device_time) };
        let serving = CancellationToken::new();
        let stop_serving = serving.clone().drop_guard();
        if let Some(listener) = listener {
            tokio::spawn(health::serve(listener, options.http_names.clone(), handle.clone(), serving.clone()));
        }
        let result = load(options, warehouse, handle, rules, clock, shutdown).await;
        drop(stop_serving);
        result
    }
}

async fn load(
    options: Options,
    warehouse: Warehouse,
    handle: Handle,
    rules: DecodeRules,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    loop {
        let Some(incarnations) = wait_for_topics(&options, &warehouse, &handle, &shutdown).await? else {
            return Ok(());
        };
        let watch = Watch::new(&options.kafka)?;
        let kafka = &options.kafka;
        let shared = Arc::new(Shared {
            store: warehouse.clone(),
            copies: QuarantineTopic::new(kafka)?,
            rules: rules.clone(),
            limits: options.limits,
            session_timeout: kafka.session_timeout,
            clock: clock.clone(),
            instance: options.instance.clone(),
            room: Semaphore::new(options.limits.rows_in_memory_max()),
            turns: Semaphore::new(options.limits.batches_max),
        });
        let result = load_incarnations(&options, &warehouse, shared, &handle, &shutdown, (&watch, &incarnations)).await;
        let error = match result {
            // Offsets that do not fit may belong to a new topic of the same name.
            Err(error @ Error::Offsets { .. }) => watch.changed(&incarnations).await.ok().flatten().unwrap_or(error),
            Err(error) => error,
            Ok(()) => return Ok(()),
        };
        match error {
            Error::Recreated { .. } | Error::Closed { .. } | Error::Topic { .. } if !shutdown.is_cancelled() => {
                tracing::error!(%error, "stopped reading");
                handle.kafka(Some(&error.to_string()));
            }
            error => return Err(error),
        }
    }
}

/// Loads until a topic is no longer the one of its incarnation.
async fn load_incarnations(
    options: &Options,
    warehouse: &Warehouse,
    shared: Arc<Shared<Warehouse, QuarantineTopic>>,
    handle: &Handle,
    shutdown: &CancellationToken,
    (watch, incarnations): (&Watch, &BTreeMap<String, TopicIncarnation>),
) -> Result<(), Error> {
    handle.elsewhere(BTreeMap::new());
    let poller = Poller::new(options.clone(), incarnations.clone(), shared, handle.clone())?;
    // The thread ends with this future, however that ends.
    let stop = shutdown.child_token();
    let _dropped = stop.clone().drop_guard();
    let (sender, mut ended) = tokio::sync::oneshot::channel();
    let until = stop.clone();
    let (closed_sender, closed) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("kafka-poll".to_owned()).spawn(move || {
        poller.run(&until, |result| drop(sender.send(result)));
        let _ = closed_sender.send(());
    });
    if thread.is_err() {
        return Err(Error::Ended("kafka-poll".to_owned()));
    }
    let gone = || Err(Error::Ended("kafka-poll".to_owned()));
    let result = tokio::select! {
        result = &mut ended => result.unwrap_or_else(|_| gone()),
        changed = watch.run(incarnations, handle) => {
            stop.cancel();
            (&mut ended).await.unwrap_or_else(|_| gone()).and(Err(changed))
        }
        error = elsewhere::watch(&options.kafka, warehouse, incarnations, handle) => {
            stop.cancel();
            (&mut ended).await.unwrap_or_else(|_| gone()).and(Err(error))
        }
    };
    // Without leaving the group, the other loaders would wait for the session time-out.
    let _ = tokio::time::timeout(LEAVE_WITHIN, closed).await;
    result
}

/// Waits until the schema is complete, and Kafka and the warehouse agree about the topics. Returns
/// `None` if it was told to end before.
async fn wait_for_topics(
    options: &Options,
    warehouse: &Warehouse,
    handle: &Handle,
    shutdown: &CancellationToken,
) -> Result<Option<BTreeMap<String, TopicIncarnation>>, Error> {
    loop {
        let found = match warehouse::schema::ready(warehouse).await {
            Ok(()) => topics::incarnations(&options.kafka, &options.kafka.topics, warehouse).await,
            Err(error) => Err(error.into()),
        };
        let error = match found {
            Ok(incarnations) => {
                handle.kafka(None);
                handle.clickhouse(None);
                return Ok(Some(incarnations));
            }
            Err(Error::Warehouse(error)) if error.advice() == warehouse::Advice::Fatal => return Err(error.into()),
            Err(error) => error,
        };
        if handle.kafka(Some(&error.to_string())) {
            if matches!(error, Error::Recreated { .. }) {
                tracing::error!(%error, "nothing is read, waiting");
            } else {
                tracing::warn!(%error, "topics or tables are not ready, trying again");
            }
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(None),
            () = tokio::time::sleep(TOPICS_EVERY) => {}
        }
    }
}
