//! A report cut into runs: consecutive events that are all stored, or all quarantined. A ledger
//! takes a run as one interval.

use telemetry::{
    device_time::{self, Judged},
    plausibility::{Ranges, check},
    reject::Reject,
    report::Report,
    v1,
};
use warehouse::columns::Origin;

use crate::decode::Decoded;

/// A report whose events are being added to the batch.
pub(super) struct Source<'a, 'r> {
    pub decoded: &'a Decoded<'r>,
    pub origin: Origin<'a>,
    pub report: &'a Report,
    pub ranges: &'a Ranges,
    pub time: Judged,
    pub limits: &'a device_time::Limits,
}

/// Consecutive events of one fate.
pub(super) enum Run {
    /// This many plausible events.
    Stored(u64),
    /// Implausible events, with the reason for each.
    Quarantined(Vec<Reject>),
}

impl Run {
    /// Number of its events.
    pub fn count(&self) -> u64 {
        match self {
            Self::Stored(count) => *count,
            Self::Quarantined(rejects) => rejects.len() as u64,
        }
    }
}

impl Source<'_, '_> {
    pub fn check(&self, index: usize, event: &v1::Event) -> Result<(), Reject> {
        if let Err(reject) = self.report.texts(index) {
            return Err(reject.clone());
        }
        check(event, self.time.at(event), self.ranges)
    }

    /// The longest run from `next` on, up to `last`.
    pub fn run(&self, next: u64, last: u64) -> Run {
        let message = self.report.message();
        let (first, last) = ((next - message.first_seq) as usize, (last - message.first_seq) as usize);
        let mut run: Option<Run> = None;
        for (index, event) in (first..).zip(&message.events[first..=last]) {
            run = Some(match (run, self.check(index, event)) {
                (None, Ok(())) => Run::Stored(1),
                (None, Err(reject)) => Run::Quarantined(vec![reject]),
                (Some(Run::Stored(count)), Ok(())) => Run::Stored(count + 1),
                (Some(Run::Quarantined(mut rejects)), Err(reject)) => {
                    rejects.push(reject);
                    Run::Quarantined(rejects)
                }
                (Some(run), _) => return run,
            });
        }
        run.unwrap_or(Run::Stored(1))
    }
}
