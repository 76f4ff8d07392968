//! Cargo commands that compile, with a progress line.
//!
//! Programs cannot read cargo's own progress bar, so this module counts the crates that cargo
//! reports as compiled. The total is known before: `cargo tree` names the packages, `cargo
//! metadata` the targets of the workspace.
//!
//! Invariant: only a crate that was counted in the total counts as done, so N of M never exceeds M.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Sender};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command;
use crate::progress::{Amount, LOOK_INTERVAL};
use crate::steps::Step;
use crate::targets::{self, Target};

/// Compile time of a crate of the workspace relative to a dependency, roughly.
const OWN_WEIGHT: u64 = 5;

/// The crates that a cargo command compiles, and how many are done.
#[derive(Debug, Default)]
pub struct Crates {
    weights: BTreeMap<String, u64>,
    done: BTreeSet<String>,
    /// Weight of the crates that are done, and of those among them that an earlier run had
    /// compiled.
    done_weight: u64,
    fresh_weight: u64,
}

/// The targets of the workspace that a command compiles besides the libraries.
pub enum Wanted<'a> {
    /// One package with all its dependencies, and this binary of it.
    Package { package: &'a str, binary: &'a str },
    /// The whole workspace: all libraries, and the binaries and tests of these names.
    Named(&'a [&'a str]),
    /// The whole workspace with all its tests.
    Tests,
    /// The whole workspace with all its tests and benchmarks.
    Everything,
    /// The whole workspace with the tests of `test --fast`.
    Fast,
}

/// The packages that a command may compile, from cargo.
#[derive(Debug, Default)]
pub struct Packages {
    /// Lines of `cargo tree`.
    tree: String,
    targets: Vec<Target>,
}

impl Packages {
    /// Asks cargo about one package with its dependencies, or about the whole workspace with its
    /// tests. Cargo downloads the sources to answer.
    pub fn find(step: &mut Step, package: Option<&str>) -> Result<Self> {
        let mut command = match package {
            Some(package) => command::cargo(["tree", "--package", package, "--edges", "normal,build"])?,
            None => command::cargo(["tree", "--workspace", "--edges", "normal,build,dev"])?,
        };
        command.args(["--prefix", "none", "--format", "{p}"]).args(command::locked());
        let lock = command::checkout()?.join("Cargo.lock");
        let limit = std::fs::read_to_string(&lock).with_context(|| format!("read {}", lock.display()))?;
        let limit = registry_packages(&limit);
        let since = step.now();
        let (mut tree, mut downloaded) = (String::new(), 0);
        stream(step, command, |step, event| {
            match event {
                Some(Event::Out(line)) => tree += &(line + "\n"),
                Some(Event::Status(status)) => downloaded += u64::from(is_download(&status)),
                None => {}
            }
            let text = if downloaded == 0 { String::new() } else { format!("{downloaded} of at most {limit} crates") };
            step.show(since, "download sources", &Amount { text, part: None });
        })?;
        Ok(Self { tree, targets: targets::of_workspace()? })
    }

    /// The targets of the workspace's packages.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// The crates that a command for `wanted` compiles.
    pub fn crates(&self, wanted: &Wanted) -> Crates {
        Crates::new(&self.tree, &self.targets, wanted)
    }
}

impl Crates {
    /// From the output of `cargo tree` and the workspace's targets.
    fn new(tree: &str, targets: &[Target], wanted: &Wanted) -> Self {
        let mut crates = Self::default();
        for line in tree.lines() {
            // `name v1.2.3`, then the origin unless it is the registry.
            let mut words = line.split_whitespace();
            let (Some(name), Some(version)) = (words.next(), words.next()) else { continue };
            let package = format!("{name} {}", version.trim_start_matches('v'));
            if !words.any(|word| word.starts_with("(/")) {
                crates.weights.insert(package, 1);
                continue;
            }
            let tested = targets.iter().any(|target| target.package == name && wanted.tests(target));
            for target in targets.iter().filter(|target| target.package == name) {
                for test in [false, true] {
                    if wanted.compiles(target, test, tested) {
                        crates.weights.insert(unit(&package, &target.kind, &target.name, test), OWN_WEIGHT);
                    }
                }
            }
        }
        crates
    }

    /// Processes one message of `cargo build --message-format=json`.
    fn message(&mut self, line: &str) {
        let Ok(message) = serde_json::from_str::<Value>(line) else { return };
        if message["reason"] != "compiler-artifact" {
            return;
        }
        let target = &message["target"];
        let kind = target["kind"][0].as_str().unwrap_or_default();
        let Some(package) = message["package_id"].as_str().and_then(package_of).filter(|_| kind != "custom-build")
        else {
            return;
        };
        let test = message["profile"]["test"].as_bool().unwrap_or_default();
        let own = unit(&package, kind, target["name"].as_str().unwrap_or_default(), test);
        let key = if self.weights.contains_key(&own) { own } else { package };
        let Some(weight) = self.weights.get(&key) else { return };
        if self.done.insert(key) {
            self.done_weight += weight;
            self.fresh_weight += if message["fresh"] == true { *weight } else { 0 };
        }
    }

    fn amount(&self, compiling: &str) -> Amount {
        let mut text = format!("{} of {} crates", self.done.len(), self.weights.len());
        if !compiling.is_empty() && self.done.len() < self.weights.len() {
            text += &format!(" ({compiling})");
        }
        let all: u64 = self.weights.values().sum();
        let part = (self.done_weight - self.fresh_weight) as f64 / (all - self.fresh_weight) as f64;
        Amount { text, part: Some(part) }
    }

    /// Runs the cargo command that compiles them. `rest` is its arguments from a `--` on.
    pub fn compile(mut self, step: &mut Step, what: &str, arguments: &[&str], rest: &[&str]) -> Result<()> {
        let mut command = command::cargo(arguments)?;
        command.arg("--message-format=json-render-diagnostics").args(command::locked());
        let chosen = ["NO_COLOR", "CARGO_TERM_COLOR"].iter().any(|name| std::env::var_os(name).is_some());
        if step.on_terminal() && !chosen {
            command.args(["--color", "always"]);
        }
        command.args(rest);
        let since = step.now();
        let mut compiling = String::new();
        stream(step, command, |step, event| {
            match event {
                Some(Event::Out(line)) => self.message(&line),
                Some(Event::Status(status)) => {
                    if let Some(name) = begun(&status) {
                        name.clone_into(&mut compiling);
                    }
                }
                None => {}
            }
            step.show(since, what, &self.amount(&compiling));
        })
    }
}

impl Wanted<'_> {
    /// Whether the command runs this integration test.
    fn tests(&self, target: &Target) -> bool {
        target.kind == "test"
            && match self {
                Self::Package { .. } => false,
                Self::Named(names) => names.contains(&target.name.as_str()),
                Self::Tests | Self::Everything => true,
                Self::Fast => target.is_fast(),
            }
    }

    /// Whether a target is compiled, without or with its own tests. If `tested`, the command runs
    /// integration tests of its package, for which cargo builds the package's binaries.
    fn compiles(&self, target: &Target, test: bool, tested: bool) -> bool {
        let name = target.name.as_str();
        match (target.kind.as_str(), self) {
            ("lib" | "cdylib", Self::Package { .. } | Self::Named(_)) => !test,
            ("lib" | "cdylib", _) => !test || target.tested,
            ("bin", Self::Package { package, binary }) => !test && target.package == *package && name == *binary,
            ("bin", Self::Named(names)) => !test && (tested || names.contains(&name)),
            ("bin", Self::Fast) if !test => tested,
            // `--all-targets` includes the tests of each binary, whatever its manifest says.
            ("bin", Self::Everything) => true,
            ("bin", _) => !test || target.tested,
            ("test", _) => test && self.tests(target),
            ("bench", Self::Everything) => test,
            _ => false,
        }
    }
}

fn unit(package: &str, kind: &str, name: &str, test: bool) -> String {
    format!("{package} {kind} {name}{}", if test { " test" } else { "" })
}

/// `name 1.2.3` from a package id such as `registry+https://host/index#name@1.2.3` or
/// `path+file:///folder/name#1.2.3`.
fn package_of(id: &str) -> Option<String> {
    let (source, package) = id.split_once('#')?;
    match package.split_once('@') {
        Some((name, version)) => Some(format!("{name} {version}")),
        None => Some(format!("{} {package}", source.rsplit('/').next()?)),
    }
}

/// The crate whose compilation a status line of cargo announces.
fn begun(status: &str) -> Option<&str> {
    let mut words = status.split(' ');
    matches!(words.next(), Some("Compiling" | "Checking")).then(|| words.next()).flatten()
}

/// Whether a status line is about one package; the last one is a summary.
fn is_download(status: &str) -> bool {
    status.starts_with("Downloaded ") && !status.contains(" crates (")
}

/// Number of packages in a lock file that come from a registry.
fn registry_packages(lock: &str) -> usize {
    lock.lines().filter(|line| line.starts_with("source = \"registry+")).count()
}

/// A report of cargo.
enum Event {
    /// A line of its standard output.
    Out(String),
    /// Its current action, such as `Compiling name v1.2.3`.
    Status(String),
}

/// Runs a cargo command and passes on its reports. `None` comes from time to time, so that the
/// caller can show the time. Other output, above all errors and warnings, goes to the user
/// unchanged.
fn stream(step: &mut Step, mut command: Command, mut on: impl FnMut(&mut Step, Option<Event>)) -> Result<()> {
    let name = command::name(&command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {name}"))?;
    let (sender, lines) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        read_lines(stdout, sender.clone(), Said::Out);
    }
    if let Some(stderr) = child.stderr.take() {
        read_lines(stderr, sender, Said::Err);
    }
    let mut failing = false;
    loop {
        match lines.recv_timeout(LOOK_INTERVAL) {
            Ok(Said::Out(line)) => on(step, Some(Event::Out(line))),
            Ok(Said::Err(line)) => {
                let plain = without_colour(&line);
                // The output of a failed build script may look like a status line.
                failing |= plain.starts_with("error");
                match status(&plain).filter(|_| !failing) {
                    Some(status) => on(step, Some(Event::Status(status.to_owned()))),
                    None => step.say(&line),
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => on(step, None),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child.wait().with_context(|| format!("wait for {name}"))?;
    if !status.success() {
        bail!("{name} failed ({status})");
    }
    Ok(())
}

/// A line of stdout or stderr.
enum Said {
    Out(String),
    Err(String),
}

fn read_lines(stream: impl Read + Send + 'static, sender: Sender<Said>, said: fn(String) -> Said) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(std::io::Result::ok) {
            if sender.send(said(String::from_utf8_lossy(&line).into_owned())).is_err() {
                break;
            }
        }
    });
}

/// A status line of cargo: a verb that ends in column 12. The message that cargo waits for another
/// cargo does not count, because the user may want to end that one.
fn status(line: &str) -> Option<&str> {
    const VERBS: [&str; 12] = [
        "Compiling",
        "Checking",
        "Documenting",
        "Fresh",
        "Dirty",
        "Downloading",
        "Downloaded",
        "Updating",
        "Locking",
        "Adding",
        "Finished",
        "Executable",
    ];
    let text = line.trim_start();
    let (verb, _) = text.split_once(' ')?;
    (VERBS.contains(&verb) && line.len() - text.len() + verb.len() == 12).then_some(text)
}

/// A line without escape sequences for colour.
fn without_colour(line: &str) -> String {
    let mut pieces = line.split("\x1b[");
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        plain += piece.split_once(|letter: char| letter.is_ascii_alphabetic()).map_or("", |(_, text)| text);
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::steps::tests::steps;

    const TREE: &str = "doseline v0.1.0 (/checkout/crates/doseline)\n\
        bridge v0.1.0 (/checkout/crates/bridge)\n\
        serde v1.0.1\n\
        serde_derive v1.0.1 (proc-macro)\n\
        serde v1.0.1 (*)\n\
        serde v0.9.0\n\
        tests v0.1.0 (/checkout/tests)\n";

    fn target(package: &str, kind: &str, name: &str, tested: bool) -> Target {
        let [package, kind, name] = [package, kind, name].map(str::to_owned);
        Target { package, kind, name, tested, source: String::new() }
    }

    fn crates(wanted: &Wanted) -> Crates {
        let targets = [
            target("doseline", "bin", "doseline", true),
            target("doseline", "test", "calc", true),
            target("bridge", "lib", "bridge", true),
            target("bridge", "custom-build", "build-script-build", false),
            target("tests", "lib", "harness", true),
            target("tests", "bin", "soak", false),
            target("tests", "test", "simulation", true),
            target("tests", "test", "up", true),
            target("tests", "bench", "micro", false),
            target("elsewhere", "lib", "elsewhere", true),
        ];
        Crates::new(TREE, &targets, wanted)
    }

    fn own(crates: &Crates) -> Vec<&str> {
        crates.weights.iter().filter(|(_, weight)| **weight == OWN_WEIGHT).map(|(name, _)| name.as_str()).collect()
    }

    /// A message of cargo about one artifact.
    fn artifact(id: &str, kind: &str, name: &str, test: bool, fresh: bool) -> String {
        format!(
            r#"{{"reason":"compiler-artifact","package_id":"{id}","target":{{"kind":["{kind}"],"name":"{name}"}},"profile":{{"test":{test}}},"fresh":{fresh}}}"#
        )
    }

    #[test]
    fn what_will_be_compiled_is_known_before() {
        let package = crates(&Wanted::Package { package: "doseline", binary: "doseline" });
        assert_eq!(
            own(&package),
            ["bridge 0.1.0 lib bridge", "doseline 0.1.0 bin doseline", "tests 0.1.0 lib harness"],
        );
        let others: Vec<_> = package.weights.iter().filter(|(_, weight)| **weight == 1).map(|(name, _)| name).collect();
        assert_eq!(others, ["serde 0.9.0", "serde 1.0.1", "serde_derive 1.0.1"]);
        let named =
            ["bridge 0.1.0 lib bridge", "tests 0.1.0 bin soak", "tests 0.1.0 lib harness", "tests 0.1.0 test up test"];
        assert_eq!(own(&crates(&Wanted::Named(&["soak", "up"]))), named);
        let fast = [
            "bridge 0.1.0 lib bridge",
            "bridge 0.1.0 lib bridge test",
            "doseline 0.1.0 bin doseline",
            "doseline 0.1.0 bin doseline test",
            "doseline 0.1.0 test calc test",
            "tests 0.1.0 bin soak",
            "tests 0.1.0 lib harness",
            "tests 0.1.0 lib harness test",
            "tests 0.1.0 test simulation test",
        ];
        assert_eq!(own(&crates(&Wanted::Fast)), fast);
        let tests = [fast.as_slice(), &["tests 0.1.0 test up test"]].concat();
        assert_eq!(own(&crates(&Wanted::Tests)), tests);
        let more: Vec<_> =
            crates(&Wanted::Everything).weights.into_keys().filter(|name| name.starts_with("tests")).collect();
        let more: Vec<_> = more.iter().filter(|name| !tests.contains(&name.as_str())).collect();
        assert_eq!(more, ["tests 0.1.0 bench micro test", "tests 0.1.0 bin soak test"]);
    }

    #[test]
    fn nothing_is_counted_twice_or_beyond_what_was_announced() {
        let mut crates = crates(&Wanted::Package { package: "doseline", binary: "doseline" });
        let serde = "registry+https://host/index#serde@1.0.1";
        let bridge = "path+file:///checkout/crates/bridge#0.1.0";
        let text = |crates: &Crates| crates.amount("").text;
        assert_eq!(text(&crates), "0 of 6 crates");
        crates.message(&artifact(serde, "custom-build", "build-script-build", false, false));
        crates.message(r#"{"reason":"build-script-executed","package_id":"registry+https://host/index#serde@1.0.1"}"#);
        crates.message("what a build prints that is no JSON");
        assert_eq!(text(&crates), "0 of 6 crates");
        crates.message(&artifact(serde, "lib", "serde", false, true));
        crates.message(&artifact(serde, "lib", "serde", false, true));
        crates.message(&artifact("registry+https://host/index#unheard-of@1.0.1", "lib", "unheard_of", false, false));
        crates.message(&artifact(bridge, "lib", "bridge", true, false));
        assert_eq!(crates.amount("tokio").text, "1 of 6 crates (tokio)");
        assert_eq!(
            crates.amount("").part,
            Some(0.0),
            "what an earlier run compiled says nothing about this one's pace"
        );
        crates.message(&artifact(bridge, "lib", "bridge", false, false));
        assert_eq!(crates.amount("").part, Some(5.0 / 17.0));
        crates.message(&artifact("path+file:///checkout/tests#0.1.0", "lib", "harness", false, false));
        crates.message(&artifact("registry+https://host/index#serde@0.9.0", "lib", "serde", false, false));
        crates.message(&artifact(
            "registry+https://host/index#serde_derive@1.0.1",
            "proc-macro",
            "serde_derive",
            false,
            false,
        ));
        crates.message(&artifact("path+file:///checkout/crates/doseline#0.1.0", "bin", "doseline", false, false));
        assert_eq!(crates.amount("doseline"), Amount { text: "6 of 6 crates".to_owned(), part: Some(1.0) });
    }

    #[test]
    fn only_what_cargo_says_of_its_progress_is_kept_back() {
        let check = |line: &str, expected: Option<&str>| assert_eq!(status(&without_colour(line)), expected, "{line}");
        check("   Compiling serde v1.0.1", Some("Compiling serde v1.0.1"));
        check("\x1b[1m\x1b[92m   Compiling\x1b[0m serde v1.0.1", Some("Compiling serde v1.0.1"));
        check("  Downloaded serde v1.0.1", Some("Downloaded serde v1.0.1"));
        check("    Blocking waiting for file lock on build directory", None);
        check("warning: unused variable: `x`", None);
        check("Compiling is what the user's own text says", None);
        check("     Compiling in column 14", None);
        check("error: could not compile `bridge`", None);
        check("", None);
        assert_eq!(begun("Checking serde v1.0.1"), Some("serde"));
        assert_eq!(begun("Fresh serde v1.0.1"), None);
        assert!(is_download("Downloaded serde v1.0.1") && !is_download("Downloaded 12 crates (1.2MB) in 0.5s"));
        assert_eq!(registry_packages("source = \"registry+https://host\"\nname = \"own\"\n"), 1);
    }

    /// Runs a shell script instead of cargo.
    fn said_by(script: &str) -> (Result<()>, String, Vec<String>) {
        let (mut steps, written, seconds) = steps(1);
        let mut events = Vec::new();
        let result = steps.run("build", |step| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            stream(step, command, |step, event| {
                seconds.fetch_add(1, Ordering::Relaxed);
                step.show(step.now(), "never twice within ten seconds", &Amount::default());
                match event {
                    Some(Event::Out(line)) => events.push(format!("out {line}")),
                    Some(Event::Status(line)) => events.push(format!("status {line}")),
                    None => {}
                }
            })
        });
        (result, written.text(), events)
    }

    #[test]
    fn warnings_and_errors_reach_the_user_in_full() {
        let script = "echo '   Compiling a v1' >&2; echo 'warning: unused' >&2; echo '  --> src/lib.rs:6:4' >&2; \
            echo '   Compiling b v1' >&2; echo 'error: failed to run custom build command' >&2; \
            echo '   Compiling text of the build script' >&2; exit 3";
        let (result, written, events) = said_by(script);
        let error = format!("{:#}", result.unwrap_err());
        assert!(error.contains("exit status: 3"), "{error}");
        assert_eq!(events, ["status Compiling a v1", "status Compiling b v1"]);
        let lines: Vec<&str> = written.lines().filter(|line| !line.starts_with("xtask: ")).collect();
        let expected = [
            "warning: unused",
            "  --> src/lib.rs:6:4",
            "error: failed to run custom build command",
            "   Compiling text of the build script",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn messages_are_read_until_the_end() {
        let (result, _, mut events) = said_by("for i in 1 2 3; do echo $i; done; printf 'no newline'");
        result.unwrap();
        events.sort();
        assert_eq!(events, ["out 1", "out 2", "out 3", "out no newline"]);
    }

    #[test]
    fn a_package_id_names_package_and_version() {
        assert_eq!(package_of("registry+https://host/index#a-b@1.2.3").as_deref(), Some("a-b 1.2.3"));
        assert_eq!(package_of("path+file:///checkout/crates/bridge#0.1.0").as_deref(), Some("bridge 0.1.0"));
        assert_eq!(package_of("path+file:///checkout/x#bridge@0.1.0").as_deref(), Some("bridge 0.1.0"));
        assert_eq!(package_of("nonsense"), None);
    }
}
