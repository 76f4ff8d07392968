//! Compares what has not arrived and what could not be used with the truth file.

use std::collections::{BTreeMap, BTreeSet};

use harness::ClickHouse;
use prost::Message as _;
use serde_json::Value;
use telemetry::{json::to_json, v1};

use crate::{
    rows::{Differences, select},
    truth::{Balance, Fate, Key, Truth, string},
};

/// Whether all bad messages have arrived. The simulator does not wait for them before it ends.
pub fn are_poisons_there(clickhouse: &ClickHouse, truth: &Truth) -> Result<(), String> {
    let (made, arrived) = (truth.poisons(), poisons(clickhouse));
    match made.difference(&arrived).count() {
        0 => Ok(()),
        missing => Err(format!("{missing} bad messages of {} are not in quarantine", made.len())),
    }
}

fn poisons(clickhouse: &ClickHouse) -> BTreeSet<[String; 3]> {
    let sql = "SELECT topic, reason, lower(hex(SHA256(payload))) FROM doseline.quarantine WHERE seq = 0 GROUP BY ALL";
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    select(clickhouse, sql).iter().map(|row| [text(&row[0]), text(&row[1]), text(&row[2])]).collect()
}

/// `delivery_gaps` must list exactly what the truth file says is missing or lost, number by number.
pub fn check_gaps(clickhouse: &ClickHouse, truth: &Truth) {
    let mut expected: BTreeMap<Key, (&str, &str)> = BTreeMap::new();
    for (key, event) in &truth.events {
        let state = match event.fate {
            Fate::Missing => "OPEN",
            Fate::Lost => "LOST",
            _ => continue,
        };
        expected.insert(key.clone(), (state, truth.sites[&(key.0.clone(), key.1.clone())].as_str()));
    }
    let sql = "SELECT tenant, device, boot_id, first_missing, last_missing, state, site, toUnixTimestamp64Micro(since) \
               FROM doseline.delivery_gaps";
    let mut differences = Differences::default();
    let mut gaps = 0;
    for row in select(clickhouse, sql) {
        gaps += 1;
        let (text, integer) =
            (|at: usize| row[at].as_str().expect("a text"), |at: usize| row[at].as_u64().expect("a number"));
        for seq in integer(3)..=integer(4) {
            let key = (text(0).to_owned(), text(1).to_owned(), integer(2), seq);
            let wanted = expected.remove(&key);
            if wanted != Some((text(5), text(6))) || integer(7) == 0 {
                differences.add(|| format!("{row:?}, not {wanted:?}"));
            }
        }
    }
    for (key, state) in expected {
        differences.add(|| format!("no gap for {key:?}, which is {state:?}"));
    }
    println!("{gaps} gaps as in the truth");
    differences.assert_none("delivery_gaps");
}

/// The balance of every boot, and how many injections of each device have arrived.
pub fn check_completeness(clickhouse: &ClickHouse, truth: &Truth) {
    let mut injections: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for ((tenant, device, ..), event) in &truth.events {
        // An event in quarantine has arrived too.
        if !matches!(event.fate, Fate::Stored | Fate::Quarantined(_)) {
            continue;
        }
        let line = event.line();
        let is_numbered = !line["event"]["injection"]["injectionNo"].is_null();
        *injections.entry((tenant, device)).or_default() += u64::from(is_numbered);
    }
    let sql = "SELECT tenant, device, boot_id, made, stored, quarantined, lost, missing, injections_received, site \
               FROM doseline.delivery_completeness";
    let (mut differences, mut balances) = (Differences::default(), truth.balances());
    let mut total = Balance::default();
    for row in select(clickhouse, sql) {
        let integer = |at: usize| row[at].as_u64().expect("a number");
        let text = |at: usize| row[at].as_str().expect("a text").to_owned();
        let actual = Balance {
            made: integer(3),
            stored: integer(4),
            quarantined: integer(5),
            lost: integer(6),
            missing: integer(7),
        };
        // A boot without an event is known from its heartbeats.
        let wanted = balances.remove(&(text(0), text(1), integer(2))).unwrap_or_default();
        let received = injections.get(&(&text(0), &text(1))).copied().unwrap_or(0);
        let is_balanced = actual.stored + actual.quarantined + actual.lost + actual.missing == actual.made;
        let is_in_place = truth.sites.get(&(text(0), text(1))) == Some(&text(9));
        if actual != wanted || !is_balanced || integer(8) != received || !is_in_place {
            differences.add(|| format!("{row:?}, not {wanted:?} with {received} injections"));
        }
        total.made += actual.made;
        total.stored += actual.stored;
        total.quarantined += actual.quarantined;
        total.lost += actual.lost;
        total.missing += actual.missing;
    }
    for (boot, balance) in balances {
        differences.add(|| format!("{boot:?} is not there: {balance:?}"));
    }
    println!("{total:?}");
    differences.assert_none("delivery_completeness");
    assert_eq!(total.made, truth.events.len() as u64, "sequence numbers are without holes in the truth");
}

/// The quarantine must hold exactly the events and messages that cannot be used according to the
/// truth file, with their reasons and bytes.
pub fn check_quarantine(clickhouse: &ClickHouse, truth: &Truth) {
    let (made, arrived) = (truth.poisons(), poisons(clickhouse));
    let mut differences = Differences::default();
    for message in made.symmetric_difference(&arrived) {
        differences.add(|| {
            format!("only in {}: {message:?}", if made.contains(message) { "the truth" } else { "quarantine" })
        });
    }
    differences.assert_none("the quarantined messages");
    check_quarantined_topics(clickhouse, truth);
    let sql = "SELECT tenant, device, boot_id, seq, reason, source, site, topic, hex(payload), detail \
               FROM doseline.quarantine WHERE seq > 0";
    let mut differences = Differences::default();
    let mut expected: BTreeMap<&Key, _> =
        truth.events.iter().filter(|(_, event)| matches!(event.fate, Fate::Quarantined(_))).collect();
    let count = expected.len();
    for row in select(clickhouse, sql) {
        let (text, integer) =
            (|at: usize| row[at].as_str().expect("a text"), |at: usize| row[at].as_u64().expect("a number"));
        let key = (text(0).to_owned(), text(1).to_owned(), integer(2), integer(3));
        let Some(event) = expected.remove(&key) else {
            differences.add(|| format!("not quarantined in the truth, or twice: {row:?}"));
            continue;
        };
        let line = event.line();
        let channel = if line["form"] == "json" { "report/json" } else { "report" };
        let topic = format!("doseline/v1/{}/{}/{}/{channel}", key.0, text(6), key.1);
        let is_placed = text(6) == string(&line, "site") && text(7) == topic && text(5) == "loader";
        let is_explained = event.fate == Fate::Quarantined(text(4).to_owned()) && !text(9).is_empty();
        if !is_placed || !is_explained || event_of(text(8), &key) != line["event"] {
            differences.add(|| format!("{row:?} is not {line}"));
        }
    }
    for key in expected.keys() {
        differences.add(|| format!("not in quarantine: {key:?}"));
    }
    println!("{count} events and {} bad messages in quarantine as in the truth", truth.poisons.len());
    assert!(count > 0 && !truth.poisons.is_empty());
    differences.assert_none("quarantine");
}

/// Bad messages carry the ids of their topic if it can be read, and no ids otherwise.
fn check_quarantined_topics(clickhouse: &ClickHouse, truth: &Truth) {
    let owners: BTreeMap<_, _> = truth
        .poisons
        .iter()
        .map(|poison| {
            let is_bad = poison["reason"] == "bad_topic";
            let owner = ["tenant", "site", "device"].map(|name| if is_bad { "" } else { string(poison, name) });
            (string(poison, "topic"), owner)
        })
        .collect();
    let sql = "SELECT topic, tenant, site, device, source FROM doseline.quarantine WHERE seq = 0 GROUP BY ALL";
    for row in select(clickhouse, sql) {
        let text = |at: usize| row[at].as_str().expect("a text");
        assert_eq!(owners.get(text(0)), Some(&[text(1), text(2), text(3)]), "{row:?}");
        assert_eq!(text(4), "bridge", "{row:?}");
    }
}

/// The only event of a quarantined report, in the form of the truth file.
fn event_of(hex: &str, key: &Key) -> Value {
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
    let report = v1::Report::decode(bytes.as_slice()).expect("a report");
    assert_eq!((report.boot_id, report.first_seq, report.events.len()), (key.2, key.3, 1));
    let event = v1::Event { offset_us: 0, ..report.events[0].clone() };
    serde_json::from_str(&to_json(&event, "Event")).expect("JSON")
}
