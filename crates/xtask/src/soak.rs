//! `cargo xtask soak`: build everything and become the fault campaign.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{command, engines, system, up};

/// Does not return on success: this process becomes the campaign, so that its exit code is this command's.
pub fn run(arguments: &[String]) -> Result<()> {
    system::install(system::FOR_TESTS)?;
    engines::fetch_all()?;
    eprintln!("xtask: build doseline, the engine and the campaign");
    // Over the whole workspace, as the tests are built: one resolution of features builds each dependency once.
    let binaries = ["--bin", "doseline", "--bin", "doseline-clickhouse", "--bin", "soak"];
    command::run(command::cargo(["build", "--release", "--workspace"])?.args(binaries))?;
    let binary = up::target()?.join("release/soak");
    let error = Command::new(&binary).args(arguments).exec();
    Err(error).with_context(|| format!("start {}", binary.display()))
}
