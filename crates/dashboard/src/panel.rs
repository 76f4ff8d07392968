//! The panels of the page. Each is one query over the public views.

use warehouse::{Error, Warehouse};

#[derive(Debug)]
pub struct Panel {
    /// The panel's name in the URL.
    pub name: &'static str,
    /// The query. Each `?` stands for the tenant. The condition compares the tenant alone, not as
    /// `IN ('', tenant)`, so that ClickHouse finds the rows through the order of the tables.
    sql: &'static str,
}

impl Panel {
    pub const ALL: &[Self] = &[
        Self {
            name: "tenants",
            // The tenants of all devices in `fleet`, without what that view computes for each
            // device. The GROUP BY lets a projection answer.
            sql: "SELECT tenant FROM (SELECT tenant FROM devices_latest
                    UNION DISTINCT SELECT tenant FROM device_status WHERE device != '' GROUP BY tenant
                    UNION DISTINCT SELECT tenant FROM loader_commits WHERE kind = 'ledger')
                  ORDER BY tenant LIMIT 1000",
        },
        Self {
            name: "overview",
            // Past days come from their rollups. A batch gets its ingest day after its records were
            // received; one hour allows for clocks that differ.
            sql: "SELECT injections, injections_last_minute, devices, devices_online, missing, lost, quarantined
                  FROM (SELECT sum(injections) AS injections FROM (
                      SELECT injections FROM accuracy_day WHERE (? = '' OR tenant = ?)
                      UNION ALL SELECT injections FROM accuracy_minute WHERE (? = '' OR tenant = ?)
                        AND ingest_day NOT IN (SELECT ingest_day FROM accuracy_day))) AS stored,
                    (SELECT count() AS injections_last_minute FROM injections WHERE (? = '' OR tenant = ?)
                        AND received_at > now() - 60 AND ingest_day >= toDate(now('UTC') - 3600)) AS latest,
                    (SELECT count() AS devices, countIf(state = 'ONLINE') AS devices_online, sum(missing_events) AS missing,
                        sum(lost_events) AS lost FROM fleet WHERE (? = '' OR tenant = ?)) AS seen,
                    (SELECT count() AS quarantined FROM quarantine WHERE NOT replayed AND (? = '' OR tenant = ?)) AS refused",
        },
        Self {
            name: "minutes",
            sql: "SELECT formatDateTime(minute, '%H:%i') AS minute, dateDiff('minute', any(a.minute), now()) AS minutes_ago,
                    sum(a.injections) AS injections
                  FROM accuracy_minute AS a
                  WHERE (? = '' OR tenant = ?) AND a.minute > now() - INTERVAL 59 MINUTE AND a.minute <= now()
                  GROUP BY minute ORDER BY minutes_ago DESC",
        },
        Self {
            name: "fleet",
            sql: "SELECT tenant, site, device, f.model AS model, f.state AS state, toUnixTimestamp(f.last_seen) AS last_arrival_s,
                    a.made AS injections,
                    if(a.target_nl = 0, NULL, 100 * a.error_nl / a.target_nl) AS dose_error_pct,
                    if(a.n = 0, NULL, a.error_um / a.n) AS depth_error_um,
                    f.missing_events AS missing
                  FROM fleet AS f
                  LEFT JOIN (SELECT tenant, site, device, sum(injections) AS made, sum(dose_target_nl) AS target_nl,
                        sum(dose_error_nl) AS error_nl, sum(depth_n) AS n, sum(minute.depth_error_um) AS error_um
                    FROM accuracy_minute AS minute WHERE (? = '' OR tenant = ?) AND minute.minute >= today()
                    GROUP BY tenant, site, device) AS a USING (tenant, site, device)
                  WHERE (? = '' OR tenant = ?)
                  ORDER BY missing > 0 DESC, injections DESC, device LIMIT 200",
        },
        Self {
            name: "gaps",
            sql: "SELECT tenant, site, device, toString(boot_id) AS boot_id, first_missing, last_missing, state,
                    toUnixTimestamp(since) AS since_s
                  FROM delivery_gaps WHERE (? = '' OR tenant = ?) ORDER BY since DESC LIMIT 100",
        },
        Self {
            name: "alerts",
            sql: "SELECT severity, tenant, site, device, title, length(sessions) AS visits, toUnixTimestamp(raised_at) AS raised_s,
                    alert_key
                  FROM open_alerts WHERE (? = '' OR tenant = ?)
                  ORDER BY indexOf(['critical', 'high', 'medium', 'low'], severity), raised_at DESC LIMIT 100",
        },
        Self {
            name: "quarantine",
            sql: "SELECT toUnixTimestamp(received_at) AS received_s, reason, detail, topic, source
                  FROM quarantine WHERE (? = '' OR tenant = ?) ORDER BY received_at DESC LIMIT 20",
        },
    ];

    /// The panel with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::ALL.iter().find(|panel| panel.name == name)
    }

    /// The panel's rows in ClickHouse's `JSON` format; an empty `tenant` means all.
    pub async fn rows(&self, warehouse: &Warehouse, tenant: &str) -> Result<Vec<u8>, Error> {
        let mut query = warehouse.query(self.sql);
        for _ in 0..self.sql.matches('?').count() {
            query = query.bind(tenant);
        }
        let mut bytes = query.fetch_bytes("JSON").map_err(|error| warehouse.error(error))?;
        Ok(bytes.collect().await.map_err(|error| warehouse.error(error))?.to_vec())
    }
}
