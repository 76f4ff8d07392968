//! The records that Kafka has not confirmed yet, and what happens when it confirms them.
//!
//! librdkafka's callbacks reach [`Confirmations`]; the producer itself is in [`crate::sink`].

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use service::{backoff, lock};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};

use crate::{
    health::{Health, KafkaState, Oldest},
    metrics::{KafkaTrouble, Metrics},
    receipts::PendingReceipt,
    record::Record,
    ring::Slot,
    unconfirmed::Unconfirmed,
};

/// Waits before a failed record is produced again, or a dead producer rebuilt.
pub(crate) const RETRY_FIRST: Duration = Duration::from_millis(100);
pub(crate) const RETRY_MOST: Duration = Duration::from_secs(10);
/// Most records kept to be filled again, ...
const SPARE_MAX: usize = 4096;
/// ... and the bytes that one may have: 16 MiB in all.
const SPARE_BYTES_MAX: usize = 4096;

/// The work that Kafka's confirmation of a record releases.
pub(crate) struct OnConfirm {
    /// The slot to settle in the ring of the message's connection; none if the message needs no
    /// acknowledgement.
    pub slot: Option<(mpsc::UnboundedSender<Slot>, Slot)>,
    /// The receipt to send.
    pub receipt: Option<PendingReceipt>,
    /// When the message was received.
    pub received: Instant,
    /// Its share of the bytes in flight, which is given back.
    pub permit: OwnedSemaphorePermit,
}

struct Waiting {
    record: Arc<Record>,
    on_confirm: OnConfirm,
}

/// Why a record, or a producer, failed.
pub(crate) struct Failure {
    pub generation: u64,
    /// The record; `None` when it is about the producer.
    pub number: Option<usize>,
    /// What librdkafka says; `None` for what has no code.
    pub code: Option<RDKafkaErrorCode>,
    pub reason: String,
}

/// The records that are not confirmed, and what happens when they are.
///
/// Invariant: only Kafka's confirmation removes a record. The slot is sent to its connection, and
/// the receipt to its queue, after that.
pub(crate) struct Confirmations {
    pending: Mutex<Unconfirmed<Waiting>>,
    /// Confirmed records whose buffers are filled again, so that a new record allocates nothing.
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

    pub fn record(&self, number: usize) -> Option<Arc<Record>> {
        lock(&self.pending).get(number).map(|waiting| Arc::clone(&waiting.record))
    }

    pub fn numbers(&self) -> Vec<usize> {
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

    /// Notes a failure of a record. Returns how long to wait before it is produced again, or `None`
    /// if it is confirmed by now.
    pub fn failed(&self, failure: &Failure, number: usize) -> Option<Duration> {
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
                // The connection is gone only at shutdown; the broker then delivers the message
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
        // The receiver is gone only at shutdown.
        let _ = self.failures.send(failure);
    }

    /// The producer can send nothing more.
    pub fn producer_died(&self, generation: u64, reason: &str) {
        let code = Some(RDKafkaErrorCode::Fatal);
        // The receiver is gone only at shutdown.
        let _ = self.failures.send(Failure { generation, number: None, code, reason: reason.to_owned() });
    }

    /// The client reports an error that concerns no single record: a broker unreachable, an
    /// authentication refused.
    pub fn client_error(&self, reason: &str) {
        self.metrics.kafka_trouble(KafkaTrouble::Client);
        *lock(&self.client_error) = Some(reason.to_owned());
        self.troubled(reason);
    }

    /// The last error of [`Confirmations::client_error`].
    pub fn last_client_error(&self) -> Option<String> {
        lock(&self.client_error).clone()
    }

    pub fn troubled(&self, reason: &str) {
        self.serving.store(false, Ordering::Relaxed);
        if self.health.kafka_troubled(reason) {
            tracing::warn!(reason, "kafka is in trouble; retrying");
        }
    }

    /// A record whose buffers may be filled again.
    pub fn spare(&self) -> Option<Arc<Record>> {
        lock(&self.spare).pop()
    }

    /// Waits until a record was confirmed or has failed, so that the producer's queue has room.
    pub async fn room(&self) {
        self.room.notified().await;
    }

    /// The topics are there: Kafka is taken to serve until an error says otherwise.
    pub fn verified(&self) {
        self.health.kafka(KafkaState::Serving);
        self.serving.store(true, Ordering::Relaxed);
    }

    /// The producer has failed for good. Returns whether it had confirmed anything.
    pub fn producer_lost(&self, reason: &str) -> bool {
        self.serving.store(false, Ordering::Relaxed);
        self.health.kafka(KafkaState::Fatal { reason: reason.to_owned() });
        self.served_since_rebuild.swap(false, Ordering::Relaxed)
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
