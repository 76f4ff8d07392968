//! The loader against Apache Kafka and the ClickHouse engine.

mod kinds;
mod path;
mod rig;
mod store;
