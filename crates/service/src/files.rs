//! The state of a file that is read again when it changes. The number of files that this process
//! may have open, and the number of connections of every listener that follows from it. All
//! listeners together take at most half of the files. The other half is for data files, ClickHouse,
//! and connections that the process opens itself.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, sync::LazyLock};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit if the system names none.
const UNLIMITED: u64 = 1 << 20;
/// Connections of the largest listener, whatever the limit.
const CONNECTIONS_MAX: u64 = 4_096;

static LIMIT: LazyLock<u64> = LazyLock::new(|| {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = if raised.is_ok() { maximum } else { current };
    limit.unwrap_or(UNLIMITED)
});

/// Files that this process, and every process that it starts, may have open. The first call raises
/// the limit as far as the system allows.
pub fn limit() -> u64 {
    *LIMIT
}

/// Connections of an engine's listener. There are two: ClickHouse's and Kafka's.
pub fn engine_connections() -> usize {
    connections(8)
}

/// Connections of a role's HTTP listener. There are four: bridge, loader, monitor and dashboard.
pub fn role_connections() -> usize {
    connections(16)
}

fn connections(share: u64) -> usize {
    usize::try_from((limit() / share).clamp(1, CONNECTIONS_MAX)).unwrap_or(1)
}

/// What tells two states of a file apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileState {
    inode: u64,
    mode: u32,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileState {
    /// The state of a file now; none if there is no such file.
    pub fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|found| Self {
            inode: found.ino(),
            mode: found.mode(),
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}
