//! Accuracy of units over all tenants, for their manufacturer: no tenant, site or session, and no
//! time finer than a day.

use super::{
    endpoint::{Audience, Endpoint, Key, Parameter, Rows, Shape},
    row::row,
};

row! {
    /// Accuracy of a pseudonymous unit on a day.
    pub struct UnitDay {
        /// Manufacturer by the registry
        manufacturer: String,
        /// Pseudonym of the unit
        unit_key: String,
        /// Model as reported
        model: String,
        /// Firmware as reported
        firmware: String,
        /// Lot of the units; empty = not said
        lot: String,
        /// Day, UTC
        day: String,
        /// DOSE (values in nl) or DEPTH (values in um)
        channel: String,
        /// Set point, nl or um
        target: u32,
        /// Injections
        n: u64,
        /// Mean of measured - target, nl or um
        mean_error: f64,
        /// 100 * sum of errors / sum of targets; null at target 0
        error_pct: Option<f64>,
    }
}

row! {
    /// Accuracy of a model, firmware and lot on a day.
    pub struct ModelDay {
        /// Manufacturer by the registry
        manufacturer: String,
        /// Model as reported
        model: String,
        /// Firmware as reported
        firmware: String,
        /// Lot of the units; empty = not said
        lot: String,
        /// Day, UTC
        day: String,
        /// DOSE (values in nl) or DEPTH (values in um)
        channel: String,
        /// Set point, nl or um
        target: u32,
        /// Units behind the row
        units: u64,
        /// Injections
        n: u64,
        /// Mean of measured - target, nl or um
        mean_error: f64,
        /// 100 * sum of errors / sum of targets; null at target 0
        error_pct: Option<f64>,
        /// The same after the own mean of each unit at the set point is taken off; null at target 0
        adjusted_error_pct: Option<f64>,
    }
}

pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/manufacturer/units",
        about: "Accuracy by unit, day and set point, the latest day first",
        audience: Audience::Manufacturers,
        parameters: &[
            Parameter::text("unit", "Only this unit, by its pseudonym", "t.unit_key = ?"),
            Parameter::text("model", "Only of this model", "t.model = ?"),
            Parameter::text("firmware", "Only of this firmware", "t.firmware = ?"),
            Parameter::text("lot", "Only of this lot of units", "t.lot = ?"),
            Parameter::choice("channel", "Only of this channel", &["DOSE", "DEPTH"], "t.channel = ?"),
            Parameter::day("since", "Only of this day or later", "t.day >= toDate(?)"),
            Parameter::day("until", "Only of days before", "t.day < toDate(?)"),
        ],
        sql: "
            SELECT
                t.manufacturer AS manufacturer, t.unit_key AS unit_key, t.model AS model, t.firmware AS firmware, t.lot AS lot,
                toString(t.day) AS day, t.channel AS channel, t.target AS target, t.n AS n, toFloat64(t.sum_error) / t.n AS mean_error,
                if(t.sum_target = 0, NULL, 100 * toFloat64(t.sum_error) / toFloat64(t.sum_target)) AS error_pct
            FROM calibration_by_unit AS t
            WHERE {where}",
        shape: Shape::List { keys: &[Key::Text("day"), Key::Text("manufacturer"), Key::Text("unit_key"), Key::Text("model"), Key::Text("firmware"), Key::Text("lot"), Key::Text("channel"), Key::Number("target")], newest_first: true },
        rows: Rows::of::<UnitDay>(),
    },
    Endpoint {
        path: "/manufacturer/models",
        about: "Accuracy by model, firmware, lot, day and set point, the latest day first",
        audience: Audience::Manufacturers,
        parameters: &[
            Parameter::text("model", "Only of this model", "t.model = ?"),
            Parameter::text("firmware", "Only of this firmware", "t.firmware = ?"),
            Parameter::text("lot", "Only of this lot of units", "t.lot = ?"),
            Parameter::choice("channel", "Only of this channel", &["DOSE", "DEPTH"], "t.channel = ?"),
            Parameter::day("since", "Only of this day or later", "t.day >= toDate(?)"),
            Parameter::day("until", "Only of days before", "t.day < toDate(?)"),
        ],
        sql: "
            SELECT
                t.manufacturer AS manufacturer, t.model AS model, t.firmware AS firmware, t.lot AS lot, toString(t.day) AS day,
                t.channel AS channel, t.target AS target, t.units AS units, t.n AS n, t.mean_error AS mean_error,
                t.error_pct AS error_pct, t.adjusted_error_pct AS adjusted_error_pct
            FROM calibration_by_model AS t
            WHERE {where}",
        shape: Shape::List { keys: &[Key::Text("day"), Key::Text("manufacturer"), Key::Text("model"), Key::Text("firmware"), Key::Text("lot"), Key::Text("channel"), Key::Number("target")], newest_first: true },
        rows: Rows::of::<ModelDay>(),
    },
];
