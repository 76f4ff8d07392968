//! Mass balance of syringes and cartridges: what left them against what was delivered.

use std::collections::BTreeSet;

use serde_json::json;
use warehouse::{
    Error, Warehouse,
    horizon::Horizon,
    sql::{Scope, quoted},
    states::Severity,
    sterility::Imbalance,
};

use crate::alerts::{lifecycle::Condition, store};

/// Key of the alert about a mount.
pub fn key(tenant: &str, device: &str, mount_id: &str) -> String {
    format!("mass-balance/{tenant}/{device}/{mount_id}")
}

/// Updates the alerts of the syringes and cartridges of a scope. `keys` are the keys of their
/// alerts. A mount with rows beyond the horizon is left out, since its sums are incomplete.
/// `limit_pct` is the largest tolerated difference, in percent of what left the syringe.
///
/// # Errors
/// As [`Warehouse::fetch`].
pub async fn update_alerts(
    warehouse: &Warehouse,
    scope: Scope<'_>,
    mut keys: BTreeSet<String>,
    limit_pct: u32,
    horizon: &Horizon,
    now_us: i64,
) -> Result<u64, Error> {
    if keys.is_empty() {
        return Ok(0);
    }
    let found = warehouse.imbalances(scope, limit_pct).await?;
    let conditions: Vec<_> = found.iter().map(|balance| condition(balance, limit_pct)).collect();
    // This is read after the balances. While a batch is being written, a removal can be visible
    // before the last injections.
    for (tenant, device, mount_id) in warehouse.mounts_beyond(scope, horizon).await? {
        keys.remove(&key(&tenant, &device, &mount_id));
    }
    store::update(warehouse, &keys, &conditions, now_us).await
}

fn condition(balance: &Imbalance, limit_pct: u32) -> Condition {
    let Imbalance { tenant, device, mount_id, .. } = balance;
    let difference =
        if balance.balance_nl > 0 { "more left it than was delivered" } else { "less left it than was delivered" };
    let row = json!({"mount": mount_id, "fill_nl": balance.fill_nl, "primed_nl": balance.primed_nl,
        "residual_nl": balance.residual_nl, "delivered_nl": balance.delivered_nl, "balance_nl": balance.balance_nl});
    Condition {
        tenant: tenant.clone(),
        alert_key: key(tenant, device, mount_id),
        kind: "mass-balance".to_owned(),
        severity: Severity::Medium,
        site: balance.site.clone(),
        device: device.clone(),
        title: format!("syringe {mount_id} of {device}: {difference}, {:.1} %", balance.balance_pct),
        items: Some(balance.item_id.clone()).filter(|item_id| !item_id.is_empty()).into_iter().collect(),
        evidence_query: format!(
            "SELECT * FROM mass_balance WHERE tenant = {} AND device = {} AND mount_id = {}",
            quoted(tenant),
            quoted(device),
            quoted(mount_id)
        ),
        evidence_rows: format!("[{row}]"),
        since: balance.removed_at,
        rule_version: 1,
        parameters: json!({"limit_pct": limit_pct}).to_string(),
        ..Condition::default()
    }
}
