//! Western Electric rules (Statistical Quality Control Handbook, 1956), for people who read a
//! Shewhart chart.
//!
//! They are for display and never raise an alert. All four together signal once in 91.75 points in
//! control (Champ & Woodall 1987, Technometrics 29:393), more often than any alarm budget allows.

use crate::{Side, shewhart};

/// For each rule from 1 on: least number of values beyond the limit, out of how many last values,
/// and the limit in sigma. The values must be on one side, the newest among them.
const RULES: [(usize, usize, f64); 4] = [(1, 1, 3.0), (2, 3, 2.0), (4, 5, 1.0), (8, 8, 0.0)];

/// Which rules the newest of the standardised values `z` (in sigma, oldest first) breaks, by
/// number:
/// 1. it is beyond 3 sigma;
/// 2. 2 of the last 3 are beyond 2 sigma;
/// 3. 4 of the last 5 are beyond 1 sigma;
/// 4. the last 8 are on one side of the centre.
pub fn rules(z: &[f64]) -> Vec<u8> {
    (1..).zip(broken(z)).filter_map(|(rule, side)| side.map(|_| rule)).collect()
}

/// The side on which each rule is broken.
fn broken(z: &[f64]) -> [Option<Side>; 4] {
    RULES.map(|(least, window, limit)| {
        let side = shewhart::signal(*z.last()?, limit)?;
        let beyond = z.iter().rev().take(window).filter(|z| shewhart::signal(**z, limit) == Some(side)).count();
        (beyond >= least).then_some(side)
    })
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn each_rule_has_a_breach_and_a_near_miss() {
        let check = |z: &[f64], expected: &[u8]| assert_eq!(rules(z), expected, "{z:?}");
        check(&[], &[]);
        check(&[3.1], &[1]);
        check(&[3.0], &[]);
        check(&[2.1, 0.5, 2.1], &[2]);
        check(&[2.1, 0.5, -2.1], &[]);
        check(&[2.1, 0.5, 0.5, 2.1], &[]);
        check(&[2.1, 2.1, 0.5], &[]);
        check(&[-1.1, -1.1, 0.5, -1.1, -1.1], &[3]);
        check(&[-1.1, -1.1, 0.5, 0.5, -1.1, -1.1], &[]);
        check(&[0.1; 8], &[4]);
        check(&[0.1; 7], &[]);
        check(&[0.1, 0.1, 0.1, 0.0, 0.1, 0.1, 0.1, 0.1], &[]);
        check(&[-3.5; 8], &[1, 2, 3, 4]);
        assert_eq!(broken(&[-3.5])[0], Some(Side::Lower));
        assert_eq!(broken(&[3.5])[0], Some(Side::Upper));
    }

    #[test]
    fn all_four_signal_by_chance_as_often_as_published() {
        const RUNS: u32 = 20_000;
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut normal = || {
            let (one, other): (f64, f64) = (random.random(), random.random());
            (-2.0 * (1.0 - one).ln()).sqrt() * (std::f64::consts::TAU * other).cos()
        };
        let mut points = 0;
        for _ in 0..RUNS {
            let mut z = Vec::new();
            while z.is_empty() || broken(&z) == [None; 4] {
                z.push(normal());
            }
            points += z.len();
        }
        // The standard error of the mean is about 0.6.
        let length = points as f64 / f64::from(RUNS);
        assert!((length - 91.75).abs() < 2.0, "{length}");
    }
}
