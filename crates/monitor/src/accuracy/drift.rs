//! Is a device drifting? Control charts of the mean error of each session since the last
//! calibration, as pure functions of sums.
//!
//! A chart belongs to a device, channel, set-point band, calibration and firmware. It is computed
//! from all of its sessions in the order of their time whenever a session arrives, so a late
//! session takes its place in that order. Centre and scale come from the device itself (a
//! self-starting chart). With a scale pooled over the model, the data of one device would change
//! another's chart.

use std::collections::{BTreeMap, BTreeSet};

use analysis::{
    Side,
    chart::Chart,
    forecast::{Forecast, forecast},
    standard::Spread,
    western_electric,
};
use serde_json::json;
use warehouse::{
    accuracy::{DriftState, Incomplete, Model, SessionSum},
    states::{self, Channel, ChartState},
};

use super::{
    rules::{ACCURACY_RULE_VERSION, Rules},
    tolerance::{Models, latest, limits, missing},
};

/// One day, us.
const DAY_US: f64 = 86_400e6;

/// Upper edge of the band that contains a set point; 0 = above the last edge, or no bands.
pub fn band(model: Option<&Model>, channel: Channel, target: u32) -> u32 {
    let Some(model) = model else { return 0 };
    let edges: Vec<u32> = match channel {
        Channel::Dose => model.dose_bands_nl.clone(),
        Channel::Depth => model.depth_bands_um.iter().map(|edge| u32::from(*edge)).collect(),
    };
    edges.into_iter().filter(|edge| *edge >= target).min().unwrap_or(0)
}

/// One session on a chart.
#[derive(Clone, Debug, Default)]
struct Session<'a> {
    session: &'a str,
    at: i64,
    error: i64,
    targets: i64,
    shots: u64,
}

/// Charts one channel of one device. `sums` and `incomplete` are all that exist of it, in any
/// order. Injections outside a session and injections with target 0 are not charted.
///
/// # Errors
/// The error of a session is not a finite number.
pub fn evaluate(
    sums: &[&SessionSum],
    incomplete: &[&Incomplete],
    models: &Models,
    rules: &Rules,
) -> Result<Vec<DriftState>, analysis::Error> {
    let charted: Vec<_> = sums.iter().copied().filter(|sum| !sum.session_id.is_empty() && sum.targets > 0).collect();
    let Some(latest) = latest(&charted) else { return Ok(Vec::new()) };
    let mut charts: BTreeMap<(u32, &str, &str), Vec<&SessionSum>> = BTreeMap::new();
    for sum in &charted {
        let band = band(models.get(&sum.model), sum.channel, sum.target);
        charts.entry((band, &sum.calibration_id, &sum.firmware)).or_default().push(sum);
    }
    let states = charts.into_iter().map(|((band, calibration, firmware), sums)| {
        let current = calibration == latest.calibration_id && firmware == latest.firmware;
        let state = chart(&sums, models, rules)?;
        let to = if current { i64::MAX } else { state.last_at };
        Ok(DriftState { band, current, completeness: missing(incomplete, state.first_at, to), ..state })
    });
    states.collect()
}

fn sessions<'a>(sums: &[&'a SessionSum]) -> Vec<Session<'a>> {
    let mut sessions: BTreeMap<&str, Session<'_>> = BTreeMap::new();
    for sum in sums {
        let empty = || Session { session: &sum.session_id, at: i64::MAX, ..Session::default() };
        let session = sessions.entry(&sum.session_id).or_insert_with(empty);
        session.at = session.at.min(sum.first_at);
        session.error += sum.error;
        session.targets += sum.targets;
        session.shots += sum.n.unsigned_abs();
    }
    let mut sessions: Vec<_> = sessions.into_values().collect();
    sessions.sort_unstable_by_key(|session| (session.at, session.session));
    sessions
}

fn chart(sums: &[&SessionSum], models: &Models, rules: &Rules) -> Result<DriftState, analysis::Error> {
    let sessions = sessions(sums);
    let last = latest(sums).cloned().unwrap_or_default();
    let mut chart = Chart::new(&rules.settings)?;
    let (mut point, mut spikes, mut errors, mut standardised) = (None, Vec::new(), Vec::new(), Vec::new());
    for session in &sessions {
        let error = 100.0 * session.error as f64 / session.targets as f64;
        let added = chart.add(error, session.shots)?;
        if added.spike.is_some() {
            spikes.push(session.session.to_owned());
        }
        errors.push(error);
        standardised.extend(added.z);
        point = Some(added);
    }
    let drift = chart.drift();
    let named = |number: u64| {
        let place = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
        place.and_then(|place| sessions.get(place)).map(|session| session.session.to_owned()).unwrap_or_default()
    };
    let state = match (drift, point.and_then(|point| point.z)) {
        (Some(_), _) => ChartState::Drift,
        (None, None) => ChartState::Learning,
        (None, Some(_)) => ChartState::InControl,
    };
    let side = match drift.map(|drift| drift.side) {
        Some(Side::Upper) => states::Side::Upper,
        Some(Side::Lower) => states::Side::Lower,
        None => states::Side::None,
    };
    let state = DriftState {
        state,
        side,
        sessions: sessions.len() as u64,
        n: sessions.iter().map(|session| session.shots).sum(),
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
        channel: last.channel,
        calibration_id: last.calibration_id.clone(),
        firmware: last.firmware.clone(),
        site: last.site.clone(),
        model: last.model.clone(),
        first_at: sessions.first().map(|session| session.at).unwrap_or_default(),
        last_at: last.last_at,
        rule_version: ACCURACY_RULE_VERSION,
        parameters: parameters(rules),
        ..DriftState::default()
    };
    Ok(forecasted(state, sums, &sessions, &errors, models, rules))
}

/// Adds the forecast when the trend of a chart exceeds the tolerance. Of several set points, the
/// one with the smallest relative tolerance counts.
fn forecasted(
    state: DriftState,
    sums: &[&SessionSum],
    sessions: &[Session<'_>],
    errors: &[f64],
    models: &Models,
    rules: &Rules,
) -> DriftState {
    let targets: BTreeSet<u32> = sums.iter().map(|sum| sum.target).collect();
    let tolerance = targets.into_iter().filter_map(|target| {
        let limits = limits(models.get(&state.model), state.channel, target)?;
        Some(100.0 * (limits.high - f64::from(target)) / f64::from(target))
    });
    let Some(tolerance) = tolerance.min_by(f64::total_cmp) else {
        return DriftState { forecast: states::Forecast::NoTolerance, ..state };
    };
    // Times must rise strictly. Of sessions that begin in the same microsecond, the first is taken.
    let mut series: Vec<(f64, f64)> = Vec::new();
    for (session, error) in sessions.iter().zip(errors) {
        let day = (session.at - state.first_at) as f64 / DAY_US;
        if series.last().is_none_or(|last| last.0 < day) {
            series.push((day, *error));
        }
    }
    let (days, errors): (Vec<f64>, Vec<f64>) = series.into_iter().unzip();
    let forecast = forecast(&days, &errors, tolerance, state.state == ChartState::Drift, &rules.forecast);
    let time = |day: f64| {
        let at = state.first_at as f64 + day * DAY_US;
        // Times that ClickHouse can store, up to the year 2100. A later crossing does not matter.
        (0.0..9.2e18).contains(&at).then_some(at as i64).filter(|at| *at < 4_102_444_800_000_000)
    };
    match forecast {
        Ok(Forecast::Crossing { at, alarm, .. }) => DriftState {
            forecast: states::Forecast::Crossing,
            crossing_at: time(at.at),
            crossing_low: time(at.low),
            crossing_high: time(at.high),
            alarm,
            ..state
        },
        Ok(Forecast::NoSlope { .. }) => DriftState { forecast: states::Forecast::NoSlope, ..state },
        Ok(Forecast::TooShort) => DriftState { forecast: states::Forecast::TooShort, ..state },
        Ok(Forecast::NotSignalled) | Err(_) => DriftState { forecast: states::Forecast::NotSignalled, ..state },
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
        "between_to_within": Spread::SELF_STARTING.between / Spread::SELF_STARTING.within,
    })
    .to_string()
}
