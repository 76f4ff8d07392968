//! `monitor`, `alerts`, `trace` and `incident`, as a person uses them.

use std::time::Duration;

use harness::{Doseline, Finished, Kafka};

use super::{Rig, sterility::Facts};

const SOON: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
async fn a_person_finds_acknowledges_traces_and_reports() {
    let rig = Rig::start().await;
    let facts = Facts(&rig);
    facts.policies();
    facts.needle("N1", "a", 1);
    facts.needle("N1", "b", 5);
    let kafka = Kafka::start();
    let (url, brokers) = (rig.clickhouse.url(), format!("[\"{}\"]", kafka.bootstrap()));
    let environment = [
        ("DOSELINE__KAFKA__BROKERS", brokers.as_str()),
        ("DOSELINE__KAFKA__PARTITIONS", "1"),
        ("DOSELINE__KAFKA__REPLICATION", "1"),
        ("DOSELINE__KAFKA__MIN_INSYNC_REPLICAS", "1"),
        ("DOSELINE__LOAD__HTTP", "127.0.0.1:0"),
        ("DOSELINE__CLICKHOUSE__URL", url.as_str()),
        ("DOSELINE__CLICKHOUSE__USERNAME", "doseline"),
        ("DOSELINE__CLICKHOUSE__PASSWORD", harness::PASSWORD),
    ];
    let run = |arguments: &[&str]| -> Finished { Doseline::run(arguments, &environment, SOON) };
    let migrated = run(&["migrate"]);
    assert_eq!(migrated.code, Some(0), "{}", migrated.stderr);
    let _load = Doseline::start_with(&["load"], &environment);
    let judged = run(&["monitor", "--once"]);
    assert_eq!(judged.code, Some(0), "{}", judged.stderr);
    assert!(judged.stdout.contains("1 alerts changed"), "{}", judged.stdout);
    assert!(
        run(&["monitor", "--once"]).stdout.contains("0 verdicts and 0 alerts changed"),
        "a second time changes nothing"
    );
    assert!(run(&["monitor", "--once", "--from-scratch"]).stdout.contains("0 verdicts and 0 alerts changed"));

    let key = "sterility-2/acme/item/N1";
    let listed = run(&["alerts", "list"]).stdout;
    let lines: Vec<_> = listed.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("SEVERITY  RAISED "), "{listed}");
    assert!(lines[1].starts_with("critical ") && lines[1].contains(key), "{listed}");
    let listed = run(&["alerts", "list", "--json"]).stdout;
    let alert: serde_json::Value = serde_json::from_str(&listed).expect("one JSON object on one line");
    assert_eq!((alert["severity"].as_str(), alert["alert_key"].as_str()), (Some("critical"), Some(key)));
    let nobody = run(&["alerts", "ack", key, "--by", " "]);
    assert!(nobody.code == Some(1) && nobody.stderr.contains("by name"), "{}", nobody.stderr);
    let unknown = run(&["alerts", "ack", "sterility-2/x", "--by", "Ada"]);
    assert!(unknown.code == Some(1) && unknown.stderr.contains("doseline alerts list"), "{}", unknown.stderr);
    let acknowledged = run(&["alerts", "acknowledge", key, "--by", "Ada"]);
    assert_eq!(acknowledged.code, Some(0), "{}", acknowledged.stderr);
    for arguments in [&["alerts", "list"][..], &["alerts", "list", "--json"]] {
        let none = run(arguments);
        assert_eq!((none.stdout.as_str(), none.stderr.as_str()), ("", "no alert is open\n"));
    }

    let absent = run(&["trace", "--item", "N9"]);
    let said =
        "error: nothing is known of item \"N9\"\nhint: give the id as the tables have it, e.g. in item_history\n";
    assert_eq!((absent.code, absent.stderr.as_str()), (Some(1), said));
    let traced = run(&["trace", "--item", "N1", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&traced.stdout).expect("JSON");
    assert_eq!(json["root"]["forwards"].as_array().map(Vec::len), Some(2), "{json}");
    assert_eq!(json["breaches"][0]["rule"], 2);

    let silent = run(&["incident", "add", "--item", "N1", "--note", "", "--by", "Ada"]);
    assert!(silent.code == Some(1) && silent.stderr.contains("--note"), "{}", silent.stderr);
    let added = run(&["incident", "add", "--item", "N1", "--note", "abscess", "--by", "Ada"]);
    let id = added.stdout.lines().next().expect("its id").to_owned();
    assert!(added.stdout.contains("session a") && added.stdout.contains("session b"), "{}", added.stdout);
    let listed = run(&["incident", "list"]).stdout;
    let row = listed.lines().nth(1).expect("a row below the header");
    assert!(
        row.starts_with(&format!("{id}  acme    ")) && row.ends_with("  ITEM N1  Ada          abscess"),
        "{listed}"
    );
    let listed = run(&["incident", "list", "--json"]).stdout;
    let incident: serde_json::Value = serde_json::from_str(&listed).expect("one JSON object on one line");
    assert_eq!((incident["incident_id"].as_str(), incident["note"].as_str()), (Some(id.as_str()), Some("abscess")));
    assert!(run(&["trace", "--incident", &id]).stdout.contains("session b"));
    let audited = run(&["audit", "list", "--tenant", "acme"]).stdout;
    assert_eq!(audited.lines().count(), 3, "{audited}");
    assert!(audited.contains("add_incident") && audited.contains("acknowledge_alert"), "{audited}");
}
