//! Engines, tables and topics, and doseline's roles between them.

use std::path::PathBuf;
use std::time::Duration;

use warehouse::Warehouse;

use crate::role::Role;
use crate::stack::engines;
use crate::{ClickHouse, Doseline, Kafka, Mosquitto, Scratch, cpu_s};

const MIGRATED_WITHIN: Duration = Duration::from_secs(120);
const READY_WITHIN: Duration = Duration::from_secs(180);
/// A view over 100 million injections may need long.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Mosquitto, Kafka and ClickHouse with doseline's tables and topics, in doseline's default
/// configuration. Each partition has one copy, because there is one Kafka node.
pub struct Stage {
    pub mosquitto: Mosquitto,
    pub kafka: Kafka,
    pub clickhouse: ClickHouse,
    scratch: Scratch,
}

impl Stage {
    /// Starts the engines and runs `doseline migrate`.
    pub fn start() -> Self {
        let (mosquitto, kafka, clickhouse) = engines();
        let stage = Self { mosquitto, kafka, clickhouse, scratch: Scratch::new("bench") };
        stage.migrate();
        stage
    }

    /// Replaces Mosquitto by a new one without sessions.
    pub fn renew_mosquitto(&mut self) {
        self.mosquitto = Mosquitto::start();
        self.configure();
    }

    /// Replaces ClickHouse by a new one with empty tables.
    pub fn renew_clickhouse(&mut self) {
        self.clickhouse = ClickHouse::start();
        self.migrate();
    }

    fn migrate(&self) {
        self.configure();
        let configuration = self.configuration();
        let configuration = configuration.to_str().expect("a plain path");
        let migrated = Doseline::run(&["migrate", "--config", configuration], &[], MIGRATED_WITHIN);
        assert_eq!(migrated.code, Some(0), "{}", migrated.stderr);
    }

    fn configure(&self) {
        let text = format!(
            "[mqtt]\nhost = \"127.0.0.1\"\nport = {}\n\n\
             [kafka]\nbrokers = [\"{}\"]\nreplication = 1\nmin_insync_replicas = 1\n\n\
             [clickhouse]\nurl = \"{}\"\nusername = \"doseline\"\npassword = \"owner\"\n",
            self.mosquitto.port(),
            self.kafka.bootstrap(),
            self.clickhouse.url(),
        );
        std::fs::write(self.configuration(), text).expect("write the configuration");
    }

    fn configuration(&self) -> PathBuf {
        self.scratch.join("doseline.toml")
    }

    /// Starts a role without waiting, with further settings from the environment.
    pub fn launch(&self, name: &str, environment: &[(&str, &str)]) -> Role {
        let configuration = self.configuration();
        Role::start(name, configuration.to_str().expect("a plain path"), environment, ANSWER_WITHIN)
    }

    /// Starts a role and waits until it is ready.
    pub fn role(&self, name: &str, environment: &[(&str, &str)]) -> Role {
        let mut role = self.launch(name, environment);
        role.wait_until_ready(READY_WITHIN);
        role
    }

    /// TCP port of the Kafka node.
    pub fn kafka_port(&self) -> u16 {
        let bootstrap = self.kafka.bootstrap();
        bootstrap.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("host and port")
    }

    /// CPU time of Mosquitto, Kafka and ClickHouse so far, s.
    pub fn engines_cpu_s(&mut self) -> [f64; 3] {
        [self.mosquitto.process().id(), self.kafka.node(0).process().id(), self.clickhouse.process().id()].map(cpu_s)
    }
}

/// A client of a ClickHouse, as doseline itself uses it.
pub fn warehouse(clickhouse: &ClickHouse) -> Warehouse {
    let options = clickhouse.warehouse_options();
    Warehouse::new(options).expect("a valid address")
}

/// A counter, summed over its labels.
pub fn count(role: &Role, metric: &str) -> u64 {
    role.metric(metric).expect("metrics") as u64
}
