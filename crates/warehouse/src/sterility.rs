//! The facts that sterility is judged from, read in slices or by id.
//!
//! Injections, and the items they were made with, are read from committed batches only. A batch
//! that is being written then never shows a use without the mount that the use names. Everything
//! else is read whether or not its batch is committed.

pub use crate::facts::*;
use crate::{
    client::{Answer, Warehouse},
    error::Error,
    horizon::Horizon,
    sql::{Scope, pairs, quoted},
};
use async_recursion::async_recursion as boxed;

/// What people have registered about sterility.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    pub recipes: Vec<Recipe>,
    /// Lots with an expiry.
    pub lots: Vec<LotExpiry>,
    pub recalls: Vec<Recall>,
    pub policies: Vec<Policy>,
    pub zones: Vec<Zone>,
}

impl Registry {
    /// SQL expression for the local day of `at` at the row's site.
    fn day(&self) -> String {
        let mut by_zone: std::collections::BTreeMap<&str, Vec<(&str, &str)>> = std::collections::BTreeMap::new();
        for zone in &self.zones {
            by_zone.entry(&zone.time_zone).or_default().push((&zone.tenant, &zone.site));
        }
        let branches: Vec<_> = by_zone
            .into_iter()
            .map(|(zone, sites)| format!("(tenant, site) IN {}, toDate(at, {})", pairs(sites), quoted(zone)))
            .collect();
        if branches.is_empty() {
            "toDate(at, 'UTC')".to_owned()
        } else {
            format!("multiIf({}, toDate(at, 'UTC'))", branches.join(", "))
        }
    }
}

/// SQL condition: whether any event of the row's boot has an impossible time. If a message waited
/// before the bridge received it, its time of receipt does not show that the clock was ahead.
/// Another message of the same boot may show it.
const DOUBTED: &str = "((tenant, device, boot_id) IN ( \
                       SELECT tenant, device, boot_id FROM implausible_times WHERE field = 'base_unix_us'))";
const MOUNT: &str = "tenant, device, mount_id, toUnixTimestamp64Micro(mount.at) AS at, site, session_id, slot, item_id, item_key, id_kind, \
                     udi_di, lot, expiry, type AS designation, reusable, pack_id, pack_intact";
const CYCLE: &str = "tenant, device, boot_id, seq, cycle_uid, site, toUnixTimestamp64Micro(cycle.at) AS at";

impl Warehouse {
    /// Everything registered about sterility.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn sterility_registry(&self) -> Result<Registry, Error> {
        let recipes = "SELECT tenant, recipe, temperature_min_mc, temperature_max_mc, hold_ms, gap_max_ms, reference_mc, \
                       z_mk, saturated_steam, prevacuum FROM recipes_latest ORDER BY tenant, recipe";
        let lots = "SELECT udi_di, lot, toInt32(assumeNotNull(expiry)) AS expiry FROM lots_latest \
                    WHERE expiry IS NOT NULL ORDER BY udi_di, lot";
        let recalls = "SELECT recall_id, udi_di, lot, reason FROM recalls_latest WHERE state = 'OPEN' ORDER BY 1, 2, 3";
        let policies = "SELECT tenant, name, value FROM policies_latest ORDER BY tenant, name";
        let zones = "SELECT tenant, site, time_zone FROM sites_latest \
                     WHERE time_zone IN (SELECT time_zone FROM system.time_zones) ORDER BY tenant, site";
        Ok(Registry {
            recipes: self.rows(recipes).await?,
            lots: self.rows(lots).await?,
            recalls: self.rows(recalls).await?,
            policies: self.rows(policies).await?,
            zones: self.rows(zones).await?,
        })
    }

    /// Mounts of items. Here and below, items are named by their identity, the column `item_key`.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub fn mounts_of_items<'a>(&'a self, items: Scope<'a>) -> Answer<'a, Vec<Mount>> {
        Box::pin(async move { self.mounts_where(&items.filter("item_key")).await })
    }

    pub(crate) async fn mounts_where(&self, filter: &str) -> Result<Vec<Mount>, Error> {
        self.rows(&format!("SELECT {MOUNT}, CAST(time_source = 'DEVICE' AND NOT {DOUBTED} AS Bool) AS synced FROM (SELECT *, item_key FROM mounts WHERE event = 'MOUNTED' AND {filter}) AS mount"))
            .await
    }

    /// Uses of items, including uses whose item only the mount names.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub fn uses_of_items<'a>(&'a self, items: Scope<'a>, horizon: &'a Horizon) -> Answer<'a, Vec<Use>> {
        Box::pin(async move {
            let filter = items.filter("item_key");
            let mounted = format!("FROM mounts WHERE event = 'MOUNTED' AND mount_id != '' AND {filter}");
            self.uses(
                &format!(
                    "(({filter}) OR (mount_id IN (SELECT mount_id {mounted}) \
             AND (tenant, device, mount_id) IN (SELECT tenant, device, mount_id {mounted})))",
                ),
                horizon,
            )
            .await
        })
    }

    /// Mounts by their names, `DEVICE/MOUNT`.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub fn mounts_by_id<'a>(&'a self, mounts: Scope<'a>) -> Answer<'a, Vec<Mount>> {
        Box::pin(async move { self.mounts_where(&mounts.mounts()).await })
    }

    /// Uses of mounts by their names, `DEVICE/MOUNT`.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub fn uses_of_mounts<'a>(&'a self, mounts: Scope<'a>, horizon: &'a Horizon) -> Answer<'a, Vec<Use>> {
        Box::pin(async move { self.uses(&mounts.mounts(), horizon).await })
    }

    pub(crate) async fn uses(&self, filter: &str, horizon: &Horizon) -> Result<Vec<Use>, Error> {
        let (committed, lately) = (horizon.filter(), horizon.lately());
        self.rows(&format!(
            "SELECT tenant, device, session_id, slot, mount_id, item_id, item_key, max(row.site) AS site, \
             sum(row.injections) AS injections, sum(row.punctures) AS punctures, \
             toUnixTimestamp64Micro(min(row.first_at)) AS first_at, toUnixTimestamp64Micro(max(row.last_at)) AS last_at, \
             sum(row.undated) AS undated, CAST(max({lately}) AS Bool) AS lately \
             FROM (SELECT *, item_key FROM item_uses WHERE {filter} AND {committed}) AS row \
             GROUP BY tenant, device, session_id, slot, mount_id, item_id, item_key"
        ))
        .await
    }

    /// Injections of sessions.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub fn shots_of_sessions<'a>(&'a self, sessions: Scope<'a>, horizon: &'a Horizon) -> Answer<'a, Vec<Shots>> {
        Box::pin(async move { self.shots(&sessions.filter("session_id"), horizon).await })
    }

    pub(crate) async fn shots(&self, filter: &str, horizon: &Horizon) -> Result<Vec<Shots>, Error> {
        let committed = horizon.filter();
        self.rows(&format!(
            "SELECT tenant, session_id, device, needle_mount_id, preparation_id, max(row.site) AS site, \
             count() AS injections, toUnixTimestamp64Micro(min(row.at)) AS first_at, \
             toUnixTimestamp64Micro(max(row.at)) AS last_at, countIf(row.is_undated) AS undated \
             FROM (SELECT tenant, session_id, device, needle_mount_id, preparation_id, site, at, \
                     time_source = 'RECEIVED' OR {DOUBTED} AS is_undated FROM injections \
                   WHERE {filter} AND outcome != 'NO_CONTACT' AND {committed}) AS row \
             GROUP BY tenant, session_id, device, needle_mount_id, preparation_id"
        ))
        .await
    }

    /// Components of mixtures.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub fn components<'a>(&'a self, preparations: Scope<'a>) -> Answer<'a, Vec<Component>> {
        Box::pin(async move { self.components_where(&preparations.filter("preparation_id")).await })
    }

    pub(crate) async fn components_where(&self, filter: &str) -> Result<Vec<Component>, Error> {
        self.rows(&format!(
            "SELECT tenant, preparation_id, toUnixTimestamp64Micro(use_by) AS use_by, udi_di, lot, expiry, container_id \
             FROM (SELECT * FROM preparations WHERE {filter}) ORDER BY ALL"
        ))
        .await
    }

    /// Sterilizer loads that contained these items.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub fn loads_of_items<'a>(&'a self, items: Scope<'a>) -> Answer<'a, Vec<Load>> {
        Box::pin(async move {
            let filter = items.filter("item_key");
            let sql =
                "SELECT DISTINCT tenant, item_id, item_key, device, cycle_uid, pack_id FROM sterilization_items WHERE";
            self.rows(&format!("{sql} {filter} ORDER BY ALL")).await
        })
    }

    /// Items of cycles.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn items_of_cycles(&self, cycles: &[&Cycle]) -> Result<Vec<Load>, Error> {
        let keys = events(cycles);
        let sql = "SELECT DISTINCT tenant, item_id, item_key, device, cycle_uid, pack_id FROM sterilization_items \
                   WHERE item_id != ''";
        self.rows(&format!("{sql} AND (tenant, site, device, boot_id, seq) IN {keys} ORDER BY ALL")).await
    }

    /// Reprocessings of items.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub fn reprocessings<'a>(&'a self, items: Scope<'a>) -> Answer<'a, Vec<Reprocessing>> {
        Box::pin(async move {
            let filter = items.filter("item_key");
            self.rows(&format!(
                "SELECT tenant, item_id, item_key, toUnixTimestamp64Micro(row.at) AS at, device, site, rinse_water \
             FROM (SELECT *, item_key FROM mounts WHERE event = 'REPROCESSED' AND {filter}) AS row ORDER BY ALL"
            ))
            .await
        })
    }

    /// All cycles of sterilizers.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub fn cycles<'a>(&'a self, sterilizers: Scope<'a>, registry: &'a Registry) -> Answer<'a, Vec<Cycle>> {
        Box::pin(async move { self.cycles_where(&sterilizers.filter("device"), registry).await })
    }

    pub(crate) async fn cycles_where(&self, filter: &str, registry: &Registry) -> Result<Vec<Cycle>, Error> {
        let day = registry.day();
        self.rows(&format!(
            "SELECT {CYCLE}, toUInt16(day) AS day, CAST(time_source = 'DEVICE' AND NOT {DOUBTED} AS Bool) AS synced, recipe, purpose, \
             load_dry, items, samples \
             FROM (SELECT *, {day} AS day FROM sterilization_cycles WHERE {filter} AND cycle_uid != '') AS cycle \
             ORDER BY tenant, device, boot_id, seq"
        ))
        .await
    }

    /// The curves of cycles.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn curves(&self, cycles: &[&Cycle]) -> Result<Vec<Curve>, Error> {
        let keys = events(cycles);
        self.rows(&format!(
            "SELECT tenant, cycle_uid, groupArray((offset_ms, sensor, temperature_mc, pressure_pa)) AS samples FROM ( \
               SELECT tenant, cycle_uid, offset_ms, sensor, temperature_mc, pressure_pa FROM sterilization_samples \
               WHERE (tenant, site, device, boot_id, seq) IN {keys} ORDER BY tenant, cycle_uid, boot_id, seq, index \
             ) GROUP BY tenant, cycle_uid"
        ))
        .await
    }

    /// Indicators of the cycles of sterilizers.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub fn indicators<'a>(&'a self, sterilizers: Scope<'a>) -> Answer<'a, Vec<Indicator>> {
        Box::pin(async move {
            let filter = sterilizers.filter("device");
            self.rows(&format!(
            "SELECT tenant, cycle_uid, kind, result, lot, toUnixTimestamp64Micro(ifNull(read_at, row.at)) AS at \
             FROM cycle_indicators AS row \
             WHERE (tenant, cycle_uid) IN (SELECT tenant, cycle_uid FROM sterilization_cycles WHERE {filter}) ORDER BY ALL"
        ))
        .await
        })
    }

    /// Decisions on the cycles of sterilizers.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub fn releases<'a>(&'a self, sterilizers: Scope<'a>) -> Answer<'a, Vec<Release>> {
        Box::pin(async move {
            let filter = sterilizers.filter("device");
            self.rows(&format!(
            "SELECT tenant, cycle_uid, toUnixTimestamp64Micro(ifNull(decided_at, row.at)) AS at, decision, actor \
             FROM cycle_releases AS row \
             WHERE (tenant, cycle_uid) IN (SELECT tenant, cycle_uid FROM sterilization_cycles WHERE {filter}) ORDER BY ALL"
        ))
        .await
        })
    }

    /// Removed syringes and cartridges, named `DEVICE/MOUNT`, whose volume balance is off by more
    /// than `limit_pct` percent.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub fn imbalances<'a>(&'a self, mounts: Scope<'a>, limit_pct: u32) -> Answer<'a, Vec<Imbalance>> {
        Box::pin(async move {
            let filter = mounts.mounts();
            self.rows(&format!(
            "SELECT tenant, site, device, mount_id, item_id, toInt64(assumeNotNull(fill_nl)) AS fill_nl, \
             toInt64(assumeNotNull(primed_nl)) AS primed_nl, toInt64(assumeNotNull(residual_nl)) AS residual_nl, \
             toInt64(delivered_nl) AS delivered_nl, assumeNotNull(balance_nl) AS balance_nl, \
             assumeNotNull(balance_pct) AS balance_pct, toUnixTimestamp64Micro(assumeNotNull(removed_at)) AS removed_at \
             FROM mass_balance WHERE {filter} AND removed_at IS NOT NULL AND abs(balance_pct) > {limit_pct}"
        ))
        .await
        })
    }

    /// Mounts that have rows beyond a horizon, as (tenant, device, mount). Sums over such a mount
    /// are not complete yet.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub fn mounts_beyond<'a>(
        &'a self,
        mounts: Scope<'a>,
        horizon: &'a Horizon,
    ) -> Answer<'a, Vec<(String, String, String)>> {
        Box::pin(async move {
            let (filter, committed) = (mounts.mounts(), horizon.filter());
            let names = "SELECT tenant, device, mount_id FROM";
            let beyond = format!("WHERE {filter} AND NOT ({committed})");
            self.rows(&format!(
                "SELECT DISTINCT toString(tenant), toString(device), toString(mount_id) \
             FROM ({names} mounts {beyond} UNION ALL {names} item_uses {beyond})"
            ))
            .await
        })
    }

    /// How many sequence numbers of each device are missing, as (tenant, device, count). Devices
    /// without missing numbers are left out.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn missing_events(&self, devices: &[(&str, &str)]) -> Result<Vec<(String, String, u64)>, Error> {
        let devices = pairs(devices.iter().copied());
        self.rows(&format!(
            "SELECT toString(tenant), toString(device), toUInt64(sum(last_missing - first_missing + 1)) \
             FROM delivery_gaps WHERE state = 'OPEN' AND (tenant, device) IN {devices} GROUP BY tenant, device"
        ))
        .await
    }

    /// Number of rows of the largest table that is read in slices.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn sterility_rows(&self) -> Result<u64, Error> {
        let sql = "SELECT max(rows) FROM (SELECT sum(rows) AS rows FROM system.parts WHERE database = ? AND active \
                   AND table IN ('item_uses', 'mounts', 'sterilization_items') GROUP BY table)";
        let rows: Vec<u64> = self.fetch(self.query(sql).bind(self.database())).await?;
        Ok(rows.first().copied().unwrap_or_default())
    }
}

fn events(cycles: &[&Cycle]) -> String {
    let keys: Vec<_> = cycles
        .iter()
        .map(|cycle| {
            let (tenant, site, device) = (quoted(&cycle.tenant), quoted(&cycle.site), quoted(&cycle.device));
            format!("({tenant}, {site}, {device}, {}, {})", cycle.boot_id, cycle.seq)
        })
        .collect();
    format!("({})", keys.join(", "))
}
