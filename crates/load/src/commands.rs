//! Gives commands: puts what a person writes into Kafka, and waits until the warehouse holds it.
//!
//! They go through Kafka because the loader is the only writer, and because everything in the
//! warehouse must be restorable from Kafka. A command may reach the topic twice without harm: its
//! idempotency key tells.

use async_recursion::async_recursion as boxed;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use service::producer::{ConfirmingProducer, Outgoing};
use telemetry::command::{COMMAND_BYTES_MAX, Command, record_key};
use tokio::time::Instant;
use warehouse::{Advice, Warehouse, audit::Outcome};

use crate::{error::Error, options::Kafka};

/// How often the warehouse is asked whether it holds the commands.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Gives commands.
pub struct Commands {
    producer: ConfirmingProducer,
    topic: String,
    warehouse: Warehouse,
}

impl Commands {
    /// Prepares the producer; nothing is sent.
    ///
    /// # Errors
    /// [`Error::Kafka`] when librdkafka refuses the configuration.
    pub fn new(kafka: &Kafka, warehouse: Warehouse) -> Result<Self, Error> {
        let mut config = kafka.client();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            .set("message.max.bytes", (2 * COMMAND_BYTES_MAX).to_string())
            .set("message.timeout.ms", "15000")
            .set("queue.buffering.max.kbytes", "65536")
            .set("linger.ms", "0");
        Ok(Self { producer: ConfirmingProducer::new(&config)?, topic: kafka.topics.commands.clone(), warehouse })
    }

    /// Gives commands, and returns what became of each when every table holds what they mean.
    ///
    /// # Errors
    /// [`Error::Topic`]: the topic does not exist, nothing was given. [`Error::Kafka`]: some may
    /// have been given; giving all of them again does no harm. [`Error::Late`]: all are in Kafka,
    /// and the warehouse does not hold all of them after `within`.
    #[boxed]
    pub async fn give(&self, commands: &[Command], within: Duration) -> Result<Vec<Outcome>, Error> {
        // A broker may create a topic for the first record, with settings under which it forgets.
        if self.warehouse.topic_incarnations().await?.iter().all(|known| known.topic != self.topic) {
            let fault = "is not known to the warehouse; run `doseline migrate`".to_owned();
            return Err(Error::Topic { topic: self.topic.clone(), fault });
        }
        let mut pending = Vec::new();
        for command in commands {
            let (topic, key, payload) = (self.topic.as_str(), record_key(command.tenant()), command.encode());
            let outgoing = Outgoing { topic, key: Some(key.as_bytes()), payload: &payload, headers: &[] };
            pending.push(self.producer.enqueue(outgoing).await?);
        }
        for record in pending {
            record.confirmed().await?;
        }
        self.applied(commands, within).await
    }

    /// Waits until the warehouse holds the commands. Earlier commands of the same keys were given
    /// at another time.
    async fn applied(&self, commands: &[Command], within: Duration) -> Result<Vec<Outcome>, Error> {
        let mut waiting: BTreeMap<&str, BTreeSet<Name>> = BTreeMap::new();
        for command in commands {
            waiting.entry(command.tenant()).or_default().insert(name(command));
        }
        let deadline = Instant::now() + within;
        let mut outcomes = BTreeMap::new();
        loop {
            for (tenant, names) in &mut waiting {
                let keys: Vec<String> = names.iter().map(|(key, _)| key.clone()).collect();
                match self.warehouse.outcomes(&self.topic, tenant, &keys).await {
                    Ok(found) => {
                        for outcome in found {
                            let name = (outcome.idempotency_key.clone(), outcome.given_at);
                            if names.remove(&name) {
                                outcomes.insert((*tenant, name), outcome);
                            }
                        }
                    }
                    Err(error) if error.advice() == Advice::Fatal => return Err(error.into()),
                    // The commands are in Kafka, whatever ClickHouse answers now.
                    Err(error) => tracing::debug!(%error, "the outcome of commands cannot be read"),
                }
            }
            waiting.retain(|_, names| !names.is_empty());
            if waiting.is_empty() {
                let outcome = |command: &Command| outcomes.get(&(command.tenant(), name(command))).cloned();
                return Ok(commands.iter().filter_map(outcome).collect());
            }
            if Instant::now() >= deadline {
                let count = waiting.values().map(BTreeSet::len).sum();
                return Err(Error::Late { count, topic: self.topic.clone(), waited_s: within.as_secs() });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Idempotency key and time of a command.
type Name = (String, i64);

fn name(command: &Command) -> Name {
    (command.idempotency_key().to_owned(), command.given_us())
}
