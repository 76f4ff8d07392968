//! Files that are written as a whole.

use std::{
    fs::{self, DirBuilder, File},
    io::{ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use crate::error::Error;

/// Permissions of a key.
pub const SECRET: u32 = 0o600;
/// Permissions of a file that holds no secret.
pub const PUBLIC: u32 = 0o644;

/// Makes a folder and those above it. Only its owner may enter it.
pub fn make_dir(path: &Path) -> Result<(), Error> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| Error::File { what: "create", path: path.to_owned(), source })
}

/// Writes a file. If it exists, it is replaced and keeps its permissions.
pub fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    let failed = |what| move |source| Error::File { what, path: path.to_owned(), source };
    if let Some(dir) = path.parent() {
        make_dir(dir)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    // A process that was killed while it wrote may have left one.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed("replace")(error)),
        _ => {}
    }
    let written = || {
        let mut file = File::options().write(true).create_new(true).mode(mode).open(&new)?;
        if let Ok(old) = fs::metadata(path) {
            file.set_permissions(old.permissions())?;
        }
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    written().map_err(failed("write"))
}

/// The content of a file.
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::File { what: "read", path: path.to_owned(), source })
}
