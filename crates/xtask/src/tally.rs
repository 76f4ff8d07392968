//! Counts and times the tests of `cargo test` from its output.

use std::time::Duration;

/// Greatest number of lines of a failed test's message that are repeated at the end.
const MESSAGE_LINES_MAX: usize = 8;

/// Results of one `cargo test` over several targets.
#[derive(Debug, Default)]
pub struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
    targets_started: u64,
    targets_ended: u64,
    /// The target that is running.
    target: String,
    times: Vec<Time>,
    failures: Vec<Failure>,
    /// Whether the next lines belong to the message of the last failure.
    in_message: bool,
}

/// Name and duration of a test.
#[derive(Debug)]
struct Time {
    target: String,
    test: String,
    taken: Duration,
}

/// A failed test with its message.
#[derive(Debug)]
struct Failure {
    target: String,
    test: String,
    /// Place of the panic, and its text.
    message: Vec<String>,
}

impl Tally {
    /// Processes one line of output.
    pub fn line(&mut self, line: &str) {
        let line = line.trim();
        if line.starts_with("Running ") || line.starts_with("Doc-tests ") {
            self.targets_started += 1;
            self.target = target(line);
        }
        self.times.extend(time(line).map(|(test, taken)| Time { target: self.target.clone(), test, taken }));
        self.failure(line);
        let Some(counts) = line.strip_prefix("test result: ") else { return };
        self.targets_ended += 1;
        for count in counts.split(['.', ';']) {
            let mut words = count.split_whitespace();
            let (Some(Ok(number)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }

    /// Keeps the panic message of a failed test, which cargo prints under `---- test stdout ----`.
    fn failure(&mut self, line: &str) {
        if let Some(test) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            let (target, test) = (self.target.clone(), test.to_owned());
            self.failures.push(Failure { target, test, message: Vec::new() });
            self.in_message = false;
        } else if line.is_empty() || line.starts_with("stack backtrace:") || line.starts_with("note: run with") {
            self.in_message = false;
        } else if let Some(failure) = self.failures.last_mut() {
            let begins = line.contains(" panicked at ") && failure.message.is_empty();
            if (begins || self.in_message) && failure.message.len() < MESSAGE_LINES_MAX {
                failure.message.push(line.to_owned());
            }
            self.in_message |= begins;
        }
    }

    /// The failed tests with their messages, for the end of a long output; empty if there are none.
    pub fn failures(&self) -> String {
        let mut text = String::new();
        for Failure { target, test, message } in &self.failures {
            text += &format!("FAILED {test}, {target}\n");
            for line in message {
                text += &format!("    {line}\n");
            }
        }
        text
    }

    /// The slowest tests, the slowest first.
    pub fn slowest(&self, count: usize) -> String {
        let mut times: Vec<&Time> = self.times.iter().collect();
        times.sort_by_key(|time| std::cmp::Reverse(time.taken));
        let mut text = "slowest tests:\n".to_owned();
        for Time { target, test, taken } in times.into_iter().take(count) {
            text += &format!("{:>9.1} s  {test}, {target}\n", taken.as_secs_f64());
        }
        text
    }

    /// Adds the results of another `cargo test`.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.times.extend(other.times);
        self.failures.extend(other.failures);
    }

    /// Ends the count with cargo's own verdict. A target that died without a result counts as one
    /// failure, so a failed run never shows 0 failures.
    pub fn end(&mut self, success: bool) {
        if !success {
            self.failed += self.targets_started.saturating_sub(self.targets_ended);
            self.failed = self.failed.max(1);
        }
    }

    /// Whether no test failed.
    pub fn success(&self) -> bool {
        self.failed == 0
    }

    /// Number of tests that passed.
    pub fn passed(&self) -> u64 {
        self.passed
    }
}

/// The target that cargo announces: its name and its first source file, because many targets have
/// the same file names.
fn target(line: &str) -> String {
    let (what, binary) = line.split_once(" (").unwrap_or((line, ""));
    let source = what.trim_start_matches("Running ").trim_start_matches("unittests ");
    let binary = binary.trim_end_matches(')').rsplit('/').next().unwrap_or_default();
    match binary.rsplit_once('-') {
        Some((name, _)) => format!("{name} {source}"),
        None => source.to_owned(),
    }
}

/// Name and duration of a test, from a line such as `test second::third ... ok <1.234s>`.
fn time(line: &str) -> Option<(String, Duration)> {
    let (line, seconds) = line.strip_suffix("s>")?.rsplit_once(" <")?;
    let (test, _) = line.strip_prefix("test ")?.split_once(" ... ")?;
    Some((test.to_owned(), Duration::try_from_secs_f64(seconds.parse().ok()?).ok()?))
}

impl std::fmt::Display for Tally {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(formatter, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(output: &str, success: bool, expected: &str) {
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.line(line));
        tally.end(success);
        assert_eq!(tally.to_string(), expected);
        assert_eq!(tally.success(), success);
    }

    #[test]
    fn results_of_all_targets_are_added() {
        let output = "     Running unittests src/lib.rs (target/release/deps/a-1)\n\
            test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s\n\
            \x20  Doc-tests a\n\
            test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s\n";
        check(output, true, "14 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn failures_are_counted_as_reported() {
        let output = "     Running tests/a.rs (target/release/deps/a-1)\n\
            test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n";
        check(output, false, "1 passed, 2 failed");
    }

    #[test]
    fn failed_tests_are_named_with_what_they_said() {
        let output = "     Running tests/a.rs (target/release/deps/a-1)\n\
            test first ... ok\n\
            test second::third ... FAILED\n\n\
            failures:\n\n\
            ---- second::third stdout ----\n\
            what it printed\n\n\
            thread 'second::third' (25822) panicked at tests/a.rs:17:9:\n\
            it struck 3 times, not 5\n\
            stack backtrace:\n\
            \x20  0: __rustc::rust_begin_unwind\n\n\
            failures:\n\
            \x20   second::third\n\n\
            test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n";
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.line(line));
        let expected = "FAILED second::third, a tests/a.rs\n    \
            thread 'second::third' (25822) panicked at tests/a.rs:17:9:\n    it struck 3 times, not 5\n";
        assert_eq!(tally.failures(), expected);
    }

    #[test]
    fn the_slowest_tests_are_named_with_their_target() {
        let output = "     Running unittests src/lib.rs (target/release/deps/bridge-1f)\n\
            test quick ... ok <0.001s>\n\
            test skipped ... ignored, because\n\
            test wrong - should panic ... ok <12.345s>\n\
            test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 12.35s\n\
            \x20    Running tests/main_path/main.rs (/elsewhere/my-target/release/deps/main_path-2a)\n\
            test delivery::broken ... FAILED <93.120s>\n\
            test odd ... ok <a while>\n";
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.line(line));
        let expected = "slowest tests:\n     93.1 s  delivery::broken, main_path tests/main_path/main.rs\n     \
            12.3 s  wrong - should panic, bridge src/lib.rs\n";
        assert_eq!(tally.slowest(2), expected);
        assert_eq!(tally.slowest(10), expected.to_owned() + "      0.0 s  quick, bridge src/lib.rs\n");
    }

    #[test]
    fn a_target_that_died_is_a_failure() {
        let output = "     Running tests/a.rs (target/release/deps/a-1)\n\
            test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
            \x20    Running tests/b.rs (target/release/deps/b-1)\n\
            error: test failed, to rerun pass `-p a --test b`\n";
        check(output, false, "1 passed, 1 failed");
    }

    #[test]
    fn two_runs_are_one_count() {
        let run = |output: &str, success| {
            let mut tally = Tally::default();
            output.lines().for_each(|line| tally.line(line));
            tally.end(success);
            tally
        };
        let mut tally = run("test a ... ok <1.5s>\ntest result: ok. 1 passed; 0 failed; 1 ignored\n", true);
        tally.add(run("error: could not compile\n", false));
        tally
            .add(run("---- b stdout ----\ntest b ... FAILED <2.5s>\ntest result: FAILED. 3 passed; 1 failed\n", false));
        assert_eq!(tally.to_string(), "4 passed, 2 failed, 1 skipped");
        assert!(tally.failures().contains("FAILED b") && tally.slowest(1).contains("2.5 s  b"));
    }

    #[test]
    fn a_failed_run_without_any_target_shows_a_failure() {
        check("error: could not compile `a`\n", false, "0 passed, 1 failed");
    }
}
