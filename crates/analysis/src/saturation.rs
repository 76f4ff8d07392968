//! Saturated steam: does the temperature belong to the pressure?
//!
//! `T[K] = 42.6776 - 3892.70 / (ln P[MPa] - 9.48654)`, the three-constant equation for 273.16 to 600 K (Irvine & Liley 1984,
//! recalled). Air left in the chamber shows as a pressure that is too high for the temperature.

use crate::error::{Result, finite, positive, require};

/// Largest difference to the measured temperature in the plateau, K. Recalled from EN 285, not read there: a recipe's
/// configuration decides.
pub const DIFFERENCE_MAX: f64 = 2.0;

/// The temperature of saturated steam at this absolute pressure, Celsius.
///
/// # Errors
/// A pressure outside 0.612 kPa to 12,000 kPa, where the equation is made for.
pub fn celsius(kpa: f64) -> Result<f64> {
    positive("kpa", kpa)?;
    require("kpa", kpa, (0.612..=12_000.0).contains(&kpa), "between 0.612 and 12000, absolute")?;
    Ok(42.6776 - 3892.70 / ((kpa / 1000.0).ln() - 9.486_54) - 273.15)
}

/// Measured - theoretical temperature, K.
///
/// # Errors
/// Those of [`celsius`], and a temperature that is not finite.
pub fn difference(measured_celsius: f64, kpa: f64) -> Result<f64> {
    finite("temperature", measured_celsius)?;
    Ok(measured_celsius - celsius(kpa)?)
}
