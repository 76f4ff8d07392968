//! `monitor`, `alerts`, `trace` and `incident` as a person meets them.

use std::time::Duration;

use harness::{Doseline, Finished};

use super::{Rig, sterility::Facts};

const SOON: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
async fn a_person_finds_acknowledges_traces_and_reports() {
    let rig = Rig::start().await;
    let facts = Facts(&rig);
    facts.policies();
    facts.needle("N1", "a", 1);
    facts.needle("N1", "b", 5);
    let url = rig.clickhouse.url();
    let run =
        |arguments: &[&str]| -> Finished { Doseline::run(arguments, &[("DOSELINE__CLICKHOUSE__URL", &url)], SOON) };
    let judged = run(&["monitor", "--once"]);
    assert_eq!(judged.code, Some(0), "{}", judged.stderr);
    assert!(judged.stdout.contains("1 alerts changed"), "{}", judged.stdout);
    assert!(
        run(&["monitor", "--once"]).stdout.contains("0 verdicts and 0 alerts changed"),
        "a second time changes nothing"
    );
    assert!(run(&["monitor", "--once", "--from-scratch"]).stdout.contains("0 verdicts and 0 alerts changed"));

    let key = "sterility-2/acme/item/N1";
    assert!(run(&["alerts", "list"]).stdout.starts_with(&format!("critical\t{key}\t")));
    let nobody = run(&["alerts", "ack", key, "--by", " "]);
    assert!(nobody.code == Some(1) && nobody.stderr.contains("by name"), "{}", nobody.stderr);
    let unknown = run(&["alerts", "ack", "sterility-2/x", "--by", "Ada"]);
    assert!(unknown.code == Some(1) && unknown.stderr.contains("doseline alerts list"), "{}", unknown.stderr);
    assert_eq!(run(&["alerts", "acknowledge", key, "--by", "Ada"]).code, Some(0));
    assert_eq!(run(&["alerts", "list"]).stdout, "");

    let absent = run(&["trace", "--item", "N9"]);
    assert!(absent.code == Some(1) && absent.stderr.contains("nothing is known of item \"N9\""), "{}", absent.stderr);
    let traced = run(&["trace", "--item", "N1", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&traced.stdout).expect("JSON");
    assert_eq!(json["root"]["forwards"].as_array().map(Vec::len), Some(2), "{json}");
    assert_eq!(json["breaches"][0]["rule"], 2);

    let silent = run(&["incident", "add", "--item", "N1", "--note", "", "--by", "Ada"]);
    assert!(silent.code == Some(1) && silent.stderr.contains("--note"), "{}", silent.stderr);
    let added = run(&["incident", "add", "--item", "N1", "--note", "abscess", "--by", "Ada"]);
    let id = added.stdout.lines().next().expect("its id").to_owned();
    assert!(added.stdout.contains("visit a") && added.stdout.contains("visit b"), "{}", added.stdout);
    assert_eq!(run(&["incident", "list"]).stdout, format!("{id}\tacme\tITEM N1\tAda\tabscess\n"));
    assert!(run(&["trace", "--incident", &id]).stdout.contains("visit b"));
}
