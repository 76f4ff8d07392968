//! Which alerts the verdicts, charts and single injections raise: pure. Each condition has one key,
//! however it was found.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use warehouse::{
    accuracy::{AccuracyVerdict, DriftState, Due, SessionSum},
    devices::Shots,
    sql::quoted,
    states::{ChartState, Severity, Side, ToleranceState},
};

use super::rules::ACCURACY_RULE_VERSION;
use crate::{alerts::lifecycle::Condition, limits::Limits};

/// Kinds of alerts that the verdicts, charts and calibrations of a device raise.
pub const OF_DEVICES: [&str; 5] = ["accuracy-verdict", "drift", "forecast", "spike", "calibration-overdue"];
/// Kinds of alerts that the injections of a session raise.
pub const OF_SESSIONS: [&str; 4] = ["depth-unsafe", "single-dose", "single-depth", "occlusion"];

/// Keys of all alerts that the injections of a session (`TENANT/DEVICE/SESSION`) may raise.
pub fn session_keys(session: &str) -> impl Iterator<Item = String> {
    OF_SESSIONS.iter().map(move |kind| format!("{kind}/{session}"))
}

fn base(kind: &str, severity: Severity, tenant: &str, site: &str, device: &str) -> Condition {
    Condition {
        tenant: tenant.to_owned(),
        alert_key: format!("{kind}/{tenant}/{device}"),
        kind: kind.to_owned(),
        severity,
        site: site.to_owned(),
        device: device.to_owned(),
        rule_version: ACCURACY_RULE_VERSION,
        parameters: "{}".to_owned(),
        ..Condition::default()
    }
}

/// The conditions that the verdicts, charts and calibrations of one device raise.
pub fn of_device(
    verdicts: &[AccuracyVerdict],
    charts: &[DriftState],
    sums: &[&SessionSum],
    dues: &[&Due],
    limits: &Limits,
) -> Vec<Condition> {
    let failed = verdicts.iter().filter(|verdict| verdict.current && verdict.state == ToleranceState::Fail).map(failed);
    let current = || charts.iter().filter(|chart| chart.current);
    let drifting = current().filter(|chart| chart.state == ChartState::Drift).map(drifting);
    let leaving = current().filter(|chart| chart.alarm).map(|chart| leaving(chart, limits.forecast_days));
    failed.chain(drifting).chain(leaving).chain(spikes(charts)).chain(overdue(sums, dues)).collect()
}

fn failed(verdict: &AccuracyVerdict) -> Condition {
    let AccuracyVerdict { tenant, device, channel, target, .. } = verdict;
    let base = base("accuracy-verdict", Severity::High, tenant, &verdict.site, device);
    let name = channel.name();
    let row = json!({"calibration": verdict.calibration_id, "sessions": verdict.sessions, "n": verdict.n,
        "mean_error": verdict.mean_error, "k": verdict.k_clustered, "k_actual": verdict.k_actual,
        "limits": [verdict.limit_low, verdict.limit_high]});
    Condition {
        alert_key: format!("{}/{name}/{target}", base.alert_key),
        title: format!("{device} is outside its {name} tolerance at {target} {}", channel.unit()),
        evidence_query: format!(
            "SELECT * FROM accuracy_verdicts FINAL WHERE tenant = {} AND device = {} AND channel = {} AND target = {target}",
            quoted(tenant),
            quoted(device),
            quoted(channel.as_str())
        ),
        evidence_rows: format!("[{row}]"),
        since: verdict.first_at,
        parameters: verdict.parameters.clone(),
        completeness: verdict.completeness.clone(),
        ..base
    }
}

fn charted(kind: &str, severity: Severity, chart: &DriftState) -> Condition {
    let DriftState { tenant, device, channel, band, .. } = chart;
    let base = base(kind, severity, tenant, &chart.site, device);
    Condition {
        alert_key: format!("{}/{}/{band}", base.alert_key, channel.name()),
        evidence_query: format!(
            "SELECT * FROM drift FINAL WHERE tenant = {} AND device = {} AND channel = {} AND band = {band}",
            quoted(tenant),
            quoted(device),
            quoted(channel.as_str())
        ),
        since: chart.first_at,
        parameters: chart.parameters.clone(),
        completeness: chart.completeness.clone(),
        ..base
    }
}

fn drifting(chart: &DriftState) -> Condition {
    let direction = if chart.side == Side::Upper { "up" } else { "down" };
    let row = json!({"calibration": chart.calibration_id, "signal_session": chart.signal_session,
        "onset_session": chart.onset_session, "side": chart.side});
    Condition {
        title: format!("the {} of {} drifts {direction}", chart.channel.name(), chart.device),
        sessions: Some(chart.signal_session.clone()).filter(|session| !session.is_empty()).into_iter().collect(),
        evidence_rows: format!("[{row}]"),
        ..charted("drift", Severity::Medium, chart)
    }
}

fn leaving(chart: &DriftState, days: u32) -> Condition {
    // The dates are left out: they change with every session, and the alert is the same.
    let row = json!({"calibration": chart.calibration_id, "side": chart.side});
    let channel = chart.channel.name();
    let title = format!("the {channel} of {} may be out of tolerance within {days} days", chart.device);
    Condition { title, evidence_rows: format!("[{row}]"), ..charted("forecast", Severity::Medium, chart) }
}

fn spikes(charts: &[DriftState]) -> impl Iterator<Item = Condition> {
    let mut found: BTreeMap<(&str, u32, &str), (&DriftState, BTreeSet<&String>)> = BTreeMap::new();
    for chart in charts.iter().filter(|chart| !chart.spikes.is_empty()) {
        let key = (chart.channel.as_str(), chart.band, chart.calibration_id.as_str());
        found.entry(key).or_insert_with(|| (chart, BTreeSet::new())).1.extend(&chart.spikes);
    }
    found.into_values().map(|(chart, sessions)| {
        let base = charted("spike", Severity::High, chart);
        Condition {
            alert_key: format!("{}/{}", base.alert_key, chart.calibration_id),
            title: format!(
                "the mean {} error of {} was far outside its limits in one session",
                chart.channel.name(),
                chart.device
            ),
            evidence_rows: json!([{"calibration": chart.calibration_id, "sessions": sessions}]).to_string(),
            sessions: sessions.into_iter().cloned().collect(),
            ..base
        }
    })
}

fn overdue(sums: &[&SessionSum], dues: &[&Due]) -> Vec<Condition> {
    let condition = |due: &&Due| {
        let used = sums.iter().filter(|sum| {
            sum.channel == due.channel && sum.calibration_id == due.calibration_id && sum.last_at > due.due_at
        });
        let used: Vec<_> = used.collect();
        let first = used.iter().min_by_key(|sum| (sum.last_at, &sum.session_id))?;
        let name = due.channel.name();
        let sessions: BTreeSet<&String> =
            used.iter().map(|sum| &sum.session_id).filter(|session| !session.is_empty()).collect();
        let base = base("calibration-overdue", Severity::High, &due.tenant, &first.site, &due.device);
        Some(Condition {
            alert_key: format!("{}/{name}/{}", base.alert_key, due.calibration_id),
            title: format!("{} was used after its {name} calibration was due", due.device),
            sessions: sessions.into_iter().cloned().collect(),
            evidence_query: format!(
                "SELECT session_id, min(at) FROM injections WHERE tenant = {} AND device = {} AND {name}_calibration_id = {} \
                 AND at > fromUnixTimestamp64Micro({}) GROUP BY session_id",
                quoted(&due.tenant),
                quoted(&due.device),
                quoted(&due.calibration_id),
                due.due_at
            ),
            evidence_rows: json!([{"calibration": due.calibration_id, "due_us": due.due_at}]).to_string(),
            since: due.due_at,
            ..base
        })
    };
    dues.iter().filter_map(condition).collect()
}

/// The conditions that single injections of a session raise.
pub fn of_session(shots: &Shots) -> Vec<Condition> {
    let Shots { tenant, device, session_id, .. } = shots;
    let query = |filter: &str| {
        format!(
            "SELECT * FROM injections WHERE tenant = {} AND device = {} AND session_id = {} AND {filter}",
            quoted(tenant),
            quoted(device),
            quoted(session_id)
        )
    };
    let condition = |kind: &str, severity: Severity, title: String, filter: &str, row: serde_json::Value| {
        let base = base(kind, severity, tenant, &shots.site, device);
        Condition {
            alert_key: format!("{}/{session_id}", base.alert_key),
            title,
            sessions: Some(session_id.clone()).filter(|session| !session.is_empty()).into_iter().collect(),
            evidence_query: query(filter),
            evidence_rows: json!([row]).to_string(),
            since: shots.since,
            ..base
        }
    };
    let mut conditions = Vec::new();
    if shots.unsafe_n > 0 {
        let (title, row) = (
            format!("{device} injected deeper than is safe for the area, down to {} um", shots.unsafe_um),
            json!({"injections": shots.unsafe_n, "deepest_um": shots.unsafe_um}),
        );
        conditions.push(condition("depth-unsafe", Severity::Critical, title, "measured_um IS NOT NULL", row));
    }
    if shots.dose_n > 0 {
        let title = format!(
            "a dose of {device} differed from its target by {} nl, more than twice the tolerance",
            shots.dose_nl
        );
        let row = json!({"injections": shots.dose_n, "largest_error_nl": shots.dose_nl});
        conditions.push(condition("single-dose", Severity::High, title, "delivered_nl != target_nl", row));
    }
    if shots.depth_n > 0 {
        let title = format!(
            "a depth of {device} differed from its target by {} um, more than twice the tolerance",
            shots.depth_um
        );
        let row = json!({"injections": shots.depth_n, "largest_error_um": shots.depth_um});
        conditions.push(condition("single-depth", Severity::High, title, "measured_um != target_um", row));
    }
    if shots.occlusions > 0 {
        let title = format!("{device} was occluded in three consecutive injections");
        let row = json!({"times": shots.occlusions});
        conditions.push(condition("occlusion", Severity::High, title, "outcome = 'OCCLUDED'", row));
    }
    conditions
}
