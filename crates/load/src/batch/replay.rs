//! Replays: records that bring in again what stands in quarantine.
//!
//! The loader's ledger is the only truth about it, as for everything else: a sequence number that is quarantined becomes
//! stored when its event is plausible under today's rules, in the batch that writes its row and its share of the sums; one
//! that is stored already is a duplicate. So a replay may be repeated, interrupted, or done by two people at once.
//!
//! What has no sequence number gets one from its content ([`telemetry::quarantine::number`]), in a ledger of the device
//! beside those of its boots. Where that one is full ([`telemetry::ledger::INTERVALS_MAX`]), the message stays in quarantine.

use telemetry::{
    interval::Interval,
    ledger::{Fate, Ledger},
    reject::{Reason, Reject},
    topic::Topic,
};
use warehouse::{
    columns::{Outcome, REPLAYED_BOOT, Replayed},
    loader::BootKey,
};

use super::{Batch, Run, Source};
use crate::{
    decode::{Decoded, Message, Replay},
    ledgers::Ledgers,
};

/// Whether what is refused is the row that is replayed: it stands in quarantine already and is not put there again. `seq` is
/// the event's, none for the whole record.
pub(super) fn stands(decoded: &Decoded<'_>, seq: Option<u64>) -> bool {
    match (&decoded.replay, seq) {
        (None, _) => false,
        (Some(_), None) => true,
        // The events of a replayed message have no rows of their own yet.
        (Some(replay), Some(seq)) => replay.id.seq == Some(seq),
    }
}

impl Batch {
    /// Events with sequence numbers: what the ledger does not have as stored, in runs of one fate.
    pub(super) fn replay_sequenced(&mut self, source: &Source<'_>, range: Interval, ledger: &mut Ledger) {
        let parts = ledger.unstored(range);
        self.tally.duplicates += range.count() - parts.iter().map(|(part, _)| part.count()).sum::<u64>();
        for (part, quarantined) in parts {
            let mut next = part.first;
            while next <= part.last {
                let run = source.run(next, part.last);
                let interval = Interval::new(next, next + run.rejects_or_count() - 1);
                next = interval.last + 1;
                if quarantined {
                    self.release(source, interval, run, ledger);
                } else {
                    self.settle(source, interval, run, ledger);
                }
            }
        }
    }

    /// A run of one fate that is in quarantine: out of it, or left there.
    fn release(&mut self, source: &Source<'_>, interval: Interval, run: Run, ledger: &mut Ledger) {
        let refused = match run {
            Run::Stored(_) => match ledger.release(interval) {
                Ok(_) => {
                    let first = source.report.message().first_seq;
                    for seq in interval.first..=interval.last {
                        self.store(source, (seq - first) as usize, seq);
                    }
                    return;
                }
                Err(fragmented) => Some(Reject::new(Reason::Fragmented, fragmented.to_string())),
            },
            Run::Quarantined(rejects) => rejects.into_iter().next(),
        };
        self.tally.refused += interval.count();
        // A message is done with nevertheless: these events have rows of their own.
        self.tally.stays |= stands(source.decoded, Some(interval.first));
        self.tally.reject = self.tally.reject.take().or(refused);
    }

    /// Whether events outside the sequence are to be written: those of a device always, those of a replay once.
    pub(super) fn admits_unnumbered(&mut self, source: &Source<'_>, ledgers: &mut Ledgers) -> bool {
        let (decoded, events) = (source.decoded, &source.report.message().events);
        let Some(replay) = &decoded.replay else { return true };
        let Ok(topic) = Topic::parse(&decoded.topic) else { return false };
        // What stays in quarantine uses up no number: it can be replayed after another fix.
        if let ([event], Some(_)) = (events.as_slice(), replay.id.seq)
            && source.check(event).is_err()
        {
            return true;
        }
        events.is_empty() || self.admits_number(decoded, &topic, events.len() as u64, ledgers)
    }

    /// Whether a replayed message of so many events that has no sequence numbers is here for the first time.
    pub(super) fn admits_number(
        &mut self,
        decoded: &Decoded<'_>,
        topic: &Topic<'_>,
        events: u64,
        ledgers: &mut Ledgers,
    ) -> bool {
        let (tenant, device) = (topic.tenant.to_owned(), topic.device.to_owned());
        let boot = ledgers.get(BootKey { tenant, device, boot_id: REPLAYED_BOOT });
        let number = decoded.number();
        if boot.ledger.stored.contains(number) {
            self.tally.duplicates += events;
            return false;
        }
        match boot.ledger.record(Interval::new(number, number), Fate::Stored) {
            Ok(()) => {
                topic.site.clone_into(&mut boot.site);
                boot.last_arrival = boot.last_arrival.max(decoded.received_at);
                true
            }
            Err(fragmented) => {
                self.tally.refused += events;
                self.tally.stays = true;
                self.tally.reject.get_or_insert_with(|| Reject::new(Reason::Fragmented, fragmented.to_string()));
                false
            }
        }
    }

    /// Notes what came of a replayed record.
    pub(super) fn replayed(&mut self, decoded: &Decoded<'_>, replay: &Replay<'_>) {
        let tally = &self.tally;
        let outcome = match tally {
            tally if tally.stays => Outcome::Refused,
            tally if tally.stored > 0 => Outcome::Stored,
            tally if tally.duplicates > 0 => Outcome::Duplicate,
            tally if tally.refused > 0 => Outcome::RefusedSingly,
            // No events, but losses or earlier boots: they are in the ledgers.
            _ => Outcome::Stored,
        };
        let topic = Topic::parse(&decoded.topic).ok();
        let boot_id = match &decoded.message {
            Ok(Message::Report(report)) => report.boot_id(),
            Ok(Message::Status(status)) => status.boot_id.unwrap_or(0),
            _ => 0,
        };
        self.tables.replay(&Replayed {
            id: replay.id,
            outcome,
            stored: tally.stored,
            duplicates: tally.duplicates,
            refused: tally.refused,
            detail: &tally.reject.as_ref().map(ToString::to_string).unwrap_or_default(),
            by: &replay.by,
            at: replay.at,
            tenant: topic.map_or("", |topic| topic.tenant),
            site: topic.map_or("", |topic| topic.site),
            device: topic.map_or("", |topic| topic.device),
            boot_id,
            received_at: decoded.received_at,
            kafka_offset: decoded.record.offset,
        });
    }
}
