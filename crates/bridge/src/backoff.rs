//! Waiting between attempts: doubling, with jitter, so that a fleet of bridges does not come back
//! in step.

use std::time::Duration;

use rand::Rng as _;

/// The wait after `failures` earlier ones: from `first`, doubling, to `most`, +-50 %.
pub(crate) fn wait(first: Duration, most: Duration, failures: u32) -> Duration {
    let wait = first.saturating_mul(2u32.saturating_pow(failures)).min(most);
    wait.mul_f64(rand::rng().random_range(0.5..1.5))
}

/// Waits between `first` and `most`, each +-50 %.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, failures: 0 }
    }

    /// The next wait.
    pub fn next(&mut self) -> Duration {
        let wait = wait(self.first, self.most, self.failures);
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// The attempt succeeded.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_most() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for expected in [100, 200, 400, 800, 1000, 1000] {
            let wait = backoff.next().as_millis();
            assert!((expected / 2..=expected * 3 / 2).contains(&wait), "{wait} is not around {expected}");
        }
        backoff.reset();
        assert!(backoff.next().as_millis() <= 150);
    }
}
