//! Records on their way from the polling thread to the owner of their partition, bounded in bytes.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::mpsc;

/// A Kafka record, detached from the consumer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Offset.
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

/// Headers of a record, as received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// MQTT topic.
    pub topic: Option<Vec<u8>>,
    /// Time of receipt, us since 1970, decimal.
    pub received_at: Option<Vec<u8>>,
    /// Quarantine: reason.
    pub reason: Option<Vec<u8>>,
    /// Quarantine: who refused it.
    pub source: Option<Vec<u8>>,
    /// Replay out of quarantine: which row.
    pub replay: Option<Vec<u8>>,
    /// Replay: who replays it.
    pub replayed_by: Option<Vec<u8>>,
    /// Replay: when that was asked for, us since 1970, decimal.
    pub replayed_at: Option<Vec<u8>>,
}

/// What a record costs beside its bytes.
const RECORD_OVERHEAD_BYTES: usize = 256;

impl Record {
    /// What it counts against the limits.
    pub fn bytes(&self) -> usize {
        let key = self.key.as_ref().map_or(0, Vec::len);
        let topic = self.headers.topic.as_ref().map_or(0, Vec::len);
        RECORD_OVERHEAD_BYTES + self.payload.len() + key + topic
    }
}

/// The polling thread's end. It never blocks: the thread pauses the partition when [`Outlet::bytes`] passes the limit.
#[derive(Clone, Debug)]
pub struct Outlet {
    records: mpsc::UnboundedSender<Record>,
    bytes: Arc<AtomicUsize>,
}

impl Outlet {
    /// Hands a record over; false when its owner has ended.
    pub fn push(&self, record: Record) -> bool {
        self.bytes.fetch_add(record.bytes(), Ordering::Relaxed);
        self.records.send(record).is_ok()
    }

    /// Bytes handed over and not yet taken into a batch.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// The owner's end.
#[derive(Debug)]
pub struct Inbox {
    records: mpsc::UnboundedReceiver<Record>,
    bytes: Arc<AtomicUsize>,
    /// Read and put back.
    unread: VecDeque<Record>,
}

/// The two ends for one partition.
pub fn inbox() -> (Outlet, Inbox) {
    let (sender, records) = mpsc::unbounded_channel();
    let bytes = Arc::new(AtomicUsize::new(0));
    (Outlet { records: sender, bytes: bytes.clone() }, Inbox { records, bytes, unread: VecDeque::new() })
}

impl Inbox {
    /// The next record; none when the polling thread has let go. Cancel-safe.
    pub async fn next(&mut self) -> Option<Record> {
        let record = match self.unread.pop_front() {
            Some(record) => record,
            None => self.records.recv().await?,
        };
        self.bytes.fetch_sub(record.bytes(), Ordering::Relaxed);
        Some(record)
    }

    /// Puts records back that were read too far, in order.
    pub fn put_back(&mut self, records: Vec<Record>) {
        for record in records.into_iter().rev() {
            self.bytes.fetch_add(record.bytes(), Ordering::Relaxed);
            self.unread.push_front(record);
        }
    }
}
