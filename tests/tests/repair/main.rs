//! Loaded data, examined again: `reconcile` names each difference, `rebuild` loads a day again from
//! Kafka, and a new version takes over while data flows.

mod fleet;
#[path = "../loader/rig.rs"]
#[allow(dead_code, reason = "these tests need a part of it")]
mod rig;
mod world;

mod rebuild;
mod reconcile;
mod times;
mod upgrade;
