//! Incidents that people reported. A trace may start at one. The table is append-only.

use async_recursion::async_recursion as boxed;
use clickhouse::Row;
use serde::{Deserialize, Serialize};

use crate::{client::Warehouse, error::Error};

#[derive(Clone, Debug, Default, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct Incident {
    pub incident_id: String,
    pub tenant: String,
    /// Kind of the subject: `SESSION`, `ITEM`, `LOT` or `CYCLE`.
    pub subject_kind: String,
    pub subject: String,
    pub note: String,
    /// The person who reported it.
    pub reported_by: String,
    /// Time of the report, us since 1970.
    pub recorded_at: i64,
}

impl Warehouse {
    /// All incidents, the latest first; an empty `tenant` = of all tenants.
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
