//! Whether a cycle made the items in it sterile, and why.

use std::collections::HashMap;

use serde::Serialize;
use warehouse::{
    assessments::AssessmentRow,
    states::{Decision, Outcome},
};

use super::curve::Physical;

/// Assessment of one cycle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Assessment {
    /// Outcome by curve and chemical indicators.
    pub outcome: Outcome,
    pub reason: String,
    pub physical: Physical,
    /// Latest decision.
    pub release: Decision,
    /// The load was wet.
    pub wet: bool,
    /// Cycles whose positive biological indicator recalls it.
    pub recalled_by: Vec<String>,
    /// Whether it sterilized a load; false = it tested the sterilizer.
    pub for_load: bool,
    /// Start, us since 1970.
    pub at: i64,
    /// End, us since 1970.
    pub end: i64,
    /// Whether the sterilizer's clock was synced.
    pub synced: bool,
    pub device: String,
    pub site: String,
}

/// Assessments by tenant and cycle.
pub type Assessments = HashMap<(String, String), Assessment>;

impl Assessment {
    /// Whether its items are sterile: the cycle passed and was released, the load is dry and not
    /// recalled.
    pub fn is_sterile(&self) -> bool {
        self.for_load
            && self.outcome == Outcome::Passed
            && self.release == Decision::Released
            && !self.wet
            && !self.is_recalled()
    }

    /// Whether a positive biological indicator recalls it.
    pub fn is_recalled(&self) -> bool {
        !self.recalled_by.is_empty()
    }

    /// Whether a fact about it is awaited, and no known fact makes its items unsterile.
    pub fn is_awaited(&self) -> bool {
        let is_open =
            self.outcome == Outcome::Pending || (self.outcome == Outcome::Passed && self.release == Decision::None);
        self.for_load && is_open && !self.is_recalled() && !self.wet && self.release != Decision::Rejected
    }

    /// The row that stores it, without a time of computation.
    pub fn row(&self, tenant: &str, cycle_uid: &str) -> AssessmentRow {
        let Self { physical, .. } = self.clone();
        AssessmentRow {
            tenant: tenant.to_owned(),
            device: self.device.clone(),
            cycle_uid: cycle_uid.to_owned(),
            site: self.site.clone(),
            is_present: true,
            outcome: self.outcome,
            reason: self.reason.clone(),
            release: self.release,
            wet: self.wet,
            recalled_by: self.recalled_by.clone(),
            for_load: self.for_load,
            started_at: self.at,
            ended_at: self.end,
            synced: self.synced,
            curve_outcome: physical.outcome,
            curve_reason: physical.reason,
            samples: physical.samples,
            end_ms: physical.end_ms,
            hold_ms: physical.hold_ms,
            f0_ms: physical.f0_ms,
            f0_trapezoid_ms: physical.f0_trapezoid_ms,
            saturation_mk: physical.saturation_mk,
            limits: physical.limits,
            curve_version: physical.version,
            computed_at: 0,
        }
    }
}

impl From<&AssessmentRow> for Physical {
    fn from(row: &AssessmentRow) -> Self {
        Self {
            outcome: row.curve_outcome,
            reason: row.curve_reason.clone(),
            end_ms: row.end_ms,
            samples: row.samples,
            hold_ms: row.hold_ms,
            f0_ms: row.f0_ms,
            f0_trapezoid_ms: row.f0_trapezoid_ms,
            saturation_mk: row.saturation_mk,
            limits: row.limits.clone(),
            version: row.curve_version,
        }
    }
}

impl From<&AssessmentRow> for Assessment {
    fn from(row: &AssessmentRow) -> Self {
        Self {
            outcome: row.outcome,
            reason: row.reason.clone(),
            physical: row.into(),
            release: row.release,
            wet: row.wet,
            recalled_by: row.recalled_by.clone(),
            for_load: row.for_load,
            at: row.started_at,
            end: row.ended_at,
            synced: row.synced,
            device: row.device.clone(),
            site: row.site.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_assessment_is_read_as_it_was_written() {
        let physical = Physical {
            outcome: Outcome::Passed,
            reason: "held".to_owned(),
            end_ms: 1,
            samples: 2,
            hold_ms: Some(3),
            f0_ms: Some(4),
            f0_trapezoid_ms: Some(5),
            saturation_mk: Some(6),
            limits: "{}".to_owned(),
            version: 7,
        };
        let assessment = Assessment {
            outcome: Outcome::Failed,
            reason: "indicator".to_owned(),
            physical,
            release: Decision::Rejected,
            wet: true,
            recalled_by: vec!["c2".to_owned()],
            for_load: true,
            at: 8,
            end: 9,
            synced: true,
            device: "steri-1".to_owned(),
            site: "paris".to_owned(),
        };
        let row = assessment.row("acme", "c1");
        assert_eq!((row.tenant.as_str(), row.cycle_uid.as_str()), ("acme", "c1"));
        assert_eq!(Assessment::from(&row), assessment);
    }
}
