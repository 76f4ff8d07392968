//! Python scripts with independent clients of the interfaces.

use std::process::{Command, Stdio};

use crate::{Process, Scratch, locate};

/// Scripts in `tests/python`, run by the interpreter that has their requirements.
pub struct Python;

impl Python {
    /// A command that runs a script; its working directory is `tests/python`.
    pub fn command(script: &str, arguments: &[&str]) -> Command {
        let folder = locate::checkout("tests/python");
        let mut command = Command::new(locate::engine("python").join("bin/python"));
        // Compiled scripts would be written into the checkout.
        command.arg("-B").arg(folder.join(script)).args(arguments).current_dir(folder);
        command.env("PYTHONUNBUFFERED", "1").stdin(Stdio::null());
        command
    }

    /// Runs a script to its end, and returns its output.
    ///
    /// # Panics
    /// If it fails, with its traceback.
    #[track_caller]
    pub fn run(script: &str, arguments: &[&str]) -> String {
        let output = Self::command(script, arguments).output().unwrap_or_else(|error| panic!("run {script}: {error}"));
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script} ended with {}\n{stdout}{stderr}", output.status);
        stdout
    }

    /// Starts a script whose output goes to `log` in the folder.
    pub fn start(script: &str, arguments: &[&str], scratch: &Scratch) -> Process {
        Process::start(script, Self::command(script, arguments), &scratch.join("log"), None)
    }
}
