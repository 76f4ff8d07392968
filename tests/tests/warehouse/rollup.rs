//! Rollups of closed ingest days.

use std::time::Duration;

use dashboard::Dashboard;
use harness::{ClickHouse, poll};
use tokio_util::sync::CancellationToken;
use warehouse::{Advice, Error, rollup};

use super::migrated;

const SUMS: &str = "count() > 0, sum(injections), sum(dose_n), sum(dose_target_nl), sum(dose_delivered_nl), \
                    sum(dose_error_nl), sum(dose_error_sq), min(dose_error_min), max(dose_error_max), sum(depth_n), \
                    sum(depth_target_um), sum(depth_measured_um), sum(depth_error_um), sum(depth_error_sq), \
                    min(depth_error_min), max(depth_error_max), sum(ok), sum(partial), sum(aborted), sum(occluded), \
                    sum(no_contact), min(first_at), max(last_at)";

/// The latest day that is due for a rollup, days since 1970, by the engine's clock: it has been
/// over for an hour.
fn yesterday(clickhouse: &ClickHouse) -> u16 {
    u16::try_from(clickhouse.number("SELECT toUInt16(toDate(now('UTC') - 3600) - 1)")).unwrap()
}

fn fill(clickhouse: &ClickHouse, day: u16, seed: u32) {
    clickhouse.query(&format!(
        "INSERT INTO doseline.accuracy_minute (tenant, site, device, model, firmware, minute, injections, dose_n, \
            dose_target_nl, dose_delivered_nl, dose_error_nl, dose_error_sq, dose_error_min, dose_error_max, depth_n, \
            depth_target_um, depth_measured_um, depth_error_um, depth_error_sq, depth_error_min, depth_error_max, \
            ok, partial, aborted, occluded, no_contact, first_at, last_at, ingest_day, batch) \
         SELECT 'acme', 'paris', concat('pen-', toString(number % 7)), 'MX', toString(number % 3), \
            toStartOfMinute(toDateTime({day} * 86400, 'UTC') - (rand(1 + {seed}) % 300000)) AS minute, \
            rand(2) % 60, rand(3) % 60, rand(4) % 1000000, rand(5) % 1000000, toInt64(rand(6) % 1000) - 500, \
            rand(7), if(rand(8) % 3 = 0, NULL, toInt32(rand(9) % 1000) - 500), \
            if(rand(8) % 3 = 0, NULL, toInt32(rand(10) % 1000)), rand(11) % 60, rand(12) % 100000, rand(13) % 100000, \
            toInt64(rand(14) % 1000) - 500, rand(15), NULL, NULL, rand(16) % 9, rand(17) % 9, rand(18) % 9, \
            rand(19) % 9, rand(20) % 9, minute, minute + 59, toDate({day}), {seed} * 100000 + number \
         FROM numbers(20000)"
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn hours_and_days_add_up_to_the_minutes() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    let day = yesterday(&clickhouse);
    fill(&clickhouse, day, 1);
    fill(&clickhouse, day - 1, 2);
    let sums = |table: &str, by: &str| {
        clickhouse.query(&format!(
            "SELECT tenant, site, device, model, firmware, {by} AS start, {SUMS} FROM doseline.{table} \
             WHERE ingest_day = toDate({day}) GROUP BY tenant, site, device, model, firmware, start ORDER BY ALL"
        ))
    };
    let rows = |table: &str| clickhouse.number(&format!("SELECT count() FROM doseline.{table}"));
    assert_eq!(rollup::due(&warehouse).await.unwrap(), [day - 1, day]);
    // A repetition, even two at once, gives the same rows.
    for _ in 0..2 {
        let (left, right) = tokio::join!(rollup::close_day(&warehouse, day), rollup::close_day(&warehouse, day));
        left.unwrap();
        right.unwrap();
        assert_eq!(sums("accuracy_hour", "hour"), sums("accuracy_minute", "toStartOfHour(minute)"));
        assert_eq!(sums("accuracy_day", "day"), sums("accuracy_minute", "toDate(minute)"));
    }
    let hours = rows("accuracy_hour");
    assert!(hours > rows("accuracy_day") && hours < rows("accuracy_minute"));
    // Another ingest day is kept beside it, and a day without rows removes nothing.
    rollup::close_day(&warehouse, day - 1).await.unwrap();
    rollup::close_day(&warehouse, day - 2).await.unwrap();
    assert!(rows("accuracy_hour") > hours);
    assert_eq!(sums("accuracy_day", "day"), sums("accuracy_minute", "toDate(minute)"));
    assert!(rollup::due(&warehouse).await.unwrap().is_empty());
    let left = "SELECT count() FROM system.tables WHERE database = 'doseline' AND name LIKE '%closing%'";
    assert_eq!(clickhouse.number(left), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_with_an_open_batch_is_not_closed() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    let day = yesterday(&clickhouse);
    let refused = async |day: u16, expected: &str| {
        let error = rollup::close_day(&warehouse, day).await.unwrap_err();
        assert!(matches!(error, Error::DayOpen { .. }) && error.to_string().contains(expected), "{error}");
        assert_eq!(error.advice(), Advice::Retry);
    };
    let today = u16::try_from(clickhouse.number("SELECT toUInt16(toDate(now('UTC')))")).unwrap();
    refused(today, "it is not over").await;

    let intend = |batch: u64, day: u16| {
        clickhouse.query(&format!(
            "INSERT INTO doseline.loader_intents (incarnation, kafka_partition, batch, batch_end, ingest_day) \
             VALUES (1, 3, {batch}, {batch} + 100, toDate({day}))"
        ));
    };
    let commit = |batch: u64| {
        clickhouse.query(&format!(
            "INSERT INTO doseline.loader_commits (kind, incarnation, kafka_partition, batch, batch_end) \
             VALUES ('commit', 1, 3, {batch}, {batch} + 100)"
        ));
    };
    intend(0, day - 1);
    refused(day, "1 partitions have a batch that is not committed, e.g. incarnation 1 partition 3 offset 0").await;
    commit(0);
    rollup::close_day(&warehouse, day).await.unwrap();
    intend(100, day + 1);
    rollup::close_day(&warehouse, day).await.unwrap();
}

/// The page counts days that are over from their rollups, if they have one. Every injection counts
/// once.
#[tokio::test(flavor = "multi_thread")]
async fn the_overview_counts_each_day_once() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    let listen = "127.0.0.1:0".parse().unwrap();
    let dashboard = Dashboard::bind(
        dashboard::Options { listen, names: Vec::new(), troubles: Default::default() },
        warehouse.clone(),
    )
    .await
    .unwrap();
    let address = dashboard.address();
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(dashboard.run(shutdown.clone()));
    let shown = |tenant: &str| {
        let url = format!("http://{address}/api/overview?tenant={tenant}");
        let text = ureq::get(&url).call().unwrap().body_mut().read_to_string().unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["data"][0]["injections"].as_u64().unwrap()
    };
    let counted = || clickhouse.number("SELECT sum(injections) FROM doseline.accuracy_minute");
    let agree = |seed: u32, day: u16| {
        // The number exceeds the one shown before, so an answer from the dashboard's cache is not
        // accepted.
        fill(&clickhouse, day, seed);
        poll(Duration::from_secs(120), "the page to show all injections", || {
            match (shown(""), shown("acme"), counted()) {
                (all, one, counted) if all == counted && one == counted => Ok(()),
                numbers => Err(format!("{numbers:?}")),
            }
        });
        assert_eq!(shown("nobody"), 0);
    };
    let day = yesterday(&clickhouse);
    agree(1, day);
    agree(2, day - 1);
    rollup::close_day(&warehouse, day - 1).await.unwrap();
    agree(3, day);
    rollup::close_day(&warehouse, day).await.unwrap();
    agree(4, day + 1);
    shutdown.cancel();
    serving.await.unwrap().unwrap();
}
