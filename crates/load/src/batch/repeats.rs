//! Events that are stored already and arrived again. A device sends an event until it has a
//! receipt, so most repeats are equal to the stored row; the owner compares them.

use telemetry::{interval::IntervalSet, topic::Topic, v1};
use warehouse::{
    columns::{Block, Provenance},
    loader::BootKey,
};

use super::{
    interning::{Interned, origin},
    runs::Source,
};
use crate::tables::Tables;

/// Collects events that are stored already and arrived again, as the rows that they would be.
#[derive(Default)]
pub(super) struct Repeating<'r> {
    tables: Tables,
    interned: Interned<'r>,
    records: Vec<Repeat>,
}

/// A record with events that were stored, or put into quarantine, before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repeat {
    pub boot: BootKey,
    /// Sequence numbers of these events.
    pub seqs: IntervalSet,
    /// Sequence numbers of events whose first content is in quarantine.
    pub quarantined: IntervalSet,
    /// Offset of the record.
    pub offset: u64,
    pub topic: String,
    /// When the bridge received it, us since 1970.
    pub received_at: i64,
    /// Key of the record.
    pub key: Option<Vec<u8>>,
    pub payload: Vec<u8>,
}

/// Events that arrived again, to be compared with the stored rows.
#[derive(Default)]
pub(crate) struct Repeats {
    /// The rows that they would be.
    pub blocks: Vec<Block>,
    /// Where they came from.
    pub records: Vec<Repeat>,
}

impl<'r> Repeating<'r> {
    /// Adds the events of a report that are stored, and those that are in quarantine.
    pub fn add(
        &mut self,
        source: &Source<'_, 'r>,
        topic: &Topic<'_>,
        context: &v1::Context,
        (seqs, quarantined): (IntervalSet, IntervalSet),
    ) {
        let Source { decoded, report, time, limits, .. } = source;
        let origin = origin(&mut self.tables, &mut self.interned, decoded, topic, report, context, time);
        let message = report.message();
        for seq in seqs.intervals().iter().flat_map(|known| known.first..=known.last) {
            let event = &message.events[(seq - message.first_seq) as usize];
            let (withdrawn, _) = limits.withdraw(event, decoded.received_at);
            self.tables.fact(&origin, seq, time.at(event), &withdrawn);
        }
        let (tenant, device) = (topic.tenant.to_owned(), topic.device.to_owned());
        self.records.push(Repeat {
            boot: BootKey { tenant, device, boot_id: report.boot_id() },
            seqs,
            quarantined,
            offset: decoded.record.offset,
            topic: decoded.topic.clone().into_owned(),
            received_at: decoded.received_at,
            key: decoded.record.key.clone(),
            payload: decoded.record.payload.clone(),
        });
    }

    /// The rows, without a reference to the records.
    pub fn close(self) -> ClosedRepeats {
        ClosedRepeats { tables: self.tables, records: self.records }
    }
}

/// Collected repeats without their records in memory.
pub(super) struct ClosedRepeats {
    tables: Tables,
    records: Vec<Repeat>,
}

impl ClosedRepeats {
    pub fn finish(self, provenance: Provenance) -> Repeats {
        Repeats { blocks: self.tables.finish(provenance), records: self.records }
    }
}
