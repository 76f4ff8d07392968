//! Brings the alerts of a set of keys in line with the conditions that hold.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use warehouse::{Error, Warehouse, alerts::Alert};

use super::lifecycle::{Condition, advance};
use crate::reader::chunks;

/// Tenant and key of an alert.
type Name = (String, String);

/// Updates every alert of `keys`. `conditions` are all that hold among these keys; others are
/// ignored. Returns how many alerts changed.
///
/// # Errors
/// As [`Warehouse::fetch`].
pub async fn update(
    warehouse: &Warehouse,
    keys: &BTreeSet<String>,
    conditions: &[Condition],
    now_us: i64,
) -> Result<u64, Error> {
    let mut by_key: HashMap<&str, Vec<&Condition>> = HashMap::new();
    for condition in conditions {
        by_key.entry(&condition.alert_key).or_default().push(condition);
    }
    let mut changed = 0;
    for keys in chunks(keys) {
        let holding: Vec<_> = keys.iter().filter_map(|key| by_key.get(key.as_str())).flatten().copied().collect();
        changed += update_few(warehouse, &keys, &holding, now_us).await?;
    }
    Ok(changed)
}

/// Updates as many alerts as fit one query, see [`warehouse::sql::IDS_MAX`].
async fn update_few(
    warehouse: &Warehouse,
    keys: &[String],
    conditions: &[&Condition],
    now_us: i64,
) -> Result<u64, Error> {
    let mut names: BTreeMap<Name, (Option<Alert>, Option<&Condition>)> = BTreeMap::new();
    for alert in warehouse.alerts(keys).await? {
        let name = (alert.tenant.clone(), alert.alert_key.clone());
        names.entry(name).or_default().0 = Some(alert);
    }
    for condition in conditions {
        let name = (condition.tenant.clone(), condition.alert_key.clone());
        names.entry(name).or_default().1 = Some(*condition);
    }
    let acknowledged: HashMap<_, _> = warehouse
        .acknowledged(keys)
        .await?
        .into_iter()
        .map(|(tenant, key, attention)| ((tenant, key), attention))
        .collect();
    let advanced: Vec<_> = names
        .iter()
        .filter_map(|(name, (alert, condition))| {
            let attention = acknowledged.get(name).copied().unwrap_or_default();
            advance(alert.as_ref(), attention, *condition, now_us)
        })
        .collect();
    for (alert, event) in &advanced {
        tracing::info!(
            tenant = alert.tenant,
            alert = alert.alert_key,
            severity = %alert.severity,
            event = %event.event,
            "{}",
            alert.title
        );
    }
    let (alerts, events): (Vec<_>, Vec<_>) = advanced.into_iter().unzip();
    warehouse.write_alerts(&alerts, &events).await?;
    Ok(alerts.len() as u64)
}
