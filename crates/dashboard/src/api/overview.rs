//! The start page in one row.

use super::{
    endpoint::{Audience, Endpoint, Parameter, Rows, Shape},
    row::row,
};

row! {
    /// What there is, what arrives, what is missing and what waits for a person.
    pub struct Overview {
        /// Devices, registered or seen
        devices: u64,
        /// Devices whose latest state is ONLINE
        devices_online: u64,
        /// Injections made in the last 24 h
        injections_today: u64,
        /// Sessions with an injection in the last 24 h
        sessions_today: u64,
        /// Events known to have been made: made = stored + missing + lost + those in quarantine
        made: u64,
        /// Events in their tables
        stored: u64,
        /// Events that have not arrived
        missing: u64,
        /// Events that the device declared lost
        lost: u64,
        /// Open alerts of severity critical that nobody has acknowledged
        alerts_critical: u64,
        /// The same of severity high
        alerts_high: u64,
        /// The same of other severities
        alerts_other: u64,
        /// Rows of the quarantine that were received in the last 24 h and are not replayed
        quarantined_today: u64,
        /// When anything was last received; UTC; null = nothing yet
        last_received_at: Option<String>,
        /// Time from the receipt of an injection until it can be queried, ms: median of the last
        /// 15 min; null = none
        latency_p50_ms: Option<f64>,
        /// The same: 99 of 100 took no longer
        latency_p99_ms: Option<f64>,
        /// Injections received a minute, mean of the last 5 min
        injections_per_min: f64,
        /// Clock of ClickHouse; UTC
        now: String,
    }
}

pub const ENDPOINTS: &[Endpoint] = &[Endpoint {
    path: "/overview",
    about: "What there is, what arrives, what is missing and what waits for a person, in one row",
    audience: Audience::Tenants,
    parameters: &[Parameter::text("site", "Only of this site", "1")],
    // A batch gets its ingest day after its records were received; one hour allows for clocks that
    // differ. The days of a query bound the parts that it reads.
    sql: "
            SELECT
                known.devices AS devices, known.devices_online AS devices_online, day.injections AS injections_today,
                sessions.n AS sessions_today, delivery.made AS made, delivery.stored AS stored, delivery.missing AS missing,
                delivery.lost AS lost, alerts.critical AS alerts_critical, alerts.high AS alerts_high,
                alerts.other AS alerts_other, refused.n AS quarantined_today, known.last_received_at AS last_received_at,
                latest.p50 AS latency_p50_ms, latest.p99 AS latency_p99_ms, latest.per_min AS injections_per_min,
                formatDateTime(now64(6, 'UTC'), '%FT%T.%fZ') AS now
            FROM (
                SELECT count() AS devices, countIf(t.state = 'ONLINE') AS devices_online,
                    formatDateTime(max(t.last_seen), '%FT%T.%fZ') AS last_received_at
                FROM fleet AS t WHERE {site} IN ('', t.site)) AS known,
            (
                SELECT sum(t.injections) AS injections FROM accuracy_minute AS t
                WHERE {site} IN ('', t.site) AND t.minute > now('UTC') - 86400 AND t.minute <= now('UTC')
                    AND t.ingest_day >= toDate(now('UTC') - 90000)) AS day,
            (
                SELECT uniqExact(t.tenant, t.session_id) AS n FROM accuracy_session AS t
                WHERE {site} IN ('', t.site) AND t.session_id != '' AND t.last_at > now64(6, 'UTC') - 86400
                    AND t.last_at <= now64(6, 'UTC') AND t.ingest_day >= toDate(now('UTC') - 90000)) AS sessions,
            (
                SELECT sum(t.known_last) AS made,
                    toUInt64(sum(arraySum(run -> if(run.state = 'STORED', run.last - run.first + 1, 0), t.runs))) AS stored,
                    toUInt64(sum(arraySum(run -> if(run.state = 'MISSING', run.last - run.first + 1, 0), t.runs))) AS missing,
                    toUInt64(sum(arraySum(run -> if(run.state = 'LOST', run.last - run.first + 1, 0), t.runs))) AS lost
                FROM delivery_state AS t WHERE {site} IN ('', t.site)) AS delivery,
            (
                SELECT countIf(t.severity = 'critical') AS critical, countIf(t.severity = 'high') AS high,
                    countIf(t.severity NOT IN ('critical', 'high')) AS other
                FROM (SELECT * FROM alerts FINAL) AS t
                LEFT JOIN (
                    SELECT tenant, alert_key, max(said.attention) AS covered FROM alert_history AS said
                    WHERE event = 'ACKNOWLEDGED' GROUP BY tenant, alert_key) AS answer
                ON answer.tenant = t.tenant AND answer.alert_key = t.alert_key
                WHERE {site} IN ('', t.site) AND t.state = 'OPEN' AND answer.covered < t.attention) AS alerts,
            (
                SELECT count() AS n FROM quarantine AS t
                WHERE {site} IN ('', t.site) AND NOT t.replayed AND t.received_at > now64(6, 'UTC') - 86400
                    AND t.ingest_day >= toDate(now('UTC') - 90000)) AS refused,
            (
                SELECT
                    if(count() = 0, NULL, quantile(0.5)(t.latency_ms)) AS p50,
                    if(count() = 0, NULL, quantile(0.99)(t.latency_ms)) AS p99,
                    countIf(t.received_at > now64(6, 'UTC') - 300) / 5 AS per_min
                FROM (
                    SELECT shot.received_at AS received_at,
                        (toUnixTimestamp64Micro(batch.committed_at) - toUnixTimestamp64Micro(shot.received_at)) / 1000 AS latency_ms
                    FROM injections AS shot
                    INNER JOIN (
                        SELECT incarnation, kafka_partition, batch, min(written.committed_at) AS committed_at
                        FROM loader_commits AS written
                        WHERE kind = 'ledger' AND written.committed_at > now64(6, 'UTC') - 1800
                        GROUP BY incarnation, kafka_partition, batch) AS batch
                    ON batch.incarnation = shot.incarnation AND batch.kafka_partition = shot.kafka_partition AND batch.batch = shot.batch
                    WHERE {site} IN ('', shot.site) AND shot.received_at > now64(6, 'UTC') - 900
                        AND shot.ingest_day >= toDate(now('UTC') - 4500)) AS t) AS latest",
    shape: Shape::One,
    rows: Rows::of::<Overview>(),
}];
