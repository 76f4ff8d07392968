//! Reads JSON from standard input.

use std::io::Read;

use serde::{Deserialize, de::DeserializeOwned};

use super::Fault;

/// Largest input, bytes: a series of a few million numbers.
const BYTES_MAX: u64 = 256 << 20;

/// One series of numbers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Series {
    pub x: Vec<f64>,
}

/// Temperatures over time.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Temperatures {
    /// Seconds, rising.
    pub t_s: Vec<f64>,
    /// Celsius.
    pub temperature_c: Vec<f64>,
    /// Absolute pressure, kPa; only given if saturated steam is to be checked.
    pub pressure_kpa: Option<Vec<f64>>,
}

/// Reads a JSON object.
pub fn read<T: DeserializeOwned>(stdin: &mut dyn Read) -> Result<T, Fault> {
    let mut text = Vec::new();
    stdin.take(BYTES_MAX + 1).read_to_end(&mut text).map_err(|error| format!("read standard input: {error}"))?;
    if text.len() as u64 > BYTES_MAX {
        return Err(format!("standard input has more than {} MiB", BYTES_MAX >> 20));
    }
    if text.trim_ascii().is_empty() {
        return Err("standard input is empty; a JSON object is expected (see --help)".into());
    }
    serde_json::from_slice(&text).map_err(|error| format!("standard input: {error}"))
}

/// Reads `{"x":[..]}` and refuses an empty series.
pub fn series(stdin: &mut dyn Read) -> Result<Vec<f64>, Fault> {
    let Series { x } = read(stdin)?;
    if x.is_empty() { Err("x is empty; at least 1 value is needed".into()) } else { Ok(x) }
}
