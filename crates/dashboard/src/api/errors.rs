//! Errors of single injections, thinned such that extremes stay.

use super::{
    endpoint::{Audience, Endpoint, Key, Parameter, Rows, Shape},
    row::row,
};

/// Most points: one for each injection, or two for each of half as many stretches of time. The
/// query has the same numbers.
const POINTS_MAX: usize = 2_000;

row! {
    /// The error of an injection with outcome OK or none said.
    pub struct ErrorPoint {
        /// Time of the injection; UTC
        at: String,
        /// Session; empty = outside a session
        session_id: String,
        /// Set point, nl (DOSE) or um (DEPTH)
        target: u32,
        /// 100 * (measured - target) / target
        error_pct: f64,
        /// measured - target, nl or um
        error: i64,
        /// Injections that the point stands for: 1 = itself; more = it is the least or the greatest
        /// of so many in its stretch of time
        bucket_n: u64,
    }
}

pub const ENDPOINTS: &[Endpoint] = &[Endpoint {
    path: "/tenants/{tenant}/devices/{device}/errors",
    about: "Errors of single injections, oldest first: each, or of more than 2,000 the least and the greatest of each of \
            1,000 equal stretches of time",
    audience: Audience::Tenants,
    parameters: &[
        Parameter::path("tenant", "Tenant", "1"),
        Parameter::path("device", "Device", "t.device = ?"),
        Parameter::choice("channel", "The channel", &["DOSE", "DEPTH"], "1").or("DOSE"),
        Parameter::text("calibration_id", "Only of this calibration", "calibration = ?"),
        Parameter::time("since", "Only then or later", "t.at >= parseDateTime64BestEffort(?, 6, 'UTC')"),
        Parameter::time("until", "Only before", "t.at < parseDateTime64BestEffort(?, 6, 'UTC')"),
    ],
    sql: "
            WITH
                shots AS (
                    SELECT t.at AS at, t.session_id AS session_id, t.boot_id AS boot_id, t.seq AS seq,
                        if({channel} = 'DOSE', t.dose_calibration_id, t.depth_calibration_id) AS calibration,
                        toUInt32(assumeNotNull(if({channel} = 'DOSE', t.target_nl, t.target_um))) AS target,
                        toInt64(assumeNotNull(if({channel} = 'DOSE', t.delivered_nl, t.measured_um))) - toInt64(target) AS error
                    FROM injections AS t
                    WHERE if({channel} = 'DOSE', t.target_nl > 0 AND t.delivered_nl IS NOT NULL, t.target_um > 0 AND t.measured_um IS NOT NULL)
                        AND t.outcome IN ('OK', '') AND {where}),
                (SELECT (count(), min(toUnixTimestamp64Micro(at)), max(toUnixTimestamp64Micro(at))) FROM shots) AS bounds
            SELECT formatDateTime(point.1, '%FT%T.%fZ') AS at, point.2 AS session_id, point.3 AS target,
                100 * point.4 / point.3 AS error_pct, point.4 AS error, bucket_n
            FROM (
                SELECT
                    arrayDistinct([
                        argMin((shot.at, shot.session_id, shot.target, shot.error), (100 * shot.error / shot.target, shot.at, shot.boot_id, shot.seq)),
                        argMax((shot.at, shot.session_id, shot.target, shot.error), (100 * shot.error / shot.target, shot.at, shot.boot_id, shot.seq))]) AS points,
                    count() AS bucket_n
                FROM shots AS shot
                GROUP BY
                    if(bounds.1 > 2000, intDiv((toUnixTimestamp64Micro(shot.at) - bounds.2) * 1000, bounds.3 - bounds.2 + 1), 0),
                    if(bounds.1 > 2000, 0, shot.boot_id), if(bounds.1 > 2000, 0, shot.seq)) AS bucket
            ARRAY JOIN points AS point",
    shape: Shape::List {
        keys: &[Key::Text("at"), Key::Text("session_id"), Key::Number("target"), Key::Number("error")],
        newest_first: false,
    },
    rows: Rows::of::<ErrorPoint>().whole(POINTS_MAX),
}];
