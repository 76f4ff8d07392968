//! Run lengths of the tabular CUSUM.
//!
//! One side: L(u) = 1 + L(0) Phi(k - u - m) + Int_0^h L(y) phi(y + k - u - m) dy with the mean m.
//! The two-sided run length follows from both sides. That is exact for the symmetric chart, also
//! with a head start (Lucas & Crosier 1982).

use super::{POINTS_MAX, SURVIVAL_MIN, beyond, check_drift, check_target, plausible};
use crate::{
    cusum::Design,
    error::{Error, Result, finite, require},
    linear,
    quadrature::Rule,
    root,
    special::{normal_below, normal_density},
};

/// Largest decision limit that is computed, sigma.
const H_MAX: f64 = 100.0;

/// Beyond this value of Siegmund's exponent a side practically never signals.
const EXPONENT_MAX: f64 = 29.0;

/// Mean number of points to a signal of the two-sided chart, with a mean that is `shift` sigma off
/// from the first point on.
///
/// # Errors
/// Parameters out of range; a run length beyond [`super::ARL_MAX`].
pub fn cusum(design: &Design, shift: f64) -> Result<f64> {
    check(design)?;
    finite("shift", shift)?;
    let start = if design.fast_start { 0.5 * design.h } else { 0.0 };
    let toward = OneSide::solve(design, shift.abs())?;
    let Some(toward) = toward else {
        return Err(beyond());
    };
    let near = (toward.at(0.0), toward.at(start));
    let two_sided = match OneSide::solve(design, -shift.abs())? {
        None => near.1,
        Some(away) => {
            let far = (away.at(0.0), away.at(start));
            // (near(s) far(0) + far(s) near(0) - near(0) far(0)) / (near(0) + far(0)), scaled to
            // avoid overflow.
            (near.1 + near.0 * (far.1 / far.0 - 1.0)) / (1.0 + near.0 / far.0)
        }
    };
    plausible(two_sided)
}

/// Mean number of points to a signal while the mean drifts by `drift` sigma from each point to the
/// next, from the first on. The sides count as independent. For a drift this changes the result by
/// less than the in-control alarms do.
///
/// # Errors
/// Parameters out of range; a drift of less than [`super::DRIFT_MIN`].
pub fn cusum_drift(design: &Design, drift: f64) -> Result<f64> {
    check(design)?;
    let drift = check_drift(drift)?.abs();
    let rule = rule(design.h);
    let start = if design.fast_start { 0.5 * design.h } else { 0.0 };
    let (mut upper, mut lower) = (Walk::new(start), Walk::new(start));
    let mut arl = 1.0;
    for point in 1..=POINTS_MAX {
        let mean = drift * point as f64;
        let survival = upper.step(design, &rule, mean) * lower.step(design, &rule, -mean);
        if survival < SURVIVAL_MIN {
            return plausible(arl);
        }
        arl += survival;
    }
    Err(beyond())
}

/// The h with this run length in control.
///
/// # Errors
/// k out of range; a run length that k alone exceeds, or that needs h beyond 100.
pub fn cusum_threshold(k: f64, fast_start: bool, arl: f64) -> Result<f64> {
    check_target(arl)?;
    let design = |h| Design { k, h, fast_start };
    check(&design(1.0))?;
    let wanted = arl.ln();
    let lowest = 1e-6;
    if cusum(&design(lowest), 0.0)? > arl {
        return Err(Error::Parameter {
            name: "arl",
            value: arl,
            right: "longer: with this k even h = 0 has a longer run length",
        });
    }
    let start = root::rising(0.0, 2.0, 2.0, 1e-3, |h| Ok(siegmund(k, h) - wanted)).unwrap_or(1.0);
    root::rising(lowest, start.min(H_MAX), 0.25, 1e-9, |h| Ok(cusum(&design(h), 0.0)?.ln() - wanted))
}

/// ln of Siegmund's approximation (1985) of the two-sided run length in control.
fn siegmund(k: f64, h: f64) -> f64 {
    let (b, k) = (h + 1.166, k.max(1e-3));
    let exponent = 2.0 * k * b;
    ((exponent.exp() - exponent - 1.0) / (4.0 * k * k)).ln()
}

fn check(design: &Design) -> Result<()> {
    design.check()?;
    require("h", design.h, design.h <= H_MAX, "at most 100")?;
    Ok(())
}

fn rule(h: f64) -> Rule {
    Rule::gauss_legendre(32 + (3.0 * h).ceil() as usize, 0.0, h)
}

/// The run length of one side as a function of the sum it starts at.
struct OneSide {
    rule: Rule,
    reference: f64,
    at_zero: f64,
    at_nodes: Vec<f64>,
}

impl OneSide {
    /// `None` if the run length is too long to compute; callers treat it as infinite.
    fn solve(design: &Design, mean: f64) -> Result<Option<Self>> {
        let reference = design.k - mean;
        if 2.0 * reference * (design.h + 1.166) > EXPONENT_MAX {
            return Ok(None);
        }
        let rule = rule(design.h);
        let count = rule.nodes.len() + 1;
        let mut matrix = vec![0.0; count * count];
        let starts = std::iter::once(0.0).chain(rule.nodes.iter().copied());
        for (i, (row, start)) in matrix.chunks_exact_mut(count).zip(starts).enumerate() {
            row[0] = -normal_below(reference - start);
            for (entry, (node, weight)) in row[1..].iter_mut().zip(rule.iter()) {
                *entry = -weight * normal_density(node + reference - start);
            }
            row[i] += 1.0;
        }
        let mut solution = vec![1.0; count];
        linear::solve(&mut matrix, &mut solution)?;
        let at_nodes = solution.split_off(1);
        Ok(Some(Self { rule, reference, at_zero: solution[0], at_nodes }))
    }

    fn at(&self, start: f64) -> f64 {
        if start == 0.0 {
            return self.at_zero;
        }
        let kernel = |node: f64| normal_density(node + self.reference - start);
        let integral: f64 =
            self.rule.iter().zip(&self.at_nodes).map(|((node, weight), value)| weight * value * kernel(node)).sum();
        1.0 + self.at_zero * normal_below(self.reference - start) + integral
    }
}

/// The distribution of a sum that has not signalled: a mass at one place and a density at the
/// nodes.
struct Walk {
    mass: f64,
    place: f64,
    density: Vec<f64>,
}

impl Walk {
    fn new(start: f64) -> Self {
        Self { mass: 1.0, place: start, density: Vec::new() }
    }

    /// Moves the distribution on by one point with this mean. Returns the probability that there is
    /// no signal so far.
    fn step(&mut self, design: &Design, rule: &Rule, mean: f64) -> f64 {
        let reference = design.k - mean;
        let weighted: Vec<(f64, f64)> =
            rule.iter().zip(&self.density).map(|((node, weight), density)| (node, weight * density)).collect();
        let from = || weighted.iter().copied().chain([(self.place, self.mass)]);
        let density: Vec<f64> = rule
            .nodes
            .iter()
            .map(|to| from().map(|(start, mass)| mass * normal_density(to + reference - start)).sum())
            .collect();
        let mass = from().map(|(start, mass)| mass * normal_below(reference - start)).sum();
        *self = Self { mass, place: 0.0, density };
        self.mass + rule.iter().zip(&self.density).map(|((_, weight), density)| weight * density).sum::<f64>()
    }
}
