//! Engines, tables and topics, and doseline's roles between them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::{ClickHouse, Doseline, Kafka, Mosquitto, Process, Scratch, free_port, poll};

use super::usage;

const MIGRATED_WITHIN: Duration = Duration::from_secs(120);
const READY_WITHIN: Duration = Duration::from_secs(180);
/// ClickHouse is at rest when nothing has been merged for this long.
const REST: Duration = Duration::from_secs(3);
const AT_REST_WITHIN: Duration = Duration::from_secs(600);

/// Mosquitto, Kafka and ClickHouse with doseline's tables and topics, in doseline's default configuration: one copy of
/// each partition, because there is one Kafka node.
pub struct Stage {
    pub mosquitto: Mosquitto,
    pub kafka: Kafka,
    pub clickhouse: ClickHouse,
    scratch: Scratch,
}

impl Stage {
    /// Starts the engines and runs `doseline migrate`.
    pub fn start() -> Self {
        let (mosquitto, kafka, clickhouse) = std::thread::scope(|scope| {
            let kafka = scope.spawn(Kafka::start);
            let (mosquitto, clickhouse) = (Mosquitto::start(), ClickHouse::start());
            (mosquitto, kafka.join().expect("kafka starts"), clickhouse)
        });
        let stage = Self { mosquitto, kafka, clickhouse, scratch: Scratch::new("bench") };
        stage.migrate();
        stage
    }

    /// Another Mosquitto, without sessions.
    pub fn renew_mosquitto(&mut self) {
        self.mosquitto = Mosquitto::start();
        self.configure();
    }

    /// Another ClickHouse, with empty tables.
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
             [clickhouse]\nurl = \"{}\"\n",
            self.mosquitto.port(),
            self.kafka.bootstrap(),
            self.clickhouse.url(),
        );
        std::fs::write(self.configuration(), text).expect("write the configuration");
    }

    fn configuration(&self) -> PathBuf {
        self.scratch.join("doseline.toml")
    }

    /// Starts a role without waiting, with more settings from the environment.
    pub fn launch(&self, name: &str, environment: &[(&str, &str)]) -> Role {
        let address = format!("127.0.0.1:{}", free_port());
        let variable = format!("DOSELINE__{}__HTTP", name.to_uppercase());
        let environment: Vec<_> = environment.iter().copied().chain([(variable.as_str(), address.as_str())]).collect();
        let configuration = self.configuration();
        let configuration = configuration.to_str().expect("a plain path");
        let doseline = Doseline::start_with(&[name, "--config", configuration], &environment);
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .new_agent();
        Role { doseline, address, agent }
    }

    /// Starts a role and waits until it is ready.
    pub fn role(&self, name: &str, environment: &[(&str, &str)]) -> Role {
        let mut role = self.launch(name, environment);
        poll(READY_WITHIN, &format!("{name} to be ready"), || {
            role.process().alive().unwrap_or_else(|ended| panic!("{ended}"));
            match role.get("/readyz") {
                Ok((true, _)) => Ok(()),
                Ok((false, obstacles)) => Err(obstacles),
                Err(error) => Err(error.to_string()),
            }
        });
        role
    }

    /// Port of the Kafka node.
    pub fn kafka_port(&self) -> u16 {
        let bootstrap = self.kafka.bootstrap();
        bootstrap.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("host and port")
    }

    /// Waits until ClickHouse merges no more.
    pub fn rest(&self) {
        let mut quiet_since = Instant::now();
        poll(AT_REST_WITHIN, "clickhouse to be at rest", || {
            let merges = self.clickhouse.number("SELECT count() FROM system.merges");
            if merges > 0 {
                quiet_since = Instant::now();
            }
            if quiet_since.elapsed() >= REST { Ok(()) } else { Err(format!("{merges} merges")) }
        });
    }

    /// CPU time of Mosquitto, Kafka and ClickHouse so far, s.
    pub fn engines_cpu_s(&mut self) -> [f64; 3] {
        [self.mosquitto.process().id(), self.kafka.node(0).process().id(), self.clickhouse.process().id()]
            .map(usage::cpu_s)
    }
}

/// A process of doseline's that serves HTTP.
pub struct Role {
    doseline: Doseline,
    address: String,
    agent: ureq::Agent,
}

impl Role {
    /// The answer to GET: whether its status is a success, and its text.
    pub fn get(&self, path: &str) -> Result<(bool, String), ureq::Error> {
        let mut answer = self.agent.get(format!("http://{}{path}", self.address)).call()?;
        let text = answer.body_mut().with_config().limit(1 << 28).read_to_string()?;
        Ok((answer.status().is_success(), text))
    }

    /// Sum of a metric over its labels.
    pub fn metric(&self, name: &str) -> u64 {
        self.try_metric(name).expect("metrics")
    }

    /// The same of a role that may not serve yet.
    pub fn try_metric(&self, name: &str) -> Result<u64, ureq::Error> {
        let (_, text) = self.get("/metrics")?;
        let value = |line: &str| {
            let (sample, value) = line.rsplit_once(' ')?;
            (sample.split('{').next()? == name).then(|| value.parse::<f64>().ok())?
        };
        Ok(text.lines().filter_map(value).sum::<f64>() as u64)
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        self.doseline.process()
    }

    /// CPU time so far, s.
    pub fn cpu_s(&mut self) -> f64 {
        usage::cpu_s(self.process().id())
    }

    /// Most resident memory so far, MiB.
    pub fn rss_peak_mib(&mut self) -> f64 {
        usage::rss_peak_mib(self.process().id())
    }

    /// SIGTERM, and waits for its end.
    pub fn stop(&mut self) {
        let (status, _) = self.doseline.stop(Duration::from_secs(30));
        assert!(status.success(), "it ended with {status}");
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.doseline.kill();
    }
}
