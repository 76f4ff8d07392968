//! The owner of one partition: writes batch after batch, each exactly once.
//!
//! # The argument
//!
//! A batch is the records `[a, b)` of one partition of one life of a topic. ClickHouse holds all
//! state; Kafka only has to give the same records for the same offsets. Time goes downwards, and
//! `x` marks what is durable after a step:
//!
//! | step | durable | a crash here leaves |
//! |---|---|---|
//! | collect records | nothing | nothing; they are read again |
//! | *intent*: put `[a, b)`, decoder, rules, day if absent; read it back | boundaries of the batch | an intent, whose boundaries, day and generation the next owner adopts |
//! | decode with the ledgers as of `a` | nothing | the same, because decoding is pure and the ledgers are not yet changed |
//! | *insert* one block into each table under a token | rows of some tables | rows that the next owner finds by count and hash, and completes |
//! | *compare* events that arrived again with what is stored, see `compare` | conflicts in the quarantine topic | the same conflicts there twice |
//! | *record* commit row and ledgers in one insert | position `b`, ledgers as of `b` | a committed batch |
//!
//! Why it is once and not never: the position moves only with the commit row, and that is written
//! only after every block was found or accepted. Why it is once and not twice: all owners of a
//! batch write the same blocks (same boundaries, same ledgers as of `a`, same decoder, same rules,
//! same day) under the same tokens, and the engine accepts a token once.
//!
//! What an answer means. *OK* means that the token is in the engine's log: by this insert, or by an
//! earlier one, whose rows may be gone if the engine died between its log and the part. So OK is
//! believed only where nobody else can have used the token before: this owner put the intent
//! itself, made no attempt before, and the engine has been up since before the intent
//! (`engine_unbroken`). In every other case, and after every error, the tables are *read back*:
//!
//! - count and hash as they should be: done;
//! - nothing there: insert with the same token and read back again. If the engine then says OK and
//!   there is still nothing, the token is *burned*: nobody's insert can succeed with it any more,
//!   late ones included, so the rows go under the token of the next generation. The token of a
//!   generation is always used up before the next one is;
//! - anything else: [`Error::Mismatch`], stop. Nothing is guessed.
//!
//! Intents burn too: none there after OK means the next generation. Generations of intents are
//! [`GENERATIONS`] apart, so that the few of their blocks do not run into them.
//!
//! *Other decoder or rules*: rows of two versions must not mix. The new version waits until an
//! owner of the other one has stopped by itself (its lease) or has written the batch, and puts an
//! intent of the same boundaries and the next generation; whoever adopts it deletes the batch's
//! rows below that generation from every table, after burning every token with which an owner of
//! the old version could still write ([`Store::erase`]): those of all generations in between, since
//! one that had found the first burned and was stopped then would wake with the next. A commit of a
//! generation below the batch's latest intent does not move the position
//! ([`warehouse::loader::Progress::position`]), so an old owner that commits late does not hide the
//! deletion.
//!
//! *Records that Kafka no longer has* are lost, and the batch says which. If the first records of a
//! batch are gone, an owner must not adopt another owner's intent: that owner may have read those
//! records and already written their rows. The batch gets the next generation of the same
//! boundaries, as with another decoder.
//!
//! *A topic that was deleted and created again* has a new incarnation, with shards of its own.
//! Before it is numbered the shards of the old one are closed ([`warehouse::closing`]): an intent
//! of decoder version 0 stands at the position, and every owner that meets it ends
//! ([`Error::Closed`]). So the last committed ledgers of the earlier incarnations never change
//! again, and those of the new one begin with them ([`warehouse::Warehouse::ledgers`]).
//!
//! *Two owners* at once therefore do no harm. An owner that finds another's intent asks for the
//! position; if that has moved, it ends ([`Stop::Overtaken`]) and starts again from the position.
//! Ledgers are read as of `a`, and after reading any the position is asked for as well, because
//! committed ledgers of a later batch may have replaced those as of `a`.
//!
//! *The record step* is all or nothing because it is one insert into one unpartitioned table.
//! Repeating it is harmless: the same batch has the same ledgers, and position and states are a
//! maximum. So after an unknown outcome the position is asked for, and if it has not moved the
//! insert is repeated, under the next token where the last was accepted and is not there.
//!
//! # What the deduplication window has to hold
//!
//! The engine forgets a token after 100,000 further inserts into the same table. A token has to be
//! remembered from its first acceptance until the *last* write that may still come under it, so
//! what counts is how late a write can be, in inserts:
//!
//! - *How many inserts.* A batch makes one insert in each table it has rows for, one intent and one
//!   commit (a burned token one more). `loader_intents` and `loader_commits` see every partition of
//!   every topic and therefore turn over first. A batch ends by age; or by size, or because memory
//!   is full, both of which take longer than the rows before take to insert. With 3 topics of 12
//!   partitions and two batches a second each that is 72 inserts/s: the window holds 100,000 / 72 =
//!   1,390 s; with `up`'s single partition and 1 s, 3 inserts/s, 33,000 s. A table of facts sees
//!   one topic: three times as long.
//! - *How late a write can be.* An owner asks its lease before each insert, so that one which wakes
//!   after the session time-out (45 s) writes nothing more; the insert under way ends with its
//!   time-outs (connect 5 s, send 30 s, receive 60 s). So a writer that keeps running is late by
//!   140 s at most, a tenth of the window. What remains is a writer that is stopped *between* the
//!   check and the first byte of its insert, and for longer than the window lasts.
//!
//! Beyond the window a token is as good as new. Then:
//!
//! - whoever *looks before it writes* does no harm, whatever the window: an owner that meets a
//!   batch others have begun reads intents, position and tables first, and a retry after an unknown
//!   outcome reads back first. A window of 40 inserts is enough for that, of which deleting a batch
//!   uses up 16 or 32 (simulated: `a_small_window_suffices_where_no_write_is_late`);
//! - a late *block* stands twice: as rows of a committed batch that nobody reads back again. Its
//!   count then differs from the commit row's (`rows`), which is how it is found; ledgers and
//!   position stay right, so it is not spread further;
//! - a late *intent* stands beside the one it lost to. Owners of that batch stop
//!   ([`Error::Mismatch`]); a batch that is committed has none any more, and the late owner itself
//!   finds that it was overtaken;
//! - a late *commit row* repeats a smaller end and ledgers as of it: position and states are a
//!   maximum, nothing changes.
//!
//! With a window of 0, or one that late writes outlast, the simulation finds intents and rows twice
//! at once (`a_window_of_0_is_found`, `a_window_that_late_writes_outlast_is_found`), which is why a
//! table without its window is refused at the start.
//!
//! # How it is checked
//!
//! `simulation` drives owners against a fake engine that fails in every way seen;
//! `tests/tests/simulation` drives them behind real devices' and the bridge's cores, and plants one
//! bug for each sentence above to see that it is found. Two checks cover each other: without asking
//! for the position (*overtaken*), an owner still reads the ledgers as of its batch and so writes
//! the blocks that are there; with ledgers as of now, it still finds that it was overtaken, unless
//! the commit came late and is of a superseded generation.

mod claim;
mod compare;
mod write;

use std::{sync::Arc, time::Duration};

use telemetry::{
    interval::{Interval, IntervalSet},
    report::Contexts,
};
use tokio::sync::{Semaphore, SemaphorePermit};
use warehouse::{
    Advice,
    columns::Lost,
    loader::{Intent, Shard},
};

use crate::{
    batch::{Batch, Refusal, Rules, Written},
    clock::Clock,
    copies::Copies,
    decode::{Decoded, Place, decode},
    error::Error,
    inbox::{Inbox, Record},
    lease::{Lapsed, Lease},
    ledgers::Ledgers,
    options::Limits,
    status::Meter,
    store::{Store, backoff},
    wire,
};

/// Distance of two intents' generations, and so the most generations of one intent's blocks.
pub const GENERATIONS: u32 = warehouse::loader::GENERATIONS;
/// Records whose ledgers are read in one go.
const CHUNK_RECORDS: usize = 256;
/// Bytes of records that are decoded at a time: decoded reports take several times their size.
const CHUNK_BYTES: usize = 512 << 10;

/// How long a batch that is due waits for its turn at most: one that is stuck must not hold up the
/// other partitions.
const TURN_WITHIN: Duration = Duration::from_secs(2);
/// How long the first record after a pause waits for others: long enough for the reports of one
/// moment, too short to be noticed.
const LONE_WITHIN: Duration = Duration::from_millis(50);

/// Why an owner ended.
#[derive(Debug)]
pub enum Stop {
    /// Its lease ended, or the loader does: nothing is wrong.
    Lapsed,
    /// Another owner has written further: start again from the position.
    Overtaken,
    /// A person must look.
    Fatal(Error),
}

impl From<Lapsed> for Stop {
    fn from(_: Lapsed) -> Self {
        Self::Lapsed
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Fatal(error)
    }
}

/// What every owner of a loader shares.
pub struct Shared<S, C> {
    pub store: S,
    /// Takes copies of what is refused.
    pub copies: C,
    /// What is plausible.
    pub rules: Rules,
    pub limits: Limits,
    /// After this long without a sign of life an owner has stopped writing.
    pub session_timeout: Duration,
    pub clock: Arc<dyn Clock>,
    /// Name of the loader.
    pub instance: String,
    /// Rows that may be made and written at once, see [`Limits::room`].
    pub room: Semaphore,
    pub turns: Semaphore,
}

/// The owner of one partition.
pub struct Owner<S, C> {
    shared: Arc<Shared<S, C>>,
    shard: Shard,
    place: Place,
    lease: Lease,
    ledgers: Ledgers,
    position: u64,
    /// First offset that Kafka still has; what lies before it is recorded as lost.
    fetch: u64,
    lost: Lost,
    /// Whether nobody else can have put an intent at the position before this owner asks: it has
    /// just committed the batch before, whose intent was its own.
    ahead: bool,
    /// When the records of the last batch were together.
    collected: tokio::time::Instant,
    name: String,
    meter: Arc<Meter>,
}

impl<S: Store, C: Copies> Owner<S, C> {
    /// An owner that starts at `position`. `nonce` makes its name differ from every other owner's.
    pub fn new(
        shared: Arc<Shared<S, C>>,
        shard: Shard,
        place: Place,
        lease: Lease,
        position: u64,
        nonce: u64,
        meter: Arc<Meter>,
    ) -> Self {
        let boots_max = shared.limits.ledger_cache_boots / place.partitions.max(1) as usize;
        let name = format!("{}/{nonce:016x}", shared.instance);
        Self {
            ledgers: Ledgers::new(boots_max),
            shared,
            shard,
            place,
            lease,
            position,
            fetch: position,
            lost: Lost::Deleted,
            ahead: false,
            collected: tokio::time::Instant::now(),
            name,
            meter,
        }
    }

    /// Lets it record offsets below `fetch`, which Kafka no longer has or which cannot be read, as
    /// lost.
    #[must_use]
    pub fn fetching_from(mut self, fetch: u64, lost: Lost) -> Self {
        (self.fetch, self.lost) = (fetch.max(self.position), lost);
        self
    }

    /// Writes batches until the lease ends. `written` is told the position after each.
    pub async fn run(mut self, mut inbox: Inbox, written: impl Fn(u64)) -> Stop {
        loop {
            match self.batch(&mut inbox).await {
                Ok(()) => written(self.position),
                Err(stop) => return stop,
            }
        }
    }

    /// One batch, from the records to the commit.
    async fn batch(&mut self, inbox: &mut Inbox) -> Result<(), Stop> {
        let shared = self.shared.clone();
        let (records, _turn) = self.collect(inbox, &shared.turns).await?;
        self.collected = tokio::time::Instant::now();
        let claim = self.claim(&records).await?;
        let (records, lost) = self.fit(records, &claim.intent, inbox).await?;
        let rows = records.iter().map(rows_of).sum();
        let _room = self.room(&shared.room, rows).await?;
        let written = self.decode(records, rows, &claim.intent).await?;
        self.copy(&written.refusals).await?;
        self.write(&written.blocks, &claim).await?;
        let compared = self.compare(&written.repeats).await?;
        self.copy(&compared.conflicts).await?;
        self.meter.compared(&compared.conflicts, compared.unverified);
        let lost_count = lost.count();
        self.record(&written, lost, &claim).await?;
        inbox.release();
        self.ledgers.settle();
        self.position = claim.intent.batch_end;
        self.ahead = claim.sole;
        self.meter.written(&written, lost_count, self.position, self.shared.clock.unix_us());
        Ok(())
    }

    /// Records until the batch is large or old enough, or memory is full; then those that come
    /// until its turn, which it does not wait for longer than [`TURN_WITHIN`]. No records where the
    /// batch only says what is lost: that is not to wait for a next one. No turn for the first
    /// batch of an owner either: it may have to wait for another owner, or for records of his
    /// batch.
    async fn collect<'s>(
        &mut self,
        inbox: &mut Inbox,
        turns: &'s Semaphore,
    ) -> Result<(Vec<Record>, Option<SemaphorePermit<'s>>), Stop> {
        if self.position < self.fetch {
            return Ok((Vec::new(), None));
        }
        let Limits { rows_max, bytes_max, age_max, .. } = self.shared.limits;
        let full = |gathered: &Gathered| gathered.rows >= rows_max || gathered.bytes >= bytes_max;
        let (budget, mut gathered) = (inbox.budget(), Gathered::default());
        let age = tokio::time::sleep(age_max);
        tokio::pin!(age);
        while !full(&gathered) {
            let is_first = gathered.records.is_empty();
            let record = tokio::select! {
                biased;
                () = self.lease.ending() => return Err(Stop::Lapsed),
                record = inbox.next() => record.ok_or(Stop::Lapsed)?,
                () = &mut age, if !is_first => break,
                () = budget.exhausted(), if !is_first => break,
            };
            self.gather(&mut gathered, record);
            if is_first {
                let now = tokio::time::Instant::now();
                age.as_mut().reset((self.collected + age_max).max(now + LONE_WITHIN.min(age_max)));
            }
            while !full(&gathered)
                && let Some(record) = inbox.ready()
            {
                self.gather(&mut gathered, record);
            }
        }
        if !self.ahead {
            return Ok((gathered.records, None));
        }
        let (turn, late) = (turns.acquire(), tokio::time::sleep(TURN_WITHIN));
        tokio::pin!(turn, late);
        loop {
            let record = tokio::select! {
                biased;
                () = self.lease.ending() => return Err(Stop::Lapsed),
                turn = &mut turn => return Ok((gathered.records, turn.ok())),
                () = &mut late => return Ok((gathered.records, None)),
                record = inbox.next(), if !full(&gathered) => record.ok_or(Stop::Lapsed)?,
            };
            self.gather(&mut gathered, record);
        }
    }

    /// Adds a record, unless it is left over from before a restart of this owner.
    fn gather(&self, gathered: &mut Gathered, record: Record) {
        if record.offset < self.position {
            return;
        }
        if gathered.records.is_empty() {
            self.meter.waiting(&record);
        }
        gathered.rows += rows_of(&record);
        gathered.bytes += record.bytes();
        gathered.records.push(record);
    }

    /// Exactly the records of the intent: too many go back, missing ones are waited for. Offsets
    /// that Kafka does not have are returned as lost.
    async fn fit(
        &self,
        mut records: Vec<Record>,
        intent: &Intent,
        inbox: &mut Inbox,
    ) -> Result<(Vec<Record>, IntervalSet), Stop> {
        let end = intent.batch_end;
        while records.last().map_or(self.fetch, |record| record.offset + 1) < end {
            // Whatever the limits: nothing else can go on in this partition.
            inbox.starve(true);
            let record = tokio::select! {
                biased;
                () = self.lease.ending() => return Err(Stop::Lapsed),
                record = inbox.next() => record.ok_or(Stop::Lapsed)?,
            };
            records.push(record);
        }
        inbox.starve(false);
        let beyond = records.partition_point(|record| record.offset < end);
        inbox.put_back(records.split_off(beyond));
        let (mut lost, mut expected) = (IntervalSet::default(), intent.batch);
        for offset in records.iter().map(|record| record.offset).chain([end]) {
            if offset > expected {
                lost.insert(Interval::new(expected, offset - 1));
            }
            expected = offset + 1;
        }
        if !lost.intervals().is_empty() {
            tracing::error!(shard = ?self.shard, ?lost, "these offsets cannot be read from kafka, recorded as lost");
        }
        Ok((records, lost))
    }

    /// Waits until so many rows have room beside those of other batches: they take several times
    /// the records' size, and neither the processor nor the engine is faster with more of them.
    async fn room<'s>(&self, room: &'s Semaphore, rows: usize) -> Result<SemaphorePermit<'s>, Stop> {
        let rows = rows.min(self.shared.limits.room()) as u32;
        tokio::select! {
            biased;
            () = self.lease.ending() => Err(Stop::Lapsed),
            permit = room.acquire_many(rows) => permit.map_err(|_| Stop::Lapsed),
        }
    }

    /// Records become rows, at most `rows`. A chunk at a time, because decoded reports are large.
    async fn decode(&mut self, records: Vec<Record>, rows: usize, intent: &Intent) -> Result<Written, Stop> {
        let (mut batch, mut contexts) = (Batch::of(rows), Contexts::default());
        let mut read = false;
        let mut rest = &records[..];
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(chunk(rest));
            rest = after;
            let decoded: Vec<_> = chunk.iter().map(|record| decode(record, self.place, &mut contexts)).collect();
            let missing = self.ledgers.open(decoded.iter().flat_map(Decoded::boots));
            if !missing.is_empty() {
                read = true;
                let ledgers = || self.shared.store.ledgers(self.shard, self.position, &missing);
                let rows = self.persist("read ledgers", ledgers).await?;
                self.ledgers.fill(missing, rows);
            }
            for decoded in &decoded {
                batch.add(decoded, &mut self.ledgers, &self.shared.rules);
            }
            // A large batch takes a while; the other owners share the thread.
            tokio::task::yield_now().await;
        }
        if read {
            self.not_overtaken().await?;
        }
        let closed = batch.close();
        drop(contexts);
        drop(records);
        Ok(closed.finish(intent.provenance()))
    }

    /// A refused record or event is in the quarantine topic before the batch is recorded.
    async fn copy(&self, refusals: &[Refusal]) -> Result<(), Stop> {
        let mut waits = backoff();
        while let Err(error) = self.shared.copies.confirm(refusals).await {
            tracing::warn!(shard = ?self.shard, %error, "quarantine copies are not confirmed, trying again");
            self.lease.pause(waits.next()).await?;
        }
        Ok(())
    }

    /// Repeats what may be repeated until it succeeds or the lease ends. Logged when the trouble
    /// begins, changes and ends.
    async fn persist<T, F>(&self, what: &'static str, attempt: impl Fn() -> F) -> Result<T, Stop>
    where
        F: Future<Output = Result<T, warehouse::Error>>,
    {
        let (mut waits, mut trouble) = (backoff(), String::new());
        loop {
            self.lease.check()?;
            match attempt().await {
                Ok(value) => {
                    if !trouble.is_empty() {
                        tracing::info!(shard = ?self.shard, what, "works again");
                    }
                    return Ok(value);
                }
                Err(error) if error.advice() == Advice::Fatal => return Err(Stop::Fatal(error.into())),
                Err(error) => {
                    let text = error.to_string();
                    if text != trouble {
                        tracing::warn!(shard = ?self.shard, what, error = text, "failed, trying again");
                        trouble = text;
                    }
                    self.lease.pause(waits.next()).await?;
                }
            }
        }
    }
}

/// Records of a batch that is being collected.
#[derive(Default)]
struct Gathered {
    records: Vec<Record>,
    rows: usize,
    bytes: usize,
}

/// How many rows a record counts for: its events, at least one.
fn rows_of(record: &Record) -> usize {
    wire::events(&record.payload).max(1)
}

/// How many of the records are decoded next.
pub(crate) fn chunk(records: &[Record]) -> usize {
    let mut bytes = 0;
    let fit = records.iter().take(CHUNK_RECORDS).take_while(|record| {
        bytes += record.bytes();
        bytes <= CHUNK_BYTES
    });
    fit.count().max(1)
}
