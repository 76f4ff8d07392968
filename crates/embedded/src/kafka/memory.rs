//! Memory for requests. Each connection has some of its own, which is enough for every request but
//! a large `Produce`; those share what is left, so that nothing a client sends keeps a small
//! request of another waiting.

use std::{io, sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Bytes of the requests of one connection that are being worked on; a request that needs more must
/// be a `Produce`.
pub(super) const OWN_BYTES: usize = 1 << 20;
/// Bytes that one element of a request takes decoded.
const ITEM_BYTES: usize = 192;
/// Bytes of all large requests being worked on.
const SHARED_BYTES: usize = 64 << 20;
/// A large request that has begun may keep its memory for so long while others wait for some.
const PATIENCE: Duration = Duration::from_millis(250);

/// What a request holds until it is answered: its bytes, and the elements that they become.
pub(super) type Held = (OwnedSemaphorePermit, OwnedSemaphorePermit);

/// The memory of one connection.
#[derive(Clone, Debug)]
pub(super) struct Own(Arc<Semaphore>);

impl Own {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(OWN_BYTES)))
    }

    /// Memory for the bytes of a small request; waits for the answers to earlier ones.
    pub(super) async fn bytes(&self, bytes: usize) -> io::Result<OwnedSemaphorePermit> {
        acquire(&self.0, bytes).await
    }

    /// Memory for the elements of a request whose bytes are here.
    pub(super) async fn items(&self, items: usize) -> io::Result<OwnedSemaphorePermit> {
        let most = OWN_BYTES / ITEM_BYTES / 2;
        if items > most {
            let message = format!("a request has {items} elements; send at most {most} at once");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        acquire(&self.0, items * ITEM_BYTES).await
    }
}

/// The memory that large requests share.
#[derive(Debug)]
pub(super) struct Memory {
    free: Arc<Semaphore>,
    /// Requests that wait for some.
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

    /// Ends once a request that began to arrive with this call has had its time, and others wait
    /// for its memory.
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
