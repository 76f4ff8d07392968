//! Sessions, with their injections and items.

use super::{
    endpoint::{Audience, Endpoint, Key, Parameter, Rows, Shape},
    row::row,
};

row! {
    /// A session: what was done, and whether all of it has arrived.
    pub struct Session {
        /// Tenant
        tenant: String,
        /// Session, 32 hex digits
        session_id: String,
        /// Start as the device said, else the first injection; UTC
        began: String,
        /// Sites it was reported from
        sites: Vec<String>,
        /// Devices used in it
        devices: Vec<String>,
        /// End, as the device said; UTC; null = not said
        ended_at: Option<String>,
        /// Course of treatment; empty = not said
        course_id: String,
        /// Number of the session in the course; null = not said
        course_index: Option<u32>,
        /// Opaque reference of the clinic; empty = not said
        client_ref: String,
        /// Injections received
        injections: u64,
        /// Injections that the devices say they made; null = not said
        injections_declared: Option<u64>,
        /// Whether as many were received as declared; null = not declared yet
        complete: Option<bool>,
        /// Outcome OK
        ok: u64,
        /// Outcome PARTIAL
        partial: u64,
        /// Outcome ABORTED
        aborted: u64,
        /// Outcome OCCLUDED
        occluded: u64,
        /// Outcome NO_CONTACT
        no_contact: u64,
        /// Injections with a measured dose and a target
        dose_n: u64,
        /// Sum of their targets, nl
        dose_target_nl: u64,
        /// Sum of their delivered doses, nl
        dose_delivered_nl: u64,
        /// 100 * (delivered - target) / target of the sums; null at target 0
        dose_error_pct: Option<f64>,
        /// Injections with a measured depth and a target
        depth_n: u64,
        /// Mean of measured - target, um; null = none
        depth_mean_error_um: Option<f64>,
    }
}

row! {
    /// An injection.
    pub struct Injection {
        /// Tenant
        tenant: String,
        /// Site
        site: String,
        /// Device
        device: String,
        /// Boot of the device
        boot_id: String,
        /// Sequence number in the boot
        seq: u64,
        /// Time of the injection; UTC
        at: String,
        /// Where `at` comes from: DEVICE or RECEIVED
        time_source: String,
        /// Number in the session, from 1; null = not said
        shot: Option<u32>,
        /// SINGLE, CONTINUOUS or BURST; empty = not said
        mode: String,
        /// OK, PARTIAL, ABORTED, OCCLUDED or NO_CONTACT; empty = not said
        outcome: String,
        /// Body area; empty = not said
        area: String,
        /// Dose asked for, nl; null = not said
        target_nl: Option<u32>,
        /// Dose delivered, nl; null = not said
        delivered_nl: Option<u32>,
        /// What measured it; SETTING = not measured
        dose_source: String,
        /// Depth asked for, um along the needle; null = not said
        target_um: Option<u16>,
        /// Depth measured, um along the needle; null = not said
        measured_um: Option<u16>,
        /// What measured it; SETTING = not measured
        depth_source: String,
        /// From contact to withdrawal, us; null = not said
        duration_us: Option<u32>,
        /// Punctures; null = not said, which counts as 1
        punctures: Option<u16>,
        /// Item in the needle slot; empty = not said
        needle_item_id: String,
        /// Mixture in use; empty = not said
        preparation_id: String,
    }
}

row! {
    /// An item that was used in a session.
    pub struct Use {
        /// Tenant
        tenant: String,
        /// Device
        device: String,
        /// Session
        session_id: String,
        /// Slot; empty = not said
        slot: String,
        /// Mount; empty = not said
        mount_id: String,
        /// The item as it was sent; empty = not said
        item_id: String,
        /// Identity of the item, the same for every spelling
        item_key: String,
        /// Injections made with it
        injections: u64,
        /// Punctures made with it
        punctures: u64,
        /// Volume delivered through it as far as known, nl
        delivered_nl: u64,
        /// Time of the first injection; UTC
        first_at: String,
        /// Time of the last injection; UTC
        last_at: String,
    }
}

/// Sessions with what is known of each.
const SESSIONS: &str = "
    SELECT
        t.tenant AS tenant, t.session_id AS session_id,
        formatDateTime(coalesce(t.started_at, t.first_injection_at, toDateTime64(0, 6, 'UTC')), '%FT%T.%fZ') AS began,
        arraySort(t.sites) AS sites, arraySort(t.devices) AS devices, formatDateTime(t.ended_at, '%FT%T.%fZ') AS ended_at, t.course_id AS course_id,
        t.course_index AS course_index, t.client_ref AS client_ref, t.injections AS injections,
        t.injections_declared AS injections_declared, t.complete AS complete, t.ok AS ok, t.partial AS partial,
        t.aborted AS aborted, t.occluded AS occluded, t.no_contact AS no_contact, t.dose_n AS dose_n,
        t.dose_target_nl AS dose_target_nl, t.dose_delivered_nl AS dose_delivered_nl, t.dose_error_pct AS dose_error_pct,
        t.depth_n AS depth_n, t.depth_mean_error_um AS depth_mean_error_um
    FROM session_report AS t
    WHERE {where}";

pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/sessions",
        about: "Sessions, the latest first",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::text("site", "Only reported from this site", "has(t.sites, ?)"),
            Parameter::text("client_ref", "Only of this reference of the clinic", "t.client_ref = ?"),
            Parameter::time("since", "Only begun then or later", "coalesce(t.started_at, t.first_injection_at, toDateTime64(0, 6, 'UTC')) >= parseDateTime64BestEffort(?, 6, 'UTC')"),
            Parameter::time("until", "Only begun before", "coalesce(t.started_at, t.first_injection_at, toDateTime64(0, 6, 'UTC')) < parseDateTime64BestEffort(?, 6, 'UTC')"),
        ],
        sql: SESSIONS,
        shape: Shape::List { keys: &[Key::Text("began"), Key::Text("tenant"), Key::Text("session_id")], newest_first: true },
        rows: Rows::of::<Session>(),
    },
    Endpoint {
        path: "/tenants/{tenant}/devices/{device}/sessions",
        about: "Sessions in which a device made injections, the latest first",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::path("tenant", "Tenant", "1"),
            Parameter::path("device", "Device", "t.session_id IN (SELECT session_id FROM accuracy_session WHERE device = ?)"),
        ],
        sql: SESSIONS,
        shape: Shape::List { keys: &[Key::Text("began"), Key::Text("session_id")], newest_first: true },
        rows: Rows::of::<Session>(),
    },
    Endpoint {
        path: "/tenants/{tenant}/sessions/{session}",
        about: "The report of a session",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::path("tenant", "Tenant", "1"),
            Parameter::path("session", "Session, 32 hex digits", "t.session_id = ?"),
        ],
        sql: SESSIONS,
        shape: Shape::One,
        rows: Rows::of::<Session>(),
    },
    Endpoint {
        path: "/tenants/{tenant}/sessions/{session}/injections",
        about: "Injections of a session, in order",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::path("tenant", "Tenant", "1"),
            Parameter::path("session", "Session, 32 hex digits", "t.session_id = ?"),
        ],
        sql: "
            SELECT
                t.tenant AS tenant, t.site AS site, t.device AS device, toString(t.boot_id) AS boot_id, t.seq AS seq, formatDateTime(t.at, '%FT%T.%fZ') AS at,
                t.time_source AS time_source, t.shot AS shot, t.mode AS mode, t.outcome AS outcome, t.area AS area,
                t.target_nl AS target_nl, t.delivered_nl AS delivered_nl, t.dose_source AS dose_source, t.target_um AS target_um,
                t.measured_um AS measured_um, t.depth_source AS depth_source, t.duration_us AS duration_us, t.punctures AS punctures,
                t.needle_item_id AS needle_item_id, t.preparation_id AS preparation_id
            FROM injections AS t
            WHERE {where}",
        shape: Shape::List { keys: &[Key::Text("at"), Key::Text("device"), Key::Text("boot_id"), Key::Number("seq")], newest_first: false },
        rows: Rows::of::<Injection>(),
    },
    Endpoint {
        path: "/tenants/{tenant}/sessions/{session}/items",
        about: "Items that were used in a session: the way from a session to its items",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::path("tenant", "Tenant", "1"),
            Parameter::path("session", "Session, 32 hex digits", "t.session_id = ?"),
        ],
        sql: "
            SELECT
                t.tenant AS tenant, t.device AS device, t.session_id AS session_id, t.slot AS slot, t.mount_id AS mount_id,
                t.item_id AS item_id, t.item_key AS item_key, sum(t.injections) AS injections, sum(t.punctures) AS punctures,
                sum(t.delivered_nl) AS delivered_nl, formatDateTime(min(t.first_at), '%FT%T.%fZ') AS first_at, formatDateTime(max(t.last_at), '%FT%T.%fZ') AS last_at
            FROM item_uses AS t
            WHERE {where}
            GROUP BY t.tenant, t.device, t.session_id, t.slot, t.mount_id, t.item_id, t.item_key",
        shape: Shape::List { keys: &[Key::Text("device"), Key::Text("slot"), Key::Text("mount_id"), Key::Text("item_id")], newest_first: false },
        rows: Rows::of::<Use>(),
    },
];
