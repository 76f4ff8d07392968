//! The ClickHouse schema of doseline: migrations, registry, rollups, delivery views and typed
//! queries.
//!
//! Boundary: the home of SQL. Elsewhere are only the panels of the dashboard, the queries that an
//! alert shows as its evidence, the names of units in the monitor, and the models of the
//! demonstration fleet. This crate does not decide what is written and when (`load`),
//! contains no mathematics (`analysis`), and has no state of its own.
//!
//! Invariants:
//! - Tables, views and columns are a public API. They change by a new migration only, never by an
//!   edit of a released one.
//! - Every table that the loader writes has a deduplication window of at least 100,000 blocks.
//!   [`schema::verify`] refuses a smaller one.
//! - Sums are sums of integers. No result depends on the order or grouping of inserts.
//!
//! Start reading at [`schema`] (all relations), [`insert`] (how a block is written once) and
//! [`loader`] (intents and commits).

pub mod accuracy;
pub mod alerts;
pub mod assessments;
pub mod audit;
pub mod changes;
pub mod client;
pub mod closing;
pub mod columns;
pub mod compare;
pub mod delivery;
pub mod devices;
pub mod error;
mod facts;
pub mod grants;
pub mod horizon;
pub mod incidents;
pub mod insert;
pub mod loader;
pub mod migrate;
pub mod migrations;
pub mod notices;
mod positions;
pub mod prune;
pub mod quarantine;
pub mod rebuild;
pub mod reconcile;
pub mod registry;
pub mod rights;
pub mod rollup;
mod rows;
pub mod schema;
pub mod sight;
pub mod sql;
mod statement;
pub mod states;
pub mod sterility;
pub mod trace;
pub mod verdicts;
pub mod watch;

/// Labels of items and products, for crates that do not use `analysis` themselves.
pub use analysis::gs1;
pub use client::{Options, Warehouse};
pub use error::{Advice, Error};
