//! The step *intent*: fixes the boundaries of the next batch, and finds out about earlier attempts
//! to write it.

use std::time::Duration;

use warehouse::loader::{CLOSING, Intent};

use super::{GENERATIONS, Owner, Stop};
use crate::{copies::Copies, error::Error, inbox::Record, store::Store};

/// How often an owner checks whether an owner of another version has finished its batch.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const DAY_US: i64 = 86_400_000_000;

/// The intent of a batch, and what is known about earlier attempts to write the batch.
#[derive(Debug)]
pub(super) struct Claim {
    pub intent: Intent,
    /// Whether no other owner can have written rows of this intent.
    pub is_unrivalled: bool,
    /// The lowest generation of earlier intents, if there are any. The rows of all generations
    /// below the intent's have to be deleted before the batch is written.
    pub superseded: Option<u32>,
    /// Boot clock before the intent was put.
    pub since: Duration,
}

impl<S: Store, C: Copies> Owner<S, C> {
    /// Adopts the intent at the position, or puts one.
    pub(super) async fn claim(&mut self, records: &[Record]) -> Result<Claim, Stop> {
        let since = self.shared.clock.since_host_boot();
        let wanted = records.last().map_or(self.read_from, |record| record.offset + 1);
        // Another owner may have read the records that are gone. Without them, its rows cannot be
        // completed.
        let short = records.first().map_or(self.read_from, |record| record.offset) > self.position;
        let (mut put, mut outwaited): (Option<u32>, bool) = (None, false);
        let mut intents = if self.continues { Vec::new() } else { self.intents().await? };
        loop {
            let next = match latest(&intents)? {
                None => self.intent(put.map_or(0, |burned| burned + GENERATIONS), wanted, None),
                Some(Intent { decoder_version: CLOSING, shard, .. }) => {
                    let (incarnation, partition) = (shard.incarnation, shard.partition);
                    return Err(Error::Closed { incarnation, partition }.into());
                }
                Some(intent) if self.follows_rules(intent) && (!short || intent.owner == self.name) => {
                    let is_unrivalled = intent.owner == self.name && put == Some(intent.generation);
                    let superseded = superseded(&intents, intent.generation);
                    if !is_unrivalled {
                        self.not_overtaken().await?;
                    }
                    let intent = intent.clone();
                    let is_unrivalled = is_unrivalled && superseded.is_none();
                    return Ok(Claim { intent, is_unrivalled, superseded, since });
                }
                // Nothing is deleted while an owner of the other version may still write.
                Some(other) if !outwaited => {
                    tracing::warn!(
                        shard = ?self.shard, batch = self.position, decoder = other.decoder_version, owner = other.owner,
                        records_missing = short,
                        "the batch was begun with another decoder, under other plausibility rules, or with records that Kafka no \
                         longer has; it is rewritten after the session time-out"
                    );
                    self.outwait().await?;
                    outwaited = true;
                    intents = self.intents().await?;
                    continue;
                }
                Some(other) => {
                    let generation = other.generation.max(put.unwrap_or(0)) + GENERATIONS;
                    self.intent(generation, other.batch_end, Some(other.ingest_day))
                }
            };
            let now = self.shared.clock.unix_us();
            self.persist("put intent", || self.shared.store.put_intent(&next, now)).await?;
            put = Some(next.generation);
            intents = self.intents().await?;
        }
    }

    /// Waits for a session time-out: by then an owner of the other version has stopped. Ends early
    /// with [`Stop::Overtaken`] if that owner has finished the batch.
    async fn outwait(&self) -> Result<(), Stop> {
        let mut left = self.shared.session_timeout;
        while !left.is_zero() {
            let wait = left.min(LOOK_EVERY);
            self.lease.pause(wait).await?;
            self.not_overtaken().await?;
            left -= wait;
        }
        Ok(())
    }

    fn intent(&self, generation: u32, batch_end: u64, ingest_day: Option<i32>) -> Intent {
        let today = self.shared.clock.unix_us().div_euclid(DAY_US);
        Intent {
            shard: self.shard,
            batch: self.position,
            batch_end,
            generation,
            decoder_version: self.shared.rules.decoder_version,
            rules_hash: self.shared.rules.hash,
            // Days that do not fit i32 are millions of years away.
            ingest_day: ingest_day.unwrap_or(today as i32),
            owner: self.name.clone(),
        }
    }

    fn follows_rules(&self, intent: &Intent) -> bool {
        let rules = &self.shared.rules;
        intent.decoder_version == rules.decoder_version && intent.rules_hash == rules.hash
    }

    async fn intents(&self) -> Result<Vec<Intent>, Stop> {
        self.persist("read intents", || self.shared.store.intents(self.shard, self.position)).await
    }

    /// Fails with [`Stop::Overtaken`] if the position is no longer that of this owner.
    pub(super) async fn not_overtaken(&self) -> Result<(), Stop> {
        let progress = self.persist("read position", || self.shared.store.progress(self.shard)).await?;
        match progress.position() {
            Some(position) if position != self.position => Err(Stop::Overtaken),
            _ => Ok(()),
        }
    }
}

/// The intent of the highest generation. If two intents of one generation differ, the engine has
/// accepted a token twice.
fn latest(intents: &[Intent]) -> Result<Option<&Intent>, Error> {
    let Some(latest) = intents.iter().max_by_key(|intent| intent.generation) else { return Ok(None) };
    let mut same = intents.iter().filter(|intent| intent.generation == latest.generation);
    if let Some(other) = same.find(|intent| *intent != latest) {
        return Err(Error::Mismatch {
            table: "loader_intents".to_owned(),
            batch: format!("{}/{}/{}", latest.shard.incarnation, latest.shard.partition, latest.batch),
            found: format!("an intent that ends at {} by {}", other.batch_end, other.owner),
            expected: format!("one that ends at {} by {}", latest.batch_end, latest.owner),
        });
    }
    Ok(Some(latest))
}

/// The lowest generation below the adopted one, if there is any.
fn superseded(intents: &[Intent], adopted: u32) -> Option<u32> {
    intents.iter().map(|intent| intent.generation).filter(|generation| *generation < adopted).min()
}
