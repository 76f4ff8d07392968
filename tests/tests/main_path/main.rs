//! The main task. ClickHouse must hold the events of 200 simulated devices once each, with every
//! value and the right aggregates. Missing events must show, and unusable ones must be in
//! quarantine. The simulator's truth file decides what is right.

mod delivery;
mod expected;
mod rows;
mod sums;
mod truth;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use harness::{ClickHouse, Doseline, Scratch, Stack, poll};

use sums::Sums;
use truth::Truth;

/// Long enough for a loaded machine.
const WITHIN: Duration = Duration::from_secs(300);
const SCENARIOS: &str =
    "healthy,dose-drift,depth-drift,retransmit,offline,clock-skew,reboot,needle-reuse,failed-cycle,poison";

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros().try_into().expect("before 294,247")
}

fn wait_for_injections(clickhouse: &ClickHouse, wanted: u64) {
    poll(WITHIN, &format!("{wanted} injections"), || {
        match clickhouse.number("SELECT count() FROM doseline.injections") {
            count if count >= wanted => Ok(()),
            count => Err(count),
        }
    });
}

fn stop(mut loader: Doseline) {
    let (status, took) = loader.stop(Duration::from_secs(60));
    assert!(status.success(), "a loader ended with {status}:\n{}", loader.stderr());
    println!("a loader stopped within {took:.1?}");
}

/// The number after a word in the simulator's last line.
fn told(summary: &str, word: &str) -> u64 {
    let rest = summary.split_once(&format!("{word} ")).unwrap_or_else(|| panic!("no {word} in {summary:?}")).1;
    rest.split_whitespace().next().expect("a number").parse().expect("a number")
}

#[test]
fn everything_a_fleet_makes_arrives_once_and_exactly() {
    let (began, scratch) = (Instant::now(), Scratch::new("main-path"));
    let passed = |what: &str| println!("{:6.1} s: {what}", began.elapsed().as_secs_f64());
    let stack = Stack::start("[load]\nbatch_age_ms = 500");
    let _bridge = stack.role("bridge");
    let first = stack.role("load");
    passed("the path is ready");

    let from = now_us();
    let (truth, data) = (scratch.join("truth.jsonl"), scratch.join("devices"));
    let (truth, data) = (truth.to_str().expect("a plain path"), data.to_str().expect("a plain path"));
    let mut simulator = stack.doseline(&[
        "simulate",
        "--devices=200",
        "--rate=0",
        "--duration=1050",
        "--seed=7",
        "--scenario",
        SCENARIOS,
        "--truth",
        truth,
        "--data-dir",
        data,
    ]);
    // Loaders start and stop during the stream: two share the partitions, then the first one ends,
    // then it runs alone again.
    wait_for_injections(&stack.clickhouse, 20_000);
    let second = stack.role("load");
    passed("a second loader has joined");
    wait_for_injections(&stack.clickhouse, 60_000);
    stop(first);
    wait_for_injections(&stack.clickhouse, 90_000);
    let _third = stack.role("load");
    stop(second);
    passed("one loader left, another came");

    let status = simulator.process().wait(WITHIN);
    assert!(status.success(), "{}", simulator.stderr());
    let summary = simulator.stdout();
    passed(&format!("the simulator ended: {}", summary.trim()));
    assert_eq!(told(&summary, "without receipt"), 0);
    let truth = Truth::read(truth.as_ref());
    assert_eq!(told(&summary, "made"), truth.events.len() as u64);
    // Two messages with the same bytes may share a receipt.
    let (distinct, all) = truth.receipted_poisons();
    let refused = told(&summary, "refused");
    assert!((distinct..=all).contains(&refused), "{refused} REJECTED receipts for {distinct} to {all} bad messages");
    poll(WITHIN, "bad messages without a receipt", || delivery::are_poisons_there(&stack.clickhouse, &truth));
    stack.wait_until_committed();
    passed("everything is written");

    let mut sums = Sums::default();
    let received = from - 1_000_000..=now_us();
    rows::check(&stack.clickhouse, &truth, &received, &mut sums);
    rows::check_heartbeats(&stack.clickhouse, &truth, &received);
    passed("base rows are compared");
    sums.check(&stack.clickhouse);
    delivery::check_gaps(&stack.clickhouse, &truth);
    delivery::check_completeness(&stack.clickhouse, &truth);
    delivery::check_quarantine(&stack.clickhouse, &truth);
    passed("aggregates, gaps and quarantine are compared");
}
