//! Plausible ranges by device model, from configuration.
//!
//! A large dosing error is data, not a fault of the data. So the ranges are wide, and an
//! event with a value outside of them is quarantined whole, never clamped.

use std::{collections::BTreeMap, ops::RangeInclusive};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    limits::UNIX_US_MAX,
    reject::{Reason, Reject},
    v1::{self, event::Kind},
};

/// An inclusive range of integers, `[least, most]` in configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range(pub i64, pub i64);

impl Range {
    fn contains(self, value: i64) -> bool {
        RangeInclusive::new(self.0, self.1).contains(&value)
    }
}

macro_rules! ranges {
    ($($(#[doc = $about:literal])* $key:ident: $least:literal to $most:literal, $unit:literal;)*) => {
        /// The plausible ranges of one model.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Ranges {
            $($(#[doc = $about])* pub $key: Range,)*
        }

        impl Default for Ranges {
            /// The widest ranges, used for every model that the configuration does not name.
            fn default() -> Self {
                Self { $($key: Range($least, $most),)* }
            }
        }

        impl Ranges {
            /// Unit and meaning of each range, for the reference of the configuration.
            pub const KEYS: &[(&str, &str, &str)] = &[$((stringify!($key), $unit, concat!($($about),*)),)*];

            /// Every range with its name.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, Range)> {
                [$((stringify!($key), self.$key),)*].into_iter()
            }
        }
    };
}

ranges! {
    /// Target and delivered dose of the whole head
    dose_nl: 0 to 2_000_000, "nl";
    /// Target and measured length along the needle
    depth_um: 0 to 13_000, "um";
    /// Angle from the surface of the skin
    angle_mdeg: 0 to 180_000, "millidegrees";
    /// Time from contact to withdrawal
    duration_us: 0 to 600_000_000, "us";
    /// Punctures of one injection
    punctures: 0 to 10_000, "1";
    /// Needles of the head
    needle_count: 1 to 32, "1";
    /// Peak force
    peak_force_mn: 0 to 200_000, "mN";
    /// Peak pressure, gauge
    pressure_pa: -101_325 to 10_000_000, "Pa";
    /// Vacuum, positive below ambient pressure
    vacuum_pa: 0 to 101_325, "Pa";
    /// Motor current
    motor_ma: 0 to 20_000, "mA";
}

/// Plausible ranges of all models.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Plausibility {
    /// By `Context.model`; a model that is absent has the widest ranges.
    pub models: BTreeMap<String, Ranges>,
}

impl Plausibility {
    /// Faults of a configuration, each as (key, what is wrong).
    pub fn faults(&self) -> Vec<(String, String)> {
        let widest: BTreeMap<_, _> = Ranges::default().named().collect();
        let mut faults = Vec::new();
        for (model, ranges) in &self.models {
            for (name, Range(least, most)) in ranges.named() {
                let Range(widest_least, widest_most) = widest[name];
                if least > most {
                    faults
                        .push((format!("{model}.{name}"), format!("[{least}, {most}] is empty; write [least, most]")));
                } else if least < widest_least || most > widest_most {
                    let text = format!("[{least}, {most}] is wider than [{widest_least}, {widest_most}]");
                    faults.push((format!("{model}.{name}"), text));
                }
            }
        }
        faults
    }

    /// The ranges of a model.
    pub fn ranges(&self, model: &str) -> Ranges {
        self.models.get(model).cloned().unwrap_or_default()
    }

    /// Hash of the configuration: part of every batch's intent, because it decides which rows a
    /// batch holds.
    pub fn hash(&self) -> u64 {
        hash_of(self)
    }
}

/// Hash of a part of the configuration.
pub(crate) fn hash_of(part: &impl Serialize) -> u64 {
    let digest = Sha256::digest(serde_json::to_vec(part).unwrap_or_default());
    digest.iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

/// Whether an event's values are plausible. `at_unix_us` is the time it will be stored under.
///
/// # Errors
/// [`Reason::Implausible`], [`Reason::BadTime`] or [`Reason::UnknownEvent`], with the field and its
/// value.
pub fn check(event: &v1::Event, at_unix_us: i64, ranges: &Ranges) -> Result<(), Reject> {
    time("at", Some(at_unix_us))?;
    match &event.kind {
        None => Err(Reject::new(Reason::UnknownEvent, "the event's kind is unknown to this version")),
        Some(Kind::Injection(injection)) => check_injection(injection, ranges),
        Some(Kind::SessionEnded(session)) => small("delivered_nl", session.delivered_nl),
        Some(Kind::ConsumableMounted(mounted)) => {
            day("expiry", &mounted.expiry)?;
            small("fill_nl", mounted.fill_nl)
        }
        Some(Kind::Primed(primed)) => small("volume_nl", primed.volume_nl),
        Some(Kind::ConsumableRemoved(removed)) => small("residual_nl", removed.residual_nl),
        Some(Kind::Preparation(preparation)) => check_preparation(preparation),
        Some(Kind::SterilizationCycle(cycle)) => check_cycle(cycle, at_unix_us),
        Some(Kind::Heartbeat(heartbeat)) => percent(heartbeat.battery_pct),
        // [`crate::device_time`] judges the times in these events; it refuses no event.
        Some(
            Kind::SessionStarted(_)
            | Kind::CycleIndicator(_)
            | Kind::CycleRelease(_)
            | Kind::Reprocessed(_)
            | Kind::Calibration(_)
            | Kind::Fault(_),
        ) => Ok(()),
    }
}

fn check_injection(injection: &v1::Injection, ranges: &Ranges) -> Result<(), Reject> {
    within("target_nl", injection.target_nl, ranges.dose_nl)?;
    within("delivered_nl", injection.delivered_nl, ranges.dose_nl)?;
    within("target_um", injection.target_um, ranges.depth_um)?;
    within("measured_um", injection.measured_um, ranges.depth_um)?;
    within("angle_mdeg", injection.angle_mdeg, ranges.angle_mdeg)?;
    within("duration_us", injection.duration_us, ranges.duration_us)?;
    within("punctures", injection.punctures, ranges.punctures)?;
    within("needle_count", injection.needle_count, ranges.needle_count)?;
    within("peak_force_mn", injection.peak_force_mn, ranges.peak_force_mn)?;
    within("pressure_pa", injection.pressure_pa, ranges.pressure_pa)?;
    within("vacuum_pa", injection.vacuum_pa, ranges.vacuum_pa)?;
    within("motor_ma", injection.motor_ma, ranges.motor_ma)?;
    if injection.outcome() == v1::Outcome::Ok && injection.delivered_nl == Some(0) {
        return Err(Reject::new(Reason::Implausible, "outcome OK with delivered_nl 0"));
    }
    Ok(())
}

fn check_preparation(preparation: &v1::Preparation) -> Result<(), Reject> {
    for component in &preparation.components {
        day("components.expiry", &component.expiry)?;
        small("components.volume_nl", component.volume_nl)?;
    }
    Ok(())
}

fn check_cycle(cycle: &v1::SterilizationCycle, at_unix_us: i64) -> Result<(), Reject> {
    for sample in &cycle.samples {
        within("samples.temperature_mc", sample.temperature_mc, Range(-50_000, 200_000))?;
        within("samples.pressure_pa", sample.pressure_pa, Range(0, 1_000_000))?;
        time("samples.offset_ms", at_unix_us.checked_add(i64::from(sample.offset_ms) * 1_000))?;
    }
    Ok(())
}

#[inline(always)]
fn within<T: Copy + TryInto<i64> + std::fmt::Display>(
    name: &str,
    value: Option<T>,
    range: Range,
) -> Result<(), Reject> {
    match value {
        Some(value) if !value.try_into().is_ok_and(|value| range.contains(value)) => Err(outside(name, &value, range)),
        _ => Ok(()),
    }
}

#[cold]
fn outside(name: &str, value: &dyn std::fmt::Display, range: Range) -> Reject {
    Reject::new(Reason::Implausible, format!("{name} {value} is outside {}..{}", range.0, range.1))
}

/// Volumes other than a single dose: up to 10 litres, so that sums stay far from overflow.
fn small(name: &str, volume_nl: Option<u64>) -> Result<(), Reject> {
    within(name, volume_nl, Range(0, 10_000_000_000))
}

fn percent(value: Option<u32>) -> Result<(), Reject> {
    within("battery_pct", value, Range(0, 100))
}

fn time(name: &str, unix_us: Option<i64>) -> Result<(), Reject> {
    match unix_us {
        Some(us) if !(0..UNIX_US_MAX).contains(&us) => {
            Err(Reject::new(Reason::BadTime, format!("{name} {us} us is outside 1970..2100")))
        }
        _ => Ok(()),
    }
}

/// `YYYY-MM-DD`, or nothing. Labels also print day 00 for the end of the month.
fn day(name: &str, text: &str) -> Result<(), Reject> {
    let bytes = text.as_bytes();
    let digits = |range: std::ops::Range<usize>| text.get(range).and_then(|digits| digits.parse::<u8>().ok());
    let well_formed = text.is_empty()
        || (bytes.len() == 10
            && bytes
                .iter()
                .enumerate()
                .all(|(i, byte)| if matches!(i, 4 | 7) { *byte == b'-' } else { byte.is_ascii_digit() })
            && digits(5..7).is_some_and(|month| (1..=12).contains(&month))
            && digits(8..10).is_some_and(|day| day <= 31));
    if well_formed {
        return Ok(());
    }
    Err(Reject::new(Reason::Implausible, format!("{name} {text:?} is not YYYY-MM-DD")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000_000;

    fn injection(injection: v1::Injection) -> v1::Event {
        v1::Event { offset_us: 0, kind: Some(Kind::Injection(injection)) }
    }

    #[test]
    fn a_large_error_is_data_and_the_impossible_is_refused() {
        let ranges = Ranges::default();
        let good = v1::Injection { target_nl: Some(10_000), delivered_nl: Some(1_900_000), ..Default::default() };
        check(&injection(good), NOW, &ranges).unwrap();
        check(&injection(v1::Injection::default()), NOW, &ranges).unwrap();
        for bad in [
            v1::Injection { delivered_nl: Some(2_000_001), ..Default::default() },
            v1::Injection { target_nl: Some(u64::MAX), ..Default::default() },
            v1::Injection { measured_um: Some(13_001), ..Default::default() },
            v1::Injection { needle_count: Some(0), ..Default::default() },
            v1::Injection { outcome: 1, delivered_nl: Some(0), ..Default::default() },
        ] {
            assert_eq!(check(&injection(bad), NOW, &ranges).unwrap_err().reason, Reason::Implausible);
        }
        assert_eq!(check(&injection(good), -1, &ranges).unwrap_err().reason, Reason::BadTime);
        assert_eq!(check(&v1::Event::default(), NOW, &ranges).unwrap_err().reason, Reason::UnknownEvent);
    }

    #[test]
    fn days_are_checked() {
        for good in ["", "2027-01-31", "2027-02-00"] {
            day("expiry", good).unwrap();
        }
        for bad in ["2027", "2027-13-01", "2027-01-32", "27-01-2031", "2027/01/01", "2027-01-0ü"] {
            assert!(day("expiry", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn models_narrow_and_the_hash_follows() {
        let mut plausibility = Plausibility::default();
        let hash = plausibility.hash();
        plausibility.models.insert("pen".to_owned(), Ranges { depth_um: Range(0, 2_500), ..Ranges::default() });
        assert_ne!(plausibility.hash(), hash);
        assert!(plausibility.faults().is_empty());
        let deep = injection(v1::Injection { measured_um: Some(3_000), ..Default::default() });
        check(&deep, NOW, &plausibility.ranges("gun")).unwrap();
        assert!(check(&deep, NOW, &plausibility.ranges("pen")).is_err());
        plausibility
            .models
            .insert("odd".to_owned(), Ranges { depth_um: Range(9, 1), motor_ma: Range(-1, 1), ..Ranges::default() });
        assert_eq!(plausibility.faults().len(), 2);
    }
}
