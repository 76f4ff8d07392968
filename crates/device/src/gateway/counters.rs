//! Counters of a gateway.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters for progress and flow control. They begin at 0 with each start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Events accepted from the owner.
    pub made: AtomicU64,
    /// Events receipted as stored.
    pub receipted: AtomicU64,
    /// Events in rejected reports.
    pub rejected: AtomicU64,
    /// Events given up, for any reason.
    pub lost: AtomicU64,
    /// Reports sent for the first time.
    pub reports: AtomicU64,
    /// Reports sent again.
    pub resent: AtomicU64,
    /// Raw payloads whose REJECTED receipt came.
    pub refused: AtomicU64,
    /// Events in outboxes of devices with a network.
    pub open: AtomicU64,
    /// Events in outboxes of devices without a network.
    pub parked: AtomicU64,
    /// Connections that are up now.
    pub connected: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn subtract(counter: &AtomicU64, count: u64) {
        counter.fetch_sub(count, Ordering::Relaxed);
    }
}
