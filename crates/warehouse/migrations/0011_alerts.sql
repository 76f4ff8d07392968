-- Alerts, written by the monitor, and what people report. They are not on the loader's path: a row
-- may be written twice, and the latest of a key stands.

-- Key: the condition. A change is a new row; read with FINAL.
CREATE TABLE IF NOT EXISTS alerts
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    alert_key String COMMENT 'Stable key of the condition: one alert for each, however often it is evaluated' CODEC(ZSTD(1)),
    kind LowCardinality(String) COMMENT 'What it is about: sterility-1 to sterility-12 (the breach rule), mass-balance, ...',
    severity LowCardinality(String) COMMENT 'critical, high, medium or low; the greatest it had while it was open',
    state LowCardinality(String) COMMENT 'OPEN, or CLEARED: the condition is gone and, for critical ones, somebody has acknowledged it',
    holds Bool COMMENT 'Whether the condition holds by all data that has arrived; false and OPEN = latched, waits to be acknowledged',
    attention UInt32 COMMENT 'Rises whenever there is something new to acknowledge: raised (again), more sessions affected, more severe',
    site LowCardinality(String) COMMENT 'Site; empty = several or not known',
    device LowCardinality(String) COMMENT 'Device or sterilizer; empty = several or not known',
    title String COMMENT 'What is the matter, in words' CODEC(ZSTD(1)),
    sessions Array(String) COMMENT 'Sessions affected, ascending' CODEC(ZSTD(1)),
    items Array(String) COMMENT 'Items concerned, ascending' CODEC(ZSTD(1)),
    cycles Array(String) COMMENT 'Sterilization cycles concerned, ascending' CODEC(ZSTD(1)),
    evidence_query String COMMENT 'SQL that shows the rows behind it' CODEC(ZSTD(1)),
    evidence_rows String COMMENT 'The facts it was raised on, JSON array, 100 at most' CODEC(ZSTD(1)),
    since DateTime64(6, 'UTC') COMMENT 'Time of the first fact of it; UTC, us' CODEC(Delta, ZSTD(1)),
    raised_at DateTime64(6, 'UTC') COMMENT 'When it was raised, or raised again after it was cleared; UTC, us' CODEC(Delta, ZSTD(1)),
    rule_version UInt32 COMMENT 'Version of the rules' CODEC(ZSTD(1)),
    parameters String COMMENT 'Limits that were used, JSON' CODEC(ZSTD(1)),
    completeness String COMMENT 'What was known to be missing when it was computed; empty = nothing' CODEC(ZSTD(1)),
    computed_at DateTime64(6, 'UTC') COMMENT 'When the row was computed; UTC, us; the latest of a key stands' CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(computed_at)
ORDER BY (tenant, alert_key)
SETTINGS old_parts_lifetime = 480
COMMENT 'Alerts as they are now, one for each condition; read with FINAL';

-- Key: the alert, then time. Never changed: the audit trail of alerts.
CREATE TABLE IF NOT EXISTS alert_history
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    alert_key String COMMENT 'The alert' CODEC(ZSTD(1)),
    at DateTime64(6, 'UTC') COMMENT 'When; UTC, us' CODEC(Delta, ZSTD(1)),
    event LowCardinality(String) COMMENT 'RAISED, CHANGED, RETRACTED (the condition is gone, the alert stays), CLEARED by the monitor; ACKNOWLEDGED by a person',
    actor LowCardinality(String) COMMENT 'Who; empty = the monitor',
    kind LowCardinality(String) COMMENT 'What the alert is about',
    severity LowCardinality(String) COMMENT 'Severity then',
    holds Bool COMMENT 'Whether the condition held then',
    attention UInt32 COMMENT 'The alert''s attention then; an acknowledgement covers the alert up to it' CODEC(ZSTD(1)),
    sessions Array(String) COMMENT 'Sessions affected then' CODEC(ZSTD(1)),
    note String COMMENT 'Title of the alert then, or the note of the person' CODEC(ZSTD(1)),
    evidence_rows String COMMENT 'The facts then, JSON array' CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
ORDER BY (tenant, alert_key, at, event, actor)
SETTINGS old_parts_lifetime = 480
COMMENT 'Everything that happened to alerts, append-only';

CREATE OR REPLACE VIEW open_alerts
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    alert_key String COMMENT 'Stable key of the condition',
    kind LowCardinality(String) COMMENT 'What it is about',
    severity LowCardinality(String) COMMENT 'critical, high, medium or low',
    holds Bool COMMENT 'Whether the condition holds by all data that has arrived; false = latched until acknowledged',
    attention UInt32 COMMENT 'What an acknowledgement has to cover',
    site LowCardinality(String) COMMENT 'Site; empty = several or not known',
    device LowCardinality(String) COMMENT 'Device or sterilizer; empty = several or not known',
    title String COMMENT 'What is the matter, in words',
    sessions Array(String) COMMENT 'Sessions affected',
    items Array(String) COMMENT 'Items concerned',
    cycles Array(String) COMMENT 'Sterilization cycles concerned',
    evidence_query String COMMENT 'SQL that shows the rows behind it',
    evidence_rows String COMMENT 'The facts it was raised on, JSON array',
    since DateTime64(6, 'UTC') COMMENT 'Time of the first fact of it; UTC',
    raised_at DateTime64(6, 'UTC') COMMENT 'When it was raised; UTC',
    completeness String COMMENT 'What was known to be missing; empty = nothing',
    computed_at DateTime64(6, 'UTC') COMMENT 'When it was computed; UTC'
)
AS SELECT
    alert.tenant AS tenant, alert.alert_key AS alert_key, alert.kind AS kind, alert.severity AS severity,
    alert.holds AS holds, alert.attention AS attention, alert.site AS site, alert.device AS device, alert.title AS title,
    alert.sessions AS sessions, alert.items AS items, alert.cycles AS cycles, alert.evidence_query AS evidence_query,
    alert.evidence_rows AS evidence_rows, alert.since AS since, alert.raised_at AS raised_at,
    alert.completeness AS completeness, alert.computed_at AS computed_at
FROM (SELECT * FROM alerts FINAL WHERE state = 'OPEN') AS alert
LEFT JOIN
(
    SELECT tenant, alert_key, max(alert_history.attention) AS covered
    FROM alert_history WHERE event = 'ACKNOWLEDGED' GROUP BY tenant, alert_key
) AS answer ON answer.tenant = alert.tenant AND answer.alert_key = alert.alert_key
WHERE answer.covered < alert.attention
SETTINGS join_use_nulls = 0
COMMENT 'Alerts that wait for somebody: open, and not acknowledged as they stand';

-- What was told of alerts to systems outside. The latest row of a target and alert is where its
-- delivery stands. Key: target, alert, then time. Never changed: the audit trail of deliveries.
CREATE TABLE IF NOT EXISTS alert_deliveries
(
    target LowCardinality(String) COMMENT 'Where to: kafka or webhook',
    tenant LowCardinality(String) COMMENT 'Tenant',
    alert_key String COMMENT 'The alert' CODEC(ZSTD(1)),
    delivered_at DateTime64(6, 'UTC') COMMENT 'When the other side confirmed it; UTC, us' CODEC(Delta, ZSTD(1)),
    status LowCardinality(String) COMMENT 'firing or resolved',
    severity LowCardinality(String) COMMENT 'Severity that was told',
    kind LowCardinality(String) COMMENT 'What the alert is about',
    attention UInt32 COMMENT 'The alert''s attention that was told' CODEC(ZSTD(1)),
    fingerprint String COMMENT 'Stable id of the alert outside: the same for every delivery of it' CODEC(ZSTD(1)),
    raised_at DateTime64(6, 'UTC') COMMENT 'When the alert was raised; UTC, us' CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
ORDER BY (target, tenant, alert_key, delivered_at, status, severity)
SETTINGS old_parts_lifetime = 480
COMMENT 'Every confirmed delivery of an alert, append-only; repetitions that keep an alert alive are left out';

-- Key: the reader. What the monitor has seen, so that it goes on where it stopped.
CREATE TABLE IF NOT EXISTS monitor_positions
(
    reader LowCardinality(String) COMMENT 'Which half of the monitor',
    seen String COMMENT 'Blocks of each table and partition that it has evaluated, JSON' CODEC(ZSTD(1)),
    recorded_at DateTime64(6, 'UTC') COMMENT 'When; UTC, us; the latest counts' CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(recorded_at)
ORDER BY reader
SETTINGS old_parts_lifetime = 480
COMMENT 'How far the monitor has looked; delete a row to have everything evaluated again';

-- What people report. Never changed: a correction is another row. Key: tenant, then time.
CREATE TABLE IF NOT EXISTS incidents
(
    incident_id String COMMENT 'The incident' CODEC(ZSTD(1)),
    tenant LowCardinality(String) COMMENT 'Tenant',
    subject_kind LowCardinality(String) COMMENT 'What it is about: SESSION, ITEM, LOT or CYCLE',
    subject String COMMENT 'Which one; for a lot DI/LOT, or the lot alone' CODEC(ZSTD(1)),
    note String COMMENT 'What happened' CODEC(ZSTD(1)),
    reported_by LowCardinality(String) COMMENT 'Who reported it',
    recorded_at DateTime64(6, 'UTC') COMMENT 'When; UTC, us' CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
ORDER BY (tenant, recorded_at, incident_id)
SETTINGS old_parts_lifetime = 480
COMMENT 'Incidents that people reported, append-only: where a trace starts (doseline trace --incident)';
