//! The least rights of `deploy/kafka/acls.sh` on Apache Kafka, with TLS and SCRAM: roles do their
//! work with them, and nobody does anything without.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use harness::{Kafka, poll};
use load::{Options, TopicSpec};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer},
};
use service::producer::{ConfirmingProducer, Outgoing};
use telemetry::kafka::REPORTS_TOPIC;

use crate::{incarnations::send_nonsense, rig::Rig};

const COMMANDS_TOPIC: &str = "doseline.commands.v1";
const WITHIN: Duration = Duration::from_secs(60);
const USERS: [&str; 6] =
    ["doseline_migrate", "doseline_bridge", "doseline_load", "doseline_monitor", "doseline_serve", "doseline_operate"];

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kafka/acls.sh")
}

fn locked() -> Kafka {
    Kafka::locked(&USERS)
}

fn config(locked: &Kafka, user: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", locked.secured_bootstrap()).extend(locked.scram_properties(user));
    config
}

fn kafka(locked: &Kafka, user: &str, options: &Options) -> load::Kafka {
    let mut properties = service::kafka::Properties::default();
    properties.extend(locked.scram_properties(user));
    load::Kafka { brokers: locked.secured_bootstrap(), properties, ..options.kafka.clone() }
}

fn is_refusal(error: &KafkaError) -> bool {
    let codes = [RDKafkaErrorCode::TopicAuthorizationFailed, RDKafkaErrorCode::GroupAuthorizationFailed];
    error.rdkafka_error_code().is_some_and(|code| codes.contains(&code))
}

/// Whether the user may write a record into the topic.
async fn writes(locked: &Kafka, user: &str, topic: &str) -> bool {
    let mut config = config(locked, user);
    config.set("enable.idempotence", "true").set("acks", "all").set("message.timeout.ms", "15000");
    let producer = ConfirmingProducer::new(&config).expect("a producer");
    let outgoing = Outgoing { topic, key: Some(b"acme/x"), payload: b"nonsense", headers: &[] };
    let sent = match producer.enqueue(outgoing).await {
        Ok(pending) => pending.confirmed().await,
        Err(error) => Err(error),
    };
    match sent {
        Ok(()) => true,
        Err(error) => {
            // An idempotent producer without any topic to write dies of that.
            let refused = is_refusal(&error)
                || format!("{error:?}").contains("uthoriz")
                || format!("{error:?}").contains("Purge");
            assert!(
                refused
                    || matches!(
                        error.rdkafka_error_code(),
                        Some(
                            RDKafkaErrorCode::Fatal
                                | RDKafkaErrorCode::MessageTimedOut
                                | RDKafkaErrorCode::UnknownTopicOrPartition
                        )
                    ),
                "{user} writes {topic}: {error:?}"
            );
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_work_with_their_rights_and_nothing_goes_without() {
    let mut rig = Rig::without_topics(locked(), (1, 1)).await;
    let options = rig.options();
    rig.kafka.create_topic(COMMANDS_TOPIC, 1, &[("retention.ms", "-1"), ("retention.bytes", "-1")]);
    assert!(!writes(&rig.kafka, "doseline_serve", COMMANDS_TOPIC).await, "nothing goes without a rule");
    rig.kafka.allow(&script());

    // `migrate` makes the topics by its own rights.
    let spec =
        TopicSpec { partitions: 1, replication: 1, min_insync_replicas: 1, retention: Duration::from_secs(7 * 86_400) };
    let migrating = kafka(&rig.kafka, "doseline_migrate", &options);
    load::ensure_topics(&migrating, &spec, &rig.warehouse).await.expect("migrate creates the topics");
    load::inspect_topics(&kafka(&rig.kafka, "doseline_operate", &options), &spec).await.expect("operate inspects them");
    assert!(load::inspect_topics(&kafka(&rig.kafka, "doseline_monitor", &options), &spec).await.is_err());

    // The loader reads, writes, and is ready.
    let loader = rig.load(Options { kafka: kafka(&rig.kafka, "doseline_load", &options), ..rig.options() }).await;
    let producer: ThreadedProducer<DefaultProducerContext> =
        config(&rig.kafka, "doseline_bridge").create().expect("a producer");
    let record = BaseRecord::<str, [u8]>::to(REPORTS_TOPIC).payload(&b"nonsense"[..]).key("acme/x");
    producer.send(record).map_err(|(error, _)| error).expect("room");
    producer.flush(WITHIN).expect("the bridge's record is confirmed");
    send_nonsense(&mut rig, 0, 2);
    rig.written().await;
    poll(WITHIN, "the loader to be ready", || match loader.handle.readiness() {
        readiness if readiness.ready => Ok(()),
        readiness => Err(format!("{readiness:?}")),
    });
    loader.stop().await;
    assert_eq!(rig.clickhouse.number("SELECT uniqExact(kafka_offset) FROM doseline.quarantine"), 3);
}

/// A password that is wrong, no password and no TLS: nobody gets in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_gets_no_answer() {
    let locked = locked();
    let answers = |change: &[(&str, &str)]| {
        let mut config = config(&locked, "doseline_load");
        for (name, value) in change {
            config.set(*name, *value);
        }
        let client: BaseConsumer = config.create().expect("a client");
        client.fetch_metadata(None, Duration::from_secs(5)).is_ok()
    };
    assert!(answers(&[]));
    assert!(!answers(&[("sasl.password", "wrong")]));
    assert!(!answers(&[("sasl.username", "nobody")]));
    assert!(!answers(&[("sasl.mechanism", "PLAIN")]));
    assert!(!answers(&[("security.protocol", "ssl")]));
    assert!(!answers(&[("security.protocol", "plaintext")]));
    assert!(!answers(&[("ssl.ca.location", "/etc/ssl/certs/ca-certificates.crt")]), "another authority");
}
