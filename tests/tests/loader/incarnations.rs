//! What happens to records that Kafka no longer has (retention, topics created again, offsets
//! reset), and how much waits in memory.

use std::{collections::BTreeSet, time::Duration};

use harness::poll;
use load::{Limits, Options};
use rand::{SeedableRng as _, rngs::StdRng};
use telemetry::kafka;
use warehouse::prune::prune;

use crate::{
    path::{Boot, boots, compare, groupings},
    rig::{Rig, Running},
};

/// Long enough for a loaded machine.
pub const WITHIN: Duration = Duration::from_secs(240);

pub fn wait_for_obstacle(loader: &Running, text: &str) {
    poll(WITHIN, "an obstacle", || {
        let readiness = loader.handle.readiness();
        let named = readiness.obstacles.iter().any(|obstacle| obstacle.reason.contains(text));
        if named && !readiness.ready { Ok(()) } else { Err(format!("{text:?} is not in {readiness:?}")) }
    });
}

/// Waits for a metric. Metrics rise after the commit, so ClickHouse is already up to date then.
#[track_caller]
pub fn wait_for_metric(loader: &Running, sample: &str, is_it: impl Fn(u64) -> bool) {
    poll(WITHIN, sample, || match metric(loader, sample) {
        value if is_it(value) => Ok(()),
        value => Err(value),
    });
}

/// Waits until the loader owns this many partitions.
fn wait_for_partitions(loader: &Running, partitions: u64) {
    wait_for_metric(loader, "doseline_load_partitions", |owned| owned == partitions);
}

fn metric(loader: &Running, sample: &str) -> u64 {
    let text = loader.handle.metrics();
    let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().expect("a number"))
}

fn send_all(rig: &mut Rig, boots: &[Boot], random: &mut StdRng, events: usize) {
    for boot in boots {
        for (first, last) in groupings(random, events) {
            rig.report(&boot.device, &boot.report(first, last));
        }
    }
    rig.flush();
}

/// The new topic soon holds more records than the old one, under the same offsets, so only its id
/// differs. Devices resend what was stored in the old incarnation, and nothing may be stored twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_made_again_is_noticed_and_nothing_doubles() {
    let random = &mut StdRng::seed_from_u64(21);
    let mut rig = Rig::start(4).await;
    let boots = boots(random, 200);
    for boot in &boots {
        for (first, last) in groupings(random, 120) {
            rig.report(&boot.device, &boot.report(first, last));
        }
    }
    rig.flush();
    let loader = rig.load(rig.options()).await;
    rig.written().await;

    rig.kafka.make_again(kafka::REPORTS_TOPIC, 4, &[("max.message.bytes", "4194304")]);
    send_all(&mut rig, &boots, random, 200);
    send_all(&mut rig, &boots, random, 200);
    wait_for_obstacle(&loader, "was deleted and created again");
    assert!(!loader.task.is_finished());
    let ensured = rig.ensure_topics().await;
    assert_eq!(ensured.iter().map(|ensured| ensured.topic.incarnation).collect::<Vec<_>>(), [5, 2, 3, 4]);
    rig.ensure_topics().await;
    rig.written().await;
    poll(WITHIN, "the loader to be ready", || match loader.handle.readiness() {
        readiness if readiness.ready => Ok(()),
        readiness => Err(format!("{readiness:?}")),
    });
    loader.stop().await;
    compare(&rig, &boots);
    let losses = "SELECT topic, incarnation, count(), countIf(records IS NULL AND last_offset IS NULL), any(reason) \
                  FROM doseline.kafka_losses GROUP BY ALL FORMAT TSV";
    assert_eq!(rig.clickhouse.query(losses), "doseline.reports.v1\t1\t4\t4\tTOPIC_MADE_AGAIN");
}

/// A table that forgets its tokens could store rows twice. The loader reads nothing until it is
/// repaired.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_without_a_window_is_refused() {
    let random = &mut StdRng::seed_from_u64(20);
    let mut rig = Rig::start(1).await;
    let setting = "ALTER TABLE doseline.injections MODIFY SETTING non_replicated_deduplication_window =";
    rig.clickhouse.query(&format!("{setting} 0"));
    let boots = boots(random, 50);
    let loader = rig.load(rig.options()).await;
    wait_for_obstacle(&loader, "doseline.injections: non_replicated_deduplication_window = 0");
    send_all(&mut rig, &boots, random, 50);
    assert_eq!(rig.clickhouse.number("SELECT count() FROM doseline.loader_intents"), 0);
    rig.clickhouse.query(&format!("{setting} 100000"));
    rig.written().await;
    loader.stop().await;
    compare(&rig, &boots);
}

/// The group's offsets are only for people. Whatever they say, the loader continues where
/// ClickHouse ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_of_the_group_mean_nothing() {
    let random = &mut StdRng::seed_from_u64(22);
    let mut rig = Rig::start(2).await;
    let boots = boots(random, 60);
    send_all(&mut rig, &boots, random, 60);
    let loader = rig.load(rig.options()).await;
    rig.written().await;
    loader.stop().await;
    for offset in [0, 1_000_000] {
        rig.kafka.reset_group(&rig.options().kafka.group, kafka::REPORTS_TOPIC, offset);
        send_all(&mut rig, &boots, random, 60);
        let loader = rig.load(rig.options()).await;
        rig.written().await;
        wait_for_metric(&loader, "doseline_load_duplicates_total", |duplicates| duplicates > 0);
        loader.stop().await;
    }
    compare(&rig, &boots);
}

/// The offsets of a topic that `kafka_losses` lists.
fn lost(rig: &Rig) -> BTreeSet<(i64, u64)> {
    let sql = "SELECT topic, kafka_partition, first_offset, last_offset, records, reason FROM doseline.kafka_losses";
    let mut lost = BTreeSet::new();
    for row in rig.clickhouse.rows(sql) {
        assert_eq!((row["topic"].as_str(), row["reason"].as_str()), (Some(kafka::REPORTS_TOPIC), Some("RETENTION")));
        let number = |column: &str| row[column].as_u64().expect("a number");
        assert_eq!(number("records"), number("last_offset") - number("first_offset") + 1);
        let partition = row["kafka_partition"].as_i64().expect("a number");
        for offset in number("first_offset")..=number("last_offset") {
            assert!(lost.insert((partition, offset)), "{partition}/{offset} is lost twice");
        }
    }
    lost
}

/// Checks that each record that was ever produced into the reports topic is either written or lost.
fn check_offsets(rig: &Rig) -> usize {
    let lost = lost(rig);
    let sql = "SELECT DISTINCT kafka_partition, kafka_offset FROM doseline.quarantine WHERE source = 'loader'";
    let mut all = lost.clone();
    for row in rig.clickhouse.rows(sql) {
        let offset = row["kafka_offset"].as_u64().expect("a number");
        assert!(all.insert((row["kafka_partition"].as_i64().expect("a number"), offset)), "{row} is lost and written");
    }
    for (partition, end) in rig.kafka.end_offsets(kafka::REPORTS_TOPIC) {
        for offset in 0..end.unsigned_abs() {
            assert!(all.contains(&(i64::from(partition), offset)), "{partition}/{offset} is neither written nor lost");
        }
    }
    lost.len()
}

/// Records that go to quarantine one by one, so that each offset shows; 1 kB each.
pub fn send_nonsense(rig: &mut Rig, partition: i32, count: usize) {
    for _ in 0..count {
        let topic = "doseline/v1/acme/berlin/pen-1/report";
        rig.produce_into(Some(partition), kafka::REPORTS_TOPIC, "acme/pen-1", topic, &[0xff; 1_000], &[]);
    }
    rig.flush();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_retention_took_is_recorded_and_reading_goes_on() {
    let mut rig = Rig::start(2).await;
    send_nonsense(&mut rig, 0, 10);
    let loader = rig.load(rig.options()).await;
    rig.written().await;
    loader.stop().await;

    // Records are deleted behind the position, before anything was read, and all of them.
    send_nonsense(&mut rig, 0, 10);
    send_nonsense(&mut rig, 1, 7);
    rig.kafka.delete_records(kafka::REPORTS_TOPIC, 0, 14);
    rig.kafka.delete_records(kafka::REPORTS_TOPIC, 1, 7);
    let loader = rig.load(rig.options()).await;
    rig.written().await;
    wait_for_obstacle(&loader, "see kafka_losses");
    assert_eq!(check_offsets(&rig), 4 + 7);
    wait_for_metric(&loader, "doseline_load_lost_records_total{topic=\"doseline.reports.v1\"}", |lost| lost == 11);

    // Records are deleted while the loader runs and the engine is too slow.
    let options =
        Options { limits: Limits { bytes_max: 1 << 20, memory_max: 1 << 20, ..rig.options().limits }, ..rig.options() };
    loader.stop().await;
    let loader = rig.load(options).await;
    wait_for_partitions(&loader, 8);
    rig.clickhouse.pause();
    send_nonsense(&mut rig, 0, 6_000);
    wait_for_metric(&loader, "doseline_load_memory_bytes", |bytes| bytes > 1 << 20);
    rig.kafka.delete_records(kafka::REPORTS_TOPIC, 0, 5_900);
    rig.clickhouse.resume();
    rig.written().await;
    wait_for_obstacle(&loader, "see kafka_losses");
    let lost = check_offsets(&rig);
    assert!(lost > 1_000, "{lost} are lost");
    loader.stop().await;
}

/// The loader believes neither the bridge's nor Kafka's time of such a record. The record's age
/// counts from the day on which it was written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_with_a_time_near_1970_does_not_use_up_the_quarantines_age() {
    let mut rig = Rig::start(1).await;
    rig.timestamp_ms = Some(1_000);
    send_nonsense(&mut rig, 0, 1);
    let loader = rig.load(rig.options()).await;
    rig.written().await;
    let usage = rig.warehouse.quarantine_usage().await.expect("ask for the usage");
    assert_eq!(rig.clickhouse.query("SELECT toYear(received_at) FROM doseline.quarantine"), "1970");
    assert!(usage.rows == 1 && usage.oldest_s < 2 * 86_400, "{usage:?}");
    loader.stop().await;
}

/// The limit of waiting records in memory covers all partitions together, while the engine stands
/// still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_bounded_over_all_partitions() {
    let mut rig = Rig::start(4).await;
    let limit = 2 << 20;
    let options =
        Options { limits: Limits { bytes_max: 1 << 20, memory_max: limit, ..rig.options().limits }, ..rig.options() };
    let loader = rig.load(options).await;
    wait_for_partitions(&loader, 16);
    rig.clickhouse.pause();
    // The records are so old that half of Kafka's retention of 7 days has passed while they wait.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    rig.timestamp_ms = Some(i64::try_from(now.as_millis()).expect("before 2262") - 4 * 86_400_000);
    for partition in 0..4 {
        send_nonsense(&mut rig, partition, 4_000);
    }
    wait_for_obstacle(&loader, "half of kafka's retention of 168 h is used up");
    let mut most = 0;
    poll(WITHIN, "the limit to be reached", || {
        let bytes = metric(&loader, "doseline_load_memory_bytes");
        most = most.max(bytes);
        // One more record of each partition may be in flight.
        assert!(bytes <= limit as u64 + 4 * 2_000, "{bytes} bytes in memory");
        if bytes > limit as u64 { Ok(()) } else { Err(most) }
    });
    rig.clickhouse.resume();
    rig.written().await;
    assert_eq!(check_offsets(&rig), 0);
    wait_for_metric(&loader, "doseline_load_memory_bytes", |bytes| bytes == 0);
    loader.stop().await;
}

/// A backlog that is larger than memory, in partitions of which none fills a batch before memory is
/// full. Batches are then written without waiting for their age. What fits into memory at the end
/// may wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_memory_ends_batches() {
    let mut rig = Rig::start(4).await;
    let (records, memory_max) = (16_000, 2 << 20);
    for partition in 0..4 {
        send_nonsense(&mut rig, partition, records / 4);
    }
    let age_max = Duration::from_secs(3_600);
    let limits = Limits { bytes_max: memory_max, memory_max, age_max, ..rig.options().limits };
    let loader = rig.load(Options { limits, ..rig.options() }).await;
    let there = records - memory_max / 1_000;
    poll(WITHIN, "what does not fit into memory to be written", || {
        match rig.clickhouse.number("SELECT count() FROM doseline.quarantine") {
            written if written >= there as u64 => Ok(()),
            written => Err(format!("{written} of {there}")),
        }
    });
    loader.stop().await;
}

/// Ledger states are pruned while loaders write, stop, start and read ledgers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pruning_beside_loaders_changes_nothing() {
    let random = &mut StdRng::seed_from_u64(24);
    let mut rig = Rig::start(2).await;
    let boots = boots(random, 300);
    let mut queues: Vec<_> = boots.iter().map(|_| groupings(random, 300).into_iter()).collect();
    // With this small cache, nearly every batch must read its ledgers from ClickHouse.
    let base = rig.options();
    let options = || Options { limits: Limits { ledger_cache_boots: 8, ..base.limits }, ..base.clone() };
    let mut pruned = 0;
    for round in 0..6 {
        let loaders = [rig.load(options()).await, rig.load(options()).await];
        for _ in 0..8 {
            let mut reports = Vec::new();
            for (boot, queue) in boots.iter().zip(&mut queues) {
                reports.extend(queue.next().map(|(first, last)| (boot.device.clone(), boot.report(first, last))));
            }
            reports.iter().for_each(|(device, report)| rig.report(device, report));
            rig.flush();
            // In some rounds batches grow and join, in others there are many.
            if round % 3 > 0 {
                rig.written().await;
            }
            let done = prune(&rig.warehouse, 8, 1, std::future::pending()).await.expect("prune");
            pruned += done.ledgers;
        }
        for loader in loaders {
            if round % 2 == 0 {
                loader.abandon().await;
            } else {
                loader.stop().await;
            }
        }
    }
    let loader = rig.load(options()).await;
    for (boot, queue) in boots.iter().zip(queues) {
        for (first, last) in queue {
            rig.report(&boot.device, &boot.report(first, last));
        }
    }
    rig.flush();
    rig.written().await;
    pruned += prune(&rig.warehouse, 8, 1, std::future::pending()).await.expect("prune").ledgers;
    println!("{pruned} states were pruned");
    assert!(pruned > 50, "{pruned} states were pruned");
    loader.stop().await;
    compare(&rig, &boots);
}
