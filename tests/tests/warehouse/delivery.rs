//! `delivery_gaps` and `delivery_completeness`, compared with the ledger that they are computed
//! from.

use harness::ClickHouse;
use rand::{Rng as _, SeedableRng as _};
use telemetry::{
    interval::{Interval, IntervalSet},
    ledger::{Fate, Ledger},
};
use warehouse::delivery::{Gap, Scope};

use super::migrated;

/// Arrivals of one boot are a second apart.
const SECOND_US: i64 = 1_000_000;

struct State {
    ledger: Ledger,
    at_us: i64,
}

fn bounds(set: &IntervalSet) -> String {
    let part = |of: fn(&Interval) -> u64| {
        set.intervals().iter().map(of).map(|seq| seq.to_string()).collect::<Vec<_>>().join(",")
    };
    format!("[{}], [{}]", part(|interval| interval.first), part(|interval| interval.last))
}

fn commit_row(boot_id: u64, batch_end: usize, State { ledger, at_us }: &State) -> String {
    let Ledger { stored, quarantined, declared_lost: lost, declared_last } = ledger;
    let (stored, quarantined, lost) = (bounds(stored), bounds(quarantined), bounds(lost));
    let at = format!("fromUnixTimestamp64Micro({at_us})");
    format!(
        "('ledger', 1, 0, {batch_end} - 1, {batch_end}, {at}, 'acme', 'paris', 'pen-1', {boot_id}, \
         {stored}, {quarantined}, {lost}, {declared_last}, {at})"
    )
}

const COMMIT_COLUMNS: &str = "kind, incarnation, kafka_partition, batch, batch_end, committed_at, tenant, site, device, \
                              boot_id, stored_first, stored_last, quarantined_first, quarantined_last, lost_first, \
                              lost_last, declared_last, last_arrival";

/// The ledger states after each of several reports, which arrive in any order, with duplicates, bad
/// events, losses and declarations.
fn states(random: &mut rand::rngs::StdRng, boot_id: u64) -> Vec<State> {
    let (mut ledger, mut states) = (Ledger::default(), Vec::new());
    for step in 0..random.random_range(1..12) {
        let first = random.random_range(1..40);
        let range = Interval::new(first, first + random.random_range(0..6));
        match random.random_range(0..10) {
            0..6 => {
                for novel in ledger.novel(range).collect::<Vec<_>>() {
                    let fate = if random.random_bool(0.2) { Fate::Quarantined } else { Fate::Stored };
                    ledger.record(novel, fate).unwrap();
                }
            }
            6..8 => ledger.declare_lost(range).unwrap(),
            _ => ledger.declare_last(range.last),
        }
        let at_us = i64::try_from(boot_id).unwrap() * 1_000 * SECOND_US + step * SECOND_US;
        states.push(State { ledger: ledger.clone(), at_us });
    }
    states
}

fn gaps_of(boot_id: u64, states: &[State], said: Option<(u64, i64)>) -> Vec<Gap> {
    let State { ledger, .. } = states.last().unwrap();
    let known_last = ledger.known_last().max(said.map_or(0, |(last, _)| last));
    let fate = |seq: u64| match ledger {
        ledger if ledger.stored.contains(seq) || ledger.quarantined.contains(seq) => None,
        ledger if ledger.declared_lost.contains(seq) => Some("LOST"),
        _ => Some("OPEN"),
    };
    let known = |seq: u64| {
        let told = states.iter().find(|state| state.ledger.known_last() >= seq).map(|state| state.at_us);
        let said = said.filter(|(last, _)| *last >= seq).map(|(_, at_us)| at_us);
        told.into_iter().chain(said).min().unwrap()
    };
    let mut gaps: Vec<Gap> = Vec::new();
    for seq in 1..=known_last {
        let Some(state) = fate(seq) else { continue };
        match gaps.last_mut().filter(|gap| gap.last_missing + 1 == seq && gap.state == state) {
            Some(gap) => gap.last_missing = seq,
            None => gaps.push(Gap {
                tenant: "acme".to_owned(),
                site: "paris".to_owned(),
                device: "pen-1".to_owned(),
                boot_id,
                first_missing: seq,
                last_missing: seq,
                state: state.to_owned(),
                since: known(seq),
            }),
        }
    }
    gaps
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_are_what_the_ledger_misses_and_since_it_was_known() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    let mut random = rand::rngs::StdRng::seed_from_u64(harness::seed());
    let (mut rows, mut signs, mut expected, mut balances) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for boot_id in 1..200 {
        let states = states(&mut random, boot_id);
        rows.extend(states.iter().enumerate().map(|(at, state)| commit_row(boot_id, at + 1, state)));
        let said = random.random_bool(0.3).then(|| {
            let at_us = states[0].at_us + random.random_range(0..12) * SECOND_US + SECOND_US / 2;
            let last = random.random_range(1..60);
            signs.push(format!("('acme', 'paris', 'pen-1', fromUnixTimestamp64Micro({at_us}), {boot_id}, {last})"));
            (last, at_us)
        });
        expected.extend(gaps_of(boot_id, &states, said));
        let Ledger { stored, quarantined, .. } = &states.last().unwrap().ledger;
        let declared = states.last().unwrap().ledger.declared_last.max(said.map_or(0, |(last, _)| last));
        let made = states.last().unwrap().ledger.known_last().max(declared);
        balances.push((boot_id, made, stored.count(), quarantined.count(), declared == made));
    }
    clickhouse.query(&format!("INSERT INTO doseline.loader_commits ({COMMIT_COLUMNS}) VALUES {}", rows.join(", ")));
    clickhouse.query(&format!(
        "INSERT INTO doseline.device_status (tenant, site, device, received_at, last_boot_id, last_seq) VALUES {}",
        signs.join(", ")
    ));

    assert_eq!(warehouse.gaps(&Scope::default(), i64::MAX).await.unwrap(), expected);
    let early: Vec<Gap> = expected.iter().filter(|gap| gap.since <= 100_000 * SECOND_US).cloned().collect();
    assert_eq!(warehouse.gaps(&Scope::default(), 100_000 * SECOND_US).await.unwrap(), early);
    let elsewhere = Scope { tenant: "acme".to_owned(), device: "pen-2".to_owned() };
    assert!(warehouse.gaps(&elsewhere, i64::MAX).await.unwrap().is_empty());

    let found = warehouse.balances(&Scope { tenant: "acme".to_owned(), ..Scope::default() }).await.unwrap();
    for balance in &found {
        assert_eq!(balance.stored + balance.quarantined + balance.lost + balance.missing, balance.made, "{balance:?}");
    }
    let found: Vec<_> =
        found.iter().map(|boot| (boot.boot_id, boot.made, boot.stored, boot.quarantined, boot.tail_known)).collect();
    assert_eq!(found, balances);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_life_of_the_topic_closes_gaps_of_the_one_before() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    let row = |incarnation: u32, batch_end: u64, gen_: u32, stored: &str| {
        format!(
            "('ledger', {incarnation}, 0, 0, {batch_end}, {gen_}, 'acme', 'paris', 'pen-1', 7, {stored}, \
             fromUnixTimestamp64Micro({incarnation}000000))"
        )
    };
    let rows = [
        row(1, 10, 0, "[1], [9]"),
        // The batch was written again under the next generation, with other contents.
        row(1, 20, 0, "[1], [20]"),
        row(1, 20, 1, "[1, 15], [9, 20]"),
        row(2, 5, 0, "[10], [12]"),
    ];
    clickhouse.query(&format!(
        "INSERT INTO doseline.loader_commits (kind, incarnation, kafka_partition, batch, batch_end, gen, tenant, site, \
         device, boot_id, stored_first, stored_last, last_arrival) VALUES {}",
        rows.join(", ")
    ));
    let gaps = warehouse.gaps(&Scope::default(), i64::MAX).await.unwrap();
    let gaps: Vec<_> = gaps.iter().map(|gap| (gap.first_missing, gap.last_missing, gap.since)).collect();
    assert_eq!(gaps, [(13, 14, SECOND_US)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn injections_are_counted_against_the_lifetime_counter() {
    let clickhouse = ClickHouse::start();
    migrated(&clickhouse).await;
    clickhouse.query(
        "INSERT INTO doseline.injections (tenant, device, boot_id, seq, injection_no) VALUES \
         ('acme', 'pen-1', 1, 1, 100), ('acme', 'pen-1', 1, 2, 101), ('acme', 'pen-1', 2, 1, 105), \
         ('acme', 'pen-2', 1, 1, 7), ('acme', 'pen-2', 1, 2, NULL), ('acme', 'pen-3', 1, 1, NULL)",
    );
    clickhouse.query(
        "INSERT INTO doseline.device_status (tenant, device, received_at, injection_no) VALUES \
         ('acme', 'pen-1', fromUnixTimestamp64Micro(5), 107), ('acme', 'pen-3', fromUnixTimestamp64Micro(5), 3)",
    );
    let sql = "SELECT device, received, known, missing, at_least, first_injection_no, last_injection_no \
               FROM doseline.injection_completeness ORDER BY device";
    assert_eq!(clickhouse.query(sql), "pen-1\t3\t8\t5\t0\t100\t107\npen-2\t1\t1\t0\t1\t7\t7");
}

/// An event in quarantine is not missing. What a session lacks is known exactly between two
/// received numbers and from its end; otherwise it is "at least".
#[tokio::test(flavor = "multi_thread")]
async fn visits_are_counted_by_numbers_and_by_their_end() {
    let clickhouse = ClickHouse::start();
    migrated(&clickhouse).await;
    // The hole of session a is in quarantine. The end of session b reveals a hole. Session c has no
    // end, and session e carries no numbers.
    clickhouse.query(
        "INSERT INTO doseline.injections (tenant, device, boot_id, seq, injection_no, session_id) VALUES \
         ('acme', 'pen-1', 1, 1, 1, 'a'), ('acme', 'pen-1', 1, 2, 2, 'a'), ('acme', 'pen-1', 1, 4, 4, 'a'), \
         ('acme', 'pen-1', 1, 10, 10, 'b'), ('acme', 'pen-1', 1, 12, 12, 'b'), \
         ('acme', 'pen-1', 1, 20, 20, 'c'), ('acme', 'pen-1', 1, 22, 22, 'c'), \
         ('acme', 'pen-2', 1, 1, NULL, 'e'), ('acme', 'pen-2', 1, 2, NULL, 'e'), ('acme', 'pen-2', 1, 3, 9, '')",
    );
    // The second one was replayed, and is now among the injections.
    clickhouse.query(
        "INSERT INTO doseline.quarantine (tenant, device, boot_id, seq, injection_no) VALUES \
         ('acme', 'pen-1', 1, 3, 3), ('acme', 'pen-1', 1, 2, 2), ('acme', 'pen-1', 1, 99, NULL), ('acme', 'pen-3', 1, 1, 5)",
    );
    clickhouse.query(
        "INSERT INTO doseline.sessions (tenant, device, boot_id, seq, session_id, event, shots, at) VALUES \
         ('acme', 'pen-1', 1, 9, 'b', 'STARTED', NULL, fromUnixTimestamp64Micro(1)), \
         ('acme', 'pen-1', 1, 13, 'b', 'ENDED', 4, fromUnixTimestamp64Micro(2000000)), \
         ('acme', 'pen-1', 1, 30, 'd', 'ENDED', 5, fromUnixTimestamp64Micro(3000000)), \
         ('acme', 'pen-2', 1, 4, 'e', 'ENDED', NULL, fromUnixTimestamp64Micro(4000000))",
    );
    let sql = "SELECT device, session_id, received, known, missing, at_least, first_injection_no, last_injection_no, \
               toUnixTimestamp(ended_at) FROM doseline.session_completeness ORDER BY session_id";
    let expected = [
        "pen-1\ta\t4\t4\t0\t1\t1\t4\t\\N",
        "pen-1\tb\t2\t4\t2\t0\t10\t12\t2",
        "pen-1\tc\t2\t3\t1\t1\t20\t22\t\\N",
        "pen-1\td\t0\t5\t5\t0\t\\N\t\\N\t3",
        "pen-2\te\t2\t2\t0\t1\t\\N\t\\N\t4",
    ];
    assert_eq!(clickhouse.query(sql), expected.join("\n"));
    let sql = "SELECT device, received, known, missing, at_least FROM doseline.injection_completeness ORDER BY device";
    assert_eq!(clickhouse.query(sql), "pen-1\t8\t22\t14\t1\npen-2\t1\t1\t0\t1\npen-3\t1\t1\t0\t1");
}
