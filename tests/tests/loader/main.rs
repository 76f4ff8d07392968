//! The loader against Apache Kafka and the ClickHouse engine.

mod cost;
mod kinds;
mod path;
mod rig;
mod store;
