//! A stretch of Kafka once more: what its batches came to ([`Remake`]), and what it says by itself
//! ([`Witness`]).
//!
//! For `rebuild` and `reconcile`. Nothing here writes: records are read by offset without joining a
//! group ([`Reader`]), the rows of a batch are made by the same pure code as the loader's, and the
//! witness knows nothing of batches at all, so that it can contradict the loader.

mod reader;
mod remake;
mod witness;

pub use reader::{Held, Reader, held};
pub use remake::Remake;
pub use witness::{Conflict, Only, Seen, Testimony, Witness, contents};

use telemetry::kafka::Topics;

use crate::{
    decode::{Content, Place},
    partition,
};

/// What a topic carries; none for one that is not the loader's.
pub fn content(topics: &Topics, topic: &str) -> Option<Content> {
    [(&topics.reports, Content::Reports), (&topics.status, Content::Status), (&topics.quarantine, Content::Quarantine)]
        .into_iter()
        .find_map(|(name, content)| (name == topic).then_some(content))
}

/// Whether a device's records can be in a partition.
pub fn may_hold(place: Place, tenant: &str, device: &str) -> bool {
    partition::of(telemetry::kafka::record_key(tenant, device).as_bytes(), place.partitions) == place.partition
}
