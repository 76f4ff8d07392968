//! The path of one message through the bridge without sockets, for measurements: the work of a
//! connection, of the sink and of Kafka's confirmation. There is no Kafka; the caller confirms.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use super::*;
use crate::{Error, confirmations::Confirmations, receipts::PendingReceipt};

/// A bridge of one connection with receipts.
pub struct Path {
    connection: Connection,
    confirmations: Arc<Confirmations>,
    receipts: mpsc::UnboundedReceiver<PendingReceipt>,
    /// Number of the oldest record that is not confirmed, and of the next.
    open: std::ops::Range<usize>,
}

impl Path {
    /// Sets it up.
    ///
    /// # Errors
    /// [`Error::Producer`].
    pub fn new() -> Result<Self, Error> {
        let mut options = Options::default();
        "127.0.0.1:1".clone_into(&mut options.kafka.brokers);
        let metrics = Arc::new(Metrics::new());
        let health = Arc::new(Health::new(options.limits, 1, true));
        let (confirmations, _) = Confirmations::new(Arc::clone(&metrics), Arc::clone(&health));
        let sink = Sink::new(&options, Arc::clone(&confirmations), Arc::clone(&metrics), Arc::clone(&health))?;
        let (queue, receipts) = ReceiptQueue::new(options.limits.receipts_queued, Arc::clone(&metrics));
        let shared = Shared {
            budget: Arc::new(Semaphore::new(options.limits.in_flight_bytes)),
            options: Arc::new(options),
            sink: Arc::new(sink),
            receipts: Some(queue),
            health,
            metrics,
            shutdown: CancellationToken::new(),
            close: CancellationToken::new(),
        };
        Ok(Self { connection: Connection::new(0, Arc::new(shared)), confirmations, receipts, open: 0..0 })
    }

    /// Takes a message up to the producer: decides about it, keeps its record, composes its
    /// headers.
    pub fn take(&mut self, publish: &Publish) {
        if let Some(Some((record, on_confirm))) = at_once(self.connection.take(publish)) {
            let headers = record.headers();
            self.open.end = self.confirmations.insert(record, on_confirm) + 1;
            drop(headers);
        }
    }

    /// As [`Path::take`], and gives the record to the producer, which keeps it.
    pub fn ingest(&mut self, publish: &Publish) {
        if at_once(self.connection.ingest(publish)).is_some() {
            self.open.end += 1;
        }
    }

    /// Kafka confirms everything: how many messages may be acknowledged now, and how many receipts
    /// were due.
    pub fn confirm(&mut self) -> (usize, usize) {
        for number in self.open.clone() {
            self.confirmations.confirm(number);
        }
        self.open.start = self.open.end;
        let Connection { ring, confirmed, .. } = &mut self.connection;
        while let Ok(slot) = confirmed.1.try_recv() {
            ring.settle(slot);
        }
        let acknowledged = ring.head().count();
        (acknowledged, std::iter::from_fn(|| self.receipts.try_recv().ok()).count())
    }
}

/// The result of what need not wait.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}
