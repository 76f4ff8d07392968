//! What goes into a gateway, and what it tells besides receipts.

use std::sync::Arc;

use telemetry::{
    interval::Interval,
    v1::{self, event::Kind},
};

use crate::{identity::Identity, store::Stamp};

/// What the owner of a gateway asks of it. `device` is [`super::Gateway::number`].
#[derive(Clone, Debug)]
pub enum Command {
    /// The device booted.
    Boot {
        /// The device.
        device: usize,
        /// Its boot: counter << 32 | random.
        boot_id: u64,
    },
    /// Something happened.
    Event {
        /// The device.
        device: usize,
        /// The sequence number the owner expects it to have.
        seq: u64,
        /// When.
        stamp: Stamp,
        /// The encoded context.
        context: Arc<[u8]>,
        /// What; none makes an event of a kind that no server knows.
        kind: Option<Kind>,
    },
    /// The next event had to be given up.
    Lose {
        /// The device.
        device: usize,
        /// Why.
        reason: &'static str,
    },
    /// The next event was made, but could not be kept.
    Forfeit {
        /// The device.
        device: usize,
    },
    /// A sign of life; the gateway adds what the outbox knows.
    Heartbeat {
        /// The device.
        device: usize,
        /// When.
        stamp: Stamp,
        /// The encoded context.
        context: Arc<[u8]>,
        /// What the device knows.
        heartbeat: v1::Heartbeat,
    },
    /// The device lost or found its network.
    Link {
        /// The device.
        device: usize,
        /// Whether it has one.
        is_up: bool,
    },
    /// Bytes to publish as they are. For tests of the server; not kept on disk.
    Raw {
        /// The device.
        device: usize,
        /// Where to.
        topic: String,
        /// What.
        payload: Vec<u8>,
        /// Whether a REJECTED receipt is due; then it is sent again until it comes.
        is_receipted: bool,
    },
}

/// What happened to events otherwise than by a STORED receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// An event was given up because the outbox was full; it will be declared lost.
    GivenUp {
        /// The device.
        identity: Identity,
        /// The boot.
        boot_id: u64,
        /// The sequence number.
        seq: u64,
    },
    /// A report was rejected.
    Rejected {
        /// The device.
        identity: Identity,
        /// The boot.
        boot_id: u64,
        /// The events.
        range: Interval,
        /// Why.
        reason: String,
    },
}

/// Takes notices; called from the gateway's task.
pub type Observer = Box<dyn FnMut(Notice) + Send>;
