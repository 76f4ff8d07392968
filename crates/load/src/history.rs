//! Reads a range of Kafka again, for `rebuild` and `reconcile`. Nothing here writes.
//!
//! [`Reader`] reads records by offset, without joining a group. [`BatchRebuilder`] makes the rows
//! of a batch with the same pure code as the loader. [`Inventory`] collects what the records
//! contain; it knows nothing of batches, so that it can contradict the loader.

mod inventory;
mod reader;
mod rebuild;

pub use inventory::{Conflict, Filter, Found, Inventory, KafkaBoot, contents};
pub use reader::{Held, Reader, held};
pub use rebuild::BatchRebuilder;

use telemetry::kafka::Topics;

use crate::{
    decode::{Place, TopicKind},
    partition,
};

/// What a topic carries; `None` if it is not one of the loader's.
pub fn topic_kind(topics: &Topics, topic: &str) -> Option<TopicKind> {
    let kinds = [TopicKind::Reports, TopicKind::Status, TopicKind::Quarantine, TopicKind::Commands];
    topics.all().into_iter().zip(kinds).find_map(|(name, kind)| (name == topic).then_some(kind))
}

/// Whether the records of a device belong to this partition.
pub fn may_hold(place: Place, tenant: &str, device: &str) -> bool {
    partition::of(telemetry::kafka::record_key(tenant, device).as_bytes(), place.partitions) == place.partition
}
