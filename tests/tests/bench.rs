//! `cargo xtask bench` works: it runs bridge and loader with little data and counts every report.
//! Their speed is not judged here.

use harness::bench::{self, Options};

#[test]
fn bridge_and_loader_are_measured_and_everything_arrives() {
    let only = ["bridge", "loader"].map(str::to_owned).to_vec();
    let report = bench::run(&Options { only, quick: true, peers: Vec::new() }, |_| {});
    println!("{report}");
    assert!(report.failed.is_empty(), "{:?} failed", report.failed);
    let json = report.json();
    let figure = |table: usize, name: &str| json["tables"][table]["rows"][0][name].as_f64();
    for (table, name) in [(0, "bridge_cpu_us_per_report"), (1, "reports_per_s"), (2, "loader_cpu_s_per_million")] {
        assert!(figure(table, name).is_some_and(|figure| figure > 0.0), "{name} in {json:#}");
    }
    // At 2,000 reports/s, the bridge handles all reports together that arrived while it slept.
    let switches = figure(0, "bridge_switches_per_report").expect("a figure");
    assert!(switches < 2.0, "{switches} switches of threads a report");
}
