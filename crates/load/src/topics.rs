//! The Kafka topics: created by `migrate`, their lives numbered in the warehouse, checked before anything is read.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
};
use telemetry::kafka::ALERTS_TOPIC;
use warehouse::{Warehouse, loader::TopicLife};

use crate::{
    clock::{Clock as _, SystemClock},
    error::Error,
    options::{Kafka, Topics},
};

/// How topics are created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Partitions of each topic, fixed for its life.
    pub partitions: u32,
    /// Copies of each partition.
    pub replication: u32,
    /// Copies that must confirm a record.
    pub min_insync_replicas: u32,
    /// How long Kafka keeps records: the only copy until the loader has written.
    pub retention: Duration,
}

/// What became of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ensured {
    /// The life that is in use now.
    pub life: TopicLife,
    /// Whether it was created just now.
    pub created: bool,
}

/// Largest record: a report at its limit, raw JSON in quarantine, headers.
const MESSAGE_BYTES_MAX: u32 = 4 << 20;
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Creates the topics that are missing, and gives those that are new to the warehouse a number. Existing ones are left as
/// they are. The alerts topic is created with them; nobody loads it.
///
/// # Errors
/// [`Error::Kafka`], [`Error::Warehouse`], or [`Error::Topic`] where a topic has another number of partitions than asked
/// for or than the warehouse knows: more partitions = drain, and a new topic.
pub async fn ensure_topics(kafka: &Kafka, spec: &TopicSpec, warehouse: &Warehouse) -> Result<Vec<Ensured>, Error> {
    let wanted = kafka.topics.all();
    let created = create(kafka, spec).await?;
    let counts = settle_counts(kafka, &wanted).await?;
    let mut ensured = Vec::new();
    for topic in wanted {
        let found = counts.get(topic).copied().unwrap_or(0);
        if found != spec.partitions {
            let fault = format!(
                "has {found} partitions, {} are configured; set kafka.partitions to {found}, or drain and use a new topic",
                spec.partitions
            );
            return Err(Error::Topic { topic: topic.to_owned(), fault });
        }
        let life = number(warehouse, topic, found).await?;
        ensured.push(Ensured { life, created: created.contains(&topic.to_owned()) });
    }
    Ok(ensured)
}

async fn create(kafka: &Kafka, spec: &TopicSpec) -> Result<Vec<String>, Error> {
    let admin: AdminClient<DefaultClientContext> = client_config(kafka).create()?;
    let (retention, insync) = (spec.retention.as_millis().to_string(), spec.min_insync_replicas.to_string());
    let bytes = MESSAGE_BYTES_MAX.to_string();
    let replication = i32::try_from(spec.replication).unwrap_or(i32::MAX);
    let partitions = i32::try_from(spec.partitions).unwrap_or(i32::MAX);
    let names: Vec<&str> = kafka.topics.all().into_iter().chain([ALERTS_TOPIC]).collect();
    let topics: Vec<_> = names
        .into_iter()
        .map(|name| {
            NewTopic::new(name, partitions, TopicReplication::Fixed(replication))
                .set("retention.ms", &retention)
                .set("min.insync.replicas", &insync)
                .set("max.message.bytes", &bytes)
                .set("unclean.leader.election.enable", "false")
                .set("cleanup.policy", "delete")
        })
        .collect();
    let options = AdminOptions::new().operation_timeout(Some(ANSWER_WITHIN)).request_timeout(Some(ANSWER_WITHIN));
    let mut created = Vec::new();
    for result in admin.create_topics(&topics, &options).await? {
        match result {
            Ok(topic) => created.push(topic),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(Error::Topic { topic, fault: format!("cannot be created: {code}") }),
        }
    }
    Ok(created)
}

/// Number of partitions of each topic, once all of them are known to the broker asked.
async fn settle_counts(kafka: &Kafka, topics: &[&str]) -> Result<BTreeMap<String, u32>, Error> {
    let deadline = tokio::time::Instant::now() + ANSWER_WITHIN;
    loop {
        let counts = partition_counts(kafka).await?;
        let complete = topics.iter().all(|topic| counts.get(*topic).is_some_and(|count| *count > 0));
        if complete || tokio::time::Instant::now() > deadline {
            return Ok(counts);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Number of partitions of every topic of the cluster.
///
/// # Errors
/// [`Error::Kafka`].
pub(crate) async fn partition_counts(kafka: &Kafka) -> Result<BTreeMap<String, u32>, Error> {
    let config = client_config(kafka);
    let counts = tokio::task::spawn_blocking(move || -> Result<BTreeMap<String, u32>, KafkaError> {
        let client: BaseConsumer = config.create()?;
        // All topics: asking for one by name would create it on a broker that creates topics by itself.
        let metadata = client.fetch_metadata(None, Duration::from_secs(10))?;
        let count =
            |topic: &rdkafka::metadata::MetadataTopic| (topic.name().to_owned(), topic.partitions().len() as u32);
        Ok(metadata.topics().iter().map(count).collect())
    });
    Ok(counts.await.map_err(|_| Error::Ended("kafka metadata".to_owned()))??)
}

/// The current life of a topic, numbered now if the warehouse does not know the topic.
async fn number(warehouse: &Warehouse, topic: &str, partitions: u32) -> Result<TopicLife, Error> {
    let mut tried = 0;
    loop {
        let lives = warehouse.topic_lives().await?;
        if let Some(life) = lives.iter().rev().find(|life| life.topic == topic) {
            check_count(life, partitions)?;
            return Ok(life.clone());
        }
        // Two that migrate at once take turns: a number goes to one of them, the other finds it taken and tries the next. So
        // does one whose token was burned.
        let incarnation = lives.last().map_or(0, |life| life.incarnation).max(tried) + 1;
        tried = incarnation;
        let life = TopicLife { topic: topic.to_owned(), incarnation, partitions };
        warehouse.put_topic_life(&life, SystemClock.unix_us()).await?;
    }
}

fn check_count(life: &TopicLife, partitions: u32) -> Result<(), Error> {
    if life.partitions == partitions {
        return Ok(());
    }
    let fault = format!(
        "has {partitions} partitions, and had {} when doseline first saw it; keys would move between partitions. Drain and \
         use a new topic",
        life.partitions
    );
    Err(Error::Topic { topic: life.topic.clone(), fault })
}

/// The lives of the loader's topics, if Kafka and the warehouse agree about all of them.
///
/// # Errors
/// [`Error::Topic`] says which topic is missing or different.
pub(crate) async fn lives(
    kafka: &Kafka,
    topics: &Topics,
    warehouse: &Warehouse,
) -> Result<BTreeMap<String, TopicLife>, Error> {
    let known = warehouse.topic_lives().await?;
    let counts = partition_counts(kafka).await?;
    let mut lives = BTreeMap::new();
    for topic in topics.all() {
        let missing = |whose: &str| Error::Topic {
            topic: topic.to_owned(),
            fault: format!("is not known to {whose}; run `doseline migrate`"),
        };
        let life = known.iter().rev().find(|life| life.topic == topic).ok_or_else(|| missing("the warehouse"))?;
        let partitions = counts.get(topic).copied().ok_or_else(|| missing("kafka"))?;
        check_count(life, partitions)?;
        lives.insert(topic.to_owned(), life.clone());
    }
    Ok(lives)
}

/// What every client of this loader is configured with.
pub(crate) fn client_config(kafka: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("log.connection.close", "false").set("reconnect.backoff.max.ms", "2000");
    for (name, value) in &kafka.properties {
        config.set(name, value);
    }
    config.set("bootstrap.servers", &kafka.brokers);
    config
}

/// What the topics are like, for a person who sets things up.
///
/// # Errors
/// [`Error::Kafka`], or [`Error::Topic`] with the first that is missing, has another number of partitions, or is set so
/// that a guarantee does not hold.
pub async fn inspect_topics(kafka: &Kafka, spec: &TopicSpec) -> Result<String, Error> {
    let counts = partition_counts(kafka).await?;
    let fault = |topic: &str, fault: String| Err(Error::Topic { topic: topic.to_owned(), fault });
    for topic in kafka.topics.all() {
        match counts.get(topic) {
            None => return fault(topic, "does not exist; run `doseline migrate`".to_owned()),
            Some(found) if *found != spec.partitions => {
                return fault(topic, format!("has {found} partitions, kafka.partitions is {}", spec.partitions));
            }
            Some(_) => {}
        }
    }
    let admin: AdminClient<DefaultClientContext> = client_config(kafka).create()?;
    let names = kafka.topics.all();
    let resources: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let options = AdminOptions::new().request_timeout(Some(ANSWER_WITHIN));
    for (topic, config) in names.iter().zip(admin.describe_configs(&resources, &options).await?) {
        let config = match config {
            Ok(config) => config,
            Err(code) => return fault(topic, format!("its configuration cannot be read: {code}")),
        };
        let entries = config.entry_map();
        let value = |name: &str| entries.get(name).and_then(|entry| entry.value.as_deref()?.parse::<i64>().ok());
        let least = [
            ("retention.ms", i64::try_from(spec.retention.as_millis()).unwrap_or(i64::MAX)),
            ("min.insync.replicas", i64::from(spec.min_insync_replicas)),
            ("max.message.bytes", 2 << 20),
        ];
        for (name, least) in least {
            // -1 = for ever; a value the broker does not tell is not held against it.
            if value(name).is_some_and(|value| value >= 0 && value < least) {
                return fault(topic, format!("{name} is {}, at least {least} is needed", value(name).unwrap_or(0)));
            }
        }
    }
    Ok(format!("topics with {} partitions, settings as needed", spec.partitions))
}
