//! The end of a topic's incarnation, and the start of the next one.

use harness::ClickHouse;
use load::store::{Commit, Store};
use telemetry::{interval::IntervalSet, ledger::Ledger};
use warehouse::{
    Warehouse,
    closing::Closed,
    columns::{Block, Committed, LedgerRow, LossCause, Provenance, Quarantine, Quarantined},
    loader::{BootKey, CLOSED, GENERATIONS, Intent, Shard, TopicIncarnation},
};

use super::{migrated, now_us};

const DAY: i32 = 20_000;

fn incarnation(number: u32, partitions: u32) -> TopicIncarnation {
    TopicIncarnation { topic: "reports".to_owned(), incarnation: number, partitions, topic_id: format!("id-{number}") }
}

fn shard(incarnation: u32, partition: i32) -> Shard {
    Shard { incarnation, partition }
}

fn provenance(shard: Shard, batch: u64) -> Provenance {
    Provenance { ingest_day: DAY, incarnation: shard.incarnation, partition: shard.partition, batch }
}

fn intent(shard: Shard, batch: u64, batch_end: u64, generation: u32) -> Intent {
    Intent {
        shard,
        batch,
        batch_end,
        generation,
        decoder_version: 7,
        rules_hash: 1,
        ingest_day: DAY,
        owner: "o".to_owned(),
    }
}

fn commit(shard: Shard, batch: u64, batch_end: u64, generation: u32, ledgers: Vec<LedgerRow>) -> Commit {
    let committed = Committed { provenance: provenance(shard, batch), batch_end, generation, committed_at: now_us() };
    Commit { committed, rows: 3, lost: IntervalSet::default(), why: LossCause::Deleted, ledgers }
}

fn ledger(device: &str, stored: &[(u64, u64)], quarantined: &[(u64, u64)], arrival: i64) -> LedgerRow {
    LedgerRow {
        tenant: "acme".to_owned(),
        site: format!("site-{arrival}"),
        device: device.to_owned(),
        boot_id: 7,
        ledger: Ledger {
            stored: IntervalSet::from_ranges(stored.iter().copied()),
            quarantined: IntervalSet::from_ranges(quarantined.iter().copied()),
            declared_lost: IntervalSet::default(),
            declared_last: 0,
        },
        lost_reason: String::new(),
        last_arrival: arrival,
    }
}

fn key(device: &str) -> BootKey {
    BootKey { tenant: "acme".to_owned(), device: device.to_owned(), boot_id: 7 }
}

fn block(shard: Shard, batch: u64, rows: u64) -> Block {
    let mut quarantine = Quarantine::default();
    for seq in 0..rows {
        quarantine.push(&Quarantined {
            reason: "implausible",
            detail: "",
            topic: "t",
            source: "loader",
            payload: b"raw",
            received_at: 1,
            tenant: "acme",
            site: "s",
            device: "d",
            boot_id: 7,
            seq,
            injection_no: Some(seq),
            kafka_offset: seq,
        });
    }
    quarantine.finish(provenance(shard, batch)).expect("there are rows")
}

async fn batch(warehouse: &Warehouse, shard: Shard, range: (u64, u64), ledgers: Vec<LedgerRow>) {
    warehouse.put_intent(&intent(shard, range.0, range.1, 0), 1).await.unwrap();
    warehouse.insert_block(&block(shard, range.0, 2), 0).await.unwrap();
    record(warehouse, &commit(shard, range.0, range.1, 0, ledgers), 0).await;
}

async fn record(warehouse: &Warehouse, commit: &Commit, attempt: u32) {
    Store::commit(warehouse, commit, attempt).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_life_takes_nothing_more_and_the_next_begins_with_its_ledgers() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    warehouse.put_topic_incarnation(&incarnation(1, 5), 1).await.unwrap();

    // The partitions: nothing written, everything committed, a batch in flight, a batch that is
    // being written again, and a batch of another generation.
    let parts: Vec<Shard> = (0..5).map(|partition| shard(1, partition)).collect();
    batch(&warehouse, parts[1], (0, 10), vec![ledger("d1", &[(1, 5)], &[(6, 6)], 10)]).await;
    batch(&warehouse, parts[2], (0, 10), vec![ledger("d2", &[(1, 5)], &[], 10), ledger("d1", &[(9, 9)], &[], 20)])
        .await;
    warehouse.put_intent(&intent(parts[2], 10, 20, 0), 1).await.unwrap();
    warehouse.insert_block(&block(parts[2], 10, 3), 0).await.unwrap();
    batch(&warehouse, parts[3], (0, 10), vec![ledger("d3", &[(1, 5)], &[], 10)]).await;
    batch(&warehouse, parts[3], (10, 20), vec![ledger("d3", &[(1, 9)], &[], 20)]).await;
    warehouse.put_intent(&intent(parts[3], 10, 20, GENERATIONS), 1).await.unwrap();
    batch(&warehouse, parts[4], (0, 10), vec![ledger("d4", &[(1, 5)], &[], 10)]).await;
    warehouse.put_intent(&intent(parts[4], 10, 20, 0), 1).await.unwrap();
    warehouse.put_intent(&intent(parts[4], 10, 20, GENERATIONS), 1).await.unwrap();
    record(&warehouse, &commit(parts[4], 10, 20, GENERATIONS, vec![ledger("d4", &[(1, 9)], &[], 20)]), 0).await;

    let closed = warehouse.close_incarnation(&incarnation(1, 5), now_us()).await.unwrap();
    let positions: Vec<u64> = closed.iter().map(|Closed { position, .. }| *position).collect();
    assert_eq!(positions, [0, 10, 10, 10, 20]);
    assert_eq!(
        warehouse.close_incarnation(&incarnation(1, 5), now_us()).await.unwrap(),
        closed,
        "closing again changes something"
    );

    let keys = ["d1", "d2", "d3", "d4", "d9"].map(key);
    warehouse.put_topic_incarnation(&incarnation(2, 3), 2).await.unwrap();
    let before = sorted(warehouse.ledgers(shard(2, 0), 0, &keys).await.unwrap());
    let expected = [
        ledger("d1", &[(1, 5), (9, 9)], &[(6, 6)], 20),
        ledger("d2", &[(1, 5)], &[], 10),
        // What was being written again is gone.
        ledger("d3", &[(1, 5)], &[], 10),
        ledger("d4", &[(1, 9)], &[], 20),
    ];
    assert_eq!(before, expected);

    // Late writes: rows under any token of the batches, their commits, and new intents.
    for (part, batch_start) in [(parts[0], 0), (parts[1], 10), (parts[2], 10), (parts[3], 10), (parts[4], 20)] {
        let end = batch_start + 10;
        warehouse.put_intent(&intent(part, batch_start, end, 0), 1).await.unwrap();
        let latest = warehouse.intents(part, batch_start, Some(batch_start)).await.unwrap().pop().unwrap();
        assert_eq!(latest.decoder_version, warehouse::loader::CLOSING, "{latest:?}");
        assert_eq!(warehouse.progress(part).await.unwrap().position(), Some(CLOSED));
    }
    for generation in [0, 1, 15, GENERATIONS, GENERATIONS + 3] {
        for part in [parts[2], parts[3]] {
            if part == parts[2] && generation >= GENERATIONS {
                continue;
            }
            warehouse.insert_block(&block(part, 10, 3), generation).await.unwrap();
            let table_counts = warehouse.table_counts(&["quarantine"], provenance(part, 10)).await.unwrap();
            assert_eq!(table_counts, [], "a late writer got through under {generation}");
            let late = commit(part, 10, 20, generation, vec![ledger("d2", &[(1, 99)], &[], 99)]);
            record(&warehouse, &late, 0).await;
        }
    }
    assert_eq!(sorted(warehouse.ledgers(shard(2, 1), 0, &keys).await.unwrap()), expected, "a late commit got through");

    // A state of the new incarnation includes all earlier states.
    record(&warehouse, &commit(shard(2, 0), 0, 4, 0, vec![ledger("d1", &[(1, 12)], &[], 30)]), 0).await;
    let later = sorted(warehouse.ledgers(shard(2, 0), 4, &keys).await.unwrap());
    assert_eq!(later[0], ledger("d1", &[(1, 12)], &[], 30));
    assert_eq!(later[1..], expected[1..]);
    // Incarnations of another topic do not count.
    let other = TopicIncarnation { topic: "status".to_owned(), ..incarnation(3, 3) };
    warehouse.put_topic_incarnation(&other, 3).await.unwrap();
    assert_eq!(warehouse.ledgers(shard(3, 0), 0, &keys).await.unwrap(), []);

    let sql = "SELECT topic, incarnation, kafka_partition, first_offset, last_offset, records, reason \
               FROM doseline.kafka_losses ORDER BY kafka_partition";
    let line =
        |(partition, first): (usize, &u64)| format!("reports\t1\t{partition}\t{first}\t\\N\t\\N\tTOPIC_MADE_AGAIN");
    let lines: Vec<String> = positions.iter().enumerate().map(line).collect();
    assert_eq!(clickhouse.query(sql), lines.join("\n"));
}

fn sorted(mut rows: Vec<LedgerRow>) -> Vec<LedgerRow> {
    rows.sort_by(|a, b| a.device.cmp(&b.device));
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_that_kafka_did_not_have_are_a_loss() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    warehouse.put_topic_incarnation(&incarnation(1, 1), 1).await.unwrap();
    let mut lossy = commit(shard(1, 0), 10, 30, 0, Vec::new());
    lossy.lost = IntervalSet::from_ranges([(10, 13), (20, 20)]);
    // A burned token lets the same commit be stored twice.
    for attempt in 0..2 {
        record(&warehouse, &lossy, attempt).await;
    }
    let sql =
        "SELECT topic, first_offset, last_offset, records, reason FROM doseline.kafka_losses ORDER BY first_offset";
    assert_eq!(clickhouse.query(sql), "reports\t10\t13\t4\tRETENTION\nreports\t20\t20\t1\tRETENTION");
    let named = TopicIncarnation { topic_id: String::new(), topic: "old".to_owned(), ..incarnation(9, 1) };
    warehouse.put_topic_incarnation(&named, 1).await.unwrap();
    warehouse.note_topic_id(9, "first").await.unwrap();
    warehouse.note_topic_id(9, "second").await.unwrap();
    assert_eq!(warehouse.topic_incarnations().await.unwrap().last().unwrap().topic_id, "first");
}
