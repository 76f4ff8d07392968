//! Properties that hold for any numbers.

#![allow(clippy::unwrap_used, reason = "a failed expectation is how a test fails")]

use std::time::{Duration, Instant};

use analysis::{
    clustered::Components,
    moments::Moments,
    regression::Fit,
    sample::{FloatMoments, Sample},
    tolerance,
    verdict::{self, Claim, SpecificationLimits},
    wilson,
};
use proptest::prelude::*;

const CLAIM: Claim = Claim { coverage: 0.95, confidence: 0.95 };

fn values() -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec((-2_000_000i32..2_000_000).prop_map(|value| f64::from(value) / 100.0), 2..40)
}

fn near(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-9 * one.abs().max(other.abs()).max(1.0)
}

proptest! {
    /// The order changes Chan's update by rounding only, and does not change the exact sums.
    #[test]
    fn moments_do_not_depend_on_order(x in values(), cut in 0usize..40) {
        let cut = cut.min(x.len());
        let whole: FloatMoments = x.iter().copied().collect();
        let mut merged: FloatMoments = x[cut..].iter().copied().collect();
        merged.merge(&x[..cut].iter().copied().collect());
        prop_assert!(merged.n == whole.n && near(merged.mean, whole.mean));
        prop_assert!((merged.m2 - whole.m2).abs() <= 1e-9 * whole.m2.max(1.0));
        let mut reversed = x.clone();
        reversed.reverse();
        prop_assert_eq!(Sample::of(&x), Sample::of(&reversed));
        let sample = Sample::of(&x).unwrap();
        prop_assert!(near(sample.mean.unwrap(), whole.mean));
        prop_assert!((sample.sd.unwrap().powi(2) - whole.variance().unwrap()).abs() <= 1e-8 * whole.m2.max(1.0));
    }

    #[test]
    fn figures_follow_scale_and_offset(x in values(), scale in 1i32..50, offset in -1_000i32..1_000) {
        let (scale, offset) = (f64::from(scale), f64::from(offset));
        let moved: Vec<f64> = x.iter().map(|x| scale * x + offset).collect();
        let (one, other) = (Sample::of(&x).unwrap(), Sample::of(&moved).unwrap());
        prop_assert!(near(scale * one.mean.unwrap() + offset, other.mean.unwrap()));
        prop_assert!(near(scale * one.sd.unwrap(), other.sd.unwrap()));
    }

    #[test]
    fn verdicts_follow_scale_and_offset(mean in -1.0f64..1.0, sd in 0.01f64..0.6, n in 2u64..200, scale in 0.1f64..1e4) {
        let limits = |scale: f64| SpecificationLimits { low: -scale, high: scale };
        let one = verdict::simple(n, mean, sd, limits(1.0), CLAIM).unwrap();
        let other = verdict::simple(n, scale * mean, scale * sd, limits(scale), CLAIM).unwrap();
        // They may differ only if rounding decides.
        prop_assert!(one.pass == other.pass || (one.k_actual - one.k).abs() < 1e-9);
        prop_assert!(near(scale * one.interval.0, other.interval.0) && near(scale * one.interval.1, other.interval.1));
        prop_assert_eq!(one.pass, one.k_actual >= one.k);
    }

    #[test]
    fn factors_rise_with_what_is_claimed(n in 2u64..3_000, coverage in 0.5f64..0.99, confidence in 0.5f64..0.99, more in 0.001f64..0.009) {
        let k = tolerance::factor(n, coverage, confidence).unwrap();
        prop_assert!(k < tolerance::factor(n, coverage + more, confidence).unwrap());
        prop_assert!(k < tolerance::factor(n, coverage, confidence + more).unwrap());
        prop_assert!(k > tolerance::factor(n + 1, coverage, confidence).unwrap());
    }

    #[test]
    fn sessions_may_come_in_any_order(sessions in prop::collection::vec(prop::collection::vec(-500i64..500, 1..8), 2..8)) {
        let all: Vec<Moments> = sessions.iter().map(|session| session.iter().copied().collect()).collect();
        let mut reversed = all.clone();
        reversed.reverse();
        let (one, other) = (Components::of(&all).unwrap(), Components::of(&reversed).unwrap());
        prop_assert!(near(one.mean, other.mean) && near(one.total(), other.total()));
        let (k, again) = (one.factor(CLAIM).unwrap(), other.factor(CLAIM).unwrap());
        prop_assert!((k / again - 1.0).abs() < 1e-6);
        // Never better than independent values, and never worse than one value for each session.
        prop_assert!(k >= tolerance::factor(one.values, 0.95, 0.95).unwrap() * (1.0 - 1e-9));
        prop_assert!(k <= tolerance::factor(one.sessions, 0.95, 0.95).unwrap() * (1.0 + 1e-9));
    }

    #[test]
    fn a_line_through_points_on_it_is_found(slope in -5.0f64..5.0, intercept in -100.0f64..100.0, n in 3usize..40) {
        let t: Vec<f64> = (0..n).map(|i| i as f64 * 1.5).collect();
        let y: Vec<f64> = t.iter().map(|t| intercept + slope * t).collect();
        let fit = Fit::of(&t, &y).unwrap();
        prop_assert!(near(fit.slope, slope) && near(fit.intercept, intercept) && fit.residual_sd < 1e-9);
    }

    #[test]
    fn shares_are_in_their_interval(n in 1u64..5_000, part in 0.0f64..1.0) {
        let inside = (part * n as f64) as u64;
        let share = wilson::share(inside, n, 0.95).unwrap();
        prop_assert!(0.0 <= share.low && share.low <= share.share && share.share <= share.high && share.high <= 1.0);
    }
}

#[test]
fn a_table_of_factors_takes_less_than_a_second() {
    let started = Instant::now();
    let mut before = f64::INFINITY;
    for n in (2..=10_000).step_by(10) {
        let k = tolerance::factor(n, 0.95, 0.95).unwrap();
        assert!(k < before, "n {n}");
        before = k;
    }
    let took = started.elapsed();
    println!("1,000 tolerance factors in {took:?}");
    // A loaded machine is several times slower; a worse algorithm is slower by more than that.
    assert!(took < Duration::from_secs(20), "{took:?} (a second on an idle machine, built with optimisation)");
    let far = tolerance::factor(50_000_000, 0.95, 0.95).unwrap();
    assert!(far > 1.959_963_984 && far < 1.961, "{far}");
}
