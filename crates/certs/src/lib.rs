//! Authorities and certificates of one installation: the MQTT broker and the bridge, the other
//! roles, devices and gateways. `rcgen` writes them, OpenSSL makes the keys and signs.
//!
//! There are three authorities, so that the place of use decides which certificate is accepted:
//! - *devices* signs names of the form `TENANT/SITE/DEVICE`. Its certificates are for clients only,
//!   and its name constraints exclude every host name and address. No certificate of a device can
//!   stand for the broker or the bridge.
//! - *broker* signs the broker and the bridge.
//! - *roles* signs the other services.
//!
//! Absent: configuration, and the network. Everything is in one folder ([`Store`]). Its subfolder
//! `authority` may be kept elsewhere: nothing that runs needs it.
//!
//! Invariants:
//! - The key of an authority is encrypted with a passphrase. Only its owner may read any key.
//! - A file is replaced as a whole. A replaced file keeps its permissions, so that what may read it
//!   can read it after a renewal.
//! - Every certificate is in the index before it is handed out. A certificate that is not in the
//!   index could not be revoked by its name.
//!
//! Start reading at [`Store`].

mod authority;
mod error;
mod files;
mod index;
mod key;
mod store;
mod subject;

pub use error::Error;
pub use index::{Entry, State};
pub use store::{Issued, Revoked, Store};
pub use subject::{Authority, Kind, Subject};
