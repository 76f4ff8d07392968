//! Rollups of closed ingest days: hour and day from the minute.
//!
//! Late data lands in the ingest day of its batch, so a closed ingest day never changes, and its
//! rollup is made once: by one INSERT of one block, which a reader sees whole or not at all. The
//! block has the same deduplication token for every writer, so only the first write counts. No
//! table is made for it: a disk that is full at that moment leaves half of a table, and the engine
//! may not start again with that.
//!
//! What does not do: a permanent table beside, from which `REPLACE PARTITION` takes the day (its
//! partition would have to have the name of the day, so two that close the day would share it, and
//! one could take what the other has half written); `DROP PARTITION` before the INSERT (a reader
//! would see the day gone, and a crash would leave it so).
//!
//! Only [`replace_day`], which `doseline rebuild` needs now and then, makes a table.

use async_recursion::async_recursion as boxed;
use serde::Deserialize;
use tracing::info;

use crate::{client::Warehouse, error::Error};

/// A day as days since 1970-01-01, UTC: ClickHouse's `Date`.
pub type Day = u16;

/// The day that `YYYY-MM-DD` names, 1970 to 2099.
pub fn parse_day(text: &str) -> Option<Day> {
    let us = crate::registry::unix_us(text).filter(|_| text.len() == "YYYY-MM-DD".len())?;
    Day::try_from(us / 86_400_000_000).ok()
}

/// A day as `YYYY-MM-DD`.
pub fn day_text(day: Day) -> String {
    // The civil calendar from days, in years that begin in March (Hinnant, "chrono-compatible date
    // algorithms").
    let days = u32::from(day) + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let of_march = (5 * of_year + 2) / 153;
    let (month, date) =
        (if of_march < 10 { of_march + 3 } else { of_march - 9 }, of_year - (153 * of_march + 2) / 5 + 1);
    format!("{:04}-{month:02}-{date:02}", year + era * 400 + u32::from(month <= 2))
}

struct Rollup {
    table: &'static str,
    unit: &'static str,
    start: &'static str,
}

const ROLLUPS: [Rollup; 2] = [
    Rollup { table: "accuracy_hour", unit: "hour", start: "toStartOfHour(minute)" },
    Rollup { table: "accuracy_day", unit: "day", start: "toDate(minute)" },
];

/// Key of the rollups beside the unit of time.
pub(crate) const KEY: &str = "tenant, site, device, model, firmware";

/// Columns of `accuracy_minute` beside key and provenance, with the aggregate that combines rows.
const COLUMNS: &[(&str, &str)] = &[
    ("injections", "sum"),
    ("dose_n", "sum"),
    ("dose_target_nl", "sum"),
    ("dose_delivered_nl", "sum"),
    ("dose_error_nl", "sum"),
    ("dose_error_sq", "sum"),
    ("dose_error_min", "min"),
    ("dose_error_max", "max"),
    ("depth_n", "sum"),
    ("depth_target_um", "sum"),
    ("depth_measured_um", "sum"),
    ("depth_error_um", "sum"),
    ("depth_error_sq", "sum"),
    ("depth_error_min", "min"),
    ("depth_error_max", "max"),
    ("ok", "sum"),
    ("partial", "sum"),
    ("aborted", "sum"),
    ("occluded", "sum"),
    ("no_contact", "sum"),
    ("first_at", "min"),
    ("last_at", "max"),
];

/// How old a table that was left by an interrupted rollup must be to be swept away.
const LEFTOVER_AGE_S: u32 = 3_600;

/// Tokens that are tried for one rollup.
const ATTEMPTS_MAX: u32 = 8;
/// What makes an INSERT of a SELECT one block, one part, under one token.
const ONE_BLOCK: [(&str, &str); 9] = [
    ("insert_deduplicate", "1"),
    ("deduplicate_insert", "enable"),
    ("deduplicate_insert_select", "force_enable"),
    ("max_insert_threads", "1"),
    // All blocks are squashed into one.
    ("min_insert_block_size_rows", "1000000000000"),
    ("min_insert_block_size_bytes", "0"),
    ("use_strict_insert_block_limits", "0"),
    // As for the inserts of the loader.
    ("min_free_disk_bytes_to_perform_insert", "134217728"),
    ("max_partitions_per_insert_block", "1"),
];

#[derive(Deserialize)]
struct DayState {
    text: String,
    id: String,
    over: bool,
    open_shards: u64,
    example: String,
    suffix: String,
}

/// Makes the rollups of an ingest day that do not stand yet. Doing it again changes nothing.
///
/// # Errors
/// [`Error::DayOpen`] when the day is not over or a batch of it, or of a day before, is not
/// committed; as [`Warehouse::execute`] otherwise.
#[boxed]
pub async fn close_day(warehouse: &Warehouse, day: Day) -> Result<(), Error> {
    let DayState { text, id, .. } = closed(warehouse, day).await?;
    for rollup in &ROLLUPS {
        fill(warehouse, rollup, day, &id).await?;
    }
    info!(day = text, "closed ingest day");
    Ok(())
}

/// Makes the rollups of an ingest day whose minutes were replaced, beside the tables, and swaps
/// them in: a reader sees all of a new rollup or all of the old one. Doing it again gives the same.
///
/// # Errors
/// As [`close_day`].
#[boxed]
pub async fn replace_day(warehouse: &Warehouse, day: Day) -> Result<(), Error> {
    // Uses up the day's token. Another loader that is about to close the day then adds no rows to
    // those that are swapped in.
    close_day(warehouse, day).await?;
    let DayState { id, suffix, .. } = closed(warehouse, day).await?;
    for rollup in &ROLLUPS {
        sweep(warehouse, rollup).await?;
        let beside = format!("{}_closing_{suffix}", rollup.table);
        warehouse.command(&format!("CREATE TABLE {beside} AS {}", rollup.table)).await?;
        let swapped = swap(warehouse, rollup, day, &id, &beside).await;
        // The rollup stands or falls with the swap; a table left behind is swept away later.
        let dropped = warehouse.command(&format!("DROP TABLE IF EXISTS {beside}")).await;
        swapped.and(dropped)?;
    }
    Ok(())
}

/// Ingest days that are over, have minutes and lack a rollup, ascending: what a timer closes.
/// An hour after midnight is early enough, and late enough for a loader whose clock is behind.
///
/// # Errors
/// As [`Warehouse::fetch`].
#[boxed]
pub async fn due(warehouse: &Warehouse) -> Result<Vec<Day>, Error> {
    let sql = "SELECT toUInt16(toDateOrZero(partition)) AS day FROM system.parts \
               WHERE database = ? AND active AND table IN ('accuracy_minute', 'accuracy_hour', 'accuracy_day') \
               AND toDateOrZero(partition) < toDate(now('UTC') - 3600) \
               GROUP BY day HAVING sumIf(rows, table = 'accuracy_minute') > 0 \
               AND least(sumIf(rows, table = 'accuracy_hour'), sumIf(rows, table = 'accuracy_day')) = 0 ORDER BY day";
    warehouse.fetch(warehouse.query(sql).bind(warehouse.database())).await
}

/// Closes every day that is [`due`], the oldest first.
///
/// # Errors
/// As [`close_day`]; the days before stay closed.
#[boxed]
pub async fn close_due(warehouse: &Warehouse) -> Result<(), Error> {
    for day in due(warehouse).await? {
        close_day(warehouse, day).await?;
    }
    Ok(())
}

/// The state of a day that is over and whose batches, and those of the days before, are all
/// committed.
async fn closed(warehouse: &Warehouse, day: Day) -> Result<DayState, Error> {
    let state = day_state(warehouse, day).await?;
    let DayState { text, over, open_shards, example, .. } = &state;
    if !over {
        let fault = "it is not over; close it after midnight UTC".to_owned();
        return Err(Error::DayOpen { day: text.clone(), fault });
    }
    if *open_shards > 0 {
        let fault =
            format!("{open_shards} partitions have a batch that is not committed, e.g. {example}; wait for the loader");
        return Err(Error::DayOpen { day: text.clone(), fault });
    }
    Ok(state)
}

/// Refuses a day that is not closed; otherwise the day as `YYYY-MM-DD`, and the id of its
/// partitions.
///
/// # Errors
/// [`Error::DayOpen`]; as [`Warehouse::fetch`].
#[boxed]
pub async fn require_closed(warehouse: &Warehouse, day: Day) -> Result<(String, String), Error> {
    closed(warehouse, day).await.map(|state| (state.text, state.id))
}

/// Table, unit and start of the unit in terms of `minute`, of each rollup.
pub(crate) fn units() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    ROLLUPS.iter().map(|rollup| (rollup.table, rollup.unit, rollup.start))
}

/// Names of the summed columns, and the sums of a table named `minutes` under these names.
pub(crate) fn sums() -> (String, String) {
    let names: Vec<_> = COLUMNS.iter().map(|(name, _)| *name).collect();
    let sum = |(name, aggregate): &(&str, &str)| format!("{aggregate}(minutes.{name}) AS {name}");
    (names.join(", "), COLUMNS.iter().map(sum).collect::<Vec<_>>().join(", "))
}

async fn day_state(warehouse: &Warehouse, day: Day) -> Result<DayState, Error> {
    // A shard's batches are written one after the other: what its latest commit does not cover is
    // open.
    let sql = format!(
        "SELECT toString(toDate({day})) AS text, toString(toYYYYMMDD(toDate({day}))) AS id, \
            toDate({day}) < toDate(now('UTC')) AS over, \
            countIf(position <= intended) AS open_shards, \
            anyIf(concat('incarnation ', toString(incarnation), ' partition ', toString(kafka_partition), ' offset ', \
                toString(intended)), position <= intended) AS example, \
            replaceAll(toString(generateUUIDv4()), '-', '') AS suffix \
         FROM ( \
            SELECT incarnation, kafka_partition, max(batch) AS intended FROM loader_intents \
            WHERE ingest_day <= toDate({day}) GROUP BY incarnation, kafka_partition \
         ) AS intents \
         LEFT JOIN ( \
            SELECT incarnation, kafka_partition, max(batch_end) AS position FROM loader_commits \
            WHERE kind = 'commit' GROUP BY incarnation, kafka_partition \
         ) AS commits USING (incarnation, kafka_partition)"
    );
    warehouse.row(&sql).await
}

/// Writes the rollup of a day that has none.
async fn fill(warehouse: &Warehouse, rollup: &Rollup, day: Day, id: &str) -> Result<(), Error> {
    let table = rollup.table;
    let stands = format!(
        "SELECT assumeNotNull((SELECT sum(rows) FROM system.parts WHERE database = currentDatabase() \
            AND table = '{table}' AND active AND partition_id = '{id}')) > 0 \
         OR assumeNotNull((SELECT count() FROM accuracy_minute WHERE ingest_day = toDate({day}))) = 0"
    );
    for attempt in 0..ATTEMPTS_MAX {
        if warehouse.row::<bool>(&stands).await? {
            return Ok(());
        }
        // Where power fails, a token may outlive its rows: then the next one counts.
        let token = format!("rollup/{table}/{id}/{attempt}");
        // In a fixed order, because the engine takes tokens for nothing else.
        let insert = format!("{} ORDER BY ALL", insert_into(rollup, day, table));
        let mut query = warehouse.client().query_raw(&insert).with_setting("insert_deduplication_token", token);
        for (name, value) in ONE_BLOCK {
            query = query.with_setting(name, value);
        }
        warehouse.execute(query).await?;
    }
    if warehouse.row::<bool>(&stands).await? {
        return Ok(());
    }
    let fault = format!("{ATTEMPTS_MAX} inserts into {table} were answered and left no rows; look at ClickHouse's log");
    Err(Error::DayOpen { day: day_text(day), fault })
}

/// The sums of a day, into a table.
fn insert_into(rollup: &Rollup, day: Day, into: &str) -> String {
    let Rollup { unit, start, .. } = rollup;
    let names: Vec<_> = COLUMNS.iter().map(|(name, _)| *name).collect();
    let sums: Vec<_> = COLUMNS.iter().map(|(name, aggregate)| format!("{aggregate}(minutes.{name})")).collect();
    let (names, sums) = (names.join(", "), sums.join(", "));
    format!(
        "INSERT INTO {into} ({KEY}, {unit}, {names}, ingest_day) \
         SELECT {KEY}, {start} AS start, {sums}, toDate({day}) \
         FROM accuracy_minute AS minutes WHERE minutes.ingest_day = toDate({day}) GROUP BY {KEY}, start"
    )
}

async fn swap(warehouse: &Warehouse, rollup: &Rollup, day: Day, id: &str, beside: &str) -> Result<(), Error> {
    warehouse.command(&insert_into(rollup, day, beside)).await?;
    let rows: u64 = warehouse.row(&format!("SELECT count() FROM {beside}")).await?;
    // ClickHouse refuses to swap in what is empty. DROP PARTITION would forget the day's token.
    let change = if rows > 0 {
        format!("REPLACE PARTITION ID '{id}' FROM {beside}")
    } else {
        format!("DELETE IN PARTITION ID '{id}' WHERE true SETTINGS mutations_sync = 2")
    };
    warehouse.command(&format!("ALTER TABLE {} {change}", rollup.table)).await
}

async fn sweep(warehouse: &Warehouse, rollup: &Rollup) -> Result<(), Error> {
    let sql = "SELECT name FROM system.tables WHERE database = ? AND startsWith(name, ?) \
               AND metadata_modification_time < now() - ?";
    let query = warehouse.query(sql).bind(warehouse.database());
    let query = query.bind(format!("{}_closing_", rollup.table)).bind(LEFTOVER_AGE_S);
    for leftover in warehouse.fetch::<String>(query).await? {
        warehouse.command(&format!("DROP TABLE IF EXISTS {leftover}")).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrations::MIGRATIONS;

    #[test]
    fn days_have_names() {
        for day in [0, 58, 59, 364, 365, 11_016, 11_017, 20_781, 47_481] {
            assert_eq!(parse_day(&day_text(day)), Some(day), "{}", day_text(day));
        }
        assert_eq!(day_text(20_781), "2026-11-24");
        assert_eq!(parse_day("2026-11-24T00:00:00Z"), None);
        assert_eq!(parse_day("yesterday"), None);
    }

    #[test]
    fn every_column_of_the_rollups_is_filled() {
        let sql = MIGRATIONS.iter().find(|migration| migration.name == "0008_accuracy").unwrap().sql;
        let table = sql.split("CREATE TABLE IF NOT EXISTS accuracy_hour\n(\n").nth(1).unwrap();
        let columns = table.split("\n)").next().unwrap().lines().map(|line| line.split_whitespace().next().unwrap());
        let filled: Vec<_> = KEY.split(", ").chain(["hour"]).chain(COLUMNS.iter().map(|(name, _)| *name)).collect();
        assert_eq!(columns.collect::<Vec<_>>(), [filled, vec!["ingest_day"]].concat());
    }
}
