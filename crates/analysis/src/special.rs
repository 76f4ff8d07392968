//! Probability distributions for the other modules.
//!
//! `statrs` evaluates the special functions. The functions here keep the digits of small tail
//! probabilities. Tested against scipy in `tests/reference.rs`.

use std::f64::consts::{PI, SQRT_2};

use statrs::function::{beta::beta_reg, erf, gamma};

/// From this many degrees of freedom on, the chi-square distribution counts as that of a cubed
/// normal variable (Wilson & Hilferty 1931). The error of the probability is then below 1e-6.
const CUBE_ROOT_FROM: f64 = 2e6;

/// Density of the standard normal distribution.
pub fn normal_density(x: f64) -> f64 {
    (-0.5 * x * x).exp() / (2.0 * PI).sqrt()
}

/// P(Z <= x) of the standard normal distribution.
pub fn normal_below(x: f64) -> f64 {
    0.5 * erf::erfc(-x / SQRT_2)
}

/// P(Z > x) of the standard normal distribution.
pub fn normal_above(x: f64) -> f64 {
    0.5 * erf::erfc(x / SQRT_2)
}

/// The x with P(Z <= x) = `p`, for 0 < p < 1.
pub fn normal_quantile(p: f64) -> f64 {
    if p > 0.5 {
        return -normal_quantile(1.0 - p);
    }
    let x = -SQRT_2 * erf::erfc_inv(2.0 * p);
    // One Newton step, relative to p, so that the tail keeps its digits.
    let density = normal_density(x);
    if density > 0.0 { x - (normal_below(x) - p) / density } else { x }
}

/// The x with P(Z > x) = `p`, for 0 < p < 1.
pub fn normal_upper_quantile(p: f64) -> f64 {
    -normal_quantile(p)
}

/// P(X > x) of the chi-square distribution with `df` degrees of freedom (not necessarily whole).
pub fn chi_square_above(x: f64, df: f64) -> f64 {
    if x <= 0.0 {
        1.0
    } else if x == f64::INFINITY {
        0.0
    } else if df > CUBE_ROOT_FROM {
        let spread = 2.0 / (9.0 * df);
        normal_above(((x / df).cbrt() - (1.0 - spread)) / spread.sqrt())
    } else {
        gamma::gamma_ur(0.5 * df, 0.5 * x)
    }
}

/// Logarithm of the gamma function, for x > 0.
pub fn ln_gamma(x: f64) -> f64 {
    gamma::ln_gamma(x)
}

/// P(T > t) of Student's distribution with `df` degrees of freedom.
pub fn student_above(t: f64, df: f64) -> f64 {
    // Near the centre, the argument would round to 1. Far out, the difference from 1 would lose the
    // tail.
    let square = t * t;
    let tail = if square < 1.0 {
        0.5 * (1.0 - beta_reg(0.5, 0.5 * df, square / (df + square)))
    } else {
        0.5 * beta_reg(0.5 * df, 0.5, df / (df + square))
    };
    if t >= 0.0 { tail } else { 1.0 - tail }
}

/// The t with P(T > t) = `p` for Student's distribution, 0 < p < 1.
pub fn student_upper_quantile(p: f64, df: f64) -> f64 {
    if p > 0.5 {
        return -student_upper_quantile(1.0 - p, df);
    }
    let mut low = 0.0;
    let mut high = normal_upper_quantile(p).max(1.0);
    while student_above(high, df) > p {
        low = high;
        high *= 2.0;
    }
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        if student_above(middle, df) > p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// P(X > x) of the F distribution with `numerator` and `denominator` degrees of freedom.
pub fn f_above(x: f64, numerator: f64, denominator: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    beta_reg(0.5 * denominator, 0.5 * numerator, denominator / (denominator + numerator * x))
}

/// The x with P(X <= x) = `p` for the F distribution, 0 < p < 1.
pub fn f_quantile(p: f64, numerator: f64, denominator: f64) -> f64 {
    let above = 1.0 - p;
    let (mut low, mut high) = (0.0, 1.0);
    while f_above(high, numerator, denominator) > above {
        low = high;
        high *= 2.0;
    }
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if high - low <= 1e-13 * high {
            break;
        }
        if f_above(middle, numerator, denominator) > above { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}
