//! Counting what `cargo test` ran, from what it prints.

/// Results of one `cargo test` over many targets.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
    targets_started: u64,
    targets_ended: u64,
}

impl Tally {
    /// Takes in one line of output.
    pub fn line(&mut self, line: &str) {
        let line = line.trim();
        if line.starts_with("Running ") || line.starts_with("Doc-tests ") {
            self.targets_started += 1;
        }
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

    /// Ends the count with cargo's own verdict. A target that died without a result counts as one failure, so that
    /// no failed run shows 0 failures.
    pub fn end(&mut self, success: bool) {
        if !success {
            self.failed += self.targets_started.saturating_sub(self.targets_ended);
            self.failed = self.failed.max(1);
        }
    }

    /// Whether nothing failed.
    pub fn success(&self) -> bool {
        self.failed == 0
    }

    /// Tests that passed.
    pub fn passed(&self) -> u64 {
        self.passed
    }
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
    fn a_target_that_died_is_a_failure() {
        let output = "     Running tests/a.rs (target/release/deps/a-1)\n\
            test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
            \x20    Running tests/b.rs (target/release/deps/b-1)\n\
            error: test failed, to rerun pass `-p a --test b`\n";
        check(output, false, "1 passed, 1 failed");
    }

    #[test]
    fn a_failed_run_without_any_target_shows_a_failure() {
        check("error: could not compile `a`\n", false, "0 passed, 1 failed");
    }
}
