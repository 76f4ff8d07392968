//! A device: the real outbox, sender and drafts, on a journal that power cuts shorten.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use device::{
    Form, Identity,
    draft::{self, Head, Writer},
    journal::Place,
    outbox::{Entry, OUTBOX_FULL, Outbox},
    sender::{self, Attached, Next, Sender},
};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use telemetry::{
    interval::Interval,
    json,
    v1::{self, Clock, Receipt, event::Kind},
};

use crate::{chance::Chance, kafka::Kafka};

/// A depth that the loaders' narrow rules refuse and the wide rules accept.
const DEEP_UM: u32 = 12_000;
const START_US: i64 = 1_700_000_000_000_000;
/// Size of an event in the outbox, bytes.
const EVENT_BYTES: u32 = 100;
const OFF_MS: u64 = 600;

/// One record of the journal.
#[derive(Clone, Debug)]
enum Noted {
    Boot(u64),
    Event(u64, Entry),
    Settled(u64, Interval),
    Lost(u64, Interval),
    LostSettled(u64, Interval),
    Made(u64, u64),
    Told(u64),
}

/// What happened to the device's events, as far as the device knows.
#[derive(Default)]
pub struct Truth {
    /// Every event that was ever made, as (boot, sequence number).
    pub made: BTreeSet<(u64, u64)>,
    /// Events that a power cut deleted before they were safe. Whether they were sent is left to
    /// chance.
    pub forgotten: BTreeSet<(u64, u64)>,
    /// Sequence numbers that the device reported as used, although it could not keep their events.
    pub forfeited: BTreeSet<(u64, u64)>,
    /// Events that the device dropped because its outbox was full.
    pub given_up: BTreeSet<(u64, u64)>,
    /// Events that were refused for good, with the hash of the payload.
    pub rejected: BTreeMap<(u64, u64), [u8; 32]>,
}

pub struct Device {
    pub identity: Identity,
    form: Form,
    options: sender::Options,
    /// How many bytes of events it keeps at most.
    room: u64,
    /// Whether the device writes everything to disk before it publishes it. Otherwise a power cut
    /// may delete published events.
    careful: bool,
    journal: Vec<Noted>,
    committed: usize,
    synced: usize,
    /// The encoded context and event.
    contents: BTreeMap<(u64, u64), (Vec<u8>, Vec<u8>)>,
    outbox: Outbox,
    sender: Sender,
    booted: Duration,
    /// The device is switched off until this time.
    off: Option<Duration>,
    /// Reports that were sent before. The device resends some of their events in other groupings.
    history: Vec<v1::Report>,
    pub truth: Truth,
}

impl Device {
    pub fn new(number: u64, chance: &mut Chance) -> Self {
        let identity = Identity::new("acme", "berlin", &format!("d{number}")).expect("valid ids");
        let mut device = Self {
            identity,
            form: if number == 3 && chance.once_in(3) { Form::Json } else { Form::Protobuf },
            options: sender::Options {
                window: 1 + chance.below(4) as usize,
                linger: chance.within(100),
                resend_first: Duration::from_millis(300),
                resend_max: Duration::from_millis(1_500),
                jitter: 0.5,
                reconnect_spread: Duration::from_millis(200),
            },
            room: u64::from(EVENT_BYTES) * if chance.once_in(3) { 8 } else { 1_000 },
            careful: chance.once_in(2),
            journal: Vec::new(),
            committed: 0,
            synced: 0,
            contents: BTreeMap::new(),
            outbox: Outbox::default(),
            sender: Sender::default(),
            booted: Duration::ZERO,
            off: None,
            history: Vec::new(),
            truth: Truth::default(),
        };
        device.boot(Duration::ZERO, chance);
        device
    }

    fn boot(&mut self, now: Duration, chance: &mut Chance) {
        let boot_id = u64::from(self.outbox.counter() + 1) << 32 | chance.below(1 << 32);
        self.outbox.begin(boot_id);
        self.note(Noted::Boot(boot_id));
        // Saved at once, because a boot id must never be used twice.
        (self.committed, self.synced) = (self.journal.len(), self.journal.len());
        (self.booted, self.off) = (now, None);
    }

    fn note(&mut self, noted: Noted) {
        self.journal.push(noted);
    }

    /// The process dies or the power fails. What is left of the journal decides what the device
    /// knows afterwards.
    pub fn fail(&mut self, now: Duration, chance: &mut Chance) {
        let keep = if self.careful || chance.once_in(2) {
            self.committed
        } else {
            self.synced + chance.below((self.committed - self.synced) as u64 + 1) as usize
        };
        let forgotten: Vec<(u64, u64)> = self.journal[keep..]
            .iter()
            .filter_map(|noted| if let Noted::Event(boot, entry) = noted { Some((*boot, entry.seq)) } else { None })
            .collect();
        self.journal.truncate(keep);
        (self.committed, self.synced) = (keep, keep);
        self.sender = Sender::default();
        self.outbox = replay(&self.journal);
        if !forgotten.is_empty() && chance.once_in(2) {
            // The device knows that it made an event that it could not keep.
            let last = forgotten.iter().map(|(_, seq)| *seq).max().unwrap_or(0);
            if let Some(boot) = self.outbox.current().map(|boot| boot.id) {
                self.outbox.made(boot, last);
                self.note(Noted::Made(boot, last));
                self.truth.forfeited.extend(&forgotten);
            }
        }
        self.truth.forgotten.extend(forgotten);
        self.off = Some(now + chance.within(OFF_MS));
    }

    /// Whether the device is on and has its network.
    pub fn is_online(&self) -> bool {
        self.sender.is_online()
    }

    /// The network appears or disappears.
    pub fn link(&mut self, is_up: bool, now: Duration, chance: &mut Chance) {
        match is_up {
            _ if self.off.is_some() => {}
            true => self.sender.connected(now, chance.fraction(), &self.options),
            false => self.sender.disconnected(),
        }
    }

    /// Whether every event of the device is settled.
    pub fn is_settled(&self) -> bool {
        self.outbox.is_settled() && self.off.is_none()
    }

    /// The device makes an event.
    pub fn make(&mut self, now: Duration, chance: &mut Chance) {
        if self.off.is_some() {
            return;
        }
        let Some((boot_id, seq)) = self.outbox.current().map(|boot| (boot.id, boot.last_seq + 1)) else { return };
        let mount = v1::MountInUse { slot: 1, mount_id: format!("m{}", chance.below(8) / 7), ..Default::default() };
        let context =
            v1::Context { model: "pen".to_owned(), mounts: vec![mount], ..Default::default() }.encode_to_vec();
        let event = v1::Event { offset_us: 0, kind: Some(kind(chance)) }.encode_to_vec();
        let uptime_us = (now - self.booted).as_micros() as u64;
        let mut hasher = DefaultHasher::new();
        context.hash(&mut hasher);
        let place = Place { segment: 0, offset: self.journal.len() as u32, length: EVENT_BYTES };
        let entry = Entry {
            seq,
            place,
            uptime_us,
            unix_us: START_US + now.as_micros() as i64,
            clock: Clock::Synced,
            context: hasher.finish(),
            context_bytes: context.len() as u32,
            event_bytes: event.len() as u32,
        };
        self.contents.insert((boot_id, seq), (context, event));
        self.outbox.keep(boot_id, entry, 0);
        self.note(Noted::Event(boot_id, entry));
        self.truth.made.insert((boot_id, seq));
        while self.outbox.bytes() > self.room
            && let Some((boot, seq)) = self.outbox.oldest(|boot, seq| !self.sender.is_in_flight(boot, seq))
        {
            let range = Interval::new(seq, seq);
            self.outbox.lose(boot, range, OUTBOX_FULL);
            self.note(Noted::Lost(boot, range));
            self.truth.given_up.insert((boot, seq));
        }
        self.sender.offered(now, &self.options);
    }

    /// Continues: restarts after a failure, or saves its events. Returns what it publishes, as
    /// topics and payloads.
    pub fn step(&mut self, now: Duration, chance: &mut Chance) -> Vec<(String, Vec<u8>)> {
        match self.off {
            Some(until) if until > now => return Vec::new(),
            Some(_) => self.boot(now, chance),
            None => {}
        }
        self.committed = self.journal.len();
        if self.careful || chance.once_in(4) {
            self.synced = self.committed;
        }
        let (topic, mut published) = (self.identity.topic(self.form.channel()), Vec::new());
        while let Some(mut next) = self.sender.next(now, &self.outbox, self.form, &self.options) {
            if !next.is_resend() {
                let lost = self.outbox.attach_lost(next.boot_id);
                next.attached = Attached { lost, earlier: self.outbox.earlier(next.boot_id) };
            }
            let report = self.report(&next);
            self.regroup(&report, chance).into_iter().for_each(|part| published.push((topic.clone(), part)));
            let payload = draft::payload(report, self.form);
            let hash = Sha256::digest(&payload).into();
            self.sender.sent(next, hash, now, chance.fraction(), &self.options);
            published.push((topic.clone(), payload));
        }
        if chance.mishap(300) {
            published.push((topic, b"\xff\xffnonsense".to_vec()));
        }
        published
    }

    /// The bytes of a report: the events of its range that are still in the outbox, up to a hole.
    fn report(&self, next: &Next) -> Vec<u8> {
        let attached = next.attached.clone();
        let mut head =
            Head { boot_id: next.boot_id, lost: attached.lost, earlier: attached.earlier, ..Head::default() };
        let boot = self.outbox.boot(next.boot_id);
        let entries =
            next.range.into_iter().flat_map(|range| boot.into_iter().flat_map(move |boot| boot.within(range)));
        let mut writer: Option<(Writer, u64)> = None;
        for entry in entries {
            let (context, event) = &self.contents[&(next.boot_id, entry.seq)];
            let (writer, expected) = writer.get_or_insert_with(|| {
                (head.first_seq, head.clock) = (entry.seq, entry.clock);
                (head.base_uptime_us, head.base_unix_us) = (entry.uptime_us, entry.unix_us);
                (Writer::new(head.clone(), context), entry.seq)
            });
            if *expected != entry.seq {
                break;
            }
            writer.event(entry.uptime_us, event);
            *expected += 1;
        }
        writer.map_or_else(|| Writer::new(head, &[]).finish(), |(writer, _)| writer.finish())
    }

    /// Resends any part of an earlier report, as devices in the field do.
    fn regroup(&mut self, report: &[u8], chance: &mut Chance) -> Option<Vec<u8>> {
        let report = v1::Report::decode(report).expect("our own report");
        if !report.events.is_empty() {
            self.history.push(report);
        }
        if self.history.is_empty() || !chance.mishap(4) {
            return None;
        }
        let mut part = self.history[chance.below(self.history.len() as u64) as usize].clone();
        let from = chance.below(part.events.len() as u64) as usize;
        let to = from + 1 + chance.below((part.events.len() - from) as u64) as usize;
        part.events = part.events[from..to].to_vec();
        part.first_seq += from as u64;
        part.lost.clear();
        Some(draft::payload(part.encode_to_vec(), self.form))
    }

    /// A receipt arrives. Events that the device deletes because of it must be in Kafka.
    pub fn receive(&mut self, payload: &[u8], now: Duration, kafka: &Kafka) -> Result<(), String> {
        if !self.is_online() || self.off.is_some() {
            return Ok(());
        }
        let receipt = match self.form {
            Form::Protobuf => Receipt::decode(payload).expect("a receipt"),
            Form::Json => json::from_json(payload, "Receipt").expect("a receipt").message,
        };
        let before = self.held();
        let settlement = self.sender.receipt(&receipt, now, &mut self.outbox);
        for (boot, seq) in before.difference(&self.held()) {
            if !kafka.has_event(&self.identity.device, *boot, *seq) {
                return Err(format!("{} let event {boot}/{seq} go, which is not in kafka", self.identity));
            }
        }
        settlement.stored.iter().for_each(|range| self.note(Noted::Settled(receipt.boot_id, *range)));
        settlement.lost.iter().for_each(|(boot, range)| self.note(Noted::LostSettled(*boot, *range)));
        settlement.told.iter().for_each(|boot| self.note(Noted::Told(*boot)));
        if let Some(rejected) = settlement.rejected {
            if !kafka.has_refused(&rejected.sha256) {
                return Err(format!("{} has a receipt for a refused report that is not in kafka", self.identity));
            }
            if let Some(range) = rejected.range {
                let held = self.held();
                let refused = held
                    .iter()
                    .filter(|(boot, seq)| *boot == rejected.boot_id && range.first <= *seq && *seq <= range.last);
                self.truth.rejected.extend(refused.map(|event| (*event, rejected.sha256)));
                self.outbox.settle(rejected.boot_id, range);
                self.note(Noted::Settled(rejected.boot_id, range));
            }
        }
        Ok(())
    }

    fn held(&self) -> BTreeSet<(u64, u64)> {
        let boots = self.outbox.boots().iter();
        boots.flat_map(|boot| boot.entries().iter().map(|entry| (boot.id, entry.seq))).collect()
    }
}

/// The outbox that results from the journal, as the device's store reads it.
fn replay(journal: &[Noted]) -> Outbox {
    let mut outbox = Outbox::default();
    for noted in journal {
        match noted {
            Noted::Boot(boot) => outbox.begin(*boot),
            Noted::Event(boot, entry) => drop(outbox.keep(*boot, *entry, 0)),
            Noted::Settled(boot, range) => drop(outbox.settle(*boot, *range)),
            Noted::Lost(boot, range) => drop(outbox.lose(*boot, *range, OUTBOX_FULL)),
            Noted::LostSettled(boot, range) => outbox.lost_settled(*boot, *range),
            Noted::Made(boot, last) => outbox.made(*boot, *last),
            Noted::Told(boot) => outbox.told(*boot),
        }
    }
    outbox
}

fn kind(chance: &mut Chance) -> Kind {
    let depth = match chance.below(40) {
        // Longer than the contract allows. The bridge refuses the report with everything else in
        // it.
        0 if !chance.calm => return Kind::Fault(v1::Fault { detail: "x".repeat(300), ..Default::default() }),
        1..5 => return Kind::Fault(v1::Fault { code: "E7".to_owned(), ..Default::default() }),
        // Implausible, so the loader refuses the event.
        5..7 => Some(60_000),
        7..10 => Some(DEEP_UM),
        10..13 => None,
        _ => Some(1_500),
    };
    Kind::Injection(v1::Injection {
        outcome: 1 + chance.below(5) as i32,
        target_nl: Some(20_000),
        delivered_nl: Some(19_000 + chance.below(2_000)),
        target_um: Some(1_500),
        measured_um: depth,
        punctures: chance.once_in(8).then_some(3),
        ..Default::default()
    })
}
