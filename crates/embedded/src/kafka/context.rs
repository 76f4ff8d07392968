//! What the answers to all requests share: the broker and the address of the client's connection,
//! the form of an answer, and small helpers of the protocol.

use std::{future::Future, net::SocketAddr, pin::Pin, sync::Arc};

use bytes::Bytes;
use kafka_protocol::{error::ResponseError, protocol::StrBytes};

use super::Broker;

/// A request that cannot be read, or that asks for what is not there; its connection is closed.
#[derive(Debug, thiserror::Error)]
#[error("malformed request: {0}")]
pub(super) struct Malformed(String);

impl Malformed {
    pub(super) fn new(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// What a request is answered with.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) broker: Arc<Broker>,
    /// The address the client reached the broker at, which is the one it is told.
    pub(super) local: SocketAddr,
}

/// An answer on its way: a whole frame, or nothing where none is due.
pub(super) type Reply = Pin<Box<dyn Future<Output = Result<Option<Bytes>, Malformed>> + Send>>;

/// A string as the protocol crate wants it.
pub(super) fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

/// The code of an outcome: 0 for success.
pub(super) fn code<T>(outcome: &Result<T, ResponseError>) -> i16 {
    outcome.as_ref().err().map_or(0, ResponseError::code)
}

/// Runs what blocks (files) away from the connections' threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ResponseError> + Send + 'static,
) -> Result<T, ResponseError> {
    let outcome = tokio::task::spawn_blocking(work).await;
    outcome.unwrap_or_else(|error| {
        tracing::error!(%error, "kafka request failed");
        Err(ResponseError::UnknownServerError)
    })
}
