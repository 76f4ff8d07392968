//! A device on a random bad network: the pure core against a model of the server.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use telemetry::v1::{Clock, SeqRange};

use super::*;
use crate::outbox::Entry;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Events happen, all in one context.
    Events {
        count: u8,
        context: u8,
    },
    /// Time passes, ms.
    Wait(u32),
    /// A message reaches the server: its index, and whether it is delivered again later.
    Deliver {
        which: u8,
        again: bool,
    },
    /// A message is lost.
    Drop(u8),
    /// A receipt reaches the device, or is lost.
    Receipt {
        which: u8,
        arrives: bool,
    },
    /// The connection breaks; messages and receipts in flight are lost.
    Reconnect,
    Reboot,
    /// The device gives up the oldest event that is not in flight.
    GiveUp,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u8..20, 0u8..3).prop_map(|(count, context)| Step::Events { count, context }),
        4 => (0u32..60_000).prop_map(Step::Wait),
        4 => (any::<u8>(), any::<bool>()).prop_map(|(which, again)| Step::Deliver { which, again }),
        1 => any::<u8>().prop_map(Step::Drop),
        4 => (any::<u8>(), prop::bool::weighted(0.8)).prop_map(|(which, arrives)| Step::Receipt { which, arrives }),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Reboot),
        1 => Just(Step::GiveUp),
    ]
}

#[derive(Clone, Debug)]
struct Message {
    boot_id: u64,
    seqs: Vec<u64>,
    attached: Attached,
    hash: Hash,
}

#[derive(Default)]
struct World {
    options: Options,
    now: Duration,
    outbox: Outbox,
    sender: Sender,
    made: BTreeSet<(u64, u64)>,
    network: Vec<Message>,
    receipts: Vec<Receipt>,
    /// Events that the server has stored.
    stored: BTreeSet<(u64, u64)>,
    lost: BTreeSet<(u64, u64)>,
    rejected: BTreeSet<(u64, u64)>,
    ends: BTreeMap<u64, u64>,
    rejected_hashes: BTreeSet<Hash>,
}

impl World {
    fn boot(&mut self) {
        let counter = u64::from(self.outbox.counter()) + 1;
        self.outbox.begin(counter << 32 | 7);
    }

    fn pump(&mut self) {
        while let Some(mut next) = self.sender.next(self.now, &self.outbox, Form::Protobuf, &self.options) {
            if !next.is_resend() {
                next.attached = Attached {
                    lost: self.outbox.attach_lost(next.boot_id),
                    earlier: self.outbox.earlier(next.boot_id),
                };
            }
            let boot = self.outbox.boot(next.boot_id).unwrap();
            let seqs: Vec<_> =
                next.range.into_iter().flat_map(|range| boot.within(range)).map(|entry| entry.seq).collect();
            assert!(!seqs.is_empty() || next.range.is_none(), "an empty report");
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&next.boot_id.to_le_bytes());
            hash[8..16].copy_from_slice(&seqs.first().unwrap_or(&0).to_le_bytes());
            hash[16..24].copy_from_slice(&(seqs.len() as u64).to_le_bytes());
            assert!(!self.rejected_hashes.contains(&hash), "rejected bytes are sent again");
            self.network.push(Message { boot_id: next.boot_id, seqs, attached: next.attached.clone(), hash });
            self.sender.sent(next, hash, self.now, 0.5, &self.options);
        }
        self.check();
    }

    /// Asserts the invariants.
    fn check(&self) {
        assert!(self.sender.flights.len() <= self.options.window);
        let mut in_flight = BTreeSet::new();
        for flight in &self.sender.flights {
            for seq in flight.range.into_iter().flat_map(|range| range.first..=range.last) {
                assert!(in_flight.insert((flight.boot_id, seq)), "{seq} is under way twice");
            }
        }
        let kept = self.outbox.boots().iter().flat_map(|boot| boot.entries().iter().map(|entry| (boot.id, entry.seq)));
        let kept: BTreeSet<_> = kept.collect();
        for event in &self.made {
            let is_safe = kept.contains(event)
                || self.stored.contains(event)
                || self.rejected.contains(event)
                || self.lost.contains(event)
                || self.outbox.boot(event.0).is_some_and(crate::outbox::Boot::has_undeclared)
                || self.sender.flights.iter().any(|flight| !flight.attached.lost.is_empty());
            assert!(is_safe, "{event:?} is nowhere");
        }
    }

    fn arrive(&mut self, message: &Message) {
        // Every report whose first number is a multiple of 11 is bad.
        if message.seqs.first().is_some_and(|first| first % 11 == 0) {
            self.rejected.extend(message.seqs.iter().map(|seq| (message.boot_id, *seq)));
            let payload_sha256 = message.hash.to_vec();
            let code = ReceiptCode::Rejected.into();
            self.receipts.push(Receipt { code, payload_sha256, ..Receipt::default() });
            return;
        }
        self.stored.extend(message.seqs.iter().map(|seq| (message.boot_id, *seq)));
        for lost in &message.attached.lost {
            self.lost.extend((lost.first_seq..=lost.last_seq).map(|seq| (message.boot_id, seq)));
        }
        self.ends.extend(message.attached.earlier.iter().map(|boot| (boot.boot_id, boot.last_seq)));
        let range = message.seqs.first().zip(message.seqs.last());
        let ranges = range.map(|(first, last)| SeqRange { first: *first, last: *last }).into_iter().collect();
        let code = ReceiptCode::Stored.into();
        self.receipts.push(Receipt { boot_id: message.boot_id, ranges, code, ..Receipt::default() });
    }

    fn receipt(&mut self, receipt: &Receipt) {
        let settlement = self.sender.receipt(receipt, self.now, &mut self.outbox);
        if let Ok(hash) = Hash::try_from(receipt.payload_sha256.as_slice()) {
            self.rejected_hashes.insert(hash);
        }
        if let Some(rejected) = settlement.rejected
            && let Some(range) = rejected.range
        {
            self.outbox.settle(rejected.boot_id, range);
        }
    }

    fn play(&mut self, step: Step) {
        let pick = |which: u8, length: usize| (length > 0).then(|| usize::from(which) % length);
        match step {
            Step::Events { count, context } => {
                for _ in 0..count {
                    let (boot_id, seq) = (self.outbox.current().unwrap().id, self.outbox.next_seq().unwrap());
                    self.outbox.keep(boot_id, entry(seq, context), 0);
                    self.sender.offered(self.now, &self.options);
                    self.made.insert((boot_id, seq));
                }
            }
            Step::Wait(ms) => self.now += Duration::from_millis(ms.into()),
            Step::Deliver { which, again } => {
                if let Some(index) = pick(which, self.network.len()) {
                    let message = self.network[index].clone();
                    if !again {
                        self.network.swap_remove(index);
                    }
                    self.arrive(&message);
                }
            }
            Step::Drop(which) => {
                if let Some(index) = pick(which, self.network.len()) {
                    self.network.swap_remove(index);
                }
            }
            Step::Receipt { which, arrives } => {
                if let Some(index) = pick(which, self.receipts.len()) {
                    let receipt = self.receipts.swap_remove(index);
                    if arrives {
                        self.receipt(&receipt);
                    }
                }
            }
            Step::Reconnect => {
                self.network.clear();
                self.receipts.clear();
                self.sender.disconnected();
                assert_eq!(self.sender.next(self.now, &self.outbox, Form::Protobuf, &self.options), None);
                self.sender.connected(self.now, 0.5, &self.options);
            }
            Step::Reboot => self.boot(),
            Step::GiveUp => {
                let sender = &self.sender;
                if let Some((boot_id, seq)) = self.outbox.oldest(|boot_id, seq| !sender.is_in_flight(boot_id, seq)) {
                    self.outbox.lose(boot_id, Interval::new(seq, seq), "outbox full");
                }
            }
        }
        self.pump();
    }
}

fn entry(seq: u64, context: u8) -> Entry {
    Entry {
        seq,
        place: Place { segment: 1, offset: 0, length: 50 },
        uptime_us: seq,
        unix_us: seq as i64,
        clock: Clock::Synced,
        context: context.into(),
        context_bytes: 10,
        event_bytes: 40,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever the network does, nothing is lost silently. Once the network works, everything is
    /// settled and the end of every boot is known.
    #[test]
    fn nothing_is_lost_silently(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::default();
        world.boot();
        world.sender.connected(world.now, 0.5, &world.options);
        for step in steps {
            world.play(step);
        }
        // A last event lets the current boot report the earlier ones. It must not be a bad one.
        world.play(Step::Events { count: 1, context: 9 });
        if world.outbox.next_seq().unwrap() % 11 == 1 {
            world.play(Step::Events { count: 1, context: 8 });
        }
        for _ in 0..2_000 {
            world.now += Duration::from_secs(100);
            world.pump();
            for message in std::mem::take(&mut world.network) {
                world.arrive(&message);
            }
            for receipt in std::mem::take(&mut world.receipts) {
                world.receipt(&receipt);
            }
        }
        prop_assert!(world.outbox.is_settled());
        prop_assert!(world.sender.flights.is_empty());
        prop_assert_eq!(world.outbox.bytes(), 0);
        for event in &world.made {
            let known = [&world.stored, &world.rejected, &world.lost].map(|fates| fates.contains(event));
            prop_assert!(known.contains(&true), "{:?}", event);
        }
        let current = world.outbox.current().unwrap().id;
        prop_assert_eq!(world.outbox.boots().len(), 1);
        for (boot_id, seq) in &world.made {
            prop_assert!(*boot_id == current || world.ends.get(boot_id).is_some_and(|end| end >= seq));
        }
    }
}

#[test]
fn waits_double_up_to_the_longest_with_jitter() {
    let options = Options::default();
    let wait = |attempt, random| options.wait(attempt, random).as_secs();
    assert_eq!([1, 2, 3, 5, 6, 60].map(|attempt| wait(attempt, 0.5)), [30, 60, 120, 480, 900, 900]);
    assert_eq!((wait(1, 0.0), wait(1, 1.0)), (15, 45));
}

#[test]
fn a_receipt_can_ask_for_patience() {
    let mut world = World::default();
    world.boot();
    world.sender.connected(world.now, 0.5, &world.options);
    let receipt = Receipt { code: 1, retry_after_ms: Some(5_000), ..Receipt::default() };
    world.receipt(&receipt);
    world.play(Step::Events { count: 3, context: 0 });
    world.play(Step::Wait(4_999));
    assert!(world.network.is_empty());
    world.play(Step::Wait(1));
    assert_eq!(world.network.len(), 1);
}

#[test]
fn events_wait_for_company_and_no_longer() {
    let mut world = World::default();
    world.boot();
    world.sender.connected(world.now, 0.5, &world.options);
    world.play(Step::Events { count: 1, context: 0 });
    world.play(Step::Wait(499));
    world.play(Step::Events { count: 1, context: 0 });
    assert!(world.network.is_empty());
    assert_eq!(world.sender.wake(&world.outbox, Form::Protobuf, &world.options), Some(Duration::from_millis(500)));
    world.play(Step::Wait(1));
    assert_eq!(world.network.len(), 1);
    assert_eq!(world.network[0].seqs, [1, 2]);
    // A change of context closes the report at once.
    world.play(Step::Events { count: 1, context: 0 });
    world.play(Step::Events { count: 1, context: 1 });
    assert_eq!(world.network[1].seqs, [3]);
}

/// A receipt of another report settles events, but not the losses that the report with these events
/// declares.
#[test]
fn a_declaration_is_settled_by_its_own_report_only() {
    let mut world = World::default();
    world.boot();
    world.sender.connected(world.now, 0.5, &world.options);
    world.play(Step::Events { count: 4, context: 0 });
    // The event is given up before it was sent; the report of the others declares the loss.
    world.play(Step::GiveUp);
    world.play(Step::Wait(1_000));
    let message = world.network.remove(0);
    assert_eq!((message.seqs.as_slice(), message.attached.lost.len()), ([2, 3, 4].as_slice(), 1));
    let receipt = |first, last| {
        let ranges = vec![SeqRange { first, last }];
        Receipt { boot_id: message.boot_id, ranges, code: ReceiptCode::Stored.into(), ..Receipt::default() }
    };
    // Earlier reports, in another grouping.
    world.receipt(&receipt(2, 3));
    world.receipt(&receipt(4, 4));
    assert!(world.sender.flights.is_empty());
    assert!(world.outbox.current().unwrap().has_undeclared(), "the loss was never declared");
    world.play(Step::Events { count: 1, context: 0 });
    world.play(Step::Wait(1_000));
    assert_eq!(world.network[0].attached.lost.len(), 1);
    let arrived = world.network.remove(0);
    world.arrive(&arrived);
    let receipt = world.receipts.remove(0);
    world.receipt(&receipt);
    assert!(world.outbox.is_settled());
}
