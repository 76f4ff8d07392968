//! Whether Kafka has enough in-sync replicas to confirm records.
//!
//! If a broker refuses a record with NOT_ENOUGH_REPLICAS, librdkafka repeats it silently until the
//! record's time-out. The bridge therefore looks at the replicas itself.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rdkafka::{
    admin::{AdminClient, AdminOptions, ResourceSpecifier},
    client::DefaultClientContext,
    error::KafkaError,
};

use crate::{health::Health, options::Kafka};

const LOOK_EVERY: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Looks at the replicas every 5 s.
pub(crate) struct Replicas {
    admin: Arc<AdminClient<DefaultClientContext>>,
    topics: [String; 3],
    /// `min.insync.replicas` by topic, as last heard.
    needed: BTreeMap<String, usize>,
}

impl Replicas {
    pub fn new(kafka: &Kafka) -> Result<Self, KafkaError> {
        let mut config = kafka.properties.client(&kafka.brokers, &[]);
        // Otherwise librdkafka 2.12 connects without a back-off to a controller that is down, while
        // an admin request waits for that controller.
        config.set("enable.sparse.connections", "false");
        let topics = kafka.topics.of_devices().map(str::to_owned);
        Ok(Self { admin: Arc::new(config.create()?), topics, needed: BTreeMap::new() })
    }

    /// Tells `health` what it sees; never ends.
    pub async fn run(mut self, health: Arc<Health>) -> &'static str {
        loop {
            match self.shortage().await {
                Ok(shortage) => {
                    if health.replicas(shortage.as_deref()) {
                        match shortage {
                            Some(shortage) => tracing::warn!(shortage, "kafka confirms nothing"),
                            None => tracing::info!("kafka has enough replicas"),
                        }
                    }
                }
                // The producer notices whether Kafka can be reached.
                Err(error) => tracing::debug!(error, "replicas cannot be looked at"),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The first partition with fewer in-sync replicas than it needs, if there is one.
    async fn shortage(&mut self) -> Result<Option<String>, String> {
        match self.ask_needed().await {
            Ok(needed) => self.needed = needed,
            // The request may have gone to the broker that is away. The last answer still holds.
            Err(error) if self.needed.is_empty() => return Err(error),
            Err(error) => tracing::debug!(error, "min.insync.replicas cannot be asked"),
        }
        let admin = Arc::clone(&self.admin);
        // All topics: asking for one by name would create it on a broker that creates topics by
        // itself.
        let metadata = tokio::task::spawn_blocking(move || admin.inner().fetch_metadata(None, ANSWER_WITHIN));
        let metadata = metadata.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        for topic in metadata.topics() {
            let Some(needed) = self.needed.get(topic.name()) else { continue };
            if let Some(partition) = topic.partitions().iter().find(|partition| partition.isr().len() < *needed) {
                return Ok(Some(text(topic.name(), partition.id(), partition.isr().len(), *needed)));
            }
        }
        Ok(None)
    }

    async fn ask_needed(&self) -> Result<BTreeMap<String, usize>, String> {
        let resources: Vec<_> = self.topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        let options = AdminOptions::new().request_timeout(Some(ANSWER_WITHIN));
        let configs = self.admin.describe_configs(&resources, &options).await.map_err(|error| error.to_string())?;
        let needed = |(topic, config): (&String, Result<rdkafka::admin::ConfigResource, _>)| {
            let config = config.ok()?;
            let needed = config.entry_map().get("min.insync.replicas")?.value.as_deref()?.parse().ok()?;
            Some((topic.clone(), needed))
        };
        Ok(self.topics.iter().zip(configs).filter_map(needed).collect())
    }
}

fn text(topic: &str, partition: i32, in_sync: usize, needed: usize) -> String {
    format!(
        "NOT_ENOUGH_REPLICAS: kafka topic {topic}, partition {partition}, has {in_sync} in-sync replicas, \
         min.insync.replicas is {needed}: nothing in it is confirmed, and devices keep what they send; bring brokers back"
    )
}
