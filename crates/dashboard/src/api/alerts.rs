//! Alerts, with their history.

use super::{
    endpoint::{Audience, Endpoint, Key, Parameter, Rows, Shape},
    row::row,
};

row! {
    /// An alert as it is now.
    pub struct Alert {
        /// Tenant
        tenant: String,
        /// Stable key of the condition
        alert_key: String,
        /// What it is about
        kind: String,
        /// critical, high, medium or low
        severity: String,
        /// OPEN or CLEARED
        state: String,
        /// Whether the condition holds by all data that has arrived
        holds: bool,
        /// Whether a person has acknowledged it as it stands
        acknowledged: bool,
        /// Site; empty = several or not known
        site: String,
        /// Device or sterilizer; empty = several or not known
        device: String,
        /// What is the matter, in words
        title: String,
        /// Sessions affected
        sessions: Vec<String>,
        /// Items concerned
        items: Vec<String>,
        /// Sterilization cycles concerned
        cycles: Vec<String>,
        /// The facts it was raised on, JSON array
        evidence_rows: String,
        /// Time of its first fact; UTC
        since: String,
        /// When it was raised; UTC
        raised_at: String,
        /// What was known to be missing; empty = nothing
        completeness: String,
        /// When it was computed; UTC
        computed_at: String,
    }
}

row! {
    /// A change of an alert.
    pub struct AlertEvent {
        /// Tenant
        tenant: String,
        /// The alert
        alert_key: String,
        /// When; UTC
        at: String,
        /// RAISED, CHANGED, RETRACTED, CLEARED or ACKNOWLEDGED
        event: String,
        /// Who; empty = the monitor
        actor: String,
        /// Severity then
        severity: String,
        /// Whether the condition held then
        holds: bool,
        /// Sessions affected then
        sessions: Vec<String>,
        /// Title of the alert then, or the note of the person
        note: String,
    }
}

/// Alerts as they are now.
const ALERTS: &str = "
    SELECT
        t.tenant AS tenant, t.alert_key AS alert_key, t.kind AS kind, t.severity AS severity, t.state AS state, t.holds AS holds,
        answer.covered >= t.attention AS acknowledged, t.site AS site, t.device AS device, t.title AS title,
        t.sessions AS sessions, t.items AS items, t.cycles AS cycles, t.evidence_rows AS evidence_rows, formatDateTime(t.since, '%FT%T.%fZ') AS since,
        formatDateTime(t.raised_at, '%FT%T.%fZ') AS raised_at, t.completeness AS completeness, formatDateTime(t.computed_at, '%FT%T.%fZ') AS computed_at
    FROM (SELECT * FROM alerts FINAL) AS t
    LEFT JOIN (
        SELECT tenant, alert_key, max(said.attention) AS covered FROM alert_history AS said
        WHERE event = 'ACKNOWLEDGED' GROUP BY tenant, alert_key) AS answer
    ON answer.tenant = t.tenant AND answer.alert_key = t.alert_key
    WHERE {where}";

pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/alerts",
        about: "Alerts, the latest first; those that wait for a person: state=OPEN&acknowledged=false",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::choice("state", "Only in this state", &["OPEN", "CLEARED"], "t.state = ?"),
            Parameter::choice("acknowledged", "Only acknowledged ones, or only others", &["true", "false"], "(answer.covered >= t.attention) = (? = 'true')"),
            Parameter::choice("severity", "Only of this severity", &["critical", "high", "medium", "low"], "t.severity = ?"),
            Parameter::text("site", "Only of this site", "t.site = ?"),
            Parameter::text("device", "Only of this device", "t.device = ?"),
            Parameter::text("kind", "Only of this kind", "t.kind = ?"),
        ],
        sql: ALERTS,
        shape: Shape::List { keys: &[Key::Text("raised_at"), Key::Text("tenant"), Key::Text("alert_key")], newest_first: true },
        rows: Rows::of::<Alert>(),
    },
    Endpoint {
        path: "/tenants/{tenant}/alerts/{alert}",
        about: "One alert",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::path("tenant", "Tenant", "1"),
            Parameter::path("alert", "Key of the alert, percent-encoded", "t.alert_key = ?"),
        ],
        sql: ALERTS,
        shape: Shape::One,
        rows: Rows::of::<Alert>(),
    },
    Endpoint {
        path: "/tenants/{tenant}/alerts/{alert}/history",
        about: "Everything that happened to an alert, the latest first",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::path("tenant", "Tenant", "1"),
            Parameter::path("alert", "Key of the alert, percent-encoded", "t.alert_key = ?"),
        ],
        sql: "
            SELECT
                t.tenant AS tenant, t.alert_key AS alert_key, formatDateTime(t.at, '%FT%T.%fZ') AS at, t.event AS event, t.actor AS actor,
                t.severity AS severity, t.holds AS holds, t.sessions AS sessions, t.note AS note
            FROM alert_history AS t FINAL
            WHERE {where}",
        shape: Shape::List { keys: &[Key::Text("at"), Key::Text("event"), Key::Text("actor")], newest_first: true },
        rows: Rows::of::<AlertEvent>(),
    },
];
