//! Formulas of sterility, and element strings.

use std::{
    io::Read,
    time::{SystemTime, UNIX_EPOCH},
};

use analysis::{
    gs1::ElementString,
    hold::{self, Band, Cycle, Outcome, Recipe},
    lethality::lethality,
    saturation,
};
use clap::Args;
use serde_json::{Value, json};

use super::{Fault, fault, input};

#[derive(Args)]
pub struct Lethality {
    /// Reference temperature, Celsius: 121.0, 121.1 or 121.11 for F0, 80 for A0
    #[arg(long, allow_negative_numbers = true)]
    t_ref: f64,
    /// Temperature difference for ten times the rate, K
    #[arg(long, default_value_t = 10.0, allow_negative_numbers = true)]
    z: f64,
}

impl Lethality {
    pub fn answer(&self, stdin: &mut dyn Read) -> Result<Value, Fault> {
        let samples: input::Temperatures = input::read(stdin)?;
        let lethality = lethality(&samples.t_s, &samples.temperature_c, self.t_ref, self.z).map_err(fault)?;
        Ok(json!({
            "trapezoid_min": lethality.trapezoid / 60.0,
            "conservative_min": lethality.conservative / 60.0,
        }))
    }
}

#[derive(Args)]
pub struct HoldTime {
    /// Lower end of the band, Celsius; it belongs to the band
    #[arg(long, allow_negative_numbers = true)]
    low: f64,
    /// Upper end of the band, Celsius; it belongs to the band
    #[arg(long, allow_negative_numbers = true)]
    high: f64,
    /// Longest gap between two samples, s; beyond it the verdict is indeterminate and no hold runs
    /// across
    #[arg(long, allow_negative_numbers = true)]
    max_gap: Option<f64>,
    /// Hold that is required, s; without it, being in the band at all passes
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    required: f64,
    /// Largest difference to saturated steam, K; needs pressure_kpa
    #[arg(long, allow_negative_numbers = true)]
    saturation_max: Option<f64>,
}

impl HoldTime {
    pub fn answer(&self, stdin: &mut dyn Read) -> Result<Value, Fault> {
        let samples: input::Temperatures = input::read(stdin)?;
        let series = hold::Series { times: &samples.t_s, celsius: &samples.temperature_c };
        let band = Band { low: self.low, high: self.high };
        let hold = hold::hold(series, band, self.max_gap).map_err(fault)?;
        let recipe = Recipe {
            band,
            hold_s: self.required,
            gap_max_s: self.max_gap.unwrap_or(f64::MAX),
            saturation_max_k: self.saturation_max,
        };
        let cycle = Cycle { sensors: &[series], kpa: samples.pressure_kpa.as_deref() };
        let verdict = hold::verdict(&cycle, &recipe).map_err(fault)?;
        let outcome = match verdict.outcome {
            Outcome::Passed => "passed",
            Outcome::Failed => "failed",
            Outcome::Indeterminate => "indeterminate",
        };
        Ok(json!({
            "hold_s": hold.longest_s,
            "total_s": hold.total_s,
            "verdict": outcome,
            "reason": verdict.reason,
            "saturation_k": verdict.saturation_k,
        }))
    }
}

#[derive(Args)]
pub struct Saturation {
    /// Absolute pressure, kPa
    #[arg(long, allow_negative_numbers = true)]
    kpa: f64,
}

impl Saturation {
    pub fn answer(&self) -> Result<Value, Fault> {
        Ok(json!({ "celsius": saturation::celsius(self.kpa).map_err(fault)? }))
    }
}

#[derive(Args)]
pub struct Gs1 {
    /// The element string, with brackets or as scanned (FNC1 as the character GS, 0x1D)
    string: String,
    /// The year that decides the century of dates [default: this one]
    #[arg(long, value_parser = clap::value_parser!(i32).range(1950..=2999))]
    year: Option<i32>,
}

impl Gs1 {
    pub fn answer(&self) -> Result<Value, Fault> {
        let read = ElementString::parse(&self.string, self.year.unwrap_or_else(this_year)).map_err(fault)?;
        let elements: Vec<Value> = read
            .elements
            .iter()
            .map(|element| {
                let mut told = json!({ "ai": element.ai, "title": element.title, "value": element.value });
                if let Some(date) = element.date {
                    told["date"] = json!(date.to_string());
                }
                told
            })
            .collect();
        let date = |ai| read.date(ai).map(|date| date.to_string());
        Ok(json!({
            "elements": elements,
            "di": read.di(),
            "pi": read.pi(),
            "gtin": read.get("01"),
            "production_date": date("11"),
            "expiry": read.expiry().map(|date| date.to_string()),
            "lot": read.get("10"),
            "serial": read.get("21"),
            // A string with a wrong check digit is refused.
            "check_digit_valid": true,
        }))
    }
}

/// The year by the machine's clock. It only decides a century, so its error of a day does not
/// matter.
fn this_year() -> i32 {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    1970 + (seconds as f64 / (365.2425 * 86_400.0)) as i32
}
