//! What must hold for any bytes that come from outside, one module for each target of `cargo xtask
//! fuzz`. A module's `check` panics if a property does not hold.
//!
//! The test `corpora` of the workspace runs the same functions over the committed inputs in
//! `corpus/`, without coverage.

#[cfg(feature = "clickhouse")]
pub mod clickhouse;
// A module of the binary, which has no library. It names itself `crate::config`.
#[cfg(feature = "configuration")]
#[path = "../../../crates/doseline/src"]
mod binary {
    #[allow(dead_code, unused_imports, reason = "the binary uses the rest")]
    pub mod config;
}
#[cfg(feature = "configuration")]
use binary::config;
#[cfg(feature = "configuration")]
pub mod configuration;
pub mod gs1;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod receipt;
pub mod report;
pub mod report_json;
pub mod topic;
