//! `doseline quarantine show`: prints one row, decoded as far as possible.

use std::{fmt::Write as _, process::ExitCode};

use clap::Args;
use serde_json::{Value, json};
use telemetry::{
    hex::hex,
    kafka::SOURCE_BRIDGE,
    quarantine::Id,
    reading::forensic::{self, Inspection},
};
use warehouse::quarantine::{Filter, Item, Raw};

use super::{remake::remake, size};
use crate::{
    config::Config,
    hint::fault,
    options,
    table::{json_line, printable_lines, show},
};

/// How many unreadable bytes are printed without `--full`.
const REST_BYTES: usize = 512;

#[derive(Args)]
pub struct Arguments {
    /// Id of the row; `quarantine list --all` prints the ids
    id: Id,
    /// Print all bytes that could not be read, not only the first 512
    #[arg(long)]
    full: bool,
    /// One JSON object a line instead of text
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let warehouse = options::warehouse(config)?;
    let filter = Filter { ids: vec![arguments.id], ..Filter::default() };
    let items = warehouse.quarantine_items(&filter, 1_000).await?;
    let raws = warehouse.quarantine_raw(&[arguments.id]).await?;
    if raws.is_empty() {
        let text = format!("nothing in quarantine is called {}", arguments.id);
        return Err(fault(text, "`doseline quarantine list --all` names what is there"));
    }
    for raw in &raws {
        // Heartbeats of one report share an id. They differ in the size of their payload.
        let item = items.iter().find(|item| item.bytes == raw.payload.len() as u64).or(items.first());
        let read = read(raw);
        let today = remake(raw, &config.plausibility, &config.device_time).err();
        let today = today.map_or_else(|| "can be replayed".to_owned(), |reject| format!("refused still: {reject}"));
        if arguments.json {
            show(&(json_line(&as_json(raw, item, &read, &today))? + "\n"))?;
        } else {
            show(&printable_lines(&as_text(raw, item, &read, &today, arguments.full)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What can be read of a row. It is read as JSON if the device sent JSON and the bridge refused it.
fn read(raw: &Raw) -> Inspection {
    let status = raw.topic.ends_with("/status");
    let text = status || (raw.topic.ends_with("/report/json") && raw.source == SOURCE_BRIDGE);
    match (status, text) {
        (true, _) => forensic::json(&raw.payload, "Status"),
        (false, true) => forensic::json(&raw.payload, "Report"),
        (false, false) => forensic::protobuf(&raw.payload, "Report"),
    }
}

fn as_json(raw: &Raw, item: Option<&Item>, read: &Inspection, today: &str) -> Value {
    let stopped =
        read.stopped.as_ref().map(|stop| json!({ "offset": stop.offset, "path": stop.path, "what": stop.what }));
    let payload = hex(&raw.payload);
    json!({ "row": item, "today": today, "decoded": read.fields, "stopped": stopped, "payload": payload })
}

fn as_text(raw: &Raw, item: Option<&Item>, read: &Inspection, today: &str, full: bool) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "{name:<9} {value}");
    };
    line("id", &raw.id.to_string());
    line("reason", &raw.reason);
    if let Some(item) = item {
        line("detail", if item.detail.is_empty() { "-" } else { &item.detail });
        line("received", &item.received);
        if item.boot_id > 0 {
            line("boot, seq", &format!("{}, {}", item.boot_id, item.seq));
        }
        let replay = match item.outcome.as_str() {
            "" => "never".to_owned(),
            outcome => format!("{outcome}, last by {}", item.replayed_by),
        };
        line("replayed", &replay);
    }
    line("topic", &raw.topic.escape_debug().to_string());
    line("source", &raw.source);
    line("today", today);
    line("size", &size(raw.payload.len() as u64));
    let decoded = serde_json::to_string_pretty(&read.fields).unwrap_or_default();
    let _ = writeln!(text, "\ndecoded:\n{decoded}");
    if let Some(stop) = &read.stopped {
        let at = stop.offset.map_or_else(String::new, |offset| format!(" at byte {offset}"));
        let path = if stop.path.is_empty() { String::new() } else { format!(", in {}", stop.path) };
        let _ = writeln!(text, "\nreading stopped{at}{path}: {}", stop.what);
        if let Some(offset) = stop.offset {
            text.push_str(&rest(&raw.payload, offset, full));
        }
    }
    text
}

/// The bytes after the place where reading stopped, 16 on each line.
fn rest(payload: &[u8], offset: usize, full: bool) -> String {
    let most = if full { payload.len() } else { REST_BYTES };
    let rest = payload.get(offset..).unwrap_or_default();
    let mut text = String::new();
    for (number, bytes) in rest[..rest.len().min(most)].chunks(16).enumerate() {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x} ")).collect();
        let shown: String =
            bytes.iter().map(|byte| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' }).collect();
        let _ = writeln!(text, "{:08x}  {hex:<48} |{shown}|", offset + number * 16);
    }
    if rest.len() > most {
        let _ = writeln!(text, "... {} more bytes; see --full", rest.len() - most);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_shown_with_its_offset() {
        assert_eq!(
            rest(b"abc\x00\xff0123456789ABCDEFG", 2, false),
            "00000002  63 00 ff 30 31 32 33 34 35 36 37 38 39 41 42 43  |c..0123456789ABC|\n\
             00000012  44 45 46 47                                      |DEFG|\n"
        );
        assert!(rest(&[0; 600], 0, false).ends_with("... 88 more bytes; see --full\n"));
        assert!(!rest(&[0; 600], 0, true).contains("more bytes"));
        assert_eq!(rest(b"ab", 2, false), "");
    }
}
