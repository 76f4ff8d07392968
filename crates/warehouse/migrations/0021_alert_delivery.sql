-- What was told of alerts to systems outside. The latest row of a target and alert is where its delivery stands.

-- Key: target, alert, then time. Never changed: the audit trail of deliveries.
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
COMMENT 'Every confirmed delivery of an alert, append-only; repetitions that keep an alert alive are left out';
