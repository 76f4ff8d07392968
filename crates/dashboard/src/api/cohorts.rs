//! How units of a manufacturer compare: by the time since their calibration, with their tolerance
//! and with each other. Nothing here names a clinic, a device or a session.

use analysis::wilson;
use serde::Deserialize;

use super::{
    endpoint::{Audience, Computed, Endpoint, Key, Parameter, Rows, Shape},
    row::row,
};

/// Most rows of an answer.
const ROWS_MAX: usize = 1_000;
/// Confidence of intervals.
const CONFIDENCE: f64 = 0.95;

row! {
    /// The error of a cohort of units, so many days after their calibration.
    pub struct CohortDay {
        /// The cohort: a model, or a model with its firmware or lot
        cohort: String,
        /// DOSE or DEPTH
        channel: String,
        /// Days since the first day on which a unit was used under the calibration in force
        days_since_calibration: u32,
        /// Units behind the row
        units: u64,
        /// Injections
        n: u64,
        /// 100 * sum of errors / sum of targets
        error_pct: f64,
        /// Lower limit of its 95 % interval, which takes units as the clusters (normal
        /// approximation of the ratio of sums); null for one unit
        error_low_pct: Option<f64>,
        /// Its upper limit
        error_high_pct: Option<f64>,
    }
}

row! {
    /// The share of injections out of tolerance.
    pub struct ToleranceShare {
        /// Model as reported
        model: String,
        /// Firmware as reported
        firmware: String,
        /// Lot of the units; empty = not said
        lot: String,
        /// DOSE
        channel: String,
        /// Units behind the row
        units: u64,
        /// Injections whose model has a registered tolerance
        n: u64,
        /// Those of them whose error lies outside of it, by histograms of whole percents: an error
        /// of exactly the upper limit counts as outside
        out: u64,
        /// out / n
        share: f64,
        /// Lower limit of its 95 % interval (Wilson)
        share_low: f64,
        /// Upper limit of its 95 % interval
        share_high: f64,
    }
}

/// Counts of injections in and out of tolerance.
#[derive(Debug, Deserialize)]
pub struct ToleranceCount {
    model: String,
    firmware: String,
    lot: String,
    channel: String,
    units: u64,
    n: u64,
    out: u64,
}

impl Computed for ToleranceShare {
    type Source = ToleranceCount;

    fn compute(sources: Vec<ToleranceCount>) -> Vec<Self> {
        let share = |count: ToleranceCount| {
            let ToleranceCount { model, firmware, lot, channel, units, n, out } = count;
            let interval = wilson::share(out, n, CONFIDENCE).ok()?;
            let (share, share_low, share_high) = (interval.share, interval.low, interval.high);
            Some(Self { model, firmware, lot, channel, units, n, out, share, share_low, share_high })
        };
        sources.into_iter().filter_map(share).collect()
    }
}

row! {
    /// A unit beside the others of its model.
    pub struct Outlier {
        /// 1 = it stands out the most
        rank: u64,
        /// Pseudonym of the unit
        unit_key: String,
        /// Model as reported
        model: String,
        /// Firmware as reported
        firmware: String,
        /// Lot of the unit; empty = not said
        lot: String,
        /// DOSE or DEPTH
        channel: String,
        /// Injections
        n: u64,
        /// 100 * sum of errors / sum of targets
        error_pct: f64,
        /// Median of the errors of all units of the model
        cohort_error_pct: f64,
        /// (error - median) / (1.4826 * median of the distances from it); null where that is 0
        z: Option<f64>,
    }
}

pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/manufacturer/cohorts",
        about: "Error by model, firmware or lot and days since the calibration",
        audience: Audience::Manufacturers,
        parameters: &[
            Parameter::choice("by", "What makes a cohort", &["model", "firmware", "lot"], "1").or("model"),
            Parameter::choice("channel", "Only of this channel", &["DOSE", "DEPTH"], "t.channel = ?"),
        ],
        sql: "
            WITH if(units < 2, NULL, 196 * sqrt(units / (units - 1) * greatest(0, sum(unit.error * unit.error)
                - error_pct / 50 * sum(unit.error * unit.targets)
                + error_pct * error_pct / 10000 * sum(unit.targets * unit.targets))) / sum(unit.targets)) AS half
            SELECT
                unit.cohort AS cohort, unit.channel AS channel, unit.days AS days_since_calibration, count() AS units, sum(unit.n) AS n,
                100 * sum(unit.error) / sum(unit.targets) AS error_pct,
                error_pct - half AS error_low_pct, error_pct + half AS error_high_pct
            FROM (
                SELECT concat(t.model, if({by} = 'model', '', ' '), multiIf({by} = 'firmware', t.firmware, {by} = 'lot', t.lot, '')) AS cohort,
                    t.channel AS channel, t.days_since_calibration AS days, t.unit_key AS unit_key, sum(t.n) AS n,
                    toFloat64(sum(t.sum_error)) AS error, toFloat64(sum(t.sum_target)) AS targets
                FROM calibration_by_age AS t
                WHERE {where}
                GROUP BY cohort, channel, days, unit_key HAVING targets > 0) AS unit
            GROUP BY unit.cohort, unit.channel, unit.days",
        shape: Shape::List {
            keys: &[Key::Text("cohort"), Key::Text("channel"), Key::Number("days_since_calibration")],
            newest_first: false,
        },
        rows: Rows::of::<CohortDay>(),
    },
    Endpoint {
        path: "/manufacturer/tolerance",
        about: "Share of injections out of tolerance, by model, firmware and lot; of the dose",
        audience: Audience::Manufacturers,
        parameters: &[Parameter::text("model", "Only of this model", "t.model = ?")],
        sql: "
            SELECT toString(t.model) AS model, toString(t.firmware) AS firmware, t.lot AS lot, t.channel AS channel,
                uniqExact(t.unit_key) AS units, sum(t.judged) AS n, sum(t.out) AS out
            FROM calibration_by_age AS t
            WHERE {where}
            GROUP BY t.model, t.firmware, t.lot, t.channel HAVING n > 0
            ORDER BY model, firmware, lot, channel
            LIMIT 1000",
        shape: Shape::Computed,
        rows: Rows::computed::<ToleranceShare>(ROWS_MAX),
    },
    Endpoint {
        path: "/manufacturer/outliers",
        about: "Units beside the others of their model, those that stand out the most first",
        audience: Audience::Manufacturers,
        parameters: &[
            Parameter::text("model", "Only of this model", "t.model = ?"),
            Parameter::choice("channel", "Only of this channel", &["DOSE", "DEPTH"], "t.channel = ?"),
        ],
        sql: "
            WITH units AS (
                SELECT t.manufacturer AS manufacturer, t.unit_key AS unit_key, t.model AS model, t.firmware AS firmware, t.lot AS lot,
                    t.channel AS channel, sum(t.n) AS n, 100 * toFloat64(sum(t.sum_error)) / toFloat64(sum(t.sum_target)) AS error_pct
                FROM calibration_by_unit AS t
                WHERE {where}
                GROUP BY t.manufacturer, t.unit_key, t.model, t.firmware, t.lot, t.channel HAVING sum(t.sum_target) > 0)
            SELECT
                row_number() OVER (ORDER BY abs(ifNull(placed.z, 0)) DESC, placed.unit_key, placed.model, placed.firmware, placed.channel) AS rank,
                placed.unit_key AS unit_key, placed.model AS model, placed.firmware AS firmware, placed.lot AS lot, placed.channel AS channel,
                placed.n AS n, placed.error_pct AS error_pct, placed.centre AS cohort_error_pct, placed.z AS z
            FROM (
                SELECT unit.unit_key AS unit_key, unit.model AS model, unit.firmware AS firmware, unit.lot AS lot, unit.channel AS channel,
                    unit.n AS n, unit.error_pct AS error_pct, cohort.centre AS centre,
                    if(cohort.spread = 0, NULL, (unit.error_pct - cohort.centre) / (1.4826 * cohort.spread)) AS z
                FROM units AS unit
                INNER JOIN (
                    SELECT manufacturer, model, channel, arraySort(groupArray(units.error_pct)) AS errors,
                        (errors[intDiv(length(errors) + 1, 2)] + errors[intDiv(length(errors), 2) + 1]) / 2 AS centre,
                        arraySort(arrayMap(error -> abs(error - centre), errors)) AS distances,
                        (distances[intDiv(length(errors) + 1, 2)] + distances[intDiv(length(errors), 2) + 1]) / 2 AS spread
                    FROM units GROUP BY manufacturer, model, channel) AS cohort
                ON cohort.manufacturer = unit.manufacturer AND cohort.model = unit.model AND cohort.channel = unit.channel) AS placed",
        shape: Shape::List { keys: &[Key::Number("rank"), Key::Text("unit_key")], newest_first: false },
        rows: Rows::of::<Outlier>().whole(ROWS_MAX),
    },
];
