//! Accuracy and drift: sums arrive in steps, and the monitor makes a pass after each. Also the
//! views that clinics and manufacturers read.

use std::fmt::Write as _;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use sha2::{Digest as _, Sha256};

use super::Rig;

/// Sessions, one for each day from 2026-01-05, with 20 injections each at 10,000 nl.
struct Visits<'a> {
    rig: &'a Rig,
    random: StdRng,
}

impl Visits<'_> {
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.random.random::<f64>()).sum::<f64>() - 6.0
    }

    /// Adds a session whose doses have this mean error. They scatter by 2 %, and one injection is
    /// aborted.
    fn add(&mut self, device: &str, day: u32, error_pct: f64, calibration: &str) {
        let between = 0.4 * self.normal();
        let session = format!("{device}-{day}");
        let mut values = String::new();
        for shot in 0..21 {
            let delivered = match shot {
                20 => 900.0,
                _ => 10_000.0 * (1.0 + (error_pct + between + 2.0 * self.normal()) / 100.0),
            };
            let outcome = if shot == 20 { "ABORTED" } else { "OK" };
            let _ = write!(
                values,
                "('acme', 'paris', '{device}', 'pen', 'f1', 1, {}, toDateTime64('2026-01-05 08:00:00', 6, 'UTC') + \
                 toIntervalDay({day}) + {shot}, 'DEVICE', '{session}', '{outcome}', 'FACE', 10000, {}, 'ENCODER', 3000, 3010, \
                 'ENCODER', '{calibration}', '{calibration}-depth'),",
                day * 100 + shot,
                delivered.round(),
            );
        }
        self.insert(&session, values.trim_end_matches(','));
    }

    /// Inserts the injections and their sums, as the loader does.
    fn insert(&self, session: &str, values: &str) {
        let columns = "tenant, site, device, model, firmware, boot_id, seq, at, time_source, session_id, outcome, area, \
                       target_nl, delivered_nl, dose_source, target_um, measured_um, depth_source, dose_calibration_id, \
                       depth_calibration_id";
        self.rig.clickhouse.query(&format!("INSERT INTO doseline.injections ({columns}) VALUES {values}"));
        self.rig.clickhouse.query(&format!(
            "INSERT INTO doseline.accuracy_session (tenant, site, device, model, firmware, session_id, dose_calibration_id, \
             depth_calibration_id, target_nl, target_um, outcome, injections, dose_n, dose_target_nl, dose_delivered_nl, dose_error_nl, \
             dose_error_sq, depth_n, depth_target_um, depth_measured_um, depth_error_um, depth_error_sq, first_at, last_at) \
             SELECT tenant, site, device, model, firmware, session_id, dose_calibration_id, depth_calibration_id, target_nl, \
             target_um, outcome, count(), count(), sum(target_nl), sum(delivered_nl), sum(toInt64(delivered_nl) - target_nl), \
             sum(pow(toInt64(delivered_nl) - target_nl, 2)), count(), sum(target_um), sum(measured_um), \
             sum(toInt64(measured_um) - target_um), sum(pow(toInt64(measured_um) - target_um, 2)), min(at), max(at) \
             FROM doseline.injections WHERE session_id = '{session}' \
             GROUP BY tenant, site, device, model, firmware, session_id, dose_calibration_id, depth_calibration_id, target_nl, \
             target_um, outcome"
        ));
    }
}

fn register(rig: &Rig) {
    rig.clickhouse.query(
        "INSERT INTO doseline.models (model, dose_resolution_nl, dose_tolerance_ppm, depth_resolution_um, depth_tolerance_um, \
         safe_depth_um, dose_bands_nl) VALUES ('pen', 100, 100000, 50, 200, map('FACE', 4000), [15000, 50000])",
    );
}

fn kinds(rig: &Rig) -> Vec<String> {
    let sql = "SELECT DISTINCT severity, kind, device FROM doseline.open_alerts WHERE kind != 'spike' AND kind NOT LIKE 'sterility-%' ORDER BY kind, device";
    rig.clickhouse.query(sql).lines().map(|line| line.replace('\t', " ")).collect()
}

fn standing(rig: &Rig) -> [String; 3] {
    let all = |table: &str, key: &str| {
        rig.clickhouse.query(&format!(
            "SELECT * EXCEPT (computed_at) FROM doseline.{table} FINAL WHERE state != 'CLEARED' ORDER BY {key}"
        ))
    };
    [
        all("accuracy_verdicts", "tenant, device, channel, calibration_id, target"),
        all("drift", "tenant, device, channel, band, calibration_id, firmware"),
        rig.alerts(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_is_found_in_any_order_and_a_healthy_device_raises_nothing() {
    let mut random = StdRng::seed_from_u64(harness::seed());
    let mut rig = Rig::start().await;
    register(&rig);
    let ramp = |day: u32| 0.25 * f64::from(day.saturating_sub(25));
    let mut days: Vec<(&str, u32)> = (0..70).flat_map(|day| [("pen-ok", day), ("pen-drift", day)]).collect();
    days.shuffle(&mut random);
    for part in days.chunks(days.len().div_ceil(3)) {
        for (device, day) in part {
            let drifts = *device == "pen-drift";
            // The order is random, but the doses are fixed. With random doses, some healthy device
            // would sooner or later be taken for a drifting one.
            let mut visits =
                Visits { rig: &rig, random: StdRng::seed_from_u64(u64::from(2 * day + u32::from(drifts))) };
            visits.add(device, *day, if drifts { ramp(*day) } else { 0.5 }, "c1");
        }
        rig.pass().await;
    }
    let found = kinds(&rig);
    assert_eq!(found, ["high accuracy-verdict pen-drift", "medium drift pen-drift", "medium forecast pen-drift"]);
    let said =
        "SELECT state, sessions, n FROM doseline.accuracy_verdicts FINAL WHERE device = 'pen-ok' AND channel = 'DOSE'";
    assert_eq!(rig.clickhouse.query(said), "PASS\t70\t1400", "aborted injections say nothing of accuracy");
    let drift =
        "SELECT channel, band, state, side FROM doseline.calibration_drift WHERE device = 'pen-drift' ORDER BY channel";
    assert_eq!(rig.clickhouse.query(drift).lines().last(), Some("DOSE\t15000\tDRIFT\tUPPER"));

    // A second pass, a pass from scratch, and a new monitor find the same rows.
    let before = standing(&rig);
    assert_eq!(rig.pass().await, monitor::Summary::default());
    rig.monitor.start_over();
    let again = rig.pass().await;
    assert!(again.whole && again.verdicts == 0 && again.alerts == 0, "{again:?}");
    for table in ["accuracy_verdicts", "drift", "alerts", "alert_history", "monitor_positions"] {
        rig.clickhouse.query(&format!("TRUNCATE TABLE doseline.{table}"));
    }
    rig.monitor = Rig::monitor(&rig.warehouse).await;
    assert!(rig.pass().await.whole);
    assert_eq!(standing(&rig), before);

    // A new calibration ends the alerts about the old one.
    Visits { rig: &rig, random: StdRng::seed_from_u64(1) }.add("pen-drift", 71, 0.0, "c2");
    rig.pass().await;
    assert_eq!(kinds(&rig), [""; 0]);
    let cleared = "SELECT count() FROM doseline.alert_history WHERE event = 'CLEARED' AND kind = 'drift'";
    assert_eq!(rig.clickhouse.number(cleared), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn single_injections_overdue_use_and_devices_raise_their_alerts() {
    let mut rig = Rig::start().await;
    register(&rig);
    rig.pass().await;
    let shot = |session: &str, seq: u32, outcome: &str, delivered: u32, measured: u32| {
        format!(
            "('acme', 'paris', 'pen-1', 'pen', 'f1', 1, {seq}, toDateTime64('2026-01-05 08:00:00', 6, 'UTC') + {seq}, 'DEVICE', \
             '{session}', '{outcome}', 'FACE', 10000, {delivered}, 'ENCODER', 3000, {measured}, 'ENCODER', 'c1', 'd1')"
        )
    };
    let visits = Visits { rig: &rig, random: StdRng::seed_from_u64(1) };
    visits.insert("fine", &[shot("fine", 1, "OK", 11_900, 3_400), shot("fine", 2, "ABORTED", 10, 3_000)].join(","));
    visits.insert("deep", &shot("deep", 3, "OK", 10_000, 4_001));
    visits.insert("dose", &shot("dose", 4, "OK", 12_001, 3_000));
    let blocked: Vec<_> = (5..8).map(|seq| shot("blocked", seq, "OCCLUDED", 100, 3_000)).collect();
    visits.insert("blocked", &blocked.join(","));
    visits.insert("twice", &[10, 11, 13].map(|seq| shot("twice", seq, "OCCLUDED", 100, 3_000)).join(","));
    rig.clickhouse.query(
        "INSERT INTO doseline.calibrations (tenant, site, device, boot_id, seq, at, subject_device, channel, calibration_id, \
         performed_at, due_at) VALUES ('acme', 'paris', 'bench', 1, 1, '2025-01-05', 'pen-1', 'DOSE', 'c1', '2025-01-05', \
         '2026-01-05 08:00:03')",
    );
    rig.clickhouse.query(
        "INSERT INTO doseline.device_status (tenant, site, device, boot_id, received_at, battery_pct, ingest_day) \
         SELECT 'acme', 'paris', 'pen-1', 1, now64(6), 12, today()",
    );
    rig.clickhouse.query(
        "INSERT INTO doseline.sessions (tenant, site, device, boot_id, seq, at, session_id, event, licence) VALUES \
         ('acme', 'paris', 'pen-1', 1, 1, '2026-01-05', 'fine', 'STARTED', 'EXPIRED'), \
         ('other', 'rome', 'pen-9', 1, 1, '2026-01-05', 'else', 'STARTED', 'EXPIRED')",
    );
    rig.clickhouse
        .query("INSERT INTO doseline.policies (tenant, name, value) VALUES ('acme', 'session.licence', 'required')");
    rig.monitor.start_over();
    rig.pass().await;
    let keys: Vec<_> = rig.open().into_iter().filter(|key| !key.contains("sterility")).collect();
    assert_eq!(
        keys,
        [
            "low battery/acme/pen-1",
            "low calibration-due/acme/pen-1/dose",
            "high calibration-overdue/acme/pen-1/dose/c1",
            "critical depth-unsafe/acme/pen-1/deep",
            "high occlusion/acme/pen-1/blocked",
            "medium session-licence/acme/pen-1/fine",
            "high single-depth/acme/pen-1/deep",
            "high single-dose/acme/pen-1/dose",
        ]
    );
    // The query that each alert gives as its evidence works.
    let queries =
        rig.clickhouse.rows("SELECT evidence_query FROM doseline.open_alerts WHERE NOT startsWith(kind, 'sterility')");
    for query in &queries {
        let query = query["evidence_query"].as_str().expect("SQL");
        rig.warehouse.command(query).await.unwrap_or_else(|error| panic!("{error}\nin {query}"));
    }
    rig.monitor.start_over();
    assert_eq!(rig.pass().await.alerts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_visit_far_off_is_a_spike_and_one_a_little_off_is_none() {
    let mut rig = Rig::start().await;
    register(&rig);
    let mut visits = Visits { rig: &rig, random: StdRng::seed_from_u64(5) };
    for day in 0..40 {
        visits.add("pen-far", day, if day == 35 { 15.0 } else { 0.0 }, "c1");
        visits.add("pen-near", day, if day == 35 { 1.2 } else { 0.0 }, "c1");
    }
    rig.pass().await;
    let spikes = "SELECT severity, alert_key, sessions FROM doseline.open_alerts WHERE kind = 'spike'";
    assert_eq!(rig.clickhouse.query(spikes), "high\tspike/acme/pen-far/dose/15000/c1\t['pen-far-35']");
    let charted = "SELECT device, spikes FROM doseline.calibration_drift WHERE channel = 'DOSE' ORDER BY device";
    assert_eq!(rig.clickhouse.query(charted), "pen-far\t['pen-far-35']\npen-near\t[]");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_visit_lacks_is_said_when_its_end_arrives_late_and_other_limits_judge_everything_again() {
    let mut rig = Rig::start().await;
    register(&rig);
    let mut visits = Visits { rig: &rig, random: StdRng::seed_from_u64(6) };
    for day in 0..6 {
        visits.add("pen-1", day, 12.0, "c1");
    }
    rig.pass().await;
    let verdict = "SELECT state, completeness FROM doseline.accuracy_verdicts FINAL WHERE channel = 'DOSE'";
    assert_eq!(rig.clickhouse.query(verdict), "UNDECIDED\t");
    // 21 injections have arrived, but the device says that there were 24.
    rig.clickhouse.query(
        "INSERT INTO doseline.sessions (tenant, site, device, boot_id, seq, at, session_id, event, shots) VALUES \
         ('acme', 'paris', 'pen-1', 1, 999, '2026-01-07 09:00:00', 'pen-1-2', 'ENDED', 24), \
         ('acme', 'paris', 'pen-1', 1, 998, '2026-01-08 09:00:00', 'pen-1-3', 'ENDED', 21)",
    );
    assert!(!rig.pass().await.whole);
    let missing = "3 of 24 injections are missing, in 1 session";
    assert_eq!(rig.clickhouse.query(verdict), format!("UNDECIDED\t{missing}"));
    let chart = "SELECT completeness FROM doseline.drift FINAL WHERE channel = 'DOSE'";
    assert_eq!(rig.clickhouse.query(chart), missing);
    let before = standing(&rig);
    rig.monitor.start_over();
    assert_eq!(rig.pass().await.verdicts, 0, "from scratch it says the same");

    let limits = || monitor::limits::Limits { sessions_min: 5, ..monitor::limits::Limits::default() };
    rig.monitor = Rig::monitor_by(&rig.warehouse, limits()).await;
    assert!(rig.pass().await.whole);
    assert_eq!(rig.clickhouse.query(verdict), format!("FAIL\t{missing}"));
    let told = "SELECT completeness FROM doseline.open_alerts WHERE kind = 'accuracy-verdict'";
    assert_eq!(rig.clickhouse.query(told), missing);
    rig.monitor = Rig::monitor_by(&rig.warehouse, limits()).await;
    assert!(!rig.pass().await.whole, "a restart by the same limits goes on");
    rig.monitor = Rig::monitor(&rig.warehouse).await;
    assert!(rig.pass().await.whole);
    assert_eq!(standing(&rig), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_alert_is_in_the_guide_with_a_query_that_the_engine_takes() {
    let rig = Rig::start().await;
    let guide = include_str!("../../../docs/accuracy.md");
    let fleet = warehouse::devices::FLEET.map(|question| question.kind);
    let kinds = [
        &monitor::accuracy::conditions::OF_DEVICES[..],
        &monitor::accuracy::conditions::OF_SESSIONS,
        &fleet,
        &["mass-balance"],
    ]
    .concat();
    for kind in kinds {
        assert!(guide.contains(&format!("\n| `{kind}` | `SELECT ")), "docs/accuracy.md has no query for {kind}");
    }
    for example in guide.split('`').filter(|text| text.starts_with("SELECT ")) {
        rig.warehouse.command(example).await.unwrap_or_else(|error| panic!("{error}\nin {example}"));
    }
}

fn hmac(key: &[u8; 64], message: &[u8]) -> String {
    let pad = |byte: u8| key.iter().map(|key| key ^ byte).collect::<Vec<_>>();
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    let outer = Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize();
    outer.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_calibration_names_its_injections_and_a_manufacturer_sees_no_visit() {
    let rig = Rig::start().await;
    register(&rig);
    let mut visits = Visits { rig: &rig, random: StdRng::seed_from_u64(3) };
    for day in 0..6 {
        visits.add("pen-1", day, 0.0, "c1");
    }
    let calibration = |id: &str, seq: u32, day: u32, indicated: u32| {
        rig.clickhouse.query(&format!(
            "INSERT INTO doseline.calibrations (tenant, site, device, boot_id, seq, at, subject_device, channel, \
             calibration_id, performed_at, target, reference, indicated, phase) VALUES ('acme', 'paris', 'bench', 1, {seq}, \
             '2026-01-20', 'pen-1', 'DOSE', '{id}', toDateTime64('2026-01-05 00:00:00', 6, 'UTC') + toIntervalDay({day}), \
             10000, 10000, {indicated}, 'AS_FOUND')"
        ));
    };
    calibration("good", 1, 2, 10_050);
    calibration("bad", 2, 5, 10_900);
    let impact = "SELECT count(), uniqExact(session_id), any(round(as_found_error_pct, 3)) FROM doseline.calibration_impact \
                  WHERE calibration_id = 'bad'";
    assert_eq!(rig.clickhouse.query(impact), "63\t3\t9", "three visits of 21 injections since the good one");
    let affected = rig.warehouse.affected("bad", "acme").await.expect("the visits");
    assert_eq!(
        affected.iter().map(|visit| visit.session_id.as_str()).collect::<Vec<_>>(),
        ["pen-1-2", "pen-1-3", "pen-1-4"]
    );
    assert!(rig.warehouse.affected("bad", "other").await.expect("none").is_empty());
    assert!(!rig.warehouse.calibration_is_known("x", "").await.expect("an answer"));

    rig.clickhouse.query(
        "INSERT INTO doseline.devices (tenant, device, site, kind, model, manufacturer, serial, udi) VALUES \
         ('acme', 'pen-1', 'paris', 'INJECTOR', 'pen', 'maker', 'SN-1', '(01)09506000134352(10)L7(21)SN-1')",
    );
    let secret = rig.clickhouse.query("SELECT secret FROM doseline.unit_secret");
    let key: Vec<u8> =
        (0..128).step_by(2).map(|at| u8::from_str_radix(&secret[at..at + 2], 16).expect("hex")).collect();
    let key: [u8; 64] = key.try_into().expect("64 bytes");
    let unit = rig.clickhouse.query("SELECT DISTINCT unit_key, lot, manufacturer FROM doseline.calibration_by_unit");
    assert_eq!(unit, format!("{}\tL7\tmaker", hmac(&key, b"(01)09506000134352(10)L7(21)SN-1")));
    let days = "SELECT count(), sum(n) FROM doseline.calibration_by_unit WHERE channel = 'DOSE'";
    assert_eq!(rig.clickhouse.query(days), "6\t120");
    let model = "SELECT units, sum(n), round(sum(adjusted_error_pct), 6) = 0 FROM doseline.calibration_by_model \
                 WHERE channel = 'DOSE' GROUP BY units";
    assert_eq!(rig.clickhouse.query(model), "1\t120\t1");
    for view in ["calibration_by_unit", "calibration_by_model"] {
        for column in rig.clickhouse.rows(&format!("DESCRIBE TABLE doseline.{view}")) {
            let name = column["name"].as_str().expect("a name").to_owned();
            assert!(
                !["tenant", "site", "session_id", "device", "serial", "udi"].contains(&name.as_str()),
                "{view}.{name}"
            );
            assert!(!column["type"].as_str().expect("a type").contains("DateTime"), "{view}.{name}");
        }
    }

    // The lot of the unit in every spelling of its UDI, and of a string that has none.
    let spellings = [
        ("010950600013435210L8\\x1d21SN-1", "L8"),
        ("]d2010950600013435217261231\\x1d21SN-1\\x1d10L9", "L9"),
        ("010950600013435221SN-1|10L10", "L10"),
        (" (01) 9506000134352 (21) SN-1 (10) L11 ", "L11"),
        ("010950600013435221SN10L7", ""),
        ("(01)09506000134352(21)SN10L7", ""),
    ];
    for (number, (udi, lot)) in spellings.into_iter().enumerate() {
        rig.clickhouse.query(&format!(
            "INSERT INTO doseline.devices (tenant, device, site, kind, model, manufacturer, serial, udi, valid_from) VALUES \
             ('acme', 'pen-1', 'paris', 'INJECTOR', 'pen', 'maker', 'SN-1', '{udi}', {})",
            1_000 + number
        ));
        assert_eq!(rig.clickhouse.query("SELECT DISTINCT lot FROM doseline.calibration_by_unit"), lot, "{udi}");
    }
}
