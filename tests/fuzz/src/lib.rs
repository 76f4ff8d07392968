//! What must hold for any bytes that come from outside, one module for each fuzz target. A module's
//! `check` panics if a property does not hold.

pub mod gs1;
pub mod receipt;
pub mod report;
pub mod report_json;
pub mod topic;
