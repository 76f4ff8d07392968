//! One seed: owners start, die, are paused and overtaken, until the log is written.

use std::{sync::Arc, time::Duration};

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};
use rdkafka::error::KafkaError;
use telemetry::plausibility::{Plausibility, Range, Ranges};
use tokio::{sync::Semaphore, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use warehouse::loader::Shard;

use super::{
    engine::{Engine, Fault},
    log::{Log, generate},
    truth::check,
};
use crate::{
    batch::{DecodeRules, Refusal},
    clock::Clock,
    copies::Copies,
    decode::{Place, TopicKind},
    inbox::inbox,
    lease::{Lease, Pulse},
    options::Limits,
    owner::{Owner, Shared, Stop},
    status::Handle,
    store::Store as _,
};

const SHARD: Shard = Shard { incarnation: 1, partition: 0 };
const SESSION: Duration = Duration::from_secs(2);
/// More virtual time than any seed needs.
const LONGEST: Duration = Duration::from_secs(3_600);

/// Virtual time. Days pass quickly, so that some batches begin around midnight.
pub struct VirtualClock(pub Instant);

impl Clock for VirtualClock {
    fn unix_us(&self) -> i64 {
        1_700_000_000_000_000 + self.since_host_boot().as_micros() as i64 * 10_000
    }

    fn since_host_boot(&self) -> Duration {
        // The machine has run for some time already.
        Duration::from_secs(1_000) + self.0.elapsed()
    }
}

struct NoCopies;

impl Copies for NoCopies {
    async fn confirm(&self, _refusals: &[Refusal]) -> Result<(), KafkaError> {
        Ok(())
    }
}

/// Two configurations that quarantine different events.
fn rules(narrow: bool) -> DecodeRules {
    let mut plausibility = Plausibility::default();
    if narrow {
        let ranges = Ranges { depth_um: Range(0, 10_000), ..Ranges::default() };
        plausibility.models.insert("pen".to_owned(), ranges);
    }
    DecodeRules::new(plausibility, telemetry::device_time::Limits::default())
}

struct Running {
    task: JoinHandle<Stop>,
    revoked: CancellationToken,
    /// Killed at this time at the latest, as by a crash in the middle of a call.
    until: Instant,
}

struct World {
    engine: Engine,
    log: Log,
    clock: Arc<VirtualClock>,
    nonce: u64,
    narrow: bool,
}

/// Runs one seed. Returns how often each failure occurred, and the number of events that replays
/// have released.
pub async fn world(seed: u64) -> (std::collections::BTreeMap<Fault, u64>, usize) {
    let engine = Engine::new(seed);
    let log = generate(&mut ChaCha8Rng::seed_from_u64(!seed), 20 + (seed % 30) as usize);
    engine.trouble([0, 50, 150, 300][(seed % 4) as usize]);
    let mut world = World { engine, log, clock: Arc::new(VirtualClock(Instant::now())), nonce: 0, narrow: false };
    world.run().await;
    let released = check(&world.engine, &world.log);
    (world.engine.seen(), released)
}

impl World {
    async fn run(&mut self) {
        let end = self.log.records.len() as u64;
        let mut owners: Vec<Running> = Vec::new();
        while self.position().await != Some(end) {
            assert!(self.clock.0.elapsed() < LONGEST, "stuck at {:?}", self.position().await);
            // Sometimes a second owner starts: a rebalance that the first has not noticed yet.
            let wanted = if self.engine.below(4) == 0 { 2 } else { 1 };
            while owners.len() < wanted {
                let owner = self.start(&owners).await;
                owners.push(owner);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            self.reap(&mut owners).await;
        }
        for owner in owners {
            owner.task.abort();
        }
        // Late writes must change nothing.
        tokio::time::sleep(Duration::from_secs(5)).await;
        self.position().await;
    }

    /// Other partitions take all turns for some time.
    fn take_turns(&self, shared: &Arc<Shared<Engine, NoCopies>>) {
        let (shared, taken) = (shared.clone(), Duration::from_millis(self.engine.below(3_000)));
        tokio::spawn(async move {
            let _turns = shared.turns.acquire_many(shared.limits.batches_max as u32).await;
            tokio::time::sleep(taken).await;
        });
    }

    async fn position(&self) -> Option<u64> {
        let calm = self.engine.connect(None);
        loop {
            if let Ok(progress) = calm.progress(SHARD).await {
                return progress.position();
            }
        }
    }

    /// Removes owners that have ended or have to die.
    async fn reap(&mut self, owners: &mut Vec<Running>) {
        let mut left = Vec::new();
        for owner in owners.drain(..) {
            if owner.task.is_finished() {
                match owner.task.await.unwrap() {
                    Stop::Lapsed | Stop::Overtaken => {}
                    Stop::Fatal(error) => panic!("{error}"),
                }
            } else if Instant::now() > owner.until {
                owner.task.abort();
            } else {
                if self.engine.below(40) == 0 {
                    owner.revoked.cancel();
                }
                left.push(owner);
            }
        }
        *owners = left;
    }

    async fn start(&mut self, others: &[Running]) -> Running {
        // Owners of two configurations never run at once for longer than the session time-out: the
        // old ones have been revoked.
        if self.engine.below(4) == 0 {
            self.narrow = !self.narrow;
            others.iter().for_each(|other| other.revoked.cancel());
        }
        let position = self.position().await.unwrap_or(0);
        let dies = (self.engine.below(2) == 0).then(|| (self.engine.below(30), self.engine.below(2) == 0));
        let limits = Limits {
            rows_max: 1 + self.engine.below(20) as usize,
            age_max: Duration::from_millis(1 + self.engine.below(100)),
            ledger_cache_boots: 1 + self.engine.below(4) as usize,
            ..Limits::default()
        };
        let shared = Arc::new(Shared {
            store: self.engine.connect(dies),
            copies: NoCopies,
            rules: rules(self.narrow),
            limits,
            session_timeout: SESSION,
            clock: self.clock.clone(),
            instance: "simulated".to_owned(),
            room: Semaphore::new(limits.rows_in_memory_max()),
            turns: Semaphore::new(limits.batches_max),
        });
        self.take_turns(&shared);
        self.nonce += 1;
        let (revoked, draining) = (CancellationToken::new(), CancellationToken::new());
        // No thread polls here: a revocation takes the place of a lost pulse.
        let pulse = Arc::new(Pulse::new(self.clock.clone(), LONGEST));
        let lease = Lease::new(pulse, revoked.clone(), draining);
        let place = Place { kind: TopicKind::Reports, partition: 0, partitions: 1 };
        let meter = Handle::new(limits, self.clock.clone()).meter("reports", 0, position);
        let owner = Owner::new(shared, SHARD, place, lease, position, self.nonce, meter);
        let (outlet, inbox) = inbox();
        for record in &self.log.records[position as usize..] {
            outlet.push(record.clone());
        }
        let task = tokio::spawn(async move {
            let _open = outlet;
            owner.run(inbox, |_| ()).await
        });
        let until = Instant::now() + Duration::from_millis(self.engine.below(8_000));
        Running { task, revoked, until }
    }
}
