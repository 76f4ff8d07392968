//! A broker that knows its users: a second listener asks for a password, and rules say what the
//! user of it may do.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Kafka, Node, node};
use crate::{Process, Scratch};

/// The user to whom rules apply.
const USER: &str = "load";
const PASSWORD: &str = "secret";
const RULED_WITHIN: Duration = Duration::from_secs(120);

impl Kafka {
    /// Starts one broker with a second listener for the user `load`, who may do everything until
    /// [`Kafka::restrict`]. Clients of [`Kafka::bootstrap`] may always do everything.
    pub fn secured() -> Self {
        let mut nodes = Node::plan(1);
        nodes[0].secure(USER, PASSWORD);
        nodes[0].format();
        let mut kafka = Self { nodes };
        kafka.start_again();
        kafka
    }

    /// `HOST:PORT` of the second listener.
    pub fn secured_bootstrap(&self) -> String {
        self.nodes[0].secured_address().expect("the broker was started by `secured`")
    }

    /// What a client of the second listener is configured with.
    pub fn secured_properties(&self) -> BTreeMap<String, String> {
        let pairs = [
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", USER),
            ("sasl.password", PASSWORD),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    /// Takes from the user every right to a topic but these operations.
    pub fn restrict(&self, topic: &str, operations: &[&str]) {
        let who = format!("User:{USER}");
        if operations.is_empty() {
            return self.rule(&["--add", "--deny-principal", &who, "--operation", "All", "--topic", topic]);
        }
        // A topic with a rule is open only to those whom its rules name.
        let allowed = operations.iter().flat_map(|operation| ["--operation", operation]);
        self.rule(
            &["--add", "--allow-principal", &who, "--topic", topic].into_iter().chain(allowed).collect::<Vec<_>>(),
        );
    }

    /// Takes the rules of a topic away: the user may do everything again.
    pub fn unrestrict(&self, topic: &str) {
        self.rule(&["--remove", "--force", "--topic", topic]);
    }

    fn rule(&self, arguments: &[&str]) {
        let scratch = Scratch::new("kafka-acls");
        let mut command = node::java();
        command.args(["org.apache.kafka.tools.AclCommand", "--bootstrap-server", &self.bootstrap()]).args(arguments);
        let mut process = Process::start("kafka acls", command, &scratch.join("acls.log"), None);
        let status = process.wait(RULED_WITHIN);
        assert!(status.success(), "kafka acls ended with {status}:\n{}", process.log());
    }
}
