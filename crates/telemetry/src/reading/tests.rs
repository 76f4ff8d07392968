//! Drives every field of the contract through every reader. The fields are taken from the
//! descriptor, so that one that is added to `/proto` fails here until each reader knows it.

use std::collections::BTreeSet;

use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value,
};

use crate::{
    DESCRIPTOR_SET,
    head::Head,
    json,
    limits::ELEMENTS_MAX,
    reading::{events, fast, forensic, number},
    reject::Reason,
    report::{Contexts, Report},
    v1::{self, event::Kind as EventKind},
};

/// Fields whose reports the fast reader leaves to the full one. They are rare.
const LEFT_TO_FULL: [&str; 15] = [
    "Report.lost",
    "Report.earlier_boots",
    "Event.session_started",
    "Event.session_ended",
    "Event.consumable_mounted",
    "Event.primed",
    "Event.consumable_removed",
    "Event.preparation",
    "Event.sterilization_cycle",
    "Event.cycle_indicator",
    "Event.cycle_release",
    "Event.reprocessed",
    "Event.calibration",
    "Event.fault",
    "Event.heartbeat",
];

fn descriptor(name: &str) -> MessageDescriptor {
    json::descriptor(name)
}

/// The fields of a message that exclude each other.
fn is_variant(field: &FieldDescriptor) -> bool {
    field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic())
}

/// A value that no other field has, where the type allows it.
fn sample(field: &FieldDescriptor, serial: &mut u32) -> Value {
    *serial += 1;
    let value = match field.kind() {
        Kind::String => Value::String(format!("t{serial}")),
        Kind::Bytes => Value::Bytes(vec![*serial as u8; 16].into()),
        Kind::Enum(_) => Value::EnumNumber(1),
        Kind::Bool => Value::Bool(true),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(*serial as i32),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(*serial),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64((*serial).into()),
        Kind::Uint64 | Kind::Fixed64 => Value::U64((*serial).into()),
        Kind::Message(message) => Value::Message(filled(&message, "injection", serial)),
        Kind::Float | Kind::Double => panic!("{}: the contract has no floating-point field", field.full_name()),
    };
    if field.is_list() { Value::List(vec![value]) } else { value }
}

/// A message with every field, lists with one element. Of fields that exclude each other, the one
/// named `variant`.
fn filled(message: &MessageDescriptor, variant: &str, serial: &mut u32) -> DynamicMessage {
    let mut whole = DynamicMessage::new(message.clone());
    for field in message.fields().filter(|field| !is_variant(field) || field.name() == variant) {
        whole.set_field(&field, sample(&field, serial));
    }
    whole
}

/// A report with every field, for each kind of event.
fn reports() -> Vec<DynamicMessage> {
    let event = descriptor("Event");
    let kinds: Vec<_> = event.fields().filter(is_variant).collect();
    assert_eq!(kinds.len(), 14, "a new kind of event: see `LEFT_TO_FULL`");
    let report = |kind: FieldDescriptor| {
        let mut serial = 0;
        let mut report = filled(&descriptor("Report"), "", &mut serial);
        let event = Value::Message(filled(&event, kind.name(), &mut serial));
        report.set_field_by_name("events", Value::List(vec![event]));
        report
    };
    kinds.into_iter().map(report).collect()
}

/// What a decoded report holds, as the descriptor sees it.
fn content(report: &Report) -> DynamicMessage {
    let context = report.context().map(|context| v1::Context::clone(context));
    let whole = v1::Report { context, ..report.message().clone() };
    DynamicMessage::decode(descriptor("Report"), whole.encode_to_vec().as_slice()).unwrap()
}

/// A valid report with one injection.
fn base() -> v1::Report {
    let event = v1::Event { offset_us: 0, kind: Some(EventKind::Injection(v1::Injection::default())) };
    v1::Report { boot_id: 1, first_seq: 1, events: vec![event], ..v1::Report::default() }
}

#[test]
fn the_full_reader_keeps_every_field_in_its_place() {
    for expected in reports() {
        let report = Report::decode_fully(&expected.encode_to_vec()).unwrap();
        assert_eq!(report.texts(0), Ok(0), "{expected}");
        assert_eq!(report.unknown(), 0, "{expected}");
        assert_eq!(content(&report), expected);
    }
}

/// The messages that the fast reader walks, inner ones first, so that a failure names the field.
const WALKED: [&str; 5] = ["Injection", "Event", "MountInUse", "Context", "Report"];

/// The base report with `inner`, the bytes of some fields, in one of the messages of [`WALKED`].
fn with(message: &str, inner: &[u8]) -> Vec<u8> {
    let nested = |number, bytes: &[u8]| {
        let mut nested = Vec::new();
        encode_key(number, WireType::LengthDelimited, &mut nested);
        encode_varint(bytes.len() as u64, &mut nested);
        nested.extend(bytes);
        nested
    };
    let fields = match message {
        "Report" => inner.to_vec(),
        "Context" => nested(number::report::CONTEXT, inner),
        "MountInUse" => nested(number::report::CONTEXT, &nested(number::context::MOUNTS, inner)),
        "Event" => nested(number::report::EVENTS, inner),
        "Injection" => nested(number::report::EVENTS, &nested(number::event::INJECTION, inner)),
        other => panic!("{other} is not walked"),
    };
    [base().encode_to_vec(), fields].concat()
}

#[test]
fn the_fast_reader_takes_every_field_or_leaves_the_report_to_the_full_one() {
    let mut left = BTreeSet::new();
    for message in WALKED {
        for field in descriptor(message).fields() {
            let name = format!("{message}.{}", field.name());
            let mut alone = DynamicMessage::new(descriptor(message));
            alone.set_field(&field, sample(&field, &mut 40));
            let bytes = with(message, &alone.encode_to_vec());
            let full = Report::decode_fully(&bytes).unwrap();
            assert_eq!(full.unknown(), 0, "{name}");
            let expected = DynamicMessage::decode(descriptor("Report"), bytes.as_slice()).unwrap();
            assert_eq!(content(&full), expected, "{name}");
            assert_eq!(Report::decode(&bytes).as_ref(), Ok(&full), "{name}");
            assert_eq!(Head::read(&bytes).map(|head| head.sequence), Ok(full.sequence()), "{name}");
            let head = fast::read(&bytes, &mut ());
            assert_eq!(head.is_none(), LEFT_TO_FULL.contains(&&*name), "{name}: reading/fast.rs does not take it");
            assert!(head.is_none_or(|head| head.unknown == 0), "{name}");
            left.extend(head.is_none().then_some(name));
        }
    }
    assert_eq!(left, LEFT_TO_FULL.iter().map(|name| (*name).to_owned()).collect());
}

#[test]
fn a_known_field_of_another_wire_type_is_left_to_the_full_reader() {
    for message in WALKED {
        for field in descriptor(message).fields() {
            let mut inner = Vec::new();
            encode_key(field.number(), WireType::ThirtyTwoBit, &mut inner);
            inner.extend([1, 2, 3, 4]);
            let bytes = with(message, &inner);
            assert_eq!(fast::read(&bytes, &mut ()), None, "{}", field.full_name());
            let read = Report::decode(&bytes).and_then(|report| report.texts(1).map_err(Clone::clone).map(drop));
            assert_eq!(read.map_err(|reject| reject.reason), Err(Reason::BadProtobuf), "{}", field.full_name());
        }
    }
}

#[test]
fn an_unknown_field_is_skipped_and_counted_alike() {
    let values: [(WireType, &[u8]); 4] = [
        (WireType::Varint, &[0x81, 0x01]),
        (WireType::SixtyFourBit, &[1; 8]),
        (WireType::LengthDelimited, &[2, 1, 2]),
        (WireType::ThirtyTwoBit, &[1; 4]),
    ];
    for message in WALKED {
        let most = descriptor(message).fields().map(|field| field.number()).max().unwrap();
        for (unknown, (wire_type, value)) in
            [most + 1, 1_000].into_iter().flat_map(|at| values.map(|value| (at, value)))
        {
            let mut inner = Vec::new();
            encode_key(unknown, wire_type, &mut inner);
            inner.extend(value);
            let bytes = with(message, &inner);
            let full = Report::decode_fully(&bytes).unwrap();
            assert_eq!(full.unknown(), usize::from(message != "MountInUse"), "{message} {unknown} {wire_type:?}");
            assert_eq!(Report::decode_among(&bytes, &mut Contexts::default()), Ok(full.clone()));
            let head = fast::read(&bytes, &mut ()).unwrap();
            assert_eq!((head.unknown, head.sequence), (full.unknown(), full.sequence()));
        }
    }
}

/// Paths and values of everything in a JSON value. Bytes are left out: the forensic reader shows
/// them as hex, and canonical JSON as base64.
fn leaves(value: &serde_json::Value, path: &str, bytes: &BTreeSet<String>, found: &mut Vec<(String, String)>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                let shown = if bytes.contains(name) { &serde_json::Value::Null } else { value };
                leaves(shown, &format!("{path}.{name}"), bytes, found);
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| leaves(value, path, bytes, found)),
        leaf => found.push((path.to_owned(), leaf.to_string())),
    }
}

#[test]
fn the_forensic_reader_shows_every_field() {
    let pool = DescriptorPool::decode(DESCRIPTOR_SET).unwrap();
    let fields = pool.all_messages().flat_map(|message| message.fields().collect::<Vec<_>>());
    let bytes = fields.filter(|field| field.kind() == Kind::Bytes).map(|field| field.json_name().to_owned()).collect();
    for report in reports() {
        let read = forensic::protobuf(&report.encode_to_vec(), "Report");
        assert_eq!(read.stopped, None, "{report}");
        let shown = [read.fields, serde_json::to_value(&report).unwrap()].map(|value| {
            let mut found = Vec::new();
            leaves(&value, "", &bytes, &mut found);
            found.sort();
            found
        });
        assert_eq!(shown[0], shown[1]);
    }
}

#[test]
fn json_brings_every_field() {
    for report in reports() {
        let json = serde_json::to_vec(&report).unwrap();
        let read = json::transcode_report(&json).unwrap();
        assert_eq!(read.unknown, 0, "{report}");
        assert_eq!(DynamicMessage::decode(report.descriptor(), read.message.as_slice()).unwrap(), report);
    }
}

/// Paths to every list of sub-messages, texts or bytes below a message.
fn lists(message: &MessageDescriptor) -> Vec<Vec<FieldDescriptor>> {
    let below = |field: FieldDescriptor| {
        let itself = field.is_list().then(|| vec![field.clone()]);
        let inner = match field.kind() {
            Kind::Message(message) => lists(&message),
            _ => Vec::new(),
        };
        let inner = inner.into_iter().map(move |path| [vec![field.clone()], path].concat());
        itself.into_iter().chain(inner).collect::<Vec<_>>()
    };
    message.fields().flat_map(below).collect()
}

/// A message with very many empty elements in one list.
fn crowded(path: &[FieldDescriptor]) -> DynamicMessage {
    let mut message = DynamicMessage::new(path[0].parent_message().clone());
    let value = match &path[1..] {
        [] => Value::List(vec![Value::default_value(&path[0].kind()); ELEMENTS_MAX + 1]),
        rest if path[0].is_list() => Value::List(vec![Value::Message(crowded(rest))]),
        rest => Value::Message(crowded(rest)),
    };
    message.set_field(&path[0], value);
    message
}

#[test]
fn every_list_has_a_limit() {
    let lists = lists(&descriptor("Report"));
    assert!(lists.len() >= 8, "{lists:?}");
    for path in lists {
        let mut report = crowded(&path);
        report.set_field_by_name("boot_id", Value::U64(1));
        report.set_field_by_name("first_seq", Value::U64(1));
        let read = Report::decode_fully(&report.encode_to_vec());
        let read = read.and_then(|report| report.texts(0).map_err(Clone::clone).map(drop));
        let name = path.last().unwrap().full_name();
        assert_eq!(read.map_err(|reject| reject.reason), Err(Reason::TooManyElements), "{name}: see `Shape::child`");
    }
}

#[test]
fn an_excerpt_keeps_the_event_and_what_holds_for_it() {
    for report in reports() {
        let payload = report.encode_to_vec();
        assert_eq!(events(&payload).count(), 1);
        let excerpt = Report::decode(&payload).unwrap().excerpt(&payload, 0);
        let excerpt = DynamicMessage::decode(report.descriptor(), excerpt.as_slice()).unwrap();
        for field in report.descriptor().fields() {
            let is_others = ["lost", "earlier_boots"].contains(&field.name());
            assert_eq!(excerpt.has_field(&field), !is_others, "{}", field.full_name());
            assert!(is_others || excerpt.get_field(&field) == report.get_field(&field), "{}", field.full_name());
        }
    }
}

#[test]
fn an_excerpt_of_an_event_of_an_unknown_kind_keeps_its_bytes() {
    // Event { 99: "new" }
    let unknown = [0x9a, 0x06, 0x03, b'n', b'e', b'w'];
    let payload = with("Event", &unknown);
    let report = Report::decode(&payload).unwrap();
    assert_eq!(report.message().events[1].kind, None);
    let excerpt = report.excerpt(&payload, 1);
    assert!(excerpt.ends_with(&unknown));
    assert_eq!(Report::decode(&excerpt).unwrap().sequence().map(|range| (range.first, range.last)), Some((2, 2)));
}

#[test]
fn malformed_bytes_end_the_iteration_over_events() {
    let payload = [base().encode_to_vec(), vec![0xff; 11]].concat();
    assert_eq!(events(&payload).count(), 1);
    assert_eq!(events(&[0x3a, 0x05, 0x00]).count(), 0);
}
