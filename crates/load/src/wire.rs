//! A look at a serialized report without decoding it: how many events, and the bytes of one.
//!
//! A rejected event is kept byte for byte, with fields this version does not know: decoding and
//! encoding would drop them, and with them what a later version could replay.

use prost::{Message as _, bytes::BufMut as _, encoding::WireType};
use telemetry::{
    report::Report,
    v1,
    wire::{Value, field},
};

/// Field number of `Report.events`.
const EVENTS: u32 = 7;

/// Number of events in a serialized report; what comes after malformed bytes does not count.
pub fn events(report: &[u8]) -> usize {
    Fields(report).filter(|(field, _)| *field == EVENTS).count()
}

/// A report that holds one event of `report`, with the event's bytes from `payload`, from which it
/// was decoded.
pub fn single(report: &Report, payload: &[u8], index: usize) -> Vec<u8> {
    let message = report.message();
    let alone = v1::Report {
        boot_id: message.boot_id,
        first_seq: if message.first_seq == 0 { 0 } else { message.first_seq + index as u64 },
        base_unix_us: message.base_unix_us,
        base_uptime_us: message.base_uptime_us,
        clock: message.clock,
        context: report.context().map(|context| v1::Context::clone(context)),
        ..Default::default()
    };
    let mut report = alone.encode_to_vec();
    if let Some((_, event)) = Fields(payload).filter(|(field, _)| *field == EVENTS).nth(index) {
        prost::encoding::encode_key(EVENTS, WireType::LengthDelimited, &mut report);
        prost::encoding::encode_varint(event.len() as u64, &mut report);
        report.put_slice(event);
    }
    report
}

/// The fields of a message with their bytes (empty where the field is not length-delimited).
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (number, value) = field(&mut self.0)?;
        Some((number, if let Value::Bytes(bytes) = value { bytes } else { &[] }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use telemetry::v1::event::Kind;

    fn fault(code: &str) -> v1::Event {
        let fault = v1::Fault { code: code.to_owned(), ..Default::default() };
        v1::Event { offset_us: 7, kind: Some(Kind::Fault(fault)) }
    }

    #[test]
    fn one_event_stands_alone_with_its_context() {
        let context = v1::Context { model: "pen".to_owned(), ..Default::default() };
        let report = v1::Report {
            boot_id: 5,
            first_seq: 10,
            base_unix_us: 3,
            context: Some(context),
            events: vec![fault("a"), fault("b"), fault("c")],
            lost: vec![v1::LostRange { first_seq: 1, last_seq: 2, reason: String::new() }],
            ..Default::default()
        };
        let payload = report.encode_to_vec();
        assert_eq!(events(&payload), 3);
        let alone = Report::decode(&single(&Report::decode(&payload).unwrap(), &payload, 1)).unwrap();
        assert_eq!(alone.message().first_seq, 11);
        assert_eq!(alone.message().events, [fault("b")]);
        assert_eq!(alone.context().map(|context| v1::Context::clone(context)), report.context);
        assert!(alone.message().lost.is_empty());
    }

    #[test]
    fn an_event_of_an_unknown_kind_keeps_its_bytes() {
        // Event { 99: "new" }
        let unknown = [0x9a, 0x06, 0x03, b'n', b'e', b'w'];
        let mut payload = v1::Report { boot_id: 5, first_seq: 1, ..Default::default() }.encode_to_vec();
        payload.extend([EVENTS as u8 * 8 + 2, unknown.len() as u8]);
        payload.extend(unknown);
        let report = Report::decode(&payload).unwrap();
        assert_eq!(report.message().events[0].kind, None);
        assert!(single(&report, &payload, 0).ends_with(&unknown));
    }

    #[test]
    fn malformed_bytes_end_the_count() {
        let mut payload = v1::Report { events: vec![fault("a")], ..Default::default() }.encode_to_vec();
        payload.extend([0xff; 11]);
        assert_eq!(events(&payload), 1);
        assert_eq!(events(&[0x3a, 0x05, 0x00]), 0);
    }
}
