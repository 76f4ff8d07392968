//! What a device must still deliver: boots, sequence numbers, events without a receipt, losses to
//! declare.
//!
//! Pure bookkeeping. The events themselves are in the journal; [`crate::store`] keeps both
//! consistent.
//!
//! Invariants: sequence numbers of a boot ascend from 1, and none is used twice. An event leaves by
//! its receipt, by rejection, or by being declared lost. Boots are ordered oldest first, and the
//! last one is current.

use std::collections::VecDeque;

use telemetry::{
    interval::Interval,
    limits::EARLIER_BOOTS_MAX,
    v1::{Clock, EarlierBoot, LostRange},
};

use crate::{
    journal::Place,
    record::{BootState, EventRecord},
};

/// Reason of a loss because the outbox was full.
pub const OUTBOX_FULL: &str = "outbox full";
/// Greatest number of lost ranges that one report declares; the rest waits for the next.
pub const LOST_PER_REPORT: usize = 64;

/// An event that waits for its receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Sequence number within its boot.
    pub seq: u64,
    /// Place of its record in the journal.
    pub place: Place,
    /// Monotonic time since boot, us.
    pub uptime_us: u64,
    /// Wall clock, us since 1970; 0 if unknown.
    pub unix_us: i64,
    /// State of the wall clock.
    pub clock: Clock,
    /// Fingerprint of the encoded context; different fingerprints mean different contexts.
    pub context: u64,
    /// Length of the encoded context, bytes.
    pub context_bytes: u32,
    /// Length of the encoded event without its offset, bytes.
    pub event_bytes: u32,
}

impl Entry {
    pub(crate) fn new(place: Place, event: &EventRecord<'_>) -> Self {
        Self {
            seq: event.seq,
            place,
            uptime_us: event.uptime_us,
            unix_us: event.unix_us,
            clock: event.clock,
            context: fingerprint(event.context),
            context_bytes: event.context.len() as u32,
            event_bytes: event.event.len() as u32,
        }
    }
}

/// FNV-1a: short keys, no dependency, the same on every machine.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Lost {
    range: Interval,
    reason: String,
    /// A report that waits for its receipt carries this loss.
    in_flight: bool,
}

/// One boot of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Boot {
    /// Id of the boot: counter << 32 | random.
    pub id: u64,
    /// The last sequence number that was used.
    pub last_seq: u64,
    told: bool,
    entries: VecDeque<Entry>,
    lost: Vec<Lost>,
}

impl Boot {
    /// Events without a receipt, ascending.
    pub fn entries(&self) -> &VecDeque<Entry> {
        &self.entries
    }

    /// Index of the first event at or after `seq`.
    pub fn position(&self, seq: u64) -> usize {
        self.entries.partition_point(|entry| entry.seq < seq)
    }

    /// Events of a range that still wait for their receipt.
    pub fn within(&self, range: Interval) -> impl Iterator<Item = &Entry> {
        let (from, to) = (self.position(range.first), self.position(range.last.saturating_add(1)));
        self.entries.range(from..to)
    }

    /// Whether a loss must still be declared.
    pub fn has_undeclared(&self) -> bool {
        self.lost.iter().any(|lost| !lost.in_flight)
    }

    fn is_done(&self) -> bool {
        self.entries.is_empty() && self.lost.is_empty()
    }
}

/// The outbox of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbox {
    counter: u32,
    lifetime: u64,
    boots: VecDeque<Boot>,
    bytes: u64,
}

impl Outbox {
    /// The stored boot counter.
    pub fn counter(&self) -> u32 {
        self.counter
    }

    /// The last lifetime injection number.
    pub fn lifetime(&self) -> u64 {
        self.lifetime
    }

    /// Bytes of the events without a receipt, in the journal.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of events without a receipt.
    pub fn events(&self) -> usize {
        self.boots.iter().map(|boot| boot.entries.len()).sum()
    }

    /// Whether all events and losses are receipted.
    pub fn is_settled(&self) -> bool {
        self.boots.iter().all(Boot::is_done)
    }

    /// Boots that are not fully receipted, and the current one, oldest first.
    pub fn boots(&self) -> &VecDeque<Boot> {
        &self.boots
    }

    /// The current boot.
    pub fn current(&self) -> Option<&Boot> {
        self.boots.back()
    }

    /// A boot by its id.
    pub fn boot(&self, boot_id: u64) -> Option<&Boot> {
        self.boots.iter().rev().find(|boot| boot.id == boot_id)
    }

    fn boot_mut(&mut self, boot_id: u64) -> Option<&mut Boot> {
        self.boots.iter_mut().rev().find(|boot| boot.id == boot_id)
    }

    /// Begins a boot, which becomes the current one.
    pub fn begin(&mut self, boot_id: u64) {
        self.counter = (boot_id >> 32) as u32;
        // A boot without events has nothing to report.
        self.boots.retain(|boot| boot.last_seq > 0);
        self.boots.push_back(Boot { id: boot_id, ..Boot::default() });
    }

    /// The next sequence number of the current boot; `None` before the first boot.
    pub fn next_seq(&self) -> Option<u64> {
        self.current().map(|boot| boot.last_seq + 1)
    }

    /// Keeps an event. A replayed journal may bring the same event again at another place; then the
    /// old place is returned.
    pub fn keep(&mut self, boot_id: u64, entry: Entry, lifetime: u64) -> Option<Place> {
        self.lifetime = self.lifetime.max(lifetime);
        let boot = match self.boots.iter().rposition(|boot| boot.id == boot_id) {
            Some(index) => &mut self.boots[index],
            None => return Some(entry.place),
        };
        boot.last_seq = boot.last_seq.max(entry.seq);
        let index = boot.position(entry.seq);
        match boot.entries.get_mut(index) {
            Some(old) if old.seq == entry.seq => Some(std::mem::replace(old, entry).place),
            _ => {
                self.bytes += u64::from(entry.place.length);
                boot.entries.insert(index, entry);
                None
            }
        }
    }

    /// Moves an event to its new place, after it was appended again.
    pub fn relocate(&mut self, boot_id: u64, seq: u64, place: Place) {
        if let Some(boot) = self.boot_mut(boot_id) {
            let index = boot.position(seq);
            if let Some(entry) = boot.entries.get_mut(index).filter(|entry| entry.seq == seq) {
                entry.place = place;
            }
        }
    }

    /// Records that sequence numbers up to `last_seq` were used, stored or not.
    pub fn made(&mut self, boot_id: u64, last_seq: u64) {
        if let Some(boot) = self.boot_mut(boot_id) {
            boot.last_seq = boot.last_seq.max(last_seq);
        }
    }

    /// Drops the events of a range, and returns their places.
    pub fn settle(&mut self, boot_id: u64, range: Interval) -> Vec<Place> {
        let Some(boot) = self.boot_mut(boot_id) else { return Vec::new() };
        let (from, to) = (boot.position(range.first), boot.position(range.last.saturating_add(1)));
        let places: Vec<_> = boot.entries.drain(from..to).map(|entry| entry.place).collect();
        self.bytes -= places.iter().map(|place| u64::from(place.length)).sum::<u64>();
        self.prune();
        places
    }

    /// Records a loss that must be declared. Drops its events and returns their places.
    pub fn lose(&mut self, boot_id: u64, range: Interval, reason: &str) -> Vec<Place> {
        if let Some(boot) = self.boot_mut(boot_id) {
            boot.last_seq = boot.last_seq.max(range.last);
            match boot.lost.last_mut() {
                Some(last) if !last.in_flight && last.reason == reason && last.range.last + 1 == range.first => {
                    last.range.last = range.last;
                }
                _ => boot.lost.push(Lost { range, reason: reason.to_owned(), in_flight: false }),
            }
        }
        self.settle(boot_id, range)
    }

    /// Takes the losses that the next report of a boot declares.
    pub fn attach_lost(&mut self, boot_id: u64) -> Vec<LostRange> {
        let Some(boot) = self.boot_mut(boot_id) else { return Vec::new() };
        let undeclared = boot.lost.iter_mut().filter(|lost| !lost.in_flight).take(LOST_PER_REPORT);
        undeclared
            .map(|lost| {
                lost.in_flight = true;
                let Interval { first, last } = lost.range;
                LostRange { first_seq: first, last_seq: last, reason: lost.reason.clone() }
            })
            .collect()
    }

    /// Returns losses whose report was refused, so that another report declares them.
    pub fn detach_lost(&mut self, boot_id: u64, ranges: &[LostRange]) {
        if let Some(boot) = self.boot_mut(boot_id) {
            for lost in &mut boot.lost {
                if ranges.iter().any(|range| range.first_seq == lost.range.first) {
                    lost.in_flight = false;
                }
            }
        }
    }

    /// Forgets a loss whose declaration is receipted.
    pub fn lost_settled(&mut self, boot_id: u64, range: Interval) {
        if let Some(boot) = self.boot_mut(boot_id) {
            boot.lost.retain(|lost| lost.range != range);
        }
        self.prune();
    }

    /// The boots before `boot_id` that are not fully receipted, or whose end is not known to the
    /// server: the newest 64.
    pub fn earlier(&self, boot_id: u64) -> Vec<EarlierBoot> {
        let before = self.boots.iter().take_while(|boot| boot.id != boot_id).filter(|boot| boot.last_seq > 0);
        let mut earlier: Vec<_> =
            before.map(|boot| EarlierBoot { boot_id: boot.id, last_seq: boot.last_seq }).collect();
        earlier.drain(..earlier.len().saturating_sub(EARLIER_BOOTS_MAX));
        earlier
    }

    /// Records that a report naming this boot as an earlier one is receipted.
    pub fn told(&mut self, boot_id: u64) {
        if let Some(boot) = self.boot_mut(boot_id) {
            boot.told = true;
        }
        self.prune();
    }

    /// The oldest event that `is_free` allows to give up.
    pub fn oldest(&self, is_free: impl Fn(u64, u64) -> bool) -> Option<(u64, u64)> {
        self.boots
            .iter()
            .flat_map(|boot| boot.entries.iter().map(|entry| (boot.id, entry.seq)))
            .find(|(boot_id, seq)| is_free(*boot_id, *seq))
    }

    /// Forgets an earlier boot when all of it is settled and the server knows its end.
    fn prune(&mut self) {
        let current = self.boots.back().map(|boot| boot.id);
        self.boots.retain(|boot| Some(boot.id) == current || !(boot.told && boot.is_done()));
    }

    pub(crate) fn state(&self) -> (u32, u64, Vec<BootState>) {
        let boots = self.boots.iter().map(|boot| BootState {
            id: boot.id,
            last_seq: boot.last_seq,
            told: boot.told,
            lost: boot.lost.iter().map(|lost| (lost.range, lost.reason.clone())).collect(),
        });
        (self.counter, self.lifetime, boots.collect())
    }

    /// Applies a snapshot and keeps the events replayed so far. Returns the places of events whose
    /// boot it dropped.
    pub(crate) fn restore(&mut self, counter: u32, lifetime: u64, boots: Vec<BootState>) -> Vec<Place> {
        self.counter = self.counter.max(counter);
        self.lifetime = self.lifetime.max(lifetime);
        let mut old = std::mem::take(&mut self.boots);
        for state in boots {
            let entries = match old.iter().position(|boot| boot.id == state.id) {
                Some(index) => old.remove(index).map(|boot| boot.entries).unwrap_or_default(),
                None => VecDeque::new(),
            };
            let lost = state.lost.into_iter().map(|(range, reason)| Lost { range, reason, in_flight: false }).collect();
            self.boots.push_back(Boot { id: state.id, last_seq: state.last_seq, told: state.told, entries, lost });
        }
        let dropped: Vec<_> = old.iter().flat_map(|boot| boot.entries.iter().map(|entry| entry.place)).collect();
        self.bytes -= dropped.iter().map(|place| u64::from(place.length)).sum::<u64>();
        dropped
    }
}
