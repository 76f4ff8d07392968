//! Two-sided tolerance factors of the normal distribution.
//!
//! With n values, mean m and standard deviation s, the interval m +- k s holds at least the share
//! `coverage` of the population with probability `confidence`. k is exact, not Howe's
//! approximation: it solves
//!
//! 2 Int_0^inf sqrt(n) phi(u sqrt(n)) P(chi2_df > df r(u)^2 / k^2) du = confidence, Phi(u + r) -
//! Phi(u - r) = coverage
//!
//! with df = n - 1 (Wald & Wolfowitz 1946; tables: Odeh & Owen 1980, ISO 16269-6). The integral is
//! over w = u sqrt(n) by Gauss-Legendre. Newton's method solves the equation from Howe's value.

use std::sync::OnceLock;

use crate::{
    error::{Error, Result, fraction, require},
    quadrature::Rule,
    special::{chi_square_above, ln_gamma, normal_above, normal_density, normal_quantile, normal_upper_quantile},
};

/// Nodes of the quadrature and its upper end. Beyond it the normal density adds less than 1e-16.
const NODES: usize = 32;
const W_MAX: f64 = 8.3;

/// The factor k for `n` values: mean +- k sd holds `coverage` of the population with `confidence`.
///
/// # Errors
/// n below 2; coverage or confidence not between 0 and 1.
pub fn factor(n: u64, coverage: f64, confidence: f64) -> Result<f64> {
    if n < 2 {
        return Err(Error::Parameter { name: "n", value: n as f64, right: "at least 2" });
    }
    factor_of(n as f64, (n - 1) as f64, coverage, confidence)
}

/// The factor for a mean with the precision of `effective_n` independent values, and an independent
/// variance with `df` degrees of freedom. Neither must be a whole number.
///
/// # Errors
/// `effective_n` or `df` not above 0; coverage or confidence not between 0 and 1.
pub fn factor_of(effective_n: f64, df: f64, coverage: f64, confidence: f64) -> Result<f64> {
    crate::error::positive("effective n", effective_n)?;
    crate::error::positive("df", df)?;
    fraction("coverage", coverage)?;
    fraction("confidence", confidence)?;
    let root_n = effective_n.sqrt();
    let terms: Vec<(f64, f64)> = rule()
        .iter()
        .map(|(w, weight)| (2.0 * weight * normal_density(w), half_width(w / root_n, coverage).powi(2) * df))
        .collect();
    let howe = normal_upper_quantile(0.5 * (1.0 - coverage))
        * ((1.0 + 1.0 / effective_n) * df / chi_square_quantile_near(1.0 - confidence, df)).sqrt();
    solve(&terms, df, confidence, howe)
}

fn rule() -> &'static Rule {
    static RULE: OnceLock<Rule> = OnceLock::new();
    RULE.get_or_init(|| Rule::gauss_legendre(NODES, 0.0, W_MAX))
}

/// Newton's method on ln k, inside a bracket that each value narrows.
fn solve(terms: &[(f64, f64)], df: f64, confidence: f64, start: f64) -> Result<f64> {
    let half = 0.5 * df;
    let ln_norm = ln_gamma(half);
    let (mut low, mut high) = (f64::NEG_INFINITY, f64::INFINITY);
    let mut ln_k = start.ln();
    for _ in 0..200 {
        let inverse_square = (-2.0 * ln_k).exp();
        let (mut value, mut slope) = (-confidence, 0.0);
        for (weight, scaled) in terms {
            let x = scaled * inverse_square;
            value += weight * chi_square_above(x, df);
            // d/dln(k) of P(chi2 > c/k^2) is 2 x density(x).
            slope += weight * 2.0 * (half * (0.5 * x).ln() - 0.5 * x - ln_norm).exp();
        }
        if value < 0.0 {
            low = ln_k
        } else {
            high = ln_k
        }
        let mut next = ln_k - value / slope;
        if !(next > low && next < high) {
            next = match (low.is_finite(), high.is_finite()) {
                (true, true) => 0.5 * (low + high),
                (true, false) => low + 1.0,
                _ => high - 1.0,
            };
        }
        let step = (next - ln_k).abs();
        ln_k = next;
        if step < 1e-10 || high - low < 1e-14 {
            let k = ln_k.exp();
            return require("tolerance factor", k, k.is_finite(), "finite; more values or less confidence are needed");
        }
    }
    Err(Error::Unsolvable(format!("no tolerance factor for {df} degrees of freedom at confidence {confidence}")))
}

/// The r with Phi(u + r) - Phi(u - r) = `coverage`, by Newton's method inside a bracket. It uses
/// the probability outside, so a coverage close to 1 keeps its digits.
fn half_width(u: f64, coverage: f64) -> f64 {
    let outside = 1.0 - coverage;
    let central = normal_upper_quantile(0.5 * outside);
    let (mut low, mut high) = (central.max(u + normal_quantile(coverage)), u + central);
    let mut r = low;
    for _ in 0..100 {
        let excess = normal_above(r - u) + normal_above(r + u) - outside;
        if excess > 0.0 {
            low = low.max(r)
        } else {
            high = high.min(r)
        }
        let mut next = r + excess / (normal_density(r - u) + normal_density(r + u));
        if !(next >= low && next <= high) {
            next = 0.5 * (low + high);
        }
        let step = (next - r).abs();
        r = next;
        if step <= 1e-14 * r.max(1e-3) {
            break;
        }
    }
    r
}

/// A starting value for the chi-square quantile: Wilson & Hilferty's. If that fails (few degrees of
/// freedom, lower tail), the first term of the series.
fn chi_square_quantile_near(p: f64, df: f64) -> f64 {
    let spread = 2.0 / (9.0 * df);
    let cubed = (1.0 - spread + normal_quantile(p) * spread.sqrt()).max(0.0).powi(3) * df;
    let series = 2.0 * ((p.ln() + ln_gamma(0.5 * df + 1.0)) * 2.0 / df).exp();
    if df < 3.0 { series.max(cubed) } else { cubed.max(1e-9) }
}
