//! What has arrived, and what is missing.

use super::{
    endpoint::{Audience, Endpoint, Key, Parameter, Rows, Shape},
    row::row,
};

row! {
    /// Sequence numbers of a boot that have not arrived.
    pub struct Gap {
        /// Tenant
        tenant: String,
        /// Site
        site: String,
        /// Device
        device: String,
        /// Boot of the device
        boot_id: String,
        /// First missing sequence number
        first_missing: u64,
        /// Last missing sequence number, inclusive
        last_missing: u64,
        /// OPEN = may still arrive; LOST = the device declared the loss
        state: String,
        /// When it was first known that something is missing here; UTC
        since: String,
    }
}

row! {
    /// What has arrived of a boot: stored + quarantined + lost + missing = made.
    pub struct Completeness {
        /// Tenant
        tenant: String,
        /// Site
        site: String,
        /// Device
        device: String,
        /// Boot of the device
        boot_id: String,
        /// Events known to have been made
        made: u64,
        /// Events in their tables
        stored: u64,
        /// Events in quarantine
        quarantined: u64,
        /// Events that the device declared lost
        lost: u64,
        /// Events that have not arrived
        missing: u64,
        /// Whether the device has said how far the boot reached
        tail_known: bool,
        /// When the latest report of the boot was received; 1970 = none; UTC
        last_arrival: String,
    }
}

/// Gaps in sequence numbers.
const GAPS: &str = "
    SELECT
        t.tenant AS tenant, t.site AS site, t.device AS device, toString(t.boot_id) AS boot_id, t.first_missing AS first_missing,
        t.last_missing AS last_missing, t.state AS state, formatDateTime(t.since, '%FT%T.%fZ') AS since
    FROM delivery_gaps AS t
    WHERE {where}";

pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/gaps",
        about: "Gaps in sequence numbers, the latest first",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::text("site", "Only of this site", "t.site = ?"),
            Parameter::text("device", "Only of this device", "t.device = ?"),
            Parameter::choice("state", "Only in this state", &["OPEN", "LOST"], "t.state = ?"),
        ],
        sql: GAPS,
        shape: Shape::List {
            keys: &[
                Key::Text("since"),
                Key::Text("tenant"),
                Key::Text("device"),
                Key::Text("boot_id"),
                Key::Number("first_missing"),
            ],
            newest_first: true,
        },
        rows: Rows::of::<Gap>(),
    },
    Endpoint {
        path: "/tenants/{tenant}/devices/{device}/gaps",
        about: "Gaps in the sequence numbers of a device, the latest first",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::path("tenant", "Tenant", "1"),
            Parameter::path("device", "Device", "t.device = ?"),
            Parameter::choice("state", "Only in this state", &["OPEN", "LOST"], "t.state = ?"),
        ],
        sql: GAPS,
        shape: Shape::List {
            keys: &[
                Key::Text("since"),
                Key::Text("tenant"),
                Key::Text("device"),
                Key::Text("boot_id"),
                Key::Number("first_missing"),
            ],
            newest_first: true,
        },
        rows: Rows::of::<Gap>(),
    },
    Endpoint {
        path: "/completeness",
        about: "What has arrived of each boot",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::text("site", "Only of this site", "t.site = ?"),
            Parameter::text("device", "Only of this device", "t.device = ?"),
        ],
        sql: "
            SELECT
                t.tenant AS tenant, t.site AS site, t.device AS device, toString(t.boot_id) AS boot_id, t.made AS made,
                t.stored AS stored, t.quarantined AS quarantined, t.lost AS lost, t.missing AS missing,
                CAST(t.tail_known AS Bool) AS tail_known, formatDateTime(t.last_arrival, '%FT%T.%fZ') AS last_arrival
            FROM delivery_completeness AS t
            WHERE {where}",
        shape: Shape::List {
            keys: &[Key::Text("tenant"), Key::Text("device"), Key::Text("boot_id")],
            newest_first: false,
        },
        rows: Rows::of::<Completeness>(),
    },
];
