//! Clients that take over the bridge's session, and messages around every limit.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use bridge::{BROKER_PACKET_BYTES_MAX, PACKET_BYTES_MAX};
use harness::{Mosquitto, RawMqtt, poll};
use telemetry::limits::{JSON_BYTES_MAX, REPORT_BYTES_MAX};

use crate::rig::{Running, WITHIN, kafka, options, publication, topics};

#[test]
fn a_client_that_takes_the_client_id_again_and_again_does_not_fool_health() {
    let (mosquitto, kafka) = (Mosquitto::start(), kafka());
    let running = Running::ready(options(&mosquitto, &kafka.bootstrap(), &topics(kafka)));
    let done = AtomicBool::new(false);
    let ready = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                drop(RawMqtt::connect(&mosquitto.address(), "doseline-bridge-1-0", 5));
                thread::sleep(Duration::from_millis(20));
            }
        });
        running.wait_for_obstacle("connection 0 was lost");
        // It is asked often, so that the answer is not right by chance.
        let asked = (0..200).filter(|_| {
            thread::sleep(Duration::from_millis(10));
            running.handle.readiness().ready
        });
        let ready = asked.count();
        done.store(true, Ordering::Relaxed);
        ready
    });
    assert_eq!(ready, 0, "of 200 times");
    running.wait_for_obstacle("give each bridge its own (bridge.client_id)");
}

/// A PUBLISH packet with this total size and QoS 1.
fn payload(packet_bytes: u32, topic: &str, version: u8) -> Vec<u8> {
    let head = 1 + 4 + 2 + topic.len() + 2 + usize::from(version == 5);
    vec![version; packet_bytes as usize - head]
}

#[test]
fn whatever_the_broker_took_arrives_and_the_next_report_too_at_each_limit() {
    let limit = format!("max_packet_size {BROKER_PACKET_BYTES_MAX}");
    let (mosquitto, kafka) = (Mosquitto::start_with(&[&limit]), kafka());
    let topics = topics(kafka);
    let running = Running::ready(options(&mosquitto, &kafka.bootstrap(), &topics));
    let (mut taken, mut refused, mut good) = (Vec::new(), 0, Vec::new());
    for version in [4, 5] {
        let at = |kind: &str, size: usize| format!("doseline/v1/acme/berlin/v{version}-{size}/{kind}");
        let mut messages = Vec::new();
        for size in REPORT_BYTES_MAX - 1..=REPORT_BYTES_MAX + 1 {
            messages.push((at("report", size), vec![version; size]));
        }
        for size in JSON_BYTES_MAX - 1..=JSON_BYTES_MAX + 1 {
            messages.push((at("report/json", size), vec![version; size]));
        }
        for limit in [BROKER_PACKET_BYTES_MAX, PACKET_BYTES_MAX] {
            for packet in limit - 6..=limit + 1 {
                let topic = at("report", packet as usize);
                let payload = payload(packet, &topic, version);
                messages.push((topic, payload));
            }
        }
        for (topic, payload) in messages {
            let client = || RawMqtt::connect(&mosquitto.address(), "walker", version).expect("the broker serves");
            match client().publish(topic.as_bytes(), &payload, false) {
                true => taken.push((topic, payload.len())),
                false => refused += 1,
            }
            let next = publication(good.len(), 1, 1);
            assert!(client().publish(next.topic.as_bytes(), &next.payload, false), "behind {}", payload.len());
            good.push(next);
        }
    }
    assert!(taken.len() > 20 && refused >= 16, "{} taken, {refused} refused", taken.len());
    poll(WITHIN, "everything that the broker took", || {
        let quarantined = kafka.records(&topics.quarantine);
        let there = |(topic, bytes): &&(String, usize)| {
            let is_it = |record: &harness::Record| {
                record.header("topic").as_ref() == Some(topic) && record.value.len() == *bytes
            };
            quarantined.iter().any(is_it)
        };
        let missing: Vec<_> = taken.iter().filter(|message| !there(message)).collect();
        let reports = kafka.records(&topics.reports).len();
        if missing.is_empty() && reports == good.len() {
            Ok(())
        } else {
            Err(format!("{missing:?}, {reports} reports"))
        }
    });
    assert_eq!(running.metric(bridge::metrics::RECONNECTS), 0.0);
    assert!(running.handle.readiness().ready);
}
