//! Tenants and sites.

use super::{
    endpoint::{Audience, Endpoint, Key, Rows, Shape},
    row::row,
};

row! {
    /// A tenant.
    pub struct Tenant {
        /// Tenant
        tenant: String,
    }
}

row! {
    /// A site, registered or heard from.
    pub struct Site {
        /// Tenant
        tenant: String,
        /// Site
        site: String,
        /// Name for people; empty = not registered
        name: String,
        /// IANA time zone; empty = not registered
        time_zone: String,
        /// Devices that were last heard from there, or are registered there
        devices: u64,
    }
}

pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/tenants",
        about: "Tenants that have devices",
        audience: Audience::Tenants,
        parameters: &[],
        sql: "
            SELECT tenant FROM (
                SELECT toString(tenant) AS tenant FROM devices_latest
                UNION DISTINCT SELECT toString(tenant) FROM device_status WHERE device != '' GROUP BY tenant
                UNION DISTINCT SELECT toString(tenant) FROM loader_commits WHERE kind = 'ledger')
            WHERE {where}",
        shape: Shape::List { keys: &[Key::Text("tenant")], newest_first: false },
        rows: Rows::of::<Tenant>(),
    },
    Endpoint {
        path: "/sites",
        about: "Sites",
        audience: Audience::Tenants,
        parameters: &[],
        sql: "
            SELECT
                s.tenant AS tenant, s.site AS site, max(s.name) AS name, max(s.time_zone) AS time_zone, sum(s.devices) AS devices
            FROM (
                SELECT toString(tenant) AS tenant, toString(site) AS site, name, toString(time_zone) AS time_zone, toUInt64(0) AS devices
                FROM sites_latest
                UNION ALL
                SELECT toString(tenant), site, '', '', toUInt64(1) FROM fleet WHERE site != '') AS s
            WHERE {where}
            GROUP BY s.tenant, s.site",
        shape: Shape::List { keys: &[Key::Text("tenant"), Key::Text("site")], newest_first: false },
        rows: Rows::of::<Site>(),
    },
];
