//! Serves the HTTP port of a role: behind its door, with a bounded number of connections, none of which stays that is
//! silent.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_recursion::async_recursion as boxed;
use axum::{Router, serve::Listener};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep},
};
use tokio_util::sync::CancellationToken;

use crate::door::Door;

/// A connection over which nothing came or went for so long is closed: one without a request, and one that takes no answer.
const SILENT_TIME: Duration = Duration::from_secs(20);

/// Serves a router until `shutdown`, then ends what is under way. `names` are host names by which the port may be called
/// besides its address.
///
/// # Errors
/// The listener has no address, or fails.
#[boxed]
pub async fn serve(
    listener: TcpListener,
    names: Vec<String>,
    router: Router,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let router = Door::new(listener.local_addr()?, &names).protect(router);
    axum::serve(Bounded::new(listener), router).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

/// A bounded listener.
#[derive(Debug)]
struct Bounded {
    listener: TcpListener,
    free: Arc<Semaphore>,
}

impl Bounded {
    /// With as many connections as a role may have.
    fn new(listener: TcpListener) -> Self {
        Self { listener, free: Arc::new(Semaphore::new(crate::files::role_connections())) }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.free).acquire_owned().await.ok();
        // `TcpListener`'s own tries again where no files are free.
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        (Connection { stream, silent: Box::pin(tokio::time::sleep(SILENT_TIME)), _permit: permit }, peer)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// An accepted connection.
#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    silent: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Connection {
    /// Bytes that move begin the time anew; while none do, its end is an error.
    fn watch<T>(&mut self, context: &mut Context<'_>, moved: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if moved.is_ready() {
            self.silent.as_mut().reset(Instant::now() + SILENT_TIME);
            return moved;
        }
        self.silent.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, out);
        self.watch(context, read)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
