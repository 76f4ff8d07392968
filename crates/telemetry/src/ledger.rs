//! The sequence ledger of one boot: which sequence numbers are stored, quarantined or lost, and so
//! which are missing.
//!
//! It decides what is a duplicate. Because it is a set of intervals and not a high-water mark, a
//! device may re-send in any grouping and any order: `[1..10]`, then `[5..15]`, stores 1..15 once
//! each.
//!
//! A stored number stays stored. A quarantined number can be released once, by a replay: then it is
//! stored.

use crate::interval::{Interval, IntervalSet};

/// The most intervals of stored and quarantined numbers together, and the most of declared losses.
/// Events that need more are refused as fragmented, never dropped in silence.
///
/// The number is chosen: it bounds the ledger of a boot to 128 KiB (twice 4,096 intervals of 16
/// bytes). A boot whose reports all arrive needs one interval; each gap adds one. The limits of a
/// report that have the same value (`EVENTS_MAX`, `LOST_MAX`) are not derived from it.
pub const INTERVALS_MAX: usize = 4_096;

/// What became of a sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is in its table.
    Stored,
    /// It is in quarantine.
    Quarantined,
}

/// The ledger has [`INTERVALS_MAX`] intervals and this range would add one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger of this boot has {INTERVALS_MAX} intervals already")]
pub struct Fragmented;

/// The ledger of one (tenant, device, boot).
///
/// Invariant: `stored` and `quarantined` are disjoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Sequence numbers in their tables.
    pub stored: IntervalSet,
    /// Sequence numbers in quarantine.
    pub quarantined: IntervalSet,
    /// Sequence numbers the device declared lost.
    pub declared_lost: IntervalSet,
    /// The last sequence number that the device declared for this boot; 0 = none declared.
    pub declared_last: u64,
}

impl Ledger {
    /// The parts of a report's range that are neither stored nor quarantined, ascending: the new
    /// events of the report.
    pub fn novel(&self, range: Interval) -> Novel<'_> {
        Novel { ledger: self, next: Some(range.first), last: range.last }
    }

    /// Records the fate of a range that [`Ledger::novel`] returned.
    ///
    /// # Errors
    /// [`Fragmented`] if it would exceed [`INTERVALS_MAX`]; the ledger is unchanged.
    pub fn record(&mut self, range: Interval, fate: Fate) -> Result<(), Fragmented> {
        let (set, other) = match fate {
            Fate::Stored => (&mut self.stored, &self.quarantined),
            Fate::Quarantined => (&mut self.quarantined, &self.stored),
        };
        if set.intervals_after(range) + other.intervals().len() > INTERVALS_MAX {
            return Err(Fragmented);
        }
        set.insert(range);
        Ok(())
    }

    /// The parts of a range that are not stored, ascending, each with whether it is in quarantine.
    /// A replay may store them.
    pub fn unstored(&self, range: Interval) -> Vec<(Interval, bool)> {
        let (mut parts, mut next) = (Vec::new(), Some(range.first));
        while let Some(first) = next.filter(|next| *next <= range.last) {
            let stored = self.stored.run(first, range.last);
            let quarantined = self.quarantined.run(first, range.last);
            let end = match (stored, quarantined) {
                (Err(end), _) => end,
                (Ok(_), Err(end)) => {
                    let end = end.min(range.last);
                    parts.push((Interval::new(first, end), true));
                    end
                }
                (Ok(stored), Ok(quarantined)) => {
                    let end = stored.min(quarantined);
                    parts.push((Interval::new(first, end), false));
                    end
                }
            };
            next = end.checked_add(1);
        }
        parts
    }

    /// Moves the quarantined numbers of a range to stored, and leaves the others as they are.
    /// Returns how many numbers moved: a second call for the same range moves none.
    ///
    /// # Errors
    /// [`Fragmented`] if the ledger would grow and exceed [`INTERVALS_MAX`]: it is unchanged, and
    /// the numbers stay in quarantine. Ascending calls need the fewest intervals.
    pub fn store_quarantined(&mut self, range: Interval) -> Result<u64, Fragmented> {
        let released: Vec<Interval> = self.quarantined.within(range).collect();
        let (mut stored, mut quarantined) = (self.stored.clone(), self.quarantined.clone());
        for interval in &released {
            stored.insert(*interval);
            quarantined.subtract(*interval);
        }
        let intervals =
            |stored: &IntervalSet, quarantined: &IntervalSet| stored.intervals().len() + quarantined.intervals().len();
        let (before, after) = (intervals(&self.stored, &self.quarantined), intervals(&stored, &quarantined));
        if after > before && after > INTERVALS_MAX {
            return Err(Fragmented);
        }
        (self.stored, self.quarantined) = (stored, quarantined);
        Ok(released.iter().map(Interval::count).sum())
    }

    /// Records numbers the device will never send. At the limit of intervals the range is not
    /// recorded and so stays visible as missing.
    ///
    /// # Errors
    /// [`Fragmented`] if it would exceed [`INTERVALS_MAX`]; the ledger is unchanged.
    pub fn declare_lost(&mut self, range: Interval) -> Result<(), Fragmented> {
        if self.declared_lost.intervals_after(range) > INTERVALS_MAX {
            return Err(Fragmented);
        }
        self.declared_lost.insert(range);
        self.declare_last(range.last);
        Ok(())
    }

    /// Records the last sequence number that the device declared for this boot.
    pub fn declare_last(&mut self, last: u64) {
        self.declared_last = self.declared_last.max(last);
    }

    /// The last sequence number known to exist.
    pub fn known_last(&self) -> u64 {
        [self.stored.last(), self.quarantined.last(), self.declared_lost.last(), Some(self.declared_last)]
            .into_iter()
            .flatten()
            .max()
            .unwrap_or(0)
    }

    /// The sequence numbers known to exist that have neither arrived nor been declared lost,
    /// ascending.
    pub fn missing(&self) -> Vec<Interval> {
        let mut covered = self.stored.clone();
        for interval in self.quarantined.intervals().iter().chain(self.declared_lost.intervals()) {
            covered.insert(*interval);
        }
        let (mut missing, mut next, last) = (Vec::new(), 1, self.known_last());
        while next <= last {
            next = 1 + match covered.run(next, last) {
                Ok(end) => {
                    missing.push(Interval::new(next, end));
                    end
                }
                Err(end) => end,
            };
        }
        missing
    }
}

/// Iterator over the new parts of a range, see [`Ledger::novel`].
#[derive(Debug)]
pub struct Novel<'a> {
    ledger: &'a Ledger,
    next: Option<u64>,
    last: u64,
}

impl Iterator for Novel<'_> {
    type Item = Interval;

    fn next(&mut self) -> Option<Interval> {
        loop {
            let first = self.next.filter(|next| *next <= self.last)?;
            let stored = self.ledger.stored.run(first, self.last);
            let quarantined = self.ledger.quarantined.run(first, self.last);
            let (end, novel) = match (stored, quarantined) {
                (Ok(stored), Ok(quarantined)) => (stored.min(quarantined), true),
                (Err(end), _) | (_, Err(end)) => (end, false),
            };
            self.next = end.checked_add(1);
            if novel {
                return Some(Interval::new(first, end));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However a device groups and repeats its events, each is admitted once, and what is
        /// missing is the complement.
        #[test]
        fn admits_each_number_once(reports in prop::collection::vec((1u64..80, 0u64..12, 0u64..5), 0..60)) {
            let (mut ledger, mut fates) = (Ledger::default(), BTreeMap::new());
            for (first, length, bad) in reports {
                let range = Interval::new(first, first + length);
                for novel in ledger.novel(range).collect::<Vec<_>>() {
                    for seq in novel.first..=novel.last {
                        let fate = if seq % 5 == bad { Fate::Quarantined } else { Fate::Stored };
                        ledger.record(Interval::new(seq, seq), fate).unwrap();
                        prop_assert_eq!(fates.insert(seq, fate), None, "admitted twice");
                    }
                }
                prop_assert_eq!(ledger.novel(range).count(), 0);
            }
            let last = ledger.known_last();
            let missing: u64 = ledger.missing().iter().map(Interval::count).sum();
            prop_assert_eq!(ledger.stored.count() + ledger.quarantined.count() + missing, last);
            for seq in 1..=last {
                prop_assert_eq!(ledger.stored.contains(seq), fates.get(&seq) == Some(&Fate::Stored));
                prop_assert_eq!(ledger.quarantined.contains(seq), fates.get(&seq) == Some(&Fate::Quarantined));
            }
        }
    }

    /// A report of a device (first number, further ones, bad ones as bits), or its replay by a
    /// person.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Report(u64, u64, u64),
        Replay(u64, u64, u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1u64..80, 0u64..12, 0u64..5).prop_map(|(first, more, bad)| Step::Report(first, more, bad)),
            (1u64..80, 0u64..12, 0u64..5).prop_map(|(first, more, bad)| Step::Replay(first, more, bad)),
        ]
    }

    proptest! {
        /// Whatever is replayed, and how often: a number moves from quarantine to stored or not at
        /// all, and once.
        #[test]
        fn a_number_moves_only_from_quarantined_to_stored(steps in prop::collection::vec(step(), 0..80)) {
            let (mut ledger, mut fates) = (Ledger::default(), BTreeMap::new());
            for step in steps {
                let (before, known) = (ledger.clone(), fates.len());
                match step {
                    Step::Report(first, more, bad) => {
                        for novel in ledger.novel(Interval::new(first, first + more)).collect::<Vec<_>>() {
                            for seq in novel.first..=novel.last {
                                let fate = if seq % 5 == bad { Fate::Quarantined } else { Fate::Stored };
                                ledger.record(Interval::new(seq, seq), fate).unwrap();
                                fates.insert(seq, fate);
                            }
                        }
                    }
                    Step::Replay(first, more, bad) => {
                        let range = Interval::new(first, first + more);
                        let parts = ledger.unstored(range);
                        let listed: u64 = parts.iter().map(|(part, _)| part.count()).sum();
                        prop_assert_eq!(listed + ledger.stored.within(range).map(|part| part.count()).sum::<u64>(), range.count());
                        for (part, quarantined) in parts {
                            for seq in part.first..=part.last {
                                prop_assert_eq!(fates.get(&seq), quarantined.then_some(&Fate::Quarantined));
                            }
                            if quarantined && part.first % 5 != bad {
                                prop_assert_eq!(ledger.store_quarantined(part), Ok(part.count()));
                                fates.extend((part.first..=part.last).map(|seq| (seq, Fate::Stored)));
                                prop_assert_eq!(ledger.store_quarantined(part), Ok(0), "released twice");
                            }
                        }
                        prop_assert_eq!(fates.len(), known);
                        prop_assert_eq!(
                            ledger.stored.count() + ledger.quarantined.count(),
                            before.stored.count() + before.quarantined.count(),
                            "a replay moves, it neither makes nor loses"
                        );
                        prop_assert_eq!(ledger.missing(), before.missing());
                        prop_assert_eq!(ledger.known_last(), before.known_last());
                    }
                }
                for seq in 1..100 {
                    prop_assert!(!before.stored.contains(seq) || ledger.stored.contains(seq), "{} was stored", seq);
                    prop_assert_eq!(ledger.stored.contains(seq), fates.get(&seq) == Some(&Fate::Stored));
                    prop_assert_eq!(ledger.quarantined.contains(seq), fates.get(&seq) == Some(&Fate::Quarantined));
                }
            }
        }
    }

    #[test]
    fn a_release_leaves_what_is_not_in_quarantine() {
        let mut ledger = Ledger::default();
        ledger.record(Interval::new(1, 3), Fate::Stored).unwrap();
        ledger.record(Interval::new(4, 6), Fate::Quarantined).unwrap();
        assert_eq!(ledger.store_quarantined(Interval::new(2, 9)), Ok(3));
        assert_eq!(ledger.stored.intervals(), [Interval::new(1, 6)]);
        assert_eq!((ledger.quarantined.count(), ledger.missing()), (0, vec![]));
    }

    #[test]
    fn at_the_limit_a_release_that_needs_room_is_refused_and_one_that_gives_room_is_not() {
        let mut ledger = Ledger::default();
        ledger.record(Interval::new(10, 20), Fate::Quarantined).unwrap();
        let holes = INTERVALS_MAX as u64 - ledger.quarantined.intervals().len() as u64;
        for hole in 0..holes {
            ledger.record(Interval::new(100 + hole * 2, 100 + hole * 2), Fate::Stored).unwrap();
        }
        let before = ledger.clone();
        // Out of the middle: one interval of quarantine becomes two, and one more is stored.
        assert_eq!(ledger.store_quarantined(Interval::new(15, 15)), Err(Fragmented));
        // From the edge: one more is stored.
        assert_eq!(ledger.store_quarantined(Interval::new(10, 10)), Err(Fragmented));
        assert_eq!(ledger, before);
        // The whole interval changes sides and needs no more room.
        assert_eq!(ledger.store_quarantined(Interval::new(10, 20)), Ok(11));
        assert_eq!(ledger.stored.intervals().len(), INTERVALS_MAX);
        assert_eq!(ledger.store_quarantined(Interval::new(10, 20)), Ok(0));
        // What closes a hole between stored numbers gives room.
        let mut ledger = Ledger::default();
        for seq in 1..=INTERVALS_MAX as u64 {
            let fate = if seq % 2 == 0 { Fate::Quarantined } else { Fate::Stored };
            ledger.record(Interval::new(seq, seq), fate).unwrap();
        }
        assert_eq!(ledger.store_quarantined(Interval::new(2, 2)), Ok(1));
        assert_eq!(ledger.stored.intervals()[0], Interval::new(1, 3));
    }

    #[test]
    fn loss_and_tails_are_visible() {
        let mut ledger = Ledger::default();
        ledger.record(Interval::new(1, 5), Fate::Stored).unwrap();
        ledger.record(Interval::new(9, 9), Fate::Stored).unwrap();
        ledger.declare_lost(Interval::new(6, 7)).unwrap();
        ledger.declare_last(12);
        assert_eq!(ledger.missing(), [Interval::new(8, 8), Interval::new(10, 12)]);
    }

    #[test]
    fn fragmentation_is_bounded_and_changes_nothing() {
        let mut ledger = Ledger::default();
        for hole in 1..=INTERVALS_MAX as u64 {
            ledger.record(Interval::new(hole * 2, hole * 2), Fate::Stored).unwrap();
        }
        let before = ledger.clone();
        assert_eq!(ledger.record(Interval::new(1 << 20, 1 << 20), Fate::Stored), Err(Fragmented));
        assert_eq!(ledger.record(Interval::new(1 << 20, 1 << 20), Fate::Quarantined), Err(Fragmented));
        assert_eq!(ledger, before);
        ledger.record(Interval::new(3, 3), Fate::Stored).unwrap();
    }
}
