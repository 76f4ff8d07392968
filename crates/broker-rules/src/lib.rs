//! A plugin for the MQTT broker Eclipse Mosquitto 2. It does what the broker's `acl_file` leaves
//! open.
//!
//! - `acl_file` decides about what is published and delivered, but it grants every SUBSCRIBE. The
//!   plugin grants a subscription only if the file lets the user read exactly that filter.
//! - A retained report would be delivered again to each bridge that subscribes, and occupy the
//!   broker's memory. The plugin clears the retain flag. The report itself arrives as any other.
//! - At SIGHUP the broker reads the list of revoked certificates again, but keeps the connections
//!   that are open. The plugin ends those of revoked names, and no others.
//!
//! Absent: TLS, and the decision about what is published and delivered. Both are the broker's own.
//!
//! Invariants:
//! - The plugin only refuses. What it does not refuse, the broker's `acl_file` still decides.
//! - A fault in a file prevents the broker's start. At a later SIGHUP the rules that were read last
//!   still hold, and the broker's log names the fault.

mod rules;

// A unit test has no broker that would provide the functions that the plugin calls.
#[cfg(not(test))]
mod plugin;
