//! Formulas of accuracy.

use std::io::Read;

use analysis::{
    clustered,
    moments::Moments,
    nonparametric,
    sample::Sample,
    tolerance, trumpet,
    verdict::{self, Claim, SpecificationLimits},
    wilson,
};
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Fault, fault, input};

#[derive(Args)]
pub struct ClaimFlags {
    /// Share of the population that the interval must hold
    #[arg(long, default_value_t = 0.95, allow_negative_numbers = true)]
    coverage: f64,
    /// Probability that it does
    #[arg(long, default_value_t = 0.95, allow_negative_numbers = true)]
    confidence: f64,
}

impl ClaimFlags {
    fn claim(&self) -> Claim {
        Claim { coverage: self.coverage, confidence: self.confidence }
    }
}

#[derive(Args)]
pub struct LimitFlags {
    /// Set dose or target depth, in the unit of the values
    #[arg(long, allow_negative_numbers = true)]
    set: f64,
    /// Resolution, in the same unit
    #[arg(long, allow_negative_numbers = true)]
    dose_resolution: f64,
    /// Relative tolerance, as a share of the set value
    #[arg(long, default_value_t = verdict::DOSE_TOLERANCE, allow_negative_numbers = true)]
    relative: f64,
}

impl LimitFlags {
    fn limits(&self) -> Result<SpecificationLimits, Fault> {
        SpecificationLimits::dose(self.set, self.dose_resolution, self.relative).map_err(fault)
    }
}

#[derive(Args)]
pub struct ToleranceFactor {
    /// Number of values
    #[arg(long, allow_negative_numbers = true)]
    n: u64,
    #[command(flatten)]
    claim: ClaimFlags,
}

impl ToleranceFactor {
    pub fn answer(&self) -> Result<Value, Fault> {
        let k = tolerance::factor(self.n, self.claim.coverage, self.claim.confidence).map_err(fault)?;
        Ok(json!({ "k": k }))
    }
}

#[derive(Args)]
pub struct Verdict {
    /// Number of values
    #[arg(long, allow_negative_numbers = true)]
    n: u64,
    /// Their mean
    #[arg(long, allow_negative_numbers = true)]
    mean: f64,
    /// Their standard deviation
    #[arg(long, allow_negative_numbers = true)]
    sd: f64,
    #[command(flatten)]
    limits: LimitFlags,
    #[command(flatten)]
    claim: ClaimFlags,
}

impl Verdict {
    pub fn answer(&self) -> Result<Value, Fault> {
        let limits = self.limits.limits()?;
        let verdict = verdict::simple(self.n, self.mean, self.sd, limits, self.claim.claim()).map_err(fault)?;
        Ok(told(&verdict))
    }
}

fn told(verdict: &verdict::Verdict) -> Value {
    json!({
        "k": verdict.k,
        "interval": [verdict.interval.0, verdict.interval.1],
        "limits": [verdict.limits.low, verdict.limits.high],
        "pass": verdict.pass,
        "k_actual": verdict.k_actual,
    })
}

#[derive(Args)]
pub struct ClusteredVerdict {
    #[command(flatten)]
    limits: LimitFlags,
    #[command(flatten)]
    claim: ClaimFlags,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sessions {
    sessions: Vec<Vec<i32>>,
}

impl ClusteredVerdict {
    pub fn answer(&self, stdin: &mut dyn Read) -> Result<Value, Fault> {
        let Sessions { sessions } = input::read(stdin)?;
        let sessions: Vec<Moments> =
            sessions.into_iter().map(|session| session.into_iter().map(i64::from).collect()).collect();
        let components = clustered::Components::of(&sessions).map_err(fault)?;
        // The values are measured values, so their set value is 0.
        let limits = self.limits.limits()?;
        let verdict = clustered::verdict(&sessions, 0.0, limits, self.claim.claim()).map_err(fault)?;
        let mut answer = told(&verdict);
        answer["sessions"] = json!(components.sessions);
        answer["n"] = json!(components.values);
        answer["mean"] = json!(components.mean);
        answer["sd"] = json!(components.total().sqrt());
        answer["sd_between"] = json!(components.between().sqrt());
        answer["sd_within"] = json!(components.within.sqrt());
        answer["correlation"] = json!(components.correlation());
        Ok(answer)
    }
}

#[derive(Args)]
pub struct Nonparametric {
    #[command(flatten)]
    claim: ClaimFlags,
    /// Also give the confidence that this many values reach
    #[arg(long, allow_negative_numbers = true)]
    n: Option<u64>,
}

impl Nonparametric {
    pub fn answer(&self) -> Result<Value, Fault> {
        let ClaimFlags { coverage, confidence } = self.claim;
        let needed = nonparametric::sample_size(coverage, confidence).map_err(fault)?;
        let reached = self.n.map(|n| nonparametric::confidence(n, coverage)).transpose().map_err(fault)?;
        Ok(json!({ "n": needed, "confidence_of_n": reached }))
    }
}

#[derive(Args)]
pub struct Wilson {
    /// How many are inside
    #[arg(long, allow_negative_numbers = true)]
    inside: u64,
    /// Of how many
    #[arg(long, allow_negative_numbers = true)]
    n: u64,
    /// Confidence of the interval
    #[arg(long, default_value_t = 0.95, allow_negative_numbers = true)]
    confidence: f64,
}

impl Wilson {
    pub fn answer(&self) -> Result<Value, Fault> {
        let share = wilson::share(self.inside, self.n, self.confidence).map_err(fault)?;
        Ok(json!({ "share": share.share, "interval": [share.low, share.high] }))
    }
}

pub fn moments(stdin: &mut dyn Read) -> Result<Value, Fault> {
    let sample = Sample::of(&input::series(stdin)?).map_err(fault)?;
    Ok(json!({ "n": sample.n, "mean": sample.mean, "sd": sample.sd }))
}

#[derive(Args)]
pub struct Trumpet {
    /// Lengths of the windows, shots
    #[arg(long, value_delimiter = ',', required = true)]
    windows: Vec<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Errors {
    error_pct: Vec<f64>,
}

impl Trumpet {
    pub fn answer(&self, stdin: &mut dyn Read) -> Result<Value, Fault> {
        let Errors { error_pct } = input::read(stdin)?;
        if error_pct.is_empty() {
            return Err("error_pct is empty; at least 1 value is needed".into());
        }
        let curve = trumpet::curve(&[error_pct], &self.windows).map_err(fault)?;
        let windows: Vec<Value> = curve
            .iter()
            .map(|window| {
                let (min, max) = window.extremes.unzip();
                json!({ "shots": window.shots, "min": min, "max": max })
            })
            .collect();
        Ok(json!({ "windows": windows }))
    }
}
