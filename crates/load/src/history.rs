//! Reads a range of Kafka again, for `rebuild` and `reconcile`. Nothing here writes.
//!
//! [`Reader`] reads records by offset, without joining a group. [`Rebuild`] makes the rows of a
//! batch with the same pure code as the loader. [`Inventory`] collects what the records contain; it
//! knows nothing of batches, so that it can contradict the loader.

mod inventory;
mod reader;
mod rebuild;

pub use inventory::{Conflict, Filter, Found, Inventory, KafkaBoot, contents};
pub use reader::{Held, Reader, held};
pub use rebuild::Rebuild;

use telemetry::kafka::Topics;

use crate::{
    decode::{Content, Place},
    partition,
};

/// What a topic carries; `None` if it is not one of the loader's.
pub fn content(topics: &Topics, topic: &str) -> Option<Content> {
    let contents = [Content::Reports, Content::Status, Content::Quarantine, Content::Commands];
    topics.all().into_iter().zip(contents).find_map(|(name, content)| (name == topic).then_some(content))
}

/// Whether the records of a device belong to this partition.
pub fn may_hold(place: Place, tenant: &str, device: &str) -> bool {
    partition::of(telemetry::kafka::record_key(tenant, device).as_bytes(), place.partitions) == place.partition
}
