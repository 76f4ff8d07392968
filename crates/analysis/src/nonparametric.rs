//! The tolerance interval from the smallest to the largest value, for any distribution.
//!
//! Of n values, [min, max] holds at least the share p of the population with probability 1 - n
//! p^(n-1) + (n-1) p^n (Wilks 1941; ISO 16269-6): n = 93, 188, 473 for p = 0.95, 0.975, 0.99 and
//! confidence 0.95.

use crate::error::{Error, Result, fraction};

/// Largest n that [`sample_size`] returns.
const N_MAX: u64 = 1 << 40;

/// Confidence with which the smallest and the largest of `n` values enclose `coverage` of the
/// population.
///
/// # Errors
/// coverage not between 0 and 1.
pub fn confidence(n: u64, coverage: f64) -> Result<f64> {
    fraction("coverage", coverage)?;
    if n < 2 {
        return Ok(0.0);
    }
    // p^(n-1) (n - (n-1) p). The power goes through logarithms, so a large n keeps its precision.
    let n = n as f64;
    let missed = ((n - 1.0) * coverage.ln()).exp() * (n - (n - 1.0) * coverage);
    Ok((1.0 - missed).max(0.0))
}

/// The smallest n whose extremes enclose `coverage` of the population with `wanted` confidence.
///
/// # Errors
/// coverage or confidence not between 0 and 1; more than 2^40 values needed.
pub fn sample_size(coverage: f64, wanted: f64) -> Result<u64> {
    fraction("coverage", coverage)?;
    fraction("confidence", wanted)?;
    let mut high = 2;
    while confidence(high, coverage)? < wanted {
        if high >= N_MAX {
            return Err(Error::Unsolvable(format!("coverage {coverage} needs more than {N_MAX} values")));
        }
        high *= 2;
    }
    let mut low = high / 2;
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if confidence(middle, coverage)? < wanted { low = middle } else { high = middle }
    }
    Ok(high)
}

/// The verdict without a distribution: whether all of at least [`sample_size`] values keep the
/// limits. `None` if there are fewer values.
///
/// # Errors
/// Those of [`sample_size`].
pub fn verdict(
    n: u64,
    extremes: (f64, f64),
    limits: (f64, f64),
    coverage: f64,
    confidence: f64,
) -> Result<Option<bool>> {
    let enough = n >= sample_size(coverage, confidence)?;
    Ok(enough.then_some(extremes.0 >= limits.0 && extremes.1 <= limits.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_sizes_of_iso_16269_6() {
        for (coverage, wanted, n) in [
            (0.95, 0.95, 93),
            (0.975, 0.95, 188),
            (0.99, 0.95, 473),
            (0.9, 0.9, 38),
            (0.99, 0.99, 662),
            (0.9, 0.99, 64),
        ] {
            assert_eq!(sample_size(coverage, wanted), Ok(n), "{coverage} {wanted}");
            assert!(confidence(n, coverage).unwrap() >= wanted);
            assert!(confidence(n - 1, coverage).unwrap() < wanted);
        }
        assert!(sample_size(1.0, 0.95).is_err());
        assert_eq!(confidence(1, 0.5), Ok(0.0));
    }

    #[test]
    fn too_few_values_decide_nothing() {
        let check = |n, extremes| verdict(n, extremes, (-1.0, 1.0), 0.95, 0.95);
        assert_eq!(check(92, (-0.5, 0.5)), Ok(None));
        assert_eq!(check(93, (-1.0, 1.0)), Ok(Some(true)));
        assert_eq!(check(93, (-1.0, 1.1)), Ok(Some(false)));
    }
}
