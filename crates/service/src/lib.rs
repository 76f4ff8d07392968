//! What every role with an HTTP port repeats: the door that a request has to pass, bounds on
//! connections and open files, and the troubles of other roles that its health tells of.
//!
//! Absent: everything about injections, and the ports themselves.

pub mod door;
pub mod files;
pub mod listener;
pub mod places;
pub mod troubles;
