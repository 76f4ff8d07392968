//! The way into Kafka: every record is kept until Kafka has confirmed it.
//!
//! [`Confirmations`] holds the records ([`Unconfirmed`]) and is what librdkafka's callbacks reach;
//! [`Sink`] holds the producer. A record that fails is produced again, after a fatal error by a new
//! producer. Idempotence holds for the life of one producer, so a record can reach its topic twice;
//! the loader's ledger takes care of that.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, Producer as _},
};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    backoff::{self, Backoff},
    health::{Health, KafkaState, lock},
    metrics::{KafkaTrouble, Metrics},
    options::{Options, Topics},
    producer::{self, Context, Producer},
    receipts::PendingReceipt,
    record::Record,
    ring::Slot,
    unconfirmed::Unconfirmed,
};

/// How often a full queue is tried again when no delivery report says that there is room.
const ROOM_RETRY: Duration = Duration::from_millis(50);
/// Waits before a failed record is produced again, or a dead producer rebuilt.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(10);
/// Most records kept to be filled again, ...
const SPARE_MAX: usize = 4096;
/// ... and the bytes that one may have: 16 MiB in all.
const SPARE_BYTES_MAX: usize = 4096;
/// How long looking at the topics may take.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(2);

/// What happens when Kafka has confirmed a record.
pub(crate) struct OnConfirm {
    /// Slot of the message's connection that is settled, if the message is to be acknowledged.
    pub slot: Option<(mpsc::UnboundedSender<Slot>, Slot)>,
    /// Receipt that is sent.
    pub receipt: Option<PendingReceipt>,
    /// When the message was received.
    pub received: Instant,
    /// Its share of the bytes in flight, given back.
    pub permit: OwnedSemaphorePermit,
}

struct Waiting {
    record: Arc<Record>,
    on_confirm: OnConfirm,
}

/// The oldest record that Kafka has not confirmed.
#[derive(Clone, Debug)]
pub(crate) struct Oldest {
    /// Time since its message was received.
    pub age: Duration,
    /// Why it failed the last time, if it did.
    pub reason: Option<String>,
}

/// Why a record, or a producer, failed.
pub(crate) struct Failure {
    generation: u64,
    /// The record; `None` when it is about the producer.
    number: Option<usize>,
    /// What librdkafka says; `None` for what has no code.
    code: Option<RDKafkaErrorCode>,
    reason: String,
}

/// The records that are not confirmed, and what happens when they are.
///
/// Invariant: a record leaves only by Kafka's confirmation; its slot is settled and its receipt is
/// due after that.
pub(crate) struct Confirmations {
    pending: Mutex<Unconfirmed<Waiting>>,
    /// Records that were confirmed, to be filled again: as many as were in flight, so that none is
    /// allocated.
    spare: Mutex<Vec<Arc<Record>>>,
    /// At most one entry for each record in flight, and a few for the producer.
    failures: mpsc::UnboundedSender<Failure>,
    /// A record was confirmed or failed: the producer's queue has room.
    room: Notify,
    /// Nothing is pending.
    emptied: Notify,
    /// The last thing heard of Kafka was a confirmation.
    serving: AtomicBool,
    /// The last error that concerned no single record.
    client_error: Mutex<Option<String>>,
    /// The current producer has got a confirmation.
    served_since_rebuild: AtomicBool,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
}

impl Confirmations {
    pub fn new(metrics: Arc<Metrics>, health: Arc<Health>) -> (Arc<Self>, mpsc::UnboundedReceiver<Failure>) {
        let (failures, receiver) = mpsc::unbounded_channel();
        let confirmations = Self {
            pending: Mutex::default(),
            spare: Mutex::default(),
            failures,
            room: Notify::new(),
            emptied: Notify::new(),
            serving: AtomicBool::new(false),
            client_error: Mutex::default(),
            served_since_rebuild: AtomicBool::new(false),
            metrics,
            health,
        };
        (Arc::new(confirmations), receiver)
    }

    pub fn insert(&self, record: Arc<Record>, on_confirm: OnConfirm) -> usize {
        self.metrics.in_flight_messages.inc();
        self.metrics.in_flight_bytes.inc_by(on_confirm.permit.num_permits() as i64);
        lock(&self.pending).insert(Waiting { record, on_confirm })
    }

    fn record(&self, number: usize) -> Option<Arc<Record>> {
        lock(&self.pending).get(number).map(|waiting| Arc::clone(&waiting.record))
    }

    fn numbers(&self) -> Vec<usize> {
        lock(&self.pending).numbers().collect()
    }

    fn is_empty(&self) -> bool {
        lock(&self.pending).is_empty()
    }

    /// The oldest record that is not confirmed.
    pub fn oldest(&self, now: Instant) -> Option<Oldest> {
        let pending = lock(&self.pending);
        let (oldest, reason) = pending.oldest()?;
        let age = now.saturating_duration_since(oldest.on_confirm.received);
        Some(Oldest { age, reason: reason.map(str::to_owned) })
    }

    /// Notes a failure of a record; how long to wait before it is produced again, `None` if it is
    /// confirmed by now.
    fn failed(&self, failure: &Failure, number: usize) -> Option<Duration> {
        let mut pending = lock(&self.pending);
        let failures = pending.fail(number, &failure.reason)?;
        if failure.code == Some(RDKafkaErrorCode::MessageSizeTooLarge)
            && failures == 1
            && let Some(Waiting { record, .. }) = pending.get(number)
        {
            tracing::error!(
                bytes = record.value.len(),
                destination = ?record.destination,
                "kafka refuses a record for its size, and its connection waits; raise the topic's max.message.bytes"
            );
        }
        Some(backoff::wait(RETRY_FIRST, RETRY_MOST, failures - 1))
    }

    /// Kafka has confirmed a record, whichever producer sent it.
    pub fn confirm(&self, number: usize) {
        let (waiting, empty) = {
            let mut pending = lock(&self.pending);
            (pending.confirm(number), pending.is_empty())
        };
        if let Some(Waiting { record, on_confirm: OnConfirm { slot, receipt, received, permit } }) = waiting {
            self.metrics.in_flight_messages.dec();
            self.metrics.in_flight_bytes.dec_by(permit.num_permits() as i64);
            self.metrics.confirmed(received.elapsed());
            if let Some((connection, slot)) = slot {
                // The connection is gone only at the end; the broker then delivers the message
                // again.
                let _ = connection.send(slot);
            }
            if let Some(due) = receipt {
                due.send();
            }
            self.put_by(record);
        }
        self.served_since_rebuild.store(true, Ordering::Relaxed);
        if !self.serving.swap(true, Ordering::Relaxed) {
            let before = self.health.kafka(KafkaState::Serving);
            if matches!(before, KafkaState::Troubled { .. } | KafkaState::Fatal { .. }) {
                tracing::info!("kafka confirms records again");
            }
        }
        self.room.notify_waiters();
        if empty {
            self.emptied.notify_waiters();
        }
    }

    fn put_by(&self, record: Arc<Record>) {
        let mut spare = lock(&self.spare);
        if spare.len() < SPARE_MAX && record.capacity() <= SPARE_BYTES_MAX {
            spare.push(record);
        }
    }

    /// Kafka has not confirmed a record: it is produced again.
    pub fn fail(&self, generation: u64, number: usize, error: &KafkaError) {
        self.room.notify_waiters();
        let (code, reason) = (error.rdkafka_error_code(), error.to_string());
        let failure = Failure { generation, number: Some(number), code, reason };
        // The receiver is gone only at the end.
        let _ = self.failures.send(failure);
    }

    /// The producer can send nothing more.
    pub fn producer_died(&self, generation: u64, reason: &str) {
        let code = Some(RDKafkaErrorCode::Fatal);
        // The receiver is gone only at the end.
        let _ = self.failures.send(Failure { generation, number: None, code, reason: reason.to_owned() });
    }

    /// The client reports an error that concerns no single record: a broker unreachable, an
    /// authentication refused.
    pub fn client_error(&self, reason: &str) {
        self.metrics.kafka_trouble(KafkaTrouble::Client);
        *lock(&self.client_error) = Some(reason.to_owned());
        self.troubled(reason);
    }

    /// The last of these.
    pub fn last_client_error(&self) -> Option<String> {
        lock(&self.client_error).clone()
    }

    fn troubled(&self, reason: &str) {
        self.serving.store(false, Ordering::Relaxed);
        if self.health.kafka_troubled(reason) {
            tracing::warn!(reason, "kafka is in trouble; retrying");
        }
    }

    /// Waits until every record is confirmed.
    pub async fn drained(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.is_empty() {
                return;
            }
            emptied.await;
        }
    }
}

enum Sent {
    Queued,
    Full,
    Failed(u64, KafkaError),
}

struct Live {
    generation: u64,
    /// `None` after [`Sink::close`].
    producer: Option<Producer>,
}

/// Sends records to Kafka.
pub(crate) struct Sink {
    confirmations: Arc<Confirmations>,
    live: RwLock<Live>,
    generation: AtomicU64,
    config: ClientConfig,
    topics: Topics,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
}

impl Sink {
    /// Makes the first producer; connects in the background.
    pub fn new(
        options: &Options,
        confirmations: Arc<Confirmations>,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
    ) -> Result<Self, KafkaError> {
        let config = producer::configuration(options);
        let first = Self::create(&config, 0, &confirmations)?;
        Ok(Self {
            confirmations,
            live: RwLock::new(Live { generation: 0, producer: Some(first) }),
            generation: AtomicU64::new(0),
            config,
            topics: options.kafka.topics.clone(),
            metrics,
            health,
        })
    }

    fn create(
        config: &ClientConfig,
        generation: u64,
        confirmations: &Arc<Confirmations>,
    ) -> Result<Producer, KafkaError> {
        config.create_with_context(Context { generation, confirmations: Arc::clone(confirmations) })
    }

    /// Looks at the topics until they are as they must be. Ends early on `shutdown`: `false`.
    pub async fn verify(self: &Arc<Self>, shutdown: &CancellationToken) -> bool {
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));
        loop {
            let sink = Arc::clone(self);
            let looked = tokio::task::spawn_blocking(move || sink.look_at_topics());
            let looked = tokio::select! {
                looked = looked => looked.unwrap_or_else(|error| Err(error.to_string())),
                () = shutdown.cancelled() => return false,
            };
            match looked {
                Ok(partitions) => {
                    self.health.kafka(KafkaState::Serving);
                    self.confirmations.serving.store(true, Ordering::Relaxed);
                    tracing::info!(partitions, "kafka topics are there");
                    return true;
                }
                Err(reason) => {
                    if self.health.kafka_troubled(&reason) {
                        tracing::warn!(reason, "kafka cannot be used yet; retrying");
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                () = shutdown.cancelled() => return false,
            }
        }
    }

    fn look_at_topics(&self) -> Result<usize, String> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        let producer = live.producer.as_ref().ok_or("the producer is closed")?;
        let topics = [&self.topics.reports, &self.topics.status, &self.topics.quarantine].map(String::as_str);
        producer::verify(producer, topics, VERIFY_TIMEOUT)
    }

    /// A record, in the buffers of one that was confirmed, where there is one.
    pub fn record(&self, fill: impl FnOnce(&mut Record)) -> Arc<Record> {
        let mut record = lock(&self.confirmations.spare).pop().unwrap_or_default();
        // It is confirmed now and then before its sender has let go of it; then this is a copy.
        fill(Arc::make_mut(&mut record));
        record
    }

    /// Hands a record to the producer and returns when that has queued it; waits while its queue is
    /// full, which is what slows the source. The record stays in [`Confirmations`] from the first
    /// moment, so nothing is lost by cancelling.
    pub async fn submit(&self, record: Arc<Record>, on_confirm: OnConfirm) {
        let number = self.confirmations.insert(Arc::clone(&record), on_confirm);
        self.send_when_room(number, &record).await;
    }

    async fn send_when_room(&self, number: usize, record: &Record) {
        loop {
            match self.send(number, record) {
                Sent::Queued => return,
                Sent::Failed(generation, error) => return self.confirmations.fail(generation, number, &error),
                Sent::Full => {
                    self.metrics.kafka_trouble(KafkaTrouble::QueueFull);
                    let _ = tokio::time::timeout(ROOM_RETRY, self.confirmations.room.notified()).await;
                }
            }
        }
    }

    fn send(&self, number: usize, record: &Record) -> Sent {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        let Some(producer) = &live.producer else { return Sent::Full };
        let mut base = BaseRecord::with_opaque_to(record.kafka_topic(&self.topics), number)
            .payload(record.value.as_slice())
            .headers(record.headers());
        if let Some(key) = &record.key {
            base = base.key(key.as_bytes());
        }
        match producer.send(base) {
            Ok(()) => Sent::Queued,
            Err((error, _)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => Sent::Full,
            Err((error, _)) => Sent::Failed(live.generation, error),
        }
    }

    /// Produces again what has failed, until cancelled.
    pub async fn supervise(&self, mut failures: mpsc::UnboundedReceiver<Failure>) {
        let mut rebuilds = Backoff::new(RETRY_FIRST, RETRY_MOST);
        let mut due: BTreeSet<(tokio::time::Instant, usize)> = BTreeSet::new();
        loop {
            let next = due.first().copied();
            let at = next.map_or_else(tokio::time::Instant::now, |(at, _)| at);
            tokio::select! {
                failure = failures.recv() => {
                    let Some(failure) = failure else { return };
                    // What an earlier producer says when it is torn down: those records were
                    // produced again already.
                    if failure.generation != self.generation.load(Ordering::Acquire) {
                        continue;
                    }
                    if failure.code == Some(RDKafkaErrorCode::Fatal) || self.is_dead() {
                        due.clear();
                        self.rebuild(&failure.reason, &mut rebuilds).await;
                        continue;
                    }
                    self.metrics.kafka_trouble(KafkaTrouble::Delivery);
                    self.confirmations.troubled(&failure.reason);
                    let wait = failure.number.and_then(|number| self.confirmations.failed(&failure, number));
                    if let (Some(number), Some(wait)) = (failure.number, wait) {
                        due.insert((tokio::time::Instant::now() + wait, number));
                    }
                }
                () = tokio::time::sleep_until(at), if next.is_some() => {
                    if let Some((_, number)) = due.pop_first() {
                        self.resend(number).await;
                    }
                }
            }
        }
    }

    fn is_dead(&self) -> bool {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.producer.as_ref().is_some_and(|producer| producer.client().fatal_error().is_some())
    }

    async fn resend(&self, number: usize) {
        if let Some(record) = self.confirmations.record(number) {
            self.send_when_room(number, &record).await;
        }
    }

    /// Replaces the producer and sends everything again that is not confirmed.
    async fn rebuild(&self, reason: &str, rebuilds: &mut Backoff) {
        self.metrics.kafka_trouble(KafkaTrouble::Fatal);
        tracing::error!(reason, "the kafka producer failed for good; building a new one");
        self.confirmations.serving.store(false, Ordering::Relaxed);
        self.health.kafka(KafkaState::Fatal { reason: reason.to_owned() });
        let generation = self.generation.load(Ordering::Acquire) + 1;
        if self.confirmations.served_since_rebuild.swap(false, Ordering::Relaxed) {
            rebuilds.reset();
        }
        let producer = loop {
            // A producer that dies at once must not be rebuilt in a tight loop.
            tokio::time::sleep(rebuilds.next()).await;
            match Self::create(&self.config, generation, &self.confirmations) {
                Ok(producer) => break producer,
                Err(error) => tracing::error!(%error, "create kafka producer; retrying"),
            }
        };
        let old = {
            let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
            if live.producer.is_none() {
                return;
            }
            live.generation = generation;
            self.generation.store(generation, Ordering::Release);
            live.producer.replace(producer)
        };
        // Dropping waits for its thread.
        drop(tokio::task::spawn_blocking(move || drop(old)));
        for number in self.confirmations.numbers() {
            self.resend(number).await;
        }
    }

    /// Ends the producer; what is not confirmed by now stays unacknowledged. Blocks for a second at
    /// most.
    pub fn close(&self) {
        let producer = self.live.write().unwrap_or_else(PoisonError::into_inner).producer.take();
        drop(producer);
    }
}

#[cfg(test)]
mod tests;
