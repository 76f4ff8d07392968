//! ClickHouse as a process of its own, used through its HTTP interface.

use std::fmt::{Display, Formatter};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::read_lossy;
use crate::{Disk, Process, Scratch, Signal, free_port, locate, poll};

/// Password of the user `doseline`, who may write.
pub const PASSWORD: &str = "owner";
const PROGRAM: &str = "doseline-clickhouse";
const READY_WITHIN: Duration = Duration::from_secs(120);
const STOPPED_WITHIN: Duration = Duration::from_secs(60);
const ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// ClickHouse is at rest after this time without a merge.
const REST: Duration = Duration::from_secs(3);
const AT_REST_WITHIN: Duration = Duration::from_secs(600);

/// A ClickHouse on 127.0.0.1, with its data in a temporary folder or on its own disk.
pub struct ClickHouse {
    port: u16,
    agent: ureq::Agent,
    password: String,
    process: Option<Process>,
    disk: Option<Disk>,
    // Deleted after the process has ended.
    scratch: Scratch,
}

/// A statement that ClickHouse did not execute, or whose answer did not arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// ClickHouse's exception code, if it gave one.
    pub code: Option<u32>,
    /// The error text.
    pub message: String,
}

impl Display for Refused {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl ClickHouse {
    /// Starts an engine with empty data and waits until it answers.
    pub fn start() -> Self {
        Self::start_on(None)
    }

    /// As [`Self::start`], with the data on a disk.
    pub fn start_on(disk: Option<Disk>) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(ANSWER_WITHIN))
            .build()
            .new_agent();
        let scratch = Scratch::new("clickhouse");
        let password = PASSWORD.to_owned();
        let mut clickhouse = Self { port: free_port(), agent, password, process: None, disk, scratch };
        clickhouse.start_again();
        clickhouse
    }

    /// Starts it on the same port with the same data, after `kill` or `stop`.
    pub fn start_again(&mut self) {
        let binary = locate::binary(PROGRAM, "embedded");
        let command = match &self.disk {
            Some(disk) => {
                let mut command = disk.enter();
                command.arg(binary);
                command
            }
            None => Command::new(binary),
        };
        let command = self.with_arguments(command);
        self.start_command(command);
    }

    /// As [`Self::start_again`], under another program such as `strace`, to whose arguments the
    /// engine's command is appended.
    pub fn start_again_under(&mut self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(program);
        command.args(arguments).arg(locate::binary(PROGRAM, "embedded"));
        let command = self.with_arguments(command);
        self.start_command(command);
    }

    fn with_arguments(&self, mut command: Command) -> Command {
        command.arg("--data-dir").arg(self.data_dir());
        command.args(["--listen", &format!("127.0.0.1:{}", self.port)]);
        // Tests put proxies in front of it.
        // Not as an argument: everybody may read those.
        command.env("DOSELINE_CLICKHOUSE_PASSWORD", &self.password).args(["--name", "127.0.0.1"]);
        command.arg("--library").arg(locate::libchdb());
        command
    }

    fn start_command(&mut self, command: Command) {
        // ClickHouse admits one process to a data folder, so the last one must have ended.
        self.process = None;
        let (log, output) = (self.scratch.join("clickhouse.log"), self.scratch.join("clickhouse.out"));
        // The ready line of an earlier start must not count for this one.
        let _ = std::fs::remove_file(&output);
        let mut process = Process::start("clickhouse", command, &log, Some(&output));
        poll(READY_WITHIN, "clickhouse to be ready", || {
            process.alive().unwrap_or_else(|ended| panic!("{ended}"));
            let said = read_lossy(&output);
            if said.lines().any(|line| line.starts_with("ready ")) { Ok(()) } else { Err(format!("it said `{said}`")) }
        });
        self.process = Some(process);
    }

    /// Starts it again with another password.
    pub fn start_with_password(&mut self, password: &str) {
        self.stop();
        password.clone_into(&mut self.password);
        self.start_again();
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        self.process().kill();
    }

    /// Stops it with SIGTERM, and returns how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        self.process().stop(STOPPED_WITHIN)
    }

    /// Halts it, as a long pause would; `resume` ends that.
    pub fn pause(&mut self) {
        self.process().signal(Signal::SIGSTOP);
    }

    /// Ends a `pause`.
    pub fn resume(&mut self) {
        self.process().signal(Signal::SIGCONT);
    }

    /// Its process, for signals.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it was started")
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How the roles reach it.
    pub fn warehouse_options(&self) -> warehouse::Options {
        let password = service::secret::Secret::new(self.password.as_str());
        warehouse::Options { url: self.url(), user: "doseline".to_owned(), password, ..warehouse::Options::default() }
    }

    /// TCP port of its HTTP interface.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of its data, in its own mount namespace.
    pub fn data_dir(&self) -> PathBuf {
        self.disk.as_ref().map_or_else(|| self.scratch.join("data"), |disk| disk.path().join("data"))
    }

    /// The disk of its data.
    ///
    /// # Panics
    /// If it was started without one.
    pub fn disk(&self) -> &Disk {
        self.disk.as_ref().expect("it was started on a disk")
    }

    /// Executes a statement, and returns the answer as text without its last line break:
    /// TabSeparated, unless the statement has a FORMAT.
    #[track_caller]
    pub fn query(&self, sql: &str) -> String {
        self.try_query(sql).unwrap_or_else(|refused| panic!("{refused}\nin {sql}"))
    }

    /// As [`Self::query`], for statements that may fail.
    pub fn try_query(&self, sql: &str) -> Result<String, Refused> {
        query(&self.agent, &self.url(), Some(&self.password), sql)
    }

    /// The rows of a SELECT without FORMAT, each as an object by column; 64-bit integers are
    /// numbers.
    #[track_caller]
    pub fn rows(&self, sql: &str) -> Vec<Value> {
        let text =
            self.query(&format!("{sql}\nFORMAT JSONEachRow SETTINGS output_format_json_quote_64bit_integers = 0"));
        text.lines().map(|line| serde_json::from_str(line).expect("ClickHouse writes valid JSON")).collect()
    }

    /// Waits until no merge has run for a while.
    pub fn rest(&self) {
        let mut quiet_since = Instant::now();
        poll(AT_REST_WITHIN, "clickhouse to be at rest", || {
            let merges = self.number("SELECT count() FROM system.merges");
            if merges > 0 {
                quiet_since = Instant::now();
            }
            if quiet_since.elapsed() >= REST { Ok(()) } else { Err(format!("{merges} merges")) }
        });
    }

    /// The single unsigned number that a SELECT returns.
    #[track_caller]
    pub fn number(&self, sql: &str) -> u64 {
        let text = self.query(sql);
        text.parse().unwrap_or_else(|error| panic!("{error}: `{text}` from {sql}"))
    }
}

/// Executes a statement on the ClickHouse at `http://HOST:PORT`; with a password as its owner.
pub(crate) fn query(agent: &ureq::Agent, url: &str, password: Option<&str>, sql: &str) -> Result<String, Refused> {
    let lost = |error: ureq::Error| Refused { code: None, message: error.to_string() };
    let mut request = agent.post(url);
    if let Some(password) = password {
        request = request.header("X-ClickHouse-User", "doseline").header("X-ClickHouse-Key", password);
    }
    let mut response = request.send(sql).map_err(lost)?;
    let code = response.headers().get("x-clickhouse-exception-code").and_then(|code| code.to_str().ok()?.parse().ok());
    let success = response.status().is_success() && code.is_none();
    // Answers in tests may exceed the client's default of 10 MB.
    let mut text = response.body_mut().with_config().limit(1 << 30).read_to_string().map_err(lost)?;
    text.truncate(text.trim_end_matches('\n').len());
    if success { Ok(text) } else { Err(Refused { code, message: text }) }
}
