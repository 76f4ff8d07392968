//! Thresholds from an alarm budget.
//!
//! A chart signals by chance once in its run length, even on a healthy device. So the starting
//! point is a budget: false alarms per device and year. It is split over all streams (channels x
//! set-point bands) and over all charts that raise alerts. Each chart's limit is solved for the run
//! length left to it. The split is a union bound. Charts over the same sessions often signal
//! together and become one condition, so there are fewer alarms in fact.

use crate::{
    arl::{self, EwmaLimits},
    chart::Settings,
    cusum,
    error::{Error, Result, not_negative, positive, require},
    ewma, shewhart,
    standard::{Centre, Spread},
};

/// Days in a year.
const YEAR: f64 = 365.25;

/// The allowed false alarms, and what they are divided by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// False alarms of a device in a year, over all its streams and charts, forecasts included.
    pub false_alarms: f64,
    /// Points (sessions) a day in each stream.
    pub points_per_day: f64,
    /// Measured channels: dose, depth.
    pub channels: u32,
    /// Set-point bands of each channel.
    pub bands: u32,
    /// How the budget is split.
    pub shares: Shares,
}

/// Relative shares of the charts in the budget; a chart with share 0 raises no alerts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shares {
    /// Share of the CUSUM, 0 or more.
    pub cusum: f64,
    /// Share of the EWMA, 0 or more.
    pub ewma: f64,
    /// Share of the Shewhart limit on single sessions, 0 or more.
    pub spike: f64,
    /// Forecast alarms for each false alarm of a drift chart, 0 or more. A forecast needs a drift
    /// alarm first and is one alert for each calibration, so 1 is the upper bound. A simulated
    /// fleet has 1 in 200 (`tests/fleet.rs`).
    pub forecasts: f64,
}

impl Default for Shares {
    /// Equal shares for the charts, and four times the forecasts of a simulated fleet.
    fn default() -> Self {
        Self { cusum: 1.0, ewma: 1.0, spike: 1.0, forecasts: 0.02 }
    }
}

/// Run length of each chart, in points of one stream; `None` for a chart that raises no alerts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunLengths {
    /// Points between false signals of the CUSUM.
    pub cusum: Option<f64>,
    /// Points between false signals of the EWMA.
    pub ewma: Option<f64>,
    /// Points between false spikes.
    pub spike: Option<f64>,
}

/// Limits that keep the budget, in sigma; `None` for a chart that raises no alerts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Parameters of the CUSUM.
    pub cusum: Option<cusum::Design>,
    /// Parameters of the EWMA, with time-varying limits.
    pub ewma: Option<ewma::Design>,
    /// Limit on a single session's |z|, sigma.
    pub spike: Option<f64>,
}

impl Budget {
    /// Splits the budget over streams and charts.
    ///
    /// # Errors
    /// A number out of range, no chart that raises alerts, no channel or band.
    pub fn run_lengths(&self) -> Result<RunLengths> {
        positive("false alarms", self.false_alarms)?;
        positive("points per day", self.points_per_day)?;
        require("channels", f64::from(self.channels), self.channels > 0, "at least 1")?;
        require("bands", f64::from(self.bands), self.bands > 0, "at least 1")?;
        let Shares { cusum, ewma, spike, forecasts } = self.shares;
        for (name, share) in [("cusum share", cusum), ("ewma share", ewma), ("spike share", spike)] {
            not_negative(name, share)?;
        }
        not_negative("forecasts for each drift alarm", forecasts)?;
        let whole = (cusum + ewma) * (1.0 + forecasts) + spike;
        positive("sum of shares", whole)?;
        let points = self.points_per_day * YEAR * f64::from(self.channels) * f64::from(self.bands);
        let length = |share: f64| (share > 0.0).then(|| points * whole / (share * self.false_alarms));
        Ok(RunLengths { cusum: length(cusum), ewma: length(ewma), spike: length(spike) })
    }

    /// Solves the limits for a CUSUM with this `k`, with or without a fast start, and an EWMA with
    /// this `lambda`.
    ///
    /// # Errors
    /// Those of [`Self::run_lengths`] and of the run lengths' equations.
    pub fn thresholds(&self, k: f64, fast_start: bool, lambda: f64) -> Result<Thresholds> {
        let lengths = self.run_lengths()?;
        let cusum = lengths
            .cusum
            .map(|arl| Ok::<_, Error>(cusum::Design { k, h: arl::cusum_threshold(k, fast_start, arl)?, fast_start }));
        let ewma = lengths.ewma.map(|arl| {
            let limit = arl::ewma_threshold(lambda, EwmaLimits::TimeVarying, arl)?;
            Ok::<_, Error>(ewma::Design { lambda, limit })
        });
        let spike = lengths.spike.map(shewhart::threshold);
        Ok(Thresholds { cusum: cusum.transpose()?, ewma: ewma.transpose()?, spike: spike.transpose()? })
    }
}

impl Thresholds {
    /// Charts with these limits.
    ///
    /// # Errors
    /// A chart without a limit, because it raises no alerts.
    pub fn settings(&self, centre: Centre, spread: Spread) -> Result<Settings> {
        let (Some(cusum), Some(ewma), Some(spike)) = (self.cusum, self.ewma, self.spike) else {
            return Err(Error::Unsolvable("a chart without a share in the budget has no limit".into()));
        };
        Ok(Settings { centre, spread, cusum, ewma, spike })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(false_alarms: f64) -> Budget {
        Budget { false_alarms, points_per_day: 5.0, channels: 2, bands: 1, shares: Shares::default() }
    }

    #[test]
    fn the_shares_add_up() {
        let budget = Budget { shares: Shares { forecasts: 0.5, ..Shares::default() }, ..budget(0.1) };
        let lengths = budget.run_lengths().unwrap();
        let points = 5.0 * 2.0 * YEAR;
        let (cusum, ewma, spike) = (lengths.cusum.unwrap(), lengths.ewma.unwrap(), lengths.spike.unwrap());
        let alarms = points * (1.5 / cusum + 1.5 / ewma + 1.0 / spike);
        assert!((alarms - 0.1).abs() < 1e-12, "{alarms}");
    }

    #[test]
    fn a_smaller_budget_means_wider_limits() {
        let [strict, loose] = [0.05, 0.5].map(|alarms| budget(alarms).thresholds(0.5, false, 0.1).unwrap());
        assert!(strict.cusum.unwrap().h > loose.cusum.unwrap().h);
        assert!(strict.ewma.unwrap().limit > loose.ewma.unwrap().limit);
        assert!(strict.spike.unwrap() > loose.spike.unwrap());
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(budget(0.0).run_lengths().is_err());
        assert!(Budget { channels: 0, ..budget(0.1) }.run_lengths().is_err());
        let none = Shares { cusum: 0.0, ewma: 0.0, spike: 0.0, forecasts: 1.0 };
        assert!(Budget { shares: none, ..budget(0.1) }.run_lengths().is_err());
        // With this many alarms a chart would have to signal at each point.
        assert!(budget(1e5).thresholds(0.5, false, 0.1).is_err());
    }
}
