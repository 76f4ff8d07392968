//! Runs other programs. Errors name the program and quote its output.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The root of the checkout that this xtask belongs to.
///
/// It is determined at run time: two checkouts with one build folder must not use each other's
/// files.
pub fn checkout() -> Result<PathBuf> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").context("run this as `cargo xtask`")?;
    let root = Path::new(&manifest).join("../..");
    root.canonicalize().with_context(|| format!("find the checkout at {}", root.display()))
}

/// The files below a folder whose names end in one of these extensions, in order. What is fetched,
/// built or generated is left out.
pub fn files(folder: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
            let path = entry?.path();
            let text = |part: Option<&OsStr>| part.and_then(OsStr::to_str).unwrap_or_default().to_owned();
            if path.is_dir() {
                let name = text(path.file_name());
                if !name.starts_with('.') && !matches!(name.as_str(), "dist" | "generated" | "node_modules" | "target")
                {
                    folders.push(path);
                }
            } else if extensions.contains(&text(path.extension()).as_str()) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// A cargo command in the checkout, with the cargo that runs this program.
pub fn cargo<I, S>(arguments: I) -> Result<Command>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(checkout()?);
    // Cargo's variables about this package would make cargo take the packages built below for
    // changed.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    Ok(command)
}

/// Runs a command and sends all its output to stderr.
pub fn run(command: &mut Command) -> Result<()> {
    let name = name(command);
    command.stdin(Stdio::null()).stdout(std::io::stderr());
    let status = command.status().with_context(|| format!("start {name}"))?;
    if !status.success() {
        bail!("{name} failed ({status})");
    }
    Ok(())
}

/// Runs a command quietly and returns its standard output. An error contains what it printed.
pub fn read(command: &mut Command) -> Result<String> {
    let name = name(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {name}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{name} failed ({}):\n{}", output.status, said.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("read the output of {name}"))
}

/// Cargo's metadata of the workspace's own packages.
pub fn metadata() -> Result<Value> {
    let metadata = read(&mut cargo(["metadata", "--no-deps", "--format-version=1"])?)?;
    serde_json::from_str(&metadata).context("parse cargo metadata")
}

/// Cargo's build folder, with environment and configuration applied.
pub fn target() -> Result<PathBuf> {
    let folder = metadata()?["target_directory"].as_str().map(PathBuf::from);
    folder.context("cargo metadata names no target directory")
}

/// On a machine of continuous integration the lock file is binding. Elsewhere cargo may update it.
pub fn locked() -> Option<&'static str> {
    std::env::var_os("CI").map(|_| "--locked")
}

/// Whether a program of this name is on the path.
pub fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps daemons out of a normal user's path, but they are installed.
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")])
        .any(|folder| folder.join(program).is_file())
}

/// A command's program and first arguments, for messages.
pub fn name(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().take(3).map(|argument| argument.to_string_lossy().into_owned()));
    words.join(" ")
}
