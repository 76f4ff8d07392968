//! Who did what, for administrators.

use super::{
    endpoint::{Audience, Endpoint, Key, Parameter, Rows, Shape},
    row::row,
};

row! {
    /// What somebody did, or tried to do.
    pub struct AuditEntry {
        /// Tenant; empty = every tenant, or none is named
        tenant: String,
        /// When; UTC
        at: String,
        /// Who; empty = it was not recorded
        author: String,
        /// What the author may do; empty = it was not recorded
        role: String,
        /// What was to be done
        action: String,
        /// What it is about
        subject: String,
        /// What exactly was to be done, JSON; empty = it was not recorded
        content: String,
        /// Identifies a command within its tenant; empty = it was no command
        idempotency_key: String,
        /// APPLIED, REPEATED, REFUSED, or UNLOGGED = applied, and not as a command
        outcome: String,
        /// Why it was refused; empty = it was not
        reason: String,
    }
}

pub const ENDPOINTS: &[Endpoint] = &[Endpoint {
    path: "/audit",
    about: "Who did what, the latest first",
    audience: Audience::Admins,
    parameters: &[
        Parameter::text("tenant", "Only of this tenant", "t.tenant = ?"),
        Parameter::text("author", "Only what this person did", "t.author = ?"),
        Parameter::text("action", "Only this action, for example acknowledge_alert", "t.action = ?"),
        Parameter::choice(
            "outcome",
            "Only with this outcome",
            &["APPLIED", "REPEATED", "REFUSED", "UNLOGGED"],
            "t.outcome = ?",
        ),
        Parameter::time("since", "Only at this time or later; UTC", "t.given_at >= parseDateTime64BestEffort(?, 6, 'UTC')"),
        Parameter::time("until", "Only before this time; UTC", "t.given_at < parseDateTime64BestEffort(?, 6, 'UTC')"),
    ],
    sql: "
            SELECT
                t.tenant AS tenant, formatDateTime(t.given_at, '%FT%T.%fZ') AS at, t.author AS author, t.role AS role, t.action AS action,
                t.subject AS subject, t.content AS content, t.idempotency_key AS idempotency_key, t.outcome AS outcome, t.reason AS reason
            FROM audit_trail AS t
            WHERE {where}",
    shape: Shape::List {
        keys: &[
            Key::Text("at"),
            Key::Text("tenant"),
            Key::Text("author"),
            Key::Text("action"),
            Key::Text("subject"),
            Key::Text("idempotency_key"),
            Key::Text("outcome"),
        ],
        newest_first: true,
    },
    rows: Rows::of::<AuditEntry>(),
}];
