//! The three engines of `doseline up`: Mosquitto as a child process, and two engines inside this
//! process, ClickHouse and a log that speaks Kafka's protocol.
//!
//! Absent: everything about injections. This crate uses no other crate of the data path. Those
//! crates only see an engine through its network protocol, so the real service can replace any of
//! them.
//!
//! Invariants: an engine that is ready serves on the address that its handle names. It ends when
//! its token is cancelled, and reports any other end as an error. What it has acknowledged is in
//! its data directory, which one process uses at a time.

pub mod clickhouse;
pub mod kafka;
pub mod mosquitto;
