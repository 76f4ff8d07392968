//! Waits between attempts. They double up to a longest wait.

use std::time::Duration;

use rand::Rng as _;

/// The wait after `failures` earlier failures, without jitter.
fn doubled(first: Duration, most: Duration, failures: u32) -> Duration {
    first.saturating_mul(2u32.saturating_pow(failures)).min(most)
}

/// The wait after `failures` earlier failures: it begins at `first`, doubles up to `most`, and is
/// then changed at random by up to 50 %. With this jitter the clients of a server that was away do
/// not all come back at the same moment.
pub fn wait(first: Duration, most: Duration, failures: u32) -> Duration {
    doubled(first, most, failures).mul_f64(rand::rng().random_range(0.5..1.5))
}

/// The waits of one repeated attempt.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
    jitter: bool,
}

impl Backoff {
    /// Waits from `first` to `most`, each with 50 % of jitter.
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, failures: 0, jitter: true }
    }

    /// Waits from `first` to `most`, without jitter: for what has no rivals, or must be replayed.
    pub const fn exact(first: Duration, most: Duration) -> Self {
        Self { first, most, failures: 0, jitter: false }
    }

    /// The next wait.
    pub fn pause(&mut self) -> Duration {
        let Self { first, most, failures, jitter } = *self;
        self.failures = failures.saturating_add(1);
        if jitter { wait(first, most, failures) } else { doubled(first, most, failures) }
    }

    /// The attempt succeeded: the next wait is the first again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let (first, most) = (Duration::from_millis(100), Duration::from_secs(1));
        let (mut jittered, mut exact) = (Backoff::new(first, most), Backoff::exact(first, most));
        for expected in [100, 200, 400, 800, 1000, 1000] {
            let wait = jittered.pause().as_millis();
            assert!((expected / 2..=expected * 3 / 2).contains(&wait), "{wait} is not around {expected}");
            assert_eq!(exact.pause().as_millis(), expected);
        }
        jittered.reset();
        assert!(jittered.pause().as_millis() <= 150);
    }
}
