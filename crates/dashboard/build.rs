//! Tells cargo when the embedded page has changed.
//!
//! `cargo xtask web` writes `web/dist`. A checkout without it compiles: the port then serves a page
//! that says how to get it.

use std::path::Path;

fn main() {
    // Cargo takes a path that does not exist for changed in every build.
    let watched = ["web/dist", "web", "src"].into_iter().find(|path| Path::new(path).exists());
    println!("cargo:rerun-if-changed={}", watched.unwrap_or("build.rs"));
}
