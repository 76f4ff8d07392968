//! Compares the simulators' truth with ClickHouse, by queries in ClickHouse itself: millions of
//! events in seconds, while more arrive.
//!
//! Each check covers what was made and committed since the one before. The last check covers
//! everything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::recent::Recent;
use super::sums;
use crate::ClickHouse;

/// Tables with one row for each event, or one for each `index` of an event.
const TABLES: [(&str, bool); 12] = [
    ("injections", false),
    ("sessions", false),
    ("preparations", true),
    ("mounts", false),
    ("sterilization_cycles", false),
    ("sterilization_samples", true),
    ("sterilization_items", true),
    ("cycle_indicators", false),
    ("cycle_releases", false),
    ("calibrations", true),
    ("faults", false),
    ("device_status", false),
];
/// Tables whose rows are not events.
const OTHERS: [&str; 6] =
    ["quarantine", "quarantine_replays", "accuracy_minute", "accuracy_session", "item_uses", "implausible_times"];
/// Lines that are sent to ClickHouse at once.
const LINES: usize = 50_000;
const PAUSE: Duration = Duration::from_millis(500);

/// Result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Events that should be stored or quarantined and are missing, or have other values.
    pub lost: u64,
    /// Events that are there twice, or that no device made.
    pub doubled: u64,
    /// Keys of aggregates, batches and boots whose sums differ from their rows.
    pub unequal: u64,
    /// The first findings of each kind, for a person.
    pub examples: Vec<String>,
}

impl Findings {
    /// Whether the check found nothing.
    pub fn none(&self) -> bool {
        self.lost + self.doubled + self.unequal == 0
    }
}

/// The oracle. Its tables are in a database of their own.
pub struct Oracle {
    /// Number of the running check.
    mark: u32,
    /// End of the last check, us since 1970: batches committed before it are checked.
    checked_us: i64,
    events: u64,
    /// Marks whose events are not checked yet, with their turn and the time at which they were
    /// read.
    open: Vec<(u32, &'static str, Instant)>,
    /// Topic, reason and hash of bad messages, and whether a device sends them until their receipt
    /// comes.
    poisons: BTreeMap<[String; 3], bool>,
    /// Recent events, for devices that send them again.
    pub recent: Recent,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Injection<'a> {
    target_nl: Option<&'a str>,
    delivered_nl: Option<&'a str>,
    target_um: Option<u32>,
    measured_um: Option<u32>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    injection: Option<Injection<'a>>,
}

#[derive(Deserialize)]
struct Line<'a> {
    line: &'a str,
    tenant: &'a str,
    device: &'a str,
    boot_id: Option<&'a str>,
    seq: Option<u64>,
    first_seq: Option<u64>,
    last_seq: Option<u64>,
    at_unix_us: Option<i64>,
    fate: Option<&'a str>,
    reason: Option<&'a str>,
    #[serde(borrow)]
    event: Option<Event<'a>>,
}

#[derive(Deserialize)]
struct Poison {
    topic: String,
    reason: String,
    payload_sha256: String,
    receipt: bool,
}

/// A correction of the truth: tenant, device, boot, first and last number, fate.
type Correction = (String, String, u64, u64, u64, String);

impl Oracle {
    /// Creates the oracle's tables.
    pub fn new(clickhouse: &ClickHouse) -> Self {
        clickhouse.query("CREATE DATABASE oracle");
        clickhouse.query(
            "CREATE TABLE oracle.truth (mark UInt32, tenant LowCardinality(String), device LowCardinality(String), \
             boot_id UInt64, seq UInt64, kind LowCardinality(String), fate LowCardinality(String), at_us Int64, \
             target_nl Int64, delivered_nl Int64, target_um Int64, measured_um Int64) \
             ENGINE = MergeTree PARTITION BY intDiv(mark, 20) ORDER BY (tenant, device, boot_id, seq) \
             SETTINGS old_parts_lifetime = 480",
        );
        let (poisons, recent) = (BTreeMap::new(), Recent::default());
        Self { mark: 1, checked_us: 0, events: 0, open: Vec::new(), poisons, recent }
    }

    /// Number of events in the truth so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Reads lines of truth from `read`. ClickHouse must work.
    pub fn take(&mut self, clickhouse: &ClickHouse, read: impl FnOnce(&mut dyn FnMut(&str))) {
        let (mut text, mut lines, mut corrections): (String, usize, Vec<Correction>) = (String::new(), 0, Vec::new());
        read(&mut |line| {
            self.line(line, &mut text, &mut lines, &mut corrections);
            if lines == LINES {
                insert(clickhouse, &mut text);
                lines = 0;
            }
        });
        if lines > 0 {
            insert(clickhouse, &mut text);
        }
        // A number may be corrected twice; the last correction counts.
        for (tenant, device, boot, first, last, fate) in corrections {
            clickhouse.query(&format!(
                "ALTER TABLE oracle.truth UPDATE fate = '{fate}' WHERE tenant = '{tenant}' AND device = '{device}' \
                 AND boot_id = {boot} AND seq BETWEEN {first} AND {last} SETTINGS mutations_sync = 2"
            ));
        }
    }

    fn line(&mut self, text: &str, rows: &mut String, lines: &mut usize, corrections: &mut Vec<Correction>) {
        let line: Line<'_> = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"));
        let boot = || line.boot_id.and_then(|boot| boot.parse::<u64>().ok()).expect("a boot");
        match line.line {
            "event" => {
                let (fate, seq) = (line.fate.expect("a fate"), line.seq.expect("a number"));
                let kind = kind(text);
                let number = |value: Option<&str>| value.map_or("-1".to_owned(), str::to_owned);
                let length = |value: Option<u32>| value.map_or(-1, i64::from);
                let injection = line.event.and_then(|event| event.injection);
                let values = injection.map_or_else(
                    || "-1\t-1\t-1\t-1".to_owned(),
                    |of| {
                        let (target, delivered) = (number(of.target_nl), number(of.delivered_nl));
                        format!("{target}\t{delivered}\t{}\t{}", length(of.target_um), length(of.measured_um))
                    },
                );
                let (mark, tenant, device, at) = (self.mark, line.tenant, line.device, line.at_unix_us.unwrap_or(-1));
                let _ = writeln!(rows, "{mark}\t{tenant}\t{device}\t{}\t{seq}\t{kind}\t{fate}\t{at}\t{values}", boot());
                *lines += 1;
                self.events += 1;
                if fate == "stored" {
                    self.recent.push(text);
                }
            }
            "fate" => {
                let (first, last) = (line.first_seq.expect("a number"), line.last_seq.expect("a number"));
                let fate = line.fate.expect("a fate").to_owned();
                corrections.push((line.tenant.to_owned(), line.device.to_owned(), boot(), first, last, fate));
            }
            "poison" => {
                let poison: Poison = serde_json::from_str(text).expect("a bad message");
                self.poisons.insert([poison.topic, poison.reason, poison.payload_sha256], poison.receipt);
            }
            "heartbeat" => {}
            other => panic!("a line of an unknown kind {other} ({:?})", line.reason),
        }
    }

    /// Compares everything committed since the last call; `turn` names the faults since then.
    pub fn check(&mut self, clickhouse: &ClickHouse, turn: &'static str) -> Findings {
        let mut findings = Findings::default();
        let until = unix_us();
        let window = format!("toUnixTimestamp64Micro(committed_at) BETWEEN {} AND {until}", self.checked_us);
        findings.compare_rows(clickhouse, &format!("mark = {}", self.mark), &window);
        self.open.push((self.mark, turn, Instant::now()));
        self.mark += 1;
        self.checked_us = until + 1;
        findings
    }

    /// Checks the events of earlier turns that are older than `age`, because a device without a
    /// network may hold them that long. Waits for missing events up to `within`; then they are
    /// lost. Returns the findings by turn.
    pub fn arrived(
        &mut self,
        clickhouse: &ClickHouse,
        age: Duration,
        within: Duration,
    ) -> Vec<(&'static str, Findings)> {
        let due = |(_, _, read): &(u32, &'static str, Instant)| read.elapsed() >= age;
        let (due, open): (Vec<_>, Vec<_>) = self.open.drain(..).partition(due);
        self.open = open;
        let look = |(mark, turn, _): (u32, &'static str, Instant)| {
            let mut findings = Findings::default();
            findings.wait_for_all(clickhouse, &format!("mark = {mark}"), within);
            (turn, findings)
        };
        due.into_iter().map(look).collect()
    }

    /// Compares everything, when nothing is in flight any more.
    pub fn check_all(&self, clickhouse: &ClickHouse) -> Findings {
        let mut findings = self.compare_all(clickhouse, Duration::from_secs(60));
        self.check_boots(clickhouse, &mut findings);
        self.check_invented(clickhouse, &mut findings);
        self.check_poisons(clickhouse, &mut findings);
        findings
    }

    /// Compares all events, aggregates and batches. Waits for missing ones up to `within`.
    pub fn compare_all(&self, clickhouse: &ClickHouse, within: Duration) -> Findings {
        let mut findings = Findings::default();
        findings.wait_for_all(clickhouse, "1", within);
        findings.compare_rows(clickhouse, "1", "1");
        findings
    }

    /// For each boot, stored + quarantined + lost + missing = made, as in the truth.
    fn check_boots(&self, clickhouse: &ClickHouse, findings: &mut Findings) {
        let sql = "SELECT tenant, device, boot_id, sumIf(made, src = 1) AS m1, sumIf(made, src = 0) AS m0, \
                   sumIf(stored, src = 1) AS s1, sumIf(stored, src = 0) AS s0, \
                   sumIf(quarantined, src = 1) AS q1, sumIf(quarantined, src = 0) AS q0, \
                   sumIf(gone, src = 1) AS g1, sumIf(gone, src = 0) AS g0 FROM ( \
                   SELECT 1 AS src, toString(tenant) AS tenant, toString(device) AS device, boot_id, \
                   count() AS made, countIf(fate = 'stored') AS stored, countIf(fate = 'quarantined') AS quarantined, \
                   countIf(fate IN ('lost', 'missing')) AS gone FROM oracle.truth GROUP BY ALL \
                   UNION ALL SELECT 0, toString(tenant), toString(device), boot_id, made, stored, quarantined, \
                   lost + missing FROM doseline.delivery_completeness) \
                   GROUP BY tenant, device, boot_id HAVING m0 > 0 AND m1 > 0 AND (m1 != m0 OR s1 != s0 OR q1 != q0 OR g1 != g0) OR m0 = 0";
        findings.unequal += findings.count(clickhouse, "ledger", sql);
    }

    /// Nothing is stored that no device made.
    fn check_invented(&self, clickhouse: &ClickHouse, findings: &mut Findings) {
        let sql = format!(
            "SELECT * FROM ({}) WHERE (tenant, device, boot_id, seq) NOT IN \
             (SELECT tenant, device, boot_id, seq FROM oracle.truth)",
            identities("1")
        );
        findings.doubled += findings.count(clickhouse, "never made", &sql);
    }

    /// Each bad message is in quarantine at least once, and nothing else is. A message that gets no
    /// receipt is sent once, and may be lost with a killed broker.
    fn check_poisons(&self, clickhouse: &ClickHouse, findings: &mut Findings) {
        let sql = "SELECT topic, reason, lower(hex(SHA256(payload))) AS hash FROM doseline.quarantine WHERE seq = 0 \
                   GROUP BY ALL";
        let rows = clickhouse.rows(sql);
        let text = |row: &serde_json::Value, name: &str| row[name].as_str().expect("a text").to_owned();
        let found: BTreeSet<_> =
            rows.iter().map(|row| ["topic", "reason", "hash"].map(|name| text(row, name))).collect();
        let wanted = self.poisons.iter().filter(|(_, receipted)| **receipted).map(|(message, _)| message);
        let lost: Vec<_> = wanted.filter(|message| !found.contains(*message)).collect();
        let invented: Vec<_> = found.iter().filter(|message| !self.poisons.contains_key(*message)).collect();
        for (messages, word) in [(&lost, "not in quarantine"), (&invented, "never sent")] {
            findings.examples.extend(messages.first().map(|message| format!("bad message {word}: {message:?}")));
        }
        findings.lost += lost.len() as u64;
        findings.doubled += invented.len() as u64;
    }
}

impl Findings {
    fn wait_for_all(&mut self, clickhouse: &ClickHouse, mark: &str, within: Duration) {
        let deadline = Instant::now() + within;
        let lost = lost(mark);
        self.lost = loop {
            match clickhouse.number(&format!("SELECT count() FROM ({lost})")) {
                0 => break 0,
                lost if Instant::now() >= deadline => break lost,
                _ => std::thread::sleep(PAUSE),
            }
        };
        if self.lost > 0 {
            self.example(clickhouse, "lost", &lost);
        }
    }

    fn compare_rows(&mut self, clickhouse: &ClickHouse, mark: &str, window: &str) {
        self.doubled += self.count(clickhouse, "doubled", &doubled(mark));
        // Old commits may have been pruned, so this must not depend on commits.
        let batches = match window {
            "1" => "1".to_owned(),
            _ => format!(
                "(incarnation, kafka_partition, batch) IN (SELECT incarnation, kafka_partition, batch \
                 FROM doseline.loader_commits WHERE kind = 'commit' AND {window})"
            ),
        };
        for (name, sql) in sums::comparisons(&batches) {
            self.unequal += self.count(clickhouse, name, &sql);
        }
        self.unequal += self.count(clickhouse, "rows of a batch", &batch_rows(window));
    }

    fn count(&mut self, clickhouse: &ClickHouse, what: &str, sql: &str) -> u64 {
        let count = clickhouse.number(&format!("SELECT count() FROM ({sql})"));
        if count > 0 {
            self.example(clickhouse, what, sql);
        }
        count
    }

    fn example(&mut self, clickhouse: &ClickHouse, what: &str, sql: &str) {
        for row in clickhouse.rows(&format!("SELECT * FROM ({sql}) LIMIT 3")) {
            self.examples.push(format!("{what}: {row}"));
        }
    }
}

fn insert(clickhouse: &ClickHouse, text: &mut String) {
    clickhouse.query(&format!("INSERT INTO oracle.truth FORMAT TabSeparated\n{text}"));
    text.clear();
}

/// The kind of an event: the first name in it; empty for a kind that no server knows.
fn kind(line: &str) -> &str {
    let event = line.rfind("\"event\":{").map_or("", |at| &line[at + 9..]);
    event.strip_prefix('"').and_then(|rest| rest.split('"').next()).unwrap_or_default()
}

/// The identity of every row of an event.
fn identities(condition: &str) -> String {
    let part = |(table, indexed): (&str, bool)| {
        let index = if indexed { "`index`" } else { "toUInt32(0)" };
        format!(
            "SELECT '{table}' AS t, toString(tenant) AS tenant, toString(device) AS device, boot_id, seq, {index} AS part \
             FROM doseline.{table} WHERE seq > 0 AND {condition}"
        )
    };
    let quarantined = format!(
        "SELECT 'quarantine', toString(tenant), toString(device), boot_id, seq, toUInt32(0) FROM doseline.quarantine \
         WHERE seq > 0 AND {condition}"
    );
    TABLES.into_iter().map(part).chain([quarantined]).collect::<Vec<_>>().join(" UNION ALL ")
}

fn boots(mark: &str) -> String {
    if mark == "1" { "1".to_owned() } else { format!("boot_id IN (SELECT boot_id FROM oracle.truth WHERE {mark})") }
}

/// Events that were made and are missing; for injections, also those with other values.
fn lost(mark: &str) -> String {
    let of = boots(mark);
    let others: Vec<_> = TABLES
        .into_iter()
        .filter(|(table, _)| *table != "injections")
        .map(|(table, _)| format!("SELECT tenant, device, boot_id, seq FROM doseline.{table} WHERE seq > 0 AND {of}"))
        .collect();
    format!(
        "SELECT tenant, device, boot_id, seq, kind, fate FROM oracle.truth WHERE {mark} AND kind = 'injection' AND \
         fate = 'stored' AND (tenant, device, boot_id, seq, at_us, target_nl, delivered_nl, target_um, measured_um) NOT IN ( \
         SELECT tenant, device, boot_id, seq, if(time_source = 'DEVICE', toUnixTimestamp64Micro(at), -1), \
         toInt64(ifNull(target_nl, -1)), toInt64(ifNull(delivered_nl, -1)), toInt64(ifNull(target_um, -1)), \
         toInt64(ifNull(measured_um, -1)) FROM doseline.injections WHERE {of}) \
         UNION ALL SELECT tenant, device, boot_id, seq, kind, fate FROM oracle.truth WHERE {mark} AND fate = 'stored' AND \
         kind NOT IN ('injection', '') AND (tenant, device, boot_id, seq) NOT IN ({}) \
         UNION ALL SELECT tenant, device, boot_id, seq, kind, fate FROM oracle.truth WHERE {mark} AND \
         fate = 'quarantined' AND (tenant, device, boot_id, seq) NOT IN ( \
         SELECT tenant, device, boot_id, seq FROM doseline.quarantine WHERE seq > 0 AND {of})",
        others.join(" UNION ALL ")
    )
}

fn doubled(mark: &str) -> String {
    format!(
        "SELECT t, tenant, device, boot_id, seq, part, count() AS times FROM ({}) \
         GROUP BY t, tenant, device, boot_id, seq, part HAVING times > 1",
        identities(&boots(mark))
    )
}

/// Every commit row gives the number of rows that its batch has in all tables.
fn batch_rows(window: &str) -> String {
    let tables = TABLES.into_iter().map(|(table, _)| table).chain(OTHERS);
    let rows: Vec<_> = tables
        .map(|table| {
            format!("SELECT incarnation, kafka_partition, batch, count() AS n FROM doseline.{table} GROUP BY ALL")
        })
        .collect();
    format!(
        "SELECT incarnation, kafka_partition, batch, c.wanted AS wanted, f.found AS found FROM ( \
         SELECT incarnation, kafka_partition, batch, argMax(rows, gen) AS wanted FROM doseline.loader_commits \
         WHERE kind = 'commit' AND {window} GROUP BY ALL) AS c LEFT JOIN ( \
         SELECT incarnation, kafka_partition, batch, sum(n) AS found FROM ({}) GROUP BY ALL) AS f \
         USING (incarnation, kafka_partition, batch) WHERE wanted != found",
        rows.join(" UNION ALL ")
    )
}

fn unix_us() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_micros()).expect("before 294,247")
}

#[cfg(test)]
mod tests {
    use super::kind;

    #[test]
    fn the_kind_of_an_event_is_its_first_name() {
        assert_eq!(kind(r#"{"context":{"a":1},"event":{"injection":{"shot":1}}}"#), "injection");
        assert_eq!(kind(r#"{"event":{}}"#), "");
    }
}
