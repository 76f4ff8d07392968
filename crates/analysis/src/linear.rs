//! Dense linear equations.

use crate::error::{Error, Result};

/// Solves `matrix` x = `right` in place by Gaussian elimination with partial pivoting; `matrix`
/// holds `right.len()` rows.
pub(crate) fn solve(matrix: &mut [f64], right: &mut [f64]) -> Result<()> {
    let n = right.len();
    for column in 0..n {
        let mut pivot = column;
        for row in column + 1..n {
            if matrix[row * n + column].abs() > matrix[pivot * n + column].abs() {
                pivot = row;
            }
        }
        let largest = matrix[pivot * n + column];
        if largest == 0.0 || !largest.is_finite() {
            return Err(Error::Unsolvable("the run length is beyond what can be computed".into()));
        }
        if pivot != column {
            for j in column..n {
                matrix.swap(pivot * n + j, column * n + j);
            }
            right.swap(pivot, column);
        }
        let (upper, lower) = matrix.split_at_mut((column + 1) * n);
        let pivot_row = &upper[column * n..];
        let pivot_right = right[column];
        for (row, target) in lower.chunks_exact_mut(n).zip(&mut right[column + 1..]) {
            let factor = row[column] / largest;
            if factor != 0.0 {
                for (value, subtracted) in row[column + 1..].iter_mut().zip(&pivot_row[column + 1..]) {
                    *value -= factor * subtracted;
                }
                *target -= factor * pivot_right;
            }
        }
    }
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|j| matrix[row * n + j] * right[j]).sum();
        right[row] = (right[row] - known) / matrix[row * n + row];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solves_with_a_zero_on_the_diagonal() {
        let mut matrix = [0.0, 2.0, 1.0, 1.0, 1.0, 0.0, 3.0, 0.0, 1.0];
        let mut right = [7.0, 3.0, 6.0];
        solve(&mut matrix, &mut right).unwrap();
        for (ours, exact) in right.iter().zip([1.0, 2.0, 3.0]) {
            assert!((ours - exact).abs() < 1e-14, "{right:?}");
        }
        assert!(solve(&mut [1.0, 1.0, 1.0, 1.0], &mut [1.0, 2.0]).is_err());
    }
}
