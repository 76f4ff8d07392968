//! The loader with Apache Kafka and the ClickHouse engine.

mod commands;
mod gaps;
mod incarnations;
mod kinds;
mod path;
mod refused;
mod rig;
mod rights;
mod store;
mod unreadable;
