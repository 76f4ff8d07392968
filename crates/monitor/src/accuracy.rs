//! Does a device keep its tolerance? Verdicts by calibration and exact set point, as pure functions of sums.
//!
//! Injections of one visit are alike, so the verdict that decides is the clustered one; the simple one stands beside it. It
//! says FAIL only where enough visits speak: with few, a tolerance interval is wide whatever the device is like.

use std::collections::{BTreeMap, HashMap};

use analysis::{
    clustered,
    moments::Moments,
    tolerance,
    verdict::{Claim, Limits},
};
use serde_json::json;
use warehouse::accuracy::{AccuracyVerdict, Model, SessionSum};

/// Version of the rules of accuracy and drift: a change evaluates everything again.
pub const RULE_VERSION: u32 = 1;

/// Visits below which nothing is said to fail.
pub const SESSIONS_MIN: u64 = 10;

/// What is promised of each device.
pub const CLAIM: Claim = Claim { coverage: 0.95, confidence: 0.95 };

/// Tolerances by model.
pub type Models = HashMap<String, Model>;

/// Tolerance factors of independent values, which many devices share.
#[derive(Default)]
pub struct Factors(HashMap<u64, f64>);

impl Factors {
    fn of(&mut self, n: u64) -> Option<f64> {
        if let Some(k) = self.0.get(&n) {
            return Some(*k);
        }
        let k = tolerance::factor(n, CLAIM.coverage, CLAIM.confidence).ok()?;
        self.0.insert(n, k);
        Some(k)
    }
}

/// The limits of a channel at a set point; none where the model is not registered or has no tolerance.
pub fn limits(model: Option<&Model>, channel: &str, target: u32) -> Option<Limits> {
    let model = model?;
    let (target, millionths) = (f64::from(target), |ppm: u32| f64::from(ppm) / 1e6);
    let limits = if channel == "DOSE" {
        Limits::dose(target, model.dose_resolution_nl.into(), millionths(model.dose_tolerance_ppm))
    } else {
        let (least, absolute) = (model.depth_resolution_um.into(), model.depth_tolerance_um.into());
        Limits::depth(target, least, absolute, millionths(model.depth_tolerance_ppm))
    };
    limits.ok().filter(|limits| limits.high > limits.low)
}

/// Moments of measured - target.
pub fn moments(sum: &SessionSum) -> Moments {
    Moments {
        n: sum.n.unsigned_abs(),
        sum: sum.error.into(),
        sum_sq: sum.error_sq.unsigned_abs().into(),
        extremes: None,
    }
}

/// The last injection of a channel: its calibration is the current one.
pub fn latest<'a>(sums: &[&'a SessionSum]) -> Option<&'a SessionSum> {
    sums.iter().copied().max_by_key(|sum| (sum.last_at, &sum.calibration_id, &sum.firmware, sum.target))
}

/// Judges one device on one channel; `sums` are all there are of it, in any order.
pub fn evaluate(sums: &[&SessionSum], models: &Models, factors: &mut Factors) -> Vec<AccuracyVerdict> {
    let Some(latest) = latest(sums) else { return Vec::new() };
    let mut cells: BTreeMap<(&str, u32), Vec<&SessionSum>> = BTreeMap::new();
    for sum in sums {
        cells.entry((&sum.calibration_id, sum.target)).or_default().push(sum);
    }
    let judged = cells.into_values().filter_map(|cell| judge(&cell, models, factors));
    judged
        .map(|verdict| AccuracyVerdict { current: verdict.calibration_id == latest.calibration_id, ..verdict })
        .collect()
}

fn judge(cell: &[&SessionSum], models: &Models, factors: &mut Factors) -> Option<AccuracyVerdict> {
    let last = latest(cell)?;
    let mut visits: BTreeMap<&str, Moments> = BTreeMap::new();
    let mut all = Moments::default();
    for sum in cell {
        all.merge(&moments(sum));
        // Injections outside a visit belong to no cluster.
        if !sum.session_id.is_empty() {
            visits.entry(&sum.session_id).or_default().merge(&moments(sum));
        }
    }
    let (target, sessions) = (f64::from(last.target), visits.len() as u64);
    let mean_error = all.mean()?;
    let sd_error = all.variance().map(f64::sqrt);
    let limits = limits(models.get(&last.model), &last.channel, last.target);
    let factor = factors.of(all.n);
    let pass_simple = limits.zip(factor).zip(sd_error).map(|((limits, k), sd)| {
        let mean = target + mean_error;
        limits.hold((mean - k * sd, mean + k * sd))
    });
    let visits: Vec<Moments> = visits.into_values().collect();
    let clustered = limits.and_then(|limits| clustered::verdict(&visits, target, limits, CLAIM).ok());
    let enough = sessions >= SESSIONS_MIN;
    let (state, reason) = match (limits, clustered) {
        (None, _) => ("UNDECIDED", format!("no tolerance is registered for model {:?}", last.model)),
        (Some(_), Some(verdict)) if verdict.pass => ("PASS", "the tolerance interval keeps the limits".to_owned()),
        (Some(_), Some(_)) if enough => ("FAIL", "the tolerance interval leaves the limits".to_owned()),
        (Some(_), _) => ("UNDECIDED", format!("{sessions} visits say too little")),
    };
    let finite = |value: f64| Some(value).filter(|value| value.is_finite());
    Some(AccuracyVerdict {
        tenant: last.tenant.clone(),
        device: last.device.clone(),
        channel: last.channel.clone(),
        calibration_id: last.calibration_id.clone(),
        target: last.target,
        site: last.site.clone(),
        model: last.model.clone(),
        firmware: last.firmware.clone(),
        state: state.to_owned(),
        reason,
        sessions,
        n: all.n,
        mean_error,
        sd_error,
        limit_low: limits.map(|limits| limits.low),
        limit_high: limits.map(|limits| limits.high),
        pass_simple,
        k_simple: factor,
        pass_clustered: clustered.map(|verdict| verdict.pass),
        k_clustered: clustered.and_then(|verdict| finite(verdict.k)),
        k_actual: clustered.and_then(|verdict| finite(verdict.k_actual)),
        first_at: cell.iter().map(|sum| sum.first_at).min().unwrap_or_default(),
        last_at: last.last_at,
        rule_version: RULE_VERSION,
        parameters: json!({"coverage": CLAIM.coverage, "confidence": CLAIM.confidence, "sessions_min": SESSIONS_MIN})
            .to_string(),
        ..AccuracyVerdict::default()
    })
}
