//! The numbered migrations of this program, and those that a warehouse has recorded.

use std::collections::BTreeMap;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::{Error, Warehouse};

/// One step of the schema.
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
    18 "0018_commands",
    19 "0019_calibration_by_age",
    20 "0020_secret_out_of_plans",
};

impl Migration {
    /// SHA-256 of its text, hex. Line endings do not count, because a checkout may convert them.
    pub fn checksum(&self) -> String {
        format!("{:x}", Sha256::digest(self.sql.replace('\r', "")))
    }
}

/// A migration that the warehouse records as applied.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Applied {
    pub version: u32,
    pub name: String,
    pub checksum: String,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement;

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
            " ADD INDEX IF NOT EXISTS ",
            " ADD PROJECTION IF NOT EXISTS ",
            " MATERIALIZE COLUMN ",
            " MATERIALIZE INDEX ",
            " MODIFY COLUMN ",
            " MODIFY SETTING ",
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
