//! Errors that end the bridge.

use std::net::SocketAddr;

/// An error that ends the bridge; everything that can heal is retried inside.
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
    /// librdkafka refuses the configuration.
    #[error("create kafka producer: {0}")]
    Producer(#[from] rdkafka::error::KafkaError),
    /// A part of the bridge ended by itself.
    #[error("task {0} ended unexpectedly")]
    Ended(String),
}
