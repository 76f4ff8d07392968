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
    fill_devices(clickhouse, day, seed, 20_000, 7);
}

fn fill_devices(clickhouse: &ClickHouse, day: u16, seed: u32, rows: u32, devices: u32) {
    clickhouse.query(&format!(
        "INSERT INTO doseline.accuracy_minute (tenant, site, device, model, firmware, minute, injections, dose_n, \
            dose_target_nl, dose_delivered_nl, dose_error_nl, dose_error_sq, dose_error_min, dose_error_max, depth_n, \
            depth_target_um, depth_measured_um, depth_error_um, depth_error_sq, depth_error_min, depth_error_max, \
            ok, partial, aborted, occluded, no_contact, first_at, last_at, ingest_day, batch) \
         SELECT 'acme', 'paris', concat('pen-', toString(number % {devices})), 'MX', toString(number % 3), \
            toStartOfMinute(toDateTime({day} * 86400, 'UTC') - (rand(1 + {seed}) % 300000)) AS minute, \
            rand(2) % 60, rand(3) % 60, rand(4) % 1000000, rand(5) % 1000000, toInt64(rand(6) % 1000) - 500, \
            rand(7), if(rand(8) % 3 = 0, NULL, toInt32(rand(9) % 1000) - 500), \
            if(rand(8) % 3 = 0, NULL, toInt32(rand(10) % 1000)), rand(11) % 60, rand(12) % 100000, rand(13) % 100000, \
            toInt64(rand(14) % 1000) - 500, rand(15), NULL, NULL, rand(16) % 9, rand(17) % 9, rand(18) % 9, \
            rand(19) % 9, rand(20) % 9, minute, minute + 59, toDate({day}), {seed} * 100000 + number \
         FROM numbers({rows})"
    ));
}

/// Sums of a table for one day of ingest, by their key.
fn sums(clickhouse: &ClickHouse, day: u16, table: &str, by: &str) -> String {
    clickhouse.query(&format!(
        "SELECT tenant, site, device, model, firmware, {by} AS start, {SUMS} FROM doseline.{table} \
         WHERE ingest_day = toDate({day}) GROUP BY tenant, site, device, model, firmware, start ORDER BY ALL"
    ))
}

/// That both rollups of a day say what its minutes say, each in one row for a key.
#[track_caller]
fn adds_up(clickhouse: &ClickHouse, day: u16) {
    for (table, unit, start) in ROLLUPS {
        let (found, expected) = (sums(clickhouse, day, table, unit), sums(clickhouse, day, "accuracy_minute", start));
        assert!(found == expected, "{table}: {} rows, not {}", found.lines().count(), expected.lines().count());
        let key = format!("tenant, site, device, model, firmware, {unit}");
        let twice = format!(
            "SELECT count() FROM (SELECT {key} FROM doseline.{table} WHERE ingest_day = toDate({day}) \
             GROUP BY ALL HAVING count() > 1)"
        );
        assert_eq!(clickhouse.number(&twice), 0, "{table}");
    }
}

const ROLLUPS: [(&str, &str, &str); 2] =
    [("accuracy_hour", "hour", "toStartOfHour(minute)"), ("accuracy_day", "day", "toDate(minute)")];

/// Tables that were made and dropped, or are left beside the rollups.
fn tables_made(clickhouse: &ClickHouse) -> u64 {
    clickhouse.number(
        "SELECT (SELECT count() FROM system.dropped_tables WHERE database = 'doseline') \
            + (SELECT count() FROM system.tables WHERE database = 'doseline' AND name LIKE '%closing%')",
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn hours_and_days_add_up_to_the_minutes() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    let day = yesterday(&clickhouse);
    fill(&clickhouse, day, 1);
    fill(&clickhouse, day - 1, 2);
    let rows = |table: &str| clickhouse.number(&format!("SELECT count() FROM doseline.{table}"));
    assert_eq!(rollup::due(&warehouse).await.unwrap(), [day - 1, day]);
    // Doing it again, also several at once, gives the same.
    for _ in 0..2 {
        let closers = (0..6).map(|_| rollup::close_day(&warehouse, day));
        for closed in futures::future::join_all(closers).await {
            closed.unwrap();
        }
        adds_up(&clickhouse, day);
    }
    let hours = rows("accuracy_hour");
    assert!(hours > rows("accuracy_day") && hours < rows("accuracy_minute"));
    // Another ingest day is kept beside it, and a day without rows removes nothing.
    rollup::close_day(&warehouse, day - 1).await.unwrap();
    rollup::close_day(&warehouse, day - 2).await.unwrap();
    assert!(rows("accuracy_hour") > hours);
    adds_up(&clickhouse, day);
    assert!(rollup::due(&warehouse).await.unwrap().is_empty());
    assert_eq!(tables_made(&clickhouse), 0, "closing a day makes no table");
}

/// A reader sees a rollup whole or not at all, because it is one part, however many rows it has.
#[tokio::test(flavor = "multi_thread")]
async fn the_rollup_of_a_large_day_is_one_part() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    let day = yesterday(&clickhouse);
    // More rows than the engine puts into one block by itself.
    fill_devices(&clickhouse, day, 1, 1_300_000, 1_300_000);
    clickhouse.query("SYSTEM STOP MERGES doseline.accuracy_hour");
    clickhouse.query("SYSTEM STOP MERGES doseline.accuracy_day");
    let (left, right) = tokio::join!(rollup::close_day(&warehouse, day), rollup::close_day(&warehouse, day));
    left.unwrap();
    right.unwrap();
    for (table, ..) in ROLLUPS {
        let parts = "SELECT count(), sum(rows) FROM system.parts WHERE database = 'doseline' AND active AND table = ";
        assert_eq!(clickhouse.query(&format!("{parts}'{table}'")), "1\t1300000", "{table}");
    }
}

/// Between the two rollups, while one is written, and where a token outlives its rows.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_leaves_of_a_rollup_is_completed() {
    let mut clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    let day = yesterday(&clickhouse);
    fill(&clickhouse, day, 1);
    for millis in [0, 5, 20, 40, 80] {
        let closing = tokio::spawn({
            let warehouse = warehouse.clone();
            async move { rollup::close_day(&warehouse, day).await }
        });
        tokio::time::sleep(Duration::from_millis(millis)).await;
        clickhouse.kill();
        // It may have succeeded before.
        let _ = closing.await.unwrap();
        clickhouse.start_again();
        rollup::close_due(&warehouse).await.unwrap();
        adds_up(&clickhouse, day);
        for (table, ..) in ROLLUPS {
            clickhouse.query(&format!("ALTER TABLE doseline.{table} DROP PARTITION ID '{}'", id(&clickhouse, day)));
        }
    }
    rollup::close_day(&warehouse, day).await.unwrap();
    for (table, ..) in ROLLUPS {
        clickhouse.query(&format!("ALTER TABLE doseline.{table} DROP PARTITION ID '{}'", id(&clickhouse, day)));
        assert_eq!(rollup::due(&warehouse).await.unwrap(), [day], "{table} is missing");
        rollup::close_due(&warehouse).await.unwrap();
        adds_up(&clickhouse, day);
    }

    // Power fails: the file of tokens was written, the part was not.
    let part =
        "SELECT path FROM system.parts WHERE database = 'doseline' AND table = 'accuracy_hour' AND active AND rows > 0";
    let part = clickhouse.data_dir().join("engine").join(clickhouse.query(part));
    clickhouse.stop();
    std::fs::remove_dir_all(&part).unwrap_or_else(|error| panic!("{}: {error}", part.display()));
    clickhouse.start_again();
    assert_eq!(clickhouse.number("SELECT count() FROM doseline.accuracy_hour"), 0);
    rollup::close_due(&warehouse).await.unwrap();
    adds_up(&clickhouse, day);
}

/// The name of a day's partition.
fn id(clickhouse: &ClickHouse, day: u16) -> String {
    clickhouse.query(&format!("SELECT toYYYYMMDD(toDate({day}))"))
}

/// What `doseline rebuild` does after it has replaced the minutes of a day.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollup_is_replaced_whole_and_a_late_closer_adds_nothing() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    let day = yesterday(&clickhouse);
    let id = id(&clickhouse, day);
    let late = || {
        for (table, ..) in ROLLUPS {
            clickhouse.query(&format!(
                "INSERT INTO doseline.{table} (tenant, ingest_day) SETTINGS async_insert = 0, insert_deduplicate = 1, \
                 deduplicate_insert = 'enable', insert_deduplication_token = 'rollup/{table}/{id}/0' \
                 VALUES ('late', '{}')",
                rollup::day_text(day)
            ));
        }
    };
    fill(&clickhouse, day, 1);
    rollup::close_day(&warehouse, day).await.unwrap();
    let before = sums(&clickhouse, day, "accuracy_hour", "hour");
    clickhouse.query(&format!("ALTER TABLE doseline.accuracy_minute DROP PARTITION ID '{id}'"));
    fill(&clickhouse, day, 2);
    rollup::close_day(&warehouse, day).await.unwrap();
    assert!(sums(&clickhouse, day, "accuracy_hour", "hour") == before, "a rollup that stands is not touched");
    let (replaced, closed, again) = tokio::join!(
        rollup::replace_day(&warehouse, day),
        rollup::close_day(&warehouse, day),
        rollup::replace_day(&warehouse, day)
    );
    replaced.unwrap();
    closed.unwrap();
    again.unwrap();
    adds_up(&clickhouse, day);
    late();
    adds_up(&clickhouse, day);

    // A day that was never closed.
    fill(&clickhouse, day - 1, 3);
    let (replaced, closed) =
        tokio::join!(rollup::replace_day(&warehouse, day - 1), rollup::close_day(&warehouse, day - 1));
    replaced.unwrap();
    closed.unwrap();
    adds_up(&clickhouse, day - 1);

    // A day that has no minutes any more.
    clickhouse.query(&format!("ALTER TABLE doseline.accuracy_minute DROP PARTITION ID '{id}'"));
    rollup::replace_day(&warehouse, day).await.unwrap();
    adds_up(&clickhouse, day);
    late();
    assert_eq!(sums(&clickhouse, day, "accuracy_hour", "hour"), "");
    assert!(rollup::due(&warehouse).await.unwrap().is_empty());
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

/// Options of a dashboard that asks nobody who they are.
fn open_options(listen: std::net::SocketAddr) -> dashboard::Options {
    let (auth, requests_per_min) = (dashboard::access::Auth::None, 1_200);
    let (names, faults, writer) = (Vec::new(), Default::default(), dashboard::write::orders().0);
    let (tls, behind_proxy) = (None, false);
    dashboard::Options { listen, names, auth, tls, behind_proxy, requests_per_min, faults, writer }
}

/// The page counts days that are over from their rollups, if they have one. Every injection counts
/// once.
#[tokio::test(flavor = "multi_thread")]
async fn the_overview_counts_each_day_once() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    let listen = "127.0.0.1:0".parse().unwrap();
    let dashboard = Dashboard::bind(open_options(listen), warehouse.clone()).await.unwrap();
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

/// Whoever invents tenants takes no more of ClickHouse than a few pages.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_asks_a_few_queries_at_once() {
    // It takes questions, and does not answer.
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", deaf.local_addr().unwrap());
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counting = std::sync::Arc::clone(&asked);
    let accepting = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = deaf.accept().await {
            counting.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            held.push(stream);
        }
    });
    let warehouse = warehouse::Warehouse::new(warehouse::Options { url, ..Default::default() }).unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    let dashboard = Dashboard::bind(open_options(listen), warehouse).await.unwrap();
    let address = dashboard.address();
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(dashboard.run(shutdown.clone()));
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let asks = (0..30).map(|tenant| {
        let agent = agent.clone();
        let url = format!("http://{address}/api/overview?tenant=invented-{tenant}");
        tokio::task::spawn_blocking(move || {
            let config = agent.get(url).config().timeout_global(Some(Duration::from_secs(30)));
            config.build().call().map_or(0, |answer| answer.status().as_u16())
        })
    });
    let statuses: Vec<u16> = futures::future::join_all(asks).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 3, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 27, "{statuses:?}");
    // A name that no tenant can have is refused before anything is asked.
    let url = format!("http://{address}/api/overview?tenant={}", "a".repeat(60_000));
    let refused = tokio::task::spawn_blocking(move || agent.get(url).call().unwrap().status().as_u16());
    assert_eq!(refused.await.unwrap(), 400);
    shutdown.cancel();
    accepting.abort();
    serving.abort();
}
