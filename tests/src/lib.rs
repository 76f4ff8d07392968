//! The harness of the end-to-end tests: real engines and the built binary on free ports, with their
//! data in temporary folders.
//!
//! Engines come from the cache folder and the system (`cargo xtask engines` fetches them). Binaries
//! come from the folder that this test was built to (`cargo xtask test` builds them first).
//!
//! Absent: knowledge of the contract and of tables, which belongs to the tests. Exceptions are
//! [`campaign`] and [`mod@bench`], which `cargo xtask soak` and `cargo xtask bench` run, and the
//! commits of the loader. Also absent: `Result`. A failure in here fails the test, with the end of
//! each engine's log.
//!
//! Invariants: every process that a test started ends with the test process, however that ends. No
//! port comes from the range of outgoing connections, so an engine can be killed and restarted on
//! its port. Every wait has a deadline.

pub mod bench;
pub mod campaign;
mod clickhouse;
pub mod clients;
mod committed;
mod deployed;
mod disk;
mod doseline;
mod kafka;
mod large_fleet;
pub mod locate;
mod mosquitto;
mod openid;
mod ports;
mod process;
mod python;
mod raw_mqtt;
mod role;
mod scratch;
mod seed;
mod stack;
mod usage;
mod wait;

pub use clickhouse::{ClickHouse, PASSWORD, Refused};
pub use committed::{ends, is_committed, wait_until_committed};
pub use deployed::{Certificates, Deployed};
pub use disk::Disk;
pub use doseline::{Doseline, Finished, Ready};
pub use kafka::{Kafka, Node, Observer, Offsets, Record, java};
pub use large_fleet::ten_thousand_devices;
pub use mosquitto::Mosquitto;
pub use nix::sys::signal::Signal;
pub use openid::OpenId;
pub use ports::free_port;
pub use process::Process;
pub use python::Python;
pub use raw_mqtt::{Identity, RawMqtt};
pub use scratch::Scratch;
pub use seed::seed;
pub use stack::Stack;
pub use usage::{cpu_s, tree_cpu_s, tree_switches};
pub use wait::{poll, stay_within_a_day};
