//! `quarantine` and `quarantine_replays`.

use arrow_array::types::{Int32Type, UInt32Type, UInt64Type};
use telemetry::quarantine::Id;

use crate::columns::{Bytes, Maybe, Number, Text, Time, table};

table! {
    Quarantine, "quarantine", {
        reason: Text,
        detail: Text,
        topic: Text,
        source: Text,
        payload: Bytes,
        received_at: Time,
        tenant: Text,
        site: Text,
        device: Text,
        boot_id: Number<UInt64Type>,
        seq: Number<UInt64Type>,
        injection_no: Maybe<UInt64Type>,
        kafka_offset: Number<UInt64Type>,
    }
}

/// A message or an event that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined<'a> {
    pub reason: &'a str,
    /// The exact fault.
    pub detail: &'a str,
    /// The MQTT topic; it may be any text.
    pub topic: &'a str,
    /// The role that refused it: `bridge` or `loader`.
    pub source: &'a str,
    pub payload: &'a [u8],
    /// When the bridge received it, us since 1970.
    pub received_at: i64,
    /// Tenant, or empty.
    pub tenant: &'a str,
    /// Site, or empty.
    pub site: &'a str,
    /// Device, or empty.
    pub device: &'a str,
    /// Boot, or 0.
    pub boot_id: u64,
    /// Sequence number of the event, or 0.
    pub seq: u64,
    /// Lifetime number of the injection, if it is an injection and has one.
    pub injection_no: Option<u64>,
    /// Offset of the Kafka record.
    pub kafka_offset: u64,
}

impl Quarantine {
    pub fn push(&mut self, quarantined: &Quarantined<'_>) {
        self.reason.push(quarantined.reason);
        self.detail.push(quarantined.detail);
        self.topic.push(quarantined.topic);
        self.source.push(quarantined.source);
        self.payload.push(quarantined.payload);
        self.received_at.push(quarantined.received_at);
        self.tenant.push(quarantined.tenant);
        self.site.push(quarantined.site);
        self.device.push(quarantined.device);
        self.boot_id.push(quarantined.boot_id);
        self.seq.push(quarantined.seq);
        self.injection_no.push(quarantined.injection_no);
        self.kafka_offset.push(quarantined.kafka_offset);
    }
}

table! {
    QuarantineReplays, "quarantine_replays", {
        source_incarnation: Number<UInt32Type>,
        source_partition: Number<Int32Type>,
        source_offset: Number<UInt64Type>,
        source_seq: Number<UInt64Type>,
        outcome: Text,
        stored: Number<UInt64Type>,
        duplicates: Number<UInt64Type>,
        refused: Number<UInt64Type>,
        detail: Text,
        replayed_by: Text,
        replayed_at: Time,
        tenant: Text,
        site: Text,
        device: Text,
        boot_id: Number<UInt64Type>,
        received_at: Time,
        kafka_offset: Number<UInt64Type>,
    }
}

/// The outcome of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was stored.
    Stored,
    /// It was already stored.
    Duplicate,
    Refused,
    /// The loader can now read the message, but its events stay in quarantine, one row each.
    RefusedSingly,
}

impl Outcome {
    /// The name that the table uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "STORED",
            Self::Duplicate => "DUPLICATE",
            Self::Refused => "REFUSED",
            Self::RefusedSingly => "REFUSED_SINGLY",
        }
    }
}

/// A replay and its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed<'a> {
    /// The row that was replayed.
    pub id: Id,
    pub outcome: Outcome,
    /// Events that the replay stored.
    pub stored: u64,
    /// Events that were already stored.
    pub duplicates: u64,
    /// Events that stay in quarantine.
    pub refused: u64,
    /// Why something was refused again; empty = nothing was.
    pub detail: &'a str,
    /// The person who replayed it.
    pub by: &'a str,
    /// Time of that person's command, us since 1970.
    pub at: i64,
    /// Tenant, or empty.
    pub tenant: &'a str,
    /// Site, or empty.
    pub site: &'a str,
    /// Device, or empty.
    pub device: &'a str,
    /// Boot, or 0.
    pub boot_id: u64,
    /// When the bridge first received it, us since 1970.
    pub received_at: i64,
    /// Offset of the Kafka record that carried the replay.
    pub kafka_offset: u64,
}

impl QuarantineReplays {
    pub fn push(&mut self, replayed: &Replayed<'_>) {
        self.source_incarnation.push(replayed.id.incarnation);
        self.source_partition.push(replayed.id.partition);
        self.source_offset.push(replayed.id.offset);
        self.source_seq.push(replayed.id.seq.unwrap_or(0));
        self.outcome.push(replayed.outcome.as_str());
        self.stored.push(replayed.stored);
        self.duplicates.push(replayed.duplicates);
        self.refused.push(replayed.refused);
        self.detail.push(replayed.detail);
        self.replayed_by.push(replayed.by);
        self.replayed_at.push(replayed.at);
        self.tenant.push(replayed.tenant);
        self.site.push(replayed.site);
        self.device.push(replayed.device);
        self.boot_id.push(replayed.boot_id);
        self.received_at.push(replayed.received_at);
        self.kafka_offset.push(replayed.kafka_offset);
    }
}
