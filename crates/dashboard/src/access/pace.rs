//! How often somebody may do something: a bucket of permits for each key, which fills again over
//! time.

use std::{collections::HashMap, hash::Hash, sync::Mutex, time::Duration};

use service::lock;
use tokio::time::Instant;

/// Most keys that are remembered. Beyond it, keys whose buckets are full again are forgotten; if
/// none is, all are.
const KEYS_MAX: usize = 4_096;

/// Permits by key.
#[derive(Debug)]
pub struct Pace<K> {
    per_minute: f64,
    buckets: Mutex<HashMap<K, (f64, Instant)>>,
}

impl<K: Eq + Hash> Pace<K> {
    /// At most so many at once, and so many a minute.
    pub fn new(per_minute: u32) -> Self {
        Self { per_minute: f64::from(per_minute), buckets: Mutex::default() }
    }

    /// Takes a permit.
    ///
    /// # Errors
    /// There is none; the time until there is one.
    pub fn take(&self, key: K) -> Result<(), Duration> {
        let now = Instant::now();
        let filled =
            |(left, at): (f64, Instant)| self.per_minute.min(left + (now - at).as_secs_f64() * self.per_minute / 60.0);
        let mut buckets = lock(&self.buckets);
        if buckets.len() >= KEYS_MAX && !buckets.contains_key(&key) {
            buckets.retain(|_, bucket| filled(*bucket) < self.per_minute);
            if buckets.len() >= KEYS_MAX {
                buckets.clear();
            }
        }
        let bucket = buckets.entry(key).or_insert((self.per_minute, now));
        let left = filled(*bucket);
        if left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - left) * 60.0 / self.per_minute));
        }
        *bucket = (left - 1.0, now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bucket_fills_again() {
        let pace = Pace::new(60);
        for _ in 0..60 {
            pace.take("a").unwrap();
        }
        assert_eq!(pace.take("a").unwrap_err().as_millis(), 1_000);
        pace.take("b").unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        pace.take("a").unwrap();
        pace.take("a").unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn invented_keys_do_not_fill_memory() {
        let pace = Pace::new(1);
        for key in 0..3 * KEYS_MAX {
            pace.take(key).unwrap();
            assert!(lock(&pace.buckets).len() <= KEYS_MAX);
        }
    }
}
