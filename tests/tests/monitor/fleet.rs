//! A simulated fleet from the devices to the alerts: what goes wrong in it is found, and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use harness::{Doseline, Scratch, poll};
use serde_json::Value;

const READY_WITHIN: Duration = Duration::from_secs(120);
const SIMULATED_WITHIN: Duration = Duration::from_secs(600);
const JUDGED_WITHIN: Duration = Duration::from_secs(120);

/// What must be found, by the simulator's own record.
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

#[test]
fn a_fleet_s_reused_needles_and_failed_cycles_raise_their_alerts_and_nothing_else_does() {
    let scratch = Scratch::new("monitor-fleet");
    let path = |name: &str| scratch.join(name).into_os_string().into_string().expect("a plain path");
    let (data, truth) = (path("data"), path("truth.jsonl"));
    let any_port = ["--mqtt-port", "0", "--kafka-port", "0", "--clickhouse-port", "0", "--http-port", "0"];
    let arguments: Vec<_> = ["up", "--data-dir", &data].into_iter().chain(any_port).collect();
    let mut up = Doseline::start(&arguments);
    let ready = up.wait_until_ready(READY_WITHIN);
    let (host, port) = ready.mqtt.split_once(':').expect("host:port");
    let epoch = (monitor::now_us() - 3 * 3_600_000_000).to_string();
    let fleet = path("fleet");
    let simulate = [
        "simulate",
        "--devices",
        "5",
        "--rate",
        "0",
        "--duration",
        "8000",
        "--seed",
        "7",
        "--epoch",
        &epoch,
        "--scenario",
        "needle-reuse,failed-cycle",
        "--truth",
        &truth,
        "--data-dir",
        &fleet,
    ];
    let environment = [("DOSELINE__MQTT__HOST", host), ("DOSELINE__MQTT__PORT", port)];
    let ended = Doseline::run(&simulate, &environment, SIMULATED_WITHIN);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);

    let expected = expected(&fs::read_to_string(&truth).expect("the truth"));
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
    // Loads of failed cycles were used all the same, and the visits are named.
    let used = "SELECT count() FROM doseline.sterility_breaches WHERE rule = 5 AND notEmpty(sessions) AND severity = 'critical'";
    assert_ne!(ready.query(used).trim(), "0");
    // Rule 4 follows from the same cycles; rule 8 because the simulated day begins without a Bowie-Dick test.
    let others = "SELECT DISTINCT kind FROM doseline.open_alerts WHERE kind NOT IN ('sterility-2', 'sterility-4', \
                  'sterility-5', 'sterility-8')";
    assert_eq!(ready.query(others).trim(), "", "nothing else went wrong");
    let cycles = "SELECT count() FROM doseline.sterility_breaches WHERE rule = 4 AND cycle_uid NOT IN \
                  (SELECT cycle_uid FROM doseline.cycle_verdicts WHERE verdict = 'FAILED')";
    assert_eq!(ready.query(cycles).trim(), "0", "only failed cycles make a use unsterile");
    assert!(up.stop(Duration::from_secs(30)).0.success());
}
