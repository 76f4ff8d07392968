//! Tools for the checks that a Rust toolchain does not contain.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cache::{self, Lock};
use crate::command;
use crate::steps::Step;

const CARGO_DENY_VERSION: &str = "0.20.2";
const ADVISORIES_WITHIN: Duration = Duration::from_secs(60);

/// Builds cargo-deny from crates.io with the dependencies that its author locked. Returns the path
/// of the program.
pub fn fetch_cargo_deny(step: &mut Step, lock: &Lock) -> Result<PathBuf> {
    let folder = cache::place(lock, &format!("cargo-deny-{CARGO_DENY_VERSION}"), |staging| {
        let build = staging.join("build");
        let what = format!("cargo-deny {CARGO_DENY_VERSION} from crates.io and build it (1-2 min)");
        cache::fetching(step, &what, None, || {
            command::read(
                // Unoptimised: it runs for two seconds, and optimising it takes minutes.
                command::cargo(["install", "cargo-deny", "--version", CARGO_DENY_VERSION, "--locked", "--no-track"])?
                    .args(["--profile", "dev", "--config", "profile.dev.debug=false", "--root"])
                    .arg(staging)
                    .arg("--target-dir")
                    .arg(&build),
            )
        })?;
        cache::remove(&build)
    })?;
    Ok(folder.join("bin/cargo-deny"))
}

/// Checks licences, bans and sources. If advisories could not be checked, returns the reason.
pub fn check_dependencies(cargo_deny: &Path) -> Result<Option<String>> {
    let deny = |arguments: &[&str]| -> Result<std::process::Command> {
        let mut command = std::process::Command::new(cargo_deny);
        command.args(arguments).current_dir(command::checkout()?);
        Ok(command)
    };
    command::run(&mut deny(&["--log-level", "error", "check", "bans", "licenses", "sources"])?)
        .context("the dependencies break the policy in .cargo/deny.toml")?;
    if let Err(reason) = fetch_advisories(deny(&["--log-level", "error", "fetch", "db"])?) {
        return Ok(Some(format!("{reason:#}")));
    }
    command::run(&mut deny(&["check", "--disable-fetch", "advisories"])?).context(
        "a dependency has a security advisory: update it, or waive it with reason and date in .cargo/deny.toml",
    )?;
    Ok(None)
}

/// The advisory database is on a git host that a build machine may not reach, or that may be slow
/// to answer.
fn fetch_advisories(mut command: std::process::Command) -> Result<()> {
    let said = std::env::temp_dir().join(format!("doseline-advisories-{}.log", std::process::id()));
    let log = fs::File::create(&said).with_context(|| format!("create {}", said.display()))?;
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().context("start cargo-deny")?;
    let deadline = Instant::now() + ADVISORIES_WITHIN;
    let status = loop {
        if let Some(status) = child.try_wait().context("wait for cargo-deny")? {
            break Some(status);
        }
        if Instant::now() > deadline {
            child.kill().context("end cargo-deny")?;
            child.wait().context("wait for cargo-deny")?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let text = fs::read_to_string(&said).unwrap_or_default();
    let _ = fs::remove_file(&said);
    match status {
        Some(status) if status.success() => Ok(()),
        Some(_) => {
            let reason = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it gave no reason");
            Err(anyhow::anyhow!("the advisory database cannot be fetched: {}", reason.trim()))
        }
        None => Err(anyhow::anyhow!("the advisory database did not arrive within {} s", ADVISORIES_WITHIN.as_secs())),
    }
}
