//! The whole path as services: three engines, and doseline's roles between them.

use std::time::Duration;

use crate::role::Role;
use crate::{ClickHouse, Doseline, Kafka, Mosquitto, Scratch, wait_until_committed};

const MIGRATED_WITHIN: Duration = Duration::from_secs(180);
const READY_WITHIN: Duration = Duration::from_secs(180);
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Mosquitto, Kafka and ClickHouse with topics and tables, and a configuration that names all
/// three.
///
/// The test starts and holds the roles, so it decides the order in which they end.
pub struct Stack {
    /// The MQTT broker between devices and bridge.
    pub mosquitto: Mosquitto,
    /// The Kafka cluster with doseline's topics.
    pub kafka: Kafka,
    /// ClickHouse with doseline's tables.
    pub clickhouse: ClickHouse,
    configuration: String,
    _scratch: Scratch,
}

impl Stack {
    /// Starts the engines, writes the configuration, with `more` at its end, and runs `doseline
    /// migrate`.
    pub fn start(more: &str) -> Self {
        let scratch = Scratch::new("stack");
        let (mosquitto, kafka, clickhouse) = engines();
        let settings = format!(
            "[mqtt]\nhost = \"127.0.0.1\"\nport = {}\n\n\
             [kafka]\nbrokers = [\"{}\"]\npartitions = 4\nreplication = 1\nmin_insync_replicas = 1\n\n\
             [clickhouse]\nurl = \"{}\"\nusername = \"doseline\"\npassword = \"owner\"\nfsync = false\n\n{more}\n",
            mosquitto.port(),
            kafka.bootstrap(),
            clickhouse.url(),
        );
        let path = scratch.join("doseline.toml");
        std::fs::write(&path, settings).expect("write the configuration");
        let configuration = path.into_os_string().into_string().expect("a plain path");
        let stack = Self { mosquitto, kafka, clickhouse, configuration, _scratch: scratch };
        let migrated = Doseline::run(&stack.arguments(&["migrate"]), &[], MIGRATED_WITHIN);
        assert_eq!(migrated.code, Some(0), "{}", migrated.stderr);
        stack
    }

    /// Starts a sub-command with this configuration.
    pub fn doseline(&self, arguments: &[&str]) -> Doseline {
        Doseline::start(&self.arguments(arguments))
    }

    /// Starts `bridge` or `load` with its own HTTP port, and waits until it is ready.
    pub fn role(&self, name: &str) -> Doseline {
        let mut role = Role::start(name, &self.configuration, &[], ANSWER_WITHIN);
        role.wait_until_ready(READY_WITHIN);
        role.doseline
    }

    /// Waits until everything in Kafka now is committed. Its rows, sums, ledgers and marks are then
    /// there.
    #[track_caller]
    pub fn wait_until_committed(&self) {
        wait_until_committed(&self.clickhouse, &self.kafka);
    }

    fn arguments<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        arguments.iter().copied().chain(["--config", self.configuration.as_str()]).collect()
    }
}

/// Starts the three engines in parallel.
pub(crate) fn engines() -> (Mosquitto, Kafka, ClickHouse) {
    std::thread::scope(|scope| {
        let kafka = scope.spawn(Kafka::start);
        let (mosquitto, clickhouse) = (Mosquitto::start(), ClickHouse::start());
        (mosquitto, kafka.join().expect("kafka starts"), clickhouse)
    })
}
