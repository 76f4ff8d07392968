//! One client connection: it reads frames and writes the answers in the same order.

use std::{io, sync::Arc, time::Duration};

use bytes::BytesMut;
use service::connection_slots::{Slot, Work};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
};

use super::{
    Broker, api,
    context::{Context, Malformed, Reply},
    memory::{OWN_BYTES, Own},
};

/// Requests of one connection that may wait for their answers.
const PIPELINE_MAX: usize = 32;
/// Largest `Produce` request, bytes: a batch of the largest size and room for the other fields.
const FRAME_BYTES_MAX: usize = super::config::BATCH_BYTES_MAX + (1 << 20);

/// How much of a large request must have arrived before it gets any of the shared memory, bytes.
const ANNOUNCED_BYTES: usize = 64 << 10;
/// How long each of a request's two parts may take to arrive.
const FRAME_TIME: Duration = Duration::from_secs(5);
/// A client that sends no request for this time is disconnected, as in Apache Kafka.
const IDLE_TIME: Duration = Duration::from_secs(600);
/// A client that does not take an answer within this time is disconnected.
const WRITE_TIME: Duration = Duration::from_secs(30);

/// A request that is being answered.
struct Pending {
    reply: Reply,
    _work: Work,
}

/// Serves a connection. It ends when the client leaves, sends an invalid request, must give its
/// slot to another client, or when the broker stops.
pub(super) async fn serve(stream: TcpStream, slot: Slot, broker: Arc<Broker>) {
    let peer = stream.peer_addr().ok();
    let exchanged = tokio::select! {
        exchanged = exchange(stream, &slot, broker) => exchanged,
        () = slot.dismissed() => Err(io::Error::other("its slot is needed")),
    };
    if let Err(error) = exchanged {
        match error.kind() {
            io::ErrorKind::InvalidData => tracing::warn!(?peer, %error, "closing kafka connection"),
            _ => tracing::debug!(?peer, %error, "kafka connection ended"),
        }
    }
}

async fn exchange(stream: TcpStream, slot: &Slot, broker: Arc<Broker>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let context = Context { broker, local: stream.local_addr()? };
    let (reader, writer) = stream.into_split();
    let (sender, pending) = mpsc::channel(PIPELINE_MAX);
    let writing = write(writer, pending);
    tokio::pin!(writing);
    tokio::select! {
        // Requests that came before the end may still wait for their answers.
        read = read(reader, slot, &context, sender) => {
            read?;
            if context.broker.shutdown.is_cancelled() { writing.await } else { Ok(()) }
        }
        written = &mut writing => written,
    }
}

async fn read(
    mut reader: OwnedReadHalf,
    slot: &Slot,
    context: &Context,
    sender: mpsc::Sender<Pending>,
) -> io::Result<()> {
    let own = Own::new();
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
        let bytes = if length <= OWN_BYTES / 2 {
            own.bytes(length).await?
        } else {
            read_to(&mut reader, &mut frame, ANNOUNCED_BYTES).await?;
            api::may_be_large(&frame).map_err(invalid)?;
            context.broker.memory.bytes(length).await?
        };
        tokio::select! {
            read = read_to(&mut reader, &mut frame, length) => read?,
            () = context.broker.memory.is_wanted(), if length > OWN_BYTES / 2 => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the memory of a request that is not here is needed"));
            }
        }
        let work = slot.work();
        let items = own.items(api::items(&frame).map_err(invalid)?).await?;
        let reply = api::dispatch(context, frame.freeze(), (bytes, items)).await.map_err(invalid)?;
        if sender.send(Pending { reply, _work: work }).await.is_err() {
            return Ok(());
        }
    }
}

/// Reads into a frame until it holds this many bytes, within the allowed time.
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

fn invalid(malformed: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, malformed)
}
