//! Chooses the events of one report, and builds its bytes.
//!
//! A report has one context and one clock. A change of either starts a new report. So do a gap in
//! the sequence, a time before the report's base, and a limit of the contract.

use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};
use telemetry::{
    interval::Interval,
    json,
    limits::{EVENTS_MAX, JSON_BYTES_MAX, REPORT_BYTES_MAX},
    v1::{self, Clock, EarlierBoot, LostRange},
};

use crate::{
    identity::Form,
    outbox::{Boot, Entry, LOST_PER_REPORT},
};

/// Bytes reserved for the rest of a report: boot, sequence, times, losses and earlier boots.
const RESERVE_BYTES: usize = 512 + LOST_PER_REPORT * 100 + 64 * 24;
/// Greatest size of context and one event together, bytes.
pub const EVENT_BYTES_MAX: usize = REPORT_BYTES_MAX - RESERVE_BYTES;

/// ReportLimits of one report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportLimits {
    /// Greatest number of events.
    pub events: usize,
    /// Greatest size of context and events as protobuf, bytes.
    pub bytes: usize,
}

impl ReportLimits {
    /// The contract's limits for a form.
    pub const fn of(form: Form) -> Self {
        match form {
            Form::Protobuf => Self { events: EVENTS_MAX, bytes: EVENT_BYTES_MAX },
            // JSON needs up to 25 times the bytes of protobuf (`"puncturesCount":"1",` for a field
            // of 2 bytes).
            Form::Json => Self { events: EVENTS_MAX, bytes: JSON_BYTES_MAX / 32 },
        }
    }
}

/// The events chosen for one report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Boot of the events.
    pub boot_id: u64,
    /// Sequence numbers of the events.
    pub range: Interval,
    /// Whether no later event can join; waiting is then pointless.
    pub closed: bool,
}

/// Chooses the first report from the events of `boot` in `from..=to`.
pub fn choose(boot: &Boot, from: u64, to: u64, limits: ReportLimits) -> Option<Draft> {
    let entries = boot.entries().range(boot.position(from)..);
    let mut entries = entries.take_while(|entry| entry.seq <= to);
    let base = *entries.next()?;
    let mut draft = Draft { boot_id: boot.id, range: Interval::new(base.seq, base.seq), closed: false };
    let mut bytes = base.context_bytes as usize + event_bytes(&base, &base);
    for entry in entries {
        bytes += event_bytes(&base, entry);
        if !joins(&base, entry)
            || entry.seq != draft.range.last + 1
            || draft.range.count() as usize >= limits.events
            || bytes > limits.bytes
        {
            draft.closed = true;
            break;
        }
        draft.range.last = entry.seq;
    }
    draft.closed |= draft.range.count() as usize >= limits.events;
    Some(draft)
}

fn joins(base: &Entry, entry: &Entry) -> bool {
    let step = |entry: &Entry| i128::from(entry.unix_us) - i128::from(entry.uptime_us);
    entry.context == base.context
        && entry.clock == base.clock
        && entry.uptime_us >= base.uptime_us
        && (step(entry) == step(base) || (entry.unix_us == 0 && base.unix_us == 0))
}

/// Size of an event in the report's list, bytes.
fn event_bytes(base: &Entry, entry: &Entry) -> usize {
    let offset = entry.uptime_us.saturating_sub(base.uptime_us);
    let body = offset_bytes(offset) + entry.event_bytes as usize;
    key_len(EVENTS) + encoded_len_varint(body as u64) + body
}

fn offset_bytes(offset_us: u64) -> usize {
    if offset_us == 0 { 0 } else { key_len(OFFSET_US) + encoded_len_varint(offset_us) }
}

const CONTEXT: u32 = 6;
const EVENTS: u32 = 7;
const OFFSET_US: u32 = 1;

/// All parts of a report except its events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Head {
    /// Boot of the events.
    pub boot_id: u64,
    /// Sequence number of the first event.
    pub first_seq: u64,
    /// Monotonic time of the base, us.
    pub base_uptime_us: u64,
    /// Wall clock at the base, us since 1970; 0 if unknown.
    pub base_unix_us: i64,
    /// State of the wall clock.
    pub clock: Clock,
    /// Losses that the report declares.
    pub lost: Vec<LostRange>,
    /// Earlier boots that are not fully receipted.
    pub earlier: Vec<EarlierBoot>,
}

/// A report that is being written. Events are copied as the journal holds them, never decoded.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    base_uptime_us: u64,
}

impl Writer {
    /// Begins a report with an encoded `context`.
    pub fn new(head: Head, context: &[u8]) -> Self {
        let base_uptime_us = head.base_uptime_us;
        let report = v1::Report {
            boot_id: head.boot_id,
            first_seq: head.first_seq,
            base_unix_us: head.base_unix_us,
            base_uptime_us,
            clock: head.clock.into(),
            lost: head.lost,
            earlier_boots: head.earlier,
            ..v1::Report::default()
        };
        let mut bytes = report.encode_to_vec();
        encode_key(CONTEXT, WireType::LengthDelimited, &mut bytes);
        encode_varint(context.len() as u64, &mut bytes);
        bytes.extend(context);
        Self { bytes, base_uptime_us }
    }

    /// Adds an encoded event without its offset.
    pub fn event(&mut self, uptime_us: u64, event: &[u8]) {
        let offset_us = uptime_us.saturating_sub(self.base_uptime_us);
        encode_key(EVENTS, WireType::LengthDelimited, &mut self.bytes);
        encode_varint((offset_bytes(offset_us) + event.len()) as u64, &mut self.bytes);
        if offset_us > 0 {
            encode_key(OFFSET_US, WireType::Varint, &mut self.bytes);
            encode_varint(offset_us, &mut self.bytes);
        }
        self.bytes.extend(event);
    }

    /// The report's protobuf bytes.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// The payload in the form that the device sends.
pub fn payload(protobuf: Vec<u8>, form: Form) -> Vec<u8> {
    match form {
        Form::Protobuf => protobuf,
        Form::Json => match v1::Report::decode(protobuf.as_slice()) {
            Ok(report) => json::to_json(&report, "Report").into_bytes(),
            // These are our own bytes. If they do not decode, the bridge is to report it.
            Err(_) => protobuf,
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use telemetry::report::Report;

    use super::*;
    use crate::{journal::Place, outbox::Outbox};

    const PLACE: Place = Place { segment: 0, offset: 0, length: 1 };

    fn entry(seq: u64, uptime_us: u64, context: u64) -> Entry {
        Entry {
            seq,
            place: PLACE,
            uptime_us,
            unix_us: 1_000_000 + uptime_us as i64,
            clock: Clock::Synced,
            context,
            context_bytes: 100,
            event_bytes: 40,
        }
    }

    fn boot(entries: &[Entry]) -> Boot {
        let mut outbox = Outbox::default();
        outbox.begin(1 << 32);
        for entry in entries {
            outbox.keep(1 << 32, *entry, 0);
        }
        outbox.current().unwrap().clone()
    }

    #[test]
    fn a_change_starts_a_new_report() {
        let limits = ReportLimits::of(Form::Protobuf);
        let range = |entries: &[Entry]| {
            let draft = choose(&boot(entries), 1, u64::MAX, limits).unwrap();
            (draft.range.first, draft.range.last, draft.closed)
        };
        let first = [entry(1, 10, 7), entry(2, 20, 7)];
        assert_eq!(range(&first), (1, 2, false));
        let with = |entry| range(&[first[0], first[1], entry]);
        assert_eq!(with(entry(3, 20, 7)), (1, 3, false));
        assert_eq!(with(entry(3, 30, 8)), (1, 2, true), "context");
        assert_eq!(with(entry(4, 30, 7)), (1, 2, true), "gap");
        assert_eq!(with(entry(3, 5, 7)), (1, 2, true), "before the base");
        assert_eq!(with(Entry { unix_us: 5, ..entry(3, 30, 7) }), (1, 2, true), "clock step");
        assert_eq!(with(Entry { clock: Clock::Unknown, ..entry(3, 30, 7) }), (1, 2, true), "clock state");
        let many: Vec<_> = (1..=5_000).map(|seq| Entry { event_bytes: 10, ..entry(seq, seq, 7) }).collect();
        assert_eq!(range(&many), (1, 4_096, true), "count");
        let large: Vec<_> = (1..=100).map(|seq| Entry { event_bytes: 10_000, ..entry(seq, seq, 7) }).collect();
        assert_eq!(range(&large), (1, 25, true), "bytes");
    }

    proptest! {
        /// A written report decodes to the same events, keeps the contract's limits, and has the
        /// predicted size.
        #[test]
        fn reports_are_within_the_contract(gaps in prop::collection::vec(0u64..1 << 40, 1..200), detail in 0usize..256) {
            let kind = v1::event::Kind::Fault(v1::Fault { detail: "x".repeat(detail), ..Default::default() });
            let event = v1::Event { offset_us: 0, kind: Some(kind.clone()) }.encode_to_vec();
            let context = v1::Context { model: "m".to_owned(), ..Default::default() }.encode_to_vec();
            let (mut uptime, mut entries) = (9, Vec::new());
            for (index, gap) in gaps.iter().enumerate() {
                uptime += gap;
                let sizes = Entry { event_bytes: event.len() as u32, context_bytes: context.len() as u32, ..entry(1, 1, 7) };
                entries.push(Entry { seq: 1 + index as u64, uptime_us: uptime, unix_us: 1_000_000 + uptime as i64, ..sizes });
            }
            let head = Head { boot_id: 1 << 32, first_seq: 1, base_uptime_us: entries[0].uptime_us, ..Head::default() };
            let mut writer = Writer::new(head.clone(), &context);
            let empty = writer.bytes.len();
            let mut predicted = 0;
            for entry in &entries {
                predicted += event_bytes(&entries[0], entry);
                writer.event(entry.uptime_us, &event);
            }
            let bytes = writer.finish();
            prop_assert_eq!(bytes.len() - empty, predicted);
            let report = Report::decode(&bytes).unwrap();
            prop_assert_eq!(report.message().events.len(), entries.len());
            prop_assert_eq!(report.context().unwrap().model.as_str(), "m");
            for (decoded, entry) in report.message().events.iter().zip(&entries) {
                prop_assert_eq!(decoded.offset_us, entry.uptime_us - entries[0].uptime_us);
                prop_assert_eq!(decoded.kind.as_ref(), Some(&kind));
            }
        }
    }

    #[test]
    fn the_reserve_holds_the_largest_head() {
        let lost = LostRange { first_seq: u64::MAX, last_seq: u64::MAX, reason: "r".repeat(64) };
        let head = Head {
            boot_id: u64::MAX,
            first_seq: u64::MAX,
            base_uptime_us: u64::MAX,
            base_unix_us: -1,
            clock: Clock::Unknown,
            lost: vec![lost; LOST_PER_REPORT],
            earlier: vec![EarlierBoot { boot_id: u64::MAX, last_seq: u64::MAX }; 64],
        };
        assert!(Writer::new(head, &[]).finish().len() < RESERVE_BYTES);
    }
}
