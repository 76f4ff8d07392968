//! The path without failures.

use std::collections::BTreeMap;

use harness::{Mosquitto, poll};
use prost::Message as _;
use telemetry::v1;

use crate::rig::{ENDS_WITHIN, Fleet, Publication, Running, WITHIN, kafka, names, options, publication, topics};

/// 60 devices with 20 reports each.
fn publications() -> Vec<Publication> {
    let one = |index: u64| publication(index as usize % 60, 1 + index / 60 * 5, 5);
    (0..1200).map(one).collect()
}

#[test]
fn every_report_reaches_kafka_once_and_gets_its_receipt_in_the_form_it_was_sent() {
    let (mosquitto, kafka) = (Mosquitto::start(), kafka());
    let topics = topics(kafka);
    let mut options = options(&mosquitto, &kafka.bootstrap(), &topics);
    (options.mqtt.connections, options.mqtt.share_group) = (4, Some("group".to_owned()));
    let running = Running::ready(options);
    let fleet = Fleet::connect(&mosquitto);
    let publications = publications();
    fleet.publish_all(&publications);
    fleet.wait_for_receipts(&publications);

    let records = kafka.records(&topics.reports);
    let mut found = names(&records);
    found.sort();
    let mut expected: Vec<_> = publications.iter().map(|publication| publication.name.clone()).collect();
    expected.sort();
    assert_eq!(found, expected);
    let by_name: BTreeMap<_, _> = publications.iter().map(|publication| (&publication.name, publication)).collect();
    let mut partitions: BTreeMap<_, i32> = BTreeMap::new();
    for (record, name) in records.iter().zip(names(&records)) {
        let Publication { topic, payload, .. } = by_name[&name];
        assert_eq!(record.header("topic").as_ref(), Some(topic));
        let received_at: i64 = record.header("received_at").expect("a header").parse().expect("a number");
        assert!(received_at > 1_700_000_000_000_000, "{received_at} is not in microseconds");
        match topic.ends_with("/json") {
            true => assert_eq!(v1::Report::decode(record.value.as_slice()).expect("a report").events.len(), 5),
            false => assert_eq!(&record.value, payload, "protobuf bytes are forwarded untouched"),
        }
        let partition = *partitions.entry(record.key.clone()).or_insert(record.partition);
        assert_eq!(partition, record.partition, "one device, one partition");
    }
    for received in fleet.receipts.lock().expect("no panic").iter() {
        let number: usize = received.device[1..].parse().expect("a number");
        assert_eq!(received.json, number.is_multiple_of(3), "{received:?}");
        assert_eq!(received.receipt.ranges[0].last, received.receipt.ranges[0].first + 4);
    }
    assert_eq!(kafka.end_offsets(&topics.quarantine).values().sum::<i64>(), 0);
    running.wait_for_metric(bridge::metrics::ACKNOWLEDGED, |acknowledged| acknowledged == 1200.0);
    running.wait_for_metric(bridge::metrics::IN_FLIGHT_MESSAGES, |in_flight| in_flight == 0.0);
    assert!(running.stop() < ENDS_WITHIN);
}

#[test]
fn a_status_reaches_its_topic_as_it_was_sent() {
    let (mosquitto, kafka) = (Mosquitto::start(), kafka());
    let topics = topics(kafka);
    let running = Running::ready(options(&mosquitto, &kafka.bootstrap(), &topics));
    let fleet = Fleet::connect(&mosquitto);
    let payload = br#"{"state":"STATE_ONLINE","batteryPct":81,"lastSeq":"7"}"#;
    fleet.publish("doseline/v1/acme/berlin/d1/status", payload);
    let records = poll(WITHIN, "the status", || match kafka.records(&topics.status) {
        records if records.is_empty() => Err("none"),
        records => Ok(records),
    });
    assert_eq!(records[0].value, payload);
    assert_eq!(records[0].key.as_deref(), Some(b"acme/d1".as_slice()));
    assert_eq!(records[0].header("topic").as_deref(), Some("doseline/v1/acme/berlin/d1/status"));
    drop(running);
}

#[test]
fn http_tells_how_it_is() {
    let (mosquitto, kafka) = (Mosquitto::start(), kafka());
    let running = Running::ready(options(&mosquitto, &kafka.bootstrap(), &topics(kafka)));
    let http = running.handle.http().expect("http is served");
    let get = |path: &str| {
        let mut response = ureq::get(format!("http://{http}{path}")).call().expect("an answer");
        response.body_mut().read_to_string().expect("a body")
    };
    assert_eq!(get("/livez"), "ok\n");
    assert_eq!(get("/readyz"), r#"{"ready":true,"obstacles":[]}"#);
    assert!(get("/metrics").contains(bridge::metrics::ACK_LATENCY_SECONDS));
}
