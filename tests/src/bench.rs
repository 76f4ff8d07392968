//! Every figure that doseline publishes about its speed, measured with real engines: `cargo xtask bench`.
//!
//! A scenario starts its own engines, feeds them reports that were encoded beforehand, and reads CPU time and memory of each
//! process from `/proc`. It then counts what has arrived. A scenario whose data are not all there, once each, fails: its
//! figures are not shown. What each figure means is in `docs/benchmarks.md`.

mod bridge;
mod data;
mod insert;
mod latency;
mod loader;
mod mqtt;
mod peers;
mod queries;
mod report;
mod service;
mod stage;
mod topic;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

pub use report::{Report, Table};

use crate::scratch::Deferred;

/// What is to be measured.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Only these scenarios; empty = all.
    pub only: Vec<String>,
    /// Little data: shows that everything works, not how fast it is.
    pub quick: bool,
    /// Further loaders, name and shell command.
    pub peers: Vec<(String, String)>,
}

/// What is measured together.
struct Scenario {
    name: &'static str,
    what: &'static str,
    measure: fn(&Options) -> Vec<Table>,
}

/// In the order of the report.
const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "bridge",
        what: "CPU of the bridge for a report between Mosquitto and Kafka, and its headroom",
        measure: bridge::measure,
    },
    Scenario {
        name: "loader",
        what: "CPU of loader and ClickHouse for a million injections from Kafka",
        measure: loader::measure,
    },
    Scenario {
        name: "latency",
        what: "time from a device's publication to the answer of a query that sees it",
        measure: latency::measure,
    },
    Scenario { name: "queries", what: "dashboard and views over 100 million injections", measure: queries::measure },
    Scenario { name: "insert", what: "base blocks alone, and the same rows as RowBinary", measure: insert::measure },
    Scenario {
        name: "peers",
        what: "ClickHouse's Kafka engine, a bridge in Python, and those of --peer, on the same data",
        measure: peers::measure,
    },
    Scenario { name: "monitor", what: "a pass of the monitor over 10,000 devices", measure: service::monitor },
    Scenario { name: "up", what: "`doseline up` from its start to the first visible injection", measure: service::up },
    Scenario { name: "recovery", what: "a loader killed with a million records left", measure: service::recovery },
];

/// Name of each scenario, and what it measures.
pub fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    SCENARIOS.iter().map(|scenario| (scenario.name, scenario.what))
}

/// Refuses names that no scenario has.
///
/// # Errors
/// The name, and those that there are.
pub fn check_names(only: &[String]) -> Result<(), String> {
    match only.iter().find(|wanted| names().all(|(name, _)| name != wanted.as_str())) {
        None => Ok(()),
        Some(unknown) => {
            let names: Vec<_> = names().map(|(name, _)| name).collect();
            Err(format!("there is no scenario {unknown:?}; there are {}", names.join(", ")))
        }
    }
}

/// Measures, one scenario after the other, and hands over the report so far after each. One that fails leaves no figures,
/// and the others go on.
pub fn run(options: &Options, mut so_far: impl FnMut(&Report)) -> Report {
    let mut report = Report::new(options);
    let _deferred = Deferred::begin();
    for scenario in SCENARIOS {
        if !options.only.is_empty() && !options.only.iter().any(|name| name == scenario.name) {
            continue;
        }
        let began = Instant::now();
        say(&format!("== {}: {}", scenario.name, scenario.what));
        match catch_unwind(AssertUnwindSafe(|| (scenario.measure)(options))) {
            Ok(tables) => report.tables.extend(tables),
            // The panic's message is on standard error.
            Err(_) => report.failed.push(scenario.name),
        }
        say(&format!("== {}: {:.0} s", scenario.name, began.elapsed().as_secs_f64()));
        so_far(&report);
    }
    report
}

/// Progress, for a person.
fn say(text: &str) {
    eprintln!("bench: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_scenario_is_named_with_those_that_exist() {
        let error = check_names(&["bridge".to_owned(), "speed".to_owned()]).expect_err("no speed");
        assert!(error.contains("\"speed\"") && error.contains("loader"), "{error}");
    }
}
