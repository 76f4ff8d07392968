//! Every device with what is known about it, for a table of the whole fleet.

use super::{
    endpoint::{Audience, Endpoint, Key, Parameter, Rows, Shape},
    row::row,
};

/// Most rows of a page: the whole fleet of a large chain.
const FLEET_MAX: usize = 10_000;

row! {
    /// A device with its latest word, its verdicts, alerts and calibrations.
    pub struct FleetDevice {
        /// Tenant
        tenant: String,
        /// Site it was last heard from, else the registered one
        site: String,
        /// Device
        device: String,
        /// REGISTERED, ENROLLED (taken in because it was seen) or UNKNOWN
        registration: String,
        /// INJECTOR, STERILIZER, BENCH or GATEWAY; empty = not known
        kind: String,
        /// Model; empty = not known
        model: String,
        /// Manufacturer by the registry; empty = none
        manufacturer: String,
        /// Serial number; empty = not known
        serial: String,
        /// Device that may publish for it; empty = none
        gateway: String,
        /// Latest firmware; empty = not said
        firmware: String,
        /// ONLINE, SLEEPING, OFF or LOST; empty = never said
        state: String,
        /// Since when, by the clock of the device; UTC; null = not said
        state_since: Option<String>,
        /// Battery, percent; null = not said
        battery_pct: Option<u32>,
        /// Events in its outbox; null = not said
        outbox_events: Option<u64>,
        /// Latest lifetime number of an injection; null = not said
        injection_no: Option<u64>,
        /// When anything was last received from it; UTC; null = not said
        last_seen: Option<String>,
        /// Gaps that may still close
        open_gaps: u64,
        /// Events in open gaps
        missing_events: u64,
        /// Events declared lost
        lost_events: u64,
        /// Open alerts that nobody has acknowledged
        alerts: u64,
        /// The worst severity of these: critical, high, medium or low; empty = none
        worst_severity: String,
        /// The worst verdict on the dose by the calibration in force: FAIL, UNDECIDED or PASS;
        /// empty = none
        dose_state: String,
        /// The same of the depth
        depth_state: String,
        /// Dose error since the calibration in force: 100 * sum of errors / sum of targets; null =
        /// none
        dose_error_pct: Option<f64>,
        /// The worst state of its charts since the calibration in force: DRIFT, LEARNING or
        /// IN_CONTROL; empty = none
        drift_state: String,
        /// The earliest time at which one of them is expected to leave its tolerance; UTC; null =
        /// none
        crossing_at: Option<String>,
        /// Sterility breaches on the device that are CONFIRMED or INDETERMINATE
        breaches: u64,
        /// When its earliest calibration is due; UTC; null = not known
        due_at: Option<String>,
        /// Days until then, negative when overdue; null = not known
        days_left: Option<i64>,
        /// Events known to have been made
        made: u64,
        /// Events in their tables
        stored: u64,
        /// Events that have not arrived
        missing: u64,
        /// Dose error of each of the last 30 days, percent of the targets, oldest first, the last
        /// is today (UTC); null = no such injections
        spark: Vec<Option<f64>>,
    }
}

pub const ENDPOINTS: &[Endpoint] = &[Endpoint {
    path: "/fleet",
    about: "Devices with their verdicts, alerts, calibrations, completeness and the dose error of 30 days",
    audience: Audience::Tenants,
    parameters: &[
        Parameter::text("site", "Only of this site", "t.site = ?"),
        Parameter::text("model", "Only of this model", "t.model = ?"),
        Parameter::choice("kind", "Only of this kind", &["INJECTOR", "STERILIZER", "BENCH", "GATEWAY"], "t.kind = ?"),
        Parameter::choice("state", "Only in this state", &["ONLINE", "SLEEPING", "OFF", "LOST"], "t.state = ?"),
    ],
    // Past days come from their rollups, the others from the minutes.
    sql: "
            SELECT
                t.tenant AS tenant, t.site AS site, t.device AS device, t.registration AS registration, t.kind AS kind, t.model AS model,
                t.manufacturer AS manufacturer, t.serial AS serial, t.gateway AS gateway, t.firmware AS firmware, t.state AS state,
                formatDateTime(t.state_since, '%FT%T.%fZ') AS state_since, t.battery_pct AS battery_pct, t.outbox_events AS outbox_events,
                t.injection_no AS injection_no, formatDateTime(t.last_seen, '%FT%T.%fZ') AS last_seen, t.open_gaps AS open_gaps,
                t.missing_events AS missing_events, t.lost_events AS lost_events, open.n AS alerts,
                ['', 'low', 'medium', 'high', 'critical'][open.worst + 1] AS worst_severity,
                ['', 'PASS', 'UNDECIDED', 'FAIL'][verdict.dose + 1] AS dose_state,
                ['', 'PASS', 'UNDECIDED', 'FAIL'][verdict.depth + 1] AS depth_state, verdict.error_pct AS dose_error_pct,
                ['', 'IN_CONTROL', 'LEARNING', 'DRIFT'][chart.worst + 1] AS drift_state,
                formatDateTime(chart.crossing_at, '%FT%T.%fZ') AS crossing_at, breach.n AS breaches,
                formatDateTime(due.at, '%FT%T.%fZ') AS due_at, dateDiff('day', now64(6, 'UTC'), due.at) AS days_left,
                delivery.made AS made, delivery.stored AS stored, t.missing_events AS missing,
                if(empty(days.spark), arrayResize(emptyArrayFloat64()::Array(Nullable(Float64)), 30, NULL), days.spark) AS spark
            FROM fleet AS t
            LEFT JOIN (
                SELECT alert.tenant AS tenant, alert.device AS device, count() AS n,
                    max(indexOf(['low', 'medium', 'high', 'critical'], alert.severity)) AS worst
                FROM (SELECT * FROM alerts FINAL WHERE state = 'OPEN' AND device != '') AS alert
                LEFT JOIN (
                    SELECT tenant, alert_key, max(said.attention) AS covered FROM alert_history AS said
                    WHERE event = 'ACKNOWLEDGED' GROUP BY tenant, alert_key) AS answer
                ON answer.tenant = alert.tenant AND answer.alert_key = alert.alert_key
                WHERE answer.covered < alert.attention
                GROUP BY alert.tenant, alert.device) AS open
            ON open.tenant = t.tenant AND open.device = t.device
            LEFT JOIN (
                SELECT tenant, device,
                    maxIf(indexOf(['PASS', 'UNDECIDED', 'FAIL'], row.state), channel = 'DOSE') AS dose,
                    maxIf(indexOf(['PASS', 'UNDECIDED', 'FAIL'], row.state), channel = 'DEPTH') AS depth,
                    sumIf(row.n * row.target, channel = 'DOSE') AS targets,
                    if(targets = 0, NULL, 100 * sumIf(row.n * row.mean_error, channel = 'DOSE') / targets) AS error_pct
                FROM (SELECT * FROM accuracy_verdicts FINAL WHERE current AND state != 'CLEARED') AS row
                GROUP BY tenant, device) AS verdict
            ON verdict.tenant = t.tenant AND verdict.device = t.device
            LEFT JOIN (
                SELECT tenant, device, max(indexOf(['IN_CONTROL', 'LEARNING', 'DRIFT'], row.state)) AS worst,
                    min(row.crossing_at) AS crossing_at
                FROM (SELECT * FROM drift FINAL WHERE current AND state != 'CLEARED') AS row
                GROUP BY tenant, device) AS chart
            ON chart.tenant = t.tenant AND chart.device = t.device
            LEFT JOIN (
                SELECT tenant, device, count() AS n FROM sterility_breaches
                WHERE state IN ('CONFIRMED', 'INDETERMINATE') AND device != '' GROUP BY tenant, device) AS breach
            ON breach.tenant = t.tenant AND breach.device = t.device
            LEFT JOIN (
                SELECT tenant, device, min(row.due_at) AS at FROM calibrations_due AS row GROUP BY tenant, device) AS due
            ON due.tenant = t.tenant AND due.device = t.device
            LEFT JOIN (
                SELECT tenant, device, sum(boot.known_last) AS made,
                    toUInt64(sum(arraySum(run -> if(run.state = 'STORED', run.last - run.first + 1, 0), boot.runs))) AS stored
                FROM delivery_state AS boot GROUP BY tenant, device) AS delivery
            ON delivery.tenant = t.tenant AND delivery.device = t.device
            LEFT JOIN (
                SELECT tenant, device,
                    arrayMap(day -> pairs.2[indexOf(pairs.1, day)], range(30)) AS spark,
                    groupArray((row.number, row.error_pct)) AS pairs
                FROM (
                    SELECT tenant, device, 29 - dateDiff('day', each.day, toDate(now('UTC'))) AS number,
                        if(sum(each.targets) = 0, NULL, 100 * sum(each.error) / sum(each.targets)) AS error_pct
                    FROM (
                        SELECT tenant, device, day, toInt64(dose_target_nl) AS targets, dose_error_nl AS error
                        FROM accuracy_day WHERE day > toDate(now('UTC')) - 30 AND day <= toDate(now('UTC'))
                        UNION ALL
                        SELECT tenant, device, toDate(minute, 'UTC'), toInt64(dose_target_nl), dose_error_nl
                        FROM accuracy_minute
                        WHERE minute >= toDateTime(toDate(now('UTC')) - 29, 'UTC') AND minute < toDateTime(toDate(now('UTC')) + 1, 'UTC')
                            AND ingest_day NOT IN (SELECT ingest_day FROM accuracy_day)) AS each
                    GROUP BY tenant, device, each.day) AS row
                GROUP BY tenant, device) AS days
            ON days.tenant = t.tenant AND days.device = t.device
            WHERE {where}",
    shape: Shape::List { keys: &[Key::Text("tenant"), Key::Text("device")], newest_first: false },
    rows: Rows::of::<FleetDevice>().up_to(FLEET_MAX),
}];
