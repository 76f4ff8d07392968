//! Commands to a gateway, and its notices besides receipts.

use std::sync::Arc;

use telemetry::{
    interval::Interval,
    v1::{self, event::Kind},
};

use crate::{identity::Identity, store::Stamp};

/// A command to a gateway. `device` is the number from [`super::Gateway::number`].
#[derive(Clone, Debug)]
pub enum Command {
    /// The device booted.
    Boot {
        /// Number of the device.
        device: usize,
        /// Id of the boot: counter << 32 | random.
        boot_id: u64,
    },
    /// The device made an event.
    Event {
        /// Number of the device.
        device: usize,
        /// The sequence number that the caller expects for it.
        seq: u64,
        /// Time of the event.
        stamp: Stamp,
        /// The encoded context.
        context: Arc<[u8]>,
        /// The content; `None` makes an event of a kind that no server knows.
        kind: Option<Kind>,
    },
    /// The device had to give up its next event.
    Lose {
        /// Number of the device.
        device: usize,
        /// Reason, as the loss is declared.
        reason: &'static str,
    },
    /// The device made its next event, but could not keep it.
    Forfeit {
        /// Number of the device.
        device: usize,
    },
    /// A heartbeat. The gateway adds the state of the outbox.
    Heartbeat {
        /// Number of the device.
        device: usize,
        /// Time of the heartbeat.
        stamp: Stamp,
        /// The encoded context.
        context: Arc<[u8]>,
        /// The content that the device knows.
        heartbeat: v1::Heartbeat,
    },
    /// The device lost or found its network.
    Link {
        /// Number of the device.
        device: usize,
        /// Whether the device has its network now.
        is_up: bool,
    },
    /// Bytes to publish unchanged. For tests of the server; not kept on disk.
    Raw {
        /// Number of the device.
        device: usize,
        /// Topic of the message.
        topic: String,
        /// Payload of the message.
        payload: Vec<u8>,
        /// Whether a REJECTED receipt is due. The bytes are then sent again until it comes.
        is_receipted: bool,
    },
}

/// An end of events other than a STORED receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The outbox was full, so an event was given up. It will be declared lost.
    GivenUp {
        /// Identity of the device.
        identity: Identity,
        /// Boot of the event.
        boot_id: u64,
        /// Sequence number of the event.
        seq: u64,
    },
    /// The bridge rejected a report.
    Rejected {
        /// Identity of the device.
        identity: Identity,
        /// Boot of the report.
        boot_id: u64,
        /// Events of the report.
        range: Interval,
        /// Reason in the receipt.
        reason: String,
    },
}

/// Takes notices. The gateway's task calls it.
pub type Observer = Box<dyn FnMut(Notice) + Send>;
