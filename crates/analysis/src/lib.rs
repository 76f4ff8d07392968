//! The mathematics of dose and depth accuracy.
//!
//! What it is for: exact integer [`moments`], and the [`accuracy`] sums made of them, from which every figure is derived.
//!
//! Absent: IO, clocks, threads, randomness, and any knowledge of devices, tables or messages. Numbers in, numbers out.
//!
//! Invariants:
//! - Partial results merge associatively and commutatively; no figure depends on the order data arrived in.

pub mod accuracy;
pub mod moments;
