//! Mean and variance of decimals.
//!
//! [`Sample::of`] takes decimals as they were written: 10000000.2 is the integer 100000002 with one
//! decimal place. It sums the integers exactly. Sums of squares in floating point lose digits (NIST
//! NumAcc4: a variance of -2.0 instead of 0.01). Numbers that span too many places go through
//! [`FloatMoments`].

use crate::{
    error::{Result, all_finite, finite},
    moments::Moments,
};

/// Count, mean and sum of squared deviations in floating point.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FloatMoments {
    /// Number of values.
    pub n: u64,
    pub mean: f64,
    /// Sum of the squared deviations from the mean.
    pub m2: f64,
}

impl FloatMoments {
    /// Adds one value (Welford 1962).
    pub fn add(&mut self, value: f64) {
        self.merge(&Self { n: 1, mean: value, m2: 0.0 });
    }

    /// Adds the values that `other` summarizes (Chan, Golub & LeVeque 1979). The order changes the
    /// result by rounding only. If it must not change at all, use [`Moments`].
    pub fn merge(&mut self, other: &Self) {
        if other.n == 0 {
            return;
        }
        if self.n == 0 {
            *self = *other;
            return;
        }
        let (left, right) = (self.n as f64, other.n as f64);
        let all = left + right;
        let difference = other.mean - self.mean;
        self.n += other.n;
        self.mean += difference * (right / all);
        self.m2 += other.m2 + difference * difference * (left * right / all);
    }

    /// Unbiased variance; `None` for fewer than two values.
    pub fn variance(&self) -> Option<f64> {
        (self.n > 1).then(|| self.m2 / (self.n - 1) as f64)
    }
}

impl FromIterator<f64> for FloatMoments {
    fn from_iter<T: IntoIterator<Item = f64>>(values: T) -> Self {
        let mut moments = Self::default();
        values.into_iter().for_each(|value| moments.add(value));
        moments
    }
}

/// Mean and standard deviation of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Number of values.
    pub n: u64,
    /// Arithmetic mean; `None` without values.
    pub mean: Option<f64>,
    /// Standard deviation with divisor n - 1; `None` for fewer than two values.
    pub sd: Option<f64>,
}

impl Sample {
    /// Computes the figures of these values.
    ///
    /// # Errors
    /// A value that is not finite, or values so far apart that their squares are not finite.
    pub fn of(values: &[f64]) -> Result<Self> {
        all_finite("x", values)?;
        if let Some(sample) = Self::of_decimals(values) {
            return Ok(sample);
        }
        let moments: FloatMoments = values.iter().copied().collect();
        let sample =
            Self { n: moments.n, mean: (moments.n > 0).then_some(moments.mean), sd: moments.variance().map(f64::sqrt) };
        finite("mean", sample.mean.unwrap_or_default())?;
        finite("standard deviation", sample.sd.unwrap_or_default())?;
        Ok(sample)
    }

    /// The same figures through exact integers, relative to the first value so that their squares
    /// stay small. `None` if the decimals span too many places.
    fn of_decimals(values: &[f64]) -> Option<Self> {
        let written: Vec<String> = values.iter().map(f64::to_string).collect();
        let places = written.iter().map(|text| text.split_once('.').map_or(0, |(_, places)| places.len())).max()?;
        if places > 18 {
            return None;
        }
        let integer = |text: &String| -> Option<i64> {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
            format!("{whole}{fraction:0<places$}").parse().ok()
        };
        let first = integer(written.first()?)?;
        // If all values are below this, n times the sum of squares fits 128 bits.
        let largest = i64::MAX / i64::try_from(values.len()).ok()?;
        let mut moments = Moments::default();
        for text in &written {
            let from_first = integer(text)?.checked_sub(first)?;
            if from_first.checked_abs()? > largest {
                return None;
            }
            moments.add(from_first);
        }
        let scale: f64 = format!("1e{places}").parse().ok()?;
        let sum = moments.sum + i128::from(first) * i128::from(moments.n);
        Some(Self {
            n: moments.n,
            mean: Some(sum as f64 / moments.n as f64 / scale),
            sd: moments.variance().map(|variance| variance.sqrt() / scale),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_magnitude_has_its_figures() {
        for x in [
            vec![9.0e18, -9.0e18, 9.0e18],
            vec![0.1, 1e17],
            vec![1e-300, 2e-300],
            vec![0.123_456_789_012_345_67, 12_345.678_9],
            vec![9_000_000_000_000_000_000.0; 1000],
        ] {
            let sample = Sample::of(&x).unwrap();
            assert_eq!(sample.n, x.len() as u64);
            assert!(sample.mean.unwrap().is_finite(), "{x:?}: {sample:?}");
        }
        assert_eq!(Sample::of(&[]).unwrap(), Sample { n: 0, mean: None, sd: None });
        assert!(Sample::of(&[f64::INFINITY]).is_err() && Sample::of(&[1e300, -1e300]).is_err());
    }
}
