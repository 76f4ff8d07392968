//! Links between sessions, items, lots and cycles, for one question at a time.

use analysis::gs1;
use async_recursion::async_recursion as boxed;
use serde::Deserialize;

use crate::{
    client::{Answer, Warehouse},
    error::Error,
    sterility::{Component, Cycle, Horizon, Load, Mount, Registry, Scope, Shots, Use, list, quoted},
};

/// A session, as its devices reported it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Visit {
    pub tenant: String,
    pub session_id: String,
    /// The clinic's own opaque reference; empty = not reported.
    pub client_ref: String,
    /// Start, us since 1970; 0 = not reported.
    pub started_at: i64,
}

/// The largest number of rows that one query returns.
pub const ROWS_MAX: usize = 10_000;

impl Warehouse {
    /// Tenants that know a session, item, lot (`DI/LOT` or the lot alone) or cycle.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn tenants_of(&self, kind: &str, subject: &str) -> Result<Vec<String>, Error> {
        let id = quoted(subject);
        let sql = match kind {
            "SESSION" => format!(
                "SELECT tenant FROM sessions WHERE session_id = {id} \
                 UNION DISTINCT SELECT tenant FROM item_uses WHERE session_id = {id} \
                 UNION DISTINCT SELECT tenant FROM injections WHERE session_id = {id}"
            ),
            "ITEM" => format!(
                "SELECT tenant FROM mounts WHERE item_id = {id} \
                 UNION DISTINCT SELECT tenant FROM item_uses WHERE item_id = {id} \
                 UNION DISTINCT SELECT tenant FROM sterilization_items WHERE item_id = {id}"
            ),
            "CYCLE" => format!(
                "SELECT tenant FROM sterilization_cycles WHERE cycle_uid = {id} \
                 UNION DISTINCT SELECT tenant FROM sterilization_items WHERE cycle_uid = {id} \
                 UNION DISTINCT SELECT tenant FROM cycle_indicators WHERE cycle_uid = {id} \
                 UNION DISTINCT SELECT tenant FROM cycle_releases WHERE cycle_uid = {id}"
            ),
            _ => {
                let lot = of_lot(subject);
                format!(
                    "SELECT tenant FROM mounts WHERE {lot} UNION DISTINCT SELECT tenant FROM preparations WHERE {lot}"
                )
            }
        };
        self.rows(&format!("SELECT DISTINCT toString(tenant) AS tenant FROM ({sql}) ORDER BY tenant")).await
    }

    /// The items that were used in sessions.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub fn uses_of_sessions<'a>(&'a self, sessions: Scope<'a>) -> Answer<'a, Vec<Use>> {
        Box::pin(async move { self.uses(&sessions.filter("session_id"), &Horizon::default()).await })
    }

    /// Injections made with mixtures.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub fn shots_of_mixtures<'a>(&'a self, mixtures: Scope<'a>) -> Answer<'a, Vec<Shots>> {
        Box::pin(async move { self.shots(&mixtures.filter("preparation_id"), &Horizon::default()).await })
    }

    /// Mixtures made with a lot.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn components_of_lot(&self, lot: &str) -> Result<Vec<Component>, Error> {
        self.components_where(&of_lot(lot)).await
    }

    /// Mixtures taken from containers.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub fn components_of_containers<'a>(&'a self, containers: Scope<'a>) -> Answer<'a, Vec<Component>> {
        Box::pin(async move { self.components_where(&containers.filter("container_id")).await })
    }

    /// Mounts of a lot.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn mounts_of_lot(&self, lot: &str) -> Result<Vec<Mount>, Error> {
        self.mounts_where(&format!("{} LIMIT {ROWS_MAX}", of_lot(lot))).await
    }

    /// Starts and clients of sessions.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn visits(&self, sessions: &[String]) -> Result<Vec<Visit>, Error> {
        let sessions = list(sessions.iter().map(String::as_str));
        self.rows(&format!(
            "SELECT tenant, session_id, max(visit.client_ref) AS client_ref, \
             toUnixTimestamp64Micro(min(visit.at)) AS started_at FROM sessions AS visit \
             WHERE session_id IN {sessions} GROUP BY tenant, session_id"
        ))
        .await
    }

    /// Cycles by their ids.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub fn cycles_by_uid<'a>(&'a self, uids: Scope<'a>) -> Answer<'a, Vec<Cycle>> {
        Box::pin(async move { self.cycles_where(&uids.filter("cycle_uid"), &Registry::default()).await })
    }

    /// Items of a cycle.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn loads_of_cycle(&self, cycle_uid: &str) -> Result<Vec<Load>, Error> {
        let uid = quoted(cycle_uid);
        self.rows(&format!(
            "SELECT DISTINCT tenant, item_id, device, cycle_uid, pack_id FROM sterilization_items \
             WHERE cycle_uid = {uid} AND item_id != '' ORDER BY ALL LIMIT {ROWS_MAX}"
        ))
        .await
    }
}

fn of_lot(subject: &str) -> String {
    match subject.split_once('/') {
        Some((udi_di, lot)) => format!("{} AND trimBoth(lot) = {}", of_product(udi_di), quoted(&gs1::lot(lot))),
        None => format!("trimBoth(lot) = {}", quoted(&gs1::lot(subject))),
    }
}

/// SQL condition: whether `udi_di` names a product, in any spelling of its GTIN.
fn of_product(udi_di: &str) -> String {
    let product = gs1::product(udi_di);
    let shorter = [13, 12, 8].into_iter().filter_map(|length| {
        let (zeros, rest) = product.split_at_checked(product.len().checked_sub(length)?)?;
        (!zeros.is_empty() && zeros.bytes().all(|digit| digit == b'0')).then_some(rest)
    });
    let spellings: Vec<String> = [product.as_str()].into_iter().chain(shorter).map(quoted).collect();
    // A whole GS1 element string, with brackets or as scanned.
    let strings = ["(01)", "01"].map(|ai| format!("position(udi_di, {}) > 0", quoted(&format!("{ai}{product}"))));
    format!("(trimBoth(udi_di) IN ({}) OR length(udi_di) >= 16 AND ({}))", spellings.join(", "), strings.join(" OR "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_is_asked_for_in_every_spelling() {
        let sql = of_lot("4012345000017/L1 ");
        assert_eq!(sql, of_lot("(01)04012345000017/L1"));
        assert!(
            sql.contains("IN ('04012345000017', '4012345000017')") && sql.ends_with("trimBoth(lot) = 'L1'"),
            "{sql}"
        );
        assert!(of_lot("REF-7/L1").contains("IN ('REF-7')"));
        assert_eq!(of_lot("L'1"), r"trimBoth(lot) = 'L\'1'");
    }
}
