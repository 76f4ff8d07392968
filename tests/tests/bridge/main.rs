//! The bridge between a real Mosquitto and a real Apache Kafka.

mod cost;
mod faults;
mod hostile;
mod path;
mod poison;
mod restarts;
mod rig;
mod start;
