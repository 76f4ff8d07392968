//! What the loader asks and writes besides rows: incarnations of topics, positions, intents,
//! ledgers, read-back and commits.
//!
//! Every question here is about one partition of one incarnation of one topic, a [`Shard`].

use async_recursion::async_recursion as boxed;
use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;
use telemetry::{
    interval::{Interval, IntervalSet},
    ledger::Ledger,
};

use crate::{
    client::Warehouse,
    columns::{Block, CommitRows, Committed, LedgerRow, LossCause, Provenance, all_tables},
    error::Error,
    insert::PINNED,
};

/// One partition of one incarnation of a Kafka topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shard {
    pub incarnation: u32,
    pub partition: i32,
}

/// One incarnation of a Kafka topic.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TopicIncarnation {
    pub topic: String,
    /// Number of the incarnation, from 1, ascending over all topics.
    pub incarnation: u32,
    /// Number of partitions. It is fixed for the incarnation.
    pub partitions: u32,
    /// Kafka's id of the topic; empty if the broker gives none or nobody has looked it up yet.
    pub topic_id: String,
}

/// Distance between the generations of two successive intents for the same batch. One intent's
/// blocks can therefore use at most this many generations.
pub const GENERATIONS: u32 = 16;
/// Decoder version of the intent that closes a shard, see [`crate::closing`]. Decoders are numbered
/// from 1.
pub const CLOSING: u32 = 0;
/// Position of a closed shard.
pub const CLOSED: u64 = u64::MAX;

/// What a batch will hold. An owner writes the intent before the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    pub shard: Shard,
    pub batch: u64,
    pub batch_end: u64,
    /// Generation. Rows of the batch are written under it or, if a token is burned, under one of
    /// the generations that follow.
    pub generation: u32,
    pub decoder_version: u32,
    /// Hash of the plausibility rules and of the limits of devices' times: both decide which rows
    /// the batch holds.
    pub rules_hash: u64,
    /// Days since 1970 of the ingest day.
    pub ingest_day: i32,
    /// Name of the writer, for a person to read.
    pub owner: String,
}

impl Intent {
    /// The batch its rows belong to.
    pub fn provenance(&self) -> Provenance {
        Provenance {
            ingest_day: self.ingest_day,
            incarnation: self.shard.incarnation,
            partition: self.shard.partition,
            batch: self.batch,
        }
    }
}

/// How far a shard is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The latest commit; `None` if no batch was ever committed.
    pub commit: Option<LastCommit>,
    /// Intents for the latest commit's batch and for later ones, by batch and generation.
    pub intents: Vec<Intent>,
}

/// The latest commit of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastCommit {
    /// First offset of the batch.
    pub batch: u64,
    /// End of the batch, exclusive.
    pub batch_end: u64,
    /// Generation of the intent under which the batch was written.
    pub generation: u32,
}

impl Progress {
    /// Offset at which the next batch starts; `None` if no batch was ever committed. A commit does
    /// not count if its batch has an intent of a higher generation: another owner has then begun to
    /// write that batch again. The intent that closes a shard has no such effect.
    pub fn position(&self) -> Option<u64> {
        let commit = self.commit?;
        let rewritten = self.intents.iter().any(|intent| {
            intent.batch == commit.batch && intent.generation > commit.generation && intent.decoder_version != CLOSING
        });
        Some(if rewritten { commit.batch } else { commit.batch_end })
    }

    /// End of the last batch that an owner began to write, committed or not; `None` if there is
    /// none. Kafka had every record before this offset.
    pub fn read_end(&self) -> Option<u64> {
        let intents = self.intents.iter().filter(|intent| intent.decoder_version != CLOSING);
        intents.map(|intent| intent.batch_end).chain(self.commit.map(|commit| commit.batch_end)).max()
    }
}

/// Rows that a table holds of a batch under one generation.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TableCount {
    pub table: String,
    pub generation: u32,
    /// The batch hash that the rows carry.
    pub hash: u64,
    pub rows: u64,
}

/// Identity of a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BootKey {
    pub tenant: String,
    pub device: String,
    pub boot_id: u64,
}

#[derive(Deserialize)]
struct IntentRow {
    incarnation: u32,
    kafka_partition: i32,
    batch: u64,
    batch_end: u64,
    generation: u32,
    decoder_version: u32,
    rules_hash: u64,
    ingest_day: i32,
    owner: String,
}

impl From<IntentRow> for Intent {
    fn from(row: IntentRow) -> Self {
        Self {
            shard: Shard { incarnation: row.incarnation, partition: row.kafka_partition },
            batch: row.batch,
            batch_end: row.batch_end,
            generation: row.generation,
            decoder_version: row.decoder_version,
            rules_hash: row.rules_hash,
            ingest_day: row.ingest_day,
            owner: row.owner,
        }
    }
}

#[derive(Deserialize)]
struct CommitCount {
    commits: u64,
    last: (u64, u32, u64),
}

/// State of one boot: bounds of the intervals, reason of loss, declared last number, last arrival,
/// site.
type LedgerState = (Vec<u64>, Vec<u64>, Vec<u64>, Vec<u64>, Vec<u64>, Vec<u64>, String, u64, i64, String);

#[derive(Deserialize)]
pub(crate) struct LedgerStateRow {
    tenant: String,
    device: String,
    boot_id: u64,
    state: LedgerState,
}

/// How many keys one query names. It keeps the query far below the length that ClickHouse accepts.
const KEYS_PER_QUERY: usize = 500;

const INTENT_COLUMNS: &str = "incarnation, kafka_partition, batch, batch_end, gen AS generation, decoder_version, \
                              plausibility_hash AS rules_hash, toInt32(ingest_day) AS ingest_day, owner";

/// SQL for a boot's latest state, grouped by tenant, device and boot, in the shape of
/// [`LedgerStateRow`].
pub(crate) const LEDGER_STATE: &str = "toString(tenant) AS tenant, toString(device) AS device, boot_id, argMax(\
    (stored_first, stored_last, quarantined_first, quarantined_last, lost_first, lost_last, toString(lost_reason), \
    declared_last, toUnixTimestamp64Micro(last_arrival), toString(site)), (batch_end, gen)) AS state";

impl Warehouse {
    /// All incarnations of all topics.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn topic_incarnations(&self) -> Result<Vec<TopicIncarnation>, Error> {
        self.rows("SELECT topic, incarnation, partitions, topic_id FROM kafka_topics ORDER BY incarnation").await
    }

    /// Records an incarnation of a topic, unless its number is already taken. Read
    /// [`Warehouse::topic_incarnations`] afterwards to see whose row was accepted.
    ///
    /// # Errors
    /// As [`Warehouse::execute`].
    #[boxed]
    pub async fn put_topic_incarnation(&self, topic: &TopicIncarnation, created_at: i64) -> Result<(), Error> {
        let sql = "INSERT INTO kafka_topics (topic, incarnation, partitions, created_at, topic_id) \
                   VALUES (?, ?, ?, fromUnixTimestamp64Micro(?), ?)";
        let query = self.query(sql).bind(&topic.topic).bind(topic.incarnation).bind(topic.partitions).bind(created_at);
        self.put(query.bind(&topic.topic_id), &format!("topic/{}", topic.incarnation)).await
    }

    /// Adds Kafka's topic id to an incarnation that was numbered without one.
    ///
    /// # Errors
    /// As [`Warehouse::execute`].
    #[boxed]
    pub async fn note_topic_id(&self, incarnation: u32, topic_id: &str) -> Result<(), Error> {
        let sql = "ALTER TABLE kafka_topics UPDATE topic_id = ? WHERE incarnation = ? AND topic_id = '' \
                   SETTINGS mutations_sync = 2";
        self.execute(self.query(sql).bind(topic_id).bind(incarnation)).await
    }

    /// How far a shard is written.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn progress(&self, shard: Shard) -> Result<Progress, Error> {
        let Shard { incarnation, partition } = shard;
        let sql = format!(
            "SELECT count() AS commits, max((batch_end, gen, batch)) AS last FROM loader_commits \
             WHERE kind = 'commit' AND incarnation = {incarnation} AND kafka_partition = {partition}"
        );
        let count: CommitCount = self.row(&sql).await?;
        let (batch_end, generation, batch) = count.last;
        let commit = (count.commits > 0).then_some(LastCommit { batch, batch_end, generation });
        let from = commit.map_or(0, |commit| commit.batch);
        Ok(Progress { commit, intents: self.intents(shard, from, None).await? })
    }

    /// Intents of a shard for the batches from `from` to `to` (both inclusive), by batch and
    /// generation.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn intents(&self, shard: Shard, from: u64, to: Option<u64>) -> Result<Vec<Intent>, Error> {
        let Shard { incarnation, partition } = shard;
        let upper = to.map_or_else(String::new, |to| format!(" AND batch <= {to}"));
        let sql = format!(
            "SELECT {INTENT_COLUMNS} FROM loader_intents WHERE incarnation = {incarnation} \
             AND kafka_partition = {partition} AND batch >= {from}{upper} ORDER BY batch, gen, batch_end, owner"
        );
        let rows: Vec<IntentRow> = self.rows(&sql).await?;
        Ok(rows.into_iter().map(Intent::from).collect())
    }

    /// Writes an intent, unless its batch already has an intent of this generation. The
    /// deduplication token makes the insert a put-if-absent.
    ///
    /// # Errors
    /// As [`Warehouse::execute`]. Whether it fails or not, only [`Warehouse::intents`] tells which
    /// intent was accepted, if any.
    #[boxed]
    pub async fn put_intent(&self, intent: &Intent, created_at: i64) -> Result<(), Error> {
        let Shard { incarnation, partition } = intent.shard;
        let (batch, generation) = (intent.batch, intent.generation);
        let sql = "INSERT INTO loader_intents (incarnation, kafka_partition, batch, batch_end, gen, decoder_version, \
                   plausibility_hash, ingest_day, owner, created_at) \
                   VALUES (?, ?, ?, ?, ?, ?, ?, toDate(?), ?, fromUnixTimestamp64Micro(?))";
        let query = self
            .query(sql)
            .bind(incarnation)
            .bind(partition)
            .bind(batch)
            .bind(intent.batch_end)
            .bind(generation)
            .bind(intent.decoder_version)
            .bind(intent.rules_hash)
            .bind(intent.ingest_day)
            .bind(&intent.owner)
            .bind(created_at);
        self.put(query, &format!("{incarnation}/{partition}/{batch}/intent/{generation}")).await
    }

    /// Ledgers of boots at the start of the batch at `as_of`. Boots without a ledger are left out.
    ///
    /// A boot may have no state in this incarnation of the topic. Its ledger then starts as the
    /// union of its states in all partitions of the earlier incarnations. The reason: a device
    /// resends an event until it has a receipt, and the event may have been stored before the topic
    /// was created again. All earlier incarnations are closed before a new one begins
    /// ([`crate::closing`]), so every reader gets the same union. The boot's first state in this
    /// incarnation includes it.
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn ledgers(&self, shard: Shard, as_of: u64, keys: &[BootKey]) -> Result<Vec<LedgerRow>, Error> {
        let Shard { incarnation, partition } = shard;
        let own = format!("incarnation = {incarnation} AND kafka_partition = {partition} AND batch_end <= {as_of}");
        let earlier = earlier_incarnations(incarnation);
        let mut ledgers = Vec::new();
        for keys in keys.chunks(KEYS_PER_QUERY) {
            let known = self.states(&own, keys.iter()).await?;
            let there: HashSet<BootKey> = known.iter().map(key_of).collect();
            let absent: Vec<&BootKey> = keys.iter().filter(|key| !there.contains(key)).collect();
            ledgers.extend(known);
            if !absent.is_empty() {
                ledgers.extend(united(self.states(&earlier, absent.into_iter()).await?));
            }
        }
        Ok(ledgers)
    }

    /// The latest state of each boot in each shard, of the rows that satisfy the SQL condition
    /// `of`.
    async fn states(&self, of: &str, keys: impl Iterator<Item = &BootKey>) -> Result<Vec<LedgerRow>, Error> {
        let tuples: Vec<_> = keys.map(|key| (&key.tenant, &key.device, key.boot_id)).collect();
        let sql = format!(
            "SELECT {LEDGER_STATE} FROM loader_commits WHERE kind IN ('ledger', 'replay', 'command') AND {of} \
             AND (loader_commits.tenant, loader_commits.device, boot_id) IN ? \
             GROUP BY tenant, device, boot_id, incarnation, kafka_partition"
        );
        let rows: Vec<LedgerStateRow> = self.fetch(self.query(&sql).bind(tuples)).await?;
        Ok(rows.into_iter().map(ledger_row).collect())
    }

    /// Counts and hashes of a batch's rows in the given tables.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn table_counts(&self, tables: &[&str], batch: Provenance) -> Result<Vec<TableCount>, Error> {
        let of = condition(batch);
        let parts: Vec<String> = tables
            .iter()
            .map(|table| {
                format!(
                    "SELECT '{table}' AS table, gen AS generation, batch_hash AS hash, count() AS rows FROM {table} \
                     WHERE {of} GROUP BY gen, batch_hash"
                )
            })
            .collect();
        self.rows(&parts.join(" UNION ALL ")).await
    }

    /// Deletes a batch's rows of generations below `below` from every table. Before that it burns
    /// the tokens of the generations `fenced..below`, so that a late writer cannot use them.
    ///
    /// # Errors
    /// As [`Warehouse::execute`]. After an error it is safe to call this again.
    #[boxed]
    pub async fn erase(&self, batch: Provenance, fenced: u32, below: u32) -> Result<(), Error> {
        let Provenance { ingest_day, incarnation, partition, batch: first } = batch;
        for table in all_tables() {
            for generation in fenced..below {
                // The row is only there to make ClickHouse record the token. The deletion below
                // removes it.
                let sql = format!(
                    "INSERT INTO {table} (ingest_day, incarnation, kafka_partition, batch, gen, batch_hash) \
                     VALUES (toDate({ingest_day}), {incarnation}, {partition}, {first}, {generation}, 0)"
                );
                self.put(self.client().query_raw(&sql), &token(batch, table, generation)).await?;
            }
            let sql = format!(
                "ALTER TABLE {table} DELETE WHERE {} AND gen < {below} SETTINGS mutations_sync = 2",
                condition(batch)
            );
            self.command(&sql).await?;
        }
        Ok(())
    }

    /// # Errors
    /// As [`Warehouse::insert`].
    #[boxed]
    pub async fn insert_block(&self, block: &Block, generation: u32) -> Result<(), Error> {
        let token = token(block.provenance(), block.table(), generation);
        self.insert(block.table(), &block.record_batch(generation)?, &token).await
    }

    /// Records a batch and the ledgers that it changed, in one insert. `attempt` is the number of
    /// burned tokens so far.
    ///
    /// # Errors
    /// As [`Warehouse::insert`].
    #[boxed]
    pub async fn commit(
        &self,
        committed: &Committed,
        attempt: u32,
        rows: u64,
        lost: (&IntervalSet, LossCause),
        ledgers: &[LedgerRow],
    ) -> Result<(), Error> {
        let batch = CommitRows::of(committed, rows, lost, ledgers)?;
        let token = token(committed.provenance, "loader_commits", committed.generation + attempt);
        self.insert("loader_commits", &batch, &token).await
    }

    /// How long the engine has been running, s. A value that is smaller than expected shows that
    /// the engine died in between.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn uptime_s(&self) -> Result<u64, Error> {
        self.row("SELECT toUInt64(uptime())").await
    }

    pub(crate) async fn put(&self, query: clickhouse::query::Query, token: &str) -> Result<(), Error> {
        let pinned = PINNED.iter().fold(query, |query, (name, value)| query.with_setting(*name, *value));
        self.execute(pinned.with_setting("insert_deduplication_token", token)).await
    }
}

/// Token of one table's insert: `incarnation/partition/batch/table/generation`.
pub fn token(batch: Provenance, table: &str, generation: u32) -> String {
    let Provenance { incarnation, partition, batch, .. } = batch;
    format!("{incarnation}/{partition}/{batch}/{table}/{generation}")
}

pub(crate) fn condition(batch: Provenance) -> String {
    let Provenance { ingest_day, incarnation, partition, batch } = batch;
    format!(
        "ingest_day = toDate({ingest_day}) AND incarnation = {incarnation} AND kafka_partition = {partition} \
         AND batch = {batch}"
    )
}

pub(crate) fn ledger_row(row: LedgerStateRow) -> LedgerRow {
    let (
        stored_first,
        stored_last,
        quarantined_first,
        quarantined_last,
        lost_first,
        lost_last,
        reason,
        declared,
        arrival,
        site,
    ) = row.state;
    LedgerRow {
        tenant: row.tenant,
        site,
        device: row.device,
        boot_id: row.boot_id,
        ledger: Ledger {
            stored: set(&stored_first, &stored_last),
            quarantined: set(&quarantined_first, &quarantined_last),
            declared_lost: set(&lost_first, &lost_last),
            declared_last: declared,
        },
        lost_reason: reason,
        last_arrival: arrival,
    }
}

pub(crate) fn key_of(row: &LedgerRow) -> BootKey {
    BootKey { tenant: row.tenant.clone(), device: row.device.clone(), boot_id: row.boot_id }
}

/// SQL condition for the rows of all earlier incarnations of the same topic.
pub(crate) fn earlier_incarnations(incarnation: u32) -> String {
    format!(
        "incarnation IN (SELECT incarnation FROM kafka_topics WHERE incarnation < {incarnation} \
         AND topic IN (SELECT topic FROM kafka_topics WHERE incarnation = {incarnation}))"
    )
}

/// Unites several states of each boot. The sets are united. Site, reason of loss and last arrival
/// come from the state with the latest arrival.
pub(crate) fn united(rows: Vec<LedgerRow>) -> Vec<LedgerRow> {
    let mut boots: BTreeMap<BootKey, LedgerRow> = BTreeMap::new();
    for row in rows {
        let key = key_of(&row);
        let Some(known) = boots.remove(&key) else {
            boots.insert(key, row);
            continue;
        };
        // The order of the rows must not matter, because two owners must get the same result.
        let age = |row: &LedgerRow| (row.last_arrival, row.site.clone(), row.lost_reason.clone());
        let (mut latest, other) = if age(&row) > age(&known) { (row, known) } else { (known, row) };
        let Ledger { stored, quarantined, declared_lost, declared_last } = other.ledger;
        let ledger = &mut latest.ledger;
        for (set, more) in [
            (&mut ledger.stored, stored),
            (&mut ledger.quarantined, quarantined),
            (&mut ledger.declared_lost, declared_lost),
        ] {
            more.intervals().iter().for_each(|interval| set.insert(*interval));
        }
        // A number can move from quarantined to stored, but never back.
        ledger.quarantined = ledger.quarantined.minus(&ledger.stored);
        ledger.declare_last(declared_last);
        boots.insert(key, latest);
    }
    boots.into_values().collect()
}

fn set(firsts: &[u64], lasts: &[u64]) -> IntervalSet {
    let mut set = IntervalSet::default();
    for (first, last) in firsts.iter().zip(lasts) {
        set.insert(Interval::new(*first, *last));
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intent(batch: u64, batch_end: u64, decoder_version: u32) -> Intent {
        let shard = Shard { incarnation: 1, partition: 0 };
        let owner = String::new();
        Intent { shard, batch, batch_end, generation: 1, decoder_version, rules_hash: 0, ingest_day: 0, owner }
    }

    #[test]
    fn what_an_owner_began_to_write_was_read() {
        let commit = Some(LastCommit { batch: 10, batch_end: 20, generation: 0 });
        let mut progress = Progress { commit, intents: vec![intent(10, 20, 7)] };
        assert_eq!(progress.read_end(), Some(20));
        progress.intents.push(intent(20, 35, 7));
        assert_eq!(progress.read_end(), Some(35));
        progress.intents.push(intent(35, CLOSED, CLOSING));
        assert_eq!(progress.read_end(), Some(35), "closing a shard reads nothing");
        assert_eq!(Progress { commit: None, intents: Vec::new() }.read_end(), None);
    }
}
