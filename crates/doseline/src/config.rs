//! The configuration: defaults < file < environment `DOSELINE__SECTION__KEY` < flags, then
//! [`Config::faults`].
//!
//! Each section is declared once, with the types, defaults, bounds and descriptions of its keys: in
//! the crate of the role that it configures, or in [`sections`]. This module composes them, reads
//! them and reports faults.

use std::{fmt, path::Path};

use figment::{
    Figment,
    providers::{Env, Format as _, Serialized, Toml},
};
use serde::{Deserialize, Serialize};
use service::{certificate::Certificate, settings::Section as _};
use telemetry::{device_time, plausibility::Plausibility};

#[cfg(test)]
mod reference;
mod sections;

pub use self::sections::{ClickHouse, Http, Log, LogFormat, Quarantine, Serve, ServeAuth};

/// Prefix of environment variables; sections and keys are separated by two underscores.
pub const ENV_PREFIX: &str = "DOSELINE__";

/// Calls a macro with every section that [`service::settings!`] declares, as `name: type`.
macro_rules! with_sections {
    ($call:ident) => {
        $call! {
            log: crate::config::Log,
            mqtt: bridge::settings::Mqtt,
            kafka: service::kafka::Kafka,
            clickhouse: crate::config::ClickHouse,
            bridge: bridge::settings::Bridge,
            load: load::settings::Load,
            monitor: monitor::settings::Monitor,
            serve: crate::config::Serve,
            http: crate::config::Http,
            quarantine: crate::config::Quarantine
        }
    };
}
#[cfg(test)]
use with_sections;

macro_rules! config {
    ($($name:ident: $type:ty),*) => {
        /// Everything that can be configured.
        #[derive(Clone, Debug, Default, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Config {
            $(pub $name: $type,)*
            /// What a device's clock may show.
            pub device_time: device_time::Limits,
            /// Plausible ranges by device model; a model that is not named has the widest.
            pub plausibility: Plausibility,
        }

        impl Config {
            /// Values outside of the bounds of their keys, as (key, what is wrong).
            fn out_of_bounds(&self) -> Vec<(String, String)> {
                let mut faults = Vec::new();
                $(faults.extend(within(stringify!($name), self.$name.faults()));)*
                faults
            }
        }
    };
}
with_sections!(config);

/// The faults of a section, with the section's name before each key.
fn within(
    section: &str,
    faults: impl IntoIterator<Item = (impl fmt::Display, String)>,
) -> impl Iterator<Item = (String, String)> {
    faults.into_iter().map(move |(key, text)| (format!("{section}.{key}"), text))
}

/// What is wrong with a configuration: where, which key, its value, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// File, `environment` or `defaults`.
    pub origin: String,
    /// `section.key`.
    pub key: String,
    /// What is wrong with the value, and what would be right.
    pub text: String,
}

impl Fault {
    /// Where a person finds what would be right.
    pub fn hint(&self) -> &'static str {
        match self.text == NO_SUCH_FILE {
            true => "name an existing file with --config, or with DOSELINE_CONFIG",
            false => "docs/configuration.md says what each key means; `doseline check` looks without starting anything",
        }
    }
}

/// What is said about a file that is not there.
const NO_SUCH_FILE: &str = "no such file";

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.is_empty() {
            true => write!(f, "{}: {}", self.origin, self.text),
            false => write!(f, "{}: {}: {}", self.origin, self.key, self.text),
        }
    }
}

/// Origin of a value that nobody set.
const DEFAULTS: &str = "defaults";

/// What `doseline up` uses where no file is named.
const SINGLE_NODE: &str = include_str!("../../../config/single-node.toml");

/// Where values come from beside the environment.
#[derive(Clone, Copy, Default)]
pub struct Sources<'a> {
    /// The file named with `--config`.
    pub file: Option<&'a Path>,
    /// Whether `config/single-node.toml` stands for a file that is not named.
    pub is_single_node: bool,
    /// Configuration of a running `doseline up`. Its engines win over everything, because a flag or
    /// the absence of any configuration has named it. The rest stands for a file that is not named,
    /// except for `[log]`, which is that process's own.
    pub running: Option<&'a Config>,
}

/// Reads defaults, file or what stands for it, and the environment, and validates them.
///
/// # Errors
/// Every fault found.
pub fn load(sources: Sources<'_>) -> Result<Config, Vec<Fault>> {
    let Sources { file, is_single_node, running } = sources;
    let mut figment = Figment::from(Serialized::defaults(Config::default()));
    if let (Some(running), None) = (running, file) {
        figment = figment.merge(Serialized::defaults(Config { log: Log::default(), ..running.clone() }));
    }
    if is_single_node && file.is_none() {
        figment = figment.merge(Toml::string(SINGLE_NODE));
    }
    if let Some(path) = file {
        if !path.is_file() {
            let text = NO_SUCH_FILE.to_owned();
            return Err(vec![Fault { origin: path.display().to_string(), key: String::new(), text }]);
        }
        figment = figment.merge(Toml::file_exact(path));
    }
    figment = figment.merge(Env::prefixed(ENV_PREFIX).split("__"));
    if let Some(Config { mqtt, kafka, clickhouse, .. }) = running {
        figment = figment
            .merge(Serialized::default("mqtt", mqtt))
            .merge(Serialized::default("kafka", kafka))
            .merge(Serialized::default("clickhouse", clickhouse));
    }
    let config: Config =
        figment.extract().map_err(|error| error.into_iter().map(|error| type_fault(&error)).collect::<Vec<_>>())?;
    let faults: Vec<_> = config
        .faults()
        .into_iter()
        .map(|(key, text)| {
            // A default that does not fit what the file says is the file's to set.
            let origin = match (origin(figment.find_metadata(&key)), file) {
                (origin, Some(path)) if origin == DEFAULTS => path.display().to_string(),
                (origin, _) => origin,
            };
            Fault { origin, key, text }
        })
        .collect();
    if faults.is_empty() { Ok(config) } else { Err(faults) }
}

fn type_fault(error: &figment::Error) -> Fault {
    let value = match &error.kind {
        figment::error::Kind::UnknownField(field, expected) => {
            format!("no such key {field:?}; keys here are {}", expected.join(", "))
        }
        // The value may be the password.
        figment::error::Kind::InvalidType(_, expected) | figment::error::Kind::InvalidValue(_, expected)
            if error.path.last().is_some_and(|key| key.contains("password")) =>
        {
            format!("the value is of another type than expected: {expected}; quote it")
        }
        kind => without_source(&kind.to_string()),
    };
    Fault { origin: origin(error.metadata.as_ref()), key: error.path.join("."), text: value }
}

/// What is said about a file that is not TOML, without the line that it quotes: a password may
/// stand there.
fn without_source(text: &str) -> String {
    let is_quoted =
        |line: &str| line.trim_start_matches(|letter: char| letter == ' ' || letter.is_ascii_digit()).starts_with('|');
    text.lines().filter(|line| !is_quoted(line)).collect::<Vec<_>>().join(": ")
}

fn origin(metadata: Option<&figment::Metadata>) -> String {
    match metadata {
        Some(metadata) => match metadata.source.as_ref().and_then(|source| source.file_path()) {
            Some(path) => path.display().to_string(),
            None if metadata.name.contains("environment") => format!("environment {ENV_PREFIX}*"),
            None => DEFAULTS.to_owned(),
        },
        None => "configuration".to_owned(),
    }
}

impl Config {
    /// Files that are named and cannot be used, as faults. They are read when they are needed,
    /// perhaps on another machine; so only `doseline check` looks.
    pub fn unusable_files(&self) -> Vec<Fault> {
        let (mqtt, kafka, clickhouse) = (&self.mqtt, &self.kafka, &self.clickhouse);
        let mut files = vec![
            ("mqtt.password_file".to_owned(), mqtt.password_file.as_ref()),
            ("clickhouse.password_file".to_owned(), clickhouse.password_file.as_ref()),
            (
                "serve.oidc.client_secret_file".to_owned(),
                self.serve.oidc.as_ref().and_then(|oidc| oidc.client_secret_file.as_ref()),
            ),
            ("kafka.sasl.password_file".to_owned(), kafka.sasl.as_ref().and_then(|sasl| sasl.password_file.as_ref())),
        ];
        for (section, tls) in [("mqtt", &mqtt.tls), ("kafka", &kafka.tls)] {
            let Some(tls) = tls else { continue };
            files.push((format!("{section}.tls.ca"), Some(&tls.ca)));
            files.push((format!("{section}.tls.certificate"), tls.certificate.as_ref()));
            files.push((format!("{section}.tls.key"), tls.key.as_ref()));
        }
        let unreadable = files.into_iter().filter_map(|(key, path)| {
            let path = path?;
            let error = std::fs::read(path).err()?;
            let text = format!("{}: {error}; name a file that this user can read", path.display());
            Some(Fault { origin: "configuration".to_owned(), key, text })
        });
        let certificate = self.serve.tls.clone().and_then(|tls| Certificate::open(tls).err());
        let unusable = certificate.map(|error| {
            let (origin, key, text) = ("configuration".to_owned(), "serve.tls".to_owned(), error.to_string());
            Fault { origin, key, text }
        });
        unreadable.chain(unusable).collect()
    }

    /// The fault of a dashboard whose answers the network could read. Other roles start with such a
    /// configuration; only `doseline check` and the dashboard itself refuse it.
    pub fn exposed_dashboard(&self) -> Option<Fault> {
        let (key, text) = self.serve.exposure()?;
        Some(Fault { origin: "configuration".to_owned(), key: format!("serve.{key}"), text })
    }

    /// Every fault, as (key, what is wrong and what would be right). Touches neither network nor
    /// disk.
    pub fn faults(&self) -> Vec<(String, String)> {
        let mut faults = self.out_of_bounds();
        let (mqtt, kafka, clickhouse) = (&self.mqtt, &self.kafka, &self.clickhouse);
        faults.extend(within("kafka", kafka.conflicts()));
        faults.extend(within("bridge", self.bridge.conflicts()));
        faults.extend(within("load", self.load.conflicts()));
        faults.extend(within("serve", self.serve.conflicts()));
        faults.extend(self.serve.oidc.iter().flat_map(|oidc| within("serve.oidc", oidc.faults())));
        for (section, tls) in [("mqtt.tls", &mqtt.tls), ("kafka.tls", &kafka.tls)] {
            faults.extend(tls.iter().flat_map(|tls| within(section, tls.conflicts())));
        }
        if let Some(sasl) = &kafka.sasl {
            faults.extend(within("kafka.sasl", sasl.faults()));
        }
        let passwords = [
            ("mqtt", &mqtt.password, &mqtt.password_file),
            ("clickhouse", &clickhouse.password, &clickhouse.password_file),
        ];
        let sasl = kafka.sasl.iter().map(|sasl| ("kafka.sasl", &sasl.password, &sasl.password_file));
        for (section, password, file) in passwords.into_iter().chain(sasl) {
            if password.is_some() && file.is_some() {
                let text = "give password or password_file, not both".to_owned();
                faults.push((format!("{section}.password_file"), text));
            }
        }
        let (age, retention) = (self.quarantine.age_days_max, kafka.retention_days);
        if age < retention {
            let text = format!(
                "{age} days must be at least kafka.retention_days ({retention}): a day that can be rebuilt from Kafka is not \
                 to be deleted"
            );
            faults.push(("quarantine.age_days_max".to_owned(), text));
        }
        faults.extend(within("device_time", self.device_time.faults()));
        faults.extend(within("plausibility", self.plausibility.faults()));
        faults
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    fn repository(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
    }

    fn faults(toml: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broken.toml");
        fs::write(&path, toml).unwrap();
        let faults = load(Sources { file: Some(&path), ..Sources::default() }).unwrap_err();
        faults.iter().map(|fault| fault.to_string().replace(&format!("{}/", folder.path().display()), "")).collect()
    }

    #[test]
    fn no_fault_shows_a_password() {
        for toml in [
            "[mqtt]\npassword = \"hunter2\n",
            "[mqtt]\npassword = \"hunter2\" x\n",
            "[mqtt]\npassword = 70072\n",
            "[clickhouse]\npassword = [\"hunter2\"]\n",
            "[clickhouse]\nurl = \"tcp://user:hunter2@host:9000\"\n",
            "[monitor]\nwebhook = \"ftp://user:hunter2@host/\"\n",
        ] {
            let told = faults(toml).join("\n");
            assert!(!told.contains("hunter2") && !told.contains("70072"), "{told}");
            assert!(!told.is_empty() && !told.contains("Some("), "{told}");
        }
        let told = faults("[mqtt]\nport = 1883\npassword = \"hunter2\n");
        assert!(told[0].contains("line 3"), "{told:?}");
    }

    #[test]
    fn a_dashboard_that_the_network_could_read_is_refused() {
        let faults = |toml: &str| {
            let config: Config =
                Figment::from(Serialized::defaults(Config::default())).merge(Toml::string(toml)).extract().unwrap();
            let open = config.exposed_dashboard().map(|fault| fault.to_string());
            (open, config.faults())
        };
        let (open, conflicts) = faults("[serve]\nhttp = \"0.0.0.0:9600\"\n");
        let open = open.unwrap();
        assert!(open.starts_with("configuration: serve.auth: \"none\" lets everybody"), "{open}");
        assert!(open.contains("0.0.0.0:9600") && open.contains("tokens_file") && conflicts.is_empty(), "{open}");
        let (plain, _) = faults("[serve]\nhttp = \"0.0.0.0:1\"\nauth = \"tokens\"\ntokens_file = \"t\"\n");
        let plain = plain.unwrap();
        assert!(
            plain.contains("serve.behind_proxy: at 0.0.0.0:1") && plain.contains("serve.tls.certificate"),
            "{plain}"
        );
        for safe in [
            "[serve]\nhttp = \"[::1]:9600\"\n",
            "[serve]\nhttp = \"0.0.0.0:1\"\nauth = \"tokens\"\ntokens_file = \"t\"\nbehind_proxy = true\n",
            "[serve]\nhttp = \"0.0.0.0:1\"\nauth = \"tokens\"\ntokens_file = \"t\"\n\
             [serve.tls]\ncertificate = \"c\"\nkey = \"k\"\n",
        ] {
            assert_eq!(faults(safe), (None, Vec::new()), "{safe}");
        }
        let (_, conflicts) = faults("[serve]\nauth = \"tokens\"\n");
        assert_eq!(conflicts[0].0, "serve.tokens_file");
        assert!(conflicts[0].1.contains("doseline token"), "{conflicts:?}");
        let (_, conflicts) = faults("[serve]\nauth = \"oidc\"\n");
        assert_eq!(conflicts[0].0, "serve.oidc");
        let (_, conflicts) = faults("[serve]\nauth = \"oidc\"\n[serve.oidc]\nissuer = \"http://id.example\"\n");
        let keys: Vec<_> = conflicts.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["serve.oidc.issuer", "serve.oidc.client_id", "serve.oidc.redirect_url"], "{conflicts:?}");
        assert!(conflicts[0].1.contains("must be an https:// address"), "{conflicts:?}");
    }

    #[test]
    fn inputs_of_the_fuzz_target_are_without_faults_or_their_faults_are_named() {
        let inputs: Vec<_> = fs::read_dir(repository("tests/fuzz/corpus/configuration")).unwrap().collect();
        assert!(!inputs.is_empty());
        for input in inputs {
            let path = input.unwrap().path();
            match load(Sources { file: Some(&path), ..Sources::default() }) {
                Ok(config) => assert!(config.faults().is_empty(), "{}", path.display()),
                Err(faults) => assert!(!faults.is_empty(), "{}", path.display()),
            }
        }
    }

    #[test]
    fn files_that_are_not_there_are_named() {
        let tls = "ca = \"/nowhere/ca.pem\"\ncertificate = \"/nowhere/c.pem\"\nkey = \"/nowhere/k.pem\"\n";
        let toml = format!(
            "[mqtt]\npassword_file = \"/nowhere/mqtt\"\n[mqtt.tls]\n{tls}[kafka.tls]\n{tls}\
             [kafka.sasl]\nmechanism = \"PLAIN\"\nusername = \"u\"\npassword_file = \"/nowhere/kafka\"\n\
             [clickhouse]\npassword_file = \"/nowhere/clickhouse\"\n\
             [serve.oidc]\nissuer = \"https://id.example\"\nclient_id = \"doseline\"\n\
             redirect_url = \"https://fleet.example/oidc-callback\"\nclient_secret_file = \"/nowhere/oidc\"\n\
             [serve.tls]\ncertificate = \"/nowhere/c.pem\"\nkey = \"/nowhere/k.pem\"\n"
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("doseline.toml");
        fs::write(&path, toml).unwrap();
        let config = load(Sources { file: Some(&path), ..Sources::default() }).unwrap();
        let told: Vec<_> = config.unusable_files().iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 11, "{told:#?}");
        assert!(told[10].starts_with("configuration: serve.tls: /nowhere/c.pem: No such file"), "{told:#?}");
        assert!(told[0].starts_with("configuration: mqtt.password_file: /nowhere/mqtt: No such file"), "{told:#?}");
        assert!(Config::default().unusable_files().is_empty());
    }

    /// ClickHouse and the dashboard have no TLS there. The MQTT port asks for certificates.
    #[test]
    fn compose_publishes_on_the_loopback_interface_what_has_no_lock() {
        let text = fs::read_to_string(repository("deploy").join("compose.yaml")).unwrap();
        let published: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("ports: ")).collect();
        assert_eq!(published.len(), text.matches("ports:").count(), "each in one line");
        let open = published.iter().filter(|ports| !ports.starts_with("[\"127.0.0.1:"));
        assert_eq!(open.collect::<Vec<_>>(), [&"[\"8883:8883\"]"], "{published:?}");
        assert!(published.iter().all(|ports| !ports.contains(',')), "{published:?}");
    }

    /// Each service runs as its own user of ClickHouse, sees its own password, is probed by
    /// `/readyz`, and cannot write into its image.
    #[test]
    fn compose_gives_each_service_its_own_user_and_probe() {
        let text = fs::read_to_string(repository("deploy").join("compose.yaml")).unwrap();
        for (role, port) in [("bridge", 9_601), ("load", 9_602), ("monitor", 9_603), ("serve", 9_600)] {
            let service = text.split(&format!("\n  {role}:\n")).nth(1).unwrap().split("\n\n").next().unwrap();
            let service = service.split("healthcheck:").take(2).collect::<Vec<_>>().join("healthcheck:");
            for part in [
                "<<: *doseline".to_owned(),
                format!("DOSELINE__CLICKHOUSE__USERNAME: doseline_{role}\n"),
                "DOSELINE__CLICKHOUSE__PASSWORD_FILE: /run/doseline/clickhouse_password\n".to_owned(),
                format!("read_only: true, volume: {{ subpath: {role} }}"),
                format!("/dev/tcp/127.0.0.1/{port}; printf \"GET /readyz "),
            ] {
                assert!(service.contains(&part), "{role}: {part} is not in\n{service}");
            }
        }
        let common = text.split("x-image:").nth(1).unwrap().split("\n\n").next().unwrap();
        assert!(common.contains("read_only: true") && common.contains("cap_drop: [ALL]"), "{common}");
    }

    #[test]
    fn every_file_in_config_is_valid() {
        for entry in fs::read_dir(repository("config")).unwrap() {
            let path = entry.unwrap().path();
            load(Sources { file: Some(&path), ..Sources::default() })
                .unwrap_or_else(|faults| panic!("{}: {faults:?}", path.display()));
        }
    }

    #[test]
    fn a_fault_names_file_key_value_and_remedy() {
        let check = |toml: &str, expected: &str| {
            let faults = faults(toml);
            assert!(faults.iter().any(|fault| fault == expected), "{faults:?} lacks {expected}");
        };
        check("[mqtt]\nport = \"high\"", "broken.toml: mqtt.port: invalid type: found string \"high\", expected u16");
        check(
            "[mqtt]\nprot = 1",
            "broken.toml: mqtt.prot: no such key \"prot\"; keys here are host, port, username, password, password_file, tls",
        );
        check("[kafka]\nbrokers = [\"localhost\"]", "broken.toml: kafka.brokers: \"localhost\" must be host:port");
        check("[monitor]\ncoverage = 95", "broken.toml: monitor.coverage: 95 must be 0.9..0.999");
        check("[monitor]\nbands = 0", "broken.toml: monitor.bands: 0 must be 1..20");
        check("[kafka]\nreplication = 1", "broken.toml: kafka.min_insync_replicas: 2 must be 1..kafka.replication (1)");
        check(
            "[mqtt.tls]\nca = \"/ca.pem\"\nkey = \"/k.pem\"",
            "broken.toml: mqtt.tls.key: needs certificate beside it",
        );
        check("[bridge]\nconnections = 65", "broken.toml: bridge.connections: 65 must be 1..64");
        check(
            "[bridge]\nconnections = 2",
            "broken.toml: bridge.connections: 2 connections need bridge.share_group, over which messages are spread",
        );
        check("[bridge]\nin_flight_mib = 3", "broken.toml: bridge.in_flight_mib: 3 must be at least 4");
        check(
            "[bridge]\nshare_group = \"a/b\"",
            "broken.toml: bridge.share_group: \"a/b\" must match [A-Za-z0-9][A-Za-z0-9_-]{0,63}",
        );
        check(
            "[load]\nbatch_mib_max = 80",
            "broken.toml: load.memory_mib_max: 64 must be at least load.batch_mib_max (80)",
        );
        check("[monitor]\nlate_s = 604801", "broken.toml: monitor.late_s: 604801 must be at most 604800");
        check("[mqtt]\nhost = \"\"", "broken.toml: mqtt.host: \"\" must not be empty");
        check(
            "[clickhouse]\nurl = \"tcp://x\"",
            "broken.toml: clickhouse.url: \"tcp://x\" must begin with http:// or https://",
        );
        check("[load]\ngroup = \"a b\"", "broken.toml: load.group: \"a b\" must match [A-Za-z0-9][A-Za-z0-9_-]{0,63}");
        check("[load]\nsession_timeout_s = 0", "broken.toml: load.session_timeout_s: 0 must be 1..3600");
        check(
            "[quarantine]\nage_days_max = 3",
            "broken.toml: quarantine.age_days_max: 3 days must be at least kafka.retention_days (7): a day that can be rebuilt \
             from Kafka is not to be deleted",
        );
        check("[device_time]\nage_max_days = 41", "broken.toml: device_time.age_max_days: 41 must be 42..3650");
        check(
            "[plausibility.pen]\ndepth_um = [9, 1]",
            "broken.toml: plausibility.pen.depth_um: [9, 1] is empty; write [least, most]",
        );
        assert_eq!(
            load(Sources { file: Some(Path::new("/absent.toml")), ..Sources::default() }).unwrap_err()[0].to_string(),
            "/absent.toml: no such file"
        );
    }

    #[test]
    fn the_engines_of_a_running_up_win_and_the_rest_is_the_file_s() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        let toml = "[kafka]\npartitions = 7\n[mqtt.tls]\nca = \"/ca.pem\"\n[quarantine]\nrows_max = 5\n";
        fs::write(&path, toml).unwrap();
        let mut running = load(Sources { is_single_node: true, ..Sources::default() }).unwrap();
        running.mqtt.port = 4_711;
        running.quarantine.rows_max = 9;
        running.log.format = LogFormat::Json;
        let alone = load(Sources { running: Some(&running), ..Sources::default() }).unwrap();
        assert_eq!((alone.mqtt.port, alone.kafka.replication, alone.quarantine.rows_max), (4_711, 1, 9));
        assert_eq!(alone.log.format, LogFormat::Text, "the other process logs as it likes");
        let both = load(Sources { file: Some(&path), running: Some(&running), ..Sources::default() }).unwrap();
        assert_eq!((both.mqtt.port, both.kafka.partitions, both.quarantine.rows_max), (4_711, 1, 5));
        assert!(both.mqtt.tls.is_none());
    }
}
