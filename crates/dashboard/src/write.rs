//! What people write through the interface, as orders to a task that knows Kafka.
//!
//! The dashboard decides who may write what; it holds no connection to Kafka. The task does what
//! the command line does: it gives commands to the loader, and replays rows of quarantine.

use telemetry::{command::Command, quarantine::Id};
use tokio::sync::{mpsc, oneshot};
use warehouse::audit::Outcome;

/// Orders that wait for the task. Further ones are refused.
const WAITING_MAX: usize = 64;

/// Orders things from the task.
#[derive(Clone, Debug)]
pub struct Writer(mpsc::Sender<Order>);

/// What the task is to do.
#[derive(Debug)]
pub enum Order {
    /// Gives a command to the loader, and waits until ClickHouse holds what it means.
    Give { command: Box<Command>, answer: oneshot::Sender<Result<Outcome, NotWritten>> },
    /// Replays one row of quarantine, and waits for what the loader made of it.
    Replay { tenant: String, id: Id, by: String, answer: oneshot::Sender<Result<Replayed, NotWritten>> },
}

/// What became of a row that was replayed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Events that were stored.
    pub stored: u64,
    /// Events that were stored before.
    pub duplicates: u64,
    /// Events that stay in quarantine.
    pub refused: u64,
    /// Why the row stays in quarantine; empty = it has left it.
    pub stays: String,
}

/// Why it is not known that something was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotWritten {
    /// Nothing was written.
    Failed,
    /// Kafka has not confirmed the record, which may still arrive.
    Unconfirmed,
    /// The record is in Kafka, and ClickHouse does not hold what it means yet.
    Late,
    /// Too many orders wait, or the task has ended. Nothing was written.
    Busy,
}

/// A writer, and where its orders arrive. Without a receiver every order is refused.
pub fn orders() -> (Writer, mpsc::Receiver<Order>) {
    let (orders, received) = mpsc::channel(WAITING_MAX);
    (Writer(orders), received)
}

impl Writer {
    /// Gives a command.
    ///
    /// # Errors
    /// It is not known to be written.
    pub async fn give(&self, command: Command) -> Result<Outcome, NotWritten> {
        let (answer, answered) = oneshot::channel();
        self.order(Order::Give { command: Box::new(command), answer }, answered).await
    }

    /// Replays a row of a tenant's quarantine in the name of a person.
    ///
    /// # Errors
    /// It is not known to be replayed.
    pub async fn replay(&self, tenant: String, id: Id, by: String) -> Result<Replayed, NotWritten> {
        let (answer, answered) = oneshot::channel();
        self.order(Order::Replay { tenant, id, by, answer }, answered).await
    }

    async fn order<T>(
        &self,
        order: Order,
        answered: oneshot::Receiver<Result<T, NotWritten>>,
    ) -> Result<T, NotWritten> {
        self.0.try_send(order).map_err(|_| NotWritten::Busy)?;
        // A task that ends leaves the answer out, and may have begun.
        answered.await.unwrap_or(Err(NotWritten::Unconfirmed))
    }
}
