//! `doseline up --simulate`: a fleet with a past, and the alerts of the stories planted in it.

use std::{path::Path, sync::Arc, time::Duration};

use device::{
    fleet::{Act, Demo, Device, Fate, Plan},
    store::Life,
};
use harness::{Doseline, Ready, Scratch, poll};
use telemetry::v1::event::Kind;

const READY_WITHIN: Duration = Duration::from_secs(60);
/// Users are promised 2 s and 20 s on a machine that does nothing else.
const FIRST_WITHIN: Duration = Duration::from_secs(15);
const PAST_WITHIN: Duration = Duration::from_secs(120);
const JUDGED_WITHIN: Duration = Duration::from_secs(120);
/// The log line that ends the past.
const ARRIVED: &str = "four weeks of the past have arrived";

/// Every alert above low severity that the stories raise: severity and start of its key. The end of
/// a key is left out if it contains an id with the day of the start.
const EXPECTED: [(&str, &str); 6] = [
    // The dose of one pen: the verdict on its only set point has failed, and its chart has
    // signalled. Forecasts start with the signal. A forecast for a pen that is already out of
    // tolerance is an alert too.
    ("high", "accuracy-verdict/tenant-1/inj-0001/dose/10000"),
    ("medium", "drift/tenant-1/inj-0001/dose/0"),
    ("medium", "forecast/tenant-1/inj-0001/dose/0"),
    // The needle that was used in two sessions.
    ("critical", "sterility-2/tenant-1/item/N30-inj-0002-"),
    // The hand-piece after the failed cycle. One alert, about the cycle, says that it failed and
    // that its load was used. The other says that the hand-piece was not sterile in that session;
    // it would exist without any cycle.
    ("critical", "sterility-4/tenant-1/hp-inj-0005-"),
    ("critical", "sterility-5/tenant-1/cyc-ster-0004-"),
    // The gap that stays open raises an alert of low severity after five minutes. The device that
    // was offline raises none.
];

fn up(data_dir: &Path, devices: &str) -> Doseline {
    let data_dir = data_dir.to_str().expect("UTF-8 path");
    let any_port = ["--mqtt-port", "0", "--kafka-port", "0", "--clickhouse-port", "0", "--http-port", "0"];
    let arguments: Vec<_> = ["up", "--data-dir", data_dir, "--simulate", devices].into_iter().chain(any_port).collect();
    Doseline::start(&arguments)
}

fn number(ready: &Ready, sql: &str) -> u64 {
    let text = ready.query(sql);
    text.trim().parse().unwrap_or_else(|_| panic!("{sql} gave {text:?}"))
}

fn wait_for(ready: &Ready, within: Duration, what: &str, sql: &str) {
    poll(within, what, || match ready.query(sql).trim() {
        "1" => Ok(()),
        found => Err(found.to_owned()),
    });
}

/// Compares alerts, given as lines of severity and key, with the expected ones.
fn compare(found: &str) -> Result<(), String> {
    let mut left: Vec<_> = EXPECTED.to_vec();
    for line in found.lines() {
        let (severity, key) = line.split_once('\t').unwrap_or_default();
        let place = left.iter().position(|(expected, beginning)| *expected == severity && key.starts_with(beginning));
        left.remove(place.ok_or_else(|| format!("not of the stories: {line}"))?);
    }
    if left.is_empty() { Ok(()) } else { Err(format!("absent: {left:?}")) }
}

#[test]
fn the_stories_raise_their_alerts_and_nothing_else_does() {
    let scratch = Scratch::new("demo");
    let mut doseline = up(scratch.path(), "25");
    let ready = doseline.wait_until_ready(READY_WITHIN);
    wait_for(&ready, FIRST_WITHIN, "an injection", "SELECT count() > 0 FROM doseline.injections");
    let said = doseline.wait_for_line(ARRIVED, PAST_WITHIN);
    println!("{said}");
    let stderr = doseline.stderr();
    for story in
        ["inj-0001 drifts", "inj-0002 used one needle", "inj-0003 lost", "inj-0005 used", "inj-0006 had no network"]
    {
        assert!(stderr.contains(story), "{story:?} is not told: {stderr}");
    }

    // The device that was offline returns with the events of its last days, and these are judged.
    let backlog = "SELECT uniq(toDate(at)) >= 2 FROM doseline.injections WHERE device = 'inj-0006' \
                   AND at > now() - toIntervalHour(60) AND at < now() - toIntervalMinute(30)";
    wait_for(&ready, JUDGED_WITHIN, "the backlog", backlog);
    let judged = "SELECT (SELECT max(last_at) FROM doseline.accuracy_verdicts FINAL WHERE device = 'inj-0006') >= \
                  (SELECT max(at) FROM doseline.injections WHERE device = 'inj-0006' AND at < now() - toIntervalMinute(10))";
    wait_for(&ready, JUDGED_WITHIN, "verdicts on the backlog", judged);
    let open = "SELECT severity, alert_key FROM doseline.open_alerts WHERE severity != 'low'";
    poll(JUDGED_WITHIN, "the alerts of the stories", || compare(&ready.query(open)));
    let keys = |sql: &str| -> Vec<String> { ready.query(sql).lines().map(str::to_owned).collect() };
    let raised = keys(
        "SELECT DISTINCT alert_key FROM doseline.alert_history WHERE event = 'RAISED' AND severity != 'low' ORDER BY alert_key",
    );
    assert_eq!(raised.len(), EXPECTED.len(), "some were raised and taken back: {raised:?}");

    // There is only one gap, which is the planted one.
    let gaps = "SELECT device, last_missing - first_missing + 1, state FROM doseline.delivery_gaps";
    poll(JUDGED_WITHIN, "the gap alone", || match ready.query(gaps).trim() {
        "inj-0003\t7\tOPEN" => Ok(()),
        found => Err(found.to_owned()),
    });
    let due = "SELECT count() FROM doseline.calibrations_due WHERE state IN ('DUE', 'OVERDUE')";
    assert_eq!(number(&ready, due), 0, "no calibration is due");
    let due = "SELECT uniqExact(device) = uniqExact(due_at) AND uniqExact(device) = 21 FROM doseline.calibrations_due \
               WHERE state = 'OK'";
    assert_eq!(number(&ready, due), 1, "each on its own day");
    assert_eq!(number(&ready, "SELECT count() FROM doseline.quarantine"), 0);
    assert_eq!(number(&ready, "SELECT count() FROM doseline.injections WHERE time_source != 'DEVICE'"), 0);
    doseline.kill();
}

/// The end of the past, us since 1970, as the simulator has recorded it.
fn ended(data_dir: &Path) -> i64 {
    let text = std::fs::read_to_string(data_dir.join("simulator/past")).expect("a past");
    text.split_whitespace().next().expect("its end").parse().expect("us since 1970")
}

/// How many injections of the past the server must have of a fleet, according to the plan and the
/// end of the past.
fn planned(data_dir: &Path, devices: u32) -> u64 {
    let plan = Arc::new(Demo::ending(ended(data_dir)).past(Plan::new(devices, 1, 0)));
    let steps = (0..devices).flat_map(|index| Device::new(Arc::clone(&plan), index, Life::default()));
    let injections = steps.filter(|step| match &step.act {
        Act::Event(made) => made.fate == Fate::Stored && matches!(made.kind, Some(Kind::Injection(_))),
        _ => false,
    });
    injections.count() as u64
}

#[test]
fn a_past_is_told_once_however_often_it_is_interrupted() {
    let scratch = Scratch::new("demo-again");
    for round in 0..2 {
        let mut doseline = up(scratch.path(), "6");
        let ready = doseline.wait_until_ready(READY_WITHIN);
        let more = number(&ready, "SELECT count() FROM doseline.injections") + 200 + round * 300;
        // Most of it may already have been in flight.
        poll(PAST_WITHIN, "more of the past, or its end", || {
            let found = number(&ready, "SELECT count() FROM doseline.injections");
            if found > more || doseline.stderr().contains(ARRIVED) { Ok(()) } else { Err(found) }
        });
        let has_ended = doseline.stderr().contains(ARRIVED);
        doseline.kill();
        if has_ended {
            break;
        }
    }
    let expected = planned(scratch.path(), 6);
    let mut doseline = up(scratch.path(), "6");
    let ready = doseline.wait_until_ready(READY_WITHIN);
    // Events of the present come after the end of the past.
    let told = format!(
        "SELECT toString(count()), toString(uniqExact(tenant, device, boot_id, seq)) FROM doseline.injections \
         WHERE toUnixTimestamp64Micro(at) <= {}",
        ended(scratch.path())
    );
    poll(PAST_WITHIN, "the whole past", || match ready.query(&told).trim() {
        found if found == format!("{expected}\t{expected}") => Ok(()),
        found => Err(format!("{found} of {expected}")),
    });
    let stored = number(&ready, "SELECT count() FROM doseline.injections");
    wait_for(
        &ready,
        PAST_WITHIN,
        "the present",
        &format!("SELECT count() > {} FROM doseline.injections", stored.max(expected)),
    );
    doseline.kill();

    let mut doseline = up(scratch.path(), "6");
    let ready = doseline.wait_until_ready(READY_WITHIN);
    let stored = number(&ready, "SELECT count() FROM doseline.injections");
    wait_for(&ready, PAST_WITHIN, "the present", &format!("SELECT count() > {stored} FROM doseline.injections"));
    assert!(!doseline.stderr().contains(ARRIVED), "a second past");
    assert_eq!(ready.query(&told).trim(), format!("{expected}\t{expected}"));
    let reused = "SELECT count() FROM (SELECT item_id FROM doseline.mounts WHERE slot = 'NEEDLE' AND event = 'MOUNTED' \
                  GROUP BY item_id HAVING uniqExact(session_id) > 1)";
    assert_eq!(number(&ready, reused), 1, "the story of the needle stands once");
    doseline.kill();
}
