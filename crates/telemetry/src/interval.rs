//! Sets of sequence numbers as sorted, disjoint, non-adjacent inclusive intervals: exact, and tiny
//! when all is well.

/// An inclusive range of sequence numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval {
    pub first: u64,
    /// Last member, not below `first`.
    pub last: u64,
}

impl Interval {
    /// The interval `first..=last`.
    pub const fn new(first: u64, last: u64) -> Self {
        debug_assert!(first <= last);
        Self { first, last }
    }

    /// Number of members.
    pub const fn count(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// A set of sequence numbers.
///
/// Invariant: intervals are sorted, and between two of them at least one number is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntervalSet {
    intervals: Vec<Interval>,
}

impl IntervalSet {
    /// The set of the given ranges, in any order, overlapping or not; an inverted range is nothing.
    pub fn from_ranges(ranges: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut set = Self::default();
        for (first, last) in ranges {
            if first <= last {
                set.insert(Interval::new(first, last));
            }
        }
        set
    }

    /// The intervals, ascending.
    pub fn intervals(&self) -> &[Interval] {
        &self.intervals
    }

    /// Number of members.
    pub fn count(&self) -> u64 {
        self.intervals.iter().map(Interval::count).sum()
    }

    /// Largest member, if any.
    pub fn last(&self) -> Option<u64> {
        self.intervals.last().map(|interval| interval.last)
    }

    /// Whether `number` is a member.
    pub fn contains(&self, number: u64) -> bool {
        self.at(number).is_ok()
    }

    /// Adds every member of another set.
    pub fn extend(&mut self, other: &Self) {
        other.intervals.iter().for_each(|interval| self.insert(*interval));
    }

    /// The members that are not in `other`.
    pub fn minus(&self, other: &Self) -> Self {
        let mut rest = Self::default();
        for Interval { first, last } in &self.intervals {
            let mut next = *first;
            while next <= *last {
                next = match other.run(next, *last) {
                    Ok(end) => {
                        rest.insert(Interval::new(next, end));
                        end
                    }
                    Err(end) => end,
                };
                match next.checked_add(1) {
                    Some(after) => next = after,
                    None => break,
                }
            }
        }
        rest
    }

    /// Adds every member of `added`.
    pub fn insert(&mut self, added: Interval) {
        // Appending to the last interval is what nearly every report does.
        if let Some(tail) = self.intervals.last_mut()
            && added.first >= tail.first
            && added.first <= tail.last.saturating_add(1)
        {
            tail.last = tail.last.max(added.last);
            return;
        }
        let from = self.intervals.partition_point(|interval| interval.last.saturating_add(1) < added.first);
        let to = self.intervals.partition_point(|interval| interval.first <= added.last.saturating_add(1));
        let merged = match self.intervals.get(from..to) {
            Some([first, ..]) => {
                Interval::new(first.first.min(added.first), self.intervals[to - 1].last.max(added.last))
            }
            _ => added,
        };
        self.intervals.splice(from..to, [merged]);
    }

    /// Removes every member of `removed`.
    pub fn subtract(&mut self, removed: Interval) {
        let from = self.intervals.partition_point(|interval| interval.last < removed.first);
        let to = self.intervals.partition_point(|interval| interval.first <= removed.last);
        let (left, right) = match self.intervals.get(from..to) {
            Some(touched @ [first, ..]) => {
                let last = touched[touched.len() - 1].last;
                let left = (first.first < removed.first).then(|| Interval::new(first.first, removed.first - 1));
                let right = (last > removed.last).then(|| Interval::new(removed.last + 1, last));
                (left, right)
            }
            _ => return,
        };
        self.intervals.splice(from..to, left.into_iter().chain(right));
    }

    /// The members within a range, ascending.
    pub fn within(&self, range: Interval) -> impl Iterator<Item = Interval> + '_ {
        let from = self.intervals.partition_point(|interval| interval.last < range.first);
        let touched = self.intervals[from..].iter().take_while(move |interval| interval.first <= range.last);
        touched.map(move |interval| Interval::new(interval.first.max(range.first), interval.last.min(range.last)))
    }

    /// How many intervals the set would have after `insert(added)`.
    pub fn intervals_after(&self, added: Interval) -> usize {
        let from = self.intervals.partition_point(|interval| interval.last.saturating_add(1) < added.first);
        let to = self.intervals.partition_point(|interval| interval.first <= added.last.saturating_add(1));
        self.intervals.len() - (to - from) + 1
    }

    /// The longest run of non-members starting at `from` and ending at or before `to`, or how far
    /// members reach: `Ok(last of the run)` when `from` is absent, `Err(last member of its
    /// interval)` when it is present.
    pub fn run(&self, from: u64, to: u64) -> Result<u64, u64> {
        match self.at(from) {
            Ok(index) => Err(self.intervals[index].last),
            Err(index) => Ok(self.intervals.get(index).map_or(to, |next| to.min(next.first - 1))),
        }
    }

    fn at(&self, number: u64) -> Result<usize, usize> {
        let index = self.intervals.partition_point(|interval| interval.last < number);
        match self.intervals.get(index) {
            Some(interval) if interval.first <= number => Ok(index),
            _ => Err(index),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64, u64),
        Subtract(u64, u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (1u64..60, 0u64..8).prop_map(|(first, length)| Step::Insert(first, first + length)),
            1 => (1u64..60, 0u64..8).prop_map(|(first, length)| Step::Subtract(first, first + length)),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(steps in prop::collection::vec(step(), 0..60)) {
            let (mut set, mut model) = (IntervalSet::default(), BTreeSet::new());
            for step in steps {
                match step {
                    Step::Insert(first, last) => {
                        let expected = set.intervals_after(Interval::new(first, last));
                        set.insert(Interval::new(first, last));
                        model.extend(first..=last);
                        prop_assert_eq!(set.intervals().len(), expected);
                    }
                    Step::Subtract(first, last) => {
                        let within: u64 = set.within(Interval::new(first, last)).map(|interval| interval.count()).sum();
                        prop_assert_eq!(within, model.range(first..=last).count() as u64);
                        set.subtract(Interval::new(first, last));
                        model.retain(|number| !(first..=last).contains(number));
                        prop_assert_eq!(set.within(Interval::new(first, last)).count(), 0);
                    }
                }
                prop_assert_eq!(set.count(), model.len() as u64);
                prop_assert_eq!(set.last(), model.last().copied());
                for number in 0..70 {
                    prop_assert_eq!(set.contains(number), model.contains(&number));
                }
                for pair in set.intervals().windows(2) {
                    prop_assert!(pair[0].last + 1 < pair[1].first, "adjacent intervals are merged");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_left_is_what_the_other_has_not(
            left in prop::collection::vec((1u64..60, 0u64..8), 0..12),
            right in prop::collection::vec((1u64..60, 0u64..8), 0..12),
        ) {
            let set = |ranges: &[(u64, u64)]| IntervalSet::from_ranges(ranges.iter().map(|(at, more)| (*at, at + more)));
            let (left, right) = (set(&left), set(&right));
            let mut both = left.clone();
            both.extend(&right);
            for number in 0..70 {
                let expected = left.contains(number) && !right.contains(number);
                prop_assert_eq!(left.minus(&right).contains(number), expected);
                prop_assert_eq!(both.contains(number), left.contains(number) || right.contains(number));
            }
        }
    }

    #[test]
    fn reaches_the_ends_of_the_range() {
        let mut set = IntervalSet::from_ranges([(u64::MAX, u64::MAX), (0, 0), (5, 3)]);
        assert_eq!(set.intervals(), [Interval::new(0, 0), Interval::new(u64::MAX, u64::MAX)]);
        assert_eq!(set.minus(&IntervalSet::from_ranges([(5, u64::MAX)])).intervals(), [Interval::new(0, 0)]);
        assert_eq!(set.minus(&IntervalSet::default()), set);
        set.insert(Interval::new(0, u64::MAX));
        assert_eq!(set.intervals(), [Interval::new(0, u64::MAX)]);
        set.subtract(Interval::new(1, u64::MAX - 1));
        assert_eq!(set.intervals(), [Interval::new(0, 0), Interval::new(u64::MAX, u64::MAX)]);
        set.subtract(Interval::new(0, u64::MAX));
        assert_eq!(set.intervals(), []);
    }
}
