//! The verdict for values that resemble each other within a session: a one-way random-effects
//! tolerance interval.
//!
//! Model: value = mean + session effect + shot effect, variances b and w; R = b / w. The interval
//! has to hold the share `coverage` of N(mean, b + w). With a sessions, it uses the unweighted mean
//! of the session means and two variances. M is the variance of those means (a - 1 degrees of
//! freedom, estimates b + w/n, n the harmonic mean of the shots; Thomas & Hultquist 1978). W is the
//! variance within sessions (N - a degrees). The total variance is estimated by T = M + (1 - 1/n)
//! W.
//!
//! Following Mee (1984, Technometrics 26:251), the upper confidence bound of R takes the place of R
//! in
//! - df = (R + 1)^2 / ((R + 1/n)^2 / (a - 1) + (1 - 1/n)^2 / (N - a)), Satterthwaite's degrees of
//!   freedom of T,
//! - n_e = a (R + 1) / (R + 1/n), the equivalent number of independent values for the mean.
//!
//! They give the exact factor k(n_e, df) of [`crate::tolerance`]; the interval is mean +- k
//! sqrt(T). The level of the bound is that of Mee & Owen (1983): 0.85, 0.905, 0.975 for 0.90, 0.95,
//! 0.99 (recalled; simulation supports it). If every session has one shot, k is the simple factor.
//! `tests/clustered.rs` shows the confidence reached.

use crate::{
    error::{Error, Result},
    moments::Moments,
    special::f_quantile,
    tolerance,
    verdict::{Claim, SpecificationLimits, Verdict, judge},
};

/// Mean and variances estimated from sessions, in the unit of the values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Components {
    /// Number of sessions.
    pub sessions: u64,
    /// Number of values over all sessions.
    pub values: u64,
    /// Unweighted mean of the session means.
    pub mean: f64,
    /// Harmonic mean of the number of values in a session.
    pub shots: f64,
    /// Variance of the session means: estimates b + w / `shots`.
    pub of_means: f64,
    /// Pooled variance within sessions: estimates w; 0 where each session has one value.
    pub within: f64,
}

impl Components {
    /// Estimates from the moments of each session; sessions without values do not count.
    ///
    /// # Errors
    /// Fewer than 2 sessions with values.
    pub fn of(sessions: &[Moments]) -> Result<Self> {
        let sessions: Vec<&Moments> = sessions.iter().filter(|session| session.n > 0).collect();
        let count = sessions.len() as u64;
        if count < 2 {
            return Err(Error::TooFew { name: "sessions", have: count, need: 2 });
        }
        // Deviations from a common integer keep the digits of means that are far from 0.
        let centre = sessions[0].sum / i128::from(sessions[0].n);
        let means: Vec<f64> = sessions
            .iter()
            .map(|session| (session.sum - centre * i128::from(session.n)) as f64 / session.n as f64)
            .collect();
        let a = count as f64;
        let mean = means.iter().sum::<f64>() / a;
        let of_means = means.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (a - 1.0);
        let values: u64 = sessions.iter().map(|session| session.n).sum();
        let squares: f64 =
            sessions.iter().filter_map(|session| Some(session.variance()? * (session.n - 1) as f64)).sum();
        let within = if values > count { squares / (values - count) as f64 } else { 0.0 };
        let shots = a / sessions.iter().map(|session| 1.0 / session.n as f64).sum::<f64>();
        Ok(Self { sessions: count, values, mean: centre as f64 + mean, shots, of_means, within })
    }

    /// Variance between sessions, b; 0 if the shots alone explain the variance of the session
    /// means.
    pub fn between(&self) -> f64 {
        (self.of_means - self.within / self.shots).max(0.0)
    }

    /// Variance of a value, b + w.
    pub fn total(&self) -> f64 {
        self.of_means + (1.0 - 1.0 / self.shots) * self.within
    }

    /// Intra-class correlation, b / (b + w); `None` if nothing varies.
    pub fn correlation(&self) -> Option<f64> {
        let between = self.between();
        (between + self.within > 0.0).then(|| between / (between + self.within))
    }

    /// The tolerance factor for sqrt([`Self::total`]).
    ///
    /// # Errors
    /// A claim outside (0, 1).
    pub fn factor(&self, claim: Claim) -> Result<f64> {
        let (a, shots) = (self.sessions as f64, self.shots);
        let df_of_means = a - 1.0;
        let df_within = (self.values - self.sessions) as f64;
        if df_within == 0.0 || self.within == 0.0 {
            return tolerance::factor_of(a, df_of_means, claim.coverage, claim.confidence);
        }
        let f = f_quantile(1.0 - bound_level(claim.confidence), df_of_means, df_within);
        let ratio = (self.of_means / self.within / f - 1.0 / shots).max(0.0);
        let whole = ratio + 1.0;
        let part = ratio + 1.0 / shots;
        let df = whole.powi(2) / (part.powi(2) / df_of_means + (1.0 - 1.0 / shots).powi(2) / df_within);
        tolerance::factor_of(a * whole / part, df, claim.coverage, claim.confidence)
    }
}

/// Level of the upper bound of the variance ratio for a confidence: linear between the values of
/// Mee & Owen.
fn bound_level(confidence: f64) -> f64 {
    let (left, right) = if confidence < 0.95 { ((0.90, 0.85), (0.95, 0.905)) } else { ((0.95, 0.905), (0.99, 0.975)) };
    let level = left.1 + (confidence - left.0) * (right.1 - left.1) / (right.0 - left.0);
    level.clamp(0.5, 0.999)
}

/// The verdict on the moments of measured - `set` of each session, all at one set point and within
/// one calibration.
///
/// # Errors
/// Fewer than 2 sessions with values, a claim outside (0, 1).
pub fn verdict(sessions: &[Moments], set: f64, limits: SpecificationLimits, claim: Claim) -> Result<Verdict> {
    let components = Components::of(sessions)?;
    let k = components.factor(claim)?;
    Ok(judge(k, set + components.mean, components.total().sqrt(), limits))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIM: Claim = Claim { coverage: 0.95, confidence: 0.95 };

    fn moments(values: &[i64]) -> Moments {
        values.iter().copied().collect()
    }

    /// The balanced case against mean squares of an analysis of variance computed by hand.
    #[test]
    fn balanced_components_are_those_of_the_mean_squares() {
        let sessions = [moments(&[1, 3]), moments(&[5, 7]), moments(&[6, 8])];
        let components = Components::of(&sessions).unwrap();
        // Session means 2, 6, 7: mean 5, variance 7; within each session variance 2. MSB = 14, MSW
        // = 2.
        assert!((components.of_means - 7.0).abs() < 1e-12 && components.within == 2.0 && components.shots == 2.0);
        assert!((components.between() - 6.0).abs() < 1e-12 && (components.total() - 8.0).abs() < 1e-12);
        assert!((components.mean - 5.0).abs() < 1e-12);
        assert!((components.correlation().unwrap() - 0.75).abs() < 1e-12);
    }

    #[test]
    fn one_shot_a_session_is_the_simple_case() {
        let values = [120i64, -80, 40, 10, -30];
        let sessions: Vec<Moments> = values.iter().map(|value| Moments::from_iter([*value])).collect();
        let limits = SpecificationLimits { low: -500.0, high: 500.0 };
        let clustered = verdict(&sessions, 0.0, limits, CLAIM).unwrap();
        let simple = crate::verdict::of_moments(&moments(&values), 0.0, limits, CLAIM).unwrap();
        assert!((clustered.interval.0 - simple.interval.0).abs() < 1e-9);
        assert!((clustered.interval.1 - simple.interval.1).abs() < 1e-9);
    }

    #[test]
    fn sessions_that_differ_cost_confidence() {
        let alike: Vec<Moments> = (0..10).map(|_| moments(&[-10, -5, 0, 5, 10])).collect();
        let apart: Vec<Moments> =
            (0..10).map(|i| moments(&[-10, -5, 0, 5, 10].map(|value| value + 20 * (i % 5)))).collect();
        let [near, far] = [&alike, &apart].map(|sessions| Components::of(sessions).unwrap().factor(CLAIM).unwrap());
        let simple = tolerance::factor(50, 0.95, 0.95).unwrap();
        assert!(near < simple * 1.1, "{near} {simple}");
        assert!(far > simple * 1.15 && far < tolerance::factor(10, 0.95, 0.95).unwrap(), "{far}");
    }

    #[test]
    fn one_session_decides_nothing() {
        let limits = SpecificationLimits { low: -1.0, high: 1.0 };
        let error = verdict(&[moments(&[0, 0, 1]), Moments::default()], 0.0, limits, CLAIM).unwrap_err();
        assert_eq!(error, Error::TooFew { name: "sessions", have: 1, need: 2 });
        assert!(verdict(&[moments(&[0, 0]), moments(&[0, 0])], 0.0, limits, CLAIM).unwrap().pass);
    }
}
