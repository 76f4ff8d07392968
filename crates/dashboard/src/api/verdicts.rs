//! Verdicts on the accuracy of devices.

use super::{
    endpoint::{Audience, Endpoint, Key, Parameter, Rows, Shape},
    row::row,
};

row! {
    /// Whether a device keeps its tolerance at a set point.
    pub struct Verdict {
        /// Tenant
        tenant: String,
        /// Site
        site: String,
        /// Device
        device: String,
        /// Model; empty = not said
        model: String,
        /// Firmware; empty = not said
        firmware: String,
        /// DOSE (values in nl) or DEPTH (values in um)
        channel: String,
        /// Set point, nl or um
        target: u32,
        /// Calibration in force; empty = not said
        calibration_id: String,
        /// PASS, FAIL, UNDECIDED or CLEARED
        state: String,
        /// In words
        reason: String,
        /// Sessions
        sessions: u64,
        /// Injections
        n: u64,
        /// Mean of measured - target, nl or um
        mean_error: f64,
        /// Standard deviation (n - 1), nl or um; null for n < 2
        sd_error: Option<f64>,
        /// Lower limit, nl or um; null = no registered tolerance
        limit_low: Option<f64>,
        /// Upper limit, nl or um; null = no registered tolerance
        limit_high: Option<f64>,
        /// Tolerance factor that decides; null = not possible yet
        k_clustered: Option<f64>,
        /// Factor that would just have kept the limits; null = not possible yet
        k_actual: Option<f64>,
        /// What was known to be missing; empty = nothing
        completeness: String,
        /// Time of the last injection; UTC
        last_at: String,
        /// When it was computed; UTC
        computed_at: String,
    }
}

pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/verdicts",
        about: "Verdicts on the present calibration of each device, channel and set point",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::text("site", "Only of this site", "t.site = ?"),
            Parameter::text("device", "Only of this device", "t.device = ?"),
            Parameter::text("model", "Only of this model", "t.model = ?"),
            Parameter::choice("channel", "Only of this channel", &["DOSE", "DEPTH"], "t.channel = ?"),
            Parameter::choice("state", "Only in this state", &["PASS", "FAIL", "UNDECIDED"], "t.state = ?"),
        ],
        sql: "
            SELECT
                t.tenant AS tenant, t.site AS site, t.device AS device, t.model AS model, t.firmware AS firmware, t.channel AS channel,
                t.target AS target, t.calibration_id AS calibration_id, t.state AS state, t.reason AS reason, t.sessions AS sessions,
                t.n AS n, t.mean_error AS mean_error, t.sd_error AS sd_error, t.limit_low AS limit_low, t.limit_high AS limit_high,
                t.k_clustered AS k_clustered, t.k_actual AS k_actual, t.completeness AS completeness, formatDateTime(t.last_at, '%FT%T.%fZ') AS last_at,
                formatDateTime(t.computed_at, '%FT%T.%fZ') AS computed_at
            FROM accuracy_verdicts AS t FINAL
            WHERE t.current AND {where}",
        shape: Shape::List { keys: &[Key::Text("tenant"), Key::Text("device"), Key::Text("channel"), Key::Number("target"), Key::Text("calibration_id")], newest_first: false },
        rows: Rows::of::<Verdict>(),
    },
];
