//! The reference device client and, on it, the fleet simulator.
//!
//! What it is for: it shows device makers how to deliver every event exactly once ([`outbox`],
//! [`sender`], [`draft`]: pure; [`store`], [`gateway`]: IO). It also gives every test of doseline a
//! fleet ([`fleet`]: pure; [`simulate`]: IO) with an oracle ([`truth`]).
//!
//! Absent: anything of the server side. This crate knows MQTT topics and receipts, but not Kafka
//! and ClickHouse.
//!
//! Invariants:
//! - An event is in the journal before it is published, and stays there until its receipt or until
//!   it has been declared lost. No two events have the same sequence number.
//! - `outbox`, `sender`, `draft` and `fleet` have no IO, no clock and no randomness of their own.
//!   Time and random numbers come in as values, so a seed repeats a run.
//! - The output of [`fleet`] depends on seed, epoch and options, never on the network.
//! - Outbox, window, channels and connections are bounded. At a bound an event is declared lost,
//!   never dropped silently.

pub mod draft;
mod error;
pub mod fleet;
pub mod gateway;
pub mod identity;
pub mod journal;
mod link;
pub mod outbox;
mod record;
mod regroup;
mod rejected;
pub mod sender;
pub mod simulate;
pub mod store;
pub mod truth;

pub use error::Error;
pub use identity::{Form, Identity};
