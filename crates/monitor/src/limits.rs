//! The limits that a clinic or a manufacturer sets.

use serde::Serialize;
use telemetry::device_time;
use warehouse::devices::FleetLimits;

use crate::settings;

/// The limits of all judgements: those of [`settings::Monitor`], and two of the section
/// `[device_time]`. Positions are recorded under them, so that after a change everything is
/// evaluated again.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Limits {
    pub coverage: f64,
    /// Fewest sessions with which a device can fail, 2 to 1,000.
    pub sessions_min: u64,
    /// False alarms of a device in a year, over all its charts.
    pub false_alarms: f64,
    /// Sessions of a device in a day, 0.1 to 100.
    pub sessions_per_day: f64,
    /// Set-point bands of a channel, 1 to 20: those of the model that has the most.
    pub bands: u32,
    /// Days after the last session within which leaving the tolerance is worth an alert, 1 to 365.
    pub forecast_days: u32,
    /// Largest tolerated difference between what left a syringe and what was delivered, in percent
    /// of what left it, 1 to 100.
    pub mass_balance_pct: u32,
    /// Limits of the devices themselves.
    pub fleet: FleetLimits,
    /// Uncertainty of a device's time, seconds. A device's time may be this much later than its
    /// receipt.
    pub ahead_max_s: u32,
    /// Longest time between an event and its receipt, days. It applies where the device's time is
    /// not known.
    pub age_max_days: u32,
}

impl std::fmt::Display for Limits {
    /// JSON, as recorded with positions.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&serde_json::to_string(self).unwrap_or_default())
    }
}

impl Limits {
    pub(crate) fn new(monitor: &settings::Monitor, device_time: device_time::Limits) -> Self {
        Self {
            coverage: monitor.coverage,
            sessions_min: monitor.sessions_min,
            false_alarms: monitor.false_alarms_per_device_year,
            sessions_per_day: monitor.sessions_per_day,
            bands: monitor.bands,
            forecast_days: monitor.forecast_days,
            mass_balance_pct: monitor.mass_balance_pct,
            fleet: FleetLimits { silent_days: monitor.silent_days, battery_pct: monitor.battery_pct },
            ahead_max_s: device_time.ahead_max_s,
            age_max_days: device_time.age_max_days,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(&settings::Monitor::default(), device_time::Limits::default())
    }
}
