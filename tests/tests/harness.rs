//! Tests of the harness: each engine starts, works, keeps its data when it is killed, and has ended
//! afterwards.

use std::fs;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use harness::{ClickHouse, Kafka, Mosquitto, Python, Scratch, poll};

fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output().expect("start a program");
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    output
}

fn told(what: &str, started: Instant) {
    eprintln!("{what} after {:.2} s", started.elapsed().as_secs_f64());
}

#[test]
fn mosquitto_keeps_a_session_over_a_stop() {
    let started = Instant::now();
    let mut mosquitto = Mosquitto::start();
    told("mosquitto ready", started);
    let port = mosquitto.port().to_string();
    let session = ["-V", "5", "-p", &port, "-i", "reader", "-c", "-x", "3600", "-q", "1", "-t", "trial/+"];
    let subscribe = |more: &[&str]| run("mosquitto_sub", &[session.as_slice(), more].concat());
    subscribe(&["-E"]);
    run("mosquitto_pub", &["-V", "5", "-p", &port, "-q", "1", "-t", "trial/1", "-m", "before"]);

    assert!(mosquitto.stop().success());
    mosquitto.start_again();
    run("mosquitto_pub", &["-V", "5", "-p", &port, "-q", "1", "-t", "trial/2", "-m", "after"]);

    let received = subscribe(&["-C", "2", "-W", "120"]).stdout;
    assert_eq!(String::from_utf8_lossy(&received), "before\nafter\n");
}

#[test]
fn kafka_keeps_records_over_a_kill() {
    let started = Instant::now();
    let mut kafka = Kafka::start();
    told("kafka ready", started);
    kafka.create_topic("trial", 2, &[("max.message.bytes", "2097152")]);
    let scratch = Scratch::new("records");
    let file = scratch.join("records");
    fs::write(&file, "device-1:first\ndevice-1:second\n").expect("write records");
    let bootstrap = kafka.bootstrap();
    let arguments = ["-b", &bootstrap, "-t", "trial", "-P", "-K:", "-H", "reason=none", "-X", "acks=all", "-l"];
    run("kcat", &[arguments.as_slice(), &[file.to_str().expect("a plain path")]].concat());

    kafka.kill();
    let started = Instant::now();
    kafka.start_again();
    told("kafka ready again", started);

    let records = poll(Duration::from_secs(120), "both records", || match kafka.records("trial") {
        records if records.len() == 2 => Ok(records),
        records => Err(format!("{records:?}")),
    });
    assert_eq!(records[0].key.as_deref(), Some(b"device-1".as_slice()));
    assert_eq!(records[1].value, b"second");
    assert_eq!(records[0].header("reason").as_deref(), Some("none"));
    assert_eq!(kafka.end_offsets("trial").values().sum::<i64>(), 2);
    let read = run("kcat", &["-b", &bootstrap, "-t", "trial", "-C", "-e", "-q", "-o", "beginning"]).stdout;
    assert_eq!(String::from_utf8_lossy(&read), "first\nsecond\n");

    assert!(kafka.records("trial").len() == 2);
    kafka.delete_topic("trial");
}

#[test]
fn a_kafka_cluster_serves_without_one_of_three_nodes() {
    let started = Instant::now();
    let mut kafka = Kafka::cluster(3);
    told("3 kafka nodes ready", started);
    kafka.create_topic("trial", 1, &[("min.insync.replicas", "2")]);
    kafka.node(1).kill();
    kafka.wait_until_ready();
    let scratch = Scratch::new("records");
    let file = scratch.join("records");
    fs::write(&file, "only\n").expect("write records");
    let file = file.to_str().expect("a plain path");
    run("kcat", &["-b", &kafka.bootstrap(), "-t", "trial", "-P", "-X", "acks=all", "-l", file]);
    kafka.start_again();
    assert_eq!(kafka.records("trial")[0].value, b"only");
}

#[test]
fn clickhouse_keeps_rows_over_a_kill() {
    let started = Instant::now();
    let mut clickhouse = ClickHouse::start();
    told("clickhouse ready", started);
    clickhouse.query("CREATE TABLE trial (n UInt64, name Nullable(String)) ENGINE = MergeTree ORDER BY n");
    clickhouse.query("INSERT INTO trial VALUES (1, 'one'), (18446744073709551615, NULL)");

    clickhouse.kill();
    let started = Instant::now();
    clickhouse.start_again();
    told("clickhouse ready again", started);

    assert_eq!(clickhouse.number("SELECT count() FROM trial"), 2);
    let rows = clickhouse.rows("SELECT * FROM trial ORDER BY n");
    assert_eq!(rows[0]["name"], "one");
    assert_eq!(rows[1]["n"], u64::MAX);
    let refused = clickhouse.try_query("SELECT * FROM nowhere").expect_err("there is no such table");
    assert_eq!(refused.code, Some(60), "{refused}");
    clickhouse.stop();
}

#[test]
fn python_has_the_independent_clients() {
    let scratch = Scratch::new("python");
    let script = scratch.join("clients.py");
    fs::write(
        &script,
        "import sys\nimport clickhouse_connect, grpc_tools.protoc, paho.mqtt.client\nprint(sys.argv[1])\n",
    )
    .expect("write a script");
    assert_eq!(Python::run(script.to_str().expect("a plain path"), &["here"]), "here\n");
}

#[test]
fn engines_can_be_shared_by_the_tests_of_a_file() {
    fn shared<T: Send + Sync>() {}
    shared::<Mosquitto>();
    shared::<Kafka>();
    shared::<ClickHouse>();
}
