//! Every command and every query in README and docs is executed: here, or by the test that stands
//! beside it below.
//! A command that needs what a test machine lacks says what that is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use How::{By, InCopy, Lacks, Role, Services, Up};
use harness::{ClickHouse, Doseline, Kafka, Mosquitto, poll};

/// How a command is executed.
#[derive(Debug, Clone, Copy)]
enum How {
    /// By the shell, in the working directory of a running `doseline up` with simulated devices;
    /// with its exit code.
    Up(i32),
    /// By the shell, beside a `services.toml` for Mosquitto, Kafka and ClickHouse; with its exit
    /// code.
    Services(i32),
    /// The same; it runs until it is stopped.
    Role,
    /// By the shell, in a folder with a copy of `deploy`.
    InCopy,
    /// By this test or step.
    By(&'static str),
    /// Not at all: a test machine lacks this.
    Lacks(&'static str),
}

/// The beginning of each command, and how it is executed. A longer beginning wins.
const COMMANDS: &[(&str, How)] = &[
    ("cargo xtask up", By("crates/xtask/src/up.rs; tests/tests/demo.rs starts the same command of doseline")),
    ("cargo xtask test", By(".ci/run")),
    ("cargo xtask bench", By("tests/tests/bench.rs")),
    ("cargo xtask soak", By("tests/tests/campaign.rs")),
    ("cargo xtask soak --list", By("tests/tests/campaign.rs")),
    ("cargo build --release -p doseline", By(".ci/run, step build")),
    ("cargo test --release", By(".ci/run, step tests")),
    ("cargo bench --workspace --bench micro", By("tests/tests/instructions.rs runs the same cases")),
    ("DOSELINE_INSTRUCTIONS=renew", By("tests/tests/instructions.rs")),
    ("curl 'http://127.0.0.1:8123/'", Up(0)),
    ("mosquitto_pub", Up(0)),
    ("doseline alerts list", Up(0)),
    // The alert of the example does not exist.
    ("doseline alerts ack", Up(1)),
    ("doseline check --connect", Up(0)),
    ("doseline reconcile", Up(0)),
    ("doseline quarantine list", Up(0)),
    // The row of the example does not exist.
    ("doseline quarantine show", Up(1)),
    ("doseline quarantine replay", Up(0)),
    ("doseline quarantine purge", Up(0)),
    ("doseline devices unknown", Up(0)),
    ("doseline devices import", Up(0)),
    ("doseline reconcile --config", Services(0)),
    ("doseline reconcile --tenant", Services(0)),
    ("doseline reconcile --json", Services(0)),
    // Nothing was loaded on the day of the example.
    ("doseline rebuild", Services(1)),
    ("doseline rebuild --day 2026-11-24 --discard", Services(0)),
    ("doseline check --config", Services(0)),
    ("doseline migrate --config", Services(0)),
    ("doseline token", By("tests/tests/commands.rs")),
    ("curl -H", By("tests/tests/api/leaks.rs")),
    ("doseline grants", Services(0)),
    ("doseline give-up", By("tests/tests/loader/unreadable.rs")),
    ("doseline bridge --config", Role),
    ("doseline load --config", Role),
    ("doseline monitor --config", Role),
    ("doseline serve --config", Role),
    ("deploy/make-secrets.sh", InCopy),
    ("doseline certs", By("tests/tests/identities.rs")),
    ("doseline devices acl", By("tests/tests/identities.rs")),
    ("docker compose", Lacks("a container engine")),
];

const READY_WITHIN: Duration = Duration::from_secs(300);
const STOPS_WITHIN: Duration = Duration::from_secs(60);
/// The file that `devices import` of the example reads.
const FLEET: &str = "tenant,site,device,kind,model\nacme,berlin-1,D-0001,INJECTOR,mesogun-2\n";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the checkout")
}

/// All commands of the documents, with the document of each.
fn commands() -> Vec<(String, String)> {
    let all = blocks("sh").into_iter();
    all.flat_map(|(name, block)| split(&block).into_iter().map(move |command| (name.clone(), command))).collect()
}

/// The blocks of the documents in a language, with the document of each.
fn blocks(language: &str) -> Vec<(String, String)> {
    let root = root();
    let docs = fs::read_dir(root.join("docs")).expect("docs").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> = docs.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    files.extend(["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| root.join(name)));
    files.sort();
    files
        .iter()
        .flat_map(|file| {
            let name = file.strip_prefix(&root).expect("a file of the checkout").display().to_string();
            let text = fs::read_to_string(file).expect("a document");
            blocks_of(&text, language).into_iter().map(|block| (name.clone(), block)).collect::<Vec<_>>()
        })
        .collect()
}

fn blocks_of(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}");
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == fence {
            let block: Vec<_> = lines.by_ref().take_while(|line| line.trim() != "```").collect();
            blocks.push(block.join("\n"));
        }
    }
    blocks
}

/// Commands of a block, without comments. A line that ends inside of quotes goes on in the next.
fn split(block: &str) -> Vec<String> {
    let (mut commands, mut command, mut quote) = (Vec::new(), String::new(), None);
    for line in block.lines() {
        for (at, letter) in line.char_indices() {
            match quote {
                None if letter == '#' && (at == 0 || line[..at].ends_with(' ')) => break,
                None if matches!(letter, '\'' | '"') => quote = Some(letter),
                Some(open) if open == letter => quote = None,
                _ => {}
            }
            command.push(letter);
        }
        if quote.is_some() {
            command.push('\n');
        } else {
            commands.push(std::mem::take(&mut command).trim().to_owned());
        }
    }
    commands.retain(|command| !command.is_empty());
    commands
}

fn how(command: &str) -> Option<(&'static str, How)> {
    let fitting = COMMANDS.iter().filter(|(beginning, _)| command.starts_with(beginning));
    fitting.max_by_key(|(beginning, _)| beginning.len()).copied()
}

/// The commands that are executed in one of the ways, each once.
fn chosen(way: impl Fn(How) -> bool) -> Vec<(String, How)> {
    let mut seen = BTreeSet::new();
    let all = commands().into_iter().filter_map(|(_, command)| how(&command).map(|(_, how)| (command, how)));
    all.filter(|(command, how)| way(*how) && seen.insert(command.clone())).collect()
}

fn shell(command: &str, folder: &Path) -> Output {
    let test = std::env::current_exe().expect("know the path of this test");
    let binaries = test.ancestors().nth(2).expect("target/PROFILE/deps/this-test");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir(folder).stdin(Stdio::null());
    shell.env("PATH", format!("{}:{path}", binaries.display())).env("USER", "Dr. Ada");
    shell.output().expect("a shell")
}

#[track_caller]
fn expect(command: &str, folder: &Path, code: i32) {
    let output = shell(command, folder);
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{command}\n{said}\n{complained}");
}

#[test]
fn every_command_of_the_documents_has_its_test() {
    let all = commands();
    assert!(all.len() > 40, "{} commands are not all", all.len());
    for (file, command) in &all {
        assert!(how(command).is_some(), "{file}: no test executes `{command}`: add it to {}", file!());
    }
    for (beginning, how_) in COMMANDS {
        let used = all.iter().any(|(_, command)| how(command).is_some_and(|(found, _)| found == *beginning));
        assert!(used, "no document contains `{beginning}` any more: delete it from {}", file!());
        if let By(place) | Lacks(place) = how_ {
            let file = place.split([' ', ',', ';']).next().unwrap_or_default();
            assert!(matches!(how_, Lacks(_)) || root().join(file).is_file(), "`{beginning}`: {file} does not exist");
        }
    }
}

#[test]
fn commands_for_a_running_up_do_what_the_documents_say() {
    let ports = ["--mqtt-port", "--kafka-port", "--clickhouse-port", "--http-port"];
    let arguments: Vec<_> =
        ["up", "--simulate", "5"].into_iter().chain(ports.into_iter().flat_map(|port| [port, "0"])).collect();
    let mut up = Doseline::start(&arguments);
    let ready = up.wait_until_ready(READY_WITHIN);
    poll(READY_WITHIN, "the past of the fleet", || {
        match ready.query("SELECT count() FROM doseline.injections").as_str() {
            "0" => Err("no injection"),
            _ => Ok(()),
        }
    });
    let folder = up.folder().to_owned();
    fs::write(folder.join("fleet.csv"), FLEET).expect("write the fleet");
    let mqtt = ready.mqtt.rsplit_once(':').expect("a port").1;
    for (command, how) in chosen(|how| matches!(how, Up(_))) {
        let command = command
            .replace("curl 'http://127.0.0.1:8123/'", &format!("curl -fsS '{}/'", ready.clickhouse))
            .replace("mosquitto_pub ", &format!("mosquitto_pub -p {mqtt} "));
        let Up(code) = how else { unreachable!("only those were chosen") };
        expect(&command, &folder, code);
    }
    queries_are_answered(&ready);
    up.stop(STOPS_WITHIN);
}

/// Executes every query of the documents, in the database that tools name. Those of docs/queries.md
/// have rows, except one: nobody has acknowledged an alert.
fn queries_are_answered(ready: &harness::Ready) {
    let queries = blocks("sql");
    assert!(queries.len() > 10, "{} queries are not all", queries.len());
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    for (file, sql) in queries {
        let may_be_empty = file != "docs/queries.md" || sql.contains("'ACKNOWLEDGED'");
        // The monitor may not have judged yet.
        poll(READY_WITHIN, &format!("an answer to a query of {file}"), || {
            let url = format!("{}/?database=doseline", ready.clickhouse);
            let mut answer = agent.post(url).send(sql.as_str()).expect("an answer");
            let text = answer.body_mut().read_to_string().expect("a text");
            assert!(answer.status().is_success(), "{file}: {text}\n{sql}");
            if text.is_empty() && !may_be_empty { Err("no row") } else { Ok(()) }
        });
    }
}

#[test]
fn commands_for_services_do_what_the_documents_say() {
    let (mosquitto, kafka, clickhouse) = (Mosquitto::start(), Kafka::start(), ClickHouse::start());
    let scratch = harness::Scratch::new("documents");
    let settings = format!(
        "[mqtt]\nhost = \"127.0.0.1\"\nport = {}\n\n\
         [kafka]\nbrokers = [\"{}\"]\npartitions = 4\nreplication = 1\nmin_insync_replicas = 1\n\n\
         [clickhouse]\nurl = \"{}\"\nusername = \"doseline\"\npassword = \"owner\"\nfsync = false\n",
        mosquitto.port(),
        kafka.bootstrap(),
        clickhouse.url(),
    );
    fs::write(scratch.join("services.toml"), settings).expect("write the configuration");
    expect("doseline migrate --config services.toml", scratch.path(), 0);
    for (command, how) in chosen(|how| matches!(how, Services(_) | Role)) {
        match how {
            Services(code) => expect(&command, scratch.path(), code),
            _ => runs_until_stopped(&command, scratch.path()),
        }
    }
}

/// A role serves until `timeout` ends it with SIGTERM, and then ends without an error.
#[track_caller]
fn runs_until_stopped(command: &str, folder: &Path) {
    expect(&format!("timeout --preserve-status 15 {command}"), folder, 0);
}

#[test]
fn secrets_for_compose_are_made_once() {
    let scratch = harness::Scratch::new("deploy");
    let copied = Command::new("cp").arg("-r").arg(root().join("deploy")).arg(scratch.path()).status();
    assert!(copied.expect("cp").success());
    for (command, _) in chosen(|how| matches!(how, InCopy)) {
        expect(&command, scratch.path(), 0);
        let files = ["authority_passphrase", "broker/broker.pem", "bridge/share-group.env"];
        let read =
            || files.map(|file| fs::read_to_string(scratch.join("deploy/secrets").join(file)).expect("a secret"));
        let first = read();
        expect(&command, scratch.path(), 0);
        assert_eq!(read(), first, "a second run changes nothing");
        let device = "openssl verify -CAfile deploy/secrets/broker/devices-ca.pem \
                      deploy/secrets/devices/acme/berlin-1/D-0001.pem";
        expect(device, scratch.path(), 0);
        expect("deploy/make-secrets.sh ../D-1", scratch.path(), 1);
    }
}

#[test]
fn commands_are_read_from_blocks_of_a_shell() {
    let text = "text\n```sh\nfirst --flag    # a comment\ncurl -d 'two\nlines' # more\n\n# only a comment\n```\n```\nnot me\n```\n";
    let commands: Vec<_> = blocks_of(text, "sh").iter().flat_map(|block| split(block)).collect();
    assert_eq!(commands, ["first --flag", "curl -d 'two\nlines'"]);
}
