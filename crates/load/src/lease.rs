//! How long an owner may write.
//!
//! Kafka gives a partition to another loader after this one has sent no heartbeat for the session
//! time-out. Two owners at once do no harm (see `owner`). A writer that wakes after more inserts
//! than the deduplication window holds would. So an owner checks its lease immediately before each
//! insert.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;

/// When the consumer was last polled, on the boot clock.
pub struct Pulse {
    clock: Arc<dyn Clock>,
    last_us: AtomicU64,
    most: Duration,
}

impl Pulse {
    /// A pulse that begins with a poll now. `most` is the session time-out.
    pub fn new(clock: Arc<dyn Clock>, most: Duration) -> Self {
        let pulse = Self { last_us: AtomicU64::new(0), clock, most };
        pulse.last_us.store(pulse.now_us(), Ordering::Relaxed);
        pulse
    }

    /// Notes a poll. Returns false if the previous poll is too long ago: the partitions may have
    /// another owner by now, so all leases must end before anything else happens.
    #[must_use]
    pub fn beat(&self) -> bool {
        let alive = self.alive();
        if alive {
            self.last_us.store(self.now_us(), Ordering::Relaxed);
        }
        alive
    }

    /// Starts again after [`Pulse::beat`] was false and all leases have ended.
    pub fn restart(&self) {
        self.last_us.store(self.now_us(), Ordering::Relaxed);
    }

    fn alive(&self) -> bool {
        let silence = self.now_us().saturating_sub(self.last_us.load(Ordering::Relaxed));
        Duration::from_micros(silence) <= self.most
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.clock.since_host_boot().as_micros()).unwrap_or(u64::MAX)
    }
}

/// An owner's permission to write.
#[derive(Clone)]
pub struct Lease {
    pulse: Arc<Pulse>,
    /// Ends the owner at once: its partition was revoked, or the pulse was lost.
    revoked: CancellationToken,
    /// Ends the owner where it waits: for records, for room, before another attempt. So it ends
    /// after the batch, or within it if something fails; the next owner then completes the batch.
    draining: CancellationToken,
}

/// The lease has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lapsed;

impl Lease {
    /// A lease until one of the tokens is cancelled or the pulse is lost.
    pub fn new(pulse: Arc<Pulse>, revoked: CancellationToken, draining: CancellationToken) -> Self {
        Self { pulse, revoked, draining }
    }

    /// Whether the owner may still write.
    ///
    /// # Errors
    /// [`Lapsed`] if it may not; it never may again.
    pub fn check(&self) -> Result<(), Lapsed> {
        if self.revoked.is_cancelled() || !self.pulse.alive() {
            return Err(Lapsed);
        }
        Ok(())
    }

    /// Waits until the owner should end.
    pub async fn ending(&self) {
        tokio::select! {
            biased;
            () = self.revoked.cancelled() => (),
            () = self.draining.cancelled() => (),
        }
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// [`Lapsed`] if the owner should end meanwhile.
    pub async fn pause(&self, wait: Duration) -> Result<(), Lapsed> {
        tokio::select! {
            biased;
            () = self.ending() => Err(Lapsed),
            () = tokio::time::sleep(wait) => self.check(),
        }
    }
}
