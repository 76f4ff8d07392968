//! What every role repeats: its HTTP port with `/livez`, `/readyz` and `/metrics`, waits between
//! attempts, secrets, the connection to Kafka, and the settings of the configuration file.
//!
//! Boundary: this crate knows nothing about injections, MQTT or ClickHouse. It opens no port by
//! itself and reads no configuration file; the roles and the binary do.
//!
//! Invariants:
//! - Neither a log line nor an error nor `Debug` shows a [`secret::Secret`] or the value of a
//!   property of [`kafka::Properties`].
//! - A setting has its type, default, bounds and description in one place: [`settings!`].
//! - A request of another site's page does not reach a role ([`origin_guard`]), and the connections
//!   of a port are bounded ([`connection_slots`]).
//!
//! Start reading at [`mod@settings`] for options, at [`health`] for what a role says about itself.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub mod backoff;
pub mod certificate;
pub mod connection_slots;
pub mod files;
pub mod health;
pub mod kafka;
pub mod listener;
pub mod origin_guard;
pub mod producer;
pub mod role_faults;
pub mod secret;
pub mod settings;
pub mod time;
pub mod tls;

/// Locks a mutex, also after a thread has panicked while it held the lock. Only for state that no
/// panic can leave half changed.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
