//! When the past of a demonstration ended: kept beside the outboxes, so that a data directory tells its past once.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use crate::{error::Error, store};

/// Name of the file: when the past ended, us since 1970, in decimal.
const NAME: &str = "past";

/// When the past of a data directory ended, us since 1970. A new directory's ends now. None for a directory that has
/// outboxes and no past: it was used before for something else than a demonstration.
///
/// # Errors
/// [`Error::File`].
pub(super) fn end(dir: &Path, now_us: i64) -> Result<Option<i64>, Error> {
    let path = dir.join(NAME);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let end_us = text.trim().parse::<i64>().ok().filter(|end_us| (1..=now_us).contains(end_us));
            let remedy = "not a time in the past, us since 1970; delete the folder it is in to begin anew";
            let unreadable = || Error::file("read", &path)(io::Error::new(io::ErrorKind::InvalidData, remedy));
            Ok(Some(end_us.ok_or_else(unreadable)?))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file("read", &path)(error)),
        Err(_) if store::exists(dir) => Ok(None),
        Err(_) => {
            write(dir, &path, now_us).map_err(Error::file("write", &path))?;
            Ok(Some(now_us))
        }
    }
}

/// Writes it whole or not at all, before the first event is made.
fn write(dir: &Path, path: &Path, end_us: i64) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let draft = path.with_extension("new");
    let mut file = File::create(&draft)?;
    writeln!(file, "{end_us}")?;
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
        assert_eq!(end(&dir, 1_000).unwrap(), Some(1_000));
        assert_eq!(end(&dir, 2_000).unwrap(), Some(1_000), "the second start knows the first");
    }

    #[test]
    fn outboxes_of_another_fleet_get_no_past() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("outbox-000001"), "").unwrap();
        assert_eq!(end(dir.path(), 1_000).unwrap(), None);
        assert!(!dir.path().join(NAME).exists());
    }

    #[test]
    fn what_is_no_time_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for wrong in ["", "soon", "-1", "0", "2001"] {
            fs::write(dir.path().join(NAME), wrong).unwrap();
            let said = end(dir.path(), 2_000).unwrap_err().to_string();
            assert!(said.contains("past: ") && said.contains("delete the folder"), "{wrong:?}: {said}");
        }
    }
}
