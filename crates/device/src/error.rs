//! What can go wrong.

use std::{io, path::PathBuf};

/// An error of the client or the simulator. None of them is worth a retry: what is (a broken connection, a missing
/// receipt) is retried inside.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be opened, read, written or synced. Fatal: an event that cannot be kept must not be counted on.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another process uses the data directory.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The data directory.
        path: PathBuf,
    },
    /// An event is larger than a report can be.
    #[error("an event of {bytes} bytes does not fit a report, at most {most}")]
    EventTooLarge {
        /// Size of the event.
        bytes: usize,
        /// The most.
        most: usize,
    },
    /// Sequence numbers must be given in order, from 1.
    #[error("sequence number {got} of {device}; {expected} comes next")]
    Sequence {
        /// The device.
        device: String,
        /// What was given.
        got: u64,
        /// What comes next.
        expected: u64,
    },
    /// A device that the gateway was not opened for.
    #[error("no device number {0}")]
    UnknownDevice(usize),
    /// An option has an impossible value.
    #[error("option {key} = {value}: {remedy}")]
    Option {
        /// The option.
        key: &'static str,
        /// Its value.
        value: String,
        /// What would be right.
        remedy: &'static str,
    },
    /// A part ended by itself.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

impl Error {
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}
