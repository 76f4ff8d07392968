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

/// A test of the page in a browser; takes a script of `tests/page`, the address of the page and
/// that of the ClickHouse which its figures are compared with.
pub fn page(script: &str, page: &str, clickhouse: &str) -> Command {
    let mut command = Command::new("node");
    command.env("NODE_PATH", locate::engine("page-1").join("node_modules"));
    command.env("PAGE_URL", page).env("CLICKHOUSE_URL", clickhouse);
    command.arg("--test").arg(locate::checkout("tests/page").join(script));
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

/// ClickHouse's JDBC driver; takes `HOST:PORT` and the password of the user `doseline`.
pub fn jdbc() -> Command {
    let driver = locate::engine("clickhouse-jdbc-0.9.0").join("libs/*");
    // The driver logs through slf4j, which it does not bring along.
    let logging = locate::engine("kafka-4.1.0-tools").join("libs/slf4j-api-1.7.36.jar");
    let mut command = Command::new("java");
    command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]);
    command.arg(format!("{}:{}", driver.display(), logging.display()));
    command.arg(locate::checkout("tests/clients/Jdbc.java"));
    command
}

/// The folder that `cargo xtask engines` fills.
fn fetched() -> std::path::PathBuf {
    locate::engine("kafka-clients-1")
}
