//! A fake ClickHouse: deduplication windows, commits that are all or nothing, and the failures of
//! the real one.
//!
//! It is stricter than the real one in one point: a token that is used for one table is used for
//! all tables, whereas the real engine keeps a log for each table. So a token that does not name
//! its table fails here.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use arrow_array::RecordBatch;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};
use service::lock;
use tokio::time::Instant;
use warehouse::{
    Error,
    columns::{Block, Committed, EVENT_TABLES, EventContent, EventKey, Kept, LedgerRow, Provenance, contents},
    loader::{BootKey, Intent, LastCommit, Progress, Shard, TableCount, token},
};

use crate::store::{Commit, Store};

/// Inserts into a table that the engine remembers by default: the window of the migrations.
const WINDOW: usize = 100_000;

/// One written block.
#[derive(Clone, Debug)]
pub struct Part {
    pub table: &'static str,
    pub batch: Provenance,
    /// The generation it was written under.
    pub generation: u32,
    /// Value of `batch_hash` in its rows.
    pub hash: u64,
    pub rows: RecordBatch,
}

impl Part {
    /// A block as it is written under a generation.
    ///
    /// # Errors
    /// As [`Block::record_batch`].
    pub fn of(block: &Block, generation: u32) -> Result<Self, Error> {
        let rows = block.record_batch(generation)?;
        Ok(Self { table: block.table(), batch: block.provenance(), generation, hash: block.hash(), rows })
    }
}

/// One insert or deletion.
#[derive(Clone, Debug)]
pub enum Write {
    Intent(Intent),
    /// Rows of a table.
    Block(Part),
    /// Rows of `loader_commits`: the commit row, if there is one, and ledgers as of the end of a
    /// batch.
    Commit(Option<Committed>, Vec<(Committed, LedgerRow)>),
    /// Deletes the rows of a batch below a generation, and burns the tokens of some generations.
    Erase(Provenance, Range<u32>, u32),
}

impl Write {
    fn table(&self) -> &'static str {
        match self {
            Self::Intent(_) => "loader_intents",
            Self::Block(part) => part.table,
            Self::Commit(..) => "loader_commits",
            Self::Erase(..) => "",
        }
    }
}

/// The ways in which a call can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The call is refused without an effect.
    Before,
    /// The write happens, and the answer is lost.
    After,
    /// The answer is an error, and the write happens later.
    Zombie,
    /// The engine dies after writing its deduplication log and before the part: the token is
    /// recorded, the rows are not.
    Burn,
    /// The engine dies and restarts without an effect of the call.
    Restart,
}

/// Every way of failing.
pub const FAULTS: [Fault; 5] = [Fault::Before, Fault::After, Fault::Zombie, Fault::Burn, Fault::Restart];

/// The deduplication logs.
struct Tokens {
    window: usize,
    known: BTreeSet<String>,
    /// By table, oldest first.
    logs: BTreeMap<&'static str, VecDeque<String>>,
}

impl Tokens {
    /// Whether the token is new; it is known from then on, for as many inserts into its table as
    /// the window holds.
    fn take(&mut self, table: &'static str, token: &str) -> bool {
        if self.window == 0 {
            return true;
        }
        if !self.known.insert(token.to_owned()) {
            return false;
        }
        let log = self.logs.entry(table).or_default();
        log.push_back(token.to_owned());
        if log.len() > self.window
            && let Some(oldest) = log.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

struct Disk {
    tokens: Tokens,
    parts: Vec<Part>,
    intents: Vec<Intent>,
    commits: Vec<Committed>,
    states: Vec<(Committed, LedgerRow)>,
}

struct Inner {
    disk: Disk,
    random: ChaCha8Rng,
    started: Instant,
    zombies: Vec<(Instant, Vec<(String, Write)>)>,
    /// Of 1,000 calls, how many fail.
    trouble: u64,
    faults: Vec<Fault>,
    seen: BTreeMap<Fault, u64>,
    trace: DefaultHasher,
}

/// Planned interruptions of one client of the engine.
#[derive(Default)]
struct Connection {
    /// Its owner dies at this call, before or after the effect.
    dies: Option<(u64, bool)>,
    /// Its owner is stopped until then: its calls arrive later, and it reads their answers later.
    frozen: Option<Instant>,
}

/// The engine. Clones share one connection to it.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Mutex<Inner>>,
    connection: Arc<Mutex<Connection>>,
}

impl Engine {
    /// An empty engine. Call it inside a runtime, whose time it uses.
    pub fn new(seed: u64) -> Self {
        let tokens = Tokens { window: WINDOW, known: BTreeSet::new(), logs: BTreeMap::new() };
        let disk = Disk { tokens, parts: Vec::new(), intents: Vec::new(), commits: Vec::new(), states: Vec::new() };
        let inner = Inner {
            disk,
            random: ChaCha8Rng::seed_from_u64(seed),
            started: Instant::now(),
            zombies: Vec::new(),
            trouble: 0,
            faults: FAULTS.to_vec(),
            seen: BTreeMap::new(),
            trace: DefaultHasher::new(),
        };
        Self { inner: Arc::new(Mutex::new(inner)), connection: Arc::default() }
    }

    /// A number below `bound`.
    pub fn below(&self, bound: u64) -> u64 {
        lock(&self.inner).random.next_u64() % bound
    }

    /// How many of 1,000 calls fail.
    pub fn trouble(&self, per_mille: u64) {
        lock(&self.inner).trouble = per_mille;
    }

    /// The ways in which calls fail, if they do.
    pub fn faults(&self, faults: &[Fault]) {
        lock(&self.inner).faults = faults.to_vec();
    }

    /// How many inserts into a table are remembered.
    pub fn window(&self, inserts: usize) {
        lock(&self.inner).disk.tokens.window = inserts;
    }

    /// A connection of its own, whose owner may die at a call, before or after its effect.
    pub fn connect(&self, dies: Option<(u64, bool)>) -> Self {
        let connection = Connection { dies, frozen: None };
        Self { inner: self.inner.clone(), connection: Arc::new(Mutex::new(connection)) }
    }

    /// Stops the owner of this connection until then.
    pub fn freeze(&self, until: Instant) {
        lock(&self.connection).frozen = Some(until);
    }

    /// Whether the owner of this connection is stopped.
    pub fn is_frozen(&self) -> bool {
        lock(&self.connection).frozen.is_some_and(|until| until > Instant::now())
    }

    /// All parts of all tables.
    pub fn parts(&self) -> Vec<Part> {
        lock(&self.inner).disk.parts.clone()
    }

    /// All ledgers ever recorded, each as of the end of a batch.
    pub fn states(&self) -> Vec<(Committed, LedgerRow)> {
        lock(&self.inner).disk.states.clone()
    }

    /// How far a shard is written, without a call that could fail.
    pub fn position(&self, shard: Shard) -> Option<u64> {
        lock(&self.inner).progress(shard).position()
    }

    /// How often each failure has struck.
    pub fn seen(&self) -> BTreeMap<Fault, u64> {
        lock(&self.inner).seen.clone()
    }

    /// Hash of all calls, with their times and results.
    pub fn trace(&self) -> u64 {
        lock(&self.inner).trace.finish()
    }

    /// One statement: its writes happen together, each under its token.
    ///
    /// # Errors
    /// Simulated ones.
    pub async fn write(&self, writes: Vec<(String, Write)>) -> Result<(), Error> {
        self.call(writes).await
    }

    /// The events around every call: time passes, delayed writes happen, owners die or are stopped,
    /// calls fail.
    async fn call(&self, writes: Vec<(String, Write)>) -> Result<(), Error> {
        let wait = self.below(20);
        tokio::time::sleep(Duration::from_millis(wait)).await;
        self.thawed().await;
        let dies = match &mut lock(&self.connection).dies {
            Some((0, after)) => Some(*after),
            Some((calls, _)) => {
                *calls -= 1;
                None
            }
            None => None,
        };
        if dies == Some(false) {
            return std::future::pending().await;
        }
        let result = lock(&self.inner).execute(writes);
        if dies == Some(true) {
            return std::future::pending().await;
        }
        let wait = self.below(20);
        tokio::time::sleep(Duration::from_millis(wait)).await;
        self.thawed().await;
        result
    }

    async fn thawed(&self) {
        loop {
            let frozen = lock(&self.connection).frozen;
            match frozen {
                Some(until) if until > Instant::now() => tokio::time::sleep_until(until).await,
                _ => return,
            }
        }
    }
}

fn unreachable() -> Error {
    Error::Unreachable { url: "fake".to_owned(), detail: "simulated".to_owned() }
}

impl Inner {
    fn execute(&mut self, writes: Vec<(String, Write)>) -> Result<(), Error> {
        let now = Instant::now();
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.zombies).into_iter().partition(|(at, _)| *at <= now);
        self.zombies = later;
        for (_, writes) in due {
            self.apply(writes);
        }
        let fault = self.fault();
        (now.duration_since(self.started).as_millis(), fault.map(|fault| fault as u8)).hash(&mut self.trace);
        writes.iter().for_each(|(token, write)| (token, write.table()).hash(&mut self.trace));
        let Some(fault) = fault else {
            self.apply(writes);
            return Ok(());
        };
        *self.seen.entry(fault).or_default() += 1;
        match fault {
            Fault::Before => {}
            Fault::After => self.apply(writes),
            Fault::Zombie if writes.is_empty() => {}
            Fault::Zombie => {
                let later = now + Duration::from_millis(self.random.next_u64() % 3_000);
                self.zombies.push((later, writes));
            }
            Fault::Burn | Fault::Restart if writes.is_empty() => {}
            Fault::Burn => {
                for (token, write) in &writes {
                    self.disk.tokens.take(write.table(), token);
                }
                self.restart();
            }
            Fault::Restart => self.restart(),
        }
        Err(unreachable())
    }

    /// Calls in flight die with the engine.
    fn restart(&mut self) {
        self.started = Instant::now();
        self.zombies.clear();
    }

    fn fault(&mut self) -> Option<Fault> {
        if self.random.next_u64() % 1_000 >= self.trouble {
            return None;
        }
        let chosen = self.random.next_u64() as usize % self.faults.len().max(1);
        self.faults.get(chosen).copied()
    }

    fn apply(&mut self, writes: Vec<(String, Write)>) {
        for (token, write) in writes {
            let disk = &mut self.disk;
            if let Write::Erase(batch, fenced, below) = write {
                for table in warehouse::columns::all_tables() {
                    for generation in fenced.clone() {
                        disk.tokens.take(table, &warehouse::loader::token(batch, table, generation));
                    }
                }
                disk.parts.retain(|part| part.batch != batch || part.generation >= below);
                continue;
            }
            if !disk.tokens.take(write.table(), &token) {
                continue;
            }
            match write {
                Write::Intent(intent) => disk.intents.push(intent),
                Write::Block(part) => disk.parts.push(part),
                Write::Commit(committed, states) => {
                    disk.commits.extend(committed);
                    disk.states.extend(states);
                }
                Write::Erase(..) => {}
            }
        }
    }

    fn progress(&self, shard: Shard) -> Progress {
        let of_shard = self.disk.commits.iter().filter(|committed| shard_of(committed.provenance) == shard);
        let last =
            of_shard.max_by_key(|committed| (committed.batch_end, committed.generation, committed.provenance.batch));
        let commit = last.map(|last| LastCommit {
            batch: last.provenance.batch,
            batch_end: last.batch_end,
            generation: last.generation,
        });
        let from = commit.map_or(0, |commit| commit.batch);
        Progress { commit, intents: self.intents(shard, |batch| batch >= from) }
    }

    fn intents(&self, shard: Shard, wanted: impl Fn(u64) -> bool) -> Vec<Intent> {
        let mut intents: Vec<Intent> =
            self.disk.intents.iter().filter(|intent| intent.shard == shard && wanted(intent.batch)).cloned().collect();
        intents.sort_by_key(|intent| (intent.batch, intent.generation));
        intents
    }
}

impl Store for Engine {
    async fn progress(&self, shard: Shard) -> Result<Progress, Error> {
        self.call(Vec::new()).await?;
        Ok(lock(&self.inner).progress(shard))
    }

    async fn intents(&self, shard: Shard, batch: u64) -> Result<Vec<Intent>, Error> {
        self.call(Vec::new()).await?;
        Ok(lock(&self.inner).intents(shard, |first| first == batch))
    }

    async fn put_intent(&self, intent: &Intent, _now: i64) -> Result<(), Error> {
        let token = token(intent.provenance(), "loader_intents", intent.generation);
        self.call(vec![(token, Write::Intent(intent.clone()))]).await
    }

    async fn ledgers(&self, shard: Shard, as_of: u64, keys: &[BootKey]) -> Result<Vec<LedgerRow>, Error> {
        self.call(Vec::new()).await?;
        let inner = lock(&self.inner);
        let mut states: BTreeMap<BootKey, ((u64, u32), &LedgerRow)> = BTreeMap::new();
        for (committed, row) in &inner.disk.states {
            if shard_of(committed.provenance) != shard || committed.batch_end > as_of {
                continue;
            }
            let key = BootKey { tenant: row.tenant.clone(), device: row.device.clone(), boot_id: row.boot_id };
            let age = (committed.batch_end, committed.generation);
            if keys.contains(&key) && states.get(&key).is_none_or(|(known, _)| *known <= age) {
                states.insert(key, (age, row));
            }
        }
        Ok(states.into_values().map(|(_, row)| row.clone()).collect())
    }

    async fn insert(&self, block: &Block, generation: u32) -> Result<(), Error> {
        let token = token(block.provenance(), block.table(), generation);
        self.call(vec![(token, Write::Block(Part::of(block, generation)?))]).await
    }

    async fn table_counts(&self, tables: &[&str], batch: Provenance) -> Result<Vec<TableCount>, Error> {
        self.call(Vec::new()).await?;
        let inner = lock(&self.inner);
        let mut table_counts: BTreeMap<(&str, u32, u64), u64> = BTreeMap::new();
        for part in inner.disk.parts.iter().filter(|part| part.batch == batch && tables.contains(&part.table)) {
            *table_counts.entry((part.table, part.generation, part.hash)).or_default() += part.rows.num_rows() as u64;
        }
        let count = |((table, generation, hash), rows): ((&str, u32, u64), u64)| TableCount {
            table: table.to_owned(),
            generation,
            hash,
            rows,
        };
        Ok(table_counts.into_iter().map(count).collect())
    }

    async fn erase(&self, batch: Provenance, fenced: u32, below: u32) -> Result<(), Error> {
        self.call(vec![(String::new(), Write::Erase(batch, fenced..below, below))]).await
    }

    async fn commit(&self, commit: &Commit, attempt: u32) -> Result<(), Error> {
        let committed = commit.committed;
        let token = token(committed.provenance, "loader_commits", committed.generation + attempt);
        let states = commit.ledgers.iter().map(|row| (committed, row.clone())).collect();
        self.call(vec![(token, Write::Commit(Some(committed), states))]).await
    }

    /// [`Store::stored_events`], without delays and errors. Rows and ledgers do not depend on the
    /// answer, so faults here would only displace faults that matter.
    async fn contents(&self, block: &Block) -> Result<Vec<EventContent>, Error> {
        let wanted: BTreeSet<EventKey> = contents(&block.record_batch(0)?).iter().map(EventContent::key).collect();
        let inner = lock(&self.inner);
        let parts = inner.disk.parts.iter().filter(|part| part.table == block.table());
        Ok(parts.flat_map(|part| contents(&part.rows)).filter(|content| wanted.contains(&content.key())).collect())
    }

    async fn stored_events(&self, keys: &[EventKey]) -> Result<Vec<EventKey>, Error> {
        let inner = lock(&self.inner);
        let parts = inner.disk.parts.iter().filter(|part| EVENT_TABLES.contains(&part.table));
        let known = parts.flat_map(|part| contents(&part.rows)).map(|content| content.key());
        Ok(known.filter(|key| keys.contains(key)).collect())
    }

    /// No device of the simulation sends an event that is refused.
    async fn kept_in_quarantine(&self, _keys: &[EventKey]) -> Result<Vec<(EventKey, Kept)>, Error> {
        Ok(Vec::new())
    }

    async fn uptime(&self) -> Result<Duration, Error> {
        self.call(Vec::new()).await?;
        let uptime = lock(&self.inner).started.elapsed();
        Ok(Duration::from_secs(uptime.as_secs()))
    }
}

fn shard_of(batch: Provenance) -> Shard {
    Shard { incarnation: batch.incarnation, partition: batch.partition }
}
