//! The checks that every [`Store`] has to pass; a failed check panics. They run against the
//! simulation's fake and against the real engine.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a failed check is how a contract fails")]

use telemetry::{
    interval::{Interval, IntervalSet},
    ledger::Ledger,
};
use warehouse::{
    columns::{Block, Committed, LedgerRow, LossCause, Provenance, Quarantine, Quarantined},
    loader::{BootKey, Intent, LastCommit, Shard, TableCount},
};

use crate::{
    owner::GENERATIONS,
    store::{Commit, Store},
};

const DAY: i32 = 20_000;
const TABLE: &str = "quarantine";

/// Runs every check, each on a shard of its own of the given incarnation.
pub async fn check<S: Store>(store: &S, incarnation: u32) {
    let shard = |partition| Shard { incarnation, partition };
    an_intent_is_put_once(store, shard(0)).await;
    an_intent_has_one_winner(store, shard(1)).await;
    a_block_is_taken_once(store, shard(2)).await;
    a_commit_moves_the_position(store, shard(3)).await;
    ledgers_are_those_of_their_time(store, shard(4)).await;
    erasing_shuts_out_the_late(store, shard(5)).await;
    store.uptime().await.unwrap();
}

fn intent(shard: Shard, batch: u64, batch_end: u64, generation: u32, owner: &str) -> Intent {
    Intent {
        shard,
        batch,
        batch_end,
        generation,
        decoder_version: 7,
        rules_hash: u64::MAX - 1,
        ingest_day: DAY,
        owner: owner.to_owned(),
    }
}

fn provenance(shard: Shard, batch: u64) -> Provenance {
    Provenance { ingest_day: DAY, incarnation: shard.incarnation, partition: shard.partition, batch }
}

fn block(provenance: Provenance, rows: u64, detail: &str) -> Block {
    let mut quarantine = Quarantine::default();
    for seq in 0..rows {
        quarantine.push(&Quarantined {
            reason: "implausible",
            detail,
            topic: "doseline/v1/a/b/c/report",
            source: "loader",
            payload: &[0, 255, 10],
            received_at: 1_700_000_000_000_000,
            tenant: "a",
            site: "b",
            device: "c",
            boot_id: u64::MAX,
            seq,
            injection_no: None,
            kafka_offset: seq,
        });
    }
    quarantine.finish(provenance).unwrap()
}

async fn an_intent_is_put_once<S: Store>(store: &S, shard: Shard) {
    assert_eq!(store.intents(shard, 10).await.unwrap(), []);
    let first = intent(shard, 10, 20, 0, "first");
    store.put_intent(&first, 1).await.unwrap();
    store.put_intent(&intent(shard, 10, 30, 0, "second"), 2).await.unwrap();
    assert_eq!(store.intents(shard, 10).await.unwrap(), std::slice::from_ref(&first));
    let next = intent(shard, 10, 20, GENERATIONS, "third");
    store.put_intent(&next, 3).await.unwrap();
    store.put_intent(&intent(shard, 20, 21, 0, "fourth"), 4).await.unwrap();
    assert_eq!(store.intents(shard, 10).await.unwrap(), [first, next]);
}

async fn an_intent_has_one_winner<S: Store>(store: &S, shard: Shard) {
    for batch in 0..10 {
        let owners = (1..=4).map(|owner| async move {
            store.put_intent(&intent(shard, batch, batch + owner, 0, &owner.to_string()), 1).await.unwrap();
            store.intents(shard, batch).await.unwrap()
        });
        let seen = futures::future::join_all(owners).await;
        assert_eq!(seen[0].len(), 1, "{seen:?}");
        assert!(seen.iter().all(|intents| *intents == seen[0]), "owners disagree: {seen:?}");
    }
}

async fn a_block_is_taken_once<S: Store>(store: &S, shard: Shard) {
    let batch = provenance(shard, 5);
    assert_eq!(store.table_counts(&[TABLE, "injections"], batch).await.unwrap(), []);
    let mine = block(batch, 1_000, "mine");
    for _ in 0..3 {
        store.insert(&mine, 3).await.unwrap();
    }
    // A token that was accepted: the engine silently drops other rows under it.
    store.insert(&block(batch, 7, "other"), 3).await.unwrap();
    let count = TableCount { table: TABLE.to_owned(), generation: 3, hash: mine.hash(), rows: 1_000 };
    assert_eq!(store.table_counts(&["injections", TABLE], batch).await.unwrap(), [count]);
    store.insert(&mine, 4).await.unwrap();
    assert_eq!(store.table_counts(&[TABLE], batch).await.unwrap().len(), 2, "each generation has a token of its own");
    assert_eq!(store.table_counts(&[TABLE], provenance(shard, 6)).await.unwrap(), []);
}

fn commit(shard: Shard, batch: u64, batch_end: u64, generation: u32, ledgers: Vec<LedgerRow>) -> Commit {
    Commit {
        committed: Committed { provenance: provenance(shard, batch), batch_end, generation, committed_at: 1 },
        rows: 3,
        lost: IntervalSet::from_ranges([(1, 2)]),
        why: LossCause::Deleted,
        ledgers,
    }
}

async fn a_commit_moves_the_position<S: Store>(store: &S, shard: Shard) {
    assert_eq!(store.progress(shard).await.unwrap().position(), None);
    for (batch, end) in [(0, 10), (10, 300)] {
        let intent = intent(shard, batch, end, 0, "o");
        store.put_intent(&intent, 1).await.unwrap();
        let commit = commit(shard, batch, end, 0, Vec::new());
        store.commit(&commit, 0).await.unwrap();
        store.commit(&commit, 0).await.unwrap();
        store.commit(&commit, 1).await.unwrap();
        let progress = store.progress(shard).await.unwrap();
        assert_eq!(progress.position(), Some(end));
        assert_eq!(progress.commit, Some(LastCommit { batch, batch_end: end, generation: 0 }));
        assert_eq!(progress.intents, [intent]);
    }
    // Another owner has put a later intent for the batch.
    store.put_intent(&intent(shard, 10, 300, GENERATIONS, "n"), 1).await.unwrap();
    assert_eq!(store.progress(shard).await.unwrap().position(), Some(10));
    store.commit(&commit(shard, 10, 300, GENERATIONS, Vec::new()), 0).await.unwrap();
    assert_eq!(store.progress(shard).await.unwrap().position(), Some(300));
}

async fn ledgers_are_those_of_their_time<S: Store>(store: &S, shard: Shard) {
    let ledger = |device: &str, last: u64, arrival: i64| LedgerRow {
        tenant: "acme".to_owned(),
        site: "berlin".to_owned(),
        device: device.to_owned(),
        boot_id: u64::MAX - 3,
        ledger: Ledger {
            stored: IntervalSet::from_ranges([(1, last), (last + 5, last + 9)]),
            quarantined: IntervalSet::from_ranges([(last + 2, last + 2)]),
            declared_lost: IntervalSet::from_ranges([(last + 3, last + 3)]),
            declared_last: last + 40,
        },
        lost_reason: "outbox full".to_owned(),
        last_arrival: arrival,
    };
    let key = |device: &str| BootKey { tenant: "acme".to_owned(), device: device.to_owned(), boot_id: u64::MAX - 3 };
    let keys = [key("d1"), key("d2"), key("d3")];
    assert_eq!(store.ledgers(shard, 0, &keys).await.unwrap(), []);
    store.commit(&commit(shard, 0, 10, 0, vec![ledger("d1", 10, 5), ledger("d2", 20, 6)]), 0).await.unwrap();
    store.commit(&commit(shard, 10, 20, 0, vec![ledger("d1", 100, 7)]), 0).await.unwrap();
    let sorted = |mut rows: Vec<LedgerRow>| {
        rows.sort_by(|a, b| a.device.cmp(&b.device));
        rows
    };
    let at =
        |as_of| async move { sorted(store.ledgers(shard, as_of, &[key("d1"), key("d2"), key("d3")]).await.unwrap()) };
    assert_eq!(at(20).await, [ledger("d1", 100, 7), ledger("d2", 20, 6)]);
    assert_eq!(at(10).await, [ledger("d1", 10, 5), ledger("d2", 20, 6)]);
    assert_eq!(at(9).await, []);
    assert_eq!(store.ledgers(shard, 20, &[key("d2")]).await.unwrap(), [ledger("d2", 20, 6)]);
    let interval = Interval::new(101, 104);
    assert_eq!(at(20).await[0].ledger.novel(Interval::new(1, 109)).collect::<Vec<_>>()[0].first, interval.first);
}

async fn erasing_shuts_out_the_late<S: Store>(store: &S, shard: Shard) {
    let (batch, other) = (provenance(shard, 0), provenance(shard, 9));
    let (old, new) = (block(batch, 5, "old"), block(batch, 6, "new"));
    store.insert(&old, 0).await.unwrap();
    store.insert(&block(other, 2, "other"), 0).await.unwrap();
    store.erase(batch, 0, GENERATIONS).await.unwrap();
    store.erase(batch, 0, GENERATIONS).await.unwrap();
    assert_eq!(store.table_counts(&[TABLE], batch).await.unwrap(), []);
    // An owner that had found the token of generation 0 burned would write under the next one.
    for generation in [0, 1, GENERATIONS - 1] {
        store.insert(&old, generation).await.unwrap();
        assert_eq!(store.table_counts(&[TABLE], batch).await.unwrap(), [], "a late writer got through as {generation}");
    }
    store.insert(&new, GENERATIONS).await.unwrap();
    store.erase(batch, 0, GENERATIONS).await.unwrap();
    let count = TableCount { table: TABLE.to_owned(), generation: GENERATIONS, hash: new.hash(), rows: 6 };
    assert_eq!(store.table_counts(&[TABLE], batch).await.unwrap(), [count]);
    assert_eq!(store.table_counts(&[TABLE], other).await.unwrap().len(), 1, "erased another batch");
}
