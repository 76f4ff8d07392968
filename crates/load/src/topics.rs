//! The Kafka topics: `migrate` creates them and numbers their incarnations in the warehouse; the
//! loader checks them before it reads anything.

use async_recursion::async_recursion as boxed;
use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
};
use std::sync::Arc;
use telemetry::kafka::{ALERTS_TOPIC, Topics};
use warehouse::{Warehouse, loader::TopicIncarnation};

use crate::{
    clock::{Clock as _, SystemClock},
    error::Error,
    options::Kafka,
    status::Handle,
    topic_ids,
};

/// How topics are created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Partitions of each topic, fixed for its incarnation.
    pub partitions: u32,
    /// Copies of each partition.
    pub replication: u32,
    /// Copies that must confirm a record.
    pub min_insync_replicas: u32,
    /// How long Kafka keeps records: the only copy until the loader has written. Commands are kept
    /// for ever.
    pub retention: Duration,
}

/// What became of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ensured {
    /// The incarnation in use.
    pub topic: TopicIncarnation,
    /// Whether it was created just now.
    pub created: bool,
}

/// Largest record: a report at its limit, raw JSON in quarantine, headers.
const MESSAGE_BYTES_MAX: u32 = 4 << 20;
/// Value of a topic's limits that means no limit.
const FOR_EVER: &str = "-1";
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// How often the topics are looked at while they are read.
const WATCH_EVERY: Duration = Duration::from_secs(10);

/// Creates missing topics, and numbers each incarnation that the warehouse does not know yet. If a
/// topic was deleted and created again, its earlier incarnation is closed first. Existing topics
/// are left as they are. The alerts topic is created as well; no loader reads it.
///
/// # Errors
/// [`Error::Kafka`], [`Error::Warehouse`], or [`Error::Topic`] if a topic has another number of
/// partitions than configured, or than the warehouse knows. For more partitions, drain the topic
/// and use a new one.
#[boxed]
pub async fn ensure_topics(kafka: &Kafka, spec: &TopicSpec, warehouse: &Warehouse) -> Result<Vec<Ensured>, Error> {
    let wanted = kafka.topics.all();
    let created = create(kafka, spec).await?;
    let counts = known_counts(kafka, &wanted).await?;
    let ids = Watch::new(kafka)?.ids(&wanted).await?;
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
        let id = ids.get(topic).map_or("", String::as_str);
        let numbered = number(warehouse, topic, found, id).await?;
        ensured.push(Ensured { topic: numbered, created: created.contains(&topic.to_owned()) });
    }
    Ok(ensured)
}

async fn create(kafka: &Kafka, spec: &TopicSpec) -> Result<Vec<String>, Error> {
    let admin: AdminClient<DefaultClientContext> = kafka.client().create()?;
    let (retention, insync) = (spec.retention.as_millis().to_string(), spec.min_insync_replicas.to_string());
    let bytes = MESSAGE_BYTES_MAX.to_string();
    let replication = i32::try_from(spec.replication).unwrap_or(i32::MAX);
    let partitions = i32::try_from(spec.partitions).unwrap_or(i32::MAX);
    let names: Vec<&str> = kafka.topics.all().into_iter().chain([ALERTS_TOPIC]).collect();
    let topics: Vec<_> = names
        .into_iter()
        .map(|name| {
            // Everything that people wrote can be rebuilt from this topic, so none of it may go.
            let is_kept = name == kafka.topics.commands;
            let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replication));
            let topic = if is_kept { topic.set("retention.bytes", FOR_EVER) } else { topic };
            topic
                .set("retention.ms", if is_kept { FOR_EVER } else { &retention })
                .set("min.insync.replicas", &insync)
                .set("max.message.bytes", &bytes)
                .set("unclean.leader.election.enable", "false")
                .set("cleanup.policy", "delete")
                // Keep the bridge's compression: compressing again in the broker only costs time.
                .set("compression.type", "producer")
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

/// Number of partitions of each topic, once the broker that answers knows all of them.
async fn known_counts(kafka: &Kafka, topics: &[&str]) -> Result<BTreeMap<String, u32>, Error> {
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
    let config = kafka.client();
    let counts = tokio::task::spawn_blocking(move || -> Result<BTreeMap<String, u32>, KafkaError> {
        let client: BaseConsumer = config.create()?;
        // All topics: asking for one by name would create it on a broker that creates topics by
        // itself.
        let metadata = client.fetch_metadata(None, Duration::from_secs(10))?;
        let count =
            |topic: &rdkafka::metadata::MetadataTopic| (topic.name().to_owned(), topic.partitions().len() as u32);
        Ok(metadata.topics().iter().map(count).collect())
    });
    Ok(counts.await.map_err(|_| Error::Ended("kafka metadata".to_owned()))??)
}

/// The current incarnation of a topic. It is numbered now if the warehouse does not know the topic,
/// or knows it with another id.
async fn number(warehouse: &Warehouse, topic: &str, partitions: u32, id: &str) -> Result<TopicIncarnation, Error> {
    let mut tried = 0;
    loop {
        let incarnations = warehouse.topic_incarnations().await?;
        if let Some(known) = incarnations.iter().rev().find(|known| known.topic == topic) {
            if recreated(known, id).is_none() {
                note_id(warehouse, known, id).await?;
                check_count(known, partitions)?;
                return Ok(known.clone());
            }
            // Close the old incarnation before the new one has a number: no owner may still write
            // into the old one when the ledgers of the new one are read.
            for closed in warehouse.close_incarnation(known, SystemClock.unix_us()).await? {
                tracing::warn!(
                    topic,
                    incarnation = known.incarnation,
                    partition = closed.shard.partition,
                    from = closed.position,
                    "the topic was deleted and created again; records of the old one from this offset on were never written"
                );
            }
        }
        // If two processes migrate at once, one of them gets the number. The other finds it taken
        // and tries the next, as does a process whose token was burned.
        let incarnation = incarnations.last().map_or(0, |known| known.incarnation).max(tried) + 1;
        tried = incarnation;
        let begun = TopicIncarnation { topic: topic.to_owned(), incarnation, partitions, topic_id: id.to_owned() };
        warehouse.put_topic_incarnation(&begun, SystemClock.unix_us()).await?;
    }
}

/// Fills in the id of an incarnation that was numbered without one.
async fn note_id(warehouse: &Warehouse, known: &TopicIncarnation, id: &str) -> Result<(), Error> {
    if known.topic_id.is_empty() && !id.is_empty() {
        warehouse.note_topic_id(known.incarnation, id).await?;
    }
    Ok(())
}

/// The error if a topic has another id than in this incarnation. If one of the two ids is unknown,
/// only the offsets can tell.
fn recreated(known: &TopicIncarnation, id: &str) -> Option<Error> {
    let differs = !known.topic_id.is_empty() && !id.is_empty() && known.topic_id != id;
    differs.then(|| Error::Recreated {
        topic: known.topic.clone(),
        known: known.topic_id.clone(),
        found: id.to_owned(),
    })
}

fn check_count(known: &TopicIncarnation, partitions: u32) -> Result<(), Error> {
    if known.partitions == partitions {
        return Ok(());
    }
    let fault = format!(
        "has {partitions} partitions, and had {} when doseline first saw it; keys would move between partitions. Drain and \
         use a new topic",
        known.partitions
    );
    Err(Error::Topic { topic: known.topic.clone(), fault })
}

/// The incarnations of the loader's topics, if Kafka and the warehouse agree about all of them.
///
/// # Errors
/// [`Error::Topic`] says which topic is missing or different.
pub(crate) async fn incarnations(
    kafka: &Kafka,
    topics: &Topics,
    warehouse: &Warehouse,
) -> Result<BTreeMap<String, TopicIncarnation>, Error> {
    let known = warehouse.topic_incarnations().await?;
    let counts = partition_counts(kafka).await?;
    let ids = Watch::new(kafka)?.ids(&topics.all()).await?;
    let mut incarnations = BTreeMap::new();
    for topic in topics.all() {
        let missing = || Error::Topic {
            topic: topic.to_owned(),
            fault: "is not known to the warehouse; run `doseline migrate`".to_owned(),
        };
        let unseen = || {
            Error::Topic {
            topic: topic.to_owned(),
            fault: "does not exist, or this user may not describe it; check the loader's rights in kafka, and run `doseline \
                    migrate` if the topic is missing"
                .to_owned(),
        }
        };
        let incarnation = known.iter().rev().find(|incarnation| incarnation.topic == topic).ok_or_else(missing)?;
        let partitions = counts.get(topic).copied().ok_or_else(unseen)?;
        let id = ids.get(topic).map_or("", String::as_str);
        if let Some(error) = recreated(incarnation, id) {
            return Err(error);
        }
        note_id(warehouse, incarnation, id).await?;
        check_count(incarnation, partitions)?;
        let topic_id = if id.is_empty() { incarnation.topic_id.clone() } else { id.to_owned() };
        incarnations.insert(topic.to_owned(), TopicIncarnation { topic_id, ..incarnation.clone() });
    }
    Ok(incarnations)
}

/// Checks the topics while they are read.
pub(crate) struct Watch {
    client: Arc<BaseConsumer>,
    admin: AdminClient<DefaultClientContext>,
}

impl Watch {
    pub fn new(kafka: &Kafka) -> Result<Self, Error> {
        let mut config = kafka.client();
        // While the controller is down, librdkafka 2.12 connects to it again at once as long as an
        // admin request waits for it (each attempt wakes the request, which asks for the next
        // without a back-off): 100,000 a second where the port is closed. With connections to all
        // brokers the attempts are the broker thread's own, backed off.
        config.set("enable.sparse.connections", "false");
        Ok(Self { client: Arc::new(config.create()?), admin: config.create()? })
    }

    /// Ids of the topics that exist; an id is empty if the broker gives none.
    #[boxed]
    pub async fn ids(&self, topics: &[&str]) -> Result<BTreeMap<String, String>, Error> {
        let (client, owned) = (self.client.clone(), topics.iter().map(ToString::to_string).collect::<Vec<_>>());
        let described = tokio::task::spawn_blocking(move || {
            let names: Vec<&str> = owned.iter().map(String::as_str).collect();
            topic_ids::describe(&client, &names, ANSWER_WITHIN)
        });
        match described.await.map_err(|_| Error::Ended("kafka topics".to_owned()))? {
            Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnsupportedFeature) => {
                Ok(topics.iter().map(|topic| (topic.to_string(), String::new())).collect())
            }
            result => Ok(result?),
        }
    }

    /// The error of the first topic that is no longer the one of its incarnation.
    #[boxed]
    pub async fn changed(&self, incarnations: &BTreeMap<String, TopicIncarnation>) -> Result<Option<Error>, Error> {
        let topics: Vec<&str> = incarnations.keys().map(String::as_str).collect();
        let ids = self.ids(&topics).await?;
        Ok(incarnations.values().find_map(|incarnation| match ids.get(&incarnation.topic) {
            Some(id) => recreated(incarnation, id),
            None => {
                let fault =
                    "does not exist any more, or this user may not describe it any more; check the loader's rights in \
                             kafka, and run `doseline migrate` if the topic is missing"
                        .to_owned();
                Some(Error::Topic { topic: incarnation.topic.clone(), fault })
            }
        }))
    }

    /// How long Kafka keeps the records of each topic. Topics that it keeps for ever, or gives no
    /// value for, are left out.
    async fn retentions(&self, topics: &[&str]) -> Result<BTreeMap<String, Duration>, Error> {
        let resources: Vec<_> = topics.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let options = AdminOptions::new().request_timeout(Some(ANSWER_WITHIN));
        let configs = self.admin.describe_configs(&resources, &options).await?;
        let retention = |(topic, config): (&&str, Result<rdkafka::admin::ConfigResource, _>)| {
            let config = config.ok()?;
            let milliseconds = config.entry_map().get("retention.ms")?.value.as_deref()?.parse().ok()?;
            Some(((*topic).to_owned(), Duration::from_millis(milliseconds)))
        };
        Ok(topics.iter().zip(configs).filter_map(retention).collect())
    }

    /// Checks at intervals, until a topic is no longer the one of its incarnation.
    #[boxed]
    pub async fn run(&self, incarnations: &BTreeMap<String, TopicIncarnation>, handle: &Handle) -> Error {
        let topics: Vec<&str> = incarnations.keys().map(String::as_str).collect();
        loop {
            match self.retentions(&topics).await {
                Ok(retentions) => handle.retentions(retentions),
                Err(error) => tracing::debug!(%error, "retention of the topics cannot be read"),
            }
            tokio::time::sleep(WATCH_EVERY).await;
            match self.changed(incarnations).await {
                Ok(Some(error)) => return error,
                Ok(None) => {}
                // `status::Handle::kafka` reports whether Kafka can be reached.
                Err(error) => tracing::debug!(%error, "topics cannot be looked at"),
            }
        }
    }
}

/// Describes the topics, for a person who sets up Kafka.
///
/// # Errors
/// [`Error::Kafka`], or [`Error::Topic`] with the first topic that is missing, has another number
/// of partitions, or has a setting that breaks a guarantee.
#[boxed]
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
    let admin: AdminClient<DefaultClientContext> = kafka.client().create()?;
    let names = kafka.topics.all();
    let resources: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let options = AdminOptions::new().request_timeout(Some(ANSWER_WITHIN));
    let mut found = format!("topics with {} partitions, settings as needed", spec.partitions);
    for (topic, config) in names.iter().zip(admin.describe_configs(&resources, &options).await?) {
        let config = match config {
            Ok(config) => config,
            Err(code) => return fault(topic, format!("its configuration cannot be read: {code}")),
        };
        let entries = config.entry_map();
        let codec = entries.get("compression.type").and_then(|entry| entry.value.as_deref());
        if let Some(codec) = codec.filter(|codec| *codec != "producer") {
            let _ = write!(
                found,
                "; the broker recompresses {topic} with {codec} (compression.type), which the loader can read"
            );
        }
        if *topic == kafka.topics.commands
            && let Some((name, value)) = forgets(|name| entries.get(name).and_then(|entry| entry.value.as_deref()))
        {
            return fault(
                topic,
                format!("{name} is {value}; commands must be kept for ever: set {name} to {FOR_EVER}"),
            );
        }
        let value = |name: &str| entries.get(name).and_then(|entry| entry.value.as_deref()?.parse::<i64>().ok());
        let least = [
            ("retention.ms", i64::try_from(spec.retention.as_millis()).unwrap_or(i64::MAX)),
            ("min.insync.replicas", i64::from(spec.min_insync_replicas)),
            ("max.message.bytes", 2 << 20),
        ];
        for (name, least) in least {
            // -1 = for ever. A value that the broker does not give is accepted.
            if value(name).is_some_and(|value| value >= 0 && value < least) {
                return fault(topic, format!("{name} is {}, at least {least} is needed", value(name).unwrap_or(0)));
            }
        }
    }
    Ok(found)
}

/// The first setting of the commands topic with which Kafka would delete from it, and its value. A
/// value that the broker does not give is accepted.
fn forgets<'v>(value: impl Fn(&str) -> Option<&'v str>) -> Option<(&'static str, &'v str)> {
    if let Some(policy) = value("cleanup.policy").filter(|policy| policy.contains("compact")) {
        return Some(("cleanup.policy", policy));
    }
    let limits = ["retention.ms", "retention.bytes"].into_iter();
    limits.filter_map(|name| Some((name, value(name)?))).find(|(_, value)| *value != FOR_EVER)
}

#[cfg(test)]
mod tests {
    use rdkafka::{consumer::Consumer as _, mocking::MockCluster};

    use super::*;

    /// CPU time of librdkafka's threads in this process, s.
    fn librdkafka_cpu_s() -> f64 {
        let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let stats = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
        let ticks = |stat: String| -> u64 {
            let (name, rest) = stat.rsplit_once(") ").unwrap();
            let fields: Vec<&str> = rest.split(' ').collect();
            let cpu = || fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
            if name.contains("(rdk:") { cpu() } else { 0 }
        };
        stats.map(ticks).sum::<u64>() as f64 / 100.0
    }

    #[test]
    fn a_commands_topic_that_forgets_is_found() {
        let check = |settings: &[(&str, &'static str)], expected: Option<(&str, &str)>| {
            assert_eq!(
                forgets(|name| settings.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)),
                expected
            );
        };
        check(&[], None);
        check(&[("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")], None);
        check(&[("retention.ms", "604800000")], Some(("retention.ms", "604800000")));
        check(&[("retention.ms", "-1"), ("retention.bytes", "1000")], Some(("retention.bytes", "1000")));
        check(&[("cleanup.policy", "compact,delete")], Some(("cleanup.policy", "compact,delete")));
    }

    #[tokio::test]
    async fn waiting_for_a_controller_that_is_down_takes_no_cpu() {
        let cluster = MockCluster::new(3).unwrap();
        cluster.create_topic("reports", 1, 3).unwrap();
        let watch = Watch::new(&Kafka { brokers: cluster.bootstrap_servers(), ..Default::default() }).unwrap();
        watch.client.fetch_metadata(None, ANSWER_WITHIN).unwrap();
        watch.admin.inner().fetch_metadata(None, ANSWER_WITHIN).unwrap();
        (1..=3).for_each(|broker| cluster.broker_down(broker).unwrap());
        let before = librdkafka_cpu_s();
        let (ids, retentions) = (watch.ids(&["reports"]), watch.retentions(&["reports"]));
        let within = Duration::from_secs(2);
        let (ids, retentions) =
            tokio::join!(tokio::time::timeout(within, ids), tokio::time::timeout(within, retentions));
        assert!(ids.is_err() && retentions.is_err(), "the question waits");
        let took = librdkafka_cpu_s() - before;
        assert!(took < 0.5, "{took} CPU-s in 2 s");
    }
}
