//! The loader between Kafka and ClickHouse: it writes a full topic to all tables.

use std::time::{Duration, Instant};

use super::data::Fleet;
use super::report::{Row, Table};
use super::stage::Stage;
use super::{Options, say, topic};
use crate::usage::{rss_peak_mib, wire};
use crate::{ClickHouse, poll};

const RECORDS: &str = "doseline_load_records_total";
const WRITTEN_WITHIN: Duration = Duration::from_secs(1_800);

/// Injections of one run that is not quick.
pub const INJECTIONS: u64 = 5_000_000;
/// Injections of one quick run.
pub const QUICK_INJECTIONS: u64 = 100_000;

/// Resources that loading a topic used.
pub struct Loaded {
    pub wall_s: f64,
    pub loader_cpu_s: f64,
    pub loader_rss_mib: f64,
    /// CPU time of ClickHouse until the last commit, s.
    pub clickhouse_cpu_s: f64,
    /// CPU time of ClickHouse afterwards, until no merge ran, s.
    pub merge_cpu_s: f64,
    pub clickhouse_rss_mib: f64,
    pub kafka_cpu_s: f64,
    pub batches: u64,
    /// TCP payload from Kafka, bytes.
    pub wire_bytes: Option<f64>,
}

/// Loads topics of five forms, each into an empty ClickHouse.
pub fn measure(options: &Options) -> Vec<Table> {
    let injections = if options.quick { QUICK_INJECTIONS } else { INJECTIONS };
    let forms: &[(u64, u64)] = match options.quick {
        true => &[(10, 2_000), (1, 2_000)],
        false => &[(10, 1_000), (10, 2_000), (10, 100_000), (1, 2_000), (1, 100_000)],
    };
    let loaded = forms.iter().map(|(per_report, devices)| {
        let fleet = Fleet { first: 0, devices: *devices, per_report: *per_report };
        let mut stage = Stage::start();
        topic::fill(&stage.kafka, fleet, injections / per_report);
        (fleet, load(&mut stage, fleet, injections))
    });
    let loaded: Vec<_> = loaded.collect();
    let rows = loaded.iter().map(|(fleet, each)| {
        let fewest = loaded.iter().find(|(other, _)| other.per_report == fleet.per_report);
        let growth = fewest.map(|(_, fewest)| each.loader_cpu_s / fewest.loader_cpu_s);
        [row(*fleet, injections, each), vec![("loader_cpu_against_fewest_devices", growth.into())]].concat()
    });
    let conditions = format!(
        "{injections} injections in Kafka (12 partitions, uncompressed as the bridge writes them), one loader from its start to \
         its last commit into all tables and aggregates; CPU-s for a million injections; ClickHouse: until that commit, and \
         then until no merge has run for 3 s; wire = TCP payload received from Kafka"
    );
    vec![Table { title: "Loader, topic full", conditions, rows: rows.collect() }]
}

/// Starts a loader on a full topic, waits until all is written and no merge runs, and measures.
pub fn load(stage: &mut Stage, fleet: Fleet, injections: u64) -> Loaded {
    let reports = injections / fleet.per_report;
    let (before, began) = (stage.engines_cpu_s(), Instant::now());
    let mut loader = stage.launch("load", &[]);
    // The loader's own count needs no query.
    poll(WRITTEN_WITHIN, "all records to be written", || {
        loader.process().alive().unwrap_or_else(|ended| panic!("{ended}"));
        match loader.metric(RECORDS).unwrap_or(0.0) as u64 {
            records if records == reports => Ok(()),
            records => Err(format!("{records} of {reports}")),
        }
    });
    let (wall_s, after, process) = (began.elapsed().as_secs_f64(), stage.engines_cpu_s(), loader.process().id());
    let wire_bytes = wire(process, stage.kafka_port()).map(|(_, received)| received);
    let (loader_cpu_s, loader_rss_mib) = (loader.cpu_s(), loader.rss_peak_mib());
    loader.stop();
    stage.clickhouse.rest();
    let [_, _, rested] = stage.engines_cpu_s();
    check(&stage.clickhouse, fleet, injections);
    let loaded = Loaded {
        wall_s,
        loader_cpu_s,
        loader_rss_mib,
        clickhouse_cpu_s: after[2] - before[2],
        merge_cpu_s: rested - after[2],
        clickhouse_rss_mib: rss_peak_mib(stage.clickhouse.process().id()),
        kafka_cpu_s: after[1] - before[1],
        batches: stage.clickhouse.number("SELECT countIf(kind = 'commit') FROM doseline.loader_commits"),
        wire_bytes,
    };
    say(&format!(
        "   {} in {wall_s:.1} s, loader {loader_cpu_s:.2} CPU-s, ClickHouse {:.2}",
        said(fleet),
        rested - before[2]
    ));
    loaded
}

/// Asserts that every injection is there once, in the base table and in the sums.
pub fn check(clickhouse: &ClickHouse, fleet: Fleet, injections: u64) {
    check_base(clickhouse, fleet, injections, &said(fleet));
    for table in ["accuracy_minute", "accuracy_session"] {
        let counted = clickhouse.number(&format!("SELECT sum(injections) FROM doseline.{table}"));
        assert_eq!(counted, injections, "injections in {table} of {}", said(fleet));
    }
}

/// Asserts that every injection is in the base table once; `of` names the writer in the message.
pub fn check_base(clickhouse: &ClickHouse, fleet: Fleet, injections: u64, of: &str) {
    let found = clickhouse.query("SELECT count(), sum(seq) FROM doseline.injections");
    let seq_sum = fleet.seq_sum(injections / fleet.per_report);
    assert_eq!(found, format!("{injections}\t{seq_sum}"), "count and sum of sequence numbers of {of}");
}

fn row(fleet: Fleet, injections: u64, loaded: &Loaded) -> Row {
    let millions = injections as f64 / 1e6;
    let from_kafka = loaded.wire_bytes.map(|bytes| bytes / injections as f64);
    vec![
        ("injections_per_report", fleet.per_report.into()),
        ("devices", fleet.devices.into()),
        ("loader_cpu_s_per_million", (loaded.loader_cpu_s / millions).into()),
        ("clickhouse_cpu_s_per_million", (loaded.clickhouse_cpu_s / millions).into()),
        ("merges_after_cpu_s_per_million", (loaded.merge_cpu_s / millions).into()),
        ("kafka_cpu_s_per_million", (loaded.kafka_cpu_s / millions).into()),
        ("wall_s", loaded.wall_s.into()),
        ("injections_per_s", (injections as f64 / loaded.wall_s).round().into()),
        ("injections_per_batch", (injections / loaded.batches.max(1)).into()),
        ("loader_rss_peak_mib", loaded.loader_rss_mib.into()),
        ("clickhouse_rss_peak_mib", loaded.clickhouse_rss_mib.into()),
        ("kafka_wire_bytes_per_injection", from_kafka.into()),
    ]
}

fn said(fleet: Fleet) -> String {
    format!("{} injections a report, {} devices", fleet.per_report, fleet.devices)
}
