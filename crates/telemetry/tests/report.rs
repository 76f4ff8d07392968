//! Each kind of bad report, by name, and the good reports that are close to it.

#![allow(clippy::unwrap_used, reason = "a failed expectation is how a test fails")]

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, MessageDescriptor, ReflectMessage as _, Value};
use telemetry::{
    DESCRIPTOR_SET,
    head::Head,
    json,
    limits::REPORT_BYTES_MAX,
    reject::{Reason, Reject},
    report::Report,
    text::{STRANGE, TRIMMED},
    v1::{self, event::Kind},
};

fn injections(count: usize) -> v1::Report {
    let event = v1::Event { offset_us: 7, kind: Some(Kind::Injection(v1::Injection::default())) };
    v1::Report { boot_id: 1, first_seq: 1, events: vec![event; count], ..v1::Report::default() }
}

fn decode(report: &v1::Report) -> Result<Report, Reject> {
    Report::decode(&report.encode_to_vec())
}

fn refused(report: &v1::Report) -> Reason {
    decode(report).unwrap_err().reason
}

fn with_context(context: v1::Context) -> v1::Report {
    v1::Report { context: Some(context), ..injections(1) }
}

#[test]
fn good() {
    let report = decode(&injections(4_096)).unwrap();
    let sequence = report.sequence().unwrap();
    assert_eq!((sequence.first, sequence.last, report.unknown()), (1, 4_096, 0));
    decode(&with_context(v1::Context { session_id: vec![0; 16], model: "Gun 3 (EU)".into(), ..Default::default() }))
        .unwrap();
}

#[test]
fn empty_payload() {
    assert_eq!(Report::decode(b"").unwrap_err().reason, Reason::Empty);
}

#[test]
fn truncated_and_garbage_protobuf() {
    let bytes = with_context(v1::Context { model: "m".into(), ..Default::default() }).encode_to_vec();
    let truncated = (1..bytes.len()).filter(|end| {
        // A cut between two fields gives a shorter but well-formed report.
        matches!(Report::decode(&bytes[..*end]), Err(Reject { reason: Reason::BadProtobuf, .. }))
    });
    assert!(truncated.count() > bytes.len() / 2);
    assert_eq!(Report::decode(&[0xff; 40]).unwrap_err().reason, Reason::BadProtobuf);
    assert_eq!(Report::decode(b"hello").unwrap_err().reason, Reason::BadProtobuf);
}

#[test]
fn one_byte_over_256_kib() {
    let mut bytes = injections(1).encode_to_vec();
    // An unknown field fills the report exactly up to the limit, then one byte beyond it.
    let fill = REPORT_BYTES_MAX - bytes.len() - 5;
    bytes.extend([0xfa, 0x3e]);
    prost::encoding::encode_varint(fill as u64, &mut bytes);
    bytes.resize(REPORT_BYTES_MAX, 0);
    assert_eq!(Report::decode(&bytes).unwrap().unknown(), 1);
    bytes.push(0);
    assert_eq!(Report::decode(&bytes).unwrap_err().reason, Reason::TooLarge);
}

#[test]
fn too_many_elements() {
    assert_eq!(refused(&injections(4_097)), Reason::TooManyElements);
    let mount = v1::MountInUse::default();
    assert_eq!(
        refused(&with_context(v1::Context { mounts: vec![mount; 17], ..Default::default() })),
        Reason::TooManyElements
    );
}

#[test]
fn boot_and_sequence() {
    assert_eq!(refused(&v1::Report { boot_id: 0, ..injections(1) }), Reason::BadBoot);
    assert_eq!(refused(&v1::Report { first_seq: 0, ..injections(1) }), Reason::BadSequence);
    assert_eq!(refused(&v1::Report { first_seq: u64::MAX, ..injections(1) }), Reason::BadSequence);
    assert_eq!(refused(&v1::Report { first_seq: i64::MAX as u64, ..injections(1) }), Reason::BadSequence);
    assert_eq!(refused(&injections(0)), Reason::NoContent);
    let lost = v1::LostRange { first_seq: 5, last_seq: 4, reason: String::new() };
    assert_eq!(refused(&v1::Report { lost: vec![lost], ..injections(0) }), Reason::BadSequence);
    let heartbeat = v1::Event { offset_us: 0, kind: Some(Kind::Heartbeat(v1::Heartbeat::default())) };
    let unsequenced = v1::Report { first_seq: 0, events: vec![heartbeat], ..injections(0) };
    assert_eq!(decode(&unsequenced).unwrap().sequence(), None);
}

#[test]
fn session_ids_of_wrong_length() {
    for length in [1, 15, 17, 32] {
        let context = v1::Context { session_id: vec![9; length], ..Default::default() };
        assert_eq!(refused(&with_context(context)), Reason::BadSession);
    }
}

#[test]
fn a_text_of_the_context_beyond_its_limit_and_one_that_is_not_utf8() {
    let long = |length| with_context(v1::Context { operator_id: "x".repeat(length), ..Default::default() });
    assert_eq!(decode(&long(256)).unwrap().texts(0), Ok(STRANGE));
    assert_eq!(refused(&long(257)), Reason::FieldTooLong);
    let mut bytes = with_context(v1::Context { operator_id: "operator".into(), ..Default::default() }).encode_to_vec();
    let at = bytes.windows(8).position(|window| window == b"operator").unwrap();
    bytes[at] = 0xff;
    assert_eq!(Report::decode(&bytes).unwrap_err().reason, Reason::BadProtobuf);
}

fn descriptor(name: &str) -> MessageDescriptor {
    let pool = DescriptorPool::decode(DESCRIPTOR_SET).unwrap();
    pool.get_message_by_name(&format!("doseline.telemetry.v1.{name}")).unwrap()
}

/// The paths to every text below a message, from the descriptor. A new field is therefore tested
/// without a change here.
fn texts(message: &MessageDescriptor) -> Vec<Vec<FieldDescriptor>> {
    let below = |field: FieldDescriptor| match field.kind() {
        prost_reflect::Kind::String => vec![vec![field]],
        prost_reflect::Kind::Message(message) => {
            let with_field = |path: Vec<FieldDescriptor>| [vec![field.clone()], path].concat();
            texts(&message).into_iter().map(with_field).collect()
        }
        _ => Vec::new(),
    };
    message.fields().flat_map(below).collect()
}

/// A message that holds one text.
fn holding<M: prost::Message + Default>(message: &MessageDescriptor, path: &[FieldDescriptor], text: &str) -> M {
    fn value(path: &[FieldDescriptor], text: &str) -> Value {
        let Some((field, rest)) = path.split_first() else { return Value::String(text.to_owned()) };
        let mut message = DynamicMessage::new(field.parent_message().clone());
        let inner = value(rest, text);
        message.set_field(field, if field.is_list() { Value::List(vec![inner]) } else { inner });
        Value::Message(message)
    }
    let dynamic = value(path, text);
    assert_eq!(dynamic.as_message().unwrap().descriptor(), *message);
    dynamic.as_message().unwrap().transcode_to().unwrap()
}

/// Texts with what scanners append, with control characters, and too long ones. Each has the
/// expected flags or refusal.
fn strange_texts(most: usize) -> Vec<(String, Result<u32, Reason>)> {
    let appended = ["\r", "\n", "\t", " ", "\r\n", " \t\r\n"].map(|end| (format!("L1{end}"), Ok(TRIMMED)));
    let inner = ["L\0 1", "L\u{1b}[2J1", "L\t1", "\u{7f}L1"].map(|text| (text.to_owned(), Ok(STRANGE)));
    let both = [("\0L1\r".to_owned(), Ok(TRIMMED | STRANGE))];
    let fits = [(format!("{}\r\n", "x".repeat(64)), Ok(TRIMMED)), ("L1".to_owned(), Ok(0)), (String::new(), Ok(0))];
    let long = [("x".repeat(most + 1), Err(Reason::FieldTooLong))];
    appended.into_iter().chain(inner).chain(both).chain(fits).chain(long).collect()
}

/// Decodes a report as protobuf and from JSON, and returns the flags or refusal of each event.
fn said(report: &v1::Report) -> Vec<Result<u32, Reason>> {
    let json = json::to_json(report, "Report");
    let both = [report.encode_to_vec(), json::transcode_report(json.as_bytes()).unwrap().message];
    let [bytes, of_json] = both.map(|bytes| {
        let read = Report::decode(&bytes).unwrap();
        assert_eq!(Head::read(&bytes).unwrap().sequence, read.sequence(), "{report:?}");
        let texts = |index| read.texts(index).map_err(|reject| reject.reason);
        let strings = |index: usize| format!("{:?} {:?}", read.message().events[index], read.context());
        for index in 0..read.message().events.len() {
            if texts(index).is_ok_and(|flags| flags & TRIMMED != 0) {
                let left = strings(index);
                let trimmed = ["\\r", "\\n", "\\t", " "].map(|end| format!("L1{end}\""));
                assert!(trimmed.iter().all(|end| !left.contains(end)), "{left}");
            }
        }
        (0..read.message().events.len()).map(texts).collect::<Vec<_>>()
    });
    assert_eq!(bytes, of_json);
    bytes
}

#[test]
fn what_is_wrong_with_a_text_of_one_event_costs_no_other() {
    let event = descriptor("Event");
    let paths = texts(&event);
    assert!(paths.len() > 25, "{paths:?}");
    for path in paths {
        let name = path.iter().map(|field| field.name().to_owned()).collect::<Vec<_>>().join(".");
        let most = if name == "fault.detail" { 256 } else { 64 };
        for (text, expected) in strange_texts(most) {
            let mut report = injections(2);
            report.events.insert(1, holding(&event, &path, &text));
            assert_eq!(said(&report), [Ok(0), expected, Ok(0)], "{name} {text:?}");
        }
    }
}

#[test]
fn a_strange_text_of_the_context_is_flagged_in_each_row() {
    let context = descriptor("Context");
    let paths = texts(&context);
    assert!(paths.len() >= 8, "{paths:?}");
    for path in paths {
        for (text, expected) in strange_texts(64) {
            let flags = expected.unwrap_or(STRANGE);
            let report = with_context(holding(&context, &path, &text));
            assert_eq!(said(&report), [Ok(flags)], "{path:?} {text:?}");
        }
    }
}

#[test]
fn a_strange_reason_of_a_loss_costs_neither_the_loss_nor_the_events() {
    for (text, expected) in strange_texts(64) {
        let lost = v1::LostRange { first_seq: 5, last_seq: 6, reason: text.clone() };
        let report = v1::Report { lost: vec![lost], ..injections(2) };
        assert_eq!(said(&report), [Ok(0), Ok(0)], "{text:?}");
        let reason = decode(&report).unwrap().message().lost[0].reason.clone();
        match expected {
            Ok(_) => assert_eq!(reason, text.trim_end()),
            Err(_) => assert_eq!(reason, "not kept: lost.reason has 65 bytes, at most 64"),
        }
    }
}

#[test]
fn an_event_that_cannot_be_decoded_costs_no_other() {
    let fault = v1::Fault { code: "OPERATOR".into(), ..Default::default() };
    let mut report = injections(2);
    report.events.insert(1, v1::Event { offset_us: 7, kind: Some(Kind::Fault(fault)) });
    let mut bytes = report.encode_to_vec();
    let at = bytes.windows(8).position(|window| window == b"OPERATOR").unwrap();
    let check = |bytes: &[u8], expected: Reason| {
        let read = Report::decode(bytes).unwrap();
        assert_eq!(read.sequence().map(|range| (range.first, range.last)), Some((1, 3)));
        assert_eq!(Head::read(bytes).unwrap().sequence, read.sequence());
        let said = [0, 1, 2].map(|index| read.texts(index).map_err(|reject| reject.reason));
        assert_eq!(said, [Ok(0), Err(expected), Ok(0)]);
    };
    // Latin-1 instead of UTF-8, then a text that claims to be longer than its event.
    bytes[at] = 0xfc;
    check(&bytes, Reason::BadProtobuf);
    bytes[at - 1] = 0x7f;
    check(&bytes, Reason::BadProtobuf);
    let cycle = v1::SterilizationCycle { samples: vec![v1::CycleSample::default(); 16_385], ..Default::default() };
    report.events[1] = v1::Event { offset_us: 0, kind: Some(Kind::SterilizationCycle(cycle)) };
    check(&report.encode_to_vec(), Reason::TooManyElements);
    let started = v1::SessionStarted { course_id: vec![1; 17], ..Default::default() };
    report.events[1] = v1::Event { offset_us: 0, kind: Some(Kind::SessionStarted(started)) };
    check(&report.encode_to_vec(), Reason::FieldTooLong);
}

#[test]
fn unknown_fields_and_enum_values_keep_working() {
    let mut bytes = v1::Report { clock: 99, ..injections(1) }.encode_to_vec();
    bytes.extend([0xa0, 0x06, 0x01]);
    assert_eq!(Report::decode(&bytes).unwrap().unknown(), 2);
}
