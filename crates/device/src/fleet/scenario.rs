//! Faults of a fleet, and the devices that they affect.

use std::{collections::BTreeSet, fmt, str::FromStr};

use super::Role;

/// A scenario; several can be combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scenario {
    /// Nothing goes wrong. It affects no device; a device without another scenario is healthy.
    Healthy,
    /// The delivered dose drifts up to 12 % between two calibrations. One injection device in 5
    /// (the 1st, 6th, ...).
    DoseDrift,
    /// The measured depth drifts up to 15 % between two calibrations. One in 5 (the 2nd, ...).
    DepthDrift,
    /// Reports are repeated in other groupings and out of order. One in 2 (the 1st, 3rd, ...).
    Retransmit,
    /// The network is gone for minutes, then the backlog comes at once. One in 4 (the 2nd, ...).
    Offline,
    /// Clocks that are known to be wrong (UNSYNCED), of unknown state (UNKNOWN), or that step. One
    /// in 5 (the 3rd, ...).
    ClockSkew,
    /// Reboots within sessions. Some lose a tail that only `earlier_boots` reports, some declare
    /// losses. One in 4 (the 3rd, ...).
    Reboot,
    /// A needle is used in two sessions. One in 5 (the 4th, ...).
    NeedleReuse,
    /// Every third sterilizer cycle fails, and half of those loads are released anyway. One
    /// sterilizer in 2 (the 1st, ...).
    FailedCycle,
    /// Bad inputs: whole messages that must be rejected and events that must be quarantined. One in
    /// 5 (the 5th, ...).
    Poison,
}

impl Scenario {
    /// Every scenario; `all` selects them.
    pub const ALL: [Self; 10] = [
        Self::Healthy,
        Self::DoseDrift,
        Self::DepthDrift,
        Self::Retransmit,
        Self::Offline,
        Self::ClockSkew,
        Self::Reboot,
        Self::NeedleReuse,
        Self::FailedCycle,
        Self::Poison,
    ];

    /// The name that `--scenario` accepts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::DoseDrift => "dose-drift",
            Self::DepthDrift => "depth-drift",
            Self::Retransmit => "retransmit",
            Self::Offline => "offline",
            Self::ClockSkew => "clock-skew",
            Self::Reboot => "reboot",
            Self::NeedleReuse => "needle-reuse",
            Self::FailedCycle => "failed-cycle",
            Self::Poison => "poison",
        }
    }

    pub(super) const fn role(self) -> Role {
        match self {
            Self::FailedCycle => Role::Sterilizer,
            _ => Role::Injector,
        }
    }

    /// Whether the scenario affects the device with this number among `count` of its kind. At least
    /// one device is affected.
    pub(super) fn affects(self, ordinal: u32, count: u32) -> bool {
        let (one_in, phase) = match self {
            Self::Healthy => return false,
            Self::DoseDrift => (5, 0),
            Self::DepthDrift => (5, 1),
            Self::Retransmit => (2, 0),
            Self::Offline => (4, 1),
            Self::ClockSkew => (5, 2),
            Self::Reboot => (4, 2),
            Self::NeedleReuse => (5, 3),
            Self::FailedCycle => (2, 0),
            Self::Poison => (5, 4),
        };
        ordinal % one_in == if phase < count { phase } else { 0 }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text does not name a scenario.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown scenario {0:?}; known are healthy, dose-drift, depth-drift, retransmit, offline, clock-skew, reboot, needle-reuse, failed-cycle, poison and all"
)]
pub struct UnknownScenario(String);

impl FromStr for Scenario {
    type Err = UnknownScenario;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let scenario = Self::ALL.into_iter().find(|scenario| scenario.as_str() == text);
        scenario.ok_or_else(|| UnknownScenario(text.to_owned()))
    }
}

/// A combination of scenarios.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scenarios(BTreeSet<Scenario>);

impl Scenarios {
    /// All of them together.
    pub fn all() -> Self {
        Self(Scenario::ALL.into())
    }

    /// Whether the combination has this scenario.
    pub fn contains(&self, scenario: Scenario) -> bool {
        self.0.contains(&scenario)
    }
}

impl FromIterator<Scenario> for Scenarios {
    fn from_iter<I: IntoIterator<Item = Scenario>>(scenarios: I) -> Self {
        Self(scenarios.into_iter().collect())
    }
}

impl FromStr for Scenarios {
    type Err = UnknownScenario;

    /// Reads names separated by commas, or `all`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "all" {
            return Ok(Self::all());
        }
        text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::parse).collect()
    }
}
