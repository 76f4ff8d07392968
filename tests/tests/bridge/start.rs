//! Whatever is missing at the start is reported in one clear line, and the bridge waits for it.

use std::{fs, path::PathBuf, process::Command};

use harness::{Mosquitto, Scratch, free_port};
use service::{secret::Password, tls::Tls};

use crate::rig::{ENDS_WITHIN, Running, create, kafka, options, planned_topics, topics};

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
    assert!(running.stop() < ENDS_WITHIN);
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
    options.mqtt.password = Some(Password::File(secret.clone()));
    let running = Running::start(options);
    running.wait_for_obstacle("the broker refuses the user name, password or certificate");
    fs::write(&secret, "right\n").expect("write a secret");
    running.wait_until_ready();
}

fn openssl(scratch: &Scratch, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(scratch.path()).output();
    let output = output.expect("start openssl");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Creates `{name}.pem` and `{name}.key`, signed by `ca.pem`.
fn certificate(scratch: &Scratch, name: &str, subject: &str) {
    let request = "req -newkey rsa:2048 -nodes -addext subjectAltName=IP:127.0.0.1";
    openssl(scratch, &format!("{request} -subj /CN={subject} -keyout {name}.key -out {name}.csr"));
    let sign = "x509 -req -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -copy_extensions copy";
    openssl(scratch, &format!("{sign} -in {name}.csr -out {name}.pem"));
}

#[test]
fn mutual_tls_works_and_an_authority_that_is_not_trusted_is_named() {
    let scratch = Scratch::new("tls");
    let path = |name: &str| -> PathBuf { scratch.join(name) };
    for authority in ["ca", "other"] {
        let request = format!("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={authority}");
        openssl(&scratch, &format!("{request} -keyout {authority}.key -out {authority}.pem"));
    }
    certificate(&scratch, "broker", "127.0.0.1");
    certificate(&scratch, "bridge", "doseline-bridge");
    let setting = |name: &str, file: &str| format!("{name} {}", path(file).display());
    let mosquitto = Mosquitto::start_with(&[
        &setting("cafile", "ca.pem"),
        &setting("certfile", "broker.pem"),
        &setting("keyfile", "broker.key"),
        "require_certificate true",
        "use_identity_as_username true",
    ]);
    let kafka = kafka();
    let mut options = options(&mosquitto, &kafka.bootstrap(), &topics(kafka));
    // Trusted is what stands in this file at each attempt.
    fs::copy(path("other.pem"), path("trusted.pem")).expect("copy a file");
    options.mqtt.tls =
        Some(Tls { ca: path("trusted.pem"), certificate: Some(path("bridge.pem")), key: Some(path("bridge.key")) });
    let running = Running::start(options);
    running.wait_for_obstacle("TLS refused");
    fs::copy(path("ca.pem"), path("trusted.pem")).expect("copy a file");
    running.wait_until_ready();
}
