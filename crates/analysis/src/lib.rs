//! The mathematics of dose and depth accuracy.
//!
//! What it is for: exact integer [`moments`], from which every figure of accuracy is derived.
//!
//! Absent: IO, clocks, threads, randomness, and any knowledge of devices, tables or messages. Numbers in, numbers out.
//!
//! Invariants:
//! - Partial results merge associatively and commutatively; no figure depends on the order data arrived in.

pub mod moments;
