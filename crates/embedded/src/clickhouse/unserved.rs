//! Reads the requests of a connection without an engine, for `tests/fuzz`. It calls the functions
//! of the server, up to where the engine would get the statement.

use super::exception::Exception;
use super::execution;
use super::http::{self, Content};
use super::reader::{self, ReaderLimits};
use super::statement;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use service::origin_guard::OriginGuard;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr};
use tokio::sync::Semaphore;

/// Largest body of the owner that is read, and the most of a body's plain bytes.
const BODY_BYTES: u64 = 8 << 20;
/// The owner's password.
const PASSWORD: &str = "secret";
/// The address of the port.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8123);

/// Reads what a client sends on one connection to `127.0.0.1:8123`. The owner's password is
/// `secret`.
pub async fn read_requests(bytes: &[u8]) {
    let stream = tokio::io::join(bytes, tokio::io::sink());
    let service = hyper::service::service_fn(async |request: Request<Incoming>| {
        // A refusal is an answer, too.
        let _ = read(request).await;
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // Bytes that are not HTTP end it.
    let _ = connection.await;
}

async fn read(request: Request<Incoming>) -> Result<(), Exception> {
    let refused = |refusal: service::origin_guard::Refusal| Exception::new(497, "ACCESS_DENIED", refusal.text);
    OriginGuard::new(ADDRESS, &[]).admit(request.uri(), request.headers()).map_err(refused)?;
    let (parts, body) = request.into_parts();
    let reading = parts.method == Method::GET || parts.method == Method::HEAD;
    let bodies = Semaphore::new(1);
    let query = parts.uri.query().unwrap_or_default();
    let received = http::receive(query, &parts.headers, reading, body, PASSWORD, &bodies).await?;
    let (mut request, broken) = (received.request, |error: io::Error| Exception::body_broken(&error));
    let body = match received.body {
        Content::Whole(bytes) => bytes,
        Content::Pieces(body) => {
            let whole = Limited::new(body, BODY_BYTES as usize).collect().await;
            whole.map_err(|error| broken(io::Error::other(error)))?.to_bytes()
        }
    };
    let (text, _plan, body) = execution::open(&request, Box::new(io::Cursor::new(body)))?;
    if !request.owner {
        reader::permit_settings(&request.settings)?;
        ReaderLimits::new(BODY_BYTES, 1).lower(&mut request.settings);
    }
    request.order_settings();
    statement::kill(&text, BTreeMap::new, request.owner);
    io::copy(&mut body.take(BODY_BYTES), &mut io::sink()).map_err(broken)?;
    Ok(())
}
