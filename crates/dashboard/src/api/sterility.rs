//! Breaches of sterility.

use super::{
    endpoint::{Audience, Endpoint, Key, Parameter, Rows, Shape},
    row::row,
};

row! {
    /// A breach that stands, cannot be excluded, or is pending.
    pub struct Breach {
        /// Tenant
        tenant: String,
        /// What was judged as a whole: an item, mount, session or sterilizer
        unit: String,
        /// The rule, and what else tells it apart
        verdict_key: String,
        /// Breach rule, 1 to 12: docs/sterility.md
        rule: u8,
        /// CONFIRMED, INDETERMINATE or PENDING
        state: String,
        /// critical, high, medium or low
        severity: String,
        /// Site; empty = several or not known
        site: String,
        /// Device or sterilizer; empty = several
        device: String,
        /// The item; empty = none
        item_id: String,
        /// The mount; empty = none
        mount_id: String,
        /// The cycle; empty = none
        cycle_uid: String,
        /// Product and lot, or the mixture; empty = none
        lot: String,
        /// Sessions affected
        sessions: Vec<String>,
        /// Time of its first fact; UTC
        at: String,
        /// In words
        reason: String,
        /// The facts, JSON
        evidence: String,
        /// Alert it belongs to; empty = none
        alert_key: String,
        /// What was known to be missing; empty = nothing
        completeness: String,
        /// When it was computed; UTC
        computed_at: String,
    }
}

pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/breaches",
        about: "Breaches of sterility, the latest first",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::text("site", "Only of this site", "t.site = ?"),
            Parameter::text("device", "Only of this device or sterilizer", "t.device = ?"),
            Parameter::choice("rule", "Only of this rule", &["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"], "t.rule = toUInt8(?)"),
            Parameter::choice("state", "Only in this state", &["CONFIRMED", "INDETERMINATE", "PENDING"], "t.state = ?"),
            Parameter::choice("severity", "Only of this severity", &["critical", "high", "medium", "low"], "t.severity = ?"),
        ],
        sql: "
            SELECT
                t.tenant AS tenant, t.unit AS unit, t.verdict_key AS verdict_key, t.rule AS rule, t.state AS state,
                t.severity AS severity, t.site AS site, t.device AS device, t.item_id AS item_id, t.mount_id AS mount_id,
                t.cycle_uid AS cycle_uid, t.lot AS lot, t.sessions AS sessions, formatDateTime(t.at, '%FT%T.%fZ') AS at, t.reason AS reason,
                t.evidence AS evidence, t.alert_key AS alert_key, t.completeness AS completeness, formatDateTime(t.computed_at, '%FT%T.%fZ') AS computed_at
            FROM sterility_verdicts AS t FINAL
            WHERE t.rule > 0 AND t.state != 'CLEARED' AND {where}",
        shape: Shape::List { keys: &[Key::Text("at"), Key::Text("tenant"), Key::Text("unit"), Key::Text("verdict_key")], newest_first: true },
        rows: Rows::of::<Breach>(),
    },
];
