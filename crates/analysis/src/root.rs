//! Roots of rising functions.

use crate::error::{Error, Result};

/// Largest number of steps that widen the bracket, and of steps that narrow it.
const STEPS: usize = 200;

/// The x >= `floor` near `start` at which the rising function `f` is zero. `step` widens the
/// bracket until it holds the root. The Illinois variant of regula falsi then narrows it to
/// `tolerance`.
///
/// # Errors
/// Errors of `f`, and no root at or above `floor` within 200 steps.
pub(crate) fn rising(
    floor: f64,
    start: f64,
    step: f64,
    tolerance: f64,
    mut f: impl FnMut(f64) -> Result<f64>,
) -> Result<f64> {
    let mut low = start.max(floor);
    let mut below = f(low)?;
    let (mut high, mut above) = (low, below);
    for _ in 0..STEPS {
        if below <= 0.0 && above >= 0.0 {
            return narrow((low, below), (high, above), tolerance, f);
        }
        if below > 0.0 {
            if low <= floor {
                break;
            }
            (high, above) = (low, below);
            low = (low - step).max(floor);
            below = f(low)?;
        } else {
            (low, below) = (high, above);
            high += step;
            above = f(high)?;
        }
    }
    Err(Error::Unsolvable(format!("no solution at or above {floor}")))
}

fn narrow(low: (f64, f64), high: (f64, f64), tolerance: f64, mut f: impl FnMut(f64) -> Result<f64>) -> Result<f64> {
    let ((mut low, mut below), (mut high, mut above)) = (low, high);
    let mut last_side = 0;
    for _ in 0..STEPS {
        if below == 0.0 || high - low <= tolerance {
            break;
        }
        if above == 0.0 {
            return Ok(high);
        }
        let guess = (low * above - high * below) / (above - below);
        let middle = if guess > low && guess < high { guess } else { 0.5 * (low + high) };
        let value = f(middle)?;
        if value.abs() < 1e-13 {
            return Ok(middle);
        }
        // An end that stays twice gets less weight, so that the other end moves too.
        if value < 0.0 {
            (low, below) = (middle, value);
            above = if last_side == -1 { 0.5 * above } else { above };
            last_side = -1;
        } else {
            (high, above) = (middle, value);
            below = if last_side == 1 { 0.5 * below } else { below };
            last_side = 1;
        }
    }
    Ok(if below == 0.0 { low } else { 0.5 * (low + high) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_roots_on_either_side_of_the_start() {
        for start in [0.0, 1.0, 1.3, 2.0, 9.0] {
            let root = rising(0.0, start, 0.7, 1e-12, |x| Ok(x * x - 2.0)).unwrap();
            assert!((root - 2f64.sqrt()).abs() < 1e-11, "from {start}: {root}");
        }
        assert!(rising(0.0, 1.0, 1.0, 1e-9, |x| Ok(x + 1.0)).is_err());
    }
}
