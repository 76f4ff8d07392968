//! Serves the HTTP port of a role: behind its guard, with a bounded number of connections, over TLS
//! if the port has a certificate.
//!
//! A client has 20 s for the handshake of TLS, and for the head of a request, however slowly it
//! sends. A connection may be idle
//! for as long. If all slots are taken, an idle connection is closed for a new one: see
//! [`crate::connection_slots`].

use std::{
    convert::Infallible,
    error::Error,
    io,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use async_recursion::async_recursion as boxed;
use axum::{Router, body::Body, response::Response};
use hyper::{Request, body::Incoming, service::HttpService};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_openssl::SslStream;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

use crate::{
    certificate::Certificate,
    connection_slots::{ConnectionSlots, Slot},
    origin_guard::OriginGuard,
};

/// Time that a client has for the head of a request, from the end of the one before.
const HEAD_TIME: Duration = Duration::from_secs(20);

/// The address at the other end of a connection; every request carries it as an extension. With a
/// proxy in front it is the proxy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// A port that listens.
#[derive(Debug)]
pub struct Port {
    pub listener: TcpListener,
    /// Host names by which the port may be called besides its address.
    pub names: Vec<String>,
    /// With a certificate the port speaks HTTPS.
    pub certificate: Option<Arc<Certificate>>,
    /// A path to which pages of other sites may send a browser.
    pub landing: Option<&'static str>,
}

/// Serves a router until `shutdown`, then finishes the requests that have begun.
///
/// # Errors
/// The listener has no address.
#[boxed]
pub async fn serve(port: Port, router: Router, shutdown: CancellationToken) -> io::Result<()> {
    let Port { listener, names, certificate, landing } = port;
    let guard = OriginGuard::new(listener.local_addr()?, &names).over_tls(certificate.is_some());
    let router = guard.landing_at(landing).protect(router);
    serve_within(
        listener,
        certificate,
        router,
        ConnectionSlots::new(crate::files::role_connections()),
        HEAD_TIME,
        shutdown,
    )
    .await;
    Ok(())
}

async fn serve_within(
    listener: TcpListener,
    certificate: Option<Arc<Certificate>>,
    router: Router,
    slots: Arc<ConnectionSlots>,
    head_time: Duration,
    shutdown: CancellationToken,
) {
    let mut connections = JoinSet::new();
    let mut accepting = std::pin::pin!(slots.accept(&listener));
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            (stream, slot) = &mut accepting => {
                let (router, certificate, shutdown) = (router.clone(), certificate.clone(), shutdown.clone());
                let peer = Peer(stream.peer_addr().map_or(Ipv4Addr::UNSPECIFIED.into(), |address| address.ip()));
                connections.spawn(async move {
                    let service = answering(router, peer, slot.clone());
                    // Whatever ended it, the client knows.
                    let _ = match certificate {
                        None => serve_connection(stream, &slot, service, head_time, &shutdown).await,
                        Some(certificate) => {
                            let Some(stream) = encrypted(stream, &certificate, &slot, head_time, &shutdown).await else {
                                return;
                            };
                            serve_connection(stream, &slot, service, head_time, &shutdown).await
                        }
                    };
                });
                accepting.set(slots.accept(&listener));
            }
        }
    }
    while connections.join_next().await.is_some() {}
}

/// The connection in TLS; none if it fails, takes too long, or has to give way.
async fn encrypted(
    stream: TcpStream,
    certificate: &Certificate,
    slot: &Slot,
    within: Duration,
    shutdown: &CancellationToken,
) -> Option<SslStream<TcpStream>> {
    tokio::select! {
        accepted = tokio::time::timeout(within, certificate.accept(stream)) => accepted.ok().flatten(),
        () = slot.dismissed() => None,
        () = shutdown.cancelled() => None,
    }
}

/// Answers by a router. The connection counts as busy until the answer is there: a client that does
/// not take it holds nothing up.
fn answering(
    router: Router,
    peer: Peer,
    slot: Slot,
) -> impl hyper::service::Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send> {
    hyper::service::service_fn(move |request: Request<Incoming>| {
        let (mut router, work) = (router.clone(), slot.work());
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            let response = router.call(request).await;
            drop(work);
            response
        }
    })
}

/// Serves one HTTP connection until it ends, its slot is needed, or `shutdown` has let the request
/// under way end. A client has `head_time` for the head of each request.
///
/// # Errors
/// The connection fails or breaks HTTP.
pub async fn serve_connection<C, S, B>(
    stream: C,
    slot: &Slot,
    service: S,
    head_time: Duration,
    shutdown: &CancellationToken,
) -> hyper::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin + 'static,
    S: HttpService<Incoming, ResBody = B, Error: Into<Box<dyn Error + Send + Sync>>>,
    B: hyper::body::Body<Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
{
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_time)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // A request that is there counts before another connection needs the slot.
        biased;
        ended = connection.as_mut() => ended,
        () = slot.dismissed() => Ok(()),
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::{Instant, timeout},
    };

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    async fn served(slots: usize, head_time: Duration) -> (std::net::SocketAddr, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        let router = Router::new().route("/livez", get(|| async { "ok\n" }));
        tokio::spawn(serve_within(listener, None, router, ConnectionSlots::new(slots), head_time, shutdown.clone()));
        (address, shutdown)
    }

    /// A client that sends a byte of its head now and then, for as long as it may.
    async fn dribble(address: std::net::SocketAddr) -> Duration {
        let (began, mut stream) = (Instant::now(), TcpStream::connect(address).await.unwrap());
        stream.write_all(b"GET /livez HTTP/1.1\r\nx: ").await.unwrap();
        while stream.write_all(b"x").await.is_ok() {
            if timeout(Duration::from_millis(20), stream.read_u8()).await.is_ok_and(|read| read.is_err()) {
                break;
            }
        }
        began.elapsed()
    }

    #[tokio::test]
    async fn slow_heads_lock_nobody_out() {
        let (address, shutdown) = served(3, Duration::from_secs(3_600)).await;
        let mut slow = Vec::new();
        for _ in 0..6 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\nx: ").await.unwrap();
            slow.push(stream);
        }
        for _ in 0..5 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");
        }
        shutdown.cancel();
        drop(slow);
    }

    #[tokio::test]
    async fn a_head_has_its_time() {
        let (address, _shutdown) = served(8, Duration::from_millis(300)).await;
        let took = timeout(SOON, dribble(address)).await.unwrap();
        assert!(took >= Duration::from_millis(250), "{took:?}");
    }
}
