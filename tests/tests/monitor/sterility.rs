//! Facts arrive early, late and in any order, and the monitor makes a pass after each step.

use std::fmt::Write as _;

use rand::{Rng as _, SeedableRng as _};

use super::Rig;

/// Facts of a small clinic, inserted by SQL with the loader's columns. Hours are those of
/// 2026-01-05, UTC.
pub struct Facts<'a>(pub &'a Rig);

fn at(hour: i64) -> String {
    format!("toDateTime64('2026-01-05 00:00:00', 6, 'UTC') + toIntervalHour({hour})")
}

impl Facts<'_> {
    pub fn insert(&self, table: &str, columns: &str, values: &str) {
        self.0.clickhouse.query(&format!("INSERT INTO doseline.{table} ({columns}) VALUES {values}"));
    }

    fn mount(&self, item: &str, session: &str, hour: i64, slot: &str, reusable: bool) {
        self.insert(
            "mounts",
            "tenant, site, device, boot_id, seq, at, time_source, event, slot, mount_id, item_id, id_kind, udi_di, lot, \
             reusable, pack_intact, session_id",
            &format!(
                "('acme', 'paris', 'pen-1', 1, {hour}, {}, 'DEVICE', 'MOUNTED', '{slot}', 'm-{session}-{item}', '{item}', \
                 'SERIAL', 'di-{slot}', 'L1', {reusable}, true, '{session}')",
                at(hour)
            ),
        );
    }

    fn uses(&self, item: &str, session: &str, hour: i64, slot: &str) {
        self.insert(
            "item_uses",
            "tenant, site, device, session_id, slot, mount_id, item_id, injections, punctures, first_at, last_at",
            &format!(
                "('acme', 'paris', 'pen-1', '{session}', '{slot}', 'm-{session}-{item}', '{item}', 20, 20, {}, {} + \
                 toIntervalMinute(30))",
                at(hour),
                at(hour)
            ),
        );
    }

    /// A use that the loader wrote; `shard` is the topic's incarnation, the partition and the
    /// batch.
    fn uses_of_batch(&self, item: &str, session: &str, hour: i64, slot: &str, shard: &str) {
        self.insert(
            "item_uses",
            "tenant, site, device, session_id, slot, mount_id, item_id, injections, punctures, first_at, last_at, ingest_day, \
             incarnation, kafka_partition, batch",
            &format!(
                "('acme', 'paris', 'pen-1', '{session}', '{slot}', 'm-{session}-{item}', '{item}', 20, 20, {}, {}, today(), \
                 {shard})",
                at(hour),
                at(hour)
            ),
        );
    }

    /// Commits a batch of ten records, at a time long ago.
    fn commit(&self, incarnation: u32, partition: i32, batch: u32) {
        self.insert(
            "loader_commits",
            "kind, incarnation, kafka_partition, batch, batch_end",
            &format!("('commit', {incarnation}, {partition}, {batch}, {batch} + 10)"),
        );
    }

    pub fn handpiece(&self, item: &str, session: &str, hour: i64) {
        self.mount(item, session, hour, "HANDPIECE", true);
        self.uses(item, session, hour, "HANDPIECE");
    }

    pub fn needle(&self, item: &str, session: &str, hour: i64) {
        self.mount(item, session, hour, "NEEDLE", false);
        self.uses(item, session, hour, "NEEDLE");
    }

    /// A cycle with a plateau of `hold_s` seconds at 134.5 C, saturated steam, and a sample every 5
    /// s.
    pub fn cycle(&self, uid: &str, hour: i64, hold_s: u32, items: &[&str]) {
        let seq = hour + 1_000;
        let key = format!("'acme', 'paris', 'steri-1', 1, {seq}, {}, 'DEVICE', '{uid}'", at(hour));
        let columns = "tenant, site, device, boot_id, seq, at, time_source, cycle_uid";
        let samples = hold_s / 5 + 1;
        self.insert(
            "sterilization_cycles",
            &format!("{columns}, recipe, purpose, load_dry, items, samples"),
            &format!("({key}, '134C-3min', 'LOAD', true, {}, {samples})", items.len()),
        );
        let mut values = String::new();
        for place in 0..samples {
            let _ = write!(values, "({key}, {place}, {}, 0, 134500, 308500),", place * 5_000);
        }
        let more = format!("{columns}, index, offset_ms, sensor, temperature_mc, pressure_pa");
        self.insert("sterilization_samples", &more, values.trim_end_matches(','));
        for (place, item) in items.iter().enumerate() {
            self.insert(
                "sterilization_items",
                &format!("{columns}, index, item_id"),
                &format!("({key}, {place}, '{item}')"),
            );
        }
    }

    pub fn release(&self, uid: &str, hour: i64, decision: &str) {
        self.insert(
            "cycle_releases",
            "tenant, site, device, boot_id, seq, at, cycle_uid, decision, actor, decided_at",
            &format!(
                "('acme', 'paris', 'steri-1', 1, {}, {}, '{uid}', '{decision}', 'op', {})",
                hour + 5_000,
                at(hour),
                at(hour)
            ),
        );
    }

    pub fn biological(&self, uid: &str, hour: i64, result: &str) {
        self.insert(
            "cycle_indicators",
            "tenant, site, device, boot_id, seq, at, cycle_uid, kind, result, read_at",
            &format!(
                "('acme', 'paris', 'tablet', 1, {}, {}, '{uid}', 'BIOLOGICAL', '{result}', {})",
                hour + 9_000,
                at(hour),
                at(hour)
            ),
        );
    }

    pub fn policies(&self) {
        self.insert(
            "policies",
            "tenant, name, value, valid_from, recorded_at",
            "('', 'sterility.bowie_dick', 'off', 0, 0)",
        );
        self.insert("sites", "tenant, site, time_zone", "('acme', 'paris', 'Europe/Paris'), ('acme', 'x', 'No/Where')");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn late_data_raise_what_was_not_seen_and_a_pass_from_scratch_agrees() {
    let mut rig = Rig::start().await;
    assert_eq!(rig.pass().await.verdicts, 0, "an empty warehouse");
    let facts = Facts(&rig);
    facts.policies();
    facts.needle("N1", "a", 1);
    facts.needle("N2", "b", 2);
    facts.cycle("c1", 1, 200, &["H1", "H2"]);
    facts.release("c1", 2, "RELEASED");
    facts.handpiece("H1", "a", 3);
    facts.handpiece("H2", "b", 4);
    rig.pass().await;
    assert_eq!(rig.open(), [""; 0], "all is well so far");
    assert_eq!(rig.pass().await, monitor::Summary::default(), "nothing has changed");

    // Rule 2, late: a session before the known one arrives from a device that was offline.
    Facts(&rig).needle("N1", "early", 0);
    rig.pass().await;
    assert_eq!(rig.open(), ["critical sterility-2/acme/item/N1"]);
    // Rule 4, late: a session between cycle and use arrives. The later use then had no cycle of its
    // own.
    Facts(&rig).handpiece("H1", "before", 2);
    rig.pass().await;
    let reused = ["critical sterility-2/acme/item/N1", "critical sterility-4/acme/H1/a"];
    assert_eq!(rig.open(), reused);
    // Rule 9, late: a tablet reads the indicator two days later.
    Facts(&rig).biological("c1", 50, "POSITIVE");
    rig.pass().await;
    let open = rig.open();
    assert!(open.contains(&"critical sterility-9/acme/c1".to_owned()), "{open:?}");
    let recalled = "SELECT arraySort(sessions) FROM doseline.open_alerts WHERE kind = 'sterility-9'";
    assert_eq!(rig.clickhouse.query(recalled), "['a','b','before']");

    // A second monitor that continues, and an evaluation from scratch, find the same rows.
    let (verdicts, alerts) = (rig.verdicts(), rig.alerts());
    rig.monitor = Rig::monitor(&rig.warehouse).await;
    assert_eq!(rig.pass().await.verdicts, 0);
    rig.monitor.start_over();
    let again = rig.pass().await;
    assert!(again.whole && again.verdicts == 0 && again.alerts == 0, "{again:?}");
    for table in ["sterility_verdicts", "alerts", "alert_history", "monitor_positions"] {
        rig.clickhouse.query(&format!("TRUNCATE TABLE doseline.{table}"));
    }
    rig.monitor = Rig::monitor(&rig.warehouse).await;
    assert!(rig.pass().await.whole);
    assert_eq!(rig.verdicts(), verdicts);
    assert_eq!(rig.alerts(), alerts);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_long_after_it_was_written_is_judged_then() {
    let mut rig = Rig::start().await;
    let facts = Facts(&rig);
    facts.policies();
    facts.needle("N1", "a", 1);
    facts.commit(1, 0, 0);
    // The next batch of a shard, the first batch of a partition, and the first batch of the topic's
    // next incarnation.
    for (session, shard) in [("b", "1, 0, 10"), ("c", "1, 1, 0"), ("d", "2, 0, 0")] {
        facts.mount("N1", session, 5, "NEEDLE", false);
        facts.uses_of_batch("N1", session, 5, "NEEDLE", shard);
    }
    for _ in 0..4 {
        rig.pass().await;
        assert_eq!(rig.open(), [""; 0], "their batches may still be taken back");
    }
    for (incarnation, partition, batch, visits) in [(1, 0, 10, 2), (1, 1, 0, 3), (2, 0, 0, 4)] {
        Facts(&rig).commit(incarnation, partition, batch);
        rig.pass().await;
        assert_eq!(rig.open(), ["critical sterility-2/acme/item/N1"]);
        let found = rig.clickhouse.query("SELECT length(sessions) FROM doseline.open_alerts");
        assert_eq!(found, visits.to_string(), "after {incarnation}/{partition}/{batch}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_part_that_a_merge_made_only_new_rows_are_judged() {
    let mut rig = Rig::start().await;
    let facts = Facts(&rig);
    facts.policies();
    for item in 0..30 {
        facts.uses_of_batch(&format!("N{item}"), "a", 1, "NEEDLE", "1, 0, 0");
    }
    facts.commit(1, 0, 0);
    rig.pass().await;
    let facts = Facts(&rig);
    facts.uses_of_batch("N0", "b", 5, "NEEDLE", "1, 0, 10");
    facts.commit(1, 0, 10);
    rig.clickhouse.query("OPTIMIZE TABLE doseline.item_uses FINAL");
    let units = rig.pass().await.units;
    assert!((1..=4).contains(&units), "{units} of more than 60");
    assert_eq!(rig.open(), ["high sterility-2/acme/item/N0"]);

    // The rows are merged before they are committed. They were seen then and are judged later.
    Facts(&rig).uses_of_batch("N1", "b", 5, "NEEDLE", "1, 0, 20");
    rig.clickhouse.query("OPTIMIZE TABLE doseline.item_uses FINAL");
    rig.pass().await;
    Facts(&rig).commit(1, 0, 20);
    rig.pass().await;
    assert_eq!(rig.open(), ["high sterility-2/acme/item/N0", "high sterility-2/acme/item/N1"]);
}

/// The rows of a batch become visible one table after the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_syringe_is_balanced_when_all_of_its_batch_is_there() {
    let mut rig = Rig::start().await;
    let facts = Facts(&rig);
    facts.policies();
    facts.commit(1, 0, 0);
    let columns = "tenant, site, device, boot_id, seq, at, time_source, event, slot, mount_id, item_id, fill_nl, residual_nl, \
                   ingest_day, incarnation, kafka_partition, batch";
    let mount = |seq: i64, event: &str, volumes: &str, batch: u32| {
        format!(
            "('acme', 'paris', 'pen-1', 1, {seq}, {}, 'DEVICE', '{event}', 'SYRINGE', 'm-a-S1', 'S1', {volumes}, today(), 1, 0, \
             {batch})",
            at(seq)
        )
    };
    facts.insert("mounts", columns, &mount(1, "MOUNTED", "1000000, NULL", 0));
    facts.insert("mounts", columns, &mount(3, "REMOVED", "NULL, 0", 10));
    rig.pass().await;
    assert_eq!(rig.open(), [""; 0], "the injections of the batch are not there yet");
    Facts(&rig).commit(1, 0, 10);
    rig.pass().await;
    assert_eq!(rig.open(), ["medium mass-balance/acme/pen-1/m-a-S1"], "there were none");
}

/// Events that a device kept while it was offline arrive hours later, and before events that other
/// devices kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_sterilizer_s_data_are_awaited_after_a_late_use_has_arrived() {
    let mut rig = Rig::start().await;
    let facts = Facts(&rig);
    facts.policies();
    for item in ["H1", "H2"] {
        facts.handpiece(item, "a", 1);
        facts.mount(item, "b", 9, "HANDPIECE", true);
        facts.uses_of_batch(item, "b", 9, "HANDPIECE", "1, 0, 0");
    }
    facts.cycle("c0", 0, 200, &["H1", "H2"]);
    facts.release("c0", 1, "RELEASED");
    let commit = "INSERT INTO doseline.loader_commits (kind, incarnation, kafka_partition, batch, batch_end, committed_at) \
                  VALUES ('commit', 1, 0, 0, 10, now64(6))";
    rig.clickhouse.query(commit);
    rig.pass().await;
    assert_eq!(rig.open(), [""; 0], "a cycle between the visits may be on its way");
    let facts = Facts(&rig);
    facts.cycle("c1", 5, 200, &["H1"]);
    facts.release("c1", 6, "RELEASED");
    rig.monitor.pass(monitor::now_us() + 60_000_000).await.expect("a pass");
    assert_eq!(rig.open(), ["critical sterility-4/acme/H2/b"], "of the other none has come");
}

/// Random facts about a few items arrive in any order and are judged at any time in between.
#[tokio::test(flavor = "multi_thread")]
async fn facts_in_steps_and_in_any_order_end_in_what_a_pass_from_scratch_says() {
    let mut random = rand::rngs::StdRng::seed_from_u64(harness::seed());
    let mut rig = Rig::start().await;
    Facts(&rig).policies();
    let mut cycles = std::collections::BTreeSet::new();
    for _ in 0..12 {
        for _ in 0..random.random_range(1..6) {
            let facts = Facts(&rig);
            let (hour, item) = (random.random_range(0..40), random.random_range(0..3));
            let (handpiece, needle, session) =
                (format!("H{item}"), format!("N{item}"), format!("s{}", random.random_range(0..5)));
            let uid = format!("c{}", random.random_range(0..6));
            match random.random_range(0..9) {
                0 => facts.needle(&needle, &session, hour),
                // A use whose mount arrives later, or never.
                1 => facts.uses(&needle, &session, hour, "NEEDLE"),
                2 => facts.mount(&needle, &session, hour, "NEEDLE", false),
                3 | 4 => facts.handpiece(&handpiece, &session, hour),
                5 | 6 if cycles.insert(uid.clone()) => {
                    facts.cycle(
                        &uid,
                        hour,
                        random.random_range(150..220),
                        &[handpiece.as_str(), needle.as_str()][..random.random_range(1..3)],
                    );
                }
                7 => facts.biological(&uid, hour, if random.random_bool(0.3) { "POSITIVE" } else { "NEGATIVE" }),
                _ => facts.release(&uid, hour, if random.random_bool(0.8) { "RELEASED" } else { "REJECTED" }),
            }
        }
        rig.pass().await;
    }
    let holding =
        "SELECT alert_key, sessions, items, cycles, title FROM doseline.alerts FINAL WHERE holds ORDER BY alert_key";
    let (verdicts, alerts) = (rig.verdicts(), rig.clickhouse.query(holding));
    for table in ["sterility_verdicts", "alerts", "alert_history", "monitor_positions"] {
        rig.clickhouse.query(&format!("TRUNCATE TABLE doseline.{table}"));
    }
    rig.monitor = Rig::monitor(&rig.warehouse).await;
    assert!(rig.pass().await.whole);
    assert_eq!(rig.verdicts(), verdicts);
    assert_eq!(rig.clickhouse.query(holding), alerts);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_critical_alert_stays_until_somebody_acknowledges_it() {
    let mut rig = Rig::start().await;
    let facts = Facts(&rig);
    facts.policies();
    facts.handpiece("H1", "a", 1);
    facts.cycle("c0", 0, 200, &["H1"]);
    facts.release("c0", 0, "RELEASED");
    facts.handpiece("H1", "b", 20);
    rig.pass().await;
    let key = "sterility-4/acme/H1/b";
    assert_eq!(rig.open(), [format!("critical {key}")]);
    // The cycle in between arrives late, so the item was sterile.
    let facts = Facts(&rig);
    facts.cycle("c1", 10, 200, &["H1"]);
    facts.release("c1", 11, "RELEASED");
    rig.pass().await;
    assert_eq!(rig.open(), [format!("critical {key}")], "late data do not clear it silently");
    let history = "SELECT groupArray(event) FROM (SELECT event FROM doseline.alert_history ORDER BY at)";
    assert_eq!(rig.clickhouse.query(history), "['RAISED','RETRACTED']");

    rig.acknowledge(key, "cycle arrived late");
    assert_eq!(rig.open(), [""; 0]);
    rig.pass().await;
    assert_eq!(rig.clickhouse.query(history), "['RAISED','RETRACTED','ACKNOWLEDGED','CLEARED']");
    let by = "SELECT actor, note FROM doseline.alert_history WHERE event = 'ACKNOWLEDGED'";
    assert_eq!(rig.clickhouse.query(by), "Ada\tcycle arrived late");
}

#[tokio::test(flavor = "multi_thread")]
async fn curves_recalls_and_lots_are_judged_where_they_change() {
    let mut rig = Rig::start().await;
    let facts = Facts(&rig);
    facts.policies();
    facts.cycle("short", 1, 100, &["H1"]);
    facts.release("short", 2, "RELEASED");
    facts.cycle("good", 1, 200, &["H2"]);
    facts.release("good", 2, "RELEASED");
    facts.handpiece("H1", "a", 3);
    facts.handpiece("H2", "b", 3);
    rig.pass().await;
    let verdicts = "SELECT cycle_uid, verdict, hold_ms, release FROM doseline.cycle_verdicts ORDER BY cycle_uid";
    assert_eq!(rig.clickhouse.query(verdicts), "good\tPASSED\t200000\tRELEASED\nshort\tFAILED\t100000\tRELEASED");
    assert_eq!(rig.open(), ["critical sterility-4/acme/H1/a", "critical sterility-5/acme/short"]);

    // A lot is recalled: every use of it is found once, under one alert.
    Facts(&rig).insert(
        "recalls",
        "recall_id, udi_di, lot, reason, state, valid_from, recorded_at",
        "('R7', 'di-HANDPIECE', 'L1', 'cracks', 'OPEN', 0, 0)",
    );
    rig.pass().await;
    let recalled =
        "SELECT sessions FROM doseline.open_alerts WHERE alert_key = 'sterility-12/acme/recall/R7/di-HANDPIECE/L1'";
    assert_eq!(rig.clickhouse.query(recalled), "['a','b']");
    // The recipe changes, and the good cycle was too short for the new one.
    Facts(&rig).insert(
        "recipes",
        "recipe, temperature_min_mc, temperature_max_mc, hold_ms, gap_max_ms, reference_mc, z_mk, valid_from",
        "('134C-3min', 134000, 137000, 240000, 15000, 121100, 10000, 0)",
    );
    rig.pass().await;
    assert!(rig.clickhouse.query(verdicts).starts_with("good\tFAILED\t200000"));
    // The rows that an alert shows as its evidence exist.
    for query in rig.clickhouse.query("SELECT evidence_query FROM doseline.open_alerts").lines() {
        let query = query.replace("\\'", "'").replace("FROM ", "FROM doseline.");
        assert!(!rig.clickhouse.query(&query).is_empty(), "{query} shows nothing");
    }
    let guide = include_str!("../../../docs/sterility.md");
    let blocks = guide.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next());
    let examples: Vec<_> = blocks.chain(guide.split('`').filter(|text| text.starts_with("SELECT "))).collect();
    assert!(examples.len() > 2);
    for example in examples {
        rig.warehouse.command(example).await.unwrap_or_else(|error| panic!("{error}\nin {example}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_walks_both_ways() {
    use monitor::trace::{Subject, trace};
    let mut rig = Rig::start().await;
    let facts = Facts(&rig);
    facts.policies();
    facts.cycle("c1", 1, 200, &["H1"]);
    facts.release("c1", 2, "RELEASED");
    facts.handpiece("H1", "a", 3);
    facts.needle("N1", "a", 3);
    facts.needle("N1", "b", 5);
    facts.insert(
        "sessions",
        "tenant, site, device, seq, at, session_id, event, client_ref",
        &format!("('acme', 'paris', 'pen-1', 1, {}, 'a', 'STARTED', 'ref-1')", at(3)),
    );
    rig.pass().await;
    let tree = async |subject: Subject| trace(&rig.warehouse, "acme", &subject).await.expect("a trace").tree();
    let found = trace(&rig.warehouse, "acme", &Subject::Session("a".to_owned())).await.expect("a trace");
    let session = found.tree();
    for part in ["client ref-1", "<- item H1", "<- cycle c1", "PASSED", "RELEASED", "-> session b", "also used item N1"]
    {
        assert!(session.contains(part), "{part} is not in\n{session}");
    }
    assert!(found.breaches.iter().any(|breach| breach.rule == 2), "{:?}", found.breaches);
    let unknown = found.unknown.join("\n");
    assert!(unknown.contains("the start of session b has not arrived"), "{unknown}");
    let cycle = tree(Subject::Cycle("c1".to_owned())).await;
    assert!(cycle.contains("-> item H1") && cycle.contains("-> session a"), "{cycle}");
    let lot = tree(Subject::Lot("di-NEEDLE/L1".to_owned())).await;
    assert!(lot.contains("2 mounts") && lot.contains("-> session a") && lot.contains("-> session b"), "{lot}");
    let facts = Facts(&rig);
    // The same lot where the item was scanned with its whole label, which says product and lot.
    let scanned =
        ["(01)04012345000017(10)L.7(21)S1", "0104012345000017\\x1d21S2\\x1d10L.7", "(01)04012345000017(10)L77(21)S3"];
    for (number, label) in scanned.into_iter().enumerate() {
        facts.insert(
            "mounts",
            "tenant, site, device, seq, at, event, slot, mount_id, item_id",
            &format!(
                "('acme', 'paris', 'pen-1', {}, {}, 'MOUNTED', 'NEEDLE', 'm-s{number}', '{label}')",
                900 + number,
                at(6)
            ),
        );
    }
    for subject in ["4012345000017/L.7", "L.7"] {
        let mounts = rig.warehouse.mounts_of_lot(subject).await.expect("mounts of a lot");
        let mut found: Vec<_> = mounts.iter().map(|mount| mount.mount_id.as_str()).collect();
        found.sort_unstable();
        assert_eq!(found, ["m-s0", "m-s1"], "{subject}");
        assert_eq!(rig.warehouse.tenants_of("LOT", subject).await.expect("tenants"), ["acme"]);
    }
    let item = tree(Subject::Item("N1".to_owned())).await;
    assert!(item.contains("single use") && item.contains("-> session b"), "{item}");
    assert_eq!(rig.warehouse.tenants_of("ITEM", "N1").await.expect("tenants"), ["acme"]);
}

/// A needle and a handpiece whose labels one device scans and another takes in another spelling.
#[tokio::test(flavor = "multi_thread")]
async fn an_item_is_one_item_in_every_spelling_of_its_id() {
    use monitor::trace::{Subject, trace};
    const NEEDLE: &str = "(01)04012345000017(21)S1";
    const HANDPIECE: &str = "(01)04012345000024(21)H1";
    let mut rig = Rig::start().await;
    let facts = Facts(&rig);
    facts.policies();
    facts.needle("010401234500001721S1", "a", 1);
    facts.handpiece("(01)4012345000024(21)H1", "a", 3);
    // A verdict of earlier rules, which knew each spelling as an item of its own.
    facts.insert(
        "sterility_verdicts",
        "tenant, unit, verdict_key, rule, state, rule_version",
        "('acme', 'item/010401234500001721S1', '2/item', 2, 'CONFIRMED', 3)",
    );
    rig.pass().await;
    let first_use = format!("high sterility-4/acme/{HANDPIECE}/a");
    assert_eq!(rig.open(), [first_use.as_str()], "nothing is known before the first use");
    let earlier = "SELECT state FROM doseline.sterility_verdicts FINAL WHERE unit = 'item/010401234500001721S1'";
    assert_eq!(rig.clickhouse.query(earlier), "CLEARED");

    // The cycle names the handpiece as it was scanned. Other ids are other items: a serial number
    // alone, another serial number or product, and strings that are not valid.
    let facts = Facts(&rig);
    facts.cycle("c1", 1, 200, &["]d2010401234500002421H1\\x1d10L1"]);
    facts.release("c1", 2, "RELEASED");
    let garbage = "(01)0401234500001x(21)S1";
    for other in
        ["S1", "(01)04012345000017(21)S2", "(01)04012345000024(21)S1", garbage, "(01)04012345000017(21)S1(21)S2"]
    {
        facts.needle(other, "b", 4);
    }
    assert!(!rig.pass().await.whole, "a pass over everything shows nothing");
    assert_eq!(rig.open(), [""; 0]);

    // Another spelling in another session is a reuse, and the whole item is judged again.
    Facts(&rig).needle("]d2010401234500001710L1\\x1d21S1", "c", 5);
    rig.pass().await;
    Facts(&rig).needle("(01)4012345000017(17)261231(10)L1(21)S1", "d", 6);
    assert!(!rig.pass().await.whole, "a pass over everything shows nothing");
    assert_eq!(rig.open(), [format!("critical sterility-2/acme/item/{NEEDLE}")]);
    assert_eq!(
        rig.clickhouse.query("SELECT sessions, items FROM doseline.open_alerts"),
        format!("['a','c','d']\t['{NEEDLE}']")
    );
    // The rows behind the alert show what was sent.
    let query = rig.clickhouse.query("SELECT evidence_query FROM doseline.open_alerts").replace("\\'", "'");
    let query = query.replace("FROM ", "FROM doseline.");
    let sent = rig.clickhouse.query(&format!("SELECT uniqExact(item_id), uniqExact(item_key) FROM ({query})"));
    assert_eq!(sent, "3\t1", "{query}");

    // A string that is not valid is an item of its own, and so is a plain serial number.
    for id in [garbage, "S1"] {
        Facts(&rig).needle(id, "e", 8);
    }
    rig.pass().await;
    let ids = [NEEDLE, garbage, "S1"].map(|id| format!("critical sterility-2/acme/item/{id}"));
    assert_eq!(rig.open(), ids);
    let (verdicts, alerts) = (rig.verdicts(), rig.alerts());
    rig.monitor.start_over();
    let again = rig.pass().await;
    assert!(again.whole && again.verdicts == 0 && again.alerts == 0, "{again:?}");
    assert_eq!((rig.verdicts(), rig.alerts()), (verdicts, alerts));

    let asked = "(01)4012345000017(21)S1";
    assert_eq!(rig.warehouse.tenants_of("ITEM", asked).await.expect("tenants"), ["acme"]);
    let found = trace(&rig.warehouse, "acme", &Subject::Item(asked.to_owned())).await.expect("a trace");
    let tree = found.tree();
    for part in ["-> session a", "-> session c", "-> session d", "also sent as 010401234500001721S1"] {
        assert!(tree.contains(part), "{part} is not in\n{tree}");
    }
    assert_eq!(found.breaches.iter().filter(|breach| breach.rule == 2).count(), 1, "{:?}", found.breaches);
}

/// The column and the function read an id the same way, whatever a scanner made of it.
#[tokio::test(flavor = "multi_thread")]
async fn tables_and_code_agree_on_the_identity_of_an_item() {
    let mut random = rand::rngs::StdRng::seed_from_u64(harness::seed());
    let rig = Rig::start().await;
    let mut rows = String::new();
    for number in 0..1_500 {
        let has_brackets = random.random_bool(0.5);
        let mut id = ["", "", "]d2", "]C1\u{1d}", " ", "x"][random.random_range(0..6)].to_owned();
        let gtin = ["04012345000017", "4012345000017", "96385074", "0401234500001"][random.random_range(0..4)];
        let gtin = if has_brackets { gtin } else { "04012345000017" };
        let mut elements =
            vec![("17", "261231"), ("10", "L1"), ("240", "REF-7"), ("21", "S1"), ("20", "01"), ("91", "INT")];
        elements.retain(|_| random.random_bool(0.6));
        let place = random.random_range(0..=elements.len());
        elements.rotate_left(place);
        elements.insert(0, ("01", gtin));
        for (ai, value) in elements {
            id += &match (has_brackets, ai) {
                (true, _) => format!("({ai}){value}"),
                (false, "01" | "17" | "20") => format!("{ai}{value}"),
                (false, _) => format!("{ai}{value}\u{1d}"),
            };
        }
        if random.random_bool(0.4) {
            let places: Vec<_> = id.char_indices().map(|(at, _)| at).collect();
            id.insert(
                places[random.random_range(0..places.len())],
                [' ', '\u{1d}', '#', '\u{e9}'][random.random_range(0..4)],
            );
        }
        let _ = write!(rows, "('acme', {number}, '{id}', '{}'),", analysis::gs1::item(&id));
    }
    Facts(&rig).insert("mounts", "tenant, seq, item_id, mount_id", rows.trim_end_matches(','));
    let differ = "SELECT item_id, item_key, mount_id FROM doseline.mounts WHERE item_key != mount_id LIMIT 5";
    assert_eq!(rig.clickhouse.query(differ), "", "id, identity by the column, identity by the function");
    let counts = "SELECT count() > 200, uniqExact(item_key) FROM doseline.mounts \
                  WHERE match(item_key, '^\\\\(01\\\\)\\\\d{14}\\\\(21\\\\)S1$')";
    assert_eq!(rig.clickhouse.query(counts), "1\t3", "each product that was written with brackets, once");
}
