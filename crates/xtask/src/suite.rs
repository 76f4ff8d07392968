//! `cargo xtask test`: every check and every test, one after the other.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::tally::Tally;
use crate::{cache, command, engines, system, tools, unused};

/// All steps in order; the first that fails ends the run, except that all tests run to their end.
///
/// A filter leaves the checks out: it is for the one test somebody works on.
pub fn run(filter: Option<&str>) -> Result<()> {
    let started = Instant::now();
    step("system packages", || system::install(system::FOR_TESTS).and_then(|()| system::install_rust_components()))?;
    step("engines", engines::fetch_all)?;
    let mut unchecked = None;
    if filter.is_none() {
        step("formatting", || cargo(&["fmt", "--all", "--check"]))?;
        step("unused dependencies", unused::check)?;
        unchecked = step("dependency policy", || {
            let cargo_deny = tools::fetch_cargo_deny(&cache::lock()?)?;
            tools::check_dependencies(&cargo_deny)
        })?;
        let clippy = ["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"];
        step("clippy", || cargo(&clippy))?;
        step("documents", || {
            let mut doc = command::cargo(["doc", "--release", "--workspace", "--no-deps", "--document-private-items"])?;
            command::run(doc.args(locked()).env("RUSTDOCFLAGS", "-D warnings"))
        })?;
    }
    // Binaries and tests in one go: the tests start the binaries, and one resolution of features builds both once.
    step("build", || cargo(&["build", "--release", "--workspace", "--lib", "--bins", "--tests"]))?;
    let tally = step("tests", || tests(filter))?;
    eprintln!("xtask: all steps took {:.0} s", started.elapsed().as_secs_f64());
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
        // The line above says it all, and has to be the last.
        std::process::exit(1);
    }
    Ok(())
}

fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    eprintln!("xtask: == {name}");
    let result = work().with_context(|| format!("step `{name}` failed"))?;
    eprintln!("xtask: == {name}: {:.1} s", started.elapsed().as_secs_f64());
    Ok(result)
}

fn cargo(arguments: &[&str]) -> Result<()> {
    let (cargo, rest) = match arguments.iter().position(|argument| *argument == "--") {
        Some(position) => arguments.split_at(position),
        None => (arguments, &[][..]),
    };
    let mut command = command::cargo(cargo)?;
    if cargo.first() != Some(&"fmt") {
        command.args(locked());
    }
    command::run(command.args(rest))
}

/// Where a machine judges, the lock file is binding; where a person works, cargo may bring it up to date.
fn locked() -> Option<&'static str> {
    std::env::var_os("CI").map(|_| "--locked")
}

/// Runs the tests and shows what they say as they say it, both of their streams in their true order.
fn tests(filter: Option<&str>) -> Result<Tally> {
    let (output, input) = std::io::pipe().context("open a pipe")?;
    let mut command = command::cargo(["test", "--release", "--workspace", "--no-fail-fast"])?;
    command.args(locked());
    command.args(filter.iter().flat_map(|name| ["--", name]));
    command.stdin(Stdio::null()).stdout(input.try_clone().context("share a pipe")?).stderr(input);
    let mut child = command.spawn().context("start cargo test")?;
    // The command holds the writing ends; with them open, the reader below would never see the end.
    drop(command);
    let mut tally = Tally::default();
    let mut stdout = std::io::stdout();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("read from cargo test")?;
        let line = String::from_utf8_lossy(&line);
        writeln!(stdout, "{line}").context("write to stdout")?;
        tally.line(&line);
    }
    let status = child.wait().context("wait for cargo test")?;
    tally.end(status.success());
    Ok(tally)
}
