//! `doseline rebuild` restores a damaged day exactly, continues after it was killed, and refuses
//! what it cannot rebuild.

use std::{collections::BTreeMap, time::Duration};

use harness::{ClickHouse, poll, stay_within_a_day};
use prost::Message as _;
use telemetry::{
    commands::{self, AddIncident, Role, command::Kind},
    kafka::COMMANDS_TOPIC,
};
use warehouse::columns::TABLES;

use crate::{
    fleet::{VISIT, fleet},
    world::World,
};

const WITHIN: Duration = Duration::from_secs(240);
/// Days are counted back from now, so the test must not cross midnight.
const WITHIN_A_DAY: Duration = Duration::from_secs(300);

/// Every row of every table, without the number of attempts of its batch.
fn contents(clickhouse: &ClickHouse) -> BTreeMap<&'static str, String> {
    let rollups = ["accuracy_hour", "accuracy_day"];
    let rows = |table: &str| {
        let columns = match table {
            // A payload may hold any bytes, but the query returns text.
            "quarantine" => "* EXCEPT (gen) REPLACE (hex(payload) AS payload)",
            rollup if rollups.contains(&rollup) => "*",
            _ => "* EXCEPT (gen)",
        };
        clickhouse.query(&format!("SELECT {columns} FROM doseline.{table} ORDER BY ALL"))
    };
    TABLES.into_iter().chain(rollups).map(|table| (table, rows(table))).collect()
}

/// Two days: one two days ago, closed and rolled up, and today.
async fn two_days(visits: usize) -> (World, String) {
    stay_within_a_day(WITHIN_A_DAY);
    let mut world = World::start(2).await;
    let mut devices = fleet(8);
    let then = world.load_days_ago(2).await;
    // What people write is rebuilt like the rest: its audit, and what of it cannot be used.
    for (key, value) in [("acme", incident()), ("acme", b"\xff broken".to_vec())] {
        world.rig.produce(COMMANDS_TOPIC, key, "", &value, &[]);
    }
    for _ in 0..visits {
        for device in &mut devices {
            device.visit(&mut world.rig);
        }
        world.rig.flush();
        world.rig.written().await;
    }
    then.stop().await;
    let now = world.rig.load(world.rig.options()).await;
    for device in &mut devices {
        device.visit(&mut world.rig);
    }
    world.rig.flush();
    world.rig.written().await;
    now.stop().await;
    for day in warehouse::rollup::due(&world.rig.warehouse).await.expect("ask for days") {
        warehouse::rollup::close_day(&world.rig.warehouse, day).await.expect("close a day");
    }
    let day = world.day(2);
    (world, day)
}

/// A command that reports an incident.
fn incident() -> Vec<u8> {
    let kind = Kind::AddIncident(AddIncident {
        incident_id: "INC-1".to_owned(),
        subject_kind: "ITEM".to_owned(),
        subject: "hp-1".to_owned(),
        note: "abscess".to_owned(),
    });
    let message = commands::Command {
        tenant: "acme".to_owned(),
        author: "Ada".to_owned(),
        role: Role::Operator.into(),
        given_us: 1_790_000_000_000_000,
        idempotency_key: "k".to_owned(),
        kind: Some(kind),
    };
    message.encode_to_vec()
}

fn damage(clickhouse: &ClickHouse, day: &str) {
    for change in [
        &format!("ALTER TABLE doseline.injections DELETE WHERE device = 'pen-3' AND seq = {}", VISIT + 17),
        "ALTER TABLE doseline.faults DELETE WHERE device = 'pen-1'",
        "ALTER TABLE doseline.audit DELETE WHERE action = 'add_incident'",
        "ALTER TABLE doseline.accuracy_minute UPDATE dose_error_nl = dose_error_nl + 1 WHERE device = 'pen-5'",
        "ALTER TABLE doseline.injections UPDATE delivered_nl = 1 WHERE device = 'pen-6' AND seq = 8",
        "ALTER TABLE doseline.accuracy_hour DELETE WHERE device = 'pen-6'",
    ] {
        clickhouse.query(&format!("{change} AND ingest_day = '{day}' SETTINGS mutations_sync = 2"));
    }
    clickhouse
        .query("INSERT INTO doseline.injections SELECT * FROM doseline.injections WHERE device = 'pen-4' AND seq = 20");
    clickhouse.query(&format!(
        "INSERT INTO doseline.item_uses SELECT * FROM doseline.item_uses WHERE device = 'pen-7' AND ingest_day = '{day}' LIMIT 1"
    ));
}

fn shadows(clickhouse: &ClickHouse) -> u64 {
    let sql = "SELECT count() FROM system.tables WHERE database = 'doseline' AND name LIKE 'rebuild%'";
    clickhouse.number(sql)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_day_is_made_again_to_the_last_digit_though_it_is_killed() {
    let (world, day) = two_days(6).await;
    let clickhouse = &world.rig.clickhouse;
    world.is_clean();
    let whole = contents(clickhouse);
    let clean = world.run(&["rebuild", "--day", &day]);
    assert_eq!((clean.code, shadows(clickhouse)), (Some(0), 0), "{}\n{}", clean.stdout, clean.stderr);

    // The rebuild is killed while it fills. Rows in the shadow tables are kept and not written
    // twice.
    let id = day.replace('-', "");
    let part = |table: &str| {
        let sql = "SELECT count() FROM system.tables WHERE database = 'doseline' AND name = 'rebuild_";
        match clickhouse.number(&format!("{sql}{id}_{table}'")) {
            0 => 0,
            _ => clickhouse.number(&format!("SELECT count() FROM doseline.rebuild_{id}_{table}")),
        }
    };
    let mut attempts = 0;
    loop {
        damage(clickhouse, &day);
        let damaged = contents(clickhouse);
        assert_ne!(damaged, whole);
        let mut killed = world.spawn(&["rebuild", "--day", &day, "--apply"]);
        poll(WITHIN, "rows in a shadow table", || match part("injections") {
            0 => Err("none yet"),
            _ => Ok(()),
        });
        killed.kill();
        if contents(clickhouse) == damaged {
            break;
        }
        // On a loaded machine it may reach the swap before it is killed. The test then repeats
        // everything.
        attempts += 1;
        assert!(attempts < 5, "killed while it fills, it has changed the day");
        let applied = world.run(&["rebuild", "--day", &day, "--apply"]);
        assert_eq!(applied.code, Some(0), "{}\n{}", applied.stdout, applied.stderr);
        assert_eq!(contents(clickhouse), whole);
    }
    assert!(shadows(clickhouse) > 0 && part("injections") > 0);
    let rows = clickhouse.number(&format!("SELECT count() FROM doseline.rebuild_{id}_injections"));

    let told = world.run(&["rebuild", "--day", &day]);
    assert_eq!(told.code, Some(1), "{}\n{}", told.stdout, told.stderr);
    assert!(!told.stderr.contains("beginning again"), "{}", told.stderr);
    assert!(part("injections") >= rows);
    for line in [
        format!(
            "injections: only rebuilt (1 rows): tenant=acme device=pen-3 boot_id={} seq={}",
            4u64 << 32 | 7,
            VISIT + 17
        ),
        format!("injections: 2 rows live, 1 rebuilt: tenant=acme device=pen-4 boot_id={} seq=20", 5u64 << 32 | 7),
        "delivered_nl live 1, rebuilt ".to_owned(),
        "faults: only rebuilt (1 rows): tenant=acme device=pen-1".to_owned(),
        "accuracy_minute: different: tenant=acme site=berlin device=pen-5".to_owned(),
        "item_uses: 2 rows live, 1 rebuilt".to_owned(),
    ] {
        assert!(told.stdout.contains(&line), "{line} is not in\n{}", told.stdout);
    }

    let applied = world.run(&["rebuild", "--day", &day, "--apply"]);
    assert_eq!(applied.code, Some(0), "{}\n{}", applied.stdout, applied.stderr);
    assert!(applied.stdout.ends_with("5 tables swapped in, rollups rebuilt\n"), "{}", applied.stdout);
    assert_eq!(contents(clickhouse), whole);
    assert_eq!(shadows(clickhouse), 0);
    world.is_clean();
    late_writers_are_shut_out(clickhouse, &day);
}

/// A late writer of the day that wakes up after the swap still finds its token used.
fn late_writers_are_shut_out(clickhouse: &ClickHouse, day: &str) {
    let sql = "SELECT concat(toString(incarnation), '/', toString(kafka_partition), '/', toString(batch), '/injections/', \
               toString(gen)) FROM doseline.injections WHERE ingest_day = ";
    let token = clickhouse.query(&format!("{sql}'{day}' LIMIT 1"));
    let rows = || clickhouse.number("SELECT count() FROM doseline.injections");
    let before = rows();
    clickhouse.query(&format!(
        "INSERT INTO doseline.injections (ingest_day, device) SETTINGS async_insert = 0, insert_deduplicate = 1, \
         deduplicate_insert = 'enable', insert_deduplication_token = '{token}' VALUES ('{day}', 'late')"
    ));
    assert_eq!(rows(), before, "a late insert under {token} doubled rows");
    let id = day.replace('-', "");
    for table in ["accuracy_hour", "accuracy_day"] {
        clickhouse.query(&format!(
            "INSERT INTO doseline.{table} (ingest_day, device) SETTINGS async_insert = 0, insert_deduplicate = 1, \
             deduplicate_insert = 'enable', insert_deduplication_token = 'rollup/{table}/{id}/0' VALUES ('{day}', 'late')"
        ));
        let late = format!("SELECT count() FROM doseline.{table} WHERE device = 'late'");
        assert_eq!(clickhouse.number(&late), 0, "a late rollup of {table} doubled rows");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_right_is_refused() {
    let (world, day) = two_days(1).await;
    let clickhouse = &world.rig.clickhouse;
    let whole = contents(clickhouse);
    let refused = |arguments: &[&str], config: Option<&str>, said: &str| {
        let ended = match config {
            Some(config) => world.run_with(arguments, config),
            None => world.run(arguments),
        };
        assert_eq!(ended.code, Some(1), "{arguments:?}: {}\n{}", ended.stdout, ended.stderr);
        assert!(ended.stderr.contains(said), "{said} is not in\n{}", ended.stderr);
        assert_eq!(contents(clickhouse), whole, "something was changed");
    };
    refused(&["rebuild", "--day", &world.day(0), "--apply"], None, "it is not over");
    refused(&["rebuild", "--day", "2020-02-02", "--apply"], None, "no batch was loaded on ingest day 2020-02-02");

    // Under other rules, events would leave the tables that later days depend on.
    let narrow = world.configuration("narrow.toml", "[plausibility.pen]\ndose_nl = [0, 20500]\n");
    let original = world.configuration("original.toml", "");
    refused(&["rebuild", "--day", &day, "--apply"], Some(&narrow), "differs from the recorded ledgers");
    let told = world.run_with(&["rebuild", "--day", &day], &narrow);
    assert!(
        told.stdout.contains("would be quarantined") && told.stdout.contains("other plausibility rules"),
        "{}",
        told.stdout
    );
    let mended = world.run_with(&["rebuild", "--day", &day, "--apply", "--rules", &original], &narrow);
    assert_eq!(mended.code, Some(0), "{}\n{}", mended.stdout, mended.stderr);
    assert_eq!(contents(clickhouse), whole);

    clickhouse.query(&format!(
        "INSERT INTO doseline.loader_intents (incarnation, kafka_partition, batch, batch_end, ingest_day) \
         VALUES (1, 0, 1000000, 1000100, '{day}')"
    ));
    refused(&["rebuild", "--day", &day, "--apply"], None, "have a batch that is not committed");
    clickhouse.query("ALTER TABLE doseline.loader_intents DELETE WHERE batch = 1000000 SETTINGS mutations_sync = 2");

    // Kafka's retention has deleted the first records.
    world.rig.kafka.delete_records(telemetry::kafka::REPORTS_TOPIC, 0, 2);
    refused(&["rebuild", "--day", &day, "--apply"], None, "2 records of the day are gone (retention)");
    let told = world.run(&["reconcile"]);
    assert_eq!(told.code, Some(0), "{}\n{}", told.stdout, told.stderr);
    assert!(told.stdout.contains("Kafka holds offsets from 2 on; the rest is compared without it"), "{}", told.stdout);
}
