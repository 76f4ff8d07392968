//! Average run lengths: the mean number of points until a chart signals, in control and after a
//! change.
//!
//! A run length is the solution of an integral equation (Page 1954, Crowder 1987), discretised by
//! Gauss-Legendre. For a drifting mean, and for limits that vary in time, the density of the
//! chart's state is followed from point to point instead. All run lengths are in units of sigma,
//! two-sided, for normal values.
//!
//! A threshold is the inverse: the limit that gives a wanted run length in control.

mod cusum;
mod ewma;

pub use cusum::{cusum, cusum_drift, cusum_threshold};
pub use ewma::{EwmaLimits, ewma, ewma_drift, ewma_threshold};

use crate::error::{Error, Result, require};

/// Longer run lengths are refused: the equations are then too ill-conditioned for floating point.
pub const ARL_MAX: f64 = 1e12;

/// The slowest drift, sigma a point, whose run length is computed point by point.
pub const DRIFT_MIN: f64 = 1e-4;

/// A survival probability below this adds nothing to a run length.
const SURVIVAL_MIN: f64 = 1e-12;

/// Largest number of points over which a run is followed.
const POINTS_MAX: u64 = 1_000_000;

fn plausible(arl: f64) -> Result<f64> {
    if (1.0..=ARL_MAX).contains(&arl) { Ok(arl) } else { Err(beyond()) }
}

fn beyond() -> Error {
    Error::Unsolvable(format!("the run length is beyond {ARL_MAX:e} points, which cannot be computed"))
}

fn check_target(arl: f64) -> Result<f64> {
    require("arl", arl, arl > 1.0 && arl <= 1e10, "above 1 and at most 1e10")
}

fn check_drift(drift: f64) -> Result<f64> {
    require("drift", drift, drift.is_finite() && drift.abs() >= DRIFT_MIN, "finite and at least 0.0001 sigma a point")
}
