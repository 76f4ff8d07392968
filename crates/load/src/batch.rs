//! Turns the records of one batch into rows by table, changed ledgers and rejects.
//!
//! A record that a person replays out of quarantine takes the same path, with two differences: it
//! may bring events that its ledger holds as quarantined, and nothing of it is put into quarantine
//! twice. See `replay`. What becomes of a command is in `command`.
//!
//! Pure: the same records, ledgers and rules give the same rows, byte for byte. So another owner,
//! or the same one after a crash, can write the batch again under the same tokens.

mod command;
mod interning;
mod repeats;
mod replay;
mod runs;
#[cfg(test)]
mod tests;

use telemetry::{
    device_time,
    interval::{Interval, IntervalSet},
    kafka::{SOURCE_CHECK, SOURCE_LOADER},
    ledger::{Fate, Ledger},
    plausibility::Plausibility,
    reject::{Reason, Reject},
    report::Report,
    v1::{self, event::Kind},
};
use warehouse::columns::{Block, Common, Origin, Provenance, Quarantined};

pub(crate) use repeats::{Repeat, Repeats};

use crate::{
    batch::{
        interning::{Interned, origin},
        repeats::{ClosedRepeats, Repeating},
        runs::{Run, Source},
    },
    decode::{Decoded, Message},
    ledgers::{Boot, BootRef, Ledgers},
    tables::Tables,
};

/// Version of everything that decides which rows a batch holds, and in which bytes: decoding,
/// columns, aggregates, the Arrow library. It goes up with each change of them; a batch that
/// another version has begun is deleted and written again.
pub const DECODER_VERSION: u32 = 7;

/// What decides which rows a batch holds: the limits of what is plausible, their hash, and the
/// version of the decoder.
#[derive(Clone, Debug)]
pub struct DecodeRules {
    /// Ranges by model.
    pub plausibility: Plausibility,
    /// What a device's clock may show.
    pub device_time: device_time::Limits,
    /// Hash of both.
    pub hash: u64,
    /// [`DECODER_VERSION`], unless a test plays a loader of another version.
    pub decoder_version: u32,
}

impl DecodeRules {
    /// The rules of a configuration.
    pub fn new(plausibility: Plausibility, device_time: device_time::Limits) -> Self {
        let hash = plausibility.hash() ^ device_time.hash();
        Self { plausibility, device_time, hash, decoder_version: DECODER_VERSION }
    }
}

/// Something that this loader refused, as it is sent to Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    /// [`SOURCE_LOADER`] for a copy of what the batch itself has in quarantine, else
    /// [`telemetry::kafka::SOURCE_CHECK`].
    pub source: &'static str,
    /// What exactly was wrong.
    pub detail: String,
    pub topic: String,
    /// When the bridge received it, us since 1970.
    pub received_at: i64,
    /// Key of the record.
    pub key: Option<Vec<u8>>,
    /// Raw bytes: the record, or a report that holds the one event.
    pub payload: Vec<u8>,
}

/// Counts of one batch, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub records: u64,
    /// Events whose sequence numbers the ledger held already, as stored or quarantined. Of a replay
    /// only stored ones count.
    pub duplicates: u64,
    /// Fields and enum values that this version does not know.
    pub unknown: u64,
    /// When the bridge received the first record, us since 1970.
    pub first_received_at: Option<i64>,
}

/// A batch to which records are being added.
#[derive(Default)]
pub(crate) struct Batch<'r> {
    tables: Tables,
    interned: Interned<'r>,
    refusals: Vec<Refusal>,
    counts: Counts,
    /// What became of the events of the current record.
    outcome: RecordOutcome,
    repeats: Option<Box<Repeating<'r>>>,
}

/// What became of the events of one record.
#[derive(Debug, Default)]
struct RecordOutcome {
    stored: u64,
    refused: u64,
    /// As [`Counts::duplicates`].
    duplicates: u64,
    /// Whether a part of it stays in quarantine, as the row that is replayed.
    stays: bool,
    /// Why something was refused, the first reason.
    reject: Option<Reject>,
}

/// A batch without its records.
pub(crate) struct Closed {
    tables: Tables,
    refusals: Vec<Refusal>,
    counts: Counts,
    repeats: Option<ClosedRepeats>,
}

impl Closed {
    /// The rows, under the provenance of the batch's intent.
    pub fn finish(self, provenance: Provenance) -> PreparedBatch {
        // Most batches have none, and finishing tables without rows takes time as well.
        let repeats = self.repeats.map(|repeats| repeats.finish(provenance));
        PreparedBatch {
            blocks: self.tables.finish(provenance),
            refusals: self.refusals,
            counts: self.counts,
            repeats: repeats.unwrap_or_default(),
        }
    }
}

/// A batch that is ready to be written.
pub(crate) struct PreparedBatch {
    /// One block for each table with rows.
    pub blocks: Vec<Block>,
    /// What was refused.
    pub refusals: Vec<Refusal>,
    /// What was counted.
    pub counts: Counts,
    /// What arrived again.
    pub repeats: Repeats,
}

impl<'r> Batch<'r> {
    /// A batch of at most this many rows.
    pub fn of(rows: usize) -> Self {
        Self { tables: Tables::of(rows), ..Self::default() }
    }

    /// Adds a record. The ledgers of its boots must be open.
    pub fn add(&mut self, decoded: &Decoded<'r>, ledgers: &mut Ledgers, rules: &DecodeRules) {
        self.counts.records += 1;
        self.outcome = RecordOutcome::default();
        if decoded.replay.is_none() {
            // A replayed record may be years old, which says nothing about the latency of the path.
            self.counts.first_received_at.get_or_insert(decoded.received_at);
        }
        match &decoded.message {
            Ok(Message::Report(report)) => self.report(decoded, report, ledgers, rules),
            Ok(Message::Status(status, flags)) => self.status(decoded, status, *flags, ledgers, rules),
            Ok(Message::Quarantined { reason, source, detail }) => self.quarantined(decoded, reason, source, detail),
            Ok(Message::Command(command)) => self.command(decoded, command, ledgers),
            Ok(Message::Copy) => {}
            Err(reject) => self.refuse(decoded, reject, None),
        }
        self.counts.duplicates += self.outcome.duplicates;
        if let Some(replay) = &decoded.replay {
            self.replayed(decoded, replay);
        }
    }

    /// Ends the collection. The records can now be dropped: finishing takes as much memory again as
    /// the rows do.
    pub fn close(self) -> Closed {
        let Self { tables, refusals, counts, repeats, .. } = self;
        Closed { tables, refusals, counts, repeats: repeats.map(|repeats| repeats.close()) }
    }

    fn report(&mut self, decoded: &Decoded<'r>, report: &Report, ledgers: &mut Ledgers, rules: &DecodeRules) {
        let Some(topic) = decoded.device else { return };
        self.counts.unknown += report.unknown() as u64;
        let message = report.message();
        let none = v1::Context::default();
        let context = report.context().map_or(&none, |context| context);
        let time = rules.device_time.judge(message, decoded.received_at);
        let origin = origin(&mut self.tables, &mut self.interned, decoded, &topic, report, context, &time);
        let ranges = rules.plausibility.ranges(&context.model);
        let own = BootRef::of(&topic, report.boot_id());
        let source = Source { decoded, origin, report, ranges: &ranges, time, limits: &rules.device_time };
        match report.sequence() {
            Some(range) => {
                let boot = ledgers.get(own);
                arrived(boot, topic.site, decoded.received_at);
                match decoded.replay {
                    Some(_) => self.replay_sequenced(&source, range, &mut boot.ledger),
                    None => {
                        let (stored, quarantined) = self.sequenced(&source, range, &mut boot.ledger);
                        if !stored.intervals().is_empty() || !quarantined.intervals().is_empty() {
                            self.repeats.get_or_insert_default().add(&source, &topic, context, (stored, quarantined));
                        }
                    }
                }
                declare_lost(boot, message);
            }
            None => {
                if self.admits_unnumbered(&source, ledgers) {
                    for (index, event) in message.events.iter().enumerate() {
                        self.unsequenced(&source, index, event);
                    }
                }
                let boot = ledgers.get(own);
                arrived(boot, topic.site, decoded.received_at);
                declare_lost(boot, message);
            }
        }
        for earlier in &message.earlier_boots {
            let boot = ledgers.get(BootRef::of(&topic, earlier.boot_id));
            boot.ledger.declare_last(earlier.last_seq);
            arrived(boot, topic.site, decoded.received_at);
        }
        for event in &message.events {
            if let Some(Kind::Heartbeat(v1::Heartbeat { boot_id, last_seq: Some(last), .. })) = event.kind {
                // No boot has the id 0: `REPLAYED_BOOT` uses it.
                let boot_id = boot_id.filter(|boot_id| *boot_id > 0);
                let boot = ledgers.get(BootRef::of(&topic, boot_id.unwrap_or(report.boot_id())));
                boot.ledger.declare_last(last.min(telemetry::limits::SEQ_MAX));
                arrived(boot, topic.site, decoded.received_at);
            }
        }
    }

    /// Events with sequence numbers: what the ledger does not have yet, in runs of one fate.
    /// Returns those that are stored already, and those that are in quarantine already.
    fn sequenced(
        &mut self,
        source: &Source<'_, '_>,
        range: Interval,
        ledger: &mut Ledger,
    ) -> (IntervalSet, IntervalSet) {
        self.outcome.duplicates += range.count();
        let (mut stored, mut quarantined) = (IntervalSet::default(), IntervalSet::default());
        let mut note = |ledger: &Ledger, range: Interval| {
            ledger.stored.within(range).for_each(|known| stored.insert(known));
            ledger.quarantined.within(range).for_each(|known| quarantined.insert(known));
        };
        let mut next = range.first;
        while next <= range.last {
            // Events before `next` are in the ledger, or it had no room for them. Neither changes
            // which later events are new.
            let Some(novel) = ledger.novel(Interval::new(next, range.last)).next() else { break };
            if novel.first > next {
                note(ledger, Interval::new(next, novel.first - 1));
            }
            let run = source.run(novel.first, novel.last);
            let interval = Interval::new(novel.first, novel.first + run.count() - 1);
            self.outcome.duplicates -= interval.count();
            self.admit(source, interval, run, ledger);
            next = interval.last + 1;
        }
        if next <= range.last {
            note(ledger, Interval::new(next, range.last));
        }
        (stored, quarantined)
    }

    /// Records a run in the ledger, then stores or refuses its events.
    fn admit(&mut self, source: &Source<'_, '_>, interval: Interval, run: Run, ledger: &mut Ledger) {
        let fate = if matches!(run, Run::Stored(_)) { Fate::Stored } else { Fate::Quarantined };
        let fragmented = ledger.record(interval, fate).err();
        let first = source.report.message().first_seq;
        for (place, seq) in (interval.first..=interval.last).enumerate() {
            let index = (seq - first) as usize;
            match (&fragmented, &run) {
                (Some(fragmented), _) => {
                    let reject = Reject::new(Reason::Fragmented, fragmented.to_string());
                    self.refuse(source.decoded, &reject, Some((source.report, index)));
                }
                (None, Run::Quarantined(rejects)) => {
                    self.refuse(source.decoded, &rejects[place], Some((source.report, index)));
                }
                (None, Run::Stored(_)) => {
                    self.store(source, index, seq);
                }
            }
        }
    }

    fn store(&mut self, source: &Source<'_, '_>, index: usize, seq: u64) {
        let event = &source.report.message().events[index];
        self.outcome.stored += 1;
        // An event that cannot be used is not stored; nearly none has a flag of its own.
        let flags = source.report.texts(index).unwrap_or(0);
        let flagged = Origin { flags: flags | source.origin.flags, ..source.origin };
        let origin = if flags == 0 { &source.origin } else { &flagged };
        if let Some(implausible) = source.time.implausible(event) {
            self.tables.implausible(origin, seq, &implausible);
        }
        let (withdrawn, implausible) = source.limits.withdraw(event, source.decoded.received_at);
        for implausible in &implausible {
            self.tables.implausible(origin, seq, implausible);
        }
        self.tables.event(origin, seq, source.time.at(event), &withdrawn);
    }

    /// Adds a heartbeat outside the sequence. No ledger remembers it, and the device never repeats
    /// it.
    fn unsequenced(&mut self, source: &Source<'_, '_>, index: usize, event: &v1::Event) {
        match source.check(index, event) {
            Ok(()) => self.store(source, index, 0),
            Err(reject) => self.refuse(source.decoded, &reject, Some((source.report, index))),
        }
    }

    fn status(
        &mut self,
        decoded: &Decoded<'_>,
        status: &v1::Status,
        flags: u32,
        ledgers: &mut Ledgers,
        rules: &DecodeRules,
    ) {
        let Some(topic) = decoded.device else { return };
        if decoded.replay.is_some() && !self.admits_number(decoded, &topic, 1, ledgers) {
            return;
        }
        self.outcome.stored += 1;
        let common = self.tables.common(&Common {
            tenant: topic.tenant,
            site: topic.site,
            device: topic.device,
            time_source: "RECEIVED",
            model: &status.model,
            firmware: &status.firmware,
            session_id: "",
            clock: "UNKNOWN",
            dose_calibration_id: "",
            depth_calibration_id: "",
            preparation_id: "",
            operator_id: "",
            mounts: &[],
        });
        let origin = Origin {
            common,
            boot_id: status.boot_id.unwrap_or(0),
            received_at: decoded.received_at,
            kafka_offset: decoded.record.offset,
            operator_id: "",
            flags,
        };
        let (status, implausible) = rules.device_time.withdraw_of_status(status, decoded.received_at);
        if let Some(implausible) = implausible {
            self.tables.implausible(&origin, 0, &implausible);
        }
        self.tables.status(&origin, decoded.received_at, &status);
        if let Some(boot_id) = status.boot_id.filter(|boot_id| *boot_id > 0) {
            let boot = ledgers.get(BootRef::of(&topic, boot_id));
            arrived(boot, topic.site, decoded.received_at);
            boot.ledger.declare_last(status.last_seq.unwrap_or(0));
        }
    }

    fn quarantined(&mut self, decoded: &Decoded<'_>, reason: &str, source: &str, detail: &str) {
        let topic = decoded.device;
        let checked = (source == SOURCE_CHECK).then(|| Report::decode(&decoded.record.payload).ok()).flatten();
        let (boot_id, seq) =
            checked.map_or((0, 0), |report| (report.boot_id(), report.sequence().map_or(0, |sequence| sequence.first)));
        self.tables.quarantine(&Quarantined {
            reason,
            detail,
            topic: &decoded.topic,
            source,
            payload: &decoded.record.payload,
            received_at: decoded.received_at,
            tenant: topic.map_or("", |topic| topic.tenant),
            site: topic.map_or("", |topic| topic.site),
            device: topic.map_or("", |topic| topic.device),
            boot_id,
            seq,
            injection_no: None,
            kafka_offset: decoded.record.offset,
        });
    }

    /// Refuses a record, or one event of its report.
    fn refuse(&mut self, decoded: &Decoded<'_>, reject: &Reject, event: Option<(&Report, usize)>) {
        let topic = decoded.device;
        let record = decoded.record;
        let (boot_id, seq) = event.map_or((0, 0), |(report, index)| {
            let seq = report.sequence().map_or(0, |range| range.first + index as u64);
            (report.boot_id(), seq)
        });
        self.outcome.refused += 1;
        self.outcome.reject.get_or_insert_with(|| reject.clone());
        if replay::stands(decoded, event.map(|_| seq)) {
            self.outcome.stays = true;
            return;
        }
        let payload = match event {
            Some((report, index)) => report.excerpt(&record.payload, index),
            None => record.payload.clone(),
        };
        self.tables.quarantine(&Quarantined {
            reason: reject.reason.as_str(),
            detail: &reject.detail,
            topic: &decoded.topic,
            source: SOURCE_LOADER,
            payload: &payload,
            received_at: decoded.received_at,
            tenant: topic.map_or("", |topic| topic.tenant),
            site: topic.map_or("", |topic| topic.site),
            device: topic.map_or("", |topic| topic.device),
            boot_id,
            seq,
            injection_no: event.and_then(|(report, index)| injection_no(&report.message().events[index])),
            kafka_offset: record.offset,
        });
        self.refusals.push(Refusal {
            reason: reject.reason,
            source: SOURCE_LOADER,
            detail: reject.detail.clone(),
            topic: decoded.topic.clone().into_owned(),
            received_at: decoded.received_at,
            key: record.key.clone(),
            payload,
        });
    }
}

/// Notes that a report of the boot arrived, or one that mentions it: `delivery_gaps.since` is this
/// time.
fn arrived(boot: &mut Boot, site: &str, received_at: i64) {
    if received_at >= boot.last_arrival {
        boot.last_arrival = received_at;
        if boot.site != site {
            site.clone_into(&mut boot.site);
        }
    }
}

fn injection_no(event: &v1::Event) -> Option<u64> {
    match &event.kind {
        Some(Kind::Injection(injection)) => injection.injection_no,
        _ => None,
    }
}

/// A range that the ledger has no room for stays visible as missing, which is also true.
fn declare_lost(boot: &mut Boot, message: &v1::Report) {
    for lost in &message.lost {
        if boot.ledger.declare_lost(Interval::new(lost.first_seq, lost.last_seq)).is_ok() {
            lost.reason.clone_into(&mut boot.lost_reason);
        }
    }
}
