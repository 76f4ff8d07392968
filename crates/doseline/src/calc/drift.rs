//! Formulas of drift.

use std::io::Read;

use analysis::{
    arl::{self, EwmaLimits},
    budget, cusum, ewma, forecast,
    regression::Fit,
    shewhart,
    standard::{Centre, Source, Spread, Standardiser},
    western_electric,
};
use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Fault, fault, input};

#[derive(Args)]
pub struct Scale {
    /// Centre of the chart
    #[arg(long, allow_negative_numbers = true)]
    target: f64,
    /// Standard deviation of a value
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    sigma: f64,
}

impl Scale {
    /// The values in units of sigma, measured from the target.
    fn standardise(&self, values: &[f64]) -> Result<Vec<f64>, Fault> {
        if !self.target.is_finite() {
            return Err(format!("target is {}; it must be a finite number", self.target));
        }
        if !(self.sigma.is_finite() && self.sigma > 0.0) {
            return Err(format!("sigma is {}; it must be a finite number above 0", self.sigma));
        }
        let standardised: Vec<f64> = values.iter().map(|x| (x - self.target) / self.sigma).collect();
        match standardised.iter().position(|z| !z.is_finite()) {
            Some(index) => Err(format!("x[{index}] is {}; it is too far from the target", values[index])),
            None => Ok(standardised),
        }
    }
}

/// Number, from 1, of the first point that signals.
fn first<P>(points: &[P], signals: impl Fn(&P) -> bool) -> Option<usize> {
    points.iter().position(signals).map(|index| index + 1)
}

#[derive(Args)]
pub struct Cusum {
    #[command(flatten)]
    scale: Scale,
    /// Reference value, sigma
    #[arg(long, allow_negative_numbers = true)]
    k: f64,
    /// Decision limit, sigma
    #[arg(long, allow_negative_numbers = true)]
    h: f64,
    /// Fast initial response: the sums start at h/2
    #[arg(long)]
    fir: bool,
}

impl Cusum {
    pub fn answer(&self, stdin: &mut dyn Read) -> Result<Value, Fault> {
        let design = cusum::Design { k: self.k, h: self.h, fast_start: self.fir };
        design.check().map_err(fault)?;
        let points = cusum::chart(design, self.scale.standardise(&input::series(stdin)?)?);
        let first = first(&points, |point| point.signal.is_some());
        Ok(json!({
            "upper": points.iter().map(|point| point.upper).collect::<Vec<_>>(),
            "lower": points.iter().map(|point| point.lower).collect::<Vec<_>>(),
            "first_alarm": first,
            "onset": first.and_then(|index| points[index - 1].onset),
        }))
    }
}

#[derive(Args)]
pub struct Ewma {
    #[command(flatten)]
    scale: Scale,
    /// Weight of the newest value
    #[arg(long, allow_negative_numbers = true)]
    lambda: f64,
    /// Limit, in standard deviations of the average
    #[arg(long, allow_negative_numbers = true)]
    limit: f64,
}

impl Ewma {
    pub fn answer(&self, stdin: &mut dyn Read) -> Result<Value, Fault> {
        let design = ewma::Design { lambda: self.lambda, limit: self.limit };
        design.check().map_err(fault)?;
        let points = ewma::chart(design, self.scale.standardise(&input::series(stdin)?)?);
        let Scale { target, sigma } = self.scale;
        let back = |standardised: f64| target + sigma * standardised;
        Ok(json!({
            "z": points.iter().map(|point| back(point.average)).collect::<Vec<_>>(),
            "lcl": points.iter().map(|point| back(-point.bound)).collect::<Vec<_>>(),
            "ucl": points.iter().map(|point| back(point.bound)).collect::<Vec<_>>(),
            "first_alarm": first(&points, |point| point.signal.is_some()),
        }))
    }
}

#[derive(Args)]
pub struct Shewhart {
    #[command(flatten)]
    scale: Scale,
    /// Limit, sigma
    #[arg(long, default_value_t = 3.0, allow_negative_numbers = true)]
    limit: f64,
}

impl Shewhart {
    pub fn answer(&self, stdin: &mut dyn Read) -> Result<Value, Fault> {
        // This also checks the limit.
        shewhart::arl(self.limit, 0.0).map_err(fault)?;
        let z = self.scale.standardise(&input::series(stdin)?)?;
        let alarms: Vec<usize> = (1..)
            .zip(&z)
            .filter(|(_, z)| shewhart::signal(**z, self.limit).is_some())
            .map(|(index, _)| index)
            .collect();
        Ok(json!({ "z": z, "first_alarm": alarms.first(), "alarms": alarms }))
    }
}

#[derive(Args)]
pub struct WesternElectric {
    #[command(flatten)]
    scale: Scale,
}

impl WesternElectric {
    pub fn answer(&self, stdin: &mut dyn Read) -> Result<Value, Fault> {
        let z = self.scale.standardise(&input::series(stdin)?)?;
        let rules: Vec<_> = (1..=z.len()).map(|last| western_electric::rules(&z[..last])).collect();
        Ok(json!({ "z": z, "rules": rules }))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Chart {
    Cusum,
    Ewma,
    Shewhart,
}

#[derive(Args)]
pub struct Arl {
    /// Which chart
    #[arg(long)]
    chart: Chart,
    /// CUSUM: reference value, sigma
    #[arg(long, allow_negative_numbers = true)]
    k: Option<f64>,
    /// CUSUM: decision limit, sigma
    #[arg(long, allow_negative_numbers = true)]
    h: Option<f64>,
    /// CUSUM: fast initial response
    #[arg(long)]
    fir: bool,
    /// EWMA: weight of the newest value
    #[arg(long, allow_negative_numbers = true)]
    lambda: Option<f64>,
    /// EWMA, Shewhart: limit
    #[arg(long, allow_negative_numbers = true)]
    limit: Option<f64>,
    /// EWMA: time-varying limits instead of the asymptotic ones
    #[arg(long)]
    varying: bool,
    /// How far the mean is off from the first point on, sigma
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    shift: f64,
    /// Instead of a shift: how far the mean moves from each point to the next, sigma
    #[arg(long, allow_negative_numbers = true, conflicts_with = "shift")]
    drift: Option<f64>,
}

impl Arl {
    pub fn answer(&self) -> Result<Value, Fault> {
        let needed = |flag: Option<f64>, name: &str| flag.ok_or_else(|| format!("--{name} is missing for this chart"));
        let limits = if self.varying { EwmaLimits::TimeVarying } else { EwmaLimits::Fixed };
        let given = [
            ("k", self.k.is_some()),
            ("h", self.h.is_some()),
            ("fir", self.fir),
            ("lambda", self.lambda.is_some()),
            ("limit", self.limit.is_some()),
            ("varying", self.varying),
        ];
        let arl = match self.chart {
            Chart::Cusum => {
                refuse(&given[3..], "the CUSUM")?;
                let design = cusum::Design { k: needed(self.k, "k")?, h: needed(self.h, "h")?, fast_start: self.fir };
                match self.drift {
                    None => arl::cusum(&design, self.shift),
                    Some(drift) => arl::cusum_drift(&design, drift),
                }
            }
            Chart::Ewma => {
                refuse(&given[..3], "the EWMA")?;
                let design =
                    ewma::Design { lambda: needed(self.lambda, "lambda")?, limit: needed(self.limit, "limit")? };
                match self.drift {
                    None => arl::ewma(&design, limits, self.shift),
                    Some(drift) => arl::ewma_drift(&design, limits, drift),
                }
            }
            Chart::Shewhart => {
                refuse(&given[..4], "the Shewhart chart")?;
                refuse(&given[5..], "the Shewhart chart")?;
                if self.drift.is_some() {
                    return Err("--drift is not for the Shewhart chart".into());
                }
                shewhart::arl(needed(self.limit, "limit")?, self.shift)
            }
        };
        Ok(json!({ "arl": arl.map_err(fault)? }))
    }
}

/// Returns a fault if a flag of another chart was given.
fn refuse(flags: &[(&str, bool)], chart: &str) -> Result<(), Fault> {
    match flags.iter().find(|(_, given)| *given) {
        Some((flag, _)) => Err(format!("--{flag} is not for {chart}")),
        None => Ok(()),
    }
}

#[derive(Args)]
pub struct Threshold {
    /// Which chart
    #[arg(long)]
    chart: Chart,
    /// Average run length in control
    #[arg(long, allow_negative_numbers = true)]
    arl: f64,
    /// CUSUM: reference value, sigma [default: 0.5]
    #[arg(long, allow_negative_numbers = true)]
    k: Option<f64>,
    /// CUSUM: fast initial response
    #[arg(long)]
    fir: bool,
    /// EWMA: weight of the newest value [default: 0.1]
    #[arg(long, allow_negative_numbers = true)]
    lambda: Option<f64>,
    /// EWMA: time-varying limits instead of the asymptotic ones
    #[arg(long)]
    varying: bool,
}

impl Threshold {
    pub fn answer(&self) -> Result<Value, Fault> {
        let limits = if self.varying { EwmaLimits::TimeVarying } else { EwmaLimits::Fixed };
        let of_cusum = [("k", self.k.is_some()), ("fir", self.fir)];
        let of_ewma = [("lambda", self.lambda.is_some()), ("varying", self.varying)];
        match self.chart {
            Chart::Cusum => {
                refuse(&of_ewma, "the CUSUM")?;
                let h = arl::cusum_threshold(self.k.unwrap_or(0.5), self.fir, self.arl).map_err(fault)?;
                Ok(json!({ "h": h }))
            }
            Chart::Ewma => {
                refuse(&of_cusum, "the EWMA")?;
                let limit = arl::ewma_threshold(self.lambda.unwrap_or(0.1), limits, self.arl).map_err(fault)?;
                Ok(json!({ "limit": limit }))
            }
            Chart::Shewhart => {
                refuse(&of_cusum, "the Shewhart chart")?;
                refuse(&of_ewma, "the Shewhart chart")?;
                Ok(json!({ "limit": shewhart::threshold(self.arl).map_err(fault)? }))
            }
        }
    }
}

#[derive(Args)]
pub struct Budget {
    /// False alarms allowed for a device in a year
    #[arg(long, allow_negative_numbers = true)]
    false_alarms: f64,
    /// Points (sessions) a day in each stream
    #[arg(long, allow_negative_numbers = true)]
    points_per_day: f64,
    /// Channels that are charted
    #[arg(long, default_value_t = 1)]
    channels: u32,
    /// Set-point bands of each channel
    #[arg(long, default_value_t = 1)]
    bands: u32,
    /// Forecast alarms for each false alarm of a drift chart: at most 1
    #[arg(long, default_value_t = budget::Shares::default().forecasts, allow_negative_numbers = true)]
    forecasts: f64,
    /// CUSUM: reference value, sigma
    #[arg(long, default_value_t = 0.5, allow_negative_numbers = true)]
    k: f64,
    /// CUSUM: fast initial response
    #[arg(long)]
    fir: bool,
    /// EWMA: weight of the newest value
    #[arg(long, default_value_t = 0.1, allow_negative_numbers = true)]
    lambda: f64,
}

impl Budget {
    pub fn answer(&self) -> Result<Value, Fault> {
        let budget = budget::Budget {
            false_alarms: self.false_alarms,
            points_per_day: self.points_per_day,
            channels: self.channels,
            bands: self.bands,
            shares: budget::Shares { forecasts: self.forecasts, ..budget::Shares::default() },
        };
        let lengths = budget.run_lengths().map_err(fault)?;
        let thresholds = budget.thresholds(self.k, self.fir, self.lambda).map_err(fault)?;
        Ok(json!({
            "cusum": { "arl": lengths.cusum, "h": thresholds.cusum.map(|design| design.h) },
            "ewma": { "arl": lengths.ewma, "limit": thresholds.ewma.map(|design| design.limit) },
            "spike": { "arl": lengths.spike, "limit": thresholds.spike },
        }))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CentreName {
    Zero,
    AsLeft,
    PhaseI,
}

#[derive(Args)]
pub struct Standardise {
    /// What deviations are measured from
    #[arg(long, default_value = "phase-i")]
    centre: CentreName,
    /// The error that the calibration left, percent
    #[arg(long, allow_negative_numbers = true, required_if_eq("centre", "as-left"))]
    as_left: Option<f64>,
    /// Standard deviation between sessions, percent
    #[arg(long, allow_negative_numbers = true)]
    between: f64,
    /// Standard deviation between shots, percent
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    within: f64,
    /// Take only the ratio of both as known, and the scale from the device itself
    #[arg(long)]
    self_starting: bool,
    /// Values beyond this many sigma are not let into the estimates
    #[arg(long, default_value_t = 4.0, allow_negative_numbers = true)]
    outlier: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionMeans {
    error_pct: Vec<f64>,
    shots: Vec<u64>,
}

impl Standardise {
    pub fn answer(&self, stdin: &mut dyn Read) -> Result<Value, Fault> {
        let SessionMeans { error_pct, shots } = input::read(stdin)?;
        if error_pct.len() != shots.len() {
            let (left, right) = (error_pct.len(), shots.len());
            return Err(format!("error_pct has {left} values and shots has {right}; they must be as many"));
        }
        let centre = match self.centre {
            CentreName::Zero => Centre::Zero,
            CentreName::AsLeft => Centre::AsLeft(self.as_left.unwrap_or_default()),
            CentreName::PhaseI => Centre::PhaseI,
        };
        let source = if self.self_starting { Source::SelfStarting } else { Source::Pooled };
        let spread = Spread { between: self.between, within: self.within, source };
        let mut standardiser = Standardiser::new(centre, spread, self.outlier).map_err(fault)?;
        let z = error_pct
            .iter()
            .zip(shots)
            .map(|(error, shots)| standardiser.add(*error, shots).map_err(fault))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(json!({ "z": z }))
    }
}

#[derive(Args)]
pub struct Regression {
    /// Limit whose crossing is asked for
    #[arg(long, allow_negative_numbers = true)]
    limit: Option<f64>,
    /// Confidence of the crossing's interval
    #[arg(long, default_value_t = 0.95, allow_negative_numbers = true)]
    confidence: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Points {
    t: Vec<f64>,
    y: Vec<f64>,
}

impl Regression {
    pub fn answer(&self, stdin: &mut dyn Read) -> Result<Value, Fault> {
        let Points { t, y } = input::read(stdin)?;
        let fit = Fit::of(&t, &y).map_err(fault)?;
        let g = fit.g(self.confidence).map_err(fault)?;
        let crossing = match self.limit {
            Some(limit) => fit.crossing(limit, self.confidence).map_err(fault)?,
            None => None,
        };
        Ok(json!({
            "slope": fit.slope,
            "intercept": fit.intercept,
            "se_slope": fit.se_slope,
            "se_intercept": fit.se_intercept,
            "residual_sd": fit.residual_sd,
            "crossing": crossing.map(|crossing| crossing.at),
            "crossing_interval": crossing.map(|crossing| [crossing.low, crossing.high]),
            "g": g,
        }))
    }
}

#[derive(Args)]
pub struct Forecast {
    /// Tolerance, percent: the limits are plus and minus this
    #[arg(long, default_value_t = 5.0, allow_negative_numbers = true)]
    tolerance: f64,
    /// Confidence of the interval
    #[arg(long, default_value_t = 0.95, allow_negative_numbers = true)]
    confidence: f64,
    /// Alarm while the lower bound is less than this many days ahead
    #[arg(long, default_value_t = 30.0, allow_negative_numbers = true)]
    horizon_days: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Days {
    t_days: Vec<f64>,
    error_pct: Vec<f64>,
}

impl Forecast {
    pub fn answer(&self, stdin: &mut dyn Read) -> Result<Value, Fault> {
        let Days { t_days, error_pct } = input::read(stdin)?;
        let rule = forecast::Rule {
            confidence: self.confidence,
            horizon_days: self.horizon_days,
            ..forecast::Rule::default()
        };
        let forecast = forecast::forecast(&t_days, &error_pct, self.tolerance, true, &rule).map_err(fault)?;
        Ok(match forecast {
            forecast::Forecast::NotSignalled => json!({ "state": "not-signalled" }),
            forecast::Forecast::TooShort => json!({ "state": "too-short" }),
            forecast::Forecast::NoSlope { g } => json!({ "state": "no-slope", "g": g }),
            forecast::Forecast::Crossing { limit, at, alarm } => json!({
                "state": "crossing", "limit": limit, "crossing": at.at, "crossing_interval": [at.low, at.high],
                "alarm": alarm,
            }),
        })
    }
}
