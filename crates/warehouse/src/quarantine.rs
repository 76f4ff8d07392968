//! The quarantine for the commands: its rows, the results of replays, and deletion by a person.

use async_recursion::async_recursion as boxed;
use clickhouse::Row;
use serde::{Deserialize, Serialize};
use telemetry::quarantine::Id;

use crate::{client::Warehouse, error::Error, rollup};

/// Which rows to select; the default selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// One reason; empty = all.
    pub reason: String,
    /// One tenant; empty = all.
    pub tenant: String,
    /// One device; empty = all.
    pub device: String,
    /// Received at this time or later, us since 1970; 0 = all.
    pub from_us: i64,
    /// Received before this time, us since 1970; 0 = all.
    pub to_us: i64,
    /// Only these rows; empty = all.
    pub ids: Vec<Id>,
    /// Only rows that have not been replayed.
    pub waiting: bool,
}

/// The rows of one reason.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct Group {
    /// Why the rows were refused.
    pub reason: String,
    pub rows: u64,
    /// Size of their payloads, bytes.
    pub bytes: u64,
    /// How many of the rows have been replayed.
    pub replayed: u64,
    /// When the bridge received the oldest row, `YYYY-MM-DD HH:MM:SS`, UTC.
    pub oldest: String,
    /// When the bridge received the newest row, `YYYY-MM-DD HH:MM:SS`, UTC.
    pub newest: String,
}

/// A quarantine row without its payload.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct Item {
    pub id: String,
    /// Why the row was refused.
    pub reason: String,
    /// The exact fault; empty if the bridge refused the message.
    pub detail: String,
    pub topic: String,
    /// The role that refused it: `bridge` or `loader`.
    pub source: String,
    /// Size of the payload, bytes.
    pub bytes: u64,
    /// When the bridge received it, `YYYY-MM-DD HH:MM:SS.ffffff`, UTC.
    pub received: String,
    /// The same time, us since 1970.
    pub received_at_us: i64,
    /// Tenant, or empty.
    pub tenant: String,
    /// Device, or empty.
    pub device: String,
    /// Boot, or 0.
    pub boot_id: u64,
    /// Sequence number, or 0.
    pub seq: u64,
    pub replayed: bool,
    /// Outcome of the latest replay; empty = not replayed.
    pub outcome: String,
    /// The person who replayed it last; empty = not replayed.
    pub replayed_by: String,
}

#[derive(Deserialize)]
struct PayloadRow {
    incarnation: u32,
    partition: i32,
    offset: u64,
    seq: u64,
    boot_id: u64,
    reason: String,
    tenant: String,
    device: String,
    topic: String,
    source: String,
    received_at: i64,
    payload: String,
}

/// A quarantine row with everything that a replay needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    pub id: Id,
    /// Why the row was refused.
    pub reason: String,
    /// Tenant, or empty.
    pub tenant: String,
    /// Device, or empty.
    pub device: String,
    pub topic: String,
    /// The role that refused it: `bridge` or `loader`.
    pub source: String,
    /// When the bridge received it, us since 1970.
    pub received_at: i64,
    pub payload: Vec<u8>,
}

/// The outcome of one replayed row.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct ReplayResult {
    /// Incarnation of the topic that the row came from.
    pub incarnation: u32,
    pub partition: i32,
    pub offset: u64,
    /// Sequence number of the row, or 0.
    pub seq: u64,
    /// `STORED`, `DUPLICATE`, `REFUSED` or `REFUSED_SINGLY`.
    pub outcome: String,
    pub stored: u64,
    /// Events that were already stored.
    pub duplicates: u64,
    /// Events that stay in quarantine.
    pub refused: u64,
    /// Why something was refused; empty = nothing was.
    pub detail: String,
}

/// The size of the quarantine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct Usage {
    /// Number of rows, including replayed ones.
    pub rows: u64,
    /// Size of the payloads, bytes.
    pub bytes: u64,
    pub waiting: u64,
    /// Age of the oldest row, s; 0 = the quarantine is empty.
    pub oldest_s: u64,
}

/// A deletion that a person asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    /// Delete rows of ingest days before this one, days since 1970.
    pub before: u16,
    /// Rows of this reason; empty = all.
    pub reason: String,
    pub by: String,
    pub because: String,
    /// Time of the deletion, us since 1970.
    pub now_us: i64,
}

/// The amount of data that a deletion removes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct Purged {
    pub rows: u64,
    /// Size of the payloads, bytes.
    pub bytes: u64,
    /// Rows that have never been replayed. The deletion loses their data.
    pub waiting: u64,
}

/// Columns that identify a replayed row.
const SOURCE: &str = "source_incarnation, source_partition, source_offset, source_seq";

impl Warehouse {
    /// Rows grouped by reason, the most frequent reason first.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn quarantine_groups(&self, filter: &Filter) -> Result<Vec<Group>, Error> {
        let sql = format!(
            "SELECT toString(state.reason) AS reason, count() AS rows, sum(state.bytes) AS bytes, \
             countIf(state.replayed) AS replayed, \
             formatDateTime(min(state.received_at), '%Y-%m-%d %H:%i:%S', 'UTC') AS oldest, \
             formatDateTime(max(state.received_at), '%Y-%m-%d %H:%i:%S', 'UTC') AS newest \
             FROM quarantine_state AS state WHERE {} GROUP BY state.reason ORDER BY rows DESC, reason",
            condition(filter)
        );
        self.fetch(self.filtered(&sql, filter)).await
    }

    /// Rows in the order of their devices' events, at most `limit`.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn quarantine_items(&self, filter: &Filter, limit: u64) -> Result<Vec<Item>, Error> {
        let sql = format!(
            "SELECT state.id AS id, toString(state.reason) AS reason, state.detail AS detail, state.topic AS topic, \
             toString(state.source) AS source, state.bytes AS bytes, toString(state.received_at) AS received, \
             toUnixTimestamp64Micro(state.received_at) AS received_at_us, toString(state.tenant) AS tenant, \
             toString(state.device) AS device, state.boot_id AS boot_id, state.seq AS seq, \
             state.replayed AS replayed, state.outcome AS outcome, state.replayed_by AS replayed_by \
             FROM quarantine_state AS state WHERE {} \
             ORDER BY state.tenant, state.device, state.boot_id, state.seq, state.received_at, id LIMIT {limit}",
            condition(filter)
        );
        self.fetch(self.filtered(&sql, filter)).await
    }

    fn filtered(&self, sql: &str, filter: &Filter) -> clickhouse::query::Query {
        let Filter { reason, tenant, device, from_us, to_us, ids, .. } = filter;
        let query = self.query(sql).bind(reason).bind(reason).bind(tenant).bind(tenant).bind(device).bind(device);
        let query = query.bind(from_us).bind(from_us).bind(to_us).bind(to_us);
        if ids.is_empty() { query } else { query.bind(ids.iter().map(ToString::to_string).collect::<Vec<_>>()) }
    }

    /// Rows with their payloads, in the order of their devices' events.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn quarantine_raw(&self, ids: &[Id]) -> Result<Vec<Raw>, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let sql = "SELECT incarnation, kafka_partition AS partition, kafka_offset AS offset, seq, boot_id, \
                   toString(q.reason) AS reason, toString(q.tenant) AS tenant, toString(q.device) AS device, topic, \
                   toString(q.source) AS source, toUnixTimestamp64Micro(q.received_at) AS received_at, \
                   hex(q.payload) AS payload FROM quarantine AS q \
                   WHERE (incarnation, kafka_partition, kafka_offset, seq) IN ? \
                   ORDER BY q.tenant, q.device, boot_id, seq, q.received_at, incarnation, partition, offset";
        let keys: Vec<_> =
            ids.iter().map(|id| (id.incarnation, id.partition, id.offset, id.seq.unwrap_or(0))).collect();
        let rows: Vec<PayloadRow> = self.fetch(self.query(sql).bind(keys)).await?;
        Ok(rows.into_iter().map(raw).filter(|raw| ids.contains(&raw.id)).collect())
    }

    /// Outcomes of the rows that one replay command sent, as far as the loader has written them.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn quarantine_results(&self, by: &str, at_us: i64) -> Result<Vec<ReplayResult>, Error> {
        let sql = "SELECT source_incarnation AS incarnation, source_partition AS partition, source_offset AS offset, \
                   source_seq AS seq, toString(r.outcome) AS outcome, stored, duplicates, refused, detail \
                   FROM quarantine_replays AS r \
                   WHERE r.replayed_by = ? AND toUnixTimestamp64Micro(r.replayed_at) = ? ORDER BY offset, seq";
        self.fetch(self.query(sql).bind(by).bind(at_us)).await
    }

    /// Sets the column `replayed` of the table according to the replays, and returns how many rows
    /// it changed. Counts and hashes of batches do not depend on this column. A replayed row can
    /// lose its mark when it is written again: by a rebuild of its day, or by an owner that resumes
    /// after a crash under other rules. The next call finds such a row.
    ///
    /// # Errors
    /// As [`Warehouse::execute`].
    #[boxed]
    pub async fn mark_replayed(&self) -> Result<u64, Error> {
        let replayed = format!(
            "((incarnation, kafka_partition, kafka_offset, seq) IN \
             (SELECT {SOURCE} FROM quarantine_replays WHERE outcome != 'REFUSED'))"
        );
        let count: u64 = self.row(&format!("SELECT count() FROM quarantine WHERE replayed != {replayed}")).await?;
        if count > 0 {
            // The statement sets the value and does not flip it, so two callers at once get the
            // same result.
            let sql = format!(
                "ALTER TABLE quarantine UPDATE replayed = {replayed} WHERE replayed != {replayed} \
                 SETTINGS mutations_sync = 2"
            );
            self.command(&sql).await?;
        }
        Ok(count)
    }

    /// Measures the quarantine.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn quarantine_usage(&self) -> Result<Usage, Error> {
        let sql = "SELECT count() AS rows, sum(length(payload)) AS bytes, countIf(NOT replayed) AS waiting, \
                   toUInt64(if(rows = 0, 0, greatest(0, dateDiff('second', \
                   min(greatest(received_at, toDateTime64(ingest_day, 6, 'UTC'))), now64(6, 'UTC'))))) AS oldest_s \
                   FROM quarantine";
        self.row(sql).await
    }

    /// The sites at which a person has registered the given devices, now or before, as (tenant,
    /// site, device). The devices are given as (tenant, device).
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn registered(&self, devices: &[(String, String)]) -> Result<Vec<(String, String, String)>, Error> {
        if devices.is_empty() {
            return Ok(Vec::new());
        }
        let sql = "SELECT DISTINCT toString(d.tenant) AS tenant, toString(d.site) AS site, toString(d.device) AS device \
                   FROM devices AS d \
                   WHERE d.origin = 'IMPORTED' AND d.valid_from <= now64(6) AND (d.tenant, d.device) IN ?";
        self.fetch(self.query(sql).bind(devices)).await
    }

    /// Every device that a person has registered, as (tenant, site, device), with the site where it
    /// is now.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn all_registered(&self) -> Result<Vec<(String, String, String)>, Error> {
        let sql = "SELECT toString(d.tenant), toString(d.site), toString(d.device) FROM devices_latest AS d \
                   WHERE d.origin = 'IMPORTED'";
        self.rows(sql).await
    }

    /// Policies about unknown devices, as (tenant, `keep` or `quarantine`). The tenant `""` stands
    /// for every tenant without a policy of its own.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn unknown_device_policies(&self) -> Result<Vec<(String, String)>, Error> {
        let sql = "SELECT toString(p.tenant), p.value FROM policies_latest AS p WHERE p.name = 'unknown_devices'";
        self.rows(sql).await
    }

    /// What [`Warehouse::purge_quarantine`] would delete.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn purgeable(&self, before: u16, reason: &str) -> Result<Purged, Error> {
        let sql = "SELECT count() AS rows, sum(length(payload)) AS bytes, countIf(NOT replayed) AS waiting \
                   FROM quarantine WHERE ingest_day < toDate(?) AND (? = '' OR reason = ?)";
        let rows = self.fetch(self.query(sql).bind(before).bind(reason).bind(reason)).await?;
        Ok(rows.into_iter().next().unwrap_or_default())
    }

    /// Deletes rows of old ingest days, and first records which rows. The ledgers do not change: a
    /// quarantined event counts as quarantined for ever.
    ///
    /// [`Error::DayOpen`] if a batch of those days is not committed, because its rows are still
    /// being counted. As [`Warehouse::execute`] otherwise. The journal may then name rows that
    /// still exist; calling this again is safe and deletes them.
    #[boxed]
    pub async fn purge_quarantine(&self, purge: &Purge) -> Result<(), Error> {
        let Purge { before, reason, by, because, now_us } = purge;
        rollup::require_closed(self, before.saturating_sub(1)).await?;
        let sql = "INSERT INTO quarantine_purges SELECT fromUnixTimestamp64Micro(?) AS purged_at, ? AS purged_by, \
                   ? AS because, ingest_day, tenant, reason, count() AS rows, countIf(NOT replayed) AS not_replayed, \
                   sum(length(payload)) AS bytes, \
                   lower(hex(SHA256(arrayStringConcat(arraySort(groupArray(hex(SHA256(payload)))))))) AS sha256, \
                   min(received_at) AS first_received_at, max(received_at) AS last_received_at \
                   FROM quarantine WHERE ingest_day < toDate(?) AND (? = '' OR reason = ?) \
                   GROUP BY ingest_day, tenant, reason";
        let query = self.query(sql).bind(now_us).bind(by).bind(because).bind(before).bind(reason).bind(reason);
        self.execute(query).await?;
        let sql = "ALTER TABLE quarantine DELETE WHERE ingest_day < toDate(?) AND (? = '' OR reason = ?) \
                   SETTINGS mutations_sync = 2";
        self.execute(self.query(sql).bind(before).bind(reason).bind(reason)).await
    }
}

fn condition(filter: &Filter) -> String {
    let mut sql = "(? = '' OR state.reason = ?) AND (? = '' OR state.tenant = ?) AND (? = '' OR state.device = ?) \
                   AND (? = 0 OR toUnixTimestamp64Micro(state.received_at) >= ?) \
                   AND (? = 0 OR toUnixTimestamp64Micro(state.received_at) < ?)"
        .to_owned();
    if !filter.ids.is_empty() {
        sql.push_str(" AND state.id IN ?");
    }
    if filter.waiting {
        sql.push_str(" AND NOT state.replayed");
    }
    sql
}

fn raw(row: PayloadRow) -> Raw {
    let PayloadRow { incarnation, partition, offset, seq, boot_id, reason, tenant, device, topic, source, .. } = row;
    Raw {
        id: Id { incarnation, partition, offset, seq: (boot_id > 0).then_some(seq) },
        reason,
        tenant,
        device,
        topic,
        source,
        received_at: row.received_at,
        payload: unhex(&row.payload),
    }
}

/// What ClickHouse's `hex` wrote.
pub(crate) fn unhex(digits: &str) -> Vec<u8> {
    let nibble = |digit: u8| char::from(digit).to_digit(16).unwrap_or(0) as u8;
    digits.as_bytes().chunks_exact(2).map(|pair| nibble(pair[0]) << 4 | nibble(pair[1])).collect()
}
