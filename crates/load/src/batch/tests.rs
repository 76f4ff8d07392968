//! Rows of whole records: times that cannot be true, and what reports have in common.

use arrow_array::{
    cast::AsArray as _,
    types::{Int64Type, TimestampMicrosecondType, UInt32Type, UInt64Type},
};
use prost::Message as _;
use telemetry::report::Contexts;

use super::*;
use crate::{
    decode::{Place, TopicKind, decode},
    inbox::{Headers, Record},
};

const PLACE: Place = Place { kind: TopicKind::Reports, partition: 0, partitions: 1 };

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
fn texts(written: &PreparedBatch, table: &str, column: &str) -> Vec<String> {
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
fn written(record: &Record, kind: TopicKind) -> PreparedBatch {
    let (mut ledgers, mut batch, mut contexts) = (Ledgers::unbounded(), Batch::default(), Contexts::default());
    let decoded = decode(record, Place { kind, ..PLACE }, &mut contexts);
    let missing = ledgers.open(decoded.boots());
    ledgers.fill(missing, Vec::new());
    batch.add(&decoded, &mut ledgers, &DecodeRules::new(Plausibility::default(), device_time::Limits::default()));
    batch.close().finish(Provenance { ingest_day: 20_000, incarnation: 1, partition: 0, batch: 0 })
}

/// The times of a column, row by row.
fn times(written: &PreparedBatch, table: &str, column: &str) -> Vec<Option<i64>> {
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
fn telling(claim: i64) -> [(TopicKind, Record); 2] {
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
    [(TopicKind::Reports, record("report", report.encode_to_vec())), (TopicKind::Status, record("status", status))]
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
        let [report, status] = telling(claim).map(|(kind, record)| written(&record, kind));
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
            let is_taken = is_plausible || (claim == RECEIVED_US + DAY_US && ["use_by", "due_at"].contains(&column));
            // The end of a visit has no times; it comes after its start.
            assert_eq!(times(of, table, column)[0], Some(claim).filter(|_| is_taken), "{column} {claim}");
        }
        let flags = report.blocks.iter().find(|block| block.table() == "injections").unwrap().record_batch(0).unwrap();
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
        let written = written(&record, TopicKind::Reports);
        let uses = written.blocks.iter().find(|block| block.table() == "item_uses").unwrap().record_batch(0).unwrap();
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
    let records: Vec<_> =
        sent.iter().zip(0..).map(|((device, model, clock), offset)| record(offset, device, model, *clock)).collect();
    let (mut ledgers, mut batch) = (Ledgers::unbounded(), Batch::default());
    let mut contexts = Contexts::default();
    for record in &records {
        let decoded = decode(record, PLACE, &mut contexts);
        let missing = ledgers.open(decoded.boots());
        ledgers.fill(missing, Vec::new());
        batch.add(&decoded, &mut ledgers, &DecodeRules::new(Plausibility::default(), device_time::Limits::default()));
    }
    assert_eq!(batch.interned.len(), 4);
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
