//! Tabular cumulative sums on both sides (Page 1954; NIST/SEMATECH e-Handbook 6.3.2.3), to detect
//! slow drift.

use crate::{
    Side,
    error::{Result, not_negative, positive},
};

/// A CUSUM's parameters, in units of sigma.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Design {
    /// Reference value: half of the shift that the chart should detect quickly.
    pub k: f64,
    /// Decision limit: a sum above it signals.
    pub h: f64,
    /// Fast initial response: both sums start at h/2 instead of 0 (Lucas & Crosier 1982).
    pub fast_start: bool,
}

impl Design {
    /// Checks the ranges.
    ///
    /// # Errors
    /// k below 0, h not above 0.
    pub fn check(&self) -> Result<()> {
        not_negative("k", self.k)?;
        positive("h", self.h)?;
        Ok(())
    }

    fn head_start(&self) -> f64 {
        if self.fast_start { 0.5 * self.h } else { 0.0 }
    }
}

/// The sums after a point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Upper sum, sigma.
    pub upper: f64,
    /// Lower sum, sigma, counted positive.
    pub lower: f64,
    /// The side whose sum is above h.
    pub signal: Option<Side>,
    /// The last index (from 1) before a signal's run of nonzero sums; 0 if the run began at the
    /// first point.
    pub onset: Option<u64>,
}

/// A chart to which values are added one by one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cusum {
    design: Design,
    n: u64,
    upper: Sum,
    lower: Sum,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Sum {
    value: f64,
    /// Points since the sum was last 0.
    run: u64,
}

impl Sum {
    fn add(&mut self, excess: f64) {
        self.value = (self.value + excess).max(0.0);
        self.run = if self.value > 0.0 { self.run + 1 } else { 0 };
    }
}

impl Cusum {
    /// A chart before its first point.
    pub fn new(design: Design) -> Self {
        let sum = Sum { value: design.head_start(), run: 0 };
        Self { design, n: 0, upper: sum, lower: sum }
    }

    /// Adds a standardised value. The sums continue after a signal.
    pub fn add(&mut self, z: f64) -> Point {
        self.n += 1;
        self.upper.add(z - self.design.k);
        self.lower.add(-z - self.design.k);
        let (signal, onset) = if self.upper.value > self.design.h {
            (Some(Side::Upper), Some(self.n - self.upper.run))
        } else if self.lower.value > self.design.h {
            (Some(Side::Lower), Some(self.n - self.lower.run))
        } else {
            (None, None)
        };
        Point { upper: self.upper.value, lower: self.lower.value, signal, onset }
    }

    /// Starts the sums again, with the head start if there is one. The count of points continues.
    pub fn restart(&mut self) {
        let sum = Sum { value: self.design.head_start(), run: 0 };
        (self.upper, self.lower) = (sum, sum);
    }
}

/// The chart of a whole series of standardised values.
pub fn chart(design: Design, values: impl IntoIterator<Item = f64>) -> Vec<Point> {
    let mut cusum = Cusum::new(design);
    values.into_iter().map(|z| cusum.add(z)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn design(fast_start: bool) -> Design {
        Design { k: 0.5, h: 4.0, fast_start }
    }

    #[test]
    fn onset_is_where_the_run_began() {
        let points = chart(design(false), [0.0, 2.0, 0.0, 2.0, 2.0, 2.0]);
        assert_eq!(points.iter().map(|point| point.upper).collect::<Vec<_>>(), [0.0, 1.5, 1.0, 2.5, 4.0, 5.5]);
        assert_eq!((points[4].signal, points[5].signal, points[5].onset), (None, Some(Side::Upper), Some(1)));
        let at_once = chart(design(false), [-3.0, -3.0]);
        assert_eq!((at_once[1].lower, at_once[1].signal, at_once[1].onset), (5.0, Some(Side::Lower), Some(0)));
    }

    #[test]
    fn a_head_start_signals_earlier_and_wears_off() {
        let shifted = [1.5; 8];
        let first = |fast| chart(design(fast), shifted).iter().position(|point| point.signal.is_some());
        assert_eq!((first(false), first(true)), (Some(4), Some(2)));
        let quiet = chart(design(true), [0.0; 5]);
        assert_eq!(quiet.iter().map(|point| point.upper).collect::<Vec<_>>(), [1.5, 1.0, 0.5, 0.0, 0.0]);
    }

    #[test]
    fn restarting_forgets_the_sums() {
        let mut cusum = Cusum::new(design(false));
        cusum.add(4.0);
        cusum.restart();
        assert_eq!(cusum.add(4.0).upper, 3.5);
        assert_eq!(cusum.add(4.0).onset, Some(1));
    }
}
