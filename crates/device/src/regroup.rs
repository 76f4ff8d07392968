//! Repeats reports in other groupings and orders, as real devices do, for the scenario
//! `retransmit`.

use std::collections::VecDeque;

use prost::Message as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use telemetry::v1::Report;

use crate::{draft::ReportLimits, identity::Form};

/// Number of reports kept for repetition.
const HISTORY: usize = 8;
/// Greatest number of events in a repeated report; it bounds the memory of a large fleet.
const EVENTS_MAX: usize = 64;

/// Recent reports of one device.
pub(crate) struct Regroup {
    random: ChaCha8Rng,
    history: VecDeque<Report>,
    held: Option<Vec<u8>>,
}

impl Regroup {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: ChaCha8Rng::seed_from_u64(seed), history: VecDeque::new(), held: None }
    }

    /// The payloads to publish instead of a report's first sending. Each of its events is in them
    /// at least once. If `may_hold`, the report may also be held back until the next one.
    pub(crate) fn publish(&mut self, protobuf: &[u8], may_hold: bool) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        let report = Report::decode(protobuf).ok().filter(|r| (1..=EVENTS_MAX).contains(&r.events.len()));
        let Some(report) = report else { return vec![protobuf.to_vec()] };
        match self.random.random_range(0..5) {
            0 => payloads.extend([protobuf.to_vec(), protobuf.to_vec()]),
            1 if report.events.len() > 1 => {
                let (first, second) = self.split(&report);
                payloads.extend([second.encode_to_vec(), first.encode_to_vec()]);
            }
            2 => payloads.extend([self.overlap(&report).map_or_else(|| protobuf.to_vec(), |r| r.encode_to_vec())]),
            3 if may_hold && self.held.is_none() => {
                self.held = Some(protobuf.to_vec());
                self.remember(report);
                return payloads;
            }
            _ => payloads.push(protobuf.to_vec()),
        }
        payloads.extend(self.held.take());
        if self.random.random_bool(0.5) {
            payloads.extend(self.part().map(|part| part.encode_to_vec()));
        }
        self.remember(report);
        payloads
    }

    /// The report that is still held back.
    pub(crate) fn release(&mut self) -> Option<Vec<u8>> {
        self.held.take()
    }

    fn remember(&mut self, report: Report) {
        self.history.push_back(report);
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
    }

    fn split(&mut self, report: &Report) -> (Report, Report) {
        let at = self.random.random_range(1..report.events.len());
        (slice(report, 0, at), slice(report, at, report.events.len()))
    }

    /// A random part of a random recent report.
    fn part(&mut self) -> Option<Report> {
        let index = self.random.random_range(0..self.history.len().max(1));
        let report = self.history.get(index)?;
        let from = self.random.random_range(0..report.events.len());
        let to = self.random.random_range(from + 1..=report.events.len());
        Some(slice(report, from, to))
    }

    /// The last events of the previous report, together with this one.
    fn overlap(&mut self, report: &Report) -> Option<Report> {
        let before = self.history.back()?;
        let follows = before.boot_id == report.boot_id
            && before.context == report.context
            && before.clock == report.clock
            && before.first_seq + before.events.len() as u64 == report.first_seq
            && before.base_unix_us - before.base_uptime_us as i64 == report.base_unix_us - report.base_uptime_us as i64
            && before.encoded_len() + report.encoded_len() < ReportLimits::of(Form::Json).bytes
            && !before.events.is_empty();
        if !follows {
            return None;
        }
        let from = self.random.random_range(0..before.events.len());
        let mut joined = slice(before, from, before.events.len());
        (joined.lost, joined.earlier_boots) = (report.lost.clone(), report.earlier_boots.clone());
        let shift = report.base_uptime_us.checked_sub(joined.base_uptime_us)?;
        joined.events.extend(report.events.iter().cloned().map(|mut event| {
            event.offset_us += shift;
            event
        }));
        Some(joined)
    }
}

/// Events `from..to` as a report of their own, with the same base.
fn slice(report: &Report, from: usize, to: usize) -> Report {
    let mut part = report.clone();
    part.events = report.events[from..to].to_vec();
    part.first_seq += from as u64;
    part
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use telemetry::v1::{Event, Fault, event::Kind};

    use super::*;

    /// Every event keeps its number, time and content, and all events arrive.
    #[test]
    fn regrouping_changes_nothing_but_the_grouping() {
        let mut regroup = Regroup::new(1);
        let (mut arrived, mut messages, mut seq) = (BTreeMap::new(), 0, 1);
        for report in 0..200u64 {
            let events = (0..1 + report % 7).map(|index| {
                let fault = Fault { code: (seq + index).to_string(), ..Fault::default() };
                Event { offset_us: index * 10, kind: Some(Kind::Fault(fault)) }
            });
            let base = report * 1_000;
            let whole = Report {
                boot_id: 9,
                first_seq: seq,
                base_unix_us: 5_000_000 + base as i64,
                base_uptime_us: base,
                events: events.collect(),
                ..Report::default()
            };
            seq += whole.events.len() as u64;
            for payload in regroup.publish(&whole.encode_to_vec(), report < 199) {
                messages += 1;
                let part = Report::decode(payload.as_slice()).unwrap();
                for (index, event) in part.events.into_iter().enumerate() {
                    let at = part.base_uptime_us + event.offset_us;
                    let seq = part.first_seq + index as u64;
                    let Some(Kind::Fault(fault)) = event.kind else { panic!("no fault") };
                    assert_eq!(fault.code, seq.to_string());
                    assert_eq!(part.base_unix_us + event.offset_us as i64, 5_000_000 + at as i64);
                    assert_eq!(*arrived.entry(seq).or_insert(at), at);
                }
            }
        }
        assert_eq!(arrived.len() as u64, seq - 1);
        assert!(messages > 250, "{messages}");
    }
}
