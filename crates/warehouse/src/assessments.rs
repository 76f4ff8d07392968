//! The monitor's assessment of each sterilization cycle.

use async_recursion::async_recursion as boxed;
use clickhouse::Row;
use serde::{Deserialize, Serialize};

use crate::{
    client::{Answer, Warehouse},
    error::Error,
    sql::{Scope, list},
    states::{Decision, Outcome},
};

/// A row of `cycle_assessments`; see there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Row, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct AssessmentRow {
    pub tenant: String,
    pub device: String,
    pub cycle_uid: String,
    pub site: String,
    pub is_present: bool,
    pub outcome: Outcome,
    pub reason: String,
    pub release: Decision,
    pub wet: bool,
    pub recalled_by: Vec<String>,
    pub for_load: bool,
    pub started_at: i64,
    pub ended_at: i64,
    pub synced: bool,
    pub curve_outcome: Outcome,
    pub curve_reason: String,
    pub samples: u32,
    pub end_ms: u32,
    pub hold_ms: Option<i64>,
    pub f0_ms: Option<i64>,
    pub f0_trapezoid_ms: Option<i64>,
    pub saturation_mk: Option<i64>,
    pub limits: String,
    pub curve_version: u32,
    pub computed_at: i64,
}

impl AssessmentRow {
    /// Whether two rows are equal except for the time at which they were computed.
    pub fn is_same(&self, other: &Self) -> bool {
        let undated = |row: &Self| Self { computed_at: 0, ..row.clone() };
        undated(self) == undated(other)
    }
}

const COLUMNS: &str = "tenant, device, cycle_uid, site, is_present, outcome, reason, release, wet, recalled_by, for_load, \
                       toUnixTimestamp64Micro(row.started_at) AS started_at, \
                       toUnixTimestamp64Micro(row.ended_at) AS ended_at, synced, curve_outcome, curve_reason, samples, \
                       end_ms, hold_ms, f0_ms, f0_trapezoid_ms, saturation_mk, limits, curve_version, \
                       toUnixTimestamp64Micro(row.computed_at) AS computed_at";

impl Warehouse {
    /// The latest assessments of the cycles of sterilizers, also of cycles that are no longer
    /// present.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub fn assessments<'a>(&'a self, sterilizers: Scope<'a>) -> Answer<'a, Vec<AssessmentRow>> {
        Box::pin(async move { self.assessments_where(&sterilizers.filter("device")).await })
    }

    /// The latest assessments of cycles that are present, by their uids.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn assessments_of_cycles(&self, cycles: &[String]) -> Result<Vec<AssessmentRow>, Error> {
        let cycles = list(cycles.iter().map(String::as_str));
        self.assessments_where(&format!("cycle_uid IN {cycles} AND is_present")).await
    }

    async fn assessments_where(&self, filter: &str) -> Result<Vec<AssessmentRow>, Error> {
        self.rows(&format!(
            "SELECT {COLUMNS} FROM (SELECT * FROM cycle_assessments FINAL WHERE {filter}) AS row \
             ORDER BY tenant, device, cycle_uid"
        ))
        .await
    }

    /// Adds assessments; the latest of a cycle stands.
    ///
    /// # Errors
    /// As [`Warehouse::execute`].
    #[boxed]
    pub async fn add_assessments(&self, assessments: &[AssessmentRow]) -> Result<(), Error> {
        self.add("cycle_assessments", assessments).await
    }
}
