//! Replays: records that a person sends out of quarantine through the loader again.
//!
//! The ledger alone decides, as for every other record. A quarantined sequence number becomes
//! stored if its event is plausible under today's rules, in the batch that writes its row and its
//! share of the sums. A sequence number that is stored already is a duplicate. So a replay may be
//! repeated, interrupted, or done by two people at once.
//!
//! A message without sequence numbers gets a number from its content
//! ([`telemetry::quarantine::number`]), in a ledger of the device beside those of its boots. If
//! that ledger is full ([`telemetry::ledger::INTERVALS_MAX`]), the message stays in quarantine.

use telemetry::{
    interval::Interval,
    ledger::{Fate, Ledger},
    reject::{Reason, Reject},
    topic::Topic,
};
use warehouse::columns::{Outcome, REPLAYED_BOOT, Replayed};

use super::{
    Batch,
    runs::{Run, Source},
};
use crate::{
    decode::{Decoded, Message, Replay},
    ledgers::{BootRef, Ledgers},
};

/// Whether the refused event, or the refused record if `seq` is `None`, is the quarantine row that
/// is replayed. That row is there already and is not written again.
pub(super) fn stands(decoded: &Decoded<'_>, seq: Option<u64>) -> bool {
    match (&decoded.replay, seq) {
        (None, _) => false,
        (Some(_), None) => true,
        // The events of a replayed message have no rows of their own yet.
        (Some(replay), Some(seq)) => replay.id.seq == Some(seq),
    }
}

impl Batch<'_> {
    /// Adds events with sequence numbers that the ledger does not hold as stored, in runs of one
    /// fate.
    pub(super) fn replay_sequenced(&mut self, source: &Source<'_, '_>, range: Interval, ledger: &mut Ledger) {
        let parts = ledger.unstored(range);
        self.outcome.duplicates += range.count() - parts.iter().map(|(part, _)| part.count()).sum::<u64>();
        for (part, quarantined) in parts {
            let mut next = part.first;
            while next <= part.last {
                let run = source.run(next, part.last);
                let interval = Interval::new(next, next + run.count() - 1);
                next = interval.last + 1;
                if quarantined {
                    self.replay_quarantined(source, interval, run, ledger);
                } else {
                    self.admit(source, interval, run, ledger);
                }
            }
        }
    }

    /// Takes a run that is quarantined out of quarantine, or leaves it there.
    fn replay_quarantined(&mut self, source: &Source<'_, '_>, interval: Interval, run: Run, ledger: &mut Ledger) {
        let refused = match run {
            Run::Stored(_) => match ledger.store_quarantined(interval) {
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
        self.outcome.refused += interval.count();
        // Events of a replayed message have rows of their own, so the message itself does not stay.
        self.outcome.stays |= stands(source.decoded, Some(interval.first));
        self.outcome.reject = self.outcome.reject.take().or(refused);
    }

    /// Whether events outside the sequence are written: those of a device always, those of a replay
    /// once.
    pub(super) fn admits_unnumbered(&mut self, source: &Source<'_, '_>, ledgers: &mut Ledgers) -> bool {
        let (decoded, events) = (source.decoded, &source.report.message().events);
        let Some(replay) = &decoded.replay else { return true };
        let Some(topic) = decoded.device else { return false };
        // An event that stays in quarantine uses up no number: it can be replayed again later.
        if let ([event], Some(_)) = (events.as_slice(), replay.id.seq)
            && source.check(0, event).is_err()
        {
            return true;
        }
        events.is_empty() || self.admits_number(decoded, &topic, events.len() as u64, ledgers)
    }

    /// Whether a replayed message without sequence numbers arrives for the first time. `events` is
    /// the number of its events.
    pub(super) fn admits_number(
        &mut self,
        decoded: &Decoded<'_>,
        topic: &Topic<'_>,
        events: u64,
        ledgers: &mut Ledgers,
    ) -> bool {
        let boot = ledgers.get(BootRef::of(topic, REPLAYED_BOOT));
        let number = decoded.number();
        if boot.ledger.stored.contains(number) {
            self.outcome.duplicates += events;
            return false;
        }
        match boot.ledger.record(Interval::new(number, number), Fate::Stored) {
            Ok(()) => {
                topic.site.clone_into(&mut boot.site);
                boot.last_arrival = boot.last_arrival.max(decoded.received_at);
                true
            }
            Err(fragmented) => {
                self.outcome.refused += events;
                self.outcome.stays = true;
                self.outcome.reject.get_or_insert_with(|| Reject::new(Reason::Fragmented, fragmented.to_string()));
                false
            }
        }
    }

    /// Adds the row that says what became of a replayed record.
    pub(super) fn replayed(&mut self, decoded: &Decoded<'_>, replay: &Replay<'_>) {
        let found = &self.outcome;
        let outcome = match found {
            found if found.stays => Outcome::Refused,
            found if found.stored > 0 => Outcome::Stored,
            found if found.duplicates > 0 => Outcome::Duplicate,
            found if found.refused > 0 => Outcome::RefusedSingly,
            // No events, but losses or earlier boots: they are in the ledgers.
            _ => Outcome::Stored,
        };
        let topic = decoded.device;
        let boot_id = match &decoded.message {
            Ok(Message::Report(report)) => report.boot_id(),
            Ok(Message::Status(status, _)) => status.boot_id.unwrap_or(0),
            _ => 0,
        };
        self.tables.replay(&Replayed {
            id: replay.id,
            outcome,
            stored: found.stored,
            duplicates: found.duplicates,
            refused: found.refused,
            detail: &found.reject.as_ref().map(ToString::to_string).unwrap_or_default(),
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

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use telemetry::{
        ledger::INTERVALS_MAX,
        plausibility::{Plausibility, Range, Ranges},
        quarantine::Id,
        report::Contexts,
        v1::{self, event::Kind},
    };
    use warehouse::columns::Provenance;

    use super::*;
    use crate::{
        batch::{DecodeRules, PreparedBatch},
        decode::{Place, TopicKind, decode},
        inbox::{Headers, OtherHeaders, Record},
    };

    const BOOT: u64 = 9;

    fn rules(depth_um_max: i64) -> DecodeRules {
        let mut plausibility = Plausibility::default();
        let ranges = Ranges { depth_um: Range(0, depth_um_max), ..Ranges::default() };
        plausibility.models.insert(String::new(), ranges);
        DecodeRules::new(plausibility, telemetry::device_time::Limits::default())
    }

    fn record(payload: Vec<u8>, channel: &str, replay: Option<&str>) -> Record {
        let bytes = |text: &str| Some(text.as_bytes().to_vec());
        let headers = Headers {
            topic: bytes(&format!("doseline/v1/acme/berlin/d1/{channel}")),
            received_at: Some(1_700_000_000_000_000),
            others: Some(Box::new(OtherHeaders { replay: replay.and_then(bytes), ..OtherHeaders::default() })),
        };
        Record { key: bytes("acme/d1"), payload, headers, ..Record::default() }
    }

    fn report(first_seq: u64, depths_um: &[u32]) -> Vec<u8> {
        let event = |measured_um| v1::Event {
            offset_us: 0,
            kind: Some(Kind::Injection(v1::Injection { measured_um: Some(measured_um), ..v1::Injection::default() })),
        };
        let events = depths_um.iter().copied().map(event).collect();
        v1::Report { boot_id: BOOT, first_seq, events, ..v1::Report::default() }.encode_to_vec()
    }

    fn written(ledgers: &mut Ledgers, rules: &DecodeRules, kind: TopicKind, record: &Record) -> PreparedBatch {
        let place = Place { kind, partition: 0, partitions: 1 };
        let mut contexts = Contexts::default();
        let (decoded, mut batch) = (decode(record, place, &mut contexts), Batch::default());
        let missing = ledgers.open(decoded.boots());
        ledgers.fill(missing, Vec::new());
        batch.add(&decoded, ledgers, rules);
        ledgers.committed();
        batch.close().finish(Provenance { ingest_day: 20_000, incarnation: 1, partition: 0, batch: 0 })
    }

    /// Rows written to injections, device_status, quarantine and quarantine_replays.
    fn rows(written: &PreparedBatch) -> [u64; 4] {
        ["injections", "device_status", "quarantine", "quarantine_replays"].map(|table| {
            written.blocks.iter().filter(|block| block.table() == table).map(warehouse::columns::Block::rows).sum()
        })
    }

    fn ledger(ledgers: &mut Ledgers) -> &mut Ledger {
        let boot = BootRef { tenant: "acme", device: "d1", boot_id: BOOT };
        let missing = ledgers.open([boot]);
        ledgers.fill(missing, Vec::new());
        &mut ledgers.get(boot).ledger
    }

    #[test]
    fn an_event_leaves_quarantine_when_the_rules_allow_it_and_once() {
        let (mut ledgers, narrow, wide) = (Ledgers::new(10), rules(2_000), rules(4_000));
        let mut add =
            |rules: &DecodeRules, record: &Record| rows(&written(&mut ledgers, rules, TopicKind::Reports, record));
        assert_eq!(add(&narrow, &record(report(1, &[1_500, 3_000, 5_000]), "report", None)), [1, 0, 2, 0]);
        let replay = record(report(2, &[3_000]), "report", Some("1-0-0-2"));
        assert_eq!(add(&narrow, &replay), [0, 0, 0, 1], "refused again, without a second row");
        assert_eq!(add(&wide, &record(report(2, &[3_000]), "report", None)), [0, 0, 0, 0], "a device cannot");
        assert_eq!(add(&wide, &replay), [1, 0, 0, 1]);
        assert_eq!(add(&wide, &replay), [0, 0, 0, 1]);
        assert_eq!(add(&narrow, &replay), [0, 0, 0, 1], "never back");
        assert_eq!(add(&wide, &record(report(3, &[5_000]), "report", Some("1-0-0-3"))), [0, 0, 0, 1]);
        let ledger = ledger(&mut ledgers);
        assert_eq!((ledger.stored.count(), ledger.quarantined.count()), (2, 1));
    }

    #[test]
    fn the_events_of_a_replayed_message_go_where_they_belong() {
        let (mut ledgers, narrow) = (Ledgers::new(10), rules(2_000));
        let message = record(report(1, &[1_500, 3_000]), "report", Some("3-0-7"));
        let mut add = |record: &Record| rows(&written(&mut ledgers, &narrow, TopicKind::Reports, record));
        assert_eq!(add(&message), [1, 0, 1, 1]);
        assert_eq!(add(&message), [0, 0, 0, 1]);
        assert_eq!(add(&record(vec![0xff], "report", Some("3-0-8"))), [0, 0, 0, 1], "the message stands there already");
        let unmarked =
            rows(&written(&mut ledgers, &narrow, TopicKind::Reports, &record(vec![0xff], "report", Some("3.0"))));
        assert_eq!(unmarked, [0, 0, 1, 0], "a mark that is none is refused");
    }

    #[test]
    fn what_has_no_number_is_told_by_its_content() {
        let (mut ledgers, rules) = (Ledgers::new(10), rules(2_000));
        let beat = |battery_pct| {
            let heartbeat = v1::Heartbeat { battery_pct: Some(battery_pct), ..v1::Heartbeat::default() };
            let event = v1::Event { offset_us: 0, kind: Some(Kind::Heartbeat(heartbeat)) };
            v1::Report { boot_id: BOOT, events: vec![event], ..v1::Report::default() }.encode_to_vec()
        };
        let mut add = |kind, record: &Record| rows(&written(&mut ledgers, &rules, kind, record));
        for expected in [1, 0, 0] {
            let replay = record(beat(50), "report", Some("3-0-7"));
            assert_eq!(add(TopicKind::Reports, &replay), [0, expected, 0, 1]);
            let status = record(br#"{"state":"STATE_ONLINE","bootId":"0"}"#.to_vec(), "status", Some("3-0-9"));
            assert_eq!(add(TopicKind::Status, &status), [0, expected, 0, 1]);
        }
        assert_eq!(add(TopicKind::Reports, &record(beat(51), "report", Some("3-0-8"))), [0, 1, 0, 1]);
        // Refused still: it uses up no number.
        for _ in 0..2 {
            assert_eq!(add(TopicKind::Reports, &record(beat(101), "report", Some("3-0-8-0"))), [0, 0, 0, 1]);
        }
    }

    #[test]
    fn a_fragmented_event_waits_for_room() {
        let (mut ledgers, rules) = (Ledgers::new(10), rules(2_000));
        for hole in 1..=INTERVALS_MAX as u64 {
            ledger(&mut ledgers).record(Interval::new(hole * 2, hole * 2), Fate::Stored).unwrap();
        }
        ledgers.committed();
        let seq = 1 << 20;
        let mut add = |record: &Record| rows(&written(&mut ledgers, &rules, TopicKind::Reports, record));
        assert_eq!(add(&record(report(seq, &[1_500]), "report", None)), [0, 0, 1, 0]);
        let id = Id { incarnation: 1, partition: 0, offset: 0, seq: Some(seq) }.to_string();
        let replay = record(report(seq, &[1_500]), "report", Some(&id));
        assert_eq!(add(&replay), [0, 0, 0, 1], "no room, no second row");
        assert_eq!(add(&record(report(3, &[1_500]), "report", None)), [1, 0, 0, 0], "closes a hole");
        assert_eq!(add(&replay), [1, 0, 0, 1]);
        assert_eq!(add(&replay), [0, 0, 0, 1]);
    }
}
