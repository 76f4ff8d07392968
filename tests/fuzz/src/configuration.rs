//! The text of a configuration file.

use std::{fs, sync::LazyLock};

use tempfile::TempDir;

use crate::config::{self, Sources};

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("make a folder"));

/// A configuration is either free of faults, or its faults are named.
pub fn check(bytes: &[u8]) {
    let path = FOLDER.path().join("fuzzed.toml");
    fs::write(&path, bytes).expect("write the configuration");
    match config::load(Sources { file: Some(&path), ..Sources::default() }) {
        Ok(config) => assert!(config.faults().is_empty(), "{:?}", config.faults()),
        Err(faults) => {
            assert!(!faults.is_empty());
            assert!(faults.iter().all(|fault| !fault.text.is_empty() && !fault.hint().is_empty()), "{faults:?}");
        }
    }
}
