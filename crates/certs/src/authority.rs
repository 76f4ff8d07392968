//! An authority: its own certificate, the certificates that it signs, and its list of revoked ones.

use std::path::Path;

use openssl::{nid::Nid, rand::rand_bytes, x509::X509};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose, NameConstraints,
    RevokedCertParams, SanType, SerialNumber,
};
use time::OffsetDateTime;

use crate::{
    error::Error,
    files,
    index::Entry,
    key::{Key, PublicKey},
    subject::{Authority, Kind, Subject},
};

/// A certificate is valid from this long before it was made, s: clocks of devices may be behind.
const BACKDATED_S: i64 = 600;
const DAY_S: i64 = 86_400;

/// Length of serial numbers, bytes.
const SERIAL_LEN: usize = 16;

/// An authority that can sign.
pub struct Signer {
    issuer: Issuer<'static, Key>,
}

impl Signer {
    /// Makes an authority. Returns its certificate in PEM form, its key, and its entry in the
    /// index.
    pub fn generate(authority: Authority, now: i64, days: u32) -> Result<(String, Key, Entry), Error> {
        let key = Key::generate()?;
        let serial = serial()?;
        // Two installations must not have authorities of one name with two keys.
        let id: String = hex(&serial).chars().take(8).collect();
        let mut params = params(authority, &format!("doseline {} {id}", authority.name()), &key)?;
        let entry = Entry {
            kind: Kind::Authority,
            name: authority.name().to_owned(),
            serial: hex(&serial),
            authority,
            not_before: now - BACKDATED_S,
            not_after: now + i64::from(days) * DAY_S,
            revoked: None,
            hosts: Vec::new(),
            key_elsewhere: false,
        };
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.not_before = at(entry.not_before)?;
        params.not_after = at(entry.not_after)?;
        Ok((params.self_signed(&key)?.pem(), key, entry))
    }

    /// Opens an authority with its passphrase.
    pub fn open(authority: Authority, certificate: &Path, key: &Path, passphrase: &str) -> Result<Self, Error> {
        let content = |fault: &str| Error::Content { path: certificate.to_owned(), fault: fault.to_owned() };
        let parsed = X509::from_pem(&files::read(certificate)?).map_err(|_| content("no certificate in PEM form"))?;
        let name = parsed.subject_name().entries_by_nid(Nid::COMMONNAME).next();
        let name =
            name.and_then(|name| name.data().to_string().ok()).ok_or_else(|| content("it has no common name"))?;
        let key = Key::decrypt(key, passphrase)?;
        Ok(Self { issuer: Issuer::new(params(authority, &name, &key)?, key) })
    }

    /// Signs a certificate. Returns it in PEM form with its entry.
    pub fn issue(&self, subject: &Subject, key: &PublicKey, until: Validity) -> Result<(String, Entry), Error> {
        let serial = serial()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&subject.common_name());
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.not_before = at(until.not_before)?;
        params.not_after = at(until.not_after)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match (subject.kind, subject.hosts.is_empty()) {
            (Kind::Broker, _) => vec![ExtendedKeyUsagePurpose::ServerAuth],
            (_, true) => vec![ExtendedKeyUsagePurpose::ClientAuth],
            (_, false) => vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth],
        };
        for host in &subject.hosts {
            params.subject_alt_names.push(match host.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(host.as_str().try_into()?),
            });
        }
        params.key_identifier_method = KeyIdMethod::PreSpecified(key.identifier()?);
        params.use_authority_key_identifier_extension = true;
        let pem = params.signed_by(key, &self.issuer)?.pem();
        let entry = Entry {
            kind: subject.kind,
            name: subject.name.clone(),
            serial: hex(&serial),
            authority: subject.authority(),
            not_before: until.not_before,
            not_after: until.not_after,
            revoked: None,
            hosts: subject.hosts.clone(),
            key_elsewhere: false,
        };
        Ok((pem, entry))
    }

    /// The list of revoked certificates in PEM form. A broker that finds an expired list refuses
    /// every client, so the list is valid until the authority's own end.
    pub fn revocation_list(&self, revoked: &[&Entry], now: i64, until: i64) -> Result<String, Error> {
        let mut revoked_certs = Vec::new();
        for entry in revoked {
            revoked_certs.push(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&bytes(&entry.serial)),
                revocation_time: at(entry.revoked.unwrap_or(now))?,
                reason_code: None,
                invalidity_date: None,
            });
        }
        let list = CertificateRevocationListParams {
            this_update: at(now - BACKDATED_S)?,
            next_update: at(until.max(now + DAY_S))?,
            crl_number: SerialNumber::from(u64::try_from(now).unwrap_or_default()),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::PreSpecified(self.issuer.key().public.identifier()?),
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }
}

/// From when until when a certificate is valid, s since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    not_before: i64,
    not_after: i64,
}

impl Validity {
    /// From now for a number of days, and not longer than the authority.
    pub fn of(now: i64, days: u32, authority: &Entry) -> Self {
        let not_before = (now - BACKDATED_S).max(authority.not_before);
        Self { not_before, not_after: (now + i64::from(days) * DAY_S).min(authority.not_after) }
    }
}

/// What an authority's certificate says, and what its signatures refer to.
fn params(authority: Authority, name: &str, key: &Key) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.key_identifier_method = KeyIdMethod::PreSpecified(key.public.identifier()?);
    if authority == Authority::Devices {
        // No certificate below this one is a server's, and none has the name of any host.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: Vec::new(),
            excluded_subtrees: vec![
                GeneralSubtree::DnsName(String::new()),
                GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
                GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
            ],
        });
    }
    Ok(params)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn at(seconds: i64) -> Result<OffsetDateTime, Error> {
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| Error::Time(seconds))
}

/// A random serial number. Its first byte is such that the number is positive and has the full
/// length.
fn serial() -> Result<[u8; SERIAL_LEN], Error> {
    let mut serial = [0; SERIAL_LEN];
    rand_bytes(&mut serial)?;
    serial[0] = serial[0] & 0x3f | 0x40;
    Ok(serial)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of an even number of hexadecimal digits.
fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    digits.filter_map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()).collect()
}
