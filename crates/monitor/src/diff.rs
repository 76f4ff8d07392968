//! What an evaluation changes in the rows that are stored.

use std::{collections::HashMap, hash::Hash};

/// The difference between stored rows and evaluated rows.
#[derive(Debug, PartialEq, Eq)]
pub struct Diff<T> {
    /// Evaluated rows that are new or differ from the stored row of their key.
    pub changed: Vec<T>,
    /// Stored rows whose key was not evaluated.
    pub gone: Vec<T>,
}

/// Compares stored rows (`before`) with evaluated rows (`now`). Rows with equal keys are compared
/// by `is_same`, since the time of computation differs in any case.
pub fn diff<T, K: Eq + Hash>(
    before: Vec<T>,
    now: Vec<T>,
    key: impl Fn(&T) -> K,
    is_same: impl Fn(&T, &T) -> bool,
) -> Diff<T> {
    let mut known: HashMap<K, T> = before.into_iter().map(|row| (key(&row), row)).collect();
    let mut changed = now;
    changed.retain(|row| known.remove(&key(row)).is_none_or(|stored| !is_same(&stored, row)));
    Diff { changed, gone: known.into_values().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_and_different_rows_are_changed_and_absent_ones_are_gone() {
        let by_number = |before, now| diff(before, now, |row: &(u8, &str)| row.0, |left, right| left.1 == right.1);
        let Diff { changed, gone } = by_number(vec![(1, "a"), (2, "b"), (3, "c")], vec![(1, "a"), (2, "B"), (4, "d")]);
        assert_eq!((changed, gone), (vec![(2, "B"), (4, "d")], vec![(3, "c")]));
        assert_eq!(by_number(vec![(1, "a")], vec![(1, "a")]), Diff { changed: Vec::new(), gone: Vec::new() });
    }
}
