//! When a device sends what: the window of reports without a receipt, and their re-sending.
//!
//! Pure: time is a [`Duration`] since any fixed moment, randomness a number in 0..1, both given by the caller.
//!
//! Invariants: at most [`Options::window`] reports are without a receipt; an event is in at most one of them; bytes that
//! were rejected are not sent again, because their events leave the outbox with the rejection.

use std::time::Duration;

use telemetry::{
    interval::Interval,
    v1::{EarlierBoot, LostRange, Receipt, ReceiptCode},
};

use crate::{
    draft::{self, Draft, Limits},
    identity::Form,
    journal::Place,
    outbox::Outbox,
};

/// SHA-256 of a payload.
pub type Hash = [u8; 32];

/// When to send.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Most reports without a receipt.
    pub window: usize,
    /// How long an event may wait for others to share its report.
    pub linger: Duration,
    /// A report without a receipt is sent again after this long, then after twice as long, ...
    pub resend_first: Duration,
    /// ... up to this long.
    pub resend_max: Duration,
    /// Each wait is scaled by a random factor in 1 - jitter ..= 1 + jitter.
    pub jitter: f64,
    /// After a reconnect, reports without a receipt are sent again within this long, spread at random: the old
    /// connection took their receipts with it.
    pub reconnect_spread: Duration,
}

impl Default for Options {
    /// The contract's values.
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
    /// How long to wait for a receipt after the `attempt`-th sending (from 1).
    pub fn wait(&self, attempt: u32, random: f64) -> Duration {
        let doubled = self.resend_first.saturating_mul(1 << attempt.saturating_sub(1).min(20));
        doubled.min(self.resend_max).mul_f64(1.0 + self.jitter * (2.0 * random - 1.0))
    }
}

/// What a report carries besides its events. It stays the same when the report is sent again, so that a receipt for any
/// of its copies settles it; receipts of other reports may cover the report's events as well, and settle nothing of this.
///
/// A receipt names a report by its sequence numbers, so there are two cases in which it cannot tell: a report that only
/// declares losses, after another such report of its boot; and, after a restart, a report of an earlier boot with the same
/// events as one sent before the restart. A loss may then stay undeclared; it still shows, as an open gap.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attached {
    /// Losses declared.
    pub lost: Vec<LostRange>,
    /// Earlier boots named.
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
    /// None: only losses.
    range: Option<Interval>,
    attached: Attached,
    /// The events that each sending carried: fewer, once others have settled some.
    copies: Vec<Interval>,
    hashes: Vec<Hash>,
    attempts: u32,
    due: Duration,
}

/// What to send next.
#[derive(Clone, Debug, PartialEq)]
pub struct Next {
    flight: Option<usize>,
    /// The boot.
    pub boot_id: u64,
    /// The events: those of the range that are still in the outbox. None: only losses.
    pub range: Option<Interval>,
    /// What else the report carries.
    pub attached: Attached,
    /// The events it carries in fact: what is still in the outbox, up to a hole.
    copy: Option<Interval>,
}

impl Next {
    /// Whether this was sent before.
    pub fn is_resend(&self) -> bool {
        self.flight.is_some()
    }
}

/// A report that was refused for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The boot.
    pub boot_id: u64,
    /// Its events; none when it only declared losses.
    pub range: Option<Interval>,
    /// Why.
    pub reason: String,
    /// Of the payload.
    pub sha256: Hash,
}

/// What a receipt changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settlement {
    /// Ranges that left the outbox as stored.
    pub stored: Vec<Interval>,
    /// Events that left the outbox as stored.
    pub stored_events: u64,
    /// Where the stored events were.
    pub places: Vec<Place>,
    /// Losses whose declaration is settled, with their boot.
    pub lost: Vec<(u64, Interval)>,
    /// Boots the server now knows the end of.
    pub told: Vec<u64>,
    /// A report that was refused. Its events are still in the outbox: the caller logs and settles them.
    pub rejected: Option<Rejected>,
}

/// The events of a range that a report carries when it is made now: what is left of them, up to the first hole.
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
    /// By boot: the last sequence number that was ever put into a report.
    sent: Vec<(u64, u64)>,
    linger_until: Option<Duration>,
    held_until: Duration,
    online: bool,
}

impl Sender {
    /// Notes that an event was put into the outbox.
    pub fn offered(&mut self, now: Duration, options: &Options) {
        self.linger_until.get_or_insert(now + options.linger);
    }

    /// Notes that the device is connected and subscribed to its receipts.
    pub fn connected(&mut self, now: Duration, random: f64, options: &Options) {
        self.online = true;
        let due = now + options.reconnect_spread.mul_f64(random);
        for flight in &mut self.flights {
            (flight.attempts, flight.due) = (1, flight.due.min(due));
        }
    }

    /// Notes that the connection is gone.
    pub fn disconnected(&mut self) {
        self.online = false;
    }

    /// Whether the device is connected.
    pub fn is_online(&self) -> bool {
        self.online
    }

    /// Whether a report waits for a receipt that names no sequence number: then nothing else may be sent whose receipt
    /// would look the same.
    pub fn awaits_unsequenced(&self) -> bool {
        self.flights.iter().any(|flight| flight.range.is_none())
    }

    /// Whether an event is in a report that waits for its receipt.
    pub fn is_in_flight(&self, boot_id: u64, seq: u64) -> bool {
        self.flights.iter().any(|flight| {
            flight.boot_id == boot_id && flight.range.is_some_and(|range| range.first <= seq && seq <= range.last)
        })
    }

    /// What to send now, if anything. Nothing changes until [`Sender::sent`].
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
            // Losses ride on events; alone they go only when there is nothing for them to ride on.
            None if self.flights.is_empty() => {
                let boot = outbox.boots().iter().find(|boot| boot.has_undeclared())?;
                Some(Next { flight: None, boot_id: boot.id, range: None, attached: Attached::default(), copy: None })
            }
            None => None,
        }
    }

    fn draft(&self, outbox: &Outbox, form: Form) -> Option<Draft> {
        let limits = Limits::of(form);
        let drafts = outbox.boots().iter().filter_map(|boot| {
            let draft = draft::choose(boot, self.sent_of(boot.id) + 1, u64::MAX, limits)?;
            // An earlier boot makes no more events to wait for.
            let is_current = outbox.current().is_some_and(|current| current.id == boot.id);
            Some(Draft { closed: draft.closed || !is_current, ..draft })
        });
        drafts.into_iter().next()
    }

    fn sent_of(&self, boot_id: u64) -> u64 {
        self.sent.iter().find(|(id, _)| *id == boot_id).map_or(0, |(_, seq)| *seq)
    }

    /// Notes that `next` was published as a payload with this hash.
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

    /// Takes a receipt.
    pub fn receipt(&mut self, receipt: &Receipt, now: Duration, outbox: &mut Outbox) -> Settlement {
        if let Some(ms) = receipt.retry_after_ms {
            // An hour at most, or one bad receipt would silence a device.
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
                // Its events went with other reports. What it carries besides rides on the next one.
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
            // They ride on the next report.
            outbox.detach_lost(flight.boot_id, &flight.attached.lost);
        } else {
            // The same bytes would be made again, so the declaration is given up; the gap stays visible as missing.
            lost.extend(flight.attached.losses(flight.boot_id));
            lost.iter().for_each(|(boot_id, range)| outbox.lost_settled(*boot_id, *range));
        }
        let sha256 = Hash::try_from(receipt.payload_sha256.as_slice()).unwrap_or_default();
        let reason = receipt.reason.clone();
        let rejected = Rejected { boot_id: flight.boot_id, range: flight.range, reason, sha256 };
        Settlement { lost, rejected: Some(rejected), ..Settlement::default() }
    }

    /// When [`Sender::next`] has to be asked again, if nothing happens before.
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
