//! `audit`, and the tables that commands fill: `alert_history`, `incidents`, `devices`, `policies`.

use arrow_array::types::{UInt32Type, UInt64Type};
use telemetry::{
    command::Command,
    commands::{AcknowledgeAlert, AddIncident, Device, SetPolicy},
};

use crate::columns::{Bits, Lines, Number, Text, Time, table};

table! {
    Audit, "audit", {
        tenant: Text,
        given_at: Time,
        author: Text,
        role: Text,
        action: Text,
        subject: Text,
        content: Text,
        idempotency_key: Text,
        outcome: Text,
        reason: Text,
        kafka_offset: Number<UInt64Type>,
    }
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Applied,
    /// The same command was applied before.
    Repeated,
    Refused,
}

impl Fate {
    /// The name that the table uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "APPLIED",
            Self::Repeated => "REPEATED",
            Self::Refused => "REFUSED",
        }
    }
}

impl Audit {
    /// Adds a command and what became of it. `reason` says why it was refused; empty = it was not.
    pub fn push(&mut self, command: &Command, fate: Fate, reason: &str, kafka_offset: u64) {
        self.tenant.push(command.tenant());
        self.given_at.push(command.given_us());
        self.author.push(command.author());
        self.role.push(command.role());
        self.action.push(command.action());
        self.subject.push(&command.subject());
        self.content.push(&command.content());
        self.idempotency_key.push(command.idempotency_key());
        self.outcome.push(fate.as_str());
        self.reason.push(reason);
        self.kafka_offset.push(kafka_offset);
    }
}

table! {
    Acknowledgements, "alert_history", {
        tenant: Text,
        alert_key: Text,
        at: Time,
        event: Text,
        actor: Text,
        kind: Text,
        severity: Text,
        holds: Bits,
        attention: Number<UInt32Type>,
        sessions: Lines,
        note: Text,
        evidence_rows: Text,
        kafka_offset: Number<UInt64Type>,
    }
}

impl Acknowledgements {
    pub fn push(&mut self, command: &Command, acknowledge: &AcknowledgeAlert, kafka_offset: u64) {
        self.tenant.push(command.tenant());
        self.alert_key.push(&acknowledge.alert_key);
        self.at.push(command.given_us());
        self.event.push("ACKNOWLEDGED");
        self.actor.push(command.author());
        self.kind.push(&acknowledge.alert_kind);
        self.severity.push(&acknowledge.severity);
        self.holds.push(Some(acknowledge.holds));
        self.attention.push(acknowledge.attention);
        self.sessions.push(&acknowledge.sessions);
        self.note.push(&acknowledge.note);
        self.evidence_rows.push(&acknowledge.evidence_rows);
        self.kafka_offset.push(kafka_offset);
    }
}

table! {
    Incidents, "incidents", {
        incident_id: Text,
        tenant: Text,
        subject_kind: Text,
        subject: Text,
        note: Text,
        reported_by: Text,
        recorded_at: Time,
        kafka_offset: Number<UInt64Type>,
    }
}

impl Incidents {
    pub fn push(&mut self, command: &Command, incident: &AddIncident, kafka_offset: u64) {
        self.incident_id.push(&incident.incident_id);
        self.tenant.push(command.tenant());
        self.subject_kind.push(&incident.subject_kind);
        self.subject.push(&incident.subject);
        self.note.push(&incident.note);
        self.reported_by.push(command.author());
        self.recorded_at.push(command.given_us());
        self.kafka_offset.push(kafka_offset);
    }
}

table! {
    RegisteredDevices, "devices", {
        tenant: Text,
        device: Text,
        site: Text,
        kind: Text,
        model: Text,
        manufacturer: Text,
        serial: Text,
        udi: Text,
        gateway: Text,
        origin: Text,
        valid_from: Time,
        recorded_at: Time,
        kafka_offset: Number<UInt64Type>,
    }
}

impl RegisteredDevices {
    pub fn push(&mut self, command: &Command, device: &Device, kafka_offset: u64) {
        self.tenant.push(command.tenant());
        self.device.push(&device.device);
        self.site.push(&device.site);
        self.kind.push(&device.kind);
        self.model.push(&device.model);
        self.manufacturer.push(&device.manufacturer);
        self.serial.push(&device.serial);
        self.udi.push(&device.udi);
        self.gateway.push(&device.gateway);
        self.origin.push("IMPORTED");
        self.valid_from.push(device.valid_from_us);
        self.recorded_at.push(command.given_us());
        self.kafka_offset.push(kafka_offset);
    }
}

table! {
    Policies, "policies", {
        tenant: Text,
        name: Text,
        value: Text,
        valid_from: Time,
        recorded_at: Time,
        kafka_offset: Number<UInt64Type>,
    }
}

impl Policies {
    pub fn push(&mut self, command: &Command, policy: &SetPolicy, kafka_offset: u64) {
        self.tenant.push(command.tenant());
        self.name.push(&policy.name);
        self.value.push(&policy.value);
        self.valid_from.push(command.given_us());
        self.recorded_at.push(command.given_us());
        self.kafka_offset.push(kafka_offset);
    }
}
