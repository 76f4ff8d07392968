//! One run of the program as a child process.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    path::Path,
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
};

use rustix::{
    io::{FdFlags, fcntl_getfd, fcntl_setfd},
    process::{
        Pid, PidfdFlags, Signal, getpid, getppid, pidfd_open, pidfd_send_signal, set_parent_process_death_signal,
    },
};
use tokio::sync::oneshot;

use super::{Error, Lines, repeat};

pub(super) struct Child {
    id: u32,
    /// Identifies this process. A later process with the same number is another one.
    process: OwnedFd,
    ended: oneshot::Receiver<String>,
    status: Option<String>,
    lines: Arc<Mutex<Lines>>,
}

impl Child {
    /// Starts the program in its folder, with a thread that waits for its end.
    ///
    /// The kernel sends the parent-death signal when the *thread* that started the child ends. So
    /// this thread starts the child and lives until the child has ended.
    pub(super) async fn spawn(program: &Path, dir: &Path, configuration: &str, lock: &File) -> Result<Self, Error> {
        let failed = |path: &Path, source| Error::File { what: "start mosquitto", path: path.to_owned(), source };
        let mut command = Command::new(program);
        command.arg("-c").arg(configuration).current_dir(dir);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // Ctrl-C in a terminal goes to a whole process group. The broker must end after the roles
        // that read from it, so it gets a group of its own.
        command.process_group(0);
        let lock = lock.try_clone().map_err(|source| failed(program, source))?;
        let parent = getpid();
        // SAFETY: the closure runs between fork and exec. It only makes system calls and allocates
        // nothing.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::TERM))?;
                // The parent may have died before the line above took effect.
                if getppid() != Some(parent) {
                    return Err(rustix::io::Errno::SRCH.into());
                }
                // The child keeps the lock as long as it lives.
                let flags = fcntl_getfd(lock.as_fd())?;
                fcntl_setfd(lock.as_fd(), flags.difference(FdFlags::CLOEXEC))?;
                Ok(())
            });
        }
        let (started, start) = oneshot::channel();
        let (ending, ended) = oneshot::channel();
        let lines = Arc::new(Mutex::new(Lines::default()));
        let kept = Arc::clone(&lines);
        let waiting = move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => return drop(started.send(Err(error))),
            };
            // This also drops our copy of the lock. The child has its own copy.
            drop(command);
            let process = Pid::from_raw(child.id().cast_signed())
                .map_or(Err(rustix::io::Errno::SRCH), |pid| pidfd_open(pid, PidfdFlags::empty()));
            let stderr = child.stderr.take();
            let _ = started.send(process.map(|process| (child.id(), process)).map_err(Into::into));
            // Read the log until it ends, which is when the process ends. A full pipe would block
            // the broker.
            for line in stderr.into_iter().flat_map(|stderr| BufReader::new(stderr).split(b'\n')).map_while(Result::ok)
            {
                let line = String::from_utf8_lossy(&line);
                repeat(&line);
                service::lock(&kept).push(&line);
            }
            let status = child.wait().map_or_else(|error| error.to_string(), |status| describe(&status));
            // The receiver may be gone.
            let _ = ending.send(status);
        };
        let thread = std::thread::Builder::new().name("mosquitto".to_owned()).spawn(waiting);
        thread.map_err(|source| failed(program, source))?;
        let (id, process) = match start.await {
            Ok(started) => started.map_err(|source| failed(program, source))?,
            Err(_) => return Err(failed(program, std::io::Error::other("its thread crashed"))),
        };
        Ok(Self { id, process, ended, status: None, lines })
    }

    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// Waits for the child's end, and returns a description of it.
    pub(super) async fn ended(&mut self) -> String {
        if self.status.is_none() {
            let status = (&mut self.ended).await;
            self.status = Some(status.unwrap_or_else(|_| "nobody knows how".to_owned()));
        }
        self.status.clone().unwrap_or_default()
    }

    /// Sends a signal. A child that has ended gets none.
    pub(super) fn signal(&self, signal: Signal) {
        // Only ESRCH is possible: the process has ended.
        let _ = pidfd_send_signal(&self.process, signal);
    }

    pub(super) fn last_lines(&self) -> String {
        service::lock(&self.lines).text()
    }
}

fn describe(status: &ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}
