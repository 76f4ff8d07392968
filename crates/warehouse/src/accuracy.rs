//! The facts that accuracy and drift are judged from, and the verdicts about them.
//!
//! Sums come from the loader's aggregates, over committed batches only. An injection that the
//! device itself reports as failed (PARTIAL, ABORTED, OCCLUDED, NO_CONTACT) says nothing about
//! accuracy. The aggregates keep such injections apart, and the sums here leave them out.

use async_recursion::async_recursion as boxed;
use clickhouse::Row;
use serde::{Deserialize, Serialize};

use crate::{
    client::{Answer, Warehouse},
    error::Error,
    horizon::Horizon,
    sql::{Scope, list},
    states::{Channel, ChartState, Forecast, Side, ToleranceState},
};

/// SQL expression for a device's name, `TENANT/DEVICE`.
pub const DEVICE: &str = "concat(tenant, '/', device)";

/// Sums of one session at one set point within one calibration.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Row, Serialize, Deserialize)]
pub struct SessionSum {
    pub tenant: String,
    pub device: String,
    pub channel: Channel,
    /// Calibration; empty = not said.
    pub calibration_id: String,
    pub target: u32,
    /// Session; empty = outside a session.
    pub session_id: String,
    /// Model; empty = not reported.
    pub model: String,
    /// Firmware; empty = not reported.
    pub firmware: String,
    /// Site of the last injection.
    pub site: String,
    pub n: i64,
    /// Sum of measured - target.
    pub error: i64,
    /// Sum of the squares of measured - target.
    pub error_sq: i64,
    /// Sum of the targets.
    pub targets: i64,
    /// Time of the first injection, us since 1970.
    pub first_at: i64,
    /// Time of the last injection, us since 1970.
    pub last_at: i64,
}

/// Tolerances and bands of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct Model {
    pub model: String,
    /// Smallest tolerance of a dose, nl.
    pub dose_resolution_nl: u32,
    /// Dose tolerance, millionths of the set point.
    pub dose_tolerance_ppm: u32,
    /// Smallest tolerance of a depth, um.
    pub depth_resolution_um: u16,
    /// Absolute depth tolerance, um.
    pub depth_tolerance_um: u16,
    /// Depth tolerance, millionths of the set point.
    pub depth_tolerance_ppm: u32,
    /// Upper edges of the dose bands, nl, ascending.
    pub dose_bands_nl: Vec<u32>,
    /// Upper edges of the depth bands, um, ascending.
    pub depth_bands_um: Vec<u16>,
}

/// When a calibration must be repeated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct Due {
    pub tenant: String,
    /// The device that was calibrated.
    pub device: String,
    pub channel: Channel,
    pub calibration_id: String,
    /// Due date, us since 1970.
    pub due_at: i64,
}

/// A session on one device that is known to lack injections: between two received numbers, or of
/// the count that the device gave at the end. Quarantined injections are missing too, because no
/// figure counts them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct Incomplete {
    pub tenant: String,
    pub device: String,
    pub session_id: String,
    /// Injections that are stored.
    pub received: u64,
    /// Injections known to have been made.
    pub known: u64,
    /// Whether more injections may be missing, because the device has not reported its count.
    pub at_least: bool,
    /// Time of the session's first known event, us since 1970.
    pub first_at: i64,
    /// Time of the session's last known event, us since 1970.
    pub last_at: i64,
}

/// A row of `accuracy_verdicts`. The table's column comments explain the fields.
#[derive(Clone, Debug, Default, PartialEq, Row, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct AccuracyVerdict {
    pub tenant: String,
    pub device: String,
    pub channel: Channel,
    pub calibration_id: String,
    pub target: u32,
    pub site: String,
    pub model: String,
    pub firmware: String,
    pub current: bool,
    pub state: ToleranceState,
    pub reason: String,
    pub sessions: u64,
    pub n: u64,
    pub mean_error: f64,
    pub sd_error: Option<f64>,
    pub limit_low: Option<f64>,
    pub limit_high: Option<f64>,
    pub pass_simple: Option<bool>,
    pub k_simple: Option<f64>,
    pub pass_clustered: Option<bool>,
    pub k_clustered: Option<f64>,
    pub k_actual: Option<f64>,
    pub first_at: i64,
    pub last_at: i64,
    pub rule_version: u32,
    pub parameters: String,
    pub completeness: String,
    pub computed_at: i64,
}

/// A row of `drift`. The table's column comments explain the fields.
#[derive(Clone, Debug, Default, PartialEq, Row, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DriftState {
    pub tenant: String,
    pub device: String,
    pub channel: Channel,
    pub band: u32,
    pub calibration_id: String,
    pub firmware: String,
    pub site: String,
    pub model: String,
    pub current: bool,
    pub state: ChartState,
    pub side: Side,
    pub sessions: u64,
    pub n: u64,
    pub last_error_pct: f64,
    pub last_z: Option<f64>,
    pub cusum_upper: Option<f64>,
    pub cusum_lower: Option<f64>,
    pub ewma: Option<f64>,
    pub ewma_limit: Option<f64>,
    pub signal_session: String,
    pub onset_session: String,
    pub spikes: Vec<String>,
    pub western_electric: Vec<u8>,
    pub forecast: Forecast,
    pub crossing_at: Option<i64>,
    pub crossing_low: Option<i64>,
    pub crossing_high: Option<i64>,
    pub alarm: bool,
    pub first_at: i64,
    pub last_at: i64,
    pub rule_version: u32,
    pub parameters: String,
    pub completeness: String,
    pub computed_at: i64,
}

const VERDICT: &str = "tenant, device, channel, calibration_id, target, site, model, firmware, current, state, reason, \
     sessions, n, mean_error, sd_error, limit_low, limit_high, pass_simple, k_simple, pass_clustered, k_clustered, k_actual, \
     toUnixTimestamp64Micro(verdict.first_at) AS first_at, toUnixTimestamp64Micro(verdict.last_at) AS last_at, rule_version, \
     parameters, completeness, toUnixTimestamp64Micro(verdict.computed_at) AS computed_at";
const DRIFT: &str = "tenant, device, channel, band, calibration_id, firmware, site, model, current, state, side, sessions, n, \
     last_error_pct, last_z, cusum_upper, cusum_lower, ewma, ewma_limit, signal_session, onset_session, spikes, western_electric, forecast, \
     toUnixTimestamp64Micro(chart.crossing_at) AS crossing_at, toUnixTimestamp64Micro(chart.crossing_low) AS crossing_low, \
     toUnixTimestamp64Micro(chart.crossing_high) AS crossing_high, alarm, \
     toUnixTimestamp64Micro(chart.first_at) AS first_at, toUnixTimestamp64Micro(chart.last_at) AS last_at, rule_version, \
     parameters, completeness, toUnixTimestamp64Micro(chart.computed_at) AS computed_at";

/// Filter for devices, whose ids here are `TENANT/DEVICE`. The filter also names the column
/// `device`, because the table's index does not cover the composed name.
pub(crate) fn devices(scope: Scope<'_>) -> String {
    let named = scope.filter(DEVICE);
    match scope {
        Scope::Ids(ids) => {
            let devices = ids.iter().map(|id| id.split_once('/').map_or(id.as_str(), |(_, device)| device));
            format!("device IN {} AND {named}", list(devices))
        }
        Scope::Slice { .. } => named,
    }
}

/// SQL for the sums of one channel: `DOSE` in nl or `DEPTH` in um.
fn channel(name: &str, unit: &str, filter: &str) -> String {
    let sums = name.to_lowercase();
    format!(
        "SELECT tenant, device, '{name}' AS channel, {sums}_calibration_id AS calibration_id, \
         toUInt32(assumeNotNull(target_{unit})) AS target, session_id, model, firmware, site, toInt64({sums}_n) AS n, \
         {sums}_error_{unit} AS error, toInt64({sums}_error_sq) AS error_sq, toInt64({sums}_target_{unit}) AS targets, \
         first_at, last_at \
         FROM accuracy_session WHERE {sums}_n > 0 AND outcome IN ('OK', '') AND {filter}"
    )
}

impl Warehouse {
    /// Sums of devices, by session, calibration and set point.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub fn session_sums<'a>(&'a self, scope: Scope<'a>, horizon: &'a Horizon) -> Answer<'a, Vec<SessionSum>> {
        Box::pin(async move {
            let filter = format!("{} AND {}", devices(scope), horizon.filter());
            let (dose, depth) = (channel("DOSE", "nl", &filter), channel("DEPTH", "um", &filter));
            self.rows(&format!(
            "SELECT toString(row.tenant) AS tenant, toString(row.device) AS device, row.channel AS channel, \
             toString(row.calibration_id) AS calibration_id, row.target AS target, row.session_id AS session_id, \
             toString(row.model) AS model, toString(row.firmware) AS firmware, toString(argMax(row.site, row.last_at)) AS site, \
             sum(row.n) AS n, sum(row.error) AS error, sum(row.error_sq) AS error_sq, sum(row.targets) AS targets, \
             toUnixTimestamp64Micro(min(row.first_at)) AS first_at, toUnixTimestamp64Micro(max(row.last_at)) AS last_at \
             FROM ({dose} UNION ALL {depth}) AS row \
             GROUP BY tenant, device, channel, calibration_id, target, session_id, model, firmware \
             ORDER BY tenant, device, channel, first_at, session_id, calibration_id, target"
        ))
        .await
        })
    }

    /// Sessions on devices that lack injections.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub fn incomplete_sessions<'a>(&'a self, scope: Scope<'a>, horizon: &'a Horizon) -> Answer<'a, Vec<Incomplete>> {
        Box::pin(async move {
            let filter = format!("session_id != '' AND {} AND {}", devices(scope), horizon.filter());
            self.rows(&format!(
                "SELECT toString(row.tenant) AS tenant, toString(row.device) AS device, row.session_id AS session_id, \
             sum(row.stored) AS received, \
             greatest(received, toUInt64(ifNull(max(row.number) - min(row.number) + 1, 0)) \
               + countIf(row.stored = 1 AND row.number IS NULL), toUInt64(ifNull(max(row.shots), 0))) AS known, \
             ifNull(max(row.shots) < known, true)::Bool AS at_least, \
             toUnixTimestamp64Micro(min(row.at)) AS first_at, toUnixTimestamp64Micro(max(row.at)) AS last_at \
             FROM ( \
               SELECT tenant, device, session_id, at, toUInt64(1) AS stored, injection_no AS number, \
                 NULL::Nullable(UInt32) AS shots FROM injections WHERE {filter} \
               UNION ALL \
               SELECT tenant, device, session_id, at, 0, NULL, shots FROM sessions WHERE event = 'ENDED' AND {filter} \
             ) AS row GROUP BY tenant, device, session_id HAVING known > received ORDER BY tenant, device, session_id"
            ))
            .await
        })
    }

    /// Number of rows that the sums are computed from. The monitor uses it to cut everything into
    /// slices.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn session_rows(&self) -> Result<u64, Error> {
        self.row("SELECT toUInt64(count()) FROM accuracy_session").await
    }

    /// The models that are registered now.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn models(&self) -> Result<Vec<Model>, Error> {
        let sql = "SELECT model, dose_resolution_nl, dose_tolerance_ppm, depth_resolution_um, depth_tolerance_um, \
                   depth_tolerance_ppm, dose_bands_nl, depth_bands_um FROM models_latest ORDER BY model";
        self.rows(sql).await
    }

    /// Due dates of the calibrations of devices, if reported.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub fn due_dates<'a>(&'a self, scope: Scope<'a>) -> Answer<'a, Vec<Due>> {
        Box::pin(async move {
            let filter = scope.filter("concat(tenant, '/', subject_device)");
            self.rows(&format!(
            "SELECT toString(tenant) AS tenant, toString(subject_device) AS device, toString(done.channel) AS channel, \
             toString(done.calibration_id) AS calibration_id, toUnixTimestamp64Micro(assumeNotNull(max(done.due_at))) AS due_at \
             FROM calibrations AS done WHERE done.due_at IS NOT NULL AND calibration_id != '' AND {filter} \
             GROUP BY tenant, device, channel, calibration_id ORDER BY tenant, device, channel, calibration_id"
        ))
        .await
        })
    }

    /// The latest verdicts about devices.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub fn accuracy_verdicts<'a>(&'a self, scope: Scope<'a>) -> Answer<'a, Vec<AccuracyVerdict>> {
        Box::pin(async move {
            let filter = devices(scope);
            self.rows(&format!(
                "SELECT {VERDICT} FROM (SELECT * FROM accuracy_verdicts FINAL WHERE {filter}) AS verdict \
             ORDER BY tenant, device, channel, calibration_id, target"
            ))
            .await
        })
    }

    /// The latest state of the drift charts of devices.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub fn drift_states<'a>(&'a self, scope: Scope<'a>) -> Answer<'a, Vec<DriftState>> {
        Box::pin(async move {
            let filter = devices(scope);
            self.rows(&format!(
                "SELECT {DRIFT} FROM (SELECT * FROM drift FINAL WHERE {filter}) AS chart \
             ORDER BY tenant, device, channel, band, calibration_id, firmware"
            ))
            .await
        })
    }

    /// Adds verdicts and states. The latest row of a key is the one that holds.
    ///
    /// # Errors
    /// As [`Warehouse::execute`].
    #[boxed]
    pub async fn add_accuracy(&self, verdicts: &[AccuracyVerdict], charts: &[DriftState]) -> Result<(), Error> {
        self.add("accuracy_verdicts", verdicts).await?;
        self.add("drift", charts).await
    }

    /// Whether verdicts exist and all of the latest ones are of this version of the rules.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn accuracy_is_current(&self, rule_version: u32) -> Result<bool, Error> {
        let sql = format!(
            "SELECT count() > 0 AND countIf(rule_version != {rule_version}) = 0 FROM \
             (SELECT rule_version FROM accuracy_verdicts FINAL WHERE state != 'CLEARED')"
        );
        Ok(self.row::<u8>(&sql).await? != 0)
    }
}

/// A session between the last calibration and one that raises a question.
#[derive(Clone, Debug, Default, PartialEq, Row, Serialize, Deserialize)]
pub struct Affected {
    pub tenant: String,
    /// The device that was calibrated.
    pub device: String,
    /// `DOSE` or `DEPTH`.
    pub channel: String,
    /// When the calibration was performed, us since 1970.
    pub performed_at: i64,
    /// When the calibration before it was performed, us since 1970; 0 = there was none.
    pub since: i64,
    /// Largest as-found error, percent.
    pub as_found_error_pct: Option<f64>,
    /// Session; empty = outside a session.
    pub session_id: String,
    pub site: String,
    /// Time of the first injection, us since 1970.
    pub first_at: i64,
    /// Time of the last injection, us since 1970.
    pub last_at: i64,
    pub injections: u64,
}

impl Warehouse {
    /// Sessions that a calibration concerns, from `calibration_impact`; `tenant` empty = all.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn affected(&self, calibration_id: &str, tenant: &str) -> Result<Vec<Affected>, Error> {
        let (id, tenant) = (crate::sql::quoted(calibration_id), crate::sql::quoted(tenant));
        self.rows(&format!(
            "SELECT toString(shot.tenant) AS tenant, toString(shot.device) AS device, shot.channel AS channel, \
             toUnixTimestamp64Micro(shot.performed_at) AS performed_at, toUnixTimestamp64Micro(shot.since) AS since, \
             shot.as_found_error_pct AS as_found_error_pct, shot.session_id AS session_id, \
             toString(argMax(shot.site, shot.at)) AS site, toUnixTimestamp64Micro(min(shot.at)) AS first_at, \
             toUnixTimestamp64Micro(max(shot.at)) AS last_at, count() AS injections \
             FROM calibration_impact AS shot WHERE shot.calibration_id = {id} AND {tenant} IN ('', shot.tenant) \
             GROUP BY tenant, device, channel, performed_at, since, as_found_error_pct, session_id \
             ORDER BY tenant, device, channel, first_at, session_id"
        ))
        .await
    }

    /// Whether any device has reported this calibration.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn calibration_is_known(&self, calibration_id: &str, tenant: &str) -> Result<bool, Error> {
        let (id, tenant) = (crate::sql::quoted(calibration_id), crate::sql::quoted(tenant));
        let sql = format!(
            "SELECT count() > 0 FROM calibrations WHERE calibration_id = {id} AND {tenant} IN ('', calibrations.tenant)"
        );
        Ok(self.row::<u8>(&sql).await? != 0)
    }
}
