//! Devices, and what each of them did.

use super::{
    endpoint::{Audience, Endpoint, Key, Parameter, Rows, Shape},
    row::row,
};

row! {
    /// A device, registered or seen, with its latest word.
    pub struct Device {
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
    }
}

row! {
    /// Accuracy of a device at a set point, of injections with outcome OK or none said.
    pub struct Accuracy {
        /// Tenant
        tenant: String,
        /// Site
        site: String,
        /// Device
        device: String,
        /// DOSE (values in nl) or DEPTH (values in um)
        channel: String,
        /// Set point, nl or um
        target: u32,
        /// Calibration in force; empty = not said
        calibration_id: String,
        /// Model as reported
        model: String,
        /// Firmware as reported
        firmware: String,
        /// Sessions with such injections
        sessions: u64,
        /// Injections
        n: u64,
        /// Mean of measured - target, nl or um
        mean_error: f64,
        /// Standard deviation (n - 1), nl or um; null for n < 2
        sd_error: Option<f64>,
        /// 100 * sum of errors / sum of targets; null at target 0
        error_pct: Option<f64>,
        /// Least measured - target, nl or um
        least_error: i32,
        /// Greatest measured - target, nl or um
        greatest_error: i32,
        /// Time of the first injection; UTC
        first_at: String,
        /// Time of the last injection; UTC
        last_at: String,
    }
}

row! {
    /// A drift chart of a device.
    pub struct Drift {
        /// Tenant
        tenant: String,
        /// Site
        site: String,
        /// Device
        device: String,
        /// Model
        model: String,
        /// Firmware; empty = not said
        firmware: String,
        /// DOSE or DEPTH
        channel: String,
        /// Upper edge of the set-point band, nl or um; 0 = no band
        band: u32,
        /// Calibration in force; empty = not said
        calibration_id: String,
        /// Whether the last session is on this chart
        current: bool,
        /// LEARNING, IN_CONTROL, DRIFT or CLEARED
        state: String,
        /// DRIFT: UPPER or LOWER; empty otherwise
        side: String,
        /// Sessions on the chart
        sessions: u64,
        /// Injections behind them
        n: u64,
        /// Error of the last session, percent of the target
        last_error_pct: f64,
        /// EWMA, sigma; null while the chart learns
        ewma: Option<f64>,
        /// Its limit, sigma
        ewma_limit: Option<f64>,
        /// Upper CUSUM, sigma
        cusum_upper: Option<f64>,
        /// Lower CUSUM, sigma
        cusum_lower: Option<f64>,
        /// Session at which a chart signalled first; empty = none
        signal_session: String,
        /// Last session before the change, by the CUSUM; empty = not known
        onset_session: String,
        /// NOT_SIGNALLED, TOO_SHORT, NO_SLOPE, NO_TOLERANCE or CROSSING
        forecast: String,
        /// CROSSING: when the fitted line leaves the tolerance; UTC; null = not said
        crossing_at: Option<String>,
        /// Its lower bound (Fieller, 95 %); UTC; null = not said
        crossing_low: Option<String>,
        /// Its upper bound; UTC; null = not said
        crossing_high: Option<String>,
        /// Time of the last injection; UTC
        last_at: String,
        /// When it was computed; UTC
        computed_at: String,
    }
}

row! {
    /// A heartbeat or status message of a device.
    pub struct Status {
        /// Tenant
        tenant: String,
        /// Site
        site: String,
        /// Device
        device: String,
        /// When the bridge received it; UTC
        received_at: String,
        /// Kafka partition it came from
        kafka_partition: u32,
        /// Offset of its Kafka record
        kafka_offset: u64,
        /// Sequence number; 0 = outside the sequence
        seq: u64,
        /// ONLINE, SLEEPING, OFF or LOST; empty = a heartbeat
        state: String,
        /// Model; empty = not said
        model: String,
        /// Firmware; empty = not said
        firmware: String,
        /// Battery, percent; null = not said
        battery_pct: Option<u32>,
        /// Temperature, millidegrees Celsius; null = not said
        temperature_mc: Option<i32>,
        /// Events in its outbox; null = not said
        outbox_events: Option<u64>,
        /// Age of the oldest event without a receipt, s; null = not said
        oldest_unreceipted_s: Option<u32>,
    }
}

row! {
    /// What happened to a consumable on a device.
    pub struct Consumable {
        /// Tenant
        tenant: String,
        /// Site
        site: String,
        /// Device
        device: String,
        /// When it happened; UTC
        at: String,
        /// Boot of the device
        boot_id: String,
        /// Sequence number in the boot
        seq: u64,
        /// MOUNTED, PRIMED, REMOVED or REPROCESSED
        event: String,
        /// Session; empty = outside a session
        session_id: String,
        /// NEEDLE, SYRINGE, HANDPIECE, CARTRIDGE or TUBING; empty = not said
        slot: String,
        /// The mount; empty for REPROCESSED
        mount_id: String,
        /// The item as it was sent; empty = not said
        item_id: String,
        /// What item_id identifies: SERIAL, LOT_ONLY or NONE; empty = not said
        id_kind: String,
        /// UDI device identifier; empty = not said
        udi_di: String,
        /// Lot; empty = not said
        lot: String,
        /// Expiry as YYYY-MM-DD; day 00 = end of the month; empty = not said
        expiry: String,
        /// Whether it may be reprocessed; null = not said
        reusable: Option<bool>,
        /// Sterile pack; empty = not said
        pack_id: String,
        /// Whether the pack was intact; null = not said
        pack_intact: Option<bool>,
        /// REPROCESSED: last rinse; empty = not said
        rinse_water: String,
    }
}

row! {
    /// A bin of the histogram of dose errors of a device, of injections with outcome OK or none
    /// said.
    pub struct ErrorBin {
        /// Tenant
        tenant: String,
        /// Device
        device: String,
        /// Calibration in force; empty = not said
        calibration_id: String,
        /// Set point, nl
        target_nl: u32,
        /// Lower edge of the bin, percent of the set point; a bin is one percent wide
        error_pct: i32,
        /// Injections in the bin
        n: u64,
    }
}

row! {
    /// A fault that a device reported.
    pub struct Fault {
        /// Tenant
        tenant: String,
        /// Site
        site: String,
        /// Device
        device: String,
        /// When it happened; UTC
        at: String,
        /// Boot of the device
        boot_id: String,
        /// Sequence number in the boot
        seq: u64,
        /// Code of the maker
        code: String,
        /// RAISED or CLEARED; empty = not said
        state: String,
        /// What the device says about it
        detail: String,
        /// Session; empty = outside a session
        session_id: String,
        /// Firmware; empty = not said
        firmware: String,
    }
}

row! {
    /// What left a syringe or cartridge against what was delivered from it.
    pub struct MassBalance {
        /// Tenant
        tenant: String,
        /// Site of the mounting
        site: String,
        /// Device
        device: String,
        /// The mount
        mount_id: String,
        /// The syringe or cartridge; empty = not said
        item_id: String,
        /// SYRINGE or CARTRIDGE
        slot: String,
        /// When it was mounted, else when it was removed; UTC; 1970 = neither has arrived
        at: String,
        /// When it was mounted; UTC; null = not received
        mounted_at: Option<String>,
        /// When it was removed; UTC; null = not yet, or not received
        removed_at: Option<String>,
        /// Filling, nl; null = not said
        fill_nl: Option<u64>,
        /// Volume used for priming, nl; 0 = no priming reported; null = primed with an unknown
        /// volume
        primed_nl: Option<u64>,
        /// What was left in it, nl; null = not said
        residual_nl: Option<u64>,
        /// What measured the residual; empty = not said
        residual_source: String,
        /// Injections made from it
        injections: u64,
        /// Injections whose volume is known
        delivered_n: u64,
        /// Sum of the known volumes, nl
        delivered_nl: u64,
        /// fill - primed - residual - delivered, nl; null where any of it is not known
        balance_nl: Option<i64>,
        /// 100 * balance / (fill - primed - residual); null where not known or nothing was used
        balance_pct: Option<f64>,
    }
}

/// Devices with their latest word.
const DEVICES: &str = "
    SELECT
        t.tenant AS tenant, t.site AS site, t.device AS device, t.registration AS registration, t.kind AS kind, t.model AS model,
        t.manufacturer AS manufacturer, t.serial AS serial, t.gateway AS gateway, t.firmware AS firmware, t.state AS state,
        formatDateTime(t.state_since, '%FT%T.%fZ') AS state_since, t.battery_pct AS battery_pct, t.outbox_events AS outbox_events,
        t.injection_no AS injection_no, formatDateTime(t.last_seen, '%FT%T.%fZ') AS last_seen, t.open_gaps AS open_gaps,
        t.missing_events AS missing_events, t.lost_events AS lost_events
    FROM fleet AS t
    WHERE {where}";

/// What happened to consumables.
pub const CONSUMABLES: &str = "
    SELECT
        t.tenant AS tenant, t.site AS site, t.device AS device, formatDateTime(t.at, '%FT%T.%fZ') AS at, toString(t.boot_id) AS boot_id, t.seq AS seq,
        t.event AS event, t.session_id AS session_id, t.slot AS slot, t.mount_id AS mount_id, t.item_id AS item_id,
        t.id_kind AS id_kind, t.udi_di AS udi_di, t.lot AS lot, t.expiry AS expiry, t.reusable AS reusable, t.pack_id AS pack_id,
        t.pack_intact AS pack_intact, t.rinse_water AS rinse_water
    FROM mounts AS t
    WHERE {where}";

pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/devices",
        about: "Devices with their latest word",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::text("site", "Only of this site", "t.site = ?"),
            Parameter::text("model", "Only of this model", "t.model = ?"),
            Parameter::choice("kind", "Only of this kind", &["INJECTOR", "STERILIZER", "BENCH", "GATEWAY"], "t.kind = ?"),
            Parameter::choice("state", "Only in this state", &["ONLINE", "SLEEPING", "OFF", "LOST"], "t.state = ?"),
        ],
        sql: DEVICES,
        shape: Shape::List { keys: &[Key::Text("tenant"), Key::Text("device")], newest_first: false },
        rows: Rows::of::<Device>(),
    },
    Endpoint {
        path: "/tenants/{tenant}/devices/{device}",
        about: "One device with its latest word",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::path("tenant", "Tenant", "1"),
            Parameter::path("device", "Device", "t.device = ?"),
        ],
        sql: DEVICES,
        shape: Shape::One,
        rows: Rows::of::<Device>(),
    },
    Endpoint {
        path: "/tenants/{tenant}/devices/{device}/accuracy",
        about: "Accuracy of a device by calibration and set point",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::path("tenant", "Tenant", "1"),
            Parameter::path("device", "Device", "t.device = ?"),
            Parameter::choice("channel", "Only this channel", &["DOSE", "DEPTH"], "t.channel = ?"),
        ],
        sql: "
            SELECT
                t.tenant AS tenant, t.site AS site, t.device AS device, t.channel AS channel, t.target AS target,
                t.calibration_id AS calibration_id, t.model AS model, t.firmware AS firmware, t.sessions AS sessions, t.n AS n,
                t.mean_error AS mean_error, t.sd_error AS sd_error, t.error_pct AS error_pct, t.least_error AS least_error,
                t.greatest_error AS greatest_error, formatDateTime(t.first_at, '%FT%T.%fZ') AS first_at, formatDateTime(t.last_at, '%FT%T.%fZ') AS last_at
            FROM (
                SELECT
                    tenant, site, device, model, firmware, 'DOSE' AS channel, dose_calibration_id AS calibration_id, target_nl AS target,
                    sessions, n, mean_error, sd_error, error_pct, least_error, greatest_error, first_at, last_at
                FROM dose_accuracy
                UNION ALL
                SELECT
                    tenant, site, device, model, firmware, 'DEPTH', depth_calibration_id, toUInt32(target_um),
                    sessions, n, mean_error, sd_error, error_pct, least_error, greatest_error, first_at, last_at
                FROM depth_accuracy) AS t
            WHERE {where}",
        shape: Shape::List { keys: &[Key::Text("channel"), Key::Number("target"), Key::Text("calibration_id"), Key::Text("site"), Key::Text("model"), Key::Text("firmware")], newest_first: false },
        rows: Rows::of::<Accuracy>(),
    },
    Endpoint {
        path: "/tenants/{tenant}/devices/{device}/histogram",
        about: "Histogram of the dose errors of a device by calibration and set point",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::path("tenant", "Tenant", "1"),
            Parameter::path("device", "Device", "a.device = ?"),
            Parameter::text("calibration_id", "Only of this calibration", "a.dose_calibration_id = ?"),
        ],
        sql: "
            SELECT
                t.tenant AS tenant, t.device AS device, t.calibration_id AS calibration_id, t.target_nl AS target_nl,
                bin.1 AS error_pct, bin.2 AS n
            FROM (
                SELECT
                    a.tenant AS tenant, a.device AS device, a.dose_calibration_id AS calibration_id,
                    assumeNotNull(a.target_nl) AS target_nl, sumMap(a.dose_error_bins, a.dose_error_counts) AS bins
                FROM accuracy_session AS a
                WHERE a.target_nl > 0 AND a.outcome IN ('OK', '') AND {where}
                GROUP BY a.tenant, a.device, a.dose_calibration_id, a.target_nl) AS t
            ARRAY JOIN arrayZip(t.bins.1, t.bins.2) AS bin",
        shape: Shape::List {
            keys: &[Key::Number("target_nl"), Key::Text("calibration_id"), Key::Number("error_pct")],
            newest_first: false,
        },
        rows: Rows::of::<ErrorBin>(),
    },
    Endpoint {
        path: "/tenants/{tenant}/devices/{device}/drift",
        about: "Drift charts of a device, those of earlier calibrations too",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::path("tenant", "Tenant", "1"),
            Parameter::path("device", "Device", "t.device = ?"),
            Parameter::choice("channel", "Only this channel", &["DOSE", "DEPTH"], "t.channel = ?"),
        ],
        sql: "
            SELECT
                t.tenant AS tenant, t.site AS site, t.device AS device, t.model AS model, t.firmware AS firmware, t.channel AS channel,
                t.band AS band, t.calibration_id AS calibration_id, t.current AS current, t.state AS state, t.side AS side,
                t.sessions AS sessions, t.n AS n, t.last_error_pct AS last_error_pct, t.ewma AS ewma, t.ewma_limit AS ewma_limit,
                t.cusum_upper AS cusum_upper, t.cusum_lower AS cusum_lower, t.signal_session AS signal_session,
                t.onset_session AS onset_session, t.forecast AS forecast, formatDateTime(t.crossing_at, '%FT%T.%fZ') AS crossing_at,
                formatDateTime(t.crossing_low, '%FT%T.%fZ') AS crossing_low, formatDateTime(t.crossing_high, '%FT%T.%fZ') AS crossing_high, formatDateTime(t.last_at, '%FT%T.%fZ') AS last_at,
                formatDateTime(t.computed_at, '%FT%T.%fZ') AS computed_at
            FROM drift AS t FINAL
            WHERE {where}",
        shape: Shape::List { keys: &[Key::Text("channel"), Key::Number("band"), Key::Text("calibration_id"), Key::Text("firmware")], newest_first: false },
        rows: Rows::of::<Drift>(),
    },
    Endpoint {
        path: "/tenants/{tenant}/devices/{device}/consumables",
        about: "Consumables that were mounted, primed, removed and reprocessed on a device, the latest first",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::path("tenant", "Tenant", "1"),
            Parameter::path("device", "Device", "t.device = ?"),
        ],
        sql: CONSUMABLES,
        shape: Shape::List { keys: &[Key::Text("at"), Key::Text("tenant"), Key::Text("device"), Key::Text("boot_id"), Key::Number("seq")], newest_first: true },
        rows: Rows::of::<Consumable>(),
    },
    Endpoint {
        path: "/tenants/{tenant}/devices/{device}/status",
        about: "Heartbeats and status messages of a device, the latest first",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::path("tenant", "Tenant", "1"),
            Parameter::path("device", "Device", "t.device = ?"),
            Parameter::time("since", "Only received then or later", "t.received_at >= parseDateTime64BestEffort(?, 6, 'UTC')"),
            Parameter::time("until", "Only received before", "t.received_at < parseDateTime64BestEffort(?, 6, 'UTC')"),
        ],
        sql: "
            SELECT
                t.tenant AS tenant, t.site AS site, t.device AS device, formatDateTime(t.received_at, '%FT%T.%fZ') AS received_at,
                toUInt32(t.kafka_partition) AS kafka_partition, t.kafka_offset AS kafka_offset, t.seq AS seq, t.state AS state,
                t.model AS model, t.firmware AS firmware, t.battery_pct AS battery_pct, t.temperature_mc AS temperature_mc,
                t.outbox_events AS outbox_events, t.oldest_unreceipted_s AS oldest_unreceipted_s
            FROM device_status AS t
            WHERE {where}",
        shape: Shape::List { keys: &[Key::Text("received_at"), Key::Number("kafka_partition"), Key::Number("kafka_offset"), Key::Number("seq")], newest_first: true },
        rows: Rows::of::<Status>(),
    },
    Endpoint {
        path: "/tenants/{tenant}/devices/{device}/faults",
        about: "Faults that a device reported, the latest first",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::path("tenant", "Tenant", "1"),
            Parameter::path("device", "Device", "t.device = ?"),
            Parameter::text("code", "Only of this code", "t.code = ?"),
            Parameter::time("since", "Only then or later", "t.at >= parseDateTime64BestEffort(?, 6, 'UTC')"),
            Parameter::time("until", "Only before", "t.at < parseDateTime64BestEffort(?, 6, 'UTC')"),
        ],
        sql: "
            SELECT
                t.tenant AS tenant, t.site AS site, t.device AS device, formatDateTime(t.at, '%FT%T.%fZ') AS at,
                toString(t.boot_id) AS boot_id, t.seq AS seq, t.code AS code, t.state AS state, t.detail AS detail,
                t.session_id AS session_id, t.firmware AS firmware
            FROM faults AS t
            WHERE {where}",
        shape: Shape::List { keys: &[Key::Text("at"), Key::Text("boot_id"), Key::Number("seq")], newest_first: true },
        rows: Rows::of::<Fault>(),
    },
    Endpoint {
        path: "/tenants/{tenant}/devices/{device}/mass-balance",
        about: "Mass balance of the syringes and cartridges of a device, the latest first",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::path("tenant", "Tenant", "1"),
            Parameter::path("device", "Device", "t.device = ?"),
        ],
        sql: "
            SELECT
                t.tenant AS tenant, t.site AS site, t.device AS device, t.mount_id AS mount_id, t.item_id AS item_id, t.slot AS slot,
                formatDateTime(coalesce(t.mounted_at, t.removed_at, toDateTime64(0, 6, 'UTC')), '%FT%T.%fZ') AS at,
                formatDateTime(t.mounted_at, '%FT%T.%fZ') AS mounted_at, formatDateTime(t.removed_at, '%FT%T.%fZ') AS removed_at,
                t.fill_nl AS fill_nl, t.primed_nl AS primed_nl, t.residual_nl AS residual_nl, t.residual_source AS residual_source,
                t.injections AS injections, t.delivered_n AS delivered_n, t.delivered_nl AS delivered_nl,
                t.balance_nl AS balance_nl, t.balance_pct AS balance_pct
            FROM mass_balance AS t
            WHERE {where}",
        shape: Shape::List { keys: &[Key::Text("at"), Key::Text("mount_id")], newest_first: true },
        rows: Rows::of::<MassBalance>(),
    },
];
