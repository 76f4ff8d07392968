//! The verdict on dose or depth accuracy, in the pattern of ISO 11608-1.
//!
//! The tolerance interval mean +- k sd must lie within set +- max(resolution, 5 % of set). Then at
//! least the share `coverage` of all doses keeps the limits, with probability `confidence`. Values
//! of one session resemble each other, and then this confidence is not reached;
//! [`crate::clustered`] has the verdict for that case.

use crate::{
    accuracy::Channel,
    error::{Error, Result, finite, not_negative},
    moments::Moments,
    tolerance,
};

/// The relative tolerance of the dose, as a share of the set dose.
pub const DOSE_TOLERANCE: f64 = 0.05;

/// The claim of a verdict: at least the share `coverage` is inside, with probability `confidence`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Claim {
    /// Share of the population, between 0 and 1, both excluded.
    pub coverage: f64,
    /// Probability of the claim, between 0 and 1, both excluded.
    pub confidence: f64,
}

/// The range that must hold the tolerance interval, in the unit of the values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpecificationLimits {
    /// Lowest allowed value.
    pub low: f64,
    /// Highest allowed value.
    pub high: f64,
}

impl SpecificationLimits {
    /// set +- max(`resolution`, `relative` x set), in the unit of `set`.
    ///
    /// # Errors
    /// A negative or infinite number.
    pub fn dose(set: f64, resolution: f64, relative: f64) -> Result<Self> {
        not_negative("set", set)?;
        not_negative("dose resolution", resolution)?;
        not_negative("relative tolerance", relative)?;
        Ok(Self::around(set, resolution.max(relative * set)))
    }

    /// target +- max(`resolution`, `absolute`, `relative` x target), in the unit of `target`.
    ///
    /// # Errors
    /// A negative or infinite number.
    pub fn depth(target: f64, resolution: f64, absolute: f64, relative: f64) -> Result<Self> {
        not_negative("target", target)?;
        not_negative("depth resolution", resolution)?;
        not_negative("absolute tolerance", absolute)?;
        not_negative("relative tolerance", relative)?;
        Ok(Self::around(target, resolution.max(absolute).max(relative * target)))
    }

    fn around(set: f64, tolerance: f64) -> Self {
        Self { low: set - tolerance, high: set + tolerance }
    }

    /// Whether the whole interval is inside the limits, ends included.
    pub fn hold(&self, interval: (f64, f64)) -> bool {
        interval.0 >= self.low && interval.1 <= self.high
    }
}

/// A tolerance interval, its limits and the result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// The tolerance factor, in standard deviations.
    pub k: f64,
    /// mean - k sd and mean + k sd.
    pub interval: (f64, f64),
    /// The limits that the interval must keep.
    pub limits: SpecificationLimits,
    /// Whether the interval keeps the limits.
    pub pass: bool,
    /// The largest factor that would keep the limits: below `k` exactly if `pass` is false,
    /// infinite if sd is 0 and the mean keeps the limits.
    pub k_actual: f64,
}

/// The verdict on `n` independent values.
///
/// # Errors
/// n below 2, a negative standard deviation, numbers that are not finite, a claim outside (0, 1).
pub fn simple(n: u64, mean: f64, sd: f64, limits: SpecificationLimits, claim: Claim) -> Result<Verdict> {
    finite("mean", mean)?;
    not_negative("sd", sd)?;
    Ok(judge(tolerance::factor(n, claim.coverage, claim.confidence)?, mean, sd, limits))
}

/// The verdict on the moments of measured - `set`, all at one set point.
///
/// # Errors
/// Fewer than 2 values, a claim outside (0, 1).
pub fn of_moments(error: &Moments, set: f64, limits: SpecificationLimits, claim: Claim) -> Result<Verdict> {
    let (Some(mean), Some(variance)) = (error.mean(), error.variance()) else {
        return Err(Error::TooFew { name: "measurements", have: error.n, need: 2 });
    };
    simple(error.n, set + mean, variance.sqrt(), limits, claim)
}

pub(crate) fn judge(k: f64, mean: f64, sd: f64, limits: SpecificationLimits) -> Verdict {
    let interval = (mean - k * sd, mean + k * sd);
    let room = (mean - limits.low).min(limits.high - mean);
    let k_actual = match (sd > 0.0, room >= 0.0) {
        (true, _) => room / sd,
        (false, true) => f64::INFINITY,
        (false, false) => f64::NEG_INFINITY,
    };
    Verdict { k, interval, limits, pass: limits.hold(interval), k_actual }
}

/// A session's error in percent: 100 x sum(measured - target) / sum(target), for one exact set
/// point. `None` if the targets sum to 0, because a target of 0 has no relative error.
pub fn error_percent(channel: &Channel) -> Option<f64> {
    (channel.target > 0).then(|| 100.0 * channel.error.sum as f64 / channel.target as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIM: Claim = Claim { coverage: 0.95, confidence: 0.95 };

    #[test]
    fn the_larger_tolerance_holds() {
        assert_eq!(SpecificationLimits::dose(10.0, 1.0, 0.05), Ok(SpecificationLimits { low: 9.0, high: 11.0 }));
        assert_eq!(SpecificationLimits::dose(40.0, 1.0, 0.05), Ok(SpecificationLimits { low: 38.0, high: 42.0 }));
        assert_eq!(
            SpecificationLimits::depth(4000.0, 50.0, 150.0, 0.1),
            Ok(SpecificationLimits { low: 3600.0, high: 4400.0 })
        );
        assert!(SpecificationLimits::dose(-1.0, 1.0, 0.05).is_err());
    }

    #[test]
    fn integer_moments_give_the_verdict_of_the_values() {
        let error: Moments = [120, -80, 40, 10, -30].into_iter().collect();
        let limits = SpecificationLimits::dose(20_000.0, 100.0, 0.05).unwrap();
        let verdict = of_moments(&error, 20_000.0, limits, CLAIM).unwrap();
        let k = tolerance::factor(5, 0.95, 0.95).unwrap();
        let sd = error.variance().unwrap().sqrt();
        assert_eq!(verdict.interval, (20_012.0 - k * sd, 20_012.0 + k * sd));
        assert!(verdict.pass && verdict.k_actual > verdict.k);
        assert!(of_moments(&Moments::from_iter([3]), 20.0, limits, CLAIM).is_err());
    }

    #[test]
    fn nothing_scatters() {
        let limits = SpecificationLimits { low: 9.0, high: 11.0 };
        assert!(simple(5, 10.0, 0.0, limits, CLAIM).unwrap().pass);
        let outside = simple(5, 12.0, 0.0, limits, CLAIM).unwrap();
        assert!(!outside.pass && outside.k_actual < outside.k);
        assert!(simple(5, 10.0, -0.1, limits, CLAIM).is_err());
        assert!(simple(5, f64::NAN, 0.1, limits, CLAIM).is_err());
    }

    #[test]
    fn a_sessions_error_is_weighted_by_dose() {
        let mut channel = Channel::default();
        channel.add(100, 110);
        channel.add(300, 300);
        assert_eq!(error_percent(&channel), Some(2.5));
        assert_eq!(error_percent(&Channel::default()), None);
    }
}
