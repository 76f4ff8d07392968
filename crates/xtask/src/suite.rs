//! `cargo xtask test`: every check and every test, in order.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};

use crate::compile::{Packages, Wanted};
use crate::steps::{Step, Steps};
use crate::tally::Tally;
use crate::{cache, command, engines, prose, system, targets, tools, unused, web};

/// Number of the slowest tests listed at the end of a run.
const SLOWEST: usize = 10;
/// Number of test targets that run at a time in a full run. The campaign takes one of them for most
/// of the time; two others keep two processors busy.
const LANES: usize = 3;
/// Makes libtest print the time of each test. Stable toolchains allow that only with this variable.
/// Cargo starts the test programs through `env`, and nothing else.
const RUNNER: &str = "target.'cfg(all())'.runner = ['env', 'RUSTC_BOOTSTRAP=1']";
const TIMES: [&str; 3] = ["-Z", "unstable-options", "--report-time"];

/// A step of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Packages,
    Engines,
    Page,
    Sources,
    Formatting,
    Language,
    Unused,
    Policy,
    Clippy,
    Documents,
    PageChecks,
    Build,
    Tests,
}

/// The selection of the user.
#[derive(Clone, Copy)]
struct Scope<'a> {
    /// Only steps that start no engine.
    fast: bool,
    /// Only tests whose name contains this.
    filter: Option<&'a str>,
}

/// State that the steps share.
struct Run<'a> {
    scope: Scope<'a>,
    packages: Packages,
    tally: Tally,
    /// The reason why security advisories were not checked.
    unchecked: Option<String>,
}

/// Runs all steps in order. The first failure ends the run, except that all tests run to their end.
pub fn run(fast: bool, filter: Option<&str>) -> Result<()> {
    let scope = Scope { fast, filter };
    let parts = scope.parts();
    let mut steps = Steps::new(parts.len());
    let mut run = Run { scope, packages: Packages::default(), tally: Tally::default(), unchecked: None };
    let outcome = parts.into_iter().try_for_each(|part| steps.run(part.name(), |step| run.work(part, step)));
    if outcome.is_ok() {
        print!("\n{}", run.tally.slowest(SLOWEST));
    }
    print!("\n{}\n", steps.table());
    outcome?;
    run.end()
}

impl Scope<'_> {
    /// A filter leaves out the checks: it is for work on one test.
    fn parts(self) -> Vec<Part> {
        use Part::{
            Build, Clippy, Documents, Engines, Formatting, Language, Packages, Page, PageChecks, Policy, Sources,
            Tests, Unused,
        };
        match (self.fast, self.filter) {
            (false, None) => {
                let checks = [Formatting, Language, Unused, Policy, Clippy, Documents, PageChecks];
                [&[Packages, Engines, Page, Sources], checks.as_slice(), &[Build, Tests]].concat()
            }
            (true, None) => vec![Packages, Sources, Formatting, Language, Unused, Clippy, Build, Tests],
            (false, Some(_)) => vec![Packages, Engines, Page, Sources, Build, Tests],
            (true, Some(_)) => vec![Packages, Sources, Build, Tests],
        }
    }

    fn tests(self) -> Wanted<'static> {
        if self.fast { Wanted::Fast } else { Wanted::Tests }
    }
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Packages => "system packages",
            Self::Engines => "engines",
            Self::Page => "page",
            Self::Sources => "sources",
            Self::Formatting => "formatting",
            Self::Language => "language",
            Self::Unused => "unused dependencies",
            Self::Policy => "dependency policy",
            Self::Clippy => "clippy",
            Self::Documents => "documents",
            Self::PageChecks => "types and charts of the page",
            Self::Build => "build",
            Self::Tests => "tests",
        }
    }
}

impl Run<'_> {
    fn work(&mut self, part: Part, step: &mut Step) -> Result<()> {
        let what = step.name();
        match part {
            Part::Packages => {
                system::install(step, if self.scope.fast { system::FOR_BUILDING } else { system::FOR_TESTS })?;
                system::install_rust_components(step)
            }
            Part::Engines => engines::fetch_all(step),
            Part::Page => web::build(step),
            Part::Sources => {
                self.packages = Packages::find(step, None)?;
                Ok(())
            }
            Part::Formatting => {
                step.give_way();
                command::run(&mut command::cargo(["fmt", "--all", "--check"])?)?;
                let fuzz = ["fmt", "--manifest-path", "tests/fuzz/Cargo.toml", "--check"];
                command::run(&mut command::cargo(fuzz)?)
            }
            Part::Language => prose::check(),
            Part::Unused => unused::check(),
            Part::Policy => {
                let lock = cache::lock(step)?;
                let cargo_deny = tools::fetch_cargo_deny(step, &lock)?;
                drop(lock);
                step.give_way();
                self.unchecked = tools::check_dependencies(&cargo_deny)?;
                Ok(())
            }
            Part::Clippy => {
                let clippy = ["clippy", "--release", "--workspace", "--all-targets"];
                self.packages.crates(&Wanted::Everything).compile(step, what, &clippy, &["--", "-D", "warnings"])
            }
            Part::Documents => {
                step.give_way();
                let doc = ["doc", "--release", "--workspace", "--no-deps", "--document-private-items"];
                command::run(command::cargo(doc)?.args(command::locked()).env("RUSTDOCFLAGS", "-D warnings"))
            }
            Part::PageChecks => {
                step.give_way();
                web::check()
            }
            Part::Build => {
                // Tests with engines start every binary. Others start only those that cargo builds
                // for them.
                let arguments = if self.scope.fast {
                    [&["test", "--release", "--no-run"], targets::fast(self.packages.targets()).as_slice()].concat()
                } else {
                    vec!["build", "--release", "--workspace", "--lib", "--bins", "--tests"]
                };
                self.packages.crates(&self.scope.tests()).compile(step, what, &arguments, &[])
            }
            Part::Tests => {
                step.give_way();
                self.tests()
            }
        }
    }

    /// Runs the tests. Tests with engines mostly wait, so several of their targets run at a time.
    fn tests(&mut self) -> Result<()> {
        let Scope { fast, filter } = self.scope;
        let without_engines = targets::fast(self.packages.targets());
        if fast || filter.is_some() {
            let chosen = if fast { without_engines } else { vec!["--workspace", "--tests"] };
            self.tally = run_tests(&chosen, &Vec::from_iter(filter), &mut std::io::stdout())?;
            return Ok(());
        }
        // Tests without engines keep two processors busy by themselves, so they must not come last.
        let mut waiting: VecDeque<_> = targets::with_engines().collect();
        waiting.insert(LANES, without_engines);
        let waiting = Mutex::new(waiting);
        let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let tallies = std::thread::scope(|scope| {
            let lanes: Vec<_> = std::iter::repeat_with(|| scope.spawn(|| run_all(next))).take(LANES).collect();
            lanes
                .into_iter()
                .map(|lane| lane.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect::<Result<Vec<_>>>()
        })?;
        tallies.into_iter().for_each(|tally| self.tally.add(tally));
        Ok(())
    }

    /// Reports the result. Does not return if a test failed.
    fn end(self) -> Result<()> {
        let Self { tally, unchecked, .. } = self;
        if let Some(reason) = unchecked {
            eprintln!("xtask: SKIPPED the check for security advisories: {reason}");
        }
        if tally.success() && tally.passed() == 0 {
            bail!("no test ran");
        }
        print!("{}", tally.failures());
        println!("{tally}");
        std::io::stdout().flush().context("write the result")?;
        if !tally.success() {
            // The line above is complete and must be the last one.
            std::process::exit(1);
        }
        Ok(())
    }
}

/// Runs the tests of one choice of targets after the other. The output of each choice comes in one
/// piece, at its end.
fn run_all<'a>(next: impl Fn() -> Option<Vec<&'a str>>) -> Result<Tally> {
    let mut sum = Tally::default();
    while let Some(chosen) = next() {
        println!("tests begin: {}", chosen.join(" "));
        let mut said = Vec::new();
        let tally = run_tests(&chosen, &[], &mut said);
        std::io::stdout().lock().write_all(&said).context("write to stdout")?;
        sum.add(tally?);
    }
    Ok(sum)
}

/// Runs the tests of these targets, counts them, and passes on their output at once. Both streams
/// keep their true order.
fn run_tests(targets: &[&str], filter: &[&str], output: &mut impl Write) -> Result<Tally> {
    let (lines, input) = std::io::pipe().context("open a pipe")?;
    let mut command = command::cargo(["test", "--release", "--no-fail-fast", "--config", RUNNER])?;
    command.args(targets).args(command::locked()).arg("--").args(filter).args(TIMES);
    command.stdin(Stdio::null()).stdout(input.try_clone().context("share a pipe")?).stderr(input);
    let mut child = command.spawn().context("start cargo test")?;
    // The command holds the writing ends. With them open, the reader below would never reach the
    // end.
    drop(command);
    let mut tally = Tally::default();
    for line in BufReader::new(lines).split(b'\n') {
        let line = line.context("read from cargo test")?;
        let line = String::from_utf8_lossy(&line);
        writeln!(output, "{line}").context("pass on what the tests say")?;
        tally.line(&line);
    }
    let status = child.wait().context("wait for cargo test")?;
    tally.end(status.success());
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(fast: bool, filter: Option<&str>) -> Vec<Part> {
        Scope { fast, filter }.parts()
    }

    #[test]
    fn a_full_run_leaves_no_step_out() {
        let all = parts(false, None);
        for part in [
            Part::Packages,
            Part::Engines,
            Part::Page,
            Part::Sources,
            Part::Formatting,
            Part::Language,
            Part::Unused,
            Part::Policy,
            Part::Clippy,
            Part::Documents,
            Part::PageChecks,
            Part::Build,
            Part::Tests,
        ] {
            assert_eq!(all.iter().filter(|other| **other == part).count(), 1, "{part:?}");
        }
    }

    #[test]
    fn a_fast_run_checks_and_fetches_no_engine() {
        let fast = parts(true, None);
        for part in [Part::Formatting, Part::Clippy, Part::Build, Part::Tests] {
            assert!(fast.contains(&part), "{part:?}");
        }
        for filter in [None, Some("name")] {
            let parts = parts(true, filter);
            for part in [Part::Engines, Part::Page, Part::PageChecks, Part::Policy] {
                assert!(!parts.contains(&part), "{parts:?}");
            }
        }
    }

    #[test]
    fn a_filter_leaves_the_checks_out() {
        for fast in [false, true] {
            let parts = parts(fast, Some("name"));
            assert!(parts.ends_with(&[Part::Build, Part::Tests]), "{parts:?}");
            assert!(!parts.contains(&Part::Formatting) && !parts.contains(&Part::Clippy), "{parts:?}");
        }
    }
}
