//! What the whole machine costs when little happens, and at ordinary rates: every process, from the
//! device's connection to the verdict.

use std::time::{Duration, Instant};

use super::bridge::{self, Case};
use super::data::Fleet;
use super::latency::quantile;
use super::mqtt::{Publication, Publisher};
use super::report::{Row, Table};
use super::stage::Stage;
use super::{Options, say};
use crate::usage::{tree_cpu_s, tree_switches};
use crate::{Doseline, Ready, Scratch, poll};

const READY_WITHIN: Duration = Duration::from_secs(300);
const VISIBLE_WITHIN: Duration = Duration::from_secs(60);
const STOPS_WITHIN: Duration = Duration::from_secs(30);
const ASK_EVERY: Duration = Duration::from_millis(20);
/// Number of lone injections.
const LONE: u64 = 10;

/// Durations of the measurements.
#[derive(Clone, Copy)]
struct Times {
    /// Time after the start, in which caches fill and first merges end.
    settle: Duration,
    /// Time over which CPU is counted.
    counted: Duration,
}

/// All rows of the table.
pub fn measure(options: &Options) -> Vec<Table> {
    let seconds = |quick, full| Duration::from_secs(if options.quick { quick } else { full });
    let times = Times { settle: seconds(1, 20), counted: seconds(3, 60) };
    let whole = vec![
        silent(times),
        simulated(times),
        quiet_clinic(times),
        services("services, 500 injections/s, ten a report", 10, times),
        services("services, 500 injections/s, one a report", 1, times),
    ];
    let conditions = format!(
        "CPU of all processes as cores, and how often their threads gave up the processor, over {} s; `up` with the engines \
         inside and Mosquitto as its child, or Mosquitto, Kafka, ClickHouse, bridge, loader and monitor as processes; \
         default configuration",
        times.counted.as_secs()
    );
    let receipts = Case { per_report: 1, connections: 1, receipts: true };
    let mut stage = Stage::start();
    let reports = if options.quick { 3_000 } else { 60_000 };
    let bridge = bridge::behind_mosquitto(&mut stage, receipts, 3_000, reports);
    vec![
        Table { title: "The whole machine", conditions, rows: whole },
        Table {
            title: "Bridge and Kafka at 3,000 reports/s",
            conditions: "As \"Bridge at a fixed rate\", one injection a report".to_owned(),
            rows: vec![bridge],
        },
        Table {
            title: "A lone injection",
            conditions: format!(
                "`up` with no other device; from the publication until a query shows the injection, asked every {} ms",
                ASK_EVERY.as_millis()
            ),
            rows: vec![lone(times)],
        },
    ]
}

/// `doseline up` in an empty folder, until it is dropped.
struct Up {
    up: Doseline,
    ready: Ready,
    _scratch: Scratch,
}

impl Up {
    fn start(more: &[&str]) -> Self {
        let scratch = Scratch::new("bench-machine");
        let folder = scratch.join("data").display().to_string();
        let mut arguments = vec!["up", "--data-dir", &folder];
        for port in ["--mqtt-port", "--kafka-port", "--clickhouse-port", "--http-port"] {
            arguments.extend([port, "0"]);
        }
        let mut up = Doseline::start(&[&arguments, more].concat());
        let ready = up.wait_until_ready(READY_WITHIN);
        Self { up, ready, _scratch: scratch }
    }

    fn publisher(&self) -> Publisher {
        let port = self.ready.mqtt.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        Publisher::connect(port.expect("host and port"))
    }

    fn injections(&self) -> u64 {
        self.ready.query("SELECT count() FROM doseline.injections").parse().expect("a number")
    }

    /// The row of this machine over the counted time, in which `work` runs.
    fn row(mut self, what: &str, times: Times, work: impl FnOnce(&Self)) -> Row {
        std::thread::sleep(times.settle);
        let process = self.up.process().id();
        let (cpu, switches, injections) = (tree_cpu_s(process), tree_switches(process), self.injections());
        let began = Instant::now();
        work(&self);
        std::thread::sleep(times.counted.saturating_sub(began.elapsed()));
        let (cpu, switches) = (tree_cpu_s(process) - cpu, tree_switches(process).saturating_sub(switches));
        let took_s = began.elapsed().as_secs_f64();
        let injections = self.injections() - injections;
        self.up.stop(STOPS_WITHIN);
        row(what, injections as f64 / took_s, cpu / took_s, Some(switches as f64 / took_s))
    }
}

fn row(what: &str, injections_per_s: f64, cores: f64, switches_per_s: Option<f64>) -> Row {
    say(&format!("   {what}: {cores:.3} cores"));
    vec![
        ("what", what.into()),
        ("injections_per_s", injections_per_s.into()),
        ("cores", cores.into()),
        ("switches_per_s", switches_per_s.into()),
    ]
}

fn silent(times: Times) -> Row {
    Up::start(&[]).row("up, no device", times, |_| {})
}

fn simulated(times: Times) -> Row {
    Up::start(&["--simulate", "25"]).row("up --simulate 25", times, |_| {})
}

/// 25 devices that together report three injections a second, each in a report of its own.
fn quiet_clinic(times: Times) -> Row {
    Up::start(&[]).row("up, 25 devices, 3 injections/s", times, |up| {
        let fleet = Fleet { first: 0, devices: 25, per_report: 1 };
        let reports = 3 * times.counted.as_secs();
        let publications: Vec<_> = (0..reports).map(|number| Publication::new(&fleet.sent(number))).collect();
        up.publisher().publish(&publications, 3, |_| {});
    })
}

/// Engines and roles as processes of their own.
fn services(what: &str, per_report: u64, times: Times) -> Row {
    let mut stage = Stage::start();
    let mut roles = ["bridge", "load", "monitor"].map(|role| stage.role(role, &[]));
    let fleet = Fleet { first: 0, devices: 500, per_report };
    let rate = 500 / per_report;
    let number = |time: Duration| rate * time.as_secs();
    let publications: Vec<_> =
        (0..number(times.settle + times.counted)).map(|number| Publication::new(&fleet.sent(number))).collect();
    let mut publisher = Publisher::connect(stage.mosquitto.port());
    let (first, counted) = publications.split_at(number(times.settle) as usize);
    publisher.publish(first, rate, |_| {});
    let cpu = |stage: &mut Stage, roles: &mut [crate::role::Role]| {
        stage.engines_cpu_s().iter().sum::<f64>() + roles.iter_mut().map(|role| role.cpu_s()).sum::<f64>()
    };
    let (before, began) = (cpu(&mut stage, &mut roles), Instant::now());
    publisher.publish(counted, rate, |_| {});
    std::thread::sleep(times.counted.saturating_sub(began.elapsed()));
    let (used, took_s) = (cpu(&mut stage, &mut roles) - before, began.elapsed().as_secs_f64());
    let expected = (publications.len() as u64 * per_report).to_string();
    poll(VISIBLE_WITHIN, "all injections", || {
        match stage.clickhouse.query("SELECT count() FROM doseline.injections") {
            count if count == expected => Ok(()),
            count => Err(format!("{count} of {expected}")),
        }
    });
    roles.iter_mut().for_each(crate::role::Role::stop);
    row(what, (counted.len() as u64 * per_report) as f64 / took_s, used / took_s, None)
}

/// Injections that come one by one, with nothing between them.
fn lone(times: Times) -> Row {
    let mut up = Up::start(&[]);
    std::thread::sleep(times.settle);
    let fleet = Fleet { first: 0, devices: LONE, per_report: 1 };
    let mut publisher = up.publisher();
    let mut visible_s: Vec<f64> = (0..LONE)
        .map(|number| {
            let began = Instant::now();
            publisher.publish(&[Publication::new(&fleet.sent(number))], 1_000, |_| {});
            while up.injections() <= number {
                assert!(began.elapsed() < VISIBLE_WITHIN, "injection {number} is not visible");
                std::thread::sleep(ASK_EVERY);
            }
            let visible = began.elapsed();
            // The next one must not share its batch, nor meet the pass of the monitor that this one
            // causes.
            std::thread::sleep(times.settle / 4);
            visible.as_secs_f64()
        })
        .collect();
    up.up.stop(STOPS_WITHIN);
    visible_s.sort_by(f64::total_cmp);
    vec![
        ("injections", LONE.into()),
        ("visible_after_s: median", quantile(&visible_s, 0.5).into()),
        ("longest", quantile(&visible_s, 1.0).into()),
    ]
}
