//! `quarantine`.

use arrow_array::{builder::PrimitiveBuilder, types::UInt64Type};

use crate::columns::{Bytes, Number, Text, Time, table};

table! {
    /// Rows of `quarantine`.
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
        injection_no: PrimitiveBuilder<UInt64Type>,
        kafka_offset: Number<UInt64Type>,
    }
}

/// Something that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined<'a> {
    /// Why.
    pub reason: &'a str,
    /// What exactly was wrong.
    pub detail: &'a str,
    /// The MQTT topic; may be anything.
    pub topic: &'a str,
    /// Who refused it: `bridge` or `loader`.
    pub source: &'a str,
    /// Raw bytes.
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
    /// Lifetime number of the injection, where it is one and carries it.
    pub injection_no: Option<u64>,
    /// Offset of the Kafka record.
    pub kafka_offset: u64,
}

impl Quarantine {
    /// Adds a row.
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
        self.injection_no.append_option(quarantined.injection_no);
        self.kafka_offset.push(quarantined.kafka_offset);
    }
}
