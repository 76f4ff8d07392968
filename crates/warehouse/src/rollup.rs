//! Rollups of closed ingest days: hour and day from the minute.
//!
//! Late data lands in the ingest day of its batch, so a closed ingest day never changes, and its
//! rollup is made once. It is made beside the table and swapped in whole: a reader sees all of it
//! or what was there before.

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

#[derive(Deserialize)]
struct DayState {
    text: String,
    id: String,
    over: bool,
    open_shards: u64,
    example: String,
    suffix: String,
}

/// Makes the rollups of an ingest day and swaps them in. Doing it again gives the same.
///
/// # Errors
/// [`Error::DayOpen`] when the day is not over or a batch of it, or of a day before, is not
/// committed; as [`Warehouse::execute`] otherwise.
#[boxed]
pub async fn close_day(warehouse: &Warehouse, day: Day) -> Result<(), Error> {
    let DayState { text, id, suffix, .. } = closed(warehouse, day).await?;
    for rollup in &ROLLUPS {
        sweep(warehouse, rollup).await?;
        let beside = format!("{}_closing_{suffix}", rollup.table);
        warehouse.command(&format!("CREATE TABLE {beside} AS {}", rollup.table)).await?;
        let swapped = swap(warehouse, rollup, day, &id, &beside).await;
        // The rollup stands or falls with the swap; a table left behind is swept away later.
        let dropped = warehouse.command(&format!("DROP TABLE IF EXISTS {beside}")).await;
        swapped.and(dropped)?;
    }
    info!(day = text, "closed ingest day");
    Ok(())
}

/// Ingest days that are over, have minutes and have no rollup yet, ascending: what a timer closes.
/// An hour after midnight is early enough, and late enough for a loader whose clock is behind.
///
/// # Errors
/// As [`Warehouse::fetch`].
#[boxed]
pub async fn due(warehouse: &Warehouse) -> Result<Vec<Day>, Error> {
    let sql = "SELECT toUInt16(toDateOrZero(partition)) AS day FROM system.parts \
               WHERE database = ? AND active AND table IN ('accuracy_minute', 'accuracy_day') \
               AND toDateOrZero(partition) < toDate(now('UTC') - 3600) \
               GROUP BY day HAVING countIf(table = 'accuracy_day') = 0 ORDER BY day";
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

async fn swap(warehouse: &Warehouse, rollup: &Rollup, day: Day, id: &str, beside: &str) -> Result<(), Error> {
    let Rollup { table, unit, start } = rollup;
    let names: Vec<_> = COLUMNS.iter().map(|(name, _)| *name).collect();
    let sums: Vec<_> = COLUMNS.iter().map(|(name, aggregate)| format!("{aggregate}(minutes.{name})")).collect();
    let (names, sums) = (names.join(", "), sums.join(", "));
    let insert = format!(
        "INSERT INTO {beside} ({KEY}, {unit}, {names}, ingest_day) \
         SELECT {KEY}, {start} AS start, {sums}, toDate({day}) \
         FROM accuracy_minute AS minutes WHERE minutes.ingest_day = toDate({day}) GROUP BY {KEY}, start"
    );
    warehouse.command(&insert).await?;
    let rows: u64 = warehouse.row(&format!("SELECT count() FROM {beside}")).await?;
    // ClickHouse refuses to swap in what is empty.
    let change = if rows > 0 {
        format!("REPLACE PARTITION ID '{id}' FROM {beside}")
    } else {
        format!("DROP PARTITION ID '{id}'")
    };
    warehouse.command(&format!("ALTER TABLE {table} {change}")).await
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
    use crate::migrate::MIGRATIONS;

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
