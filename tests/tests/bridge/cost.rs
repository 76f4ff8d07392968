//! Measures what a report costs. It does not check correctness; run it with `--ignored
//! --nocapture`.

use std::{fs, time::Instant};

use harness::{Mosquitto, poll};

use crate::rig::{Fleet, Publication, Running, WITHIN, kafka, options, publication, topics};

const EVENTS: usize = 10;

/// CPU time of the bridge's and librdkafka's threads, us, from the kernel's 10 ms ticks.
fn cpu_us() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").expect("threads");
    let of_task = |task: fs::DirEntry| -> Option<u64> {
        let stat = fs::read_to_string(task.path().join("stat")).ok()?;
        let (name, fields) = stat.split_once('(')?.1.rsplit_once(')')?;
        let ours = ["bridge", "rdk:", "producer"].iter().any(|prefix| name.starts_with(prefix));
        let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        ours.then_some(ticks * 10_000)
    };
    tasks.flatten().filter_map(of_task).sum()
}

#[test]
#[ignore = "measures"]
fn cpu_per_report() {
    let (mosquitto, kafka) = (Mosquitto::start(), kafka());
    for (form, reports) in [("protobuf", 50_000u32), ("JSON", 10_000)] {
        let mut options = options(&mosquitto, &kafka.bootstrap(), &topics(kafka));
        options.mqtt.share_group = Some(form.to_owned());
        options.mqtt.session_expiry = std::time::Duration::ZERO;
        let running = Running::ready(options);
        let fleet = Fleet::connect(&mosquitto);
        let device = |index: u64| if form == "JSON" { index % 100 * 3 } else { index % 100 * 3 + 1 };
        let one = |index: u64| publication(device(index) as usize, 1 + index * EVENTS as u64, EVENTS);
        let publications: Vec<Publication> = (0..u64::from(reports)).map(one).collect();
        let bytes: usize = publications.iter().map(|publication| publication.payload.len()).sum();
        let (began, cpu) = (Instant::now(), cpu_us());
        fleet.publish_all(&publications);
        poll(WITHIN, "all acknowledgements", || match running.metric(bridge::metrics::ACKNOWLEDGED) {
            acknowledged if acknowledged >= f64::from(reports) => Ok(()),
            acknowledged => Err(acknowledged),
        });
        let (took, cpu) = (began.elapsed(), cpu_us() - cpu);
        eprintln!(
            "{form}: {} bytes a report; {:.1} us CPU a report; {:.0} reports/s",
            bytes / reports as usize,
            cpu as f64 / f64::from(reports),
            f64::from(reports) / took.as_secs_f64(),
        );
        fleet.wait_for_receipts(&publications);
        running.stop();
    }
}
