//! What every role with a port repeats: the door that a request has to pass, and bounds on connections and open files.
//!
//! Absent: everything about injections, and the ports themselves.

pub mod door;
pub mod files;
pub mod listener;
pub mod places;
