//! `cargo xtask up`: builds doseline and becomes it.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::compile::{Packages, Wanted};
use crate::steps::Steps;
use crate::{cache, command, engines, system, web};

const BUILD: [&str; 6] = ["build", "--release", "--package", "doseline", "--bin", "doseline"];

/// Does not return on success: this process becomes `doseline up`, so signals and the terminal
/// reach it directly.
pub fn run(arguments: &[String]) -> Result<()> {
    let mut steps = Steps::new(6);
    let named = names_broker(arguments) || std::env::var_os("DOSELINE_MOSQUITTO").is_some();
    let needs = if named { system::FOR_UP_WITHOUT_BROKER } else { system::FOR_UP };
    steps.run("system packages", |step| system::install(step, needs))?;
    let library = steps.run("ClickHouse", |step| {
        let lock = cache::lock(step)?;
        engines::fetch_chdb(step, &lock)
    })?;
    steps.run("page", web::build_if_possible)?;
    let wanted = Wanted::Package { package: "doseline", binary: "doseline" };
    let packages = steps.run("sources", |step| Packages::find(step, Some("doseline")))?;
    steps.run("build", |step| packages.crates(&wanted).compile(step, "build doseline", &BUILD, &[]))?;
    let binary = command::target()?.join("release/doseline");
    steps.run("start doseline", |step| {
        step.give_way();
        let error = Command::new(&binary).arg("up").args(arguments).env("DOSELINE_LIBCHDB", library).exec();
        Err(error).with_context(|| format!("start {}", binary.display()))
    })
}

/// Whether the arguments name the MQTT broker's program, so that no package has to bring one.
fn names_broker(arguments: &[String]) -> bool {
    arguments.iter().any(|argument| argument == "--mosquitto" || argument.starts_with("--mosquitto="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_broker_needs_no_package() {
        let named =
            |arguments: &[&str]| names_broker(&arguments.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert!(named(&["--simulate", "5", "--mosquitto", "/opt/mosquitto"]) && named(&["--mosquitto=/opt/mosquitto"]));
        assert!(!named(&["--simulate", "5"]));
    }
}
