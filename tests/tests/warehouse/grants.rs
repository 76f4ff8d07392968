//! The rights and row policies of `doseline grants` on the engine.
//!
//! The embedded engine takes users from a file and refuses to store others. So each subject becomes
//! a user of that file, with the generated rights and conditions as they stand in the SQL. A view
//! with a definer reads with the definer's rights and through its policies: `as_user` reads so. The
//! statements themselves are read by the engine's own parser.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use harness::{ClickHouse, Refused};
use warehouse::{
    grants::{Grant, PasswordHash, Subject, apply},
    rights::{DECISIONS, Owner, Service, WITHHELD},
    schema::{Kind, RELATIONS},
};

use super::{empty, migrated};

const ACCESS_DENIED: u32 = 497;
/// Stands in every text of a tenant, of which a test must find no other.
const MARKS: [&str; 2] = ["acme", "beta"];

fn tenant(name: &str) -> Subject {
    Subject::tenant(name).expect("a valid tenant")
}

fn subjects() -> Vec<Subject> {
    let maker = |name: &str| Subject::manufacturer(name).expect("a valid manufacturer");
    let mut subjects = Service::ALL.map(Subject::Service).to_vec();
    subjects.extend(MARKS.map(tenant));
    subjects.extend([maker("maker"), maker("O'Neil & <Söhne>"), maker("nobody")]);
    subjects
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The users of a file, each with what the SQL gives its role.
fn users(subjects: &[Subject]) -> String {
    let mut xml = "<clickhouse><users>".to_owned();
    for subject in subjects {
        let user = subject.user();
        let mut grants: Vec<String> = subject.rights("doseline").iter().map(|right| format!("GRANT {right}")).collect();
        let withheld = WITHHELD.iter().filter(|(service, ..)| *subject == Subject::Service(*service));
        grants.extend(withheld.map(|(_, relation, column)| format!("REVOKE SELECT({column}) ON doseline.{relation}")));
        let filters: BTreeMap<&str, String> = subject
            .policies()
            .into_iter()
            .flat_map(|(condition, relations)| relations.into_iter().map(move |relation| (relation, condition.clone())))
            .collect();
        let _ = write!(
            xml,
            "<{user}><no_password/><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota><grants>"
        );
        for grant in grants {
            let _ = write!(xml, "<query>{}</query>", escaped(&grant));
        }
        let _ = write!(xml, "</grants><databases><doseline>");
        for (relation, condition) in filters {
            let _ = write!(xml, "<{relation}><filter>{}</filter></{relation}>", escaped(&condition));
        }
        let _ = write!(xml, "</doseline></databases></{user}>");
    }
    xml + "</users></clickhouse>"
}

/// An engine with the schema, the users, and rows of two tenants in every table.
async fn engine() -> ClickHouse {
    let mut clickhouse = ClickHouse::start();
    migrated(&clickhouse).await;
    fill(&clickhouse);
    assert!(clickhouse.stop().success());
    let folder = clickhouse.data_dir().join("users.d");
    fs::create_dir(&folder).expect("a folder beside users.xml");
    fs::write(folder.join("grants.xml"), users(&subjects())).expect("the users");
    clickhouse.start_again();
    clickhouse
}

/// Two rows in each table, one of each tenant. Every text holds the tenant's mark, so that whatever
/// shows a foreign row shows a foreign mark.
fn fill(clickhouse: &ClickHouse) {
    for (table, kind) in RELATIONS {
        if *kind == Kind::View || ["schema_migrations", "unit_secret"].contains(table) {
            continue;
        }
        let carries = !matches!(owner(table), Owner::Nobody);
        let columns = clickhouse.query(&format!(
            "SELECT name, type FROM system.columns WHERE database = 'doseline' AND table = '{table}' AND default_kind = ''"
        ));
        for mark in if carries { &MARKS[..] } else { &["all"] } {
            let mut values = Vec::new();
            let mut names = Vec::new();
            for (name, of_type) in columns.lines().filter_map(|line| line.split_once('\t')) {
                names.push(name.to_owned());
                values.push(value(table, name, of_type, mark));
            }
            clickhouse.query(&format!(
                "INSERT INTO doseline.{table} ({}) SELECT {} SETTINGS async_insert = 0",
                names.join(", "),
                values.join(", ")
            ));
        }
    }
    // The same device is a unit of one manufacturer each.
    for (mark, maker) in MARKS.iter().zip(["maker", "O\\'Neil & <Söhne>"]) {
        clickhouse.query(&format!(
            "INSERT INTO doseline.devices (tenant, device, site, kind, manufacturer, serial, origin, valid_from, recorded_at) \
             SELECT '{mark}', '{mark}', '{mark}', 'INJECTOR', '{maker}', 'SN-{mark}', 'IMPORTED', now() - 5, now()"
        ));
    }
}

fn owner(relation: &str) -> Owner {
    DECISIONS.iter().find(|decision| decision.relation == relation).expect("a decision").owner
}

/// SQL of a value of a column. Columns that name the tenant are the mark, other texts contain it.
fn value(table: &str, name: &str, of_type: &str, mark: &str) -> String {
    let is_text = of_type.contains("String") && !of_type.contains("FixedString");
    match name {
        "kind" if table == "loader_commits" => "'ledger'".to_owned(),
        "outcome" if is_text => "'OK'".to_owned(),
        "stored_first" | "quarantined_first" | "lost_first" => "[1]".to_owned(),
        "stored_last" | "quarantined_last" | "lost_last" => "[2]".to_owned(),
        "state" if is_text => "'OPEN'".to_owned(),
        "holds" | "current" => "true".to_owned(),
        _ if of_type.starts_with("Map") => format!("defaultValueOfTypeName('{of_type}')"),
        _ if of_type.starts_with("Array") && is_text => format!("['{mark}']"),
        _ if of_type.starts_with("Array") => "[]".to_owned(),
        _ if is_text => format!("'{mark}'"),
        _ if of_type.contains("Enum") => format!("defaultValueOfTypeName('{}')", of_type.replace('\'', "\\'")),
        _ if of_type.contains("Date") => "now()".to_owned(),
        _ if of_type.contains("Int") || of_type.contains("Float") || of_type.contains("Bool") => "7".to_owned(),
        _ => format!("defaultValueOfTypeName('{}')", of_type.replace('\'', "\\'")),
    }
}

/// Runs a SELECT with the rights and policies of a user.
fn as_user(clickhouse: &ClickHouse, user: &str, select: &str) -> Result<String, Refused> {
    // The view's own database, so that no policy is about it.
    clickhouse.query("CREATE DATABASE IF NOT EXISTS asked");
    clickhouse.try_query(&format!(
        "CREATE OR REPLACE VIEW asked.asked DEFINER = `{user}` SQL SECURITY DEFINER AS {select}"
    ))?;
    clickhouse.try_query("SELECT * FROM asked.asked FORMAT JSONEachRow")
}

fn is_denied(result: &Result<String, Refused>) -> bool {
    matches!(result, Err(refused) if refused.code == Some(ACCESS_DENIED))
}

/// Every table and view is asked by every subject: it answers exactly those that the decision
/// names, with no foreign mark.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_a_foreign_mark_in_any_table_or_view() {
    let clickhouse = engine().await;
    let mut seen_by_tenants = 0;
    for subject in subjects() {
        let user = subject.user();
        for decision in DECISIONS {
            let relation = decision.relation;
            let withheld =
                WITHHELD.iter().filter(|(of, table, _)| subject == Subject::Service(*of) && *table == relation);
            let but: Vec<_> = withheld.map(|(_, _, column)| *column).collect();
            let but = if but.is_empty() { String::new() } else { format!(" EXCEPT ({})", but.join(", ")) };
            let answer = as_user(&clickhouse, &user, &format!("SELECT *{but} FROM doseline.{relation}"));
            let allowed = match &subject {
                Subject::Service(Service::Migrate) => true,
                Subject::Service(service) => decision.of(*service).contains(&warehouse::rights::Right::Select),
                Subject::Tenant(_) => decision.for_tenants,
                Subject::Manufacturer(_) => decision.owner == Owner::Manufacturer,
            };
            if !allowed {
                assert!(is_denied(&answer), "{user} on {relation}: {answer:?}");
                continue;
            }
            let answer = answer.unwrap_or_else(|refused| panic!("{user} on {relation}: {refused}"));
            match &subject {
                Subject::Tenant(own) => {
                    let foreign = MARKS.into_iter().find(|mark| mark != own).expect("the other tenant");
                    assert!(!answer.contains(foreign), "{user} sees {foreign} in {relation}: {answer}");
                    seen_by_tenants += usize::from(answer.contains(own.as_str()));
                }
                Subject::Manufacturer(own) => {
                    assert!(
                        MARKS.iter().all(|mark| relation == "calibration_by_unit" || !answer.contains(mark))
                            || own != "nobody"
                    );
                    for other in ["maker", "O'Neil & <Söhne>"].into_iter().filter(|other| other != own) {
                        assert!(!answer.contains(other), "{user} sees {other} in {relation}: {answer}");
                    }
                    assert_eq!(answer.is_empty(), own == "nobody", "{user} in {relation}: {answer}");
                }
                Subject::Service(_) => {}
            }
        }
    }
    // A test over empty answers would prove nothing.
    let carrying = DECISIONS.iter().filter(|decision| decision.for_tenants && decision.owner != Owner::Nobody).count();
    assert!(seen_by_tenants > 2 * carrying - 2 * 12, "{seen_by_tenants} of {} answers had rows", 2 * carrying);
    let denied = as_user(&clickhouse, Service::Monitor.user(), "SELECT client_ref FROM doseline.sessions");
    assert!(is_denied(&denied), "{denied:?}");
}

/// Ways around a table: functions that read it otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn ways_around_a_policy_are_closed_or_make_grants_refuse_the_server() {
    let clickhouse = engine().await;
    let user = tenant("acme").user();
    for (around, may_read) in [
        ("SELECT * FROM loop(doseline.devices) LIMIT 9", false),
        ("SELECT * FROM merge('doseline', '^devices$')", true),
        ("SELECT * FROM view(SELECT * FROM doseline.devices)", true),
        ("SELECT * FROM remote('127.0.0.1', 'doseline', 'devices')", false),
        ("SELECT * FROM viewExplain('EXPLAIN', '', (SELECT * FROM doseline.devices))", false),
        ("SELECT min(tenant), max(tenant), count() FROM doseline.devices", true),
        ("SELECT DISTINCT tenant FROM doseline.device_status", true),
        ("SELECT tenant, max(received_at) FROM doseline.device_status GROUP BY tenant", true),
        ("SELECT throwIf(CAST(tenant, 'String') = 'beta') AS passed FROM doseline.devices", true),
        ("SELECT * FROM doseline.devices AS a JOIN doseline.injections AS b ON a.device != b.device", true),
        ("SELECT * FROM doseline.unit_secret", false),
        ("SELECT * FROM system.users", false),
        ("SELECT * FROM system.row_policies", false),
    ] {
        let answer = as_user(&clickhouse, &user, around);
        match answer {
            Ok(answer) => {
                assert!(may_read && !answer.contains("beta"), "{around}: {answer}");
            }
            Err(refused) => assert!(!may_read && refused.code == Some(ACCESS_DENIED), "{around}: {refused}"),
        }
    }
    // These two did not keep to policies before 26.7.6.5, and `apply` lets no tenant into such a
    // server. If the embedded engine is a later one, they must be refused.
    let leaks = ["mergeTreeIndex('doseline', 'devices')", "mergeTreeProjection('doseline', 'device_status', 'latest')"]
        .map(|function| as_user(&clickhouse, &user, &format!("SELECT * FROM {function}")))
        .into_iter()
        .any(|answer| answer.is_ok_and(|answer| answer.contains("beta")));
    let applied = apply(&empty(&clickhouse), &[Grant { subject: tenant("acme"), password: None }]).await;
    let told = applied.expect_err("this engine stores no users").to_string();
    assert_eq!(leaks, told.contains("does not keep to row policies"), "{told}");
}

/// A write that the rights do not name is refused. Rights alone decide that, so they are put on the
/// user under which this engine runs statements.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_writes_what_the_rights_do_not_name() {
    let mut clickhouse = ClickHouse::start();
    migrated(&clickhouse).await;
    let folder = clickhouse.data_dir().join("users.d");
    fs::create_dir(&folder).expect("a folder beside users.xml");
    for subject in subjects() {
        assert!(clickhouse.stop().success());
        let rights: String =
            subject.rights("doseline").iter().map(|right| format!("<query>GRANT {right}</query>")).collect();
        // A connection begins with the role of a reader as well, which only reads.
        let xml = format!(
            "<clickhouse><users><default><grants replace=\"1\">{rights}</grants></default></users></clickhouse>"
        );
        fs::write(folder.join("grants.xml"), xml).expect("the rights");
        clickhouse.start_again();
        let user = subject.user();
        let migrates = subject == Subject::Service(Service::Migrate);
        for (relation, kind) in RELATIONS {
            let decision = DECISIONS.iter().find(|decision| decision.relation == *relation).expect("a decision");
            let of = match &subject {
                Subject::Service(service) => decision.of(*service),
                _ => &[],
            };
            let inserts = of.contains(&warehouse::rights::Right::Insert) || migrates;
            let deletes = of.contains(&warehouse::rights::Right::Delete) || migrates;
            let checks = [
                (format!("ALTER TABLE doseline.{relation} DELETE WHERE 0 SETTINGS mutations_sync = 0"), deletes),
                (format!("TRUNCATE TABLE doseline.{relation}"), false),
                (format!("DROP TABLE doseline.{relation}"), false),
                (format!("RENAME TABLE doseline.{relation} TO doseline.stolen"), false),
                (format!("OPTIMIZE TABLE doseline.{relation} FINAL"), false),
            ];
            for (statement, allowed) in checks {
                // `migrate` may do nearly everything in its database; what is left is dropped once.
                if migrates || *kind == Kind::View {
                    continue;
                }
                let result = clickhouse.try_query(&statement);
                assert_eq!(is_denied(&result), !allowed, "{user}: {statement}: {result:?}");
            }
            if *kind != Kind::View && !migrates {
                let first = text_column(relation);
                let insert = format!(
                    "INSERT INTO doseline.{relation} ({first}) SELECT defaultValueOfTypeName('String') WHERE 0"
                );
                let result = clickhouse.try_query(&insert);
                assert_eq!(is_denied(&result), !inserts, "{user}: {insert}: {result:?}");
            }
        }
        for statement in [
            "CREATE DATABASE other",
            "CREATE TABLE doseline.mine (a UInt8) ENGINE = MergeTree ORDER BY a",
            "CREATE VIEW doseline.mine AS SELECT 1",
            "DROP DATABASE doseline",
            "CREATE USER mine",
            "GRANT SELECT ON doseline.* TO default",
            "SYSTEM SHUTDOWN",
            "CREATE FUNCTION mine AS a -> a",
        ] {
            let makes = statement.starts_with("CREATE DATABASE")
                || statement.starts_with("CREATE TABLE")
                || statement.starts_with("CREATE VIEW");
            if migrates && makes {
                continue;
            }
            let result = clickhouse.try_query(statement);
            assert!(is_denied(&result), "{user}: {statement}: {result:?}");
        }
    }
}

/// A column of the table that holds a text, or any.
fn text_column(relation: &str) -> &'static str {
    match relation {
        "loader_intents" => "owner",
        "unit_secret" => "secret",
        "lots" => "lot",
        "models" => "model",
        "recalls" => "recall_id",
        "kafka_topics" => "topic",
        "monitor_positions" => "reader",
        "schema_migrations" => "name",
        _ => "tenant",
    }
}

/// Every statement is one that the engine's parser reads.
#[tokio::test(flavor = "multi_thread")]
async fn the_engine_reads_every_statement() {
    let clickhouse = ClickHouse::start();
    for subject in subjects() {
        let password = Some(PasswordHash::new("secret", "0123456789abcdef".to_owned()));
        for statement in (Grant { subject, password }).statements("doseline") {
            let read = clickhouse.query(&format!("SELECT formatQuery({})", warehouse::sql::quoted(&statement)));
            assert!(!read.is_empty(), "{statement}");
        }
    }
}

/// A manufacturer is refused unless a device in the registry has it.
#[tokio::test(flavor = "multi_thread")]
async fn no_plan_shows_the_secret_of_the_pseudonyms() {
    let clickhouse = ClickHouse::start();
    migrated(&clickhouse).await;
    // A plan shows the constants of a query, with unprintable bytes as escapes.
    let secret = "7365637265742d6f662d746865".repeat(5)[..128].to_owned();
    let pad = |with: u8| "secret-of-the".bytes().map(|byte| char::from(byte ^ with)).collect::<String>();
    clickhouse.query("TRUNCATE TABLE doseline.unit_secret");
    clickhouse.query(&format!("INSERT INTO doseline.unit_secret VALUES ('{secret}', now64(6))"));
    for view in ["calibration_by_unit", "calibration_by_age"] {
        for plan in [
            "PLAN actions = 1, header = 1",
            "PIPELINE header = 1",
            "QUERY TREE",
            "SYNTAX",
            "PLAN json = 1, actions = 1",
        ] {
            let shown = clickhouse.query(&format!("EXPLAIN {plan} SELECT unit_key FROM doseline.{view}"));
            assert!(!shown.is_empty(), "{plan}");
            for part in
                [secret[..26].to_owned(), "secret-of-the".to_owned(), pad(54)[..6].to_owned(), pad(92)[..6].to_owned()]
            {
                assert!(!shown.contains(&part), "EXPLAIN {plan} of {view} shows {part:?}:\n{shown}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_manufacturer_is_refused() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    let grant = |name: &str| [Grant { subject: Subject::manufacturer(name).expect("a name"), password: None }];
    let told = apply(&warehouse, &grant("O'Nobody")).await.expect_err("nobody has it").to_string();
    assert!(told.contains("O'Nobody") && told.contains("doseline devices import"), "{told}");
}
