//! Collects what the records of Kafka contain for each boot, independently of the loader's ledgers.
//!
//! Memory is bounded: a set of intervals for each boot of the partition, and a 64th of its events.
//! Each event takes 28 bytes in one of 64 temporary files, which are read back one at a time.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{BufReader, BufWriter, Read as _, Seek as _, Write as _},
};

use prost::Message as _;
use telemetry::{
    interval::{Interval, IntervalSet},
    json,
    report::{Contexts, Report},
    topic::Topic,
    v1::{self, event::Kind},
};
use warehouse::loader::BootKey;

use crate::{
    decode::{Message, Place, decode},
    inbox::Record,
};

/// The devices whose records are collected; without a tenant and a device, all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub tenant: Option<String>,
    pub device: Option<String>,
}

/// What Kafka holds of one boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KafkaBoot {
    /// Site that the latest record came from.
    pub site: String,
    /// Sequence numbers in reports.
    pub arrived: IntervalSet,
    /// Sequence numbers the device declared lost.
    pub lost: IntervalSet,
    /// The last sequence number that the device declared or that arrived. Only records count that
    /// are old enough for everything before them to have arrived.
    pub known_last: u64,
}

/// Two records with different contents for one sequence number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub boot: BootKey,
    pub seq: u64,
    /// Offset of the first record. Its content is stored.
    pub first_offset: u64,
    /// Offset of the first record with other content.
    pub other_offset: u64,
}

/// Everything that was collected.
#[derive(Debug, Default)]
pub struct Found {
    pub boots: BTreeMap<BootKey, KafkaBoot>,
    /// By boot and sequence number.
    pub conflicts: Vec<Conflict>,
}

const BUCKETS: usize = 64;
const NOTE_BYTES: usize = 28;

/// One event: number of its boot, sequence number, offset of the record, hash of the content. Notes
/// are sorted by these in order.
type Note = (u32, u64, u64, u64);

/// Collects the records of one partition.
pub struct Inventory {
    place: Place,
    filter: Filter,
    /// Time of receipt up to which everything should have arrived, us since 1970. Later records do
    /// not raise [`KafkaBoot::known_last`].
    complete_until: i64,
    numbers: HashMap<BootKey, u32>,
    boots: Vec<(BootKey, KafkaBoot)>,
    buckets: Vec<BufWriter<File>>,
}

impl Inventory {
    /// An empty inventory of one partition. Records before one that was received after
    /// `complete_until`, us since 1970, may still be under way.
    ///
    /// # Errors
    /// Temporary files cannot be created.
    pub fn new(place: Place, filter: Filter, complete_until: i64) -> std::io::Result<Self> {
        let bucket = |_| tempfile::tempfile().map(BufWriter::new);
        let buckets = (0..BUCKETS).map(bucket).collect::<std::io::Result<_>>()?;
        Ok(Self { place, filter, complete_until, numbers: HashMap::new(), boots: Vec::new(), buckets })
    }

    /// Adds a record.
    ///
    /// # Errors
    /// A temporary file cannot be written.
    pub fn add(&mut self, record: &Record) -> std::io::Result<()> {
        let mut contexts = Contexts::default();
        let decoded = decode(record, self.place, &mut contexts);
        let (Ok(message), Some(topic)) = (&decoded.message, decoded.device) else { return Ok(()) };
        let Filter { tenant, device } = &self.filter;
        let other = |wanted: &Option<String>, name: &str| wanted.as_ref().is_some_and(|wanted| wanted != name);
        if other(tenant, topic.tenant) || other(device, topic.device) {
            return Ok(());
        }
        let is_settled = decoded.received_at <= self.complete_until;
        match message {
            Message::Report(report) => self.report(record.offset, &topic, report, is_settled),
            Message::Status(status, _) => {
                if let Some(boot_id) = status.boot_id {
                    self.declared(&topic, boot_id, status.last_seq.unwrap_or(0), is_settled);
                }
                Ok(())
            }
            Message::Quarantined { .. } | Message::Copy | Message::Command(_) => Ok(()),
        }
    }

    fn report(&mut self, offset: u64, topic: &Topic<'_>, report: &Report, is_settled: bool) -> std::io::Result<()> {
        let message = report.message();
        for earlier in &message.earlier_boots {
            self.declared(topic, earlier.boot_id, earlier.last_seq, is_settled);
        }
        for event in &message.events {
            if let Some(Kind::Heartbeat(v1::Heartbeat { boot_id, last_seq: Some(last), .. })) = event.kind {
                self.declared(topic, boot_id.unwrap_or(report.boot_id()), last, is_settled);
            }
        }
        let number = self.number(topic, report.boot_id());
        let (_, boot) = &mut self.boots[number as usize];
        topic.site.clone_into(&mut boot.site);
        for lost in &message.lost {
            boot.lost.insert(Interval::new(lost.first_seq, lost.last_seq));
            boot.known_last = boot.known_last.max(if is_settled { lost.last_seq } else { 0 });
        }
        let Some(range) = report.sequence() else { return Ok(()) };
        boot.arrived.insert(range);
        boot.known_last = boot.known_last.max(if is_settled { range.last } else { 0 });
        let context = report.context().map(|context| context.encode_to_vec()).unwrap_or_default();
        for (seq, event) in (range.first..=range.last).zip(&message.events) {
            let hash = content_hash(message, &context, event);
            let bucket = (u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seq) as usize % BUCKETS;
            write(&mut self.buckets[bucket], (number, seq, offset, hash))?;
        }
        Ok(())
    }

    /// The device declared that it made events of a boot up to `last`.
    fn declared(&mut self, topic: &Topic<'_>, boot_id: u64, last: u64, is_settled: bool) {
        let number = self.number(topic, boot_id);
        let (_, boot) = &mut self.boots[number as usize];
        topic.site.clone_into(&mut boot.site);
        if is_settled {
            boot.known_last = boot.known_last.max(last.min(telemetry::limits::SEQ_MAX));
        }
    }

    fn number(&mut self, topic: &Topic<'_>, boot_id: u64) -> u32 {
        let key = BootKey { tenant: topic.tenant.to_owned(), device: topic.device.to_owned(), boot_id };
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        // A partition has fewer boots than u32 can number.
        let number = self.boots.len() as u32;
        self.boots.push((key.clone(), KafkaBoot::default()));
        self.numbers.insert(key, number);
        number
    }

    /// Ends the collection and searches for conflicts.
    ///
    /// # Errors
    /// A temporary file cannot be read back.
    pub fn finish(self) -> std::io::Result<Found> {
        let mut conflicts = Vec::new();
        for bucket in self.buckets {
            let mut notes = read(bucket)?;
            notes.sort_unstable();
            for same in notes.chunk_by(|(boot, seq, ..), (other, other_seq, ..)| (boot, seq) == (other, other_seq)) {
                let (number, seq, first_offset, hash) = same[0];
                if let Some((_, _, other_offset, _)) = same.iter().find(|(.., other)| *other != hash) {
                    let boot = self.boots[number as usize].0.clone();
                    conflicts.push(Conflict { boot, seq, first_offset, other_offset: *other_offset });
                }
            }
        }
        conflicts.sort_unstable_by(|a, b| (&a.boot, a.seq).cmp(&(&b.boot, b.seq)));
        Ok(Found { boots: self.boots.into_iter().collect(), conflicts })
    }
}

/// Device time of an event if its clock is synced, else its time since boot. It is the same in
/// every report that repeats the event.
fn time(report: &v1::Report, event: &v1::Event) -> (i32, u64) {
    let clock = match report.clock() {
        v1::Clock::Unspecified => v1::Clock::Unknown,
        clock => clock,
    };
    let base = if clock == v1::Clock::Synced { report.base_unix_us as u64 } else { report.base_uptime_us };
    (clock as i32, base.wrapping_add(event.offset_us))
}

fn content_hash(report: &v1::Report, context: &[u8], event: &v1::Event) -> u64 {
    let mut hasher = DefaultHasher::new();
    time(report, event).hash(&mut hasher);
    context.hash(&mut hasher);
    let alone = v1::Event { offset_us: 0, kind: event.kind.clone() };
    alone.encode_to_vec().hash(&mut hasher);
    hasher.finish()
}

/// The event with this sequence number as the JSON of a report that holds only it, for a person who
/// compares two. `None` if the record does not hold it.
pub fn contents(record: &Record, place: Place, seq: u64) -> Option<String> {
    let Ok(Message::Report(report)) = decode(record, place, &mut Contexts::default()).message else { return None };
    let message = report.message();
    let event = message.events.get(usize::try_from(seq.checked_sub(message.first_seq)?).ok()?)?;
    let (clock, at) = time(message, event);
    let synced = clock == v1::Clock::Synced as i32;
    let alone = v1::Report {
        clock,
        base_unix_us: if synced { at as i64 } else { 0 },
        base_uptime_us: if synced { 0 } else { at },
        context: report.context().map(|context| v1::Context::clone(context)),
        events: vec![v1::Event { offset_us: 0, kind: event.kind.clone() }],
        ..Default::default()
    };
    Some(json::to_json(&alone, "Report"))
}

fn write(bucket: &mut BufWriter<File>, (boot, seq, offset, hash): Note) -> std::io::Result<()> {
    let mut note = [0; NOTE_BYTES];
    note[..4].copy_from_slice(&boot.to_le_bytes());
    note[4..12].copy_from_slice(&seq.to_le_bytes());
    note[12..20].copy_from_slice(&offset.to_le_bytes());
    note[20..].copy_from_slice(&hash.to_le_bytes());
    bucket.write_all(&note)
}

fn read(bucket: BufWriter<File>) -> std::io::Result<Vec<Note>> {
    let mut file = bucket.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    let length = file.stream_position()?;
    file.rewind()?;
    let mut reader = BufReader::new(file);
    let mut notes = Vec::with_capacity((length / NOTE_BYTES as u64) as usize);
    for _ in 0..length / NOTE_BYTES as u64 {
        let mut boot = [0; 4];
        reader.read_exact(&mut boot)?;
        let mut numbers = [0; 3];
        for number in &mut numbers {
            let mut bytes = [0; 8];
            reader.read_exact(&mut bytes)?;
            *number = u64::from_le_bytes(bytes);
        }
        notes.push((u32::from_le_bytes(boot), numbers[0], numbers[1], numbers[2]));
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{decode::TopicKind, inbox::Headers};

    const PLACE: Place = Place { kind: TopicKind::Reports, partition: 0, partitions: 1 };

    fn record(offset: u64, received_at: i64, report: &v1::Report) -> Record {
        let topic = Some(b"doseline/v1/acme/berlin/pen-1/report".to_vec());
        let headers = Headers { topic, received_at: Some(received_at), ..Headers::default() };
        Record {
            offset,
            key: Some(b"acme/pen-1".to_vec()),
            payload: report.encode_to_vec(),
            headers,
            ..Record::default()
        }
    }

    fn fault(code: &str, offset_us: u64) -> v1::Event {
        let fault = v1::Fault { code: code.to_owned(), ..Default::default() };
        v1::Event { offset_us, kind: Some(Kind::Fault(fault)) }
    }

    fn report(first_seq: u64, base_unix_us: i64, events: Vec<v1::Event>) -> v1::Report {
        v1::Report {
            boot_id: 7,
            first_seq,
            base_unix_us,
            clock: v1::Clock::Synced as i32,
            events,
            ..Default::default()
        }
    }

    #[test]
    fn the_same_event_in_another_report_is_no_conflict_and_another_one_is() {
        let records = [
            record(3, 10, &report(1, 1_000, vec![fault("a", 5), fault("b", 10)])),
            record(4, 20, &report(2, 1_004, vec![fault("b", 6), fault("c", 8)])),
            record(5, 30, &report(3, 1_004, vec![fault("d", 8)])),
            record(6, 90, &report(9, 0, vec![fault("e", 0)])),
        ];
        let mut inventory = Inventory::new(PLACE, Filter::default(), 50).unwrap();
        records.iter().for_each(|record| inventory.add(record).unwrap());
        let found = inventory.finish().unwrap();
        let boot = BootKey { tenant: "acme".to_owned(), device: "pen-1".to_owned(), boot_id: 7 };
        let of_boot = &found.boots[&boot];
        assert_eq!(of_boot.arrived, IntervalSet::from_ranges([(1, 3), (9, 9)]));
        assert_eq!(of_boot.known_last, 3, "a record after `complete_until` does not count");
        let conflict = Conflict { boot, seq: 3, first_offset: 4, other_offset: 5 };
        assert_eq!(found.conflicts, [conflict]);
        assert!(contents(&records[2], PLACE, 3).unwrap().contains("\"d\""));
        assert_eq!(contents(&records[2], PLACE, 4), None);
    }

    #[test]
    fn records_of_other_devices_are_left_out() {
        let filter = Filter { tenant: None, device: Some("pen-2".to_owned()) };
        let mut inventory = Inventory::new(PLACE, filter, 50).unwrap();
        inventory.add(&record(0, 1, &report(1, 0, vec![fault("a", 0)]))).unwrap();
        assert!(inventory.finish().unwrap().boots.is_empty());
    }
}
