//! Bugs that the simulation has to find, planted around the real cores: in front of the
//! acknowledgement ring, and between the loader's owner and the engine.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bridge::ring::{Ring, Slot};
use load::{
    owner::GENERATIONS,
    simulation::engine::{Engine, Part, Write},
    store::{Commit, Store},
};
use tokio::time::Instant;
use warehouse::{
    Error,
    columns::{Block, Content, EventKey, Kept, LedgerRow, Provenance},
    loader::{BootKey, Intent, Progress, Shard, Tally, token},
};

use crate::loader::PAUSE_MS;

/// What is done wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A message is acknowledged when Kafka has confirmed it, whatever came before it.
    AcknowledgeOutOfOrder,
    /// What Kafka confirms for an earlier connection settles what has the same place in the ring of
    /// this one.
    AcknowledgeStaleEpoch,
    /// Everything up to the latest confirmed message is acknowledged.
    CommitTheMaximum,
    /// The receipt goes out with the record, not after its confirmation.
    ReceiptAtOnce,
    /// OK, or a repeated OK, is taken to mean that the rows are there; nothing is read back.
    TrustTheToken,
    /// An owner does not look at the intents of others.
    OtherBoundaries,
    /// A block goes out as two record batches, or as one.
    TwoRecordBatches,
    /// The ledgers are recorded before the rows are written.
    LedgerAhead,
    /// As before, but with the ledgers in the commit's insert: only the blocks come late. Not a
    /// bug, but the control.
    BlocksLate,
    /// The ledgers are recorded after the commit row, in an insert of their own.
    LedgerApart,
    /// All tables of a batch share a token.
    TokenWithoutTable,
    /// The engine remembers no tokens.
    WindowZero,
    /// The engine remembers fewer tokens than are used while a late write is under way.
    WindowTooSmall,
    /// When a batch is written again under other rules, only the first token of the old version is
    /// used up.
    FenceOne,
    /// Owners begin at what the group has committed to Kafka.
    TrustTheCommits,
    /// An owner does not ask whether it was overtaken.
    NoOvertakenCheck,
    /// Ledgers are read as of now instead of as of the batch's start.
    LedgerAsOfNow,
    /// Both of these.
    OvertakenAndAsOfNow,
}

/// The acknowledgement ring of a connection, or something like it.
pub struct Acknowledger {
    bug: Option<Bug>,
    ring: Ring<u16>,
    /// Of this epoch, by place in the ring.
    slots: Vec<(Slot, u16)>,
    /// Place of every slot of every epoch.
    places: HashMap<Slot, usize>,
}

impl Acknowledger {
    pub fn new(bug: Option<Bug>) -> Self {
        Self { bug, ring: Ring::default(), slots: Vec::new(), places: HashMap::new() }
    }

    pub fn push(&mut self, packet: u16) -> Slot {
        let slot = self.ring.push(packet);
        self.places.insert(slot, self.slots.len());
        self.slots.push((slot, packet));
        slot
    }

    /// Kafka has confirmed the message of a slot; returns the packets to acknowledge now.
    pub fn settle(&mut self, slot: Slot) -> Vec<u16> {
        let place = self.slots.iter().position(|(known, _)| *known == slot);
        match self.bug {
            Some(Bug::AcknowledgeOutOfOrder) => return place.map(|place| self.slots[place].1).into_iter().collect(),
            Some(Bug::AcknowledgeStaleEpoch) => {
                let place = self.places.get(&slot).and_then(|place| self.slots.get(*place));
                place.into_iter().for_each(|(slot, _)| self.ring.settle(*slot));
            }
            Some(Bug::CommitTheMaximum) => {
                let before = place.map_or(0, |place| place + 1);
                self.slots[..before].iter().for_each(|(slot, _)| self.ring.settle(*slot));
            }
            _ => self.ring.settle(slot),
        }
        self.ring.head().collect()
    }

    pub fn reconnect(&mut self) {
        self.ring.reconnect();
        self.slots.clear();
    }
}

#[derive(Default)]
struct State {
    /// What was answered with OK.
    accepted: Vec<(Provenance, Tally)>,
    intents: Vec<Intent>,
    /// Not written yet.
    held: Vec<(Block, u32)>,
    /// A commit is under way.
    committing: bool,
    inserts: u64,
}

/// An owner's connection to the engine.
#[derive(Clone)]
pub struct Client {
    pub engine: Engine,
    bug: Option<Bug>,
    /// Whether it may be stopped.
    pauses: bool,
    state: Arc<Mutex<State>>,
}

impl Client {
    pub fn new(engine: Engine, bug: Option<Bug>, pauses: bool) -> Self {
        Self { engine, bug, pauses, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is(&self, bugs: &[Bug]) -> bool {
        self.bug.is_some_and(|bug| bugs.contains(&bug))
    }

    /// As two record batches, which carry a token each, every other time.
    async fn insert_split(&self, block: &Block, generation: u32) -> Result<(), Error> {
        let whole = Part::of(block, generation)?;
        let token = token(block.provenance(), block.table(), generation);
        self.state().inserts += 1;
        let (rows, split) = (whole.rows.num_rows(), self.state().inserts % 2 == 1);
        if rows < 2 || !split {
            return self.engine.write(vec![(token, Write::Block(whole))]).await;
        }
        let half = |from: usize, to: usize| {
            let rows = whole.rows.slice(from, to - from);
            (format!("{token}/{from}"), Write::Block(Part { rows, ..whole.clone() }))
        };
        self.engine.write(vec![half(0, rows / 2), half(rows / 2, rows)]).await
    }

    /// Ledgers first where that is the bug, then the blocks, then the commit.
    async fn commit_late(&self, commit: &Commit, attempt: u32) -> Result<(), Error> {
        let committed = commit.committed;
        if self.is(&[Bug::LedgerAhead]) {
            let batch_end = committed.provenance.batch;
            let ahead = warehouse::columns::Committed { batch_end, ..committed };
            let states = commit.ledgers.iter().map(|row| (ahead, row.clone())).collect();
            let token = token(committed.provenance, "ledgers", committed.generation);
            self.engine.write(vec![(token, Write::Commit(None, states))]).await?;
        }
        let held = self.state().held.clone();
        for (block, first) in held.into_iter().filter(|(block, _)| block.provenance() == committed.provenance) {
            for generation in first..first + GENERATIONS {
                if !self.engine.tallies(&[block.table()], block.provenance()).await?.is_empty() {
                    break;
                }
                self.engine.insert(&block, generation).await?;
            }
            if self.engine.tallies(&[block.table()], block.provenance()).await?.is_empty() {
                // Shut out: others write the batch again.
                return Err(Error::Unreachable { url: "fake".to_owned(), detail: "shut out".to_owned() });
            }
        }
        self.engine.commit(commit, attempt).await
    }

    async fn commit_apart(&self, commit: &Commit, attempt: u32) -> Result<(), Error> {
        let committed = commit.committed;
        let generation = committed.generation + attempt;
        let token_of = |table| token(committed.provenance, table, generation);
        let row = Write::Commit(Some(committed), Vec::new());
        self.engine.write(vec![(token_of("loader_commits"), row)]).await?;
        let states = commit.ledgers.iter().map(|row| (committed, row.clone())).collect();
        self.engine.write(vec![(token_of("ledgers"), Write::Commit(None, states))]).await
    }
}

const LATE: [Bug; 2] = [Bug::LedgerAhead, Bug::BlocksLate];

impl Store for Client {
    async fn progress(&self, shard: Shard) -> Result<Progress, Error> {
        let progress = self.engine.progress(shard).await?;
        let blind = self.is(&[Bug::NoOvertakenCheck, Bug::OvertakenAndAsOfNow]) && !self.state().committing;
        Ok(if blind { Progress::default() } else { progress })
    }

    async fn intents(&self, shard: Shard, batch: u64) -> Result<Vec<Intent>, Error> {
        self.state().committing = false;
        let intents = self.engine.intents(shard, batch).await?;
        if self.is(&[Bug::OtherBoundaries]) {
            let own = self.state().intents.iter().filter(|own| own.batch == batch).cloned().collect();
            return Ok(own);
        }
        Ok(intents)
    }

    async fn put_intent(&self, intent: &Intent, now: i64) -> Result<(), Error> {
        self.state().committing = false;
        self.state().intents.push(intent.clone());
        self.engine.put_intent(intent, now).await
    }

    async fn ledgers(&self, shard: Shard, as_of: u64, keys: &[BootKey]) -> Result<Vec<LedgerRow>, Error> {
        let now = self.is(&[Bug::LedgerAsOfNow, Bug::OvertakenAndAsOfNow]);
        self.engine.ledgers(shard, if now { u64::MAX } else { as_of }, keys).await
    }

    async fn insert(&self, block: &Block, generation: u32) -> Result<(), Error> {
        // A moment that chance alone hardly meets: it was allowed to write, has found a token
        // burned, and is stopped.
        if self.pauses && !generation.is_multiple_of(GENERATIONS) && self.engine.below(2) == 0 {
            let pause = Duration::from_millis(PAUSE_MS / 2 + self.engine.below(PAUSE_MS));
            self.engine.freeze(Instant::now() + pause);
        }
        match self.bug {
            Some(Bug::TwoRecordBatches) => self.insert_split(block, generation).await,
            Some(Bug::TokenWithoutTable) => {
                let token = token(block.provenance(), "", generation);
                self.engine.write(vec![(token, Write::Block(Part::of(block, generation)?))]).await
            }
            Some(Bug::TrustTheToken) => {
                self.engine.insert(block, generation).await?;
                let (table, hash, rows) = (block.table().to_owned(), block.hash(), block.rows());
                self.state().accepted.push((block.provenance(), Tally { table, generation, hash, rows }));
                Ok(())
            }
            Some(bug) if LATE.contains(&bug) => {
                self.state().held.push((block.clone(), generation));
                Ok(())
            }
            _ => self.engine.insert(block, generation).await,
        }
    }

    async fn tallies(&self, tables: &[&str], batch: Provenance) -> Result<Vec<Tally>, Error> {
        if self.is(&[Bug::TrustTheToken]) {
            let accepted = self.state().accepted.clone();
            let of = accepted.into_iter().filter(|(of, tally)| *of == batch && tables.contains(&&*tally.table));
            return Ok(of.map(|(_, tally)| tally).take(1).collect());
        }
        let tallies = self.engine.tallies(tables, batch).await?;
        if !tallies.is_empty() || !self.is(&LATE) {
            return Ok(tallies);
        }
        let state = self.state();
        let held = state.held.iter().find(|(block, _)| block.provenance() == batch && tables.contains(&block.table()));
        let tally = held.map(|(block, generation)| Tally {
            table: block.table().to_owned(),
            generation: *generation,
            hash: block.hash(),
            rows: block.rows(),
        });
        Ok(tally.into_iter().collect())
    }

    async fn erase(&self, batch: Provenance, fenced: u32, below: u32) -> Result<(), Error> {
        if self.is(&[Bug::FenceOne]) {
            let erase = Write::Erase(batch, fenced..fenced + 1, below);
            return self.engine.write(vec![(String::new(), erase)]).await;
        }
        self.engine.erase(batch, fenced, below).await
    }

    async fn commit(&self, commit: &Commit, attempt: u32) -> Result<(), Error> {
        self.state().committing = true;
        match self.bug {
            Some(bug) if LATE.contains(&bug) => self.commit_late(commit, attempt).await,
            Some(Bug::LedgerApart) => self.commit_apart(commit, attempt).await,
            _ => self.engine.commit(commit, attempt).await,
        }
    }

    async fn contents(&self, block: &Block) -> Result<Vec<Content>, Error> {
        self.engine.contents(block).await
    }

    async fn stored_events(&self, keys: &[EventKey]) -> Result<Vec<EventKey>, Error> {
        self.engine.stored_events(keys).await
    }

    async fn kept_in_quarantine(&self, keys: &[EventKey]) -> Result<Vec<(EventKey, Kept)>, Error> {
        self.engine.kept_in_quarantine(keys).await
    }

    async fn uptime(&self) -> Result<Duration, Error> {
        let uptime = self.engine.uptime().await?;
        // An engine that never restarts is one whose OK is always believed.
        Ok(if self.is(&[Bug::TrustTheToken]) { Duration::MAX / 2 } else { uptime })
    }
}
