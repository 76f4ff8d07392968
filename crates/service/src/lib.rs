//! What every role with an HTTP port repeats: the door that a request has to pass.
//!
//! Absent: everything about injections, and the ports themselves.

pub mod door;
