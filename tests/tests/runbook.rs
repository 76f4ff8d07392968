//! The alert rules of `deploy/prometheus` against what the roles export, and the runbook, which has
//! a section for each rule.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use harness::{Doseline, poll};
use serde_json::Value;

const READY_WITHIN: Duration = Duration::from_secs(60);
const WITHIN: Duration = Duration::from_secs(60);
/// Metrics of programs other than doseline.
///
/// `up` is Prometheus' own; the next two are of its blackbox exporter; ClickHouse derives its names
/// from its events and asynchronous metrics; the last are of the node exporter.
const OTHERS: [&str; 10] = [
    "up",
    "probe_success",
    "probe_ssl_earliest_cert_expiry",
    "ClickHouseProfileEvents_FailedInsertQuery",
    "ClickHouseProfileEvents_DelayedInserts",
    "ClickHouseProfileEvents_RejectedInserts",
    "ClickHouseAsyncMetrics_DiskAvailable_default",
    "ClickHouseAsyncMetrics_DiskTotal_default",
    "node_filesystem_avail_bytes",
    "node_filesystem_size_bytes",
];

/// A rule of Prometheus.
#[derive(Debug, Default)]
struct Rule {
    name: String,
    expression: String,
    severity: String,
    summary: String,
    runbook: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The rules, as the file writes them: each key in a line of its own.
fn rules() -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for line in read("deploy/prometheus/rules.yaml").lines() {
        let Some((key, value)) = line.trim().trim_start_matches("- ").split_once(": ") else { continue };
        let value = value.trim_matches('\'').replace("''", "'");
        if key == "alert" {
            rules.push(Rule { name: value, ..Rule::default() });
        } else if let Some(rule) = rules.last_mut() {
            match key {
                "expr" => rule.expression = value,
                "severity" => rule.severity = value,
                "summary" => rule.summary = value,
                "runbook_url" => rule.runbook = value,
                _ => {}
            }
        }
    }
    rules
}

/// Names of metrics in an expression: words that are no function, label or text.
fn metrics(expression: &str) -> BTreeSet<String> {
    let mut bare = String::new();
    let (mut in_braces, mut in_text) = (false, false);
    for letter in expression.chars() {
        match letter {
            '"' => in_text = !in_text,
            '{' | '[' if !in_text => in_braces = true,
            '}' | ']' if !in_text => in_braces = false,
            _ if !in_braces && !in_text => bare.push(letter),
            _ => {}
        }
    }
    let words = bare.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
    let known = |word: &&str| word.contains('_') || *word == "up";
    words.filter(known).map(str::to_owned).collect()
}

/// The anchors of a document, as GitHub makes them from its headings.
fn anchors(document: &str) -> BTreeSet<String> {
    let headings =
        document.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |heading: &str| {
        let kept = heading
            .to_lowercase()
            .chars()
            .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter))
            .collect::<String>();
        kept.replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn every_rule_has_its_section_in_the_runbook_and_every_section_its_rule() {
    let runbook = read("docs/runbook.md");
    let sections = anchors(&runbook);
    let grafana: Value =
        serde_json::from_str(&read("deploy/grafana/provisioning/alerting/doseline.json")).expect("JSON");
    let of_grafana = grafana["groups"][0]["rules"].as_array().expect("rules").iter();
    let of_grafana = of_grafana.map(|rule| rule["annotations"]["runbook_url"].as_str().expect("a text").to_owned());
    let mut named = BTreeSet::new();
    for rule in rules() {
        assert!(["critical", "warning"].contains(&rule.severity.as_str()) && !rule.summary.is_empty(), "{rule:?}");
        assert_eq!(rule.runbook, format!("docs/runbook.md#{}", rule.name.to_lowercase()));
        named.insert(rule.runbook);
    }
    named.extend(of_grafana);
    for url in &named {
        let anchor = url.strip_prefix("docs/runbook.md#").unwrap_or_else(|| panic!("not of the runbook: {url}"));
        assert!(sections.contains(anchor), "the runbook has no section {anchor}");
    }
    for section in runbook.split("\n### ").skip(1) {
        let title = section.lines().next().expect("a title");
        assert!(
            named.contains(&format!("docs/runbook.md#{}", anchors(&format!("# {title}")).first().expect("an anchor"))),
            "{title} is no alert"
        );
        assert!(
            section.contains("\n- Look at: ") && section.contains("\n- Do: "),
            "{title} says what to look at and do"
        );
    }
}

#[test]
fn every_metric_of_the_rules_is_exported() {
    let any_port = ["--mqtt-port", "0", "--kafka-port", "0", "--clickhouse-port", "0", "--http-port", "0"];
    let arguments: Vec<_> = ["up", "--simulate", "2"].into_iter().chain(any_port).collect();
    let mut doseline = Doseline::start(&arguments);
    doseline.wait_until_ready(READY_WITHIN);
    let addresses = poll(WITHIN, "the addresses of three roles", || {
        let log = doseline.stderr();
        let found: BTreeSet<_> = log
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("metrics=").map(|url| url.trim_matches('"').to_owned()))
            .collect();
        if found.len() == 3 { Ok(found) } else { Err(log) }
    });
    let mut exported: BTreeSet<String> =
        bridge::metrics::ALL.iter().chain(&load::metrics::ALL).map(|name| (*name).to_owned()).collect();
    for address in &addresses {
        let text = ureq::get(address).call().expect("an answer").body_mut().read_to_string().expect("a text");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            exported.insert(line.split([' ', '{']).next().unwrap_or_default().to_owned());
        }
    }
    // Counters by reason or topic appear with their first event, so those names are the roles' own
    // lists; every other one was seen.
    let others: BTreeSet<_> = OTHERS.into_iter().map(str::to_owned).collect();
    let mut used = BTreeSet::new();
    for rule in rules() {
        let metrics = metrics(&rule.expression);
        assert!(!metrics.is_empty(), "{} has no metric", rule.name);
        for metric in &metrics {
            assert!(exported.contains(metric) || others.contains(metric), "{}: nobody exports {metric}", rule.name);
        }
        used.extend(metrics);
    }
    assert_eq!(others.difference(&used).next(), None, "delete it from {}", file!());
    for role in ["doseline_bridge_", "doseline_load_", "doseline_monitor_"] {
        assert!(used.iter().any(|metric| metric.starts_with(role)), "no rule is about {role}");
    }
}

#[test]
fn prometheus_fires_each_rule_on_its_condition_and_not_without_it() {
    let cases = read("deploy/prometheus/rules_test.yaml");
    for rule in rules() {
        for case in ["fires", "is silent"] {
            assert!(cases.contains(&format!("- name: {} {case}\n", rule.name)), "{} has no case `{case}`", rule.name);
        }
    }
    let folder = root().join("deploy/prometheus");
    let run = |arguments: &[&str]| Command::new("promtool").args(arguments).current_dir(&folder).output();
    let Ok(checked) = run(&["check", "config", "prometheus.yml"]) else {
        println!("SKIPPED promtool: it is not on the path; deploy/README.md says how to get it");
        return;
    };
    for output in [checked, run(&["test", "rules", "rules_test.yaml"]).expect("promtool")] {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn expressions_are_taken_apart() {
    let found =
        metrics("max by (instance) (doseline_a_b{x=\"up\"}) > 60 or increase(c_total[10m]) and up{job=~\"d.*\"} == 0");
    let expected: BTreeSet<_> = ["doseline_a_b", "c_total", "up"].map(str::to_owned).into();
    assert_eq!(found, expected);
    let by_name: BTreeMap<_, _> = rules().into_iter().map(|rule| (rule.name.clone(), rule)).collect();
    assert_eq!(by_name["DoselineRoleDown"].expression, "up{job=\"doseline\"} == 0");
    assert!(anchors("## What the engines must be").contains("what-the-engines-must-be"));
}
