//! Kafka deletes records of a batch that is being written: an owner dies at each of its calls in
//! turn, and the next owner no longer gets the first records.

use std::{sync::Arc, time::Duration};

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};
use rdkafka::error::KafkaError;
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;
use warehouse::{columns::LossCause, loader::Shard};

use super::{
    engine::Engine,
    log::{Log, generate},
    truth::check,
    world::VirtualClock,
};
use crate::{
    batch::{DecodeRules, Refusal},
    copies::Copies,
    decode::{Place, TopicKind},
    inbox::inbox,
    lease::{Lease, Pulse},
    options::Limits,
    owner::{Owner, Shared, Stop},
    status::Handle,
};

pub const SHARD: Shard = Shard { incarnation: 1, partition: 0 };
/// First offset that Kafka still has when the second owner starts.
const LOW: u64 = 9;

pub struct NoCopies;

impl Copies for NoCopies {
    async fn confirm(&self, _refusals: &[Refusal]) -> Result<(), KafkaError> {
        Ok(())
    }
}

/// An owner of the records from `read_from` on.
pub fn owner(
    engine: Engine,
    clock: Arc<VirtualClock>,
    position: u64,
    read_from: u64,
) -> (Arc<Shared<Engine, NoCopies>>, Owner<Engine, NoCopies>) {
    let limits = Limits { rows_max: 20, age_max: Duration::from_millis(20), ..Limits::default() };
    let meter = Handle::new(limits, clock.clone()).meter("reports", 0, position);
    let shared = Arc::new(Shared {
        store: engine,
        copies: NoCopies,
        rules: DecodeRules::new(
            telemetry::plausibility::Plausibility::default(),
            telemetry::device_time::Limits::default(),
        ),
        limits,
        session_timeout: Duration::from_secs(2),
        clock: clock.clone(),
        instance: "simulated".to_owned(),
        room: Semaphore::new(limits.rows_in_memory_max()),
        turns: Semaphore::new(limits.batches_max),
    });
    let pulse = Arc::new(Pulse::new(clock, Duration::from_secs(3_600)));
    let lease = Lease::new(pulse, CancellationToken::new(), CancellationToken::new());
    let place = Place { kind: TopicKind::Reports, partition: 0, partitions: 1 };
    let owner = Owner::new(shared.clone(), SHARD, place, lease, position, read_from, meter)
        .reading_from(read_from, LossCause::Deleted);
    (shared, owner)
}

/// Runs it for this long.
async fn own(engine: Engine, clock: Arc<VirtualClock>, log: &Log, position: u64, read_from: u64, time: Duration) {
    let (outlet, inbox) = inbox();
    for record in &log.records[read_from as usize..] {
        outlet.push(record.clone());
    }
    let (_, owner) = owner(engine, clock, position, read_from);
    if let Ok(Stop::Fatal(error)) = tokio::time::timeout(time, owner.run(inbox, |_| ())).await {
        panic!("{error}");
    }
}

/// Virtual time, one thread.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(future)
}

#[test]
fn records_that_are_gone_are_lost_and_nothing_else() {
    let (mut lossy, mut whole) = (0, 0);
    for call in 0..120 {
        let lost = run(async {
            let (engine, clock) = (Engine::new(call), Arc::new(VirtualClock(Instant::now())));
            let mut log = generate(&mut ChaCha8Rng::seed_from_u64(call), 40);
            // An event that was never in quarantine cannot be replayed out of it.
            log.records.iter_mut().for_each(|record| record.headers.others = None);
            let end = log.records.len() as u64;
            let dies = engine.connect(Some((call / 2, call % 2 == 0)));
            own(dies, clock.clone(), &log, 0, 0, Duration::from_secs(3)).await;

            let before = engine.position(SHARD).unwrap_or(0);
            own(engine.connect(None), clock, &log, before, before.max(LOW), Duration::from_secs(30)).await;
            assert_eq!(engine.position(SHARD), Some(end), "call {call}");
            let lost = before..before.max(LOW);
            let is_there = |record: &&crate::inbox::Record| !lost.contains(&record.offset);
            check(&engine, &Log { records: log.records.iter().filter(is_there).cloned().collect() });
            !lost.is_empty()
        });
        if lost { lossy += 1 } else { whole += 1 }
    }
    assert!(lossy > 5 && whole > 5, "{lossy} with losses, {whole} without");
}
