//! Pruning deletes what no query needs, and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use harness::{ClickHouse, stay_within_a_day};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use warehouse::{
    Warehouse,
    columns::LedgerRow,
    delivery::Scope,
    loader::{BootKey, Shard},
    prune::{Pruned, prune},
};

use super::{migrated, now_us};

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;
const DAYS: i64 = 12;
/// How many days must stay rebuildable.
const KEPT: u32 = 8;

/// The rows that a loader writes in one shard.
struct History {
    shard: Shard,
    /// Start and end of each batch, and how many days ago it was written.
    batches: Vec<(u64, u64, i64)>,
    intents: Vec<String>,
    commits: Vec<String>,
}

/// Batches over several days. Each changes some boots, whose ledgers grow, with holes that close
/// later or never.
fn history(random: &mut StdRng, shard: Shard, batches: u64, boots: u64) -> History {
    let today = now_us() / DAY_US * DAY_US;
    let mut history = History { shard, batches: Vec::new(), intents: Vec::new(), commits: Vec::new() };
    let mut ledgers: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for number in 0..batches {
        let (batch, end) = (number * 10, number * 10 + 10);
        let ago = DAYS - 1 - (number * DAYS.unsigned_abs() / batches).cast_signed();
        let at = today - ago * DAY_US + number.cast_signed() * SECOND_US;
        let Shard { incarnation, partition } = shard;
        let place = format!("{incarnation}, {partition}, {batch}, {end}");
        history.batches.push((batch, end, ago));
        history.intents.push(format!("({place}, toDate(fromUnixTimestamp64Micro({at})))"));
        let time = format!("fromUnixTimestamp64Micro({at})");
        history.commits.push(format!("('commit', {place}, {time}, '', 0, [], [], 0, {time})"));
        let changed: BTreeSet<u64> = (0..random.random_range(1..4)).map(|_| random.random_range(1..=boots)).collect();
        for boot in changed {
            let numbers = ledgers.entry(boot).or_default();
            let next = numbers.iter().max().copied().unwrap_or(0) + 1;
            match random.random_range(0..4) {
                // A hole; a late number; the next number.
                0 => numbers.push(next + random.random_range(1..4)),
                1 => numbers.push(random.random_range(1..=next)),
                _ => numbers.push(next),
            }
            numbers.sort_unstable();
            numbers.dedup();
            let text = numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
            let said = if random.random_bool(0.1) { next + 2 } else { 0 };
            let arrival =
                format!("fromUnixTimestamp64Micro({})", at + i64::from(random.random_range(-3..3)) * SECOND_US);
            history
                .commits
                .push(format!("('ledger', {place}, {time}, 'pen-1', {boot}, [{text}], [{text}], {said}, {arrival})"));
        }
    }
    history
}

fn write(clickhouse: &ClickHouse, history: &History) {
    let columns = "incarnation, kafka_partition, batch, batch_end";
    let intents = history.intents.join(", ");
    clickhouse.query(&format!("INSERT INTO doseline.loader_intents ({columns}, ingest_day) VALUES {intents}"));
    let commits = history.commits.join(", ");
    clickhouse.query(&format!(
        "INSERT INTO doseline.loader_commits (kind, {columns}, committed_at, device, boot_id, stored_first, stored_last, \
         declared_last, last_arrival) VALUES {commits}"
    ));
}

async fn ledgers_at(warehouse: &Warehouse, history: &History, boots: u64) -> BTreeMap<u64, Vec<LedgerRow>> {
    let keys: Vec<_> =
        (1..=boots).map(|boot_id| BootKey { tenant: String::new(), device: "pen-1".to_owned(), boot_id }).collect();
    // The offsets at which ledgers are read: the position, the start of the last batch, the first
    // batch of every kept day.
    let last = history.batches.last().expect("there are batches");
    let mut places = vec![last.1, last.0];
    for day in 0..=i64::from(KEPT) {
        places.extend(history.batches.iter().find(|(.., ago)| *ago == day).map(|(batch, ..)| *batch));
    }
    let mut found = BTreeMap::new();
    for place in places {
        let mut rows = warehouse.ledgers(history.shard, place, &keys).await.unwrap();
        rows.sort_by_key(|row| row.boot_id);
        found.insert(place, rows);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_stays() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    let random = &mut StdRng::seed_from_u64(harness::seed());
    // The kept days are counted back from today.
    stay_within_a_day(Duration::from_secs(180));
    let boots = 20;
    let shards = [(1, 0), (1, 1), (2, 0)];
    let histories: Vec<History> = shards
        .map(|(incarnation, partition)| history(random, Shard { incarnation, partition }, 400, boots))
        .into_iter()
        .collect();
    histories.iter().for_each(|history| write(&clickhouse, history));
    // A loss is kept for ever.
    clickhouse.query(
        "INSERT INTO doseline.loader_commits (kind, incarnation, kafka_partition, batch, batch_end, lost_first, lost_last) \
         VALUES ('commit', 1, 0, 20, 30, [21], [22])",
    );

    let mut before = Vec::new();
    for history in &histories {
        before.push(ledgers_at(&warehouse, history, boots).await);
    }
    let gaps = warehouse.gaps(&Scope::default(), i64::MAX).await.unwrap();
    assert!(gaps.len() > 20, "{} gaps", gaps.len());
    let balances = warehouse.balances(&Scope::default()).await.unwrap();

    let nothing = prune(&warehouse, KEPT, u64::MAX, std::future::pending()).await.unwrap();
    assert_eq!(nothing, Pruned::default());
    let pruned = prune(&warehouse, KEPT, 1, std::future::pending()).await.unwrap();
    println!("{pruned:?}");
    assert!(pruned.ledgers > 1_000 && pruned.commits > 100 && pruned.intents > 100, "{pruned:?}");
    let states = clickhouse.number("SELECT count() FROM doseline.loader_commits WHERE kind = 'ledger'");
    let written: usize = histories.iter().map(|history| history.commits.len() - history.batches.len()).sum();
    assert_eq!(states, written as u64 - pruned.ledgers);

    for (history, before) in histories.iter().zip(before) {
        assert_eq!(ledgers_at(&warehouse, history, boots).await, before);
        let position = history.batches.last().map(|(_, end, _)| *end);
        assert_eq!(warehouse.progress(history.shard).await.unwrap().position(), position);
    }
    assert_eq!(warehouse.gaps(&Scope::default(), i64::MAX).await.unwrap(), gaps);
    assert_eq!(warehouse.balances(&Scope::default()).await.unwrap(), balances);
    assert_eq!(clickhouse.number("SELECT count() FROM doseline.loader_commits WHERE notEmpty(lost_first)"), 1);
    assert_eq!(clickhouse.number("SELECT count() FROM doseline.loader_pruning"), 0);
    let again = prune(&warehouse, KEPT, 1, std::future::pending()).await.unwrap();
    assert_eq!(again, Pruned::default(), "there was more to prune");
    let made = "SELECT count() FROM system.dropped_tables WHERE database = 'doseline'";
    assert_eq!(clickhouse.number(made), 0, "pruning makes no table");
}

/// Measures how long the delivery views take with many states, before and after pruning. Run it by
/// hand with `--ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn cost_of_the_views() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    // 1,000 boots with 3,000 states each over 7 days, in 12 shards. Each tenth boot has a hole.
    clickhouse.query(
        "INSERT INTO doseline.loader_commits (kind, incarnation, kafka_partition, batch, batch_end, committed_at, device, \
         boot_id, stored_first, stored_last, last_arrival) \
         SELECT 'ledger', 1, boot % 12, step * 10, step * 10 + 10, at, concat('pen-', toString(boot)), boot, \
            if(boot % 10 = 0 AND step > 5, [1, 7], [1]), if(boot % 10 = 0 AND step > 5, [5, step + 6], [step + 1]), at \
         FROM (SELECT number % 1000 AS boot, intDiv(number, 1000) AS step, \
            now64(6) - toIntervalSecond(604800 - step * 200) AS at FROM numbers(3000000))",
    );
    clickhouse.query(
        "INSERT INTO doseline.loader_commits (kind, incarnation, kafka_partition, batch, batch_end, committed_at) \
         SELECT 'commit', 1, number % 12, intDiv(number, 12) * 10, intDiv(number, 12) * 10 + 10, now64(6) FROM numbers(36000)",
    );
    clickhouse.query(
        "INSERT INTO doseline.loader_intents (incarnation, kafka_partition, batch, batch_end, ingest_day) \
         SELECT 1, number % 12, intDiv(number, 12) * 10, intDiv(number, 12) * 10 + 10, \
            toDate(now() - toIntervalSecond(604800 - intDiv(number, 12) * 200)) FROM numbers(36000)",
    );
    let measure = |when: &str| {
        for view in ["delivery_gaps", "delivery_completeness", "fleet"] {
            let began = Instant::now();
            let rows = clickhouse.number(&format!("SELECT count() FROM (SELECT * FROM doseline.{view})"));
            println!("{when}: {view} {rows} rows in {:?}", began.elapsed());
        }
    };
    measure("before");
    let began = Instant::now();
    let pruned = prune(&warehouse, KEPT, 1, std::future::pending()).await.unwrap();
    println!("{pruned:?} in {:?}", began.elapsed());
    measure("after");
}
