//! How far the limits of the quarantine are used. Nothing is deleted at a limit: the alarms exist
//! so that a person looks in time.

use std::fmt;

use warehouse::quarantine::Usage;

use crate::config::Quarantine;

/// Share of a limit from which a warning is raised.
const WARNING: f64 = 0.8;
const DAY_S: f64 = 86_400.0;
const MIB: f64 = 1_048_576.0;

/// The urgency of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Below 80 %.
    Fine,
    /// At 80 %.
    Warning,
    /// At 100 %.
    Error,
}

/// One limit and how much of it is used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// `rows`, `mib` or `age`, as in the metric.
    pub name: &'static str,
    pub level: Level,
    key: &'static str,
    unit: &'static str,
    used: f64,
    most: f64,
}

impl Limit {
    fn new(name: &'static str, key: &'static str, unit: &'static str, used: f64, most: f64) -> Self {
        let level = match used / most {
            ratio if ratio >= 1.0 => Level::Error,
            ratio if ratio >= WARNING => Level::Warning,
            _ => Level::Fine,
        };
        Self { name, level, key, unit, used, most }
    }

    /// The share that is used; 1 = the limit is reached.
    pub fn ratio(&self) -> f64 {
        self.used / self.most
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, unit, used, most, .. } = self;
        write!(f, "{used:.0} of {most} {unit} ({:.0} % of {key})", 100.0 * self.ratio())
    }
}

/// Every limit.
pub fn limits(usage: &Usage, configured: &Quarantine) -> [Limit; 3] {
    let Quarantine { rows_max, mib_max, age_days_max } = *configured;
    [
        Limit::new("rows", "quarantine.rows_max", "rows", usage.rows as f64, rows_max as f64),
        Limit::new("mib", "quarantine.mib_max", "MiB", usage.bytes as f64 / MIB, mib_max.into()),
        Limit::new("age", "quarantine.age_days_max", "days", usage.oldest_s as f64 / DAY_S, age_days_max.into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_warns_at_80_percent_and_is_an_error_at_100() {
        let check = |rows: u64, mib: u64, days: u64, expected: [Level; 3]| {
            let usage = Usage { rows, bytes: mib << 20, waiting: 0, oldest_s: days * 86_400 };
            let configured = Quarantine { rows_max: 1_000, mib_max: 10, age_days_max: 30 };
            assert_eq!(limits(&usage, &configured).map(|limit| limit.level), expected);
        };
        check(0, 0, 0, [Level::Fine; 3]);
        check(799, 7, 23, [Level::Fine; 3]);
        check(800, 8, 24, [Level::Warning; 3]);
        check(999, 9, 29, [Level::Warning; 3]);
        check(1_000, 10, 30, [Level::Error; 3]);
        check(u64::MAX, 0, 0, [Level::Error, Level::Fine, Level::Fine]);
    }

    #[test]
    fn a_limit_says_key_value_and_unit() {
        let limit = Limit::new("age", "quarantine.age_days_max", "days", 81.4, 90.0);
        assert_eq!(limit.to_string(), "81 of 90 days (90 % of quarantine.age_days_max)");
    }
}
