//! Items and lots: what happened to them, and to whom they lead.

use super::{
    devices::{CONSUMABLES, Consumable},
    endpoint::{Audience, Endpoint, Key, Parameter, Rows, Shape},
    row::row,
};

row! {
    /// What happened to an item: mounted, used in a session, sterilized in a cycle.
    pub struct ItemEvent {
        /// Tenant
        tenant: String,
        /// The item, as it was sent
        item_id: String,
        /// Identity of the item, the same for every spelling
        item_key: String,
        /// When; for uses the first injection; UTC
        at: String,
        /// MOUNTED, PRIMED, USED, REMOVED, REPROCESSED or STERILIZED
        event: String,
        /// Site
        site: String,
        /// Device, or sterilizer
        device: String,
        /// Session; empty = outside a session
        session_id: String,
        /// Slot; empty = not said
        slot: String,
        /// Mount; empty = none
        mount_id: String,
        /// STERILIZED: the cycle; empty otherwise
        cycle_uid: String,
        /// MOUNTED: lot; empty = not said
        lot: String,
        /// Pack; empty = not said
        pack_id: String,
        /// USED: injections made with it
        injections: u64,
        /// USED: punctures made with it
        punctures: u64,
        /// REPROCESSED: last rinse; empty = not said
        rinse_water: String,
    }
}

row! {
    /// A registered lot.
    pub struct Lot {
        /// UDI device identifier of the product
        udi_di: String,
        /// Lot
        lot: String,
        /// Name of the product
        product: String,
        /// Manufacturer
        manufacturer: String,
        /// Last day of use; null = not known
        expiry: Option<String>,
    }
}

row! {
    /// A recalled lot.
    pub struct Recall {
        /// The recall
        recall_id: String,
        /// UDI device identifier of the product
        udi_di: String,
        /// Lot; empty = all lots
        lot: String,
        /// Why
        reason: String,
        /// OPEN or CLOSED
        state: String,
        /// From when it holds; UTC
        valid_from: String,
    }
}

pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/tenants/{tenant}/items",
        about: "What happened to an item, the latest first: the way from an item to its sessions and cycles",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::path("tenant", "Tenant", "1"),
            Parameter::label("label", "The item: a GS1 element string as scanned, or its id", "t.item_key = ?"),
        ],
        sql: "
            SELECT
                t.tenant AS tenant, t.item_id AS item_id, t.item_key AS item_key, formatDateTime(t.at, '%FT%T.%fZ') AS at, t.event AS event, t.site AS site,
                t.device AS device, t.session_id AS session_id, t.slot AS slot, t.mount_id AS mount_id, t.cycle_uid AS cycle_uid,
                t.lot AS lot, t.pack_id AS pack_id, t.injections AS injections, t.punctures AS punctures, t.rinse_water AS rinse_water
            FROM item_history AS t
            WHERE {where}",
        shape: Shape::List { keys: &[Key::Text("at"), Key::Text("event"), Key::Text("device"), Key::Text("session_id"), Key::Text("slot"), Key::Text("mount_id"), Key::Text("cycle_uid"), Key::Text("item_id")], newest_first: true },
        rows: Rows::of::<ItemEvent>(),
    },
    Endpoint {
        path: "/tenants/{tenant}/lots/{lot}/mounts",
        about: "Mounts of items that name a lot, the latest first: the way from a lot to its sessions",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::path("tenant", "Tenant", "1"),
            Parameter::path("lot", "Lot, as devices send it", "trimBoth(t.lot) = ?"),
            Parameter::text("udi_di", "Only of this product, as devices send it", "trimBoth(t.udi_di) = ?"),
        ],
        sql: CONSUMABLES,
        shape: Shape::List { keys: &[Key::Text("at"), Key::Text("tenant"), Key::Text("device"), Key::Text("boot_id"), Key::Number("seq")], newest_first: true },
        rows: Rows::of::<Consumable>(),
    },
    Endpoint {
        path: "/lots",
        about: "Registered lots",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::text("udi_di", "Only of this product", "t.udi_di = ?"),
            Parameter::text("lot", "Only this lot", "t.lot = ?"),
        ],
        sql: "
            SELECT
                t.udi_di AS udi_di, t.lot AS lot, t.product AS product, t.manufacturer AS manufacturer, toString(t.expiry) AS expiry
            FROM lots_latest AS t
            WHERE {where}",
        shape: Shape::List { keys: &[Key::Text("udi_di"), Key::Text("lot")], newest_first: false },
        rows: Rows::of::<Lot>(),
    },
    Endpoint {
        path: "/recalls",
        about: "Recalled lots",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::choice("state", "Only in this state", &["OPEN", "CLOSED"], "t.state = ?"),
            Parameter::text("lot", "Only of this lot", "t.lot = ?"),
        ],
        sql: "
            SELECT
                t.recall_id AS recall_id, t.udi_di AS udi_di, t.lot AS lot, t.reason AS reason, t.state AS state,
                formatDateTime(t.valid_from, '%FT%T.%fZ') AS valid_from
            FROM recalls_latest AS t
            WHERE {where}",
        shape: Shape::List { keys: &[Key::Text("recall_id"), Key::Text("udi_di"), Key::Text("lot")], newest_first: false },
        rows: Rows::of::<Recall>(),
    },
];
