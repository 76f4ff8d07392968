//! Partitions that stand still because of the cluster: rights that were taken away, a leader that
//! is gone, a member of the group that does not read what it was given.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use harness::{Kafka, poll};
use load::{Limits, Options, TopicSpec};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use telemetry::kafka::REPORTS_TOPIC;

use crate::{
    incarnations::{WITHIN, send_nonsense, wait_for_metric, wait_for_obstacle},
    rig::{Rig, Running},
};

/// Short, so that a test does not wait for long.
const TOLD_WITHIN: Duration = Duration::from_secs(40);
/// For a machine that does other things beside.
const MARGIN: Duration = Duration::from_secs(20);

fn options(rig: &Rig) -> Options {
    let limits = Limits { unwritten_age_max: TOLD_WITHIN, ..rig.options().limits };
    Options { limits, ..rig.options() }
}

/// Each of these is in one obstacle, within the time.
fn assert_told(loader: &Running, since: Instant, parts: &[&str]) {
    wait_for_obstacle(loader, parts[0]);
    let took = since.elapsed();
    assert!(took < TOLD_WITHIN + MARGIN, "told after {took:?}");
    let obstacles = loader.handle.readiness().obstacles;
    let told = obstacles.iter().any(|obstacle| parts.iter().all(|part| obstacle.reason.contains(part)));
    assert!(told, "{parts:?} are not in {obstacles:#?}");
}

fn wait_until_ready(loader: &Running) {
    poll(WITHIN, "the loader to be ready", || match loader.handle.readiness() {
        readiness if readiness.ready => Ok(()),
        readiness => Err(format!("{readiness:?}")),
    });
}

/// Reading alone, and everything: both are told with place and remedy, and end when the rights come
/// back. Nothing is lost and nothing is given up meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_that_are_taken_away_are_told_with_place_and_remedy_until_they_are_back() {
    let mut rig = Rig::on(Kafka::secured(), (1, 1)).await;
    let mut properties = service::kafka::Properties::default();
    properties.extend(rig.kafka.secured_properties());
    let kafka = load::Kafka { brokers: rig.kafka.secured_bootstrap(), properties, ..rig.options().kafka };
    let loader = rig.load(Options { kafka, ..options(&rig) }).await;
    send_nonsense(&mut rig, 0, 3);
    rig.written().await;
    wait_until_ready(&loader);

    rig.kafka.restrict(REPORTS_TOPIC, &["Describe", "DescribeConfigs"]);
    send_nonsense(&mut rig, 0, 3);
    let place = "topic doseline.reports.v1, partition 0, has been read for";
    assert_told(&loader, Instant::now(), &[place, "from offset 3 on", "uthorization", "the loader's rights"]);
    let standing = "doseline_load_standing_seconds{topic=\"doseline.reports.v1\",partition=\"0\"}";
    let text = loader.handle.metrics();
    let stood = text.lines().find_map(|line| line.strip_prefix(standing)).expect("the metric").trim().parse::<f64>();
    assert!(stood.expect("a number") > 0.0 && loader.handle.oldest_age() > Duration::ZERO);
    rig.kafka.unrestrict(REPORTS_TOPIC);
    rig.written().await;
    wait_until_ready(&loader);

    rig.kafka.restrict(REPORTS_TOPIC, &[]);
    send_nonsense(&mut rig, 0, 3);
    assert_told(&loader, Instant::now(), &["topic doseline.reports.v1", "the loader's rights"]);
    rig.kafka.unrestrict(REPORTS_TOPIC);
    rig.written().await;
    wait_until_ready(&loader);
    loader.stop().await;
    assert_eq!(rig.clickhouse.number("SELECT uniqExact(kafka_offset) FROM doseline.quarantine"), 9);
    assert_eq!(rig.clickhouse.number("SELECT count() FROM doseline.kafka_losses"), 0);
}

/// The one broker that has a partition dies: a loader that reads it says so, and so does one that
/// starts afterwards and never gets to read it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_whose_leader_is_gone_is_told_with_its_place() {
    let mut rig = Rig::on(Kafka::cluster(3), (3, 1)).await;
    let loader = rig.load(options(&rig)).await;
    (0..3).for_each(|partition| send_nonsense(&mut rig, partition, 2));
    rig.written().await;
    wait_until_ready(&loader);
    let leaders: BaseConsumer = rig.kafka.config().create().expect("create a Kafka client");
    let metadata = leaders.fetch_metadata(Some(REPORTS_TOPIC), Duration::from_secs(30)).expect("ask for leaders");
    let leader = metadata.topics()[0].partitions().iter().find(|found| found.id() == 0).expect("partition 0").leader();
    let index = usize::try_from(leader - 1).expect("nodes are numbered from 1");
    rig.kafka.node(index).kill();
    let gone = Instant::now();
    let place = "topic doseline.reports.v1, partition 0, has been read for";
    assert_told(&loader, gone, &[place, "from offset 2 on", "kafka does not say what it has", "look at the brokers"]);
    loader.stop().await;

    let loader = rig.load(options(&rig)).await;
    let place = "topic doseline.reports.v1, partition 0, has been written for";
    assert_told(&loader, Instant::now(), &[place, "from offset 2 on", "kafka does not say what it has"]);
    rig.kafka.start_again();
    send_nonsense(&mut rig, 0, 2);
    rig.written().await;
    wait_until_ready(&loader);
    loader.stop().await;
}

/// What no loader reads is read by nobody, whatever the group thinks: here another program is in
/// it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_no_loader_reads_is_told_by_those_that_run() {
    let mut rig = Rig::start(2).await;
    let loader = rig.load(options(&rig)).await;
    wait_for_metric(&loader, "doseline_load_partitions", |owned| owned == 8);
    let mut config = rig.kafka.config();
    config.set("group.id", &rig.options().kafka.group).set("partition.assignment.strategy", "cooperative-sticky");
    config.set("session.timeout.ms", "6000").set("enable.auto.commit", "false").set("auto.offset.reset", "latest");
    let stranger: BaseConsumer = config.create().expect("create a Kafka consumer");
    stranger.subscribe(&[REPORTS_TOPIC]).expect("subscribe");
    let taken = poll(WITHIN, "the stranger to get a partition", || {
        let _ = stranger.poll(Duration::from_millis(100));
        let assignment = stranger.assignment().map_err(|error| error.to_string())?;
        let of_reports = assignment.elements_for_topic(REPORTS_TOPIC);
        let taken: BTreeSet<i32> =
            of_reports.iter().map(rdkafka::topic_partition_list::TopicPartitionListElem::partition).collect();
        if !taken.is_empty() { Ok(taken) } else { Err(format!("{taken:?}")) }
    });
    let partition = *taken.first().expect("a partition");
    let since = Instant::now();
    (0..2).for_each(|partition| send_nonsense(&mut rig, partition, 2));
    let place = format!("topic doseline.reports.v1, partition {partition}, has been written for");
    poll(WITHIN, "the partition to be told of", || {
        let _ = stranger.poll(Duration::from_millis(100));
        let readiness = loader.handle.readiness();
        let told = readiness.obstacles.iter().any(|obstacle| obstacle.reason.contains(&place));
        if told { Ok(()) } else { Err(format!("{readiness:?}")) }
    });
    assert_told(&loader, since, &[&place, "from offset 0 on", "records up to 1", "does not read it"]);
    wait_for_metric(&loader, "doseline_load_partitions", |owned| owned < 8);
    let text = loader.handle.metrics();
    assert!(!text.contains("doseline_load_standing_elsewhere_seconds 0.0"), "{text}");
    drop(stranger);
    rig.written().await;
    wait_until_ready(&loader);
    loader.stop().await;
}

/// A topic that its broker compresses anew can be read; `doseline check --connect` says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_the_broker_compresses_anew_is_named_with_its_codec() {
    let rig = Rig::start(1).await;
    let spec =
        TopicSpec { partitions: 1, replication: 1, min_insync_replicas: 1, retention: Duration::from_secs(7 * 86_400) };
    let kafka = rig.options().kafka;
    let found = load::inspect_topics(&kafka, &spec).await.expect("topics as they must be");
    assert!(!found.contains("compress"), "{found}");
    let settings = [("compression.type", "zstd"), ("max.message.bytes", "4194304")];
    rig.kafka.make_again(REPORTS_TOPIC, 1, &settings);
    let found = load::inspect_topics(&kafka, &spec).await.expect("topics as they must be");
    let said = "the broker recompresses doseline.reports.v1 with zstd (compression.type), which the loader can read";
    assert!(found.contains(said), "{found}");
}
