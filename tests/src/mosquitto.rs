//! Eclipse Mosquitto as a process.

use std::fs;
use std::net::TcpStream;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use crate::{Process, Scratch, free_port, poll};

const READY_WITHIN: Duration = Duration::from_secs(60);
const STOPPED_WITHIN: Duration = Duration::from_secs(60);

/// A Mosquitto on 127.0.0.1 without limits on queues and packets. It keeps its sessions on disk if
/// it is stopped, not if it is killed.
pub struct Mosquitto {
    port: u16,
    process: Option<Process>,
    // Deleted after the process has ended.
    scratch: Scratch,
}

impl Mosquitto {
    /// Starts a broker and waits until it accepts connections.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// As [`Self::start`], with lines added to its configuration. The last of two settings of one
    /// name counts.
    pub fn start_with(lines: &[&str]) -> Self {
        let scratch = Scratch::new("mosquitto");
        let port = free_port();
        let configuration = format!(
            "# Started by root it would become another user, who may not read this folder.\n\
             user root\n\
             listener {port} 127.0.0.1\n\
             allow_anonymous true\n\
             max_inflight_messages 0\n\
             max_queued_messages 0\n\
             max_queued_bytes 0\n\
             set_tcp_nodelay true\n\
             persistence true\n\
             persistence_location {}/\n\
             log_dest stderr\n\
             log_type error\nlog_type warning\nlog_type notice\nlog_type information\n\
             {}\n",
            scratch.path().display(),
            lines.join("\n")
        );
        fs::write(scratch.join("mosquitto.conf"), configuration).expect("write mosquitto.conf");
        let mut mosquitto = Self { port, process: None, scratch };
        mosquitto.start_again();
        mosquitto
    }

    /// Starts it on the same port with the same data, after `kill` or `stop`.
    pub fn start_again(&mut self) {
        self.process = None;
        let mut command = Command::new(program());
        command.arg("-c").arg(self.scratch.join("mosquitto.conf"));
        let mut process = Process::start("mosquitto", command, &self.scratch.join("mosquitto.log"), None);
        poll(READY_WITHIN, "mosquitto to accept connections", || {
            process.alive().unwrap_or_else(|ended| panic!("{ended}"));
            TcpStream::connect(("127.0.0.1", self.port))
        });
        self.process = Some(process);
    }

    /// Kills it with SIGKILL; everything in its memory is lost.
    pub fn kill(&mut self) {
        self.process().kill();
    }

    /// Stops it with SIGTERM: it writes its sessions to disk and ends.
    pub fn stop(&mut self) -> ExitStatus {
        self.process().stop(STOPPED_WITHIN)
    }

    /// TCP port of its listener.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its process, for signals.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it was started")
    }
}

/// Debian keeps it out of a normal user's path.
pub(crate) fn program() -> &'static str {
    let daemon = "/usr/sbin/mosquitto";
    if std::path::Path::new(daemon).exists() { daemon } else { "mosquitto" }
}
