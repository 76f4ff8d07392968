//! Keys on the curve P-256, and the public keys of signing requests.

use std::path::Path;

use openssl::{
    bn::BigNumContext,
    ec::{EcGroup, EcKey, PointConversionForm},
    hash::{MessageDigest, hash},
    nid::Nid,
    pkey::{HasPublic, PKey, Private},
    sign::Signer,
    symm::Cipher,
    x509::X509Req,
};
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};

use crate::{error::Error, files};

const CURVE: Nid = Nid::X9_62_PRIME256V1;

/// The public half of a key: a point on the curve, uncompressed.
pub struct PublicKey(Vec<u8>);

impl PublicKey {
    fn of<T: HasPublic>(key: &EcKey<T>) -> Result<Self, Error> {
        let mut context = BigNumContext::new()?;
        Ok(Self(key.public_key().to_bytes(key.group(), PointConversionForm::UNCOMPRESSED, &mut context)?))
    }

    /// Reads a certificate signing request. Its signature must be right, so that its sender has the
    /// private key. The names in it are ignored.
    pub fn of_request(path: &Path) -> Result<Self, Error> {
        let content = |fault: &str| Error::Content { path: path.to_owned(), fault: fault.to_owned() };
        let request = X509Req::from_pem(&files::read(path)?)
            .map_err(|_| content("no certificate signing request in PEM form (openssl req -new -newkey ec ...)"))?;
        let key = request.public_key()?;
        if !request.verify(&key).unwrap_or(false) {
            return Err(content("the signature of the request is wrong"));
        }
        match key.ec_key() {
            Ok(key) if key.group().curve_name() == Some(CURVE) => Self::of(&key),
            _ => Err(content("the key must be on the curve P-256 (prime256v1)")),
        }
    }

    /// An identifier of the key, as RFC 7093 forms it: the first 160 bits of a SHA-256.
    pub fn identifier(&self) -> Result<Vec<u8>, Error> {
        let mut digest = hash(MessageDigest::sha256(), &self.0)?.to_vec();
        digest.truncate(20);
        Ok(digest)
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// A private key.
pub struct Key {
    private: PKey<Private>,
    pub public: PublicKey,
}

impl Key {
    pub fn generate() -> Result<Self, Error> {
        let group = EcGroup::from_curve_name(CURVE)?;
        Self::new(EcKey::generate(&group)?)
    }

    fn new(key: EcKey<Private>) -> Result<Self, Error> {
        Ok(Self { public: PublicKey::of(&key)?, private: PKey::from_ec_key(key)? })
    }

    /// As PKCS#8 in PEM form.
    pub fn pem(&self) -> Result<Vec<u8>, Error> {
        Ok(self.private.private_key_to_pem_pkcs8()?)
    }

    /// The same, encrypted with AES-256.
    pub fn encrypted_pem(&self, passphrase: &str) -> Result<Vec<u8>, Error> {
        Ok(self.private.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), passphrase.as_bytes())?)
    }

    /// Reads an encrypted key.
    pub fn decrypt(path: &Path, passphrase: &str) -> Result<Self, Error> {
        let fault =
            || Error::Content { path: path.to_owned(), fault: "the passphrase does not open this key".to_owned() };
        let pem = files::read(path)?;
        let key = PKey::private_key_from_pem_passphrase(&pem, passphrase.as_bytes()).map_err(|_| fault())?;
        Self::new(key.ec_key()?)
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        self.public.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.public.algorithm()
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let sign = || Signer::new(MessageDigest::sha256(), &self.private)?.sign_oneshot_to_vec(message);
        sign().map_err(|_| rcgen::Error::RemoteKeyError)
    }
}
