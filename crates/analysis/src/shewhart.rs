//! Shewhart chart: signals a spike, a single value far from the centre.

use crate::{
    Side,
    error::{Result, positive, require},
    special::{normal_above, normal_upper_quantile},
};

/// The side on which a standardised value is beyond +-`limit`; `None` if it is within.
pub fn signal(z: f64, limit: f64) -> Option<Side> {
    if z > limit {
        Some(Side::Upper)
    } else if z < -limit {
        Some(Side::Lower)
    } else {
        None
    }
}

/// Mean number of points to a signal, two-sided, with a mean that is `shift` sigma off: 1 /
/// P(signal).
///
/// # Errors
/// A limit that is not above 0, a shift that is not finite.
pub fn arl(limit: f64, shift: f64) -> Result<f64> {
    positive("limit", limit)?;
    crate::error::finite("shift", shift)?;
    Ok(1.0 / (normal_above(limit - shift) + normal_above(limit + shift)))
}

/// The limit with this mean number of points between false signals.
///
/// # Errors
/// A run length not above 1.
pub fn threshold(arl: f64) -> Result<f64> {
    require("arl", arl, arl > 1.0 && arl.is_finite(), "a finite number above 1")?;
    Ok(normal_upper_quantile(0.5 / arl))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_sigma() {
        assert!((arl(3.0, 0.0).unwrap() - 370.398).abs() < 1e-3);
        assert!((arl(3.0, 1.0).unwrap() - 43.895).abs() < 1e-3);
        assert!((threshold(370.398_347_3).unwrap() - 3.0).abs() < 1e-9);
        assert_eq!(signal(3.1, 3.0), Some(Side::Upper));
        assert_eq!(signal(-3.1, 3.0), Some(Side::Lower));
        assert_eq!(signal(3.0, 3.0), None);
        assert!(threshold(1.0).is_err() && arl(0.0, 0.0).is_err());
    }
}
