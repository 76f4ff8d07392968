//! MQTT -> Kafka: takes what devices publish, puts it into Kafka, and tells the devices once it is
//! safe there.
//!
//! What it is for: receiving over one MQTT 5 connection or several that share a subscription
//! ([`Options`], [`run()`]), deciding what each message becomes ([`admit`]), producing it
//! ([`unconfirmed`]), acknowledging to the broker in order ([`ring`]) and sending the device its
//! receipt.
//!
//! Absent: the meaning of values (the loader's), state on disk (the broker's session, Kafka and the
//! devices' outboxes have it all), the order of records (the ledger needs none).
//!
//! Invariants:
//! - A message is acknowledged, and its receipt sent, only after Kafka has confirmed its record or
//!   its quarantine copy.
//! - Acknowledgements go out in the order of receipt, on the network connection the message came in
//!   on, or never.
//! - Every message becomes one record; nothing is dropped, truncated or changed (JSON is
//!   transcoded).
//! - What is in flight is bounded in bytes, and every queue by what is in flight; at the limit MQTT
//!   is not read.
//! - A record can reach Kafka twice (a reconnect, a rebuilt producer), never zero times once it was
//!   acknowledged.

pub mod admit;
mod backoff;
mod connection;
mod error;
mod establish;
mod health;
mod http;
pub mod metrics;
mod mqtt_link;
mod options;
#[cfg(test)]
mod peer;
mod probe;
mod producer;
mod receipts;
mod record;
pub mod registry;
mod replicas;
pub mod ring;
mod run;
mod sink;
mod subscription;
pub mod unconfirmed;

#[cfg(feature = "contract")]
pub use connection::path;
pub use error::Error;
pub use establish::establish;
pub use health::{Obstacle, Readiness};
pub use options::{
    BROKER_PACKET_BYTES_MAX, Identity, Kafka, Limits, Mqtt, Options, PACKET_BYTES_MAX, RECORD_OVERHEAD_BYTES, Secret,
    Tls, Topics,
};
pub use probe::probe;
pub use run::{Bridge, Handle, run};
