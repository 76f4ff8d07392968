//! `cargo xtask soak` and `cargo xtask bench`: builds everything, and runs a program of the test
//! harness.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::compile::{Packages, Wanted};
use crate::steps::Steps;
use crate::{command, engines, system, web};

/// Does not return on success: this process becomes the campaign, so that both have one exit code.
pub fn soak(arguments: &[String]) -> Result<()> {
    let binary = build("soak")?;
    let error = Command::new(&binary).args(arguments).exec();
    Err(error).with_context(|| format!("start {}", binary.display()))
}

/// The benchmarks of the whole system, and the micro-benchmarks if no scenario is selected. If one
/// fails, ends this process with its exit code.
pub fn bench(arguments: &[String]) -> Result<()> {
    let binary = build("bench")?;
    let mut system = Command::new(&binary);
    run(system.args(arguments).stdin(Stdio::null()))?;
    let asks_for_part =
        |argument: &String| ["--only", "--list", "--help", "-h"].iter().any(|part| argument.starts_with(part));
    if !arguments.iter().any(asks_for_part) {
        eprintln!("xtask: micro-benchmarks");
        run(&mut command::cargo(["bench", "--workspace", "--bench", "micro"])?)?;
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {}", command.get_program().display()))?;
    if !status.success() {
        std::process::exit(status.code().unwrap_or(1));
    }
    Ok(())
}

fn build(program: &str) -> Result<PathBuf> {
    let what = format!("build doseline, the engine and `{program}`");
    // Selects the whole workspace with a test, as the test build does: one resolution of features
    // builds each dependency once.
    let wanted = Wanted::Named(&["doseline", "doseline-clickhouse", program, "harness"]);
    let binaries = ["--bin", "doseline", "--bin", "doseline-clickhouse", "--bin", program, "--test", "harness"];
    let arguments = [["build", "--release", "--workspace"].as_slice(), &binaries].concat();
    let mut steps = Steps::new(5);
    steps.run("system packages", |step| system::install(step, system::FOR_TESTS))?;
    steps.run("engines", engines::fetch_all)?;
    steps.run("page", web::build_if_possible)?;
    let packages = steps.run("sources", |step| Packages::find(step, None))?;
    steps.run("build", |step| packages.crates(&wanted).compile(step, &what, &arguments, &[]))?;
    Ok(command::target()?.join("release").join(program))
}
