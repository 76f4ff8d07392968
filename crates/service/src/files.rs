//! The number of files that this process may have open, and the number of connections of every
//! listener that follows from it. All listeners together take at most half of the files. The other
//! half is for data files, ClickHouse, and connections that the process opens itself.

use std::sync::LazyLock;

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
