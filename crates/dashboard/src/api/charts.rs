//! Curves that are computed here: the points of drift charts, by the code that the monitor judges
//! with, and trumpet curves.

use analysis::{
    chart::{Chart, Settings},
    cusum, ewma,
    standard::{Centre, Spread},
    trumpet::{self, Shot},
};
use serde::Deserialize;

use super::{
    endpoint::{Audience, Computed, Endpoint, Parameter, Rows, Shape},
    row::row,
};

/// Most points of a chart.
const POINTS_MAX: usize = 2_000;
/// Windows of a trumpet curve, injections.
const WINDOWS: [usize; 9] = [1, 2, 5, 10, 20, 50, 100, 200, 500];

row! {
    /// A session on a drift chart. Without a standardised value (z) the session served to learn the
    /// chart's centre and scale.
    pub struct DriftPoint {
        /// Session
        session_id: String,
        /// Time of its first injection; UTC
        at: String,
        /// Injections of the session on the chart
        n: u64,
        /// 100 * sum of errors / sum of targets
        error_pct: f64,
        /// The error, standardised by the sessions before it, sigma; null while the chart learns
        z: Option<f64>,
        /// EWMA of z; null while the chart learns
        ewma: Option<f64>,
        /// The EWMA signals beyond plus or minus this; null while the chart learns
        ewma_limit: Option<f64>,
        /// Upper CUSUM of z; null while the chart learns
        cusum_upper: Option<f64>,
        /// Lower CUSUM of z; null while the chart learns
        cusum_lower: Option<f64>,
        /// A CUSUM signals above this, sigma
        decision_limit: f64,
        /// Whether the CUSUM or the EWMA signals at this session; after a signal it starts again
        signalled: bool,
        /// Upper edge of the set-point band, nl or um; 0 = no band
        band: u32,
        /// Calibration in force; empty = not said
        calibration_id: String,
        /// Firmware; empty = not said
        firmware: String,
    }
}

/// The sums of a session on a chart, with the parameters that the monitor judged the chart by.
#[derive(Debug, Deserialize)]
pub struct ChartedSession {
    band: u32,
    calibration_id: String,
    firmware: String,
    session_id: String,
    at: String,
    error: i64,
    targets: i64,
    shots: u64,
    cusum_k: f64,
    cusum_h: f64,
    ewma_lambda: f64,
    ewma_limit: f64,
    spike: f64,
}

impl Computed for DriftPoint {
    type Source = ChartedSession;

    /// `sources` stand in the order of their charts, and of their time in each.
    fn compute(sources: Vec<ChartedSession>) -> Vec<Self> {
        let is_same = |one: &ChartedSession, next: &ChartedSession| {
            (one.band, &one.calibration_id, &one.firmware) == (next.band, &next.calibration_id, &next.firmware)
        };
        let mut points = Vec::new();
        for sessions in sources.chunk_by(is_same) {
            match chart(sessions) {
                Ok(charted) => points.extend(charted),
                Err(error) => tracing::error!(%error, "a chart cannot be computed"),
            }
        }
        points.sort_by(|one, next| (&one.at, &one.session_id, one.band).cmp(&(&next.at, &next.session_id, next.band)));
        points
    }
}

fn chart(sessions: &[ChartedSession]) -> Result<Vec<DriftPoint>, analysis::Error> {
    let Some(first) = sessions.first() else { return Ok(Vec::new()) };
    let mut chart = Chart::new(&Settings {
        centre: Centre::PhaseI,
        spread: Spread::SELF_STARTING,
        cusum: cusum::Design { k: first.cusum_k, h: first.cusum_h, fast_start: false },
        ewma: ewma::Design { lambda: first.ewma_lambda, limit: first.ewma_limit },
        spike: first.spike,
    })?;
    let point = |session: &ChartedSession| {
        let error_pct = 100.0 * session.error as f64 / session.targets as f64;
        let point = chart.add(error_pct, session.shots)?;
        Ok(DriftPoint {
            session_id: session.session_id.clone(),
            at: session.at.clone(),
            n: session.shots,
            error_pct,
            z: point.z,
            ewma: point.ewma.map(|point| point.average),
            ewma_limit: point.ewma.map(|point| point.bound),
            cusum_upper: point.cusum.map(|point| point.upper),
            cusum_lower: point.cusum.map(|point| point.lower),
            decision_limit: session.cusum_h,
            signalled: point.drift().is_some(),
            band: session.band,
            calibration_id: session.calibration_id.clone(),
            firmware: session.firmware.clone(),
        })
    };
    sessions.iter().map(point).collect()
}

row! {
    /// A window of a trumpet curve: the extremes of the mean dose error over all windows of so many
    /// consecutive injections. No window crosses a session, syringe, calibration, set point or gap.
    pub struct TrumpetWindow {
        /// Length of the window, injections
        window: u64,
        /// Greatest mean error, percent of the set point
        error_max_pct: f64,
        /// Least mean error, percent of the set point
        error_min_pct: f64,
        /// Windows of this length
        n: u64,
    }
}

/// An injection of a trumpet curve.
#[derive(Debug, Deserialize)]
pub struct TrumpetShot {
    session_id: String,
    syringe_mount_id: String,
    calibration_id: String,
    boot_id: u64,
    number: u64,
    target_nl: u32,
    delivered_nl: u32,
}

impl Computed for TrumpetWindow {
    type Source = TrumpetShot;

    fn compute(sources: Vec<TrumpetShot>) -> Vec<Self> {
        let shot = |shot: TrumpetShot| Shot {
            context: (shot.session_id, shot.syringe_mount_id, shot.calibration_id, shot.boot_id),
            seq: shot.number,
            target: shot.target_nl,
            measured: shot.delivered_nl,
        };
        let shots: Vec<_> = sources.into_iter().map(shot).collect();
        let stretches = trumpet::stretches(&shots);
        let curve = trumpet::curve(&stretches, &WINDOWS).unwrap_or_else(|error| {
            tracing::error!(%error, "a trumpet curve cannot be computed");
            Vec::new()
        });
        let window = |window: trumpet::Window| {
            let (error_min_pct, error_max_pct) = window.extremes?;
            let n = stretches.iter().map(|stretch| (stretch.len() + 1).saturating_sub(window.shots)).sum::<usize>();
            Some(Self { window: window.shots as u64, error_max_pct, error_min_pct, n: n as u64 })
        };
        curve.into_iter().filter_map(window).collect()
    }
}

pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/tenants/{tenant}/devices/{device}/drift/points",
        about: "Every session of the drift charts of a device, oldest first, computed as the monitor does; at most the \
                latest 2,000",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::path("tenant", "Tenant", "1"),
            Parameter::path("device", "Device", "1"),
            Parameter::choice("channel", "The channel", &["DOSE", "DEPTH"], "1").or("DOSE"),
            Parameter::text("calibration_id", "Only of this calibration", "t.calibration_id = ?"),
        ],
        // A chart is computed from all of its sessions, since a later point depends on the earlier
        // ones.
        sql: "
            SELECT
                t.band AS band, t.calibration_id AS calibration_id, t.firmware AS firmware, t.session_id AS session_id,
                formatDateTime(t.first_at, '%FT%T.%fZ') AS at, t.error AS error, t.targets AS targets, t.shots AS shots,
                JSONExtractFloat(judged.parameters, 'cusum_k') AS cusum_k, JSONExtractFloat(judged.parameters, 'cusum_h') AS cusum_h,
                JSONExtractFloat(judged.parameters, 'ewma_lambda') AS ewma_lambda,
                JSONExtractFloat(judged.parameters, 'ewma_limit') AS ewma_limit, JSONExtractFloat(judged.parameters, 'spike') AS spike
            FROM (
                SELECT sums.calibration_id AS calibration_id, sums.firmware AS firmware, sums.session_id AS session_id,
                    arrayMin(arrayFilter(edge -> edge >= sums.target,
                        if({channel} = 'DOSE', models.dose_bands_nl, models.depth_bands_um::Array(UInt32)))) AS band,
                    min(sums.first_at) AS first_at, sum(sums.error) AS error, sum(sums.targets) AS targets, sum(sums.n) AS shots
                FROM (
                    SELECT model, firmware, session_id, first_at,
                        if({channel} = 'DOSE', dose_calibration_id, depth_calibration_id) AS calibration_id,
                        toUInt32(assumeNotNull(if({channel} = 'DOSE', target_nl, target_um))) AS target,
                        if({channel} = 'DOSE', dose_error_nl, depth_error_um) AS error,
                        toInt64(if({channel} = 'DOSE', dose_target_nl, depth_target_um)) AS targets,
                        if({channel} = 'DOSE', dose_n, depth_n) AS n
                    FROM accuracy_session
                    WHERE device = {device} AND session_id != '' AND outcome IN ('OK', '') AND n > 0 AND targets > 0) AS sums
                LEFT JOIN models_latest AS models ON models.model = sums.model
                GROUP BY band, calibration_id, firmware, session_id) AS t
            INNER JOIN (
                SELECT band, calibration_id, firmware, parameters FROM drift FINAL
                WHERE device = {device} AND channel = {channel} AND state != 'CLEARED') AS judged
            ON judged.band = t.band AND judged.calibration_id = t.calibration_id AND judged.firmware = t.firmware
            WHERE {where}
            ORDER BY band, calibration_id, firmware, t.first_at, session_id",
        shape: Shape::Computed,
        rows: Rows::computed::<DriftPoint>(POINTS_MAX),
    },
    Endpoint {
        path: "/tenants/{tenant}/devices/{device}/trumpet",
        about: "Trumpet curve of the dose over the latest 2,000 injections: the extremes of the mean error by length of the \
                window",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::path("tenant", "Tenant", "1"),
            Parameter::path("device", "Device", "t.device = ?"),
            Parameter::text("session", "Only of this session", "t.session_id = ?"),
            Parameter::text("calibration_id", "Only of this calibration", "t.dose_calibration_id = ?"),
        ],
        sql: "
            SELECT
                shot.session_id AS session_id, shot.syringe_mount_id AS syringe_mount_id, shot.calibration_id AS calibration_id,
                shot.boot_id AS boot_id, shot.number AS number, shot.target_nl AS target_nl, shot.delivered_nl AS delivered_nl
            FROM (
                SELECT t.session_id AS session_id, t.syringe_mount_id AS syringe_mount_id, t.dose_calibration_id AS calibration_id,
                    t.boot_id AS boot_id, toUInt64(coalesce(t.injection_no, t.seq)) AS number, assumeNotNull(t.target_nl) AS target_nl,
                    assumeNotNull(t.delivered_nl) AS delivered_nl
                FROM injections AS t
                WHERE t.target_nl > 0 AND t.delivered_nl IS NOT NULL AND t.outcome IN ('OK', '') AND {where}
                ORDER BY t.at DESC LIMIT 2000) AS shot
            ORDER BY boot_id, session_id, number",
        shape: Shape::Computed,
        rows: Rows::computed::<TrumpetWindow>(WINDOWS.len()),
    },
];
