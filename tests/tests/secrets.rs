//! Secrets: no output shows one, and a new one needs no restart.

#![allow(missing_docs)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use harness::{ClickHouse, Doseline, Kafka, Mosquitto, Scratch, free_port, poll};

/// Arguments and environment of a command.
type Invocation<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)]);

const WITHIN: Duration = Duration::from_secs(120);
const STOPS_WITHIN: Duration = Duration::from_secs(60);
const MQTT: &str = "planted-mqtt-71d2";
const CLICKHOUSE: &str = "planted-clickhouse-5b0c";
const WEBHOOK: &str = "planted-webhook-93ee";
const USER: &str = "doseline_load";
const ROLES: [&str; 4] = ["bridge", "load", "monitor", "serve"];

/// Engines with passwords, and a folder with a configuration that names them.
struct Rig {
    mosquitto: Mosquitto,
    kafka: Kafka,
    clickhouse: ClickHouse,
    scratch: Scratch,
    ports: [u16; 4],
}

impl Rig {
    fn start() -> Self {
        let mut clickhouse = ClickHouse::start();
        clickhouse.start_with_password(CLICKHOUSE);
        let kafka = Kafka::locked(&[USER]);
        // The one user of the test may do what all roles may.
        let scratch = Scratch::new("secrets");
        let script = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kafka/acls.sh"));
        let mut script = script.expect("the rules");
        for role in ["migrate", "bridge", "monitor", "serve", "operate"] {
            script = script.replace(&format!("User:doseline_{role} "), &format!("User:{USER} "));
        }
        fs::write(scratch.join("acls.sh"), script).expect("write the rules");
        kafka.allow(&scratch.join("acls.sh"));
        let ports = [free_port(), free_port(), free_port(), free_port()];
        let rig = Self { mosquitto: Mosquitto::start(), kafka, clickhouse, scratch, ports };
        rig.write("mqtt", MQTT);
        rig.write("kafka", &Kafka::scram_password(USER));
        rig.write("clickhouse", CLICKHOUSE);
        rig
    }

    fn write(&self, name: &str, password: &str) {
        fs::write(self.scratch.join(name), format!("{password}\n")).expect("write a password");
    }

    /// A configuration file; with passwords in it, or with files that hold them.
    fn configuration(&self, inline: bool) -> PathBuf {
        let password = |name: &str, password: &str| match inline {
            true => format!("password = \"{password}\""),
            false => format!("password_file = \"{}\"", self.scratch.join(name).display()),
        };
        let [bridge, load, monitor, serve] = self.ports;
        let text = format!(
            "[mqtt]\nhost = \"127.0.0.1\"\nport = {}\nusername = \"bridge\"\n{}\n\
             [kafka]\nbrokers = [\"{}\"]\npartitions = 1\nreplication = 1\nmin_insync_replicas = 1\n\
             [kafka.tls]\nca = \"{}\"\n\
             [kafka.sasl]\nmechanism = \"SCRAM-SHA-512\"\nusername = \"{USER}\"\n{}\n\
             [clickhouse]\nurl = \"{}\"\nusername = \"doseline\"\n{}\nfsync = false\n\
             [bridge]\nhttp = \"127.0.0.1:{bridge}\"\n[load]\nhttp = \"127.0.0.1:{load}\"\n\
             [monitor]\nhttp = \"127.0.0.1:{monitor}\"\nwebhook = \"http://user:{WEBHOOK}@127.0.0.1:1/\"\n\
             [serve]\nhttp = \"127.0.0.1:{serve}\"\n",
            self.mosquitto.port(),
            password("mqtt", MQTT),
            self.kafka.secured_bootstrap(),
            self.kafka.authority().display(),
            password("kafka", &Kafka::scram_password(USER)),
            self.clickhouse.url(),
            password("clickhouse", CLICKHOUSE),
        );
        let path = self.scratch.join("doseline.toml");
        fs::write(&path, text).expect("write the configuration");
        path
    }

    fn start_role(&self, role: &str, configuration: &Path) -> Doseline {
        let path = configuration.display().to_string();
        Doseline::start_with(&[role, "--config", &path], &[("DOSELINE__LOG__FILTER", "debug")])
    }

    fn port(&self, role: &str) -> u16 {
        self.ports[ROLES.iter().position(|known| *known == role).expect("a role")]
    }

    /// The answer of a role to GET, whatever its status.
    fn get(&self, role: &str, path: &str) -> Result<(bool, String), String> {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let url = format!("http://127.0.0.1:{}{path}", self.port(role));
        let mut answer = agent.get(url).call().map_err(|error| error.to_string())?;
        let text = answer.body_mut().read_to_string().map_err(|error| error.to_string())?;
        Ok((answer.status().is_success(), text))
    }

    fn wait_until_ready(&self, role: &str) {
        poll(WITHIN, &format!("{role} to be ready"), || match self.get(role, "/readyz")? {
            (true, _) => Ok(()),
            (false, obstacles) => Err(obstacles),
        });
    }

    fn migrate(&self, configuration: &Path) {
        let path = configuration.display().to_string();
        let done = Doseline::run(&["migrate", "--config", &path], &[], WITHIN);
        assert_eq!(done.code, Some(0), "{}", done.stderr);
    }
}

/// Command lines of all processes, which everybody on the machine may read.
fn command_lines() -> String {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ") + "\n").collect()
}

fn assert_silent(what: &str, text: &str, secrets: &[&str]) {
    for secret in secrets {
        let line = text.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{what} shows a secret");
    }
}

/// Secrets stand in a configuration file, in files and in the environment. Roles run with engines
/// that take the secrets, and with engines that refuse them; logs are as talkative as they can be.
#[test]
fn no_output_shows_a_secret() {
    let rig = Rig::start();
    let scram = Kafka::scram_password(USER);
    let secrets = [MQTT, CLICKHOUSE, WEBHOOK, scram.as_str()];
    for inline in [true, false] {
        let configuration = rig.configuration(inline);
        rig.migrate(&configuration);
        let path = configuration.display().to_string();
        let mut roles = ROLES.map(|role| rig.start_role(role, &configuration));
        for role in ROLES {
            poll(WITHIN, &format!("{role} to answer"), || rig.get(role, "/livez").map(drop));
        }
        rig.wait_until_ready("load");
        rig.wait_until_ready("serve");
        assert_silent("a command line", &command_lines(), &secrets);
        for (role, path) in
            ROLES.iter().flat_map(|role| ["/readyz", "/metrics", "/livez", "/"].map(|path| (role, path)))
        {
            let (_, text) = rig.get(role, path).expect("an answer");
            assert_silent(&format!("{role} {path}"), &text, &secrets);
        }
        let passwords = rig.scratch.path().display().to_string();
        fs::write(rig.scratch.join("doseline_load"), format!("{scram}\n")).expect("write a password");
        let cases: [Invocation<'_>; 9] = [
            (&["check", "--config", &path], &[]),
            (&["check", "--connect", "--config", &path], &[]),
            (&["check", "--connect", "--json", "--config", &path], &[]),
            (&["check", "--connect", "--config", &path], &[("DOSELINE__CLICKHOUSE__USERNAME", "nobody")]),
            (&["check", "--config", &path], &[("DOSELINE__MQTT__PASSWORD", MQTT), ("DOSELINE__MQTT__PORT", "x")]),
            (&["quarantine", "list", "--config", &path], &[("DOSELINE__CLICKHOUSE__URL", "http://127.0.0.1:1")]),
            (&["reconcile", "--json", "--config", &path], &[]),
            (&["grants", "--passwords", &passwords, "--config", &path], &[]),
            (&["grants", "--passwords", &passwords, "--apply", "--config", &path], &[]),
        ];
        for (arguments, environment) in cases {
            let finished = Doseline::run(arguments, environment, WITHIN);
            assert_silent(&format!("{arguments:?}"), &format!("{}{}", finished.stdout, finished.stderr), &secrets);
        }
        for command in ["", "up", "check", "grants", "bridge", "load", "monitor", "serve", "migrate"] {
            let arguments: Vec<&str> =
                [command, "--help"].into_iter().filter(|argument| !argument.is_empty()).collect();
            let told = Doseline::run(&arguments, &[("DOSELINE__MQTT__PASSWORD", MQTT)], WITHIN);
            assert_silent(&format!("{arguments:?}"), &format!("{}{}", told.stdout, told.stderr), &secrets);
        }
        for (role, running) in ROLES.iter().zip(&mut roles) {
            running.stop(STOPS_WITHIN);
            assert_silent(
                &format!("the log of {role}"),
                &format!("{}{}", running.stdout(), running.stderr()),
                &secrets,
            );
        }
    }
}

/// The password that `up` makes for its roles.
#[test]
fn up_does_not_show_the_password_of_its_roles() {
    let scratch = Scratch::new("up-secrets");
    let data_dir = scratch.join("data").display().to_string();
    let ports = ["--mqtt-port", "0", "--kafka-port", "0", "--clickhouse-port", "0", "--http-port", "0"];
    let arguments = [&["up", "--data-dir", &data_dir][..], &ports].concat();
    let mut up = Doseline::start_with(&arguments, &[("DOSELINE__LOG__FILTER", "debug")]);
    let ready = up.wait_until_ready(Duration::from_secs(300));
    let running = fs::read_to_string(Path::new(&data_dir).join("running.json")).expect("the file of the running `up`");
    let running: serde_json::Value = serde_json::from_str(&running).expect("JSON");
    let password = running["config"]["clickhouse"]["password"].as_str().expect("a password").to_owned();
    assert!(password.len() >= 16, "{password}");
    let secrets = [password.as_str()];
    assert_silent("a command line", &command_lines(), &secrets);
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    for path in ["/", "/readyz", "/metrics"] {
        let text = agent.get(format!("{}{path}", ready.dashboard)).call().expect("an answer");
        assert_silent(path, &text.into_body().read_to_string().expect("text"), &secrets);
    }
    let told = Doseline::run(&["check", "--connect", "--json", "--data-dir", &data_dir], &[], WITHIN);
    assert_silent("check", &format!("{}{}", told.stdout, told.stderr), &secrets);
    up.stop(STOPS_WITHIN);
    assert_silent("the log of up", &format!("{}{}", up.stdout(), up.stderr()), &secrets);
}

/// Whether the probe of `deploy/compose.yaml` finds the loader ready.
fn is_healthy(port: u16) -> bool {
    let compose = include_str!("../../deploy/compose.yaml");
    let probe = compose.lines().find(|line| line.contains("/dev/tcp/127.0.0.1/9602")).expect("the probe of the loader");
    let probe = probe.split_once("\"-c\", '").and_then(|(_, rest)| rest.strip_suffix("']")).expect("a command of bash");
    let probe = probe.replace("9602", &port.to_string()).replace("$$", "$");
    Command::new("bash").args(["-c", &probe]).stderr(Stdio::null()).status().expect("start bash").success()
}

/// The same processes go on after the passwords of ClickHouse and Kafka were changed.
#[test]
fn new_passwords_of_clickhouse_and_kafka_need_no_restart() {
    let mut rig = Rig::start();
    let configuration = rig.configuration(false);
    rig.migrate(&configuration);
    assert!(!is_healthy(rig.port("load")), "it has not started");
    let mut load = rig.start_role("load", &configuration);
    let mut serve = rig.start_role("serve", &configuration);
    rig.wait_until_ready("load");
    rig.wait_until_ready("serve");
    assert!(is_healthy(rig.port("load")));

    rig.clickhouse.start_with_password("another");
    rig.write("clickhouse", "another");
    rig.wait_until_ready("serve");
    rig.wait_until_ready("load");

    rig.kafka.change_password(USER, "another");
    rig.write("kafka", "another");
    load.wait_for_line("files of kafka's connection were renewed", WITHIN);
    // The broker asks every connection for the password again.
    rig.kafka.stop();
    rig.kafka.start_again();
    rig.wait_until_ready("load");
    for role in [&mut load, &mut serve] {
        role.process().alive().expect("the same process");
        role.stop(STOPS_WITHIN);
    }
}
