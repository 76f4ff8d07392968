//! The figures of the API, compared with numbers that stand here or that SQL says.

use dashboard::access::tokens::Role;
use harness::ClickHouse;
use monitor::{
    accuracy::{drift, rules::Rules},
    limits::Limits,
};
use serde_json::{Value, json};
use warehouse::{
    accuracy::{Model, SessionSum},
    states::Channel,
};

use super::{Served, marks, migrated};

fn insert(clickhouse: &ClickHouse, rows: &[&str]) {
    for row in rows {
        clickhouse.query(&format!("INSERT INTO doseline.{row}"));
    }
}

/// All rows of a list.
fn data(served: &Served, token: &str, path: &str) -> Vec<Value> {
    let answer = served.ask(token, path);
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.json()["data"].as_array().expect("rows").clone()
}

fn assert_close(value: &Value, expected: f64, what: &str) {
    let value = value.as_f64().unwrap_or_else(|| panic!("{what} is {value}"));
    assert!((value - expected).abs() < 1e-9 * (1.0 + expected.abs()), "{what}: {value}, not {expected}");
}

/// Two devices of one tenant and one of another, with something of everything that the overview and
/// the fleet count.
fn fill_fleet(clickhouse: &ClickHouse) {
    insert(
        clickhouse,
        &[
            "devices (tenant, device, site, kind, model, origin, valid_from) VALUES \
             ('a', 'pen-1', 's1', 'INJECTOR', 'pen', 'IMPORTED', now64(6) - 999), \
             ('a', 'pen-2', 's2', 'INJECTOR', 'pen', 'IMPORTED', now64(6) - 999), \
             ('b', 'pen-1', 's1', 'INJECTOR', 'pen', 'IMPORTED', now64(6) - 999)",
            "device_status (tenant, site, device, boot_id, received_at, state) VALUES \
             ('a', 's1', 'pen-1', 1, now64(6) - 70, 'ONLINE'), ('a', 's2', 'pen-2', 1, now64(6) - 70, 'OFF'), \
             ('b', 's1', 'pen-1', 1, now64(6) - 70, 'ONLINE')",
            // 400 ms from the receipt of the injections to the commit of their batch.
            "injections (tenant, site, device, boot_id, seq, at, received_at, incarnation, kafka_partition, batch, ingest_day) \
             SELECT 'a', 's1', 'pen-1', 1, number + 1, now64(6) - 3600, toDateTime64(now() - 60, 6, 'UTC'), 1, 0, 5, \
             toDate(now('UTC')) FROM numbers(10)",
            "loader_commits (kind, incarnation, kafka_partition, batch, batch_end, rows, committed_at, tenant, site, device, boot_id, \
             stored_first, stored_last, lost_first, lost_last, declared_last, last_arrival) \
             SELECT 'ledger', 1, 0, 5, 6, 0, (SELECT max(received_at) FROM doseline.injections) + INTERVAL 400 MILLISECOND, 'a', 's1', \
             'pen-1', 1, [1, 13], [10, 20], [11], [11], 22, now64(6) - 60",
            "loader_commits (kind, incarnation, kafka_partition, batch, batch_end, rows, committed_at) \
             SELECT 'commit', 1, 0, 5, 6, 12, (SELECT max(received_at) FROM doseline.injections) + INTERVAL 400 MILLISECOND",
            "loader_commits (kind, incarnation, kafka_partition, batch, batch_end, committed_at, tenant, site, device, boot_id, \
             stored_first, stored_last, last_arrival) \
             VALUES ('ledger', 1, 0, 9, 10, now64(6) - 3000, 'b', 's1', 'pen-1', 1, [1], [5], now64(6) - 3000)",
            "kafka_topics (topic, incarnation, partitions) VALUES ('reports', 1, 1)",
            "accuracy_minute (tenant, site, device, minute, injections, dose_n, dose_target_nl, dose_error_nl, ingest_day) VALUES \
             ('a', 's1', 'pen-1', toStartOfMinute(now('UTC')), 10, 10, 100000, 500, toDate(now('UTC'))), \
             ('a', 's2', 'pen-2', toStartOfMinute(now('UTC')), 3, 0, 0, 0, toDate(now('UTC'))), \
             ('a', 's1', 'pen-1', toStartOfMinute(now('UTC') - 3 * 86400), 7, 7, 1000, -20, toDate(now('UTC') - 3 * 86400)), \
             ('b', 's1', 'pen-1', toStartOfMinute(now('UTC')), 50, 50, 100000, 900, toDate(now('UTC')))",
            // A closed day counts by its rollup alone.
            "accuracy_day (tenant, site, device, day, injections, dose_n, dose_target_nl, dose_error_nl, ingest_day) \
             VALUES ('a', 's1', 'pen-1', toDate(now('UTC')) - 3, 9, 9, 1000, -30, toDate(now('UTC') - 3 * 86400))",
            "accuracy_session (tenant, site, device, session_id, target_nl, outcome, first_at, last_at, ingest_day) VALUES \
             ('a', 's1', 'pen-1', 'one', 1, 'OK', now64(6) - 100, now64(6) - 50, toDate(now('UTC'))), \
             ('a', 's1', 'pen-1', 'one', 2, 'OK', now64(6) - 100, now64(6) - 50, toDate(now('UTC'))), \
             ('a', 's1', 'pen-1', 'two', 2, 'OK', now64(6) - 100, now64(6) - 50, toDate(now('UTC'))), \
             ('a', 's1', 'pen-1', 'old', 2, 'OK', now64(6) - 200000, now64(6) - 190000, toDate(now('UTC'))), \
             ('a', 's1', 'pen-1', '', 2, 'OK', now64(6) - 100, now64(6) - 50, toDate(now('UTC'))), \
             ('b', 's1', 'pen-1', 'three', 2, 'OK', now64(6) - 100, now64(6) - 50, toDate(now('UTC')))",
            "alerts (tenant, alert_key, severity, state, attention, site, device, title) VALUES \
             ('a', 'k1', 'critical', 'OPEN', 1, 's1', 'pen-1', 'x'), ('a', 'k2', 'high', 'OPEN', 2, 's1', 'pen-1', 'x'), \
             ('a', 'k3', 'low', 'OPEN', 1, 's2', 'pen-2', 'x'), ('a', 'k4', 'critical', 'CLEARED', 1, 's2', 'pen-2', 'x'), \
             ('a', 'k5', 'critical', 'OPEN', 1, 's2', 'pen-2', 'x'), ('b', 'k6', 'critical', 'OPEN', 1, 's1', 'pen-1', 'x')",
            // The acknowledgement of k2 is older than its last change.
            "alert_history (tenant, alert_key, at, event, attention) VALUES \
             ('a', 'k5', now64(6), 'ACKNOWLEDGED', 1), ('a', 'k2', now64(6), 'ACKNOWLEDGED', 1)",
            "quarantine (tenant, site, device, reason, received_at, boot_id, seq, replayed, kafka_offset, ingest_day) VALUES \
             ('a', 's1', 'pen-1', 'BAD', now64(6) - 60, 1, 1, false, 1, toDate(now('UTC'))), \
             ('a', 's1', 'pen-1', 'OLD', now64(6) - 259200, 1, 3, false, 3, toDate(now('UTC') - 259200)), \
             ('b', 's1', 'pen-1', 'BAD', now64(6) - 60, 1, 1, false, 4, toDate(now('UTC')))",
            "accuracy_verdicts (tenant, device, channel, calibration_id, target, current, state, n, mean_error) VALUES \
             ('a', 'pen-1', 'DOSE', 'c', 10000, true, 'PASS', 10, 50), ('a', 'pen-1', 'DOSE', 'c', 20000, true, 'FAIL', 30, -100), \
             ('a', 'pen-1', 'DEPTH', 'c', 2000, true, 'PASS', 30, 1), ('a', 'pen-1', 'DEPTH', 'b', 2000, false, 'FAIL', 30, 1), \
             ('a', 'pen-2', 'DEPTH', 'b', 2000, true, 'CLEARED', 30, 1), ('b', 'pen-1', 'DEPTH', 'c', 2000, true, 'FAIL', 30, 1)",
            "drift (tenant, device, channel, band, calibration_id, current, state, crossing_at) VALUES \
             ('a', 'pen-1', 'DOSE', 0, 'c', true, 'DRIFT', '2027-03-01 00:00:00'), \
             ('a', 'pen-1', 'DOSE', 1, 'c', true, 'IN_CONTROL', NULL), \
             ('a', 'pen-2', 'DOSE', 1, 'b', false, 'DRIFT', '2027-01-01 00:00:00'), \
             ('b', 'pen-1', 'DOSE', 1, 'c', true, 'LEARNING', NULL)",
            "sterility_verdicts (tenant, unit, verdict_key, rule, state, device) VALUES \
             ('a', 'u', 'v1', 2, 'CONFIRMED', 'pen-1'), ('a', 'u', 'v2', 2, 'INDETERMINATE', 'pen-1'), \
             ('a', 'u', 'v3', 2, 'CLEARED', 'pen-1'), ('a', 'u', 'v4', 0, 'CONFIRMED', 'pen-1'), ('b', 'u', 'v1', 2, 'CONFIRMED', 'pen-1')",
            "calibrations (tenant, site, device, subject_device, channel, calibration_id, performed_at, due_at) VALUES \
             ('a', 's1', 'bench', 'pen-1', 'DOSE', 'c', now64(6) - 86400, now64(6) + 86400 * 10), \
             ('a', 's1', 'bench', 'pen-1', 'DEPTH', 'd', now64(6) - 86400, now64(6) + 86400 * 20)",
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_counts_what_there_is() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    let served = Served::start(warehouse, 1_000_000).await;
    let (viewer, _) = served.token(Role::Viewer, "a", 3_600);
    let (admin, _) = served.token(Role::Admin, "", 3_600);
    let empty = served.ask(&viewer, "/api/v1/overview").json();
    assert_eq!(
        (&empty["devices"], &empty["last_received_at"], &empty["latency_p50_ms"]),
        (&json!(0), &Value::Null, &Value::Null)
    );
    fill_fleet(&clickhouse);
    let check = |token: &str, path: &str, expected: Value| {
        let shown = served.ask(token, path);
        let shown = shown.json();
        for (name, expected) in expected.as_object().expect("an object") {
            assert_eq!(&shown[name], expected, "{path} {name}: {shown}");
        }
        shown
    };
    let own = json!({"devices": 2, "devices_online": 1, "injections_today": 13, "sessions_today": 2, "made": 22, "stored": 18,
        "missing": 3, "lost": 1, "alerts_critical": 1, "alerts_high": 1, "alerts_other": 1, "quarantined_today": 1,
        "latency_p50_ms": 400.0, "latency_p99_ms": 400.0, "injections_per_min": 2.0});
    let shown = check(&viewer, "/api/v1/overview", own.clone());
    check(&admin, "/api/v1/overview?tenant=a", own);
    assert!(shown["now"].as_str().expect("a time") > shown["last_received_at"].as_str().expect("a time"), "{shown}");
    let of_site = json!({"devices": 1, "devices_online": 0, "injections_today": 3, "sessions_today": 0, "made": 0, "missing": 0,
        "alerts_critical": 0, "alerts_high": 0, "alerts_other": 1, "quarantined_today": 0, "latency_p50_ms": null,
        "injections_per_min": 0.0});
    check(&viewer, "/api/v1/overview?site=s2", of_site);
    let all = json!({"devices": 3, "devices_online": 2, "injections_today": 63, "sessions_today": 3, "made": 27, "stored": 23,
        "alerts_critical": 2, "quarantined_today": 2});
    check(&admin, "/api/v1/overview", all);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fleet_has_what_is_known_of_each_device() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    fill_fleet(&clickhouse);
    let served = Served::start(warehouse, 1_000_000).await;
    let (viewer, _) = served.token(Role::Viewer, "a", 3_600);
    let fleet = data(&served, &viewer, "/api/v1/fleet?limit=10000");
    assert_eq!(fleet.iter().map(|row| row["device"].as_str().unwrap()).collect::<Vec<_>>(), ["pen-1", "pen-2"]);
    let expected = json!({"site": "s1", "kind": "INJECTOR", "state": "ONLINE", "alerts": 2, "worst_severity": "critical",
        "dose_state": "FAIL", "depth_state": "PASS", "drift_state": "DRIFT", "crossing_at": "2027-03-01T00:00:00.000000Z",
        "breaches": 2, "days_left": 10, "made": 22, "stored": 18, "missing": 3, "lost_events": 1});
    for (name, expected) in expected.as_object().unwrap() {
        assert_eq!(&fleet[0][name], expected, "{name}: {}", fleet[0]);
    }
    assert_close(&fleet[0]["dose_error_pct"], 100.0 * -2_500.0 / 700_000.0, "dose_error_pct");
    let expected = json!({"state": "OFF", "alerts": 1, "worst_severity": "low", "dose_state": "", "depth_state": "",
        "dose_error_pct": null, "drift_state": "", "crossing_at": null, "breaches": 0, "due_at": null, "days_left": null,
        "made": 0, "stored": 0, "missing": 0});
    for (name, expected) in expected.as_object().unwrap() {
        assert_eq!(&fleet[1][name], expected, "{name}: {}", fleet[1]);
    }
    let spark = fleet[0]["spark"].as_array().expect("a list");
    assert_eq!(spark.len(), 30);
    assert_close(&spark[29], 0.5, "today");
    assert_close(&spark[26], -3.0, "three days ago");
    assert_eq!(spark.iter().filter(|error| error.is_null()).count(), 28);
    assert_eq!(fleet[1]["spark"], Value::from(vec![Value::Null; 30]));
    let by_state = data(&served, &viewer, "/api/v1/fleet?state=OFF&site=s2&model=pen&kind=INJECTOR");
    assert_eq!(by_state, fleet[1..]);
    let bearer = format!("Bearer {viewer}");
    let csv = served.get("/api/v1/fleet", &[("authorization", &bearer), ("accept", "text/csv")]).body;
    let line = csv.lines().nth(1).expect("a row");
    assert!(line.ends_with(&format!(",{}-3.0   0.5", " ".repeat(26))), "{line}");
    assert_eq!(served.ask(&viewer, "/api/v1/fleet?limit=10001").problem(), "bad-parameter");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pipeline_by_minute_role_and_reason() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    fill_fleet(&clickhouse);
    insert(
        &clickhouse,
        &["monitor_positions (reader, seen, recorded_at) VALUES ('accuracy', '{}', '2026-11-30 10:00:00')"],
    );
    let served = Served::start(warehouse, 1_000_000).await;
    let (admin, _) = served.token(Role::Admin, "", 3_600);
    let (viewer, _) = served.token(Role::Viewer, "a", 3_600);
    let minutes = data(&served, &admin, "/api/v1/pipeline/minutes?minutes=5");
    assert_eq!(minutes.len(), 5);
    let sum = |name: &str| minutes.iter().filter_map(|row| row[name].as_u64()).sum::<u64>();
    assert_eq!((sum("injections"), sum("events"), sum("quarantined")), (10, 12, 2), "{minutes:?}");
    let busy = minutes.iter().find(|row| row["injections"] == 10).expect("a busy minute");
    assert_eq!((&busy["latency_p50_ms"], &busy["latency_p99_ms"]), (&json!(400.0), &json!(400.0)));
    let idle = minutes.iter().find(|row| row["injections"] == 0).expect("an idle minute");
    assert_eq!(idle["latency_p50_ms"], Value::Null);
    assert_eq!(data(&served, &admin, "/api/v1/pipeline/minutes").len(), 60);
    for wrong in ["0", "1441", "ten", "+5"] {
        let answer = served.ask(&admin, &format!("/api/v1/pipeline/minutes?minutes={wrong}"));
        assert_eq!(answer.problem(), "bad-parameter", "{wrong}");
    }
    served.faults.note("bridge", Some("MQTT is away: it's refused".to_owned()));
    let roles = data(&served, &admin, "/api/v1/pipeline/roles");
    let shown: Vec<_> = roles
        .iter()
        .map(|row| ["role", "subject", "state", "detail"].map(|name| row[name].as_str().unwrap()))
        .collect();
    assert_eq!(
        shown,
        [
            ["bridge", "", "FAULT", "MQTT is away: it's refused"],
            ["load", "reports 1/0", "COMMITTED", "position 6"],
            ["monitor", "accuracy", "PASSED", ""],
        ]
    );
    assert_eq!(roles[2]["since"], "2026-11-30T10:00:00.000000Z");
    let reasons = data(&served, &viewer, "/api/v1/pipeline/quarantine-reasons");
    let shown: Vec<_> =
        reasons.iter().map(|row| (row["reason"].as_str().unwrap(), row["n"].as_u64().unwrap())).collect();
    assert_eq!(shown, [("BAD", 1), ("OLD", 1)]);
    assert_eq!(data(&served, &admin, "/api/v1/pipeline/quarantine-reasons")[0]["n"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn thinned_errors_keep_their_extremes() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    let shots = |from: u32, count: u32, device: &str| {
        clickhouse.query(&format!(
            "INSERT INTO doseline.injections (tenant, site, device, boot_id, seq, at, session_id, outcome, target_nl, delivered_nl, \
             target_um, measured_um, dose_calibration_id) SELECT 'a', 's', '{device}', 1, {from} + number, \
             toDateTime64('2026-01-01 00:00:00', 6, 'UTC') + number * 60, 'x', if(number % 100 = 7, 'ABORTED', 'OK'), 10000, \
             toUInt32(10000 + intDiv(cityHash64(number), 7) % 401 - 200), 2000, 2010, if(number < 100, 'c1', 'c2') FROM numbers({count})"
        ));
    };
    shots(1, 5_000, "many");
    shots(1, 200, "few");
    let served = Served::start(warehouse, 1_000_000).await;
    let (viewer, _) = served.token(Role::Viewer, "a", 3_600);
    let points = data(&served, &viewer, "/api/v1/tenants/a/devices/many/errors");
    assert!((1_500..=2_000).contains(&points.len()), "{}", points.len());
    let of = |filter: &str| {
        let sql = format!(
            "SELECT min(100 * (delivered_nl::Int64 - target_nl) / target_nl) AS least, \
             max(100 * (delivered_nl::Int64 - target_nl) / target_nl) AS most, count() AS n \
             FROM doseline.injections WHERE device = 'many' AND outcome = 'OK' AND {filter}"
        );
        clickhouse.rows(&sql).remove(0)
    };
    let errors: Vec<f64> = points.iter().map(|point| point["error_pct"].as_f64().unwrap()).collect();
    let all = of("1");
    assert_close(&all["least"], errors.iter().copied().fold(f64::INFINITY, f64::min), "the least");
    assert_close(&all["most"], errors.iter().copied().fold(f64::NEG_INFINITY, f64::max), "the greatest");
    // Each injection is in one bucket, which has one point or two.
    let times: Vec<&str> = points.iter().map(|point| point["at"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "not in order");
    let (mut n, mut place) = (0, 0);
    while place < points.len() {
        let of_bucket = points[place]["bucket_n"].as_u64().unwrap();
        n += of_bucket;
        place += if of_bucket == 1 { 1 } else { 2 };
    }
    assert_eq!(Some(n), all["n"].as_u64());
    let few = data(&served, &viewer, "/api/v1/tenants/a/devices/few/errors");
    assert_eq!(few.len(), 198);
    assert!(few.iter().all(|point| point["bucket_n"] == 1));
    let first = of("seq <= 100");
    let of_calibration = data(&served, &viewer, "/api/v1/tenants/a/devices/many/errors?calibration_id=c1");
    assert_eq!(Some(of_calibration.len() as u64), first["n"].as_u64());
    let until = data(
        &served,
        &viewer,
        "/api/v1/tenants/a/devices/few/errors?since=2026-01-01T00:01:00Z&until=2026-01-01T00:03:00Z",
    );
    assert_eq!(until.len(), 2);
    let depth = data(&served, &viewer, "/api/v1/tenants/a/devices/few/errors?channel=DEPTH&limit=1");
    assert_eq!(
        (&depth[0]["error"], &depth[0]["target"], &depth[0]["error_pct"]),
        (&json!(10), &json!(2_000), &json!(0.5))
    );
}

/// One session a day of 20 injections at 10,000 nl. The error is far from the earlier ones from the
/// 40th on.
fn session(number: i64) -> SessionSum {
    let error = (number * 7_919 + number * number * 31).rem_euclid(101) - 50 + if number >= 40 { 150 } else { 0 };
    SessionSum {
        tenant: "a".to_owned(),
        device: "pen-1".to_owned(),
        channel: Channel::Dose,
        calibration_id: "c1".to_owned(),
        target: 10_000,
        session_id: format!("s{number:03}"),
        model: "pen".to_owned(),
        n: 20,
        error: 20 * error,
        targets: 200_000,
        first_at: 1_767_225_600_000_000 + number * 86_400_000_000,
        last_at: 1_767_225_600_000_000 + number * 86_400_000_000 + 1_200_000_000,
        ..SessionSum::default()
    }
}

/// The last point of a chart is what the monitor has stored of it, and the first signal its signal.
#[tokio::test(flavor = "multi_thread")]
async fn drift_points_are_those_of_the_monitor() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    let sums: Vec<SessionSum> = (1..=60).map(session).collect();
    let model = Model {
        model: "pen".to_owned(),
        dose_resolution_nl: 100,
        dose_tolerance_ppm: 100_000,
        dose_bands_nl: vec![15_000, 50_000],
        ..Model::default()
    };
    let rules = Rules::new(Limits::default()).expect("the defaults are valid");
    let charts = drift::evaluate(&sums.iter().collect::<Vec<_>>(), &[], &[("pen".to_owned(), model)].into(), &rules)
        .expect("charts");
    let [chart] = &charts[..] else { panic!("{charts:?}") };
    warehouse.add_accuracy(&[], &charts).await.expect("write the chart");
    insert(&clickhouse, &["models (model, dose_bands_nl) VALUES ('pen', [15000, 50000])"]);
    for sum in &sums {
        // In two rows, as of two batches.
        for part in 1..=2 {
            insert(
                &clickhouse,
                &[&format!(
                    "accuracy_session (tenant, site, device, model, session_id, dose_calibration_id, target_nl, outcome, dose_n, \
                     dose_target_nl, dose_error_nl, first_at, last_at, batch) VALUES ('a', 's', 'pen-1', 'pen', '{}', 'c1', 10000, 'OK', \
                     10, 100000, {}, fromUnixTimestamp64Micro({}), fromUnixTimestamp64Micro({}), {part})",
                    sum.session_id,
                    sum.error / 2,
                    sum.first_at + i64::from(part - 1),
                    sum.last_at,
                )],
            );
        }
    }
    let served = Served::start(warehouse, 1_000_000).await;
    let (viewer, _) = served.token(Role::Viewer, "a", 3_600);
    let path = "/api/v1/tenants/a/devices/pen-1/drift/points";
    let points = data(&served, &viewer, path);
    let ids: Vec<_> = points.iter().map(|point| point["session_id"].as_str().unwrap()).collect();
    assert_eq!(ids, sums.iter().map(|sum| sum.session_id.as_str()).collect::<Vec<_>>());
    let last = &points[59];
    for (name, expected) in [
        ("ewma", chart.ewma),
        ("ewma_limit", chart.ewma_limit),
        ("cusum_upper", chart.cusum_upper),
        ("cusum_lower", chart.cusum_lower),
        ("z", chart.last_z),
        ("error_pct", Some(chart.last_error_pct)),
        ("decision_limit", Some(rules.settings.cusum.h)),
    ] {
        assert_close(&last[name], expected.expect("a value"), name);
    }
    assert_eq!((&last["band"], &last["n"], &last["calibration_id"]), (&json!(15_000), &json!(20), &json!("c1")));
    let signal = points.iter().find(|point| point["signalled"] == true).expect("a signal");
    assert_eq!(signal["session_id"], chart.signal_session);
    assert_eq!((&points[0]["z"], &points[0]["ewma"]), (&Value::Null, &Value::Null));
    assert_eq!(data(&served, &viewer, &format!("{path}?limit=3")), points[57..]);
    assert_eq!(data(&served, &viewer, &format!("{path}?calibration_id=c1")).len(), 60);
    assert!(data(&served, &viewer, &format!("{path}?calibration_id=c2")).is_empty());
    assert!(data(&served, &viewer, &format!("{path}?channel=DEPTH")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trumpet_narrows_and_crosses_no_gap() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    // Errors of -2, -1, 0, 1 and 2 %, again and again; the 15th injection is missing.
    insert(
        &clickhouse,
        &[
            "injections (tenant, site, device, boot_id, seq, injection_no, at, session_id, outcome, target_nl, delivered_nl) \
           SELECT 'a', 's', 'pen-1', 1, number * 3 + 1, number + 1, now64(6) - 3600 + number, 'x', 'OK', 10000, \
           9800 + 100 * (number % 5) FROM numbers(30) WHERE number != 14",
        ],
    );
    let served = Served::start(warehouse, 1_000_000).await;
    let (viewer, _) = served.token(Role::Viewer, "a", 3_600);
    let path = "/api/v1/tenants/a/devices/pen-1/trumpet";
    let curve = data(&served, &viewer, path);
    let windows: Vec<_> =
        curve.iter().map(|row| (row["window"].as_u64().unwrap(), row["n"].as_u64().unwrap())).collect();
    assert_eq!(windows, [(1, 29), (2, 27), (5, 21), (10, 11)]);
    for (row, most) in curve.iter().zip([2.0, 1.5, 0.0, 0.0]) {
        assert_close(&row["error_max_pct"], most, "the greatest mean");
        assert_close(&row["error_min_pct"], -most, "the least mean");
    }
    assert_eq!(data(&served, &viewer, &format!("{path}?session=x")), curve);
    assert!(data(&served, &viewer, &format!("{path}?session=y")).is_empty());
    assert!(data(&served, &viewer, &format!("{path}?calibration_id=c")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_finds_the_nearest_first() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    insert(
        &clickhouse,
        &[
            "devices (tenant, device, site, model, origin, valid_from) VALUES ('a', 'Alto-1', 'north', 'pen', 'IMPORTED', now64(6)), \
             ('a', 'alto-12', 'north', 'pen', 'IMPORTED', now64(6)), ('a', 'my-alto-1', 'north', 'pen', 'IMPORTED', now64(6)), \
             ('b', 'alto-1', 'north', 'pen', 'IMPORTED', now64(6))",
            "sessions (tenant, site, device, boot_id, seq, at, event, session_id, client_ref) VALUES \
             ('a', 'north', 'Alto-1', 1, 1, '2026-11-01 08:00:00', 'STARTED', 'feed01', 'client-7')",
            "mounts (tenant, site, device, boot_id, seq, at, event, slot, item_id, lot) VALUES \
             ('a', 'north', 'Alto-1', 1, 1, '2026-11-01 08:00:00', 'MOUNTED', 'NEEDLE', 'needle-77', 'LOT-9')",
            "sterilization_cycles (tenant, site, device, boot_id, seq, at, cycle_uid, recipe) VALUES \
             ('a', 'north', 'ster', 1, 1, '2026-11-01 08:00:00', 'cyc-500', '134C')",
            "alerts (tenant, alert_key, severity, state, device, title, raised_at) VALUES \
             ('a', 'drift/a/x', 'high', 'OPEN', 'x', 'the dose of x drifts up', '2026-11-01 08:00:00')",
        ],
    );
    let served = Served::start(warehouse, 1_000_000).await;
    let (viewer, _) = served.token(Role::Viewer, "a", 3_600);
    let hits = |q: &str| -> Vec<String> {
        let hits = data(&served, &viewer, &format!("/api/v1/search?q={q}"));
        let text =
            |row: &Value| ["rank", "kind", "tenant", "id"].map(|name| row[name].to_string().replace('"', "")).join(" ");
        hits.iter().map(text).collect()
    };
    assert_eq!(hits("ALTO-1"), ["0 DEVICE a Alto-1", "1 DEVICE a alto-12", "2 DEVICE a my-alto-1"]);
    assert_eq!(hits("nort"), ["1 SITE a north"]);
    assert_eq!(hits("feed"), ["1 SESSION a feed01"]);
    assert_eq!(hits("ent-7"), ["2 SESSION a feed01"]);
    assert_eq!(hits("Needle-77"), ["0 ITEM a needle-77"]);
    assert_eq!(hits("lot-9"), ["0 LOT a LOT-9"]);
    assert_eq!(hits("CYC-5"), ["1 CYCLE a cyc-500"]);
    assert_eq!(hits("drifts"), ["2 ALERT a drift/a/x"]);
    assert!(hits("nothing%27%25").is_empty());
    let session = data(&served, &viewer, "/api/v1/search?q=feed01").remove(0);
    assert_eq!((&session["title"], &session["site"]), (&json!("on Alto-1, client-7"), &json!("north")));
    assert_eq!(session["at"], "2026-11-01T08:00:00.000000Z");
    for wrong in ["/api/v1/search", "/api/v1/search?q=x", &format!("/api/v1/search?q={}", "x".repeat(201))] {
        assert_eq!(served.ask(&viewer, wrong).problem(), "bad-parameter", "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_sheet_and_the_facts_of_an_alert() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    insert(
        &clickhouse,
        &[
            "calibrations (tenant, site, device, boot_id, seq, index, subject_device, channel, calibration_id, performed_at, due_at, \
             certificate, operator_id, points, reference, indicated, phase, expanded_uncertainty) VALUES \
             ('a', 's1', 'bench', 1, 1, 0, 'pen-1', 'DOSE', 'c1', '2026-10-01 08:00:00', '2027-10-01 08:00:00', 'K-1', 'ann', 3, 10000, 10050, 'AS_FOUND', 50000), \
             ('a', 's1', 'bench', 1, 1, 1, 'pen-1', 'DOSE', 'c1', '2026-10-01 08:00:00', '2027-10-01 08:00:00', 'K-1', 'ann', 3, 10000, 9900, 'AS_FOUND', 50000), \
             ('a', 's1', 'bench', 1, 1, 2, 'pen-1', 'DOSE', 'c1', '2026-10-01 08:00:00', '2027-10-01 08:00:00', 'K-1', 'ann', 3, 20000, 20010, 'AS_LEFT', 60000)",
            "accuracy_verdicts (tenant, site, device, channel, calibration_id, target, state, reason, completeness, computed_at) VALUES \
             ('a', 's1', 'pen-1', 'DOSE', 'c1', 10000, 'FAIL', 'too wide', '1 of 9 is missing', '2026-11-02 08:00:00')",
            "alerts (tenant, alert_key, kind, severity, state, site, device, title, since, evidence_rows) VALUES \
             ('a', 'accuracy-verdict/a/pen-1/dose/10000', 'accuracy-verdict', 'high', 'OPEN', 's1', 'pen-1', 'outside', '2026-11-01 08:00:00', \
             '[{\"calibration\":\"c1\",\"limits\":[9500.0,10500.0],\"mean_error\":275.5,\"n\":99}]')",
            "alert_history (tenant, alert_key, at, event, actor, severity, note) VALUES \
             ('a', 'accuracy-verdict/a/pen-1/dose/10000', '2026-11-03 08:00:00', 'RAISED', '', 'high', 'outside'), \
             ('a', 'accuracy-verdict/a/pen-1/dose/10000', '2026-11-04 08:00:00', 'CHANGED', '', 'high', 'outside'), \
             ('a', 'accuracy-verdict/a/pen-1/dose/10000', '2026-11-05 08:00:00', 'ACKNOWLEDGED', 'bea', 'high', 'sent in')",
            "incidents (tenant, incident_id, subject_kind, subject, note, reported_by, recorded_at) VALUES \
             ('a', 'i1', 'DEVICE', 'pen-1', 'fell down', 'cid', '2026-11-06 08:00:00'), \
             ('a', 'i2', 'ITEM', 'needle', 'bent', 'cid', '2026-11-07 08:00:00')",
            "alert_deliveries (target, tenant, alert_key, delivered_at, status, severity, fingerprint) VALUES \
             ('kafka', 'a', 'accuracy-verdict/a/pen-1/dose/10000', '2026-11-03 08:00:01', 'firing', 'high', 'f1')",
            "faults (tenant, site, device, boot_id, seq, at, code, state, detail) VALUES \
             ('a', 's1', 'pen-1', 1, 7, '2026-11-03 08:00:00', 'E-1', 'RAISED', 'shot 5'), \
             ('a', 's1', 'pen-1', 1, 9, '2026-11-03 09:00:00', 'E-2', 'CLEARED', '')",
            "mounts (tenant, site, device, boot_id, seq, at, event, slot, mount_id, item_id, fill_nl, residual_nl) VALUES \
             ('a', 's1', 'pen-1', 1, 2, '2026-11-03 08:00:00', 'MOUNTED', 'SYRINGE', 'm1', 'sy', 1000, NULL), \
             ('a', 's1', 'pen-1', 1, 5, '2026-11-03 09:00:00', 'REMOVED', 'SYRINGE', 'm1', 'sy', NULL, 400)",
            "item_uses (tenant, site, device, session_id, slot, mount_id, item_id, injections, delivered_n, delivered_nl) VALUES \
             ('a', 's1', 'pen-1', 'x', 'SYRINGE', 'm1', 'sy', 3, 3, 570)",
        ],
    );
    let served = Served::start(warehouse, 1_000_000).await;
    let (viewer, _) = served.token(Role::Viewer, "a", 3_600);
    let sheet = data(&served, &viewer, "/api/v1/audit-sheet?tenant=a");
    let whats: Vec<_> = sheet.iter().map(|row| row["what"].as_str().unwrap()).collect();
    assert_eq!(whats, ["INCIDENT", "INCIDENT", "ACKNOWLEDGED", "ALERT", "VERDICT", "CALIBRATION"]);
    let calibration = &sheet[5];
    let expected = json!({"at": "2026-10-01T08:00:00.000000Z", "site": "s1", "device": "pen-1", "channel": "DOSE", "title": "c1",
        "certificate": "K-1", "as_found_error_pct": -1.0, "as_left_error_pct": 0.05, "uncertainty_pct": 0.5,
        "due_at": "2027-10-01T08:00:00.000000Z", "actor": "ann"});
    for (name, expected) in expected.as_object().unwrap() {
        assert_eq!(&calibration[name], expected, "{name}");
    }
    assert_eq!(
        (&sheet[4]["title"], &sheet[4]["note"]),
        (&json!("FAIL at 10000 nl, calibration c1"), &json!("too wide; 1 of 9 is missing"))
    );
    assert_eq!(
        (&sheet[2]["actor"], &sheet[2]["note"], &sheet[2]["title"]),
        (&json!("bea"), &json!("sent in"), &json!("outside"))
    );
    assert_eq!((&sheet[3]["severity"], &sheet[3]["note"]), (&json!("high"), &json!("")));
    let period = "since=2026-11-03T08:00:00Z&until=2026-11-06T08:00:00Z";
    assert_eq!(data(&served, &viewer, &format!("/api/v1/audit-sheet?tenant=a&device=pen-1&{period}")), sheet[2..4]);
    assert_eq!(data(&served, &viewer, "/api/v1/audit-sheet?tenant=a&site=s1").len(), 4);
    assert_eq!(served.ask(&viewer, "/api/v1/audit-sheet").problem(), "bad-parameter");
    assert_eq!(served.ask(&viewer, "/api/v1/audit-sheet?tenant=b").problem(), "not-found");
    let alert = "/api/v1/tenants/a/alerts/accuracy-verdict%2Fa%2Fpen-1%2Fdose%2F10000";
    let facts = data(&served, &viewer, &format!("{alert}/evidence"));
    let expected = json!([{"at": "2026-11-01T08:00:00.000000Z", "device": "pen-1", "session_id": "", "value": 275.5,
        "limit_value": 500.0, "unit": "nl",
        "what": "calibration c1, limits 9500.000 and 10500.000, mean error 275.500, n 99"}]);
    assert_eq!(Value::from(facts), expected);
    let told = data(&served, &viewer, &format!("{alert}/deliveries"));
    assert_eq!((told.len(), &told[0]["target"], &told[0]["status"]), (1, &json!("kafka"), &json!("firing")));
    let faults = data(&served, &viewer, "/api/v1/tenants/a/devices/pen-1/faults");
    assert_eq!((faults.len(), &faults[0]["code"], &faults[1]["detail"]), (2, &json!("E-2"), &json!("shot 5")));
    let balances = data(&served, &viewer, "/api/v1/tenants/a/devices/pen-1/mass-balance");
    assert_eq!((balances.len(), &balances[0]["balance_nl"], &balances[0]["balance_pct"]), (1, &json!(30), &json!(5.0)));
    assert_eq!(balances[0]["at"], "2026-11-03T08:00:00.000000Z");
}

/// The statement that is shown is the one that is run: it gives the same rows.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_shows_its_sql() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    marks::fill(&clickhouse);
    let served = Served::start(warehouse, 1_000_000).await;
    let (alpha, _) = served.token(Role::Operator, "alpha", 3_600);
    let bearer = format!("Bearer {alpha}");
    for path in ["/api/v1/incidents?limit=7&subject=alpha-subject", "/api/v1/tenants/alpha/devices/alpha-device"] {
        let shown = served.get(path, &[("authorization", &bearer), ("accept", "application/sql")]);
        assert_eq!(shown.header("content-type"), Some("application/sql; charset=utf-8"));
        assert!(shown.header("etag").is_some());
        let rows = clickhouse.rows(
            &shown
                .body
                .replace("FROM incidents", "FROM doseline.incidents")
                .replace("FROM fleet", "FROM doseline.fleet"),
        );
        let asked = served.ask(&alpha, path).json();
        let asked = asked["data"].as_array().cloned().unwrap_or_else(|| vec![asked]);
        assert!(!rows.is_empty());
        assert_eq!(rows.len(), asked.len(), "{path}");
        assert_eq!(rows[0]["tenant"], asked[0]["tenant"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manufacturer_compares_its_units() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    insert(&clickhouse, &["models (model, dose_tolerance_ppm) VALUES ('pen', 50000)"]);
    let row = |unit: u32, calibration: &str, day: &str, error: u32, bins: &str| {
        insert(
            &clickhouse,
            &[&format!(
                "accuracy_session (tenant, site, device, model, firmware, session_id, dose_calibration_id, target_nl, outcome, dose_n, \
                 dose_target_nl, dose_error_nl, first_at, dose_error_bins, dose_error_counts) VALUES ('t{}', 's', 'd{unit}', 'pen', '1.0', \
                 'x', '{calibration}', 1000, 'OK', 10, 10000, {error}, '{day} 08:00:00', {bins})",
                unit % 2
            )],
        );
    };
    for unit in 1..=5 {
        let device = format!(
            "devices (tenant, device, manufacturer, serial, origin, valid_from) VALUES \
             ('t{}', 'd{unit}', 'maker', 'S{unit}', 'IMPORTED', now64(6) - 60)",
            unit % 2
        );
        insert(&clickhouse, &[&device]);
        row(unit, "c1", "2026-01-01", 10 * unit, "[0], [10]");
        // Tolerated are 5 %: the bin of -6 holds errors of -6 to -5 %.
        let (error, bins) = if unit == 5 { (5_000, "[5, 60], [4, 6]") } else { (100 * unit, "[-6, -5], [1, 9]") };
        row(unit, "c1", "2026-01-11", error, bins);
    }
    row(1, "c2", "2026-01-21", 10, "[0], [10]");
    let served = Served::start(warehouse, 1_000_000).await;
    let (maker, _) = served.token(Role::Manufacturer, "maker", 3_600);
    let (other, _) = served.token(Role::Manufacturer, "other", 3_600);
    let cohorts = data(&served, &maker, "/api/v1/manufacturer/cohorts");
    let shown: Vec<_> = cohorts
        .iter()
        .map(|row| ["days_since_calibration", "units", "n"].map(|name| row[name].as_u64().unwrap()))
        .collect();
    assert_eq!(shown, [[0, 5, 60], [10, 5, 50]]);
    assert_eq!((&cohorts[0]["cohort"], &cohorts[0]["channel"]), (&json!("pen"), &json!("DOSE")));
    let (errors, targets) = ([20.0, 20.0, 30.0, 40.0, 50.0], [20_000.0, 10_000.0, 10_000.0, 10_000.0, 10_000.0]);
    let ratio = 160.0 / 60_000.0;
    let squares: f64 =
        errors.iter().zip(targets).map(|(error, target): (&f64, f64)| (error - ratio * target).powi(2)).sum();
    let half = 196.0 * (5.0 / 4.0 * squares).sqrt() / 60_000.0;
    assert_close(&cohorts[0]["error_pct"], 100.0 * ratio, "error_pct");
    assert_close(&cohorts[0]["error_low_pct"], 100.0 * ratio - half, "error_low_pct");
    assert_close(&cohorts[0]["error_high_pct"], 100.0 * ratio + half, "error_high_pct");
    let by_firmware = data(&served, &maker, "/api/v1/manufacturer/cohorts?by=firmware&channel=DOSE");
    assert_eq!((by_firmware.len(), &by_firmware[0]["cohort"]), (2, &json!("pen 1.0")));
    let tolerance = data(&served, &maker, "/api/v1/manufacturer/tolerance");
    assert_eq!(tolerance.len(), 1, "{tolerance:?}");
    let expected = analysis::wilson::share(14, 110, 0.95).expect("an interval");
    assert_eq!(["units", "n", "out"].map(|name| tolerance[0][name].as_u64().unwrap()), [5, 110, 14]);
    for (name, expected) in [("share", expected.share), ("share_low", expected.low), ("share_high", expected.high)] {
        assert_close(&tolerance[0][name], expected, name);
    }
    let outliers = data(&served, &maker, "/api/v1/manufacturer/outliers");
    assert_eq!(outliers.len(), 5);
    assert_close(&outliers[0]["error_pct"], 25.25, "error_pct");
    assert_close(&outliers[0]["cohort_error_pct"], 1.65, "cohort_error_pct");
    assert_close(&outliers[0]["z"], 23.6 / (1.4826 * 0.55), "z");
    assert_eq!((&outliers[0]["rank"], outliers[0]["unit_key"].as_str().map(str::len)), (&json!(1), Some(64)));
    for path in ["cohorts", "tolerance", "outliers"] {
        assert!(data(&served, &other, &format!("/api/v1/manufacturer/{path}")).is_empty(), "{path}");
    }
}
