//! NIST Statistical Reference Datasets: certified values of univariate summaries and of a straight
//! line.

#![allow(clippy::unwrap_used, reason = "a failed expectation is how a test fails")]

use analysis::{regression::Fit, sample::Sample};

/// How many leading digits agree.
fn digits(ours: f64, certified: f64) -> f64 {
    if ours == certified { 16.0 } else { -((ours - certified) / certified).abs().log10() }
}

#[test]
fn numerical_accuracy_1_to_4() {
    let alternating = |first: f64, low: f64, high: f64, pairs: usize| {
        let mut x = vec![first];
        x.extend((0..pairs).flat_map(|_| [low, high]));
        x
    };
    for (name, x, mean, sd) in [
        ("NumAcc1", vec![10_000_001.0, 10_000_003.0, 10_000_002.0], 10_000_002.0, 1.0),
        ("NumAcc2", alternating(1.2, 1.1, 1.3, 500), 1.2, 0.1),
        ("NumAcc3", alternating(1_000_000.2, 1_000_000.1, 1_000_000.3, 500), 1_000_000.2, 0.1),
        ("NumAcc4", alternating(10_000_000.2, 10_000_000.1, 10_000_000.3, 500), 10_000_000.2, 0.1),
    ] {
        let sample = Sample::of(&x).unwrap();
        assert!(digits(sample.mean.unwrap(), mean) > 15.0, "{name}: mean {sample:?}");
        assert!(digits(sample.sd.unwrap(), sd) > 15.0, "{name}: standard deviation {sample:?}");
    }
}

#[test]
fn norris() {
    let y = [
        0.1, 338.8, 118.1, 888.0, 9.2, 228.1, 668.5, 998.5, 449.1, 778.9, 559.2, 0.3, 0.1, 778.1, 668.8, 339.3, 448.9,
        10.8, 557.7, 228.3, 998.0, 888.8, 119.6, 0.3, 0.6, 557.6, 339.3, 888.0, 998.5, 778.9, 10.2, 117.6, 228.9,
        668.4, 449.2, 0.2,
    ];
    let x = [
        0.2, 337.4, 118.2, 884.6, 10.1, 226.5, 666.3, 996.3, 448.6, 777.0, 558.2, 0.4, 0.6, 775.5, 666.9, 338.0, 447.5,
        11.6, 556.0, 228.1, 995.8, 887.6, 120.2, 0.3, 0.3, 556.8, 339.1, 887.2, 999.0, 779.0, 11.1, 118.3, 229.2,
        669.1, 448.9, 0.5,
    ];
    let fit = Fit::of(&x, &y).unwrap();
    for (ours, certified) in [
        (fit.slope, 1.002_116_818_020_45),
        (fit.intercept, -0.262_323_073_774_029),
        (fit.se_slope, 0.429_796_848_199_937e-3),
        (fit.se_intercept, 0.232_818_234_301_152),
        (fit.residual_sd, 0.884_796_396_144_373),
    ] {
        assert!(digits(ours, certified) > 12.0, "{ours} instead of {certified}");
    }
}
