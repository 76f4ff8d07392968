//! Faults after the last comparison, because they lose records or damage rows on purpose. They are
//! retention that has passed, a topic that is created again, and the proof that the oracle finds
//! damage.

use std::time::{Duration, Instant};

use super::report::Row;
use super::stage::{RECOVERED_WITHIN, REPORTS, STOPPED_WITHIN, Stage};
use super::{Findings, fleet::Load};
use crate::committed::positions;
use crate::{Doseline, poll};

const WITHIN: Duration = Duration::from_secs(300);

/// A fault that loses records by its nature. It strikes once, after everything was compared.
pub struct Last {
    /// Its name for `--faults`.
    pub name: &'static str,
    /// Its description in the table.
    pub what: &'static str,
    inject: fn(&mut Stage),
}

/// These faults, in their order.
pub const LAST: [Last; 2] = [
    Last {
        name: "retention-passed",
        what: "retention passed: each lost record reported, the rest loaded",
        inject: retention_passed,
    },
    Last {
        name: "topic-recreated",
        what: "topic deleted and created again: reported, read in a new incarnation after migrate",
        inject: topic_recreated,
    },
];

impl Last {
    /// Injects the fault, and asserts its consequences.
    pub fn strike(&self, stage: &mut Stage) -> Row {
        let began = Instant::now();
        (self.inject)(stage);
        Row { times: 1, recoveries: vec![began.elapsed().as_secs_f64()], ..Row::new(self.name, self.what) }
    }
}

fn a_little(stage: &Stage) -> Load {
    Load { chapter: Duration::from_secs(3), ..stage.setting.load }
}

/// While loaders are away, Kafka deletes records that they have not read. Each of them must be in
/// `kafka_losses`, `/readyz` must report it, and later records must be loaded.
fn retention_passed(stage: &mut Stage) {
    for slot in 0..stage.loaders.len() {
        if let Some(mut role) = stage.loaders[slot].take() {
            role.doseline.stop(STOPPED_WITHIN);
        }
    }
    // Not the end of Kafka's records: a report may have been sent again after the last look.
    let written = poll(RECOVERED_WITHIN, "the positions", || positions(&stage.clickhouse));
    stage.last_load(a_little(stage));
    let mut ends = poll(RECOVERED_WITHIN, "the ends of the topics", || stage.observer.ends());
    ends.retain(|(topic, _), _| topic == REPORTS);
    let gone: i64 = ends.iter().map(|(key, end)| end - written.get(key).copied().unwrap_or(0)).sum();
    assert!(gone > 0, "nothing to delete");
    for ((topic, partition), end) in &ends {
        stage.kafka.delete_records(topic, *partition, *end);
    }
    stage.start_regular_loaders();
    said(stage, "has deleted records");
    // A loss is recorded with the batch that follows it.
    let before = stored(stage);
    stage.last_load(a_little(stage));
    stage.wait_until_drained();
    let losses = "SELECT sum(assumeNotNull(records)) FROM doseline.kafka_losses WHERE reason = 'RETENTION'";
    assert_eq!(stage.clickhouse.number(losses), gone.unsigned_abs(), "kafka_losses has the records that were deleted");
    assert!(stored(stage) > before, "what came afterwards is loaded");
}

/// Running loaders notice that a topic was deleted and created again. They read nothing of it until
/// `migrate` has begun its new incarnation.
fn topic_recreated(stage: &mut Stage) {
    stage.kafka.make_again(REPORTS, stage.setting.partitions, &[("min.insync.replicas", "2")]);
    said(stage, "was deleted and created again");
    let migrated = Doseline::run(&["migrate", "--config", &stage.configuration], &[], WITHIN);
    assert_eq!(migrated.code, Some(0), "{}", migrated.stderr);
    let lives = format!("SELECT count() FROM doseline.kafka_topics WHERE topic = '{REPORTS}'");
    assert_eq!(stage.clickhouse.number(&lives), 2, "it has a new life");
    // A producer takes news of the new topic's leaders for older than its own, and uses the old
    // leaders until its records time out. So the bridges are restarted, as the guide says.
    for index in 0..stage.bridges.len() {
        stage.replace_bridge(index);
    }
    let before = stored(stage);
    stage.last_load(a_little(stage));
    stage.wait_until_drained();
    assert!(stored(stage) > before, "the new life is loaded");
}

fn stored(stage: &Stage) -> u64 {
    stage.clickhouse.number("SELECT count() FROM doseline.injections")
}

/// Waits until a loader is not ready for this reason.
fn said(stage: &mut Stage, words: &str) {
    poll(WITHIN, &format!("a loader to say `{words}`"), || {
        stage.assert_all_run();
        let answers: Vec<_> = stage.loaders.iter().flatten().filter_map(|role| role.get("/readyz").ok()).collect();
        match answers.iter().any(|(ready, text)| !ready && text.contains(words)) {
            true => Ok(()),
            false => Err(format!("{answers:?}")),
        }
    });
}

/// A kind of damage: its name, its statement, and the count that must find it.
type Damage<'a> = (&'a str, String, fn(&Findings) -> u64);

/// An oracle that finds nothing proves nothing: each kind of damage is done, and must be found.
///
/// # Panics
/// If the oracle misses one.
pub fn prove_oracle(stage: &mut Stage) {
    let table = "doseline.injections";
    let one = |nth: u32| {
        format!(
            "(tenant, device, boot_id, seq) IN (SELECT tenant, device, boot_id, seq FROM oracle.truth WHERE \
             fate = 'stored' AND kind = 'injection' AND delivered_nl > 0 ORDER BY cityHash64(boot_id, seq) LIMIT 1 OFFSET {nth})"
        )
    };
    let sync = "SETTINGS mutations_sync = 2, allow_nondeterministic_mutations = 1";
    let damages: [Damage<'_>; 5] = [
        ("a row that is gone", format!("ALTER TABLE {table} DELETE WHERE {} {sync}", one(0)), |found| found.lost),
        ("a row that stands twice", format!("INSERT INTO {table} SELECT * FROM {table} WHERE {}", one(1)), |found| {
            found.doubled
        }),
        (
            "a value that changed",
            format!("ALTER TABLE {table} UPDATE delivered_nl = delivered_nl + 1 WHERE {} {sync}", one(2)),
            |found| found.lost,
        ),
        (
            "a sum that is not",
            format!(
                "ALTER TABLE doseline.accuracy_minute UPDATE dose_error_sq = dose_error_sq + 1 WHERE dose_n > 0 AND \
                 cityHash64(device, minute, batch) = (SELECT max(cityHash64(device, minute, batch)) FROM \
                 doseline.accuracy_minute WHERE dose_n > 0) {sync}"
            ),
            |found| found.unequal,
        ),
        (
            "use of an item that was never made",
            "INSERT INTO doseline.item_uses SELECT * FROM doseline.item_uses LIMIT 1".to_owned(),
            |found| found.unequal,
        ),
    ];
    let mut before = stage.oracle.compare_all(&stage.clickhouse, Duration::ZERO);
    for (what, sql, count) in damages {
        stage.clickhouse.query(&sql);
        let after = stage.oracle.compare_all(&stage.clickhouse, Duration::ZERO);
        assert!(count(&after) > count(&before), "the oracle does not see {what}: {before:?}, {after:?}");
        before = after;
    }
}
