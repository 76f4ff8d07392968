//! Gauss-Legendre quadrature.

use std::f64::consts::PI;

/// Nodes and weights for integrals over an interval.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Points at which the integrand is evaluated, ascending.
    pub nodes: Vec<f64>,
    /// Weight of each node.
    pub weights: Vec<f64>,
}

impl Rule {
    /// The rule with `count` nodes on [`low`, `high`], exact for polynomials of a degree below 2
    /// `count`. The nodes are the roots of the Legendre polynomial. Newton's method finds them from
    /// Tricomi's approximation.
    pub fn gauss_legendre(count: usize, low: f64, high: f64) -> Self {
        let (middle, half) = (0.5 * (high + low), 0.5 * (high - low));
        let n = count as f64;
        let (mut nodes, mut weights) = (vec![middle; count], vec![0.0; count]);
        for i in 0..count.div_ceil(2) {
            let mut x = (PI * (i as f64 + 0.75) / (n + 0.5)).cos();
            let mut slope = 1.0;
            for _ in 0..50 {
                let (value, derivative) = legendre(count, x);
                slope = derivative;
                let step = value / derivative;
                x -= step;
                if step.abs() < 1e-15 {
                    break;
                }
            }
            let weight = 2.0 * half / ((1.0 - x * x) * slope * slope);
            (nodes[i], weights[i]) = (middle - half * x, weight);
            (nodes[count - 1 - i], weights[count - 1 - i]) = (middle + half * x, weight);
        }
        Self { nodes, weights }
    }

    /// The pairs of node and weight.
    pub fn iter(&self) -> impl Iterator<Item = (f64, f64)> {
        self.nodes.iter().copied().zip(self.weights.iter().copied())
    }
}

/// The Legendre polynomial of this degree and its derivative.
fn legendre(degree: usize, x: f64) -> (f64, f64) {
    let (mut value, mut before) = (1.0, 0.0);
    for j in 0..degree {
        let j = j as f64;
        let next = ((2.0 * j + 1.0) * x * value - j * before) / (j + 1.0);
        before = value;
        value = next;
    }
    (value, degree as f64 * (x * value - before) / (x * x - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polynomials_are_integrated_exactly() {
        for count in [1, 2, 5, 32, 101] {
            let rule = Rule::gauss_legendre(count, -1.0, 3.0);
            let degree = (2 * count - 1).min(9) as i32;
            let sum: f64 = rule.iter().map(|(x, weight)| weight * x.powi(degree)).sum();
            let exact = (3f64.powi(degree + 1) - (-1f64).powi(degree + 1)) / f64::from(degree + 1);
            assert!((sum / exact - 1.0).abs() < 1e-12, "{count} nodes: {sum} {exact}");
        }
    }
}
