//! The charts of one device, channel and set-point band since its last calibration: what the
//! session means say about drift.
//!
//! A chart's state depends only on its sessions in their order, so it can be rebuilt from them. The
//! caller starts a new [`Chart`] where the device became another one: the monitor does so for each
//! calibration and firmware that injections name.

use crate::{
    Side, cusum,
    error::Result,
    ewma, shewhart,
    standard::{Centre, Spread, Standardiser},
};

/// Parameters of the three charts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// What deviations are measured from.
    pub centre: Centre,
    /// In-control variation of the session means.
    pub spread: Spread,
    /// CUSUM for slow drift.
    pub cusum: cusum::Design,
    /// EWMA for slow drift.
    pub ewma: ewma::Design,
    /// Limit of a single session, sigma.
    pub spike: f64,
}

/// What one session added.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Number of the session since the calibration, from 1.
    pub session: u64,
    /// Its standardised mean; `None` for the first session or two, if centre or scale come from the
    /// device itself.
    pub z: Option<f64>,
    /// The sums; `None` without a standardised mean. Their onset counts sessions since the
    /// calibration.
    pub cusum: Option<cusum::Point>,
    /// The average; `None` without a standardised mean.
    pub ewma: Option<ewma::Point>,
    /// The side of a spike, if the session is one.
    pub spike: Option<Side>,
}

impl Point {
    /// The side on which a drift chart signals.
    pub fn drift(&self) -> Option<Side> {
        let cusum = self.cusum.and_then(|point| point.signal);
        cusum.or(self.ewma.and_then(|point| point.signal))
    }
}

/// The first signal of a drift chart since the calibration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drift {
    /// The side on which the session means moved away.
    pub side: Side,
    /// The session at which it signalled, from 1.
    pub session: u64,
    /// The last session before the change by the CUSUM's estimate, 0 if the first session was
    /// already changed. `None` if the EWMA signalled first.
    pub onset: Option<u64>,
}

/// CUSUM, EWMA and spike limit over the same standardised session means.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    spike: f64,
    standardiser: Standardiser,
    cusum: cusum::Cusum,
    ewma: ewma::Ewma,
    sessions: u64,
    /// Number of sessions that gave no standardised mean.
    silent: u64,
    drift: Option<Drift>,
}

impl Chart {
    /// Charts before the first session after a calibration.
    ///
    /// # Errors
    /// Settings out of range.
    pub fn new(settings: &Settings) -> Result<Self> {
        settings.cusum.check()?;
        settings.ewma.check()?;
        crate::error::positive("spike limit", settings.spike)?;
        Ok(Self {
            spike: settings.spike,
            standardiser: Standardiser::new(settings.centre, settings.spread, settings.spike)?,
            cusum: cusum::Cusum::new(settings.cusum),
            ewma: ewma::Ewma::new(settings.ewma),
            sessions: 0,
            silent: 0,
            drift: None,
        })
    }

    /// Adds a session: its error in percent and its number of shots. A drift chart that signals
    /// starts again, so its next signal is a new one. The estimates of centre and scale continue.
    ///
    /// # Errors
    /// An error that is not finite, a session without shots.
    pub fn add(&mut self, error_percent: f64, shots: u64) -> Result<Point> {
        let z = self.standardiser.add(error_percent, shots)?;
        self.sessions += 1;
        let Some(z) = z else {
            self.silent += 1;
            return Ok(Point { session: self.sessions, z, cusum: None, ewma: None, spike: None });
        };
        let mut cusum = self.cusum.add(z);
        // Before the first standardised mean, an onset cannot be distinguished from one at the
        // start.
        cusum.onset = cusum.onset.map(|onset| if onset == 0 { 0 } else { onset + self.silent });
        let ewma = self.ewma.add(z);
        if cusum.signal.is_some() {
            self.cusum.restart();
        }
        if ewma.signal.is_some() {
            self.ewma.restart();
        }
        let spike = shewhart::signal(z, self.spike);
        let point = Point { session: self.sessions, z: Some(z), cusum: Some(cusum), ewma: Some(ewma), spike };
        if let (None, Some(side)) = (self.drift, point.drift()) {
            self.drift = Some(Drift { side, session: self.sessions, onset: cusum.onset });
        }
        Ok(point)
    }

    /// The first signal of a drift chart since the calibration. Forecasts begin with it.
    pub fn drift(&self) -> Option<Drift> {
        self.drift
    }

    /// Number of sessions since the calibration.
    pub fn sessions(&self) -> u64 {
        self.sessions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::standard::Source;

    fn settings(centre: Centre) -> Settings {
        Settings {
            centre,
            spread: Spread { between: 1.0, within: 0.0, source: Source::Pooled },
            cusum: cusum::Design { k: 0.5, h: 5.0, fast_start: false },
            ewma: ewma::Design { lambda: 0.1, limit: 3.0 },
            spike: 4.0,
        }
    }

    #[test]
    fn a_shift_is_found_and_dated() {
        let mut chart = Chart::new(&settings(Centre::Zero)).unwrap();
        let series = [0.0, -0.3, 0.2, 0.0, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5];
        let points: Vec<Point> = series.iter().map(|x| chart.add(*x, 30).unwrap()).collect();
        let cusum_signal = points.iter().find_map(|point| point.cusum?.signal.map(|side| (point.session, side)));
        assert_eq!(cusum_signal, Some((10, Side::Upper)));
        assert_eq!(points[9].cusum.unwrap().onset, Some(4));
        // The chart starts again after its signal.
        assert_eq!(points[10].cusum.unwrap().upper, 1.0);
        let drift = chart.drift().unwrap();
        assert!(drift.side == Side::Upper && drift.session <= 10);
    }

    #[test]
    fn a_spike_is_no_drift() {
        let mut chart = Chart::new(&settings(Centre::Zero)).unwrap();
        let point = chart.add(-4.5, 30).unwrap();
        assert_eq!((point.spike, point.cusum.unwrap().signal), (Some(Side::Lower), None));
    }

    #[test]
    fn without_a_centre_the_first_session_says_nothing() {
        let mut chart = Chart::new(&settings(Centre::PhaseI)).unwrap();
        assert_eq!(chart.add(3.0, 30).unwrap().z, None);
        assert!(chart.add(3.0, 30).unwrap().z.is_some());
        assert!(chart.add(f64::NAN, 30).is_err());
        assert_eq!(chart.sessions(), 2);
    }
}
