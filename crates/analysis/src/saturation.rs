//! Saturated steam: whether a temperature belongs to a pressure.
//!
//! `T[K] = 42.6776 - 3892.70 / (ln P[MPa] - 9.48654)`, the three-constant equation for 273.16 to
//! 600 K (Irvine & Liley 1984, recalled). Air in the chamber makes the pressure too high for the
//! temperature.

use crate::error::{Result, finite, positive, require};

/// Largest allowed difference to the measured temperature in the plateau, K. Recalled from EN 285,
/// not read there; a recipe's configuration decides.
pub const DIFFERENCE_MAX: f64 = 2.0;

/// The temperature of saturated steam at this absolute pressure, Celsius.
///
/// # Errors
/// A pressure outside 0.612 kPa to 12,000 kPa, the range of the equation.
pub fn celsius(kpa: f64) -> Result<f64> {
    positive("kpa", kpa)?;
    require("kpa", kpa, (0.612..=12_000.0).contains(&kpa), "between 0.612 and 12000, absolute")?;
    Ok(42.6776 - 3892.70 / ((kpa / 1000.0).ln() - 9.486_54) - 273.15)
}

/// Measured minus theoretical temperature, K.
///
/// # Errors
/// Errors of [`celsius`], and a temperature that is not finite.
pub fn difference(measured_celsius: f64, kpa: f64) -> Result<f64> {
    finite("temperature", measured_celsius)?;
    Ok(measured_celsius - celsius(kpa)?)
}
