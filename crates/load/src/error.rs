//! The errors for which the loader cannot start or has to end.

use std::net::SocketAddr;

/// An error that ends the loader; everything that can heal is retried inside.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option is out of range; nothing was started.
    #[error("invalid option {option} = {value}: {expected}")]
    Option {
        /// Name of the option.
        option: &'static str,
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// The HTTP address cannot be bound.
    #[error("listen on http://{address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        source: std::io::Error,
    },
    /// librdkafka refuses the configuration, or an operation.
    #[error("kafka: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// An error of the warehouse that no retry can cure.
    #[error(transparent)]
    Warehouse(#[from] warehouse::Error),
    /// A topic is missing, or is not what the warehouse knows.
    #[error("kafka topic {topic}: {fault}")]
    Topic {
        topic: String,
        /// What is wrong, and what to do.
        fault: String,
    },
    /// Kafka no longer has the next records, or has others under their offsets.
    #[error("kafka topic {topic}, partition {partition}: {fault}")]
    Offsets {
        topic: String,
        partition: i32,
        /// What is wrong, and what to do.
        fault: String,
    },
    /// A topic was deleted and created again; `doseline migrate` gives it a new incarnation.
    #[error(
        "kafka topic {topic} was deleted and created again (its id is {found}, was {known}): nothing of it is read until \
         `doseline migrate` has numbered its new incarnation"
    )]
    Recreated {
        topic: String,
        /// The id of the incarnation that the warehouse knows.
        known: String,
        /// The id it has now.
        found: String,
    },
    /// The incarnation of the topic was closed: the next one has begun, or is about to.
    #[error(
        "incarnation {incarnation} of the kafka topic is closed (partition {partition}): its next incarnation is read"
    )]
    Closed {
        incarnation: u32,
        /// The partition that was found closed.
        partition: i32,
    },
    /// A read-back found other rows than the batch has. Nothing is guessed: a person must decide.
    #[error("{table} holds {found} of batch {batch}, which has {expected}; nothing was changed")]
    Mismatch {
        table: String,
        batch: String,
        /// What the table holds.
        found: String,
        /// What it should hold.
        expected: String,
    },
    /// Commands are in Kafka, and the warehouse does not hold them in time.
    #[error(
        "{count} commands are in kafka topic {topic}, and clickhouse does not hold them after {waited_s} s; they are \
         applied as soon as a loader runs: do not give them again, and see `doseline audit list`"
    )]
    Late { count: usize, topic: String, waited_s: u64 },
    /// A part of the loader ended by itself.
    #[error("task {0} ended unexpectedly")]
    Ended(String),
}
