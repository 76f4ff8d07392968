//! Standardisation of session means. A chart that was solved for normal values with known
//! parameters keeps its run length, although the parameters are unknown.
//!
//! A session mean of n shots varies by v = between^2 + within^2 / n around the device's centre.
//! Charts that use estimates as centre and sigma signal far too often. With estimates from 20
//! sessions, a chart solved for 10,000 points really has about 340. Here each value is compared
//! only with values before it (recursive residuals: Brown, Durbin & Evans 1975; self-starting
//! charts: Hawkins 1987). In control the results are independent and exactly standard normal, from
//! the first one on. This holds for any centre and, with [`Source::SelfStarting`], for any scale.

use crate::{
    error::{Error, Result, finite, not_negative},
    special::{normal_upper_quantile, student_above},
};

/// The value from which deviations are measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Centre {
    /// An error of 0 %.
    Zero,
    /// The error that the calibration left, percent.
    AsLeft(f64),
    /// The mean of the sessions since the calibration, without the current one.
    PhaseI,
}

/// The origin of the scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The spread is known: it is pooled over many devices of the model (see [`pool`]).
    Pooled,
    /// Only the ratio of between and within is known. The scale comes from the device's own
    /// sessions.
    SelfStarting,
}

/// Standard deviations of a session mean, in percent of the target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Standard deviation between sessions.
    pub between: f64,
    /// Standard deviation between the shots of a session.
    pub within: f64,
    /// Whether the scale is known.
    pub source: Source,
}

impl Spread {
    /// The spread of self-starting charts of sessions. The charts find the scale themselves; only
    /// the ratio of the two matters, and only where sessions differ in their number of shots.
    pub const SELF_STARTING: Self = Self { between: 0.5, within: 2.0, source: Source::SelfStarting };

    /// Standard deviation of the mean of `shots` shots.
    pub fn of(&self, shots: u64) -> f64 {
        (self.between * self.between + self.within * self.within / shots.max(1) as f64).sqrt()
    }
}

/// Converts session means into standard normal values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standardiser {
    centre: Centre,
    spread: Spread,
    outlier: f64,
    /// Sum of 1/v, and the mean weighted with 1/v.
    weight: f64,
    mean: f64,
    /// Number and sum of squares of the residuals.
    residuals: u64,
    squares: f64,
}

impl Standardiser {
    /// A standardiser before its first session. The estimates leave out a value beyond `outlier`
    /// sigma, so that one spike does not hide the next.
    ///
    /// # Errors
    /// A negative or infinite spread, no spread at all, a centre that is not finite, an outlier
    /// limit not above 0.
    pub fn new(centre: Centre, spread: Spread, outlier: f64) -> Result<Self> {
        not_negative("sigma between", spread.between)?;
        not_negative("sigma within", spread.within)?;
        crate::error::positive("sigma", spread.of(1))?;
        crate::error::positive("outlier limit", outlier)?;
        if let Centre::AsLeft(error) = centre {
            finite("as-left error", error)?;
        }
        Ok(Self { centre, spread, outlier, weight: 0.0, mean: 0.0, residuals: 0, squares: 0.0 })
    }

    /// The standard normal value of a session mean over `shots` shots. `None` for the sessions that
    /// only estimate the centre (the first) and the scale (the next).
    ///
    /// # Errors
    /// A mean that is not finite, a session without shots.
    pub fn add(&mut self, mean: f64, shots: u64) -> Result<Option<f64>> {
        finite("session mean", mean)?;
        if shots == 0 {
            return Err(Error::Parameter { name: "shots", value: 0.0, right: "at least 1" });
        }
        let variance = self.spread.of(shots).powi(2);
        if variance == 0.0 {
            return Err(Error::Parameter { name: "sigma", value: 0.0, right: "above 0" });
        }
        let Some(residual) = self.residual(mean, variance) else {
            self.learn(mean, variance);
            return Ok(None);
        };
        let z = match self.spread.source {
            Source::Pooled => Some(residual),
            Source::SelfStarting if self.squares == 0.0 => None,
            Source::SelfStarting => Some(normal_from_student(
                residual / (self.squares / self.residuals as f64).sqrt(),
                self.residuals as f64,
            )),
        };
        if z.is_none_or(|z| z.abs() <= self.outlier) {
            self.residuals += 1;
            self.squares += residual * residual;
            self.learn(mean, variance);
        }
        Ok(z)
    }

    /// Deviation from the expected value, divided by its standard deviation up to the unknown
    /// scale.
    fn residual(&self, mean: f64, variance: f64) -> Option<f64> {
        match self.centre {
            Centre::Zero => Some(mean / variance.sqrt()),
            Centre::AsLeft(error) => Some((mean - error) / variance.sqrt()),
            Centre::PhaseI if self.weight == 0.0 => None,
            Centre::PhaseI => Some((mean - self.mean) / (variance + 1.0 / self.weight).sqrt()),
        }
    }

    fn learn(&mut self, mean: f64, variance: f64) {
        self.weight += 1.0 / variance;
        self.mean += (mean - self.mean) / (variance * self.weight);
    }
}

/// The normal value with the same tail probability as this value of Student's distribution.
fn normal_from_student(t: f64, df: f64) -> f64 {
    let tail = student_above(t.abs(), df).max(f64::MIN_POSITIVE);
    normal_upper_quantile(tail).copysign(t)
}

/// One session's contribution to the pooled spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Session {
    /// Mean error, percent.
    pub mean: f64,
    /// Variance within the session, percent^2; `None` for a single shot.
    pub variance: Option<f64>,
    /// Number of shots.
    pub shots: u64,
}

/// The spread over all devices of a model, from the phase I sessions of each. Each device is taken
/// around its own mean, so that differences between devices do not count as noise.
///
/// # Errors
/// No device with 2 sessions, no session with 2 shots.
pub fn pool<'a>(devices: impl IntoIterator<Item = &'a [Session]>) -> Result<Spread> {
    let (mut squares, mut df, mut inverse_shots) = (0.0, 0.0, 0.0);
    let (mut within, mut within_df) = (0.0, 0.0);
    for sessions in devices {
        for session in sessions.iter().filter(|session| session.shots > 1) {
            let session_df = (session.shots - 1) as f64;
            within += session_df * session.variance.unwrap_or(0.0);
            within_df += session_df;
        }
        if sessions.len() > 1 {
            let count = sessions.len() as f64;
            let mean = sessions.iter().map(|session| session.mean).sum::<f64>() / count;
            squares += sessions.iter().map(|session| (session.mean - mean).powi(2)).sum::<f64>();
            df += count - 1.0;
            let inverse = sessions.iter().map(|session| 1.0 / session.shots.max(1) as f64).sum::<f64>();
            inverse_shots += (count - 1.0) * inverse / count;
        }
    }
    if df == 0.0 {
        return Err(Error::TooFew { name: "sessions of a device", have: 1, need: 2 });
    }
    if within_df == 0.0 {
        return Err(Error::TooFew { name: "shots of a session", have: 1, need: 2 });
    }
    let within = within / within_df;
    let between = (squares - within * inverse_shots) / df;
    Ok(Spread { between: between.max(0.0).sqrt(), within: within.sqrt(), source: Source::Pooled })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(source: Source) -> Spread {
        Spread { between: 0.8, within: 2.5, source }
    }

    #[test]
    fn known_centre_and_spread() {
        let mut standardiser = Standardiser::new(Centre::AsLeft(0.3), spread(Source::Pooled), 5.0).unwrap();
        let sigma = (0.64f64 + 6.25 / 30.0).sqrt();
        let z = standardiser.add(1.3, 30).unwrap().unwrap();
        assert!((z - 1.0 / sigma).abs() < 1e-12);
    }

    /// Against the definition: Student's t of a new value against mean and sd of the values before
    /// it.
    #[test]
    fn equal_shots_are_hawkins_statistic() {
        let values = [0.1, 0.5, -0.3, 0.9, 0.2];
        let mut standardiser = Standardiser::new(Centre::PhaseI, spread(Source::SelfStarting), 9.0).unwrap();
        let all: Vec<_> = values.iter().map(|value| standardiser.add(*value, 30).unwrap()).collect();
        assert_eq!(all[..2], [None, None]);
        let before = &values[..4];
        let mean = before.iter().sum::<f64>() / 4.0;
        let sd = (before.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 3.0).sqrt();
        let t = (4.0f64 / 5.0).sqrt() * (values[4] - mean) / sd;
        assert!((all[4].unwrap() - normal_from_student(t, 3.0)).abs() < 1e-9);
    }

    #[test]
    fn the_scale_does_not_matter_where_it_is_the_devices_own() {
        let values = [0.1, 0.5, -0.3, 0.9, 0.2, 1.4];
        let run = |scale: f64, shift: f64| -> Vec<f64> {
            let mut standardiser = Standardiser::new(Centre::PhaseI, spread(Source::SelfStarting), 9.0).unwrap();
            values.iter().filter_map(|value| standardiser.add(scale * value + shift, 20).unwrap()).collect()
        };
        for (one, other) in run(1.0, 0.0).iter().zip(run(7.0, -3.0)) {
            assert!((one - other).abs() < 1e-9);
        }
    }

    #[test]
    fn a_spike_does_not_hide_the_next() {
        let mut standardiser = Standardiser::new(Centre::PhaseI, spread(Source::Pooled), 4.0).unwrap();
        for value in [0.1, -0.2, 0.0, 0.3] {
            standardiser.add(value, 30).unwrap();
        }
        let [first, second] = [20.0, 20.0].map(|value| standardiser.add(value, 30).unwrap().unwrap());
        assert!(first > 15.0 && first == second);
    }

    #[test]
    fn nothing_to_go_by() {
        let none = Spread { between: 0.0, within: 0.0, source: Source::Pooled };
        assert!(Standardiser::new(Centre::Zero, none, 4.0).is_err());
        assert!(Standardiser::new(Centre::AsLeft(f64::NAN), spread(Source::Pooled), 4.0).is_err());
        let mut standardiser = Standardiser::new(Centre::Zero, spread(Source::SelfStarting), 4.0).unwrap();
        assert!(standardiser.add(f64::INFINITY, 3).is_err() && standardiser.add(1.0, 0).is_err());
        // Equal values do not give a scale.
        assert_eq!((standardiser.add(0.0, 3), standardiser.add(0.0, 3)), (Ok(None), Ok(None)));
        assert!(pool([&[] as &[Session]]).is_err());
    }

    #[test]
    fn pooling_takes_each_device_around_its_own_mean() {
        let session = |mean| Session { mean, variance: Some(4.0), shots: 4 };
        let devices = [[session(9.0), session(11.0), session(13.0)], [session(-3.0), session(-1.0), session(1.0)]];
        let spread = pool(devices.iter().map(|sessions| sessions.as_slice())).unwrap();
        // The variance of the means is 4; the shots explain 4/4 of it.
        assert!((spread.between - 3f64.sqrt()).abs() < 1e-12 && spread.within == 2.0);
    }
}
