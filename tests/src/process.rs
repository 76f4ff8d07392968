//! Processes that die with the test.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Lines of a log shown when a test fails.
const LOG_TAIL_LINES: usize = 60;

/// A running process in its own process group. Dropping it kills the group; in a failing test it
/// first prints the end of its log.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts a command. Its standard error is appended to the file `log`, and so is its standard
    /// output, unless `output` names another file.
    pub fn start(name: &str, mut command: Command, log: &Path, output: Option<&Path>) -> Self {
        let open = |path: &Path| {
            File::options()
                .create(true)
                .append(true)
                .open(path)
                .unwrap_or_else(|e| panic!("open {}: {e}", path.display()))
        };
        let stderr = open(log);
        let stdout = output.map_or_else(|| stderr.try_clone().expect("share a log file"), open);
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).process_group(0);
        let child = spawn(command).unwrap_or_else(|error| panic!("start {name}: {error}"));
        Self { name: name.to_owned(), child, log: log.to_owned(), status: None }
    }

    /// Its process id, which is also the id of its group.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the process group, if it still runs.
    pub fn signal(&mut self, signal: Signal) {
        if self.exit_status().is_none() {
            // It may have ended meanwhile, which is fine.
            let _ = killpg(self.group(), signal);
        }
    }

    /// Kills the group with SIGKILL, and returns when it is gone.
    pub fn kill(&mut self) {
        let _ = killpg(self.group(), Signal::SIGKILL);
        if self.status.is_none() {
            self.status = Some(self.child.wait().unwrap_or_else(|error| panic!("wait for {}: {error}", self.name)));
        }
    }

    /// Stops it with SIGTERM, and returns how it ended.
    ///
    /// # Panics
    /// If it still runs after `within`.
    #[track_caller]
    pub fn stop(&mut self, within: Duration) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait(within)
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// If it still runs after `within`.
    #[track_caller]
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.exit_status() {
                return status;
            }
            assert!(Instant::now() < deadline, "{} runs on after {:.1} s", self.name, within.as_secs_f64());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// How it ended, if it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().unwrap_or_else(|error| panic!("wait for {}: {error}", self.name));
        }
        self.status
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        read_lossy(&self.log)
    }

    /// `Ok` while it runs; otherwise how it ended and the end of its log, for a message.
    pub fn alive(&mut self) -> Result<(), String> {
        match self.exit_status() {
            None => Ok(()),
            Some(status) => Err(format!("{} ended with {status}; its log:\n{}", self.name, tail(&self.log()))),
        }
    }

    fn group(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id fits"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- end of the log of {} ----\n{}", self.name, tail(&self.log()));
        }
        let _ = killpg(self.group(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// The text of a file, or nothing if it cannot be read.
pub(crate) fn read_lossy(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}

/// Starts a process that the kernel kills when this one is gone, however that happens.
///
/// The kernel watches the *thread* that started it, and the threads of tests end with each test. So
/// one permanent thread starts all processes.
fn spawn(mut command: Command) -> std::io::Result<Child> {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();

    // SAFETY: between fork and exec this makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(|| set_pdeathsig(Signal::SIGKILL).map_err(std::io::Error::from));
    }
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, queue) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in queue {
                // The caller may have given up.
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, result) = mpsc::channel();
    spawner.send((command, answer)).expect("the spawning thread never ends");
    result.recv().expect("the spawning thread answers")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;
    use crate::{Scratch, poll};

    fn shell(scratch: &Scratch, script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start("sh", command, &scratch.join("log"), None)
    }

    #[test]
    fn a_process_outlives_the_thread_that_started_it() {
        let scratch = Scratch::new("thread");
        let folder = scratch.path().to_owned();
        let mut process = std::thread::spawn(move || {
            let mut command = Command::new("sh");
            command.args(["-c", "sleep 60"]);
            Process::start("sh", command, &folder.join("log"), None)
        })
        .join()
        .expect("start a process in a thread");
        assert_eq!(process.alive(), Ok(()));
        process.kill();
        assert_eq!(process.exit_status().and_then(|status| status.signal()), Some(9));
    }

    #[test]
    fn the_whole_group_is_killed() {
        let scratch = Scratch::new("group");
        let process = shell(&scratch, "sleep 60 & echo $!; wait");
        let grandchild = poll(Duration::from_secs(60), "the grandchild's id", || {
            process.log().trim().parse::<u32>().map_err(|error| error.to_string())
        });
        drop(process);
        let path = format!("/proc/{grandchild}/stat");
        poll(Duration::from_secs(60), "the grandchild's end", || match fs::read_to_string(&path) {
            // The process may have no parent left that reads its exit status.
            Ok(stat) if !stat.contains(") Z ") => Err(stat),
            _ => Ok(()),
        });
    }

    #[test]
    fn an_early_end_is_told_with_the_log() {
        let scratch = Scratch::new("early");
        let mut process = shell(&scratch, "echo no such thing >&2; exit 3");
        assert_eq!(process.wait(Duration::from_secs(60)).code(), Some(3));
        let message = process.alive().expect_err("it has ended");
        assert!(message.contains("exit status: 3") && message.ends_with("no such thing"), "{message}");
    }
}
