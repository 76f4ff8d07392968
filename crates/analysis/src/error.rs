//! Errors in the numbers that a caller gives.

/// Why a figure cannot be given. The remedy is always other input; a retry changes nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// A parameter is outside its range.
    #[error("{name} is {value}; it must be {right}")]
    Parameter {
        /// Name of the parameter.
        name: &'static str,
        /// The value given.
        value: f64,
        /// The allowed range, in words.
        right: &'static str,
    },
    /// One value of a series cannot be used.
    #[error("{name}[{index}] is {value}; it must be {right}")]
    Element {
        /// Name of the series.
        name: &'static str,
        /// Index of the value, from 0.
        index: usize,
        /// The value given.
        value: f64,
        /// The allowed range, in words.
        right: &'static str,
    },
    /// A series is too short.
    #[error("{name} has {have} values; at least {need} are needed")]
    TooFew {
        /// Name of the series.
        name: &'static str,
        /// Number of its values.
        have: u64,
        /// The least number of values.
        need: u64,
    },
    /// Two series that belong together differ in length.
    #[error("{left} has {left_len} values and {right} has {right_len}; they must be as many")]
    Lengths {
        /// Name of the first series.
        left: &'static str,
        /// Number of values of the first series.
        left_len: usize,
        /// Name of the second series.
        right: &'static str,
        /// Number of values of the second series.
        right_len: usize,
    },
    /// No solution of the equation can be computed.
    #[error("{0}")]
    Unsolvable(String),
}

/// A result that fails only because of its input.
pub type Result<T> = std::result::Result<T, Error>;

/// The value, if it is neither infinite nor NaN.
pub(crate) fn finite(name: &'static str, value: f64) -> Result<f64> {
    require(name, value, value.is_finite(), "a finite number")
}

/// The value, if it is finite and above 0.
pub(crate) fn positive(name: &'static str, value: f64) -> Result<f64> {
    require(name, value, value.is_finite() && value > 0.0, "a finite number above 0")
}

/// The value, if it is finite and not below 0.
pub(crate) fn not_negative(name: &'static str, value: f64) -> Result<f64> {
    require(name, value, value.is_finite() && value >= 0.0, "a finite number, 0 or above")
}

/// The value, if it lies between 0 and 1, both excluded.
pub(crate) fn fraction(name: &'static str, value: f64) -> Result<f64> {
    require(name, value, value > 0.0 && value < 1.0, "between 0 and 1, both excluded")
}

/// The value, if the condition holds.
pub(crate) fn require(name: &'static str, value: f64, holds: bool, right: &'static str) -> Result<f64> {
    if holds { Ok(value) } else { Err(Error::Parameter { name, value, right }) }
}

/// Checks that every value is finite.
pub(crate) fn all_finite(name: &'static str, values: &[f64]) -> Result<()> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(Error::Element { name, index, value: values[index], right: "a finite number" }),
        None => Ok(()),
    }
}

/// Checks that the series has at least this many values.
pub(crate) fn at_least(name: &'static str, have: usize, need: u64) -> Result<()> {
    let have = have as u64;
    if have < need { Err(Error::TooFew { name, have, need }) } else { Ok(()) }
}

/// Checks that both series have the same length.
pub(crate) fn same_length(left: &'static str, left_len: usize, right: &'static str, right_len: usize) -> Result<()> {
    if left_len == right_len { Ok(()) } else { Err(Error::Lengths { left, left_len, right, right_len }) }
}

/// Checks that a series of times is finite and rises from each value to the next.
pub(crate) fn rising(name: &'static str, times: &[f64]) -> Result<()> {
    all_finite(name, times)?;
    match times.windows(2).position(|pair| pair[1] <= pair[0]) {
        Some(index) => Err(Error::Element {
            name,
            index: index + 1,
            value: times[index + 1],
            right: "later than the value before it",
        }),
        None => Ok(()),
    }
}
