//! What could not be used.

use super::{
    endpoint::{Audience, Endpoint, Key, Parameter, Rows, Shape},
    row::row,
};

row! {
    /// A message or event that could not be used.
    pub struct Quarantined {
        /// Tenant
        tenant: String,
        /// Site; empty = the topic names none
        site: String,
        /// Device; empty = the topic names none
        device: String,
        /// Name of the row, as in `doseline quarantine`
        id: String,
        /// Why it was refused
        reason: String,
        /// What exactly was wrong
        detail: String,
        /// MQTT topic
        topic: String,
        /// Who refused it: bridge or loader
        source: String,
        /// Size of the payload, bytes
        bytes: u64,
        /// When the bridge received it; UTC
        received_at: String,
        /// Boot; 0 = a whole message
        boot_id: String,
        /// Sequence number; 0 = a whole message
        seq: u64,
        /// Whether nothing of it waits any more
        replayed: bool,
        /// Outcome of its replay; empty = never replayed
        outcome: String,
    }
}

row! {
    /// A message or event that could not be used, with its raw bytes.
    pub struct QuarantinedPayload {
        /// Tenant
        tenant: String,
        /// Site; empty = the topic names none
        site: String,
        /// Device; empty = the topic names none
        device: String,
        /// Name of the row, as in `doseline quarantine`
        id: String,
        /// Why it was refused
        reason: String,
        /// What exactly was wrong
        detail: String,
        /// MQTT topic
        topic: String,
        /// Who refused it: bridge or loader
        source: String,
        /// Size of the payload, bytes
        bytes: u64,
        /// When the bridge received it; UTC
        received_at: String,
        /// Boot; 0 = a whole message
        boot_id: String,
        /// Sequence number; 0 = a whole message
        seq: u64,
        /// The raw bytes, base64
        payload_base64: String,
    }
}

pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/quarantine",
        about: "What could not be used, the latest first",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::text("site", "Only of this site", "t.site = ?"),
            Parameter::text("device", "Only of this device", "t.device = ?"),
            Parameter::text("reason", "Only for this reason", "t.reason = ?"),
            Parameter::choice("replayed", "Only replayed ones, or only others", &["true", "false"], "t.replayed = (? = 'true')"),
        ],
        sql: "
            SELECT
                t.tenant AS tenant, t.site AS site, t.device AS device, t.id AS id, t.reason AS reason, toValidUTF8(t.detail) AS detail,
                toValidUTF8(t.topic) AS topic, t.source AS source, t.bytes AS bytes, formatDateTime(t.received_at, '%FT%T.%fZ') AS received_at,
                toString(t.boot_id) AS boot_id, t.seq AS seq, t.replayed AS replayed, t.outcome AS outcome
            FROM quarantine_state AS t
            WHERE {where}",
        shape: Shape::List { keys: &[Key::Text("received_at"), Key::Text("tenant"), Key::Text("id")], newest_first: true },
        rows: Rows::of::<Quarantined>(),
    },
    Endpoint {
        path: "/tenants/{tenant}/quarantine/{id}",
        about: "One row of the quarantine with its raw bytes",
        audience: Audience::Operators,
        parameters: &[
            Parameter::path("tenant", "Tenant", "1"),
            Parameter::path("id", "Name of the row", "concat(toString(t.incarnation), '-', toString(t.kafka_partition), '-', toString(t.kafka_offset), if(t.boot_id = 0, '', concat('-', toString(t.seq)))) = ?"),
        ],
        sql: "
            SELECT
                t.tenant AS tenant, t.site AS site, t.device AS device,
                concat(toString(t.incarnation), '-', toString(t.kafka_partition), '-', toString(t.kafka_offset),
                    if(t.boot_id = 0, '', concat('-', toString(t.seq)))) AS id,
                t.reason AS reason, toValidUTF8(t.detail) AS detail, toValidUTF8(t.topic) AS topic, t.source AS source,
                length(t.payload) AS bytes, formatDateTime(t.received_at, '%FT%T.%fZ') AS received_at, toString(t.boot_id) AS boot_id, t.seq AS seq,
                base64Encode(t.payload) AS payload_base64
            FROM quarantine AS t
            WHERE {where}",
        shape: Shape::One,
        rows: Rows::of::<QuarantinedPayload>(),
    },
];
