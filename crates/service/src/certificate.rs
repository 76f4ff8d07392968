//! The certificate of an HTTPS port. It is read again when its files change, so a renewal needs no
//! restart.
//!
//! A new pair of files that cannot be used leaves the old one in use and is told of: a renewal
//! writes two files, one after the other.

use std::{
    fs, io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Mutex, MutexGuard},
};

use openssl::{
    asn1::Asn1Time,
    error::ErrorStack,
    pkey::{PKey, Private},
    ssl::{Ssl, SslAcceptor, SslMethod, SslVersion},
    x509::X509,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_openssl::SslStream;

use crate::{files::FileState, lock, tls::ServerTls};

/// First byte of every TLS connection: the type of a record of the handshake.
const HANDSHAKE: u8 = 22;
/// The answer to a client that speaks HTTP.
const SPEAKS_HTTPS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 42\r\n\
Connection: close\r\n\r\nThis port speaks HTTPS: write https://...\n";

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// A file cannot be read.
    #[error("{}: {source}; name a PEM file that this user can read", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// There is no certificate in its file.
    #[error("{}: there is no certificate in it; write the port's certificate as PEM", path.display())]
    NoCertificate { path: PathBuf },
    /// There is no key in its file, or it has a passphrase.
    #[error("{}: there is no private key without a passphrase in it; write the key as plain PEM", path.display())]
    NoKey { path: PathBuf },
    /// The key belongs to another certificate.
    #[error("{} is not the key of the first certificate in {}; name two files that belong together", key.display(), certificate.display())]
    Mismatch { certificate: PathBuf, key: PathBuf },
    /// The certificate has ended, or has not begun.
    #[error("{}: the certificate is valid from {from} to {to}, not now; renew it", path.display())]
    NotNow { path: PathBuf, from: String, to: String },
    /// OpenSSL refuses the pair.
    #[error("{}: {text}; take a certificate on P-256, or one with an RSA key of 2,048 bits", path.display())]
    Refused { path: PathBuf, text: String },
}

/// The certificate of a port.
pub struct Certificate {
    files: ServerTls,
    last: Mutex<Last>,
}

/// What was read last.
struct Last {
    /// The files as they were before they were read.
    states: [Option<FileState>; 2],
    pair: Pair,
    /// Why the files could not be used, if they have changed since.
    fault: Option<String>,
}

/// A certificate with its key.
struct Pair {
    certificate: X509,
    acceptor: SslAcceptor,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads a certificate and its key.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn open(files: ServerTls) -> Result<Self, Unusable> {
        let states = states(&files);
        let pair = Pair::read(&files)?;
        Ok(Self { files, last: Mutex::new(Last { states, pair, fault: None }) })
    }

    /// What a person has to do about the certificate, if anything.
    pub fn fault(&self) -> Option<String> {
        let last = self.current();
        last.fault.clone().or_else(|| last.pair.is_valid_now(&self.files).err().map(|error| error.to_string()))
    }

    /// Takes a connection into TLS; none if it fails. A client that speaks HTTP is told so.
    pub(crate) async fn accept(&self, mut stream: TcpStream) -> Option<SslStream<TcpStream>> {
        let mut first = [0];
        stream.peek(&mut first).await.ok()?;
        match first[0] {
            HANDSHAKE => {
                let acceptor = self.current().pair.acceptor.clone();
                let mut stream = SslStream::new(Ssl::new(acceptor.context()).ok()?, stream).ok()?;
                let outcome = Pin::new(&mut stream).accept().await;
                outcome.inspect_err(|error| tracing::debug!(%error, "a TLS handshake failed")).ok()?;
                Some(stream)
            }
            // A method of HTTP.
            b'A'..=b'Z' => {
                let mut rest = [0; 4_096];
                if stream.read(&mut rest).await.ok()? == 0 {
                    return None;
                }
                stream.write_all(SPEAKS_HTTPS).await.ok()?;
                stream.shutdown().await.ok()?;
                // What is not read at the end makes the system take the answer back.
                while stream.read(&mut rest).await.ok()? > 0 {}
                None
            }
            _ => None,
        }
    }

    /// The pair in use, after a look at the files.
    fn current(&self) -> MutexGuard<'_, Last> {
        let states = states(&self.files);
        let mut last = lock(&self.last);
        if last.states != states {
            last.states = states;
            match Pair::read(&self.files) {
                Ok(pair) => {
                    tracing::info!(file = %self.files.certificate.display(), "the certificate was read again");
                    last.pair = pair;
                    last.fault = None;
                }
                Err(error) => {
                    tracing::error!(%error, "the new certificate cannot be used; the old one stays in use");
                    last.fault = Some(error.to_string());
                }
            }
        }
        last
    }
}

fn states(files: &ServerTls) -> [Option<FileState>; 2] {
    [FileState::of(&files.certificate), FileState::of(&files.key)]
}

impl Pair {
    fn read(files: &ServerTls) -> Result<Self, Unusable> {
        let ServerTls { certificate: path, key: key_path } = files;
        let read = |path: &Path| fs::read(path).map_err(|source| Unusable::Io { path: path.to_owned(), source });
        let (text, key) = (read(path)?, read(key_path)?);
        let chain = X509::stack_from_pem(&text).unwrap_or_default();
        let (certificate, between) =
            chain.split_first().ok_or_else(|| Unusable::NoCertificate { path: path.clone() })?;
        let key = without_passphrase(&key).map_err(|_| Unusable::NoKey { path: key_path.clone() })?;
        if !certificate.public_key().is_ok_and(|public| public.public_eq(&key)) {
            return Err(Unusable::Mismatch { certificate: path.clone(), key: key_path.clone() });
        }
        let acceptor = acceptor(certificate, between, &key)
            .map_err(|error| Unusable::Refused { path: path.clone(), text: error.to_string() })?;
        let certificate = certificate.clone();
        let pair = Self { certificate, acceptor };
        pair.is_valid_now(files)?;
        Ok(pair)
    }

    /// Whether the certificate is valid at this time.
    fn is_valid_now(&self, files: &ServerTls) -> Result<(), Unusable> {
        let (from, to) = (self.certificate.not_before(), self.certificate.not_after());
        if Asn1Time::days_from_now(0).is_ok_and(|now| from <= now && now < to) {
            return Ok(());
        }
        Err(Unusable::NotNow { path: files.certificate.clone(), from: from.to_string(), to: to.to_string() })
    }
}

/// A private key. OpenSSL would ask a person at the terminal for a passphrase.
fn without_passphrase(pem: &[u8]) -> Result<PKey<Private>, ErrorStack> {
    PKey::private_key_from_pem_callback(pem, |_| Err(ErrorStack::get()))
}

fn acceptor(certificate: &X509, between: &[X509], key: &PKey<Private>) -> Result<SslAcceptor, ErrorStack> {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    builder.set_certificate(certificate)?;
    for authority in between {
        builder.add_extra_chain_cert(authority.clone())?;
    }
    builder.set_private_key(key)?;
    Ok(builder.build())
}
