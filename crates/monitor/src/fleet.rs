//! Alerts about the whole fleet: silent or lost devices, batteries, clocks, gaps, licences. Each
//! question is a query alone (`warehouse::devices`), so there is nothing to judge here.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use warehouse::{
    Error, Warehouse,
    devices::{FLEET, FleetFinding, FleetLimits, FleetQuestion},
    sql::quoted,
};

use crate::alerts::{lifecycle::Condition, store};

/// Time between two looks, us.
const LOOK_EVERY_US: i64 = 8_000_000;
/// Version of the questions, as alerts record it.
const FLEET_RULE_VERSION: u32 = 3;

/// The part of the monitor that asks about the whole fleet.
pub struct FleetPass {
    warehouse: Warehouse,
    limits: FleetLimits,
    /// When it last looked, us since 1970; none = it must look.
    looked_at: Option<i64>,
}

impl FleetPass {
    /// Has not looked yet.
    pub fn new(warehouse: Warehouse, limits: FleetLimits) -> Self {
        Self { warehouse, limits, looked_at: None }
    }

    /// Updates the alerts of every question if it is time, or if everything is evaluated (`whole`).
    /// Returns how many alerts changed.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`]; the next pass looks again.
    pub async fn pass(&mut self, whole: bool, now: i64) -> Result<u64, Error> {
        if whole {
            self.looked_at = None;
        }
        if self.looked_at.is_some_and(|looked_at| now - looked_at < LOOK_EVERY_US) {
            return Ok(0);
        }
        let mut alerts = 0;
        for question in &FLEET {
            alerts += self.ask(question, now).await?;
        }
        self.looked_at = Some(now);
        Ok(alerts)
    }

    async fn ask(&self, question: &FleetQuestion, now: i64) -> Result<u64, Error> {
        let found = self.warehouse.findings(question, self.limits).await?;
        // Several findings can share one key; the earliest becomes the alert.
        let mut holding: BTreeMap<(String, String), Condition> = BTreeMap::new();
        for finding in &found {
            let condition = condition(question, finding);
            let name = (condition.tenant.clone(), condition.alert_key.clone());
            let is_earlier = holding.get(&name).is_none_or(|known| condition.since < known.since);
            if is_earlier {
                holding.insert(name, condition);
            }
        }
        let open = self.warehouse.open_keys(&[question.kind], None).await?;
        let keys: BTreeSet<String> = open.into_iter().chain(holding.keys().map(|(_, key)| key.clone())).collect();
        let holding: Vec<_> = holding.into_values().collect();
        store::update(&self.warehouse, &keys, &holding, now).await
    }
}

/// The condition that a finding raises.
fn condition(question: &FleetQuestion, finding: &FleetFinding) -> Condition {
    let FleetFinding { tenant, site, device, subject, session_id, .. } = finding;
    let key = format!("{}/{tenant}/{device}", question.kind);
    Condition {
        tenant: tenant.clone(),
        alert_key: if subject.is_empty() { key } else { format!("{key}/{subject}") },
        kind: question.kind.to_owned(),
        severity: question.severity,
        site: site.clone(),
        device: device.clone(),
        title: finding.title.clone(),
        sessions: Some(session_id.clone()).filter(|session| !session.is_empty()).into_iter().collect(),
        evidence_query: format!(
            "SELECT * FROM {} WHERE tenant = {} AND device = {}",
            question.table,
            quoted(tenant),
            quoted(device)
        ),
        evidence_rows: json!([{"detail": finding.title}]).to_string(),
        since: finding.since,
        rule_version: FLEET_RULE_VERSION,
        parameters: "{}".to_owned(),
        ..Condition::default()
    }
}
