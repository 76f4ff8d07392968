//! Brokers that go away, a Kafka that stands still, a bridge that dies. Nothing without a receipt
//! is lost, and no receipt comes before Kafka's confirmation.

use std::{collections::BTreeSet, time::Duration};

use harness::{Kafka, Mosquitto, poll};

use crate::rig::{
    ENDS_WITHIN, Fleet, Publication, Running, WITHIN, kafka, names, options, planned_topics, publication, topics,
};

fn publications(from: u64, count: u64, events: usize) -> Vec<Publication> {
    let one = |index: u64| publication(index as usize % 40, 1 + index * events as u64, events);
    (from..from + count).map(one).collect()
}

fn all_names(publications: &[Publication]) -> BTreeSet<String> {
    publications.iter().map(|publication| publication.name.clone()).collect()
}

/// Resends what has no receipt, as devices do, until everything has one.
fn insist(fleet: &Fleet, publications: &[Publication]) {
    poll(WITHIN, "all receipts", || {
        let stored = fleet.stored();
        let open: Vec<_> = publications.iter().filter(|publication| !stored.contains(&publication.name)).collect();
        if open.is_empty() {
            return Ok(());
        }
        let count = open.len();
        std::thread::sleep(Duration::from_millis(300));
        fleet.publish_all(open);
        Err(format!("{count} without"))
    });
}

/// Mosquitto 2.0 keeps the session across a restart but forgets its subscription to `$share/...`. A
/// client that trusts "session present" gets no more messages.
#[test]
fn a_broker_that_keeps_the_session_is_subscribed_to_again_all_the_same() {
    let (mut mosquitto, kafka) = (Mosquitto::start(), kafka());
    let topics = topics(kafka);
    let mut options = options(&mosquitto, &kafka.bootstrap(), &topics);
    (options.mqtt.connections, options.mqtt.share_group) = (2, Some("group".to_owned()));
    let running = Running::ready(options);
    let fleet = Fleet::connect(&mosquitto);
    let publications = publications(0, 600, 2);
    for part in publications.chunks(200) {
        fleet.publish_all(part);
        assert!(mosquitto.stop().success());
        mosquitto.start_again();
    }
    insist(&fleet, &publications);
    let found: BTreeSet<_> = names(&kafka.records(&topics.reports)).into_iter().collect();
    assert_eq!(found, all_names(&publications));
    // Two connections that receive, and one for receipts. Each reconnects at least once.
    running.wait_for_metric(bridge::metrics::RECONNECTS, |reconnects| reconnects >= 3.0);
    // The time without a subscription is counted. The sessions were kept.
    running.wait_for_metric(bridge::metrics::UNSUBSCRIBED_SECONDS, |seconds| seconds > 0.0);
    assert_eq!(running.metric(bridge::metrics::SESSIONS_LOST), 0.0);
    running.wait_until_ready();
}

#[test]
fn a_broker_that_forgets_the_session_is_subscribed_to_again() {
    let (mut mosquitto, kafka) = (Mosquitto::start(), kafka());
    let topics = topics(kafka);
    let running = Running::ready(options(&mosquitto, &kafka.bootstrap(), &topics));
    let fleet = Fleet::connect(&mosquitto);
    let publications = publications(0, 600, 2);
    for part in publications.chunks(200) {
        fleet.publish_all(part);
        mosquitto.kill();
        mosquitto.start_again();
    }
    insist(&fleet, &publications);
    let found: BTreeSet<_> = names(&kafka.records(&topics.reports)).into_iter().collect();
    assert_eq!(found, all_names(&publications));
    // The messages that waited in the sessions were lost with them, and this is counted.
    running.wait_for_metric(bridge::metrics::SESSIONS_LOST, |sessions| sessions >= 1.0);
    running.wait_until_ready();
}

/// Kafka confirms messages while another connection is up than the one on which they arrived. If
/// they were acknowledged on that one, the broker would forget messages that Kafka does not have.
#[test]
fn late_confirmations_of_an_earlier_connection_acknowledge_nothing() {
    let (mut mosquitto, mut own) = (Mosquitto::start(), Kafka::start());
    let topics = topics(&own);
    let mut options = options(&mosquitto, &own.bootstrap(), &topics);
    (options.mqtt.connections, options.mqtt.receive_maximum) = (1, 20);
    let running = Running::ready(options);
    let fleet = Fleet::connect(&mosquitto);
    let publications = publications(0, 400, 2);
    own.node(0).pause();
    fleet.publish_all(&publications);
    fleet.wait_until_taken(publications.len());
    for held in [20.0, 40.0, 60.0] {
        running.wait_for_metric(bridge::metrics::IN_FLIGHT_MESSAGES, |in_flight| in_flight >= held);
        assert!(fleet.stored().is_empty());
        if held < 60.0 {
            assert!(mosquitto.stop().success());
            mosquitto.start_again();
        }
    }
    own.node(0).resume();
    // Nothing is resent: the broker still has every message that was not confirmed.
    fleet.wait_for_receipts(&publications);
    let found: BTreeSet<_> = names(&own.records(&topics.reports)).into_iter().collect();
    assert_eq!(found, all_names(&publications));
}

#[test]
fn kafka_down_means_no_receipt_a_bounded_memory_and_a_reason_and_then_all_arrive() {
    let (mosquitto, mut own) = (Mosquitto::start(), Kafka::start());
    let topics = topics(&own);
    let mut options = options(&mosquitto, &own.bootstrap(), &topics);
    options.limits.in_flight_bytes = 4 << 20;
    // A short timeout, so that records fail and are produced again.
    options.kafka.properties.insert("message.timeout.ms".to_owned(), "3000".to_owned());
    let running = Running::ready(options);
    let fleet = Fleet::connect(&mosquitto);
    let before = publications(0, 50, 2);
    fleet.publish_all(&before);
    fleet.wait_for_receipts(&before);

    own.kill();
    // About 12 MB.
    let during = publications(1000, 1500, 200);
    let bytes: usize = during.iter().map(|publication| publication.payload.len()).sum();
    assert!(bytes > 8 << 20, "{bytes} bytes do not fill the bound");
    fleet.publish_all(&during);
    running.wait_for_obstacle("the oldest unconfirmed message has waited");
    running.wait_for_metric("doseline_bridge_kafka_errors_total{kind=\"delivery\"}", |errors| errors > 0.0);
    running.wait_for_metric(bridge::metrics::IN_FLIGHT_BYTES, |in_flight| in_flight > 3e6);
    assert_eq!(fleet.stored().len(), before.len(), "a receipt without Kafka");
    let in_flight = running.metric(bridge::metrics::IN_FLIGHT_BYTES);
    assert!(in_flight <= f64::from(4 << 20), "{in_flight} bytes in flight");
    let http = running.handle.http().expect("http is served");
    let status = ureq::get(format!("http://{http}/readyz")).call();
    assert!(matches!(status, Err(ureq::Error::StatusCode(503))), "{status:?}");

    own.start_again();
    fleet.wait_for_receipts(&during);
    let found: BTreeSet<_> = names(&own.records(&topics.reports)).into_iter().collect();
    assert_eq!(found, all_names(&[before, during].concat()));
    running.wait_until_ready();
    assert!(running.stop() < ENDS_WITHIN);
}

#[test]
fn too_few_replicas_are_named_before_and_while_messages_wait() {
    let (mosquitto, mut own) = (Mosquitto::start(), Kafka::cluster(3));
    let topics = planned_topics();
    for topic in [&topics.reports, &topics.status, &topics.quarantine] {
        own.create_topic(topic, 3, &[("max.message.bytes", "4194304"), ("min.insync.replicas", "3")]);
    }
    let running = Running::ready(options(&mosquitto, &own.bootstrap(), &topics));
    let fleet = Fleet::connect(&mosquitto);
    let before = publications(0, 20, 2);
    fleet.publish_all(&before);
    fleet.wait_for_receipts(&before);

    // Two of three nodes are left. The cluster works, but confirms nothing in these topics.
    own.node(2).kill();
    running.wait_for_obstacle("NOT_ENOUGH_REPLICAS");
    running.wait_for_obstacle("has 2 in-sync replicas, min.insync.replicas is 3");
    let during = publications(100, 20, 2);
    fleet.publish_all(&during);
    running.wait_for_obstacle("the oldest unconfirmed message has waited");
    running.wait_for_obstacle("NOT_ENOUGH_REPLICAS");
    assert_eq!(fleet.stored().len(), before.len(), "a receipt without enough replicas");

    own.start_again();
    fleet.wait_for_receipts(&during);
    running.wait_until_ready();
}

#[test]
fn the_end_comes_in_time_when_kafka_stands_still_and_the_next_bridge_takes_over() {
    let (mosquitto, mut own) = (Mosquitto::start(), Kafka::start());
    let topics = topics(&own);
    let options = options(&mosquitto, &own.bootstrap(), &topics);
    let running = Running::ready(options.clone());
    let fleet = Fleet::connect(&mosquitto);
    let publications = publications(0, 300, 2);
    own.node(0).pause();
    fleet.publish_all(&publications);
    running.wait_for_metric(bridge::metrics::IN_FLIGHT_MESSAGES, |in_flight| in_flight == 300.0);
    let took = running.stop();
    assert!(took < ENDS_WITHIN, "took {took:?}");
    assert!(fleet.stored().is_empty());
    own.node(0).resume();
    let running = Running::ready(options);
    fleet.wait_for_receipts(&publications);
    drop(running);
}

#[test]
fn a_bridge_that_dies_loses_nothing() {
    let (mosquitto, kafka) = (Mosquitto::start(), kafka());
    let topics = topics(kafka);
    let options = options(&mosquitto, &kafka.bootstrap(), &topics);
    // The session exists from here on.
    let mut running = Running::ready(options.clone());
    let fleet = Fleet::connect(&mosquitto);
    let publications = publications(0, 2000, 2);
    for part in publications.chunks(400) {
        // This is read before the publication, because the whole part may be acknowledged when its
        // last message is handed over.
        let before = running.metric(bridge::metrics::ACKNOWLEDGED);
        fleet.publish_all(part);
        running.wait_for_metric(bridge::metrics::ACKNOWLEDGED, |acknowledged| acknowledged > before);
        running.crash();
        running = Running::ready(options.clone());
    }
    insist(&fleet, &publications);
    let found: BTreeSet<_> = names(&kafka.records(&topics.reports)).into_iter().collect();
    assert_eq!(found, all_names(&publications));
}
