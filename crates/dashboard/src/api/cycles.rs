//! Sterilization cycles, with their curves and items.

use super::{
    endpoint::{Audience, Endpoint, Key, Parameter, Rows, Shape},
    row::row,
};

row! {
    /// A sterilization cycle and its verdict.
    pub struct Cycle {
        /// Tenant
        tenant: String,
        /// Site
        site: String,
        /// The sterilizer
        device: String,
        /// The cycle
        cycle_uid: String,
        /// Own counter of the sterilizer; null = not said
        cycle_no: Option<u64>,
        /// Start; UTC
        started_at: String,
        /// Recipe; empty = not said
        recipe: String,
        /// LOAD, BOWIE_DICK, LEAK or BI; empty = not said
        purpose: String,
        /// Whether the load came out dry; null = not said
        load_dry: Option<bool>,
        /// Items in the chamber
        items: u32,
        /// Samples taken
        samples: u32,
        /// Time of the last sample, ms from the start; null = no samples
        duration_ms: Option<u32>,
        /// Greatest temperature of any sensor, millidegrees Celsius; null = none
        temperature_max_mc: Option<i32>,
        /// Greatest absolute pressure, Pa; null = none
        pressure_max_pa: Option<u32>,
        /// Indicators that passed
        indicators_negative: u64,
        /// Indicators that failed
        indicators_positive: u64,
        /// Indicators that could not be read
        indicators_invalid: u64,
        /// RELEASED or REJECTED; empty = none yet
        decision: String,
        /// Pseudonym of the person; empty = none
        decided_by: String,
        /// When; UTC; null = not said
        decided_at: Option<String>,
        /// PASSED, FAILED, INDETERMINATE or PENDING; empty = not judged yet
        verdict: String,
        /// Reason of the verdict, in words
        reason: String,
        /// Longest continuous time in the band of the recipe, least over the sensors, ms; null =
        /// not known
        hold_ms: Option<i64>,
        /// Lethality, conservative sum, least over the sensors, ms at the reference temperature;
        /// null = not known
        f0_ms: Option<i64>,
    }
}

row! {
    /// A sample of the curve of a cycle.
    pub struct Sample {
        /// Time from the start of the cycle, ms
        offset_ms: u32,
        /// Number of the sample, from 0
        index: u32,
        /// Number of the sensor, from 0
        sensor: u32,
        /// Temperature, millidegrees Celsius; null = not said
        temperature_mc: Option<i32>,
        /// Absolute pressure, Pa; null = not said
        pressure_pa: Option<u32>,
        /// The sterilizer
        device: String,
    }
}

row! {
    /// An item in the chamber.
    pub struct Load {
        /// Tenant
        tenant: String,
        /// Site
        site: String,
        /// The sterilizer
        device: String,
        /// The cycle
        cycle_uid: String,
        /// Number of the item, from 0
        index: u32,
        /// The item, as it was sent
        item_id: String,
        /// Identity of the item, the same for every spelling
        item_key: String,
        /// Pack it was in; empty = not said
        pack_id: String,
    }
}

/// Cycles with their verdicts.
const CYCLES: &str = "
    SELECT
        t.tenant AS tenant, t.site AS site, t.device AS device, t.cycle_uid AS cycle_uid, t.cycle_no AS cycle_no,
        formatDateTime(t.started_at, '%FT%T.%fZ') AS started_at, t.recipe AS recipe, t.purpose AS purpose, t.load_dry AS load_dry, t.items AS items,
        t.samples AS samples, t.duration_ms AS duration_ms, t.temperature_max_mc AS temperature_max_mc,
        t.pressure_max_pa AS pressure_max_pa, t.indicators_negative AS indicators_negative,
        t.indicators_positive AS indicators_positive, t.indicators_invalid AS indicators_invalid, t.decision AS decision,
        t.decided_by AS decided_by, formatDateTime(t.decided_at, '%FT%T.%fZ') AS decided_at, judged.verdict AS verdict, judged.reason AS reason,
        judged.hold_ms AS hold_ms, judged.f0_ms AS f0_ms
    FROM sterilizer_cycles AS t
    LEFT JOIN cycle_verdicts AS judged ON judged.tenant = t.tenant AND judged.cycle_uid = t.cycle_uid AND judged.device = t.device
    WHERE {where}";

pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/cycles",
        about: "Sterilization cycles, the latest first",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::text("site", "Only of this site", "t.site = ?"),
            Parameter::text("device", "Only of this sterilizer", "t.device = ?"),
            Parameter::choice("verdict", "Only with this verdict", &["PASSED", "FAILED", "INDETERMINATE", "PENDING"], "judged.verdict = ?"),
            Parameter::time("since", "Only begun then or later", "t.started_at >= parseDateTime64BestEffort(?, 6, 'UTC')"),
            Parameter::time("until", "Only begun before", "t.started_at < parseDateTime64BestEffort(?, 6, 'UTC')"),
        ],
        sql: CYCLES,
        shape: Shape::List { keys: &[Key::Text("started_at"), Key::Text("tenant"), Key::Text("device"), Key::Text("cycle_uid")], newest_first: true },
        rows: Rows::of::<Cycle>(),
    },
    Endpoint {
        path: "/tenants/{tenant}/cycles/{cycle}",
        about: "One sterilization cycle",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::path("tenant", "Tenant", "1"),
            Parameter::path("cycle", "The cycle", "t.cycle_uid = ?"),
        ],
        sql: CYCLES,
        shape: Shape::One,
        rows: Rows::of::<Cycle>(),
    },
    Endpoint {
        path: "/tenants/{tenant}/cycles/{cycle}/samples",
        about: "The curve of a cycle: temperature and pressure over time",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::path("tenant", "Tenant", "1"),
            Parameter::path("cycle", "The cycle", "t.cycle_uid = ?"),
        ],
        sql: "
            SELECT
                t.offset_ms AS offset_ms, t.index AS index, t.sensor AS sensor, t.temperature_mc AS temperature_mc,
                t.pressure_pa AS pressure_pa, t.device AS device
            FROM sterilization_samples AS t
            WHERE {where}",
        shape: Shape::List { keys: &[Key::Number("offset_ms"), Key::Number("index"), Key::Text("device")], newest_first: false },
        rows: Rows::of::<Sample>(),
    },
    Endpoint {
        path: "/tenants/{tenant}/cycles/{cycle}/items",
        about: "Items that were in the chamber: the way from a cycle to its items",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::path("tenant", "Tenant", "1"),
            Parameter::path("cycle", "The cycle", "t.cycle_uid = ?"),
        ],
        sql: "
            SELECT
                t.tenant AS tenant, t.site AS site, t.device AS device, t.cycle_uid AS cycle_uid, t.index AS index, t.item_id AS item_id,
                t.item_key AS item_key, t.pack_id AS pack_id
            FROM sterilization_items AS t
            WHERE {where}",
        shape: Shape::List { keys: &[Key::Text("device"), Key::Number("index"), Key::Text("item_id")], newest_first: false },
        rows: Rows::of::<Load>(),
    },
];
