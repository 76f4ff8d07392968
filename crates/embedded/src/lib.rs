//! The three engines of `doseline up`: Mosquitto in a process of its own, and in this process a log
//! that speaks Kafka's protocol, and ClickHouse.
//!
//! Absent: everything about injections. No other crate of the data path is used here, and those see
//! an engine through its network protocol only, so that each can be exchanged for the real service.
//!
//! Invariants: an engine that is ready serves on the address its handle names; it ends when its
//! token is cancelled and reports any other end as an error; what it has acknowledged is in its
//! data directory, which one process uses at a time.

pub mod clickhouse;
pub mod kafka;
pub mod mosquitto;
