//! What accuracy and drift are judged by: the limits, and what is computed from them once.

use std::collections::HashMap;

use analysis::{
    budget::{Budget, Shares},
    chart::Settings,
    forecast,
    standard::{Centre, Spread},
    tolerance,
    verdict::Claim,
};

use crate::limits::Limits;

/// Version of the rules of accuracy and drift. A new version makes the monitor evaluate everything.
pub const ACCURACY_RULE_VERSION: u32 = 3;

/// Confidence of verdicts.
const CONFIDENCE: f64 = 0.95;
/// Reference value of the CUSUM, in standard deviations: half the shift that it finds fastest.
const CUSUM_K: f64 = 0.5;
/// Weight of the newest session in the EWMA, 0 to 1.
const EWMA_LAMBDA: f64 = 0.1;
/// The limits, and everything that is computed from them alone.
#[derive(Clone)]
pub struct Rules {
    pub limits: Limits,
    /// Coverage and confidence that are claimed of each device.
    pub claim: Claim,
    /// Limits of the drift charts.
    pub settings: Settings,
    /// When a forecast raises an alert.
    pub forecast: forecast::Rule,
    /// Tolerance factors by number of independent values. Many devices share them.
    factors: HashMap<u64, f64>,
}

impl Rules {
    /// Computes the limits of the charts from the budget of false alarms.
    ///
    /// # Errors
    /// A limit is out of its range.
    pub fn new(limits: Limits) -> Result<Self, analysis::Error> {
        let budget = Budget {
            false_alarms: limits.false_alarms,
            points_per_day: limits.sessions_per_day,
            channels: 2,
            bands: limits.bands,
            shares: Shares::default(),
        };
        let settings =
            budget.thresholds(CUSUM_K, false, EWMA_LAMBDA)?.settings(Centre::PhaseI, Spread::SELF_STARTING)?;
        let claim = Claim { coverage: limits.coverage, confidence: CONFIDENCE };
        tolerance::factor(2, claim.coverage, claim.confidence)?;
        let forecast = forecast::Rule { horizon_days: limits.forecast_days.into(), ..forecast::Rule::default() };
        Ok(Self { limits, claim, settings, forecast, factors: HashMap::new() })
    }

    /// The tolerance factor of `n` independent values. Returns `None` if `n` is too small.
    pub fn factor(&mut self, n: u64) -> Option<f64> {
        if let Some(k) = self.factors.get(&n) {
            return Some(*k);
        }
        let k = tolerance::factor(n, self.claim.coverage, self.claim.confidence).ok()?;
        self.factors.insert(n, k);
        Some(k)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_corner_of_the_ranges_can_be_solved() {
        let corner = |false_alarms, sessions_per_day, bands, coverage| Limits {
            false_alarms,
            sessions_per_day,
            bands,
            coverage,
            ..Limits::default()
        };
        let [loosest, strictest] = [corner(10.0, 0.1, 1, 0.9), corner(0.01, 100.0, 20, 0.999)]
            .map(|limits| Rules::new(limits).unwrap_or_else(|error| panic!("{error}")));
        let usual = Rules::new(Limits::default()).unwrap_or_else(|error| panic!("{error}"));
        for pair in [[&loosest, &usual], [&usual, &strictest]] {
            assert!(pair[0].settings.cusum.h < pair[1].settings.cusum.h);
            assert!(pair[0].settings.ewma.limit < pair[1].settings.ewma.limit);
            assert!(pair[0].settings.spike < pair[1].settings.spike);
        }
        assert!(Rules::new(Limits { false_alarms: 0.0, ..Limits::default() }).is_err());
        assert!(Rules::new(Limits { coverage: 1.0, ..Limits::default() }).is_err());
    }
}
