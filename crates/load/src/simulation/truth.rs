//! Checks the tables at the end of a simulation.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a failed check is how a simulation fails")]

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::{
    Array as _, RecordBatch,
    cast::AsArray as _,
    types::{Int64Type, TimestampMicrosecondType, UInt16Type, UInt32Type, UInt64Type},
};
use telemetry::interval::IntervalSet;
#[cfg(test)]
use telemetry::{interval::Interval, report::Report};
use warehouse::columns::LedgerRow;

use super::engine::Engine;
#[cfg(test)]
use super::log::Log;

/// Device, boot, sequence number.
pub type Identity = (String, u64, u64);

fn text(rows: &RecordBatch, column: &str, row: usize) -> String {
    let alone = rows.column_by_name(column).unwrap().slice(row, 1);
    if let Some(texts) = alone.as_string_opt::<i32>() {
        return texts.value(0).to_owned();
    }
    let alone = alone.as_any_dictionary();
    alone.values().as_string::<i32>().value(alone.normalized_keys()[0]).to_owned()
}

fn number(rows: &RecordBatch, column: &str, row: usize) -> u64 {
    rows.column_by_name(column).unwrap().as_primitive::<UInt64Type>().value(row)
}

/// The contents of the engine's tables.
#[derive(Debug, Default)]
pub struct Contents {
    /// Events in the tables of their kind.
    pub facts: BTreeSet<Identity>,
    /// Events in quarantine and nowhere else.
    pub quarantined: BTreeSet<Identity>,
    /// Events in quarantine that a replay has brought to their tables.
    pub released: BTreeSet<Identity>,
    /// Payloads in quarantine that are no event of a boot.
    pub raw: Vec<Vec<u8>>,
    /// The latest ledger of each device's boot.
    pub ledgers: BTreeMap<(String, u64), LedgerRow>,
}

impl Contents {
    /// Reads all tables and checks that they agree: each event is there once, the ledgers hold
    /// exactly the stored events, the sums equal their recomputation.
    pub fn of(engine: &Engine) -> Self {
        let mut standing = Self::default();
        let Self { facts, quarantined, released, raw, ledgers } = &mut standing;
        for part in engine.parts() {
            let rows = &part.rows;
            for row in 0..rows.num_rows() {
                let identity = || (text(rows, "device", row), number(rows, "boot_id", row), number(rows, "seq", row));
                match part.table {
                    "injections" | "faults" => {
                        assert!(facts.insert(identity()), "twice in {}: {:?}", part.table, identity());
                    }
                    "quarantine" if number(rows, "boot_id", row) == 0 => {
                        let payload = rows.column_by_name("payload").unwrap().as_binary::<i32>();
                        raw.push(payload.value(row).to_vec());
                    }
                    "quarantine" => {
                        assert!(quarantined.insert(identity()), "twice in quarantine: {:?}", identity());
                    }
                    _ => {}
                }
            }
        }
        *released = facts.intersection(quarantined).cloned().collect();
        quarantined.retain(|identity| !released.contains(identity));
        *ledgers = latest(engine);
        agree(ledgers, facts, quarantined);
        aggregates(engine);
        standing
    }
}

/// Checks the tables against the log and against each other. Returns the number of events that
/// replays have released.
#[cfg(test)]
pub(super) fn check(engine: &Engine, log: &Log) -> usize {
    let standing = Contents::of(engine);
    let (sent, unreadable) = sent(log);
    let everything: BTreeSet<Identity> = standing.facts.union(&standing.quarantined).cloned().collect();
    assert_eq!(everything, sent, "not what was sent");
    assert_eq!(standing.raw.len(), unreadable, "unreadable records");
    assert!(standing.released.is_subset(&replayed(log)), "in a table and in quarantine without a replay");
    standing.released.len()
}

#[cfg(test)]
fn replayed(log: &Log) -> BTreeSet<Identity> {
    let marked = Log {
        records: log.records.iter().filter(|record| record.headers.others().replay.is_some()).cloned().collect(),
    };
    sent(&marked).0
}

#[cfg(test)]
fn sent(log: &Log) -> (BTreeSet<Identity>, usize) {
    let (mut sent, mut unreadable) = (BTreeSet::new(), 0);
    for record in &log.records {
        let topic = String::from_utf8(record.headers.topic.clone().unwrap()).unwrap();
        let device = topic.split('/').nth(4).unwrap().to_owned();
        match Report::decode(&record.payload) {
            Ok(report) => {
                if let Some(Interval { first, last }) = report.sequence() {
                    sent.extend((first..=last).map(|seq| (device.clone(), report.boot_id(), seq)));
                }
            }
            Err(_) => unreadable += 1,
        }
    }
    (sent, unreadable)
}

fn latest(engine: &Engine) -> BTreeMap<(String, u64), LedgerRow> {
    let mut latest: BTreeMap<(String, u64), ((u64, u32), LedgerRow)> = BTreeMap::new();
    for (committed, row) in engine.states() {
        let age = (committed.batch_end, committed.generation);
        let key = (row.device.clone(), row.boot_id);
        if latest.get(&key).is_none_or(|(known, _)| *known <= age) {
            latest.insert(key, (age, row));
        }
    }
    latest.into_iter().map(|(key, (_, row))| (key, row)).collect()
}

/// Checks that the latest ledger of each boot holds exactly the events in the tables.
fn agree(ledgers: &BTreeMap<(String, u64), LedgerRow>, facts: &BTreeSet<Identity>, quarantine: &BTreeSet<Identity>) {
    let (mut stored, mut quarantined) = (BTreeSet::new(), BTreeSet::new());
    let spread = |set: &IntervalSet, key: &(String, u64), all: &mut BTreeSet<Identity>| {
        for interval in set.intervals() {
            all.extend((interval.first..=interval.last).map(|seq| (key.0.clone(), key.1, seq)));
        }
    };
    for (key, row) in ledgers {
        spread(&row.ledger.stored, key, &mut stored);
        spread(&row.ledger.quarantined, key, &mut quarantined);
    }
    assert_eq!(&stored, facts, "ledgers and facts differ");
    assert_eq!(&quarantined, quarantine, "ledgers and quarantine differ");
}

/// Count, sum of errors and sum of squares of dose and depth; use of mounts.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    injections: u64,
    ok: u64,
    dose_n: u64,
    dose_error: i64,
    dose_error_sq: u64,
    depth_n: u64,
    depth_error: i64,
}

/// Checks that the sums equal their recomputation from the base rows.
fn aggregates(engine: &Engine) {
    let (mut expected, mut minutes, mut sessions) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let (mut expected_uses, mut uses) = (BTreeMap::new(), BTreeMap::new());
    for part in engine.parts() {
        let rows = &part.rows;
        for row in 0..rows.num_rows() {
            match part.table {
                "injections" => {
                    let at = rows.column_by_name("at").unwrap().as_primitive::<TimestampMicrosecondType>().value(row);
                    let device = text(rows, "device", row);
                    base(rows, row, expected.entry((device.clone(), at / 60_000_000)).or_default());
                    let mount = text(rows, "needle_mount_id", row);
                    let punctures = rows.column_by_name("punctures").unwrap().as_primitive::<UInt16Type>();
                    let punctures = if punctures.is_null(row) { 1 } else { u64::from(punctures.value(row)) };
                    let entry: &mut (u64, u64) = expected_uses.entry((device, mount)).or_default();
                    *entry = (entry.0 + 1, entry.1 + punctures);
                }
                "accuracy_minute" => {
                    let minute = rows.column_by_name("minute").unwrap().as_primitive::<UInt32Type>().value(row);
                    let key = (text(rows, "device", row), i64::from(minute) / 60);
                    partial(rows, row, minutes.entry(key).or_default());
                }
                "accuracy_session" => partial(rows, row, sessions.entry(text(rows, "device", row)).or_default()),
                "item_uses" => {
                    let key = (text(rows, "device", row), text(rows, "mount_id", row));
                    let entry: &mut (u64, u64) = uses.entry(key).or_default();
                    *entry = (entry.0 + number(rows, "injections", row), entry.1 + number(rows, "punctures", row));
                }
                _ => {}
            }
        }
    }
    assert_eq!(minutes, expected, "accuracy_minute");
    assert_eq!(uses, expected_uses, "item_uses");
    let mut by_device: BTreeMap<String, Sums> = BTreeMap::new();
    for ((device, _), sums) in expected {
        let total = by_device.entry(device).or_default();
        total.injections += sums.injections;
        total.ok += sums.ok;
        total.dose_n += sums.dose_n;
        total.dose_error += sums.dose_error;
        total.dose_error_sq += sums.dose_error_sq;
        total.depth_n += sums.depth_n;
        total.depth_error += sums.depth_error;
    }
    assert_eq!(sessions, by_device, "accuracy_session");
}

fn base(rows: &RecordBatch, row: usize, sums: &mut Sums) {
    let dose = |column: &str| rows.column_by_name(column).unwrap().as_primitive::<UInt32Type>().value(row);
    let error = i64::from(dose("delivered_nl")) - i64::from(dose("target_nl"));
    sums.injections += 1;
    sums.ok += u64::from(text(rows, "outcome", row) == "OK");
    sums.dose_n += 1;
    sums.dose_error += error;
    sums.dose_error_sq += error.unsigned_abs().pow(2);
    let depth = |column: &str| rows.column_by_name(column).unwrap().as_primitive::<UInt16Type>().clone();
    if !depth("measured_um").is_null(row) {
        sums.depth_n += 1;
        sums.depth_error += i64::from(depth("measured_um").value(row)) - i64::from(depth("target_um").value(row));
    }
}

fn partial(rows: &RecordBatch, row: usize, sums: &mut Sums) {
    let signed = |column: &str| rows.column_by_name(column).unwrap().as_primitive::<Int64Type>().value(row);
    sums.injections += number(rows, "injections", row);
    sums.ok += number(rows, "ok", row);
    sums.dose_n += number(rows, "dose_n", row);
    sums.dose_error += signed("dose_error_nl");
    sums.dose_error_sq += number(rows, "dose_error_sq", row);
    sums.depth_n += number(rows, "depth_n", row);
    sums.depth_error += signed("depth_error_um");
}
