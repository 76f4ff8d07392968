//! `doseline reconcile` finds each manual change and names it. On undamaged data it finds nothing.

use std::{collections::BTreeSet, time::Duration};

use harness::{Stack, stay_within_a_day};
use serde_json::Value;
use telemetry::v1::{self, event::Kind};

use crate::{
    fleet::{self, expected, fleet},
    world::World,
};

const DEVICES: usize = 12;

/// The findings of a run that ends with exit code 1, as JSON.
#[track_caller]
fn findings(world: &World, more: &[&str]) -> Vec<Value> {
    let ended = world.run(&[&["reconcile", "--json"], more].concat());
    assert_eq!(ended.code, Some(1), "{}\n{}", ended.stdout, ended.stderr);
    let report: Value = serde_json::from_str(&ended.stdout).expect("one JSON object on stdout");
    report["findings"].as_array().expect("a list").clone()
}

fn text<'a>(finding: &'a Value, name: &str) -> &'a str {
    finding[name].as_str().expect("text")
}

/// Kind, device and first sequence number of each finding that is about an event.
fn events(findings: &[Value]) -> BTreeSet<(&str, &str, u64)> {
    let about = findings.iter().filter(|finding| finding["first_seq"] != 0);
    about.map(|of| (text(of, "kind"), text(of, "device"), of["first_seq"].as_u64().expect("a number"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_damage_by_hand_is_found_and_named() {
    // The test selects loaded data by days.
    stay_within_a_day(Duration::from_secs(300));
    let mut world = World::start(3).await;
    let mut devices = fleet(DEVICES);
    let yesterday = world.load_days_ago(1).await;
    for device in &mut devices {
        device.visit(&mut world.rig);
    }
    world.rig.flush();
    // Data flows, and what is not committed yet counts as no difference.
    for _ in 0..2 {
        for device in &mut devices {
            device.visit(&mut world.rig);
        }
        world.rig.flush();
        world.is_clean();
    }
    world.rig.written().await;
    yesterday.stop().await;
    let today = world.rig.load(world.rig.options()).await;
    for device in &mut devices {
        device.visit(&mut world.rig);
    }
    world.rig.flush();
    world.rig.written().await;
    today.stop().await;
    let (stored, quarantined) = expected(4 * DEVICES as u64);
    let clickhouse = &world.rig.clickhouse;
    assert_eq!(clickhouse.number("SELECT count() FROM doseline.injections"), stored);
    assert_eq!(clickhouse.number("SELECT count() FROM doseline.quarantine"), quarantined);
    for day in [world.day(1), world.day(0)] {
        let ended = world.run(&["reconcile", "--from", &day, "--to", &day]);
        assert_eq!(ended.code, Some(0), "{}\n{}", ended.stdout, ended.stderr);
    }
    world.is_clean();

    let seq = fleet::VISIT + 17;
    clickhouse.query(&format!(
        "ALTER TABLE doseline.injections DELETE WHERE device = 'pen-3' AND seq = {seq} SETTINGS mutations_sync = 2"
    ));
    clickhouse
        .query("INSERT INTO doseline.injections SELECT * FROM doseline.injections WHERE device = 'pen-4' AND seq = 20");
    let minute = clickhouse.query("SELECT toString(max(minute)) FROM doseline.accuracy_minute WHERE device = 'pen-5'");
    clickhouse.query(&format!(
        "ALTER TABLE doseline.accuracy_minute UPDATE dose_error_nl = dose_error_nl + 1 \
         WHERE device = 'pen-5' AND minute = '{minute}' SETTINGS mutations_sync = 2"
    ));
    let sum = "SELECT sum(dose_error_nl) FROM doseline.accuracy_minute WHERE device = 'pen-5' AND minute = ";
    let sum: i64 = clickhouse.query(&format!("{sum}'{minute}'")).parse().expect("a number");
    three_damages(&world, seq, &minute, sum);

    // With a device or a day selected, only its own findings are printed.
    assert_eq!(events(&findings(&world, &["--device", "pen-4"])), BTreeSet::from([("doubled_row", "pen-4", 20)]));
    assert_eq!(world.run(&["reconcile", "--device", "pen-6", "--tenant", "acme"]).code, Some(0));
    let today = world.day(0);
    let found = findings(&world, &["--from", &today, "--to", &today]);
    assert!(found.iter().all(|finding| text(finding, "kind") == "aggregate"), "{found:?}");
    parts_and_quarantine(&world);
}

/// Checks that exactly these three damages and their consequences are found.
fn three_damages(world: &World, seq: u64, minute: &str, sum: i64) {
    let found = findings(world, &[]);
    assert_eq!(events(&found), BTreeSet::from([("missing_row", "pen-3", seq), ("doubled_row", "pen-4", 20)]));
    // Each session has one quarantined injection. That explains one absent injection in each, and
    // not two in one of them.
    let sessions = found.iter().filter(|finding| text(finding, "kind") == "session");
    assert_eq!(sessions.map(|finding| text(finding, "device")).collect::<Vec<_>>(), ["pen-3"]);
    let sums: Vec<&Value> = found.iter().filter(|finding| text(finding, "kind") == "aggregate").collect();
    let of = |device: &str| -> Vec<&&Value> {
        sums.iter().filter(|sum| text(sum, "key").contains(&format!("device={device} "))).collect()
    };
    let changed = of("pen-5");
    assert_eq!(changed.len(), 1, "{changed:?}");
    assert_eq!((text(changed[0], "table"), text(changed[0], "column")), ("accuracy_minute", "dose_error_nl"));
    assert!(text(changed[0], "key").ends_with(&format!("minute={minute}")), "{changed:?}");
    let values = [text(changed[0], "expected"), text(changed[0], "found")];
    assert_eq!(values, [(sum - 1).to_string(), sum.to_string()]);
    let consequences = of("pen-3").len() + of("pen-4").len();
    assert_eq!(sums.len(), consequences + 1, "other devices: {sums:?}");
    assert!(consequences >= 6, "three tables for each of two devices: {sums:?}");
    // The text for a person says the same.
    let said = world.run(&["reconcile"]).stdout;
    for line in [
        format!("missing row: tenant acme device pen-3 boot {} seq {seq}: expected 1 row, found 0", 4u64 << 32 | 7),
        format!(
            "doubled row: injections tenant acme device pen-4 boot {} seq 20: expected 1 row, found 2",
            5u64 << 32 | 7
        ),
        format!("minute={minute} column dose_error_nl: expected {}, found {sum}", sum - 1),
    ] {
        assert!(said.contains(&line), "{line} is not in\n{said}");
    }
}

fn parts_and_quarantine(world: &World) {
    let clickhouse = &world.rig.clickhouse;
    clickhouse.query(
        "ALTER TABLE doseline.sterilization_samples DELETE WHERE device = 'pen-7' AND seq = 46 AND index = 2 \
         SETTINGS mutations_sync = 2",
    );
    clickhouse.query("ALTER TABLE doseline.quarantine DELETE WHERE device = 'pen-8' SETTINGS mutations_sync = 2");
    let found = findings(world, &["--device", "pen-7"]);
    assert_eq!(events(&found), BTreeSet::from([("parts", "pen-7", 46)]));
    assert_eq!((text(&found[0], "expected"), text(&found[0], "found")), ("4 rows", "3"));
    let found = findings(world, &["--device", "pen-8"]);
    let visits = (0..4).map(|visit| ("missing_row", "pen-8", visit * fleet::VISIT + 13));
    assert_eq!(events(&found), visits.collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_content_under_one_identity_and_what_never_came_are_named() {
    let mut world = World::start(2).await;
    let mut devices = fleet(4);
    let loader = world.rig.load(world.rig.options()).await;
    for device in &mut devices {
        device.visit(&mut world.rig);
    }
    world.rig.flush();
    world.rig.written().await;
    world.is_clean();

    // pen-1 resends number 5 with another dose; pen-2 says that it made three more events.
    let mut other = devices[1].report(1, 4, 6);
    let Some(Kind::Injection(injection)) = &mut other.events[0].kind else { panic!("an injection") };
    let delivered = injection.delivered_nl.replace(12_345).expect("a dose");
    world.rig.report("pen-1", &other);
    let beat = v1::Heartbeat { last_seq: Some(devices[2].made() + 3), ..Default::default() };
    let beat = v1::Event { offset_us: 0, kind: Some(Kind::Heartbeat(beat)) };
    let boot_id = devices[2].boot_id;
    world.rig.report("pen-2", &v1::Report { boot_id, events: vec![beat], ..Default::default() });
    // pen-3 is only known from its status to have made ten events in another boot.
    let status = r#"{"state":"STATE_ONLINE","bootId":"99","lastSeq":"10"}"#;
    let topic = "doseline/v1/acme/berlin/pen-3/status";
    world.rig.produce(telemetry::kafka::STATUS_TOPIC, "acme/pen-3", topic, status.as_bytes(), &[]);
    world.rig.flush();
    world.rig.written().await;
    loader.stop().await;

    let found = findings(&world, &[]);
    let last = devices[2].made();
    let expected = [("conflict", "pen-1", 5), ("missing_event", "pen-2", last + 1), ("missing_event", "pen-3", 1)];
    assert_eq!(events(&found), BTreeSet::from(expected));
    let conflict = found.iter().find(|finding| text(finding, "kind") == "conflict").expect("a conflict");
    assert_eq!(text(conflict, "detail"), format!("injection.deliveredNl \"{delivered}\" and \"12345\""));
    let offset =
        world.rig.clickhouse.query("SELECT kafka_offset FROM doseline.injections WHERE device = 'pen-1' AND seq = 5");
    assert!(text(conflict, "expected").contains(&format!("offset {offset} ")), "{conflict}");
    let missing = found.iter().find(|finding| text(finding, "device") == "pen-2").expect("a finding");
    assert_eq!(missing["last_seq"].as_u64(), Some(last + 3));
    // The first content stays stored.
    let sql = "SELECT delivered_nl FROM doseline.injections WHERE device = 'pen-1' AND seq = 5";
    assert_eq!(world.rig.clickhouse.number(sql), delivered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_usage_is_refused() {
    let world = World::start(1).await;
    for (arguments, said) in [
        (&["reconcile", "--from", "2026-02-30"][..], "write YYYY-MM-DD"),
        (&["reconcile", "--from", "2026-02-02", "--to", "2026-02-01"], "lies after --to 2026-02-01"),
        (&["reconcile", "--device", "a/b"], "is no id"),
        (&["rebuild"], "--day"),
        (&["rebuild", "--day", "today"], "write YYYY-MM-DD"),
    ] {
        let ended = world.run(arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?} {}", ended.stderr);
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
    }
    world.is_clean();
}

/// A fleet that resends, goes offline, drifts and fails cycles, but loses nothing.
#[test]
fn a_simulated_fleet_that_loses_nothing_is_clean() {
    const WITHIN: Duration = Duration::from_secs(240);
    let stack = Stack::start("");
    let (_bridge, _loader) = (stack.role("bridge"), stack.role("load"));
    let mut simulator = stack.doseline(&[
        "simulate",
        "--devices=24",
        "--rate=0",
        "--duration=400",
        "--seed=11",
        "--scenario=healthy,dose-drift,depth-drift,retransmit,offline,clock-skew,needle-reuse,failed-cycle",
    ]);
    let status = simulator.process().wait(WITHIN);
    assert!(status.success(), "{}", simulator.stderr());
    stack.wait_until_committed();
    let mut reconcile = stack.doseline(&["reconcile", "--grace", "0"]);
    let status = reconcile.process().wait(WITHIN);
    assert!(stack.clickhouse.number("SELECT count() FROM doseline.injections") > 5_000);
    assert_eq!(status.code(), Some(0), "{}\n{}", reconcile.stdout(), reconcile.stderr());
}
