//! The relations of the schema, and checks whether a warehouse has them.

use async_recursion::async_recursion as boxed;
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::{
    client::Warehouse,
    error::Error,
    migrations::{self, Applied, MIGRATIONS},
};

/// Blocks whose deduplication tokens every table of the loader and every rollup must remember: that
/// nothing is written twice hangs on it.
pub const DEDUPLICATION_WINDOW_MIN: u64 = 100_000;

/// The purpose of a table or view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A table that the loader writes. It has a deduplication window.
    Loader,
    /// A table that commands fill through the loader, and that others write as well. It has a
    /// deduplication window.
    Shared,
    /// A table that people fill.
    Registry,
    /// A table made from closed ingest days; it has a deduplication window.
    Rollup,
    /// A table that the monitor, one of its commands or pruning writes. A row that is written twice
    /// does no harm.
    Monitor,
    /// The table of applied migrations.
    Migrations,
    View,
}

/// Every table and view of the schema, with its kind.
pub const RELATIONS: &[(&str, Kind)] = &[
    ("accuracy_day", Kind::Rollup),
    ("accuracy_hour", Kind::Rollup),
    ("accuracy_minute", Kind::Loader),
    ("accuracy_session", Kind::Loader),
    ("accuracy_verdicts", Kind::Monitor),
    ("alert_deliveries", Kind::Monitor),
    ("alert_history", Kind::Shared),
    ("alerts", Kind::Monitor),
    ("audit", Kind::Loader),
    ("audit_trail", Kind::View),
    ("calibration_by_age", Kind::View),
    ("calibration_by_model", Kind::View),
    ("calibration_by_unit", Kind::View),
    ("calibration_drift", Kind::View),
    ("calibration_impact", Kind::View),
    ("calibrations", Kind::Loader),
    ("calibrations_due", Kind::View),
    ("course_progress", Kind::View),
    ("cycle_assessments", Kind::Monitor),
    ("cycle_indicators", Kind::Loader),
    ("cycle_releases", Kind::Loader),
    ("cycle_verdicts", Kind::View),
    ("delivery_completeness", Kind::View),
    ("delivery_gaps", Kind::View),
    ("delivery_state", Kind::View),
    ("depth_accuracy", Kind::View),
    ("device_status", Kind::Loader),
    ("devices", Kind::Shared),
    ("devices_latest", Kind::View),
    ("dose_accuracy", Kind::View),
    ("drift", Kind::Monitor),
    ("faults", Kind::Loader),
    ("fleet", Kind::View),
    ("implausible_times", Kind::Loader),
    ("incidents", Kind::Shared),
    ("injection_completeness", Kind::View),
    ("injections", Kind::Loader),
    ("item_history", Kind::View),
    ("item_uses", Kind::Loader),
    ("kafka_losses", Kind::View),
    ("kafka_topics", Kind::Loader),
    ("loader_commits", Kind::Loader),
    ("loader_intents", Kind::Loader),
    ("loader_pruning", Kind::Monitor),
    ("lots", Kind::Registry),
    ("lots_latest", Kind::View),
    ("mass_balance", Kind::View),
    ("models", Kind::Registry),
    ("models_latest", Kind::View),
    ("monitor_positions", Kind::Monitor),
    ("mounts", Kind::Loader),
    ("open_alerts", Kind::View),
    ("policies", Kind::Shared),
    ("policies_latest", Kind::View),
    ("preparations", Kind::Loader),
    ("quarantine", Kind::Loader),
    ("quarantine_purges", Kind::Registry),
    ("quarantine_replays", Kind::Loader),
    ("quarantine_state", Kind::View),
    ("recalls", Kind::Registry),
    ("recalls_latest", Kind::View),
    ("recipes", Kind::Registry),
    ("recipes_latest", Kind::View),
    ("schema_migrations", Kind::Migrations),
    ("session_completeness", Kind::View),
    ("session_report", Kind::View),
    ("sessions", Kind::Loader),
    ("sites", Kind::Registry),
    ("sites_latest", Kind::View),
    ("sterility_breaches", Kind::View),
    ("sterility_verdicts", Kind::Monitor),
    ("sterilization_cycles", Kind::Loader),
    ("sterilization_items", Kind::Loader),
    ("sterilization_samples", Kind::Loader),
    ("sterilizer_cycles", Kind::View),
    ("unit_secret", Kind::Monitor),
];

impl Kind {
    /// Whether rows are kept from being written twice by deduplication tokens.
    fn has_tokens(self) -> bool {
        matches!(self, Self::Loader | Self::Shared | Self::Rollup)
    }
}

/// A table or view as it is in a warehouse.
#[derive(Debug, Deserialize)]
pub(crate) struct Found {
    pub name: String,
    pub view: bool,
    pub window: u64,
    pub fsync: bool,
    pub keeps_empty_parts: bool,
}

/// All tables and views of the database.
pub(crate) async fn found(warehouse: &Warehouse) -> Result<BTreeMap<String, Found>, Error> {
    let sql = r"
        SELECT
            name,
            engine = 'View' AS view,
            toUInt64OrZero(extract(engine_full, 'non_replicated_deduplication_window = (\\d+)')) AS window,
            engine_full LIKE '%fsync_after_insert = %1%' AND engine_full LIKE '%fsync_part_directory = %1%' AS fsync,
            match(engine_full, 'remove_empty_parts = (0|false)') AS keeps_empty_parts
        FROM system.tables WHERE database = ?";
    let rows: Vec<Found> = warehouse.fetch(warehouse.query(sql).bind(warehouse.database())).await?;
    Ok(rows.into_iter().map(|found| (found.name.clone(), found)).collect())
}

/// Whether a role may begin: every migration of this program is applied to its end, and every table
/// that needs tokens remembers enough of them. A newer schema is no obstacle, so that roles of the
/// earlier release go on during an upgrade.
///
/// # Errors
/// [`Error::Schema`] names the first missing migration, or a table that forgets tokens. As
/// [`Warehouse::fetch`] otherwise.
#[boxed]
pub async fn ready(warehouse: &Warehouse) -> Result<(), Error> {
    let found = found(warehouse).await?;
    refuse_absent(warehouse.database(), &found, &recorded(warehouse, &found).await?)?;
    refuse_narrow(warehouse.database(), &found)
}

/// The recorded migrations; none if there is no schema yet.
async fn recorded(warehouse: &Warehouse, found: &BTreeMap<String, Found>) -> Result<Vec<Applied>, Error> {
    if found.contains_key("schema_migrations") { migrations::applied(warehouse).await } else { Ok(Vec::new()) }
}

fn refuse_absent(database: &str, found: &BTreeMap<String, Found>, applied: &[Applied]) -> Result<(), Error> {
    if !found.contains_key("schema_migrations") {
        return Err(Error::Schema(format!("database {database} has no doseline schema")));
    }
    let versions: BTreeSet<u32> = applied.iter().map(|applied| applied.version).collect();
    let Some(absent) = MIGRATIONS.iter().find(|migration| !versions.contains(&migration.version)) else {
        return Ok(());
    };
    Err(Error::Schema(format!(
        "database {database} has {} of {} migrations, the first absent one is {}",
        versions.len(),
        MIGRATIONS.len(),
        absent.name
    )))
}

fn refuse_narrow(database: &str, found: &BTreeMap<String, Found>) -> Result<(), Error> {
    match narrow(found).first() {
        None => Ok(()),
        Some((name, window)) => Err(Error::Schema(format!(
            "table {database}.{name}: non_replicated_deduplication_window = {window}, at least \
             {DEDUPLICATION_WINDOW_MIN} is needed, or a retried insert could double rows"
        ))),
    }
}

/// Tables and views of the schema that the warehouse lacks.
pub(crate) fn missing(found: &BTreeMap<String, Found>) -> Vec<&'static str> {
    RELATIONS.iter().map(|(name, _)| *name).filter(|name| !found.contains_key(*name)).collect()
}

/// Tables whose deduplication window is too small, with the window.
pub(crate) fn narrow(found: &BTreeMap<String, Found>) -> Vec<(&'static str, u64)> {
    let tables = RELATIONS.iter().filter(|(_, kind)| kind.has_tokens());
    tables
        .filter_map(|(name, _)| Some((*name, found.get(*name)?.window)))
        .filter(|(_, window)| *window < DEDUPLICATION_WINDOW_MIN)
        .collect()
}

/// Tables that forget deduplication tokens together with parts whose rows were deleted.
pub(crate) fn forgetful(found: &BTreeMap<String, Found>) -> Vec<&'static str> {
    let tables = RELATIONS.iter().filter(|(_, kind)| kind.has_tokens()).map(|(name, _)| *name);
    tables.filter(|name| found.get(*name).is_some_and(|found| !found.keeps_empty_parts)).collect()
}

/// Checks that the warehouse has exactly the schema that this program needs: version, tables,
/// views, deduplication windows. It only reads. Call it before the first write.
///
/// # Errors
/// [`Error::Schema`] if `doseline migrate` helps, [`Error::Incompatible`] if it does not. As
/// [`Warehouse::fetch`] otherwise.
#[boxed]
pub async fn verify(warehouse: &Warehouse) -> Result<(), Error> {
    let database = warehouse.database();
    let found = found(warehouse).await?;
    let applied = recorded(warehouse, &found).await?;
    migrations::check(database, &applied)?;
    refuse_absent(database, &found, &applied)?;
    if let Some(name) = missing(&found).first() {
        return Err(Error::Schema(format!("{database}.{name} does not exist")));
    }
    refuse_narrow(database, &found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_are_sorted_and_made_by_migrations() {
        assert!(RELATIONS.is_sorted_by(|(left, _), (right, _)| left < right));
        let sql: String = MIGRATIONS.iter().map(|migration| migration.sql).collect();
        for (name, kind) in RELATIONS {
            let create = match kind {
                Kind::View => format!("CREATE OR REPLACE VIEW {name}\n"),
                Kind::Migrations => continue,
                _ => format!("CREATE TABLE IF NOT EXISTS {name}\n"),
            };
            assert!(sql.contains(&create), "{name}");
        }
    }

    #[test]
    fn every_table_of_the_loader_is_known_as_such() {
        for table in crate::columns::TABLES {
            assert!(RELATIONS.contains(&(table, Kind::Loader)), "{table}");
        }
        for table in crate::columns::SHARED_TABLES {
            assert!(RELATIONS.contains(&(table, Kind::Shared)), "{table}");
        }
    }
}
