//! The ClickHouse schema of doseline: migrations, registry, rollups, delivery views and typed
//! queries. No other crate knows its SQL.
//!
//! Absent: the decision what to write and when (`load`), the mathematics (`analysis`), any state of
//! its own.
//!
//! Invariants:
//! - Tables, views and columns are a public API. They change by a new migration only, never by an
//!   edit of a released one.
//! - Every table that the loader writes has a deduplication window of at least 100,000 blocks.
//!   [`schema::verify`] refuses a smaller one.
//! - Sums are sums of integers. No result depends on the order or grouping of inserts.

pub mod accuracy;
pub mod alerts;
pub mod assessments;
pub mod changes;
pub mod client;
pub mod closing;
pub mod columns;
pub mod compare;
pub mod delivery;
pub mod devices;
pub mod error;
mod facts;
pub mod incidents;
pub mod insert;
pub mod loader;
pub mod migrate;
pub mod notices;
mod positions;
pub mod prune;
pub mod quarantine;
pub mod rebuild;
pub mod reconcile;
pub mod registry;
pub mod rollup;
mod rows;
pub mod schema;
mod statement;
pub mod states;
pub mod sterility;
pub mod trace;
pub mod verdicts;

pub use client::{Options, Warehouse};
pub use error::{Advice, Error};
