//! Faults of Kafka.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rand::Rng;

use super::faults::{Outcome, Random};
use super::gateway::holds;
use super::stage::{REPORTS, Stage, TOPICS, metric};
use crate::usage::rss_kib;

const RECEIPTS: &str = "doseline_bridge_receipts_total";
/// What a bridge may take on top while Kafka stands still: its limit of unconfirmed payloads and as much again, KiB.
const GROWTH_KIB_MAX: f64 = 48.0 * 1024.0;

fn once(recovery_s: f64) -> Outcome {
    Outcome { times: 1, recovery_s }
}

pub fn leader_killed(stage: &mut Stage, random: &mut Random) -> Outcome {
    let partition = random.random_range(0..usize::try_from(stage.setting.partitions).expect("a few"));
    let leader = stage.kafka.leader(REPORTS, partition).expect("a partition has a leader");
    let began = Instant::now();
    stage.kafka.node(leader).kill();
    stage.recovered();
    let recovery_s = began.elapsed().as_secs_f64();
    stage.kafka.start_again();
    stage.kafka.wait_until_in_sync(&TOPICS);
    stage.recovered();
    once(recovery_s)
}

/// Two of three nodes die: no receipt is sent, memory stays flat, `/readyz` says why; then everything drains.
pub fn below_min_insync(stage: &mut Stage, random: &mut Random) -> Outcome {
    let survivor = random.random_range(0..3);
    let others: Vec<_> = (0..3).filter(|node| *node != survivor).collect();
    others.iter().for_each(|node| stage.kafka.node(*node).kill());
    // What the cluster had confirmed before gets its receipt still.
    sleep(Duration::from_secs(2));
    let receipts = |stage: &Stage| -> f64 { stage.bridges.iter().flatten().map(|role| metric(role, RECEIPTS)).sum() };
    let memory = |stage: &mut Stage| -> Vec<f64> {
        stage.bridges.iter_mut().flatten().filter_map(|role| rss_kib(role.id())).collect()
    };
    let (sent, resident) = (receipts(stage), memory(stage));
    let mut said = Vec::new();
    let unready = holds(Duration::from_secs(60), || {
        said = stage.bridges.iter().flatten().filter_map(|role| role.get("/readyz").ok()).collect();
        !said.is_empty() && said.iter().all(|(ready, text)| !ready && text.contains("kafka"))
    });
    assert!(unready, "bridges do not say that Kafka confirms nothing: {said:?}");
    sleep(Duration::from_secs(4));
    assert_eq!(receipts(stage), sent, "a receipt was sent while Kafka could not confirm");
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

/// One partition has one copy for a while, fewer than it needs: nothing goes into it, the others go on.
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

/// Kafka's commits serve nobody but who watches the lag: set to 0, nothing happens. While the group has members Kafka
/// refuses it.
pub fn offsets_reset(stage: &mut Stage, _: &mut Random) -> Outcome {
    let refused = stage.observer.rewind();
    assert!(refused.is_err(), "Kafka lets somebody else commit for a running group");
    for slot in 0..stage.loaders.len() {
        if let Some(mut role) = stage.loaders[slot].take() {
            role.doseline.stop(Duration::from_secs(40));
        }
    }
    stage.watch.forget_offsets();
    let mut last = String::new();
    let rewound = holds(Duration::from_secs(60), || match stage.observer.rewind() {
        Ok(()) => true,
        Err(error) => {
            last = error;
            false
        }
    });
    assert!(rewound, "the group's offsets cannot be set: {last}");
    let committed = stage.observer.committed().expect("kafka is well");
    assert!(committed.values().all(|offset| *offset == 0), "{committed:?}");
    stage.watch.forget_offsets();
    stage.start_regular_loaders();
    once(stage.recovered())
}
