//! Applies the numbered migrations.
//!
//! ClickHouse has no transactions over several statements. So every statement can be run again, and
//! a migration is recorded after its last statement. An interrupted migration is applied again from
//! its start. Two processes that migrate at once do no harm for the same reason.

use async_recursion::async_recursion as boxed;
use std::{collections::BTreeMap, time::Duration};

use tracing::{info, warn};

use crate::{
    client::Warehouse,
    error::Error,
    migrations::{MIGRATIONS, Migration, applied, check},
    schema::{self, DEDUPLICATION_WINDOW_MIN},
    statement,
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Sets `fsync_after_insert` and `fsync_part_directory` on every table. Whatever ClickHouse
    /// confirmed then survives a power loss, at the cost of one or two disk flushes for each
    /// insert. `false` leaves the tables as they are.
    pub fsync: bool,
}

/// The outcome of `migrate`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Migrations applied by this call, ascending.
    pub applied: Vec<&'static str>,
    /// Tables and views that were missing and were created again.
    pub restored: Vec<&'static str>,
    /// Tables whose settings were corrected.
    pub corrected: Vec<String>,
}

const CREATE_MIGRATIONS: &str = "
CREATE TABLE IF NOT EXISTS schema_migrations
(
    version UInt32 COMMENT 'Number of the migration, from 1',
    name String COMMENT 'Its name, as the file is called',
    checksum String COMMENT 'SHA-256 of its text, hex',
    applied_at DateTime64(6, 'UTC') COMMENT 'When it was applied; UTC, us'
)
ENGINE = ReplacingMergeTree
ORDER BY version
SETTINGS old_parts_lifetime = 480
COMMENT 'Migrations that were applied; two that migrate at once may leave a row each'";

/// Brings the warehouse to the schema of this program: creates the database, applies the migrations
/// that are not applied, restores missing tables and views, corrects settings. Running it again
/// changes nothing.
///
/// # Errors
/// [`Error::Incompatible`] if the warehouse is newer than this program or an applied migration was
/// edited; nothing is changed then. As [`Warehouse::execute`] otherwise. Running it again continues
/// where it stopped.
#[boxed]
pub async fn migrate(warehouse: &Warehouse, options: Options) -> Result<Done, Error> {
    warehouse.create_database().await?;
    run(warehouse, CREATE_MIGRATIONS).await?;
    let applied = applied(warehouse).await?;
    check(warehouse.database(), &applied)?;
    let mut done = Done::default();
    for migration in MIGRATIONS {
        if applied.iter().all(|applied| applied.version != migration.version) {
            apply(warehouse, migration).await?;
            record(warehouse, migration).await?;
            info!(migration = migration.name, "applied migration");
            done.applied.push(migration.name);
        }
    }
    done.restored = schema::missing(&schema::found(warehouse).await?);
    if !done.restored.is_empty() {
        warn!(relations = ?done.restored, "tables or views are missing; creating them again");
        for migration in MIGRATIONS {
            apply(warehouse, migration).await?;
        }
    }
    done.corrected = correct(warehouse, options).await?;
    Ok(done)
}

async fn apply(warehouse: &Warehouse, migration: &Migration) -> Result<(), Error> {
    for statement in statement::split(migration.sql) {
        run(warehouse, statement).await?;
    }
    Ok(())
}

async fn record(warehouse: &Warehouse, migration: &Migration) -> Result<(), Error> {
    let sql = "INSERT INTO schema_migrations (version, name, checksum, applied_at) SELECT ?, ?, ?, now64(6)";
    let query = warehouse.query(sql).bind(migration.version).bind(migration.name).bind(migration.checksum());
    warehouse.execute(query).await
}

async fn correct(warehouse: &Warehouse, options: Options) -> Result<Vec<String>, Error> {
    let found = schema::found(warehouse).await?;
    let mut settings: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (table, _) in schema::narrow(&found) {
        let window = format!("non_replicated_deduplication_window = {DEDUPLICATION_WINDOW_MIN}");
        settings.entry(table).or_default().push(window);
    }
    for table in schema::forgetful(&found) {
        settings.entry(table).or_default().push("remove_empty_parts = 0".to_owned());
    }
    let tables = found.values().filter(|found| !found.view && !found.fsync && options.fsync);
    for table in tables {
        let fsync = ["fsync_after_insert = 1", "fsync_part_directory = 1"].map(str::to_owned);
        settings.entry(&table.name).or_default().extend(fsync);
    }
    let mut corrected = Vec::new();
    for (table, settings) in settings {
        let settings = settings.join(", ");
        run(warehouse, &format!("ALTER TABLE {table} MODIFY SETTING {settings}")).await?;
        info!(table, settings, "corrected settings");
        corrected.push(table.to_owned());
    }
    Ok(corrected)
}

/// Error codes of a statement that collided with the same statement of another process. Repeating
/// it succeeds, because the other process has done the work.
const MET_ANOTHER: &[u32] = &[
    57,  // TABLE_ALREADY_EXISTS
    60,  // UNKNOWN_TABLE
    82,  // DATABASE_ALREADY_EXISTS
    473, // DEADLOCK_AVOIDED
    517, // CANNOT_ASSIGN_ALTER
];
const ATTEMPTS_MAX: u32 = 5;
const PAUSE: Duration = Duration::from_millis(100);

async fn run(warehouse: &Warehouse, statement: &str) -> Result<(), Error> {
    let mut attempt = 1;
    loop {
        match warehouse.command(statement).await {
            Err(Error::Engine { code, .. }) if attempt < ATTEMPTS_MAX && MET_ANOTHER.contains(&code) => {
                tokio::time::sleep(PAUSE * attempt).await;
                attempt += 1;
            }
            result => return result,
        }
    }
}
