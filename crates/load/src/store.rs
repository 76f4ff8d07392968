//! What an owner needs of ClickHouse.
//!
//! `contract` holds the checks that every store has to pass. They run against the fake of the
//! simulation and against the real engine.

use std::{collections::BTreeSet, future::Future, time::Duration};

use service::backoff::Backoff;
use telemetry::interval::IntervalSet;
use warehouse::{
    Error, Warehouse,
    columns::{Block, Committed, EventContent, EventKey, Kept, LedgerRow, LossCause, Provenance, contents},
    loader::{BootKey, Intent, Progress, Shard, TableCount},
};

/// The waits between attempts to reach the store, without jitter: a simulation replays them.
pub(crate) const fn backoff() -> Backoff {
    Backoff::exact(Duration::from_millis(50), Duration::from_secs(5))
}

/// A batch that is to be recorded as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub committed: Committed,
    /// Rows it wrote to all tables.
    pub rows: u64,
    /// Offsets in it that could not be read.
    pub lost: IntervalSet,
    /// Why not, if there are such offsets.
    pub why: LossCause,
    /// The ledgers it changed, as of its end.
    pub ledgers: Vec<LedgerRow>,
}

/// Durable state. An error leaves open whether a write took effect, now or later.
pub trait Store: Send + Sync + 'static {
    /// The position of a shard, and how it is known.
    fn progress(&self, shard: Shard) -> impl Future<Output = Result<Progress, Error>> + Send;
    /// All intents of one batch, by generation.
    fn intents(&self, shard: Shard, batch: u64) -> impl Future<Output = Result<Vec<Intent>, Error>> + Send;
    /// Writes an intent unless one of its batch and generation was ever accepted.
    fn put_intent(&self, intent: &Intent, now: i64) -> impl Future<Output = Result<(), Error>> + Send;
    /// Ledgers as of the start of a batch. A boot without a row has no ledger yet.
    fn ledgers(
        &self,
        shard: Shard,
        as_of: u64,
        keys: &[BootKey],
    ) -> impl Future<Output = Result<Vec<LedgerRow>, Error>> + Send;
    /// Writes a block under a generation unless one of its batch, table and generation was ever
    /// accepted.
    fn insert(&self, block: &Block, generation: u32) -> impl Future<Output = Result<(), Error>> + Send;
    /// Count and hash of a batch's rows in each table.
    fn table_counts(
        &self,
        tables: &[&str],
        batch: Provenance,
    ) -> impl Future<Output = Result<Vec<TableCount>, Error>> + Send;
    /// Deletes the rows of a batch below a generation from every table. Burns the tokens of the
    /// generations `fenced..below`, so that late writers cannot use them.
    fn erase(&self, batch: Provenance, fenced: u32, below: u32) -> impl Future<Output = Result<(), Error>> + Send;
    /// Records a batch and its ledgers, all or nothing, unless this attempt was ever accepted.
    fn commit(&self, commit: &Commit, attempt: u32) -> impl Future<Output = Result<(), Error>> + Send;
    /// The stored content of the events of a block, from the block's table.
    fn contents(&self, block: &Block) -> impl Future<Output = Result<Vec<EventContent>, Error>> + Send;
    /// Which of these events any table holds.
    fn stored_events(&self, keys: &[EventKey]) -> impl Future<Output = Result<Vec<EventKey>, Error>> + Send;
    /// What the quarantine keeps of these events, as this loader refused them.
    fn kept_in_quarantine(
        &self,
        keys: &[EventKey],
    ) -> impl Future<Output = Result<Vec<(EventKey, Kept)>, Error>> + Send;
    /// How long the engine has been up without a break, rounded down.
    fn uptime(&self) -> impl Future<Output = Result<Duration, Error>> + Send;
}

impl Store for Warehouse {
    async fn progress(&self, shard: Shard) -> Result<Progress, Error> {
        Self::progress(self, shard).await
    }

    async fn intents(&self, shard: Shard, batch: u64) -> Result<Vec<Intent>, Error> {
        Self::intents(self, shard, batch, Some(batch)).await
    }

    async fn put_intent(&self, intent: &Intent, now: i64) -> Result<(), Error> {
        Self::put_intent(self, intent, now).await
    }

    async fn ledgers(&self, shard: Shard, as_of: u64, keys: &[BootKey]) -> Result<Vec<LedgerRow>, Error> {
        Self::ledgers(self, shard, as_of, keys).await
    }

    async fn insert(&self, block: &Block, generation: u32) -> Result<(), Error> {
        self.insert_block(block, generation).await
    }

    async fn table_counts(&self, tables: &[&str], batch: Provenance) -> Result<Vec<TableCount>, Error> {
        Self::table_counts(self, tables, batch).await
    }

    async fn erase(&self, batch: Provenance, fenced: u32, below: u32) -> Result<(), Error> {
        Self::erase(self, batch, fenced, below).await
    }

    async fn commit(&self, commit: &Commit, attempt: u32) -> Result<(), Error> {
        let Commit { committed, rows, lost, why, ledgers } = commit;
        Self::commit(self, committed, attempt, *rows, (lost, *why), ledgers).await
    }

    async fn contents(&self, block: &Block) -> Result<Vec<EventContent>, Error> {
        let rows = block.record_batch(0)?;
        let keys: BTreeSet<EventKey> = contents(&rows).iter().map(EventContent::key).collect();
        Self::contents(self, block.table(), &rows.schema(), &Vec::from_iter(keys)).await
    }

    async fn stored_events(&self, keys: &[EventKey]) -> Result<Vec<EventKey>, Error> {
        Self::stored_events(self, keys).await
    }

    async fn kept_in_quarantine(&self, keys: &[EventKey]) -> Result<Vec<(EventKey, Kept)>, Error> {
        Self::kept_in_quarantine(self, keys).await
    }

    async fn uptime(&self) -> Result<Duration, Error> {
        self.uptime_s().await.map(Duration::from_secs)
    }
}
