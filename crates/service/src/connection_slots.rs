//! The connections of one listener, which are limited in number. If all slots are taken, the
//! connection that has been idle for the longest time is closed. Silent clients, however many, thus
//! cannot keep others out.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::CancellationToken;

/// How soon it is looked again for an idle connection, where all were busy.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Pause where the system has no connection to give.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// The slots of one listener.
#[derive(Debug)]
pub struct ConnectionSlots {
    free: Arc<Semaphore>,
    idle: Mutex<Idle>,
}

/// Idle connections; the one with the lowest number has been idle for the longest time.
#[derive(Debug, Default)]
struct Idle {
    next: u64,
    connections: BTreeMap<u64, CancellationToken>,
}

impl ConnectionSlots {
    /// So many slots.
    pub fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { free: Arc::new(Semaphore::new(count)), idle: Mutex::default() })
    }

    /// The next connection of the listener, and its slot.
    pub async fn accept(self: &Arc<Self>, listener: &TcpListener) -> (TcpStream, Slot) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return (stream, self.enter().await),
                // Out of files, or the client left while it was queued: neither lasts.
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }

    /// Takes a slot; waits only while every connection is busy.
    pub async fn enter(self: &Arc<Self>) -> Slot {
        loop {
            let free = Arc::clone(&self.free);
            if self.free.available_permits() == 0 {
                self.lock().dismiss();
            }
            if let Ok(Ok(permit)) = tokio::time::timeout(LOOK_AGAIN, free.acquire_owned()).await {
                let state = State { works: 0, number: None };
                let gone = CancellationToken::new();
                let shared = Shared { slots: Arc::clone(self), state: Mutex::new(state), gone, _permit: permit };
                shared.rest(&mut shared.lock());
                return Slot(Arc::new(shared));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        crate::lock(&self.idle)
    }
}

impl Idle {
    fn dismiss(&mut self) {
        if let Some((_, connection)) = self.connections.pop_first() {
            connection.cancel();
        }
    }
}

/// The slot of one connection, which is free again once this and all its work are dropped.
#[derive(Clone, Debug)]
pub struct Slot(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    slots: Arc<ConnectionSlots>,
    state: Mutex<State>,
    gone: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct State {
    works: usize,
    /// Among the idle ones.
    number: Option<u64>,
}

impl Slot {
    /// Waits until the connection has to give way.
    pub async fn dismissed(&self) {
        self.0.gone.cancelled().await;
    }

    /// The connection is not idle as long as this lives.
    pub fn work(&self) -> Work {
        let mut state = self.0.lock();
        state.works += 1;
        if let Some(number) = state.number.take() {
            self.0.slots.lock().connections.remove(&number);
        }
        drop(state);
        Work(self.clone())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        crate::lock(&self.state)
    }

    fn rest(&self, state: &mut State) {
        let mut idle = self.slots.lock();
        let number = idle.next;
        idle.next += 1;
        idle.connections.insert(number, self.gone.clone());
        state.number = Some(number);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let number = self.lock().number;
        if let Some(number) = number {
            self.slots.lock().connections.remove(&number);
        }
    }
}

/// A request under way.
#[derive(Debug)]
pub struct Work(Slot);

impl Drop for Work {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        state.works -= 1;
        if state.works == 0 {
            self.0.0.rest(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn has_to_go(slot: &Slot) -> bool {
        tokio::time::timeout(Duration::ZERO, slot.dismissed()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_connection_gives_way_and_a_busy_one_does_not() {
        let slots = ConnectionSlots::new(3);
        let (first, second, third) = (slots.enter().await, slots.enter().await, slots.enter().await);
        let work = first.work();
        drop(second.work());
        let entering = tokio::spawn({
            let slots = Arc::clone(&slots);
            async move { slots.enter().await }
        });
        third.dismissed().await;
        assert!(!has_to_go(&first).await && !has_to_go(&second).await);
        drop(third);
        let fourth = entering.await.unwrap();
        let busy = [second.work(), fourth.work()];
        // All are busy: nobody gives way, and nobody enters.
        assert!(tokio::time::timeout(Duration::from_secs(1), slots.enter()).await.is_err());
        assert!(!has_to_go(&first).await);
        drop(work);
        assert!(tokio::time::timeout(Duration::from_secs(1), slots.enter()).await.is_err());
        assert!(has_to_go(&first).await && !has_to_go(&second).await);
        drop((first, busy));
        slots.enter().await;
    }
}
