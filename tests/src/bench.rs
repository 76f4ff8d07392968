//! Measures every published figure of doseline's speed with real engines, for `cargo xtask bench`.
//!
//! A scenario starts its own engines, sends them reports that were encoded beforehand, and reads
//! CPU time and memory of each process from `/proc`. It then counts the rows. If an event is
//! missing or doubled, the scenario fails and shows no figures. `docs/benchmarks.md` says what each
//! figure means.

mod bridge;
mod data;
mod insert;
mod latency;
mod loader;
mod machine;
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

/// Selection of scenarios and data.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Names of scenarios; empty means all.
    pub only: Vec<String>,
    /// Little data: it shows that everything works, not how fast it is.
    pub quick: bool,
    /// Further loaders: name and shell command.
    pub peers: Vec<(String, String)>,
}

/// Measurements that share their engines.
struct Scenario {
    name: &'static str,
    what: &'static str,
    measure: fn(&Options) -> Vec<Table>,
}

/// All scenarios, in the order of the report.
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
    Scenario {
        name: "machine",
        what: "all processes together when little happens, and at ordinary rates",
        measure: machine::measure,
    },
    Scenario { name: "monitor", what: "a pass of the monitor over 10,000 devices", measure: service::monitor },
    Scenario { name: "up", what: "`doseline up` from its start to the first visible injection", measure: service::up },
    Scenario { name: "recovery", what: "a loader killed with a million records left", measure: service::recovery },
];

/// Name of each scenario, with its subject.
pub fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    SCENARIOS.iter().map(|scenario| (scenario.name, scenario.what))
}

/// Refuses unknown names.
///
/// # Errors
/// The unknown name, and the known ones.
pub fn check_names(only: &[String]) -> Result<(), String> {
    match only.iter().find(|wanted| names().all(|(name, _)| name != wanted.as_str())) {
        None => Ok(()),
        Some(unknown) => {
            let names: Vec<_> = names().map(|(name, _)| name).collect();
            Err(format!("there is no scenario {unknown:?}; there are {}", names.join(", ")))
        }
    }
}

/// Measures the scenarios in order, and passes on the report so far after each. A scenario that
/// fails has no figures, and the others continue.
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
            // The panic has printed its message on standard error.
            Err(_) => report.failed.push(scenario.name),
        }
        say(&format!("== {}: {:.0} s", scenario.name, began.elapsed().as_secs_f64()));
        so_far(&report);
    }
    report
}

/// Prints progress for a person.
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
