//! Each bad report, by name, and the good ones beside it.

#![allow(clippy::unwrap_used, reason = "a failed expectation is how a test fails")]

use prost::Message as _;
use telemetry::{
    limits::REPORT_BYTES_MAX,
    reject::{Reason, Reject},
    report::Report,
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
        // A cut between two fields is a shorter but well-formed report.
        matches!(Report::decode(&bytes[..*end]), Err(Reject { reason: Reason::BadProtobuf, .. }))
    });
    assert!(truncated.count() > bytes.len() / 2);
    assert_eq!(Report::decode(&[0xff; 40]).unwrap_err().reason, Reason::BadProtobuf);
    assert_eq!(Report::decode(b"hello").unwrap_err().reason, Reason::BadProtobuf);
}

#[test]
fn one_byte_over_256_kib() {
    let mut bytes = injections(1).encode_to_vec();
    // An unknown field fills the report up to the limit exactly, then one byte beyond.
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
    let cycle = v1::SterilizationCycle { samples: vec![v1::CycleSample::default(); 16_385], ..Default::default() };
    let event = v1::Event { offset_us: 0, kind: Some(Kind::SterilizationCycle(cycle)) };
    assert_eq!(refused(&v1::Report { events: vec![event], ..injections(0) }), Reason::TooManyElements);
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
fn ids_with_forbidden_characters_and_non_utf8() {
    for id in ["a b", "-a", "a/b", "ü", "a\nb"] {
        let context = v1::Context { preparation_id: id.into(), ..Default::default() };
        assert_eq!(refused(&with_context(context)), Reason::BadId, "{id:?}");
    }
    let long = v1::Context { operator_id: "x".repeat(65), ..Default::default() };
    assert_eq!(refused(&with_context(long)), Reason::FieldTooLong);
    let mut bytes = with_context(v1::Context { operator_id: "operator".into(), ..Default::default() }).encode_to_vec();
    let at = bytes.windows(8).position(|window| window == b"operator").unwrap();
    bytes[at] = 0xff;
    assert_eq!(Report::decode(&bytes).unwrap_err().reason, Reason::BadProtobuf);
}

#[test]
fn unknown_fields_and_enum_values_keep_working() {
    let mut bytes = v1::Report { clock: 99, ..injections(1) }.encode_to_vec();
    bytes.extend([0xa0, 0x06, 0x01]);
    assert_eq!(Report::decode(&bytes).unwrap().unknown(), 2);
}
