//! Hold time: how long the temperature stayed inside the band without a break.
//!
//! Hold time decides a steam cycle (porous and hollow loads); F0 does not. The band includes its
//! ends. The temperature between two samples is a straight line, whose crossings with the band's
//! ends are interpolated. Nothing is known about a gap between samples: no hold crosses it, and the
//! cycle is indeterminate.

use crate::{
    error::{Error, Result, at_least, finite, not_negative, positive, rising, same_length},
    saturation,
};

/// A hold that is short by less than this passes: the difference is rounding, s.
const ROUNDING_S: f64 = 1e-6;

/// The temperatures of one sensor, at times that rise.
#[derive(Clone, Copy, Debug)]
pub struct Series<'a> {
    pub times: &'a [f64],
    pub celsius: &'a [f64],
}

/// A range of temperatures in Celsius, with its ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Band {
    /// Lower end, Celsius.
    pub low: f64,
    /// Upper end, Celsius.
    pub high: f64,
}

/// How long a sensor was inside the band.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hold {
    /// The longest time without a break, s.
    pub longest_s: f64,
    /// Begin and end of the longest hold, s; `None` if the sensor never was inside.
    pub span: Option<(f64, f64)>,
    /// All time inside the band, s.
    pub total_s: f64,
    /// The longest gap between two samples and its begin, s; `None` for fewer than 2 samples.
    pub gap: Option<(f64, f64)>,
}

/// Measures one sensor's hold. The time between two samples more than `gap_max_s` apart does not
/// count.
///
/// # Errors
/// No sample, series of different length, times that do not rise, numbers that are not finite, a
/// band whose low end is above its high end.
pub fn hold(series: Series<'_>, band: Band, gap_max_s: Option<f64>) -> Result<Hold> {
    let Series { times, celsius } = series;
    same_length("t_s", times.len(), "temperature_c", celsius.len())?;
    at_least("t_s", times.len(), 1)?;
    rising("t_s", times)?;
    crate::error::all_finite("temperature_c", celsius)?;
    check_band(band)?;
    if let Some(gap) = gap_max_s {
        positive("largest gap", gap)?;
    }
    let mut hold = Hold { longest_s: 0.0, span: None, total_s: 0.0, gap: None };
    let mut open: Option<(f64, f64)> = None;
    for (time, temperature) in times.windows(2).zip(celsius.windows(2)) {
        let step = time[1] - time[0];
        if hold.gap.is_none_or(|(longest, _)| step > longest) {
            hold.gap = Some((step, time[0]));
        }
        let known = gap_max_s.is_none_or(|gap| step <= gap);
        let inside = known.then(|| clip((time[0], time[1]), (temperature[0], temperature[1]), band)).flatten();
        let Some((from, to)) = inside else {
            open = None;
            continue;
        };
        hold.total_s += to - from;
        // The stretch continues only if the sample between both steps is inside. Then both ends are
        // the time of that sample.
        let start = open.filter(|(_, end)| *end == from).map_or(from, |(start, _)| start);
        open = Some((start, to));
        if hold.span.is_none() || to - start > hold.longest_s {
            hold.longest_s = to - start;
            hold.span = Some((start, to));
        }
    }
    Ok(hold)
}

/// Begin and end of the part inside the band, on a straight line between two samples.
fn clip(time: (f64, f64), temperature: (f64, f64), band: Band) -> Option<(f64, f64)> {
    let (from, to) = temperature;
    if from.max(to) < band.low || from.min(to) > band.high {
        return None;
    }
    let crosses = |level: f64| (time.0 + (time.1 - time.0) * ((level - from) / (to - from))).clamp(time.0, time.1);
    let at = |temperature: f64, own: f64| {
        if temperature < band.low {
            crosses(band.low)
        } else if temperature > band.high {
            crosses(band.high)
        } else {
            own
        }
    };
    Some((at(from, time.0), at(to, time.1)))
}

fn check_band(band: Band) -> Result<()> {
    finite("low", band.low)?;
    finite("high", band.high)?;
    if band.low > band.high {
        return Err(Error::Parameter { name: "low", value: band.low, right: "at most high" });
    }
    Ok(())
}

/// What a cycle must reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    /// Temperature band of the hold.
    pub band: Band,
    /// Hold time required, s.
    pub hold_s: f64,
    /// Largest gap between two samples, s.
    pub gap_max_s: f64,
    /// Largest difference between measured and saturated-steam temperature in the hold, K; `None`
    /// leaves out the check.
    pub saturation_max_k: Option<f64>,
}

/// The measurements of one cycle.
#[derive(Clone, Copy, Debug)]
pub struct Cycle<'a> {
    /// All temperature sensors.
    pub sensors: &'a [Series<'a>],
    /// Absolute pressure, kPa, at each sample of the first sensor; `None` if it was not recorded.
    pub kpa: Option<&'a [f64]>,
}

/// The judgement on a cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every requirement was met.
    Passed,
    /// A requirement was not met.
    Failed,
    /// The measurements do not suffice for a judgement.
    Indeterminate,
}

/// Outcome of a cycle, with its figures and the reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub outcome: Outcome,
    /// The reason, in words.
    pub reason: String,
    /// The shortest of the sensors' longest holds, s; `None` without samples.
    pub hold_s: Option<f64>,
    /// The largest difference to saturated steam in the hold, K; `None` if it was not checked.
    pub saturation_k: Option<f64>,
}

/// Judges a cycle. Missing measurements and gaps make it indeterminate, even if everything else
/// passed.
///
/// # Errors
/// Measurements that cannot be right (times that do not rise, series of different length, numbers
/// that are not finite), or a recipe out of range.
pub fn verdict(cycle: &Cycle<'_>, recipe: &Recipe) -> Result<Verdict> {
    not_negative("required hold", recipe.hold_s)?;
    check_band(recipe.band)?;
    let unknown =
        |reason: String| Verdict { outcome: Outcome::Indeterminate, reason, hold_s: None, saturation_k: None };
    if cycle.sensors.is_empty() || cycle.sensors.iter().any(|sensor| sensor.times.is_empty()) {
        return Ok(unknown("a sensor has no samples".into()));
    }
    let holds = cycle
        .sensors
        .iter()
        .map(|sensor| hold(*sensor, recipe.band, Some(recipe.gap_max_s)))
        .collect::<Result<Vec<_>>>()?;
    let shortest = holds.iter().fold(f64::INFINITY, |shortest, hold| hold.longest_s.min(shortest));
    let saturation_k = match (recipe.saturation_max_k, cycle.kpa, holds[0].span) {
        (Some(_), Some(kpa), Some(span)) => farthest_from_saturation(cycle.sensors[0], kpa, span)?,
        _ => None,
    };
    let figures = |outcome, reason| Verdict { outcome, reason, hold_s: Some(shortest), saturation_k };
    for (number, hold) in holds.iter().enumerate() {
        match hold.gap {
            Some((gap, at)) if gap > recipe.gap_max_s => {
                let limit = recipe.gap_max_s;
                let reason = format!("sensor {}: no sample for {gap} s from {at} s on, above {limit} s", number + 1);
                return Ok(figures(Outcome::Indeterminate, reason));
            }
            Some(_) => {}
            None => return Ok(figures(Outcome::Indeterminate, format!("sensor {} has a single sample", number + 1))),
        }
    }
    if shortest < recipe.hold_s - ROUNDING_S || holds.iter().any(|hold| hold.span.is_none()) {
        let Band { low, high } = recipe.band;
        let reason = format!("held {low} to {high} C for {shortest:.1} s of {} s", recipe.hold_s);
        return Ok(figures(Outcome::Failed, reason));
    }
    Ok(match (recipe.saturation_max_k, saturation_k) {
        (Some(most), Some(difference)) if difference.abs() > most => {
            figures(Outcome::Failed, format!("{difference:.2} K off saturated steam, above {most} K"))
        }
        (Some(_), None) => {
            figures(Outcome::Indeterminate, "no pressure in the hold to check for saturated steam".into())
        }
        _ => figures(Outcome::Passed, format!("held for {shortest:.1} s of {} s", recipe.hold_s)),
    })
}

/// The difference to saturated steam that is farthest from 0 within a span of time; `None` if it
/// has no sample.
fn farthest_from_saturation(sensor: Series<'_>, kpa: &[f64], span: (f64, f64)) -> Result<Option<f64>> {
    same_length("t_s", sensor.times.len(), "pressure_kpa", kpa.len())?;
    let mut farthest: Option<f64> = None;
    for ((time, measured), kpa) in sensor.times.iter().zip(sensor.celsius).zip(kpa) {
        if (span.0..=span.1).contains(time) {
            let difference = saturation::difference(*measured, *kpa)?;
            if farthest.is_none_or(|other| difference.abs() > other.abs()) {
                farthest = Some(difference);
            }
        }
    }
    Ok(farthest)
}
