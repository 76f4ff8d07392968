//! The two clocks of the loader.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The source of time. Everything else receives time as a value.
pub trait Clock: Send + Sync + 'static {
    /// Wall clock, us since 1970.
    fn unix_us(&self) -> i64;
    /// Time since the machine booted, including the time it slept. A paused process sees by it how
    /// much time it has missed.
    fn since_host_boot(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn unix_us(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }

    fn since_host_boot(&self) -> Duration {
        // Only Linux's monotonic clock stops in sleep.
        #[cfg(target_os = "linux")]
        let id = nix::time::ClockId::CLOCK_BOOTTIME;
        #[cfg(not(target_os = "linux"))]
        let id = nix::time::ClockId::CLOCK_MONOTONIC;
        // The call cannot fail for a clock that exists.
        nix::time::clock_gettime(id).map(Duration::from).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_go_forward() {
        let (boot, unix) = (SystemClock.since_host_boot(), SystemClock.unix_us());
        assert!(boot > Duration::ZERO && unix > 1_700_000_000_000_000);
        assert!(SystemClock.since_host_boot() >= boot && SystemClock.unix_us() >= unix);
    }
}
