//! Paths of engines and binaries.

use std::path::{Path, PathBuf};

/// `engines/NAME` in the cache folder.
pub fn engine(name: &str) -> PathBuf {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    let path = cache.expect("set HOME or XDG_CACHE_HOME to an absolute path").join("doseline/engines").join(name);
    assert!(path.exists(), "{} is not there: run `cargo xtask engines`", path.display());
    path
}

/// The ClickHouse library: the one that `DOSELINE_LIBCHDB` names, or the fetched one.
pub fn libchdb() -> PathBuf {
    std::env::var_os("DOSELINE_LIBCHDB")
        .map(PathBuf::from)
        .unwrap_or_else(|| engine("chdb-26.7.3-stable.1").join("libchdb.so"))
}

/// A binary of the workspace, built beside this test.
pub fn binary(name: &str, package: &str) -> PathBuf {
    let test = std::env::current_exe().expect("know the path of this test");
    // target/PROFILE/deps/this-test, or target/PROFILE/this-program
    let folder = test.parent().expect("a file stands in a folder");
    let profile = if folder.ends_with("deps") { folder.parent().expect("below target") } else { folder };
    let path = profile.join(name);
    assert!(
        path.exists(),
        "{} is not built: run `cargo build --release --package {package} --bins`, or all by `cargo xtask test`",
        path.display()
    );
    path
}

/// A file of the checkout, by its path in it.
pub fn checkout(path: &str) -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&manifest).parent().expect("this package stands in the checkout").join(path)
}
