//! ClickHouse's HTTP interface: paths, admission, and the transfer of a request's body to the
//! statement's thread.

use super::engine::{Engine, Running};
use super::exception::{Exception, TOO_MANY_SIMULTANEOUS_QUERIES};
use super::execution;
use super::reply::{Head, OWNER_IDLE_TIME, Receiver, Reply, ReplyBody};
use super::request::Request;
use super::workers::Workers;
use bytes::Bytes;
use http_body_util::{BodyExt as _, BodyStream, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::http::response::Builder;
use hyper::{HeaderMap, Method, Response};
use service::origin_guard::{self, OriginGuard, Refusal};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, mpsc};

/// Pieces of a request's body that may wait between the socket and the statement's thread.
const BODY_PIECES: usize = 8;
/// How much of a body is still read after the statement has ended, bytes. Otherwise the sender
/// would not get to read the reply.
const UNWANTED_BYTES: usize = 64 << 20;
/// How long such a body is read at most.
const UNWANTED_TIME: Duration = Duration::from_secs(5);
/// Largest field of a form, bytes.
const FIELD_BYTES: u64 = 16 << 20;
/// Largest body of a reader, bytes. It holds a statement, because a reader cannot insert.
const READER_BODY_BYTES: usize = 1 << 20;
/// How many bodies of readers are held in memory at once.
pub const READER_BODIES_MAX: usize = 64;
/// How long a reader may take to send a body, and any client to send a form.
const READER_BODY_TIME: Duration = Duration::from_secs(10);

pub type Body = ReplyBody<Option<Guard>>;

/// What all requests share.
pub struct Server {
    pub engine: Arc<Engine>,
    /// The threads that run statements.
    pub workers: Workers,
    /// The owner's statements.
    pub owner: Share,
    /// The readers' statements.
    pub readers: Share,
    /// One permit for each reader's body that is held in memory.
    pub bodies: Semaphore,
    /// How long a request may wait for a thread.
    pub waiting_time: Duration,
    pub password: String,
    /// The check of a request's host and origin.
    pub guard: OriginGuard,
}

/// The threads that are reserved for the owner's statements, or for those of readers.
pub struct Share {
    /// One permit for each statement that may run.
    permits: Arc<Semaphore>,
    statements_max: usize,
    /// Number of requests that wait for a permit.
    waiting: AtomicUsize,
    waiting_max: usize,
}

impl Share {
    /// Room for this many running statements and waiting requests.
    pub fn new(statements_max: usize, waiting_max: usize) -> Self {
        let permits = Arc::new(Semaphore::new(statements_max));
        Self { permits, statements_max, waiting: AtomicUsize::new(0), waiting_max }
    }

    /// Waits until no statement runs, and keeps others from starting.
    pub async fn all(&self) {
        let all = u32::try_from(self.statements_max).unwrap_or(u32::MAX);
        if let Ok(permits) = self.permits.acquire_many(all).await {
            permits.forget();
        }
    }

    /// Number of running statements.
    pub fn running(&self) -> usize {
        self.statements_max.saturating_sub(self.permits.available_permits())
    }

    /// Waits for a free thread, for a limited time and together with a limited number of other
    /// requests.
    async fn admit(&self, patience: Duration) -> Result<OwnedSemaphorePermit, Exception> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before < self.waiting_max
            && let Ok(Ok(permit)) = tokio::time::timeout(patience, Arc::clone(&self.permits).acquire_owned()).await
        {
            return Ok(permit);
        }
        Err(busy())
    }
}

fn busy() -> Exception {
    let message = "Too many simultaneous queries: all connections of the embedded engine are busy";
    Exception::new(TOO_MANY_SIMULTANEOUS_QUERIES, "TOO_MANY_SIMULTANEOUS_QUERIES", message)
}

/// Tells the engine that the client is gone. It is dropped with the response, or while the client
/// waits for it.
pub struct Guard {
    engine: Arc<Engine>,
    running: Arc<Running>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.engine.abandon(&self.running);
    }
}

impl Server {
    /// Answers one request.
    pub async fn answer(self: Arc<Self>, request: hyper::Request<Incoming>) -> Response<Body> {
        let mut response = match self.guard.admit(request.uri(), request.headers()) {
            Ok(()) => self.serve(request).await,
            Err(Refusal { status, text }) => {
                let mut response = self.refuse(&Exception::new(497, "ACCESS_DENIED", text));
                *response.status_mut() = status;
                response
            }
        };
        origin_guard::shield(response.headers_mut());
        response
    }

    async fn serve(self: &Arc<Self>, request: hyper::Request<Incoming>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let reading = parts.method == Method::GET || parts.method == Method::HEAD;
        match parts.uri.path() {
            "/ping" | "/replicas_status" => return plain(200, "Ok.\n".to_owned()),
            "/" if reading && parts.uri.query().is_none() => return plain(200, "Ok.\n".to_owned()),
            "/" if reading || parts.method == Method::POST => {}
            "/" => return self.refuse(&Exception::new(48, "NOT_IMPLEMENTED", "The method is neither GET nor POST")),
            path => return plain(404, format!("There is no handle {path}\n")),
        }
        match self.run(parts.uri.query().unwrap_or_default(), &parts.headers, reading, body).await {
            Ok(response) => response,
            Err(exception) => self.refuse(&exception),
        }
    }

    async fn run(
        self: &Arc<Self>,
        query: &str,
        headers: &HeaderMap,
        reading: bool,
        body: Incoming,
    ) -> Result<Response<Body>, Exception> {
        // A reader's whole body is read before its statement takes a thread. The owner's body goes
        // to the engine piece by piece.
        let Received { request, body, _held } =
            receive(query, headers, reading, body, &self.password, &self.bodies).await?;
        let share = if request.owner { &self.owner } else { &self.readers };
        let permit = share.admit(self.waiting_time).await?;
        let body: Box<dyn Read + Send> = match body {
            Content::Whole(bytes) => Box::new(io::Cursor::new(bytes)),
            Content::Pieces(body) => {
                let (sender, receiver) = mpsc::channel(BODY_PIECES);
                tokio::spawn(pump(body, sender));
                Box::new(BodyReader { pieces: receiver, piece: Bytes::new() })
            }
        };
        self.start(request, body, permit).await
    }

    async fn start(
        self: &Arc<Self>,
        request: Request,
        body: Box<dyn Read + Send>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Response<Body>, Exception> {
        let lost = || Exception::new(49, "LOGICAL_ERROR", "the statement's thread ended without a reply");
        let (reply, Receiver { head, pieces }) =
            Reply::new(&request, &self.engine.identity).map_err(|error| Exception::body_broken(&error))?;
        let running = Arc::new(Running::default());
        let guard = Guard { engine: Arc::clone(&self.engine), running: Arc::clone(&running) };
        let engine = Arc::clone(&self.engine);
        self.workers.submit(move || {
            execution::run(&engine, request, body, reply, &running);
            drop(permit);
        });
        let Head { status, headers, first, more } = head.await.map_err(|_| lost())?;
        let response = headers
            .into_iter()
            .fold(Response::builder().status(status), |response, (name, value)| response.header(name, value));
        let guard = more.then_some(guard);
        finish(response, ReplyBody::new(first, more.then_some(pieces), guard)).ok_or_else(lost)
    }

    fn refuse(&self, exception: &Exception) -> Response<Body> {
        let response = Response::builder()
            .status(exception.http_status())
            .header(CONTENT_TYPE, "text/plain; charset=UTF-8")
            .header("X-ClickHouse-Exception-Code", exception.code());
        let text = exception.body(&self.engine.identity.version);
        finish(response, ReplyBody::new(text.into(), None, None)).unwrap_or_else(|| plain(500, String::new()))
    }
}

/// A request that may run, with its body.
pub struct Received<'s> {
    pub request: Request,
    pub body: Content,
    /// The place of a reader's body in memory.
    _held: Option<SemaphorePermit<'s>>,
}

/// The body of a request, without a form.
pub enum Content {
    /// It is in memory.
    Whole(Bytes),
    /// It is still to be received.
    Pieces(Incoming),
}

/// Reads a request: who asks, the parameters, and the body of a reader or of a form.
///
/// # Errors
/// The request is not valid, or its body is too large or too slow.
pub async fn receive<'s>(
    query: &str,
    headers: &HeaderMap,
    reading: bool,
    body: Incoming,
    password: &str,
    bodies: &'s Semaphore,
) -> Result<Received<'s>, Exception> {
    let mut request = Request::read(query, headers, reading)?;
    request.authenticate(password)?;
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (owner, empty) = (request.owner, body.is_end_stream());
    let held = if owner || empty { None } else { Some(bodies.try_acquire().map_err(|_| busy())?) };
    let body = if let Ok(boundary) = multer::parse_boundary(content_type) {
        let bytes_max = if owner { FIELD_BYTES } else { READER_BODY_BYTES as u64 };
        let form = read_form(&mut request, body, boundary, bytes_max);
        tokio::time::timeout(READER_BODY_TIME, form).await.map_err(|_| too_slow())??;
        Content::Whole(Bytes::new())
    } else if empty {
        Content::Whole(Bytes::new())
    } else if owner {
        Content::Pieces(body)
    } else {
        let whole = Limited::new(body, READER_BODY_BYTES).collect();
        let whole = tokio::time::timeout(READER_BODY_TIME, whole).await.map_err(|_| too_slow())?;
        Content::Whole(whole.map_err(|error| Exception::body_broken(&io::Error::other(error)))?.to_bytes())
    };
    Ok(Received { request, body, _held: held })
}

/// Counts a waiting request until it is dropped.
struct Waiting<'s>(&'s AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn too_slow() -> Exception {
    let message = format_args!("The body of the request did not arrive within {} s", READER_BODY_TIME.as_secs());
    Exception::new(209, "SOCKET_TIMEOUT", message)
}

fn plain(status: u16, text: String) -> Response<Body> {
    let mut response = Response::new(ReplyBody::new(Bytes::from(text), None, None));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    response
}

fn finish(response: Builder, body: Body) -> Option<Response<Body>> {
    response.body(body).ok()
}

/// Reads `query` and parameters from a form. Clients send a form if their parameters are too long
/// for a URL.
async fn read_form(request: &mut Request, body: Incoming, boundary: String, bytes_max: u64) -> Result<(), Exception> {
    let invalid = |error: multer::Error| Exception::new(36, "BAD_ARGUMENTS", format_args!("Invalid form: {error}"));
    let limits = multer::SizeLimit::new().whole_stream(bytes_max).per_field(bytes_max);
    let constraints = multer::Constraints::new().size_limit(limits);
    let frames = futures::StreamExt::filter_map(BodyStream::new(body), |frame| async {
        frame.map(|frame| frame.into_data().ok()).transpose()
    });
    let mut form = multer::Multipart::with_constraints(frames, boundary, constraints);
    while let Some(field) = form.next_field().await.map_err(invalid)? {
        if field.file_name().is_some() {
            let message = "External data is not supported by the embedded engine: insert it into a temporary table";
            return Err(Exception::new(48, "NOT_IMPLEMENTED", message));
        }
        let name = field.name().unwrap_or_default().to_owned();
        request.read_parameter(&name, field.text().await.map_err(invalid)?)?;
    }
    Ok(())
}

/// Moves the pieces of the body to the statement's thread. When the thread needs no more, this
/// reads on for a while.
async fn pump(mut body: Incoming, pieces: mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let piece = match tokio::time::timeout(OWNER_IDLE_TIME, body.frame()).await {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(bytes) => Ok(bytes),
                Err(_trailers) => continue,
            },
            Ok(Some(Err(error))) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, error)),
            Err(elapsed) => Err(io::Error::new(io::ErrorKind::TimedOut, elapsed)),
        };
        let ended = piece.is_err();
        if pieces.send(piece).await.is_err() {
            break;
        }
        if ended {
            return;
        }
    }
    let drain = async {
        let mut drained = 0;
        while drained < UNWANTED_BYTES
            && let Some(Ok(frame)) = body.frame().await
        {
            drained += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    let _ = tokio::time::timeout(UNWANTED_TIME, drain).await;
}

/// The body, as the statement's thread reads it.
struct BodyReader {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for BodyReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let count = out.len().min(self.piece.len());
        out[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}
