//! Exponentially weighted moving average with time-varying limits (Roberts 1959; Lucas & Saccucci
//! 1990), to detect slow drift.
//!
//! z_i = lambda x_i + (1 - lambda) z_(i-1), z_0 = 0, for standardised x. Its standard deviation
//! after i points is sqrt(lambda / (2 - lambda) (1 - (1 - lambda)^(2i))). Early limits are
//! therefore narrower, which also detects an early shift.

use crate::{
    Side,
    error::{Result, positive, require},
};

/// An EWMA's parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Design {
    /// Weight of the newest value, above 0 and at most 1.
    pub lambda: f64,
    /// Limit, in standard deviations of the average.
    pub limit: f64,
}

impl Design {
    /// Checks the ranges.
    ///
    /// # Errors
    /// lambda outside (0, 1], a limit that is not above 0.
    pub fn check(&self) -> Result<()> {
        require("lambda", self.lambda, self.lambda > 0.0 && self.lambda <= 1.0, "above 0 and at most 1")?;
        positive("limit", self.limit)?;
        Ok(())
    }

    /// Standard deviation of the average after many points, in sigma.
    pub fn spread(&self) -> f64 {
        (self.lambda / (2.0 - self.lambda)).sqrt()
    }

    /// The limit on the average after `points` points, in sigma.
    pub fn bound(&self, points: u64) -> f64 {
        let kept = 2.0 * points as f64 * (-self.lambda).ln_1p();
        self.limit * self.spread() * (-kept.exp_m1()).sqrt()
    }
}

/// The average after a point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The average, sigma.
    pub average: f64,
    /// The limit on the average, sigma.
    pub bound: f64,
    /// The side on which the average is beyond the limit.
    pub signal: Option<Side>,
}

/// A chart to which values are added one by one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ewma {
    design: Design,
    n: u64,
    average: f64,
}

impl Ewma {
    /// A chart before its first point.
    pub fn new(design: Design) -> Self {
        Self { design, n: 0, average: 0.0 }
    }

    /// Adds a standardised value. The average continues after a signal.
    pub fn add(&mut self, z: f64) -> Point {
        self.n += 1;
        self.average += self.design.lambda * (z - self.average);
        let bound = self.design.bound(self.n);
        Point { average: self.average, bound, signal: crate::shewhart::signal(self.average, bound) }
    }

    /// Starts again, with the narrow early limits.
    pub fn restart(&mut self) {
        *self = Self::new(self.design);
    }
}

/// The chart of a whole series of standardised values.
pub fn chart(design: Design, values: impl IntoIterator<Item = f64>) -> Vec<Point> {
    let mut ewma = Ewma::new(design);
    values.into_iter().map(|z| ewma.add(z)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NIST/SEMATECH e-Handbook 6.3.2.4: target 50, sigma 2.0539, lambda 0.3, with the averages
    /// printed there. Its limits are the fixed ones, 50 +- 3 x 0.4201 x 2.0539, to which the
    /// time-varying limits tend.
    #[test]
    fn nist_handbook() {
        let x = [
            52.0, 47.0, 53.0, 49.3, 50.1, 47.0, 51.0, 50.1, 51.2, 50.5, 49.6, 47.6, 49.9, 51.3, 47.8, 51.2, 52.6, 52.4,
            53.6, 52.1,
        ];
        let printed = [
            50.60, 49.52, 50.56, 50.18, 50.16, 49.21, 49.75, 49.85, 50.26, 50.33, 50.11, 49.36, 49.52, 50.05, 49.38,
            49.92, 50.73, 51.23, 51.94, 51.99,
        ];
        let points = chart(Design { lambda: 0.3, limit: 3.0 }, x.map(|x| (x - 50.0) / 2.0539));
        for (point, printed) in points.iter().zip(printed) {
            assert!((50.0 + 2.0539 * point.average - printed).abs() < 0.0051, "{point:?} {printed}");
            assert_eq!(point.signal, None);
        }
        let width = 2.0539 * points[19].bound;
        assert!((50.0 + width - 52.5884).abs() < 1e-3, "{width}");
    }

    #[test]
    fn early_limits_are_narrow() {
        let design = Design { lambda: 0.1, limit: 2.814 };
        assert!((design.bound(1) - 0.2814).abs() < 1e-12);
        assert!(design.bound(2) > design.bound(1) && design.bound(1000) <= design.limit * design.spread());
        assert_eq!(chart(design, [3.0])[0].signal, Some(Side::Upper));
        assert_eq!(chart(design, [-3.0])[0].signal, Some(Side::Lower));
        assert_eq!(Design { lambda: 1.0, limit: 3.0 }.bound(1), 3.0);
        assert!(Design { lambda: 0.0, limit: 3.0 }.check().is_err());
    }
}
