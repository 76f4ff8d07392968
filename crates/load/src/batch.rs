//! What the records of one batch come to: rows by table, changed ledgers, rejects.
//!
//! A record that a person replays out of quarantine goes the same way, except that it may also
//! bring what its ledger has as quarantined, and that nothing of it is put into quarantine twice;
//! see `replay`.
//!
//! Pure: the same records, ledgers and rules give the same rows, byte for byte. That is what lets
//! another owner, or the same after a crash, write the batch again under the same tokens.

mod replay;

use std::{collections::HashMap, sync::Arc};

use foldhash::quality::RandomState;
use telemetry::{
    device_time::{self, Judged},
    interval::{Interval, IntervalSet},
    kafka::{SOURCE_CHECK, SOURCE_LOADER},
    ledger::{Fate, Ledger},
    plausibility::{Plausibility, Ranges, check},
    reject::{Reason, Reject},
    report::Report,
    topic::Topic,
    v1::{self, event::Kind},
};
use warehouse::{
    columns::{Block, Common, IMPLAUSIBLE_TIME, Origin, Provenance, Quarantined, UNKNOWN_FIELDS},
    loader::BootKey,
};

use crate::{
    decode::{Decoded, Message},
    ledgers::{Boot, BootRef, Ledgers},
    tables::Tables,
    wire,
};

/// Version of everything that decides which rows a batch holds, and in which bytes: decoding,
/// columns, aggregates, the Arrow library. It goes up with each change of them; a batch that
/// another version has begun is deleted and written again.
pub const DECODER_VERSION: u32 = 7;

/// What decides which rows a batch holds: what is plausible, with its hash, and the version of the
/// decoder.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Ranges by model.
    pub plausibility: Plausibility,
    /// What a device's clock may show.
    pub device_time: device_time::Limits,
    /// Hash of both.
    pub hash: u64,
    /// [`DECODER_VERSION`]; another one only where a loader of another version is played.
    pub decoder_version: u32,
}

impl Rules {
    /// The rules of a configuration.
    pub fn new(plausibility: Plausibility, device_time: device_time::Limits) -> Self {
        let hash = plausibility.hash() ^ device_time.hash();
        Self { plausibility, device_time, hash, decoder_version: DECODER_VERSION }
    }
}

/// Something this loader refused, as it goes to Kafka.
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

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub records: u64,
    /// Events that were there already.
    pub duplicates: u64,
    /// Fields and enum values this version does not know.
    pub unknown: u64,
    /// When the bridge received the first record, us since 1970.
    pub first_received_at: Option<i64>,
}

/// A batch that is being made of records.
#[derive(Default)]
pub(crate) struct Batch<'r> {
    tables: Tables,
    numbers: Numbers<'r>,
    refusals: Vec<Refusal>,
    counts: Counts,
    /// What came of the events of the record at hand.
    tally: Tally,
    repeats: Option<Box<Repeating<'r>>>,
}

/// Events that are stored already and arrived again, as the rows that they would be.
#[derive(Default)]
struct Repeating<'r> {
    tables: Tables,
    numbers: Numbers<'r>,
    records: Vec<Repeat>,
}

/// A record with events that were stored, or put into quarantine, before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repeat {
    pub boot: BootKey,
    /// Sequence numbers of these events.
    pub seqs: IntervalSet,
    /// Sequence numbers of events whose first content is in quarantine.
    pub quarantined: IntervalSet,
    /// Offset of the record.
    pub offset: u64,
    pub topic: String,
    /// When the bridge received it, us since 1970.
    pub received_at: i64,
    /// Key of the record.
    pub key: Option<Vec<u8>>,
    pub payload: Vec<u8>,
}

/// Events that arrived again, to be compared with what is stored.
#[derive(Default)]
pub(crate) struct Repeats {
    /// The rows that they would be.
    pub blocks: Vec<Block>,
    /// Where they came from.
    pub records: Vec<Repeat>,
}

/// What came of the events of one record.
#[derive(Debug, Default)]
struct Tally {
    stored: u64,
    refused: u64,
    /// Events that were stored before.
    duplicates: u64,
    /// Whether something of it stays where it was: in quarantine, as the row that is replayed.
    stays: bool,
    /// Why something was refused, the first reason.
    reject: Option<Reject>,
}

/// A batch without its records.
pub(crate) struct Closed {
    tables: Tables,
    refusals: Vec<Refusal>,
    counts: Counts,
    repeats: Option<(Tables, Vec<Repeat>)>,
}

impl Closed {
    /// The rows, under the provenance of the batch's intent.
    pub fn finish(self, provenance: Provenance) -> Written {
        // Most batches have none, and tables without rows take their time as well.
        let repeats = self.repeats.map(|(tables, records)| Repeats { blocks: tables.finish(provenance), records });
        Written {
            blocks: self.tables.finish(provenance),
            refusals: self.refusals,
            counts: self.counts,
            repeats: repeats.unwrap_or_default(),
        }
    }
}

/// A batch that is ready to be written.
pub(crate) struct Written {
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
    /// A batch that will have so many rows at most.
    pub fn of(rows: usize) -> Self {
        Self { tables: Tables::of(rows), ..Self::default() }
    }

    /// Adds a record. The ledgers of its boots must be open.
    pub fn add(&mut self, decoded: &Decoded<'r>, ledgers: &mut Ledgers, rules: &Rules) {
        self.counts.records += 1;
        self.tally = Tally::default();
        if decoded.replay.is_none() {
            // A replay brings the time of years ago, which says nothing about the path's latency.
            self.counts.first_received_at.get_or_insert(decoded.received_at);
        }
        match &decoded.message {
            Ok(Message::Report(report)) => self.report(decoded, report, ledgers, rules),
            Ok(Message::Status(status, flags)) => self.status(decoded, status, *flags, ledgers, rules),
            Ok(Message::Quarantined { reason, source, detail }) => self.quarantined(decoded, reason, source, detail),
            Ok(Message::Copy) => {}
            Err(reject) => self.refuse(decoded, reject, None),
        }
        self.counts.duplicates += self.tally.duplicates;
        if let Some(replay) = &decoded.replay {
            self.replayed(decoded, replay);
        }
    }

    /// All records are in it, and it needs them no more: finishing takes as much memory again as
    /// the rows do.
    pub fn close(self) -> Closed {
        let Self { tables, refusals, counts, repeats, .. } = self;
        Closed { tables, refusals, counts, repeats: repeats.map(|repeats| (repeats.tables, repeats.records)) }
    }

    fn report(&mut self, decoded: &Decoded<'r>, report: &Report, ledgers: &mut Ledgers, rules: &Rules) {
        let Some(topic) = decoded.device else { return };
        self.counts.unknown += report.unknown() as u64;
        let message = report.message();
        let none = v1::Context::default();
        let context = report.context().map_or(&none, |context| context);
        let time = rules.device_time.judge(message, decoded.received_at);
        let origin = origin(&mut self.tables, &mut self.numbers, decoded, &topic, report, context, &time);
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
                // A boot 0 is none; its place is taken, see `REPLAYED_BOOT`.
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
        self.tally.duplicates += range.count();
        let (mut stored, mut quarantined) = (IntervalSet::default(), IntervalSet::default());
        let mut note = |ledger: &Ledger, range: Interval| {
            ledger.stored.within(range).for_each(|known| stored.insert(known));
            ledger.quarantined.within(range).for_each(|known| quarantined.insert(known));
        };
        let mut next = range.first;
        while next <= range.last {
            // What comes before `next` is settled and changes nothing about what is new behind it.
            let Some(novel) = ledger.novel(Interval::new(next, range.last)).next() else { break };
            if novel.first > next {
                note(ledger, Interval::new(next, novel.first - 1));
            }
            let run = source.run(novel.first, novel.last);
            let interval = Interval::new(novel.first, novel.first + run.rejects_or_count() - 1);
            self.tally.duplicates -= interval.count();
            self.settle(source, interval, run, ledger);
            next = interval.last + 1;
        }
        if next <= range.last {
            note(ledger, Interval::new(next, range.last));
        }
        (stored, quarantined)
    }

    /// Puts a run of one fate into the ledger, then where it belongs.
    fn settle(&mut self, source: &Source<'_, '_>, interval: Interval, run: Run, ledger: &mut Ledger) {
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
        self.tally.stored += 1;
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

    /// A heartbeat outside the sequence: nothing to remember, and nothing to send again.
    fn unsequenced(&mut self, source: &Source<'_, '_>, index: usize, event: &v1::Event) {
        match source.check(index, event) {
            Ok(()) => self.store(source, index, 0),
            Err(reject) => self.refuse(source.decoded, &reject, Some((source.report, index))),
        }
    }

    fn status(&mut self, decoded: &Decoded<'_>, status: &v1::Status, flags: u32, ledgers: &mut Ledgers, rules: &Rules) {
        let Some(topic) = decoded.device else { return };
        if decoded.replay.is_some() && !self.admits_number(decoded, &topic, 1, ledgers) {
            return;
        }
        self.tally.stored += 1;
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
        self.tally.refused += 1;
        self.tally.reject.get_or_insert_with(|| reject.clone());
        if replay::stands(decoded, event.map(|_| seq)) {
            self.tally.stays = true;
            return;
        }
        let payload = match event {
            Some((report, index)) => wire::single(report, &record.payload, index),
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

/// What the rows of a report's events have in common.
fn origin<'r, 'a>(
    tables: &mut Tables,
    numbers: &mut Numbers<'r>,
    decoded: &Decoded<'r>,
    topic: &Topic<'_>,
    report: &Report,
    context: &'a v1::Context,
    time: &Judged,
) -> Origin<'a> {
    let new = || {
        let mut digits = [0; 32];
        tables.common(&Common {
            tenant: topic.tenant,
            site: topic.site,
            device: topic.device,
            time_source: if time.is_device() { "DEVICE" } else { "RECEIVED" },
            model: &context.model,
            firmware: &context.firmware,
            session_id: hex(&context.session_id, &mut digits),
            clock: match report.message().clock() {
                v1::Clock::Synced => "SYNCED",
                v1::Clock::Unsynced => "UNSYNCED",
                v1::Clock::Unknown | v1::Clock::Unspecified => "UNKNOWN",
            },
            dose_calibration_id: &context.dose_calibration_id,
            depth_calibration_id: &context.depth_calibration_id,
            preparation_id: &context.preparation_id,
            operator_id: &context.operator_id,
            mounts: &context.mounts,
        })
    };
    Origin {
        common: numbers.of(decoded, report, time.is_device(), new),
        boot_id: report.boot_id(),
        received_at: decoded.received_at,
        kafka_offset: decoded.record.offset,
        operator_id: &context.operator_id,
        flags: if report.unknown() > 0 { UNKNOWN_FIELDS } else { 0 }
            | if time.doubt.is_some() { IMPLAUSIBLE_TIME } else { 0 },
    }
}

/// Numbers of what reports have in common, see [`Origin::common`].
#[derive(Default)]
struct Numbers<'r> {
    /// With each number its context: while that is kept, no other can come to lie where it lies.
    known: HashMap<Likeness<'r>, (u32, Option<Arc<v1::Context>>), RandomState>,
}

/// What tells that reports have a number in common: where their context lies, their topic, their
/// clock, and whether it is believed.
type Likeness<'r> = (usize, &'r [u8], i32, bool);

/// Most of them that are kept.
const KNOWN_MAX: usize = 4_096;

impl<'r> Numbers<'r> {
    fn of(&mut self, decoded: &Decoded<'r>, report: &Report, is_device: bool, new: impl FnOnce() -> u32) -> u32 {
        let context = report.context();
        let topic = decoded.record.headers.topic.as_deref().unwrap_or_default();
        let lies_at = context.map_or(0, |context| Arc::as_ptr(context).addr());
        let key = (lies_at, topic, report.message().clock, is_device);
        if let Some((number, _)) = self.known.get(&key) {
            return *number;
        }
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        let number = new();
        self.known.insert(key, (number, context.cloned()));
        number
    }
}

impl<'r> Repeating<'r> {
    fn add(
        &mut self,
        source: &Source<'_, 'r>,
        topic: &Topic<'_>,
        context: &v1::Context,
        (seqs, quarantined): (IntervalSet, IntervalSet),
    ) {
        let Source { decoded, report, time, limits, .. } = source;
        let origin = origin(&mut self.tables, &mut self.numbers, decoded, topic, report, context, time);
        let message = report.message();
        for seq in seqs.intervals().iter().flat_map(|known| known.first..=known.last) {
            let event = &message.events[(seq - message.first_seq) as usize];
            let (withdrawn, _) = limits.withdraw(event, decoded.received_at);
            self.tables.fact(&origin, seq, time.at(event), &withdrawn);
        }
        let (tenant, device) = (topic.tenant.to_owned(), topic.device.to_owned());
        self.records.push(Repeat {
            boot: BootKey { tenant, device, boot_id: report.boot_id() },
            seqs,
            quarantined,
            offset: decoded.record.offset,
            topic: decoded.topic.clone().into_owned(),
            received_at: decoded.received_at,
            key: decoded.record.key.clone(),
            payload: decoded.record.payload.clone(),
        });
    }
}

/// A report that is being taken apart.
struct Source<'a, 'r> {
    decoded: &'a Decoded<'r>,
    origin: Origin<'a>,
    report: &'a Report,
    ranges: &'a Ranges,
    time: Judged,
    limits: &'a device_time::Limits,
}

/// Neighbouring events of one fate.
enum Run {
    /// So many plausible ones.
    Stored(u64),
    /// Implausible ones, and why.
    Quarantined(Vec<Reject>),
}

impl Run {
    fn rejects_or_count(&self) -> u64 {
        match self {
            Self::Stored(count) => *count,
            Self::Quarantined(rejects) => rejects.len() as u64,
        }
    }
}

impl Source<'_, '_> {
    fn check(&self, index: usize, event: &v1::Event) -> Result<(), Reject> {
        if let Err(reject) = self.report.texts(index) {
            return Err(reject.clone());
        }
        check(event, self.time.at(event), self.ranges)
    }

    /// The longest run from `next` on, up to `last`.
    fn run(&self, next: u64, last: u64) -> Run {
        let message = self.report.message();
        let (first, last) = ((next - message.first_seq) as usize, (last - message.first_seq) as usize);
        let mut run: Option<Run> = None;
        for (index, event) in (first..).zip(&message.events[first..=last]) {
            run = Some(match (run, self.check(index, event)) {
                (None, Ok(())) => Run::Stored(1),
                (None, Err(reject)) => Run::Quarantined(vec![reject]),
                (Some(Run::Stored(count)), Ok(())) => Run::Stored(count + 1),
                (Some(Run::Quarantined(mut rejects)), Err(reject)) => {
                    rejects.push(reject);
                    Run::Quarantined(rejects)
                }
                (Some(run), _) => return run,
            });
        }
        run.unwrap_or(Run::Stored(1))
    }
}

/// A report of the boot has arrived, or one that tells of it: `delivery_gaps.since` is this time.
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

/// A range the ledger has no room for stays visible as missing, which is true as well.
fn declare_lost(boot: &mut Boot, message: &v1::Report) {
    for lost in &message.lost {
        if boot.ledger.declare_lost(Interval::new(lost.first_seq, lost.last_seq)).is_ok() {
            lost.reason.clone_into(&mut boot.lost_reason);
        }
    }
}

/// Lower-case hexadecimal of at most 16 bytes.
fn hex<'d>(bytes: &[u8], digits: &'d mut [u8; 32]) -> &'d str {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(digits.chunks_exact_mut(2)) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    std::str::from_utf8(&digits[..2 * bytes.len().min(16)]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use arrow_array::{
        cast::AsArray as _,
        types::{Int64Type, TimestampMicrosecondType, UInt32Type, UInt64Type},
    };
    use prost::Message as _;
    use telemetry::report::Contexts;

    use super::*;
    use crate::{
        decode::{Content, Place, decode},
        inbox::{Headers, Record},
    };

    const PLACE: Place = Place { content: Content::Reports, partition: 0, partitions: 1 };

    fn record(offset: u64, device: &str, model: &str, clock: v1::Clock) -> Record {
        let mount = v1::MountInUse { slot: 1, mount_id: format!("{model}-m"), item_id: String::new() };
        let context = v1::Context { model: model.to_owned(), mounts: vec![mount], ..v1::Context::default() };
        let event = v1::Event { offset_us: 0, kind: Some(Kind::Injection(v1::Injection::default())) };
        let report = v1::Report {
            boot_id: 1,
            first_seq: offset + 1,
            base_unix_us: 1_767_225_600_000_000,
            clock: clock.into(),
            context: Some(context),
            events: vec![event],
            ..v1::Report::default()
        };
        let headers = Headers {
            topic: Some(format!("doseline/v1/acme/berlin/{device}/report").into_bytes()),
            received_at: Some(1_767_225_600_000_000),
            ..Headers::default()
        };
        let key = Some(format!("acme/{device}").into_bytes());
        Record { offset, key, payload: report.encode_to_vec(), headers, ..Record::default() }
    }

    /// The texts of a column, row by row.
    fn texts(written: &Written, table: &str, column: &str) -> Vec<String> {
        let block = written.blocks.iter().find(|block| block.table() == table).unwrap();
        let rows = block.record_batch(0).unwrap();
        let column = rows.column_by_name(column).unwrap();
        let Some(texts) = column.as_any_dictionary_opt() else {
            return column.as_string::<i32>().iter().map(|text| text.unwrap().to_owned()).collect();
        };
        let values = texts.values().as_string::<i32>();
        texts.normalized_keys().into_iter().map(|key| values.value(key).to_owned()).collect()
    }

    /// The rows of one record, with the usual rules.
    fn written(record: &Record, content: Content) -> Written {
        let (mut ledgers, mut batch, mut contexts) = (Ledgers::unbounded(), Batch::default(), Contexts::default());
        let decoded = decode(record, Place { content, ..PLACE }, &mut contexts);
        let missing = ledgers.open(decoded.boots());
        ledgers.fill(missing, Vec::new());
        batch.add(&decoded, &mut ledgers, &Rules::new(Plausibility::default(), device_time::Limits::default()));
        batch.close().finish(Provenance { ingest_day: 20_000, incarnation: 1, partition: 0, batch: 0 })
    }

    /// The times of a column, row by row.
    fn times(written: &Written, table: &str, column: &str) -> Vec<Option<i64>> {
        let block = written.blocks.iter().find(|block| block.table() == table).unwrap();
        let rows = block.record_batch(0).unwrap();
        let column = rows.column_by_name(column).unwrap();
        match column.as_primitive_opt::<TimestampMicrosecondType>() {
            Some(times) => times.iter().collect(),
            None => column.as_primitive::<Int64Type>().iter().collect(),
        }
    }

    const RECEIVED_US: i64 = 1_767_225_600_000_000;
    /// Columns of the times that devices tell, by table.
    const TIMES: [(&str, &str); 9] = [
        ("sessions", "allergy_at"),
        ("preparations", "prepared_at"),
        ("preparations", "use_by"),
        ("preparations", "opened_at"),
        ("cycle_indicators", "read_at"),
        ("cycle_releases", "decided_at"),
        ("calibrations", "performed_at"),
        ("calibrations", "due_at"),
        ("device_status", "since"),
    ];

    /// Reports and a status in which every time that a device may tell is `claim`.
    fn telling(claim: i64) -> [(Content, Record); 2] {
        let time = Some(claim);
        let kinds = [
            Kind::Injection(v1::Injection::default()),
            Kind::SessionStarted(v1::SessionStarted { allergy_unix_us: time, ..Default::default() }),
            Kind::SessionEnded(v1::SessionEnded::default()),
            Kind::Preparation(v1::Preparation {
                prepared_unix_us: time,
                use_by_unix_us: time,
                components: vec![v1::Component { opened_unix_us: time, ..Default::default() }],
                ..Default::default()
            }),
            Kind::ConsumableMounted(v1::ConsumableMounted::default()),
            Kind::Primed(v1::Primed::default()),
            Kind::ConsumableRemoved(v1::ConsumableRemoved::default()),
            Kind::Reprocessed(v1::Reprocessed::default()),
            Kind::SterilizationCycle(v1::SterilizationCycle {
                items: vec![v1::CycleItem::default()],
                samples: vec![v1::CycleSample::default()],
                ..Default::default()
            }),
            Kind::CycleIndicator(v1::CycleIndicator { read_unix_us: time, ..Default::default() }),
            Kind::CycleRelease(v1::CycleRelease { at_unix_us: time, ..Default::default() }),
            Kind::Calibration(v1::Calibration { performed_unix_us: time, due_unix_us: time, ..Default::default() }),
            Kind::Fault(v1::Fault::default()),
            Kind::Heartbeat(v1::Heartbeat::default()),
        ];
        let report = v1::Report {
            boot_id: 1,
            first_seq: 1,
            base_unix_us: claim,
            clock: v1::Clock::Synced.into(),
            events: kinds.map(|kind| v1::Event { offset_us: 0, kind: Some(kind) }).into(),
            ..v1::Report::default()
        };
        let status = format!(r#"{{"state":"STATE_LOST","sinceUnixUs":"{claim}"}}"#).into_bytes();
        let record = |channel: &str, payload| Record {
            key: Some(b"acme/pen".to_vec()),
            payload,
            headers: Headers {
                topic: Some(format!("doseline/v1/acme/berlin/pen/{channel}").into_bytes()),
                received_at: Some(RECEIVED_US),
                ..Headers::default()
            },
            ..Record::default()
        };
        [(Content::Reports, record("report", report.encode_to_vec())), (Content::Status, record("status", status))]
    }

    #[test]
    fn no_table_takes_over_a_time_that_cannot_be_true() {
        const DAY_US: i64 = 86_400_000_000;
        let claims = [
            (0, "ABSENT"),
            (RECEIVED_US / 1_000_000, "BEFORE_FLEET"),
            (RECEIVED_US / 1_000, "BEFORE_FLEET"),
            (RECEIVED_US - 7_168 * DAY_US, "BEFORE_FLEET"),
            (RECEIVED_US + DAY_US, "AHEAD"),
            (RECEIVED_US + 30 * 365 * DAY_US, "AHEAD"),
            (i64::MAX, "AHEAD"),
            (-1, "BEFORE_FLEET"),
            (RECEIVED_US - 42 * DAY_US, ""),
            (RECEIVED_US, ""),
        ];
        for (claim, doubt) in claims {
            let [report, status] = telling(claim).map(|(content, record)| written(&record, content));
            assert!(report.refusals.is_empty() && status.refusals.is_empty(), "{claim}");
            let is_plausible = doubt.is_empty();
            let source = if is_plausible { "DEVICE" } else { "RECEIVED" };
            let of_events = report.blocks.iter().filter(|block| {
                let rows = block.record_batch(0).unwrap();
                rows.column_by_name("time_source").is_some()
            });
            let tables: Vec<_> = of_events.map(Block::table).collect();
            assert_eq!(tables.len(), 12, "{tables:?}");
            for table in tables {
                let at = if is_plausible { claim } else { RECEIVED_US };
                assert!(times(&report, table, "at").into_iter().all(|time| time == Some(at)), "{table} {claim}");
                assert!(texts(&report, table, "time_source").iter().all(|text| text == source), "{table} {claim}");
            }
            for (table, column) in TIMES {
                let of = if column == "since" { &status } else { &report };
                // A day ahead is no fault of what is to come.
                let is_taken =
                    is_plausible || (claim == RECEIVED_US + DAY_US && ["use_by", "due_at"].contains(&column));
                // The end of a visit has no times; it comes after its start.
                assert_eq!(times(of, table, column)[0], Some(claim).filter(|_| is_taken), "{column} {claim}");
            }
            let flags =
                report.blocks.iter().find(|block| block.table() == "injections").unwrap().record_batch(0).unwrap();
            let flags = flags.column_by_name("flags").unwrap().as_primitive::<UInt32Type>().value(0);
            assert_eq!(flags, if is_plausible { 0 } else { 4 }, "{claim}");
            let kept: usize = [&report, &status]
                .into_iter()
                .filter(|written| written.blocks.iter().any(|block| block.table() == "implausible_times"))
                .map(|written| {
                    assert!(texts(written, "implausible_times", "doubt").iter().all(|text| text == doubt), "{claim}");
                    let claims = times(written, "implausible_times", "claim_us");
                    assert!(claims.iter().all(|time| *time == Some(claim)), "{claim}");
                    claims.len()
                })
                .sum();
            let fields = TIMES.len() - if claim == RECEIVED_US + DAY_US { 2 } else { 0 };
            assert_eq!(kept, if is_plausible { 0 } else { 14 + fields }, "{claim}");
        }
    }

    #[test]
    fn an_injection_without_a_time_of_its_device_is_counted_with_its_item() {
        let undated = |clock, base_unix_us| {
            let mut record = record(0, "a", "pen", clock);
            let mut report = v1::Report::decode(&*record.payload).unwrap();
            report.base_unix_us = base_unix_us;
            record.payload = report.encode_to_vec();
            let written = written(&record, Content::Reports);
            let uses =
                written.blocks.iter().find(|block| block.table() == "item_uses").unwrap().record_batch(0).unwrap();
            uses.column_by_name("undated").unwrap().as_primitive::<UInt64Type>().value(0)
        };
        assert_eq!(undated(v1::Clock::Synced, RECEIVED_US), 0);
        assert_eq!(undated(v1::Clock::Synced, 0), 1);
        assert_eq!(undated(v1::Clock::Unsynced, RECEIVED_US), 1);
    }

    #[test]
    fn what_is_looked_up_once_is_each_reports_own() {
        let (synced, unsynced) = (v1::Clock::Synced, v1::Clock::Unsynced);
        let sent = [
            ("a", "pen", synced),
            ("b", "pen", synced),
            ("a", "gun", synced),
            ("a", "pen", synced),
            ("a", "pen", unsynced),
            ("b", "pen", synced),
        ];
        let records: Vec<_> = sent
            .iter()
            .zip(0..)
            .map(|((device, model, clock), offset)| record(offset, device, model, *clock))
            .collect();
        let (mut ledgers, mut batch) = (Ledgers::unbounded(), Batch::default());
        let mut contexts = Contexts::default();
        for record in &records {
            let decoded = decode(record, PLACE, &mut contexts);
            let missing = ledgers.open(decoded.boots());
            ledgers.fill(missing, Vec::new());
            batch.add(&decoded, &mut ledgers, &Rules::new(Plausibility::default(), device_time::Limits::default()));
        }
        assert_eq!(batch.numbers.known.len(), 4);
        let written = batch.close().finish(Provenance { ingest_day: 20_000, incarnation: 1, partition: 0, batch: 0 });
        assert_eq!(texts(&written, "injections", "device"), ["a", "b", "a", "a", "a", "b"]);
        assert_eq!(texts(&written, "injections", "model"), ["pen", "pen", "gun", "pen", "pen", "pen"]);
        let mounts = ["pen-m", "pen-m", "gun-m", "pen-m", "pen-m", "pen-m"];
        assert_eq!(texts(&written, "injections", "needle_mount_id"), mounts);
        let clocks = ["SYNCED", "SYNCED", "SYNCED", "SYNCED", "UNSYNCED", "SYNCED"];
        assert_eq!(texts(&written, "injections", "clock"), clocks);
        let sources = ["DEVICE", "DEVICE", "DEVICE", "DEVICE", "RECEIVED", "DEVICE"];
        assert_eq!(texts(&written, "injections", "time_source"), sources);
        // Unsynced or not, the item is the same.
        assert_eq!(texts(&written, "item_uses", "mount_id"), ["pen-m", "pen-m", "gun-m"]);
        assert_eq!(texts(&written, "item_uses", "device"), ["a", "b", "a"]);
        let uses = written.blocks.iter().find(|block| block.table() == "item_uses").unwrap().record_batch(0).unwrap();
        let injections = uses.column_by_name("injections").unwrap().as_primitive::<UInt64Type>();
        assert_eq!(injections.values(), &[3, 2, 1]);
    }
}
