//! The log of rejected reports: JSON lines, which show a person what a device must not send again.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

use serde_json::json;
use telemetry::hex::hex;

use crate::{error::Error, identity::Identity, sender::Rejected};

/// Name of the log in the data directory.
pub(crate) const FILE: &str = "rejected.jsonl";

pub(crate) struct RejectedLog {
    path: PathBuf,
    file: File,
}

impl RejectedLog {
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(FILE);
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(Error::file("open", &path))?;
        Ok(Self { path, file })
    }

    /// Adds a report. It is on disk before its events leave the outbox.
    pub(crate) fn add(&mut self, identity: &Identity, rejected: &Rejected, payload: &[u8]) -> Result<(), Error> {
        let line = json!({
            "tenant": identity.tenant,
            "site": identity.site,
            "device": identity.device,
            "boot_id": rejected.boot_id.to_string(),
            "first_seq": rejected.range.map(|range| range.first.to_string()),
            "last_seq": rejected.range.map(|range| range.last.to_string()),
            "reason": rejected.reason,
            "payload_sha256": hex(&rejected.sha256),
            "payload_hex": hex(payload),
        });
        let written = writeln!(self.file, "{line}").and_then(|()| self.file.sync_data());
        written.map_err(Error::file("append to", &self.path))
    }
}
