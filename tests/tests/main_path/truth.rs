//! The final truth file: every event, with its expected fate.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde_json::Value;

/// Tenant, device, boot and sequence number.
pub type Key = (String, String, u64, u64);

/// The expected fate of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    Stored,
    /// With this reason.
    Quarantined(String),
    Lost,
    Missing,
}

pub struct Event {
    /// Its line of the file. It is parsed when needed, because the parsed events of a fleet would
    /// fill the memory.
    line: Box<str>,
    pub fate: Fate,
}

impl Event {
    pub fn line(&self) -> Value {
        parse(&self.line)
    }
}

/// How many events of a boot have each fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    pub made: u64,
    pub stored: u64,
    pub quarantined: u64,
    pub lost: u64,
    pub missing: u64,
}

pub struct Truth {
    pub events: BTreeMap<Key, Event>,
    pub heartbeats: Vec<Value>,
    pub poisons: Vec<Value>,
    /// Site by (tenant, device).
    pub sites: BTreeMap<(String, String), String>,
}

impl Truth {
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("read the truth");
        let mut truth =
            Self { events: BTreeMap::new(), heartbeats: Vec::new(), poisons: Vec::new(), sites: BTreeMap::new() };
        for line in text.lines() {
            let value = parse(line);
            match string(&value, "line") {
                "event" => truth.event(line, &value),
                "heartbeat" => truth.heartbeats.push(value),
                "poison" => truth.poisons.push(value),
                "fate" => truth.correct(&value),
                other => panic!("a line of an unknown kind {other}"),
            }
        }
        truth
    }

    fn event(&mut self, line: &str, value: &Value) {
        let (tenant, device, boot) = boot(value);
        self.sites.insert((tenant.clone(), device.clone()), string(value, "site").to_owned());
        let seq = value["seq"].as_u64().expect("a sequence number");
        let event = Event { line: line.into(), fate: fate(value) };
        let earlier = self.events.insert((tenant, device, boot, seq), event);
        assert!(earlier.is_none(), "made twice: {line}");
    }

    fn correct(&mut self, value: &Value) {
        let (tenant, device, boot) = boot(value);
        let number = |name: &str| value[name].as_u64().expect("a sequence number");
        for seq in number("first_seq")..=number("last_seq") {
            let key = (tenant.clone(), device.clone(), boot, seq);
            self.events.get_mut(&key).unwrap_or_else(|| panic!("corrected but never made: {key:?}")).fate = fate(value);
        }
    }

    /// The balance of each boot, by (tenant, device, boot).
    pub fn balances(&self) -> BTreeMap<(String, String, u64), Balance> {
        let mut balances: BTreeMap<_, Balance> = BTreeMap::new();
        for ((tenant, device, boot, seq), event) in &self.events {
            let balance = balances.entry((tenant.clone(), device.clone(), *boot)).or_default();
            balance.made = balance.made.max(*seq);
            *match event.fate {
                Fate::Stored => &mut balance.stored,
                Fate::Quarantined(_) => &mut balance.quarantined,
                Fate::Lost => &mut balance.lost,
                Fate::Missing => &mut balance.missing,
            } += 1;
        }
        balances
    }

    /// Topic, reason and hash of every bad message. Two messages may be equal.
    pub fn poisons(&self) -> BTreeSet<[String; 3]> {
        let text = |poison: &Value, name| string(poison, name).to_owned();
        self.poisons.iter().map(|poison| ["topic", "reason", "payload_sha256"].map(|name| text(poison, name))).collect()
    }

    /// How many bad messages must get a receipt: the number of distinct ones, and of all.
    pub fn receipted_poisons(&self) -> (u64, u64) {
        let receipted: Vec<_> = self.poisons.iter().filter(|poison| poison["receipt"] == true).collect();
        let distinct: BTreeSet<_> =
            receipted.iter().map(|poison| ["topic", "payload_sha256"].map(|name| string(poison, name))).collect();
        (distinct.len() as u64, receipted.len() as u64)
    }
}

pub fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))
}

pub fn string<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no text {name} in {value}"))
}

pub fn boot(value: &Value) -> (String, String, u64) {
    let boot = string(value, "boot_id").parse().expect("a boot id");
    (string(value, "tenant").to_owned(), string(value, "device").to_owned(), boot)
}

fn fate(value: &Value) -> Fate {
    match string(value, "fate") {
        "stored" => Fate::Stored,
        "quarantined" => Fate::Quarantined(string(value, "reason").to_owned()),
        "lost" => Fate::Lost,
        "missing" => Fate::Missing,
        other => panic!("an unknown fate {other}"),
    }
}
