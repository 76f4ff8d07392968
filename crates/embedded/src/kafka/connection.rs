//! One client connection: frames in, answers out in the same order.

use std::{future::Future, io, pin::Pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use service::places::{Place, Work};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{OwnedSemaphorePermit, mpsc},
};

use super::{Broker, api};

/// Requests of one connection that may wait for their answers.
const PIPELINE_MAX: usize = 32;
/// Bytes of one request: a batch of the largest size, and room for the rest.
const FRAME_BYTES_MAX: usize = super::config::BATCH_BYTES_MAX + (1 << 20);

/// So much of a request must be here before it takes any of the memory that all requests share.
const ANNOUNCED_BYTES: usize = 64 << 10;
/// A request that has begun must be here in this time: twice, once for each of its two parts.
const FRAME_TIME: Duration = Duration::from_secs(5);
/// A client that sends no request for so long is disconnected, as by Apache Kafka.
const IDLE_TIME: Duration = Duration::from_secs(600);
/// A client that has not taken an answer in this time is gone.
const WRITE_TIME: Duration = Duration::from_secs(30);

/// An answer on its way: a whole frame, or nothing where none is due.
pub(super) type Reply = Pin<Box<dyn Future<Output = Result<Option<Bytes>, api::Malformed>> + Send>>;

/// A request with the memory it holds until it is answered.
struct Pending {
    reply: Reply,
    _work: Work,
    _bytes: OwnedSemaphorePermit,
}

/// Serves a connection until the client goes, sends nonsense, has to give its place to another, or the broker stops.
pub(super) async fn serve(stream: TcpStream, place: Place, broker: Arc<Broker>) {
    let peer = stream.peer_addr().ok();
    let exchanged = tokio::select! {
        exchanged = exchange(stream, &place, broker) => exchanged,
        () = place.dismissed() => Err(io::Error::other("its place is needed")),
    };
    if let Err(error) = exchanged {
        match error.kind() {
            io::ErrorKind::InvalidData => tracing::warn!(?peer, %error, "closing kafka connection"),
            _ => tracing::debug!(?peer, %error, "kafka connection ended"),
        }
    }
}

async fn exchange(stream: TcpStream, place: &Place, broker: Arc<Broker>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let context = api::Context { broker, local: stream.local_addr()? };
    let (reader, writer) = stream.into_split();
    let (sender, pending) = mpsc::channel(PIPELINE_MAX);
    let writing = write(writer, pending);
    tokio::pin!(writing);
    tokio::select! {
        // An answer may be due to requests that came before the end.
        read = read(reader, place, &context, sender) => {
            read?;
            if context.broker.shutdown.is_cancelled() { writing.await } else { Ok(()) }
        }
        written = &mut writing => written,
    }
}

async fn read(
    mut reader: OwnedReadHalf,
    place: &Place,
    context: &api::Context,
    sender: mpsc::Sender<Pending>,
) -> io::Result<()> {
    loop {
        let length = tokio::select! {
            length = tokio::time::timeout(IDLE_TIME, reader.read_i32()) => match length? {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                length => length?,
            },
            () = context.broker.shutdown.cancelled() => return Ok(()),
        };
        let length = usize::try_from(length).ok().filter(|length| *length <= FRAME_BYTES_MAX);
        let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "request too large"))?;
        let mut frame = BytesMut::new();
        read_to(&mut reader, &mut frame, length.min(ANNOUNCED_BYTES)).await?;
        let permits = u32::try_from(length).map_err(io::Error::other)?;
        let acquired = Arc::clone(&context.broker.request_bytes).acquire_many_owned(permits).await;
        let bytes = acquired.map_err(io::Error::other)?;
        read_to(&mut reader, &mut frame, length).await?;
        let work = place.work();
        let reply = api::dispatch(context, frame.freeze()).await.map_err(invalid)?;
        if sender.send(Pending { reply, _work: work, _bytes: bytes }).await.is_err() {
            return Ok(());
        }
    }
}

/// Fills a frame up to so many bytes, in its time.
async fn read_to(reader: &mut OwnedReadHalf, frame: &mut BytesMut, bytes: usize) -> io::Result<()> {
    let read = frame.len();
    if bytes > read {
        frame.resize(bytes, 0);
        tokio::time::timeout(FRAME_TIME, reader.read_exact(&mut frame[read..])).await??;
    }
    Ok(())
}

async fn write(mut writer: OwnedWriteHalf, mut pending: mpsc::Receiver<Pending>) -> io::Result<()> {
    while let Some(request) = pending.recv().await {
        if let Some(frame) = request.reply.await.map_err(invalid)? {
            tokio::time::timeout(WRITE_TIME, writer.write_all(&frame)).await??;
        }
    }
    Ok(())
}

fn invalid(malformed: api::Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, malformed)
}
