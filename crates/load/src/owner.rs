//! The owner of one partition: writes batch after batch, each exactly once.
//!
//! A batch is the records `[a, b)` of one shard. ClickHouse holds all state; Kafka only has to give
//! the same records for the same offsets. Each step leaves something durable:
//!
//! | step | durable | a crash here leaves |
//! |---|---|---|
//! | *collect* records | nothing | nothing; they are read again |
//! | *intent* (`claim`): put the intent `[a, b)` with decoder, rules and day if absent; read it back | boundaries of the batch | an intent, whose boundaries, day and generation the next owner adopts |
//! | *decode* with the ledgers as of `a` | nothing | nothing; decoding again gives the same rows |
//! | *insert* (`write`) one block into each table under a token | rows of some tables | rows that the next owner finds by count and hash, and completes |
//! | *compare* events that arrived again with the stored rows | conflicts in the quarantine topic | the same conflicts there twice |
//! | *commit* row and ledgers in one insert | position `b`, ledgers as of `b` | a committed batch |
//!
//! The position moves only with the commit row, which is written after every block was found or
//! accepted: no event is lost. All owners of a batch write the same blocks under the same tokens,
//! and the engine accepts a token once: no event is counted twice.
//!
//! `docs/exactly-once.md` holds the whole argument: what an answer of the engine means, burned
//! tokens and generations, another decoder, lost records, two owners at once, and how long the
//! engine must remember a token.

mod claim;
mod compare;
mod write;

use std::{sync::Arc, time::Duration};

use telemetry::{
    interval::{Interval, IntervalSet},
    report::Contexts,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};
use warehouse::{
    Advice,
    columns::LossCause,
    loader::{Intent, Shard},
};

use crate::{
    batch::{Batch, DecodeRules, PreparedBatch, Refusal},
    clock::Clock,
    copies::Copies,
    decode::{Decoded, Place, TopicKind, decode},
    error::Error,
    inbox::{Inbox, Record},
    lease::{Lapsed, Lease},
    ledgers::Ledgers,
    options::Limits,
    status::Meter,
    store::{Store, backoff},
};

/// Distance of two intents' generations, and so the most generations of one intent's blocks.
pub const GENERATIONS: u32 = warehouse::loader::GENERATIONS;
/// The most records that are decoded at once; their ledgers are read together.
const CHUNK_RECORDS: usize = 256;
/// The most bytes of records that are decoded at once: decoded reports take several times their
/// size.
const CHUNK_BYTES: usize = 512 << 10;

/// The longest that a finished collection waits for its turn: a batch that is stuck must not delay
/// the other partitions.
const TURN_WITHIN: Duration = Duration::from_secs(2);
/// How long the first record after a pause waits for others: long enough for reports that are sent
/// at the same moment, too short for people to notice.
const LONE_WITHIN: Duration = Duration::from_millis(50);
/// A batch of this many rows is due after a third of `batch_age_ms`, but not within [`BUSY_AGE`].
/// Batches cost the same for any number of rows up to some hundreds: many rows pay for being
/// visible sooner.
const BUSY_ROWS: usize = 150;
const BUSY_AGE: Duration = Duration::from_millis(300);

/// Why an owner ended.
#[derive(Debug)]
pub enum Stop {
    /// Its lease ended, or the loader stops: nothing is wrong.
    Lapsed,
    /// Another owner has written further: start again from the position.
    Overtaken,
    /// A person must act.
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
    pub rules: DecodeRules,
    pub limits: Limits,
    /// An owner whose loader has not polled for this long has stopped writing.
    pub session_timeout: Duration,
    pub clock: Arc<dyn Clock>,
    /// Name of the loader.
    pub instance: String,
    /// Permits for rows that are in memory at once, see [`Limits::rows_in_memory_max`].
    pub room: Semaphore,
    /// Permits for batches that are written at once.
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
    /// First offset that Kafka still has. Offsets from `position` up to it are recorded as lost.
    read_from: u64,
    loss_cause: LossCause,
    /// Whether no other owner can have put an intent at the position: this owner has just committed
    /// the previous batch, whose intent was its own.
    continues: bool,
    /// When the collection of the previous batch ended.
    collected: Instant,
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
            read_from: position,
            loss_cause: LossCause::Deleted,
            continues: false,
            collected: Instant::now(),
            name,
            meter,
        }
    }

    /// Makes the owner record the offsets below `read_from` as lost: Kafka no longer has them, or
    /// they cannot be read.
    #[must_use]
    pub fn reading_from(mut self, read_from: u64, cause: LossCause) -> Self {
        (self.read_from, self.loss_cause) = (read_from.max(self.position), cause);
        self
    }

    /// Writes batches until the lease ends. Calls `written` with the position after each.
    pub async fn run(mut self, mut inbox: Inbox, written: impl Fn(u64)) -> Stop {
        loop {
            match self.batch(&mut inbox).await {
                Ok(()) => written(self.position),
                Err(stop) => return stop,
            }
        }
    }

    /// Writes one batch, from collecting its records to its commit.
    async fn batch(&mut self, inbox: &mut Inbox) -> Result<(), Stop> {
        let shared = self.shared.clone();
        let (records, _turn) = self.collect(inbox, &shared.turns).await?;
        self.collected = Instant::now();
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
        self.commit(&written, lost, &claim).await?;
        inbox.release();
        self.ledgers.committed();
        self.position = claim.intent.batch_end;
        self.continues = claim.is_unrivalled;
        self.meter.written(&written, lost_count, self.position, self.shared.clock.unix_us());
        Ok(())
    }

    /// Collects records until the batch is large or old enough, or memory is full. Then it waits
    /// for the batch's turn, at most [`TURN_WITHIN`], and collects what arrives meanwhile.
    ///
    /// A batch that only records lost offsets has no records: it does not wait for any. The first
    /// batch of an owner takes no turn: it may have to wait for another owner, or for the records
    /// of that owner's batch.
    async fn collect<'s>(
        &mut self,
        inbox: &mut Inbox,
        turns: &'s Semaphore,
    ) -> Result<(Vec<Record>, Option<SemaphorePermit<'s>>), Stop> {
        if self.position < self.read_from {
            return Ok((Vec::new(), None));
        }
        let Limits { rows_max, bytes_max, age_max, .. } = self.shared.limits;
        // A person waits for the command, and commands are few.
        let age_max = if self.place.kind == TopicKind::Commands { age_max.min(LONE_WITHIN) } else { age_max };
        let full = |gathered: &Gathered| gathered.rows >= rows_max || gathered.bytes >= bytes_max;
        let (budget, mut gathered) = (inbox.budget(), Gathered::default());
        let (age, mut began) = (tokio::time::sleep(age_max), Instant::now());
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
                began = Instant::now();
            }
            while !full(&gathered)
                && let Some(record) = inbox.ready()
            {
                self.gather(&mut gathered, record);
            }
            let due = due(self.collected, began, gathered.rows, age_max);
            if is_first || due != age.deadline() {
                age.as_mut().reset(due);
            }
        }
        if !self.continues {
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

    /// Adds a record, unless it was polled before this owner started again at a later position.
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

    /// Fits the records to the intent: records beyond its end go back to the inbox, missing ones
    /// are waited for. Returns the records, and the offsets without a record as lost.
    async fn fit(
        &self,
        mut records: Vec<Record>,
        intent: &Intent,
        inbox: &mut Inbox,
    ) -> Result<(Vec<Record>, IntervalSet), Stop> {
        let end = intent.batch_end;
        while records.last().map_or(self.read_from, |record| record.offset + 1) < end {
            // The limits of memory do not apply: nothing else can continue in this partition.
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
            tracing::error!(shard = ?self.shard, ?lost, "kafka has no readable record at these offsets, they are recorded as lost");
        }
        Ok((records, lost))
    }

    /// Waits until the rows of other batches leave room for this many rows. Rows take several times
    /// the size of their records, and more batches at once make neither the processor nor the
    /// engine faster.
    async fn room<'s>(&self, room: &'s Semaphore, rows: usize) -> Result<SemaphorePermit<'s>, Stop> {
        let rows = rows.min(self.shared.limits.rows_in_memory_max()) as u32;
        tokio::select! {
            biased;
            () = self.lease.ending() => Err(Stop::Lapsed),
            permit = room.acquire_many(rows) => permit.map_err(|_| Stop::Lapsed),
        }
    }

    /// Decodes the records into at most `rows` rows, a chunk at a time, because decoded reports are
    /// large.
    async fn decode(&mut self, records: Vec<Record>, rows: usize, intent: &Intent) -> Result<PreparedBatch, Stop> {
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
            // A large batch takes long, and the other owners share the thread.
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

    /// Copies refused records and events to the quarantine topic, before the batch is committed.
    async fn copy(&self, refusals: &[Refusal]) -> Result<(), Stop> {
        let mut waits = backoff();
        while let Err(error) = self.shared.copies.confirm(refusals).await {
            tracing::warn!(shard = ?self.shard, %error, "kafka does not confirm the quarantine copies, trying again");
            self.lease.pause(waits.pause()).await?;
        }
        Ok(())
    }

    /// Repeats an attempt until it succeeds, fails for good, or the lease ends. Logs when the error
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
                    self.lease.pause(waits.pause()).await?;
                }
            }
        }
    }
}

/// The records of a batch that is being collected.
#[derive(Default)]
struct Gathered {
    records: Vec<Record>,
    rows: usize,
    bytes: usize,
}

/// When a batch is written that has `rows` rows. Its first record came at `began`, and the
/// collection of the batch before ended at `collected`.
fn due(collected: Instant, began: Instant, rows: usize, age_max: Duration) -> Instant {
    let age = if rows < BUSY_ROWS { age_max } else { (age_max / 3).max(BUSY_AGE).min(age_max) };
    (collected + age).max(began + LONE_WITHIN.min(age_max))
}

/// The number of rows that a record counts for: its events, at least one.
fn rows_of(record: &Record) -> usize {
    telemetry::reading::events(&record.payload).count().max(1)
}

/// The number of records that are decoded next.
pub(crate) fn chunk(records: &[Record]) -> usize {
    let mut bytes = 0;
    let fit = records.iter().take(CHUNK_RECORDS).take_while(|record| {
        bytes += record.bytes();
        bytes <= CHUNK_BYTES
    });
    fit.count().max(1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{BUSY_ROWS, due};

    #[test]
    fn a_batch_is_due_by_the_batch_before_sooner_with_many_rows_and_a_lone_record_soon() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let due_ms = |began, rows, age| (due(start, start + ms(began), rows, ms(age)) - start).as_millis();
        assert_eq!([due_ms(1, 1, 1_500), due_ms(1, BUSY_ROWS - 1, 1_500)], [1_500, 1_500]);
        assert_eq!([due_ms(1, BUSY_ROWS, 1_500), due_ms(490, BUSY_ROWS, 1_500)], [500, 540]);
        assert_eq!([due_ms(1_480, 1, 1_500), due_ms(60_000, 1, 1_500)], [1_530, 60_050]);
        assert_eq!([due_ms(1, BUSY_ROWS, 600), due_ms(1, BUSY_ROWS, 100)], [300, 100]);
        assert_eq!(due_ms(60_000, 1, 10), 60_010);
    }
}
