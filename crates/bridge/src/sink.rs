//! The producer of records, and the repetition of those that failed.
//!
//! [`Confirmations`] holds every record until Kafka has confirmed it. [`Sink`] produces a failed
//! record again, and after a fatal error builds a new producer. Kafka's idempotence holds for one
//! producer only, so a record can reach its topic twice; the loader's ledger recognises the second
//! copy.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, Producer as _},
};
use service::backoff::Backoff;
use telemetry::kafka::Topics;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    confirmations::{Confirmations, Failure, OnConfirm, RETRY_FIRST, RETRY_MOST},
    health::Health,
    metrics::{KafkaTrouble, Metrics},
    options::Options,
    producer::{self, Context, Producer},
    record::Record,
};

/// How often a full queue is tried again while no delivery report says that there is room.
const ROOM_RETRY: Duration = Duration::from_millis(50);
/// How long looking at the topics may take.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(2);

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
        Producer::new(config, Context { generation, confirmations: Arc::clone(confirmations) })
    }

    /// Looks at the topics until they are as they must be. Returns `false` if `shutdown` comes
    /// first.
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
                    self.confirmations.verified();
                    tracing::info!(partitions, "all kafka topics exist");
                    return true;
                }
                Err(reason) => {
                    if self.health.kafka_troubled(&reason) {
                        tracing::warn!(reason, "kafka cannot be used yet; retrying");
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.pause()) => {}
                () = shutdown.cancelled() => return false,
            }
        }
    }

    fn look_at_topics(&self) -> Result<usize, String> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        let producer = live.producer.as_ref().ok_or("the producer is closed")?;
        producer::verify(producer, self.topics.of_devices(), VERIFY_TIMEOUT)
    }

    /// A new record. It uses the buffers of a confirmed record, if there is one.
    pub fn record(&self, fill: impl FnOnce(&mut Record)) -> Arc<Record> {
        let mut record = self.confirmations.spare().unwrap_or_default();
        // If its sender still holds the confirmed record, this makes a copy.
        fill(Arc::make_mut(&mut record));
        record
    }

    /// Gives a record to the producer and returns when the producer has queued it. While the queue
    /// is full it waits, which slows the source down. [`Confirmations`] holds the record from the
    /// first moment, so cancelling loses nothing.
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
                    let _ = tokio::time::timeout(ROOM_RETRY, self.confirmations.room()).await;
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

    /// Produces failed records again, until cancelled.
    pub async fn supervise(&self, mut failures: mpsc::UnboundedReceiver<Failure>) {
        let mut rebuilds = Backoff::new(RETRY_FIRST, RETRY_MOST);
        let mut due: BTreeSet<(tokio::time::Instant, usize)> = BTreeSet::new();
        loop {
            let next = due.first().copied();
            let at = next.map_or_else(tokio::time::Instant::now, |(at, _)| at);
            tokio::select! {
                failure = failures.recv() => {
                    let Some(failure) = failure else { return };
                    // From an earlier producer that is being dropped: its records were produced
                    // again already.
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

    /// Replaces the producer and sends all unconfirmed records again.
    async fn rebuild(&self, reason: &str, rebuilds: &mut Backoff) {
        self.metrics.kafka_trouble(KafkaTrouble::Fatal);
        tracing::error!(reason, "the kafka producer failed fatally; building a new one");
        let generation = self.generation.load(Ordering::Acquire) + 1;
        if self.confirmations.producer_lost(reason) {
            rebuilds.reset();
        }
        let producer = loop {
            // A producer that fails at once must not be rebuilt in a tight loop.
            tokio::time::sleep(rebuilds.pause()).await;
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

    /// Ends the producer. Messages that are not confirmed by now stay unacknowledged. Blocks for a
    /// second at most.
    pub fn close(&self) {
        let producer = self.live.write().unwrap_or_else(PoisonError::into_inner).producer.take();
        drop(producer);
    }
}

#[cfg(test)]
mod tests;
