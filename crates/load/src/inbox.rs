//! Records on their way from the polling thread to the owner of their partition, bounded in bytes.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, mpsc};

/// A Kafka record, detached from the consumer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub offset: u64,
    /// Key, if any.
    pub key: Option<Vec<u8>>,
    /// Value; empty where there is none.
    pub payload: Vec<u8>,
    /// Headers the loader knows, by the constants of [`telemetry::kafka`].
    pub headers: Headers,
    /// Kafka's time of the record, us since 1970; 0 where it has none.
    pub timestamp: i64,
    /// When it was polled, on the boot clock.
    pub polled: Duration,
}

/// Headers of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    pub topic: Option<Vec<u8>>,
    /// Time of receipt, us since 1970; none where that is absent or not decimal.
    pub received_at: Option<i64>,
    /// Headers that few records have.
    pub others: Option<Box<OtherHeaders>>,
}

/// Headers of quarantine and replays, as received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtherHeaders {
    pub reason: Option<Vec<u8>>,
    /// Quarantine: who refused it.
    pub source: Option<Vec<u8>>,
    /// Quarantine: what exactly was wrong.
    pub detail: Option<Vec<u8>>,
    /// Replay out of quarantine: which row.
    pub replay: Option<Vec<u8>>,
    /// Replay: who replays it.
    pub replayed_by: Option<Vec<u8>>,
    /// Replay: when that was asked for, us since 1970, decimal.
    pub replayed_at: Option<Vec<u8>>,
}

impl Headers {
    /// Headers that few records have.
    pub fn others(&self) -> &OtherHeaders {
        static NONE: OtherHeaders = OtherHeaders {
            reason: None,
            source: None,
            detail: None,
            replay: None,
            replayed_by: None,
            replayed_at: None,
        };
        self.others.as_deref().unwrap_or(&NONE)
    }

    /// The same, to be set.
    pub(crate) fn others_mut(&mut self) -> &mut OtherHeaders {
        self.others.get_or_insert_default()
    }
}

/// Reads a decimal number of a header.
pub(crate) fn decimal(bytes: &[u8]) -> Option<i64> {
    let digits = Some(bytes).filter(|bytes| (1..=18).contains(&bytes.len()))?;
    digits.iter().try_fold(0, |value, byte| byte.is_ascii_digit().then(|| 10 * value + i64::from(byte - b'0')))
}

/// The most records that an owner receives at once.
const RECEIVED_AT_ONCE: usize = 64;

/// Memory that a record takes beside its bytes.
const RECORD_OVERHEAD_BYTES: usize = 256;

impl Record {
    /// Bytes that it counts for in the limits.
    pub fn bytes(&self) -> usize {
        let key = self.key.as_ref().map_or(0, Vec::len);
        let topic = self.headers.topic.as_ref().map_or(0, Vec::len);
        RECORD_OVERHEAD_BYTES + self.payload.len() + key + topic
    }
}

/// Bytes of records in memory, over all partitions: handed over, or taken into batches that are not
/// written yet.
#[derive(Clone, Debug, Default)]
pub struct Budget(Arc<Spent>);

#[derive(Debug, Default)]
struct Spent {
    bytes: AtomicUsize,
    full: Notify,
}

impl Budget {
    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Tells the owners that wait at this moment: no more records come before some are written.
    pub fn exhaust(&self) {
        self.0.full.notify_waiters();
    }

    /// Waits for [`Budget::exhaust`].
    pub async fn exhausted(&self) {
        self.0.full.notified().await;
    }

    fn take(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: usize) {
        self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The state that both ends share.
#[derive(Debug, Default)]
struct Shared {
    /// Handed over and not yet taken into a batch.
    bytes: AtomicUsize,
    /// Whether the owner cannot continue without the next record.
    starving: AtomicBool,
    budget: Budget,
}

/// The polling thread's end. It never blocks: the thread pauses the partition when
/// [`Outlet::bytes`] passes the limit.
#[derive(Clone, Debug)]
pub struct Outlet {
    records: mpsc::UnboundedSender<Record>,
    shared: Arc<Shared>,
}

impl Outlet {
    /// Hands a record over. Returns false if its owner has ended.
    pub fn push(&self, record: Record) -> bool {
        let bytes = record.bytes();
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.shared.budget.take(bytes);
        let sent = self.records.send(record).is_ok();
        if !sent {
            self.shared.budget.give_back(bytes);
        }
        sent
    }

    /// Bytes handed over and not yet taken into a batch.
    pub fn bytes(&self) -> usize {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Whether the owner cannot complete its batch without the next record. It then gets one even
    /// if the budget is used up, or all owners would wait for each other.
    pub fn starving(&self) -> bool {
        self.shared.starving.load(Ordering::Relaxed)
    }
}

/// The owner's end.
#[derive(Debug)]
pub struct Inbox {
    records: mpsc::UnboundedReceiver<Record>,
    shared: Arc<Shared>,
    /// Received and not yet read, or read and put back.
    unread: VecDeque<Record>,
    /// Buffer for receiving, empty between calls.
    received: Vec<Record>,
    /// Bytes taken into the current batch.
    taken: usize,
}

/// The two ends for one partition.
pub fn inbox() -> (Outlet, Inbox) {
    inbox_within(&Budget::default())
}

/// The two ends for one partition, whose records count against a budget.
pub fn inbox_within(budget: &Budget) -> (Outlet, Inbox) {
    let (sender, records) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared { budget: budget.clone(), ..Shared::default() });
    let outlet = Outlet { records: sender, shared: shared.clone() };
    (outlet, Inbox { records, shared, unread: VecDeque::new(), received: Vec::new(), taken: 0 })
}

impl Inbox {
    /// The next record; `None` if the polling thread has dropped its end. Cancel-safe.
    pub async fn next(&mut self) -> Option<Record> {
        if self.unread.is_empty() {
            self.records.recv_many(&mut self.received, RECEIVED_AT_ONCE).await;
            self.unread.extend(self.received.drain(..));
        }
        self.ready()
    }

    /// The next record, if it was received together with the previous one.
    pub fn ready(&mut self) -> Option<Record> {
        let record = self.unread.pop_front()?;
        self.shared.bytes.fetch_sub(record.bytes(), Ordering::Relaxed);
        self.taken += record.bytes();
        Some(record)
    }

    /// The budget that its records count against.
    pub fn budget(&self) -> Budget {
        self.shared.budget.clone()
    }

    /// Puts back records of a later batch, in order.
    pub fn put_back(&mut self, records: Vec<Record>) {
        for record in records.into_iter().rev() {
            self.shared.bytes.fetch_add(record.bytes(), Ordering::Relaxed);
            self.taken = self.taken.saturating_sub(record.bytes());
            self.unread.push_front(record);
        }
    }

    /// The batch is written: its records no longer count.
    pub fn release(&mut self) {
        self.shared.budget.give_back(std::mem::take(&mut self.taken));
    }

    /// Sets whether the owner cannot continue without the next record.
    pub fn starve(&self, starving: bool) {
        self.shared.starving.store(starving, Ordering::Relaxed);
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        // A record that is sent from here on is refused, and its sender corrects the budget.
        self.records.close();
        let mut left = self.taken + self.unread.iter().map(Record::bytes).sum::<usize>();
        while let Ok(record) = self.records.try_recv() {
            left += record.bytes();
        }
        self.shared.budget.give_back(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: u64) -> Record {
        Record { offset, payload: vec![0; 744], ..Record::default() }
    }

    /// Every record counts from the moment it is handed over until its batch is written or its
    /// owner has gone.
    #[tokio::test]
    async fn the_budget_counts_what_is_in_memory() {
        let budget = Budget::default();
        let (outlet, mut inbox) = inbox_within(&budget);
        let (other, other_inbox) = inbox_within(&budget);
        for offset in 0..4 {
            assert!(outlet.push(record(offset)));
        }
        assert!(other.push(record(0)));
        assert_eq!((outlet.bytes(), budget.used()), (4_000, 5_000));
        assert!(inbox.ready().is_none(), "nothing has been received");
        let batch = [inbox.next().await.unwrap(), inbox.ready().unwrap(), inbox.next().await.unwrap()];
        assert_eq!((outlet.bytes(), budget.used()), (1_000, 5_000));
        inbox.put_back(batch[2..].to_vec());
        assert_eq!((outlet.bytes(), budget.used()), (2_000, 5_000));
        inbox.release();
        assert_eq!((outlet.bytes(), budget.used()), (2_000, 3_000));
        assert_eq!(inbox.next().await.unwrap().offset, 2);
        drop(inbox);
        assert_eq!(budget.used(), 1_000);
        assert!(!outlet.push(record(9)));
        drop(other_inbox);
        assert_eq!(budget.used(), 0);
    }
}
