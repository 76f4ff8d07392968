//! Memory for requests. Each connection has some of its own, which is enough for every request
//! except a large `Produce`. Large `Produce` requests share the rest, so no client can keep a small
//! request of another client waiting.

use std::{io, sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// How much memory the running requests of one connection may use, bytes. Only a `Produce` may need
/// more.
pub(super) const OWN_BYTES: usize = 1 << 20;
/// Size of one decoded element of a request, bytes.
const ITEM_BYTES: usize = 192;
/// Total size of all running large requests, bytes.
const SHARED_BYTES: usize = 64 << 20;
/// How long a large request may take to arrive while other requests wait for its memory.
const PATIENCE: Duration = Duration::from_millis(250);

/// The memory that a request holds until its answer: for its bytes, and for its decoded elements.
pub(super) type Held = (OwnedSemaphorePermit, OwnedSemaphorePermit);

#[derive(Clone, Debug)]
pub(super) struct Own(Arc<Semaphore>);

impl Own {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(OWN_BYTES)))
    }

    /// Memory for the bytes of a small request. It waits for the answers to earlier requests.
    pub(super) async fn bytes(&self, bytes: usize) -> io::Result<OwnedSemaphorePermit> {
        acquire(&self.0, bytes).await
    }

    /// Memory for the elements of a request that has arrived.
    pub(super) async fn items(&self, items: usize) -> io::Result<OwnedSemaphorePermit> {
        let most = OWN_BYTES / ITEM_BYTES / 2;
        if items > most {
            let message = format!("a request has {items} elements; send at most {most} at once");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        acquire(&self.0, items * ITEM_BYTES).await
    }
}

#[derive(Debug)]
pub(super) struct Memory {
    free: Arc<Semaphore>,
    /// Number of requests that wait for shared memory.
    waiting: watch::Sender<usize>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { free: Arc::new(Semaphore::new(SHARED_BYTES)), waiting: watch::Sender::new(0) }
    }
}

impl Memory {
    pub(super) async fn bytes(&self, bytes: usize) -> io::Result<OwnedSemaphorePermit> {
        let count = u32::try_from(bytes).map_err(io::Error::other)?;
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_many_owned(count) {
            return Ok(permit);
        }
        let _waiting = Waiting::new(&self.waiting);
        acquire(&self.free, bytes).await
    }

    /// Ends when a request that began to arrive with this call has had its time and other requests
    /// wait for its memory.
    pub(super) async fn is_wanted(&self) {
        tokio::time::sleep(PATIENCE).await;
        // The sender lives as long as the broker.
        let _ = self.waiting.subscribe().wait_for(|waiting| *waiting > 0).await;
    }
}

struct Waiting<'m>(&'m watch::Sender<usize>);

impl<'m> Waiting<'m> {
    fn new(count: &'m watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

async fn acquire(semaphore: &Arc<Semaphore>, bytes: usize) -> io::Result<OwnedSemaphorePermit> {
    let bytes = u32::try_from(bytes).map_err(io::Error::other)?;
    Arc::clone(semaphore).acquire_many_owned(bytes).await.map_err(io::Error::other)
}
