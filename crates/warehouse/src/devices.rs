//! Findings about single sessions and about the devices of the fleet that a query alone can make.

use async_recursion::async_recursion as boxed;
use clickhouse::Row;
use serde::{Deserialize, Serialize};

use crate::{
    changes::News,
    client::{Answer, Warehouse},
    error::Error,
    horizon::Horizon,
    sql::{Scope, list},
    states::Severity,
};

/// SQL of a session on one device, `TENANT/DEVICE/SESSION`.
const SESSION: &str = "concat(tenant, '/', device, '/', session_id)";

/// A session on one device in which single injections raise alerts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct Shots {
    pub tenant: String,
    pub device: String,
    /// Session; empty = outside a session.
    pub session_id: String,
    pub site: String,
    /// Time of its first injection, us since 1970.
    pub since: i64,
    /// Injections deeper than the model's safe maximum for the area.
    pub unsafe_n: u64,
    /// The deepest of them, um along the needle.
    pub unsafe_um: u32,
    /// Injections whose dose is off by more than twice the tolerance.
    pub dose_n: u64,
    /// The largest such error by magnitude, nl.
    pub dose_nl: i64,
    /// Injections whose depth is off by more than twice the tolerance.
    pub depth_n: u64,
    /// The largest such error by magnitude, um.
    pub depth_um: i64,
    /// How often three injections in a row were occluded.
    pub occlusions: u64,
}

/// A device that deserves an alert.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetFinding {
    pub tenant: String,
    pub site: String,
    pub device: String,
    /// What distinguishes it from other findings of this kind on the device; empty = nothing.
    pub subject: String,
    /// Session; empty = none.
    pub session_id: String,
    /// Time from which it holds, us since 1970.
    pub since: i64,
    /// Title of the alert.
    pub title: String,
}

/// The limits from which a state of a device deserves an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FleetLimits {
    /// Opening days of the site on which the device may stay silent, 1 to 365.
    pub silent_days: u32,
    /// A lower battery level counts as low, percent, 1 to 100.
    pub battery_pct: u32,
}

/// A question about the whole fleet. Each of its [`FleetFinding`]s raises an alert.
#[derive(Clone, Copy, Debug)]
pub struct FleetQuestion {
    /// Kind of the alert.
    pub kind: &'static str,
    pub severity: Severity,
    /// Table or view that shows the rows behind a finding.
    pub table: &'static str,
    sql: &'static str,
}

const fn question(kind: &'static str, severity: Severity, table: &'static str, sql: &'static str) -> FleetQuestion {
    FleetQuestion { kind, severity, table, sql }
}

/// Every question about the fleet.
pub const FLEET: [FleetQuestion; 10] = [
    question("device-lost", Severity::Medium, "fleet", LOST),
    question("device-silent", Severity::Medium, "fleet", SILENT),
    question("session-allergy", Severity::Medium, "sessions", ALLERGY),
    question("session-licence", Severity::Medium, "sessions", LICENCE),
    question("calibration-due", Severity::Low, "calibrations_due", DUE),
    question("battery", Severity::Low, "device_status", BATTERY),
    question("clock", Severity::Low, "injections", CLOCK),
    question("clock-implausible", Severity::Medium, "implausible_times", IMPLAUSIBLE),
    question("sequence-gap", Severity::Low, "delivery_gaps", GAP),
    question("sequence-conflict", Severity::High, "quarantine", CONFLICT),
];

const LOST: &str = "
    SELECT toString(fleet.tenant), toString(fleet.site), toString(fleet.device), '', visit.session_id,
        toUnixTimestamp64Micro(ifNull(fleet.state_since, visit.started)),
        concat('device ', fleet.device, ' lost its connection during an open session')
    FROM fleet
    INNER JOIN
    (
        SELECT tenant, device, session_id, min(at) AS started FROM sessions WHERE session_id != ''
        GROUP BY tenant, device, session_id HAVING countIf(event = 'STARTED') > 0 AND countIf(event = 'ENDED') = 0
    ) AS visit ON visit.tenant = fleet.tenant AND visit.device = fleet.device
    WHERE fleet.state = 'LOST' AND (fleet.state_since IS NULL OR fleet.state_since >= visit.started)";

// Silence is counted in opening days of the site; Monday to Friday if none are registered.
const SILENT: &str = "
    SELECT toString(fleet.tenant), toString(fleet.site), toString(fleet.device), '', '',
        toUnixTimestamp64Micro(assumeNotNull(fleet.last_seen)),
        concat('device ', fleet.device, ' has been silent for more than SILENT_DAYS open days')
    FROM fleet
    LEFT JOIN sites_latest AS site ON site.tenant = fleet.tenant AND site.site = fleet.site
    WHERE fleet.last_seen IS NOT NULL AND fleet.state != 'OFF' AND fleet.last_seen < now64(6, 'UTC') - toIntervalDay(SILENT_DAYS)
        AND fleet.kind NOT IN ('BENCH', 'GATEWAY')
        AND arrayCount(day -> has(if(empty(site.open_days), [1, 2, 3, 4, 5], site.open_days), toDayOfWeek(day))
                AND NOT has(site.closed_dates, day),
            arrayMap(ago -> toDate(now('UTC')) - ago,
                range(0, least(400, dateDiff('day', assumeNotNull(fleet.last_seen), now('UTC')))))) > SILENT_DAYS
    SETTINGS join_use_nulls = 0";

const ALLERGY: &str = "
    SELECT toString(visit.tenant), toString(visit.site), toString(visit.device), visit.session_id, visit.session_id,
        toUnixTimestamp64Micro(visit.at),
        multiIf(visit.allergy_result IN ('', 'NOT_DONE'), 'a session began without an allergy test',
            visit.allergy_result = 'POSITIVE', 'a session began after a positive allergy test',
            visit.allergy_at > visit.at - toIntervalHour(24), 'a session began less than 24 h after the allergy test',
            'a session used another formula than the allergy test')
    FROM (SELECT * FROM sessions WHERE event = 'STARTED' AND session_id != '' AND POLICY) AS visit
    LEFT JOIN
    (
        SELECT tenant, session_id, groupUniqArray(toString(formula_id)) AS formulas FROM preparations
        WHERE session_id != '' AND formula_id != '' GROUP BY tenant, session_id
    ) AS mixture ON mixture.tenant = visit.tenant AND mixture.session_id = visit.session_id
    WHERE visit.allergy_result IN ('', 'NOT_DONE', 'POSITIVE') OR ifNull(visit.allergy_at > visit.at - toIntervalHour(24), false)
        OR (visit.allergy_formula_id != '' AND arrayExists(formula -> formula != visit.allergy_formula_id, mixture.formulas))
    SETTINGS join_use_nulls = 0";

const LICENCE: &str = "
    SELECT toString(visit.tenant), toString(visit.site), toString(visit.device), visit.session_id, visit.session_id,
        toUnixTimestamp64Micro(visit.at),
        if(visit.licence = 'EXPIRED', 'a session began with an expired licence', 'a session began without a licence')
    FROM (SELECT * FROM sessions WHERE event = 'STARTED' AND session_id != '' AND POLICY) AS visit
    WHERE visit.licence != 'VERIFIED'";

const DUE: &str = "
    SELECT toString(tenant), '', toString(device), lower(channel), '', toUnixTimestamp64Micro(assumeNotNull(due_at)),
        concat('the ', lower(channel), ' calibration of ', device, ' is due on ', toString(toDate(assumeNotNull(due_at), 'UTC')))
    FROM calibrations_due WHERE state IN ('DUE', 'OVERDUE')";

const BATTERY: &str = "
    SELECT toString(tenant), toString(argMax(status.site, received_at)), toString(device), '', '',
        toUnixTimestamp64Micro(greatest(min(received_at), maxIf(received_at, battery_pct >= BATTERY_PCT))),
        concat('the battery of ', device, ' is below BATTERY_PCT %')
    FROM device_status AS status WHERE battery_pct IS NOT NULL AND ingest_day >= toDate(now('UTC')) - 7
    GROUP BY tenant, device HAVING argMax(battery_pct, received_at) < BATTERY_PCT";

const CLOCK: &str = "
    SELECT toString(tenant), toString(argMax(shot.site, received_at)), toString(device), '', '',
        toUnixTimestamp64Micro(greatest(min(received_at), maxIf(received_at, clock = 'SYNCED'))),
        concat('the clock of ', device, ' is not synchronised')
    FROM injections AS shot WHERE ingest_day >= toDate(now('UTC')) - 2
    GROUP BY tenant, device HAVING argMax(clock, received_at) = 'UNSYNCED'";

// The alert shows the first impossible time of the last days. A clock that stays wrong then does
// not change its alert with each message.
const IMPLAUSIBLE: &str = "
    SELECT toString(tenant), toString(argMax(told.site, received_at)), toString(device), '', '',
        toUnixTimestamp64Micro(min(received_at)),
        concat(device, ' told ', argMin((if(told.field = 'base_unix_us', 'the time of an event', toString(told.field)) || ' as ' ||
            if(claim_us BETWEEN 0 AND 10000000000000000,
                toString(fromUnixTimestamp64Micro(least(greatest(claim_us, 0), 10000000000000000), 'UTC')) || ' UTC',
                toString(claim_us) || ' us') ||
            ', received at ' || toString(told.received_at) || ' UTC: ' || told.doubt), received_at))
    FROM implausible_times AS told WHERE ingest_day >= toDate(now('UTC')) - 2
    GROUP BY tenant, device";

const GAP: &str = "
    SELECT toString(tenant), toString(any(gap.site)), toString(device), '', '', toUnixTimestamp64Micro(min(gap.since)),
        concat('events of ', device, ' have not arrived')
    FROM delivery_gaps AS gap WHERE state = 'OPEN' AND gap.since < now64(6, 'UTC') - toIntervalMinute(5)
    GROUP BY tenant, device";

const CONFLICT: &str = "
    SELECT toString(tenant), toString(argMax(other.site, other.received_at)), toString(device), '', '',
        toUnixTimestamp64Micro(min(other.received_at)),
        concat('device ', device, ' sent other contents under sequence numbers that were stored: it was cloned, or its counters were reset')
    FROM quarantine AS other WHERE reason = 'conflict' AND device != ''
    GROUP BY tenant, device";

/// SQL condition: whether a policy is `required`, by the tenant's own policy or else the general
/// one.
fn required(policy: &str) -> String {
    let set = format!("FROM policies_latest WHERE name = '{policy}'");
    format!(
        "if(tenant IN (SELECT tenant {set}), tenant IN (SELECT tenant {set} AND value = 'required'), \
         (SELECT count() {set} AND tenant = '' AND value = 'required') > 0)"
    )
}

fn sessions(scope: Scope<'_>) -> String {
    let named = scope.filter(SESSION);
    match scope {
        Scope::Ids(ids) => {
            let devices = ids.iter().filter_map(|id| id.split('/').nth(1));
            format!("device IN {} AND {named}", list(devices))
        }
        Scope::Slice { .. } => named,
    }
}

impl Warehouse {
    /// Sessions with injections in new parts, `TENANT/DEVICE/SESSION`.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn sessions_in(&self, news: &News<'_>, limit: usize) -> Result<Vec<String>, Error> {
        self.texts(news, "injections", SESSION, limit).await
    }

    /// Sessions with injections of batches that are not committed.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn sessions_beyond(&self, horizon: &Horizon, limit: usize) -> Result<Vec<String>, Error> {
        self.texts_beyond("injections", SESSION, horizon, limit).await
    }

    /// Sessions in which single injections raise alerts. Tolerances are those registered for the
    /// model; an injection that did not end OK may deliver less than its target.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub fn alarming_shots<'a>(&'a self, scope: Scope<'a>, horizon: &'a Horizon) -> Answer<'a, Vec<Shots>> {
        Box::pin(async move {
            let (filter, horizon) = (sessions(scope), horizon.filter());
            self.rows(&format!(
            "SELECT toString(shot.tenant) AS tenant, toString(shot.device) AS device, shot.session_id AS session_id, \
             toString(argMax(shot.site, shot.at)) AS site, toUnixTimestamp64Micro(min(shot.at)) AS since, \
             countIf(too_deep) AS unsafe_n, toUInt32(maxIf(ifNull(shot.measured_um, 0), too_deep)) AS unsafe_um, \
             countIf(dose_off) AS dose_n, argMaxIf(dose_error, abs(dose_error), dose_off) AS dose_nl, \
             countIf(depth_off) AS depth_n, argMaxIf(depth_error, abs(depth_error), depth_off) AS depth_um, \
             toUInt64(arrayCount(place -> blocked[place + 2] - blocked[place] = 2, \
               range(1, greatest(length(arraySort(groupArrayIf(ifNull(shot.injection_no, shot.seq), \
                 shot.outcome = 'OCCLUDED')) AS blocked), 2) - 1))) AS occlusions \
             FROM ( \
               SELECT shot.*, \
                 toUInt16(limits.safe_depth_um[toString(area)]) AS safe, \
                 ifNull(depth_source != 'SETTING' AND safe > 0 AND measured_um > safe, false) AS too_deep, \
                 ifNull(toInt64(delivered_nl) - toInt64(target_nl), 0) AS dose_error, \
                 ifNull(toInt64(measured_um) - toInt64(target_um), 0) AS depth_error, \
                 limits.dose_tolerance_ppm + limits.dose_resolution_nl > 0 AND target_nl IS NOT NULL AND delivered_nl IS NOT NULL AND dose_source != 'SETTING' AND (outcome IN ('OK', '') OR dose_error > 0) \
                   AND abs(dose_error) > 2 * greatest(limits.dose_resolution_nl, limits.dose_tolerance_ppm * ifNull(target_nl, 0) / 1000000) AS dose_off, \
                 limits.depth_tolerance_ppm + limits.depth_tolerance_um + limits.depth_resolution_um > 0 AND target_um IS NOT NULL AND measured_um IS NOT NULL AND depth_source != 'SETTING' AND (outcome IN ('OK', '') OR depth_error > 0) \
                   AND abs(depth_error) > 2 * greatest(greatest(limits.depth_resolution_um, limits.depth_tolerance_um), limits.depth_tolerance_ppm * ifNull(target_um, 0) / 1000000) AS depth_off \
               FROM (SELECT tenant, site, device, session_id, model, at, seq, injection_no, outcome, area, target_nl, delivered_nl, \
                     dose_source, target_um, measured_um, depth_source FROM injections WHERE {filter} AND {horizon}) AS shot \
               LEFT JOIN models_latest AS limits ON limits.model = shot.model \
             ) AS shot GROUP BY tenant, device, session_id \
             HAVING unsafe_n + dose_n + depth_n + occlusions > 0 ORDER BY tenant, device, session_id"
        ))
        .await
        })
    }

    /// The findings of one question of [`FLEET`].
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn findings(&self, question: &FleetQuestion, limits: FleetLimits) -> Result<Vec<FleetFinding>, Error> {
        let policy = required(if question.kind == "session-licence" { "session.licence" } else { "session.allergy" });
        type Found = (String, String, String, String, String, i64, String);
        let sql = question.sql.replace("POLICY", &policy);
        let sql = sql.replace("SILENT_DAYS", &limits.silent_days.to_string());
        let rows: Vec<Found> = self.rows(&sql.replace("BATTERY_PCT", &limits.battery_pct.to_string())).await?;
        let finding = |(tenant, site, device, subject, session_id, since, title): Found| FleetFinding {
            tenant,
            site,
            device,
            subject,
            session_id,
            since,
            title,
        };
        Ok(rows.into_iter().map(finding).collect())
    }
}

impl Warehouse {
    /// Keys of open alerts of these kinds. `devices` restricts them to devices, named
    /// `TENANT/DEVICE`; `None` = all devices.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub fn open_keys<'a>(&'a self, kinds: &'a [&'a str], devices: Option<Scope<'a>>) -> Answer<'a, Vec<String>> {
        Box::pin(async move {
            let kinds = list(kinds.iter().copied());
            let scope = devices.map_or_else(|| "1".to_owned(), crate::accuracy::devices);
            self.rows(&format!(
                "SELECT DISTINCT alert_key FROM alerts FINAL WHERE state = 'OPEN' AND kind IN {kinds} AND {scope}"
            ))
            .await
        })
    }
}
