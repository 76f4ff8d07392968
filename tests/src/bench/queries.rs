//! The dashboard over many injections, which ClickHouse itself generates.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;
use warehouse::rollup;

use super::latency::quantile;
use super::report::{Row, Table};
use super::stage::{Stage, warehouse};
use super::{Options, say};
use crate::ClickHouse;

/// Injections of each device, over [`DAYS`] days.
const PER_DEVICE: u64 = 10_000;
const DAYS: u64 = 10;
/// Injections of one insert, which is a batch.
const SLICE: u64 = 1_000_000;
/// Injections of one report; each report counts as a batch of its own.
const PER_REPORT: u64 = 10;
/// Number of ledger states of each device.
const STATES: u64 = 14;
/// The dashboard reuses an answer for 2.5 s; a round waits longer.
const ROUND: Duration = Duration::from_millis(2_600);

/// Measures every panel through the dashboard's interface, and the public views as a person queries
/// them for one tenant or device.
pub fn measure(options: &Options) -> Vec<Table> {
    let (injections, rounds) = if options.quick { (1_000_000, 3) } else { (100_000_000, 30) };
    let mut stage = Stage::start();
    make(&stage.clickhouse, injections);
    roll_up(&stage.clickhouse);
    stage.clickhouse.rest();
    let conditions = format!(
        "{injections} injections of {} devices over {DAYS} days in reports of {PER_REPORT}, made by the engine with aggregates \
         as if each report had come in a batch of its own, heartbeats every 5 min, {STATES} ledger states of each device, merged, \
         days that are over rolled up; \
         {rounds} rounds",
        injections / PER_DEVICE
    );
    let panels = panels(&mut stage, rounds);
    let views = views(&stage.clickhouse, rounds.min(10));
    let title = "Views asked directly";
    vec![
        Table {
            title: "Dashboard panels",
            conditions: format!(
                "{conditions} for all tenants and for one in turn; through `doseline serve`, time to the last byte of \
                                 the answer, none of them from its cache"
            ),
            rows: panels,
        },
        Table {
            title,
            conditions: format!("The same data; the client reads the whole answer of {} rows at most", LIMIT),
            rows: views,
        },
    ]
}

/// Rolls up past days, as the loader does.
fn roll_up(clickhouse: &ClickHouse) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("start a runtime");
    runtime.block_on(rollup::close_due(&warehouse(clickhouse))).expect("roll up the days that are over");
}

fn panels(stage: &mut Stage, rounds: usize) -> Vec<Row> {
    let mut dashboard = stage.role("serve", &[]);
    // The answer to an unknown panel names the known ones.
    let (_, refusal) = dashboard.get("/api/none").expect("an answer");
    let error = serde_json::from_str::<Value>(&refusal).expect("JSON")["detail"].as_str().expect("a text").to_owned();
    let names = error.rsplit_once("there are ").expect("names").1;
    let mut times: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds {
        let round = Instant::now();
        for panel in names.split(", ") {
            for tenant in ["", "clinic-1"] {
                let began = Instant::now();
                let (success, text) = dashboard.get(&format!("/api/{panel}?tenant={tenant}")).expect("an answer");
                assert!(success, "{panel}: {text}");
                let rows = serde_json::from_str::<Value>(&text).expect("JSON")["rows"].as_u64().expect("a number");
                assert!(rows > 0, "{panel} of {tenant:?} has no rows");
                times.entry((panel, tenant)).or_default().push(began.elapsed().as_secs_f64());
            }
        }
        std::thread::sleep(ROUND.saturating_sub(round.elapsed()));
    }
    dashboard.stop();
    let row = |((panel, tenant), times): ((&str, &str), Vec<f64>)| {
        let who = if tenant.is_empty() { "all" } else { "one" };
        [vec![("panel", panel.into()), ("tenants", who.into())], statistics(times)].concat()
    };
    times.into_iter().map(row).collect()
}

const LIMIT: u32 = 10_000;
/// Views and their conditions.
const VIEWS: [(&str, &str); 10] = [
    ("fleet", "tenant = 'clinic-1'"),
    ("dose_accuracy", "tenant = 'clinic-1' AND n >= 30"),
    ("dose_accuracy", "tenant = 'clinic-1' AND device = 'pen-000001'"),
    ("depth_accuracy", "tenant = 'clinic-1' AND n >= 30"),
    ("delivery_gaps", "tenant = 'clinic-1'"),
    ("delivery_completeness", "tenant = 'clinic-1'"),
    ("injection_completeness", "tenant = 'clinic-1' AND device = 'pen-000001'"),
    ("session_report", "session_id = lower(hex(sipHash128(1, 7)))"),
    ("item_history", "item_id = 'N1-7'"),
    ("open_alerts", "tenant = 'clinic-1'"),
];

fn views(clickhouse: &ClickHouse, rounds: usize) -> Vec<Row> {
    let row = |(view, condition): (&'static str, &'static str)| {
        let times = (0..rounds).map(|_| {
            let began = Instant::now();
            clickhouse.query(&format!(
                "SELECT * FROM doseline.{view} WHERE {condition} LIMIT {LIMIT} SETTINGS max_execution_time = 55"
            ));
            began.elapsed().as_secs_f64()
        });
        [vec![("view", view.into()), ("condition", condition.into())], statistics(times.collect())].concat()
    };
    VIEWS.into_iter().map(row).collect()
}

fn statistics(mut times: Vec<f64>) -> Row {
    times.sort_by(f64::total_cmp);
    vec![
        ("p50_ms", (quantile(&times, 0.5) * 1e3).into()),
        ("p95_ms", (quantile(&times, 0.95) * 1e3).into()),
        ("max_ms", (quantile(&times, 1.0) * 1e3).into()),
    ]
}

/// Fills the tables that the dashboard reads. The last injections have the current time.
fn make(clickhouse: &ClickHouse, injections: u64) {
    let (devices, slice) = (injections / PER_DEVICE, SLICE.min(injections / DAYS));
    let slices = injections / slice;
    let (per_slice, per_day) = (slice / devices, PER_DEVICE / DAYS);
    let now = clickhouse.number("SELECT toUnixTimestamp(now())");
    for number in 0..slices {
        let first = number * per_slice;
        // One injection a second up to now, at the same time of each day.
        let day = first / per_day;
        let began = now - (DAYS - 1 - day) * 86_400 - per_day + first % per_day;
        let rows = rows(devices, per_slice, first, began, number);
        for statement in [injections_of(&rows), minutes_of(&rows), sessions_of(&rows), uses_of(&rows)] {
            clickhouse.query(&statement);
        }
        if (number + 1) % 10 == 0 {
            say(&format!("   {} of {injections} injections made", (number + 1) * slice));
        }
    }
    make_rest(clickhouse, devices, now);
    let counted = clickhouse.query(
        "SELECT (SELECT count() FROM doseline.injections), (SELECT sum(injections) FROM doseline.accuracy_minute), \
         (SELECT sum(injections) FROM doseline.accuracy_session), (SELECT intDiv(sum(injections), 3) FROM doseline.item_uses)",
    );
    assert_eq!(counted, [injections; 4].map(|count| count.to_string()).join("\t"));
}

/// A slice: injections of each device from `first` on, one a second from `began` on.
fn rows(devices: u64, per_device: u64, first: u64, began: u64, slice: u64) -> String {
    format!(
        "(SELECT intDiv(number, {per_device}) AS device_no, {first} + number % {per_device} AS index, \
         concat('clinic-', toString(device_no % 20)) AS tenant, concat('site-', toString(intDiv(device_no, 20) % 5)) AS site, \
         concat('pen-', leftPad(toString(device_no), 6, '0')) AS device, concat('mesogun-', toString(device_no % 4)) AS model, \
         '4.2.1' AS firmware, toUInt64(4294967296 + device_no) AS boot_id, index + 1 AS seq, intDiv(index, 300) AS visit, \
         fromUnixTimestamp64Micro(toInt64({began} + index - {first}) * 1000000, 'UTC') AS at, \
         lower(hex(sipHash128(device_no, visit))) AS session_id, \
         [10000, 20000, 50000][visit % 3 + 1] AS target_nl, toInt32(target_nl - 256 + cityHash64(device_no, index) % 512) AS delivered_nl, \
         [1500, 3000, 4000][visit % 3 + 1] AS target_um, toInt32(target_um - 64 + cityHash64(index, device_no) % 128) AS measured_um, \
         if(cityHash64(device_no, index, 1) % 128 = 0, 'PARTIAL', 'OK') AS outcome, \
         concat('dose-', toString(device_no), '-1') AS dose_calibration_id, \
         concat('depth-', toString(device_no), '-1') AS depth_calibration_id, \
         concat('m', toString(visit)) AS mount, concat(toString(device_no), '-', toString(visit)) AS item, \
         toDate(at) AS ingest_day, toUInt32(1) AS incarnation, toInt32(device_no % 12) AS kafka_partition, \
         toUInt64({slice}) AS batch FROM numbers({}))",
        devices * per_device
    )
}

fn injections_of(rows: &str) -> String {
    format!(
        "INSERT INTO doseline.injections (tenant, site, device, boot_id, seq, at, time_source, received_at, model, firmware, \
         session_id, injection_no, shot, clock, mode, outcome, area, target_nl, delivered_nl, dose_source, target_um, measured_um, \
         depth_source, angle_mdeg, duration_us, peak_force_mn, needle_mount_id, needle_item_id, syringe_mount_id, \
         syringe_item_id, handpiece_mount_id, handpiece_item_id, dose_calibration_id, depth_calibration_id, preparation_id, \
         operator_id, kafka_offset, ingest_day, incarnation, kafka_partition, batch) \
         SELECT tenant, site, device, boot_id, seq, at, 'DEVICE', at + 10 - index % 10, model, firmware, session_id, seq, \
         index % 300 + 1, 'SYNCED', 'SINGLE', outcome, 'FACE', target_nl, delivered_nl, 'ENCODER', target_um, measured_um, \
         'ENCODER', 88000 + cityHash64(index) % 4096, 80000 + cityHash64(seq) % 16384, 700 + cityHash64(seq, 2) % 512, \
         concat(mount, 'N'), concat('N', item), concat(mount, 'S'), concat('S', item), concat(mount, 'H'), \
         concat('H', toString(device_no)), dose_calibration_id, depth_calibration_id, concat('prep-', item), \
         concat('op-', toString(device_no % 500)), intDiv(index, {PER_REPORT}), ingest_day, incarnation, kafka_partition, batch \
         FROM {rows}"
    )
}

/// Columns of the sums with their expressions over columns of `row`; `measured` says which
/// injections count for dose and depth.
pub fn sums(measured: [&str; 2]) -> Vec<(String, String)> {
    let own = |name: &str, sum: &str| (name.to_owned(), sum.to_owned());
    let mut sums = vec![
        own("injections", "count()"),
        own("ok", "countIf(row.outcome = 'OK')"),
        own("partial", "countIf(row.outcome = 'PARTIAL')"),
        own("aborted", "countIf(row.outcome = 'ABORTED')"),
        own("occluded", "countIf(row.outcome = 'OCCLUDED')"),
        own("no_contact", "countIf(row.outcome = 'NO_CONTACT')"),
        own("first_at", "min(row.at)"),
        own("last_at", "max(row.at)"),
    ];
    let channels = [("dose", "delivered", "nl", measured[0]), ("depth", "measured", "um", measured[1])];
    for (channel, verb, unit, condition) in channels {
        let error = format!("(toInt64(row.{verb}_{unit}) - toInt64(row.target_{unit}))");
        let mut sum = |name: &str, sum: String| sums.push((format!("{channel}_{name}"), sum));
        sum("n", format!("countIf({condition})"));
        sum(&format!("target_{unit}"), format!("ifNull(sumIf(row.target_{unit}, {condition}), 0)"));
        sum(&format!("{verb}_{unit}"), format!("ifNull(sumIf(row.{verb}_{unit}, {condition}), 0)"));
        sum(&format!("error_{unit}"), format!("ifNull(sumIf({error}, {condition}), 0)"));
        sum("error_sq", format!("ifNull(sumIf({error} * {error}, {condition}), 0)"));
        sum("error_min", format!("minIf({error}, {condition})"));
        sum("error_max", format!("maxIf({error}, {condition})"));
    }
    sums
}

fn aggregates_of(rows: &str, table: &str, keys: &[(&str, &str)], more: &[(String, String)]) -> String {
    let device = ["tenant", "site", "device", "model", "firmware", "ingest_day", "incarnation", "kafka_partition"];
    let keys: Vec<_> = device.iter().map(|name| (*name, *name)).chain(keys.iter().copied()).collect();
    let (key_names, keys): (Vec<_>, Vec<_>) = keys.into_iter().unzip();
    let batch = ("batch".to_owned(), "any(row.batch)".to_owned());
    let sums = sums(["1", "1"]).into_iter().chain(more.iter().cloned()).chain([batch]);
    let (names, values): (Vec<_>, Vec<_>) = sums.unzip();
    format!(
        "INSERT INTO doseline.{table} ({}, {}) SELECT {}, {} FROM {rows} AS row GROUP BY {}, intDiv(index, {PER_REPORT})",
        key_names.join(", "),
        names.join(", "),
        keys.join(", "),
        values.join(", "),
        keys.join(", ")
    )
}

fn minutes_of(rows: &str) -> String {
    aggregates_of(rows, "accuracy_minute", &[("minute", "toStartOfMinute(row.at)")], &[])
}

fn sessions_of(rows: &str) -> String {
    let names = ["session_id", "dose_calibration_id", "depth_calibration_id", "target_nl", "target_um"];
    let bins = "sumMap([toInt32(floor(100 * (delivered_nl - target_nl) / target_nl))], [toUInt32(1)])";
    let more = [
        ("dose_error_bins".to_owned(), format!("CAST(({bins}).1, 'Array(Int32)')")),
        ("dose_error_counts".to_owned(), format!("CAST(({bins}).2, 'Array(UInt32)')")),
    ];
    aggregates_of(rows, "accuracy_session", &names.map(|name| (name, name)), &more)
}

fn uses_of(rows: &str) -> String {
    format!(
        "INSERT INTO doseline.item_uses (tenant, site, device, session_id, slot, mount_id, item_id, injections, punctures, \
         delivered_nl, delivered_n, first_at, last_at, ingest_day, incarnation, kafka_partition, batch) \
         SELECT tenant, site, device, session_id, slot, concat(mount, substring(slot, 1, 1)), \
         if(slot = 'HANDPIECE', concat('H', toString(device_no)), concat(substring(slot, 1, 1), item)), count(), count(), \
         sum(delivered_nl), count(), min(row.at), max(row.at), ingest_day, incarnation, kafka_partition, any(row.batch) \
         FROM {rows} AS row ARRAY JOIN ['NEEDLE', 'SYRINGE', 'HANDPIECE'] AS slot \
         GROUP BY tenant, site, device, device_no, session_id, slot, mount, item, ingest_day, incarnation, kafka_partition, \
         intDiv(index, {PER_REPORT})"
    )
}

/// Fills registry, ledgers, heartbeats, quarantine and alerts.
fn make_rest(clickhouse: &ClickHouse, devices: u64, now: u64) {
    let identity = "concat('clinic-', toString(number % 20)) AS tenant, concat('site-', toString(intDiv(number, 20) % 5)) AS site, \
                    concat('pen-', leftPad(toString(number), 6, '0')) AS device";
    let per_day = PER_DEVICE / DAYS;
    let time = |seconds: &str| format!("fromUnixTimestamp64Micro(toInt64({now} - {seconds}) * 1000000, 'UTC')");
    clickhouse.query(&format!(
        "INSERT INTO doseline.devices (tenant, device, site, kind, model, origin, valid_from, recorded_at) \
         SELECT tenant, device, site, 'INJECTOR', concat('mesogun-', toString(number % 4)), 'ENROLLED', {0}, {0} \
         FROM (SELECT number, {identity} FROM numbers({devices}))",
        time("864000")
    ));
    // The states that pruning has left. They are one for each of the 8 days that Kafka holds, and
    // one for each report of the last minute, half the time between two prunings. Every 21st device
    // has a gap.
    clickhouse.query(&format!(
        "INSERT INTO doseline.loader_commits (kind, incarnation, kafka_partition, batch, batch_end, tenant, site, device, \
         boot_id, stored_first, stored_last, last_arrival, committed_at) \
         SELECT 'ledger', 1, number % 12, 970 + state, 971 + state, tenant, site, device, 4294967296 + number, \
         if(number % 21 = 1, [1, 61], [1]), if(number % 21 = 1, [50, toUInt64({PER_DEVICE} - 10 * ({STATES} - 1 - state))], \
         [toUInt64({PER_DEVICE} - 10 * ({STATES} - 1 - state))]), {0}, {0} \
         FROM (SELECT number, {identity} FROM numbers({devices})) ARRAY JOIN range({STATES}) AS state",
        time(&format!("10 * ({STATES} - 1 - state)"))
    ));
    clickhouse.query(&format!(
        "INSERT INTO doseline.loader_commits (kind, incarnation, kafka_partition, batch, batch_end, rows, committed_at) \
         SELECT 'commit', 1, number % 12, intDiv(number, 12), intDiv(number, 12) + 1, 1000, {} FROM numbers(12000)",
        time("12000 - number")
    ));
    for day in 0..DAYS {
        // The number of injections made by then: one a second up to the same time of each day.
        let made = format!("{} - least(beat * 300, {per_day})", PER_DEVICE - day * per_day);
        clickhouse.query(&format!(
            "INSERT INTO doseline.device_status (tenant, site, device, boot_id, seq, at, time_source, received_at, model, \
             firmware, source, state, battery_pct, temperature_mc, outbox_events, injection_no, last_boot_id, last_seq, \
             ingest_day, incarnation, kafka_partition) \
             SELECT tenant, site, device, 4294967296 + number, 0, time, 'DEVICE', time, concat('mesogun-', toString(number % 4)), \
             '4.2.1', if(beat = 0, 'STATUS', 'HEARTBEAT'), if(beat = 0, 'ONLINE', ''), 80, 30000, 0, \
             {made}, 4294967296 + number, {made}, toDate(time), 1, number % 12 \
             FROM (SELECT number, {identity} FROM numbers({devices})) ARRAY JOIN range(96) AS beat, \
             arrayMap(beat -> {}, range(96)) AS time",
            time(&format!("({day} * 86400 + beat * 300)"))
        ));
    }
    clickhouse.query(&format!(
        "INSERT INTO doseline.quarantine (reason, detail, topic, source, payload, received_at, tenant, site, device, ingest_day) \
         SELECT 'implausible', 'target_um 99999 is outside 0..13000', concat('doseline/v1/', tenant, '/', site, '/', device, \
         '/report'), 'loader', randomString(200), {0}, tenant, site, device, toDate({0}) \
         FROM (SELECT number, {identity} FROM numbers(10000))",
        time("number")
    ));
    clickhouse.query(&format!(
        "INSERT INTO doseline.alerts (tenant, alert_key, kind, severity, state, holds, attention, site, device, title, sessions, \
         since, raised_at, rule_version, computed_at) \
         SELECT tenant, concat('sterility-2/', device), 'sterility-2', ['critical', 'high', 'medium'][number % 3 + 1], 'OPEN', \
         true, 1, site, device, 'needle used in two visits', [toString(number), toString(number + 1)], {0}, {0}, 1, {0} \
         FROM (SELECT number, {identity} FROM numbers(1000))",
        time("number")
    ));
}
