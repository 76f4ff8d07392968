//! Straight lines by least squares, and their crossing with a limit.

use crate::{
    error::{Result, all_finite, at_least, finite, fraction, require, same_length},
    special::student_upper_quantile,
};

/// A fitted line y = intercept + slope t.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// Number of points.
    pub n: u64,
    /// Change of y for a unit of t.
    pub slope: f64,
    /// Value at t = 0.
    pub intercept: f64,
    /// Standard error of the slope.
    pub se_slope: f64,
    /// Standard error of the intercept.
    pub se_intercept: f64,
    /// Standard deviation of the residuals, with divisor n - 2.
    pub residual_sd: f64,
    /// Mean of all t.
    pub t_mean: f64,
    /// Mean of all y.
    pub y_mean: f64,
    /// Sum of the squared deviations of t from its mean.
    pub sxx: f64,
}

impl Fit {
    /// Fits the line.
    ///
    /// # Errors
    /// Fewer than 3 points, series of different length, values that are not finite, all t the same.
    pub fn of(t: &[f64], y: &[f64]) -> Result<Self> {
        same_length("t", t.len(), "y", y.len())?;
        all_finite("t", t)?;
        all_finite("y", y)?;
        at_least("t", t.len(), 3)?;
        let n = t.len() as f64;
        let t_mean = mean(t);
        let y_mean = mean(y);
        let deviations = || t.iter().zip(y).map(|(t, y)| (t - t_mean, y - y_mean));
        let sxx = sum(deviations().map(|(t, _)| t * t));
        require("spread of t", sxx, sxx > 0.0 && sxx.is_finite(), "above 0: the points must not share one t")?;
        let slope = sum(deviations().map(|(t, y)| t * y)) / sxx;
        let squares = sum(deviations().map(|(t, y)| (y - slope * t).powi(2)));
        let residual_sd = (squares / (n - 2.0)).sqrt();
        finite("residual standard deviation", residual_sd)?;
        let se_slope = residual_sd / sxx.sqrt();
        let se_intercept = residual_sd * (1.0 / n + t_mean * t_mean / sxx).sqrt();
        let intercept = y_mean - slope * t_mean;
        Ok(Self { n: t.len() as u64, slope, intercept, se_slope, se_intercept, residual_sd, t_mean, y_mean, sxx })
    }

    /// g = (t s / slope)^2 / Sxx, t the two-sided quantile of Student's distribution; infinite for
    /// a slope of 0. At 1 and above, the slope does not differ from zero, and a crossing has no
    /// interval.
    ///
    /// # Errors
    /// Confidence not between 0 and 1.
    pub fn g(&self, confidence: f64) -> Result<f64> {
        let ratio = self.quantile(confidence)? * self.se_slope / self.slope;
        Ok(if self.slope == 0.0 { f64::INFINITY } else { ratio * ratio })
    }

    /// The t at which the line crosses `limit`, with its interval (Fieller 1954): every t at which
    /// the true line may be at the limit. `None` while g >= 1.
    ///
    /// # Errors
    /// A limit that is not finite, confidence not between 0 and 1.
    pub fn crossing(&self, limit: f64, confidence: f64) -> Result<Option<Crossing>> {
        finite("limit", limit)?;
        let g = self.g(confidence)?;
        if g >= 1.0 {
            return Ok(None);
        }
        let quantile = self.quantile(confidence)?;
        let distance = (limit - self.y_mean) / self.slope;
        let spread = (quantile * self.residual_sd / self.slope).abs()
            * ((1.0 - g) / self.n as f64 + distance * distance / self.sxx).sqrt();
        let at = |distance: f64| self.t_mean + distance;
        Ok(Some(Crossing {
            at: at(distance),
            low: at((distance - spread) / (1.0 - g)),
            high: at((distance + spread) / (1.0 - g)),
        }))
    }

    fn quantile(&self, confidence: f64) -> Result<f64> {
        fraction("confidence", confidence)?;
        Ok(student_upper_quantile(0.5 * (1.0 - confidence), (self.n - 2) as f64))
    }
}

/// The t at which a line crosses a limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crossing {
    /// Crossing of the fitted line.
    pub at: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// The mean, corrected by the mean of the residuals, so that the residuals sum to 0.
fn mean(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let first = sum(values.iter().copied()) / n;
    first + sum(values.iter().map(|value| value - first)) / n
}

/// A compensated sum (Neumaier 1974).
fn sum(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, rest) = values.fold((0.0f64, 0.0f64), |(sum, rest), value| {
        let next = sum + value;
        let lost = if sum.abs() >= value.abs() { (sum - next) + value } else { (value - next) + sum };
        (next, rest + lost)
    });
    sum + rest
}
