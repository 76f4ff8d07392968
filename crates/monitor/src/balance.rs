//! Mass balance of syringes and cartridges: what went in against what was delivered.

use std::collections::BTreeSet;

use serde_json::json;
use warehouse::{
    Error, Warehouse,
    sterility::{Horizon, IDS_MAX, Imbalance, Scope, quoted},
};

use crate::{alert::Condition, settlement};

/// Key of the alert of a mount.
pub fn key(tenant: &str, device: &str, mount_id: &str) -> String {
    format!("mass-balance/{tenant}/{device}/{mount_id}")
}

/// Settles the alerts of the syringes and cartridges in a scope, whose keys are given, but of those
/// that have rows beyond the horizon; `limit_pct` is how many percent of what left it a balance may
/// be off.
///
/// # Errors
/// As [`Warehouse::fetch`].
pub async fn settle(
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
    // Asked after the balances: a removal is there before the last injections when its batch is
    // half written.
    for (tenant, device, mount_id) in warehouse.mounts_beyond(scope, horizon).await? {
        keys.remove(&key(&tenant, &device, &mount_id));
    }
    let keys: Vec<_> = keys.into_iter().collect();
    let mut changed = 0;
    for keys in keys.chunks(IDS_MAX) {
        let of_keys = conditions.iter().filter(|condition| keys.binary_search(&condition.alert_key).is_ok());
        changed += settlement::settle(warehouse, keys, of_keys.cloned().collect(), now_us).await?;
    }
    Ok(changed)
}

fn condition(balance: &Imbalance, limit_pct: u32) -> Condition {
    let Imbalance { tenant, device, mount_id, .. } = balance;
    let missing =
        if balance.balance_nl > 0 { "more left it than was delivered" } else { "less left it than was delivered" };
    let row = json!({"mount": mount_id, "fill_nl": balance.fill_nl, "primed_nl": balance.primed_nl,
        "residual_nl": balance.residual_nl, "delivered_nl": balance.delivered_nl, "balance_nl": balance.balance_nl});
    Condition {
        tenant: tenant.clone(),
        alert_key: key(tenant, device, mount_id),
        kind: "mass-balance".to_owned(),
        severity: "medium".to_owned(),
        site: balance.site.clone(),
        device: device.clone(),
        title: format!("syringe {mount_id} of {device}: {missing}, {:.1} %", balance.balance_pct),
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
