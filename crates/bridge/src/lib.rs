//! The bridge carries messages from MQTT to Kafka. It receives what devices publish, produces one
//! record for each message, and sends a device its receipt once Kafka has confirmed the record.
//!
//! It receives over one MQTT 5 connection, or over several that share a subscription (`connection`,
//! `mqtt_link`). [`admit`] decides what each message becomes. `sink` produces the record, and
//! `confirmations` keeps it until Kafka has confirmed it. [`ring`] puts the acknowledgements into
//! the order of receipt. `receipts` sends the receipts.
//!
//! Boundary: the bridge does not interpret values; the loader does. It keeps no state on disk: the
//! broker's session, Kafka and the devices' outboxes hold everything. It does not order records;
//! the ledger needs no order.
//!
//! Invariants:
//! - A message is acknowledged, and its receipt sent, only after Kafka has confirmed its record or
//!   its quarantine copy.
//! - Acknowledgements are sent in the order of receipt, and only on the network connection on which
//!   the message was received.
//! - Every message becomes one record; nothing is dropped, truncated or changed (JSON is
//!   transcoded).
//! - The messages in flight are bounded in bytes, and every queue is bounded by the messages in
//!   flight. At the limit the bridge stops reading from the broker.
//! - A record can reach Kafka twice, after a reconnect or with a new producer. Once its message was
//!   acknowledged, it has reached Kafka at least once.
//!
//! Start reading at [`admit`] and [`ring`], then `connection`, then `confirmations`.

pub mod admit;
mod confirmations;
mod connection;
mod error;
mod establish;
pub mod forbidden;
mod health;
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
pub mod settings;
mod sink;
mod subscription;
pub mod unconfirmed;

#[cfg(feature = "contract")]
pub use connection::path;
pub use error::Error;
pub use establish::establish;
pub use options::{BROKER_PACKET_BYTES_MAX, Kafka, Limits, Mqtt, Options, PACKET_BYTES_MAX, RECORD_OVERHEAD_BYTES};
pub use probe::probe;
pub use run::{Bridge, Handle, run};
