//! Single steps of the loader, for benchmarks.

use telemetry::{report::Contexts, v1};
use warehouse::columns::{Block, Commons, Provenance};

use crate::{
    aggregate::Aggregates,
    batch::{Batch, DecodeRules},
    decode::{Place, decode},
    inbox::Record,
    ledgers::Ledgers,
};

/// The blocks of a batch whose boots have no ledgers yet.
pub fn batch(records: &[Record], place: Place, rules: &DecodeRules, provenance: Provenance) -> Vec<Block> {
    let (mut ledgers, mut batch, mut contexts) = (Ledgers::unbounded(), Batch::default(), Contexts::default());
    for record in records {
        let decoded = decode(record, place, &mut contexts);
        let missing = ledgers.open(decoded.boots());
        ledgers.fill(missing, Vec::new());
        batch.add(&decoded, &mut ledgers, rules);
    }
    batch.close().finish(provenance).blocks
}

/// One injection for the sums: the number of its report's common part, its time (us since 1970),
/// the message.
pub type Summand<'a> = (u32, i64, &'a v1::Injection);

/// The blocks of the aggregate tables for injections.
pub fn aggregates<'a>(
    injections: impl IntoIterator<Item = Summand<'a>>,
    commons: &Commons,
    provenance: Provenance,
) -> Vec<Block> {
    let mut aggregates = Aggregates::default();
    for (common, at, injection) in injections {
        aggregates.injection(commons, common, at, injection);
    }
    aggregates.finish(provenance, commons).into_iter().flatten().collect()
}
