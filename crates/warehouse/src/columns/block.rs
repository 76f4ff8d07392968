//! What one batch writes to one table.

use std::{fmt, sync::Arc};

use arrow_array::{
    Array, ArrayRef, RecordBatch,
    types::{Date32Type, Int32Type, UInt32Type, UInt64Type},
};
use arrow_data::ArrayData;
use arrow_schema::{FieldRef, Schema};
use xxhash_rust::xxh3::Xxh3;

use crate::{columns::column::repeat, error::Error};

/// Every table that the loader alone writes and that is partitioned by the ingest day: first the
/// tables of events, then the others.
pub const TABLES: [&str; 19] = [
    "injections",
    "sessions",
    "preparations",
    "mounts",
    "sterilization_cycles",
    "sterilization_samples",
    "sterilization_items",
    "cycle_indicators",
    "cycle_releases",
    "calibrations",
    "faults",
    "device_status",
    "quarantine",
    "quarantine_replays",
    "accuracy_minute",
    "accuracy_session",
    "item_uses",
    "implausible_times",
    "audit",
];

/// Tables that commands fill beside others. They are not partitioned. Rows of commands say which
/// batch wrote them; other rows have the incarnation 0.
pub const SHARED_TABLES: [&str; 4] = ["alert_history", "incidents", "devices", "policies"];

/// Every table that the rows of a batch can be in.
pub fn all_tables() -> impl Iterator<Item = &'static str> {
    TABLES.into_iter().chain(SHARED_TABLES)
}

const ALL: &[&str] = &TABLES;
/// The tables with at least one row for each event.
pub const EVENT_TABLES: &[&str] = ALL.split_at(12).0;

/// The batch that rows come from. All rows of a block have the same provenance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// Ingest day from the batch's intent, days since 1970. It decides the table partition.
    pub ingest_day: i32,
    /// Incarnation of the Kafka topic.
    pub incarnation: u32,
    pub partition: i32,
    /// First offset of the batch.
    pub batch: u64,
}

/// All rows of one batch for one table. They form one record batch, one insert and one part.
#[derive(Clone)]
pub struct Block {
    table: &'static str,
    columns: Vec<(FieldRef, ArrayRef)>,
    provenance: Provenance,
    rows: usize,
    hash: u64,
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("table", &self.table)
            .field("provenance", &self.provenance)
            .field("rows", &self.rows)
            .field("hash", &self.hash)
            .finish()
    }
}

impl Block {
    pub(crate) fn new(table: &'static str, columns: Vec<(FieldRef, ArrayRef)>, provenance: Provenance) -> Option<Self> {
        let rows = columns.first().map_or(0, |(_, array)| array.len());
        if rows == 0 {
            return None;
        }
        let mut hasher = Xxh3::new();
        for (field, array) in &columns {
            hasher.update(field.name().as_bytes());
            digest(&mut hasher, &array.to_data());
        }
        Some(Self { table, columns, provenance, rows, hash: hasher.digest() })
    }

    pub fn table(&self) -> &'static str {
        self.table
    }

    /// Number of rows, at least 1.
    pub fn rows(&self) -> u64 {
        self.rows as u64
    }

    /// Hash of the rows, which a read-back compares. It does not depend on the generation.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn provenance(&self) -> Provenance {
        self.provenance
    }

    /// The rows, as they are written under a generation.
    ///
    /// # Errors
    /// [`Error::Arrow`] if columns differ in length, which is a fault of this program.
    pub fn record_batch(&self, generation: u32) -> Result<RecordBatch, Error> {
        let Provenance { ingest_day, incarnation, partition, batch } = self.provenance;
        let mut columns = self.columns.clone();
        columns.push(repeat::<Date32Type>("ingest_day", ingest_day, self.rows));
        columns.push(repeat::<UInt32Type>("incarnation", incarnation, self.rows));
        columns.push(repeat::<Int32Type>("kafka_partition", partition, self.rows));
        columns.push(repeat::<UInt64Type>("batch", batch, self.rows));
        columns.push(repeat::<UInt32Type>("gen", generation, self.rows));
        columns.push(repeat::<UInt64Type>("batch_hash", self.hash, self.rows));
        record_batch(columns)
    }
}

pub(crate) fn record_batch(columns: Vec<(FieldRef, ArrayRef)>) -> Result<RecordBatch, Error> {
    let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

/// Hashes an array's content: lengths, validity, values, children. It assumes that every array
/// starts at the start of its buffers, as all arrays of this crate do.
fn digest(hasher: &mut Xxh3, data: &ArrayData) {
    hasher.update(&(data.len() as u64).to_le_bytes());
    if let Some(nulls) = data.nulls() {
        hasher.update(nulls.validity());
    }
    for buffer in data.buffers() {
        hasher.update(&(buffer.len() as u64).to_le_bytes());
        hasher.update(buffer.as_slice());
    }
    data.child_data().iter().for_each(|child| digest(hasher, child));
}
