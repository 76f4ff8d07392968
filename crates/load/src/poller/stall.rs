//! Finds out why a partition is not read although Kafka has more, and continues behind what is
//! gone.

use std::time::Instant;

use rdkafka::consumer::Consumer as _;
use warehouse::columns::LossCause;

use super::{BOUNDS_EVERY, Poller, Report, single};
use crate::{
    copies::Copies,
    error::Error,
    give_up,
    partition::Key,
    start::watermarks,
    store::Store,
    unread::{self, Answer, Ends, GivenUp, UnreadPartition},
};

impl<S: Store, C: Copies> Poller<S, C> {
    /// Stops reading a partition whose next record did not come, and asks for it. librdkafka skips
    /// a batch with a wrong checksum, so the offsets in between may hold records.
    pub(super) fn halt(&mut self, key: Key) -> Result<(), Error> {
        self.consumer.incremental_unassign(&single(&key, None)?)?;
        let Some(holding) = self.holdings.get_mut(&key) else { return Ok(()) };
        let (next, since) = (holding.next, self.shared.clock.since_host_boot());
        tracing::warn!(topic = %key.0, partition = key.1, next, "the next record did not come, asking for it");
        holding.halted = true;
        holding.standing = Some(UnreadPartition { next, since, high: None, why: None });
        self.probe(key);
        Ok(())
    }

    /// Asks for Kafka's offsets of each partition, to see whether its records are read.
    pub(super) fn look(&mut self) {
        self.looked_at = Instant::now();
        let held = self.holdings.iter().filter(|(_, holding)| holding.outlet.is_some());
        let (keys, serials): (Vec<Key>, Vec<u64>) = held.map(|(key, holding)| (key.clone(), holding.serial)).unzip();
        self.looking = !keys.is_empty();
        let (client, sender) = (self.client.clone(), self.sender.clone());
        self.runtime.spawn_blocking(move || {
            let ends = unread::ends(&client, &keys);
            let ends = keys.into_iter().zip(serials).zip(ends).map(|((key, serial), end)| (key, serial, end));
            let _ = sender.send(Report::Ends(ends.collect()));
        });
    }

    /// Compares Kafka's offsets of a partition with the next one to read.
    pub(super) fn seen(&mut self, key: Key, end: Ends) -> Result<(), Error> {
        let waits = self.full_since.is_some();
        let Some(holding) = self.holdings.get_mut(&key) else { return Ok(()) };
        let next = holding.next;
        let behind = end.as_ref().map_or(true, |(_, high)| *high > next);
        // A paused partition has records in memory, whose age is watched.
        if !holding.halted && (!behind || holding.paused || waits) {
            holding.standing = None;
            self.handle.standing(&key, None);
            return Ok(());
        }
        let again = holding.standing.as_ref().is_some_and(|standing| standing.next == next);
        if !again {
            holding.standing =
                Some(UnreadPartition { next, since: self.shared.clock.since_host_boot(), high: None, why: None });
        }
        match end {
            Ok((low, high)) if again && low > next => return self.bounds(&key, low, high),
            Ok((_, high)) => {
                if let Some(standing) = &mut holding.standing {
                    standing.high = Some(high);
                }
                self.handle.standing(&key, holding.standing.clone());
                if again && !holding.probing {
                    self.probe(key);
                }
            }
            Err(why) => {
                if let Some(standing) = &mut holding.standing {
                    if standing.why.as_ref() != Some(&why) {
                        tracing::warn!(topic = %key.0, partition = key.1, next, why, "the end of the partition is not known");
                    }
                    standing.why = Some(why);
                }
                self.handle.standing(&key, holding.standing.clone());
            }
        }
        Ok(())
    }

    /// Asks Kafka for the next record of a partition that is not read.
    fn probe(&mut self, key: Key) {
        let Some(holding) = self.holdings.get_mut(&key) else { return };
        holding.probing = true;
        let (next, serial) = (holding.next, holding.serial);
        let (kafka, sender) = (self.options.kafka.clone(), self.sender.clone());
        let incarnation = self.incarnations.get(&*key.0).map(|topic| topic.incarnation);
        self.runtime.spawn_blocking(move || {
            let answer = unread::probe(&kafka, &key, next);
            let asked = answer.lasts()
                && incarnation.is_some_and(|incarnation| give_up::is_asked(&kafka, &key, incarnation, next));
            let _ = sender.send(Report::Probed { key, serial, next, answer, asked });
        });
    }

    pub(super) fn probed(&mut self, key: Key, next: u64, answer: Answer, asked: bool) -> Result<(), Error> {
        let Some(holding) = self.holdings.get_mut(&key) else { return Ok(()) };
        holding.probing = false;
        let Some(standing) = holding.standing.as_mut().filter(|standing| standing.next == next) else { return Ok(()) };
        if holding.next != next {
            return Ok(());
        }
        if let Answer::Record(offset) = answer {
            // The offsets before it have no record, and no error: the owner records them as lost.
            holding.next = offset;
            (holding.halted, holding.paused) = (false, false);
            tracing::warn!(topic = %key.0, partition = key.1, offset, "the partition is read again");
            let _ = self.consumer.incremental_unassign(&single(&key, None)?);
            if let Err(error) = self.assign(&key, offset) {
                tracing::info!(topic = %key.0, partition = key.1, %error, "kafka has revoked the partition before it was assigned");
                self.end_owner(&key);
            }
            return Ok(());
        }
        let why = answer.to_string();
        if standing.why.as_ref() != Some(&why) {
            tracing::error!(topic = %key.0, partition = key.1, next, why, "the partition is not read");
            standing.why = Some(why);
        }
        self.handle.standing(&key, Some(standing.clone()));
        let stood = self.shared.clock.since_host_boot().saturating_sub(standing.since);
        let due = asked || stood >= self.options.limits.unreadable_after;
        if answer.lasts() && due && holding.written == next {
            holding.probing = true;
            let (serial, kafka, client) = (holding.serial, self.options.kafka.clone(), self.client.clone());
            let sender = self.sender.clone();
            tracing::warn!(topic = %key.0, partition = key.1, next, asked, "searching for the next readable record");
            self.runtime.spawn_blocking(move || {
                let to = unread::behind(&kafka, &client, &key, next);
                let given_up = to.map(|to| GivenUp { from: next, to });
                let _ = sender.send(Report::Behind { key, serial, given_up });
            });
        }
        Ok(())
    }

    /// Gives a batch up: the owner starts again and first records the batch as lost.
    pub(super) fn behind(&mut self, key: Key, given_up: Option<GivenUp>) {
        let Some(holding) = self.holdings.get_mut(&key) else { return };
        holding.probing = false;
        if let Some(given_up) = given_up.filter(|given_up| given_up.from == holding.next) {
            self.given_up.insert(key.clone(), given_up);
            self.start_again(key);
        }
    }

    /// Asks for the offsets of all partitions, at most once a second: the error does not say in
    /// which one the next record is gone.
    pub(super) fn ask_for_bounds(&mut self) {
        if self.asked_at.is_some_and(|asked| asked.elapsed() < BOUNDS_EVERY) {
            return;
        }
        self.asked_at = Some(Instant::now());
        for (key, holding) in self.holdings.iter().filter(|(_, holding)| holding.outlet.is_some()) {
            let (key, serial) = (key.clone(), holding.serial);
            let (client, sender) = (self.client.clone(), self.sender.clone());
            self.runtime.spawn_blocking(move || {
                match watermarks(&client, &key) {
                    Ok((low, high)) => {
                        let (low, high) = (low.max(0).unsigned_abs(), high.max(0).unsigned_abs());
                        let _ = sender.send(Report::Bounds { key, serial, low, high });
                    }
                    // librdkafka repeats its error, so the question is repeated.
                    Err(error) => tracing::debug!(%error, "bounds of a partition"),
                }
            });
        }
    }

    /// Continues behind records that Kafka has deleted. Records before the hole stay with the
    /// owner, which records the hole as lost with the batch that contains it.
    pub(super) fn bounds(&mut self, key: &Key, low: u64, high: u64) -> Result<(), Error> {
        let Some(holding) = self.holdings.get_mut(key) else { return Ok(()) };
        let next = holding.next;
        if next > high {
            let (topic, partition) = (key.0.to_string(), key.1);
            let fault = format!(
                "the next record to read has offset {next}, but Kafka's next offset is {high}: the topic was created \
                 again, or lost records that were confirmed"
            );
            return Err(Error::Offsets { topic, partition, fault });
        }
        let from = next.max(low);
        if next < low {
            holding.next = low;
            self.handle.lost(&key.0, key.1, next, low, LossCause::Deleted);
        }
        let halted = std::mem::take(&mut holding.halted);
        // librdkafka has stopped reading the partition with the error, and does not say which it
        // is.
        let moved = single(key, None)
            .and_then(|list| if halted { Ok(()) } else { self.consumer.incremental_unassign(&list) })
            .and_then(|()| self.assign(key, from));
        if let Some(holding) = self.holdings.get_mut(key) {
            holding.paused = false;
        }
        if let Err(error) = moved {
            tracing::info!(topic = %key.0, partition = key.1, %error, "kafka has revoked the partition before it was assigned");
            self.end_owner(key);
        }
        Ok(())
    }
}
