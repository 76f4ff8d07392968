//! Does a device keep its tolerance, does it drift, and which single injections deserve an alert?
//!
//! | file | what it does |
//! |---|---|
//! | [`pass`] | finds the devices and sessions that a change concerns, reads their facts, writes verdicts |
//! | [`units`] | names those devices and sessions |
//! | [`tolerance`], [`drift`] | judge one device: pure |
//! | [`rules`] | the limits that both judge by |
//! | [`conditions`] | says which alerts the verdicts and injections raise: pure |

pub mod conditions;
pub mod drift;
pub mod pass;
pub mod rules;
#[cfg(test)]
mod tests;
pub mod tolerance;
pub mod units;
