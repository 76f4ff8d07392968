//! The programs of `tests/clients`: clients that share no code with doseline.

use std::process::Command;

use crate::locate;

/// kafka-python; takes address, topic and the number of records.
pub fn kafka_python() -> Command {
    let mut command = Command::new(locate::engine("python").join("bin/python"));
    command.env("PYTHONPATH", fetched().join("python"));
    command.arg("-B").arg(locate::checkout("tests/clients/kafka_python.py"));
    command
}

/// kafkajs; the same.
pub fn kafkajs() -> Command {
    let mut command = Command::new("node");
    command.env("NODE_PATH", fetched().join("node_modules")).env("KAFKAJS_NO_PARTITIONER_WARNING", "1");
    command.arg(locate::checkout("tests/clients/kafkajs.js"));
    command
}

/// Clients in Go: `kafka`, which takes the same, or `clickhouse`. `None` where the machine has no
/// Go.
pub fn go() -> Option<Command> {
    if Command::new("go").arg("version").output().is_err() {
        println!("left out: there is no Go on this machine");
        return None;
    }
    let mut command = Command::new("go");
    command.args(["run", "."]).env("GOFLAGS", "-mod=readonly").current_dir(locate::checkout("tests/clients"));
    Some(command)
}

/// The folder that `cargo xtask engines` fills.
fn fetched() -> std::path::PathBuf {
    locate::engine("kafka-clients-1")
}
