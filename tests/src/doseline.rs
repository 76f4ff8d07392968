//! The doseline binary, as tests run it.

use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use crate::process::read_lossy;
use crate::{Process, Refused, Scratch, Signal, locate, poll};

/// The binary must not see settings of the person who runs the tests.
const SETTINGS_PREFIX: &str = "DOSELINE_";

/// A running `doseline SUBCOMMAND`; its working directory is in a temporary folder.
pub struct Doseline {
    process: Process,
    scratch: Scratch,
}

/// Result of a `doseline SUBCOMMAND` that ended by itself.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; `None` if a signal killed it.
    pub code: Option<i32>,
    /// Text on standard output.
    pub stdout: String,
    /// Text on standard error.
    pub stderr: String,
}

/// The addresses in the ready line of `doseline up`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// `HOST:PORT` of the MQTT broker.
    pub mqtt: String,
    /// `HOST:PORT` of the Kafka broker.
    pub kafka: String,
    /// `http://HOST:PORT` of ClickHouse.
    pub clickhouse: String,
    /// `http://HOST:PORT` of the dashboard.
    pub dashboard: String,
}

impl Doseline {
    /// Starts the binary with these arguments, the sub-command first.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    /// As [`Self::start`], with variables such as `("DOSELINE__LOAD__BATCH_ROWS_MAX", "100")` in
    /// its environment.
    pub fn start_with(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let binary = locate::binary("doseline", "doseline");
        Self::launch(Command::new(binary), arguments, environment)
    }

    /// As [`Self::start`], under a program such as `env` or `unshare` that becomes the binary at
    /// its end.
    pub fn start_under(program: &str, its_arguments: &[&str], arguments: &[&str]) -> Self {
        let mut wrapper = Command::new(program);
        wrapper.args(its_arguments).arg(locate::binary("doseline", "doseline"));
        Self::launch(wrapper, arguments, &[])
    }

    fn launch(mut command: Command, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let name = format!("doseline {}", arguments.first().copied().unwrap_or_default());
        let scratch = Scratch::new(&name.replace(' ', "-"));
        isolate(&mut command, environment);
        command.args(arguments).current_dir(scratch.path());
        let process = Process::start(&name, command, &scratch.join("stderr"), Some(&scratch.join("stdout")));
        Self { process, scratch }
    }

    /// Runs the binary to its end and returns the result.
    ///
    /// # Panics
    /// If it still runs after `within`.
    #[track_caller]
    pub fn run(arguments: &[&str], environment: &[(&str, &str)], within: Duration) -> Finished {
        let mut doseline = Self::start_with(arguments, environment);
        let status = doseline.process.wait(within);
        Finished { code: status.code(), stdout: doseline.stdout(), stderr: doseline.stderr() }
    }

    /// Waits for a line on standard output or error that contains `text`, and returns it. An
    /// earlier line counts too.
    #[track_caller]
    pub fn wait_for_line(&mut self, text: &str, within: Duration) -> String {
        let (process, scratch) = (&mut self.process, &self.scratch);
        poll(within, &format!("a line with `{text}`"), || {
            // Checked before reading, so that the last output of an ended process is read.
            let alive = process.alive();
            let streams = [read_lossy(&scratch.join("stdout")), read_lossy(&scratch.join("stderr"))];
            let whole =
                streams.iter().flat_map(|stream| stream.split_inclusive('\n')).filter(|line| line.ends_with('\n'));
            let mut lines = whole.map(str::trim_end);
            if let Some(line) = lines.find(|line| line.contains(text)) {
                return Ok(line.to_owned());
            }
            alive.unwrap_or_else(|ended| panic!("no line with `{text}`: {ended}"));
            Err(streams.iter().filter_map(|stream| stream.lines().last()).collect::<Vec<_>>().join(" / "))
        })
    }

    /// Waits for the ready line of `doseline up`.
    #[track_caller]
    pub fn wait_until_ready(&mut self, within: Duration) -> Ready {
        let line = self.wait_for_line("ready mqtt=", within);
        Ready::parse(&line).unwrap_or_else(|| panic!("not a ready line: {line}"))
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Stops it with SIGTERM. Returns how it ended and how long that took.
    ///
    /// # Panics
    /// If it still runs after `within`.
    #[track_caller]
    pub fn stop(&mut self, within: Duration) -> (ExitStatus, Duration) {
        let started = Instant::now();
        let status = self.process.stop(within);
        (status, started.elapsed())
    }

    /// Halts it, as a long pause would; `resume` ends that.
    pub fn pause(&mut self) {
        self.process.signal(Signal::SIGSTOP);
    }

    /// Ends a `pause`.
    pub fn resume(&mut self) {
        self.process.signal(Signal::SIGCONT);
    }

    /// Its process, for signals.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its output on standard output so far.
    pub fn stdout(&self) -> String {
        read_lossy(&self.scratch.join("stdout"))
    }

    /// Its output on standard error so far.
    pub fn stderr(&self) -> String {
        read_lossy(&self.scratch.join("stderr"))
    }

    /// Its working directory.
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }
}

impl Ready {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("ready ")?.split(' ');
        let mut value = |name: &str| Some(words.next()?.strip_prefix(name)?.strip_prefix('=')?.to_owned());
        let ready = Self {
            mqtt: value("mqtt")?,
            kafka: value("kafka")?,
            clickhouse: value("clickhouse")?,
            dashboard: value("dashboard")?,
        };
        words.next().is_none().then_some(ready)
    }

    /// Executes a statement on its ClickHouse and returns the answer as text.
    #[track_caller]
    pub fn query(&self, sql: &str) -> String {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        crate::clickhouse::query(&agent, &self.clickhouse, None, sql)
            .unwrap_or_else(|refused| panic!("{refused}\nin {sql}"))
    }

    /// As [`Self::query`], as the owner, whose password is in the data directory.
    #[track_caller]
    pub fn change(&self, data_dir: &Path, sql: &str) {
        self.try_change(data_dir, sql).unwrap_or_else(|refused| panic!("{refused}\nin {sql}"));
    }

    /// As [`Self::change`], for statements that may fail.
    pub fn try_change(&self, data_dir: &Path, sql: &str) -> Result<(), Refused> {
        let running = std::fs::read(data_dir.join("running.json")).expect("it runs there");
        let running: serde_json::Value = serde_json::from_slice(&running).expect("JSON");
        let password = running["config"]["clickhouse"]["password"].as_str().expect("a password");
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        crate::clickhouse::query(&agent, &self.clickhouse, Some(password), sql).map(drop)
    }
}

fn isolate(command: &mut Command, environment: &[(&str, &str)]) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with(SETTINGS_PREFIX) {
            command.env_remove(&name);
        }
    }
    command.env("DOSELINE_LIBCHDB", locate::libchdb()).envs(environment.iter().copied());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_is_taken_apart() {
        let line =
            "ready mqtt=127.0.0.1:1 kafka=127.0.0.1:2 clickhouse=http://127.0.0.1:3 dashboard=http://127.0.0.1:4";
        let ready = Ready::parse(line).expect("a ready line");
        assert_eq!((ready.mqtt.as_str(), ready.dashboard.as_str()), ("127.0.0.1:1", "http://127.0.0.1:4"));
        assert_eq!(Ready::parse(&line.replace("kafka", "kafak")), None);
        assert_eq!(Ready::parse(&format!("{line} more=1")), None);
    }
}
