//! Kafka to ClickHouse, exactly once.
//!
//! What it is for: every record of the reports, status and quarantine topics becomes rows,
//! aggregates and ledgers in the warehouse, once. The data path is [`owner::Owner`]: poll, decode,
//! ledger, columns and sums, insert, record; its module says why each crash point is safe. Around
//! it: the polling thread, the start of a partition, the topics' creation ([`ensure_topics`]),
//! health and metrics ([`status::Handle`]). Beside it: what a stretch of Kafka came to, rebuilt
//! or looked at ([`again`]).
//!
//! Absent: MQTT, receipts, verdicts, any state of its own. ClickHouse holds all of it; Kafka's
//! committed offsets serve people who watch the lag, and nothing else.
//!
//! Invariants:
//! - The core (`batch`, `owner`) reaches ClickHouse, Kafka and clocks through [`store::Store`],
//!   [`copies::Copies`], [`inbox::Inbox`] and [`clock::Clock`] only, and gives the same rows for
//!   the same records and ledgers.
//! - One owner for each partition, no locks between owners, each queue bounded in bytes.
//! - Nothing is dropped: what cannot be used is in quarantine before the batch is recorded.

pub mod again;
mod aggregate;
mod backoff;
pub mod batch;
pub mod clock;
mod consumer;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod copies;
pub mod decode;
mod elsewhere;
mod error;
pub mod give_up;
mod http;
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
pub mod replay;
#[cfg(any(test, feature = "contract"))]
pub mod simulation;
mod start;
pub mod status;
pub mod store;
mod tables;
mod topic_ids;
mod topics;
mod unread;
mod wire;

use async_recursion::async_recursion as boxed;
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use warehouse::{Warehouse, loader::TopicLife};

use crate::{
    batch::{DECODER_VERSION, Rules},
    clock::{Clock, SystemClock},
    copies::QuarantineTopic,
    owner::Shared,
    poller::Poller,
    topics::Watch,
};
pub use crate::{
    error::Error,
    options::{Kafka, Limits, Options, Topics},
    status::{Handle, Obstacle, Readiness},
    topics::{Ensured, TopicSpec, ensure_topics, inspect_topics},
};

/// A loader that has its address and has not started.
pub struct Loader {
    options: Options,
    warehouse: Warehouse,
    handle: Handle,
    listener: Option<TcpListener>,
    clock: Arc<dyn Clock>,
    decoder_version: u32,
}

/// How long the consumer gets to leave its group at the end.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);
/// Between two looks at topics that are not there yet.
const TOPICS_EVERY: Duration = Duration::from_secs(2);

impl Loader {
    /// Checks the options and binds the HTTP address.
    ///
    /// # Errors
    /// [`Error::Option`] or [`Error::Listen`].
    #[boxed]
    pub async fn bind(options: Options, warehouse: Warehouse) -> Result<Self, Error> {
        options.validate()?;
        let listener = match options.http {
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(|source| Error::Listen { address, source })?)
            }
            None => None,
        };
        let handle = Handle::new(options.limits, Arc::new(SystemClock));
        let clock = Arc::new(SystemClock);
        Ok(Self { options, warehouse, handle, listener, clock, decoder_version: DECODER_VERSION })
    }

    /// Another clock than the machine's: a test that needs an ingest day that is over.
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Another version of the decoder than this program's: a test that plays an upgrade.
    pub fn with_decoder_version(self, decoder_version: u32) -> Self {
        Self { decoder_version, ..self }
    }

    /// What it says about itself.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.listener.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Loads until `shutdown`, then lets the batches that are being written finish.
    ///
    /// # Errors
    /// What a person must see; everything that can heal is retried inside.
    #[boxed]
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let Self { options, warehouse, handle, listener, clock, decoder_version } = self;
        let rules = Rules { decoder_version, ..Rules::new(options.plausibility.clone(), options.device_time) };
        let serving = CancellationToken::new();
        let stop_serving = serving.clone().drop_guard();
        if let Some(listener) = listener {
            let router = http::router(handle.clone());
            let served = service::listener::serve(listener, options.http_names.clone(), router, serving.clone());
            tokio::spawn(async move {
                if let Err(error) = served.await {
                    tracing::error!(%error, "http server ended");
                }
            });
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
    rules: Rules,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    loop {
        let Some(lives) = wait_for_topics(&options, &warehouse, &handle, &shutdown).await? else { return Ok(()) };
        let watch = Watch::new(&options.kafka)?;
        let kafka = &options.kafka;
        let shared = Arc::new(Shared {
            store: warehouse.clone(),
            copies: QuarantineTopic::new(&kafka.brokers, &kafka.properties, &kafka.topics.quarantine)?,
            rules: rules.clone(),
            limits: options.limits,
            session_timeout: kafka.session_timeout,
            clock: clock.clone(),
            instance: options.instance.clone(),
            room: Semaphore::new(options.limits.room()),
            turns: Semaphore::new(options.limits.batches_max),
        });
        let result = load_lives(&options, &warehouse, shared, &handle, &shutdown, (&watch, &lives)).await;
        let error = match result {
            // Offsets that do not fit may be those of another topic of the same name.
            Err(error @ Error::Offsets { .. }) => watch.changed(&lives).await.ok().flatten().unwrap_or(error),
            Err(error) => error,
            Ok(()) => return Ok(()),
        };
        match error {
            Error::MadeAgain { .. } | Error::Closed { .. } | Error::Topic { .. } if !shutdown.is_cancelled() => {
                tracing::error!(%error, "stopped reading");
                handle.kafka(Some(&error.to_string()));
            }
            error => return Err(error),
        }
    }
}

/// Loads while the topics are what they are.
async fn load_lives(
    options: &Options,
    warehouse: &Warehouse,
    shared: Arc<Shared<Warehouse, QuarantineTopic>>,
    handle: &Handle,
    shutdown: &CancellationToken,
    (watch, lives): (&Watch, &BTreeMap<String, TopicLife>),
) -> Result<(), Error> {
    handle.elsewhere(BTreeMap::new());
    let poller = Poller::new(options.clone(), lives.clone(), shared, handle.clone())?;
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
        changed = watch.run(lives, handle) => {
            stop.cancel();
            (&mut ended).await.unwrap_or_else(|_| gone()).and(Err(changed))
        }
        error = elsewhere::watch(&options.kafka, warehouse, lives, handle) => {
            stop.cancel();
            (&mut ended).await.unwrap_or_else(|_| gone()).and(Err(error))
        }
    };
    // Leaving the group is a courtesy to the other loaders; without it they wait for the session
    // time-out.
    let _ = tokio::time::timeout(LEAVE_WITHIN, closed).await;
    result
}

/// Asks until the schema is whole, and Kafka and the warehouse agree about the topics; none when it
/// is to end before.
async fn wait_for_topics(
    options: &Options,
    warehouse: &Warehouse,
    handle: &Handle,
    shutdown: &CancellationToken,
) -> Result<Option<BTreeMap<String, TopicLife>>, Error> {
    loop {
        let found = match warehouse::schema::ready(warehouse).await {
            Ok(()) => topics::lives(&options.kafka, &options.kafka.topics, warehouse).await,
            Err(error) => Err(error.into()),
        };
        let error = match found {
            Ok(lives) => {
                handle.kafka(None);
                handle.clickhouse(None);
                return Ok(Some(lives));
            }
            Err(Error::Warehouse(error)) if error.advice() == warehouse::Advice::Fatal => return Err(error.into()),
            Err(error) => error,
        };
        if handle.kafka(Some(&error.to_string())) {
            if matches!(error, Error::MadeAgain { .. }) {
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
