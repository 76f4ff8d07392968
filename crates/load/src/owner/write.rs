//! The steps *insert* and *commit*: each block once into its table, then the commit row.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use telemetry::interval::IntervalSet;
use warehouse::{
    Advice,
    columns::{Block, Committed, LossCause},
    loader::{Intent, TableCount},
};

use super::{GENERATIONS, Owner, Stop, claim::Claim};
use crate::{
    batch::PreparedBatch,
    copies::Copies,
    error::Error,
    store::{Commit, Store, backoff},
};

impl<S: Store, C: Copies> Owner<S, C> {
    /// The step *insert*: writes every block into its table, once.
    pub(super) async fn write(&self, blocks: &[Block], claim: &Claim) -> Result<(), Stop> {
        if let Some(fenced) = claim.superseded {
            let (batch, below) = (claim.intent.provenance(), claim.intent.generation);
            self.persist("erase batch", || self.shared.store.erase(batch, fenced, below)).await?;
        }
        let generation = claim.intent.generation;
        let inserts: Vec<_> = blocks.iter().map(|block| self.write_block(block, claim)).collect();
        stream::iter(inserts).buffer_unordered(self.shared.limits.inserts_max).try_collect::<()>().await?;
        if claim.is_unrivalled && !self.engine_unbroken(claim.since).await? {
            tracing::info!(shard = ?self.shard, batch = self.position, "the engine restarted, reading the batch back");
            for block in blocks {
                self.insert_until_held(block, generation).await?;
            }
        }
        Ok(())
    }

    /// Writes one block. An OK to the first attempt of the only owner counts for now;
    /// [`Owner::write`] checks afterwards whether the engine has restarted.
    async fn write_block(&self, block: &Block, claim: &Claim) -> Result<(), Stop> {
        if claim.is_unrivalled && self.insert(block, claim.intent.generation).await?.is_ok() {
            return Ok(());
        }
        self.insert_until_held(block, claim.intent.generation).await
    }

    /// Makes one attempt, if the lease allows it. After an inner error the outcome is unknown.
    async fn insert(&self, block: &Block, generation: u32) -> Result<Result<(), warehouse::Error>, Stop> {
        self.lease.check()?;
        match self.shared.store.insert(block, generation).await {
            Err(error) if error.advice() == Advice::Fatal => Err(Stop::Fatal(error.into())),
            result => Ok(result),
        }
    }

    /// Reads a block back, and inserts it until the table holds it.
    async fn insert_until_held(&self, block: &Block, first: u32) -> Result<(), Stop> {
        let (mut waits, mut generation) = (backoff(), first);
        while !self.holds(block, first).await? {
            match self.insert(block, generation).await? {
                Ok(()) if self.holds(block, first).await? => break,
                Ok(()) => {
                    tracing::warn!(
                        shard = ?self.shard, batch = self.position, table = block.table(), generation,
                        "the engine accepted a token without its rows, using the next generation"
                    );
                    generation += 1;
                    if generation == first + GENERATIONS {
                        return Err(mismatch(block, &[], "the engine accepts tokens without rows").into());
                    }
                }
                Err(error) => {
                    tracing::warn!(shard = ?self.shard, table = block.table(), %error, "the insert failed, reading back");
                    self.lease.pause(waits.pause()).await?;
                }
            }
        }
        Ok(())
    }

    /// Whether the table holds the whole block, or nothing of it. `first` is the intent's
    /// generation.
    async fn holds(&self, block: &Block, first: u32) -> Result<bool, Stop> {
        let (tables, batch) = ([block.table()], block.provenance());
        let table_counts = self.persist("read batch back", || self.shared.store.table_counts(&tables, batch)).await?;
        match table_counts.as_slice() {
            [] => Ok(false),
            // Rows of a later intent: this owner was stopped meanwhile, and another owner writes
            // the batch under other rules.
            later if later.iter().any(|count| count.generation >= first + GENERATIONS) => Err(Stop::Overtaken),
            [count] if count.rows == block.rows() && count.hash == block.hash() => Ok(true),
            other => Err(mismatch(block, other, "").into()),
        }
    }

    /// Whether the engine has run since before `since`. If it has, its OK can be believed.
    async fn engine_unbroken(&self, since: Duration) -> Result<bool, Stop> {
        let uptime = self.persist("ask engine", || self.shared.store.uptime()).await?;
        // The uptime is rounded down and was read before this clock: the engine started then or
        // earlier.
        let started = self.shared.clock.since_host_boot().checked_sub(uptime);
        Ok(started.is_none_or(|started| started <= since))
    }

    /// The step *commit*: writes the commit row and the changed ledgers, in one insert.
    pub(super) async fn commit(&self, written: &PreparedBatch, lost: IntervalSet, claim: &Claim) -> Result<(), Stop> {
        let intent = &claim.intent;
        let commit = Commit {
            committed: Committed {
                provenance: intent.provenance(),
                batch_end: intent.batch_end,
                generation: intent.generation,
                committed_at: self.shared.clock.unix_us(),
            },
            rows: written.blocks.iter().map(Block::rows).sum(),
            lost,
            // Only the first batch of an owner can begin before its first record.
            why: if self.position < self.read_from { self.loss_cause } else { LossCause::Deleted },
            ledgers: self.ledgers.changed(),
        };
        let (mut waits, mut attempt) = (backoff(), 0);
        loop {
            self.lease.check()?;
            let result = self.shared.store.commit(&commit, attempt).await;
            if result.is_ok() && claim.is_unrivalled && attempt == 0 && self.engine_unbroken(claim.since).await? {
                return Ok(());
            }
            let progress = self.persist("read position", || self.shared.store.progress(self.shard)).await?;
            match (progress.position(), result) {
                (Some(position), _) if position == intent.batch_end => return Ok(()),
                (Some(position), _) if position > intent.batch_end => return Err(Stop::Overtaken),
                // Accepted and not there: the token is burned, or another owner has put a later
                // intent.
                (_, Ok(())) if superseded_by(&progress.intents, intent) => return Err(Stop::Overtaken),
                (_, Ok(())) => attempt += 1,
                (_, Err(error)) if error.advice() == Advice::Fatal => return Err(Stop::Fatal(error.into())),
                (_, Err(error)) => {
                    tracing::warn!(shard = ?self.shard, batch = self.position, %error, "the commit failed, reading the position back");
                    self.lease.pause(waits.pause()).await?;
                }
            }
        }
    }
}

fn superseded_by(intents: &[Intent], mine: &Intent) -> bool {
    intents.iter().any(|intent| intent.batch == mine.batch && intent.generation > mine.generation)
}

fn mismatch(block: &Block, found: &[TableCount], why: &str) -> Error {
    let batch = block.provenance();
    let mut text: Vec<String> = found
        .iter()
        .map(|count| format!("{} rows (generation {}, hash {:016x})", count.rows, count.generation, count.hash))
        .collect();
    if !why.is_empty() {
        text.insert(0, why.to_owned());
    }
    Error::Mismatch {
        table: block.table().to_owned(),
        batch: format!("{}/{}/{}", batch.incarnation, batch.partition, batch.batch),
        found: text.join(" and "),
        expected: format!("{} rows (hash {:016x})", block.rows(), block.hash()),
    }
}
