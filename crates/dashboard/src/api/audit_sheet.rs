//! The audit sheet of a device or site: its calibrations, verdicts and alerts over a period.

use super::{
    endpoint::{Audience, Endpoint, Key, Parameter, Rows, Shape},
    row::row,
};

row! {
    /// A line of an audit sheet.
    pub struct AuditLine {
        /// When: performed, judged, happened or recorded; UTC
        at: String,
        /// Site; of a calibration that of the bench; empty = several or not known
        site: String,
        /// Device; empty = several, or none
        device: String,
        /// CALIBRATION, VERDICT (by the last judgement), ALERT (raised, or retracted by later
        /// data), ACKNOWLEDGED, CLEARED or INCIDENT
        what: String,
        /// DOSE or DEPTH; empty = neither
        channel: String,
        /// The calibration, the verdict, the alert or the subject of the incident, in words
        title: String,
        /// CALIBRATION: certificate; empty = not said
        certificate: String,
        /// CALIBRATION: largest as-found error by magnitude, percent of the reference; null = none
        /// said
        as_found_error_pct: Option<f64>,
        /// CALIBRATION: the same as left
        as_left_error_pct: Option<f64>,
        /// CALIBRATION: largest expanded uncertainty, percent of the reference; null = none said
        uncertainty_pct: Option<f64>,
        /// CALIBRATION: when the next one is due; UTC; null = not said
        due_at: Option<String>,
        /// Severity of the alert; empty = no alert
        severity: String,
        /// Who; empty = the monitor, or not said
        actor: String,
        /// The reason of a verdict, the note of a person; empty = none
        note: String,
    }
}

pub const ENDPOINTS: &[Endpoint] = &[Endpoint {
    path: "/audit-sheet",
    about: "Calibrations, verdicts, alerts with their acknowledgements, and incidents of a tenant, site or device over a period, \
            the latest first",
    audience: Audience::Tenants,
    parameters: &[
        Parameter::path("tenant", "Tenant", "1"),
        Parameter::text("site", "Only of this site", "t.site = ?"),
        Parameter::text("device", "Only of this device", "t.device = ?"),
        Parameter::time("since", "Only then or later", "t.time >= parseDateTime64BestEffort(?, 6, 'UTC')"),
        Parameter::time("until", "Only before", "t.time < parseDateTime64BestEffort(?, 6, 'UTC')"),
    ],
    // The uncertainty is stored in thousandths of the unit.
    sql: "
            SELECT
                formatDateTime(t.time, '%FT%T.%fZ') AS at, t.site AS site, t.device AS device, t.what AS what, t.channel AS channel,
                t.title AS title, t.certificate AS certificate, t.as_found AS as_found_error_pct, t.as_left AS as_left_error_pct,
                t.uncertainty AS uncertainty_pct, formatDateTime(t.due, '%FT%T.%fZ') AS due_at, t.severity AS severity,
                t.actor AS actor, t.note AS note
            FROM (
                SELECT min(ifNull(done.performed_at, done.at)) AS time, toString(any(done.site)) AS site, toString(done.subject_device) AS device,
                    'CALIBRATION' AS what, toString(done.channel) AS channel, toString(done.calibration_id) AS title,
                    max(done.certificate) AS certificate,
                    if(countIf(done.phase = 'AS_FOUND' AND error IS NOT NULL) = 0, NULL,
                        argMaxIf(error, abs(error), done.phase = 'AS_FOUND' AND error IS NOT NULL)) AS as_found,
                    if(countIf(done.phase = 'AS_LEFT' AND error IS NOT NULL) = 0, NULL,
                        argMaxIf(error, abs(error), done.phase = 'AS_LEFT' AND error IS NOT NULL)) AS as_left,
                    max(if(ifNull(done.reference, 0) = 0, NULL, done.expanded_uncertainty / 10 / abs(done.reference))) AS uncertainty,
                    max(done.due_at) AS due, '' AS severity, toString(max(done.operator_id)) AS actor, '' AS note
                FROM (
                    SELECT *, if(ifNull(reference, 0) = 0, NULL, 100 * (indicated - reference) / reference) AS error FROM calibrations) AS done
                GROUP BY done.subject_device, done.channel, done.calibration_id
                UNION ALL
                SELECT judged.computed_at, toString(judged.site), toString(judged.device), 'VERDICT', toString(judged.channel),
                    concat(judged.state, ' at ', toString(judged.target), if(judged.channel = 'DOSE', ' nl', ' um'),
                        if(judged.calibration_id = '', '', concat(', calibration ', judged.calibration_id))),
                    '', NULL, NULL, NULL, NULL, '', '',
                    concat(judged.reason, if(judged.completeness = '', '', concat('; ', judged.completeness)))
                FROM (SELECT * FROM accuracy_verdicts FINAL WHERE state != 'CLEARED') AS judged
                UNION ALL
                SELECT said.at, toString(alert.site), toString(alert.device),
                    if(said.event IN ('ACKNOWLEDGED', 'CLEARED'), toString(said.event), 'ALERT'), '', alert.title, '', NULL, NULL, NULL, NULL,
                    toString(said.severity), toString(said.actor), if(said.note = alert.title, '', said.note)
                FROM (SELECT * FROM alert_history FINAL WHERE event != 'CHANGED') AS said
                LEFT JOIN (SELECT * FROM alerts FINAL) AS alert ON alert.tenant = said.tenant AND alert.alert_key = said.alert_key
                UNION ALL
                SELECT told.recorded_at, '', if(told.subject_kind = 'DEVICE', told.subject, ''), 'INCIDENT', '',
                    concat(told.subject_kind, ' ', told.subject), '', NULL, NULL, NULL, NULL, '', toString(told.reported_by), told.note
                FROM incidents AS told) AS t
            WHERE {where}",
    shape: Shape::List {
        keys: &[Key::Text("at"), Key::Text("what"), Key::Text("device"), Key::Text("channel"), Key::Text("title"), Key::Text("actor"), Key::Text("note")],
        newest_first: true,
    },
    rows: Rows::of::<AuditLine>(),
}];
