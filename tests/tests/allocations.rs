//! In its steady state the bridge allocates nothing. An allocator of this test counts the
//! allocations of the thread that runs it.
//!
//! Not counted, because it is not doseline's code: what the MQTT client allocates for a received
//! packet and for a receipt, and librdkafka's own copies, which C code makes. JSON, statuses and
//! refusals do allocate, but they do not belong to the steady state.

#[allow(dead_code, reason = "some of the cases are looked at")]
#[path = "../benches/micro/cases.rs"]
mod cases;
#[path = "../benches/micro/inputs.rs"]
#[allow(dead_code, reason = "some of the inputs are needed")]
mod inputs;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    hint::black_box,
};

use bridge::path::Path;
use telemetry::report::{Contexts, Report};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
}

// SAFETY: the system's allocator does all the work. Counting uses a thread-local that needs neither
// memory nor a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// How often the work allocates memory or enlarges an allocation.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn allocations_are_counted() {
    assert_eq!(allocations(|| drop(black_box(vec![1u8; 100]))), 1);
    let grows = |mut bytes: Vec<u8>| bytes.resize(black_box(1_000), 0);
    let bytes = Vec::with_capacity(10);
    assert_eq!(allocations(|| grows(bytes)), 1);
}

#[test]
fn a_report_goes_through_the_bridge_without_allocating() {
    for name in ["topic", "head/1", "head/10", "head/50", "ring", "unconfirmed", "bridge/1", "bridge/10", "bridge/50"] {
        let mut case = cases::case(name);
        // The first runs bring buffers to their final size.
        for _ in 0..8 {
            (case.run)();
        }
        let counted = allocations(|| (0..100).for_each(|_| (case.run)()));
        assert_eq!(counted, 0, "{name}: allocations in {} {}s", 100 * case.events, case.unit);
    }
}

/// The single allocation is the Rust client's copy of the Kafka topic's name.
#[test]
fn handing_a_record_to_the_producer_allocates_once() {
    let publishes: Vec<_> = inputs::sent(64, 64, 10).iter().zip(1..).map(|(sent, id)| sent.publish(id)).collect();
    let mut path = Path::new().expect("a producer");
    let mut round = || {
        publishes.iter().for_each(|publish| path.ingest(publish));
        assert_eq!(path.confirm(), (64, 64));
    };
    (0..8).for_each(|_| round());
    assert_eq!(allocations(|| (0..10).for_each(|_| round())), 640);
}

/// The loader stores a context's texts once, so only the first report of a context allocates for
/// it. Each report allocates once for all of its events.
#[test]
fn decoding_allocates_for_a_context_once_and_for_a_report_once() {
    for injections in [1, 10, 50] {
        let sent = inputs::sent(1, 1, injections);
        let mut contexts = Contexts::default();
        let mut decode = || allocations(|| drop(black_box(Report::decode_among(&sent[0].payload, &mut contexts))));
        // Six texts, the session, the mounts and their five texts, the context and its entry in the
        // list, the events.
        assert_eq!(decode(), 16);
        assert_eq!(decode(), 1);
    }
}

#[test]
fn a_ledger_in_order_allocates_nothing() {
    let mut case = cases::case("ledger_in_order");
    (case.run)();
    assert_eq!(allocations(|| (case.run)()), 0);
}
