//! Run lengths of the EWMA.
//!
//! With fixed limits +-c, c = limit sqrt(lambda / (2 - lambda)): L(u) = 1 + 1/lambda Int_-c^c L(y)
//! phi((y - (1 - lambda) u) / lambda - m) dy (Crowder 1987). With time-varying limits, the density
//! of the average is followed from point to point until the limits have settled. From there on L
//! gives the rest of the run.

use super::{ARL_MAX, POINTS_MAX, SURVIVAL_MIN, beyond, check_drift, check_target, plausible};
use crate::{
    error::{Result, finite, require},
    ewma::Design,
    linear,
    quadrature::Rule,
    root, shewhart,
    special::normal_density,
};

/// Which limits a chart has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EwmaLimits {
    /// The asymptotic limits from the first point on, as in published tables.
    Fixed,
    /// Limits with the exact variance, as [`crate::ewma`] draws them: narrower at the start.
    TimeVarying,
}

/// The limits count as settled when the exact variance is this close to the asymptotic one.
const SETTLED: f64 = 1e-10;

/// Mean number of points to a signal, with a mean that is `shift` sigma off from the first point
/// on. The average starts in the centre.
///
/// # Errors
/// Parameters out of range; a run length beyond [`super::ARL_MAX`].
pub fn ewma(design: &Design, limits: EwmaLimits, shift: f64) -> Result<f64> {
    check(design)?;
    finite("shift", shift)?;
    let settled = Settled::solve(design, shift)?;
    let varying = limits == EwmaLimits::TimeVarying;
    let mut walk = Walk::new(*design);
    let mut arl = 1.0;
    for point in 1..=POINTS_MAX {
        let kept = (2.0 * point as f64 * (-design.lambda).ln_1p()).exp();
        if !varying || kept < SETTLED {
            return plausible(arl - walk.survival + settled.from(&walk, design, shift));
        }
        let survival = walk.step(design.bound(point), shift);
        if survival < SURVIVAL_MIN {
            return plausible(arl);
        }
        arl += survival;
    }
    Err(beyond())
}

/// Mean number of points to a signal while the mean drifts by `drift` sigma from each point to the
/// next, starting with the first.
///
/// # Errors
/// Parameters out of range; a drift of less than [`super::DRIFT_MIN`].
pub fn ewma_drift(design: &Design, limits: EwmaLimits, drift: f64) -> Result<f64> {
    check(design)?;
    let drift = check_drift(drift)?;
    let asymptotic = design.limit * design.spread();
    let mut walk = Walk::new(*design);
    let mut arl = 1.0;
    for point in 1..=POINTS_MAX {
        let bound = if limits == EwmaLimits::Fixed { asymptotic } else { design.bound(point) };
        let survival = walk.step(bound, drift * point as f64);
        if survival < SURVIVAL_MIN {
            return plausible(arl);
        }
        arl += survival;
    }
    Err(beyond())
}

/// The limit with this run length in control.
///
/// # Errors
/// lambda out of range, a run length outside 1 to 1e10.
pub fn ewma_threshold(lambda: f64, limits: EwmaLimits, arl: f64) -> Result<f64> {
    check_target(arl)?;
    check(&Design { lambda, limit: 1.0 })?;
    // This is the answer for lambda = 1; a smaller lambda needs a smaller limit.
    let start = shewhart::threshold(arl)?;
    let wanted = arl.ln();
    root::rising(0.01, start, 0.25, 1e-9, |limit| Ok(ewma(&Design { lambda, limit }, limits, 0.0)?.ln() - wanted))
}

fn check(design: &Design) -> Result<()> {
    design.check()?;
    require("lambda", design.lambda, design.lambda >= 0.001, "at least 0.001")?;
    require("limit", design.limit, design.limit <= 7.5, "at most 7.5")?;
    Ok(())
}

fn rule(design: &Design, bound: f64) -> Rule {
    // The kernel is lambda wide. The number of nodes follows the asymptotic limits, so it stays the
    // same over time.
    let widths = 2.0 * design.limit * design.spread() / design.lambda;
    Rule::gauss_legendre(32 + (3.0 * widths).ceil() as usize, -bound, bound)
}

/// The run length with settled limits, at the nodes.
struct Settled {
    rule: Rule,
    at_nodes: Vec<f64>,
}

impl Settled {
    fn solve(design: &Design, shift: f64) -> Result<Self> {
        let rule = rule(design, design.limit * design.spread());
        let count = rule.nodes.len();
        let mut matrix = vec![0.0; count * count];
        for (i, row) in matrix.chunks_exact_mut(count).enumerate() {
            for (entry, (node, weight)) in row.iter_mut().zip(rule.iter()) {
                *entry = -weight * kernel(design.lambda, rule.nodes[i], node, shift);
            }
            row[i] += 1.0;
        }
        let mut at_nodes = vec![1.0; count];
        linear::solve(&mut matrix, &mut at_nodes)?;
        // If the equation is too ill-conditioned, it gives a negative or an enormous length.
        if at_nodes.iter().any(|length| !(1.0..=10.0 * ARL_MAX).contains(length)) {
            return Err(beyond());
        }
        Ok(Self { rule, at_nodes })
    }

    fn at(&self, lambda: f64, start: f64, shift: f64) -> f64 {
        let kernel = |node| kernel(lambda, start, node, shift);
        1.0 + self.rule.iter().zip(&self.at_nodes).map(|((node, weight), at)| weight * at * kernel(node)).sum::<f64>()
    }

    /// The remaining run length, weighted with the probability that the chart has not signalled.
    fn from(&self, walk: &Walk, design: &Design, shift: f64) -> f64 {
        walk.states.iter().map(|(place, mass)| mass * self.at(design.lambda, *place, shift)).sum()
    }
}

/// Density of the next average at `to`, from an average of `start`.
fn kernel(lambda: f64, start: f64, to: f64, mean: f64) -> f64 {
    normal_density((to - (1.0 - lambda) * start) / lambda - mean) / lambda
}

/// The distribution of an average that has not signalled: places and masses.
struct Walk {
    design: Design,
    states: Vec<(f64, f64)>,
    survival: f64,
}

impl Walk {
    fn new(design: Design) -> Self {
        Self { design, states: vec![(0.0, 1.0)], survival: 1.0 }
    }

    /// Moves the distribution on by one point with this mean, within +-`bound`. Returns the
    /// probability that there is no signal so far.
    fn step(&mut self, bound: f64, mean: f64) -> f64 {
        let lambda = self.design.lambda;
        let density = |to| self.states.iter().map(|(start, mass)| mass * kernel(lambda, *start, to, mean)).sum::<f64>();
        self.states = rule(&self.design, bound).iter().map(|(to, weight)| (to, weight * density(to))).collect();
        self.survival = self.states.iter().map(|(_, mass)| mass).sum();
        self.survival
    }
}
