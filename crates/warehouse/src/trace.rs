//! Links between sessions, items, lots and cycles, for one question at a time.

use analysis::gs1;
use async_recursion::async_recursion as boxed;
use serde::Deserialize;

use crate::{
    client::{Answer, Warehouse},
    error::Error,
    horizon::Horizon,
    sql::{Scope, list, quoted},
    sterility::{Component, Cycle, Load, Mount, Registry, Shots, Use},
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
            "ITEM" => {
                let key = quoted(&gs1::item(subject));
                format!(
                    "SELECT tenant FROM mounts WHERE item_key = {key} \
                     UNION DISTINCT SELECT tenant FROM item_uses WHERE item_key = {key} \
                     UNION DISTINCT SELECT tenant FROM sterilization_items WHERE item_key = {key}"
                )
            }
            "CYCLE" => format!(
                "SELECT tenant FROM sterilization_cycles WHERE cycle_uid = {id} \
                 UNION DISTINCT SELECT tenant FROM sterilization_items WHERE cycle_uid = {id} \
                 UNION DISTINCT SELECT tenant FROM cycle_indicators WHERE cycle_uid = {id} \
                 UNION DISTINCT SELECT tenant FROM cycle_releases WHERE cycle_uid = {id}"
            ),
            _ => {
                let (mounted, mixed) = (of_lot(subject, "item_id"), of_lot(subject, "container_id"));
                format!(
                    "SELECT tenant FROM mounts WHERE {mounted} \
                     UNION DISTINCT SELECT tenant FROM preparations WHERE {mixed}"
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
        let mut found = self.components_where(&of_lot(lot, "container_id")).await?;
        found.retain(|component| is_of_lot(lot, [&component.udi_di, &component.container_id], &component.lot));
        Ok(found)
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
        let mut found = self.mounts_where(&format!("{} LIMIT {ROWS_MAX}", of_lot(lot, "item_id"))).await?;
        found.retain(|mount| is_of_lot(lot, [&mount.udi_di, &mount.item_id], &mount.lot));
        Ok(found)
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
            "SELECT DISTINCT tenant, item_id, item_key, device, cycle_uid, pack_id FROM sterilization_items \
             WHERE cycle_uid = {uid} AND item_id != '' ORDER BY ALL LIMIT {ROWS_MAX}"
        ))
        .await
    }
}

/// SQL of a lot, alone or as `PRODUCT/LOT`. What `udi_di` and `lot` do not say is taken from an
/// element string that was scanned as one of them, or as the item's or container's `id`.
fn of_lot(subject: &str, id: &str) -> String {
    let (product, lot) = match subject.split_once('/') {
        Some((product, lot)) => (Some(product), lot),
        None => (None, subject),
    };
    let lot = gs1::lot(lot);
    // (10) ends at the next identifier, at a separator, or with the string.
    let regex = format!("^(\\(01\\).*\\(10\\) *|[^(]*10){} *(\\(|\\x1d|$)", literal(&lot));
    let within = ["udi_di", id].map(|text| format!("length({text}) >= 16 AND match({text}, {})", quoted(&regex)));
    let of_lot = format!("(trimBoth(lot) = {} OR lot = '' AND ({}))", quoted(&lot), within.join(" OR "));
    product.map_or(of_lot.clone(), |product| format!("{} AND {of_lot}", of_product(product, id)))
}

/// Whether that holds once the element strings are read: a serial number may look like a lot.
fn is_of_lot(subject: &str, strings: [&str; 2], lot: &str) -> bool {
    let within = |ai: &str| strings.iter().find_map(|text| gs1::part(text, ai));
    let (product, of) = match subject.split_once('/') {
        Some((product, lot)) => (Some(gs1::product(product)), gs1::lot(lot)),
        None => (None, gs1::lot(subject)),
    };
    let is_another = strings[0].is_empty() && product.is_some_and(|product| within("01") != Some(product));
    !is_another && (!lot.is_empty() || within("10") == Some(of))
}

/// A text as it stands in a regular expression.
fn literal(text: &str) -> String {
    let escaped = |letter: char| match letter.is_ascii_punctuation() {
        true => format!("\\{letter}"),
        false => letter.to_string(),
    };
    text.chars().map(escaped).collect()
}

/// SQL of a product in every way of writing its GTIN.
fn of_product(udi_di: &str, id: &str) -> String {
    let product = gs1::product(udi_di);
    let shorter = [13, 12, 8].into_iter().filter_map(|length| {
        let (zeros, rest) = product.split_at_checked(product.len().checked_sub(length)?)?;
        (!zeros.is_empty() && zeros.bytes().all(|digit| digit == b'0')).then_some(rest)
    });
    let spellings: Vec<&str> = [product.as_str()].into_iter().chain(shorter).collect();
    // Of an element string, with brackets and as scanned.
    let strings: Vec<String> =
        spellings.iter().map(|gtin| format!("(01){gtin}")).chain([format!("01{product}")]).collect();
    let within = |text: &str| {
        let strings: Vec<_> =
            strings.iter().map(|string| format!("position({text}, {}) > 0", quoted(string))).collect();
        format!("length({text}) >= 12 AND ({})", strings.join(" OR "))
    };
    let (own, id) = (within("udi_di"), within(id));
    format!("(trimBoth(udi_di) IN {} OR {own} OR udi_di = '' AND {id})", list(spellings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_is_asked_for_in_every_spelling() {
        let of_lot = |subject| of_lot(subject, "item_id");
        let sql = of_lot("4012345000017/L1 ");
        assert_eq!(sql, of_lot("(01)04012345000017/L1"));
        assert!(
            sql.contains("IN ('04012345000017', '4012345000017')") && sql.contains("trimBoth(lot) = 'L1' OR"),
            "{sql}"
        );
        assert!(of_lot("REF-7/L1").contains("IN ('REF-7')"));
        let scanned = |id: &str, lot: &str| is_of_lot("4012345000017/L1", ["", id], lot);
        assert!(scanned("(01)04012345000017(10)L1(21)S", "") && scanned("010401234500001710L1", ""));
        assert!(!scanned("(01)04012345000024(10)L1", "") && !scanned("010401234500001721S10L1", ""));
        assert!(!scanned("(01)04012345000017(10)L11", "") && scanned("(01)04012345000017(21)S", "L1"));
        assert!(of_lot("L'1.2").starts_with(r"(trimBoth(lot) = 'L\'1.2' OR") && literal("1.2") == r"1\.2");
    }
}
