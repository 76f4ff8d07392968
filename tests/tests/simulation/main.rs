//! The whole path in one process, without IO and in virtual time: devices that resend and fail, a
//! broker that forgets, the bridge's cores, a Kafka that answers late, loaders that are overtaken,
//! a ClickHouse that dies. One seed decides everything that happens, so the same seed always gives
//! the same run.
//!
//! `DOSELINE_SIMULATION_SEED=N` runs one seed, and a seed that fails prints this command.
//! `DOSELINE_SIMULATION_SEEDS=A..B` runs other seeds than the usual ones, for a long search.

mod bridge;
mod broker;
mod bug;
mod chance;
mod device;
mod kafka;
mod loader;
mod oracle;
mod world;

use std::{
    collections::BTreeMap,
    env,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
};

use bug::Bug;
use world::{Outcome, Setting};

/// The seeds of every test run.
const SEEDS: Range<u64> = 0..1_000;
/// The seeds within which a planted bug must be found.
const BUG_SEEDS: Range<u64> = 0..200;

fn seeds() -> Range<u64> {
    let text = |name| env::var(name).ok();
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text:?} is not a seed"));
    if let Some(seed) = text("DOSELINE_SIMULATION_SEED") {
        let seed = number(&seed);
        return seed..seed + 1;
    }
    match text("DOSELINE_SIMULATION_SEEDS") {
        Some(range) => match range.split_once("..") {
            Some((from, to)) => number(from)..number(to),
            None => 0..number(&range),
        },
        None => SEEDS,
    }
}

/// Runs one seed, and returns its result or the fault that it finds.
fn found(seed: u64, setting: Setting) -> Result<Outcome, String> {
    catch_unwind(AssertUnwindSafe(|| world::run(seed, setting))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("panicked").to_owned())
    })
}

fn all_green(seeds: Range<u64>, setting: Setting, test: &str) -> BTreeMap<String, u64> {
    let mut struck = BTreeMap::new();
    for seed in seeds {
        match found(seed, setting) {
            Ok(outcome) => {
                outcome.struck.into_iter().for_each(|(what, times)| *struck.entry(what).or_default() += times);
                *struck.entry("events".to_owned()).or_default() += outcome.events;
            }
            Err(violation) => panic!(
                "{violation}\nreplay: DOSELINE_SIMULATION_SEED={seed} cargo test --release -p tests --test simulation {test}"
            ),
        }
    }
    struck
}

#[test]
fn every_event_stands_once_whatever_fails() {
    let seeds = seeds();
    let struck = all_green(seeds.clone(), Setting::default(), "every_event_stands_once_whatever_fails");
    println!("{} seeds: {struck:?}", seeds.end - seeds.start);
    // A simulation without faults would prove nothing.
    let mishaps = ["broker restarted", "bridge killed", "kafka away", "device failed"];
    let engine = ["Before", "After", "Zombie", "Burn", "Restart"].map(|fault| format!("engine {fault}"));
    let expected = mishaps.map(str::to_owned).into_iter().chain(engine);
    assert!(seeds.end - seeds.start < 100 || expected.into_iter().all(|what| struck.contains_key(&what)), "{struck:?}");
}

#[test]
fn a_seed_happens_again_in_the_same_way() {
    for seed in 0..20 {
        let (first, second) = (found(seed, Setting::default()), found(seed, Setting::default()));
        assert_eq!(first, second, "seed {seed}");
        assert_ne!(first, found(seed + 1, Setting::default()), "seed {seed}");
    }
}

/// Reading back protects rows that the deduplication window does not, as long as no write is late.
/// A window of 40 inserts is then sufficient. Much smaller windows are not, because the deletion of
/// a batch alone uses 16 or 32 tokens of a table.
#[test]
fn a_small_window_suffices_where_no_write_is_late() {
    let setting = Setting { window: Some(40), prompt: true, ..Setting::default() };
    all_green(BUG_SEEDS, setting, "a_small_window_suffices_where_no_write_is_late");
}

fn turns_red(bug: Bug) {
    let setting = Setting { bug: Some(bug), ..Setting::default() };
    let seed = BUG_SEEDS.into_iter().find_map(|seed| found(seed, setting).err().map(|violation| (seed, violation)));
    match seed {
        Some((seed, violation)) => println!("{bug:?}: found by seed {seed} ({} tried): {violation}", seed + 1),
        None => panic!("{bug:?} stays unnoticed for {BUG_SEEDS:?}"),
    }
}

fn stays_green(bug: Bug) {
    let setting = Setting { bug: Some(bug), ..Setting::default() };
    all_green(BUG_SEEDS, setting, &format!("# with the planted {bug:?}"));
}

/// Declares one test for each planted bug.
macro_rules! planted {
    ($($test:ident: $check:ident($bug:ident);)*) => {
        $(#[test]
        fn $test() {
            $check(Bug::$bug);
        })*
    };
}

planted! {
    acknowledging_out_of_order_is_found: turns_red(AcknowledgeOutOfOrder);
    acknowledging_a_stale_epoch_is_found: turns_red(AcknowledgeStaleEpoch);
    committing_the_maximum_is_found: turns_red(CommitTheMaximum);
    a_receipt_at_once_is_found: turns_red(ReceiptAtOnce);
    trusting_the_token_alone_is_found: turns_red(TrustTheToken);
    other_boundaries_on_retry_are_found: turns_red(OtherBoundaries);
    two_record_batches_are_found: turns_red(TwoRecordBatches);
    a_ledger_ahead_of_its_batch_is_found: turns_red(LedgerAhead);
    a_ledger_in_an_insert_of_its_own_is_found: turns_red(LedgerApart);
    a_token_without_table_is_found: turns_red(TokenWithoutTable);
    a_window_of_0_is_found: turns_red(WindowZero);
    a_window_that_late_writes_outlast_is_found: turns_red(WindowTooSmall);
    trusting_the_commits_of_the_group_is_found: turns_red(TrustTheCommits);
    a_fence_of_one_token_is_found: turns_red(FenceOne);
    overtaken_owners_with_ledgers_as_of_now_are_found: turns_red(OvertakenAndAsOfNow);

    blocks_that_only_come_late_do_no_harm: stays_green(BlocksLate);
    // This check and the one in `ledgers_as_of_now_alone_do_no_harm_where_no_write_is_late` cover
    // each other. An owner that was overtaken and continues only writes blocks that exist already,
    // from the ledgers at its batch's start.
    without_the_overtaken_check_alone_no_harm_is_done: stays_green(NoOvertakenCheck);
}

/// An owner that reads the present ledgers notices that it was overtaken. A late commit of a
/// superseded generation does not overtake it, but still brings its own ledgers. So no write may be
/// late here.
#[test]
fn ledgers_as_of_now_alone_do_no_harm_where_no_write_is_late() {
    let setting = Setting { bug: Some(Bug::LedgerAsOfNow), prompt: true, ..Setting::default() };
    all_green(BUG_SEEDS, setting, "# with the planted LedgerAsOfNow, prompt");
}
