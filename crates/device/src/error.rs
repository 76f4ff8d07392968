//! Errors of this crate.

use std::{io, path::PathBuf};

/// An error of the client or the simulator. A retry is pointless: broken connections and missing
/// receipts are retried inside.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be opened, read, written or synced. Fatal: an event that cannot be kept must
    /// not count as made.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// The failed action, for the message.
        action: &'static str,
        /// The file concerned.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// Another process uses the data directory.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The data directory, or its lock.
        path: PathBuf,
    },
    /// An event does not fit any report.
    #[error("an event of {bytes} bytes does not fit a report, at most {most}")]
    EventTooLarge {
        /// Size of the event, bytes.
        bytes: usize,
        /// Greatest possible size, bytes.
        most: usize,
    },
    /// A sequence number is out of order; numbers ascend from 1.
    #[error("sequence number {got} of {device}; {expected} comes next")]
    Sequence {
        /// The device, as `tenant/site/device`.
        device: String,
        /// The number that the caller gave.
        got: u64,
        /// The next number of the boot.
        expected: u64,
    },
    /// The gateway was not opened for this device.
    #[error("no device number {0}")]
    UnknownDevice(usize),
    /// An option has an impossible value.
    #[error("option {key} = {value}: {remedy}")]
    Option {
        /// Name of the option.
        key: &'static str,
        /// The value given.
        value: String,
        /// The allowed values, in words.
        remedy: &'static str,
    },
    /// A task ended although nothing stopped it.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

impl Error {
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}
