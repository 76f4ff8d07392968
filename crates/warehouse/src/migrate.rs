//! Applies the numbered migrations.
//!
//! ClickHouse has no transactions over several statements. So every statement can be run again, and
//! a migration is recorded after its last statement. An interrupted migration is applied again from
//! its start. Two processes that migrate at once do no harm for the same reason.

use async_recursion::async_recursion as boxed;
use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tracing::{info, warn};

use crate::{
    client::Warehouse,
    error::Error,
    schema::{self, DEDUPLICATION_WINDOW_MIN},
    statement,
};

#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Number, from 1 without gaps.
    pub version: u32,
    /// File name: the number with four digits, then the subject.
    pub name: &'static str,
    /// Statements, each of which can be run again.
    pub sql: &'static str,
}

macro_rules! migrations {
    ($($version:literal $name:literal,)*) => {
        &[$(Migration {
            version: $version,
            name: $name,
            sql: include_str!(concat!("../migrations/", $name, ".sql")),
        },)*]
    };
}

/// All migrations, ascending. A released migration is never edited; a change is a new migration.
pub const MIGRATIONS: &[Migration] = migrations! {
    1 "0001_loader",
    2 "0002_registry",
    3 "0003_injections",
    4 "0004_sessions",
    5 "0005_sterilization",
    6 "0006_devices",
    7 "0007_quarantine",
    8 "0008_accuracy",
    9 "0009_delivery",
    10 "0010_overview",
    11 "0011_alerts",
    12 "0012_sterility",
    13 "0013_calibration",
    14 "0014_cycle_assessments",
    15 "0015_rollup_tokens",
    16 "0016_item_keys",
    17 "0017_lots_of_units",
};

impl Migration {
    /// SHA-256 of its text, hex. Line endings do not count, because a checkout may convert them.
    pub fn checksum(&self) -> String {
        format!("{:x}", Sha256::digest(self.sql.replace('\r', "")))
    }
}

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

/// A migration that the warehouse records as applied.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Applied {
    pub version: u32,
    pub name: String,
    pub checksum: String,
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
        warn!(relations = ?done.restored, "tables or views have gone; making them again");
        for migration in MIGRATIONS {
            apply(warehouse, migration).await?;
        }
    }
    done.corrected = correct(warehouse, options).await?;
    Ok(done)
}

/// The recorded migrations, ascending.
pub(crate) async fn applied(warehouse: &Warehouse) -> Result<Vec<Applied>, Error> {
    warehouse.rows("SELECT DISTINCT version, name, checksum FROM schema_migrations ORDER BY version").await
}

/// Refuses a warehouse that this program must not touch.
pub(crate) fn check(database: &str, applied: &[Applied]) -> Result<(), Error> {
    let known: BTreeMap<u32, &Migration> = MIGRATIONS.iter().map(|migration| (migration.version, migration)).collect();
    for Applied { version, name, checksum } in applied {
        let Some(migration) = known.get(version) else {
            return Err(Error::Incompatible(format!(
                "database {database} has migration {name}, this program knows {} migrations only: it was made by a newer \
                 doseline; use that one",
                MIGRATIONS.len()
            )));
        };
        if *checksum != migration.checksum() {
            return Err(Error::Incompatible(format!(
                "migration {name} of database {database} has the checksum {checksum}, in this program it has {}: it was \
                 edited after it was applied; use the doseline that made the database, and put the change into a new \
                 migration",
                migration.checksum()
            )));
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Applied> {
        let applied = |migration: &Migration| Applied {
            version: migration.version,
            name: migration.name.to_owned(),
            checksum: migration.checksum(),
        };
        MIGRATIONS.iter().map(applied).collect()
    }

    #[test]
    fn migrations_are_numbered_without_holes() {
        for (migration, version) in MIGRATIONS.iter().zip(1..) {
            assert_eq!(migration.version, version);
            assert!(migration.name.starts_with(&format!("{version:04}_")), "{}", migration.name);
        }
    }

    #[test]
    fn every_statement_can_be_run_again() {
        let alters = [
            " ADD COLUMN IF NOT EXISTS ",
            " MODIFY COLUMN ",
            " MODIFY SETTING ",
            " ADD PROJECTION IF NOT EXISTS ",
            " ADD INDEX IF NOT EXISTS ",
            " MATERIALIZE COLUMN ",
            " MATERIALIZE INDEX ",
        ];
        for migration in MIGRATIONS {
            let statements = statement::split(migration.sql);
            assert!(!statements.is_empty(), "{}", migration.name);
            for statement in statements {
                let code: Vec<_> = statement.lines().filter(|line| !line.starts_with("--")).collect();
                let code = code.join("\n").trim_start().to_owned();
                let makes = ["CREATE TABLE IF NOT EXISTS ", "CREATE OR REPLACE VIEW "];
                let altered = code.starts_with("ALTER TABLE ") && alters.iter().any(|how| code.contains(how));
                let fills = code.starts_with("INSERT INTO ") && code.contains(" WHERE (SELECT count() FROM ");
                assert!(altered || fills || makes.iter().any(|start| code.starts_with(start)), "{statement}");
            }
        }
    }

    /// A migration that stands in `released.txt` must never be edited. The author of a new
    /// migration adds it there with its checksum.
    #[test]
    fn released_migrations_are_never_edited() {
        let released: BTreeMap<_, _> = include_str!("../migrations/released.txt")
            .lines()
            .filter_map(|line| line.split_once("  "))
            .map(|(checksum, name)| (name, checksum))
            .collect();
        assert!(released.len() <= MIGRATIONS.len(), "a released migration has gone");
        for migration in MIGRATIONS {
            let checksum = migration.checksum();
            let Some(known) = released.get(migration.name) else {
                panic!("add to migrations/released.txt: {checksum}  {}", migration.name);
            };
            assert_eq!(*known, checksum, "{} was released: put the change into a new migration", migration.name);
        }
    }

    #[test]
    fn a_newer_or_edited_schema_is_refused() {
        check("doseline", &all()).unwrap();
        check("doseline", &all()[..3]).unwrap();
        let mut newer = all();
        newer.push(Applied { version: 9_999, name: "9999_later".to_owned(), checksum: String::new() });
        let error = check("doseline", &newer).unwrap_err().to_string();
        assert!(error.contains("9999_later") && error.contains("newer doseline"), "{error}");
        let mut edited = all();
        edited[2].checksum = "0".repeat(64);
        let error = check("doseline", &edited).unwrap_err().to_string();
        assert!(error.contains("0003_injections") && error.contains("edited"), "{error}");
    }
}
