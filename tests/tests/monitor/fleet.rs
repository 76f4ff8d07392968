//! A simulated fleet, from the devices to the alerts. All planted faults are found, and nothing
//! else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

use harness::{Doseline, Ready, Scratch, poll};
use serde_json::Value;

const READY_WITHIN: Duration = Duration::from_secs(240);
const SIMULATED_WITHIN: Duration = Duration::from_secs(600);
const JUDGED_WITHIN: Duration = Duration::from_secs(300);
const STOPPED_WITHIN: Duration = Duration::from_secs(60);

/// Kinds of alerts that every simulated fleet has, of any severity. Its day begins without a
/// Bowie-Dick test, and its devices are calibrated again after hours.
const USUAL: &str = "'sterility-8', 'calibration-due'";

/// What must be found according to the truth file.
#[derive(Default)]
struct Expected {
    needles: BTreeMap<(String, String), BTreeSet<String>>,
    failed: BTreeSet<String>,
}

fn expected(truth: &str) -> Expected {
    let mut expected = Expected::default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for line in truth.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        if line["line"] != "event" || line["fate"] != "stored" {
            continue;
        }
        let (event, context, tenant) = (&line["event"], &line["context"], text(&line["tenant"]));
        if event["injection"].is_object() {
            for mount in
                context["mounts"].as_array().into_iter().flatten().filter(|mount| mount["slot"] == "SLOT_NEEDLE")
            {
                let sessions = expected.needles.entry((tenant.clone(), text(&mount["itemId"]))).or_default();
                sessions.insert(text(&context["sessionId"]));
            }
        }
        let indicator = &event["cycleIndicator"];
        if indicator["kind"] == "INDICATOR_KIND_CHEMICAL" && indicator["result"] == "INDICATOR_RESULT_POSITIVE" {
            expected.failed.insert(format!("sterility-5/{tenant}/{}", text(&indicator["cycleUid"])));
        }
    }
    expected
}

/// Simulates a fleet of five devices into `up`, starting a little earlier than its duration ago.
/// Returns the running `up` and the truth file.
fn simulated(scratch: &Scratch, scenario: &str, duration_s: u32, prepare: &str) -> (Doseline, Ready, String) {
    let path = |name: &str| scratch.join(name).into_os_string().into_string().expect("a plain path");
    let (data, truth) = (path("data"), path("truth.jsonl"));
    let any_port = ["--mqtt-port", "0", "--kafka-port", "0", "--clickhouse-port", "0", "--http-port", "0"];
    let arguments: Vec<_> = ["up", "--data-dir", &data].into_iter().chain(any_port).collect();
    let mut up = Doseline::start(&arguments);
    let ready = up.wait_until_ready(READY_WITHIN);
    if !prepare.is_empty() {
        ready.change(Path::new(&data), prepare);
    }
    let (host, port) = ready.mqtt.split_once(':').expect("host:port");
    let epoch = (monitor::now_us() - i64::from(duration_s + 3_000) * 1_000_000).to_string();
    let (fleet, duration) = (path("fleet"), duration_s.to_string());
    let simulate = [
        "simulate",
        "--devices",
        "5",
        "--rate",
        "0",
        "--duration",
        &duration,
        "--seed",
        "7",
        "--epoch",
        &epoch,
        "--scenario",
        scenario,
        "--truth",
        &truth,
        "--data-dir",
        &fleet,
    ];
    let environment = [("DOSELINE__MQTT__HOST", host), ("DOSELINE__MQTT__PORT", port)];
    let ended = Doseline::run(&simulate, &environment, SIMULATED_WITHIN);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let truth = fs::read_to_string(&truth).expect("the truth");
    let stored = truth.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let stored = stored.filter(|line| line["event"]["injection"].is_object() && line["fate"] == "stored").count();
    wait_for(&ready, "SELECT count() FROM doseline.injections", &stored.to_string());
    (up, ready, truth)
}

/// Waits until a query has this answer. Tables are filled independently, so one table says nothing
/// about the others. An alert may be raised while only a part of the data is there. The next pass
/// retracts it, except for a critical alert, which stays.
#[track_caller]
fn wait_for(ready: &Ready, sql: &str, wanted: &str) {
    poll(JUDGED_WITHIN, sql, || match ready.query(sql).trim() {
        found if found == wanted => Ok(()),
        found => Err(format!("{found:?}, not {wanted:?}")),
    });
}

/// The first injection device drifts in its dose and the second in its depth, up to 12 and 15 %
/// within six hours.
#[test]
fn a_fleet_s_drifting_devices_are_found_and_the_healthy_ones_raise_nothing() {
    let scratch = Scratch::new("monitor-drift");
    let models = "INSERT INTO doseline.models (model, dose_resolution_nl, dose_tolerance_ppm, depth_resolution_um, \
                  depth_tolerance_um, dose_bands_nl, depth_bands_um) VALUES \
                  ('mesogun-2', 500, 100000, 50, 300, [10000, 20000, 50000], [2000, 4000]), \
                  ('vacuject-5', 500, 120000, 50, 300, [25000, 50000], [1500]), ('papula-1', 500, 150000, 50, 300, [1000, 2000], [])";
    let (mut up, ready, _) = simulated(&scratch, "dose-drift,depth-drift", 18_000, models);
    let drift = "SELECT DISTINCT device, splitByChar('/', alert_key)[4] AS channel FROM doseline.open_alerts WHERE kind = 'drift' \
                 ORDER BY channel DESC, device";
    let devices = poll(JUDGED_WITHIN, "both drifts, each of a device of its own", || {
        let found = ready.query(drift);
        let (devices, channels): (Vec<_>, Vec<_>) = found.lines().filter_map(|line| line.split_once('\t')).unzip();
        match channels == ["dose", "depth"] && devices[0] != devices[1] {
            true => Ok(devices.into_iter().map(str::to_owned).collect::<Vec<_>>()),
            false => Err(format!("found {found:?}")),
        }
    });
    let judged =
        "SELECT count() > 2 FROM (SELECT DISTINCT device FROM doseline.calibration_drift WHERE state = 'IN_CONTROL')";
    wait_for(&ready, judged, "1");
    let list = devices.iter().map(|device| format!("'{device}'")).collect::<Vec<_>>().join(", ");
    let others = format!(
        "SELECT kind, device, title, evidence_rows FROM doseline.open_alerts \
         WHERE device NOT IN ({list}) AND kind NOT IN ({USUAL}) LIMIT 20"
    );
    wait_for(&ready, &others, "");
    assert!(up.stop(STOPPED_WITHIN).0.success());
}

#[test]
fn a_fleet_s_reused_needles_and_failed_cycles_raise_their_alerts_and_nothing_else_does() {
    let scratch = Scratch::new("monitor-fleet");
    let (mut up, ready, truth) = simulated(&scratch, "needle-reuse,failed-cycle", 8_000, "");
    let expected = expected(&truth);
    let reused = expected.needles.iter().filter(|(_, sessions)| sessions.len() > 1);
    let mut keys: BTreeSet<_> = reused.map(|((tenant, item), _)| format!("sterility-2/{tenant}/item/{item}")).collect();
    assert!(keys.len() > 5 && !expected.failed.is_empty(), "the scenario makes something go wrong");
    keys.extend(expected.failed.iter().cloned());
    let open =
        "SELECT alert_key FROM doseline.open_alerts WHERE kind IN ('sterility-2', 'sterility-5') ORDER BY alert_key";
    poll(JUDGED_WITHIN, "every alert", || {
        let found: BTreeSet<String> = ready.query(open).lines().map(str::to_owned).collect();
        if found == keys { Ok(()) } else { Err(format!("found {found:?}, expected {keys:?}")) }
    });
    // Loads of failed cycles were used, and the alert names the sessions.
    let used = "SELECT count() > 0 FROM doseline.sterility_breaches WHERE rule = 5 AND notEmpty(sessions) AND severity = 'critical'";
    wait_for(&ready, used, "1");
    // Breaches of rule 4 follow from the same cycles. Only failed cycles make a use unsterile.
    let others = format!(
        "SELECT DISTINCT severity, kind, device FROM doseline.open_alerts WHERE kind NOT IN ('sterility-2', 'sterility-4', \
         'sterility-5', {USUAL})"
    );
    wait_for(&ready, &others, "");
    let cycles = "SELECT count() FROM doseline.sterility_breaches WHERE rule = 4 AND cycle_uid NOT IN \
                  (SELECT cycle_uid FROM doseline.cycle_verdicts WHERE verdict = 'FAILED')";
    wait_for(&ready, cycles, "0");
    assert!(up.stop(STOPPED_WITHIN).0.success());
}
