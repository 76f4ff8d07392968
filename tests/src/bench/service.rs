//! Delays: a pass of the monitor, the start of `up`, and the recovery of a loader.

use std::time::{Duration, Instant};

use super::data::Fleet;
use super::loader;
use super::mqtt::{Publication, Publisher};
use super::report::{Row, Table};
use super::stage::{Stage, count};
use super::{Options, say, topic};
use crate::usage::rss_peak_mib;
use crate::{Doseline, cpu_s, poll, ten_thousand_devices};

const UNITS: &str = "doseline_monitor_units_total";
const WITHIN: Duration = Duration::from_secs(300);

/// The first pass over a large fleet, and the alert about one more session.
pub fn monitor(_: &Options) -> Vec<Table> {
    let mut stage = Stage::start();
    ten_thousand_devices(&stage.clickhouse);
    stage.clickhouse.rest();
    let (before, began) = (stage.engines_cpu_s()[2], Instant::now());
    // The monitor is ready when a pass has finished.
    let mut monitor = stage.role("monitor", &[]);
    let (first_s, used, units) = (began.elapsed().as_secs_f64(), monitor.cpu_s(), count(&monitor, UNITS));
    let first = stage.engines_cpu_s()[2];
    wait_for_alerts(&stage, 10);
    stage.clickhouse.query(
        "INSERT INTO doseline.item_uses (tenant, site, device, session_id, slot, mount_id, item_id, injections, first_at, last_at) \
         VALUES ('acme', 'paris', 'inj-9', 'again', 'NEEDLE', 'm0NEEDLE', 'N9-0', 1, '2026-01-06 08:00:00', '2026-01-06 08:00:00')",
    );
    let inserted = Instant::now();
    wait_for_alerts(&stage, 11);
    let row = vec![
        ("first_pass_s", first_s.into()),
        ("units_judged", units.into()),
        ("monitor_cpu_s", used.into()),
        ("clickhouse_cpu_s", (first - before).into()),
        ("monitor_rss_peak_mib", monitor.rss_peak_mib().into()),
        ("alert_after_one_visit_more_s", inserted.elapsed().as_secs_f64().into()),
    ];
    monitor.stop();
    let conditions = "10,000 devices: 9,375 injectors of 8 sessions with 40 injections, 625 sterilizers of 8 cycles with 200 samples; \
                      the first pass judges everything, from the start of the process; then a needle is used again, and its \
                      alert stands after the next pass (default configuration: 2 s between passes)";
    vec![Table { title: "Monitor", conditions: conditions.to_owned(), rows: vec![row] }]
}

/// Waits for this many alerts about needles used twice.
fn wait_for_alerts(stage: &Stage, wanted: u64) {
    let sql = "SELECT count() FROM doseline.open_alerts WHERE kind = 'sterility-2'";
    poll(WITHIN, "alerts", || match stage.clickhouse.number(sql) {
        alerts if alerts == wanted => Ok(()),
        alerts => Err(format!("{alerts} of {wanted}")),
    });
}

/// `doseline up` in an empty folder, and again in the same folder.
pub fn up(_: &Options) -> Vec<Table> {
    let scratch = crate::Scratch::new("bench-up");
    let data_dir = scratch.join("data");
    let data_dir = data_dir.to_str().expect("a plain path");
    let fleet = Fleet { first: 0, devices: 1, per_report: 10 };
    let start = |number: u64| -> Row {
        let began = Instant::now();
        let ports = ["--mqtt-port", "--kafka-port", "--clickhouse-port", "--http-port"];
        let arguments: Vec<_> =
            ["up", "--data-dir", data_dir].into_iter().chain(ports.into_iter().flat_map(|port| [port, "0"])).collect();
        let mut up = Doseline::start(&arguments);
        let ready = up.wait_until_ready(WITHIN);
        let ready_s = began.elapsed().as_secs_f64();
        let port = ready.mqtt.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("host and port");
        let mut publisher = Publisher::connect(port);
        publisher.publish(&[Publication::new(&fleet.sent(number))], 1_000_000, |_| {});
        let expected = ((number + 1) * 10).to_string();
        poll(WITHIN, "the injections to be visible", || match ready.query("SELECT count() FROM doseline.injections") {
            count if count == expected => Ok(()),
            count => Err(format!("{count} of {expected}")),
        });
        let visible_s = began.elapsed().as_secs_f64();
        let process = up.process().id();
        let row = vec![
            ("data_folder", if number == 0 { "empty" } else { "used before" }.into()),
            ("ready_after_s", ready_s.into()),
            ("first_injection_visible_after_s", visible_s.into()),
            ("cpu_s", cpu_s(process).into()),
            ("rss_peak_mib", rss_peak_mib(process).into()),
        ];
        up.stop(WITHIN);
        row
    };
    let rows = vec![start(0), start(1)];
    let conditions =
        "From the start of the process; a report is published as soon as the ready line is there".to_owned();
    vec![Table { title: "Start of `doseline up`", conditions, rows }]
}

/// A loader is killed in the middle of a topic; another starts at once.
pub fn recovery(options: &Options) -> Vec<Table> {
    let records = if options.quick { 50_000 } else { 1_000_000 };
    let fleet = Fleet { first: 0, devices: 2_000, per_report: 1 };
    let stage = Stage::start();
    topic::fill(&stage.kafka, fleet, records * 2);
    let commits = "SELECT countIf(kind = 'commit') FROM doseline.loader_commits";
    let mut loader = stage.launch("load", &[]);
    let written = "SELECT count() FROM doseline.injections";
    poll(WITHIN, "half of the topic to be written", || match stage.clickhouse.number(written) {
        rows if rows >= records => Ok(()),
        rows => Err(rows),
    });
    loader.kill();
    let (left, committed, killed) =
        (records * 2 - stage.clickhouse.number(written), stage.clickhouse.number(commits), Instant::now());
    let mut loader = stage.launch("load", &[]);
    poll(WITHIN, "the first batch of the next loader", || match stage.clickhouse.number(commits) {
        now if now > committed => Ok(()),
        now => Err(now),
    });
    let first_s = killed.elapsed().as_secs_f64();
    poll(WITHIN, "all to be written", || match stage.clickhouse.number(written) {
        rows if rows == records * 2 => Ok(()),
        rows => Err(rows),
    });
    let all_s = killed.elapsed().as_secs_f64();
    let row = vec![
        ("records_left", left.into()),
        ("first_batch_after_s", first_s.into()),
        ("all_written_after_s", all_s.into()),
        ("loader_cpu_s", loader.cpu_s().into()),
        ("loader_rss_peak_mib", loader.rss_peak_mib().into()),
    ];
    loader.stop();
    loader::check(&stage.clickhouse, fleet, records * 2);
    say(&format!("   {left} records left at the kill: first batch after {first_s:.1} s, all after {all_s:.1} s"));
    let conditions = "One loader with default configuration (session time-out 45 s: Kafka gives the dead loader's partitions to the \
                      next after that), one injection a record; SIGKILL in the middle of the topic, the next loader starts at once";
    vec![Table { title: "Recovery of a killed loader", conditions: conditions.to_owned(), rows: vec![row] }]
}
