//! One node of a Kafka cluster.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::{Process, Scratch, Signal, free_port, locate};

const CLUSTER_ID: &str = "ZG9zZWxpbmUtdGVzdHMtMQ";
const FORMATTED_WITHIN: Duration = Duration::from_secs(180);
const STOPPED_WITHIN: Duration = Duration::from_secs(120);

/// A broker and controller in one process.
pub struct Node {
    id: i32,
    port: u16,
    /// Port of the listener that asks for a password, where there is one.
    secured: Option<u16>,
    process: Option<Process>,
    // Deleted after the process has ended.
    scratch: Scratch,
}

impl Node {
    /// The nodes of a cluster, configured and not started.
    pub(super) fn plan(size: usize) -> Vec<Self> {
        let controllers: Vec<_> = (0..size).map(|_| free_port()).collect();
        let voters: Vec<_> =
            controllers.iter().enumerate().map(|(index, port)| format!("{}@127.0.0.1:{port}", index + 1)).collect();
        let replicas = size.min(3);
        let nodes = controllers.iter().zip(1..).map(|(controller, id)| {
            let (scratch, port) = (Scratch::new(&format!("kafka-{id}")), free_port());
            let properties = format!(
                "process.roles=broker,controller\n\
                 node.id={id}\n\
                 controller.quorum.voters={voters}\n\
                 controller.listener.names=CONTROLLER\n\
                 inter.broker.listener.name=PLAINTEXT\n\
                 listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
                 advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
                 listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
                 log.dirs={data}\n\
                 auto.create.topics.enable=false\n\
                 unclean.leader.election.enable=false\n\
                 message.max.bytes=4194304\n\
                 replica.fetch.max.bytes=4194304\n\
                 offsets.topic.num.partitions=1\n\
                 offsets.topic.replication.factor={replicas}\n\
                 transaction.state.log.num.partitions=1\n\
                 transaction.state.log.replication.factor={replicas}\n\
                 transaction.state.log.min.isr=1\n\
                 group.initial.rebalance.delay.ms=0\n\
                 group.min.session.timeout.ms=1000\n\
                 broker.session.timeout.ms=3000\n\
                 broker.heartbeat.interval.ms=500\n\
                 initial.broker.registration.timeout.ms=300000\n\
                 num.network.threads=2\n\
                 num.io.threads=2\n",
                voters = voters.join(","),
                data = scratch.join("data").display(),
            );
            fs::write(scratch.join("server.properties"), properties).expect("write server.properties");
            Self { id, port, secured: None, process: None, scratch }
        });
        nodes.collect()
    }

    /// Adds a listener that asks for a password, and rules that apply to its user alone.
    pub(super) fn secure(&mut self, user: &str, password: &str) {
        let (path, port) = (self.scratch.join("server.properties"), free_port());
        let properties = fs::read_to_string(&path).expect("read server.properties");
        let properties = properties
            .replace("listeners=PLAINTEXT", &format!("listeners=CLIENT://127.0.0.1:{port},PLAINTEXT"))
            .replace("protocol.map=", "protocol.map=CLIENT:SASL_PLAINTEXT,");
        let more = format!(
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
             super.users=User:ANONYMOUS\n\
             allow.everyone.if.no.acl.found=true\n\
             sasl.enabled.mechanisms=PLAIN\n\
             listener.name.client.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
             user_{user}=\"{password}\";\n"
        );
        fs::write(path, properties + &more).expect("write server.properties");
        self.secured = Some(port);
    }

    /// Adds a listener with TLS that asks for a SCRAM password and refuses whom no rule names. The
    /// key store is in the node's folder.
    pub(super) fn lock(&mut self) {
        let (path, port) = (self.scratch.join("server.properties"), free_port());
        let properties = fs::read_to_string(&path).expect("read server.properties");
        let properties = properties
            .replace("listeners=PLAINTEXT", &format!("listeners=CLIENT://127.0.0.1:{port},PLAINTEXT"))
            .replace("protocol.map=", "protocol.map=CLIENT:SASL_SSL,");
        let more = format!(
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
             super.users=User:ANONYMOUS\n\
             allow.everyone.if.no.acl.found=false\n\
             sasl.enabled.mechanisms=SCRAM-SHA-512\n\
             listener.name.client.scram-sha-512.sasl.jaas.config=\
             org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
             ssl.keystore.type=PEM\n\
             ssl.keystore.location={}\n",
            self.scratch.join("broker.keystore.pem").display()
        );
        fs::write(path, properties + &more).expect("write server.properties");
        self.secured = Some(port);
    }

    /// The folder of its configuration.
    pub(super) fn folder(&self) -> &std::path::Path {
        self.scratch.path()
    }

    /// Writes the identity of cluster and node into the data folder, which Kafka requires once.
    pub(super) fn format(&mut self) {
        self.format_with(&[]);
    }

    /// As [`Node::format`], with further arguments.
    pub(super) fn format_with(&mut self, arguments: &[String]) {
        let mut command = java();
        command.args(["kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER_ID, "--config"]);
        command.arg(self.scratch.join("server.properties")).args(arguments);
        let mut process = Process::start("kafka format", command, &self.scratch.join("format.log"), None);
        let status = process.wait(FORMATTED_WITHIN);
        assert!(status.success(), "kafka format ended with {status}:\n{}", process.log());
    }

    /// Starts the node without waiting for it.
    pub(super) fn launch(&mut self) {
        self.process = None;
        let mut command = java();
        command.arg("kafka.Kafka").arg(self.scratch.join("server.properties"));
        let name = format!("kafka node {}", self.id);
        self.process = Some(Process::start(&name, command, &self.scratch.join("kafka.log"), None));
    }

    pub(super) fn alive(&mut self) -> Result<(), String> {
        self.process.as_mut().map_or_else(|| Err(format!("kafka node {} was not started", self.id)), Process::alive)
    }

    /// Whether its process exists, halted or not.
    pub fn runs(&mut self) -> bool {
        self.alive().is_ok()
    }

    /// Kills it with SIGKILL, if it runs.
    pub fn kill(&mut self) {
        self.process.iter_mut().for_each(Process::kill);
    }

    /// Stops it with SIGTERM and waits: it hands over its partitions and writes its state.
    pub fn stop(&mut self) {
        if let Some(process) = &mut self.process {
            process.stop(STOPPED_WITHIN);
        }
    }

    /// Halts it, as a long pause would; `resume` ends that.
    pub fn pause(&mut self) {
        self.process.iter_mut().for_each(|process| process.signal(Signal::SIGSTOP));
    }

    /// Ends a `pause`.
    pub fn resume(&mut self) {
        self.process.iter_mut().for_each(|process| process.signal(Signal::SIGCONT));
    }

    /// The file of the first records of a partition. What is changed in it is what the broker sends
    /// from then on.
    pub fn segment(&self, topic: &str, partition: i32) -> std::path::PathBuf {
        self.scratch.join("data").join(format!("{topic}-{partition}")).join(format!("{:020}.log", 0))
    }

    /// Its process, for signals.
    ///
    /// # Panics
    /// If it was never started.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it was started")
    }

    /// Its id in Kafka, from 1.
    pub fn id(&self) -> i32 {
        self.id
    }

    /// `HOST:PORT` of the listener that asks for a password.
    pub(super) fn secured_address(&self) -> Option<String> {
        self.secured.map(|port| format!("127.0.0.1:{port}"))
    }

    /// `HOST:PORT` for clients.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// Java with Kafka on its class path, tuned for a quick start on a small machine rather than for
/// long runs.
pub fn java() -> Command {
    let libs = locate::engine("kafka-4.1.0-tools").join("libs/*");
    let mut command = Command::new("java");
    command.args(["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]);
    command.args(["-Xshare:auto", "-Dlog4j2.level=WARN", "-cp"]).arg(libs);
    command
}
