//! The cache folder: its place, its lock, and how a fetched engine or tool is put into it.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::progress::Amount;
use crate::steps::Step;

/// `${XDG_CACHE_HOME:-$HOME/.cache}/doseline`.
pub fn root() -> Result<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .context("no cache folder: set HOME or XDG_CACHE_HOME to an absolute path")?;
    Ok(base.join("doseline"))
}

/// The folder of fetched engines and tools.
pub fn engines() -> Result<PathBuf> {
    Ok(root()?.join("engines"))
}

/// The right to change the folder of engines, held until dropped. The system releases it if the
/// holder dies.
pub struct Lock {
    _file: File,
}

/// Waits until other runs of this command have ended, and keeps new ones out.
pub fn lock(step: &mut Step) -> Result<Lock> {
    let engines = engines()?;
    fs::create_dir_all(&engines).with_context(|| format!("create {}", engines.display()))?;
    let path = engines.join(".lock");
    let file = File::create(&path).with_context(|| format!("open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            step.watch("another run is fetching engines, waiting for it", Amount::default, || file.lock())
                .with_context(|| format!("lock {}", path.display()))?;
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("lock {}", path.display()));
        }
    }
    Ok(Lock { _file: file })
}

/// Fills `engines/NAME` unless it exists. `fill` writes into an empty folder beside it, which is
/// renamed after `fill` has succeeded. First deletes the remains of a killed run.
pub fn place(_lock: &Lock, name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let engines = engines()?;
    let place = engines.join(name);
    if place.exists() {
        return Ok(place);
    }
    let staging = engines.join(format!(".partial-{name}"));
    remove(&staging)?;
    fs::create_dir(&staging).with_context(|| format!("create {}", staging.display()))?;
    if let Err(error) = fill(&staging) {
        remove(&staging)?;
        return Err(error);
    }
    fs::rename(&staging, &place).with_context(|| format!("rename {} to {}", staging.display(), place.display()))?;
    Ok(place)
}

/// Deletes every fetched engine and tool.
pub fn clean(step: &mut Step) -> Result<()> {
    let _lock = lock(step)?;
    let engines = engines()?;
    for entry in fs::read_dir(&engines).with_context(|| format!("list {}", engines.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            step.say(&format!("xtask: delete {}", path.display()));
            remove(&path)?;
        }
    }
    Ok(())
}

/// Deletes a folder, if it exists.
pub fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("delete {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Compares a folder with pins in the form of `sha256sum`: it must hold exactly the named files.
pub fn verify(folder: &Path, pins: &str) -> Result<()> {
    let mut expected: Vec<(&str, &str)> =
        pins.lines().filter_map(|line| line.split_once("  ")).map(|(hash, name)| (name, hash)).collect();
    expected.sort_unstable();
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        found.push(entry?.file_name().to_string_lossy().into_owned());
    }
    found.sort_unstable();
    let names: Vec<&str> = expected.iter().map(|(name, _)| *name).collect();
    if found != names {
        let missing: Vec<_> = names.iter().filter(|name| !found.iter().any(|file| file == *name)).collect();
        let unknown: Vec<_> = found.iter().filter(|file| !names.contains(&file.as_str())).collect();
        bail!("fetched other files than pinned: missing {missing:?}, not pinned {unknown:?}");
    }
    for (name, hash) in expected {
        let actual = sha256(&folder.join(name))?;
        if actual != hash {
            bail!(
                "{name} has SHA-256 {actual}, pinned is {hash}: the registry served something else, nothing is installed"
            );
        }
    }
    Ok(())
}

/// SHA-256 of a file, as lower-case hex.
fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let length = file.read(&mut buffer).with_context(|| format!("read {}", path.display()))?;
        if length == 0 {
            return Ok(format!("{:x}", digest.finalize()));
        }
        digest.update(&buffer[..length]);
    }
}

/// SHA-256 of a text, as lower-case hex.
pub fn sha256_text(text: &str) -> String {
    sha256_bytes(text.as_bytes())
}

/// SHA-256 of the content of a file, as lower-case hex.
pub fn sha256_bytes(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// Runs a download. If its folder and its size are given, shows how much has arrived.
pub fn fetching<T>(
    step: &mut Step,
    what: &str,
    into: Option<(&Path, u64)>,
    download: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let amount = || into.map_or_else(Amount::default, |(folder, total)| Amount::megabytes(size(folder), total));
    step.watch(&format!("fetch {what}"), amount, download).with_context(|| {
        format!("could not fetch {what}; check the network and the registry's settings, then run this again")
    })
}

/// Size of a folder that is being written to, bytes. Files that vanish meanwhile do not count.
fn size(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Writes a small file atomically.
pub fn write(path: &Path, text: &str) -> Result<()> {
    File::create(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_compared_with_its_pins_file_by_file() {
        let folder = std::env::temp_dir().join(format!("doseline-xtask-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        write(&folder.join("a.jar"), "abc").unwrap();
        let good = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  a.jar\n";
        let message = |pins: &str| verify(&folder, pins).unwrap_err().to_string();

        verify(&folder, good).unwrap();
        assert!(message(&good.replace("ba78", "0000")).contains("a.jar has SHA-256 ba78"));
        assert!(message(&good.replace("a.jar", "b.jar")).contains("missing [\"b.jar\"], not pinned [\"a.jar\"]"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
