//! Hold time, lethality and the verdict on a cycle.

#![allow(clippy::unwrap_used, reason = "a failed expectation is how a test fails")]

use analysis::{
    hold::{self, Band, Cycle, Outcome, Recipe, Series},
    lethality::lethality,
    saturation,
};
use proptest::prelude::*;

const BAND: Band = Band { low: 134.0, high: 137.0 };
const RECIPE: Recipe = Recipe { band: BAND, hold_s: 180.0, gap_max_s: 10.0, saturation_max_k: None };

/// Samples every 5 s: ramp of 1 K/s to the plateau, hold, ramp down.
fn cycle(plateau: f64, hold_s: usize) -> (Vec<f64>, Vec<f64>) {
    let celsius: Vec<f64> = [plateau - 10.0, plateau - 5.0]
        .into_iter()
        .chain(vec![plateau; hold_s / 5 + 1])
        .chain([plateau - 5.0, plateau - 10.0])
        .collect();
    ((0..celsius.len()).map(|i| 5.0 * i as f64).collect(), celsius)
}

fn judge(sensors: &[Series<'_>], kpa: Option<&[f64]>, recipe: &Recipe) -> (Outcome, String) {
    let verdict = hold::verdict(&Cycle { sensors, kpa }, recipe).unwrap();
    (verdict.outcome, verdict.reason)
}

#[test]
fn crossings_are_interpolated_and_the_band_includes_its_ends() {
    let (times, celsius) = cycle(135.0, 180);
    let hold = hold::hold(Series { times: &times, celsius: &celsius }, BAND, None).unwrap();
    // A second of each ramp is above 134.
    assert!((hold.longest_s - 182.0).abs() < 1e-9 && (hold.total_s - 182.0).abs() < 1e-9, "{hold:?}");
    let (times, celsius) = cycle(134.0, 180);
    let at_the_end = hold::hold(Series { times: &times, celsius: &celsius }, BAND, None).unwrap();
    assert_eq!((at_the_end.longest_s, at_the_end.span), (180.0, Some((10.0, 190.0))));
    let (_, celsius) = cycle(137.5, 180);
    let above = hold::hold(Series { times: &times, celsius: &celsius }, BAND, None).unwrap();
    assert!((above.longest_s - 3.0).abs() < 1e-9 && (above.total_s - 6.0).abs() < 1e-9, "{above:?}");
}

#[test]
fn the_longest_stretch_counts_not_the_sum() {
    let times = [0.0, 60.0, 61.0, 62.0, 162.0];
    let celsius = [135.0, 135.0, 133.0, 135.0, 135.0];
    let hold = hold::hold(Series { times: &times, celsius: &celsius }, BAND, None).unwrap();
    assert!((hold.longest_s - 100.5).abs() < 1e-9 && (hold.total_s - 161.0).abs() < 1e-9, "{hold:?}");
    assert_eq!(hold.gap, Some((100.0, 62.0)));
}

#[test]
fn every_outcome_has_its_reason() {
    let (times, good) = cycle(135.0, 180);
    let (_, cold) = cycle(133.9, 180);
    let (short_times, short) = cycle(135.0, 170);
    let series = |celsius| Series { times: &times, celsius };
    assert_eq!(judge(&[series(&good)], None, &RECIPE), (Outcome::Passed, "held for 182.0 s of 180 s".into()));
    let short = judge(&[Series { times: &short_times, celsius: &short }], None, &RECIPE);
    assert_eq!(short, (Outcome::Failed, "held 134 to 137 C for 172.0 s of 180 s".into()));
    // The shortest hold of all sensors decides.
    assert_eq!(judge(&[series(&good), series(&cold)], None, &RECIPE).0, Outcome::Failed);
    assert_eq!(judge(&[], None, &RECIPE).0, Outcome::Indeterminate);
    let single = Series { times: &[0.0], celsius: &[135.0] };
    assert_eq!(judge(&[single], None, &RECIPE).0, Outcome::Indeterminate);
}

/// A gap makes a cycle indeterminate wherever it is, even if everything else passes.
#[test]
fn a_gap_never_passes() {
    let (mut times, celsius) = cycle(135.0, 180);
    for time in &mut times[30..] {
        *time += 6.0;
    }
    let verdict = judge(&[Series { times: &times, celsius: &celsius }], None, &RECIPE);
    assert_eq!(verdict, (Outcome::Indeterminate, "sensor 1: no sample for 11 s from 145 s on, above 10 s".into()));
    let (mut times, celsius) = cycle(135.0, 180);
    times[0] = -20.0;
    assert_eq!(judge(&[Series { times: &times, celsius: &celsius }], None, &RECIPE).0, Outcome::Indeterminate);
}

#[test]
fn steam_must_be_saturated() {
    let (times, celsius) = cycle(135.1, 180);
    let sensors = [Series { times: &times, celsius: &celsius }];
    let recipe = Recipe { saturation_max_k: Some(saturation::DIFFERENCE_MAX), ..RECIPE };
    let kpa = |plateau: f64| vec![plateau; times.len()];
    assert_eq!(judge(&sensors, Some(&kpa(313.0)), &recipe).0, Outcome::Passed);
    let air = judge(&sensors, Some(&kpa(345.0)), &recipe);
    assert_eq!((air.0, air.1.ends_with("K off saturated steam, above 2 K")), (Outcome::Failed, true), "{}", air.1);
    assert_eq!(judge(&sensors, None, &recipe).0, Outcome::Indeterminate);
    let few = hold::verdict(&Cycle { sensors: &sensors, kpa: Some(&[313.0]) }, &recipe);
    assert!(few.unwrap_err().to_string().contains("they must be as many"));
    assert!(saturation::celsius(0.1).is_err() && saturation::celsius(f64::NAN).is_err());
}

proptest! {
    #[test]
    fn conservative_is_never_more(celsius in prop::collection::vec(60.0f64..140.0, 2..50)) {
        let times: Vec<f64> = (0..celsius.len()).map(|i| i as f64).collect();
        let sum = lethality(&times, &celsius, 121.1, 10.0).unwrap();
        prop_assert!(0.0 <= sum.conservative && sum.conservative <= sum.trapezoid);
        let hold = hold::hold(Series { times: &times, celsius: &celsius }, Band { low: 100.0, high: 130.0 }, None).unwrap();
        prop_assert!(0.0 <= hold.longest_s && hold.longest_s <= hold.total_s + 1e-9);
        prop_assert!(hold.total_s <= times[times.len() - 1] + 1e-9);
    }
}
