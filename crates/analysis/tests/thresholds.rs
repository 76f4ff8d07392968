//! SpecificationLimits solved from run lengths.

#![allow(clippy::unwrap_used, reason = "a failed expectation is how a test fails")]

use analysis::{
    arl::{self, EwmaLimits},
    cusum, ewma, shewhart,
};
use proptest::prelude::*;

#[test]
fn known_limits() {
    for (arl, h, limit) in [(500.0, 5.071, 2.814), (1e4, 8.053, 3.749), (1e5, 10.355, 4.322)] {
        let ours = arl::cusum_threshold(0.5, false, arl).unwrap();
        assert!((ours - h).abs() < 6e-4, "{arl}: h {ours} instead of {h}");
        let ours = arl::ewma_threshold(0.1, EwmaLimits::Fixed, arl).unwrap();
        assert!((ours - limit).abs() < 6e-4, "{arl}: limit {ours} instead of {limit}");
    }
}

#[test]
fn a_limit_gives_the_run_length_it_was_solved_for() {
    for arl in [20.0, 370.0, 3e4, 1e7] {
        for k in [0.25, 0.5, 1.0] {
            for fast_start in [false, true] {
                let h = arl::cusum_threshold(k, fast_start, arl).unwrap();
                let back = arl::cusum(&cusum::Design { k, h, fast_start }, 0.0).unwrap();
                assert!((back / arl - 1.0).abs() < 1e-5, "k {k}, h {h}: {back} instead of {arl}");
            }
        }
        for lambda in [0.05, 0.2, 1.0] {
            for limits in [EwmaLimits::Fixed, EwmaLimits::TimeVarying] {
                let limit = arl::ewma_threshold(lambda, limits, arl).unwrap();
                let back = arl::ewma(&ewma::Design { lambda, limit }, limits, 0.0).unwrap();
                assert!((back / arl - 1.0).abs() < 1e-5, "lambda {lambda}: {back} instead of {arl}");
            }
        }
    }
}

/// An EWMA with lambda 1 and a CUSUM with h near 0 are Shewhart charts.
#[test]
fn border_cases_are_shewhart_charts() {
    for shift in [0.0, 0.7, 2.0] {
        let expected = shewhart::arl(3.0, shift).unwrap();
        for limits in [EwmaLimits::Fixed, EwmaLimits::TimeVarying] {
            let ewma = arl::ewma(&ewma::Design { lambda: 1.0, limit: 3.0 }, limits, shift).unwrap();
            assert!((ewma / expected - 1.0).abs() < 1e-9, "{ewma} instead of {expected}");
        }
        let cusum = arl::cusum(&cusum::Design { k: 3.0, h: 1e-9, fast_start: false }, shift).unwrap();
        assert!((cusum / expected - 1.0).abs() < 1e-6, "{cusum} instead of {expected}");
    }
}

#[test]
fn detection_as_published() {
    let limit = arl::ewma_threshold(0.05, EwmaLimits::Fixed, 1e4).unwrap();
    let design = ewma::Design { lambda: 0.05, limit };
    let shifted = arl::ewma(&design, EwmaLimits::Fixed, 1.0).unwrap();
    assert!((shifted - 17.5).abs() < 0.1, "{shifted}");
    let ramp = arl::ewma_drift(&design, EwmaLimits::Fixed, 0.01).unwrap();
    assert!((ramp - 69.0).abs() < 1.0, "{ramp}");
}

/// Narrower early limits shorten the in-control run length, and detect an early shift sooner.
#[test]
fn time_varying_limits_have_run_lengths_of_their_own() {
    let design = ewma::Design { lambda: 0.05, limit: 2.615 };
    let arl = |limits, shift| arl::ewma(&design, limits, shift).unwrap();
    assert!(arl(EwmaLimits::TimeVarying, 0.0) < 0.95 * arl(EwmaLimits::Fixed, 0.0));
    assert!(arl(EwmaLimits::TimeVarying, 1.0) < 0.8 * arl(EwmaLimits::Fixed, 1.0));
}

#[test]
fn what_cannot_be_computed_is_refused() {
    let cusum = |k, h| arl::cusum(&cusum::Design { k, h, fast_start: false }, 0.0);
    assert!(cusum(0.5, 60.0).is_err() && cusum(-0.1, 4.0).is_err() && cusum(0.5, 0.0).is_err());
    assert!(cusum(0.5, f64::NAN).is_err() && cusum(0.5, 101.0).is_err());
    let ewma = |lambda, limit| arl::ewma(&ewma::Design { lambda, limit }, EwmaLimits::Fixed, 0.0);
    assert!(ewma(0.1, 7.4).is_err() && ewma(0.0, 3.0).is_err() && ewma(1.1, 3.0).is_err() && ewma(0.1, -1.0).is_err());
    assert!(arl::cusum_threshold(3.0, false, 100.0).is_err() && arl::cusum_threshold(0.5, false, 1.0).is_err());
    assert!(arl::cusum_drift(&cusum::Design { k: 0.5, h: 5.0, fast_start: false }, 0.0).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn limits_rise_with_the_run_length(k in 0.2f64..1.2, lambda in 0.04f64..1.0, ln_arl in 4.0f64..13.0, more in 0.1f64..2.0) {
        let (short, long) = (ln_arl.exp(), (ln_arl + more).exp());
        for fast_start in [false, true] {
            prop_assert!(arl::cusum_threshold(k, fast_start, short).unwrap() < arl::cusum_threshold(k, fast_start, long).unwrap());
        }
        let limit = |arl| arl::ewma_threshold(lambda, EwmaLimits::Fixed, arl).unwrap();
        prop_assert!(limit(short) < limit(long));
        prop_assert!(shewhart::threshold(short).unwrap() < shewhart::threshold(long).unwrap());
    }

    #[test]
    fn run_lengths_fall_with_the_shift(k in 0.2f64..1.0, h in 2.0f64..7.0, shift in 0.0f64..2.0, more in 0.05f64..1.0) {
        let arl = |shift| arl::cusum(&cusum::Design { k, h, fast_start: false }, shift).unwrap();
        prop_assert!(arl(shift + more) < arl(shift));
        prop_assert!((arl(shift) / arl(-shift) - 1.0).abs() < 1e-9);
    }
}
