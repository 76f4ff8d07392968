//! The search box: names of everything, the nearest first.

use super::{
    endpoint::{Audience, Endpoint, Key, Parameter, Rows, Shape},
    row::row,
};

/// Most hits.
const HITS_MAX: usize = 50;

row! {
    /// Something whose name holds the words.
    pub struct Hit {
        /// 0 = the name is the words, 1 = it begins with them, 2 = it holds them
        rank: u8,
        /// DEVICE, SESSION, ITEM, LOT, CYCLE, ALERT or SITE
        kind: String,
        /// Tenant; empty = a registered lot
        tenant: String,
        /// Site; empty = several or not known
        site: String,
        /// What names it in a path: device, session, item key, lot, cycle, alert key or site
        id: String,
        /// What it is, in words
        title: String,
        /// When it was last heard of; UTC; null = not known
        at: Option<String>,
    }
}

pub const ENDPOINTS: &[Endpoint] = &[Endpoint {
    path: "/search",
    about: "Devices, sessions, items, lots, cycles, alerts and sites by a part of their name; at most 50, the nearest first",
    audience: Audience::Tenants,
    parameters: &[Parameter::words("q", "The words, upper or lower case", 2, 200)],
    sql: "
            SELECT t.rank AS rank, t.kind AS kind, t.tenant AS tenant, t.site AS site, t.id AS id, t.title AS title,
                formatDateTime(t.time, '%FT%T.%fZ') AS at
            FROM (
                SELECT toUInt8(multiIf(lengthUTF8(device) = lengthUTF8({q}), 0, positionCaseInsensitiveUTF8(device, {q}) = 1, 1, 2)) AS rank, 'DEVICE' AS kind,
                    toString(tenant) AS tenant, toString(named.site) AS site, toString(device) AS id,
                    arrayStringConcat(arrayFilter(word -> word != '', [toString(kind_of), toString(model), serial]), ' ') AS title,
                    NULL::Nullable(DateTime64(6, 'UTC')) AS time
                FROM (SELECT tenant, device, site, d.kind AS kind_of, model, serial FROM devices_latest AS d) AS named
                WHERE positionCaseInsensitiveUTF8(device, {q}) > 0 OR positionCaseInsensitiveUTF8(serial, {q}) > 0
                ORDER BY rank, id LIMIT 50
                UNION ALL
                SELECT toUInt8(multiIf(lengthUTF8(name) = lengthUTF8({q}), 0, positionCaseInsensitiveUTF8(name, {q}) = 1, 1, 2)) AS rank, 'SESSION',
                    toString(row.tenant), toString(any(row.site)), row.session_id AS id,
                    concat('on ', any(row.device), if(max(row.client_ref) = '', '', concat(', ', max(row.client_ref)))), max(row.at) AS time
                FROM (
                    SELECT *, if(positionCaseInsensitiveUTF8(session_id, {q}) > 0, session_id, client_ref) AS name FROM sessions
                    WHERE event = 'STARTED' AND (positionCaseInsensitiveUTF8(session_id, {q}) > 0 OR positionCaseInsensitiveUTF8(client_ref, {q}) > 0)) AS row
                GROUP BY row.tenant, row.session_id, row.name ORDER BY rank, time DESC LIMIT 50
                UNION ALL
                SELECT toUInt8(multiIf(lengthUTF8(item_key) = lengthUTF8({q}), 0, positionCaseInsensitiveUTF8(item_key, {q}) = 1, 1, 2)) AS rank, 'ITEM',
                    toString(row.tenant), toString(any(row.site)), row.item_key AS id,
                    concat(lower(any(row.slot)), ' on ', argMax(row.device, row.at)), max(row.at) AS time
                FROM mounts AS row
                WHERE row.item_key != '' AND positionCaseInsensitiveUTF8(row.item_key, {q}) > 0
                GROUP BY row.tenant, row.item_key ORDER BY rank, time DESC LIMIT 50
                UNION ALL
                SELECT toUInt8(multiIf(lengthUTF8(lot) = lengthUTF8({q}), 0, positionCaseInsensitiveUTF8(lot, {q}) = 1, 1, 2)) AS rank, 'LOT',
                    row.tenant, '', row.lot AS id, concat('lot', if(max(row.product) = '', '', concat(' of ', max(row.product)))), max(row.time) AS time
                FROM (
                    SELECT toString(tenant) AS tenant, trimBoth(mount.lot) AS lot, toString(udi_di) AS product,
                        toNullable(mount.at) AS time FROM mounts AS mount
                    WHERE mount.lot != '' AND positionCaseInsensitiveUTF8(mount.lot, {q}) > 0
                    UNION ALL
                    SELECT '', toString(known.lot), known.product, NULL FROM lots_latest AS known
                    WHERE positionCaseInsensitiveUTF8(known.lot, {q}) > 0) AS row
                GROUP BY row.tenant, row.lot ORDER BY rank, time DESC LIMIT 50
                UNION ALL
                SELECT toUInt8(multiIf(lengthUTF8(cycle_uid) = lengthUTF8({q}), 0, positionCaseInsensitiveUTF8(cycle_uid, {q}) = 1, 1, 2)) AS rank, 'CYCLE',
                    toString(row.tenant), toString(any(row.site)), row.cycle_uid AS id,
                    concat('cycle on ', any(row.device), if(max(row.recipe) = '', '', concat(', ', max(row.recipe)))), max(row.at) AS time
                FROM sterilization_cycles AS row
                WHERE positionCaseInsensitiveUTF8(row.cycle_uid, {q}) > 0
                GROUP BY row.tenant, row.cycle_uid ORDER BY rank, time DESC LIMIT 50
                UNION ALL
                SELECT toUInt8(multiIf(lengthUTF8(name) = lengthUTF8({q}), 0, positionCaseInsensitiveUTF8(name, {q}) = 1, 1, 2)) AS rank, 'ALERT',
                    toString(row.tenant), toString(row.site), row.alert_key AS id, row.title, row.raised_at AS time
                FROM (SELECT *, if(positionCaseInsensitiveUTF8(title, {q}) > 0, title, alert_key) AS name FROM alerts FINAL) AS row
                WHERE positionCaseInsensitiveUTF8(row.name, {q}) > 0
                ORDER BY rank, time DESC LIMIT 50
                UNION ALL
                SELECT toUInt8(multiIf(lengthUTF8(word) = lengthUTF8({q}), 0, positionCaseInsensitiveUTF8(word, {q}) = 1, 1, 2)) AS rank, 'SITE',
                    toString(row.tenant), toString(row.site), toString(row.site) AS id, max(row.name), NULL
                FROM (
                    SELECT tenant, site, s.name AS name, if(positionCaseInsensitiveUTF8(site, {q}) > 0, site, s.name) AS word FROM sites_latest AS s
                    UNION ALL
                    SELECT tenant, site, '', site FROM devices_latest WHERE site != '') AS row
                WHERE positionCaseInsensitiveUTF8(row.word, {q}) > 0
                GROUP BY row.tenant, row.site, row.word ORDER BY rank, id LIMIT 50) AS t
            ORDER BY rank, kind, tenant, id LIMIT 1 BY kind, tenant, id",
    shape: Shape::List {
        keys: &[Key::Number("rank"), Key::Text("kind"), Key::Text("tenant"), Key::Text("id")],
        newest_first: false,
    },
    rows: Rows::of::<Hit>().whole(HITS_MAX),
}];
