//! The project's test vectors: every case of every file.

#![allow(clippy::unwrap_used, reason = "a failed expectation is how a test fails")]

use analysis::{
    arl, clustered, cusum, ewma, gs1,
    lethality::lethality,
    sample::{FloatMoments, Sample},
    saturation, tolerance,
    verdict::{self, Claim, SpecificationLimits},
};
use serde_json::Value;

fn file(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn accuracy() -> Value {
    file(include_str!("vectors/accuracy.json"))
}

fn drift() -> Value {
    file(include_str!("vectors/drift.json"))
}

fn sterility() -> Value {
    file(include_str!("vectors/sterility.json"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

#[track_caller]
fn close(ours: f64, theirs: f64, tolerance: f64) {
    assert!((ours - theirs).abs() <= tolerance, "{ours} instead of {theirs}");
}

#[test]
fn tolerance_factors() {
    let table = &accuracy()["tolerance_factor_two_sided"];
    for case in table["cases"].as_array().unwrap() {
        let n = case["n"].as_u64().unwrap();
        let k = tolerance::factor(n, number(&case["coverage"]), number(&table["confidence"])).unwrap();
        close(k, number(&case["k"]), number(&table["tolerance_abs"]));
    }
}

#[test]
fn verdicts() {
    let table = &accuracy()["verdict"];
    let claim = Claim { coverage: number(&table["coverage"]), confidence: number(&table["confidence"]) };
    for case in table["cases"].as_array().unwrap() {
        let limits = SpecificationLimits::dose(number(&case["set"]), number(&table["dose_resolution"]), 0.05).unwrap();
        let (mean, sd) = (number(&case["mean"]), number(&case["sd"]));
        let verdict = verdict::simple(table["n"].as_u64().unwrap(), mean, sd, limits, claim).unwrap();
        let interval = numbers(&case["interval"]);
        close(verdict.interval.0, interval[0], 1e-3);
        close(verdict.interval.1, interval[1], 1e-3);
        assert_eq!(verdict.pass, case["pass"].as_bool().unwrap());
    }
}

#[test]
fn merged_moments() {
    let case = &accuracy()["merge_moments"];
    let (a, b) = (numbers(&case["a"]), numbers(&case["b"]));
    for (left, right) in [(&a, &b), (&b, &a)] {
        let mut merged: FloatMoments = left.iter().copied().collect();
        merged.merge(&right.iter().copied().collect());
        assert_eq!(merged.n, case["n"].as_u64().unwrap());
        close(merged.mean, number(&case["mean"]), 1e-6);
        close(merged.m2, number(&case["m2"]), 1e-6);
    }
    let all = Sample::of(&[a, b].concat()).unwrap();
    close(all.mean.unwrap(), number(&case["mean"]), 1e-6);
    close(all.sd.unwrap().powi(2) * 6.0, number(&case["m2"]), 1e-6);
}

#[test]
fn nist_cusum() {
    let case = &drift()["cusum_nist_6_3_2_3"];
    let design = cusum::Design { k: number(&case["k"]), h: number(&case["h"]), fast_start: false };
    let target = number(&case["target"]);
    let points = cusum::chart(design, numbers(&case["x"]).into_iter().map(|x| x - target));
    let first = points.iter().position(|point| point.signal.is_some()).unwrap() + 1;
    assert_eq!(first as u64, case["first_alarm_index_1_based"].as_u64().unwrap());
    for (point, upper) in points[12..].iter().zip(numbers(&case["s_hi_13_to_20"])) {
        close(point.upper, upper, 1e-9);
    }
    assert_eq!(points[first - 1].onset, Some(12));
}

#[test]
fn run_lengths() {
    for case in drift()["arl_in_control_two_sided"].as_array().unwrap() {
        let shift = number(&case["shift_sigma"]);
        let arl = match case["chart"].as_str().unwrap() {
            "cusum" => {
                let design = cusum::Design { k: number(&case["k"]), h: number(&case["h"]), fast_start: false };
                arl::cusum(&design, shift).unwrap()
            }
            _ => {
                let design = ewma::Design { lambda: number(&case["lambda"]), limit: number(&case["limit"]) };
                arl::ewma(&design, arl::EwmaLimits::Fixed, shift).unwrap()
            }
        };
        close(arl, number(&case["arl"]), 0.005 * number(&case["arl"]));
    }
}

#[test]
fn lethalities() {
    for case in sterility()["lethality"].as_array().unwrap() {
        let hold = &case["hold"][0];
        let (temperature, seconds) = (number(&hold[0]), number(&hold[1]));
        let lethality =
            lethality(&[0.0, seconds], &[temperature, temperature], number(&case["t_ref_c"]), 10.0).unwrap();
        let expected = case.get("f0_min").map_or_else(|| number(&case["a0_s"]), |minutes| 60.0 * number(minutes));
        close(lethality.trapezoid, expected, 0.005);
        close(lethality.conservative, expected, 0.005);
    }
}

#[test]
fn saturation_temperatures() {
    for case in sterility()["saturation_temperature_three_constant"].as_array().unwrap() {
        close(saturation::celsius(number(&case["kpa_abs"])).unwrap(), number(&case["c"]), 1e-3);
    }
}

#[test]
fn element_string() {
    let case = &sterility()["gs1"];
    let read = gs1::ElementString::parse(case["element_string"].as_str().unwrap(), 2026);
    assert_eq!(read.is_ok(), case["check_digit_valid"].as_bool().unwrap());
    assert_eq!(read.unwrap().get("10"), Some("A213B1"));
}

/// If shots differ only within their session, the clustered verdict is hardly stricter than the
/// simple one.
#[test]
fn clustered_components_of_the_vector_values() {
    let sessions = [[98, 101, 100, 99], [104, 106, 102, 100]].map(|values| values.into_iter().collect());
    let components = clustered::Components::of(&sessions).unwrap();
    close(components.mean, 101.25, 1e-12);
    close(components.of_means, (99.5f64 - 103.0).powi(2) / 2.0, 1e-12);
}
