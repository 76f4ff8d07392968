//! When a drifting device will be out of tolerance.
//!
//! The forecast is a regression of the session means on the days since calibration. It gives the
//! time at which the line crosses the limit, with Fieller's interval. If it were made daily from
//! the start, half of all healthy devices would get one within a year. So a forecast needs a signal
//! of a drift chart, at least 14 days and 20 sessions, and a slope that differs from zero (g < 1).
//! The lower bound raises the alarm.

use crate::{
    error::{Result, fraction, positive, rising, same_length},
    regression::{Crossing, Fit},
};

/// Conditions for a forecast and for its alarm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Days that the sessions must span, from the first to the last.
    pub days_min: f64,
    /// Least number of sessions.
    pub sessions_min: u64,
    /// Confidence of the two-sided interval.
    pub confidence: f64,
    /// The alarm is raised while the lower bound is less than this many days ahead.
    pub horizon_days: f64,
}

impl Default for Rule {
    /// 14 days, 20 sessions, 95 %, 30 days ahead.
    fn default() -> Self {
        Self { days_min: 14.0, sessions_min: 20, confidence: 0.95, horizon_days: 30.0 }
    }
}

/// A forecast, or why there is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Forecast {
    /// No drift chart has signalled since the calibration.
    NotSignalled,
    /// Not enough sessions, or over too few days.
    TooShort,
    /// The slope does not differ from zero: g >= 1.
    NoSlope {
        /// Fieller's g, which is at least 1 here.
        g: f64,
    },
    /// The line crosses the limit that it moves towards.
    Crossing {
        /// That limit, percent: plus or minus the tolerance.
        limit: f64,
        /// Time of the crossing with its interval, days since calibration.
        at: Crossing,
        /// Whether the lower bound is within the horizon.
        alarm: bool,
    },
}

/// Forecasts when the error reaches +-`tolerance` percent, from session means (`errors`, percent)
/// at `days` since calibration, as of the last session.
///
/// # Errors
/// Series of different length, days that do not rise, numbers that are not finite, a rule out of
/// range.
pub fn forecast(days: &[f64], errors: &[f64], tolerance: f64, signalled: bool, rule: &Rule) -> Result<Forecast> {
    same_length("days", days.len(), "errors", errors.len())?;
    rising("days", days)?;
    positive("tolerance", tolerance)?;
    fraction("confidence", rule.confidence)?;
    if !signalled {
        return Ok(Forecast::NotSignalled);
    }
    let (Some(first), Some(last)) = (days.first(), days.last()) else {
        return Ok(Forecast::TooShort);
    };
    let enough = days.len() as u64 >= rule.sessions_min.max(3);
    if !enough || last - first < rule.days_min {
        return Ok(Forecast::TooShort);
    }
    let fit = Fit::of(days, errors)?;
    let limit = tolerance.copysign(fit.slope);
    Ok(match fit.crossing(limit, rule.confidence)? {
        None => Forecast::NoSlope { g: fit.g(rule.confidence)? },
        Some(at) => Forecast::Crossing { limit, at, alarm: at.low < last + rule.horizon_days },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of this slope a day with a small ripple on it.
    fn series(count: usize, slope: f64) -> (Vec<f64>, Vec<f64>) {
        let days: Vec<f64> = (0..count).map(|i| i as f64).collect();
        let errors = days.iter().map(|day| slope * day + 0.1 * (day * 2.4).sin()).collect();
        (days, errors)
    }

    fn ask(count: usize, slope: f64, signalled: bool) -> Forecast {
        let (days, errors) = series(count, slope);
        forecast(&days, &errors, 5.0, signalled, &Rule::default()).unwrap()
    }

    #[test]
    fn each_condition_is_asked() {
        assert_eq!(ask(40, 0.05, false), Forecast::NotSignalled);
        assert_eq!(ask(19, 0.05, true), Forecast::TooShort);
        assert!(matches!(ask(40, 0.0, true), Forecast::NoSlope { g } if g >= 1.0));
        let (days, errors) = series(40, 0.05);
        let hours: Vec<f64> = days.iter().map(|day| day / 24.0).collect();
        assert_eq!(forecast(&hours, &errors, 5.0, true, &Rule::default()), Ok(Forecast::TooShort));
        assert_eq!(forecast(&[], &[], 5.0, true, &Rule::default()), Ok(Forecast::TooShort));
    }

    #[test]
    fn the_limit_is_the_one_ahead() {
        for slope in [0.05, -0.05] {
            let Forecast::Crossing { limit, at, alarm } = ask(40, slope, true) else { panic!("no crossing") };
            assert_eq!(limit, 5.0 * slope.signum());
            assert!(at.low < at.at && at.at < at.high && (at.at - 100.0).abs() < 5.0, "{at:?}");
            assert!(!alarm);
        }
        let Forecast::Crossing { alarm, .. } = ask(75, 0.05, true) else { panic!("no crossing") };
        assert!(alarm);
    }

    #[test]
    fn times_must_rise() {
        assert!(forecast(&[1.0, 1.0], &[0.0, 0.0], 5.0, true, &Rule::default()).is_err());
        assert!(forecast(&[1.0], &[0.0, 0.0], 5.0, true, &Rule::default()).is_err());
    }
}
