//! The clustered verdict reaches its confidence if shots of a session resemble each other; the
//! simple verdict does not.

#![allow(clippy::unwrap_used, reason = "a failed expectation is how a test fails")]

use analysis::{clustered::Components, moments::Moments, special::normal_below, tolerance, verdict::Claim};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const CLAIM: Claim = Claim { coverage: 0.95, confidence: 0.95 };

fn normal(random: &mut ChaCha8Rng) -> f64 {
    let (one, other): (f64, f64) = (random.random(), random.random());
    (-2.0 * (1.0 - one).ln()).sqrt() * (std::f64::consts::TAU * other).cos()
}

/// Share of simulated data sets whose interval holds at least the coverage, for the clustered and
/// for the simple interval.
fn reached(shots: &[u64], correlation: f64, rounds: u32, seed: u64) -> (f64, f64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    // Values in nl around a target of 0, with a total standard deviation of 10,000.
    let (between, within) = (1e4 * correlation.sqrt(), 1e4 * (1.0 - correlation).sqrt());
    let (mut clustered, mut simple) = (0, 0);
    let all_shots: u64 = shots.iter().sum();
    let simple_k = tolerance::factor(all_shots, CLAIM.coverage, CLAIM.confidence).unwrap();
    let holds = |mean: f64, half: f64| {
        let inside = normal_below((mean + half) / 1e4) - normal_below((mean - half) / 1e4);
        u32::from(inside >= CLAIM.coverage)
    };
    for _ in 0..rounds {
        let sessions: Vec<Moments> = shots
            .iter()
            .map(|shots| {
                let session = between * normal(&mut random);
                (0..*shots).map(|_| (session + within * normal(&mut random)).round() as i64).collect()
            })
            .collect();
        let components = Components::of(&sessions).unwrap();
        clustered += holds(components.mean, components.factor(CLAIM).unwrap() * components.total().sqrt());
        let mut all = Moments::default();
        sessions.iter().for_each(|session| all.merge(session));
        simple += holds(all.mean().unwrap(), simple_k * all.variance().unwrap().sqrt());
    }
    (f64::from(clustered) / f64::from(rounds), f64::from(simple) / f64::from(rounds))
}

/// 2,000 rounds: three standard errors of 95 % are 1.5 %.
const ROUNDS: u32 = 2_000;

#[test]
fn ten_sessions_of_thirty() {
    for (correlation, simple_expected) in [(0.0, 0.95), (0.3, 0.66), (0.6, 0.48)] {
        let (clustered, simple) = reached(&[30; 10], correlation, ROUNDS, 7);
        println!("10 x 30, correlation {correlation}: clustered {clustered:.3}, simple {simple:.3}");
        assert!((0.935..=0.975).contains(&clustered), "correlation {correlation}: {clustered}");
        assert!((simple - simple_expected).abs() < 0.05, "correlation {correlation}: {simple}");
    }
}

#[test]
fn few_and_uneven_sessions() {
    let uneven: Vec<u64> = vec![4, 60, 12, 33, 7, 25, 48, 18];
    for (shots, name) in [(vec![30; 4], "4 x 30"), (vec![5; 10], "10 x 5"), (uneven, "8 of 4 to 60")] {
        for correlation in [0.0, 0.3, 0.6] {
            let (clustered, simple) = reached(&shots, correlation, ROUNDS, 11);
            println!("{name}, correlation {correlation}: clustered {clustered:.3}, simple {simple:.3}");
            assert!((0.93..=0.99).contains(&clustered), "{name}, correlation {correlation}: {clustered}");
        }
    }
}
