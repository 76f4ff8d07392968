//! Batches of Kafka that cannot be read, and batches that only seem so.

use std::{collections::BTreeSet, fs, time::Duration};

use harness::{Doseline, Finished, Kafka, poll};
use load::{Limits, Options};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use telemetry::kafka::{RECEIVED_AT_HEADER, REPORTS_TOPIC, STATUS_TOPIC, TOPIC_HEADER};

use crate::{
    incarnations::{WITHIN, wait_for_metric, wait_for_obstacle},
    rig::{RECEIVED_US, Rig},
};

/// Number of records in each batch.
const RECORDS: usize = 3;
/// Position of a batch's checksum, and start of the bytes that it covers.
const CRC: usize = 17;
const COVERED: usize = 21;
/// Position of a batch's records.
const BODY: usize = 61;

/// Produces one batch with a codec. Its records go to quarantine one by one, so that each offset
/// shows.
fn send_batch(kafka: &Kafka, codec: &str) {
    let mut config = kafka.config();
    config.set("linger.ms", "300").set("compression.codec", codec);
    let producer: BaseProducer = config.create().expect("create a producer");
    for _ in 0..RECORDS {
        let header = |key, value| Header { key, value: Some(value) };
        let received_at = RECEIVED_US.to_string();
        let headers = OwnedHeaders::new()
            .insert(header(TOPIC_HEADER, "doseline/v1/acme/berlin/pen-1/report"))
            .insert(header(RECEIVED_AT_HEADER, received_at.as_str()));
        // The payload compresses well, so that librdkafka really compresses it.
        let record =
            BaseRecord::to(REPORTS_TOPIC).partition(0).key("acme/pen-1").payload(&[0xff; 500]).headers(headers);
        producer.send(record).map_err(|(error, _)| error).expect("room in the queue");
    }
    producer.flush(Duration::from_secs(30)).expect("produce");
}

/// Damages a batch, given by its number, in the broker's file. A `checked` batch gets the checksum
/// of its damaged content.
fn damage(kafka: &mut Kafka, number: usize, checked: bool, change: impl Fn(&mut [u8])) {
    let path = kafka.node(0).segment(REPORTS_TOPIC, 0);
    let mut log = fs::read(&path).expect("read the segment");
    let length =
        |log: &[u8], at: usize| 12 + u32::from_be_bytes(log[at + 8..at + 12].try_into().expect("four bytes")) as usize;
    let at = (0..number).fold(0, |at, _| at + length(&log, at));
    let end = at + length(&log, at);
    let batch = &mut log[at..end];
    change(batch);
    if checked {
        let crc = crc32c::crc32c(&batch[COVERED..]);
        batch[CRC..COVERED].copy_from_slice(&crc.to_be_bytes());
    }
    fs::write(&path, log).expect("write the segment");
}

/// Offsets of the reports topic that are in quarantine, and those that are lost.
fn offsets(rig: &Rig) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let sql = "SELECT kafka_offset FROM doseline.quarantine WHERE source = 'loader'";
    let number = |value: &serde_json::Value| value.as_u64().expect("a number");
    let written = rig.clickhouse.rows(sql).iter().map(|row| number(&row["kafka_offset"])).collect();
    let losses = rig.clickhouse.rows("SELECT first_offset, last_offset, reason FROM doseline.kafka_losses");
    let lost = losses.iter().flat_map(|row| {
        assert_eq!(row["reason"].as_str(), Some("UNREADABLE"));
        number(&row["first_offset"])..=number(&row["last_offset"])
    });
    (written, lost.collect())
}

/// Every codec is read. A broken stream, a wrong checksum and a broken framing each stop their
/// partition. The loader reports the place and the reason, also after a restart. Then exactly that
/// batch is given up, and the records after it are written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_cannot_be_read_is_told_of_and_becomes_a_loss_that_is_recorded() {
    let mut rig = Rig::start(1).await;
    for codec in ["none", "zstd", "gzip", "none", "lz4", "none", "none", "snappy"] {
        send_batch(&rig.kafka, codec);
    }
    // A stream that is none, a wrong checksum followed by good records, and a record that is longer
    // than its batch.
    damage(&mut rig.kafka, 2, true, |batch| batch[BODY + 10..].fill(0));
    damage(&mut rig.kafka, 5, false, |batch| batch[BODY + 40] ^= 1);
    damage(&mut rig.kafka, 6, true, |batch| batch[BODY..BODY + 4].copy_from_slice(&[0xff, 0xff, 0x7f, 0]));

    for _ in 0..2 {
        let loader = rig.load(rig.options()).await;
        wait_for_obstacle(&loader, "partition 0, has been read for");
        let reasons = loader.handle.readiness().obstacles;
        let text = &reasons[0].reason;
        assert!(text.contains("from offset 6 on") && text.contains("unreadable_after_s"), "{text}");
        assert!(loader.handle.oldest_age() > Duration::ZERO);
        assert!(!loader.task.is_finished());
        loader.stop().await;
    }
    let first: BTreeSet<u64> = (0..6).collect();
    assert_eq!(offsets(&rig), (first, BTreeSet::new()), "nothing is skipped before its time");

    let limits = Limits { unreadable_after: Duration::from_secs(1), ..rig.options().limits };
    let loader = rig.load(Options { limits, ..rig.options() }).await;
    let lost: BTreeSet<u64> = (6..9).chain(15..21).collect();
    let written: BTreeSet<u64> = (0..24).filter(|offset| !lost.contains(offset)).collect();
    poll(WITHIN, "everything that can be read to be written", || match offsets(&rig) {
        found if found == (written.clone(), lost.clone()) => Ok(()),
        found => Err(format!("{found:?}")),
    });
    wait_for_obstacle(&loader, "could not be read and were given up");
    wait_for_metric(&loader, "doseline_load_lost_records_total{topic=\"doseline.reports.v1\"}", |lost| lost == 9);
    let text = loader.handle.metrics();
    assert!(text.contains("doseline_load_kafka_errors_total{error=\"BadMessage\"}"), "{text}");
    loader.stop().await;
}

/// `doseline give-up` as an operator runs it, away from the loader.
fn give_up(rig: &Rig, topic: &str, partition: &str, offset: &str, more: &[&str]) -> Finished {
    let (brokers, url) = (format!("[\"{}\"]", rig.kafka.bootstrap()), rig.clickhouse.url());
    let environment = [
        ("DOSELINE__KAFKA__BROKERS", brokers.as_str()),
        ("DOSELINE__CLICKHOUSE__URL", url.as_str()),
        ("DOSELINE__CLICKHOUSE__USERNAME", "doseline"),
        ("DOSELINE__CLICKHOUSE__PASSWORD", harness::PASSWORD),
    ];
    let named = ["give-up", "--topic", topic, "--partition", partition, "--offset", offset];
    let arguments: Vec<&str> = named.iter().chain(more).copied().collect();
    tokio::task::block_in_place(|| Doseline::run(&arguments, &environment, WITHIN))
}

/// The offset of the request for partition 0 that Kafka keeps.
fn requested(rig: &Rig) -> Option<Offset> {
    let group = format!("{}-give-up-1", rig.options().kafka.group);
    let client: BaseConsumer = rig.kafka.config().set("group.id", group).create().expect("create a Kafka client");
    let mut list = TopicPartitionList::new();
    list.add_partition(REPORTS_TOPIC, 0);
    let committed = client.committed_offsets(list, Duration::from_secs(30)).expect("read the request");
    committed.find_partition(REPORTS_TOPIC, 0).map(|element| element.offset())
}

/// Long before its time, and only the batch that stands in the way: any other request is refused
/// and moves nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_gives_up_a_batch_that_cannot_be_read_and_no_other() {
    let mut rig = Rig::start(1).await;
    for codec in ["none", "gzip", "none", "lz4"] {
        send_batch(&rig.kafka, codec);
    }
    for broken in [1, 3] {
        damage(&mut rig.kafka, broken, true, |batch| batch[BODY + 10..].fill(0));
    }
    let refused = |finished: Finished, said: &str| {
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(finished.stderr.contains(said) && finished.stderr.contains("hint: "), "{}", finished.stderr);
    };
    refused(give_up(&rig, REPORTS_TOPIC, "0", "0", &[]), "offset 0 can be read, so nothing is given up");
    let loader = rig.load(rig.options()).await;
    wait_for_obstacle(&loader, "from offset 3 on");
    wait_for_obstacle(&loader, "`doseline give-up`");
    refused(
        give_up(&rig, "doseline.alerts.v1", "0", "3", &[]),
        "no loader reads it; loaders read doseline.reports.v1,",
    );
    refused(give_up(&rig, REPORTS_TOPIC, "1", "3", &[]), "the topic has partitions 0 to 0");
    refused(give_up(&rig, REPORTS_TOPIC, "0", "4", &[]), "the next record to be written has offset 3, not 4");
    refused(give_up(&rig, STATUS_TOPIC, "0", "0", &[]), "everything is written, up to offset 0");
    loader.stop().await;
    refused(give_up(&rig, REPORTS_TOPIC, "0", "3", &[]), "no loader is running in the consumer group doseline-load");
    assert_eq!(requested(&rig), Some(Offset::Invalid), "a request that is refused leaves nothing");
    let first: BTreeSet<u64> = (0..3).collect();
    assert_eq!(offsets(&rig), (first, BTreeSet::new()));

    let loader = rig.load(rig.options()).await;
    let given_up = give_up(&rig, REPORTS_TOPIC, "0", "3", &[]);
    assert_eq!(given_up.code, Some(0), "{}", given_up.stderr);
    let said = "gave up offsets 3 to 5 of topic doseline.reports.v1, partition 0; they are in kafka_losses\n";
    assert_eq!(given_up.stdout, said);
    let written: BTreeSet<u64> = (0..3).chain(6..9).collect();
    poll(WITHIN, "what follows to be written", || match offsets(&rig) {
        found if found == (written.clone(), (3..6).collect()) => Ok(()),
        found => Err(format!("{found:?}")),
    });
    // Nothing behind the last batch can be read: the end of the log is not given up, and the
    // request does not wait for what comes later.
    wait_for_obstacle(&loader, "from offset 9 on");
    let waited = give_up(&rig, REPORTS_TOPIC, "0", "9", &["--within-s", "12"]);
    refused(waited, "no loader has given up offset 9 within 12 s, and the request is withdrawn");
    assert_eq!(requested(&rig), Some(Offset::Offset(1 << 62)));
    send_batch(&rig.kafka, "none");
    let given_up = give_up(&rig, REPORTS_TOPIC, "0", "9", &["--json"]);
    assert_eq!(given_up.stdout, "{\"first_offset\":9,\"last_offset\":11}\n", "{}", given_up.stderr);
    refused(give_up(&rig, REPORTS_TOPIC, "0", "9", &[]), "is written");
    rig.written().await;
    loader.stop().await;
    let (_, lost) = offsets(&rig);
    assert_eq!(lost, (3..6).chain(9..12).collect());
}
