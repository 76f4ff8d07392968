//! How long to wait between attempts.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const MOST: Duration = Duration::from_secs(5);

/// Waits from 50 ms, doubling, to 5 s.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait before the next attempt.
    pub fn next(&mut self) -> Duration {
        let wait = FIRST.saturating_mul(2u32.saturating_pow(self.failures)).min(MOST);
        self.failures = self.failures.saturating_add(1);
        wait
    }
}
