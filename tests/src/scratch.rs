//! Temporary folders that also go when their test was killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};

use tempfile::TempDir;

const PREFIX: &str = "doseline-test-";

/// Folders that are deleted later, while there is a [`Deferred`].
static DEFERRED: Mutex<Option<Vec<TempDir>>> = Mutex::new(None);

/// As long as it lives, folders are kept that are dropped. Without a journal, ext4 gives out no inode again for minutes after it was
/// deleted, and looks through all of them for each new file: thousands of deleted files take an insert of a few rows twice the time.
pub struct Deferred(());

impl Deferred {
    /// Keeps what is dropped from now on.
    pub fn begin() -> Self {
        DEFERRED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default();
        Self(())
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        let folders = DEFERRED.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(folders);
    }
}

/// A temporary folder, deleted when dropped.
///
/// `DOSELINE_TEST_KEEP=1` keeps it, to be looked at.
pub struct Scratch {
    /// There until it is dropped.
    folder: Option<TempDir>,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(deferred) = &mut *DEFERRED.lock().unwrap_or_else(PoisonError::into_inner) {
            deferred.extend(self.folder.take());
        }
    }
}

impl Scratch {
    /// An empty folder whose name ends in something about `name`.
    #[allow(clippy::new_without_default, reason = "it takes a name")]
    pub fn new(name: &str) -> Self {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        let keep = std::env::var_os("DOSELINE_TEST_KEEP").is_some();
        let prefix = if keep { "doseline-kept-".to_owned() } else { format!("{PREFIX}{}-", std::process::id()) };
        let mut folder =
            tempfile::Builder::new().prefix(&format!("{prefix}{name}-")).tempdir().expect("create a temporary folder");
        folder.disable_cleanup(keep);
        if keep {
            eprintln!("{name} keeps its data in {}", folder.path().display());
        }
        Self { folder: Some(folder) }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.as_ref().expect("not dropped").path()
    }

    /// A path in the folder.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

/// Deletes what test processes left behind that ended without dropping it: killed, or holding an engine in a static.
fn sweep() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|rest| rest.split('-').next());
        let ended = |process: &str| !Path::new("/proc").join(process).exists();
        if process.is_some_and(|process| process.parse::<u32>().is_ok() && ended(process)) {
            // Another test process may sweep the same folder at this moment.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_a_dead_process_is_swept_and_of_a_living_one_is_not() {
        let dead = std::env::temp_dir().join(format!("{PREFIX}4294967295-x"));
        fs::create_dir_all(&dead).expect("create a folder");
        let living = Scratch::new("living");
        sweep();
        assert!(!dead.exists());
        assert!(living.path().exists());
    }
}
