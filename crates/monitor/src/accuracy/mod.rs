//! Does a device keep its tolerance, does it drift, and what do single injections and devices
//! raise?
//!
//! | file | what it does |
//! |---|---|
//! | [`pass`] | finds the devices and sessions that a change concerns, reads their facts, writes verdicts |
//! | [`units`] | names those devices and sessions |
//! | [`tolerance`], [`drift`] | judge one device: pure |
//! | [`rules`] | the limits that both judge by |
//! | [`conditions`] | says which alerts the findings raise: pure |
//! | [`balance`] | what left a syringe against what was delivered |

pub mod balance;
pub mod conditions;
pub mod drift;
pub mod pass;
pub mod rules;
#[cfg(test)]
mod tests;
pub mod tolerance;
pub mod units;
