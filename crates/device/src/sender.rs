//! When a device sends which report: the window of reports without a receipt, and their repetition.
//!
//! Pure: time is a [`Duration`] since any fixed moment, randomness a number in 0..1, both from the
//! caller.
//!
//! Invariants: at most [`Options::window`] reports are without a receipt. An event is in at most
//! one of them. Rejected bytes are not sent again, because their events leave the outbox with the
//! rejection.

use std::time::Duration;

use telemetry::{
    interval::Interval,
    v1::{EarlierBoot, LostRange, Receipt, ReceiptCode},
};

use crate::{
    draft::{self, Draft, ReportLimits},
    identity::Form,
    journal::Place,
    outbox::Outbox,
};

/// SHA-256 of a payload.
pub type Hash = [u8; 32];

/// Timing of reports.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Greatest number of reports without a receipt.
    pub window: usize,
    /// Longest wait of an event for others in its report.
    pub linger: Duration,
    /// Wait before a report without a receipt is sent again. It doubles each time, ...
    pub resend_first: Duration,
    /// ... up to this wait.
    pub resend_max: Duration,
    /// Each wait is multiplied by a random factor in 1 - jitter ..= 1 + jitter.
    pub jitter: f64,
    /// Time over which reports without a receipt are sent again after a reconnect, at random. The
    /// old connection took their receipts with it.
    pub reconnect_spread: Duration,
}

impl Default for Options {
    /// The values of the contract.
    fn default() -> Self {
        Self {
            window: 16,
            linger: Duration::from_millis(500),
            resend_first: Duration::from_secs(30),
            resend_max: Duration::from_secs(15 * 60),
            jitter: 0.5,
            reconnect_spread: Duration::from_secs(2),
        }
    }
}

impl Options {
    /// The wait for a receipt after the `attempt`-th sending (from 1).
    pub fn wait(&self, attempt: u32, random: f64) -> Duration {
        let doubled = self.resend_first.saturating_mul(1 << attempt.saturating_sub(1).min(20));
        doubled.min(self.resend_max).mul_f64(1.0 + self.jitter * (2.0 * random - 1.0))
    }
}

/// The parts of a report besides its events. They stay the same when the report is sent again, so a
/// receipt for any copy settles them. Receipts of other reports may cover the report's events, but
/// settle nothing of this.
///
/// A receipt names a report by its sequence numbers, which is ambiguous in two cases. The first is
/// a report that only declares losses, after another such report of its boot. The second comes
/// after a restart: a report of an earlier boot with the same events as one sent before the
/// restart. A loss may then stay undeclared; it still shows as an open gap.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attached {
    /// Losses that it declares.
    pub lost: Vec<LostRange>,
    /// Earlier boots that it names.
    pub earlier: Vec<EarlierBoot>,
}

impl Attached {
    fn losses(&self, boot_id: u64) -> impl Iterator<Item = (u64, Interval)> + '_ {
        self.lost.iter().map(move |lost| (boot_id, Interval { first: lost.first_seq, last: lost.last_seq }))
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Flight {
    boot_id: u64,
    /// `None` if it only declares losses.
    range: Option<Interval>,
    attached: Attached,
    /// The events of each sending. Later ones have fewer, once other receipts have settled some.
    copies: Vec<Interval>,
    hashes: Vec<Hash>,
    attempts: u32,
    due: Duration,
}

/// The report to send next.
#[derive(Clone, Debug, PartialEq)]
pub struct Next {
    flight: Option<usize>,
    /// Boot of the report.
    pub boot_id: u64,
    /// Its events: those of the range that are still in the outbox. `None` if it only declares
    /// losses.
    pub range: Option<Interval>,
    /// The parts besides the events.
    pub attached: Attached,
    /// The events that it really carries: those still in the outbox, up to a gap.
    copy: Option<Interval>,
}

impl Next {
    /// Whether the report was sent before.
    pub fn is_resend(&self) -> bool {
        self.flight.is_some()
    }
}

/// A report that the bridge rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Boot of the report.
    pub boot_id: u64,
    /// Its events; `None` if it only declared losses.
    pub range: Option<Interval>,
    /// Reason in the receipt.
    pub reason: String,
    /// SHA-256 of the payload.
    pub sha256: Hash,
}

/// Changes that a receipt made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settlement {
    /// Ranges that left the outbox as stored.
    pub stored: Vec<Interval>,
    /// Number of events that left the outbox as stored.
    pub stored_events: u64,
    /// Journal places of the stored events.
    pub places: Vec<Place>,
    /// Losses whose declaration is receipted, with their boot.
    pub lost: Vec<(u64, Interval)>,
    /// Boots whose end the server now knows.
    pub told: Vec<u64>,
    /// A rejected report. Its events are still in the outbox; the caller logs and settles them.
    pub rejected: Option<Rejected>,
}

/// The events that a report of a range carries if it is made now: those that are left, up to the
/// first gap.
fn carried(outbox: &Outbox, boot_id: u64, range: Interval) -> Option<Interval> {
    let mut entries = outbox.boot(boot_id)?.within(range).map(|entry| entry.seq);
    let first = entries.next()?;
    let last = entries.zip(first + 1..).take_while(|(seq, next)| seq == next).last().map_or(first, |(seq, _)| seq);
    Some(Interval::new(first, last))
}

/// The sending side of one device.
#[derive(Clone, Debug, Default)]
pub struct Sender {
    flights: Vec<Flight>,
    /// For each boot, the last sequence number that was ever in a report.
    sent: Vec<(u64, u64)>,
    linger_until: Option<Duration>,
    held_until: Duration,
    online: bool,
}

impl Sender {
    /// Records that an event was put into the outbox.
    pub fn offered(&mut self, now: Duration, options: &Options) {
        self.linger_until.get_or_insert(now + options.linger);
    }

    /// Records that the device is connected and subscribed to its receipts.
    pub fn connected(&mut self, now: Duration, random: f64, options: &Options) {
        self.online = true;
        let due = now + options.reconnect_spread.mul_f64(random);
        for flight in &mut self.flights {
            (flight.attempts, flight.due) = (1, flight.due.min(due));
        }
    }

    /// Records that the connection is gone.
    pub fn disconnected(&mut self) {
        self.online = false;
    }

    /// Whether the device is connected.
    pub fn is_online(&self) -> bool {
        self.online
    }

    /// Whether a report waits for a receipt without a sequence number. Until then, nothing may be
    /// sent whose receipt would look the same.
    pub fn awaits_unsequenced(&self) -> bool {
        self.flights.iter().any(|flight| flight.range.is_none())
    }

    /// Whether an event is in a report that waits for its receipt.
    pub fn is_in_flight(&self, boot_id: u64, seq: u64) -> bool {
        self.flights.iter().any(|flight| {
            flight.boot_id == boot_id && flight.range.is_some_and(|range| range.first <= seq && seq <= range.last)
        })
    }

    /// The report to send now, if any. Nothing changes until [`Sender::sent`].
    pub fn next(&self, now: Duration, outbox: &Outbox, form: Form, options: &Options) -> Option<Next> {
        if !self.online || now < self.held_until {
            return None;
        }
        let due = self.flights.iter().enumerate().filter(|(_, flight)| flight.due <= now);
        if let Some((index, flight)) = due.min_by_key(|(_, flight)| flight.due) {
            let Flight { boot_id, range, ref attached, .. } = *flight;
            let copy = range.and_then(|range| carried(outbox, boot_id, range));
            return Some(Next { flight: Some(index), boot_id, range, attached: attached.clone(), copy });
        }
        if self.flights.len() >= options.window {
            return None;
        }
        match self.draft(outbox, form) {
            Some(draft) if draft.closed || self.linger_until.is_none_or(|until| until <= now) => {
                let Draft { boot_id, range, .. } = draft;
                Some(Next {
                    flight: None,
                    boot_id,
                    range: Some(range),
                    attached: Attached::default(),
                    copy: Some(range),
                })
            }
            Some(_) => None,
            // Losses travel with events. They are sent alone only if no report can carry them.
            None if self.flights.is_empty() => {
                let boot = outbox.boots().iter().find(|boot| boot.has_undeclared())?;
                Some(Next { flight: None, boot_id: boot.id, range: None, attached: Attached::default(), copy: None })
            }
            None => None,
        }
    }

    fn draft(&self, outbox: &Outbox, form: Form) -> Option<Draft> {
        let limits = ReportLimits::of(form);
        let drafts = outbox.boots().iter().filter_map(|boot| {
            let draft = draft::choose(boot, self.sent_of(boot.id) + 1, u64::MAX, limits)?;
            // An earlier boot makes no more events, so waiting is pointless.
            let is_current = outbox.current().is_some_and(|current| current.id == boot.id);
            Some(Draft { closed: draft.closed || !is_current, ..draft })
        });
        drafts.into_iter().next()
    }

    fn sent_of(&self, boot_id: u64) -> u64 {
        self.sent.iter().find(|(id, _)| *id == boot_id).map_or(0, |(_, seq)| *seq)
    }

    /// Records that `next` was published as a payload with this hash.
    pub fn sent(&mut self, next: Next, hash: Hash, now: Duration, random: f64, options: &Options) {
        if let Some(flight) = next.flight.and_then(|index| self.flights.get_mut(index)) {
            flight.attempts += 1;
            flight.due = now + options.wait(flight.attempts, random);
            flight.copies.extend(next.copy.filter(|copy| flight.copies.last() != Some(copy)));
            if flight.hashes.last() != Some(&hash) {
                flight.hashes.push(hash);
            }
            return;
        }
        let Next { boot_id, range, attached, copy, .. } = next;
        if let Some(range) = range {
            match self.sent.iter_mut().find(|(id, _)| *id == boot_id) {
                Some((_, seq)) => *seq = range.last,
                None => self.sent.push((boot_id, range.last)),
            }
        }
        self.linger_until = None;
        let due = now + options.wait(1, random);
        let copies = copy.into_iter().collect();
        self.flights.push(Flight { boot_id, range, attached, copies, hashes: vec![hash], attempts: 1, due });
    }

    /// Processes a receipt.
    pub fn receipt(&mut self, receipt: &Receipt, now: Duration, outbox: &mut Outbox) -> Settlement {
        if let Some(ms) = receipt.retry_after_ms {
            // At most an hour, so that one bad receipt does not silence a device.
            self.held_until = self.held_until.max(now + Duration::from_millis(u64::from(ms.min(3_600_000))));
        }
        match receipt.code() {
            ReceiptCode::Stored => self.stored(receipt, outbox),
            ReceiptCode::Rejected => self.rejected(receipt, outbox),
            ReceiptCode::Unspecified => Settlement::default(),
        }
    }

    fn stored(&mut self, receipt: &Receipt, outbox: &mut Outbox) -> Settlement {
        let mut settlement = Settlement::default();
        for range in receipt.ranges.iter().filter(|range| range.first <= range.last) {
            let range = Interval::new(range.first, range.last);
            let places = outbox.settle(receipt.boot_id, range);
            if !places.is_empty() {
                settlement.stored.push(range);
                settlement.stored_events += places.len() as u64;
                settlement.places.extend(places);
            }
        }
        let is_copy =
            |copy: &Interval| receipt.ranges.iter().any(|range| (range.first, range.last) == (copy.first, copy.last));
        self.flights.retain_mut(|flight| {
            if flight.boot_id != receipt.boot_id {
                return true;
            }
            let (is_open, has_arrived) = match flight.range {
                None => (!receipt.ranges.is_empty(), receipt.ranges.is_empty()),
                Some(range) => {
                    let left = outbox.boot(flight.boot_id).is_some_and(|boot| boot.within(range).next().is_some());
                    (left, flight.copies.iter().any(is_copy))
                }
            };
            if has_arrived {
                let attached = std::mem::take(&mut flight.attached);
                settlement.lost.extend(attached.losses(flight.boot_id));
                settlement.told.extend(attached.earlier.iter().map(|boot| boot.boot_id));
            } else if !is_open {
                // Other reports carried its events. The next report carries the rest.
                outbox.detach_lost(flight.boot_id, &flight.attached.lost);
            }
            is_open
        });
        for (boot_id, range) in &settlement.lost {
            outbox.lost_settled(*boot_id, *range);
        }
        for boot_id in &settlement.told {
            outbox.told(*boot_id);
        }
        self.sent.retain(|(boot_id, _)| outbox.boot(*boot_id).is_some());
        settlement
    }

    fn rejected(&mut self, receipt: &Receipt, outbox: &mut Outbox) -> Settlement {
        let is_it = |flight: &Flight| flight.hashes.iter().any(|hash| *hash == *receipt.payload_sha256);
        let Some(index) = self.flights.iter().position(is_it) else { return Settlement::default() };
        let flight = self.flights.remove(index);
        let mut lost = Vec::new();
        if flight.range.is_some() {
            // The next report carries them.
            outbox.detach_lost(flight.boot_id, &flight.attached.lost);
        } else {
            // The same bytes would result, so the declaration is given up. The gap stays visible as
            // missing.
            lost.extend(flight.attached.losses(flight.boot_id));
            lost.iter().for_each(|(boot_id, range)| outbox.lost_settled(*boot_id, *range));
        }
        let sha256 = Hash::try_from(receipt.payload_sha256.as_slice()).unwrap_or_default();
        let reason = receipt.reason.clone();
        let rejected = Rejected { boot_id: flight.boot_id, range: flight.range, reason, sha256 };
        Settlement { lost, rejected: Some(rejected), ..Settlement::default() }
    }

    /// The time at which to ask [`Sender::next`] again, if nothing happens before.
    pub fn wake(&self, outbox: &Outbox, form: Form, options: &Options) -> Option<Duration> {
        if !self.online {
            return None;
        }
        let resend = self.flights.iter().map(|flight| flight.due).min();
        let has_room = self.flights.len() < options.window;
        let draft = if has_room { self.draft(outbox, form) } else { None };
        let fresh = draft.map(|draft| match self.linger_until {
            Some(until) if !draft.closed => until,
            _ => Duration::ZERO,
        });
        [resend, fresh].into_iter().flatten().min().map(|at| at.max(self.held_until))
    }
}

#[cfg(test)]
mod tests;
