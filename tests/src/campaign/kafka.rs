//! Faults of Kafka.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rand::Rng;

use super::faults::{Outcome, Random};
use super::gateway::holds;
use super::stage::{RECOVERED_WITHIN, REPORTS, STOPPED_WITHIN, Stage, TOPICS};
use crate::poll;
use crate::usage::rss_kib;

const RECEIPTS: &str = "doseline_bridge_receipts_total";
/// Allowed growth of a bridge while Kafka accepts nothing: its limit of unconfirmed payloads and as
/// much again, KiB.
const GROWTH_KIB_MAX: f64 = 48.0 * 1024.0;
/// A bridge reports that Kafka confirms nothing when a message has waited for 5 s.
const UNREADY_WITHIN: Duration = Duration::from_secs(180);

fn once(recovery_s: f64) -> Outcome {
    Outcome { times: 1, recovery_s }
}

pub fn leader_killed(stage: &mut Stage, random: &mut Random) -> Outcome {
    let partition = random.random_range(0..usize::try_from(stage.setting.partitions).expect("a few"));
    let leader = stage.kafka.leader(REPORTS, partition);
    let began = Instant::now();
    stage.kafka.node(leader).kill();
    stage.recovered();
    let recovery_s = began.elapsed().as_secs_f64();
    stage.kafka.start_again();
    stage.kafka.wait_until_in_sync(&TOPICS);
    stage.recovered();
    once(recovery_s)
}

/// Two of three nodes die: no receipt is sent, memory stays flat, `/readyz` gives the reason. Then
/// everything drains.
pub fn below_min_insync(stage: &mut Stage, random: &mut Random) -> Outcome {
    let survivor = random.random_range(0..3);
    let others: Vec<_> = (0..3).filter(|node| *node != survivor).collect();
    others.iter().for_each(|node| stage.kafka.node(*node).kill());
    let receipts = |stage: &Stage| -> Result<f64, String> {
        stage.bridges.iter().flatten().map(|role| role.metric(RECEIPTS).map_err(|error| error.to_string())).sum()
    };
    let memory = |stage: &mut Stage| -> Vec<f64> {
        stage.bridges.iter_mut().flatten().filter_map(|role| rss_kib(role.id())).collect()
    };
    // Records that the cluster had confirmed still get their receipts.
    let sent = poll(RECOVERED_WITHIN, "the last receipts for what Kafka had confirmed", || {
        let before = receipts(stage)?;
        sleep(Duration::from_secs(2));
        let sent = receipts(stage)?;
        if sent == before { Ok(sent) } else { Err(format!("{} within 2 s", sent - before)) }
    });
    let resident = memory(stage);
    let mut said = Vec::new();
    let unready = holds(UNREADY_WITHIN, || {
        said = stage.bridges.iter().flatten().filter_map(|role| role.get("/readyz").ok()).collect();
        !said.is_empty() && said.iter().all(|(ready, text)| !ready && text.contains("kafka"))
    });
    assert!(unready, "bridges do not say that Kafka confirms nothing: {said:?}");
    sleep(Duration::from_secs(4));
    let now = poll(RECOVERED_WITHIN, "the bridges' receipts", || receipts(stage));
    assert_eq!(now, sent, "a receipt was sent while Kafka could not confirm");
    for (before, after) in resident.iter().zip(memory(stage)) {
        assert!(after - before < GROWTH_KIB_MAX, "a bridge grew from {before} to {after} KiB");
    }
    let began = Instant::now();
    stage.kafka.start_again();
    stage.recovered();
    let recovery_s = began.elapsed().as_secs_f64();
    stage.kafka.wait_until_in_sync(&TOPICS);
    once(recovery_s)
}

/// One partition has one copy for a while, fewer than it needs. It accepts nothing, and the others
/// continue.
pub fn partition_stalled(stage: &mut Stage, random: &mut Random) -> Outcome {
    let partition = random.random_range(0..stage.setting.partitions);
    stage.kafka.reassign(REPORTS, partition, &[1]);
    sleep(Duration::from_secs(60));
    let began = Instant::now();
    stage.kafka.reassign(REPORTS, partition, &[1, 2, 3]);
    stage.kafka.wait_until_in_sync(&TOPICS);
    stage.recovered();
    once(began.elapsed().as_secs_f64())
}

/// Kafka's commits only serve people who watch the lag. If they are set to 0, nothing happens,
/// whether loaders run or not.
///
/// Kafka refuses another program's commit while the group has members. It accepts it while there
/// are none. That is also the case for moments of a rebalance, when all sessions have ended and no
/// loader has joined again. So while loaders run, both answers are right. After both, loaders must
/// continue from the positions in ClickHouse.
pub fn offsets_reset(stage: &mut Stage, _: &mut Random) -> Outcome {
    stage.watch.ignore_commits();
    if stage.observer.rewind().is_ok() {
        eprintln!(
            "campaign:            the group had no members for a moment: its commits were set to 0 beside its loaders"
        );
    }
    stage.recovered();
    for slot in 0..stage.loaders.len() {
        if let Some(mut role) = stage.loaders[slot].take() {
            role.doseline.stop(STOPPED_WITHIN);
        }
    }
    poll(RECOVERED_WITHIN, "the offsets of a group without members to be set", || stage.observer.rewind());
    let committed = poll(RECOVERED_WITHIN, "what the group has committed", || stage.observer.committed());
    assert!(committed.values().all(|offset| *offset == 0), "{committed:?}");
    stage.watch.watch_commits();
    stage.start_regular_loaders();
    once(stage.recovered())
}
