//! Exact moments of integer measurements.
//!
//! Sums of integers do not depend on order or grouping. Partial moments can therefore be merged in
//! any way, and late data are simply added. An aggregate equals its recomputation to the last
//! digit. Mean and variance are derived only when they are read.

/// Count, sum, sum of squares and extremes of a sequence of integers.
///
/// `n` and `sum` cannot overflow in practice. `sum_sq` is exact while it fits 128 bits, which holds
/// for 2^60 values of up to 2^34 (nl, um, or an error of either).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moments {
    /// Number of values.
    pub n: u64,
    /// Sum of the values.
    pub sum: i128,
    /// Sum of the squares of the values.
    pub sum_sq: u128,
    /// Smallest and largest value; `None` if `n` is 0.
    pub extremes: Option<(i64, i64)>,
}

impl Moments {
    /// Adds one value.
    #[inline]
    pub fn add(&mut self, value: i64) {
        let magnitude = u128::from(value.unsigned_abs());
        self.n += 1;
        self.sum += i128::from(value);
        self.sum_sq += magnitude * magnitude;
        let (least, most) = self.extremes.unwrap_or((value, value));
        self.extremes = Some((least.min(value), most.max(value)));
    }

    /// Adds the values that `other` summarizes.
    pub fn merge(&mut self, other: &Self) {
        self.n += other.n;
        self.sum += other.sum;
        self.sum_sq += other.sum_sq;
        self.extremes = match (self.extremes, other.extremes) {
            (Some((least, most)), Some((other_least, other_most))) => {
                Some((least.min(other_least), most.max(other_most)))
            }
            (mine, others) => mine.or(others),
        };
    }

    /// Smallest value; `None` without values.
    pub fn min(&self) -> Option<i64> {
        self.extremes.map(|(least, _)| least)
    }

    /// Largest value; `None` without values.
    pub fn max(&self) -> Option<i64> {
        self.extremes.map(|(_, most)| most)
    }

    /// Arithmetic mean; `None` without values.
    pub fn mean(&self) -> Option<f64> {
        (self.n > 0).then(|| self.sum as f64 / self.n as f64)
    }

    /// Unbiased sample variance; `None` for fewer than two values. The numerator `n * sum_sq -
    /// sum^2` is computed in integers, so no digits cancel.
    pub fn variance(&self) -> Option<f64> {
        let n = u128::from(self.n);
        if n < 2 {
            return None;
        }
        let sum = self.sum.unsigned_abs();
        let numerator = match (n.checked_mul(self.sum_sq), sum.checked_mul(sum)) {
            (Some(left), Some(right)) => left.checked_sub(right)? as f64,
            // Values beyond 128 bits are so large that a float cannot hold more than these two
            // rounded terms.
            _ => (n as f64 * self.sum_sq as f64 - sum as f64 * sum as f64).max(0.0),
        };
        Some(numerator / (n as f64 * (n - 1) as f64))
    }
}

impl FromIterator<i64> for Moments {
    fn from_iter<T: IntoIterator<Item = i64>>(values: T) -> Self {
        let mut moments = Self::default();
        values.into_iter().for_each(|value| moments.add(value));
        moments
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values() -> impl Strategy<Value = Vec<i64>> {
        prop::collection::vec(prop_oneof![-2_000_000i64..2_000_000, any::<i32>().prop_map(i64::from)], 0..40)
    }

    fn merged(parts: &[&[i64]]) -> Moments {
        let mut all = Moments::default();
        for part in parts {
            all.merge(&part.iter().copied().collect());
        }
        all
    }

    proptest! {
        #[test]
        fn merging_is_associative_and_commutative(a in values(), b in values(), c in values()) {
            let whole: Moments = a.iter().chain(&b).chain(&c).copied().collect();
            prop_assert_eq!(merged(&[&a, &b, &c]), whole);
            prop_assert_eq!(merged(&[&c, &a, &b]), whole);
            let mut right: Moments = b.iter().copied().collect();
            right.merge(&c.iter().copied().collect());
            let mut left: Moments = a.iter().copied().collect();
            left.merge(&right);
            prop_assert_eq!(left, whole);
        }

        #[test]
        fn moments_are_those_of_the_values(values in values()) {
            let moments: Moments = values.iter().copied().collect();
            prop_assert_eq!(moments.n, values.len() as u64);
            prop_assert_eq!(moments.sum, values.iter().map(|value| i128::from(*value)).sum::<i128>());
            prop_assert_eq!(moments.min(), values.iter().copied().min());
            prop_assert_eq!(moments.max(), values.iter().copied().max());
            let squares: u128 = values.iter().map(|value| u128::from(value.unsigned_abs()).pow(2)).sum();
            prop_assert_eq!(moments.sum_sq, squares);
        }
    }

    #[test]
    fn derived_figures() {
        let moments: Moments = [2, 4, 4, 4, 5, 5, 7, 9].into_iter().collect();
        assert_eq!(moments.mean(), Some(5.0));
        assert_eq!(moments.variance(), Some(32.0 / 7.0));
        assert_eq!(Moments::default().mean(), None);
        assert_eq!(Moments::from_iter([3]).variance(), None);
        // A large common offset must not change the variance. In floats 1e15 + {0, 1} would.
        let shifted: Moments = (0..4).map(|i| 1_000_000_000_000_000 + i % 2).collect();
        assert_eq!(shifted.variance(), Some(1.0 / 3.0));
        let extreme: Moments = [i64::MIN, i64::MAX].into_iter().collect();
        assert_eq!((extreme.sum, extreme.min(), extreme.max()), (-1, Some(i64::MIN), Some(i64::MAX)));
    }
}
