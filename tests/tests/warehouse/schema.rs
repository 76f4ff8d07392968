//! Migrations and verification.

use std::{collections::BTreeSet, fs::File, path::Path, time::Duration};

use harness::{ClickHouse, poll};
use warehouse::{
    Advice, Error,
    migrate::{self, Done},
    migrations::MIGRATIONS,
    schema::{self, DEDUPLICATION_WINDOW_MIN, Kind, RELATIONS},
};

use super::{empty, migrated};

/// The engine removes old parts about every second.
const CLEARED_WITHIN: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn three_at_once_migrate_and_a_fourth_finds_nothing_to_do() {
    let clickhouse = ClickHouse::start();
    let warehouse = empty(&clickhouse);
    let unmade = async |expected: &str| {
        let error = schema::verify(&warehouse).await.unwrap_err();
        assert_eq!(error.to_string(), format!("{expected}; run `doseline migrate`"));
        assert_eq!(error.advice(), Advice::Retry);
    };
    unmade("clickhouse: Database doseline does not exist. (UNKNOWN_DATABASE)").await;
    clickhouse.query("CREATE DATABASE doseline");
    unmade("database doseline has no doseline schema").await;
    clickhouse.query("DROP DATABASE doseline SYNC");

    let options = migrate::Options::default();
    let all = tokio::join!(
        migrate::migrate(&warehouse, options),
        migrate::migrate(&warehouse, options),
        migrate::migrate(&warehouse, options),
    );
    for result in [all.0, all.1, all.2] {
        result.unwrap();
    }
    schema::verify(&warehouse).await.unwrap();
    assert_eq!(migrate::migrate(&warehouse, options).await.unwrap(), Done::default());
    let recorded = clickhouse.number("SELECT uniqExact(version) FROM doseline.schema_migrations");
    assert_eq!(recorded, MIGRATIONS.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_interrupted_or_has_gone_is_made_again() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    // The state after a crash in the middle of migration 4: some of its tables exist, and later
    // migrations are not recorded.
    clickhouse.query("ALTER TABLE doseline.schema_migrations DELETE WHERE version >= 4 SETTINGS mutations_sync = 2");
    clickhouse.query("DROP TABLE doseline.preparations SYNC");
    clickhouse.query("INSERT INTO doseline.sessions (tenant, device) VALUES ('acme', 'pen-1')");
    let error = schema::verify(&warehouse).await.unwrap_err().to_string();
    assert!(error.contains("has 3 of ") && error.contains("0004_sessions; run `doseline migrate`"), "{error}");
    let done = migrate::migrate(&warehouse, migrate::Options::default()).await.unwrap();
    assert_eq!(done.applied.len(), MIGRATIONS.len() - 3);
    schema::verify(&warehouse).await.unwrap();
    assert_eq!(clickhouse.number("SELECT count() FROM doseline.sessions"), 1, "rows stay");

    clickhouse.query("DROP TABLE doseline.faults SYNC");
    clickhouse.query("DROP VIEW doseline.fleet SYNC");
    let error = schema::verify(&warehouse).await.unwrap_err().to_string();
    assert_eq!(error, "doseline.faults does not exist; run `doseline migrate`");
    let done = migrate::migrate(&warehouse, migrate::Options::default()).await.unwrap();
    assert_eq!(done.restored, ["faults", "fleet"]);
    schema::verify(&warehouse).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_or_edited_schema_is_refused_and_left_alone() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    let refused = async |expected: &str| {
        for error in [
            schema::verify(&warehouse).await.unwrap_err(),
            migrate::migrate(&warehouse, migrate::Options::default()).await.unwrap_err(),
        ] {
            assert!(matches!(error, Error::Incompatible(_)) && error.to_string().contains(expected), "{error}");
            assert_eq!(error.advice(), Advice::Fatal);
        }
    };
    clickhouse.query("DROP TABLE doseline.faults SYNC");
    clickhouse.query("INSERT INTO doseline.schema_migrations VALUES (99, '0099_later', 'x', now64(6))");
    refused("migration 0099_later, this program knows").await;
    assert_eq!(clickhouse.number("SELECT count() FROM system.tables WHERE name = 'faults'"), 0, "nothing was changed");
    clickhouse.query("ALTER TABLE doseline.schema_migrations DELETE WHERE version = 99 SETTINGS mutations_sync = 2");
    let edit =
        "ALTER TABLE doseline.schema_migrations UPDATE checksum = 'x' WHERE version = 2 SETTINGS mutations_sync = 2";
    clickhouse.query(edit);
    refused("migration 0002_registry of database doseline has the checksum x").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_are_verified_and_corrected_and_flushing_is_an_option() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    for (name, kind) in RELATIONS {
        let create = clickhouse.query(&format!("SHOW CREATE TABLE doseline.{name}"));
        let window = format!("non_replicated_deduplication_window = {DEDUPLICATION_WINDOW_MIN}");
        let tokens = matches!(kind, Kind::Loader | Kind::Shared | Kind::Rollup);
        assert_eq!(create.contains(&window), tokens, "{name}");
        // Or tokens that shut late writers out are forgotten with the rows they came with.
        assert_eq!(create.contains("remove_empty_parts = "), tokens, "{name}");
        assert_eq!(create.contains("old_parts_lifetime = 480"), *kind != Kind::View, "{name}");
    }
    clickhouse.query("ALTER TABLE doseline.item_uses MODIFY SETTING non_replicated_deduplication_window = 100");
    let error = schema::verify(&warehouse).await.unwrap_err().to_string();
    assert!(error.starts_with("table doseline.item_uses: non_replicated_deduplication_window = 100,"), "{error}");
    assert!(error.ends_with("run `doseline migrate`"), "{error}");

    let done = migrate::migrate(&warehouse, migrate::Options { fsync: true }).await.unwrap();
    let tables = RELATIONS.iter().filter(|(_, kind)| *kind != Kind::View).count();
    assert_eq!(done.corrected.len(), tables);
    schema::verify(&warehouse).await.unwrap();
    let flushed = "SELECT count() FROM system.tables WHERE database = 'doseline' \
                   AND engine_full LIKE '%fsync_after_insert = %' AND engine_full LIKE '%fsync_part_directory = %'";
    assert_eq!(clickhouse.number(flushed), tables as u64);
    let again = migrate::migrate(&warehouse, migrate::Options { fsync: true }).await.unwrap();
    assert_eq!(again, Done::default());
    clickhouse.query("INSERT INTO doseline.item_uses (tenant) VALUES ('acme')");
}

/// A merge that ran while the disk filled up can leave a part with a file that is too short.
#[tokio::test(flavor = "multi_thread")]
async fn a_merge_that_cannot_be_read_gives_way_to_the_parts_before_it() {
    let mut clickhouse = ClickHouse::start();
    migrated(&clickhouse).await;
    for tenant in ["acme", "other"] {
        clickhouse.query(&format!("INSERT INTO doseline.item_uses (tenant) VALUES ('{tenant}')"));
    }
    clickhouse.query("OPTIMIZE TABLE doseline.item_uses FINAL");
    // A table with default settings, which is merged after the other one. When its old parts are
    // gone, those of the other table would be gone with the same settings.
    clickhouse.query("CREATE DATABASE usual");
    clickhouse.query("CREATE TABLE usual.witness (a UInt8) ENGINE = MergeTree ORDER BY a");
    for _ in 0..2 {
        clickhouse.query("INSERT INTO usual.witness VALUES (1)");
    }
    clickhouse.query("OPTIMIZE TABLE usual.witness FINAL");
    poll(CLEARED_WITHIN, "old parts to be gone", || {
        match clickhouse.number("SELECT count() FROM system.parts WHERE table = 'witness' AND NOT active") {
            0 => Ok(()),
            parts => Err(format!("{parts} are there")),
        }
    });
    let path = clickhouse
        .query("SELECT path FROM system.parts WHERE table = 'item_uses' AND active AND level > 0 AND rows = 2");
    clickhouse.kill();
    let file = Path::new(&path).join("data.bin");
    File::options().write(true).open(&file).and_then(|file| file.set_len(1)).expect("a part's file");
    clickhouse.start_again();
    assert_eq!(clickhouse.number("SELECT count() FROM doseline.item_uses"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_documents_itself() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    let made = clickhouse.query("SELECT name FROM system.tables WHERE database = 'doseline' ORDER BY name");
    let made: BTreeSet<_> = made.lines().collect();
    assert_eq!(made, RELATIONS.iter().map(|(name, _)| *name).collect());

    let silent = "SELECT name FROM system.tables WHERE database = 'doseline' AND comment = ''";
    assert_eq!(clickhouse.query(silent), "", "tables without a comment");
    for (name, _) in RELATIONS {
        let columns = clickhouse.rows(&format!("DESCRIBE TABLE doseline.{name}"));
        assert!(!columns.is_empty());
        for column in columns {
            assert!(column["comment"].as_str().is_some_and(|comment| !comment.is_empty()), "{name}: {column}");
        }
    }

    let guide = include_str!("../../../docs/tables.md");
    for (name, _) in RELATIONS {
        assert!(guide.contains(&format!("`{name}`")), "docs/tables.md does not mention {name}");
    }
    let examples: Vec<_> = guide.split('`').filter(|text| text.starts_with("SELECT ")).collect();
    assert!(examples.len() > 30);
    for example in examples {
        warehouse.command(example).await.unwrap_or_else(|error| panic!("{error}\nin {example}"));
    }
}
