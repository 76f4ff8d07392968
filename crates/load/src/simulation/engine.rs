//! A fake ClickHouse: deduplication tokens, commits that are all or nothing, and the failures of the real one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use arrow_array::RecordBatch;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};
use tokio::time::Instant;
use warehouse::{
    Error,
    columns::{Block, LedgerRow, Provenance},
    loader::{BootKey, Intent, LastCommit, Progress, Shard, Tally, token},
};

use crate::store::{Commit, Store};

/// One written block.
#[derive(Clone)]
pub struct Part {
    pub table: &'static str,
    pub batch: Provenance,
    pub generation: u32,
    pub hash: u64,
    pub rows: RecordBatch,
}

#[derive(Default)]
struct Disk {
    tokens: BTreeSet<String>,
    parts: Vec<Part>,
    intents: Vec<Intent>,
    commits: Vec<Commit>,
}

/// A write that may take effect now, later, or never.
#[derive(Clone)]
enum Write {
    Intent(Intent),
    Block(Box<Part>),
    Commit(Box<Commit>),
    Erase(Provenance, u32, u32),
}

/// How a write that does not simply succeed goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Refused, nothing happened.
    Before,
    /// Done, and the answer lost.
    After,
    /// The answer is an error, and the write happens later.
    Zombie,
    /// The engine dies between its deduplication log and the part: the token is there, the rows are not.
    Burn,
    /// The engine dies and restarts; nothing happened.
    Restart,
}

struct Inner {
    disk: Disk,
    random: ChaCha8Rng,
    started: Instant,
    zombies: Vec<(Instant, String, Write)>,
    /// Of 1,000 calls, how many fail.
    trouble: u64,
    seen: BTreeMap<String, u64>,
}

/// The engine. Clones are connections to it.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Mutex<Inner>>,
    /// The connection's owner dies at this call, before or after the effect.
    dies: Arc<Mutex<Option<(u64, bool)>>>,
}

impl Engine {
    pub fn new(seed: u64) -> Self {
        let inner = Inner {
            disk: Disk::default(),
            random: ChaCha8Rng::seed_from_u64(seed),
            started: Instant::now(),
            zombies: Vec::new(),
            trouble: 0,
            seen: BTreeMap::new(),
        };
        Self { inner: Arc::new(Mutex::new(inner)), dies: Arc::default() }
    }

    /// A number below `bound`.
    pub fn below(&self, bound: u64) -> u64 {
        self.inner.lock().unwrap().random.next_u64() % bound
    }

    pub fn trouble(&self, per_mille: u64) {
        self.inner.lock().unwrap().trouble = per_mille;
    }

    /// A connection without failures.
    pub fn calm(&self) -> Self {
        self.trouble(0);
        self.connect(None)
    }

    /// A connection of its own, whose owner may die at a call.
    pub fn connect(&self, dies: Option<(u64, bool)>) -> Self {
        Self { inner: self.inner.clone(), dies: Arc::new(Mutex::new(dies)) }
    }

    pub fn parts(&self) -> Vec<Part> {
        self.inner.lock().unwrap().disk.parts.clone()
    }

    pub fn commits(&self) -> Vec<Commit> {
        self.inner.lock().unwrap().disk.commits.clone()
    }

    /// How often each failure has struck.
    pub fn seen(&self) -> BTreeMap<String, u64> {
        self.inner.lock().unwrap().seen.clone()
    }

    /// What happens around every call: time passes, zombies rise, owners die, calls fail.
    async fn call(&self, write: Option<(String, Write)>) -> Result<(), Error> {
        let wait = self.below(20);
        tokio::time::sleep(Duration::from_millis(wait)).await;
        let dies = {
            let mut dies = self.dies.lock().unwrap();
            match &mut *dies {
                Some((0, after)) => Some(*after),
                Some((calls, _)) => {
                    *calls -= 1;
                    None
                }
                None => None,
            }
        };
        if dies == Some(false) {
            return std::future::pending().await;
        }
        let result = self.inner.lock().unwrap().execute(write);
        if dies == Some(true) {
            return std::future::pending().await;
        }
        let wait = self.below(20);
        tokio::time::sleep(Duration::from_millis(wait)).await;
        result
    }
}

fn unreachable() -> Error {
    Error::Unreachable { url: "fake".to_owned(), detail: "simulated".to_owned() }
}

impl Inner {
    fn execute(&mut self, write: Option<(String, Write)>) -> Result<(), Error> {
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.zombies).into_iter().partition(|(at, ..)| *at <= now);
        self.zombies = later;
        let due: Vec<(Instant, String, Write)> = due;
        for (_, token, write) in due {
            self.apply(&token, write);
        }
        let Some(fault) = self.fault() else {
            if let Some((token, write)) = write {
                self.apply(&token, write);
            }
            return Ok(());
        };
        *self.seen.entry(format!("{fault:?}")).or_default() += 1;
        match (fault, write) {
            (Fault::Before, _) | (_, None) => {}
            (Fault::After, Some((token, write))) => self.apply(&token, write),
            (Fault::Zombie, Some((token, write))) => {
                let later = now + Duration::from_millis(self.random.next_u64() % 3_000);
                self.zombies.push((later, token, write));
            }
            (Fault::Burn, Some((token, _))) => {
                self.disk.tokens.insert(token);
                self.restart();
            }
            (Fault::Restart, Some(_)) => self.restart(),
        }
        Err(unreachable())
    }

    /// What was in flight dies with the engine.
    fn restart(&mut self) {
        self.started = Instant::now();
        self.zombies.clear();
    }

    fn fault(&mut self) -> Option<Fault> {
        if self.random.next_u64() % 1_000 >= self.trouble {
            return None;
        }
        let faults = [Fault::Before, Fault::After, Fault::Zombie, Fault::Burn, Fault::Restart];
        Some(faults[(self.random.next_u64() % 5) as usize])
    }

    fn apply(&mut self, token: &str, write: Write) {
        let disk = &mut self.disk;
        if let Write::Erase(batch, fenced, below) = write {
            for table in warehouse::columns::TABLES {
                disk.tokens.insert(warehouse::loader::token(batch, table, fenced));
            }
            disk.parts.retain(|part| part.batch != batch || part.generation >= below);
            return;
        }
        if !disk.tokens.insert(token.to_owned()) {
            return;
        }
        match write {
            Write::Intent(intent) => disk.intents.push(intent),
            Write::Block(part) => disk.parts.push(*part),
            Write::Commit(commit) => disk.commits.push(*commit),
            Write::Erase(..) => {}
        }
    }
}

impl Store for Engine {
    async fn progress(&self, shard: Shard) -> Result<Progress, Error> {
        self.call(None).await?;
        let inner = self.inner.lock().unwrap();
        let of = |commit: &&Commit| shard_of(commit.committed.provenance) == shard;
        let last = inner
            .disk
            .commits
            .iter()
            .filter(of)
            .map(|commit| commit.committed)
            .max_by_key(|committed| (committed.batch_end, committed.generation, committed.provenance.batch));
        let commit = last.map(|last| LastCommit {
            batch: last.provenance.batch,
            batch_end: last.batch_end,
            generation: last.generation,
        });
        let from = commit.map_or(0, |commit| commit.batch);
        Ok(Progress { commit, intents: inner.intents(shard, |batch| batch >= from) })
    }

    async fn intents(&self, shard: Shard, batch: u64) -> Result<Vec<Intent>, Error> {
        self.call(None).await?;
        Ok(self.inner.lock().unwrap().intents(shard, |first| first == batch))
    }

    async fn put_intent(&self, intent: &Intent, _now: i64) -> Result<(), Error> {
        let token = token(intent.provenance(), "loader_intents", intent.generation);
        self.call(Some((token, Write::Intent(intent.clone())))).await
    }

    async fn ledgers(&self, shard: Shard, as_of: u64, keys: &[BootKey]) -> Result<Vec<LedgerRow>, Error> {
        self.call(None).await?;
        let inner = self.inner.lock().unwrap();
        let mut states: BTreeMap<BootKey, ((u64, u32), LedgerRow)> = BTreeMap::new();
        for commit in &inner.disk.commits {
            let committed = commit.committed;
            if shard_of(committed.provenance) != shard || committed.batch_end > as_of {
                continue;
            }
            for row in &commit.ledgers {
                let key = BootKey { tenant: row.tenant.clone(), device: row.device.clone(), boot_id: row.boot_id };
                let age = (committed.batch_end, committed.generation);
                if keys.contains(&key) && states.get(&key).is_none_or(|(known, _)| *known <= age) {
                    states.insert(key, (age, row.clone()));
                }
            }
        }
        Ok(states.into_values().map(|(_, row)| row).collect())
    }

    async fn insert(&self, block: &Block, generation: u32) -> Result<(), Error> {
        let part = Part {
            table: block.table(),
            batch: block.provenance(),
            generation,
            hash: block.hash(),
            rows: block.record_batch(generation)?,
        };
        let token = token(block.provenance(), block.table(), generation);
        self.call(Some((token, Write::Block(Box::new(part))))).await
    }

    async fn tallies(&self, tables: &[&str], batch: Provenance) -> Result<Vec<Tally>, Error> {
        self.call(None).await?;
        let inner = self.inner.lock().unwrap();
        let mut tallies: BTreeMap<(&str, u32, u64), u64> = BTreeMap::new();
        for part in inner.disk.parts.iter().filter(|part| part.batch == batch && tables.contains(&part.table)) {
            *tallies.entry((part.table, part.generation, part.hash)).or_default() += part.rows.num_rows() as u64;
        }
        let tally = |((table, generation, hash), rows): ((&str, u32, u64), u64)| Tally {
            table: table.to_owned(),
            generation,
            hash,
            rows,
        };
        Ok(tallies.into_iter().map(tally).collect())
    }

    async fn erase(&self, batch: Provenance, fenced: u32, below: u32) -> Result<(), Error> {
        self.call(Some((String::new(), Write::Erase(batch, fenced, below)))).await
    }

    async fn commit(&self, commit: &Commit, attempt: u32) -> Result<(), Error> {
        let committed = commit.committed;
        let token = token(committed.provenance, "loader_commits", committed.generation + attempt);
        self.call(Some((token, Write::Commit(Box::new(commit.clone()))))).await
    }

    async fn uptime(&self) -> Result<Duration, Error> {
        self.call(None).await?;
        let uptime = self.inner.lock().unwrap().started.elapsed();
        Ok(Duration::from_secs(uptime.as_secs()))
    }
}

impl Inner {
    fn intents(&self, shard: Shard, wanted: impl Fn(u64) -> bool) -> Vec<Intent> {
        let mut intents: Vec<Intent> =
            self.disk.intents.iter().filter(|intent| intent.shard == shard && wanted(intent.batch)).cloned().collect();
        intents.sort_by_key(|intent| (intent.batch, intent.generation));
        intents
    }
}

fn shard_of(batch: Provenance) -> Shard {
    Shard { incarnation: batch.incarnation, partition: batch.partition }
}
