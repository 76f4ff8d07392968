//! Closes an incarnation of a topic: afterwards nothing can be written into it.
//!
//! A topic that was deleted and created again has other records at the same offsets. It therefore
//! gets a new incarnation, whose ledgers begin where those of the earlier incarnations ended. That
//! end must be final. Otherwise two owners could read different beginnings. An event that a late
//! owner of the old incarnation commits could then be written again in the new one. So every shard
//! of an incarnation is closed before the next incarnation is numbered. For a shard at position `p`
//! there are four steps:
//!
//! 1. *Fence*: put an intent of decoder version [`CLOSING`] at `p`, by put-if-absent like any other
//!    intent, with a generation above those that exist. An owner that comes to `p` finds it when it
//!    reads its own intent back, and stops. From here on it is known what owners had begun at `p`:
//!    the intents of lower generations.
//! 2. *Burn*: use up every token with which those intents could still be committed, each by an
//!    empty commit row. From here on the batch at `p` either has its commit or never gets one. If
//!    it has one, it is complete, because the commit is written after all blocks. Closing then
//!    starts again at the batch's end. An owner that is still running can repeat this only a few
//!    times, because it must commit each batch before the fence is there.
//! 3. *Erase*: rows of a batch without a commit must not stay. Use up every token with which they
//!    could still be inserted, then delete them. Also delete a commit that another owner had
//!    already begun to replace.
//! 4. *Close*: write a commit row that ends at [`CLOSED`]. It says that the records from `p` on
//!    were never written. It also tells every later reader of the position that the shard is
//!    closed.
//!
//! Each step can be repeated, and two processes that close at once do the same. The deletions only
//! touch rows of generations below the fence's. The tokens of these generations are used up, so no
//! owner can still be writing such rows.

use async_recursion::async_recursion as boxed;
use serde::Deserialize;

use crate::{
    client::Warehouse,
    columns::{Provenance, all_tables},
    error::Error,
    loader::{CLOSED, CLOSING, GENERATIONS, Intent, Shard, TopicIncarnation, condition, token},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    pub shard: Shard,
    /// The records from this offset on were never written. Their number is unknown.
    pub position: u64,
}

#[derive(Deserialize)]
struct CommitsThere {
    commits: u64,
    generation: u32,
}

impl Warehouse {
    /// Closes every shard of an incarnation. Repeating it changes nothing. `now` is the present
    /// time, us since 1970.
    ///
    /// # Errors
    /// As [`Warehouse::execute`]. Repeat the call until it succeeds, before you number another
    /// incarnation of the topic.
    #[boxed]
    pub async fn close_incarnation(&self, topic: &TopicIncarnation, now: i64) -> Result<Vec<Closed>, Error> {
        let mut closed = Vec::new();
        // Kafka has far fewer partitions than i32 has numbers.
        for partition in 0..topic.partitions.cast_signed() {
            let shard = Shard { incarnation: topic.incarnation, partition };
            closed.push(Closed { shard, position: self.close_shard(shard, now).await? });
        }
        Ok(closed)
    }

    async fn close_shard(&self, shard: Shard, now: i64) -> Result<u64, Error> {
        let mut attempt = 0;
        loop {
            let progress = self.progress(shard).await?;
            if let Some(commit) = progress.commit.filter(|commit| commit.batch_end == CLOSED) {
                return Ok(commit.batch);
            }
            let position = progress.position().unwrap_or(0);
            let (fence, begun) = self.fence(shard, position, now).await?;
            for intent in &begun {
                self.burn_commits(intent).await?;
            }
            let there = self.commits_there(shard, position).await?;
            let newest = begun.iter().map(|intent| intent.generation).max();
            if newest.is_some_and(|newest| there.commits > 0 && there.generation >= newest) {
                continue;
            }
            if !begun.is_empty() {
                self.erase_begun(&fence, &begun).await?;
            }
            self.put_closing_commit(&fence, attempt, now).await?;
            attempt += 1;
        }
    }

    /// The intent that closes a shard at a position, and the intents below it. Writes the closing
    /// intent if there is none yet.
    async fn fence(&self, shard: Shard, position: u64, now: i64) -> Result<(Intent, Vec<Intent>), Error> {
        let mut put: Option<u32> = None;
        loop {
            let intents = self.intents(shard, position, Some(position)).await?;
            if let Some(fence) = intents.iter().find(|intent| intent.decoder_version == CLOSING).cloned() {
                let begun = intents.into_iter().filter(|intent| intent.generation < fence.generation).collect();
                return Ok((fence, begun));
            }
            // As for an owner, a generation that is taken or burned leads to the next one.
            let latest = intents.iter().map(|intent| intent.generation).max().max(put);
            let generation = latest.map_or(0, |latest| latest + GENERATIONS);
            put = Some(generation);
            const DAY_US: i64 = 86_400_000_000;
            let day = intents.first().map_or(now.div_euclid(DAY_US) as i32, |intent| intent.ingest_day);
            let fence = Intent {
                shard,
                batch: position,
                batch_end: CLOSED,
                generation,
                decoder_version: CLOSING,
                rules_hash: 0,
                ingest_day: day,
                owner: "closed: the topic was created again".to_owned(),
            };
            self.put_intent(&fence, now).await?;
        }
    }

    /// Uses up every token with which an intent could still be committed.
    async fn burn_commits(&self, intent: &Intent) -> Result<(), Error> {
        let Shard { incarnation, partition } = intent.shard;
        let batch = intent.batch;
        for generation in intent.generation..intent.generation + GENERATIONS {
            let sql = format!(
                "INSERT INTO loader_commits (kind, incarnation, kafka_partition, batch, batch_end, gen) \
                 VALUES ('commit', {incarnation}, {partition}, {batch}, {batch}, 0)"
            );
            let token = token(intent.provenance(), "loader_commits", generation);
            self.put(self.client().query_raw(&sql), &token).await?;
        }
        Ok(())
    }

    /// The number of a batch's commits without burned tokens, and the greatest generation among
    /// them.
    async fn commits_there(&self, shard: Shard, batch: u64) -> Result<CommitsThere, Error> {
        let Shard { incarnation, partition } = shard;
        let sql = format!(
            "SELECT count() AS commits, max(gen) AS generation FROM loader_commits WHERE kind = 'commit' \
             AND incarnation = {incarnation} AND kafka_partition = {partition} AND batch = {batch} \
             AND batch_end > batch AND batch_end < {CLOSED}"
        );
        self.row(&sql).await
    }

    /// Deletes the rows of a batch that was begun and can never be committed.
    async fn erase_begun(&self, fence: &Intent, begun: &[Intent]) -> Result<(), Error> {
        let Provenance { ingest_day, incarnation, partition, batch } = fence.provenance();
        let below = fence.generation;
        for table in all_tables() {
            for generation in begun.iter().flat_map(|intent| intent.generation..intent.generation + GENERATIONS) {
                // The row is only there to make ClickHouse record the token. The deletion below
                // removes it.
                let sql = format!(
                    "INSERT INTO {table} (ingest_day, incarnation, kafka_partition, batch, gen, batch_hash) \
                     VALUES (toDate({ingest_day}), {incarnation}, {partition}, {batch}, {generation}, 0)"
                );
                self.put(self.client().query_raw(&sql), &token(fence.provenance(), table, generation)).await?;
            }
            let of = condition(fence.provenance());
            let sql = format!("ALTER TABLE {table} DELETE WHERE {of} AND gen < {below} SETTINGS mutations_sync = 2");
            self.command(&sql).await?;
        }
        let sql = format!(
            "ALTER TABLE loader_commits DELETE WHERE incarnation = {incarnation} AND kafka_partition = {partition} \
             AND batch = {batch} AND batch_end > batch AND gen < {below} SETTINGS mutations_sync = 2"
        );
        self.command(&sql).await
    }

    async fn put_closing_commit(&self, fence: &Intent, attempt: u32, now: i64) -> Result<(), Error> {
        let Shard { incarnation, partition } = fence.shard;
        let (batch, generation) = (fence.batch, fence.generation);
        let sql = format!(
            "INSERT INTO loader_commits (kind, incarnation, kafka_partition, batch, batch_end, gen, committed_at, \
             lost_first, lost_last, lost_reason) VALUES ('commit', {incarnation}, {partition}, {batch}, {CLOSED}, \
             {generation}, fromUnixTimestamp64Micro({now}), [{batch}], [{CLOSED}], 'topic')"
        );
        let token = token(fence.provenance(), "loader_commits", generation + attempt);
        self.put(self.client().query_raw(&sql), &token).await
    }
}
