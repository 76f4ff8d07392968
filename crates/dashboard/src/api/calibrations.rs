//! Calibrations, when the next are due, and what a failed one puts in doubt.

use super::{
    endpoint::{Audience, Endpoint, Key, Parameter, Rows, Shape},
    row::row,
};

row! {
    /// A calibration of one channel of a device.
    pub struct Calibration {
        /// Tenant
        tenant: String,
        /// Device that was calibrated
        device: String,
        /// DOSE (values in nl) or DEPTH (values in um); empty = not said
        channel: String,
        /// The calibration
        calibration_id: String,
        /// When it was performed, else when it was reported; UTC
        performed_at: String,
        /// When the next one is due; UTC; null = not said
        due_at: Option<String>,
        /// Certificate; empty = not said
        certificate: String,
        /// Bench that reported it
        bench: String,
        /// Points
        points: u64,
        /// Largest as-found error by magnitude, percent of the reference; null = none said
        as_found_error_pct: Option<f64>,
    }
}

row! {
    /// When a device and channel is due for calibration.
    pub struct Due {
        /// Tenant
        tenant: String,
        /// Device
        device: String,
        /// DOSE or DEPTH
        channel: String,
        /// Latest calibration; empty = never calibrated
        calibration_id: String,
        /// When it was performed; UTC; null = not said
        performed_at: Option<String>,
        /// When the next one is due; UTC; null = not said
        due_at: Option<String>,
        /// Days until then, negative when overdue; null = not known
        days_left: Option<i64>,
        /// OVERDUE, DUE (within 30 days), OK, UNKNOWN or NEVER
        state: String,
    }
}

row! {
    /// An injection between a calibration and the one before it.
    pub struct Impact {
        /// Tenant
        tenant: String,
        /// Site
        site: String,
        /// Device
        device: String,
        /// The calibration whose result raises the question
        calibration_id: String,
        /// DOSE or DEPTH
        channel: String,
        /// Boot of the device
        boot_id: String,
        /// Sequence number in the boot
        seq: u64,
        /// Time of the injection; UTC
        at: String,
        /// Session; empty = outside a session
        session_id: String,
        /// How it ended
        outcome: String,
        /// Set point, nl or um; null = not said
        target: Option<u32>,
        /// What the device showed, nl or um; null = not said
        measured: Option<u32>,
        /// Largest as-found error of the calibration, percent; null = none said
        as_found_error_pct: Option<f64>,
    }
}

pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/calibrations",
        about: "Calibrations, the latest first",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::text("device", "Only of this device", "t.subject_device = ?"),
            Parameter::choice("channel", "Only of this channel", &["DOSE", "DEPTH"], "t.channel = ?"),
        ],
        sql: "
            SELECT
                t.tenant AS tenant, t.subject_device AS device, t.channel AS channel, t.calibration_id AS calibration_id,
                formatDateTime(min(ifNull(t.performed_at, t.at)), '%FT%T.%fZ') AS performed_at, formatDateTime(max(t.due_at), '%FT%T.%fZ') AS due_at,
                max(t.certificate) AS certificate, toString(any(t.device)) AS bench, countIf(t.points > 0) AS points,
                if(countIf(t.phase = 'AS_FOUND' AND ifNull(t.reference, 0) != 0 AND t.indicated IS NOT NULL) = 0, NULL,
                    argMaxIf(100 * (t.indicated - t.reference) / t.reference, abs((t.indicated - t.reference) / t.reference),
                        t.phase = 'AS_FOUND' AND ifNull(t.reference, 0) != 0 AND t.indicated IS NOT NULL)) AS as_found_error_pct
            FROM calibrations AS t
            WHERE {where}
            GROUP BY t.tenant, t.subject_device, t.channel, t.calibration_id",
        shape: Shape::List { keys: &[Key::Text("performed_at"), Key::Text("tenant"), Key::Text("device"), Key::Text("channel"), Key::Text("calibration_id")], newest_first: true },
        rows: Rows::of::<Calibration>(),
    },
    Endpoint {
        path: "/calibrations/due",
        about: "When each device and channel is due for calibration",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::text("device", "Only of this device", "t.device = ?"),
            Parameter::choice("state", "Only in this state", &["OVERDUE", "DUE", "OK", "UNKNOWN", "NEVER"], "t.state = ?"),
        ],
        sql: "
            SELECT
                t.tenant AS tenant, t.device AS device, t.channel AS channel, t.calibration_id AS calibration_id,
                formatDateTime(t.performed_at, '%FT%T.%fZ') AS performed_at, formatDateTime(t.due_at, '%FT%T.%fZ') AS due_at, t.days_left AS days_left, t.state AS state
            FROM calibrations_due AS t
            WHERE {where}",
        shape: Shape::List { keys: &[Key::Text("tenant"), Key::Text("device"), Key::Text("channel")], newest_first: false },
        rows: Rows::of::<Due>(),
    },
    Endpoint {
        path: "/tenants/{tenant}/calibrations/{calibration}/impact",
        about: "Injections that a calibration puts in doubt, the latest first",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::path("tenant", "Tenant", "1"),
            Parameter::path("calibration", "The calibration", "t.calibration_id = ?"),
            Parameter::text("device", "Only of this device", "t.device = ?"),
        ],
        sql: "
            SELECT
                t.tenant AS tenant, t.site AS site, t.device AS device, t.calibration_id AS calibration_id, t.channel AS channel,
                toString(t.boot_id) AS boot_id, t.seq AS seq, formatDateTime(t.at, '%FT%T.%fZ') AS at, t.session_id AS session_id, t.outcome AS outcome,
                t.target AS target, t.measured AS measured, t.as_found_error_pct AS as_found_error_pct
            FROM calibration_impact AS t
            WHERE {where}",
        shape: Shape::List { keys: &[Key::Text("at"), Key::Text("device"), Key::Text("channel"), Key::Text("boot_id"), Key::Number("seq")], newest_first: true },
        rows: Rows::of::<Impact>(),
    },
];
