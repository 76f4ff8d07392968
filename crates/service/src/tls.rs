//! TLS of a connection to an engine, and of a port.

use std::path::PathBuf;

use crate::settings;

settings! {
    /// TLS of the connection; without this section it is plain TCP.
    pub struct Tls {
        /// PEM file of the authorities that sign the server's certificate. The authorities of the
        /// system are not trusted beside them
        ca: PathBuf;
        /// PEM file of the client's certificate chain, for mutual TLS; needs `key`
        certificate: Option<PathBuf>;
        /// PEM file of the certificate's private key (PKCS#8); needs `certificate`
        key: Option<PathBuf>;
    }
}

settings! {
    /// TLS of a port; without this section it is plain TCP.
    pub struct ServerTls {
        /// PEM file of the port's certificate, followed by those of intermediate authorities
        certificate: PathBuf;
        /// PEM file of the certificate's private key, without a passphrase
        key: PathBuf;
    }
}

impl Tls {
    /// The client's certificate and its key, for mutual TLS.
    pub fn identity(&self) -> Option<(&PathBuf, &PathBuf)> {
        self.certificate.as_ref().zip(self.key.as_ref())
    }

    /// A certificate without its key, or a key without its certificate, as (key, what is wrong).
    pub fn conflicts(&self) -> Vec<(String, String)> {
        let lacks = |key: &str, other: &str| vec![(key.to_owned(), format!("needs {other} beside it"))];
        match (&self.certificate, &self.key) {
            (Some(_), None) => lacks("certificate", "key"),
            (None, Some(_)) => lacks("key", "certificate"),
            _ => Vec::new(),
        }
    }
}
