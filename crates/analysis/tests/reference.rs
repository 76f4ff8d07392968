//! Comparison with scipy (`vectors/scipy_reference.py` computes the values) and with published
//! tables.

#![allow(clippy::unwrap_used, reason = "a failed expectation is how a test fails")]

use analysis::{
    arl::{self, EwmaLimits},
    cusum, ewma,
    regression::Fit,
    special, tolerance, wilson,
};
use serde_json::Value;

fn scipy() -> Value {
    serde_json::from_str(include_str!("vectors/scipy_reference.json")).unwrap()
}

/// Runs over the rows of a table of numbers (true counts as 1); the last number is the expected
/// one.
fn rows(name: &str, mut check: impl FnMut(&[f64], f64)) {
    let all = scipy();
    let rows = all[name].as_array().unwrap();
    assert!(!rows.is_empty());
    for row in rows {
        let number = |value: &Value| value.as_f64().unwrap_or_else(|| f64::from(u8::from(value.as_bool().unwrap())));
        let row: Vec<f64> = row.as_array().unwrap().iter().map(number).collect();
        check(&row[..row.len() - 1], row[row.len() - 1]);
    }
}

#[track_caller]
fn near(ours: f64, theirs: f64, relative: f64, what: &[f64]) {
    let off = (ours - theirs).abs();
    assert!(off <= relative * theirs.abs() + 1e-300, "{what:?}: {ours} instead of {theirs}");
}

#[test]
fn distributions_keep_their_digits_in_the_tails() {
    rows("normal_above", |row, expected| near(special::normal_above(row[0]), expected, 1e-10, row));
    rows("normal_above", |row, expected| near(special::normal_below(-row[0]), expected, 1e-10, row));
    rows("normal_quantile", |row, expected| {
        let ours = special::normal_quantile(row[0]);
        assert!((ours - expected).abs() < 1e-9, "{row:?}: {ours} instead of {expected}");
    });
    rows("chi_square_above", |row, expected| near(special::chi_square_above(row[0], row[1]), expected, 1e-9, row));
    rows("student_above", |row, expected| near(special::student_above(row[0], row[1]), expected, 1e-9, row));
    rows("student_upper_quantile", |row, expected| {
        near(special::student_upper_quantile(row[0], row[1]), expected, 1e-8, row);
    });
    rows("f_quantile", |row, expected| near(special::f_quantile(row[0], row[1], row[2]), expected, 1e-8, row));
}

#[test]
fn tolerance_factors() {
    rows("tolerance_factor", |row, expected| {
        near(tolerance::factor(row[0] as u64, row[1], row[2]).unwrap(), expected, 1e-6, row);
    });
}

#[test]
fn cusum_run_lengths() {
    rows("cusum", |row, expected| {
        let design = cusum::Design { k: row[0], h: row[1], fast_start: row[3] != 0.0 };
        near(arl::cusum(&design, row[2]).unwrap(), expected, 5e-5, row);
    });
}

#[test]
fn ewma_run_lengths() {
    rows("ewma", |row, expected| {
        let design = ewma::Design { lambda: row[0], limit: row[1] };
        near(arl::ewma(&design, EwmaLimits::Fixed, row[2]).unwrap(), expected, 5e-4, row);
    });
}

#[test]
fn line_and_share() {
    let all = scipy();
    let case = &all["regression"];
    let series = |name: &str| -> Vec<f64> {
        case[name].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
    };
    let fit = Fit::of(&series("t"), &series("y")).unwrap();
    for (ours, name) in [
        (fit.slope, "slope"),
        (fit.intercept, "intercept"),
        (fit.se_slope, "se_slope"),
        (fit.se_intercept, "se_intercept"),
    ] {
        near(ours, case[name].as_f64().unwrap(), 1e-11, &[]);
    }
    rows("wilson", |row, high| {
        let share = wilson::share(row[0] as u64, row[1] as u64, row[2]).unwrap();
        assert!((share.low - row[3]).abs() < 1e-10 && (share.high - high).abs() < 1e-10, "{row:?} {share:?}");
    });
}

/// Lucas & Crosier (1982, Technometrics 24:199), table 1: two-sided, k = 0.5, head start h/2.
#[test]
fn fast_initial_response() {
    for (h, shift, plain, fast) in
        [(4.0, 0.0, 168.0, 149.0), (4.0, 1.0, 8.38, 5.29), (5.0, 0.0, 465.0, 430.0), (5.0, 1.0, 10.4, 6.35)]
    {
        for (fast_start, printed) in [(false, plain), (true, fast)] {
            let ours = arl::cusum(&cusum::Design { k: 0.5, h, fast_start }, shift).unwrap();
            assert!((ours / printed - 1.0).abs() < 0.004, "h {h}, shift {shift}: {ours} instead of {printed}");
        }
    }
}

/// Lucas & Saccucci (1990, Technometrics 32:1), as tabled in Montgomery, Introduction to
/// Statistical Quality Control, 9.10.
#[test]
fn published_ewma_run_lengths() {
    for (lambda, limit, shift, printed) in [
        (0.4, 3.054, 0.0, 500.0),
        (0.4, 3.054, 0.5, 71.2),
        (0.4, 3.054, 1.0, 14.3),
        (0.25, 2.998, 0.0, 500.0),
        (0.25, 2.998, 0.5, 48.2),
        (0.25, 2.998, 1.0, 11.1),
        (0.1, 2.814, 0.0, 500.0),
        (0.1, 2.814, 0.5, 31.3),
        (0.1, 2.814, 1.0, 10.3),
        (0.05, 2.615, 0.0, 500.0),
        (0.05, 2.615, 1.0, 11.4),
    ] {
        let ours = arl::ewma(&ewma::Design { lambda, limit }, EwmaLimits::Fixed, shift).unwrap();
        assert!((ours / printed - 1.0).abs() < 0.01, "{lambda} {limit} {shift}: {ours} instead of {printed}");
    }
}
