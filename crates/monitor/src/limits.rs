//! What a clinic or a manufacturer sets, and what is solved from it once.

use std::collections::HashMap;

use analysis::{
    budget::{Budget, Shares},
    chart::Settings,
    forecast,
    standard::{Centre, Source, Spread},
    tolerance,
    verdict::Claim,
};
use serde::Serialize;
use telemetry::device_time;
use warehouse::devices::FleetLimits;

use crate::settings;

/// The limits of all judgements: those of [`settings::Monitor`], and two of the section
/// `[device_time]`. Positions are recorded under them, so that after a change everything is
/// evaluated again.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Limits {
    pub coverage: f64,
    pub sessions_min: u64,
    /// False alarms of a device in a year, over all its charts.
    pub false_alarms: f64,
    pub sessions_per_day: f64,
    pub bands: u32,
    pub forecast_days: u32,
    pub mass_balance_pct: u32,
    /// Limits of the devices themselves.
    pub fleet: FleetLimits,
    /// Uncertainty of a device's time that is believed, s.
    pub ahead_max_s: u32,
    /// Longest time between an event and its receipt, days: the uncertainty of an event without a
    /// device's time.
    pub age_max_days: u32,
}

impl std::fmt::Display for Limits {
    /// JSON, under which positions are recorded.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&serde_json::to_string(self).unwrap_or_default())
    }
}

impl Limits {
    pub(crate) fn new(monitor: &settings::Monitor, device_time: device_time::Limits) -> Self {
        Self {
            coverage: monitor.coverage,
            sessions_min: monitor.sessions_min,
            false_alarms: monitor.false_alarms_per_device_year,
            sessions_per_day: monitor.sessions_per_day,
            bands: monitor.bands,
            forecast_days: monitor.forecast_days,
            mass_balance_pct: monitor.mass_balance_pct,
            fleet: FleetLimits { silent_days: monitor.silent_days, battery_pct: monitor.battery_pct },
            ahead_max_s: device_time.ahead_max_s,
            age_max_days: device_time.age_max_days,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(&settings::Monitor::default(), device_time::Limits::default())
    }
}

/// Confidence of verdicts.
const CONFIDENCE: f64 = 0.95;
/// Reference value of the CUSUM: half the shift to find quickly, sigma.
const CUSUM_K: f64 = 0.5;
/// Weight of the newest visit in the EWMA.
const EWMA_LAMBDA: f64 = 0.1;
/// Variation between visits to that of the shots in a visit, percent: with charts that find the
/// scale themselves, only their ratio matters, and only where visits differ in their number of
/// shots.
pub const SPREAD: Spread = Spread { between: 0.5, within: 2.0, source: Source::SelfStarting };

/// The limits, with everything that is computed from them and not from a device.
#[derive(Clone)]
pub struct Rules {
    pub limits: Limits,
    /// What is promised of each device.
    pub claim: Claim,
    /// How drift is charted.
    pub settings: Settings,
    /// When a forecast alarms.
    pub forecast: forecast::Rule,
    /// Tolerance factors of independent values, which many devices share.
    factors: HashMap<u64, f64>,
}

impl Rules {
    /// Solves the charts' limits from the alarm budget.
    ///
    /// # Errors
    /// Limits out of range.
    pub fn new(limits: Limits) -> Result<Self, analysis::Error> {
        let budget = Budget {
            false_alarms: limits.false_alarms,
            points_per_day: limits.sessions_per_day,
            channels: 2,
            bands: limits.bands,
            shares: Shares::default(),
        };
        let settings = budget.thresholds(CUSUM_K, false, EWMA_LAMBDA)?.settings(Centre::PhaseI, SPREAD)?;
        let claim = Claim { coverage: limits.coverage, confidence: CONFIDENCE };
        tolerance::factor(2, claim.coverage, claim.confidence)?;
        let forecast = forecast::Rule { horizon_days: limits.forecast_days.into(), ..forecast::Rule::default() };
        Ok(Self { limits, claim, settings, forecast, factors: HashMap::new() })
    }

    /// The tolerance factor of so many independent values; none where there is none.
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
