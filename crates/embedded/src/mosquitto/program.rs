//! Finds the program of Mosquitto and checks its version.

use std::{
    env,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::Error;

/// The oldest supported version. 2.0 is the first version that sends MQTT 5 limits and accepts
/// listeners as they are configured here.
const VERSION_MIN: (u32, u32) = (2, 0);

/// How long the program may take to print its version.
const HELP_WITHIN: Duration = Duration::from_secs(10);
/// How much of its help is read, bytes. The version is at the start. A pipe holds as much.
const HELP_BYTES_MAX: u64 = 64 * 1024;

/// The remedy if [`find`] finds no program.
pub const REMEDY: &str = "install the package `mosquitto` (Debian, Ubuntu: apt install mosquitto; Fedora: dnf install mosquitto; \
                      Arch: pacman -S mosquitto; Alpine: apk add mosquitto) or name the program with --mosquitto FILE";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub path: PathBuf,
    /// The version that it prints, for example `2.0.11`.
    pub version: String,
}

/// Finds Mosquitto: the given program, or the first one on `PATH`, in `/usr/sbin` or in
/// `/usr/local/sbin`.
///
/// # Errors
/// There is no program, it cannot be started, or it is older than 2.0. The message names the
/// package.
pub fn find(named: Option<&Path>) -> Result<Program, Error> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => search(env::var_os("PATH").unwrap_or_default().as_os_str())
            .ok_or_else(|| Error::Program("mosquitto is not installed".to_owned()))?,
    };
    // The broker runs in a folder of its own, so a relative path would not work.
    let path = std::path::absolute(&path).unwrap_or(path);
    let text = help(&path).map_err(|error| Error::Program(format!("cannot start {}: {error}", path.display())))?;
    let version = version(&text)
        .ok_or_else(|| Error::Program(format!("{} does not say that it is mosquitto", path.display())))?;
    if numbers(version) < VERSION_MIN {
        let (major, minor) = VERSION_MIN;
        return Err(Error::Program(format!(
            "{} is mosquitto {version}, and at least {major}.{minor} is needed",
            path.display()
        )));
    }
    Ok(Program { path, version: version.to_owned() })
}

/// The program's help text. A program that prints nothing and does not end is killed.
fn help(program: &Path) -> io::Result<String> {
    let mut command = Command::new(program);
    let mut child = command.arg("-h").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let deadline = Instant::now() + HELP_WITHIN;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not end when asked for its version"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut said = Vec::new();
    // A child of the program may still hold the pipe, so this reads what is there.
    if let Some(stdout) = &mut child.stdout {
        stdout.take(HELP_BYTES_MAX).read_to_end(&mut said)?;
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// Searches the given path and the folders that Debian keeps out of a normal user's path.
fn search(path: &std::ffi::OsStr) -> Option<PathBuf> {
    let folders = env::split_paths(path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let is_program = |path: &PathBuf| path.metadata().is_ok_and(|file| file.is_file() && file.mode() & 0o111 != 0);
    folders.map(|folder| folder.join("mosquitto")).find(is_program)
}

/// Takes `2.0.11` from `mosquitto version 2.0.11`, the first line of the help.
fn version(help: &str) -> Option<&str> {
    help.lines().next()?.strip_prefix("mosquitto version ").map(str::trim)
}

fn numbers(version: &str) -> (u32, u32) {
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn said(script: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mosquitto");
        // A child process writes the file. If this process wrote it, a fork by another test could
        // inherit the open file, and the file could not be executed.
        let write = format!("printf '%s\\n' '#!/bin/sh' \"$1\" >'{0}' && chmod 755 '{0}'", path.display());
        assert!(Command::new("sh").args(["-c", &write, "sh", script]).status().unwrap().success());
        match find(Some(&path)) {
            Ok(program) => program.version,
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_is_too_old_or_something_else_is_refused_with_the_package() {
        assert_eq!(said("echo mosquitto version 2.0.11; exit 3"), "2.0.11");
        assert_eq!(said("echo mosquitto version 2.1.0-rc1"), "2.1.0-rc1");
        let old = said("echo 'mosquitto version 1.6.12 (build date 2020)'");
        assert!(old.contains("1.6.12") && old.contains("at least 2.0") && old.contains("apt install"), "{old}");
        let other = said("echo hello");
        assert!(other.contains("does not say that it is mosquitto"), "{other}");
        let absent = find(Some(Path::new("/nowhere/mosquitto"))).unwrap_err().to_string();
        assert!(absent.contains("/nowhere/mosquitto") && absent.contains("--mosquitto"), "{absent}");
    }

    #[test]
    fn the_path_is_searched_before_the_folders_of_daemons() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("mosquitto");
        fs::write(&program, "").unwrap();
        assert_ne!(search(dir.path().as_os_str()), Some(program.clone()), "nobody may execute it");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(search(dir.path().as_os_str()), Some(program));
    }
}
