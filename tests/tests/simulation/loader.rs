//! The loaders: real owners of the partitions, with rebalances, two owners at once, pauses beyond
//! the lease, and deaths at any call.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use load::{
    batch::{DecodeRules, Refusal},
    clock::Clock,
    copies::Copies,
    decode::{Place, TopicKind},
    inbox::{Outlet, inbox},
    lease::{Lease, Pulse},
    options::Limits,
    owner::{Owner, Shared, Stop},
    simulation::{engine::Engine, meter},
    store::Store as _,
};
use rdkafka::error::KafkaError;
use telemetry::plausibility::{Plausibility, Range, Ranges};
use tokio::{sync::Semaphore, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use warehouse::loader::Shard;

use crate::{
    bug::{Bug, Client},
    chance::Chance,
    kafka::{Kafka, LOGS, Log, PARTITIONS},
};

/// A partition gets another owner if the group has not heard of its owner for this time. A paused
/// owner stops writing at that time.
pub const SESSION: Duration = Duration::from_secs(2);
pub const PAUSE_MS: u64 = 5_000;

/// Virtual time. Days pass quickly, so that some batches span midnight.
pub struct VirtualClock(pub Instant);

impl Clock for VirtualClock {
    fn unix_us(&self) -> i64 {
        1_700_000_000_000_000 + self.since_host_boot().as_micros() as i64 * 10_000
    }

    fn since_host_boot(&self) -> Duration {
        // The machine has been running for a while.
        Duration::from_secs(1_000) + self.0.elapsed()
    }
}

/// Copies refused records. Sometimes a copy is not accepted.
#[derive(Clone)]
struct Copier {
    copies: Arc<Mutex<Vec<Refusal>>>,
    engine: Engine,
    calm: bool,
}

impl Copies for Copier {
    async fn confirm(&self, refusals: &[Refusal]) -> Result<(), KafkaError> {
        if refusals.is_empty() {
            return Ok(());
        }
        let wait = self.engine.below(30);
        tokio::time::sleep(Duration::from_millis(wait)).await;
        if !self.calm && self.engine.below(10) == 0 {
            return Err(KafkaError::Canceled);
        }
        service::lock(&self.copies).extend_from_slice(refusals);
        Ok(())
    }
}

struct Running {
    log: Log,
    task: JoinHandle<Stop>,
    revoked: CancellationToken,
    pulse: Arc<Pulse>,
    client: Client,
    outlet: Outlet,
    /// The offset at which it started, once known; later the next record that it gets.
    next: Arc<Mutex<Option<u64>>>,
    /// When the group last heard of it.
    heard: Instant,
    /// The owner is killed at this time at the latest, like a crash in the middle of a call.
    until: Option<Instant>,
}

/// All loaders of the group.
pub struct Loaders {
    pub engine: Engine,
    bug: Option<Bug>,
    clock: Arc<VirtualClock>,
    running: Vec<Running>,
    copies: Arc<Mutex<Vec<Refusal>>>,
    commits: Arc<Mutex<BTreeMap<Log, u64>>>,
    /// Whether owners pause beyond their lease. Without pauses, every write of an owner follows
    /// soon after its check.
    pauses: bool,
    nonce: u64,
    narrow: bool,
}

/// The shard of a log.
pub fn shard(log: Log) -> Shard {
    match log {
        Log::Reports(partition) => Shard { incarnation: 1, partition },
        Log::Quarantine => Shard { incarnation: 2, partition: 0 },
    }
}

fn place(log: Log) -> Place {
    match log {
        Log::Reports(partition) => Place { kind: TopicKind::Reports, partition, partitions: PARTITIONS },
        Log::Quarantine => Place { kind: TopicKind::Quarantine, partition: 0, partitions: 1 },
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

impl Loaders {
    pub fn new(engine: Engine, bug: Option<Bug>, pauses: bool) -> Self {
        Self {
            engine,
            bug,
            clock: Arc::new(VirtualClock(Instant::now())),
            running: Vec::new(),
            copies: Arc::default(),
            commits: Arc::default(),
            pauses,
            nonce: 0,
            narrow: false,
        }
    }

    /// Whether everything in Kafka is written.
    pub fn is_idle(&self, kafka: &Kafka) -> bool {
        let written = |log: &Log| self.engine.position(shard(*log)).unwrap_or(0) == kafka.log(*log).len() as u64;
        service::lock(&self.copies).is_empty() && LOGS.iter().all(written)
    }

    /// One step: owners end, start, pause, continue and get records.
    pub async fn step(&mut self, now: Instant, chance: &mut Chance, kafka: &mut Kafka) -> Result<(), String> {
        for refusal in service::lock(&self.copies).drain(..) {
            kafka.copy(refusal);
        }
        kafka.commits.clone_from(&service::lock(&self.commits));
        self.reap(now, chance).await?;
        for log in LOGS {
            // An owner that the group has not heard of for the session time has lost its partition,
            // but does not know it yet.
            let owners = self.running.iter().filter(|owner| owner.log == log && owner.heard + SESSION >= now).count();
            // Sometimes a second owner starts: a rebalance that the first owner has not noticed
            // yet.
            let wanted = if chance.mishap(60) { 2 } else { 1 };
            if owners < wanted && (!kafka.log(log).is_empty() || chance.calm) {
                let owner = self.start(now, log, chance, kafka);
                self.running.push(owner);
            }
        }
        for owner in &self.running {
            let mut next = service::lock(&owner.next);
            if let Some(next) = next.as_mut() {
                for record in kafka.log(owner.log).iter().skip(*next as usize) {
                    owner.outlet.push(record.clone());
                    *next += 1;
                }
            }
        }
        Ok(())
    }

    async fn reap(&mut self, now: Instant, chance: &mut Chance) -> Result<(), String> {
        let mut left = Vec::new();
        for mut owner in std::mem::take(&mut self.running) {
            if owner.task.is_finished() {
                match owner.task.await {
                    Ok(Stop::Lapsed | Stop::Overtaken) => chance.note(("ended", owner.log)),
                    Ok(Stop::Fatal(error)) => return Err(error.to_string()),
                    Err(error) => return Err(format!("owner: {error}")),
                }
                continue;
            }
            if owner.until.is_some_and(|until| until <= now) {
                owner.task.abort();
                continue;
            }
            if !owner.client.engine.is_frozen() {
                owner.heard = now;
                if !owner.pulse.beat() || chance.mishap(120) {
                    owner.revoked.cancel();
                }
                if self.pauses && chance.mishap(80) {
                    owner.client.engine.freeze(now + chance.within(PAUSE_MS));
                }
            }
            left.push(owner);
        }
        self.running = left;
        Ok(())
    }

    fn start(&mut self, now: Instant, log: Log, chance: &mut Chance, kafka: &Kafka) -> Running {
        // Loaders with different configurations never work together for longer than the session
        // time, because the old ones were ended.
        if chance.mishap(6) {
            self.narrow = !self.narrow;
            self.running.iter().for_each(|other| other.revoked.cancel());
        }
        let dies = chance.mishap(3).then(|| (chance.below(30), chance.once_in(2)));
        let limits = Limits {
            rows_max: 1 + chance.below(20) as usize,
            age_max: Duration::from_millis(1 + chance.below(100)),
            ledger_cache_boots: 1 + chance.below(6) as usize,
            inserts_max: 1 + chance.below(4) as usize,
            ..Limits::default()
        };
        let client = Client::new(self.engine.connect(dies), self.bug, self.pauses && !chance.calm);
        let copies = Copier { copies: self.copies.clone(), engine: self.engine.clone(), calm: chance.calm };
        let shared = Arc::new(Shared {
            store: client.clone(),
            copies,
            rules: rules(self.narrow),
            limits,
            session_timeout: SESSION,
            clock: self.clock.clone(),
            instance: "simulated".to_owned(),
            room: Semaphore::new(limits.rows_in_memory_max()),
            turns: Semaphore::new(limits.batches_max),
        });
        self.nonce += 1;
        chance.note(("start", log, self.nonce, self.narrow));
        let revoked = CancellationToken::new();
        let pulse = Arc::new(Pulse::new(self.clock.clone(), SESSION));
        let lease = Lease::new(pulse.clone(), revoked.clone(), CancellationToken::new());
        let (outlet, inbox) = inbox();
        let next = Arc::new(Mutex::new(None));
        let committed = (self.bug == Some(Bug::TrustTheCommits)).then(|| kafka.commits.get(&log).copied().unwrap_or(0));
        let (nonce, clock, commits) = (self.nonce, self.clock.clone(), self.commits.clone());
        let (begun, store) = (next.clone(), client.engine.clone());
        let task = tokio::spawn(async move {
            let position = loop {
                match store.progress(shard(log)).await {
                    Ok(progress) => break committed.or(progress.position()).unwrap_or(0),
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            };
            *service::lock(&begun) = Some(position);
            let meter = meter(limits, clock, "simulated", shard(log).partition, position);
            let owner = Owner::new(shared, shard(log), place(log), lease, position, nonce, meter);
            // Nothing fences a commit to the group. An owner that was overtaken also commits, which
            // moves the group's offset back.
            let committed = move |position| {
                service::lock(&commits).insert(log, position);
            };
            owner.run(inbox, committed).await
        });
        let until = (!chance.calm).then(|| now + chance.within(8_000));
        Running { log, task, revoked, pulse, client, outlet, next, heard: now, until }
    }

    /// Afterwards no owner is left that could write.
    pub fn end(&mut self) {
        self.running.drain(..).for_each(|owner| owner.task.abort());
    }
}
