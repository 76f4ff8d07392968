//! Incidents that people reported: where a trace may start. Append-only.

use async_recursion::async_recursion as boxed;
use clickhouse::Row;
use serde::{Deserialize, Serialize};

use crate::{client::Warehouse, error::Error};

/// An incident.
#[derive(Clone, Debug, Default, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct Incident {
    pub incident_id: String,
    pub tenant: String,
    /// What it is about: `SESSION`, `ITEM`, `LOT` or `CYCLE`.
    pub subject_kind: String,
    pub subject: String,
    pub note: String,
    /// Who reported it.
    pub reported_by: String,
    /// When, us since 1970.
    pub recorded_at: i64,
}

impl Warehouse {
    /// Adds an incident.
    ///
    /// # Errors
    /// As [`Warehouse::execute`].
    #[boxed]
    pub async fn add_incident(&self, incident: &Incident) -> Result<(), Error> {
        self.add("incidents", std::slice::from_ref(incident)).await
    }

    /// Every incident, the latest first; `tenant` empty = of all tenants.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn incidents(&self, tenant: &str) -> Result<Vec<Incident>, Error> {
        let sql = "SELECT incident_id, tenant, subject_kind, subject, note, reported_by, \
                   toUnixTimestamp64Micro(incident.recorded_at) AS recorded_at FROM incidents AS incident \
                   WHERE ? IN ('', tenant) ORDER BY incident.recorded_at DESC, incident_id";
        self.fetch(self.query(sql).bind(tenant)).await
    }
}
