//! What an event costs. Not a test of right or wrong: run with `--ignored --nocapture`.

use std::{fs, time::Instant};

use load::{Limits, Options};
use rand::{SeedableRng as _, rngs::StdRng};
use telemetry::v1;

use crate::{path::injection, rig::Rig};

const EVENTS: usize = 1_000_000;
const DEVICES: usize = 200;

/// CPU time of a process, s, from the kernel's 10 ms ticks.
fn cpu_s(process: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("a process");
    let fields = stat.rsplit_once(')').expect("a name in brackets").1;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn cpu_per_million_events() {
    let random = &mut StdRng::seed_from_u64(1);
    for per_report in [10, 100] {
        let mut rig = Rig::start(4).await;
        for number in 0..EVENTS / per_report {
            let (device, first) = (number % DEVICES, number / DEVICES * per_report);
            let report = v1::Report {
                boot_id: 7,
                first_seq: first as u64 + 1,
                base_unix_us: 1_749_000_000_000_000,
                clock: v1::Clock::Synced as i32,
                context: Some(v1::Context { model: "pen".to_owned(), session_id: vec![7; 16], ..Default::default() }),
                events: (0..per_report).map(|index| injection(random, (first + index) as u64)).collect(),
                ..Default::default()
            };
            rig.report(&format!("pen-{device}"), &report);
            if number % 10_000 == 0 {
                rig.flush();
            }
        }
        rig.flush();
        let engine = rig.clickhouse.process().id().to_string();
        let (began, cpu, engine_cpu) = (Instant::now(), cpu_s("self"), cpu_s(&engine));
        let loader = rig.load(Options { limits: Limits::default(), ..rig.options() }).await;
        rig.written().await;
        let (took, cpu, engine_cpu) = (began.elapsed(), cpu_s("self") - cpu, cpu_s(&engine) - engine_cpu);
        loader.stop().await;
        let parts = rig.clickhouse.query("SELECT countIf(kind = 'commit') FROM doseline.loader_commits");
        eprintln!(
            "{per_report} events a report: loader {cpu:.2} s CPU, engine {engine_cpu:.2} s CPU, {:.1} s for a million events \
             in {parts} batches",
            took.as_secs_f64()
        );
    }
}
