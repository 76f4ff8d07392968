//! Compares an event that arrives again with its stored or quarantined content. Equal content is a
//! retransmission and is ignored. Different content is a conflict (a cloned device, or counters
//! that were reset) and goes to the quarantine topic.
//!
//! The comparison stands between the inserts of a batch and its commit. So the first content is in
//! its table even if both arrive in one batch, and a crash before the commit repeats the
//! comparison. Conflicts go to Kafka and are loaded from there like any other record: the rows of
//! this batch, and of a rebuilt one, do not depend on the comparison. After a crash between Kafka's
//! confirmation and the commit, a conflict is reported twice. If ClickHouse cannot be read, the
//! comparison ends after [`ATTEMPTS`], and the events are counted as unverified; `reconcile` finds
//! their conflicts in Kafka.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use telemetry::{interval::IntervalSet, kafka::SOURCE_CHECK, reject::Reason, report::Report, v1};
use warehouse::columns::{EventContent, EventKey, Kept, contents, difference};

use super::{Owner, Stop};
use crate::{
    batch::{Refusal, Repeat, Repeats},
    copies::Copies,
    store::{Store, backoff},
};

/// Attempts to read the stored rows. Loading does not wait for a comparison longer than that:
/// events that could not be compared are counted.
const ATTEMPTS: u32 = 5;

/// The result of a comparison.
#[derive(Default)]
pub(super) struct Compared {
    /// One for each event with other content.
    pub conflicts: Vec<Refusal>,
    /// Events whose stored content was not found or could not be read.
    pub unverified: u64,
}

impl<S: Store, C: Copies> Owner<S, C> {
    /// Compares repeated events with the stored ones.
    pub(super) async fn compare(&self, repeats: &Repeats) -> Result<Compared, Stop> {
        if repeats.records.is_empty() {
            return Ok(Compared::default());
        }
        let mut waits = backoff();
        for attempt in 1.. {
            match self.differing(repeats).await {
                Ok(compared) => return Ok(compared),
                Err(error) => {
                    let count = |record: &Repeat| record.seqs.count() + record.quarantined.count();
                    let unverified = repeats.records.iter().map(count).sum();
                    tracing::warn!(shard = ?self.shard, %error, unverified, "cannot compare events that arrived again");
                    if attempt == ATTEMPTS {
                        return Ok(Compared { conflicts: Vec::new(), unverified });
                    }
                    self.lease.pause(waits.pause()).await?;
                }
            }
        }
        Ok(Compared::default())
    }

    async fn differing(&self, repeats: &Repeats) -> Result<Compared, warehouse::Error> {
        let events =
            || repeats.records.iter().flat_map(|record| keys(record, &record.seqs).map(move |key| (record, key)));
        let mut differences = self.differences(repeats).await?;
        // The stored event may be of another kind, and so in another table.
        let absent = events().filter(|(record, key)| !differences.contains_key(&(record.offset, key.clone())));
        let absent: BTreeSet<EventKey> = absent.map(|(_, key)| key).collect();
        let elsewhere: BTreeSet<EventKey> = match absent.is_empty() {
            true => BTreeSet::new(),
            false => self.shared.store.stored_events(&Vec::from_iter(absent)).await?.into_iter().collect(),
        };
        if !elsewhere.is_empty() {
            // Or the event was written between the two reads, into the table that was read first.
            differences = self.differences(repeats).await?;
        }
        let mut compared = Compared::default();
        for (record, key) in events() {
            let difference = match differences.remove(&(record.offset, key.clone())) {
                Some(difference) => difference,
                None if elsewhere.contains(&key) => Some("an event of another kind is stored".to_owned()),
                None => {
                    compared.unverified += 1;
                    None
                }
            };
            compared.conflicts.extend(difference.and_then(|difference| conflict(record, &key, &difference)));
        }
        self.in_quarantine(repeats, &mut compared).await?;
        Ok(compared)
    }

    /// The same for events whose first content is in quarantine: the second one is not stored
    /// either, and must not disappear because of it.
    async fn in_quarantine(&self, repeats: &Repeats, compared: &mut Compared) -> Result<(), warehouse::Error> {
        let of = |record| keys(record, &record.quarantined).map(move |key| (record, key));
        let events: Vec<(&Repeat, EventKey)> = repeats.records.iter().flat_map(of).collect();
        if events.is_empty() {
            return Ok(());
        }
        let wanted: BTreeSet<EventKey> = events.iter().map(|(_, key)| key.clone()).collect();
        let mut kept: BTreeMap<EventKey, Vec<Kept>> = BTreeMap::new();
        for (key, row) in self.shared.store.kept_in_quarantine(&Vec::from_iter(wanted)).await? {
            kept.entry(key).or_default().push(row);
        }
        for (record, key) in events {
            let Some(kept) = kept.get(&key) else {
                compared.unverified += 1;
                continue;
            };
            let Some(refusal) = conflict(record, &key, "") else { continue };
            if !kept.iter().any(|kept| is_same(&kept.payload, &refusal.payload)) {
                let difference = format!("the first content is in quarantine as {}, and differs", kept[0].reason);
                compared.conflicts.extend(conflict(record, &key, &difference));
            }
        }
        Ok(())
    }

    /// For each event that stands in the table of its kind: how it differs, by offset of the record
    /// that brought it again.
    async fn differences(&self, repeats: &Repeats) -> Result<Differences, warehouse::Error> {
        let mut differences = Differences::new();
        for block in &repeats.blocks {
            let rows = block.record_batch(0)?;
            let schema = rows.schema();
            let (came, stored) = (contents(&rows), self.shared.store.contents(block).await?);
            let mut of_event: BTreeMap<EventKey, Vec<&EventContent>> = BTreeMap::new();
            for content in &stored {
                of_event.entry(content.key()).or_default().push(content);
            }
            let mut of_record: BTreeMap<(u64, EventKey), Vec<&EventContent>> = BTreeMap::new();
            for content in &came {
                of_record.entry((content.kafka_offset, content.key())).or_default().push(content);
            }
            for (event, came) in of_record {
                if let Some(stored) = of_event.get(&event.1) {
                    let found = difference(&schema, &came, stored);
                    // A cycle has rows in several tables: the first difference counts.
                    let known = differences.entry(event).or_default();
                    *known = known.take().or(found);
                }
            }
        }
        Ok(differences)
    }
}

type Differences = BTreeMap<(u64, EventKey), Option<String>>;

/// Whether two reports of one event say the same of it. When it happened is told from the base of
/// each report, and so is not compared; an event of a kind that this version does not know is not
/// either.
fn is_same(first: &[u8], again: &[u8]) -> bool {
    let kind = |report: &[u8]| Some(v1::Report::decode(report).ok()?.events.pop()?.kind);
    kind(first) == kind(again)
}

fn keys(record: &Repeat, seqs: &IntervalSet) -> impl Iterator<Item = EventKey> {
    let seqs = seqs.intervals().iter().flat_map(|known| known.first..=known.last);
    seqs.map(|seq| EventKey {
        tenant: record.boot.tenant.clone(),
        device: record.boot.device.clone(),
        boot_id: record.boot.boot_id,
        seq,
    })
}

/// A refusal of the event alone, with its bytes as received.
fn conflict(record: &Repeat, key: &EventKey, difference: &str) -> Option<Refusal> {
    let report = Report::decode(&record.payload).ok()?;
    let index = usize::try_from(key.seq.checked_sub(report.message().first_seq)?).ok()?;
    Some(Refusal {
        reason: Reason::Conflict,
        source: SOURCE_CHECK,
        detail: format!("boot {}, sequence {}: {difference}", key.boot_id, key.seq),
        topic: record.topic.clone(),
        received_at: record.received_at,
        key: record.key.clone(),
        payload: report.excerpt(&record.payload, index),
    })
}
