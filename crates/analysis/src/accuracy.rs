//! Exact sums from which accuracy is computed.

use std::collections::BTreeMap;

use crate::moments::Moments;

/// How many outcomes of an injection are counted: OK, PARTIAL, ABORTED, OCCLUDED, NO_CONTACT.
pub const OUTCOMES: usize = 5;

/// Sums of one measured channel, in its unit (nl or um).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Channel {
    /// Sum of the targets.
    pub target: u64,
    /// Sum of the measured values.
    pub measured: u64,
    /// Moments of measured - target.
    pub error: Moments,
}

impl Channel {
    /// Adds one measurement.
    #[inline]
    pub fn add(&mut self, target: u32, measured: u32) {
        self.target += u64::from(target);
        self.measured += u64::from(measured);
        self.error.add(i64::from(measured) - i64::from(target));
    }

    /// Adds the measurements that `other` summarizes.
    pub fn merge(&mut self, other: &Self) {
        self.target += other.target;
        self.measured += other.measured;
        self.error.merge(&other.error);
    }
}

/// The part of an injection that accuracy needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shot {
    /// Time of the injection, us since 1970.
    pub at: i64,
    /// Index of its outcome; `None` if the device reported none.
    pub outcome: Option<usize>,
    /// Target and delivered dose, nl; `None` unless both are known and the dose was measured.
    pub dose: Option<(u32, u32)>,
    /// Target and measured depth, um; `None` unless both are known and the depth was measured.
    pub depth: Option<(u32, u32)>,
}

/// Sums over injections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sums {
    /// Injections, with or without measured values.
    pub injections: u64,
    pub dose: Channel,
    pub depth: Channel,
    /// Number of injections with each outcome, in the order of [`OUTCOMES`].
    pub outcomes: [u64; OUTCOMES],
    /// Time of the first injection, us since 1970.
    pub first_at: i64,
    /// Time of the last injection, us since 1970.
    pub last_at: i64,
}

impl Default for Sums {
    fn default() -> Self {
        Self {
            injections: 0,
            dose: Channel::default(),
            depth: Channel::default(),
            outcomes: [0; OUTCOMES],
            first_at: i64::MAX,
            last_at: i64::MIN,
        }
    }
}

impl Sums {
    /// Adds one injection.
    #[inline]
    pub fn add(&mut self, shot: &Shot) {
        self.injections += 1;
        self.first_at = self.first_at.min(shot.at);
        self.last_at = self.last_at.max(shot.at);
        if let Some(count) = shot.outcome.and_then(|outcome| self.outcomes.get_mut(outcome)) {
            *count += 1;
        }
        if let Some((target, delivered)) = shot.dose {
            self.dose.add(target, delivered);
        }
        if let Some((target, measured)) = shot.depth {
            self.depth.add(target, measured);
        }
    }

    /// Adds the injections that `other` summarizes.
    pub fn merge(&mut self, other: &Self) {
        self.injections += other.injections;
        self.first_at = self.first_at.min(other.first_at);
        self.last_at = self.last_at.max(other.last_at);
        for (count, more) in self.outcomes.iter_mut().zip(other.outcomes) {
            *count += more;
        }
        self.dose.merge(&other.dose);
        self.depth.merge(&other.depth);
    }
}

/// Histogram of the relative dose error in whole percent, rounded down: -1 holds -1 % up to just
/// below 0 %.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PercentBins(BTreeMap<i32, u32>);

impl PercentBins {
    /// Adds one measurement. A target of 0 has no relative error and does not count.
    #[inline]
    pub fn add(&mut self, target: u32, measured: u32) {
        if target > 0 {
            let error = i64::from(measured) - i64::from(target);
            // `100 * (2^32 - 1)` fits i64. The percentage exceeds i32 only for an error beyond 21
            // million times the target.
            let percent = (100 * error).div_euclid(i64::from(target));
            *self.0.entry(i32::try_from(percent).unwrap_or(i32::MAX)).or_default() += 1;
        }
    }

    /// The bins, ascending, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (i32, u32)> {
        self.0.iter().map(|(bin, count)| (*bin, *count))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shot() -> impl Strategy<Value = Shot> {
        let pair = || prop::option::of((0u32..2_000_000, 0u32..2_000_000));
        (0i64..1_000, prop::option::of(0usize..OUTCOMES), pair(), pair()).prop_map(|(at, outcome, dose, depth)| Shot {
            at,
            outcome,
            dose,
            depth,
        })
    }

    proptest! {
        #[test]
        fn grouping_does_not_matter(shots in prop::collection::vec(shot(), 0..40), cut in 0usize..40) {
            let sum = |shots: &[Shot]| shots.iter().fold(Sums::default(), |mut sums, shot| { sums.add(shot); sums });
            let (left, right) = shots.split_at(cut.min(shots.len()));
            let mut merged = sum(right);
            merged.merge(&sum(left));
            prop_assert_eq!(merged, sum(&shots));
        }
    }

    #[test]
    fn percent_bins_round_down() {
        let mut bins = PercentBins::default();
        for (target, measured) in [(1_000, 1_000), (1_000, 1_009), (1_000, 1_010), (1_000, 999), (1_000, 0), (0, 5)] {
            bins.add(target, measured);
        }
        assert_eq!(bins.iter().collect::<Vec<_>>(), [(-100, 1), (-1, 1), (0, 2), (1, 1)]);
    }
}
