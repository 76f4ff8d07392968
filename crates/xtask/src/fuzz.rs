//! `cargo xtask fuzz`: builds the targets of `tests/fuzz` with counters in every branch, and lets
//! libFuzzer search for inputs that break a property.
//!
//! The compiler's flags for the counters are stable ones, so that no other toolchain is needed.
//! Build, inputs that were found, and logs are in `target/fuzz`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::progress::Amount;
use crate::steps::{Step, Steps};
use crate::{command, system};

/// The targets, each a binary of `tests/fuzz` with a feature of the same name.
pub const TARGETS: [&str; 8] =
    ["topic", "report", "report_json", "receipt", "gs1", "configuration", "clickhouse", "kafka"];

/// Counters in every branch, and the operands of comparisons.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares";
/// Longest time for one input, s. A longer one is a failure.
const INPUT_SECONDS: u32 = 10;
/// Memory of a target, MiB. More is a failure.
const MEMORY_MIB: u32 = 1024;
/// Longest input that `--keep` adds to the repository, bytes.
const KEPT_BYTES: u32 = 4096;
/// Lines at the end of a log that a failure shows.
const SHOWN_LINES: usize = 30;

/// The choice of the user.
pub struct Options {
    /// One target; none = all.
    pub target: Option<String>,
    /// How long each target runs.
    pub seconds: u32,
    /// One input to run instead.
    pub input: Option<PathBuf>,
    /// Whether to add found inputs to the repository.
    pub keep: bool,
}

/// Builds the chosen targets and runs one after the other.
pub fn run(options: &Options) -> Result<()> {
    let chosen: Vec<&str> =
        TARGETS.into_iter().filter(|target| options.target.as_deref().is_none_or(|chosen| chosen == *target)).collect();
    let mut steps = Steps::new(chosen.len() + 2);
    steps.run("system packages", |step| system::install(step, system::FOR_BUILDING))?;
    let folder = command::target()?.join("fuzz");
    let binaries = steps.run("build", |step| build(step, &folder, &chosen))?;
    let scratch = scratch(&folder);
    fs::create_dir_all(&scratch).with_context(|| format!("create {}", scratch.display()))?;
    let outcome = chosen.into_iter().try_for_each(|target| {
        let place = Place { target, binary: binaries.join(target), folder: &folder, scratch: &scratch };
        steps.run(target, |step| match &options.input {
            Some(input) => place.replay(step, input),
            None => place.search(step, options),
        })
    });
    // libFuzzer ends a process without removing its files.
    let _ = fs::remove_dir_all(&scratch);
    outcome
}

/// A folder for the files of targets, which write some for each input: in memory, if that is
/// possible.
fn scratch(folder: &Path) -> PathBuf {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory } else { folder };
    parent.join(format!("doseline-fuzz-{}", std::process::id()))
}

/// Returns the folder of the binaries.
fn build(step: &mut Step, folder: &Path, targets: &[&str]) -> Result<PathBuf> {
    step.give_way();
    let about = command::read(Command::new("rustc").arg("-vV"))?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    // With a target named, the flags are not used for build scripts, which have no counters.
    let mut cargo = command::cargo(["build", "--release", "--manifest-path", "tests/fuzz/Cargo.toml"])?;
    cargo.args(["--target", host, "--features", &targets.join(",")]).arg("--target-dir").arg(folder);
    cargo.args(targets.iter().flat_map(|target| ["--bin", *target]));
    // The checkout's settings leave C++ unoptimised, and libFuzzer is C++.
    command::run(cargo.env("RUSTFLAGS", FLAGS).env("CXXFLAGS", "-g0 -O2"))?;
    Ok(folder.join(host).join("release"))
}

/// A target and where it keeps what it finds.
struct Place<'a> {
    target: &'static str,
    binary: PathBuf,
    folder: &'a Path,
    scratch: &'a Path,
}

impl Place<'_> {
    /// Searches for a failing input for the given time.
    fn search(&self, step: &mut Step, options: &Options) -> Result<()> {
        let found = self.folder.join("corpus").join(self.target);
        let failures = self.folder.join("failures");
        for folder in [&found, &failures] {
            fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        let seeds = self.seeds()?;
        let (log, seconds) = (self.folder.join(format!("{}.log", self.target)), options.seconds);
        let mut command = self.command();
        command.arg(&found).arg(&seeds).arg(format!("-max_total_time={seconds}"));
        command.arg(format!("-artifact_prefix={}/{}-", failures.display(), self.target));
        let begun = Instant::now();
        let amount = || part(begun.elapsed(), seconds);
        let ended = step.watch("search", amount, || run_into(&mut command, &log));
        let said = fs::read_to_string(&log).with_context(|| format!("read {}", log.display()))?;
        if let Err(error) = ended {
            bail!("{error:#}\n{}\n{}", end_of(&said), self.advice(&said));
        }
        step.say(&format!("{}: {}", self.target, summary(&said)));
        if options.keep {
            let mut merge = self.command();
            merge.args(["-merge=1", &format!("-max_len={KEPT_BYTES}")]).arg(&seeds).arg(&found);
            step.watch("keep inputs", Amount::default, || run_into(&mut merge, &log))?;
        }
        Ok(())
    }

    /// Runs one input, with the target's own output.
    fn replay(&self, step: &mut Step, input: &Path) -> Result<()> {
        step.give_way();
        command::run(self.command().arg(input))
    }

    fn seeds(&self) -> Result<PathBuf> {
        Ok(command::checkout()?.join("tests/fuzz/corpus").join(self.target))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.env("TMPDIR", self.scratch);
        command.arg(format!("-timeout={INPUT_SECONDS}")).arg(format!("-rss_limit_mb={MEMORY_MIB}"));
        command.arg("-print_final_stats=1");
        command
    }

    /// How to run the failing input again.
    fn advice(&self, log: &str) -> String {
        let input = log.lines().find_map(|line| line.split_once("Test unit written to ").map(|(_, path)| path));
        match input {
            Some(input) => format!("run it again: cargo xtask fuzz {} --input {input}", self.target),
            None => format!("the whole log: {}", self.folder.join(format!("{}.log", self.target)).display()),
        }
    }
}

/// Runs a command with all its output in a file.
fn run_into(command: &mut Command, log: &Path) -> Result<()> {
    let name = command::name(command);
    let file = File::create(log).with_context(|| format!("create {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(file.try_clone().context("share the log")?).stderr(file);
    let status = command.status().with_context(|| format!("start {name}"))?;
    if !status.success() {
        bail!("{name} failed ({status})");
    }
    Ok(())
}

fn part(elapsed: Duration, seconds: u32) -> Amount {
    let (done, all) = (elapsed.as_secs().min(seconds.into()), seconds.max(1));
    Amount { text: format!("{done} of {seconds} s"), part: Some(done as f64 / f64::from(all)) }
}

/// What libFuzzer said at last: inputs that ran, and branches that they reached.
fn summary(log: &str) -> String {
    let last = |mark: &str| {
        let text = log.lines().rev().find_map(|line| line.split_once(mark))?.1;
        text.split_whitespace().next()
    };
    let (inputs, branches) = (last("number_of_executed_units:"), last(" cov: "));
    format!("{} inputs, {} branches reached, no failure", inputs.unwrap_or("?"), branches.unwrap_or("?"))
}

fn end_of(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_binary_of_the_package_is_a_target_with_seeds() {
        let folder = command::checkout().unwrap().join("tests/fuzz");
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let binaries: Vec<&str> = manifest
            .split("[[bin]]\nname = \"")
            .skip(1)
            .filter_map(|rest| rest.split_once('"').map(|(name, _)| name))
            .collect();
        assert_eq!(binaries, TARGETS);
        for target in TARGETS {
            assert!(manifest.contains(&format!("\n{target} = [")), "{target} has no feature");
            assert!(fs::read_dir(folder.join("corpus").join(target)).unwrap().next().is_some(), "{target}");
        }
    }

    #[test]
    fn a_log_is_told_in_one_line() {
        let log = "#2\tINITED cov: 7 ft: 9\n#99\tNEW    cov: 31 ft: 40 corp: 3/9b\n#512\tDONE   cov: 32 ft: 41\n\
                   stat::number_of_executed_units: 512\nstat::peak_rss_mb: 80\n";
        assert_eq!(summary(log), "512 inputs, 32 branches reached, no failure");
        assert_eq!(summary(""), "? inputs, ? branches reached, no failure");
    }

    #[test]
    fn a_failure_names_the_command_that_repeats_it() {
        let folder = Path::new("/t/fuzz");
        let place = Place { target: "topic", binary: PathBuf::from("topic"), folder, scratch: folder };
        let log = "thread panicked\nartifact_prefix='/t/'; Test unit written to /t/topic-crash-1\nBase64: eA==\n";
        assert_eq!(place.advice(log), "run it again: cargo xtask fuzz topic --input /t/topic-crash-1");
        assert_eq!(place.advice("killed"), "the whole log: /t/fuzz/topic.log");
    }

    #[test]
    fn progress_ends_at_the_time_that_was_given() {
        let shown = |elapsed, seconds| part(Duration::from_secs(elapsed), seconds);
        assert_eq!(shown(30, 60), Amount { text: "30 of 60 s".to_owned(), part: Some(0.5) });
        assert_eq!(shown(90, 60).part, Some(1.0));
        assert_eq!(shown(0, 0).part, Some(0.0));
    }
}
