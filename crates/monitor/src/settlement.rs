//! Brings the alerts of a set of keys in line with the conditions that hold.

use std::collections::{BTreeMap, HashMap};

use warehouse::{Error, Warehouse, alerts::Alert};

use crate::alert::{Condition, settle as settle_one};

/// Settles every alert of `keys`: the conditions are all that hold among them. Returns how many
/// alerts changed. `keys` are as many as fit a query, see [`warehouse::sterility::IDS_MAX`].
///
/// # Errors
/// As [`Warehouse::fetch`].
pub async fn settle(
    warehouse: &Warehouse,
    keys: &[String],
    conditions: Vec<Condition>,
    now_us: i64,
) -> Result<u64, Error> {
    if keys.is_empty() {
        return Ok(0);
    }
    let mut names: BTreeMap<(String, String), (Option<Alert>, Option<Condition>)> = BTreeMap::new();
    for alert in warehouse.alerts(keys).await? {
        let name = (alert.tenant.clone(), alert.alert_key.clone());
        names.entry(name).or_default().0 = Some(alert);
    }
    for condition in conditions {
        let name = (condition.tenant.clone(), condition.alert_key.clone());
        names.entry(name).or_default().1 = Some(condition);
    }
    let acknowledged: HashMap<_, _> = warehouse
        .acknowledged(keys)
        .await?
        .into_iter()
        .map(|(tenant, key, attention)| ((tenant, key), attention))
        .collect();
    let settled: Vec<_> = names
        .iter()
        .filter_map(|(name, (alert, condition))| {
            let attention = acknowledged.get(name).copied().unwrap_or_default();
            settle_one(alert.as_ref(), attention, condition.as_ref(), now_us)
        })
        .collect();
    for (alert, event) in &settled {
        tracing::info!(
            tenant = alert.tenant,
            alert = alert.alert_key,
            severity = alert.severity,
            event = event.event,
            "{}",
            alert.title
        );
    }
    let (alerts, events): (Vec<_>, Vec<_>) = settled.into_iter().unzip();
    warehouse.write_alerts(&alerts, &events).await?;
    Ok(alerts.len() as u64)
}
