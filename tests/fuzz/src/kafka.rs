//! Requests to the embedded Kafka log.

use std::{net::SocketAddr, sync::Mutex, time::Duration};

use embedded::kafka::{self, Handle, Options};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::{Builder, Runtime},
};
use tokio_util::sync::CancellationToken;

/// Requests of one input.
const REQUESTS_MAX: usize = 8;
/// Inputs for which one log is used. Topics and groups of earlier inputs stay until then.
const INPUTS_MAX: usize = 500;
/// How long the answers to an input are awaited. A client may ask for an answer that comes later.
const PATIENCE: Duration = Duration::from_millis(20);
/// `ApiVersions` of version 0 with this correlation id comes last. Answers keep the order of the
/// requests.
const LAST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0x7f, 0xfe, 0xfd, 0xfc, 0xff, 0xff];

/// A running log and the runtime of its tasks.
struct Log {
    // Dropped first, and with it the tasks that use the folder.
    runtime: Runtime,
    handle: Handle,
    inputs: usize,
    _folder: TempDir,
}

static LOG: Mutex<Option<Log>> = Mutex::new(None);

/// A connection is answered or closed, and the log goes on. An input holds requests, each after its
/// length in two bytes; the last may be shorter than announced.
pub fn check(bytes: &[u8]) {
    let mut kept = LOG.lock().expect("no input has panicked");
    let mut log = kept.take().filter(|log| log.inputs < INPUTS_MAX).unwrap_or_else(start);
    log.inputs += 1;
    let (address, frames) = (log.handle.address(), frames(bytes));
    log.runtime.block_on(async {
        let answered = tokio::time::timeout(PATIENCE, exchange(address, &frames));
        // The log may close the connection at any byte.
        if let Ok(Err(error)) = answered.await {
            assert_ne!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        }
    });
    assert!(!log.handle.is_finished(), "the log has ended");
    *kept = Some(log);
}

fn start() -> Log {
    let folder = tempfile::tempdir().expect("make a folder");
    let runtime = Builder::new_current_thread().enable_all().build().expect("start a runtime");
    let options = Options::new(folder.path(), SocketAddr::from(([127, 0, 0, 1], 0)));
    let handle = runtime.block_on(kafka::start(options, CancellationToken::new())).expect("start the log");
    Log { runtime, handle, inputs: 0, _folder: folder }
}

/// The requests of an input with the lengths that the protocol demands.
fn frames(mut bytes: &[u8]) -> Vec<u8> {
    let mut frames = Vec::new();
    for _ in 0..REQUESTS_MAX {
        let Some((length, rest)) = bytes.split_first_chunk() else { break };
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (request, rest) = rest.split_at(length);
        frames.extend_from_slice(&(length as u32).to_be_bytes());
        frames.extend_from_slice(request);
        bytes = rest;
    }
    frames.extend_from_slice(&LAST);
    frames
}

async fn exchange(address: SocketAddr, frames: &[u8]) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(frames).await?;
    loop {
        let length = stream.read_u32().await?;
        let mut answer = vec![0; length as usize];
        stream.read_exact(&mut answer).await?;
        if answer.starts_with(&LAST[8..12]) {
            return Ok(());
        }
    }
}
