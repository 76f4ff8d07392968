//! `loader_commits`: a batch's commit row and the ledger states that the batch changed, in one
//! record batch.

use arrow_array::{
    RecordBatch,
    types::{Int32Type, UInt32Type, UInt64Type},
};
use telemetry::{interval::IntervalSet, ledger::Ledger};

use crate::{
    columns::{List, Number, Provenance, Text, Time, block::record_batch, column::finish},
    error::Error,
};

/// The boot number under which a device's ledger keeps the numbers of replayed messages that have
/// no sequence number, see [`telemetry::quarantine::number`]. These rows have a kind of their own,
/// so no view takes them for a boot.
pub const REPLAYED_BOOT: u64 = 0;

/// The ledger of one boot at the end of a batch; or, without a device, that of a command, see
/// [`telemetry::command::Command::key_number`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerRow {
    pub tenant: String,
    /// Site from which the boot's latest report came.
    pub site: String,
    pub device: String,
    pub boot_id: u64,
    pub ledger: Ledger,
    /// Reason of the latest declaration of loss.
    pub lost_reason: String,
    /// When the latest report of the boot was received, us since 1970.
    pub last_arrival: i64,
}

/// The rows of `loader_commits` that one batch writes.
#[derive(Default)]
pub struct CommitRows {
    kind: Text,
    incarnation: Number<UInt32Type>,
    kafka_partition: Number<Int32Type>,
    batch: Number<UInt64Type>,
    batch_end: Number<UInt64Type>,
    generation: Number<UInt32Type>,
    rows: Number<UInt64Type>,
    committed_at: Time,
    tenant: Text,
    site: Text,
    device: Text,
    boot_id: Number<UInt64Type>,
    intervals: [List<UInt64Type>; 6],
    lost_reason: Text,
    declared_last: Number<UInt64Type>,
    last_arrival: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    pub provenance: Provenance,
    /// End of the batch, exclusive.
    pub batch_end: u64,
    /// Generation of the intent under which the batch was written.
    pub generation: u32,
    /// Time of the commit by the loader's clock, us since 1970.
    pub committed_at: i64,
}

/// Why records of Kafka were not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossCause {
    /// Kafka no longer had them.
    Deleted,
    /// Kafka still has them, but they cannot be read.
    Unreadable,
}

impl CommitRows {
    /// All rows of a commit. `rows` is the number of rows that the batch wrote to all tables.
    /// `lost` holds the offsets in the batch that could not be read, and the reason.
    ///
    /// # Errors
    /// [`Error::Arrow`], which is a fault of this program.
    pub fn of(
        committed: &Committed,
        rows: u64,
        (lost, why): (&IntervalSet, LossCause),
        ledgers: &[LedgerRow],
    ) -> Result<RecordBatch, Error> {
        let mut commit = Self::default();
        let offsets = Ledger { declared_lost: lost.clone(), ..Ledger::default() };
        let reason = match why {
            _ if lost.intervals().is_empty() => "",
            LossCause::Deleted => "kafka",
            LossCause::Unreadable => "unreadable",
        };
        let row = LedgerRow { ledger: offsets, lost_reason: reason.to_owned(), ..LedgerRow::default() };
        commit.push("commit", committed, rows, &row);
        for ledger in ledgers {
            let kind = match ledger {
                // No device has an empty name.
                LedgerRow { device, .. } if device.is_empty() => "command",
                // No boot of a device has the number 0.
                LedgerRow { boot_id: REPLAYED_BOOT, .. } => "replay",
                _ => "ledger",
            };
            commit.push(kind, committed, 0, ledger);
        }
        record_batch(commit.columns())
    }

    fn push(&mut self, kind: &str, committed: &Committed, rows: u64, row: &LedgerRow) {
        let Committed { provenance, batch_end, generation, committed_at } = *committed;
        self.kind.push(kind);
        self.incarnation.push(provenance.incarnation);
        self.kafka_partition.push(provenance.partition);
        self.batch.push(provenance.batch);
        self.batch_end.push(batch_end);
        self.generation.push(generation);
        self.rows.push(rows);
        self.committed_at.push(committed_at);
        self.tenant.push(&row.tenant);
        self.site.push(&row.site);
        self.device.push(&row.device);
        self.boot_id.push(row.boot_id);
        let sets = [&row.ledger.stored, &row.ledger.quarantined, &row.ledger.declared_lost];
        for (columns, set) in self.intervals.chunks_exact_mut(2).zip(sets) {
            columns[0].push(set.intervals().iter().map(|interval| interval.first));
            columns[1].push(set.intervals().iter().map(|interval| interval.last));
        }
        self.lost_reason.push(&row.lost_reason);
        self.declared_last.push(row.ledger.declared_last);
        self.last_arrival.push(row.last_arrival);
    }

    fn columns(self) -> Vec<(arrow_schema::FieldRef, arrow_array::ArrayRef)> {
        let mut columns = vec![
            finish("kind", self.kind),
            finish("incarnation", self.incarnation),
            finish("kafka_partition", self.kafka_partition),
            finish("batch", self.batch),
            finish("batch_end", self.batch_end),
            finish("gen", self.generation),
            finish("rows", self.rows),
            finish("committed_at", self.committed_at),
            finish("tenant", self.tenant),
            finish("site", self.site),
            finish("device", self.device),
            finish("boot_id", self.boot_id),
            finish("lost_reason", self.lost_reason),
            finish("declared_last", self.declared_last),
            finish("last_arrival", self.last_arrival),
        ];
        let names = ["stored_first", "stored_last", "quarantined_first", "quarantined_last", "lost_first", "lost_last"];
        columns.extend(names.into_iter().zip(self.intervals).map(|(name, column)| finish(name, column)));
        columns
    }
}
