//! The past of a demonstration, stored beside the outboxes so that a data directory gets its past
//! once.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use crate::{error::Error, store};

/// Name of the file. It holds, in decimal, the end of the past in us since 1970 and the number of
/// its devices.
const NAME: &str = "past";

/// The past of one data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Past {
    /// End of the past, us since 1970.
    pub ended_unix_us: i64,
    /// Number of devices in it, from the first start. Later devices did not exist when hand-pieces
    /// were sterilized.
    pub devices: u32,
}

impl Past {
    fn parse(text: &str, now_us: i64) -> Option<Self> {
        let (ended, devices) = text.trim().split_once(' ')?;
        let past = Self { ended_unix_us: ended.parse().ok()?, devices: devices.parse().ok()? };
        // A clock that was set back must not stop the fleet.
        let past = Self { ended_unix_us: past.ended_unix_us.min(now_us), ..past };
        (past.devices > 0 && past.ended_unix_us > 0).then_some(past)
    }
}

/// The past of a data directory. A new directory gets a past for `devices` devices that ends now.
/// `None` for a directory with outboxes and without a past: another kind of fleet used it.
///
/// # Errors
/// [`Error::File`].
pub(super) fn of(dir: &Path, devices: u32, now_us: i64) -> Result<Option<Past>, Error> {
    let path = dir.join(NAME);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let remedy = "not a time (us since 1970) and a number of devices; delete this folder of the simulator, and nothing else, to begin anew";
            let unreadable = || Error::file("read", &path)(io::Error::new(io::ErrorKind::InvalidData, remedy));
            Ok(Some(Past::parse(&text, now_us).ok_or_else(unreadable)?))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file("read", &path)(error)),
        Err(_) if store::exists(dir) => Ok(None),
        Err(_) => {
            let past = Past { ended_unix_us: now_us, devices };
            write(dir, &path, past).map_err(Error::file("write", &path))?;
            Ok(Some(past))
        }
    }
}

/// Writes the file atomically, before the first event is made.
fn write(dir: &Path, path: &Path, past: Past) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let draft = path.with_extension("new");
    let mut file = File::create(&draft)?;
    writeln!(file, "{} {}", past.ended_unix_us, past.devices)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_past() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("simulator");
        let first = Some(Past { ended_unix_us: 1_000, devices: 5 });
        assert_eq!(of(&dir, 5, 1_000).unwrap(), first);
        assert_eq!(of(&dir, 25, 2_000).unwrap(), first, "the second start knows the first");
    }

    #[test]
    fn outboxes_of_another_fleet_get_no_past() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("outbox-000001"), "").unwrap();
        assert_eq!(of(dir.path(), 5, 1_000).unwrap(), None);
        assert!(!dir.path().join(NAME).exists());
    }

    #[test]
    fn a_clock_that_was_set_back_ends_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), "2001 5").unwrap();
        assert_eq!(of(dir.path(), 5, 2_000).unwrap(), Some(Past { ended_unix_us: 2_000, devices: 5 }));
    }

    #[test]
    fn what_is_no_time_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for wrong in ["", "soon", "1000", "-1 5", "0 5", "1000 0", "1000 many", "1000 5 5"] {
            fs::write(dir.path().join(NAME), wrong).unwrap();
            let said = of(dir.path(), 5, 2_000).unwrap_err().to_string();
            assert!(
                said.contains("past: ") && said.contains("delete this folder of the simulator"),
                "{wrong:?}: {said}"
            );
        }
    }
}
