//! What people write goes through the log: applied once whatever is repeated or killed, audited,
//! and restored from Kafka alone.

use std::time::{Duration, Instant};

use harness::{ClickHouse, Stack, seed};
use load::{Kafka, Loader, TopicSpec, commands::Commands};
use prost::Message as _;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use telemetry::{
    command::{Command, record_key},
    commands::{self, AcknowledgeAlert, AddIncident, Device, RegisterDevices, Role, SetPolicy, command::Kind},
    kafka::{COMMANDS_TOPIC, QUARANTINE_TOPIC},
};
use warehouse::{Warehouse, migrate};

use crate::rig::{Rig, Running};

/// Long enough for a loaded machine.
const WITHIN: Duration = Duration::from_secs(120);
/// How soon a person must read what she wrote.
const OWN_WRITE_P99: Duration = Duration::from_millis(1_500);
const GIVEN_US: i64 = 1_790_000_000_000_000;

fn command(tenant: &str, idempotency_key: &str, role: Role, kind: Kind) -> Command {
    let message = commands::Command {
        tenant: tenant.to_owned(),
        author: "Dr. Ada".to_owned(),
        role: role.into(),
        given_us: GIVEN_US,
        idempotency_key: idempotency_key.to_owned(),
        kind: Some(kind),
    };
    Command::new(message).expect("a good command")
}

fn incident(tenant: &str, idempotency_key: &str, note: &str) -> Command {
    command(tenant, idempotency_key, Role::Operator, report(idempotency_key, note))
}

fn report(incident_id: &str, note: &str) -> Kind {
    Kind::AddIncident(AddIncident {
        incident_id: incident_id.to_owned(),
        subject_kind: "ITEM".to_owned(),
        subject: "hp-1".to_owned(),
        note: note.to_owned(),
    })
}

/// One command of each other kind.
fn others() -> [Command; 3] {
    let device = Device {
        device: "pen-1".to_owned(),
        site: "paris".to_owned(),
        kind: "INJECTOR".to_owned(),
        udi: "010950600013435210L7\u{1d}21S".to_owned(),
        valid_from_us: GIVEN_US,
        ..Device::default()
    };
    let acknowledge = AcknowledgeAlert {
        alert_key: "sterility-2/acme/item/N1".to_owned(),
        attention: 3,
        note: "client\ninformed".to_owned(),
        alert_kind: "sterility-2".to_owned(),
        severity: "critical".to_owned(),
        holds: true,
        sessions: vec!["it's".to_owned(), "b".to_owned()],
        evidence_rows: "[]".to_owned(),
    };
    let policy = SetPolicy { name: "unknown_devices".to_owned(), value: "quarantine".to_owned() };
    [
        command("acme", "register", Role::Admin, Kind::RegisterDevices(RegisterDevices { devices: vec![device] })),
        command("acme", "acknowledge", Role::Operator, Kind::AcknowledgeAlert(acknowledge)),
        command("", "policy", Role::Admin, Kind::SetPolicy(policy)),
    ]
}

fn giver(rig: &Rig) -> Commands {
    Commands::new(&rig.options().kafka, rig.warehouse.clone()).expect("a producer")
}

async fn outcomes(giver: &Commands, commands: &[Command]) -> Vec<String> {
    let found = giver.give(commands, WITHIN).await.expect("a loader applies them");
    found.into_iter().map(|found| format!("{} {}", found.outcome, found.reason).trim_end().to_owned()).collect()
}

/// Everything that commands fill, without what says when and by which batch it was written.
fn written(clickhouse: &ClickHouse) -> String {
    let place = "ingest_day, incarnation, kafka_partition, batch, gen, batch_hash, kafka_offset";
    let tables = ["alert_history", "incidents", "devices", "policies", "audit"];
    let rows = tables.map(|table| {
        clickhouse.query(&format!("SELECT '{table}', * EXCEPT ({place}) FROM doseline.{table} ORDER BY ALL"))
    });
    rows.join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_are_applied_once_audited_and_restored_from_kafka_alone() {
    let mut rig = Rig::start(2).await;
    let loader = rig.load(rig.options()).await;
    let giver = giver(&rig);
    assert_eq!(outcomes(&giver, &others()).await, ["APPLIED"; 3]);
    let two = [incident("acme", "k", "abscess"), incident("other", "k", "fever")];
    assert_eq!(outcomes(&giver, &two).await, ["APPLIED"; 2], "each tenant has its own keys");

    let later = |given: Command, by_us: i64| {
        let mut message = commands::Command::decode(given.encode().as_slice()).expect("a command");
        message.given_us += by_us;
        Command::new(message).expect("a good command")
    };
    let again = [later(two[0].clone(), 1), later(two[1].clone(), 1)];
    assert_eq!(outcomes(&giver, &again).await, ["REPEATED"; 2]);
    let taken = [later(incident("acme", "k", "another note"), 2)];
    assert_eq!(outcomes(&giver, &taken).await, ["REFUSED another command has the idempotency key \"k\""]);
    let forbidden = [command("acme", "v", Role::Viewer, report("v", "x"))];
    assert_eq!(outcomes(&giver, &forbidden).await, ["REFUSED the role VIEWER may not add incident"]);

    // A broken record, one of another tenant's partition, and a good one behind them.
    rig.produce(COMMANDS_TOPIC, "acme", "", b"\xff\xff broken", &[]);
    rig.produce(COMMANDS_TOPIC, "other", "", &incident("acme", "stolen", "x").encode(), &[]);
    rig.produce(COMMANDS_TOPIC, record_key("acme"), "", &incident("acme", "behind", "x").encode(), &[]);
    rig.flush();
    rig.written().await;
    let refused = "SELECT reason, topic, source FROM doseline.quarantine ORDER BY reason";
    assert_eq!(
        rig.clickhouse.query(refused),
        "bad_protobuf\tdoseline.commands.v1\tloader\nbad_record\tdoseline.commands.v1\tloader"
    );
    assert_eq!(rig.kafka.records(QUARANTINE_TOPIC).len(), 2, "copies");

    let count = |sql: &str| rig.clickhouse.query(sql);
    assert_eq!(
        count("SELECT tenant, note FROM doseline.incidents ORDER BY ALL"),
        "acme\tabscess\nacme\tx\nother\tfever"
    );
    assert_eq!(
        count("SELECT outcome, count() FROM doseline.audit GROUP BY outcome ORDER BY outcome"),
        "APPLIED\t6\nREFUSED\t2\nREPEATED\t2"
    );
    let acknowledged = "SELECT tenant, actor, attention, note, sessions, holds FROM doseline.alert_history \
                        WHERE event = 'ACKNOWLEDGED'";
    assert_eq!(count(acknowledged), "acme\tDr. Ada\t3\tclient\\ninformed\t['it\\'s','b']\ttrue");
    assert_eq!(count("SELECT site, origin FROM doseline.devices_latest"), "paris\tIMPORTED");
    assert_eq!(count("SELECT tenant, value FROM doseline.policies_latest"), "\tquarantine");
    assert_eq!(
        count(
            "SELECT uniqExact(tenant, boot_id), uniqExact(stored_first) FROM doseline.loader_commits WHERE kind = 'command' AND notEmpty(stored_first)"
        ),
        "6\t6",
        "no key is forgotten, and none has two contents"
    );
    loader.stop().await;

    // Merges must leave every row.
    let before = written(&rig.clickhouse);
    for table in ["alert_history", "incidents", "devices", "policies", "audit"] {
        rig.clickhouse.query(&format!("OPTIMIZE TABLE doseline.{table} FINAL"));
    }
    assert_eq!(written(&rig.clickhouse), before);

    // Another ClickHouse, and nothing but Kafka.
    let other = ClickHouse::start();
    let warehouse = Warehouse::new(other.warehouse_options()).expect("a valid address");
    migrate::migrate(&warehouse, migrate::Options::default()).await.expect("migrate");
    let spec =
        TopicSpec { partitions: 2, replication: 1, min_insync_replicas: 1, retention: Duration::from_secs(7 * 86_400) };
    let mut options = rig.options();
    options.kafka.group = "another".to_owned();
    load::ensure_topics(&options.kafka, &spec, &warehouse).await.expect("ensure topics");
    let again: Running = Rig::run(Loader::bind(options, warehouse).await.expect("valid options"));
    tokio::task::block_in_place(|| harness::wait_until_committed(&other, &rig.kafka));
    assert_eq!(written(&other), before, "the tables are a function of the log");
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_no_loader_applies_is_late_and_applied_later() {
    let rig = Rig::start(1).await;
    let giver = giver(&rig);
    let error = giver.give(&[incident("acme", "k", "x")], Duration::from_secs(1)).await.unwrap_err().to_string();
    assert!(error.starts_with("1 commands are in kafka topic doseline.commands.v1"), "{error}");
    assert!(error.contains("do not give them again"), "{error}");
    assert_eq!(rig.clickhouse.number("SELECT count() FROM doseline.incidents"), 0);
    let loader = rig.load(rig.options()).await;
    rig.written().await;
    assert_eq!(rig.clickhouse.number("SELECT count() FROM doseline.incidents"), 1);
    loader.stop().await;
    let forgetful = Kafka {
        topics: telemetry::kafka::Topics { commands: "absent".to_owned(), ..Default::default() },
        ..rig.options().kafka
    };
    let absent = Commands::new(&forgetful, rig.warehouse.clone()).expect("a producer");
    let error = absent.give(&[incident("acme", "k2", "x")], WITHIN).await.unwrap_err().to_string();
    assert!(error.contains("absent") && error.ends_with("run `doseline migrate`"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_reads_what_she_wrote_soon() {
    let rig = Rig::start(2).await;
    let mut options = rig.options();
    // As `doseline load` runs by default.
    options.limits = load::Limits::default();
    let loader = rig.load(options).await;
    let giver = giver(&rig);
    giver.give(&[incident("acme", "first", "x")], WITHIN).await.expect("the loader has begun");
    let mut took = Vec::new();
    for number in 0..50 {
        let (key, begun) = (format!("k{number}"), Instant::now());
        giver.give(&[incident("acme", &key, "x")], WITHIN).await.expect("applied");
        took.push(begun.elapsed());
        let own = format!("SELECT count() FROM doseline.incidents WHERE incident_id = '{key}'");
        assert_eq!(rig.clickhouse.number(&own), 1, "{key} is there when it is said to be");
    }
    took.sort_unstable();
    println!("read your own writes, 50 commands: p50 {:?}, p99 {:?}", took[24], took[49]);
    assert!(took[49] <= OWN_WRITE_P99, "{took:?}");
    loader.stop().await;
}

/// Kills the loader at random moments while commands arrive, some of them twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loader_that_is_killed_applies_each_command_once() {
    const KILLS: usize = 6;
    let random = &mut StdRng::seed_from_u64(seed());
    let stack = Stack::start("[load]\nbatch_age_ms = 20\nsession_timeout_s = 3");
    let warehouse = Warehouse::new(stack.clickhouse.warehouse_options()).expect("a valid address");
    let kafka = Kafka { brokers: stack.kafka.bootstrap(), ..Kafka::default() };
    let giver = Commands::new(&kafka, warehouse).expect("a producer");
    let (mut given, mut repeated) = (0, 0);
    for _ in 0..KILLS {
        let mut load = tokio::task::block_in_place(|| stack.role("load"));
        let until = Instant::now() + Duration::from_millis(random.random_range(1..6_000));
        while Instant::now() < until {
            let tenant = if given % 2 == 0 { "acme" } else { "other" };
            let command = [incident(tenant, &format!("k{given}"), "x")];
            given += 1;
            let _late_or_applied = giver.give(&command, Duration::ZERO).await;
            if random.random_bool(0.3) {
                repeated += 1;
                let _late_or_applied = giver.give(&command, Duration::ZERO).await;
            }
        }
        load.kill();
    }
    let load = tokio::task::block_in_place(|| stack.role("load"));
    tokio::task::block_in_place(|| stack.wait_until_committed());
    println!("{given} commands, {repeated} of them twice, {KILLS} kills");
    let counts = "SELECT count(), uniqExact(incident_id) FROM doseline.incidents";
    assert_eq!(stack.clickhouse.query(counts), format!("{given}\t{given}"));
    let audit = "SELECT countIf(outcome = 'APPLIED'), countIf(outcome = 'REPEATED'), count() FROM doseline.audit";
    assert_eq!(stack.clickhouse.query(audit), format!("{given}\t{repeated}\t{}", given + repeated));
    assert_eq!(stack.clickhouse.number("SELECT count() FROM doseline.quarantine"), 0);
    drop(load);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_keeps_commands_for_ever() {
    let rig = Rig::start(1).await;
    let spec =
        TopicSpec { partitions: 1, replication: 1, min_insync_replicas: 1, retention: Duration::from_secs(7 * 86_400) };
    load::inspect_topics(&rig.options().kafka, &spec).await.expect("the topics are as they must be");
    rig.kafka.create_topic("forgets", 1, &[("retention.ms", "604800000")]);
    let mut kafka = rig.options().kafka;
    kafka.topics.commands = "forgets".to_owned();
    let error = load::inspect_topics(&kafka, &spec).await.expect_err("a topic that forgets").to_string();
    assert!(error.contains("forgets: retention.ms is 604800000; commands must be kept for ever"), "{error}");
}
