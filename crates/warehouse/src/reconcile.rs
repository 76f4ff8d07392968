//! What the warehouse holds of a period, for `reconcile`: ledgers, rows, sums, and the sums
//! computed again from the rows.
//!
//! A period is a range of ingest days. For each shard it covers the offsets from the first batch of
//! the first day up to the first batch after the last day. The loader's ledgers have a state at
//! both offsets. Nothing at or after a shard's position is read, so data that is still on its way
//! makes no difference.

use async_recursion::async_recursion as boxed;
use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;
use telemetry::interval::{Interval, IntervalSet};

use crate::{
    client::Warehouse,
    columns::LedgerRow,
    compare::{Difference, Pair, SPILL},
    error::Error,
    loader::{BootKey, CLOSED, LEDGER_STATE, LedgerStateRow, Shard, earlier_incarnations, key_of, ledger_row, united},
    rollup::{self, Day},
    sql::quoted,
};

/// Batches of one shard that belong to a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub shard: Shard,
    /// First offset of the first batch.
    pub from: u64,
    /// End of the last batch, exclusive. It is never above the shard's position.
    pub to: u64,
}

/// What a reconciliation compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    pub from: Day,
    pub to: Day,
    /// The batches of each shard.
    pub spans: Vec<Span>,
    /// Only this tenant; `None` = all.
    pub tenant: Option<String>,
    /// Only this device; `None` = all.
    pub device: Option<String>,
}

/// Rows of one boot in the event tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Sequence numbers in the tables of facts.
    pub stored: IntervalSet,
    /// Sequence numbers in quarantine.
    pub quarantined: IntervalSet,
    /// Sequence numbers in quarantine with the reason `fragmented`: the ledger had no room for them
    /// and does not know them.
    pub fragmented: IntervalSet,
    /// Ranges of sequence numbers that are stored more than once, with the table and the rows for
    /// each number.
    pub doubled: Vec<(Interval, String, u64)>,
}

/// An event that does not have as many rows as it should have.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Parts {
    pub table: String,
    pub tenant: String,
    pub device: String,
    pub boot_id: u64,
    pub seq: u64,
    /// Rows it should have.
    pub expected: u64,
    pub found: u64,
    /// How many of these rows are different parts of the event.
    pub distinct: u64,
}

/// A count that a device reported, and the number that the tables hold.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ReportedCount {
    pub tenant: String,
    pub device: String,
    /// The session that the count is about; empty = the device's lifetime number.
    pub session_id: String,
    /// Injections according to the device.
    pub said: u64,
    /// Injections in the table.
    pub found: u64,
}

/// Fact tables that hold exactly one row for each of their events, with the SQL condition that
/// selects this row.
const EVENTS: [(&str, &str); 10] = [
    ("injections", ""),
    ("sessions", ""),
    ("preparations", " AND index = 0"),
    ("mounts", ""),
    ("sterilization_cycles", ""),
    ("cycle_indicators", ""),
    ("cycle_releases", ""),
    ("calibrations", " AND index = 0"),
    ("faults", ""),
    ("device_status", " AND source = 'HEARTBEAT' AND seq > 0"),
];

/// The largest number of differences listed for one comparison.
pub const DIFFERENCES_MAX: usize = 1_000;

#[derive(Deserialize)]
struct SpanRow {
    incarnation: u32,
    kafka_partition: i32,
    any: bool,
    from: u64,
    any_after: bool,
    after: u64,
}

#[derive(Deserialize)]
struct RunRow {
    tenant: String,
    device: String,
    boot_id: u64,
    fate: u8,
    copies: u64,
    table: String,
    runs: Vec<(u64, u64)>,
}

impl Scope {
    fn filter(&self) -> String {
        let equal = |column: &str, value: &Option<String>| {
            value.as_ref().map_or_else(String::new, |value| format!(" AND {column} = {}", quoted(value)))
        };
        equal("tenant", &self.tenant) + &equal("device", &self.device)
    }

    /// SQL condition for the rows of the spans. The condition on `ingest_day` only saves reading.
    fn rows(&self, spans: &[Span]) -> String {
        let span = |span: &Span| {
            let Span { shard: Shard { incarnation, partition }, from, to } = span;
            format!(
                "(incarnation = {incarnation} AND kafka_partition = {partition} AND batch >= {from} AND batch < {to})"
            )
        };
        let spans: Vec<String> = spans.iter().filter(|span| span.from < span.to).map(span).collect();
        let spans = if spans.is_empty() { "0".to_owned() } else { spans.join(" OR ") };
        // Two loaders whose clocks differ may give successive batches two neighbouring days.
        let (first, last) = (self.from.saturating_sub(1), self.to.saturating_add(1));
        format!("ingest_day BETWEEN toDate({first}) AND toDate({last}) AND ({spans}){}", self.filter())
    }
}

impl Warehouse {
    /// Today's date (UTC) by the engine's clock.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn today(&self) -> Result<Day, Error> {
        self.row("SELECT toUInt16(toDate(now('UTC')))").await
    }

    /// The batches of a range of ingest days, by shard. A shard without such batches has an empty
    /// span at its position.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn spans(&self, from: Day, to: Day) -> Result<Vec<Span>, Error> {
        let sql = format!(
            "SELECT incarnation, kafka_partition, countIf(ingest_day >= toDate({from})) > 0 AS any, \
                minIf(batch, ingest_day >= toDate({from})) AS from, countIf(ingest_day > toDate({to})) > 0 AS any_after, minIf(batch, ingest_day > toDate({to})) AS after \
             FROM loader_intents GROUP BY incarnation, kafka_partition ORDER BY incarnation, kafka_partition"
        );
        let mut spans = Vec::new();
        for row in self.rows::<SpanRow>(&sql).await? {
            let shard = Shard { incarnation: row.incarnation, partition: row.kafka_partition };
            let progress = self.progress(shard).await?;
            // A shard of a closed incarnation is written up to the offset at which it was closed.
            let closed = progress.commit.filter(|commit| commit.batch_end == CLOSED).map(|commit| commit.batch);
            let position = closed.or(progress.position()).unwrap_or(0);
            let to = if row.any_after { position.min(row.after) } else { position };
            let from = if row.any { row.from.min(to) } else { to };
            spans.push(Span { shard, from, to });
        }
        Ok(spans)
    }

    /// Ledgers of every boot in scope at the start of the batch at `as_of`. As in
    /// [`Warehouse::ledgers`], a boot without a state in this incarnation of the topic has the
    /// union of its states in the earlier ones, from all partitions.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn ledgers_of(&self, shard: Shard, as_of: u64, scope: &Scope) -> Result<Vec<LedgerRow>, Error> {
        let Shard { incarnation, partition } = shard;
        let filter = scope.filter().replace("AND tenant", "AND loader_commits.tenant");
        let filter = filter.replace("AND device", "AND loader_commits.device");
        let states = async |of: &str| -> Result<Vec<LedgerRow>, Error> {
            let sql = format!(
                "SELECT {LEDGER_STATE} FROM loader_commits WHERE kind = 'ledger' AND {of}{filter} \
                 GROUP BY tenant, device, boot_id, incarnation, kafka_partition{SPILL}"
            );
            let rows: Vec<LedgerStateRow> = self.rows(&sql).await?;
            Ok(rows.into_iter().map(ledger_row).collect())
        };
        let own = format!("incarnation = {incarnation} AND kafka_partition = {partition} AND batch_end <= {as_of}");
        let own = states(&own).await?;
        let there: HashSet<BootKey> = own.iter().map(key_of).collect();
        let mut ledgers = united(states(&earlier_incarnations(incarnation)).await?);
        ledgers.retain(|row| !there.contains(&key_of(row)));
        ledgers.extend(own);
        Ok(ledgers)
    }

    /// The rows of one span by boot.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn rows_of(&self, span: Span, scope: &Scope) -> Result<BTreeMap<BootKey, Rows>, Error> {
        let of = scope.rows(&[span]);
        let event = |(table, condition): &(&str, &str)| {
            format!(
                "SELECT toString(tenant) AS tenant, toString(device) AS device, boot_id, seq, 0 AS fate, '{table}' AS table \
                 FROM {table} WHERE {of}{condition}"
            )
        };
        let mut events: Vec<String> = EVENTS.iter().map(event).collect();
        // One event may be refused as fragmented in several batches. Only two rows of the same
        // record are copies.
        events.push(format!(
            "SELECT toString(tenant) AS tenant, toString(device) AS device, boot_id, seq, \
                if(reason = 'fragmented', 2, 1) AS fate, 'quarantine' AS table \
             FROM quarantine WHERE {of} AND seq > 0 AND source = 'loader'"
        ));
        let sql = format!(
            "SELECT tenant, device, boot_id, fate, copies, table, arraySort(groupArray((first, last))) AS runs FROM ( \
                SELECT tenant, device, boot_id, fate, copies, table, min(seq) AS first, max(seq) AS last FROM ( \
                    SELECT tenant, device, boot_id, toUInt8(fate) AS fate, seq, count() AS copies, \
                        if(copies > 1, min(table), '') AS table, \
                        seq - row_number() OVER (PARTITION BY tenant, device, boot_id, fate, copies, table ORDER BY seq) AS island \
                    FROM ({}) GROUP BY tenant, device, boot_id, fate, seq \
                ) GROUP BY tenant, device, boot_id, fate, copies, table, island \
             ) GROUP BY tenant, device, boot_id, fate, copies, table{SPILL}",
            events.join(" UNION ALL ")
        );
        let mut boots: BTreeMap<BootKey, Rows> = BTreeMap::new();
        for row in self.rows::<RunRow>(&sql).await? {
            let key = BootKey { tenant: row.tenant, device: row.device, boot_id: row.boot_id };
            let rows = boots.entry(key).or_default();
            for (first, last) in row.runs {
                let run = Interval::new(first, last);
                match row.fate {
                    0 => rows.stored.insert(run),
                    1 => rows.quarantined.insert(run),
                    _ => rows.fragmented.insert(run),
                }
                if row.copies > 1 && row.fate < 2 {
                    rows.doubled.push((run, row.table.clone(), row.copies));
                }
            }
        }
        Ok(boots)
    }

    /// Events of several rows that do not have all of them.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn incomplete_events(&self, scope: &Scope) -> Result<Vec<Parts>, Error> {
        let of = scope.rows(&scope.spans);
        const KEY: &str = "tenant, device, boot_id, seq";
        let own = |table: &str, count: &str| {
            format!(
                "SELECT '{table}' AS table, {KEY}, toUInt64(greatest(max({count}), 1)) AS expected, count() AS found, \
                    uniqExact(index) AS distinct FROM {table} WHERE {of} GROUP BY {KEY}"
            )
        };
        let child = |table: &str, count: &str| {
            format!(
                "SELECT '{table}' AS table, {KEY}, sum(said) AS expected, countIf(part) AS found, uniqExactIf(number, part) AS distinct \
                 FROM (SELECT {KEY}, toUInt64({count}) AS said, 0 AS part, 0 AS number FROM sterilization_cycles WHERE {of} \
                    UNION ALL SELECT {KEY}, 0, 1, index FROM {table} WHERE {of}) GROUP BY {KEY}"
            )
        };
        let all = [
            own("preparations", "components"),
            own("calibrations", "points"),
            child("sterilization_samples", "samples"),
            child("sterilization_items", "items"),
        ];
        let sql = format!(
            "SELECT table, toString(tenant) AS tenant, toString(device) AS device, boot_id, seq, expected, found, distinct \
             FROM ({}) WHERE expected != found OR found != distinct ORDER BY ALL LIMIT {DIFFERENCES_MAX}{SPILL}",
            all.join(" UNION ALL ")
        );
        self.rows(&sql).await
    }

    /// Sessions that ended in the period and reported another number of injections than the table
    /// holds, over all days.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn sessions_told(&self, scope: &Scope) -> Result<Vec<ReportedCount>, Error> {
        let (of, filter) = (scope.rows(&scope.spans), scope.filter());
        let ended = format!("{of} AND event = 'ENDED' AND shots IS NOT NULL AND session_id != ''");
        let sql = format!(
            "SELECT toString(ended.tenant) AS tenant, toString(ended.device) AS device, ended.session_id AS session_id, \
                ended.said AS said, made.found AS found \
             FROM (SELECT tenant, device, session_id, toUInt64(assumeNotNull(max(shots))) AS said FROM sessions \
                WHERE {ended} GROUP BY tenant, device, session_id) AS ended \
             LEFT JOIN (SELECT tenant, device, session_id, uniqExact(boot_id, seq) AS found FROM injections \
                WHERE session_id IN (SELECT session_id FROM sessions WHERE {ended}){filter} GROUP BY tenant, device, session_id) AS made \
             USING (tenant, device, session_id) WHERE said != found ORDER BY ALL{SPILL}"
        );
        self.rows(&sql).await
    }

    /// Devices with missing lifetime numbers: some number between the smallest and the greatest of
    /// the period is not in the table.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn numbers_told(&self, scope: &Scope, settled: i64) -> Result<Vec<ReportedCount>, Error> {
        let (of, filter) = (scope.rows(&scope.spans), scope.filter());
        let sql = format!(
            "SELECT toString(told.tenant) AS tenant, toString(told.device) AS device, '' AS session_id, \
                toUInt64(any(told.last) - least(greatest(any(told.first), min(made.injection_no)), any(told.last)) + 1) AS said, \
                uniqExactIf(made.injection_no, made.injection_no BETWEEN told.first AND told.last) AS found \
             FROM (SELECT tenant, device, assumeNotNull(injection_no) AS injection_no FROM injections \
                WHERE injection_no IS NOT NULL{filter}) AS made \
             INNER JOIN (SELECT tenant, device, min(number) AS first, max(number) AS last FROM ( \
                    SELECT tenant, device, assumeNotNull(injection_no) AS number FROM injections WHERE {of} AND injection_no IS NOT NULL \
                    UNION ALL SELECT tenant, device, assumeNotNull(injection_no) FROM device_status \
                    WHERE {of} AND injection_no > 0 AND received_at <= fromUnixTimestamp64Micro({settled}) \
                ) GROUP BY tenant, device) AS told USING (tenant, device) \
             GROUP BY told.tenant, told.device HAVING said != found ORDER BY ALL{SPILL}"
        );
        self.rows(&sql).await
    }

    /// Aggregates that differ from the sums over the base rows, and rollups that differ from the
    /// sums of their minutes, as (table, difference). Left is what the aggregate holds, right what
    /// it should hold.
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn wrong_sums(&self, scope: &Scope) -> Result<Vec<(&'static str, Difference)>, Error> {
        let of = scope.rows(&scope.spans);
        let mut wrong = Vec::new();
        for sums in sums(&of) {
            let keys: Vec<&str> = sums.keys.split(", ").collect();
            let columns: Vec<&str> = sums.columns.split(", ").collect();
            let pair = Pair { left: &sums.found, right: &sums.expected, keys: &keys, columns: &columns };
            let differences = pair.differences(self, DIFFERENCES_MAX).await?;
            wrong.extend(differences.into_iter().map(|difference| (sums.table, difference)));
        }
        let (from, to, filter) = (scope.from, scope.to, scope.filter());
        for (table, unit, start) in rollup::units() {
            let days = format!("ingest_day BETWEEN toDate({from}) AND toDate({to}){filter}");
            let (names, minutes) = rollup::sums();
            let key = rollup::KEY;
            let rolled = format!("SELECT ingest_day, {key}, {unit}, {names} FROM {table} WHERE {days}");
            // A day without a rollup is not closed yet.
            let expected = format!(
                "SELECT ingest_day, {key}, {start} AS {unit}, {minutes} FROM accuracy_minute AS minutes \
                 WHERE {days} AND ingest_day IN (SELECT DISTINCT ingest_day FROM {table}) GROUP BY ingest_day, {key}, {unit}"
            );
            let keys: Vec<&str> = ["ingest_day"].into_iter().chain(key.split(", ")).chain([unit]).collect();
            let columns: Vec<&str> = names.split(", ").collect();
            let pair = Pair { left: &rolled, right: &expected, keys: &keys, columns: &columns };
            let differences = pair.differences(self, DIFFERENCES_MAX).await?;
            wrong.extend(differences.into_iter().map(|difference| (table, difference)));
        }
        Ok(wrong)
    }
}

/// An aggregate table, with SQL that computes the same from the base rows.
struct Sums {
    table: &'static str,
    keys: String,
    columns: String,
    found: String,
    expected: String,
}

/// The sums of the accuracy tables over the base rows, in the order of the rollup's columns.
const FROM_BASE: &str = "count() AS injections, \
    countIf(dose) AS dose_n, ifNull(sumIf(target_nl, dose), 0) AS dose_target_nl, \
    ifNull(sumIf(delivered_nl, dose), 0) AS dose_delivered_nl, ifNull(sumIf(dose_error, dose), 0) AS dose_error_nl, \
    ifNull(sumIf(dose_error * dose_error, dose), 0) AS dose_error_sq, minIf(dose_error, dose) AS dose_error_min, \
    maxIf(dose_error, dose) AS dose_error_max, \
    countIf(depth) AS depth_n, ifNull(sumIf(target_um, depth), 0) AS depth_target_um, \
    ifNull(sumIf(measured_um, depth), 0) AS depth_measured_um, ifNull(sumIf(depth_error, depth), 0) AS depth_error_um, \
    ifNull(sumIf(depth_error * depth_error, depth), 0) AS depth_error_sq, minIf(depth_error, depth) AS depth_error_min, \
    maxIf(depth_error, depth) AS depth_error_max, countIf(outcome = 'OK') AS ok, countIf(outcome = 'PARTIAL') AS partial, \
    countIf(outcome = 'ABORTED') AS aborted, countIf(outcome = 'OCCLUDED') AS occluded, \
    countIf(outcome = 'NO_CONTACT') AS no_contact, min(at) AS first_at, max(at) AS last_at";

const MEASURED: &str = "base.delivered_nl IS NOT NULL AND base.target_nl IS NOT NULL AND base.dose_source != 'SETTING' AS dose, \
    base.measured_um IS NOT NULL AND base.target_um IS NOT NULL AND base.depth_source != 'SETTING' AS depth, \
    toInt64(base.delivered_nl) - toInt64(base.target_nl) AS dose_error, \
    toInt64(base.measured_um) - toInt64(base.target_um) AS depth_error";

fn sums(of: &str) -> [Sums; 3] {
    let device = "tenant, site, device, model, firmware";
    let (names, partial) = rollup::sums();
    let partial = partial.replace("minutes.", "sums.");
    let base = format!("(SELECT *, {MEASURED} FROM injections AS base WHERE {of})");
    let session = format!("{device}, session_id, dose_calibration_id, depth_calibration_id, set_nl, set_um, outcome");
    let session_of =
        "session_id, dose_calibration_id, depth_calibration_id, target_nl AS set_nl, target_um AS set_um, outcome";
    let item = "tenant, site, device, session_id, slot, mount_id, item_id";
    let uses = "injections, punctures, delivered_nl, delivered_n, undated, first_at, last_at";
    let minute = format!("{device}, minute");
    [
        Sums {
            table: "accuracy_minute",
            found: format!("SELECT {minute}, {partial} FROM accuracy_minute AS sums WHERE {of} GROUP BY {minute}"),
            expected: format!(
                "SELECT {device}, toStartOfMinute(at) AS minute, {FROM_BASE} FROM {base} GROUP BY {minute}"
            ),
            keys: minute,
            columns: names.clone(),
        },
        Sums {
            table: "accuracy_session",
            found: format!(
                "SELECT {device}, {session_of}, {partial}, sumMap(dose_error_bins, dose_error_counts) AS histogram \
                 FROM accuracy_session AS sums WHERE {of} GROUP BY {session}"
            ),
            expected: format!(
                "SELECT {device}, {session_of}, {FROM_BASE}, \
                    sumMapIf([toInt32(floor(100 * dose_error / greatest(target_nl, 1)))], [toUInt64(1)], dose AND target_nl > 0) AS histogram \
                 FROM {base} GROUP BY {session}"
            ),
            keys: session,
            columns: format!("{names}, histogram"),
        },
        Sums {
            table: "item_uses",
            // Base rows name one mount for each of these slots. Other mounts in use are in the
            // reports only.
            found: format!(
                "SELECT {item}, sum(sums.injections) AS injections, sum(sums.punctures) AS punctures, \
                    sum(sums.delivered_nl) AS delivered_nl, sum(sums.delivered_n) AS delivered_n, sum(sums.undated) AS undated, \
                    min(sums.first_at) AS first_at, max(sums.last_at) AS last_at FROM item_uses AS sums \
                 WHERE {of} AND slot IN ('NEEDLE', 'SYRINGE', 'HANDPIECE') AND (mount_id != '' OR item_id != '') GROUP BY {item}"
            ),
            expected: format!(
                "SELECT {item}, count() AS injections, sum(ifNull(base.punctures, 1)) AS punctures, \
                    sum(ifNull(base.delivered_nl, 0)) AS delivered_nl, count(base.delivered_nl) AS delivered_n, countIf(time_source != 'DEVICE') AS undated, \
                    min(at) AS first_at, max(at) AS last_at FROM (SELECT * FROM injections WHERE {of}) AS base \
                 ARRAY JOIN ['NEEDLE', 'SYRINGE', 'HANDPIECE'] AS slot, \
                    [needle_mount_id, syringe_mount_id, handpiece_mount_id] AS mount_id, \
                    [needle_item_id, syringe_item_id, handpiece_item_id] AS item_id \
                 WHERE mount_id != '' OR item_id != '' GROUP BY {item}"
            ),
            keys: item.to_owned(),
            columns: uses.to_owned(),
        },
    ]
}
