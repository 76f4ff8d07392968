//! The loader with Apache Kafka and the ClickHouse engine.

mod gaps;
mod kinds;
mod lives;
mod path;
mod refused;
mod rig;
mod store;
mod unreadable;
