//! Does a device keep its tolerance? One verdict for each calibration and exact set point, as a
//! pure function of sums.
//!
//! Injections of one session resemble each other. Therefore the clustered verdict decides; the
//! simple one is recorded beside it. A verdict is FAIL only if there are enough sessions: with few,
//! a tolerance interval is wide whatever the device does.

use std::collections::{BTreeMap, HashMap};

use analysis::{clustered, moments::Moments, verdict::SpecificationLimits};
use serde_json::json;
use warehouse::{
    accuracy::{AccuracyVerdict, Incomplete, Model, SessionSum},
    states::{Channel, ToleranceState},
};

use super::rules::{ACCURACY_RULE_VERSION, Rules};

/// Tolerances by model.
pub type Models = HashMap<String, Model>;

/// The limits of a channel at a set point. Returns `None` if the model is not registered or has no
/// tolerance.
pub fn limits(model: Option<&Model>, channel: Channel, target: u32) -> Option<SpecificationLimits> {
    let model = model?;
    let (target, millionths) = (f64::from(target), |ppm: u32| f64::from(ppm) / 1e6);
    let limits = match channel {
        Channel::Dose => {
            SpecificationLimits::dose(target, model.dose_resolution_nl.into(), millionths(model.dose_tolerance_ppm))
        }
        Channel::Depth => {
            let (least, absolute) = (model.depth_resolution_um.into(), model.depth_tolerance_um.into());
            SpecificationLimits::depth(target, least, absolute, millionths(model.depth_tolerance_ppm))
        }
    };
    limits.ok().filter(|limits| limits.high > limits.low)
}

/// Moments of the error, measured - target.
pub fn moments(sum: &SessionSum) -> Moments {
    Moments {
        n: sum.n.unsigned_abs(),
        sum: sum.error.into(),
        sum_sq: sum.error_sq.unsigned_abs().into(),
        extremes: None,
    }
}

/// The sum with the last injection. Its calibration is the current one.
pub fn latest<'a>(sums: &[&'a SessionSum]) -> Option<&'a SessionSum> {
    sums.iter().copied().max_by_key(|sum| (sum.last_at, &sum.calibration_id, &sum.firmware, sum.target))
}

/// What is known to be missing between two times, us since 1970, as a sentence; empty = nothing.
/// `incomplete` are all sessions of the device that lack injections.
pub fn missing(incomplete: &[&Incomplete], from: i64, to: i64) -> String {
    let incomplete: Vec<_> =
        incomplete.iter().filter(|session| session.last_at >= from && session.first_at <= to).collect();
    if incomplete.is_empty() {
        return String::new();
    }
    let at_least = if incomplete.iter().any(|session| session.at_least) { "at least " } else { "" };
    let known: u64 = incomplete.iter().map(|session| session.known).sum();
    let received: u64 = incomplete.iter().map(|session| session.received).sum();
    let sessions = if incomplete.len() == 1 { "session" } else { "sessions" };
    format!("{at_least}{} of {known} injections are missing, in {} {sessions}", known - received, incomplete.len())
}

/// Judges one channel of one device. `sums` and `incomplete` are all that exist of it, in any
/// order.
pub fn evaluate(
    sums: &[&SessionSum],
    incomplete: &[&Incomplete],
    models: &Models,
    rules: &mut Rules,
) -> Vec<AccuracyVerdict> {
    let Some(latest) = latest(sums) else { return Vec::new() };
    let mut cells: BTreeMap<(&str, u32), Vec<&SessionSum>> = BTreeMap::new();
    for sum in sums {
        cells.entry((&sum.calibration_id, sum.target)).or_default().push(sum);
    }
    let judged = cells.into_values().filter_map(|cell| judge(&cell, models, rules));
    let placed = judged.map(|verdict| {
        let current = verdict.calibration_id == latest.calibration_id;
        let to = if current { i64::MAX } else { verdict.last_at };
        AccuracyVerdict { current, completeness: missing(incomplete, verdict.first_at, to), ..verdict }
    });
    placed.collect()
}

fn judge(cell: &[&SessionSum], models: &Models, rules: &mut Rules) -> Option<AccuracyVerdict> {
    let last = latest(cell)?;
    let mut of_session: BTreeMap<&str, Moments> = BTreeMap::new();
    let mut all = Moments::default();
    for sum in cell {
        all.merge(&moments(sum));
        // An injection outside a session belongs to no cluster.
        if !sum.session_id.is_empty() {
            of_session.entry(&sum.session_id).or_default().merge(&moments(sum));
        }
    }
    let (target, sessions) = (f64::from(last.target), of_session.len() as u64);
    let mean_error = all.mean()?;
    let sd_error = all.variance().map(f64::sqrt);
    let limits = limits(models.get(&last.model), last.channel, last.target);
    let factor = rules.factor(all.n);
    let pass_simple = limits.zip(factor).zip(sd_error).map(|((limits, k), sd)| {
        let mean = target + mean_error;
        limits.hold((mean - k * sd, mean + k * sd))
    });
    let of_session: Vec<Moments> = of_session.into_values().collect();
    let clustered = limits.and_then(|limits| clustered::verdict(&of_session, target, limits, rules.claim).ok());
    let sessions_min = rules.limits.sessions_min;
    let enough = sessions >= sessions_min;
    let (state, reason) = match (limits, clustered) {
        (None, _) => (ToleranceState::Undecided, format!("no tolerance is registered for model {:?}", last.model)),
        (Some(_), Some(verdict)) if verdict.pass => {
            (ToleranceState::Pass, "the tolerance interval lies within the limits".to_owned())
        }
        (Some(_), Some(_)) if enough => (ToleranceState::Fail, "the tolerance interval exceeds the limits".to_owned()),
        (Some(_), _) => (ToleranceState::Undecided, format!("{sessions} sessions are too few for a verdict")),
    };
    let finite = |value: f64| Some(value).filter(|value| value.is_finite());
    Some(AccuracyVerdict {
        tenant: last.tenant.clone(),
        device: last.device.clone(),
        channel: last.channel,
        calibration_id: last.calibration_id.clone(),
        target: last.target,
        site: last.site.clone(),
        model: last.model.clone(),
        firmware: last.firmware.clone(),
        state,
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
        rule_version: ACCURACY_RULE_VERSION,
        parameters: json!({"coverage": rules.claim.coverage, "confidence": rules.claim.confidence,
            "sessions_min": sessions_min})
        .to_string(),
        ..AccuracyVerdict::default()
    })
}
