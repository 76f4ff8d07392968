//! The reply to the client. Its head is sent as late as possible, so that an early error still gets
//! its own status. The body follows in pieces of bounded size.

use super::compression::{Encoder, Encoding};
use super::exception::Exception;
use super::library::Counts;
use super::reader;
use super::request::Request;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use service::connection_slots::Work;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Sleep;

/// How much of a result is held back before the head is sent, bytes.
const HOLD_BYTES: usize = 1 << 20;
/// The same if the client asked to wait for the end of the statement, bytes. A longer result is
/// streamed even then.
const HOLD_BYTES_WAITING: usize = 64 << 20;
/// Size of one piece of a result, bytes.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces that may wait between the statement's thread and the socket.
const PIECES: usize = 4;
/// How long a client may take to receive the exception that ends a result early. The connection is
/// broken off afterwards.
const FLUSH_TIME: Duration = Duration::from_millis(250);
/// An owner's client that takes no piece for this time counts as gone, because it holds a thread
/// that other requests wait for.
pub const OWNER_IDLE_TIME: Duration = Duration::from_secs(300);
/// The same for a reader's client.
const READER_IDLE_TIME: Duration = Duration::from_secs(10);

/// What each reply says about the server.
#[derive(Debug)]
pub struct Identity {
    pub version: String,
    pub timezone: String,
}

/// Status, headers, and the start of the body.
pub struct Head {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    /// The first bytes of the body.
    pub first: Bytes,
    /// Whether more pieces follow.
    pub more: bool,
}

/// A part of the reply after the head.
pub enum Piece {
    /// Bytes of the body.
    Data(Bytes),
    /// The statement failed after the head was sent, so the body must not look complete.
    Broken,
    /// The body is complete.
    End,
}

#[derive(Debug)]
pub struct Gone;

/// The sending half, used by the statement's thread.
pub struct Reply {
    head: Option<oneshot::Sender<Head>>,
    pieces: mpsc::Sender<Piece>,
    runtime: tokio::runtime::Handle,
    encoder: Encoder,
    encoding: Option<Encoding>,
    headers: Vec<(&'static str, String)>,
    /// Marks an exception within a body, as ClickHouse does since version 25.11.
    tag: String,
    version: String,
    wait_end: bool,
    /// How long one piece may wait until the client takes it.
    idle_time: Duration,
    /// When a reader must have the last piece, however slowly its client receives.
    deadline: Option<Instant>,
    /// Plain bytes that the encoder holds.
    held: usize,
    started: Instant,
}

/// The receiving half, used by the connection's task.
pub struct Receiver {
    pub head: oneshot::Receiver<Head>,
    pub pieces: mpsc::Receiver<Piece>,
}

impl Reply {
    /// Creates the reply to a request, with its receiving half. Call this within a runtime.
    ///
    /// # Errors
    /// An encoder has no memory.
    pub fn new(request: &Request, identity: &Identity) -> io::Result<(Self, Receiver)> {
        let (head, head_receiver) = oneshot::channel();
        let (pieces, pieces_receiver) = mpsc::channel(PIECES);
        let encoding = request.response_encoding.filter(|_| !request.compress);
        let query_id = request.query_id.clone().filter(|id| id.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
        let tag = uuid::Uuid::new_v4().simple().to_string();
        let reply = Self {
            head: Some(head),
            pieces,
            runtime: tokio::runtime::Handle::current(),
            encoder: if request.compress { Encoder::blocks() } else { Encoder::content(encoding)? },
            encoding,
            headers: vec![
                ("X-ClickHouse-Server-Display-Name", "doseline".to_owned()),
                ("X-ClickHouse-Query-Id", query_id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string())),
                ("X-ClickHouse-Timezone", identity.timezone.clone()),
            ],
            tag: tag[..16].to_owned(),
            version: identity.version.clone(),
            wait_end: request.wait_end,
            idle_time: if request.owner { OWNER_IDLE_TIME } else { READER_IDLE_TIME },
            // The engine's own limit ends the statement earlier, and the client can still be told.
            deadline: (!request.owner).then(|| Instant::now() + 2 * reader::EXECUTION_TIME_MAX),
            held: 0,
            started: Instant::now(),
        };
        Ok((reply, Receiver { head: head_receiver, pieces: pieces_receiver }))
    }

    /// Sets the format of the rows that follow.
    pub fn set_format(&mut self, format: &str) {
        if format.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            self.headers.push(("X-ClickHouse-Format", format.to_owned()));
            self.headers.push(("Content-Type", content_type(format).to_owned()));
        }
    }

    /// Adds rows, and waits while the client is slower.
    ///
    /// # Errors
    /// The client is gone.
    pub fn write(&mut self, rows: &[u8]) -> Result<(), Gone> {
        for part in rows.chunks(PIECE_BYTES) {
            self.encoder.write(part).map_err(|_| Gone)?;
            self.held += part.len();
            let limit = match (&self.head, self.wait_end) {
                (None, _) => PIECE_BYTES,
                (Some(_), false) => HOLD_BYTES,
                (Some(_), true) => HOLD_BYTES_WAITING,
            };
            if self.held >= limit {
                self.send_piece()?;
            }
        }
        Ok(())
    }

    fn send_piece(&mut self) -> Result<(), Gone> {
        self.held = 0;
        let bytes = Bytes::from(self.encoder.take());
        match self.head.take() {
            Some(head) => {
                let mut headers = std::mem::take(&mut self.headers);
                headers.push(("X-ClickHouse-Exception-Tag", self.tag.clone()));
                headers.extend(self.encoding.map(|encoding| ("Content-Encoding", encoding.name().to_owned())));
                head.send(Head { status: 200, headers, first: bytes, more: true }).map_err(|_| Gone)
            }
            None if bytes.is_empty() => Ok(()),
            None => self.send(Piece::Data(bytes)),
        }
    }

    fn send(&self, piece: Piece) -> Result<(), Gone> {
        // A timer can only be created within the runtime.
        let left = self.deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        let patience = self.idle_time.min(left);
        let sent = self.runtime.block_on(async { tokio::time::timeout(patience, self.pieces.send(piece)).await });
        sent.map_err(|_| Gone)?.map_err(|_| Gone)
    }

    /// Ends the reply of a successful statement.
    pub fn finish(mut self, counts: Counts) {
        let encoder = std::mem::replace(&mut self.encoder, Encoder::Plain(Vec::new()));
        let Ok(rest) = encoder.finish() else { return };
        let rest = Bytes::from(rest);
        match self.head.take() {
            Some(head) => {
                let mut headers = std::mem::take(&mut self.headers);
                headers.push(("X-ClickHouse-Summary", summary(counts, self.started)));
                headers.extend(self.encoding.map(|encoding| ("Content-Encoding", encoding.name().to_owned())));
                let _ = head.send(Head { status: 200, headers, first: rest, more: false });
            }
            // A client that is gone misses nothing.
            None => {
                let _ = self.send(Piece::Data(rest)).and_then(|()| self.send(Piece::End));
            }
        }
    }

    /// The text of an error in ClickHouse's blocks, where the rows would have been in them: drivers
    /// count on that.
    fn compressed(&self, text: String) -> Vec<u8> {
        if !matches!(self.encoder, Encoder::Blocks(..)) {
            return text.into_bytes();
        }
        let mut blocks = Encoder::blocks();
        let compressed = blocks.write(text.as_bytes()).and_then(|()| blocks.finish());
        compressed.unwrap_or_else(|_| text.into_bytes())
    }

    /// Ends the reply of a statement that failed: with a status if no row was sent yet, otherwise
    /// with a marked text at the end of a body that does not end as it should.
    pub fn fail(mut self, exception: &Exception) {
        let text = exception.body(&self.version);
        if let Some(head) = self.head.take() {
            let mut headers = std::mem::take(&mut self.headers);
            headers.retain(|(name, _)| !matches!(*name, "X-ClickHouse-Format" | "Content-Type"));
            headers.push(("X-ClickHouse-Exception-Code", exception.code().to_string()));
            headers.push(("Content-Type", "text/plain; charset=UTF-8".to_owned()));
            let first = self.compressed(text).into();
            let _ = head.send(Head { status: exception.http_status(), headers, first, more: false });
            return;
        }
        let tag = &self.tag;
        let marked = format!("\r\n__exception__\r\n{tag}\r\n{text}{} {tag}\r\n__exception__\r\n", text.len());
        let sent = self.encoder.flush().map_err(|_| Gone).and_then(|()| self.send_piece());
        let sent = sent.and_then(|()| self.encoder.write(marked.as_bytes()).map_err(|_| Gone));
        let sent = sent.and_then(|()| self.encoder.flush().map_err(|_| Gone));
        if sent.and_then(|()| self.send_piece()).is_ok() {
            let _ = self.send(Piece::Broken);
        }
    }
}

fn summary(counts: Counts, started: Instant) -> String {
    serde_json::json!({
        "read_rows": counts.read_rows.to_string(),
        "read_bytes": counts.read_bytes.to_string(),
        "written_rows": counts.written_rows.to_string(),
        "written_bytes": counts.written_bytes.to_string(),
        "total_rows_to_read": "0",
        "result_rows": counts.result_rows.to_string(),
        "result_bytes": "0",
        "elapsed_ns": started.elapsed().as_nanos().to_string(),
    })
    .to_string()
}

fn content_type(format: &str) -> &'static str {
    let format = format.to_ascii_lowercase();
    if format.starts_with("json") || format == "ndjson" {
        "application/json; charset=UTF-8"
    } else if format.starts_with("csv") {
        "text/csv; charset=UTF-8"
    } else if format.starts_with("tabseparated") || format.starts_with("tsv") {
        "text/tab-separated-values; charset=UTF-8"
    } else if format.starts_with("pretty") || format == "vertical" {
        "text/plain; charset=UTF-8"
    } else {
        "application/octet-stream"
    }
}

/// The body of a response. `guard` is dropped with it, at the end of the body or when the client is
/// gone.
pub struct ReplyBody<G> {
    first: Bytes,
    pieces: Option<mpsc::Receiver<Piece>>,
    flushing: Option<Pin<Box<Sleep>>>,
    _guard: G,
    work: Option<Work>,
}

impl<G> ReplyBody<G> {
    /// A body that starts with `first` and continues with `pieces`, if there are any.
    pub const fn new(first: Bytes, pieces: Option<mpsc::Receiver<Piece>>, guard: G) -> Self {
        Self { first, pieces, flushing: None, _guard: guard, work: None }
    }

    /// Marks the connection as busy until the body is sent.
    pub fn hold(&mut self, work: Work) {
        self.work = Some(work);
    }
}

impl<G: Unpin> Body for ReplyBody<G> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.first)))));
        }
        let broken = || io::Error::other("the statement failed after its result had begun");
        if let Some(flushing) = &mut self.flushing {
            ready!(flushing.as_mut().poll(context));
            self.pieces = None;
            return Poll::Ready(Some(Err(broken())));
        }
        let Some(pieces) = &mut self.pieces else { return Poll::Ready(None) };
        match ready!(pieces.poll_recv(context)) {
            Some(Piece::Data(bytes)) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Some(Piece::End) => {
                self.pieces = None;
                Poll::Ready(None)
            }
            // An error makes hyper close at once, with bytes that the socket has not taken yet. So
            // the exception must be sent before that.
            Some(Piece::Broken) | None => {
                let flushing = self.flushing.insert(Box::pin(tokio::time::sleep(FLUSH_TIME)));
                // Registers the wake-up. The time cannot be over yet.
                let _ = flushing.as_mut().poll(context);
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.pieces.is_none() && self.flushing.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.pieces {
            Some(_) => SizeHint::default(),
            None => SizeHint::with_exact(self.first.len() as u64),
        }
    }
}
