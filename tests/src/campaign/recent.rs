//! Recent events of a device, sent again in other groupings.

use std::collections::{BTreeMap, VecDeque};

use rand::Rng;
use serde_json::{Value, json};

/// Greatest number of lines of truth kept.
const LINES_MAX: usize = 6_000;
/// Greatest number of events in a report that is sent again.
const EVENTS_MAX: usize = 40;
/// How often a whole backlog is sent.
const TIMES: usize = 3;

/// The last events that were made and are to be stored.
#[derive(Default)]
pub struct Recent {
    lines: VecDeque<Box<str>>,
}

/// A report, ready to be published.
pub struct Repeated {
    /// MQTT topic.
    pub topic: String,
    /// JSON on one line.
    pub payload: String,
}

impl Recent {
    /// Keeps a line of truth.
    pub fn push(&mut self, line: &str) {
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line.into());
    }

    /// The whole backlog of the device with most events, three times, each time in overlapping
    /// groups of other sizes.
    pub fn repeated(&self, random: &mut impl Rng) -> Vec<Repeated> {
        let mut devices: BTreeMap<(String, String), Vec<Value>> = BTreeMap::new();
        for line in &self.lines {
            let value: Value = serde_json::from_str(line).expect("a line of truth");
            // The truth does not contain the wall clock of a device without one.
            if value["at_unix_us"].is_i64() {
                let key = (value["device"].to_string(), value["boot_id"].to_string());
                devices.entry(key).or_default().push(value);
            }
        }
        let Some(mut backlog) = devices.into_values().max_by_key(Vec::len) else { return Vec::new() };
        backlog.sort_by_key(|line| line["seq"].as_u64());
        let mut reports = Vec::new();
        for _ in 0..TIMES {
            let mut from = 0;
            while from < backlog.len() {
                let size = random.random_range(1..=EVENTS_MAX);
                let fit = backlog[from..].windows(2).take(size - 1).take_while(|pair| follows(&pair[0], &pair[1]));
                let end = from + 1 + fit.count();
                reports.push(report(&backlog[from..end]));
                // The next group begins within this one, or right after it.
                from = if end - from > 2 { end - random.random_range(0..=2) } else { end };
                from = from.min(backlog.len());
                if end == backlog.len() {
                    break;
                }
            }
        }
        reports
    }
}

/// Whether an event can be in the same report as the one before it.
fn follows(before: &Value, after: &Value) -> bool {
    let number = |line: &Value, name: &str| line[name].as_i64().expect("a number");
    let passed = |name: &str| number(after, name) - number(before, name);
    passed("seq") == 1
        && passed("at_unix_us") == passed("uptime_us")
        && passed("uptime_us") >= 0
        && before["context"] == after["context"]
        && before["clock"] == after["clock"]
}

fn report(lines: &[Value]) -> Repeated {
    let first = &lines[0];
    let text = |name: &str| first[name].as_str().expect("a text");
    let uptime = |line: &Value| line["uptime_us"].as_u64().expect("a number");
    let events: Vec<_> = lines
        .iter()
        .map(|line| {
            let mut event = line["event"].clone();
            event["offsetUs"] = (uptime(line) - uptime(first)).to_string().into();
            event
        })
        .collect();
    let report = json!({
        "bootId": text("boot_id"),
        "firstSeq": first["seq"].to_string(),
        "baseUnixUs": first["at_unix_us"].to_string(),
        "baseUptimeUs": uptime(first).to_string(),
        "clock": format!("CLOCK_{}", text("clock")),
        "context": first["context"],
        "events": events,
    });
    let (tenant, site, device) = (text("tenant"), text("site"), text("device"));
    Repeated { topic: format!("doseline/v1/{tenant}/{site}/{device}/report/json"), payload: report.to_string() }
}
