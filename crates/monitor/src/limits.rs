//! The limits that a clinic or a manufacturer sets.

use serde::Serialize;
use warehouse::devices::FleetLimits;

/// What the monitor judges by. Positions are recorded together with the limits, so that a change of
/// a limit evaluates everything again.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Limits {
    /// Share of a device's injections that must keep the tolerance, 0.9 to 0.999.
    pub coverage: f64,
    /// Fewest sessions with which a device can fail, 2 to 1,000.
    pub sessions_min: u64,
    /// False alarms of a device in a year, over all its charts, 0.01 to 10.
    pub false_alarms: f64,
    /// Sessions of a device in a day, 0.1 to 100.
    pub sessions_per_day: f64,
    /// Set-point bands of a channel, 1 to 20: those of the model that has the most.
    pub bands: u32,
    /// Days after the last session within which leaving the tolerance is worth an alert, 1 to 365.
    pub forecast_days: u32,
    /// Largest tolerated difference between what left a syringe and what was delivered, in percent of
    /// what left it, 1 to 100.
    pub mass_balance_pct: u32,
    /// Limits of the devices themselves.
    pub fleet: FleetLimits,
    /// Uncertainty of a device's time, seconds. A device's time may be this much later than its
    /// receipt.
    pub ahead_max_s: u32,
    /// Longest time between an event and its receipt, days. It applies where the device's time is not
    /// known.
    pub age_max_days: u32,
}

impl std::fmt::Display for Limits {
    /// JSON, as recorded with positions.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&serde_json::to_string(self).unwrap_or_default())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            coverage: 0.95,
            sessions_min: 10,
            false_alarms: 0.2,
            sessions_per_day: 5.0,
            bands: 3,
            forecast_days: 30,
            mass_balance_pct: 5,
            fleet: FleetLimits::default(),
            ahead_max_s: 300,
            age_max_days: 400,
        }
    }
}
