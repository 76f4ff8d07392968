//! A Kafka: logs by partition, producers whose answers are late, out of order, wrong or missing,
//! and the group's commits.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bridge::admit::Destination;
use load::{
    batch::Refusal,
    inbox::{Headers, OtherHeaders, Record},
    simulation::partition_of,
};
use sha2::{Digest as _, Sha256};
use telemetry::{kafka::SOURCE_BRIDGE, report::Report, topic::Topic};
use tokio::time::Instant;

use crate::{broker::take_due, chance::Chance};

/// Partitions of the topic of reports. The quarantine topic has one.
pub const PARTITIONS: u32 = 2;

/// One partition of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Log {
    Reports(i32),
    Quarantine,
}

pub const LOGS: [Log; 3] = [Log::Reports(0), Log::Reports(1), Log::Quarantine];

/// A record that a bridge produces.
#[derive(Clone, Debug)]
pub struct Produced {
    /// The MQTT message that it was made from.
    pub serial: u64,
    pub destination: Destination,
    pub key: Option<String>,
    pub value: Vec<u8>,
    pub topic: String,
    pub received_at: i64,
}

/// Identifies a record and its producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sent {
    pub bridge: u64,
    pub generation: u64,
    pub number: usize,
}

/// The answer to a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    Confirmed,
    Failed,
    /// The producer can send nothing more.
    Fatal,
}

pub struct Kafka {
    started: Instant,
    logs: BTreeMap<Log, Vec<Record>>,
    /// Records in flight.
    appends: Vec<(Instant, Produced)>,
    answers: Vec<(Instant, Sent, u64, Answer)>,
    /// Kafka is away until this time.
    away: Option<Instant>,
    /// Messages with a record in their log.
    appended: BTreeSet<u64>,
    /// Messages whose record was confirmed to a bridge.
    confirmed: BTreeSet<u64>,
    /// Events in the logs, as (device, boot, sequence number).
    events: BTreeSet<(String, u64, u64)>,
    /// Hashes of the payloads in quarantine.
    refused: BTreeSet<[u8; 32]>,
    /// The offsets that the group has committed. Nothing may depend on them.
    pub commits: BTreeMap<Log, u64>,
}

impl Kafka {
    pub fn new(now: Instant) -> Self {
        Self {
            started: now,
            logs: BTreeMap::new(),
            appends: Vec::new(),
            answers: Vec::new(),
            away: None,
            appended: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            events: BTreeSet::new(),
            refused: BTreeSet::new(),
            commits: BTreeMap::new(),
        }
    }

    /// The wall clock, us since 1970.
    pub fn unix_us(&self, now: Instant) -> i64 {
        1_700_000_000_000_000 + now.duration_since(self.started).as_micros() as i64
    }

    pub fn log(&self, log: Log) -> &[Record] {
        self.logs.get(&log).map_or(&[], Vec::as_slice)
    }

    pub fn has_confirmed(&self, serial: u64) -> bool {
        self.confirmed.contains(&serial)
    }

    pub fn has_event(&self, device: &str, boot_id: u64, seq: u64) -> bool {
        self.events.contains(&(device.to_owned(), boot_id, seq))
    }

    pub fn has_refused(&self, sha256: &[u8; 32]) -> bool {
        self.refused.contains(sha256)
    }

    /// Whether nothing is in flight.
    pub fn is_idle(&self) -> bool {
        self.appends.is_empty() && self.answers.is_empty()
    }

    pub fn leave(&mut self, until: Instant) {
        self.away = Some(until);
    }

    pub fn send(&mut self, now: Instant, chance: &mut Chance, sent: Sent, produced: &Produced) {
        let served = self.away.filter(|_| !chance.calm).map_or(now, |away| away.max(now));
        let append = served + chance.within(40);
        let answer = append + chance.within(if chance.calm { 20 } else { 250 });
        let mut appends = vec![append];
        let told = match if chance.calm { 99 } else { chance.below(100) } {
            // The record is written, but its answer is lost. The bridge produces it again.
            0..8 => (answer, Answer::Failed),
            8..15 => {
                appends.clear();
                (answer, Answer::Failed)
            }
            // The producer's own retry.
            15..20 => {
                appends.push(append + chance.within(300));
                (answer, Answer::Confirmed)
            }
            // The record is reported as failed, but is written later.
            20..25 => {
                appends[0] = answer + chance.within(2_000);
                (answer, Answer::Failed)
            }
            25..27 => {
                if chance.once_in(2) {
                    appends.clear();
                }
                (answer, Answer::Fatal)
            }
            // The record takes longer than a producer waits.
            _ if served > now + Duration::from_millis(600) => (now + Duration::from_millis(600), Answer::Failed),
            _ => (answer, Answer::Confirmed),
        };
        self.appends.extend(appends.into_iter().map(|at| (at, produced.clone())));
        self.answers.push((told.0, sent, produced.serial, told.1));
    }

    /// Writes the records that are due, and returns the answers to producers.
    pub fn step(&mut self, now: Instant, chance: &mut Chance) -> Vec<(Sent, Answer)> {
        for (_, produced) in take_due(&mut self.appends, now, |(at, _)| *at) {
            self.append(produced, chance);
        }
        let mut told = Vec::new();
        for (_, sent, serial, answer) in take_due(&mut self.answers, now, |(at, ..)| *at) {
            if answer == Answer::Confirmed {
                assert!(self.appended.contains(&serial), "the simulation confirms what it has not written");
                self.confirmed.insert(serial);
            }
            told.push((sent, answer));
        }
        told
    }

    fn append(&mut self, produced: Produced, chance: &mut Chance) {
        let Produced { serial, destination, key, value, topic, received_at } = produced;
        let (log, reason) = match destination {
            Destination::Quarantine(reason) => (Log::Quarantine, Some(reason.as_str().as_bytes().to_vec())),
            _ => (Log::Reports(partition_of(key.as_deref().unwrap_or("").as_bytes(), PARTITIONS)), None),
        };
        match (&reason, Report::decode(&value)) {
            (None, Ok(report)) => {
                let device = Topic::parse(&topic).expect("the bridge has parsed it").device.to_owned();
                for seq in report.sequence().into_iter().flat_map(|range| range.first..=range.last) {
                    self.events.insert((device.clone(), report.boot_id(), seq));
                }
            }
            _ => drop(self.refused.insert(Sha256::digest(&value).into())),
        }
        self.appended.insert(serial);
        chance.note(("append", log, serial));
        let source = reason.is_some().then(|| SOURCE_BRIDGE.as_bytes().to_vec());
        let headers = Headers {
            topic: Some(topic.into_bytes()),
            received_at: Some(received_at),
            others: Some(Box::new(OtherHeaders { reason, source, ..OtherHeaders::default() })),
        };
        self.push(log, Record { key: key.map(String::into_bytes), payload: value, headers, ..Record::default() });
    }

    /// Adds a loader's copy of a refused record.
    pub fn copy(&mut self, refusal: Refusal) {
        let Refusal { reason, source, topic, received_at, key, payload, .. } = refusal;
        let headers = Headers {
            topic: Some(topic.into_bytes()),
            received_at: Some(received_at),
            others: Some(Box::new(OtherHeaders {
                reason: Some(reason.as_str().as_bytes().to_vec()),
                source: Some(source.as_bytes().to_vec()),
                ..OtherHeaders::default()
            })),
        };
        self.push(Log::Quarantine, Record { key, payload, headers, ..Record::default() });
    }

    fn push(&mut self, log: Log, record: Record) {
        let log = self.logs.entry(log).or_default();
        log.push(Record { offset: log.len() as u64, ..record });
    }
}
