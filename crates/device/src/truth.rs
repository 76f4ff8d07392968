//! The truth file: the events that a simulated fleet made and their intended end, one JSON object a
//! line. It is the oracle of every test.
//!
//! Each line has `line`, its kind:
//!
//! - `event`: one for each event, in the order of the simulated time, before the outbox gets it.
//!   `tenant`, `site`, `device`, `boot_id` (decimal, as a string), `seq` (number), `clock`
//!   (`SYNCED`, `UNSYNCED`, `UNKNOWN`), `at_unix_us` (number: the time under which it must be
//!   stored; null if the clock is not synced, because then the time of receipt counts), `uptime_us`
//!   (number: since boot), `event` (canonical JSON of `Event` without offset; `{}` is an event of a
//!   kind that no server knows), `context` (canonical JSON of `Context`), `form` (`protobuf`,
//!   `json`), `fate` and `reason`. `fate` is `stored`, `quarantined` (with the reason as in the
//!   quarantine table), `lost` (must be declared lost) or `missing` (must show as a gap, because a
//!   later boot reports how far this one reached).
//! - `heartbeat`: the same without `seq`, `fate` and `reason`. Heartbeats are outside the sequence,
//!   so one may be lost. The state of the outbox (`outboxEvents`, `oldestUnreceiptedS`) is not in
//!   the line.
//! - `poison`: a bad message that must be quarantined raw. `tenant`, `site`, `device`, `topic`,
//!   `name`, `reason`, `payload_sha256` (hex), `bytes`, `receipt` (whether a REJECTED receipt must
//!   come). It may arrive more than once, and two may have the same bytes. It is not kept on disk,
//!   so a killed simulator may not have sent it.
//! - `fate`: corrects earlier lines by what really happened, which depends on the network and not
//!   on the seed. `tenant`, `site`, `device`, `boot_id`, `first_seq`, `last_seq`, `fate` (`lost` if
//!   the outbox overflowed, `quarantined` if a report was rejected), `reason`. The last line
//!   counts. After a restart, an event that is given up may have been sent before; `lost` then also
//!   allows `stored`.
//!
//! The lines of the next run with the same data directory follow those of an interrupted run. A
//! torn last line can only be one whose event was never passed on.

use std::{
    fs::{File, OpenOptions},
    io::{BufWriter, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::json;
use sha2::{Digest as _, Sha256};
use telemetry::{
    hex::hex,
    interval::Interval,
    json,
    limits::UNIX_US_MAX,
    v1::{self, Clock},
};

use crate::{
    error::Error,
    fleet::{Act, Context, Fate, Step},
    identity::{Form, Identity},
    store::Stamp,
};

/// Writes the truth file.
pub struct Truth {
    path: PathBuf,
    file: BufWriter<File>,
    line: Vec<u8>,
}

/// A device as its lines name it, with its last context.
#[derive(Clone, Debug)]
pub struct Subject {
    prefix: String,
    form: Form,
    /// Its last context as JSON; most events share it.
    context: Option<(Arc<Context>, String)>,
}

impl Subject {
    /// The writer's state for one device.
    pub fn new(identity: &Identity, form: Form) -> Self {
        let Identity { tenant, site, device } = identity;
        // Ids contain no characters that JSON escapes.
        let prefix = format!(r#""tenant":"{tenant}","site":"{site}","device":"{device}""#);
        Self { prefix, form, context: None }
    }

    fn context(&mut self, context: &Arc<Context>) -> &str {
        let is_same = self.context.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, context));
        if !is_same {
            self.context = None;
        }
        let (_, json) =
            self.context.get_or_insert_with(|| (Arc::clone(context), json::to_json(&context.message, "Context")));
        json
    }
}

impl Truth {
    /// Opens the file: for appending if `is_continued`, otherwise empty.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn open(path: &Path, is_continued: bool) -> Result<Self, Error> {
        let mut options = OpenOptions::new();
        let mut file = options
            .create(true)
            .read(true)
            .write(true)
            .truncate(!is_continued)
            .open(path)
            .map_err(Error::file("open", path))?;
        end_last_line(&mut file).map_err(Error::file("append to", path))?;
        Ok(Self { path: path.to_owned(), file: BufWriter::with_capacity(1 << 16, file), line: Vec::new() })
    }

    /// Writes the line of a step, if the step has one.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn step(&mut self, subject: &mut Subject, step: &Step, boot_id: u64) -> Result<(), Error> {
        self.line.clear();
        match &step.act {
            Act::Boot { .. } | Act::Link { .. } => return Ok(()),
            Act::Event(made) => {
                let event = v1::Event { offset_us: 0, kind: made.kind.clone() };
                self.begin("event", subject);
                self.stamp(made.boot_id, made.stamp);
                let reason = match made.fate {
                    Fate::Quarantined(reason) => format!("\"{reason}\""),
                    _ => "null".to_owned(),
                };
                let text = json::to_json(&event, "Event");
                let form = if subject.form == Form::Json { "json" } else { "protobuf" };
                let (seq, fate, context) = (made.seq, made.fate.as_str(), subject.context(&made.context));
                let rest = format!(
                    r#","seq":{seq},"form":"{form}","fate":"{fate}","reason":{reason},"context":{context},"event":{text}}}"#
                );
                self.line.extend(rest.as_bytes());
            }
            Act::Heartbeat { stamp, context, heartbeat } => {
                self.begin("heartbeat", subject);
                self.stamp(boot_id, *stamp);
                let kind = Some(v1::event::Kind::Heartbeat(*heartbeat));
                let text = json::to_json(&v1::Event { offset_us: 0, kind }, "Event");
                let context = subject.context(context);
                self.line.extend(format!(r#","context":{context},"event":{text}}}"#).as_bytes());
            }
            Act::Poison(poison) => {
                self.begin("poison", subject);
                let rest = json!({
                    "topic": poison.topic,
                    "name": poison.name,
                    "reason": poison.reason.as_str(),
                    "payload_sha256": hex(&Sha256::digest(&poison.payload)),
                    "bytes": poison.payload.len(),
                    "receipt": poison.is_receipted,
                });
                let rest = rest.to_string().replacen('{', ",", 1);
                self.line.extend(rest.as_bytes());
            }
        }
        self.end()
    }

    /// Writes a line that corrects earlier ones.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn correct(
        &mut self,
        identity: &Identity,
        boot_id: u64,
        range: Interval,
        fate: &str,
        reason: &str,
    ) -> Result<(), Error> {
        self.line.clear();
        let line = json!({
            "line": "fate",
            "tenant": identity.tenant,
            "site": identity.site,
            "device": identity.device,
            "boot_id": boot_id.to_string(),
            "first_seq": range.first,
            "last_seq": range.last,
            "fate": fate,
            "reason": reason,
        });
        self.line.extend(line.to_string().as_bytes());
        self.end()
    }

    /// Passes all lines to the operating system.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn flush(&mut self) -> Result<(), Error> {
        self.file.flush().map_err(Error::file("write", &self.path))
    }

    fn begin(&mut self, line: &str, subject: &Subject) {
        self.line.extend(format!(r#"{{"line":"{line}",{}"#, subject.prefix).as_bytes());
    }

    fn stamp(&mut self, boot_id: u64, stamp: Stamp) {
        let (clock, at) = match stamp.clock {
            // Out of every calendar: the time of receipt counts.
            Clock::Synced if stamp.unix_us >= UNIX_US_MAX => ("SYNCED", "null".to_owned()),
            Clock::Synced => ("SYNCED", stamp.unix_us.to_string()),
            Clock::Unsynced => ("UNSYNCED", "null".to_owned()),
            Clock::Unknown | Clock::Unspecified => ("UNKNOWN", "null".to_owned()),
        };
        let uptime_us = stamp.uptime_us;
        let text = format!(r#","boot_id":"{boot_id}","clock":"{clock}","at_unix_us":{at},"uptime_us":{uptime_us}"#);
        self.line.extend(text.as_bytes());
    }

    fn end(&mut self) -> Result<(), Error> {
        self.line.push(b'\n');
        self.file.write_all(&self.line).map_err(Error::file("write", &self.path))
    }
}

/// Cuts off a line that an interrupted run left unfinished.
fn end_last_line(file: &mut File) -> std::io::Result<()> {
    let mut length = file.seek(SeekFrom::End(0))?;
    while length > 0 {
        let block = length.min(4_096);
        let mut bytes = vec![0; block as usize];
        file.seek(SeekFrom::Start(length - block))?;
        file.read_exact(&mut bytes)?;
        match bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => {
                length = length - block + at as u64 + 1;
                break;
            }
            None => length -= block,
        }
    }
    file.set_len(length)?;
    file.seek(SeekFrom::Start(length))?;
    Ok(())
}
