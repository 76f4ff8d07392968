//! Rebuilds the batches of one shard, one after the other, from the ledgers as of the first.

use async_recursion::async_recursion as boxed;
use telemetry::report::Contexts;
use warehouse::{
    columns::{Block, LedgerRow, Provenance},
    loader::Shard,
};

use crate::{
    batch::{Batch, Rules},
    decode::{Place, decode},
    inbox::Record,
    ledgers::Ledgers,
    owner::chunk,
    store::Store,
};

/// Makes batches again. Ledgers are read as of `as_of` only and carried forward in memory: states
/// in between may have been pruned, and are not what other rules would have led to. So memory holds
/// a ledger for each boot that the batches touch.
pub struct Remake<'s, S> {
    store: &'s S,
    shard: Shard,
    place: Place,
    as_of: u64,
    ledgers: Ledgers,
}

impl<'s, S: Store> Remake<'s, S> {
    /// The batches of `shard` from offset `as_of` on.
    pub fn new(store: &'s S, shard: Shard, place: Place, as_of: u64) -> Self {
        Self { store, shard, place, as_of, ledgers: Ledgers::unbounded() }
    }

    /// The blocks of the batch that holds exactly these records. Batches must come in order,
    /// without a hole.
    ///
    /// # Errors
    /// Ledgers cannot be read; the batch may then be given again.
    #[boxed]
    pub async fn batch(
        &mut self,
        records: &[Record],
        rules: &Rules,
        provenance: Provenance,
    ) -> Result<Vec<Block>, warehouse::Error> {
        // All of them first: a batch that was half counted could not be given again.
        let (mut missing, mut contexts) = (Vec::new(), Contexts::default());
        let mut rest = records;
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(chunk(rest));
            rest = after;
            for record in chunk {
                missing.extend(self.ledgers.open(decode(record, self.place, &mut contexts).boots()));
            }
        }
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty() {
            let rows = self.store.ledgers(self.shard, self.as_of, &missing).await?;
            self.ledgers.fill(missing, rows);
        }
        let mut batch = Batch::default();
        for record in records {
            batch.add(&decode(record, self.place, &mut contexts), &mut self.ledgers, rules);
        }
        self.ledgers.settle();
        Ok(batch.close().finish(provenance).blocks)
    }

    /// The ledgers of every boot that was touched, as of the end of the latest batch.
    pub fn ledgers(&self) -> Vec<LedgerRow> {
        self.ledgers.rows()
    }
}
