//! The Kafka log of `doseline up` with clients that share no code with it: Java's client,
//! librdkafka, kafka-python, kafkajs, kafka-go.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use harness::{Doseline, Ready, Scratch, clients};
use rdkafka::{
    ClientConfig, Message as _,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    producer::{BaseProducer, BaseRecord, Producer as _},
};

const WITHIN: Duration = Duration::from_secs(60);
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// A topic that clients write one after the other, and its expected content.
struct Topic<'r> {
    address: &'r str,
    name: &'static str,
    values: Vec<String>,
}

impl<'r> Topic<'r> {
    fn create(ready: &'r Ready, name: &'static str) -> Self {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &ready.kafka).create().expect("make an administrator");
        let new = NewTopic::new(name, 1, TopicReplication::Fixed(1));
        let runtime = tokio::runtime::Runtime::new().expect("start a runtime");
        let created = runtime.block_on(admin.create_topics(&[new], &AdminOptions::new())).expect("create a topic");
        assert!(created[0].is_ok(), "{created:?}");
        Self { address: &ready.kafka, name, values: Vec::new() }
    }

    /// Records that a client has produced these values and has then read the whole topic.
    fn expect(&mut self, client: &str, produced: impl IntoIterator<Item = String>, read: &str) {
        self.values.extend(produced);
        assert_eq!(read.lines().collect::<Vec<_>>(), self.values, "read by {client}");
        println!("{client}: {} records of {}", self.values.len(), self.name);
    }

    /// Runs a program that produces and reads. It gets the address, the topic and the number of
    /// records.
    fn run(&mut self, client: &str, produced: &[&str], command: &mut Command) {
        let count = (self.values.len() + produced.len()).to_string();
        let read = output(command.args([self.address, self.name, &count]), "");
        self.expect(client, produced.iter().map(ToString::to_string), &read);
    }

    fn librdkafka(&mut self, codecs: &[&str]) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.address);
        for codec in codecs {
            let mut config = config.clone();
            config.set("compression.codec", *codec).set("enable.idempotence", "true");
            let producer: BaseProducer = config.create().expect("make a producer");
            let value = value("librdkafka", codec);
            producer
                .send(BaseRecord::<(), _>::to(self.name).payload(&value))
                .map_err(|(error, _)| error)
                .expect("send");
            producer.flush(WITHIN).expect("flush");
        }
        config.set("group.id", "librdkafka").set("auto.offset.reset", "earliest").set("check.crcs", "true");
        let consumer: BaseConsumer = config.create().expect("make a consumer");
        consumer.subscribe(&[self.name]).expect("subscribe");
        let (mut read, mut left) = (String::new(), self.values.len() + codecs.len());
        let deadline = Instant::now() + WITHIN;
        while left > 0 {
            assert!(Instant::now() < deadline, "{left} records did not come");
            // A poll that takes part in a rebalance returns nothing.
            let Some(record) = consumer.poll(Duration::from_millis(100)) else { continue };
            let record = record.expect("a record");
            read += &String::from_utf8_lossy(record.payload().expect("a value"));
            read.push('\n');
            left -= 1;
        }
        self.expect("librdkafka", codecs.iter().map(|codec| value("librdkafka", codec)), &read);
    }

    fn java(&mut self, codecs: &[&str]) {
        for codec in codecs {
            let mut command = harness::java();
            command.args(["org.apache.kafka.tools.ConsoleProducer", "--bootstrap-server", self.address]);
            command.args(["--topic", self.name, "--compression-codec", codec]);
            output(&mut command, &value("java", codec));
        }
        let mut command = harness::java();
        command.args(["org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", self.address]);
        command.args(["--topic", self.name, "--from-beginning", "--group", "java", "--timeout-ms", "60000"]);
        command.args(["--max-messages", &(self.values.len() + codecs.len()).to_string()]);
        let read = output(&mut command, "");
        self.expect("java", codecs.iter().map(|codec| value("java", codec)), &read);
    }
}

/// The value has few repetitions, so that each codec makes it smaller.
fn value(client: &str, codec: &str) -> String {
    format!("{client} {codec} {}", "value ".repeat(200).trim_end())
}

/// What a program prints after it got this line.
fn output(command: &mut Command, input: &str) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    writeln!(child.stdin.take().expect("an input"), "{input}").expect("write to the program");
    let output = child.wait_with_output().expect("wait for the program");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} ended with {}\n{stdout}{stderr}", output.status);
    stdout.into_owned()
}

#[test]
fn clients_of_every_family_produce_and_consume() {
    let scratch = Scratch::new("kafka-clients");
    let data_dir = scratch.path().to_str().expect("a plain path");
    let ports = ["--mqtt-port", "0", "--kafka-port", "0", "--clickhouse-port", "0", "--http-port", "0"];
    let mut doseline = Doseline::start(&[&["up", "--data-dir", data_dir], &ports[..]].concat());
    let ready = doseline.wait_until_ready(WITHIN);

    // kafka-python and kafkajs only support gzip.
    let mut topic = Topic::create(&ready, "clients");
    topic.librdkafka(&["gzip"]);
    let produced = ["kafka-python 0", "kafka-python 1", "kafka-python 2"];
    topic.run("kafka-python", &produced, &mut clients::kafka_python());
    topic.run("kafkajs", &["kafkajs 0", "kafkajs 1", "kafkajs 2"], &mut clients::kafkajs());

    let mut topic = Topic::create(&ready, "codecs");
    // librdkafka is built without Zstandard here.
    topic.librdkafka(&CODECS[..4]);
    topic.java(&CODECS);
    if let Some(mut go) = clients::go() {
        let produced = ["kafka-go 0", "kafka-go 1", "kafka-go 2", "kafka-go 3", "kafka-go 4"];
        topic.run("kafka-go", &produced, go.arg("kafka"));
    }
    let (status, _) = doseline.stop(Duration::from_secs(20));
    assert!(status.success(), "{status}");
}
