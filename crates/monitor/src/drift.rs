//! Is a device drifting? Charts of the error of each visit since the last calibration, as pure
//! functions of sums.
//!
//! A chart belongs to a device, channel, set-point band, calibration and firmware. Its state is
//! made anew from its visits, in the order of their time, whenever one arrives: late ones fall into
//! their place. Centre and scale are the device's own (self-starting): a spread pooled over the
//! model would let one device's data change another's verdict.

use std::collections::{BTreeMap, BTreeSet};

use analysis::{
    Side,
    chart::Chart,
    forecast::{Forecast, forecast},
    western_electric,
};
use serde_json::json;
use warehouse::accuracy::{DriftState, Incomplete, Model, SessionSum};

use crate::{
    accuracy::{Models, RULE_VERSION, latest, limits, missing},
    limits::{Rules, SPREAD},
};

const DAY_US: f64 = 86_400e6;

/// Upper edge of the band that a set point is in; 0 = above the last edge, or no bands.
pub fn band(model: Option<&Model>, channel: &str, target: u32) -> u32 {
    let Some(model) = model else { return 0 };
    let edges: Vec<u32> = if channel == "DOSE" {
        model.dose_bands_nl.clone()
    } else {
        model.depth_bands_um.iter().map(|edge| u32::from(*edge)).collect()
    };
    edges.into_iter().filter(|edge| *edge >= target).min().unwrap_or(0)
}

/// A visit on a chart.
#[derive(Clone, Debug, Default)]
struct Visit<'a> {
    session: &'a str,
    at: i64,
    error: i64,
    targets: i64,
    shots: u64,
}

/// Charts one device on one channel; `sums` and `gaps` are all there are of it, in any order.
/// Injections outside a visit, and those with target 0, are not charted.
///
/// # Errors
/// An error of a visit that no chart can take.
pub fn evaluate(
    sums: &[&SessionSum],
    gaps: &[&Incomplete],
    models: &Models,
    rules: &Rules,
) -> Result<Vec<DriftState>, analysis::Error> {
    let charted: Vec<_> = sums.iter().copied().filter(|sum| !sum.session_id.is_empty() && sum.targets > 0).collect();
    let Some(latest) = latest(&charted) else { return Ok(Vec::new()) };
    let mut charts: BTreeMap<(u32, &str, &str), Vec<&SessionSum>> = BTreeMap::new();
    for sum in &charted {
        let band = band(models.get(&sum.model), &sum.channel, sum.target);
        charts.entry((band, &sum.calibration_id, &sum.firmware)).or_default().push(sum);
    }
    let states = charts.into_iter().map(|((band, calibration, firmware), sums)| {
        let current = calibration == latest.calibration_id && firmware == latest.firmware;
        let state = chart(&sums, models, rules)?;
        let to = if current { i64::MAX } else { state.last_at };
        Ok(DriftState { band, current, completeness: missing(gaps, state.first_at, to), ..state })
    });
    states.collect()
}

fn visits<'a>(sums: &[&'a SessionSum]) -> Vec<Visit<'a>> {
    let mut visits: BTreeMap<&str, Visit<'_>> = BTreeMap::new();
    for sum in sums {
        let empty = || Visit { session: &sum.session_id, at: i64::MAX, ..Visit::default() };
        let visit = visits.entry(&sum.session_id).or_insert_with(empty);
        visit.at = visit.at.min(sum.first_at);
        visit.error += sum.error;
        visit.targets += sum.targets;
        visit.shots += sum.n.unsigned_abs();
    }
    let mut visits: Vec<_> = visits.into_values().collect();
    visits.sort_unstable_by_key(|visit| (visit.at, visit.session));
    visits
}

fn chart(sums: &[&SessionSum], models: &Models, rules: &Rules) -> Result<DriftState, analysis::Error> {
    let visits = visits(sums);
    let last = latest(sums).cloned().unwrap_or_default();
    let mut chart = Chart::new(&rules.settings)?;
    let (mut point, mut spikes, mut errors, mut standardised) = (None, Vec::new(), Vec::new(), Vec::new());
    for visit in &visits {
        let error = 100.0 * visit.error as f64 / visit.targets as f64;
        let added = chart.add(error, visit.shots)?;
        if added.spike.is_some() {
            spikes.push(visit.session.to_owned());
        }
        errors.push(error);
        standardised.extend(added.z);
        point = Some(added);
    }
    let drift = chart.drift();
    let named = |number: u64| {
        let place = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
        place.and_then(|place| visits.get(place)).map(|visit| visit.session.to_owned()).unwrap_or_default()
    };
    let state = match (drift, point.and_then(|point| point.z)) {
        (Some(_), _) => "DRIFT",
        (None, None) => "LEARNING",
        (None, Some(_)) => "IN_CONTROL",
    };
    let side = match drift.map(|drift| drift.side) {
        Some(Side::Upper) => "UPPER",
        Some(Side::Lower) => "LOWER",
        None => "",
    };
    let state = DriftState {
        state: state.to_owned(),
        side: side.to_owned(),
        sessions: visits.len() as u64,
        n: visits.iter().map(|visit| visit.shots).sum(),
        last_error_pct: errors.last().copied().unwrap_or_default(),
        last_z: point.and_then(|point| point.z),
        cusum_upper: point.and_then(|point| point.cusum).map(|point| point.upper),
        cusum_lower: point.and_then(|point| point.cusum).map(|point| point.lower),
        ewma: point.and_then(|point| point.ewma).map(|point| point.average),
        ewma_limit: point.and_then(|point| point.ewma).map(|point| point.bound),
        signal_session: drift.map(|drift| named(drift.session)).unwrap_or_default(),
        onset_session: drift.and_then(|drift| drift.onset).map(named).unwrap_or_default(),
        spikes,
        western_electric: western_electric::rules(&standardised),
        tenant: last.tenant.clone(),
        device: last.device.clone(),
        channel: last.channel.clone(),
        calibration_id: last.calibration_id.clone(),
        firmware: last.firmware.clone(),
        site: last.site.clone(),
        model: last.model.clone(),
        first_at: visits.first().map(|visit| visit.at).unwrap_or_default(),
        last_at: last.last_at,
        rule_version: RULE_VERSION,
        parameters: parameters(rules),
        ..DriftState::default()
    };
    Ok(forecasted(state, sums, &visits, &errors, models, rules))
}

/// Adds when the chart's line leaves the tolerance: that of its set points that is tightest
/// relative to it.
fn forecasted(
    state: DriftState,
    sums: &[&SessionSum],
    visits: &[Visit<'_>],
    errors: &[f64],
    models: &Models,
    rules: &Rules,
) -> DriftState {
    let targets: BTreeSet<u32> = sums.iter().map(|sum| sum.target).collect();
    let tolerance = targets.into_iter().filter_map(|target| {
        let limits = limits(models.get(&state.model), &state.channel, target)?;
        Some(100.0 * (limits.high - f64::from(target)) / f64::from(target))
    });
    let Some(tolerance) = tolerance.min_by(f64::total_cmp) else {
        return DriftState { forecast: "NO_TOLERANCE".to_owned(), ..state };
    };
    // The series rises strictly: of visits that begin at the same microsecond the first is taken.
    let mut series: Vec<(f64, f64)> = Vec::new();
    for (visit, error) in visits.iter().zip(errors) {
        let day = (visit.at - state.first_at) as f64 / DAY_US;
        if series.last().is_none_or(|last| last.0 < day) {
            series.push((day, *error));
        }
    }
    let (days, errors): (Vec<f64>, Vec<f64>) = series.into_iter().unzip();
    let said = forecast(&days, &errors, tolerance, state.state == "DRIFT", &rules.forecast);
    let time = |day: f64| {
        let at = state.first_at as f64 + day * DAY_US;
        // What the engine's times can hold; a crossing beyond is none that matters.
        (0.0..9.2e18).contains(&at).then_some(at as i64).filter(|at| *at < 4_102_444_800_000_000)
    };
    match said {
        Ok(Forecast::Crossing { at, alarm, .. }) => DriftState {
            forecast: "CROSSING".to_owned(),
            crossing_at: time(at.at),
            crossing_low: time(at.low),
            crossing_high: time(at.high),
            alarm,
            ..state
        },
        Ok(Forecast::NoSlope { .. }) => DriftState { forecast: "NO_SLOPE".to_owned(), ..state },
        Ok(Forecast::TooShort) => DriftState { forecast: "TOO_SHORT".to_owned(), ..state },
        Ok(Forecast::NotSignalled) | Err(_) => DriftState { forecast: "NOT_SIGNALLED".to_owned(), ..state },
    }
}

fn parameters(rules: &Rules) -> String {
    let Rules { limits, settings, .. } = rules;
    json!({
        "false_alarms_per_device_year": limits.false_alarms,
        "sessions_per_day": limits.sessions_per_day,
        "bands": limits.bands,
        "forecast_days": limits.forecast_days,
        "cusum_k": settings.cusum.k,
        "cusum_h": settings.cusum.h,
        "ewma_lambda": settings.ewma.lambda,
        "ewma_limit": settings.ewma.limit,
        "spike": settings.spike,
        "centre": "phase I, self-starting",
        "between_to_within": SPREAD.between / SPREAD.within,
    })
    .to_string()
}
