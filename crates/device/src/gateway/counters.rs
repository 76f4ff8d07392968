//! What a gateway counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters, for progress and flow control.
#[derive(Debug, Default)]
pub struct Counters {
    /// Events taken since the start.
    pub made: AtomicU64,
    /// Events receipted as stored.
    pub receipted: AtomicU64,
    /// Events in rejected reports.
    pub rejected: AtomicU64,
    /// Events given up, for whatever reason.
    pub lost: AtomicU64,
    /// Reports sent, first sendings only.
    pub reports: AtomicU64,
    /// Reports sent again.
    pub resent: AtomicU64,
    /// Raw payloads that got their REJECTED receipt.
    pub refused: AtomicU64,
    /// Events in outboxes of devices that have their network.
    pub open: AtomicU64,
    /// Events in outboxes of devices that are off the network.
    pub parked: AtomicU64,
    /// Connections that are up.
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
