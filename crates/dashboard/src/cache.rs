//! Shared answers: each panel is queried once in its interval, however many pages are open.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Largest number of kept answers. Beyond it, expired answers are dropped; if none has expired, all
/// are dropped.
const ANSWERS_MAX: usize = 1_024;

/// An answer and the time of its query; `None` until the first answer arrives.
type Slot = Arc<tokio::sync::Mutex<Option<(Instant, Vec<u8>)>>>;

/// The answers, by panel and tenant.
#[derive(Debug)]
pub struct Cache {
    fresh: Duration,
    slots: Mutex<HashMap<(&'static str, String), Slot>>,
}

impl Cache {
    /// A cache that reuses an answer for the time `fresh`.
    pub fn new(fresh: Duration) -> Self {
        Self { fresh, slots: Mutex::default() }
    }

    /// The answer to a question. It runs `ask` if the last answer has expired. Other callers with
    /// the same question wait for that answer. A failure is not kept.
    pub async fn get<E>(
        &self,
        question: (&'static str, &str),
        ask: impl Future<Output = Result<Vec<u8>, E>>,
    ) -> Result<Vec<u8>, E> {
        let slot = self.slot((question.0, question.1.to_owned()));
        let mut answer = slot.lock().await;
        if let Some((given, bytes)) = &*answer
            && given.elapsed() < self.fresh
        {
            return Ok(bytes.clone());
        }
        // An answer is as old as the data that it was computed from.
        let asked = Instant::now();
        let bytes = ask.await?;
        *answer = Some((asked, bytes.clone()));
        Ok(bytes)
    }

    fn slot(&self, question: (&'static str, String)) -> Slot {
        // A panic under this lock leaves nothing half changed.
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= ANSWERS_MAX && !slots.contains_key(&question) {
            let is_fresh = |slot: &Slot| match slot.try_lock() {
                Ok(answer) => answer.as_ref().is_some_and(|(given, _)| given.elapsed() < self.fresh),
                Err(_) => true,
            };
            slots.retain(|_, slot| is_fresh(slot));
            if slots.len() >= ANSWERS_MAX {
                slots.clear();
            }
        }
        slots.entry(question).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_pages_ask_once_in_an_interval() {
        let (cache, asked) = (Cache::new(Duration::from_secs(3)), AtomicUsize::new(0));
        let get = |panel: &'static str, tenant: &'static str| {
            let asked = &asked;
            cache.get((panel, tenant), async move {
                tokio::time::sleep(Duration::from_millis(800)).await;
                let number = asked.fetch_add(1, Ordering::Relaxed);
                if number == 3 { Err("away") } else { Ok(format!("{panel} {tenant} {number}").into_bytes()) }
            })
        };
        let pages = (0..50).map(|_| get("gaps", "acme"));
        for answer in futures::future::join_all(pages).await {
            assert_eq!(answer, Ok(b"gaps acme 0".to_vec()));
        }
        assert_eq!(get("gaps", "other").await, Ok(b"gaps other 1".to_vec()));
        assert_eq!(get("fleet", "acme").await, Ok(b"fleet acme 2".to_vec()));
        // The answer has expired. Only the caller that asked gets a failure.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(get("gaps", "acme").await, Err("away"));
        assert_eq!(get("gaps", "acme").await, Ok(b"gaps acme 4".to_vec()));
        assert_eq!(get("gaps", "acme").await, Ok(b"gaps acme 4".to_vec()));
    }

    #[tokio::test(start_paused = true)]
    async fn invented_tenants_do_not_fill_memory() {
        let cache = Cache::new(Duration::from_secs(3));
        for number in 0..5_000 {
            let answer = cache.get::<()>(("gaps", &number.to_string()), async { Ok(Vec::new()) }).await;
            assert_eq!(answer, Ok(Vec::new()));
            assert!(cache.slots.lock().unwrap().len() <= ANSWERS_MAX);
        }
    }
}
