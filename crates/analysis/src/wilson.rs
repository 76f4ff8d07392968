//! Wilson's score interval for a share (Wilson 1927).

use crate::error::{Error, Result, fraction};
use crate::special::normal_upper_quantile;

/// A share with its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// The observed share, 0 to 1.
    pub share: f64,
    /// Lower bound, 0 to 1.
    pub low: f64,
    /// Upper bound, 0 to 1.
    pub high: f64,
}

/// The share of `inside` among `n`, with its two-sided interval.
///
/// # Errors
/// n is 0, `inside` exceeds `n`, or confidence is not between 0 and 1.
pub fn share(inside: u64, n: u64, confidence: f64) -> Result<Share> {
    fraction("confidence", confidence)?;
    if n == 0 {
        return Err(Error::Parameter { name: "n", value: 0.0, right: "at least 1" });
    }
    if inside > n {
        return Err(Error::Parameter { name: "inside", value: inside as f64, right: "at most n" });
    }
    let (z, n_float) = (normal_upper_quantile(0.5 * (1.0 - confidence)), n as f64);
    let share = inside as f64 / n_float;
    let square = z * z / n_float;
    let middle = (share + 0.5 * square) / (1.0 + square);
    let half = (share * (1.0 - share) * square + 0.25 * square * square).sqrt() / (1.0 + square);
    let low = if inside == 0 { 0.0 } else { middle - half };
    let high = if inside == n { 1.0 } else { middle + half };
    Ok(Share { share, low, high })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Newcombe 1998, Statistics in Medicine 17:857, table I, method 3.
    #[test]
    fn newcombes_cases() {
        for (inside, n, low, high) in
            [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
        {
            let share = share(inside, n, 0.95).unwrap();
            assert!((share.low - low).abs() < 5e-5 && (share.high - high).abs() < 5e-5, "{share:?}");
        }
        assert!(share(2, 1, 0.95).is_err() && share(0, 0, 0.95).is_err());
        assert_eq!(share(5, 5, 0.95).unwrap().high, 1.0);
    }
}
