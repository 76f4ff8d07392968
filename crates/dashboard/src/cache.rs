//! Shared answers: each panel is queried once in its interval, however many pages are open.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use service::lock;
use tokio::time::Instant;

/// Greatest number of answers kept. Beyond it, answers that are too old are dropped; if none is too
/// old, all are but those that are awaited.
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
        let mut slots = lock(&self.slots);
        if slots.len() >= ANSWERS_MAX && !slots.contains_key(&question) {
            // A slot that another caller holds is in use: without it in the map, the next caller
            // with its question would ask a second time.
            let is_in_use = |slot: &Slot| Arc::strong_count(slot) > 1;
            let is_fresh = |slot: &Slot| {
                let answer = slot.try_lock();
                answer.is_ok_and(|answer| answer.as_ref().is_some_and(|(given, _)| given.elapsed() < self.fresh))
            };
            slots.retain(|_, slot| is_in_use(slot) || is_fresh(slot));
            if slots.len() >= ANSWERS_MAX {
                slots.retain(|_, slot| is_in_use(slot));
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

    /// However many other questions come while an answer is awaited, nobody asks for it again.
    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_awaited_is_not_asked_for_again() {
        let (cache, asked) = (Cache::new(Duration::from_secs(3)), AtomicUsize::new(0));
        let slow = || {
            cache.get::<()>(("gaps", "acme"), async {
                asked.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(Vec::new())
            })
        };
        let others = async {
            for number in 0..2 * ANSWERS_MAX {
                let answer = cache.get::<()>(("gaps", &number.to_string()), async { Ok(Vec::new()) }).await;
                assert_eq!(answer, Ok(Vec::new()));
            }
            slow().await
        };
        assert_eq!(futures::future::join(slow(), others).await, (Ok(Vec::new()), Ok(Vec::new())));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
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
