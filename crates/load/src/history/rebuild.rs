//! Rebuilds the batches of one shard, in order, from the ledgers as of the first.

use async_recursion::async_recursion as boxed;
use telemetry::report::Contexts;
use warehouse::{
    columns::{Block, LedgerRow, Provenance},
    loader::Shard,
};

use crate::{
    batch::{Batch, DecodeRules},
    decode::{Place, decode},
    inbox::Record,
    ledgers::Ledgers,
    owner::chunk,
    store::Store,
};

/// Rebuilds batches. Ledgers are read once, as of `as_of`, and carried forward in memory.
/// The states recorded later cannot be used: some are deleted, and they come from the rules of
/// their time. So memory holds a
/// ledger for each boot that the batches touch.
pub struct BatchRebuilder<'s, S> {
    store: &'s S,
    shard: Shard,
    place: Place,
    as_of: u64,
    ledgers: Ledgers,
}

impl<'s, S: Store> BatchRebuilder<'s, S> {
    /// The batches of `shard` from offset `as_of` on.
    pub fn new(store: &'s S, shard: Shard, place: Place, as_of: u64) -> Self {
        Self { store, shard, place, as_of, ledgers: Ledgers::unbounded() }
    }

    /// The blocks of the batch that holds exactly these records. The batches must be passed in
    /// order and without a hole.
    ///
    /// # Errors
    /// Ledgers cannot be read; the same batch may then be passed again.
    #[boxed]
    pub async fn batch(
        &mut self,
        records: &[Record],
        rules: &DecodeRules,
        provenance: Provenance,
    ) -> Result<Vec<Block>, warehouse::Error> {
        // Read all ledgers before counting: a batch that was counted in part could not be repeated.
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
        self.ledgers.committed();
        Ok(batch.close().finish(provenance).blocks)
    }

    /// The ledgers of every boot that a batch touched, as of the end of the latest batch.
    pub fn ledgers(&self) -> Vec<LedgerRow> {
        self.ledgers.rows()
    }
}
