//! The file of tokens: what each token may do, and the hash by which it is recognised.
//!
//! A token is `dsl_ID_SECRET`. The secret has 256 random bits, so its SHA-256 cannot be turned
//! back, and a slow hash would add nothing. The file holds no secret.
//!
//! Every change replaces the file as a whole, under a lock beside it. A reader sees the old file or
//! the new one.

use std::{
    fmt,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Mutex,
};

use serde::{Deserialize, Serialize};
use service::{files::FileState, lock};
use sha2::{Digest as _, Sha256};
use warehouse::sight::Sight;

/// Most tenants of one token. Their names go with every query.
pub const TENANTS_MAX: usize = 32;
/// Longest name of a manufacturer, bytes.
const MANUFACTURER_BYTES_MAX: usize = 128;
/// Longest tenant, as in topics.
const TENANT_BYTES_MAX: usize = 64;
/// Begin of every token, by which a scanner for secrets can find one.
const PREFIX: &str = "dsl_";

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads everything of its tenants but raw payloads.
    Viewer,
    /// As a viewer, and reads the raw payloads of the quarantine; writes.
    Operator,
    /// Reads the views for manufacturers, for its own units.
    Manufacturer,
    /// Reads everything; writes.
    Admin,
}

impl Role {
    const ALL: [Self; 4] = [Self::Viewer, Self::Operator, Self::Manufacturer, Self::Admin];

    /// The role with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.to_string() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Manufacturer => "manufacturer",
            Self::Admin => "admin",
        })
    }
}

/// A token as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Name of the token in logs and lists, 8 hex digits.
    pub id: String,
    /// SHA-256 of the secret, 64 hex digits.
    pub hash: String,
    pub role: Role,
    /// The tenants of a viewer or an operator; empty for the others.
    pub tenants: Vec<String>,
    /// The manufacturer of a token with that role; empty for the others.
    pub manufacturer: String,
    /// What the token is for, in words.
    pub note: String,
    /// When it was made, s since 1970.
    pub created_s: u64,
    /// When it ends, s since 1970.
    pub expires_s: u64,
}

/// Why a token cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(pub(super) String);

/// Why the file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {source}; serve.tokens_file names a file that only its owner may read", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: others may read or write it (mode {mode:03o}); run `chmod 600 {}`", path.display(), path.display())]
    Mode { path: PathBuf, mode: u32 },
    #[error("{}: {fault}; restore it, or delete it and create new tokens", path.display())]
    Content { path: PathBuf, fault: String },
}

impl Token {
    /// A new token, and its text. The text is in no other place.
    ///
    /// # Errors
    /// Role, tenants and manufacturer do not fit together.
    pub fn create(
        role: Role,
        tenants: Vec<String>,
        manufacturer: String,
        note: String,
        now_s: u64,
        expires_s: u64,
    ) -> Result<(Self, String), Unfit> {
        let id = format!("{:08x}", rand::random::<u32>());
        let secret = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        let hash = hex(&hash(&secret));
        let text = format!("{PREFIX}{id}_{secret}");
        let token = Self { id, hash, role, tenants, manufacturer, note, created_s: now_s, expires_s };
        token.fit()?;
        Ok((token, text))
    }

    /// What a person may do who signed in with an OpenID provider. It stands in no file, and no
    /// text opens it.
    ///
    /// # Errors
    /// As [`Token::create`].
    pub(super) fn of_person(
        id: String,
        role: Role,
        tenants: Vec<String>,
        manufacturer: String,
        created_s: u64,
        expires_s: u64,
    ) -> Result<Self, Unfit> {
        let (hash, note) = (String::new(), String::new());
        let person = Self { id, hash, role, tenants, manufacturer, note, created_s, expires_s };
        person.fit()?;
        Ok(person)
    }

    fn fit(&self) -> Result<(), Unfit> {
        let unfit = |text: String| Err(Unfit(text));
        let (role, tenants, manufacturer) = (self.role, &self.tenants, &self.manufacturer);
        match role {
            Role::Viewer | Role::Operator if tenants.is_empty() => {
                return unfit(format!("a token of role {role} needs a tenant: --tenant NAME"));
            }
            Role::Manufacturer if manufacturer.trim().is_empty() => {
                return unfit("a token of role manufacturer needs --manufacturer NAME, as in the registry".to_owned());
            }
            Role::Manufacturer | Role::Admin if !tenants.is_empty() => {
                return unfit(format!("a token of role {role} has no tenant: leave out --tenant"));
            }
            Role::Viewer | Role::Operator | Role::Admin if !manufacturer.is_empty() => {
                return unfit(format!("a token of role {role} has no manufacturer: leave out --manufacturer"));
            }
            _ => {}
        }
        if tenants.len() > TENANTS_MAX {
            return unfit(format!("{} tenants; a token has at most {TENANTS_MAX}", tenants.len()));
        }
        let is_id = |text: &str| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
            text.len() <= TENANT_BYTES_MAX
                && text.bytes().all(is_plain)
                && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        };
        if let Some(tenant) = tenants.iter().find(|tenant| !is_id(tenant)) {
            return unfit(format!("tenant {tenant:?} must match [A-Za-z0-9][A-Za-z0-9_-]{{0,63}}"));
        }
        if manufacturer.len() > MANUFACTURER_BYTES_MAX || manufacturer.chars().any(char::is_control) {
            let limit = MANUFACTURER_BYTES_MAX;
            return unfit(format!("manufacturer {manufacturer:?} must be at most {limit} bytes on one line"));
        }
        Ok(())
    }

    /// What a holder may see.
    pub fn sight(&self) -> Sight {
        match self.role {
            Role::Viewer | Role::Operator => Sight::Tenants(self.tenants.clone()),
            Role::Manufacturer => Sight::Manufacturer(self.manufacturer.clone()),
            Role::Admin => Sight::All,
        }
    }
}

/// Reads a file of tokens. A file that does not exist holds none.
///
/// # Errors
/// The file cannot be read, others may read it, or it is damaged.
pub fn read(path: &Path) -> Result<Vec<Token>, Error> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mode = file.metadata().map_err(failed)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Error::Mode { path: path.to_owned(), mode });
    }
    let damaged = |fault: String| Error::Content { path: path.to_owned(), fault };
    let text = io::read_to_string(file).map_err(failed)?;
    let tokens: Vec<Token> = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
    for (index, token) in tokens.iter().enumerate() {
        token.fit().map_err(|Unfit(fault)| damaged(format!("token {}: {fault}", token.id)))?;
        if tokens[..index].iter().any(|other| other.id == token.id) {
            return Err(damaged(format!("token {} stands there twice", token.id)));
        }
    }
    Ok(tokens)
}

/// Changes the file of tokens and returns what `change` returns. Two changes at once wait for each
/// other.
///
/// # Errors
/// As [`read`], or the file cannot be written.
pub fn update<T>(path: &Path, change: impl FnOnce(&mut Vec<Token>) -> T) -> Result<T, Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    };
    let beside = |extension: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(extension);
        PathBuf::from(name)
    };
    let private = |path: &Path| {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).open(path)
    };
    let lock_path = beside(".lock");
    let held = private(&lock_path).map_err(failed(&lock_path))?;
    held.lock().map_err(failed(&lock_path))?;
    let mut tokens = read(path)?;
    let outcome = change(&mut tokens);
    let new = beside(".new");
    let mut file = private(&new).map_err(failed(&new))?;
    // The file may have been left by a change that was killed, with another mode.
    file.set_permissions(Permissions::from_mode(0o600)).map_err(failed(&new))?;
    let text = serde_json::to_string_pretty(&tokens).map_err(|error| failed(&new)(error.into()))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed(&new))?;
    fs::rename(&new, path).map_err(failed(path))?;
    Ok(outcome)
}

/// The tokens of a file, which are read again when the file changes.
#[derive(Debug)]
pub struct Tokens {
    path: PathBuf,
    last: Mutex<(Option<FileState>, Vec<Token>)>,
}

/// Why nobody gets in with a text.
#[derive(Debug)]
pub enum Refused {
    /// It is no token that is valid now.
    Unknown,
    /// The file of tokens cannot be used.
    File(Error),
}

impl Tokens {
    /// The tokens of a file.
    ///
    /// # Errors
    /// As [`read`].
    pub fn open(path: PathBuf) -> Result<Self, Error> {
        let tokens = Self { path, last: Mutex::default() };
        tokens.current()?;
        Ok(tokens)
    }

    /// Whether the file holds no token that is valid now.
    pub fn is_empty(&self, now_s: u64) -> bool {
        self.current().is_ok_and(|tokens| tokens.iter().all(|token| token.expires_s <= now_s))
    }

    /// The token with this text.
    ///
    /// # Errors
    /// There is none, it has expired, or the file cannot be used.
    pub fn check(&self, text: &str, now_s: u64) -> Result<Token, Refused> {
        let (id, secret) = text.strip_prefix(PREFIX).and_then(|text| text.split_once('_')).ok_or(Refused::Unknown)?;
        let token = self.valid(id, now_s)?;
        if is_same(token.hash.as_bytes(), hex(&hash(secret)).as_bytes()) { Ok(token) } else { Err(Refused::Unknown) }
    }

    /// The token with this id, for a log-in that has shown its text before.
    ///
    /// # Errors
    /// As [`Tokens::check`].
    pub fn valid(&self, id: &str, now_s: u64) -> Result<Token, Refused> {
        let tokens = self.current().map_err(Refused::File)?;
        tokens.into_iter().find(|token| token.id == id && token.expires_s > now_s).ok_or(Refused::Unknown)
    }

    fn current(&self) -> Result<Vec<Token>, Error> {
        let state = FileState::of(&self.path);
        let mut last = lock(&self.last);
        if state.is_none() || last.0 != state {
            // A file that cannot be read lets nobody in: a revoked token must not live on.
            last.0 = None;
            last.1 = read(&self.path)?;
            last.0 = state;
        }
        Ok(last.1.clone())
    }
}

/// SHA-256 of a secret.
pub fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// Hex digits of bytes.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares in a time that depends on the lengths alone.
pub(super) fn is_same(left: &[u8], right: &[u8]) -> bool {
    let differing = left.iter().zip(right).fold(0, |differing, (left, right)| differing | (left ^ right));
    left.len() == right.len() && std::hint::black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn viewer(tenant: &str, expires_s: u64) -> (Token, String) {
        Token::create(Role::Viewer, vec![tenant.to_owned()], String::new(), String::new(), 100, expires_s).unwrap()
    }

    #[test]
    fn a_token_is_known_until_it_expires_or_is_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.json");
        let tokens = Tokens::open(path.clone()).unwrap();
        assert!(tokens.is_empty(100));
        let (token, text) = viewer("acme", 200);
        update(&path, |tokens| tokens.push(token.clone())).unwrap();
        assert!(!fs::read_to_string(&path).unwrap().contains(text.rsplit_once('_').unwrap().1));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(tokens.check(&text, 199).unwrap(), token);
        assert!(!tokens.is_empty(199) && tokens.is_empty(200));
        assert!(matches!(tokens.check(&text, 200), Err(Refused::Unknown)), "it has expired");
        for wrong in ["", "dsl_", "dsl_x", &text[..text.len() - 1], &format!("{text}0"), &text.to_uppercase()] {
            assert!(matches!(tokens.check(wrong, 100), Err(Refused::Unknown)), "{wrong}");
        }
        let (other, other_text) = viewer("other", 200);
        update(&path, |tokens| tokens.push(other.clone())).unwrap();
        let mixed = format!("dsl_{}_{}", other.id, text.rsplit_once('_').unwrap().1);
        assert!(matches!(tokens.check(&mixed, 100), Err(Refused::Unknown)), "the secret of another token");
        update(&path, |tokens| tokens.retain(|known| known.id != token.id)).unwrap();
        assert!(matches!(tokens.check(&text, 100), Err(Refused::Unknown)), "it was revoked");
        assert_eq!(tokens.check(&other_text, 100).unwrap(), other);
    }

    #[test]
    fn a_file_that_others_may_read_or_that_is_damaged_lets_nobody_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.json");
        let (token, text) = viewer("acme", 200);
        update(&path, |tokens| tokens.push(token.clone())).unwrap();
        let tokens = Tokens::open(path.clone()).unwrap();
        let refusal = |said: &str| {
            let Err(Refused::File(error)) = tokens.check(&text, 100) else { panic!("let in") };
            assert!(error.to_string().contains(said), "{error}");
        };
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        refusal("chmod 600");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        tokens.check(&text, 100).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        for (bad, said) in [
            (good.replace("\"viewer\"", "\"owner\""), "owner"),
            (good.replace("\"viewer\"", "\"admin\""), "has no tenant"),
            (good.replace("acme", "it's"), "must match"),
            (good.replace(']', ""), "expected"),
            (good.replace("\"hash\"", "\"hush\""), "hush"),
            (format!("[{0}, {0}]", good.trim().trim_start_matches('[').trim_end_matches(']')), "twice"),
        ] {
            fs::write(&path, bad).unwrap();
            refusal(said);
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(tokens.check(&text, 100), Err(Refused::Unknown)));
    }

    #[test]
    fn role_tenants_and_manufacturer_fit_together() {
        let check = |role, tenants: &[&str], manufacturer: &str, said: Option<&str>| {
            let tenants = tenants.iter().map(|tenant| (*tenant).to_owned()).collect();
            let made = Token::create(role, tenants, manufacturer.to_owned(), String::new(), 0, 1);
            match said {
                None => drop(made.unwrap()),
                Some(said) => assert!(made.unwrap_err().to_string().contains(said)),
            }
        };
        check(Role::Viewer, &["a", "b"], "", None);
        check(Role::Operator, &[], "", Some("--tenant NAME"));
        check(Role::Viewer, &["a b"], "", Some("must match"));
        check(Role::Viewer, &["a"], "maker", Some("leave out --manufacturer"));
        check(Role::Manufacturer, &[], "A maker's name", None);
        check(Role::Manufacturer, &[], " ", Some("--manufacturer NAME"));
        check(Role::Manufacturer, &["a"], "maker", Some("leave out --tenant"));
        check(Role::Manufacturer, &[], "two\nlines", Some("one line"));
        check(Role::Admin, &[], "", None);
        check(Role::Admin, &["a"], "", Some("leave out --tenant"));
        check(Role::Viewer, &["a"; TENANTS_MAX + 1], "", Some("at most 32"));
    }

    #[test]
    fn changes_at_once_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.json");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| update(&path, |tokens| tokens.push(viewer("acme", 200).0)).unwrap());
            }
        });
        assert_eq!(read(&path).unwrap().len(), 8);
    }
}
