//! Bugs that the simulation must find. They are planted around the real cores: in front of the
//! acknowledgement ring, and between the loader's owner and the engine.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
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
    columns::{Block, EventContent, EventKey, Kept, LedgerRow, Provenance},
    loader::{BootKey, Intent, Progress, Shard, TableCount, token},
};

use crate::loader::PAUSE_MS;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A message is acknowledged as soon as Kafka has confirmed it, in any order.
    AcknowledgeOutOfOrder,
    /// A confirmation for an earlier connection settles the slot at the same place in the present
    /// connection's ring.
    AcknowledgeStaleEpoch,
    /// Everything up to the latest confirmed message is acknowledged.
    CommitTheMaximum,
    /// The receipt is sent together with the record, not after its confirmation.
    ReceiptAtOnce,
    /// An OK, also a repeated one, is taken as proof that the rows are stored. Nothing is read
    /// back.
    TrustTheToken,
    /// An owner ignores the intents of other owners.
    OtherBoundaries,
    /// Every other block is sent as two record batches.
    TwoRecordBatches,
    /// The ledgers are recorded before the rows are written.
    LedgerAhead,
    /// The commit's insert holds the ledgers, but the blocks are written just before it. This is no
    /// bug, but the control for `LedgerAhead`.
    BlocksLate,
    /// The ledgers are recorded after the commit row, in an insert of their own.
    LedgerApart,
    /// All tables of a batch share a token.
    TokenWithoutTable,
    /// The engine remembers no tokens.
    WindowZero,
    /// The engine remembers fewer tokens than are used while a late write is in flight.
    WindowTooSmall,
    /// When a batch is written again under other rules, only the first token of the old version is
    /// burned.
    FenceOne,
    /// Owners start at the offsets that the group has committed to Kafka.
    TrustTheCommits,
    /// An owner does not check whether another owner has overtaken it.
    NoOvertakenCheck,
    /// An owner reads the present ledgers, not those at the start of its batch.
    LedgerAsOfNow,
    /// `NoOvertakenCheck` and `LedgerAsOfNow` together.
    OvertakenAndAsOfNow,
}

/// The acknowledgement ring of a connection, or a faulty replacement for it.
pub struct Acknowledger {
    bug: Option<Bug>,
    ring: Ring<u16>,
    /// The slots of this epoch, by place in the ring.
    slots: Vec<(Slot, u16)>,
    /// The place of every slot of every epoch.
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

    /// Kafka has confirmed the message of a slot. Returns the packets to acknowledge now.
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
    /// What the engine has answered with OK.
    accepted: Vec<(Provenance, TableCount)>,
    intents: Vec<Intent>,
    /// Blocks that are not written yet.
    held: Vec<(Block, u32)>,
    /// Whether a commit is in flight.
    committing: bool,
    inserts: u64,
}

/// An owner's connection to the engine.
#[derive(Clone)]
pub struct Client {
    pub engine: Engine,
    bug: Option<Bug>,
    /// Whether the owner may be paused.
    pauses: bool,
    state: Arc<Mutex<State>>,
}

impl Client {
    pub fn new(engine: Engine, bug: Option<Bug>, pauses: bool) -> Self {
        Self { engine, bug, pauses, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        service::lock(&self.state)
    }

    fn is(&self, bugs: &[Bug]) -> bool {
        self.bug.is_some_and(|bug| bugs.contains(&bug))
    }

    /// Sends every other block as two record batches, each with a token.
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

    /// Writes the ledgers first if that is the bug, then the blocks, then the commit.
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
                if !self.engine.table_counts(&[block.table()], block.provenance()).await?.is_empty() {
                    break;
                }
                self.engine.insert(&block, generation).await?;
            }
            if self.engine.table_counts(&[block.table()], block.provenance()).await?.is_empty() {
                // This owner has been shut out, and another owner writes the batch again.
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
        // Chance alone hardly creates this moment: the owner was allowed to write, has found a
        // burned token, and is paused.
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
                self.state().accepted.push((block.provenance(), TableCount { table, generation, hash, rows }));
                Ok(())
            }
            Some(bug) if LATE.contains(&bug) => {
                self.state().held.push((block.clone(), generation));
                Ok(())
            }
            _ => self.engine.insert(block, generation).await,
        }
    }

    async fn table_counts(&self, tables: &[&str], batch: Provenance) -> Result<Vec<TableCount>, Error> {
        if self.is(&[Bug::TrustTheToken]) {
            let accepted = self.state().accepted.clone();
            let of = accepted.into_iter().filter(|(of, count)| *of == batch && tables.contains(&&*count.table));
            return Ok(of.map(|(_, count)| count).take(1).collect());
        }
        let table_counts = self.engine.table_counts(tables, batch).await?;
        if !table_counts.is_empty() || !self.is(&LATE) {
            return Ok(table_counts);
        }
        let state = self.state();
        let held = state.held.iter().find(|(block, _)| block.provenance() == batch && tables.contains(&block.table()));
        let count = held.map(|(block, generation)| TableCount {
            table: block.table().to_owned(),
            generation: *generation,
            hash: block.hash(),
            rows: block.rows(),
        });
        Ok(count.into_iter().collect())
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

    async fn contents(&self, block: &Block) -> Result<Vec<EventContent>, Error> {
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
