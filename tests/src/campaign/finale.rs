//! What comes after the last comparison, because it loses records on purpose or spoils what stands: retention that passed,
//! a topic that was made again, and the proof that the oracle sees what is wrong.

use std::time::{Duration, Instant};

use super::report::Row;
use super::stage::{REPORTS, Stage};
use super::{Findings, fleet::Load};
use crate::poll;

const WITHIN: Duration = Duration::from_secs(90);
const STOPPED_WITHIN: Duration = Duration::from_secs(40);
/// What a loader says that cannot go on, or had to go on without records.
const RETENTION: [&str; 2] = ["retention has passed", "recorded as lost"];
const MADE_AGAIN: &str = "made again";

fn row(name: &'static str, what: &'static str, began: Instant) -> Row {
    Row { times: 1, recoveries: vec![began.elapsed().as_secs_f64()], ..Row::new(name, what) }
}

/// While loaders are away, Kafka deletes what they have not read: detected and said, never silent.
pub fn retention_passed(stage: &mut Stage) -> Row {
    stop_loaders(stage);
    stage.last_load(Load { chapter: Duration::from_secs(3), ..stage.setting.load });
    let ends = stage.observer.ends().expect("kafka is well");
    stage.kafka.delete_records(&ends.into_iter().filter(|((topic, _), _)| topic == REPORTS).collect());
    let began = Instant::now();
    stage.start_regular_loaders();
    detected(stage, "the loss of records", &RETENTION);
    row("retention-passed", "retention passed: detected", began)
}

/// A topic that was deleted and created is noticed.
pub fn topic_recreated(stage: &mut Stage) -> Row {
    stop_loaders(stage);
    let began = Instant::now();
    stage.kafka.delete_topic(REPORTS);
    // The name is free when every node has forgotten it.
    poll(WITHIN, "the topic to be gone", || match stage.observer.ends() {
        Err(_) => Ok(()),
        Ok(_) => Err("it is there"),
    });
    stage.kafka.create_topic(REPORTS, stage.setting.partitions, &[("min.insync.replicas", "2")]);
    stage.start_regular_loaders();
    detected(stage, "the new topic", &[MADE_AGAIN]);
    row("topic-recreated", "topic recreated: detected", began)
}

/// Waits until a loader has said one of these, whether it goes on or ends.
fn detected(stage: &mut Stage, what: &str, words: &[&str]) {
    poll(WITHIN, &format!("{what} to be detected"), || {
        let said: Vec<_> = stage.loaders.iter().flatten().map(|role| role.doseline.stderr()).collect();
        match said.iter().any(|said| words.iter().any(|word| said.contains(word))) {
            true => Ok(()),
            false => Err(said.iter().filter_map(|said| said.lines().last()).collect::<Vec<_>>().join(" / ")),
        }
    });
}

fn stop_loaders(stage: &mut Stage) {
    for slot in 0..stage.loaders.len() {
        // One that has ended for what was done to it before is gone already.
        if let Some(mut role) = stage.loaders[slot].take() {
            role.doseline.stop(STOPPED_WITHIN);
        }
    }
}

/// An oracle that cannot find anything proves nothing: each kind of damage is done, and must be found.
///
/// # Panics
/// If one is not.
pub fn prove_oracle(stage: &mut Stage) {
    let table = "doseline.injections";
    let one = |nth: u32| {
        format!(
            "(tenant, device, boot_id, seq) IN (SELECT tenant, device, boot_id, seq FROM oracle.truth WHERE \
             fate = 'stored' AND kind = 'injection' AND delivered_nl > 0 ORDER BY cityHash64(boot_id, seq) LIMIT 1 OFFSET {nth})"
        )
    };
    let sync = "SETTINGS mutations_sync = 2, allow_nondeterministic_mutations = 1";
    let damages: [(&str, String, fn(&Findings) -> u64); 5] = [
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
