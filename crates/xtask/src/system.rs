//! System packages. Missing ones are installed through apt where that is allowed, otherwise named.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command;
use crate::progress::Amount;
use crate::steps::Step;

/// A thing that the system must provide, how to find it, and its Debian package.
pub struct Need {
    sign: Sign,
    package: &'static str,
}

enum Sign {
    /// At least one of these programs.
    Program(&'static [&'static str]),
    /// A library with headers, by its pkg-config name.
    Library(&'static str),
    /// Modules of the system's Python.
    PythonModules(&'static str),
}

const fn program(names: &'static [&'static str], package: &'static str) -> Need {
    Need { sign: Sign::Program(names), package }
}

// pkg-config comes before the libraries, because it finds them.
macro_rules! building {
    ($($more:expr),* $(,)?) => {
        &[
            program(&["cc"], "gcc"),
            program(&["c++"], "g++"),
            program(&["make"], "make"),
            program(&["pkg-config"], "pkg-config"),
            Need { sign: Sign::Library("openssl"), package: "libssl-dev" },
            Need { sign: Sign::Library("zlib"), package: "zlib1g-dev" },
            $($more),*
        ]
    };
}

macro_rules! running {
    ($($more:expr),* $(,)?) => {
        building![
            program(&["tar"], "tar"),
            program(&["gzip"], "gzip"),
            program(&["node"], "nodejs"),
            program(&["npm"], "npm"),
            $($more),*
        ]
    };
}

/// Packages for building, which suffice for the tests that start no engine.
pub const FOR_BUILDING: &[Need] = building![];

/// Packages for the web page.
pub const FOR_WEB: &[Need] = &[program(&["node"], "nodejs"), program(&["npm"], "npm")];

/// Further packages for `doseline up`: its MQTT broker, and tools that fetch and unpack its
/// ClickHouse.
pub const FOR_UP: &[Need] = running![program(&["mosquitto"], "mosquitto")];

/// The same if the program of the broker is named.
pub const FOR_UP_WITHOUT_BROKER: &[Need] = running![];

/// Further packages for the tests: real engines, clients and a browser.
pub const FOR_TESTS: &[Need] = running![
    program(&["mosquitto"], "mosquitto"),
    program(&["git"], "git"),
    program(&["mosquitto_pub"], "mosquitto-clients"),
    program(&["kcat", "kafkacat"], "kcat"),
    program(&["strace"], "strace"),
    program(&["valgrind"], "valgrind"),
    program(&["java"], "default-jre-headless"),
    program(&["mvn"], "maven"),
    program(&["python3"], "python3"),
    Need { sign: Sign::PythonModules("venv, ensurepip"), package: "python3-venv" },
    program(&["chromium", "chromium-browser", "google-chrome"], "chromium"),
];

/// Installs missing packages, or prints the command that installs them.
pub fn install(step: &mut Step, needs: &[Need]) -> Result<()> {
    let packages = missing(needs);
    if packages.is_empty() {
        return Ok(());
    }
    let names = packages.join(" ");
    if !Path::new("/etc/debian_version").exists() || !command::exists("apt-get") {
        bail!("missing on this system, named by Debian package: {names}\ninstall their equivalents and run this again");
    }
    if !is_root() {
        bail!("missing system packages; install them and run this again:\n  sudo apt-get install -y {names}");
    }
    step.watch(&format!("install with apt: {names}"), Amount::default, || {
        // A slightly old package list still names most packages, so the installation decides.
        let _ = command::read(&mut apt(&["update", "-qq"]));
        command::read(apt(&["install", "-y", "-qq", "--no-install-recommends"]).args(&packages)).with_context(|| {
            format!("install system packages; try by hand: apt-get update && apt-get install -y {names}")
        })
    })?;
    let still = missing(needs);
    if !still.is_empty() {
        bail!("installed, but still not found: {}", still.join(" "));
    }
    Ok(())
}

/// Adds rustfmt and clippy if the toolchain lacks them.
pub fn install_rust_components(step: &mut Step) -> Result<()> {
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if command::read(&mut command::cargo([subcommand, "--version"])?).is_err() {
            step.give_way();
            command::run(Command::new("rustup").args(["component", "add", component]))
                .with_context(|| format!("add {component} to the Rust toolchain"))?;
        }
    }
    Ok(())
}

fn missing(needs: &[Need]) -> Vec<&'static str> {
    needs.iter().filter(|need| !need.sign.shows()).map(|need| need.package).collect()
}

impl Sign {
    fn shows(&self) -> bool {
        match self {
            Self::Program(names) => names.iter().any(|name| command::exists(name)),
            Self::Library(name) => succeeds(Command::new("pkg-config").args(["--exists", name])),
            Self::PythonModules(names) => succeeds(Command::new("python3").args(["-c", &format!("import {names}")])),
        }
    }
}

fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|code| code.success())
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages(needs: &[Need]) -> Vec<&str> {
        needs.iter().map(|need| need.package).collect()
    }

    #[test]
    fn up_needs_its_broker_and_tests_without_engines_need_no_engine() {
        assert!(packages(FOR_UP).contains(&"mosquitto"));
        assert!(!packages(FOR_UP_WITHOUT_BROKER).contains(&"mosquitto"));
        assert!(packages(FOR_TESTS).contains(&"mosquitto"));
        for engine in ["mosquitto", "npm", "default-jre-headless", "valgrind", "chromium"] {
            assert!(!packages(FOR_BUILDING).contains(&engine), "{engine}");
        }
    }

    #[test]
    fn whatever_is_needed_to_build_is_needed_by_all() {
        for all in [FOR_UP, FOR_TESTS] {
            assert!(all.len() > FOR_BUILDING.len());
            assert_eq!(packages(&all[..FOR_BUILDING.len()]), packages(FOR_BUILDING));
        }
    }
}
