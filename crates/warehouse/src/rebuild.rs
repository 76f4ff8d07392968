//! Rebuilds a closed ingest day beside the live tables: the day's batches, shadow tables, the
//! comparison, the swap.
//!
//! A shadow table is called `rebuild_YYYYMMDD_TABLE` and has the same definition as its table, so
//! that its partition can replace the day's live partition. An interrupted run can continue: it
//! finds the rows it has already written by batch, count and hash.

use async_recursion::async_recursion as boxed;
use std::collections::HashMap;

use arrow_array::{
    Array, ArrayRef, RecordBatch, builder::StringDictionaryBuilder, cast::AsArray as _, types::Int32Type,
};
use arrow_schema::{ArrowError, DataType};
use arrow_select::concat::concat;
use serde::Deserialize;
use telemetry::interval::IntervalSet;

use crate::{
    client::Warehouse,
    columns::{Block, TABLES},
    compare::{Difference, Pair, SPILL, concatenated},
    error::Error,
    loader::{CLOSING, Shard},
    rollup::Day,
};

/// A batch, as the loader wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedBatch {
    /// Offset of its first record.
    pub batch: u64,
    pub batch_end: u64,
    /// Generation of the batch's latest intent.
    pub generation: u32,
    /// Version of the decoder that wrote it.
    pub decoder_version: u32,
    /// Hash of the decode rules (plausibility, device time) that applied when the batch was
    /// written.
    pub rules_hash: u64,
    /// Ingest day, days since 1970.
    pub ingest_day: i32,
}

/// The batches that one shard wrote on one ingest day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DayShard {
    pub shard: Shard,
    /// First offset of the first batch.
    pub from: u64,
    /// End of the last batch, exclusive. Batches of a neighbouring day may lie between the first
    /// and the last one.
    pub to: u64,
    /// Number of the day's batches.
    pub batches: u64,
}

/// One table of the day, live against rebuilt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    pub table: &'static str,
    /// Rows in the live table.
    pub live: u64,
    /// Rows in the rebuilt table.
    pub rebuilt: u64,
    /// Number of batches whose rows differ.
    pub batches: u64,
    /// Differing rows of the first of these batches; left is live, right is rebuilt.
    pub differences: Vec<Difference>,
}

/// For each table: how many differing batches are examined, and how many differing rows are listed.
const LISTED_MAX: usize = 200;

#[derive(Deserialize)]
struct DayShardRow {
    incarnation: u32,
    kafka_partition: i32,
    from: u64,
    to: u64,
    batches: u64,
}

#[derive(Deserialize)]
struct WrittenRow {
    batch: u64,
    batch_end: u64,
    generation: u32,
    decoder_version: u32,
    rules_hash: u64,
    ingest_day: i32,
}

#[derive(Deserialize)]
struct TallyRow {
    batch: u64,
    hash: u64,
    rows: u64,
}

#[derive(Deserialize)]
struct BatchRow {
    incarnation: u32,
    kafka_partition: i32,
    batch: u64,
}

impl Warehouse {
    /// The shards with batches of an ingest day.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn day_shards(&self, day: Day) -> Result<Vec<DayShard>, Error> {
        let sql = format!(
            "SELECT incarnation, kafka_partition, min(batch) AS from, max(batch_end) AS to, uniqExact(batch) AS batches \
             FROM loader_intents WHERE ingest_day = toDate({day}) AND loader_intents.decoder_version != {CLOSING} GROUP BY incarnation, kafka_partition \
             ORDER BY incarnation, kafka_partition"
        );
        let shard = |row: DayShardRow| DayShard {
            shard: Shard { incarnation: row.incarnation, partition: row.kafka_partition },
            from: row.from,
            to: row.to,
            batches: row.batches,
        };
        Ok(self.rows::<DayShardRow>(&sql).await?.into_iter().map(shard).collect())
    }

    /// All batches of a shard that start in `[from, to)`, of every ingest day, in order.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn batches(&self, shard: Shard, from: u64, to: u64) -> Result<Vec<LoadedBatch>, Error> {
        let Shard { incarnation, partition } = shard;
        let sql = format!(
            "SELECT batch, argMax(batch_end, gen) AS batch_end, max(gen) AS generation, \
                argMax(decoder_version, gen) AS decoder_version, argMax(plausibility_hash, gen) AS rules_hash, \
                toInt32(argMax(ingest_day, gen)) AS ingest_day \
             FROM loader_intents WHERE incarnation = {incarnation} AND kafka_partition = {partition} \
             AND batch >= {from} AND batch < {to} AND loader_intents.decoder_version != {CLOSING} GROUP BY batch ORDER BY batch"
        );
        let written = |row: WrittenRow| LoadedBatch {
            batch: row.batch,
            batch_end: row.batch_end,
            generation: row.generation,
            decoder_version: row.decoder_version,
            rules_hash: row.rules_hash,
            ingest_day: row.ingest_day,
        };
        Ok(self.rows::<WrittenRow>(&sql).await?.into_iter().map(written).collect())
    }

    /// Offsets in `[from, to)` that Kafka no longer held when the loader read this range.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn lost_offsets(&self, shard: Shard, from: u64, to: u64) -> Result<IntervalSet, Error> {
        let Shard { incarnation, partition } = shard;
        let sql = format!(
            "SELECT first, last FROM loader_commits ARRAY JOIN lost_first AS first, lost_last AS last WHERE kind = 'commit' \
             AND incarnation = {incarnation} AND kafka_partition = {partition} AND batch >= {from} AND batch < {to}"
        );
        let lost: Vec<(u64, u64)> = self.rows(&sql).await?;
        Ok(IntervalSet::from_ranges(lost))
    }
}

/// The shadow tables of a day.
pub struct Shadow<'w> {
    warehouse: &'w Warehouse,
    day: Day,
    id: String,
}

impl<'w> Shadow<'w> {
    /// Names the shadow tables of a day. `id` is the id of the day's partitions, from
    /// [`crate::rollup::require_closed`].
    pub fn new(warehouse: &'w Warehouse, day: Day, id: &str) -> Self {
        Self { warehouse, day, id: id.to_owned() }
    }

    fn name(&self, table: &str) -> String {
        format!("rebuild_{}_{table}", self.id)
    }

    /// Creates the shadow tables that do not exist yet.
    ///
    /// # Errors
    /// As [`Warehouse::execute`].
    #[boxed]
    pub async fn create(&self) -> Result<(), Error> {
        for table in TABLES {
            self.warehouse.command(&format!("CREATE TABLE IF NOT EXISTS {} AS {table}", self.name(table))).await?;
        }
        Ok(())
    }

    /// Drops the shadow tables.
    ///
    /// # Errors
    /// As [`Warehouse::execute`].
    #[boxed]
    pub async fn discard(&self) -> Result<(), Error> {
        for table in TABLES {
            self.warehouse.command(&format!("DROP TABLE IF EXISTS {} SYNC", self.name(table))).await?;
        }
        Ok(())
    }

    /// What the shadow tables hold of a shard: hash and number of rows, by table and batch. `None`
    /// if rows of one batch carry two different hashes.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn standing(&self, shard: Shard) -> Result<Option<HashMap<(&'static str, u64), (u64, u64)>>, Error> {
        let Shard { incarnation, partition } = shard;
        let mut standing = HashMap::new();
        for table in TABLES {
            let sql = format!(
                "SELECT batch, batch_hash AS hash, count() AS rows FROM {} \
                 WHERE incarnation = {incarnation} AND kafka_partition = {partition} GROUP BY batch, batch_hash",
                self.name(table)
            );
            for TallyRow { batch, hash, rows } in self.warehouse.rows(&sql).await? {
                if standing.insert((table, batch), (hash, rows)).is_some() {
                    return Ok(None);
                }
            }
        }
        Ok(Some(standing))
    }

    /// Writes blocks of one table, each under its generation, in one insert. Either all of them are
    /// written or none.
    ///
    /// # Errors
    /// As [`Warehouse::insert`].
    #[boxed]
    pub async fn write(&self, table: &str, blocks: &[(Block, u32)]) -> Result<(), Error> {
        let batches: Result<Vec<_>, Error> =
            blocks.iter().map(|(block, generation)| block.record_batch(*generation)).collect();
        let batches = batches?;
        let Some((block, _)) = blocks.first() else { return Ok(()) };
        let whole = join(&batches)?;
        // The rebuild reads back what the tables hold before it writes. A token therefore only has
        // to be unique.
        let unique: String = self.warehouse.row("SELECT toString(generateUUIDv4())").await?;
        let token = format!("rebuild/{table}/{}/{unique}", block.provenance().batch);
        self.warehouse.insert(&self.name(table), &whole, &token).await
    }

    /// Whether a table holds exactly `rows` rows and the sum of their hashes (modulo 2^64) is
    /// `hashes`.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn holds(&self, table: &str, rows: u64, hashes: u64) -> Result<bool, Error> {
        let sql = format!("SELECT count(), sum(batch_hash) FROM {}", self.name(table));
        let found: (u64, u64) = self.warehouse.row(&sql).await?;
        Ok(found == (rows, hashes))
    }

    /// Copies what was noted in live rows after they were written: that a quarantined message has
    /// been replayed.
    ///
    /// # Errors
    /// As [`Warehouse::execute`].
    #[boxed]
    pub async fn carry_notes(&self) -> Result<(), Error> {
        let (shadow, day) = (self.name("quarantine"), self.day);
        let key = "incarnation, kafka_partition, kafka_offset, boot_id, seq";
        let sql = format!(
            "ALTER TABLE {shadow} UPDATE replayed = 1 WHERE ({key}) IN \
             (SELECT {key} FROM quarantine WHERE ingest_day = toDate({day}) AND replayed) SETTINGS mutations_sync = 2"
        );
        self.warehouse.command(&sql).await
    }

    /// Compares every table with its live table, row by row.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn compare(&self) -> Result<Vec<Comparison>, Error> {
        let mut comparisons = Vec::new();
        for table in TABLES {
            comparisons.push(self.compare_table(table).await?);
        }
        Ok(comparisons)
    }

    async fn compare_table(&self, table: &'static str) -> Result<Comparison, Error> {
        let (warehouse, shadow, day) = (self.warehouse, self.name(table), self.day);
        let columns = columns(warehouse, table).await?;
        let names: Vec<&str> = columns.iter().map(String::as_str).collect();
        let hash = format!("cityHash64({})", concatenated(&names));
        let of = |side: u8, table: &str| {
            format!(
                "SELECT {side} AS side, incarnation, kafka_partition, batch, {hash} AS h FROM {table} WHERE ingest_day = toDate({day})"
            )
        };
        let sql = format!(
            "SELECT incarnation, kafka_partition, batch FROM ({} UNION ALL {}) GROUP BY incarnation, kafka_partition, batch \
             HAVING countIf(side = 0) != countIf(side = 1) OR sumIf(h, side = 0) != sumIf(h, side = 1) ORDER BY ALL{SPILL}",
            of(0, table),
            of(1, &shadow)
        );
        let batches: Vec<BatchRow> = warehouse.rows(&sql).await?;
        let listed: Vec<String> = batches
            .iter()
            .take(LISTED_MAX)
            .map(|row| format!("({}, {}, {})", row.incarnation, row.kafka_partition, row.batch))
            .collect();
        let mut differences = Vec::new();
        if !listed.is_empty() {
            let of = |table: &str| {
                format!(
                    "SELECT * FROM {table} WHERE ingest_day = toDate({day}) \
                     AND (incarnation, kafka_partition, batch) IN ({})",
                    listed.join(", ")
                )
            };
            let keys: Vec<&str> = keys(table).iter().copied().filter(|key| names.contains(key)).collect();
            let rest: Vec<&str> = names.iter().copied().filter(|name| !keys.contains(name)).collect();
            let (left, right) = (of(table), of(&shadow));
            let pair = Pair { left: &left, right: &right, keys: &keys, columns: &rest };
            differences = pair.differences(warehouse, LISTED_MAX).await?;
        }
        let rows = |table: &str| format!("SELECT count() FROM {table} WHERE ingest_day = toDate({day})");
        Ok(Comparison {
            table,
            live: warehouse.row(&rows(table)).await?,
            rebuilt: warehouse.row(&rows(&shadow)).await?,
            batches: batches.len() as u64,
            differences,
        })
    }

    /// Replaces the day's live rows of a table by the rebuilt ones, in one step.
    ///
    /// # Errors
    /// As [`Warehouse::execute`]. After an error it is safe to call this again.
    #[boxed]
    pub async fn swap(&self, table: &str) -> Result<(), Error> {
        let (shadow, id, day) = (self.name(table), &self.id, self.day);
        let rows: u64 = self.warehouse.row(&format!("SELECT count() FROM {shadow}")).await?;
        // ClickHouse refuses to swap in an empty partition. Dropping the partition is not an
        // option: it would also forget the tokens of its inserts, and these tokens keep late
        // writers out.
        let change = if rows > 0 {
            format!("REPLACE PARTITION ID '{id}' FROM {shadow}")
        } else {
            format!("DELETE WHERE ingest_day = toDate({day}) SETTINGS mutations_sync = 2")
        };
        self.warehouse.command(&format!("ALTER TABLE {table} {change}")).await
    }
}

/// Joins record batches of one table into one. The dictionaries are built anew, because ClickHouse
/// refuses a dictionary that holds a value twice.
fn join(batches: &[RecordBatch]) -> Result<RecordBatch, ArrowError> {
    let Some(first) = batches.first() else { return Err(ArrowError::InvalidArgumentError("no batch".to_owned())) };
    let column = |index: usize| -> Result<ArrayRef, ArrowError> {
        let arrays: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(index).as_ref()).collect();
        if !matches!(first.column(index).data_type(), DataType::Dictionary(..)) {
            return concat(&arrays);
        }
        let mut texts = StringDictionaryBuilder::<Int32Type>::new();
        for array in arrays {
            // Dictionaries of different batches may have keys of different widths.
            let dictionary = array.as_any_dictionary();
            let values = dictionary.values().as_string_opt::<i32>();
            let values =
                values.ok_or_else(|| ArrowError::CastError("a dictionary of something else than text".to_owned()))?;
            dictionary.normalized_keys().into_iter().for_each(|key| texts.append_value(values.value(key)));
        }
        Ok(std::sync::Arc::new(texts.finish()))
    };
    let columns = first
        .schema_ref()
        .fields()
        .iter()
        .enumerate()
        .map(|(index, field)| Ok((field.name().as_str(), column(index)?, field.is_nullable())));
    RecordBatch::try_from_iter_with_nullable(columns.collect::<Result<Vec<_>, ArrowError>>()?)
}

/// The columns to compare. The generation and the batch hash depend on how often a batch was tried.
async fn columns(warehouse: &Warehouse, table: &str) -> Result<Vec<String>, Error> {
    let sql = "SELECT name FROM system.columns WHERE database = ? AND table = ? AND name NOT IN ('gen', 'batch_hash') \
               AND default_kind NOT IN ('ALIAS', 'MATERIALIZED') ORDER BY position";
    warehouse.fetch(warehouse.query(sql).bind(warehouse.database()).bind(table)).await
}

/// Columns that identify a row of a table to a person. Names that a table does not have are left
/// out.
fn keys(table: &str) -> &'static [&'static str] {
    match table {
        "accuracy_minute" => &["tenant", "site", "device", "model", "firmware", "minute", "batch"],
        "accuracy_session" => &[
            "tenant",
            "device",
            "session_id",
            "dose_calibration_id",
            "depth_calibration_id",
            "target_nl",
            "target_um",
            "outcome",
            "model",
            "firmware",
            "site",
            "batch",
        ],
        "item_uses" => &["tenant", "site", "device", "session_id", "slot", "mount_id", "item_id", "batch"],
        _ => &["tenant", "device", "boot_id", "seq", "index", "kafka_offset"],
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::StringArray;

    use super::*;
    use crate::columns::{Common, Commons, Faults, Origin, Provenance};
    use telemetry::v1;

    fn batch(codes: &[&str], batch: u64) -> RecordBatch {
        let mut commons = Commons::default();
        let common = commons.add(&Common {
            tenant: "acme",
            site: "berlin",
            device: "pen-1",
            time_source: "DEVICE",
            model: "pen",
            firmware: "1",
            session_id: "",
            clock: "SYNCED",
            dose_calibration_id: "",
            depth_calibration_id: "",
            preparation_id: "",
            operator_id: "",
            mounts: &[],
        });
        let origin = Origin { common, boot_id: 7, received_at: 1, kafka_offset: 2, operator_id: "", flags: 0 };
        let mut faults = Faults::default();
        for code in codes {
            faults.push(&origin, 1, 1, &v1::Fault { code: (*code).to_owned(), ..Default::default() });
        }
        let provenance = Provenance { ingest_day: 20_000, incarnation: 1, partition: 0, batch };
        faults.finish(provenance, &commons).unwrap().record_batch(0).unwrap()
    }

    #[test]
    fn batches_of_few_and_of_many_texts_are_joined() {
        let many: Vec<String> = (0..300).map(|code| format!("E{code}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let joined = join(&[batch(&["E7"], 0), batch(&many, 5)]).unwrap();
        let codes = joined.column_by_name("code").unwrap().as_dictionary::<Int32Type>();
        let texts = codes.downcast_dict::<StringArray>().unwrap();
        let expected: Vec<_> = ["E7"].into_iter().chain(many).collect();
        assert_eq!(texts.into_iter().flatten().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn joined_texts_are_in_the_dictionary_once() {
        let joined = join(&[batch(&["E1", "E2"], 0), batch(&["E2", "E1", "E3"], 5)]).unwrap();
        assert_eq!(joined.num_rows(), 5);
        let codes = joined.column_by_name("code").unwrap().as_dictionary::<Int32Type>();
        assert_eq!(codes.values().len(), 3);
        let texts = codes.downcast_dict::<StringArray>().unwrap();
        assert_eq!(texts.into_iter().flatten().collect::<Vec<_>>(), ["E1", "E2", "E2", "E1", "E3"]);
        assert_eq!(joined.column_by_name("tenant").unwrap().as_dictionary::<Int32Type>().values().len(), 1);
    }
}
