//! Reads the bytes of a report, in three ways.
//!
//! | reader | for | what it reads |
//! |---|---|---|
//! | `fast` | [`crate::report`], [`crate::head`] | Valid reports of injections, in place. Anything else is left to `full`. |
//! | `full` | [`crate::report`] | Whatever a report may hold. Says what is wrong with one. |
//! | [`forensic`] | a person who looks at refused bytes | As much as damaged bytes allow, and where reading stopped. |
//!
//! No reader names a field by a number of its own: `number` is generated from `/proto`, and
//! `forensic` walks the descriptor. A field that a reader does not know is skipped as unknown, as
//! protobuf demands; one that `/proto` has and `fast` does not take makes the report a case for
//! `full`. The tests drive every field of the descriptor through all three.

pub(crate) mod fast;
pub mod forensic;
pub(crate) mod full;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

pub use full::events;

/// Field numbers, generated from `/proto` with the message types.
#[allow(dead_code, clippy::manual_range_patterns, reason = "every message is generated; the readers walk some of them")]
pub(crate) mod number {
    include!("generated/numbers.rs");
}
