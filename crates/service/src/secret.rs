//! Passwords: never shown, given as a value or as a file.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// A text that no log line and no error shows.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A password, or the file whose first line it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    Value(Secret),
    File(PathBuf),
}

impl Password {
    /// The password of a section that has the keys `password` and `password_file`; none if both are
    /// absent.
    pub fn of(value: Option<&Secret>, file: Option<&Path>) -> Option<Self> {
        file.map(|path| Self::File(path.to_owned())).or_else(|| value.cloned().map(Self::Value))
    }

    /// The password. A file is read at each call, so it can be renewed without a restart.
    ///
    /// # Errors
    /// The file cannot be read; the error names it.
    pub fn read(&self) -> io::Result<Secret> {
        match self {
            Self::Value(secret) => Ok(secret.clone()),
            Self::File(path) => {
                let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
                let text = fs::read_to_string(path).map_err(named)?;
                Ok(Secret::new(text.lines().next().unwrap_or_default()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let password = Password::Value(Secret::new("hunter2"));
        assert_eq!(format!("{password:?}"), "Value(***)");
    }

    #[test]
    fn a_file_wins_and_its_first_line_is_the_password() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        fs::write(&path, "pass word \r\nnot this\n").unwrap();
        let password = Password::of(Some(&Secret::new("other")), Some(&path)).unwrap();
        assert_eq!(password.read().unwrap().reveal(), "pass word ");
        fs::remove_file(&path).unwrap();
        assert!(password.read().unwrap_err().to_string().starts_with(&path.display().to_string()));
        assert!(Password::of(None, None).is_none());
    }
}
