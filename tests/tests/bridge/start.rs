//! What is missing at the start is said in one clear line, and waited for.

use std::{fs, process::Command, time::Duration};

use bridge::Secret;
use harness::{Mosquitto, Scratch, free_port};

use crate::rig::{Running, create, kafka, options, planned_topics, topics};

#[test]
fn a_missing_topic_is_named_and_waited_for() {
    let (mosquitto, kafka) = (Mosquitto::start(), kafka());
    let topics = planned_topics();
    let running = Running::start(options(&mosquitto, &kafka.bootstrap(), &topics));
    running.wait_for_obstacle(&format!("kafka topic {} does not exist", topics.reports));
    create(kafka, &topics);
    running.wait_until_ready();
}

#[test]
fn unequal_partition_counts_are_named() {
    let (mosquitto, kafka) = (Mosquitto::start(), kafka());
    let topics = planned_topics();
    kafka.create_topic(&topics.reports, 3, &[]);
    kafka.create_topic(&topics.status, 3, &[]);
    kafka.create_topic(&topics.quarantine, 2, &[]);
    let running = Running::start(options(&mosquitto, &kafka.bootstrap(), &topics));
    running.wait_for_obstacle("have [3, 3, 2] partitions; the numbers must be equal");
}

#[test]
fn an_unreachable_kafka_is_named_and_does_not_hold_up_the_end() {
    let mosquitto = Mosquitto::start();
    let bootstrap = format!("127.0.0.1:{}", free_port());
    let running = Running::start(options(&mosquitto, &bootstrap, &planned_topics()));
    running.wait_for_obstacle("Connection refused");
    assert!(running.stop() < Duration::from_secs(4));
}

#[test]
fn an_unreachable_broker_is_named_and_waited_for() {
    let mut mosquitto = Mosquitto::start();
    mosquitto.stop();
    let kafka = kafka();
    let running = Running::start(options(&mosquitto, &kafka.bootstrap(), &topics(kafka)));
    running.wait_for_obstacle("the broker is unreachable: Connection refused");
    mosquitto.start_again();
    running.wait_until_ready();
}

#[test]
fn a_wrong_password_is_named_and_a_new_one_is_read_without_a_restart() {
    let scratch = Scratch::new("passwords");
    let (file, secret) = (scratch.join("broker"), scratch.join("bridge"));
    let file_name = file.to_str().expect("a plain path");
    let status = Command::new("mosquitto_passwd").args(["-c", "-b", file_name, "bridge", "right"]).status();
    assert!(status.expect("start mosquitto_passwd").success());
    let mosquitto = Mosquitto::start_with(&["allow_anonymous false", &format!("password_file {file_name}")]);
    fs::write(&secret, "wrong\n").expect("write a secret");
    let kafka = kafka();
    let mut options = options(&mosquitto, &kafka.bootstrap(), &topics(kafka));
    options.mqtt.username = Some("bridge".to_owned());
    options.mqtt.password = Some(Secret::File(secret.clone()));
    let running = Running::start(options);
    running.wait_for_obstacle("the broker refuses the user name, password or certificate");
    fs::write(&secret, "right\n").expect("write a secret");
    running.wait_until_ready();
}
