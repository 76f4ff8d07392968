//! The embedded log with librdkafka, the client that doseline uses.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "kafka/harness.rs"]
mod harness;
#[path = "kafka/protocol.rs"]
mod protocol;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::OpenOptions,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use embedded::kafka::{self, Error, Options};
use harness::{Log, admin, consumer, group_consumer, poll_until, producer, read_all, wait_until};
use kafka_protocol::{
    messages::{FindCoordinatorRequest, GroupId, MetadataRequest, metadata_request::MetadataRequestTopic},
    protocol::Request,
};
use protocol::{Client, Visitor};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    admin::{AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    consumer::{CommitMode, Consumer},
    error::KafkaError,
    message::{Header, Headers, OwnedHeaders},
    producer::{BaseRecord, Producer},
    types::RDKafkaErrorCode,
};
use tokio_util::sync::CancellationToken;

#[test]
fn topics_are_made_described_and_removed() {
    let log = Log::start();
    log.create("reports.v1", 3, &[("retention.ms", "1000000"), ("max.message.bytes", "3000000")]);
    let consumer = consumer(log.address());
    let metadata = consumer.fetch_metadata(None, Duration::from_secs(60)).unwrap();
    assert_eq!(metadata.brokers()[0].port(), i32::from(log.address().port()));
    assert_eq!(metadata.topics()[0].partitions().len(), 3);

    let admin = admin(log.address());
    let options = AdminOptions::new();
    let again = NewTopic::new("reports.v1", 3, TopicReplication::Fixed(1));
    let created = log.block_on(admin.create_topics(&[again], &options)).unwrap();
    assert_eq!(created[0].as_ref().unwrap_err().1, RDKafkaErrorCode::TopicAlreadyExists);
    let unknown = NewTopic::new("other", 1, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
    let created = log.block_on(admin.create_topics(&[unknown], &options)).unwrap();
    assert_eq!(created[0].as_ref().unwrap_err().1, RDKafkaErrorCode::InvalidConfig);

    let described = log.block_on(admin.describe_configs(&[ResourceSpecifier::Topic("reports.v1")], &options)).unwrap();
    let described = described[0].as_ref().unwrap().entry_map();
    assert_eq!(described["retention.ms"].value.as_deref(), Some("1000000"));
    assert_eq!(described["min.insync.replicas"].value.as_deref(), Some("1"));

    assert!(log.block_on(admin.delete_topics(&["reports.v1"], &options)).unwrap()[0].is_ok());
    assert!(consumer.fetch_metadata(None, Duration::from_secs(60)).unwrap().topics().is_empty());
    log.stop().unwrap();
}

#[test]
fn partitions_take_a_quarter_of_the_files_that_may_be_open() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start_limited(directory.path(), loopback(), "ulimit -n 512");
    harness::create(process.address, "fits", 100, &[]);
    let more = |name: &'static str, partitions| {
        let new = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let created = runtime.block_on(admin(process.address).create_topics(&[new], &AdminOptions::new())).unwrap();
        created[0].as_ref().err().map(|(_, code)| *code)
    };
    assert_eq!(more("too-many", 29), Some(RDKafkaErrorCode::InvalidPartitions));
    assert_eq!(more("the-rest", 28), None);
    assert_eq!(more("one-more", 1), Some(RDKafkaErrorCode::InvalidPartitions));
    process.kill();
}

#[test]
fn records_come_back_byte_for_byte() {
    let log = Log::start();
    log.create("t", 1, &[]);
    let (producer, delivered) = producer(log.address());
    let large: Vec<u8> = (0..2 << 20).map(|n: u32| (n % 251) as u8).collect();
    let headers = OwnedHeaders::new()
        .insert(Header { key: "received_at", value: Some("1763806000000000") })
        .insert(Header { key: "raw", value: Some(&[0u8, 255, 10][..]) })
        .insert::<[u8; 0]>(Header { key: "absent", value: None });
    producer.send(BaseRecord::to("t").key("a/b").payload(&large).headers(headers)).map_err(|(error, _)| error).unwrap();
    producer.send(BaseRecord::<str, [u8]>::to("t").key("gone")).map_err(|(error, _)| error).unwrap();
    producer.flush(Duration::from_secs(60)).unwrap();
    assert_eq!(delivered.lock().unwrap().len(), 2);

    let records = read_all(log.address(), "t", 1, 2);
    assert_eq!(records[0].key(), Some(&b"a/b"[..]));
    assert_eq!(records[0].payload(), Some(large.as_slice()));
    let read = records[0].headers().unwrap();
    assert_eq!(read.get(0), Header { key: "received_at", value: Some(&b"1763806000000000"[..]) });
    assert_eq!(read.get(1), Header { key: "raw", value: Some(&[0u8, 255, 10][..]) });
    assert_eq!(read.get(2), Header { key: "absent", value: None });
    assert_eq!((records[1].offset(), records[1].payload()), (1, None));
    log.stop().unwrap();
}

#[test]
fn a_record_larger_than_its_topic_allows_is_refused() {
    let log = Log::start();
    log.create("t", 1, &[("max.message.bytes", "1000")]);
    let (producer, delivered) = producer(log.address());
    for bytes in [2_000, 200] {
        producer.send(BaseRecord::to("t").key("k").payload(&vec![1u8; bytes])).map_err(|(error, _)| error).unwrap();
        producer.flush(Duration::from_secs(60)).unwrap();
    }
    assert_eq!(*delivered.lock().unwrap(), [Err(RDKafkaErrorCode::MessageSizeTooLarge), Ok(0)]);
    log.stop().unwrap();
}

#[test]
fn a_restart_keeps_topics_records_offsets_and_producers() {
    let log = Log::start();
    log.create("t", 2, &[]);
    let (producer, delivered) = producer(log.address());
    let send = |from: u32, to: u32| {
        for n in from..to {
            let payload = n.to_string();
            producer.send(BaseRecord::to("t").key(&payload).payload(&payload)).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(Duration::from_secs(60)).unwrap();
    };
    send(0, 500);
    let grouped = consumer(log.address());
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("t", 1, Offset::Offset(17)).unwrap();
    grouped.commit(&offsets, CommitMode::Sync).unwrap();
    drop(grouped);

    let log = log.restart();
    send(500, 1_000);
    assert!(delivered.lock().unwrap().iter().all(Result::is_ok));
    let records = read_all(log.address(), "t", 2, 1_000);
    let values: BTreeSet<u32> = records.iter().map(|record| number(record.payload())).collect();
    assert_eq!((records.len(), values), (1_000, (0..1_000).collect()));

    let grouped = consumer(log.address());
    let mut asked = TopicPartitionList::new();
    asked.add_partition("t", 1);
    let committed = grouped.committed_offsets(asked, Duration::from_secs(60)).unwrap();
    assert_eq!(committed.elements()[0].offset(), Offset::Offset(17));
    log.stop().unwrap();
}

#[test]
fn a_group_shares_partitions_and_hands_them_over() {
    let log = Log::start();
    log.create("t", 4, &[]);
    let first = group_consumer(log.address(), "g");
    first.subscribe(&["t"]).unwrap();
    poll_until(&[&first], || first.assignment().unwrap().count() == 4);
    let second = group_consumer(log.address(), "g");
    second.subscribe(&["t"]).unwrap();
    let counts = || (first.assignment().unwrap().count(), second.assignment().unwrap().count());
    poll_until(&[&first, &second], || counts() == (2, 2));
    first.unsubscribe();
    poll_until(&[&first, &second], || second.assignment().unwrap().count() == 4);
    // They leave while another member is still there.
    drop((first, second));
    log.stop().unwrap();
}

#[test]
fn a_record_reaches_a_waiting_consumer_at_once() {
    let log = Log::start();
    log.create("t", 2, &[]);
    let consumer = consumer(log.address());
    let mut offsets = TopicPartitionList::new();
    (0..2).for_each(|partition| offsets.add_partition_offset("t", partition, Offset::Beginning).unwrap());
    consumer.assign(&offsets).unwrap();
    let (producer, _) = producer(log.address());
    let mut latencies: Vec<Duration> = (0..100)
        .map(|n: u32| {
            let sent = Instant::now();
            producer.send(BaseRecord::to("t").key(&n.to_string()).payload("x")).map_err(|(error, _)| error).unwrap();
            consumer.poll(Duration::from_secs(60)).expect("a record").unwrap();
            sent.elapsed()
        })
        .collect();
    latencies.sort_unstable();
    // A consumer that is not woken gets each record after its waiting time of 500 ms. On a loaded
    // machine some records are late.
    assert!(latencies[50] < Duration::from_millis(200), "{latencies:?}");
    log.stop().unwrap();
}

#[test]
fn what_is_past_its_retention_is_deleted_and_its_reader_told() {
    let log = Log::start();
    log.create("t", 1, &[("retention.ms", "200"), ("segment.bytes", "20000")]);
    log.create("kept", 1, &[("retention.ms", "-1"), ("retention.bytes", "60000"), ("segment.bytes", "20000")]);
    log.create("commands", 1, &[("retention.ms", "-1"), ("retention.bytes", "-1"), ("segment.bytes", "20000")]);
    let (producer, _) = producer(log.address());
    for n in 0..200u8 {
        for topic in ["t", "kept", "commands"] {
            producer.send(BaseRecord::to(topic).key("k").payload(&vec![n; 1_000])).map_err(|(error, _)| error).unwrap();
        }
        if n % 10 == 9 {
            producer.flush(Duration::from_secs(60)).unwrap();
        }
    }
    let consumer = consumer(log.address());
    let marks = |topic| consumer.fetch_watermarks(topic, 0, Duration::from_secs(60)).unwrap();
    wait_until("all is past its time", || marks("t") == (200, 200));
    wait_until("the size is within its limit", || (100..190).contains(&marks("kept").0));
    assert_eq!(marks("kept").1, 200);
    assert_eq!(marks("commands"), (0, 200), "nothing of it is ever deleted");

    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("t", 0, Offset::Offset(3)).unwrap();
    consumer.assign(&offsets).unwrap();
    let told = consumer.poll(Duration::from_secs(60)).expect("an answer").map(|record| record.offset());
    let expected = [RDKafkaErrorCode::OffsetOutOfRange, RDKafkaErrorCode::AutoOffsetReset];
    assert!(matches!(&told, Err(KafkaError::MessageConsumption(code)) if expected.contains(code)), "{told:?}");
    log.stop().unwrap();
}

#[test]
fn offsets_are_found_by_time() {
    let log = Log::start();
    log.create("t", 1, &[("segment.bytes", "2000")]);
    let (producer, _) = producer(log.address());
    for n in 0..30i64 {
        let record = BaseRecord::to("t").key("k").payload("some bytes of payload").timestamp(1_000_000 + n * 10);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(Duration::from_secs(60)).unwrap();
    }
    let consumer = consumer(log.address());
    let find = |timestamp| {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_offset("t", 0, Offset::Offset(timestamp)).unwrap();
        consumer.offsets_for_times(asked, Duration::from_secs(60)).unwrap().elements()[0].offset()
    };
    assert_eq!(find(1_000_000), Offset::Offset(0));
    assert_eq!(find(1_000_155), Offset::Offset(16));
    assert_eq!(find(2_000_000), Offset::End);
    log.stop().unwrap();
}

#[test]
fn an_unfinished_write_is_cut_off_and_damage_is_reported() {
    let log = Log::start();
    log.create("t", 1, &[("segment.bytes", "3000")]);
    let (producer, _) = producer(log.address());
    let send = |n: u32| {
        let payload = format!("{n:0100}");
        producer.send(BaseRecord::to("t").key("k").payload(&payload)).map_err(|(error, _)| error).unwrap();
        producer.flush(Duration::from_secs(60)).unwrap();
    };
    (0..40).for_each(send);
    let segments = |log: &Log| -> Vec<_> {
        let files = std::fs::read_dir(log.directory().join("kafka/topics/t/0")).unwrap();
        files.map(|file| file.unwrap().path()).collect::<BTreeSet<_>>().into_iter().collect()
    };
    let log = log.restart_after(|log| {
        let last = segments(log).pop().unwrap();
        OpenOptions::new().append(true).open(last).unwrap().write_all(&[7; 90]).unwrap();
    });
    send(40);
    let records = read_all(log.address(), "t", 1, 41);
    assert_eq!(records.iter().map(|record| number(record.payload())).collect::<Vec<_>>(), (0..41).collect::<Vec<_>>());

    let sealed = segments(&log).into_iter().rev().nth(1).unwrap();
    let directory = log.keep();
    let mut content = std::fs::read(&sealed).unwrap();
    content[100] ^= 1;
    std::fs::write(&sealed, content).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let options = Options::new(directory.path(), loopback());
    let refused = runtime.block_on(kafka::start(options, CancellationToken::new())).err();
    assert!(matches!(refused, Some(Error::Damaged { path, .. }) if path == sealed));
}

/// The header of a produce request of this many bytes. The bytes themselves never follow.
fn announce(address: SocketAddr, bytes: i32) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&bytes.to_be_bytes()).unwrap();
    stream
}

#[test]
fn announced_requests_take_no_memory_of_others() {
    let log = Log::start();
    log.create("t", 1, &[]);
    let silent: Vec<_> = (0..40).map(|_| announce(log.address(), 9 << 20)).collect();
    std::thread::sleep(Duration::from_millis(200));
    let (producer, delivered) = producer(log.address());
    let began = Instant::now();
    producer.send(BaseRecord::to("t").key("k").payload(&vec![1u8; 1 << 20])).map_err(|(error, _)| error).unwrap();
    producer.flush(Duration::from_secs(60)).unwrap();
    assert_eq!(*delivered.lock().unwrap(), [Ok(0)]);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    // Connections that do not continue are closed.
    for mut stream in silent {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    }
    log.stop().unwrap();
}

/// Sends each request and checks its answer.
struct Asking(SocketAddr);

impl Visitor for Asking {
    fn visit<R: Request>(&mut self, version: i16, request: R, check: fn(R::Response, i16)) {
        check(Client::connect(self.0).ask(version, &request), version);
    }
}

#[test]
fn every_request_is_answered_in_every_version() {
    let log = Log::start();
    log.create(protocol::TOPIC, 1, &[]);
    protocol::visit_all(log.address(), &mut Asking(log.address()));
    log.stop().unwrap();
}

/// Puts absurd numbers at every place of each request. Some of these places hold a count.
struct Poking(SocketAddr);

impl Visitor for Poking {
    fn visit<R: Request>(&mut self, version: i16, request: R, _: fn(R::Response, i16)) {
        let good = protocol::encoded(version, &request);
        for at in 8..good.len() {
            for absurd in [&[0x7f, 255, 255, 255][..], &[255, 255, 255, 255, 15]] {
                let body = [&good[..at], absurd, good.get(at + absurd.len()..).unwrap_or_default()].concat();
                Client::connect(self.0).poke(&body);
                // At the place of a count of one byte.
                Client::connect(self.0).poke(&[&good[..at], absurd, &good[at + 1..]].concat());
            }
        }
    }
}

#[test]
fn absurd_counts_take_no_memory() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start_limited(directory.path(), loopback(), &format!("ulimit -v {}", 4 << 20));
    harness::create(process.address, protocol::TOPIC, 1, &[]);
    protocol::visit_all(process.address, &mut Poking(process.address));
    let most = peak_mb(process.child.id());
    assert!(most < 200, "{most} MB");
    let keys = vec![protocol::text(""); 1_000_000];
    let many = FindCoordinatorRequest::default().with_coordinator_keys(keys);
    Client::connect(process.address).poke(&protocol::encoded(4, &many));
    let topic = MetadataRequestTopic::default().with_name(Some(protocol::topic()));
    let again = MetadataRequest::default().with_topics(Some(vec![topic; 2_000]));
    assert_eq!(Client::connect(process.address).ask(12, &again).topics.len(), 1);
    let most = peak_mb(process.child.id());
    assert!(most < 200, "{most} MB");
    process.kill();
}

/// The largest amount of memory that a process has used, MB.
fn peak_mb(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1_024
}

/// Opens connections that send a part of a large request, until the flag is set.
fn attack(address: SocketAddr, stop: &AtomicBool) {
    let part = [&(9_u32 << 20).to_be_bytes()[..], &[0, 0, 0, 9], &vec![0; 1 << 20]].concat();
    while !stop.load(Ordering::Relaxed) {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let _ = stream.write_all(&part);
        while !stop.load(Ordering::Relaxed) {
            match stream.read(&mut [0; 1]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                _ => break,
            }
        }
    }
}

#[test]
fn parts_of_large_requests_keep_nobody_waiting() {
    let log = Log::start();
    log.create(protocol::TOPIC, 1, &[("max.message.bytes", "8000000")]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..60 {
            scope.spawn(|| attack(log.address(), &stop));
        }
        std::thread::sleep(Duration::from_secs(1));
        let mut client = Client::connect(log.address());
        for _ in 0..5 {
            let began = Instant::now();
            let small = client.ask(9, &protocol::produce(protocol::batch(b"value")));
            assert_eq!(small.responses[0].partition_responses[0].error_code, 0);
            assert!(client.ask(12, &protocol::fetch()).responses[0].partitions[0].records.is_some());
            assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        }
        let began = Instant::now();
        let large = client.ask(9, &protocol::produce(protocol::batch(&vec![1; 4 << 20])));
        assert_eq!(large.responses[0].partition_responses[0].error_code, 0);
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        eprintln!("a large one among them: {:?}", began.elapsed());
        stop.store(true, Ordering::Relaxed);
    });
    log.stop().unwrap();
}

#[test]
fn a_batch_whose_checksum_does_not_fit_is_refused_and_not_stored() {
    let log = Log::start();
    log.create(protocol::TOPIC, 1, &[]);
    let mut client = Client::connect(log.address());
    let good = protocol::batch(b"value");
    for at in 17..good.len() {
        let mut damaged = good.to_vec();
        damaged[at] ^= 1;
        let answer = client.ask(9, &protocol::produce(damaged.into()));
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 2, "byte {at}");
    }
    let answer = client.ask(9, &protocol::produce(good));
    let stored = &answer.responses[0].partition_responses[0];
    assert_eq!((stored.error_code, stored.base_offset), (0, 0));
    log.stop().unwrap();
}

#[test]
fn commits_of_what_is_not_there_are_refused() {
    let log = Log::start();
    log.create(protocol::TOPIC, 1, &[]);
    let mut client = Client::connect(log.address());
    let mut code = |request: kafka_protocol::messages::OffsetCommitRequest| {
        client.ask(8, &request).topics[0].partitions[0].error_code
    };
    for (partition, offset, metadata, expected) in
        [(0, 0, "noted", 0), (1, 0, "", 3), (-1, 0, "", 3), (0, 1, "", 1), (0, 0, &*"x".repeat(4_097), 12)]
    {
        assert_eq!(code(protocol::commit(partition, offset, metadata)), expected, "{partition} {offset}");
    }
    let mut two = protocol::commit(0, 0, "both");
    two.topics[0].partitions.extend(protocol::commit(5, 0, "").topics[0].partitions.clone());
    let answer = client.ask(8, &two);
    let codes: Vec<_> = answer.topics[0].partitions.iter().map(|partition| partition.error_code).collect();
    assert_eq!(codes, [0, 3]);
    let stored = std::fs::read_to_string(log.directory().join("kafka/offsets.json")).unwrap();
    assert!(stored.contains("both") && !stored.contains(r#""5""#), "{stored}");
    let long = protocol::commit(0, 0, "").with_group_id(GroupId(protocol::text(&"g".repeat(2_000))));
    assert_eq!(client.ask(8, &long).topics[0].partitions[0].error_code, 24);
    log.stop().unwrap();
}

#[test]
fn silent_connections_keep_nobody_out() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start_limited(directory.path(), loopback(), "ulimit -n 512");
    harness::create(process.address, "t", 1, &[]);
    let silent: Vec<_> = (0..600).map(|_| TcpStream::connect(process.address).unwrap()).collect();
    let (producer, delivered) = producer(process.address);
    let began = Instant::now();
    producer.send(BaseRecord::to("t").key("k").payload("x")).map_err(|(error, _)| error).unwrap();
    producer.flush(Duration::from_secs(60)).unwrap();
    assert_eq!(*delivered.lock().unwrap(), [Ok(0)]);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let open = std::fs::read_dir(format!("/proc/{}/fd", process.child.id())).unwrap().count();
    assert!(open < 256, "{open} files are open");
    drop(silent);
    process.kill();
}

/// Fills a partition of one file with records, one in each batch, and stops.
fn written(records: u32) -> (tempfile::TempDir, std::path::PathBuf) {
    let log = Log::start();
    log.create("t", 1, &[]);
    let (producer, _) = producer(log.address());
    for n in 0..records {
        let payload = format!("{n:0100}");
        producer.send(BaseRecord::to("t").key("k").payload(&payload)).map_err(|(error, _)| error).unwrap();
        producer.flush(Duration::from_secs(60)).unwrap();
    }
    let directory = log.keep();
    let segment = directory.path().join("kafka/topics/t/0/00000000000000000000.log");
    (directory, segment)
}

fn refusal(directory: &Path) -> Error {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(kafka::start(Options::new(directory, loopback()), CancellationToken::new())).unwrap_err()
}

/// Runs the command that an error gives as its remedy, after the last colon.
fn follow_remedy(error: &Error) {
    let text = error.to_string();
    let words: Vec<_> = text.rsplit_once(": ").unwrap().1.split(' ').collect();
    assert!(Command::new(words[0]).args(&words[1..]).status().unwrap().success(), "{text}");
}

#[test]
fn damage_in_the_last_file_costs_no_other_record() {
    let (directory, segment) = written(50);
    let mut content = std::fs::read(&segment).unwrap();
    let at = content.len() / 4;
    content[at] ^= 1;
    std::fs::write(&segment, &content).unwrap();
    let error = refusal(directory.path());
    let Error::Damaged { path, position, offset } = &error else { panic!("{error}") };
    assert_eq!((path, *offset), (&segment, 12));
    assert!((*position..*position + 200).contains(&u64::try_from(at).unwrap()), "{position} {at}");
    assert_eq!(std::fs::read(&segment).unwrap(), content);

    follow_remedy(&error);
    for _ in 0..2 {
        let log = Log::open_at(directory.path());
        let consumer = consumer(log.address());
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset("t", 0, Offset::Beginning).unwrap();
        consumer.assign(&offsets).unwrap();
        let read: Vec<_> = (0..49).map(|_| consumer.poll(Duration::from_secs(60)).unwrap().unwrap().offset()).collect();
        assert_eq!(read, (0..50).filter(|offset| *offset != 12).collect::<Vec<_>>());
        assert_eq!(consumer.fetch_watermarks("t", 0, Duration::from_secs(60)).unwrap(), (0, 50));
        log.stop().unwrap();
    }
    assert_eq!(std::fs::read(segment.with_extension("log.damaged")).unwrap(), content);
}

#[test]
fn no_offset_is_given_out_twice_when_records_are_missing() {
    let (directory, segment) = written(50);
    let log = Log::open_at(directory.path());
    let grouped = consumer(log.address());
    let commit = |offset| {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset("t", 0, Offset::Offset(offset)).unwrap();
        grouped.commit(&offsets, CommitMode::Sync)
    };
    assert!(commit(51).is_err());
    commit(50).unwrap();
    log.stop().unwrap();
    let content = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, &content[..content.len() / 2]).unwrap();
    let error = refusal(directory.path());
    assert!(
        matches!(&error, Error::Behind { reader, committed: 50, end: 25, .. } if reader == "the group by-hand"),
        "{error}"
    );
    follow_remedy(&error);
    for last in 50..52 {
        let log = Log::open_at(directory.path());
        let (producer, delivered) = producer(log.address());
        producer.send(BaseRecord::to("t").key("k").payload("x")).map_err(|(error, _)| error).unwrap();
        producer.flush(Duration::from_secs(60)).unwrap();
        assert_eq!(*delivered.lock().unwrap(), [Ok(last)]);
        log.stop().unwrap();
    }
}

#[test]
fn damaged_offsets_are_put_aside() {
    let (directory, _) = written(1);
    let offsets = directory.path().join("kafka/offsets.json");
    std::fs::write(&offsets, "{\"group\": ").unwrap();
    let log = Log::open_at(directory.path());
    assert_eq!(read_all(log.address(), "t", 1, 1).len(), 1);
    log.stop().unwrap();
    assert_eq!(std::fs::read(offsets.with_extension("json.damaged")).unwrap(), b"{\"group\": ");
}

#[test]
fn a_directory_has_one_log() {
    let log = Log::start();
    let options = Options::new(log.directory(), loopback());
    let second = log.block_on(kafka::start(options, CancellationToken::new())).err();
    assert!(matches!(second, Some(Error::InUse(_))), "{second:?}");
    log.stop().unwrap();
}

const KILLS: u32 = 5;

/// The broker is killed several times while a producer runs. All acknowledged records must exist
/// once and in order.
#[test]
fn kills_lose_and_double_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = Process::start(directory.path(), loopback());
    let address = process.address;
    harness::create(address, "t", 2, &[("segment.bytes", "100000")]);
    let (producer, delivered) = producer(address);
    let mut next = 0u32;
    for kill in 0..KILLS {
        let until = Instant::now() + Duration::from_millis(150 + 97 * u64::from(kill));
        while Instant::now() < until {
            let payload = next.to_string();
            let key = format!("k{}", next % 7);
            match producer.send(BaseRecord::to("t").key(&key).payload(&payload)) {
                Ok(()) => next += 1,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => std::thread::yield_now(),
                Err((error, _)) => panic!("{error}"),
            }
            if next.is_multiple_of(500) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        process.kill();
        process = Process::start(directory.path(), address);
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    {
        let delivered = delivered.lock().unwrap();
        assert_eq!(delivered.len(), usize::try_from(next).unwrap());
        assert!(delivered.iter().all(Result::is_ok));
    }
    let records = read_all(address, "t", 2, usize::try_from(next).unwrap());
    let mut by_key: BTreeMap<Vec<u8>, Vec<u32>> = BTreeMap::new();
    for record in &records {
        by_key.entry(record.key().unwrap().to_vec()).or_default().push(number(record.payload()));
    }
    for (key, values) in by_key {
        assert!(values.is_sorted_by(|a, b| a < b), "{} doubled or out of order", String::from_utf8_lossy(&key));
    }
    assert_eq!(records.len(), usize::try_from(next).unwrap());
    process.kill();
}

/// A broker in a process of its own: this test binary, started again for the test below.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    fn start(directory: &Path, address: SocketAddr) -> Self {
        Self::start_limited(directory, address, "true")
    }

    /// Starts it behind a shell command that sets a limit.
    fn start_limited(directory: &Path, address: SocketAddr, limit: &str) -> Self {
        let announced = directory.join("address");
        let _ = std::fs::remove_file(&announced);
        let child = Command::new("sh")
            .args(["-c", &format!("{limit} && exec \"$0\" \"$@\"")])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "serve_until_killed", "--ignored"])
            .env("EMBEDDED_TEST_DIRECTORY", directory)
            .env("EMBEDDED_TEST_ADDRESS", address.to_string())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let read = || std::fs::read_to_string(&announced).ok().and_then(|text| text.parse().ok());
        wait_until("the broker has announced itself", || read().is_some());
        Self { child, address: read().unwrap() }
    }

    /// Sends SIGKILL, and waits until the process has ended.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
#[ignore = "a process for the test above"]
fn serve_until_killed() {
    let environment: HashMap<_, _> = std::env::vars().collect();
    let Some(directory) = environment.get("EMBEDDED_TEST_DIRECTORY") else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let options = Options::new(directory, environment["EMBEDDED_TEST_ADDRESS"].parse().unwrap());
        let handle = kafka::start(options, CancellationToken::new()).await.unwrap();
        let announced = Path::new(directory).join("address.new");
        std::fs::write(&announced, handle.address().to_string()).unwrap();
        std::fs::rename(&announced, Path::new(directory).join("address")).unwrap();
        handle.join().await.unwrap();
    });
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn number(payload: Option<&[u8]>) -> u32 {
    std::str::from_utf8(payload.unwrap()).unwrap().parse().unwrap()
}
