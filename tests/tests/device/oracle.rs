//! Compares the truth file with what has arrived.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde_json::Value;
use telemetry::{json, v1};

use crate::receipter::{Key, Seen};

/// The lines of a truth file.
pub struct Truth(Vec<Value>);

impl Truth {
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("read the truth");
        Self(text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect())
    }

    fn lines(&self, line: &'static str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |value| value["line"] == line)
    }

    /// Whether every bad message has arrived. No device waits for those that get no receipt.
    pub fn are_poisons_in(&self, seen: &Seen) -> bool {
        self.lines("poison").all(|line| seen.refused.contains_key(&hash(line)))
    }

    /// Checks that exactly the expected events have arrived, with every value. Returns how many
    /// events have each fate.
    pub fn check(&self, seen: &Seen) -> BTreeMap<String, u64> {
        assert_eq!(self.lines("fate").count(), 0, "nothing overflowed and nothing of the fleet's own was rejected");
        let (mut fates, mut expected) = (BTreeMap::new(), BTreeSet::new());
        for line in self.lines("event") {
            let key = key(line);
            let fate = text(&line["fate"]);
            match fate {
                "stored" | "quarantined" => {
                    assert!(seen.events.contains_key(&key), "{key:?} has not arrived");
                    let arrived = &seen.events[&key];
                    assert_eq!(arrived.at_unix_us, line["at_unix_us"].as_i64(), "{key:?}");
                    assert_eq!(arrived.event, read::<v1::Event>(&line["event"], "Event"), "{key:?}");
                    assert_eq!(arrived.context, read::<v1::Context>(&line["context"], "Context"), "{key:?}");
                    expected.insert(key);
                }
                "lost" => assert!(seen.lost.contains(&key), "{key:?} is not declared lost"),
                "missing" => {
                    assert!(!seen.events.contains_key(&key) && !seen.lost.contains(&key), "{key:?}");
                    let end = seen.ends.get(&(key.0.clone(), key.1)).copied();
                    assert!(end >= Some(key.2), "{key:?}: the boot is said to end at {end:?}");
                }
                other => panic!("fate {other}"),
            }
            *fates.entry(fate.to_owned()).or_insert(0) += 1;
        }
        let surplus: Vec<_> = seen.events.keys().filter(|key| !expected.contains(*key)).take(3).collect();
        assert!(surplus.is_empty(), "never made: {surplus:?}");
        for line in self.lines("poison") {
            assert_eq!(seen.refused.get(&hash(line)).copied(), line["reason"].as_str(), "{line}");
        }
        fates
    }

    /// The boots of a device, the oldest first.
    pub fn boots(&self, device: &str) -> Vec<u64> {
        let boots = self.lines("event").filter(|line| line["device"] == device).map(|line| key(line).1);
        boots.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The lifetime injection numbers of a device, in the order of the injections.
    pub fn injection_numbers(&self, device: &str) -> Vec<u64> {
        let lines = self.lines("event").filter(|line| line["device"] == device);
        lines.filter_map(|line| line["event"]["injection"]["injectionNo"].as_str()?.parse().ok()).collect()
    }
}

/// The hash of a bad message's bytes.
fn hash(line: &Value) -> Vec<u8> {
    let hex = text(&line["payload_sha256"]);
    (0..64).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect()
}

fn key(line: &Value) -> Key {
    let boot_id = text(&line["boot_id"]).parse().expect("a boot id");
    (text(&line["device"]).to_owned(), boot_id, line["seq"].as_u64().expect("a sequence number"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn read<M: prost::Message + Default>(value: &Value, name: &str) -> M {
    json::from_json(value.to_string().as_bytes(), name).expect("canonical JSON").message
}
