//! The targets of the workspace, and those integration tests that start no engine.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command;

/// Integration tests that start no engine, as package and target. `cargo xtask test --fast` runs
/// them.
///
/// A new test target must be in this list or in the next one. A test below checks that.
const FAST: &[(&str, &str)] = &[
    ("analysis", "clustered"),
    ("analysis", "fleet"),
    ("analysis", "nist"),
    ("analysis", "properties"),
    ("analysis", "reference"),
    ("analysis", "sterility"),
    ("analysis", "thresholds"),
    ("analysis", "vectors"),
    ("doseline", "calc"),
    ("telemetry", "contract"),
    ("telemetry", "report"),
    ("tests", "allocations"),
    ("tests", "simulation"),
];

/// Integration tests that start Mosquitto, a Kafka, ClickHouse, a browser or valgrind. The ones
/// that take longest come first, because several run at a time.
const WITH_ENGINES: &[(&str, &str)] = &[
    ("tests", "campaign"),
    ("tests", "repair"),
    ("tests", "loader"),
    ("tests", "bridge"),
    ("tests", "up"),
    ("tests", "warehouse"),
    ("tests", "broker"),
    ("tests", "main_path"),
    ("tests", "demo"),
    ("tests", "monitor"),
    ("embedded", "kafka"),
    ("tests", "bench"),
    ("tests", "commands"),
    ("tests", "device"),
    ("tests", "deployment"),
    ("tests", "documents"),
    ("embedded", "clickhouse"),
    ("embedded", "mosquitto"),
    ("tests", "api"),
    ("tests", "bad_input"),
    ("tests", "corpora"),
    ("tests", "grafana"),
    ("tests", "harness"),
    ("tests", "identities"),
    ("tests", "independent_client"),
    ("tests", "instructions"),
    ("tests", "kafka_clients"),
    ("tests", "monitor_cost"),
    ("tests", "page"),
    ("tests", "quarantine"),
    ("tests", "runbook"),
    ("tests", "secrets"),
];

/// A library, binary or test that cargo compiles.
#[derive(Debug, Clone)]
pub struct Target {
    pub package: String,
    /// `lib`, `cdylib`, `bin`, `test`, `bench` or `custom-build`.
    pub kind: String,
    pub name: String,
    /// Whether cargo looks for tests in this target.
    pub tested: bool,
    /// Path of its first source file.
    #[cfg_attr(not(test), allow(dead_code, reason = "the tests read the sources"))]
    pub source: String,
}

impl Target {
    /// Whether it is an integration test that starts no engine.
    pub fn is_fast(&self) -> bool {
        self.kind == "test" && FAST.contains(&(self.package.as_str(), self.name.as_str()))
    }
}

/// All targets of the workspace.
pub fn of_workspace() -> Result<Vec<Target>> {
    let metadata = command::metadata()?;
    let mut targets = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        for target in package["targets"].as_array().into_iter().flatten() {
            let text =
                |value: &Value| value.as_str().map(str::to_owned).context("cargo metadata lacks a target's name");
            targets.push(Target {
                package: text(&package["name"])?,
                kind: text(&target["kind"][0])?,
                name: text(&target["name"])?,
                tested: target["test"].as_bool().unwrap_or_default(),
                source: text(&target["src_path"])?,
            });
        }
    }
    Ok(targets)
}

/// Arguments of `cargo test` that select the tests that start no engine.
///
/// Examples in documentation are not included: there are none, and looking for them takes a pass
/// over every crate.
pub fn fast(targets: &[Target]) -> Vec<&str> {
    let mut arguments = vec!["--workspace", "--lib"];
    // `--bins` would also select binaries whose manifest says that they contain no tests.
    for target in targets.iter().filter(|target| target.kind == "bin" && target.tested) {
        arguments.extend(["--bin", &target.name]);
    }
    arguments.extend(FAST.iter().flat_map(|(_, target)| ["--test", target]));
    arguments
}

/// Arguments of `cargo test` that select the tests with engines, one target at a time.
pub fn with_engines<'a>() -> impl Iterator<Item = Vec<&'a str>> {
    WITH_ENGINES.iter().map(|(_, target)| vec!["--workspace", "--test", target])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::unused;

    /// Words that show that a test starts an engine or a browser.
    const SIGNS: [&str; 7] = ["harness", "embedded", "mosquitto", "valgrind", "chromium", "libchdb", "java"];

    fn tests_of_workspace() -> Vec<Target> {
        of_workspace().unwrap().into_iter().filter(|target| target.kind == "test").collect()
    }

    #[test]
    fn every_test_target_is_in_one_list() {
        let listed: Vec<(&str, &str)> = FAST.iter().chain(WITH_ENGINES).copied().collect();
        let targets = tests_of_workspace();
        let found: BTreeSet<_> = targets.iter().map(|target| (target.package.as_str(), target.name.as_str())).collect();
        for target in &found {
            let times = listed.iter().filter(|listed| *listed == target).count();
            assert_eq!(times, 1, "{target:?} belongs into one of FAST and WITH_ENGINES in {}", file!());
        }
        for target in &listed {
            assert!(found.contains(target), "{target:?} is no test of the workspace: delete it from {}", file!());
        }
    }

    #[test]
    fn a_name_chooses_one_target() {
        for (package, name) in FAST.iter().chain(WITH_ENGINES) {
            let times = FAST.iter().chain(WITH_ENGINES).filter(|(_, other)| other == name).count();
            assert_eq!(times, 1, "`--test {name}` would choose more than the test of {package}: rename one of them");
        }
    }

    #[test]
    fn fast_tests_start_no_engine() {
        for target in tests_of_workspace().iter().filter(|target| target.is_fast()) {
            for file in sources(Path::new(&target.source)) {
                let words: BTreeSet<String> =
                    unused::words_of(&fs::read_to_string(&file).unwrap()).map(|word| word.to_lowercase()).collect();
                let sign = SIGNS.iter().find(|sign| words.contains(**sign));
                assert_eq!(sign, None, "{} starts an engine: its target belongs into WITH_ENGINES", file.display());
            }
        }
    }

    /// The source files of a test: its folder, if it has one.
    fn sources(first: &Path) -> Vec<PathBuf> {
        if first.file_name().is_none_or(|name| name != "main.rs") {
            return vec![first.to_owned()];
        }
        let entries = fs::read_dir(first.parent().unwrap()).unwrap();
        entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|end| end == "rs"))
            .collect()
    }

    #[test]
    fn documentation_has_no_examples_that_no_command_would_run() {
        for target in of_workspace().unwrap().iter().filter(|target| target.kind == "lib") {
            let mut folders = vec![Path::new(&target.source).parent().unwrap().to_owned()];
            while let Some(folder) = folders.pop() {
                for entry in fs::read_dir(folder).unwrap() {
                    let path = entry.unwrap().path();
                    if path.is_dir() {
                        folders.push(path);
                    } else if path.extension().is_some_and(|end| end == "rs") {
                        let text = fs::read_to_string(&path).unwrap();
                        let example = text
                            .lines()
                            .map(str::trim_start)
                            .find(|line| matches!(*line, "/// ```" | "//! ```" | "/// ```rust" | "//! ```rust"));
                        assert_eq!(example, None, "{}: make it a unit test, or ```text", path.display());
                    }
                }
            }
        }
    }

    #[test]
    fn fast_is_a_choice_by_name() {
        let targets = of_workspace().unwrap();
        let fast = fast(&targets);
        let chooses = |arguments: &[&str], what, name| arguments.windows(2).any(|pair| pair == [what, name]);
        assert!(chooses(&fast, "--test", "simulation") && chooses(&fast, "--bin", "doseline"));
        assert!(!chooses(&fast, "--test", "up") && !chooses(&fast, "--bin", "soak"));
        assert!(!fast.contains(&"--tests") && !fast.contains(&"--bins"));
        assert!(with_engines().any(|arguments| chooses(&arguments, "--test", "up")));
    }
}
