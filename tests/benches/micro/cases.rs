//! Parts of the path that are measured separately: their time in `cargo bench --bench micro`, their
//! instructions in `tests/tests/instructions.rs`, some of their allocations in
//! `tests/tests/allocations.rs`.
//!
//! A number in a case's name is the number of injections in a report.

use std::hint::black_box;

use bridge::{admit::admit, path::Path, ring::Ring, unconfirmed::Unconfirmed};
use load::{
    batch::DecodeRules,
    decode::{Place, TopicKind},
    measure,
};
use telemetry::{
    head::Head,
    interval::Interval,
    ledger::{Fate, Ledger},
    plausibility::Plausibility,
    report::Report,
    topic::Topic,
};
use warehouse::columns::{Commons, Injections};

use crate::inputs::{PROVENANCE, Sent, sent};

/// Names of all cases, in the order of the output.
pub const NAMES: [&str; 25] = [
    "topic",
    "head/1",
    "head/10",
    "head/50",
    "ring",
    "unconfirmed",
    "receipt",
    "bridge/1",
    "bridge/10",
    "bridge/50",
    "decode/1",
    "decode/10",
    "decode/50",
    "ledger_in_order",
    "ledger_resent",
    "ledger_holes",
    "aggregates/1",
    "aggregates/10",
    "aggregates/50",
    "columns/1",
    "columns/10",
    "columns/50",
    "batch/1",
    "batch/10",
    "batch/50",
];

/// Messages, reports or packets in one run.
const MESSAGES: u64 = 64;
/// Injections of one batch, and the number of their devices.
const BATCH: u64 = 5_000;
const DEVICES: u64 = 100;

/// A case, ready to be measured.
pub struct Case {
    /// The unit in which results are given.
    pub unit: &'static str,
    /// Number of units in one run.
    pub events: u64,
    /// Does one run.
    pub run: Box<dyn FnMut()>,
}

/// Prepares the case with this name.
pub fn case(name: &str) -> Case {
    let (kind, injections) = name.split_once('/').unwrap_or((name, "10"));
    let injections = injections.parse().expect("a number of injections");
    match kind {
        "topic" => topic(),
        "head" => head(injections),
        "ring" => ring(),
        "unconfirmed" => unconfirmed(),
        "receipt" => receipt(),
        "bridge" => bridge(injections),
        "decode" => decode(injections),
        "ledger_in_order" => ledger_in_order(),
        "ledger_resent" => ledger_resent(),
        "ledger_holes" => ledger_holes(),
        "aggregates" => aggregates(injections),
        "columns" => columns(injections),
        "batch" => batch(injections),
        _ => panic!("no case {name}; there are {NAMES:?}"),
    }
}

fn new(unit: &'static str, events: u64, run: impl FnMut() + 'static) -> Case {
    Case { unit, events, run: Box::new(run) }
}

/// Each number below 64 once, with neighbours far apart: an order in which Kafka may confirm.
fn shuffled() -> impl Iterator<Item = u64> {
    (0..MESSAGES).map(|index| index * 37 % MESSAGES)
}

/// Parses a report's topic.
fn topic() -> Case {
    let sent = sent(MESSAGES, MESSAGES, 1);
    new("topic", MESSAGES, move || {
        for sent in &sent {
            black_box(Topic::parse(black_box(&sent.topic)).is_ok());
        }
    })
}

/// What the bridge reads of a report: it checks everything, and takes the identity.
fn head(injections: u64) -> Case {
    let sent = sent(MESSAGES, MESSAGES, injections);
    new("report", MESSAGES, move || {
        for sent in &sent {
            black_box(Head::read(black_box(&sent.payload)).is_ok());
        }
    })
}

/// What the loader reads of a report: all of it.
fn decode(injections: u64) -> Case {
    let sent = sent(MESSAGES, MESSAGES, injections);
    new("report", MESSAGES, move || {
        for sent in &sent {
            black_box(Report::decode(black_box(&sent.payload)).is_ok());
        }
    })
}

/// A message takes a slot in the acknowledgement ring, is settled out of order, and is
/// acknowledged.
fn ring() -> Case {
    let (mut ring, mut slots) = (Ring::default(), Vec::new());
    new("message", MESSAGES, move || {
        slots.extend((0..MESSAGES as u16).map(|packet| ring.push(packet)));
        let mut acknowledged = 0;
        for index in shuffled() {
            ring.settle(slots[index as usize]);
            acknowledged += ring.head().map(black_box).count();
        }
        assert_eq!(acknowledged, slots.len());
        slots.clear();
    })
}

/// A record waits for Kafka, and is confirmed out of order.
fn unconfirmed() -> Case {
    let (mut unconfirmed, mut first) = (Unconfirmed::default(), 0);
    new("record", MESSAGES, move || {
        (0..MESSAGES).for_each(|value| first = unconfirmed.insert(value));
        first -= MESSAGES as usize - 1;
        for index in shuffled() {
            black_box(unconfirmed.confirm(first + index as usize));
        }
        assert!(unconfirmed.is_empty());
    })
}

/// A receipt, from the kept values to the message.
fn receipt() -> Case {
    let sent = sent(MESSAGES, MESSAGES, 10);
    let admitted = |topic: &str, payload| admit(topic.as_bytes(), payload).receipt.expect("a receipt");
    let receipts: Vec<_> = sent.iter().map(|sent| admitted(&sent.topic, &sent.payload)).collect();
    new("receipt", MESSAGES, move || {
        for receipt in &receipts {
            black_box(black_box(receipt).payload());
        }
    })
}

/// A report through the bridge, without MQTT client and producer: admitted, kept, confirmed,
/// acknowledged.
fn bridge(injections: u64) -> Case {
    let publishes: Vec<_> =
        sent(MESSAGES, MESSAGES, injections).iter().zip(1..).map(|(sent, id)| sent.publish(id)).collect();
    let mut path = Path::new().expect("a producer");
    new("report", MESSAGES, move || {
        publishes.iter().for_each(|publish| path.take(publish));
        assert_eq!(path.confirm(), (publishes.len(), publishes.len()));
    })
}

/// Ranges of 10 numbers in order, as devices send them.
fn ledger_in_order() -> Case {
    let (mut ledger, mut next) = (Ledger::default(), 1);
    new("range", MESSAGES, move || {
        for _ in 0..MESSAGES {
            let range = Interval::new(next, next + 9);
            assert!(admits(&mut ledger, black_box(range)));
            next += 10;
        }
    })
}

/// Ranges that are already stored, as devices send them again.
fn ledger_resent() -> Case {
    let mut ledger = Ledger::default();
    assert!(admits(&mut ledger, Interval::new(1, 10 * MESSAGES)));
    new("range", MESSAGES, move || {
        for index in shuffled() {
            let range = Interval::new(10 * index + 1, 10 * index + 10);
            assert!(!admits(&mut ledger, black_box(range)));
        }
    })
}

/// Every second range first, then the ranges between, out of order.
fn ledger_holes() -> Case {
    new("range", 2 * MESSAGES, || {
        let mut ledger = Ledger::default();
        for index in shuffled().map(|index| 2 * index).chain(shuffled().map(|index| 2 * index + 1)) {
            let range = Interval::new(10 * index + 1, 10 * index + 10);
            assert!(admits(&mut ledger, black_box(range)));
        }
        assert_eq!(ledger.stored.intervals().len(), 1);
    })
}

/// Whether a range contained a new number. Afterwards the whole range is stored.
fn admits(ledger: &mut Ledger, range: Interval) -> bool {
    let mut next = Some(range.first);
    let mut new = false;
    while let Some(novel) = next.and_then(|next| ledger.novel(Interval::new(next, range.last)).next()) {
        new |= ledger.record(novel, Fate::Stored).is_ok();
        next = Some(novel.last + 1).filter(|next| *next <= range.last);
    }
    new
}

/// Partial sums of a batch, and their blocks.
fn aggregates(injections: u64) -> Case {
    let sent = sent(BATCH / injections, DEVICES, injections);
    let commons = commons(&sent);
    new("injection", BATCH, move || {
        let summands =
            sent.iter().flat_map(|sent| sent.injections().map(|(_, at, injection)| (sent.device, at, injection)));
        black_box(measure::aggregates(summands, &commons, PROVENANCE));
    })
}

/// Arrow columns of a batch: add the rows, make the block with its hash, make the record batch.
fn columns(injections: u64) -> Case {
    let sent = sent(BATCH / injections, DEVICES, injections);
    new("injection", BATCH, move || {
        let (commons, mut columns) = (commons(&sent), Injections::default());
        for (sent, offset) in sent.iter().zip(0..) {
            let origin = sent.origin(offset);
            for (seq, at, injection) in sent.injections() {
                columns.push(&origin, seq, at, injection);
            }
        }
        let block = columns.finish(PROVENANCE, &commons).expect("rows");
        assert_eq!(black_box(block.record_batch(0)).expect("a record batch").num_rows() as u64, BATCH);
    })
}

/// The common part of each device's reports, in the order of the devices. The first reports are one
/// of each device.
fn commons(sent: &[Sent]) -> Commons {
    let mut commons = Commons::default();
    for (sent, device) in sent.iter().zip(0..DEVICES as u32) {
        assert_eq!((sent.device, commons.add(&sent.common())), (device, device));
    }
    commons
}

/// From records to blocks: all work of the loader on a batch before it is written.
fn batch(injections: u64) -> Case {
    let records: Vec<_> =
        sent(BATCH / injections, DEVICES, injections).iter().zip(0..).map(|(sent, at)| sent.record(at)).collect();
    let (place, rules) = (
        Place { kind: TopicKind::Reports, partition: 0, partitions: 1 },
        DecodeRules::new(Plausibility::default(), telemetry::device_time::Limits::default()),
    );
    new("injection", BATCH, move || {
        let blocks = black_box(measure::batch(&records, place, &rules, PROVENANCE));
        let rows = blocks.iter().find(|block| block.table() == "injections").map(|block| block.rows());
        assert_eq!(rows, Some(BATCH), "all injections are stored");
    })
}
