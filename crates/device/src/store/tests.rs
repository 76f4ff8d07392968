//! The outbox on disk: after a kill at any moment, it holds everything that was committed.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;
use telemetry::v1::{Fault, Receipt, ReceiptCode, SeqRange};

use super::*;
use crate::{
    draft::{ReportLimits, choose},
    sender::Sender,
};

fn identities() -> [Identity; 2] {
    ["one", "two"].map(|device| Identity::new("t", "s", device).unwrap())
}

fn open(dir: &Path, outbox_bytes: u64) -> Store {
    let options = Options { outbox_bytes, segment_bytes: 2_000, fsync: Fsync::Never, ..Options::new(dir) };
    Store::open(options, &identities()).unwrap()
}

fn fault(text: &str) -> Option<Kind> {
    Some(Kind::Fault(Fault { code: text.to_owned(), ..Fault::default() }))
}

fn offer(store: &mut Store, device: usize, text: &str, context: &[u8]) -> Offered {
    let uptime_us = store.outbox(device).unwrap().next_seq().unwrap() * 1_000;
    let stamp = Stamp { uptime_us, unix_us: 1_000_000 + uptime_us as i64, clock: Clock::Synced };
    store.offer(device, stamp, context, fault(text), |_, _| false).unwrap()
}

/// All events in a device's outbox, read through reports: (boot, sequence number) -> fault code.
fn contents(store: &mut Store, device: usize) -> BTreeMap<(u64, u64), String> {
    let mut contents = BTreeMap::new();
    for boot in store.outbox(device).unwrap().boots().clone() {
        let mut from = 0;
        while let Some(draft) = choose(&boot, from, u64::MAX, ReportLimits::of(crate::Form::Protobuf)) {
            let bytes = store.report(device, boot.id, draft.range, Attached::default()).unwrap();
            let report = telemetry::report::Report::decode(&bytes).unwrap();
            for (index, event) in report.message().events.iter().enumerate() {
                let Some(Kind::Fault(fault)) = &event.kind else { panic!("no fault") };
                let seq = report.message().first_seq + index as u64;
                assert_eq!(report.message().base_uptime_us + event.offset_us, seq * 1_000);
                contents.insert((boot.id, seq), fault.code.clone());
            }
            from = draft.range.last + 1;
        }
    }
    contents
}

#[derive(Clone, Debug)]
enum Step {
    Offer {
        device: usize,
        count: u8,
    },
    Commit,
    Boot(usize),
    /// Settles some of the oldest events.
    Settle {
        device: usize,
        count: u8,
    },
    Lose(usize),
    Forfeit(usize),
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    let device = 0usize..2;
    prop_oneof![
        6 => (device.clone(), 1u8..12).prop_map(|(device, count)| Step::Offer { device, count }),
        3 => Just(Step::Commit),
        1 => device.clone().prop_map(Step::Boot),
        4 => (device.clone(), 1u8..30).prop_map(|(device, count)| Step::Settle { device, count }),
        1 => device.clone().prop_map(Step::Lose),
        1 => device.prop_map(Step::Forfeit),
        1 => Just(Step::Kill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_killed_outbox_comes_back_as_it_was_committed(steps in prop::collection::vec(step(), 1..150)) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path(), u64::MAX);
        let mut counter = 0;
        let mut boot = |store: &mut Store, device: usize| {
            counter += 1;
            store.begin(device, counter << 32 | 5).unwrap();
        };
        boot(&mut store, 0);
        boot(&mut store, 1);
        store.commit().unwrap();
        for step in steps {
            match step {
                Step::Offer { device, count } => {
                    for number in 0..count {
                        let next = store.outbox(device).unwrap().next_seq().unwrap();
                        offer(&mut store, device, &format!("{device}-{next}-{number}"), &[]);
                    }
                }
                Step::Commit => store.commit().unwrap(),
                Step::Boot(device) => boot(&mut store, device),
                Step::Settle { device, count } => {
                    let boots = store.outbox(device).unwrap().boots();
                    let Some(boot) = boots.iter().find(|boot| !boot.entries().is_empty()) else { continue };
                    let first = boot.entries()[0].seq;
                    let (boot_id, range) = (boot.id, SeqRange { first, last: first + u64::from(count) });
                    let code = ReceiptCode::Stored.into();
                    let receipt = Receipt { boot_id, ranges: vec![range], code, ..Receipt::default() };
                    let outbox = store.outbox_mut(device).unwrap();
                    let settlement = Sender::default().receipt(&receipt, Duration::ZERO, outbox);
                    store.settled(device, boot_id, &settlement).unwrap();
                }
                Step::Lose(device) => {
                    let current = store.outbox(device).unwrap().current().unwrap();
                    let (boot_id, seq) = (current.id, current.last_seq + 1);
                    store.lose(device, boot_id, Interval::new(seq, seq), "worn out").unwrap();
                }
                Step::Forfeit(device) => store.forfeit(device, 2).unwrap(),
                Step::Kill => {
                    store.commit().unwrap();
                    let before = [0, 1].map(|device| (store.outbox(device).unwrap().clone(), contents(&mut store, device)));
                    // The process loses everything that is not committed.
                    if store.outbox(0).unwrap().current().is_some() {
                        offer(&mut store, 0, "uncommitted", &[]);
                    }
                    drop(store);
                    store = open(dir.path(), u64::MAX);
                    for (device, (outbox, contents_before)) in before.into_iter().enumerate() {
                        prop_assert_eq!(store.outbox(device).unwrap(), &outbox);
                        prop_assert_eq!(contents(&mut store, device), contents_before);
                    }
                }
            }
        }
        // Old segments are deleted: the size kept is in proportion to the live events.
        let live: u64 = (0..2).map(|device| store.outbox(device).unwrap().bytes()).sum();
        let files = std::fs::read_dir(dir.path()).unwrap().count() as u64;
        prop_assert!(files < 12 + 4 * live / 2_000, "{} files for {} bytes", files, live);
    }
}

#[test]
fn a_full_outbox_gives_up_the_oldest_and_declares_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), 1_000);
    store.begin(0, 1 << 32 | 3).unwrap();
    let mut given_up = Vec::new();
    for number in 0..50 {
        given_up.extend(offer(&mut store, 0, &number.to_string(), b"").given_up);
    }
    store.commit().unwrap();
    assert!(store.outbox(0).unwrap().bytes() <= 1_000);
    let count = given_up.len() as u64;
    assert_eq!(given_up, (1..=count).map(|seq| (1 << 32 | 3, seq)).collect::<Vec<_>>());
    drop(store);
    let mut store = open(dir.path(), 1_000);
    assert_eq!(contents(&mut store, 0).len() as u64, 50 - count);
    let lost = store.outbox_mut(0).unwrap().attach_lost(1 << 32 | 3);
    assert_eq!(lost.len(), 1);
    assert_eq!((lost[0].first_seq, lost[0].last_seq, lost[0].reason.as_str()), (1, count, OUTBOX_FULL));
}

#[test]
fn events_under_way_are_not_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), 300);
    store.begin(0, 1 << 32).unwrap();
    for _ in 0..3 {
        offer(&mut store, 0, "first", b"");
    }
    let stamp = Stamp::default();
    let mut given_up = Vec::new();
    for _ in 0..20 {
        given_up.extend(store.offer(0, stamp, b"", fault("later"), |_, seq| seq <= 2).unwrap().given_up);
    }
    assert!(given_up.iter().all(|(_, seq)| *seq > 2) && given_up.len() > 10, "{given_up:?}");
}

#[test]
fn a_rejected_report_is_logged_and_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), 1 << 20);
    store.begin(1, 1 << 32).unwrap();
    for number in 0..5 {
        offer(&mut store, 1, &number.to_string(), b"");
    }
    store.commit().unwrap();
    let range = Some(Interval::new(2, 3));
    let rejected = Rejected { boot_id: 1 << 32, range, reason: "bad_id".to_owned(), sha256: [7; 32] };
    assert_eq!(store.reject(1, &rejected).unwrap(), 2);
    store.commit().unwrap();
    drop(store);
    let mut store = open(dir.path(), 1 << 20);
    assert_eq!(contents(&mut store, 1).keys().map(|(_, seq)| *seq).collect::<Vec<_>>(), [1, 4, 5]);
    let log = std::fs::read_to_string(dir.path().join(crate::rejected::FILE)).unwrap();
    let line: serde_json::Value = serde_json::from_str(&log).unwrap();
    assert_eq!((line["device"].as_str(), line["reason"].as_str()), (Some("two"), Some("bad_id")));
    assert_eq!((line["first_seq"].as_str(), line["last_seq"].as_str()), (Some("2"), Some("3")));
    assert!(line["payload_hex"].as_str().unwrap().len() > 20);
}

#[test]
fn an_event_that_fits_no_report_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), 1 << 20);
    store.begin(0, 1 << 32).unwrap();
    let huge = "x".repeat(300_000);
    let refused = store.offer(0, Stamp::default(), b"", fault(&huge), |_, _| false);
    assert!(matches!(refused, Err(Error::EventTooLarge { .. })));
    assert_eq!(offer(&mut store, 0, "next", b"").seq, 1);
}
