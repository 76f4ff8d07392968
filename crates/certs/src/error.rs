//! Why a certificate could not be made.

use std::{io, path::PathBuf};

/// Why an operation failed. None of them can be cured by a retry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What was tried, as a verb.
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The request contradicts what is there; the text names the remedy.
    #[error("{0}")]
    Refused(String),
    /// A file does not hold what it should.
    #[error("{}: {fault}", path.display())]
    Content { path: PathBuf, fault: String },
    #[error("OpenSSL: {0}")]
    OpenSsl(#[from] openssl::error::ErrorStack),
    #[error("write a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("the time {0} s is outside of the calendar")]
    Time(i64),
}
