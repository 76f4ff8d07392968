//! The folder with everything, and what can be done with it.

use std::path::{Path, PathBuf};

use openssl::rand::rand_bytes;

use crate::{
    authority::{Signer, Validity},
    error::Error,
    files::{self, PUBLIC, SECRET},
    index::{Entry, Index, State},
    key::{Key, PublicKey},
    subject::{Authority, Kind, Subject},
};

/// Shortest passphrase, bytes. OpenSSL tries few rounds of hashing for each guess.
const PASSPHRASE_LEN_MIN: usize = 16;

/// Certificates of authorities, where their users look for them.
const AUTHORITY_FILES: [(Authority, &str); 5] = [
    (Authority::Devices, "broker/devices-ca.pem"),
    (Authority::Broker, "broker/broker-ca.pem"),
    (Authority::Broker, "bridge/broker-ca.pem"),
    (Authority::Broker, "devices/broker-ca.pem"),
    (Authority::Roles, "roles/roles-ca.pem"),
];
/// Lists of revoked certificates.
const LISTS: [(Authority, &str); 3] = [
    (Authority::Devices, "broker/devices.crl"),
    (Authority::Broker, "broker/broker.crl"),
    (Authority::Roles, "roles/roles.crl"),
];
/// Names whose open connections the broker ends at SIGHUP.
const REVOKED_NAMES: &str = "broker/revoked";
/// The bridge's share group, as a variable of the environment.
const SHARE_GROUP: &str = "bridge/share-group.env";

/// A certificate that was made.
#[derive(Debug)]
pub struct Issued {
    pub entry: Entry,
    /// File of the certificate.
    pub certificate: PathBuf,
    /// File of its key; none if the key was made elsewhere.
    pub key: Option<PathBuf>,
}

/// What a revocation changed.
#[derive(Debug)]
pub struct Revoked {
    pub entries: Vec<Entry>,
}

/// A folder with authorities and certificates:
///
/// | subfolder | for |
/// |---|---|
/// | `authority` | the encrypted keys of the authorities and the index; nothing that runs needs it |
/// | `broker` | the broker: its certificate and key, the authorities, the lists of revoked certificates |
/// | `bridge` | the bridge: its certificate and key, the authority of the broker, the share group |
/// | `roles` | the other services |
/// | `devices` | `TENANT/SITE/DEVICE.pem` and `.key`, and the authority of the broker |
pub struct Store {
    dir: PathBuf,
}

impl Store {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Makes the authorities, empty lists of revoked certificates, and a random share group.
    ///
    /// # Errors
    /// [`Error::Refused`] if there are authorities already or the passphrase is short.
    pub fn init(&self, passphrase: &str, now: i64, days: u32) -> Result<Vec<Entry>, Error> {
        if passphrase.len() < PASSPHRASE_LEN_MIN {
            let len = passphrase.len();
            let text =
                format!("the passphrase has {len} bytes; {PASSPHRASE_LEN_MIN} are needed (openssl rand -hex 24)");
            return Err(Error::Refused(text));
        }
        files::make_dir(&self.dir.join("authority"))?;
        let mut index = Index::open(&self.dir.join("authority"))?;
        if !index.entries().is_empty() {
            let text = format!("{} has its authorities already; nothing was changed", self.dir.display());
            return Err(Error::Refused(text));
        }
        let mut made = Vec::new();
        for authority in Authority::ALL {
            let (pem, key, entry) = Signer::generate(authority, now, days)?;
            files::write(&self.key_of(authority), &key.encrypted_pem(passphrase)?, SECRET)?;
            for (_, file) in AUTHORITY_FILES.iter().filter(|(whose, _)| *whose == authority) {
                files::write(&self.dir.join(file), pem.as_bytes(), PUBLIC)?;
            }
            made.push(entry);
        }
        let mut random = [0; 16];
        rand_bytes(&mut random)?;
        let group: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let group = format!("DOSELINE__BRIDGE__SHARE_GROUP=doseline-{group}\n");
        files::write(&self.dir.join(SHARE_GROUP), group.as_bytes(), SECRET)?;
        // The entries come last: until then the store counts as empty, and can be made anew.
        for entry in &made {
            index.add(entry.clone())?;
        }
        for authority in Authority::ALL {
            self.write_list(&index, authority, passphrase, now)?;
        }
        self.write_revoked_names(&index, now)?;
        Ok(made)
    }

    /// Makes the first certificate of a subject. With a signing request its key stays where it is.
    ///
    /// # Errors
    /// [`Error::Refused`] if the subject has a valid certificate, or a file of it exists.
    pub fn issue(
        &self,
        subject: &Subject,
        request: Option<&Path>,
        passphrase: &str,
        now: i64,
        days: u32,
    ) -> Result<Issued, Error> {
        let mut index = self.index()?;
        let name = &subject.name;
        if let Some(valid) = valid(&index, name, now) {
            let text = format!(
                "{name} has a valid certificate, serial {}; `doseline certs renew {name}` replaces it",
                valid.serial
            );
            return Err(Error::Refused(text));
        }
        let path = self.dir.join(subject.file());
        for ending in ["pem", "key"] {
            let path = path.with_extension(ending);
            if path.exists() && !index.entries().iter().any(|entry| entry.name == *name) {
                return Err(Error::Refused(format!(
                    "{} exists and is not of this store; move it aside",
                    path.display()
                )));
            }
        }
        self.make(&mut index, subject, request, passphrase, now, days)
    }

    /// Makes a new certificate, with a new key, for a subject that has one. The old one stays valid
    /// until its end, or until it is revoked.
    ///
    /// # Errors
    /// [`Error::Refused`] if the subject has none, or its key is elsewhere and no request is given.
    pub fn renew(
        &self,
        name: &str,
        request: Option<&Path>,
        passphrase: &str,
        now: i64,
        days: u32,
    ) -> Result<Issued, Error> {
        let mut index = self.index()?;
        let known = index.entries().iter().rev().find(|entry| entry.name == name && entry.kind != Kind::Authority);
        let known = known.ok_or_else(|| Error::Refused(unknown(name)))?.clone();
        if known.key_elsewhere && request.is_none() {
            let text = format!("the key of {name} was made elsewhere; give a new signing request (--csr)");
            return Err(Error::Refused(text));
        }
        self.make(&mut index, &known.subject(), request, passphrase, now, days)
    }

    /// Names whose newest certificate ends within a number of days, and whose key is in the store.
    pub fn ending(&self, now: i64, days: u32) -> Result<Vec<String>, Error> {
        let index = self.index()?;
        let mut names: Vec<String> = Vec::new();
        for entry in index.entries() {
            let newest = index.entries().iter().rfind(|other| other.name == entry.name && other.kind == entry.kind);
            let ends = entry.not_after <= now + i64::from(days) * 86_400;
            let is_meant = entry.kind != Kind::Authority && entry.revoked.is_none() && !entry.key_elsewhere;
            if is_meant && ends && newest == Some(entry) {
                names.push(entry.name.clone());
            }
        }
        Ok(names)
    }

    /// Revokes the valid certificates of a name, or only that with a serial number, and writes the
    /// lists.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is none.
    pub fn revoke(&self, name: &str, serial: Option<&str>, passphrase: &str, now: i64) -> Result<Revoked, Error> {
        let mut index = self.index()?;
        let entry = index.entries().iter().find(|entry| entry.name == name && entry.kind != Kind::Authority);
        let authority = entry.ok_or_else(|| Error::Refused(unknown(name)))?.authority;
        // A wrong passphrase must be noticed before the index changes.
        self.signer(authority, passphrase)?;
        let entries = index.revoke(name, serial, now)?;
        // Written even if nothing changed: an earlier attempt may have ended after the index.
        self.write_list(&index, authority, passphrase, now)?;
        self.write_revoked_names(&index, now)?;
        if entries.is_empty() {
            let which = serial.map(|serial| format!(" with serial {serial}")).unwrap_or_default();
            return Err(Error::Refused(format!(
                "{name} has no valid certificate{which}; the lists were written again"
            )));
        }
        Ok(Revoked { entries })
    }

    /// All certificates and authorities, in the order in which they were made.
    pub fn list(&self) -> Result<Vec<Entry>, Error> {
        Ok(self.index()?.entries().to_vec())
    }

    fn make(
        &self,
        index: &mut Index,
        subject: &Subject,
        request: Option<&Path>,
        passphrase: &str,
        now: i64,
        days: u32,
    ) -> Result<Issued, Error> {
        let authority = subject.authority();
        let signer = self.signer(authority, passphrase)?;
        let its_entry = entry_of(index, authority)?;
        if its_entry.not_after <= now {
            let text = format!("the authority {} has expired; make new ones in another folder", authority.name());
            return Err(Error::Refused(text));
        }
        let validity = Validity::of(now, days, its_entry);
        let path = self.dir.join(subject.file());
        let (certificate, key_path) = (path.with_extension("pem"), path.with_extension("key"));
        let (pem, entry, key) = match request {
            Some(request) => {
                let (pem, entry) = signer.issue(subject, &PublicKey::of_request(request)?, validity)?;
                (pem, Entry { key_elsewhere: true, ..entry }, None)
            }
            None => {
                let key = Key::generate()?;
                let (pem, entry) = signer.issue(subject, &key.public, validity)?;
                (pem, entry, Some(key.pem()?))
            }
        };
        index.add(entry.clone())?;
        if let Some(key) = &key {
            files::write(&key_path, key, SECRET)?;
        }
        files::write(&certificate, pem.as_bytes(), PUBLIC)?;
        Ok(Issued { entry, certificate, key: key.map(|_| key_path) })
    }

    fn index(&self) -> Result<Index, Error> {
        let dir = self.dir.join("authority");
        if !dir.join("index.jsonl").exists() {
            let text = format!("{} has no authorities; `doseline certs init` makes them", self.dir.display());
            return Err(Error::Refused(text));
        }
        Index::open(&dir)
    }

    fn key_of(&self, authority: Authority) -> PathBuf {
        self.dir.join(format!("authority/{}.key", authority.name()))
    }

    fn signer(&self, authority: Authority, passphrase: &str) -> Result<Signer, Error> {
        let file = AUTHORITY_FILES.iter().find(|(whose, _)| *whose == authority).map_or("", |(_, file)| file);
        Signer::open(authority, &self.dir.join(file), &self.key_of(authority), passphrase)
    }

    fn write_list(&self, index: &Index, authority: Authority, passphrase: &str, now: i64) -> Result<(), Error> {
        let until = entry_of(index, authority)?.not_after;
        let revoked = index.entries().iter().filter(|entry| entry.authority == authority && entry.revoked.is_some());
        let revoked: Vec<&Entry> = revoked.filter(|entry| entry.not_after > now).collect();
        let list = self.signer(authority, passphrase)?.revocation_list(&revoked, now, until)?;
        for (_, file) in LISTS.iter().filter(|(whose, _)| *whose == authority) {
            files::write(&self.dir.join(file), list.as_bytes(), PUBLIC)?;
        }
        Ok(())
    }

    fn write_revoked_names(&self, index: &Index, now: i64) -> Result<(), Error> {
        let names: String = index.revoked_names(now).into_iter().map(|name| name + "\n").collect();
        files::write(&self.dir.join(REVOKED_NAMES), names.as_bytes(), PUBLIC)
    }
}

fn entry_of(index: &Index, authority: Authority) -> Result<&Entry, Error> {
    let entry = index.entries().iter().find(|entry| entry.kind == Kind::Authority && entry.authority == authority);
    entry.ok_or_else(|| Error::Refused(format!("the index has no authority {}", authority.name())))
}

fn valid<'a>(index: &'a Index, name: &str, now: i64) -> Option<&'a Entry> {
    let entries = index.entries().iter();
    entries
        .filter(|entry| entry.kind != Kind::Authority && entry.name == name)
        .find(|entry| entry.state(now) == State::Valid)
}

fn unknown(name: &str) -> String {
    format!("{name} has no certificate; `doseline certs list` shows what there is")
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

    use openssl::x509::{X509, X509Crl};

    use super::*;

    const PASSPHRASE: &str = "sixteen bytes and more";
    const NOW: i64 = 1_800_000_000;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(&dir.path().join("certs"));
        store.init(PASSPHRASE, NOW, 3650).unwrap();
        (dir, store)
    }

    fn device(name: &str) -> Subject {
        Subject::device(Kind::Device, name).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    /// `openssl verify` of a certificate against an authority and its list, for a purpose.
    fn verifies(store: &Store, authority: &str, certificate: &Path, purpose: &str, at: i64) -> Result<(), String> {
        let dir = store.dir.join("broker");
        let (ca, list) = (dir.join(format!("{authority}-ca.pem")), dir.join(format!("{authority}.crl")));
        let mut command = Command::new("openssl");
        command.args(["verify", "-crl_check", "-purpose", purpose, "-attime", &at.to_string(), "-CAfile"]);
        let output = command.arg(ca).arg("-CRLfile").arg(list).arg(certificate).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        if output.status.success() { Ok(()) } else { Err(said) }
    }

    #[test]
    fn a_certificate_holds_for_its_purpose_and_its_time_only() {
        let (_dir, store) = store();
        let issued = store.issue(&device("acme/berlin-1/D-1"), None, PASSPHRASE, NOW, 100).unwrap();
        let broker = Subject::broker(vec!["mosquitto".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let broker = store.issue(&broker, None, PASSPHRASE, NOW, 100).unwrap();
        let bridge = store.issue(&Subject::bridge(), None, PASSPHRASE, NOW, 100).unwrap();
        let check = |issued: &Issued, authority: &str, purpose: &str, at: i64, expected: Option<&str>| {
            let found = verifies(&store, authority, &issued.certificate, purpose, at);
            match (&found, expected) {
                (Ok(()), None) => {}
                (Err(said), Some(fault)) if said.contains(fault) => {}
                _ => panic!("{} {purpose}: {found:?}, not {expected:?}", issued.entry.name),
            }
        };
        check(&issued, "devices", "sslclient", NOW, None);
        check(&issued, "devices", "sslserver", NOW, Some("purpose"));
        check(&issued, "devices", "sslclient", NOW + 101 * 86_400, Some("expired"));
        check(&issued, "devices", "sslclient", NOW - 3_600, Some("not yet valid"));
        check(&issued, "broker", "sslclient", NOW, Some("unable to get"));
        check(&broker, "broker", "sslserver", NOW, None);
        check(&broker, "broker", "sslclient", NOW, Some("purpose"));
        check(&bridge, "broker", "sslclient", NOW, None);
        check(&bridge, "devices", "sslclient", NOW, Some("unable to get"));
        let parsed = X509::from_pem(&fs::read(&issued.certificate).unwrap()).unwrap();
        let name = parsed.subject_name().entries().next().unwrap().data().to_string().unwrap();
        assert_eq!(name, "acme/berlin-1/D-1");
    }

    /// The authority of the devices cannot make a server's certificate, even if its key is misused.
    #[test]
    fn the_authority_of_the_devices_makes_no_certificate_of_a_host() {
        let (_dir, store) = store();
        let signer = store.signer(Authority::Devices, PASSPHRASE).unwrap();
        let hosts = vec!["mosquitto".to_owned()];
        let forged = Subject { kind: Kind::Role, name: "forged".to_owned(), hosts };
        let validity = Validity::of(NOW, 100, entry_of(&store.index().unwrap(), Authority::Devices).unwrap());
        let (pem, _) = signer.issue(&forged, &Key::generate().unwrap().public, validity).unwrap();
        let path = store.dir.join("forged.pem");
        fs::write(&path, pem).unwrap();
        let said = verifies(&store, "devices", &path, "sslclient", NOW).unwrap_err();
        assert!(said.contains("excluded subtree"), "{said}");
    }

    #[test]
    fn names_of_full_length_are_signed() {
        let (_dir, store) = store();
        let id = "x".repeat(64);
        let issued = store.issue(&device(&format!("{id}/{id}/{id}")), None, PASSPHRASE, NOW, 100).unwrap();
        verifies(&store, "devices", &issued.certificate, "sslclient", NOW).unwrap();
    }

    #[test]
    fn a_revoked_certificate_is_refused_and_its_name_is_listed() {
        let (_dir, store) = store();
        let first = store.issue(&device("acme/berlin-1/D-1"), None, PASSPHRASE, NOW, 100).unwrap();
        let other = store.issue(&device("acme/berlin-1/D-2"), None, PASSPHRASE, NOW, 100).unwrap();
        let old = store.dir.join("old.pem");
        fs::copy(&first.certificate, &old).unwrap();
        let second = store.renew("acme/berlin-1/D-1", None, PASSPHRASE, NOW + 1, 100).unwrap();
        let revoked = store.revoke("acme/berlin-1/D-1", Some(&first.entry.serial), PASSPHRASE, NOW + 2).unwrap();
        assert_eq!(revoked.entries.len(), 1);
        assert!(verifies(&store, "devices", &old, "sslclient", NOW + 3).unwrap_err().contains("revoked"));
        verifies(&store, "devices", &second.certificate, "sslclient", NOW + 3).unwrap();
        verifies(&store, "devices", &other.certificate, "sslclient", NOW + 3).unwrap();
        let names = || fs::read_to_string(store.dir.join(REVOKED_NAMES)).unwrap();
        assert_eq!(names(), "acme/berlin-1/D-1\n");
        // The list holds until the end of its authority: a broker that finds an expired one refuses
        // everybody.
        verifies(&store, "devices", &other.certificate, "sslclient", NOW + 99 * 86_400).unwrap();
        store.revoke("acme/berlin-1/D-1", None, PASSPHRASE, NOW + 4).unwrap();
        assert!(
            verifies(&store, "devices", &second.certificate, "sslclient", NOW + 5).unwrap_err().contains("revoked")
        );
        let list = X509Crl::from_pem(&fs::read(store.dir.join("broker/devices.crl")).unwrap()).unwrap();
        assert_eq!(list.get_revoked().unwrap().len(), 2);
        let said = store.revoke("acme/berlin-1/D-1", None, PASSPHRASE, NOW + 6).unwrap_err().to_string();
        assert!(said.contains("no valid certificate"), "{said}");
        // An expired certificate needs no entry any more.
        store.revoke("acme/berlin-1/D-2", None, PASSPHRASE, NOW + 7).unwrap();
        assert!(store.revoke("acme/berlin-1/D-2", None, PASSPHRASE, NOW + 200 * 86_400).is_err());
        assert_eq!(names(), "");
    }

    #[test]
    fn keys_are_for_their_owner_and_authorities_need_the_passphrase() {
        let (_dir, store) = store();
        let issued = store.issue(&device("acme/berlin-1/D-1"), None, PASSPHRASE, NOW, 100).unwrap();
        let key = issued.key.unwrap();
        assert_eq!((mode(&key), mode(&issued.certificate), mode(&store.dir)), (0o600, 0o644, 0o700));
        for authority in Authority::ALL {
            let path = store.key_of(authority);
            assert_eq!(mode(&path), 0o600);
            assert!(fs::read_to_string(&path).unwrap().contains("BEGIN ENCRYPTED PRIVATE KEY"));
        }
        for (what, failed) in [
            ("issue", store.issue(&device("acme/b/c"), None, "another passphrase", NOW, 1).err()),
            ("renew", store.renew("acme/berlin-1/D-1", None, "another passphrase", NOW, 1).err()),
            ("revoke", store.revoke("acme/berlin-1/D-1", None, "another passphrase", NOW).err()),
        ] {
            let said = failed.unwrap().to_string();
            assert!(said.contains("devices.key") && said.contains("does not open"), "{what}: {said}");
        }
        assert_eq!(store.list().unwrap().len(), 4, "nothing was added or revoked");
        assert_eq!(store.list().unwrap()[3].revoked, None);
    }

    #[test]
    fn nothing_is_overwritten_and_a_renewed_file_keeps_its_permissions() {
        let (_dir, store) = store();
        assert!(store.init(PASSPHRASE, NOW, 10).unwrap_err().to_string().contains("already"));
        let subject = device("acme/berlin-1/D-1");
        let issued = store.issue(&subject, None, PASSPHRASE, NOW, 100).unwrap();
        let said = store.issue(&subject, None, PASSPHRASE, NOW, 100).unwrap_err().to_string();
        assert!(said.contains("certs renew acme/berlin-1/D-1"), "{said}");
        let key = issued.key.unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        let before = fs::read(&key).unwrap();
        store.renew("acme/berlin-1/D-1", None, PASSPHRASE, NOW, 100).unwrap();
        assert_eq!(mode(&key), 0o640);
        assert_ne!(fs::read(&key).unwrap(), before);
        let stranger = store.dir.join("devices/acme/berlin-1/D-9.key");
        fs::write(&stranger, "mine").unwrap();
        let said = store.issue(&device("acme/berlin-1/D-9"), None, PASSPHRASE, NOW, 100).unwrap_err().to_string();
        assert!(said.contains("D-9.key exists"), "{said}");
        assert!(
            store.renew("acme/berlin-1/D-8", None, PASSPHRASE, NOW, 1).unwrap_err().to_string().contains("certs list")
        );
    }

    #[test]
    fn what_is_missing_or_short_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        assert!(store.list().unwrap_err().to_string().contains("certs init"));
        assert!(store.init("short", NOW, 10).unwrap_err().to_string().contains("16 are needed"));
        assert!(store.list().is_err());
    }

    #[test]
    fn a_key_of_the_device_stays_there() {
        let (dir, store) = store();
        let request = dir.path().join("device.csr");
        let openssl = |curve: &str| {
            let mut command = Command::new("openssl");
            command.args(["req", "-new", "-newkey", "ec", "-pkeyopt", &format!("ec_paramgen_curve:{curve}"), "-nodes"]);
            command.args(["-subj", "/CN=doseline-bridge", "-keyout"]).arg(dir.path().join("device.key"));
            assert!(command.arg("-out").arg(&request).output().unwrap().status.success());
        };
        openssl("P-256");
        let issued = store.issue(&device("acme/berlin-1/D-1"), Some(&request), PASSPHRASE, NOW, 100).unwrap();
        assert!(issued.key.is_none() && issued.entry.key_elsewhere);
        verifies(&store, "devices", &issued.certificate, "sslclient", NOW).unwrap();
        let parsed = X509::from_pem(&fs::read(&issued.certificate).unwrap()).unwrap();
        let name = parsed.subject_name().entries().next().unwrap().data().to_string().unwrap();
        assert_eq!(name, "acme/berlin-1/D-1", "the name in the request does not count");
        let said = store.renew("acme/berlin-1/D-1", None, PASSPHRASE, NOW, 1).unwrap_err().to_string();
        assert!(said.contains("--csr"), "{said}");
        openssl("P-384");
        let said = store.renew("acme/berlin-1/D-1", Some(&request), PASSPHRASE, NOW, 1).unwrap_err().to_string();
        assert!(said.contains("P-256"), "{said}");
        fs::write(&request, "no request").unwrap();
        let said = store.renew("acme/berlin-1/D-1", Some(&request), PASSPHRASE, NOW, 1).unwrap_err().to_string();
        assert!(said.contains("no certificate signing request"), "{said}");
    }

    #[test]
    fn certificates_that_end_soon_are_found_once() {
        let (_dir, store) = store();
        for (name, days) in [("a/b/short", 10), ("a/b/long", 100), ("a/b/renewed", 10)] {
            store.issue(&device(name), None, PASSPHRASE, NOW, days).unwrap();
        }
        store.renew("a/b/renewed", None, PASSPHRASE, NOW, 100).unwrap();
        assert_eq!(store.ending(NOW, 30).unwrap(), ["a/b/short"]);
        // Nothing outlives its authority.
        let issued = store.issue(&device("a/b/late"), None, PASSPHRASE, NOW + 3_600 * 86_400, 900).unwrap();
        assert_eq!(issued.entry.not_after, NOW + 3_650 * 86_400);
        let said =
            store.issue(&device("a/b/too-late"), None, PASSPHRASE, NOW + 3_651 * 86_400, 9).unwrap_err().to_string();
        assert!(said.contains("expired"), "{said}");
    }
}
