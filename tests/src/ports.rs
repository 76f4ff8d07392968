//! Ports that no other process uses.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range of outgoing connections in Linux (32768 and up): none of them can take the port
/// of an engine that is down for a moment.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// Locked files of this process's ports. The kernel unlocks them when it ends, however that
/// happens.
static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A free port on 127.0.0.1. This process never gets it again, and no other test process gets it
/// while this one runs, even while its engine is not started or is down.
pub fn free_port() -> u16 {
    free_listener().local_addr().expect("it is bound").port()
}

/// As [`free_port`], but bound, for servers in this process.
pub fn free_listener() -> TcpListener {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Concurrent test processes begin at different places.
    let start = u16::try_from(std::process::id().wrapping_mul(97) % u32::from(COUNT)).expect("below the count");
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (start + step) % COUNT;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port))
            && is_ours(port)
        {
            return listener;
        }
    }
    panic!("no free port from {FIRST} to {}", FIRST + COUNT - 1)
}

/// Whether no other test process has the port; from now on none gets it.
fn is_ours(port: u16) -> bool {
    let path = folder().join(port.to_string());
    let file = File::create(&path).unwrap_or_else(|error| panic!("create {}: {error}", path.display()));
    let locked = file.try_lock().is_ok();
    if locked {
        service::lock(&HELD).push(file);
    }
    locked
}

/// One folder for each user, because another user cannot open the files.
fn folder() -> PathBuf {
    let user = fs::metadata("/proc/self").expect("ask the kernel for the user").uid();
    let folder = std::env::temp_dir().join(format!("doseline-ports-{user}"));
    fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("create {}: {error}", folder.display()));
    folder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let ports: std::collections::BTreeSet<_> = (0..100).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 100);
        assert!(ports.iter().all(|port| (20_000..32_000).contains(port)));
    }

    /// Two descriptors of a file are two owners of its lock, as in two processes.
    #[test]
    fn a_port_that_was_given_is_no_other_process_s_though_nothing_listens_there() {
        let port = free_port();
        assert!(!is_ours(port), "{port} is given twice");
        drop(TcpListener::bind(("127.0.0.1", port)).expect("nothing listens there"));
    }
}
