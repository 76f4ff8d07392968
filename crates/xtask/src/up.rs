//! `cargo xtask up`: build doseline and become it.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{cache, command, engines, system};

/// Does not return on success: this process becomes `doseline up`, so that signals and the terminal are its own.
pub fn run(arguments: &[String]) -> Result<()> {
    system::install(system::FOR_UP)?;
    let lock = cache::lock()?;
    let library = engines::fetch_chdb(&lock)?;
    drop(lock);
    eprintln!("xtask: build doseline");
    command::run(&mut command::cargo(["build", "--release", "--package", "doseline", "--bin", "doseline"])?)?;
    let binary = target()?.join("release/doseline");
    let error = Command::new(&binary).arg("up").args(arguments).env("DOSELINE_LIBCHDB", library).exec();
    Err(error).with_context(|| format!("start {}", binary.display()))
}

/// Where cargo builds to, whatever the environment and its configuration say.
pub fn target() -> Result<PathBuf> {
    let metadata = command::read(&mut command::cargo(["metadata", "--no-deps", "--format-version=1"])?)?;
    let metadata: Value = serde_json::from_str(&metadata).context("parse cargo metadata")?;
    let folder = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(PathBuf::from(folder))
}
