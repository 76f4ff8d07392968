//! Temporary folders, which are deleted even after their test was killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once};

use tempfile::TempDir;

const PREFIX: &str = "doseline-test-";

/// Folders that are deleted later, while a [`Deferred`] exists.
static DEFERRED: Mutex<Option<Vec<TempDir>>> = Mutex::new(None);

/// While this exists, dropped folders are kept. Without a journal, ext4 does not reuse a deleted
/// inode for minutes, and examines all of them for each new file. After thousands of deletions an
/// insert of a few rows takes twice as long.
pub struct Deferred(());

impl Deferred {
    /// From now on, dropped folders are kept.
    pub fn begin() -> Self {
        service::lock(&DEFERRED).get_or_insert_default();
        Self(())
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        let folders = service::lock(&DEFERRED).take();
        drop(folders);
    }
}

/// A temporary folder, deleted when dropped.
///
/// `DOSELINE_TEST_KEEP=1` keeps it for inspection.
pub struct Scratch {
    /// Present until it is dropped.
    folder: Option<TempDir>,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(deferred) = &mut *service::lock(&DEFERRED) {
            deferred.extend(self.folder.take());
        }
    }
}

impl Scratch {
    /// An empty folder whose name contains `name`.
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

    /// Path of the folder.
    pub fn path(&self) -> &Path {
        self.folder.as_ref().expect("not dropped").path()
    }

    /// A path in the folder.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

/// Deletes folders of test processes that ended without dropping them: killed, or with an engine in
/// a static.
fn sweep() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|rest| rest.split('-').next());
        let ended = |process: &str| !Path::new("/proc").join(process).exists();
        if process.is_some_and(|process| process.parse::<u32>().is_ok() && ended(process)) {
            // Another test process may delete the same folder at the same time.
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
