//! The index: a line of JSON for each certificate that was made.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    files,
    subject::{Authority, Kind, Subject},
};

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub kind: Kind,
    /// As [`Subject::name`]; of an authority its name.
    pub name: String,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// Who signed it.
    pub authority: Authority,
    /// Start and end of its validity, s since 1970.
    pub not_before: i64,
    pub not_after: i64,
    /// When it was revoked, s since 1970.
    pub revoked: Option<i64>,
    /// As [`Subject::hosts`].
    pub hosts: Vec<String>,
    /// Its key was made elsewhere, and is not in the store.
    pub key_elsewhere: bool,
}

/// What a certificate is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    Valid,
    Expired,
    Revoked,
}

impl Entry {
    pub fn state(&self, now: i64) -> State {
        match self.revoked {
            Some(_) => State::Revoked,
            None if self.not_after <= now => State::Expired,
            None => State::Valid,
        }
    }

    /// For whom it was made. Only for certificates, not for authorities.
    pub fn subject(&self) -> Subject {
        Subject { kind: self.kind, name: self.name.clone(), hosts: self.hosts.clone() }
    }
}

/// All certificates of a store. While it is open, no other process changes the store.
pub struct Index {
    path: PathBuf,
    entries: Vec<Entry>,
    _lock: File,
}

impl Index {
    /// Opens the index in the folder of the authorities. Waits while another process has it open.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| Error::File { what, path, source }
        };
        let lock_path = dir.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).mode(files::SECRET).open(&lock_path);
        let lock = lock.map_err(failed("open", &lock_path))?;
        lock.lock().map_err(failed("lock", &lock_path))?;
        let path = dir.join("index.jsonl");
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            text => text.map_err(failed("read", &path))?,
        };
        let mut entries = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let content = |error| Error::Content { path: path.clone(), fault: format!("line {}: {error}", index + 1) };
            entries.push(serde_json::from_str(line).map_err(content)?);
        }
        Ok(Self { path, entries, _lock: lock })
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Adds a certificate.
    pub fn add(&mut self, entry: Entry) -> Result<(), Error> {
        self.entries.push(entry);
        self.save()
    }

    /// Marks the certificates of a name that are valid now, of a serial number if one is given.
    /// Returns those that were marked.
    pub fn revoke(&mut self, name: &str, serial: Option<&str>, now: i64) -> Result<Vec<Entry>, Error> {
        let mut revoked = Vec::new();
        for entry in &mut self.entries {
            let is_meant = entry.name == name && serial.is_none_or(|serial| serial.eq_ignore_ascii_case(&entry.serial));
            if is_meant && entry.kind != Kind::Authority && entry.state(now) == State::Valid {
                entry.revoked = Some(now);
                revoked.push(entry.clone());
            }
        }
        self.save()?;
        Ok(revoked)
    }

    /// Common names of revoked certificates that have not expired.
    pub fn revoked_names(&self, now: i64) -> BTreeSet<String> {
        let revoked = self.entries.iter().filter(|entry| entry.revoked.is_some() && entry.not_after > now);
        revoked.map(|entry| entry.subject().common_name()).collect()
    }

    fn save(&self) -> Result<(), Error> {
        let mut text = Vec::new();
        for entry in &self.entries {
            let content = |error| Error::Content { path: self.path.clone(), fault: format!("{error}") };
            serde_json::to_writer(&mut text, entry).map_err(content)?;
            text.push(b'\n');
        }
        files::write(&self.path, &text, files::SECRET)
    }
}
