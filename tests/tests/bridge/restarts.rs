//! Restarts of the broker under publishers that do not wait for receipts: what it acknowledged to
//! them is with the bridge's subscription alone.

use std::collections::BTreeSet;

use bridge::metrics::{SESSIONS_LOST, UNSUBSCRIBED_SECONDS};
use harness::{Kafka, Mosquitto, poll};

use crate::rig::{Fleet, Publication, Running, WITHIN, kafka, names, options, publication, topics};

fn publications(count: u64) -> Vec<Publication> {
    (0..count).map(|index| publication(index as usize % 40, 1 + index, 1)).collect()
}

fn expected(publications: &[Publication]) -> BTreeSet<String> {
    publications.iter().map(|publication| publication.name.clone()).collect()
}

fn found(kafka: &Kafka, topic: &str) -> BTreeSet<String> {
    names(&kafka.records(topic)).into_iter().collect()
}

fn wait_for_all(kafka: &Kafka, topic: &str, publications: &[Publication]) {
    let expected = expected(publications);
    poll(WITHIN, "everything that the broker acknowledged", || {
        let missing = expected.difference(&found(kafka, topic)).count();
        if missing == 0 { Ok(()) } else { Err(format!("{missing} of {} are missing", expected.len())) }
    });
}

/// The plain subscription of the only bridge: Mosquitto keeps it with its session, and what it has
/// acknowledged waits there, also while the bridge is away.
#[test]
fn a_planned_restart_under_load_loses_nothing_of_publishers_that_do_not_wait_for_receipts() {
    let (mut mosquitto, kafka) = (Mosquitto::start(), kafka());
    let topics = topics(kafka);
    let start = |mosquitto: &Mosquitto| Running::ready(options(mosquitto, &kafka.bootstrap(), &topics));
    let running = start(&mosquitto);
    let fleet = Fleet::connect(&mosquitto);
    let publications = publications(8_000);
    let (under_load, while_away) = publications.split_at(7_500);
    for part in under_load.chunks(2_500) {
        fleet.publish_all(part);
        assert!(mosquitto.stop().success());
        mosquitto.start_again();
    }
    fleet.wait_until_taken(under_load.len());
    wait_for_all(kafka, &topics.reports, under_load);
    running.wait_for_metric(UNSUBSCRIBED_SECONDS, |seconds| seconds > 0.0);
    assert_eq!(running.metric(SESSIONS_LOST), 0.0);

    running.wait_until_ready();
    running.stop();
    fleet.publish_all(while_away);
    fleet.wait_until_taken(publications.len());
    assert!(mosquitto.stop().success());
    mosquitto.start_again();
    let running = start(&mosquitto);
    wait_for_all(kafka, &topics.reports, &publications);
    assert_eq!(running.metric(SESSIONS_LOST), 0.0);
    running.stop();
}

/// A broker that is killed forgets what it has not saved, subscription and messages. That is seen:
/// the session is counted as lost, and the time without a subscription. Devices that wait for
/// receipts lose nothing.
#[test]
fn a_broker_killed_under_load_forgets_what_it_had_not_saved_and_that_is_counted() {
    let (mut mosquitto, kafka) = (Mosquitto::start(), kafka());
    let topics = topics(kafka);
    let running = Running::ready(options(&mosquitto, &kafka.bootstrap(), &topics));
    let fleet = Fleet::connect(&mosquitto);
    let publications = publications(4_000);
    for part in publications.chunks(2_000) {
        fleet.publish_all(part);
        mosquitto.kill();
        mosquitto.start_again();
    }
    running.wait_for_metric(SESSIONS_LOST, |sessions| sessions >= 1.0);
    running.wait_for_metric(UNSUBSCRIBED_SECONDS, |seconds| seconds > 0.0);
    running.wait_until_ready();
    // As devices do: what has no receipt is sent again.
    let expected = expected(&publications);
    let mut lost = None;
    poll(WITHIN, "all receipts", || {
        let stored = fleet.stored();
        let open: Vec<_> = publications.iter().filter(|publication| !stored.contains(&publication.name)).collect();
        let count = open.len();
        if count == 0 {
            return Ok(());
        }
        lost.get_or_insert(expected.difference(&found(kafka, &topics.reports)).count());
        std::thread::sleep(std::time::Duration::from_millis(500));
        fleet.publish_all(open);
        Err(format!("{count} without"))
    });
    println!("{} of {} were not in kafka when the bridge was back", lost.unwrap_or(0), publications.len());
    assert_eq!(found(kafka, &topics.reports), expected);
    running.stop();
}
