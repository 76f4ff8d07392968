//! The rules of language that a program can check, over documents and comments: line width, phrases
//! that the project does not use, and links between files of the repository.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::command;

/// Columns of a line of prose. Lines of tables and of code are as long as they are.
const WIDTH: usize = 100;
/// Phrases that a reader from outside stumbles over, with what to write instead.
const UNUSED: [(&str, &str); 10] = [
    ("made again", "created again, or rebuilt"),
    ("gone mad", "say what is wrong"),
    ("somebody else", "another owner, another person"),
    ("so many of them", "the number"),
    ("nevertheless", "still"),
    ("in crowds", "in batches"),
    ("a crowd of", "the number"),
    ("as before,", "say what is the same"),
    ("utilize", "use"),
    ("TODO", "an issue"),
];
/// Words for which documents use a term of the glossary.
const TERMS: [(&str, &str); 4] =
    [("visit", "session"), ("visits", "sessions"), ("steriliser", "sterilizer"), ("sterilisation", "sterilization")];

/// Fails with a line for each breach.
pub fn check() -> Result<()> {
    let root = command::checkout()?;
    let mut breaches = Vec::new();
    for path in command::files(&root, &["md", "rs"])? {
        // The list of phrases would accuse itself.
        if path.ends_with("xtask/src/prose.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let name = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
        let is_document = path.extension().is_some_and(|extension| extension == "md");
        let found = if is_document { document(&text, &path) } else { source(&text) };
        breaches.extend(found.into_iter().map(|(line, fault)| format!("{name}:{line}: {fault}")));
    }
    if !breaches.is_empty() {
        bail!("{} breaches of the rules of language (CONTRIBUTING.md):\n  {}", breaches.len(), breaches.join("\n  "));
    }
    Ok(())
}

/// Breaches in the comments of a source file, each with its line.
fn source(text: &str) -> Vec<(usize, String)> {
    let is_prose = |line: &str| {
        let comment = line.trim_start();
        let said = comment.trim_start_matches(['/', '!']);
        comment.starts_with("//") && !said.starts_with(" |") && !said.starts_with("     ")
    };
    let comments = text.lines().enumerate().filter(|(_, line)| is_prose(line));
    comments.flat_map(|(index, line)| prose(line).map(move |fault| (index + 1, fault))).collect()
}

/// Breaches in a document, each with its line. The changelog may compare with earlier versions.
fn document(text: &str, path: &Path) -> Vec<(usize, String)> {
    let mut breaches = Vec::new();
    let mut code = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            code = !code;
        } else if !code {
            let is_prose = !line.trim_start().starts_with('|') && !line.starts_with("    ");
            if is_prose && !path.ends_with("CHANGELOG.md") {
                breaches.extend(prose(line).map(|fault| (index + 1, fault)));
            }
            breaches.extend(terms(line).map(|fault| (index + 1, fault)));
            breaches.extend(links(line).filter_map(|link| broken(link, path)).map(|fault| (index + 1, fault)));
        }
    }
    breaches
}

/// What is wrong with one line.
fn prose(line: &str) -> impl Iterator<Item = String> {
    let columns = line.chars().count();
    let wide = (columns > WIDTH && line.contains(' ')).then(|| format!("{columns} columns, at most {WIDTH}"));
    let phrases = UNUSED.iter().filter(|(phrase, _)| line.contains(phrase));
    wide.into_iter().chain(phrases.map(|(phrase, instead)| format!("`{phrase}`: write {instead}")))
}

/// Words of a line outside of code for which the glossary has another term.
fn terms(line: &str) -> impl Iterator<Item = String> {
    let prose: String = line.split('`').step_by(2).collect();
    let words: BTreeSet<_> = prose.split(|letter: char| !letter.is_alphabetic()).map(str::to_lowercase).collect();
    let found = TERMS.iter().filter(move |(word, _)| words.contains(*word));
    found.map(|(word, term)| format!("`{word}`: the glossary says {term}"))
}

/// Targets of the links in a line of Markdown.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(link, _)| link))
}

/// Why a link leads nowhere; links to other hosts are not looked at.
fn broken(link: &str, from: &Path) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
    let target = if file.is_empty() { from.to_owned() } else { from.parent()?.join(file) };
    if !target.exists() {
        return Some(format!("link to {link}: there is no such file"));
    }
    let anchor = anchor.filter(|_| target.extension().is_some_and(|extension| extension == "md"))?;
    let known: BTreeSet<_> = fs::read_to_string(&target).ok()?.lines().filter_map(heading).collect();
    (!known.contains(anchor)).then(|| format!("link to {link}: there is no such heading"))
}

/// The anchor of a heading, as GitHub makes it.
fn heading(line: &str) -> Option<String> {
    let title = line.strip_prefix('#')?.trim_start_matches('#').strip_prefix(' ')?;
    let kept = title.to_lowercase();
    let kept = kept.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
    Some(kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz;

    #[test]
    fn documents_use_the_terms_of_the_glossary() {
        let found = document("| a | Visits of a clinic |\n`visit` is a name\n```\nvisit\n```\n", Path::new("a.md"));
        assert_eq!(found, [(1, "`visits`: the glossary says sessions".to_owned())]);
    }

    #[test]
    fn a_breach_names_its_line_and_what_to_write() {
        let wide = format!("// {}", "word ".repeat(30));
        let found = source(&format!("let it = 1; // gone mad\n/// The topic was made again.\n{wide}\n"));
        assert_eq!(found[0], (2, "`made again`: write created again, or rebuilt".to_owned()));
        assert_eq!((found[1].0, found.len()), (3, 2), "{found:?}");
    }

    #[test]
    fn the_threat_model_names_tests_and_fuzz_targets_that_exist() {
        let root = command::checkout().unwrap();
        let text = fs::read_to_string(root.join("SECURITY.md")).unwrap();
        let rows: Vec<_> =
            text.split("## Threat model").nth(1).unwrap().lines().filter(|line| line.starts_with("| ")).collect();
        let sources = ["crates", "tests"].map(|folder| command::files(&root.join(folder), &["rs"]).unwrap()).concat();
        let sources: String = sources.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        assert!(rows.len() > 40, "{}", rows.len());
        for row in &rows[1..] {
            let shown = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
            let pieces: Vec<_> = shown.split('`').collect();
            assert!(pieces.len() > 1 || shown.contains("open: "), "{row}");
            for (index, name) in pieces.iter().enumerate().skip(1).step_by(2) {
                let exists = match pieces[index - 1].ends_with("fuzz ") {
                    true => fuzz::TARGETS.contains(name),
                    false => !name.contains('_') || sources.contains(&format!("fn {name}(")),
                };
                assert!(exists, "there is no {name}: {row}");
            }
        }
    }

    #[test]
    fn links_are_followed_to_their_heading() {
        let from = command::checkout().unwrap().join("README.md");
        let check = |line: &str| links(line).filter_map(|link| broken(link, &from)).collect::<Vec<_>>();
        assert!(check("see [terms](docs/glossary.md#what-a-device-does) and [home](https://example.org)").is_empty());
        assert_eq!(check("[gone](docs/gone.md)"), ["link to docs/gone.md: there is no such file"]);
        assert_eq!(check("[x](docs/glossary.md#gone)"), ["link to docs/glossary.md#gone: there is no such heading"]);
    }

    #[test]
    fn code_and_tables_keep_their_width() {
        let wide = "word ".repeat(30);
        let text = format!("| {wide} |\n```\n{wide}\n```\n{wide}\n");
        let found = document(&text, Path::new("docs/x.md"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, 5);
    }
}
