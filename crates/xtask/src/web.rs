//! `cargo xtask web`: builds the web page, which `crates/dashboard` embeds.
//!
//! The page is a project of npm in `crates/dashboard/web`. It is built only when one of its files
//! has changed since the last build.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::progress::Amount;
use crate::steps::{Step, Steps};
use crate::{cache, command, system};

/// Oldest Node that builds the page.
const NODE_MIN: u32 = 18;
/// Hash of the files that a build was made from, in the folder of the built page.
const BUILT_FROM: &str = ".built-from";
/// Hash of the lock file that packages were installed from, in their folder.
const INSTALLED_FROM: &str = ".installed-from";
/// Puts a compressed copy of each built file beside it, which the dashboard sends. Smaller files
/// gain nothing.
const COMPRESS: &str = "
const fs = require('fs'), path = require('path'), zlib = require('zlib');
const compress = folder => {
  for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
    const name = path.join(folder, entry.name);
    if (entry.isDirectory()) { compress(name); continue; }
    if (!/\\.(css|html|js|json|svg|txt|webmanifest)$/.test(name)) continue;
    const text = fs.readFileSync(name);
    if (text.length < 1024) continue;
    const most = { [zlib.constants.BROTLI_PARAM_QUALITY]: 11, [zlib.constants.BROTLI_PARAM_SIZE_HINT]: text.length };
    fs.writeFileSync(name + '.br', zlib.brotliCompressSync(text, { params: most }));
    fs.writeFileSync(name + '.gz', zlib.gzipSync(text, { level: 9 }));
  }
};
compress('dist');
";

/// `cargo xtask web`
pub fn command() -> Result<()> {
    let mut steps = Steps::new(2);
    steps.run("system packages", |step| system::install(step, system::FOR_WEB))?;
    steps.run("page", build)
}

/// Builds the page if it can be built here. Without it doseline does everything but show it.
pub fn build_if_possible(step: &mut Step) -> Result<()> {
    if let Err(error) = build(step) {
        step.say(&format!(
            "xtask: the page was not built, so doseline goes on with the page of the last build, or without one: \
             {error:#}"
        ));
    }
    Ok(())
}

/// Builds the page unless it is built from the same files already.
pub fn build(step: &mut Step) -> Result<()> {
    let folder = command::checkout()?.join("crates/dashboard/web");
    let from = digest(&folder)?;
    let marker = folder.join("dist").join(BUILT_FROM);
    if fs::read_to_string(&marker).is_ok_and(|built| built == from) {
        return Ok(());
    }
    check_node(&command::read(Command::new("node").arg("--version")).context("install Node 18 or newer, with npm")?)?;
    install(step, &folder)?;
    step.watch("build the page with npm", Amount::default, || {
        command::read(npm(&folder).args(["run", "build"]))?;
        command::read(Command::new("node").args(["--eval", COMPRESS]).current_dir(&folder))
    })?;
    cache::write(&marker, &from)
}

/// Checks the types of the page, and runs the tests of its charts.
pub fn check() -> Result<()> {
    let folder = command::checkout()?.join("crates/dashboard/web");
    command::run(npm(&folder).args(["run", "--silent", "check"]))?;
    command::run(npm(&folder).args(["run", "--silent", "test"]))
}

/// Installs the packages that the lock file names, unless they are there.
fn install(step: &mut Step, folder: &Path) -> Result<()> {
    let lock = folder.join("package-lock.json");
    let lock = fs::read_to_string(&lock).with_context(|| format!("read {}", lock.display()))?;
    let (from, marker) = (cache::sha256_text(&lock), folder.join("node_modules").join(INSTALLED_FROM));
    if fs::read_to_string(&marker).is_ok_and(|installed| installed == from) {
        return Ok(());
    }
    cache::fetching(step, "what builds the page from npm (60 MB)", None, || {
        let arguments =
            ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--no-update-notifier"];
        command::read(npm(folder).args(arguments))
    })?;
    cache::write(&marker, &from)
}

fn npm(folder: &Path) -> Command {
    let mut command = Command::new("npm");
    command.current_dir(folder);
    command
}

/// Fails for a Node that is too old, by the text of `node --version`.
fn check_node(version: &str) -> Result<()> {
    let version = version.trim();
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < NODE_MIN) {
        bail!("node in PATH is {version}, and the page needs {NODE_MIN} or newer; install one and run this again");
    }
    Ok(())
}

/// Hash of everything that the page is built from.
fn digest(folder: &Path) -> Result<String> {
    let mut text = COMPRESS.to_owned();
    for path in sources(folder)? {
        let content = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let name = path.strip_prefix(folder).unwrap_or(&path);
        text += &format!("\n{} {}", name.display(), cache::sha256_bytes(&content));
    }
    Ok(cache::sha256_text(&text))
}

/// The files of the project, in order, without what is fetched or built.
fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(&inner).with_context(|| format!("list {}", inner.display()))? {
            let path = entry?.path();
            let is_made = inner == folder && ["dist", "node_modules"].iter().any(|name| path.ends_with(name));
            match path.is_dir() {
                true if is_made => {}
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_built_again_when_a_source_changes_and_only_then() {
        let folder = std::env::temp_dir().join(format!("doseline-xtask-web-{}", std::process::id()));
        for made in ["src/parts", "dist/assets", "node_modules/vite"] {
            fs::create_dir_all(folder.join(made)).unwrap();
        }
        let write = |name: &str, text: &str| cache::write(&folder.join(name), text).unwrap();
        write("package-lock.json", "{}");
        write("src/parts/Table.svelte", "a");
        let first = digest(&folder).unwrap();
        write("dist/index.html", "built");
        write("node_modules/vite/index.js", "fetched");
        assert_eq!(digest(&folder).unwrap(), first);
        write("src/parts/Table.svelte", "b");
        let second = digest(&folder).unwrap();
        assert_ne!(second, first);
        fs::rename(folder.join("src/parts/Table.svelte"), folder.join("src/Table.svelte")).unwrap();
        assert_ne!(digest(&folder).unwrap(), second);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn an_old_node_is_named() {
        assert!(check_node("v18.20.4\n").is_ok() && check_node("v22.1.0\n").is_ok());
        for old in ["v16.20.2\n", "", "none"] {
            assert!(check_node(old).unwrap_err().to_string().contains("needs 18 or newer"), "{old}");
        }
    }
}
