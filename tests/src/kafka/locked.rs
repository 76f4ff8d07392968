//! A broker with a lock: a listener with TLS that asks for a SCRAM password and refuses whom no
//! rule names. The rules are those of `deploy/kafka/acls.sh`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Kafka, Node, node};
use crate::{Process, Scratch};

const RULED_WITHIN: Duration = Duration::from_secs(300);

impl Kafka {
    /// Starts a broker with a second listener that knows these users, each with the password that
    /// [`Kafka::scram_password`] tells, and lets none of them do anything until [`Kafka::allow`].
    /// Clients of [`Kafka::bootstrap`], which only the harness uses, may do everything.
    pub fn locked(users: &[&str]) -> Self {
        let mut nodes = Node::plan(1);
        certificates(nodes[0].folder());
        nodes[0].lock();
        let scram = |user: &&str| format!("SCRAM-SHA-512=[name={user},password={}]", Self::scram_password(user));
        let arguments: Vec<_> = users.iter().flat_map(|user| ["--add-scram".to_owned(), scram(user)]).collect();
        nodes[0].format_with(&arguments);
        let mut kafka = Self { nodes };
        kafka.start_again();
        kafka
    }

    /// The first password of a user.
    pub fn scram_password(user: &str) -> String {
        format!("{user}-secret")
    }

    /// PEM file of the authority that signed the broker's certificate.
    pub fn authority(&self) -> PathBuf {
        self.nodes[0].folder().join("ca.pem")
    }

    /// What a client of a user is configured with.
    pub fn scram_properties(&self, user: &str) -> BTreeMap<String, String> {
        let pairs = [
            ("security.protocol", "sasl_ssl".to_owned()),
            ("ssl.ca.location", self.authority().display().to_string()),
            ("sasl.mechanism", "SCRAM-SHA-512".to_owned()),
            ("sasl.username", user.to_owned()),
            ("sasl.password", Self::scram_password(user)),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// Gives the roles their rights: runs a script such as `deploy/kafka/acls.sh`.
    pub fn allow(&self, script: &Path) {
        let scratch = Scratch::new("kafka-acls");
        let (tool, admin) = (scratch.join("kafka-acls"), scratch.join("admin.properties"));
        let java = node::java();
        let mut line = format!("exec {}", quoted(java.get_program()));
        for argument in java.get_args() {
            line = format!("{line} {}", quoted(argument));
        }
        fs::write(&tool, format!("#!/bin/sh\n{line} org.apache.kafka.tools.AclCommand \"$@\"\n"))
            .expect("write a script");
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o700)).expect("make it executable");
        fs::write(&admin, "").expect("write properties");
        let mut command = Command::new("sh");
        command.arg(script).env("BOOTSTRAP", self.bootstrap()).env("COMMAND_CONFIG", &admin);
        command.env("KAFKA_ACLS", &tool);
        let mut process = Process::start("acls.sh", command, &scratch.join("acls.log"), None);
        let status = process.wait(RULED_WITHIN);
        assert!(status.success(), "acls.sh ended with {status}:\n{}", process.log());
    }
}

/// Kept from the shell.
fn quoted(text: &std::ffi::OsStr) -> String {
    format!("'{}'", text.to_string_lossy())
}

/// An authority, and a key store with the broker's key and certificate.
fn certificates(folder: &Path) {
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(folder).output().expect("start openssl");
        assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let authority = ["req", "-x509", "-days", "2", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem"];
    openssl(&[&authority[..], &key].concat());
    let request = ["req", "-subj", "/CN=127.0.0.1", "-keyout", "broker.key", "-out", "broker.csr"];
    openssl(&[&request[..], &key].concat());
    fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1").expect("write the names");
    let sign =
        ["x509", "-req", "-days", "2", "-in", "broker.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
    openssl(&[&sign[..], &["-extfile", "names", "-out", "broker.pem"]].concat());
    let read = |name: &str| fs::read_to_string(folder.join(name)).expect("openssl wrote it");
    fs::write(folder.join("broker.keystore.pem"), read("broker.key") + &read("broker.pem"))
        .expect("write the key store");
}
