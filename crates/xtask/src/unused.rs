//! Dependencies that a manifest names and no source mentions.
//!
//! A crate counts as used if its name is a word in the package's Rust files, comments excluded.
//! This can miss an unused dependency whose name is also a word of the code. It never reports a
//! used one, unless that is used only through a macro or only linked. Such a dependency is listed
//! with its reason in `package.metadata.unused.keep`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::command;

/// Fails with the list of unused dependencies, if there are any.
pub fn check() -> Result<()> {
    let metadata = command::metadata()?;
    let mut complaints = Vec::new();
    let mut named = BTreeSet::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let manifest = package["manifest_path"].as_str().context("a package without a manifest")?;
        let folder = Path::new(manifest).parent().context("a manifest without a folder")?;
        let words = words(folder)?;
        let keep = &package["metadata"]["unused"]["keep"];
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let name = dependency["name"].as_str().unwrap_or_default();
            named.insert(name.to_owned());
            let word = dependency["rename"].as_str().unwrap_or(name).replace('-', "_");
            let kept = keep.as_array().is_some_and(|names| names.iter().any(|kept| kept == name));
            if !kept && !words.contains(&word) {
                complaints.push(format!("{manifest}: {name}"));
            }
        }
    }
    let root = command::checkout()?.join("Cargo.toml");
    let text = fs::read_to_string(&root).with_context(|| format!("read {}", root.display()))?;
    for name in workspace_dependencies(&text).filter(|name| !named.contains(*name)) {
        complaints.push(format!("{}: {name}", root.display()));
    }
    if !complaints.is_empty() {
        bail!("unused dependencies, remove them from:\n  {}", complaints.join("\n  "));
    }
    Ok(())
}

/// The names in `[workspace.dependencies]`, where each has a line of its own.
fn workspace_dependencies(manifest: &str) -> impl Iterator<Item = &str> {
    manifest
        .lines()
        .skip_while(|line| *line != "[workspace.dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once(" = ").map(|(name, _)| name))
}

/// All words in the Rust files of a package's folder.
fn words(folder: &Path) -> Result<BTreeSet<String>> {
    let mut words = BTreeSet::new();
    for path in command::files(folder, &["rs"])? {
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        words.extend(words_of(&text));
    }
    Ok(words)
}

pub fn words_of(text: &str) -> impl Iterator<Item = String> + '_ {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split(|letter: char| !letter.is_alphanumeric() && letter != '_'))
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_is_used_by_a_whole_word_outside_comments() {
        let words: BTreeSet<_> = words_of("use serde_json::Value; // bytes\n// tokio\nlet sha2x = 1;").collect();
        assert!(words.contains("serde_json"));
        assert!(!words.contains("serde"));
        assert!(!words.contains("tokio"));
        assert!(!words.contains("sha2"));
    }

    #[test]
    fn workspace_dependencies_are_read_from_their_section_alone() {
        let manifest = "[workspace]\nresolver = \"3\"\n[workspace.dependencies]\nload = { path = \"x\" }\n\nanyhow = \"1\"\n[profile.release]\ndebug = 1\n";
        assert_eq!(workspace_dependencies(manifest).collect::<Vec<_>>(), ["load", "anyhow"]);
    }
}
