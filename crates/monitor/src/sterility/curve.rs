//! Judges the curve of a cycle by its recipe: pure. The mathematics is in `analysis`.

use std::collections::BTreeMap;

use analysis::{
    hold::{self, Band, Series},
    lethality::lethality,
};
use serde::Serialize;
use serde_json::{Value, json};
use warehouse::{
    states::Outcome,
    sterility::{Curve, Cycle, Recipe},
};

/// Version of the judgement of curves. A new version judges every curve again whose samples are
/// still stored.
pub const VERSION: u32 = 1;

/// Judgement of a curve.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Physical {
    pub outcome: Outcome,
    pub reason: String,
    /// Time of the last sample, ms from the start.
    pub end_ms: u32,
    /// Number of samples it was judged by.
    pub samples: u32,
    /// Longest continuous time in the band, ms; the smallest of all sensors.
    pub hold_ms: Option<i64>,
    /// Conservative lethality, ms at the reference temperature; the smallest of all sensors.
    pub f0_ms: Option<i64>,
    /// Lethality by the trapezoid rule, ms at the reference temperature.
    pub f0_trapezoid_ms: Option<i64>,
    /// Largest difference to saturated steam during the hold, mK.
    pub saturation_mk: Option<i64>,
    /// Limits that it was judged by, JSON.
    #[serde(skip)]
    pub limits: String,
    /// [`VERSION`] that it was judged with.
    #[serde(skip)]
    pub version: u32,
}

impl Physical {
    /// Whether judging the samples of a cycle by `limits` gives this judgement again, so that they
    /// need not be read.
    pub fn is_settled(&self, cycle: &Cycle, limits: &str) -> bool {
        self.outcome != Outcome::Pending
            && self.samples == cycle.samples
            && self.limits == limits
            && self.version == VERSION
    }
}

/// The judgement of a curve that stands: of the stored samples, unless an earlier judgement had
/// more samples. Samples may be retained for a shorter time than judgements.
pub fn judge_or_keep(
    cycle: &Cycle,
    curve: Option<&Curve>,
    recipe: Option<&Recipe>,
    earlier: Option<&Physical>,
) -> Physical {
    let judged = judge(cycle, curve, recipe);
    match earlier {
        Some(earlier) if earlier.samples > judged.samples => earlier.clone(),
        _ => judged,
    }
}

/// The limits of a recipe, as stored with a verdict.
pub fn parameters(recipe: Option<&Recipe>) -> Value {
    let Some(recipe) = recipe else { return json!({}) };
    json!({
        "recipe": recipe.recipe,
        "temperature_min_mc": recipe.temperature_min_mc,
        "temperature_max_mc": recipe.temperature_max_mc,
        "hold_ms": recipe.hold_ms,
        "gap_max_ms": recipe.gap_max_ms,
        "reference_mc": recipe.reference_mc,
        "z_mk": recipe.z_mk,
        "saturated_steam": recipe.saturated_steam,
        "prevacuum": recipe.prevacuum,
        "saturation_max_mk": ms(analysis::saturation::DIFFERENCE_MAX),
    })
}

/// Samples of one sensor.
#[derive(Default)]
struct Sensor {
    times: Vec<f64>,
    celsius: Vec<f64>,
    /// None if a sample has no pressure.
    kpa: Option<Vec<f64>>,
}

/// Judges the curve of a cycle. A cycle is pending while samples are missing. It is indeterminate
/// if its recipe is not registered or its samples cannot be used.
pub fn judge(cycle: &Cycle, curve: Option<&Curve>, recipe: Option<&Recipe>) -> Physical {
    let samples = curve.map_or(&[][..], |curve| &curve.samples);
    let found = u32::try_from(samples.len()).unwrap_or(u32::MAX);
    let end_ms = samples.iter().map(|sample| sample.0).max().unwrap_or(0);
    let limits = parameters(recipe).to_string();
    let known = Physical { end_ms, samples: found, limits, version: VERSION, ..Physical::default() };
    let unknown = |reason: String| Physical { outcome: Outcome::Indeterminate, reason, ..known.clone() };
    if found < cycle.samples {
        return Physical { reason: format!("{found} of {} samples have arrived", cycle.samples), ..known };
    }
    let Some(recipe) = recipe else {
        return unknown(format!("recipe {:?} is not registered", cycle.recipe));
    };
    let sensors = sensors(samples);
    if sensors.is_empty() {
        return unknown("no temperatures were recorded".to_owned());
    }
    let series: Vec<_> =
        sensors.iter().map(|sensor| Series { times: &sensor.times, celsius: &sensor.celsius }).collect();
    let measured = hold::Cycle { sensors: &series, kpa: sensors[0].kpa.as_deref() };
    let required = hold::Recipe {
        band: Band { low: celsius(recipe.temperature_min_mc), high: celsius(recipe.temperature_max_mc) },
        hold_s: f64::from(recipe.hold_ms) / 1e3,
        gap_max_s: f64::from(recipe.gap_max_ms) / 1e3,
        saturation_max_k: recipe.saturated_steam.then_some(analysis::saturation::DIFFERENCE_MAX),
    };
    let verdict = match hold::verdict(&measured, &required) {
        Ok(verdict) => verdict,
        Err(error) => return unknown(format!("the samples cannot be used: {error}")),
    };
    let (f0_ms, f0_trapezoid_ms) = f0(&sensors, recipe);
    Physical {
        outcome: match verdict.outcome {
            hold::Outcome::Passed => Outcome::Passed,
            hold::Outcome::Failed => Outcome::Failed,
            hold::Outcome::Indeterminate => Outcome::Indeterminate,
        },
        reason: verdict.reason,
        hold_ms: verdict.hold_s.map(ms),
        f0_ms,
        f0_trapezoid_ms,
        saturation_mk: verdict.saturation_k.map(ms),
        ..known
    }
}

fn sensors(samples: &[(u32, u32, Option<i32>, Option<u32>)]) -> Vec<Sensor> {
    let mut sensors: BTreeMap<u32, Sensor> = BTreeMap::new();
    for (offset_ms, sensor, temperature_mc, pressure_pa) in samples {
        let Some(temperature_mc) = temperature_mc else { continue };
        let sensor = sensors.entry(*sensor).or_insert_with(|| Sensor { kpa: Some(Vec::new()), ..Sensor::default() });
        sensor.times.push(f64::from(*offset_ms) / 1e3);
        sensor.celsius.push(celsius(*temperature_mc));
        sensor.kpa = sensor.kpa.take().zip(*pressure_pa).map(|(mut kpa, pa)| {
            kpa.push(f64::from(pa) / 1e3);
            kpa
        });
    }
    sensors.into_values().collect()
}

fn f0(sensors: &[Sensor], recipe: &Recipe) -> (Option<i64>, Option<i64>) {
    let (reference, z) = (celsius(recipe.reference_mc), f64::from(recipe.z_mk) / 1e3);
    let of_sensors = sensors.iter().map(|sensor| lethality(&sensor.times, &sensor.celsius, reference, z));
    match of_sensors.collect::<Result<Vec<_>, _>>() {
        Ok(all) => {
            let least =
                |of: fn(&analysis::lethality::Lethality) -> f64| all.iter().map(of).min_by(f64::total_cmp).map(ms);
            (least(|lethality| lethality.conservative), least(|lethality| lethality.trapezoid))
        }
        Err(_) => (None, None),
    }
}

fn celsius(millidegrees: i32) -> f64 {
    f64::from(millidegrees) / 1e3
}

/// Thousandths, rounded.
fn ms(value: f64) -> i64 {
    (value * 1e3).round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        Recipe {
            recipe: "134C-3min".to_owned(),
            temperature_min_mc: 134_000,
            temperature_max_mc: 137_000,
            hold_ms: 180_000,
            gap_max_ms: 15_000,
            reference_mc: 121_100,
            z_mk: 10_000,
            ..Recipe::default()
        }
    }

    /// A plateau of `seconds` with a sample every two seconds, except those `without`.
    fn plateau(seconds: u32, without: std::ops::Range<u32>) -> (Cycle, Curve) {
        let outside = |offset: u32| !without.contains(&offset);
        let samples: Vec<_> = (0..=seconds)
            .step_by(2)
            .filter(|offset| outside(*offset))
            .map(|offset| (offset * 1_000, 0, Some(134_500), None))
            .collect();
        let cycle = Cycle { samples: samples.len() as u32, ..Cycle::default() };
        (cycle, Curve { samples, ..Curve::default() })
    }

    #[test]
    fn hold_time_decides_and_a_gap_makes_it_indeterminate() {
        let outcome = |seconds, without| {
            let (cycle, curve) = plateau(seconds, without);
            judge(&cycle, Some(&curve), Some(&recipe())).outcome
        };
        assert_eq!(outcome(180, 0..0), Outcome::Passed);
        assert_eq!(outcome(178, 0..0), Outcome::Failed);
        assert_eq!(outcome(400, 100..116), Outcome::Indeterminate);
        assert_eq!(outcome(400, 100..110), Outcome::Passed);
    }

    #[test]
    fn what_has_not_arrived_is_awaited_and_what_is_not_registered_is_never_passed() {
        let (cycle, curve) = plateau(300, 0..0);
        let more = Cycle { samples: cycle.samples + 1, ..cycle.clone() };
        assert_eq!(judge(&more, Some(&curve), Some(&recipe())).outcome, Outcome::Pending);
        assert_eq!(judge(&cycle, Some(&curve), None).outcome, Outcome::Indeterminate);
        assert_eq!(judge(&Cycle::default(), None, Some(&recipe())).outcome, Outcome::Indeterminate);
        let steam = Recipe { saturated_steam: true, ..recipe() };
        assert_eq!(judge(&cycle, Some(&curve), Some(&steam)).outcome, Outcome::Indeterminate, "no pressure");
    }

    #[test]
    fn a_judgement_outlives_its_samples_and_more_samples_replace_it() {
        let (cycle, curve) = plateau(200, 0..0);
        let passed = judge(&cycle, Some(&curve), Some(&recipe()));
        let kept = |curve: Option<&Curve>, recipe: &Recipe| judge_or_keep(&cycle, curve, Some(recipe), Some(&passed));
        let rest = Curve { samples: curve.samples[..50].to_vec(), ..curve.clone() };
        let longer = Recipe { hold_ms: 240_000, ..recipe() };
        assert_eq!(kept(None, &recipe()), passed);
        assert_eq!(kept(Some(&rest), &recipe()), passed, "some samples are gone");
        assert_eq!(kept(None, &longer), passed, "it states the limits that it was judged by");
        assert_eq!(kept(Some(&curve), &longer).outcome, Outcome::Failed);
        let early = judge(&cycle, Some(&rest), Some(&recipe()));
        assert_eq!(judge_or_keep(&cycle, Some(&curve), Some(&recipe()), Some(&early)), passed);
        let limits = parameters(Some(&recipe())).to_string();
        assert!(passed.is_settled(&cycle, &limits) && !early.is_settled(&cycle, &limits));
        assert!(!passed.is_settled(&cycle, &parameters(Some(&longer)).to_string()));
    }
}
