//! Incidents that people reported.

use super::{
    endpoint::{Audience, Endpoint, Key, Parameter, Rows, Shape},
    row::row,
};

row! {
    /// An incident that a person reported.
    pub struct Incident {
        /// Tenant
        tenant: String,
        /// The incident
        incident_id: String,
        /// SESSION, ITEM, LOT or CYCLE
        subject_kind: String,
        /// Which one
        subject: String,
        /// What happened
        note: String,
        /// Who reported it
        reported_by: String,
        /// When; UTC
        recorded_at: String,
    }
}

pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/incidents",
        about: "Incidents, the latest first",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::choice("kind", "Only about this kind", &["SESSION", "ITEM", "LOT", "CYCLE"], "t.subject_kind = ?"),
            Parameter::text("subject", "Only about this subject", "t.subject = ?"),
        ],
        sql: "
            SELECT
                t.tenant AS tenant, t.incident_id AS incident_id, t.subject_kind AS subject_kind, t.subject AS subject, t.note AS note,
                t.reported_by AS reported_by, formatDateTime(t.recorded_at, '%FT%T.%fZ') AS recorded_at
            FROM incidents AS t FINAL
            WHERE {where}",
        shape: Shape::List { keys: &[Key::Text("recorded_at"), Key::Text("tenant"), Key::Text("incident_id")], newest_first: true },
        rows: Rows::of::<Incident>(),
    },
    Endpoint {
        path: "/tenants/{tenant}/incidents/{incident}",
        about: "One incident",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::path("tenant", "Tenant", "1"),
            Parameter::path("incident", "The incident", "t.incident_id = ?"),
        ],
        sql: "
            SELECT
                t.tenant AS tenant, t.incident_id AS incident_id, t.subject_kind AS subject_kind, t.subject AS subject, t.note AS note,
                t.reported_by AS reported_by, formatDateTime(t.recorded_at, '%FT%T.%fZ') AS recorded_at
            FROM incidents AS t FINAL
            WHERE {where}",
        shape: Shape::One,
        rows: Rows::of::<Incident>(),
    },
];
