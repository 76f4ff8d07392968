//! Lethality of a heat treatment: the time at the reference temperature with the same effect.
//!
//! F0 = sum dt 10^((T - T_ref) / z), z = 10 K. T_ref is 121.0, 121.1 or 121.11 C by convention;
//! store which. A0 of washers is the same sum with 80 C, in seconds. The temperature between
//! samples is unknown: the conservative sum uses the smaller rate of both ends, the trapezoid their
//! mean.

use crate::error::{Result, at_least, finite, positive, rising, same_length};

/// Equivalent time at the reference temperature, in the unit of the given times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lethality {
    /// Sum with the mean of both ends' rates.
    pub trapezoid: f64,
    /// Sum with the smaller of both ends' rates.
    pub conservative: f64,
}

/// The lethality of temperatures (Celsius) at rising `times`.
///
/// # Errors
/// Fewer than 2 samples, series of different length, times that do not rise, numbers that are not
/// finite, z not above 0.
pub fn lethality(times: &[f64], celsius: &[f64], reference: f64, z: f64) -> Result<Lethality> {
    same_length("t_s", times.len(), "temperature_c", celsius.len())?;
    rising("t_s", times)?;
    crate::error::all_finite("temperature_c", celsius)?;
    at_least("t_s", times.len(), 2)?;
    finite("reference temperature", reference)?;
    positive("z", z)?;
    let rate = |temperature: f64| 10f64.powf((temperature - reference) / z);
    let mut sum = Lethality { trapezoid: 0.0, conservative: 0.0 };
    for (time, temperature) in times.windows(2).zip(celsius.windows(2)) {
        let step = time[1] - time[0];
        let (from, to) = (rate(temperature[0]), rate(temperature[1]));
        sum.trapezoid += step * 0.5 * (from + to);
        sum.conservative += step * from.min(to);
    }
    finite("lethality", sum.trapezoid)?;
    Ok(sum)
}
