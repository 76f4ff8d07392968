//! A separate disk, small enough to be filled.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::{Process, Scratch, poll};

const MOUNTED_WITHIN: Duration = Duration::from_secs(60);
const BALLAST: &str = "ballast";

/// A file system in memory, in its own mount namespace, which needs no privileges. A process that
/// holds the namespace keeps the data while engines on it are killed and restarted.
pub struct Disk {
    holder: Process,
    // Deleted after the process has ended.
    scratch: Scratch,
}

impl Disk {
    /// An empty disk of this size.
    pub fn new(mib: u64) -> Self {
        let scratch = Scratch::new("disk");
        let mount = "mount -t tmpfs -o size=\"$1\"m tmpfs \"$0\" && touch \"$0\"/mounted && exec sleep infinity";
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", mount]).arg(scratch.path()).arg(mib.to_string());
        let log = std::env::temp_dir().join(format!("{}.log", scratch.path().display()));
        let mut holder = Process::start("disk", command, &log, None);
        let mounted = seen(holder.id(), scratch.path()).join("mounted");
        poll(MOUNTED_WITHIN, "a disk to be mounted", || {
            holder.alive().unwrap_or_else(|ended| panic!("{ended}"));
            fs::metadata(&mounted)
        });
        let _ = fs::remove_file(&log);
        Self { holder, scratch }
    }

    /// Its path, for processes on it.
    pub fn path(&self) -> &Path {
        self.scratch.path()
    }

    /// A command that runs a program on the disk; the program is appended. The program dies with
    /// the test as all do, which entering a namespace would undo.
    pub fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--user", "--mount", "--preserve-credentials", "--target", &self.holder.id().to_string()]);
        command.args(["--", "setpriv", "--pdeathsig", "KILL", "--"]);
        command
    }

    /// Whether a path exists on the disk, as processes on it see it.
    pub fn holds(&self, path: &Path) -> bool {
        seen(self.holder.id(), path).exists()
    }

    /// Fills it to the last byte; the last hundreds of MiB no faster than a real disk.
    pub fn fill(&self) {
        let mut ballast = File::create(self.ballast()).expect("create ballast");
        let block = vec![1; 1 << 20];
        while ballast.write_all(&block).is_ok() {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Frees the space that `fill` took.
    pub fn empty(&self) {
        fs::remove_file(self.ballast()).expect("remove ballast");
    }

    fn ballast(&self) -> PathBuf {
        seen(self.holder.id(), self.scratch.path()).join(BALLAST)
    }
}

/// A path in the namespace of a process.
fn seen(process: u32, path: &Path) -> PathBuf {
    PathBuf::from(format!("/proc/{process}/root{}", path.display()))
}
