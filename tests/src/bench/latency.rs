//! Time from a device's publication to the answer of a query that contains it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::data::{Fleet, MARKERS};
use super::mqtt::{Publication, Publisher};
use super::report::{Row, Table};
use super::stage::Stage;
use super::{Options, say};
use crate::{ClickHouse, poll};

const PER_REPORT: u64 = 10;
/// Reports of marker devices a second, at any rate of the others.
const MARKER_REPORTS_PER_S: u64 = 50;
/// Number of marker devices, each of which reports once a second.
const MARKER_DEVICES: u64 = MARKER_REPORTS_PER_S;
/// Pause between two queries.
const ASK_EVERY: Duration = Duration::from_millis(40);
/// Publications before this do not count: they meet first connections and first parts.
const WARM_UP: Duration = Duration::from_secs(5);
const ARRIVED_WITHIN: Duration = Duration::from_secs(60);

/// The time of each answer, with the sequence number of each marker in it.
type Seen = Vec<(Instant, Vec<u64>)>;

/// Measures three rates through bridge and loader in default configuration.
pub fn measure(options: &Options) -> Vec<Table> {
    let (rates, seconds): (&[u64], _) = if options.quick { (&[500], 10) } else { (&[500, 5_000, 20_000], 65) };
    // Each rate has a new Kafka. A loader with empty tables would otherwise read the records of the
    // rate before.
    let rows = rates.iter().map(|rate| at(&mut Stage::start(), *rate, seconds));
    let conditions = format!(
        "Mosquitto, one bridge, one loader, ClickHouse, default configuration (12 partitions, fsync); reports of \
         {PER_REPORT} injections over one connection; {MARKER_DEVICES} marker devices report once a second each among all \
         others; latency = from just before a marker's report is sent until the answer to `SELECT device, max(seq) .. WHERE \
         tenant = 'marker' GROUP BY device`, asked again {} ms after each answer, has its last injection; the first {} s do \
         not count",
        ASK_EVERY.as_millis(),
        WARM_UP.as_secs()
    );
    vec![Table { title: "Latency from publication to query", conditions, rows: rows.collect() }]
}

fn at(stage: &mut Stage, rate: u64, seconds: u64) -> Row {
    let reports_per_s = rate / PER_REPORT;
    // One report in this many is a marker's.
    let every = reports_per_s / MARKER_REPORTS_PER_S;
    let others = Fleet { first: 0, devices: (reports_per_s * PER_REPORT).max(1), per_report: PER_REPORT };
    let markers = Fleet { first: MARKERS, devices: MARKER_DEVICES, per_report: PER_REPORT };
    let reports = reports_per_s * seconds;
    let publications: Vec<_> = (0..reports)
        .map(|number| match number % every {
            0 => Publication::new(&markers.sent(number / every)),
            _ => Publication::new(&others.sent(number - number / every - 1)),
        })
        .collect();
    let (mut bridge, mut loader) = (stage.role("bridge", &[]), stage.role("load", &[]));
    let mut publisher = Publisher::connect(stage.mosquitto.port());
    let mut sent: Vec<Instant> = Vec::new();
    let (over, seen) = (AtomicBool::new(false), Mutex::new(Seen::new()));
    let (engines, cpu, began) = (stage.engines_cpu_s(), [bridge.cpu_s(), loader.cpu_s()], Instant::now());
    std::thread::scope(|scope| {
        let clickhouse = &stage.clickhouse;
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let last = last_of_markers(clickhouse);
                seen.lock().expect("no panic").push((Instant::now(), last));
                std::thread::sleep(ASK_EVERY);
            }
        });
        publisher.publish(&publications, reports_per_s, |at| {
            if (at as u64).is_multiple_of(every) {
                sent.push(Instant::now());
            }
        });
        let expected = (reports * PER_REPORT).to_string();
        let arrived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            poll(ARRIVED_WITHIN, "all injections", || {
                match clickhouse.query("SELECT count() FROM doseline.injections") {
                    count if count == expected => Ok(()),
                    count => Err(format!("{count} of {expected}")),
                }
            });
        }));
        // Allows one more query after the last arrival.
        std::thread::sleep(ASK_EVERY * 10);
        over.store(true, Ordering::Relaxed);
        arrived.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let wall_s = began.elapsed().as_secs_f64();
    let after = stage.engines_cpu_s();
    let seq_sum = stage.clickhouse.number("SELECT sum(seq) FROM doseline.injections");
    let marked = sent.len() as u64;
    assert_eq!(seq_sum, markers.seq_sum(marked) + others.seq_sum(reports - marked), "sum of sequence numbers");
    let seen = seen.into_inner().expect("no panic");
    let counted = sent.iter().enumerate().filter(|(_, at)| at.duration_since(began) >= WARM_UP);
    let mut latencies: Vec<_> = counted
        .map(|(number, at)| {
            let (device, last) = (number % MARKER_DEVICES as usize, (number as u64 / MARKER_DEVICES + 1) * PER_REPORT);
            let answer = seen.partition_point(|(_, lasts)| lasts[device] < last);
            let (visible, _) = seen.get(answer).expect("it was seen");
            visible.duration_since(*at).as_secs_f64()
        })
        .collect();
    latencies.sort_by(f64::total_cmp);
    let cores = |used: f64| used / wall_s;
    let row = vec![
        ("injections_per_s", rate.into()),
        ("p50_s", quantile(&latencies, 0.5).into()),
        ("p99_s", quantile(&latencies, 0.99).into()),
        ("p99.9_s", quantile(&latencies, 0.999).into()),
        ("reports_measured", latencies.len().into()),
        ("bridge_cores", cores(bridge.cpu_s() - cpu[0]).into()),
        ("loader_cores", cores(loader.cpu_s() - cpu[1]).into()),
        ("mosquitto_cores", cores(after[0] - engines[0]).into()),
        ("kafka_cores", cores(after[1] - engines[1]).into()),
        ("clickhouse_cores_with_questions", cores(after[2] - engines[2]).into()),
        ("ms_between_questions", (wall_s * 1e3 / seen.len() as f64).into()),
    ];
    bridge.stop();
    loader.stop();
    say(&format!(
        "   {rate} injections/s: p50 {:.2} s, p99 {:.2} s",
        quantile(&latencies, 0.5),
        quantile(&latencies, 0.99)
    ));
    row
}

/// The greatest sequence number of each marker, in their order; 0 if there is none.
fn last_of_markers(clickhouse: &ClickHouse) -> Vec<u64> {
    let sql = "SELECT device, max(seq) FROM doseline.injections WHERE tenant = 'marker' GROUP BY device";
    let mut last = vec![0; MARKER_DEVICES as usize];
    for line in clickhouse.query(sql).lines() {
        let (device, seq) = line.split_once('\t').expect("two columns");
        let number: u64 = device.rsplit('-').next().and_then(|number| number.parse().ok()).expect("a marker's name");
        last[(number - MARKERS) as usize] = seq.parse().expect("a number");
    }
    last
}

/// A quantile of ascending values: the least value that is not below this share of them.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values: Vec<_> = (1..=1_000).map(f64::from).collect();
        assert_eq!([0.5, 0.99, 0.999, 1.0].map(|share| quantile(&values, share)), [500.0, 990.0, 999.0, 1_000.0]);
    }
}
