-- Verdicts about sterility, written by the monitor. They are not on the loader's path: a row may be
-- written twice, and the latest of a key stands.

-- Key: what was evaluated as a whole, then the finding. A change is a new row; what no longer holds
-- gets a row CLEARED.
CREATE TABLE IF NOT EXISTS sterility_verdicts
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    unit String COMMENT 'What was evaluated as a whole: item/ID, mount/DEVICE/ID, session/ID or sterilizer/DEVICE' CODEC(ZSTD(1)),
    verdict_key String COMMENT 'Key in the unit: the rule, and what else tells it apart' CODEC(ZSTD(1)),
    alert_key String COMMENT 'Alert it belongs to, see alerts; empty = none' CODEC(ZSTD(1)),
    rule UInt8 COMMENT 'Breach rule, 1 to 12, see docs/sterility.md; 0 = verdict on a sterilization cycle' CODEC(ZSTD(1)),
    state LowCardinality(String) COMMENT 'CONFIRMED, INDETERMINATE (can be neither shown nor excluded), PENDING (something is still awaited), CLEARED (held once; later data says otherwise). Cycles: PASSED, FAILED, INDETERMINATE, PENDING',
    severity LowCardinality(String) COMMENT 'critical, high, medium or low; empty = none',
    site LowCardinality(String) COMMENT 'Site; empty = several or not known',
    device LowCardinality(String) COMMENT 'Device or sterilizer; empty = several',
    item_id String COMMENT 'The item; empty = none' CODEC(ZSTD(1)),
    mount_id String COMMENT 'The mount; empty = none' CODEC(ZSTD(1)),
    cycle_uid String COMMENT 'The cycle; empty = none' CODEC(ZSTD(1)),
    lot String COMMENT 'Product and lot as DI/LOT, or the mixture; empty = none' CODEC(ZSTD(1)),
    sessions Array(String) COMMENT 'Sessions affected, ascending' CODEC(ZSTD(1)),
    at DateTime64(6, 'UTC') COMMENT 'Time of the first fact of it; UTC, us' CODEC(Delta, ZSTD(1)),
    decide_at DateTime64(6, 'UTC') COMMENT 'PENDING: when it is decided without further data; UTC, us; 1970 = only by further data' CODEC(Delta, ZSTD(1)),
    reason String COMMENT 'In words' CODEC(ZSTD(1)),
    evidence String COMMENT 'The facts, JSON' CODEC(ZSTD(1)),
    evidence_query String COMMENT 'SQL that shows the rows behind it' CODEC(ZSTD(1)),
    rule_version UInt32 COMMENT 'Version of the rules' CODEC(ZSTD(1)),
    parameters String COMMENT 'Limits that were used, JSON' CODEC(ZSTD(1)),
    completeness String COMMENT 'What was known to be missing when it was computed; empty = nothing' CODEC(ZSTD(1)),
    computed_at DateTime64(6, 'UTC') COMMENT 'When the row was computed; UTC, us; the latest of a key stands' CODEC(Delta, ZSTD(1)),
    INDEX alert alert_key TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(computed_at)
ORDER BY (tenant, unit, verdict_key)
SETTINGS old_parts_lifetime = 480
COMMENT 'What each rule says about each item, mount, session and cycle; read with FINAL, or through sterility_breaches and cycle_verdicts';

CREATE OR REPLACE VIEW sterility_breaches
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    rule UInt8 COMMENT 'Breach rule, 1 to 12',
    state LowCardinality(String) COMMENT 'CONFIRMED, INDETERMINATE or PENDING',
    severity LowCardinality(String) COMMENT 'critical, high, medium or low',
    site LowCardinality(String) COMMENT 'Site; empty = several or not known',
    device LowCardinality(String) COMMENT 'Device or sterilizer; empty = several',
    item_id String COMMENT 'The item; empty = none',
    mount_id String COMMENT 'The mount; empty = none',
    cycle_uid String COMMENT 'The cycle; empty = none',
    lot String COMMENT 'Product and lot as DI/LOT, or the mixture; empty = none',
    sessions Array(String) COMMENT 'Sessions affected',
    at DateTime64(6, 'UTC') COMMENT 'Time of the first fact of it; UTC',
    reason String COMMENT 'In words',
    evidence String COMMENT 'The facts, JSON',
    evidence_query String COMMENT 'SQL that shows the rows behind it',
    alert_key String COMMENT 'Alert it belongs to',
    rule_version UInt32 COMMENT 'Version of the rules',
    parameters String COMMENT 'Limits that were used, JSON',
    completeness String COMMENT 'What was known to be missing; empty = nothing',
    computed_at DateTime64(6, 'UTC') COMMENT 'When it was computed; UTC'
)
AS SELECT
    tenant, rule, state, severity, site, device, item_id, mount_id, cycle_uid, lot, sessions, at, reason, evidence,
    evidence_query, alert_key, rule_version, parameters, completeness, computed_at
FROM sterility_verdicts FINAL
WHERE rule > 0 AND state != 'CLEARED'
COMMENT 'Breaches of sterility that stand, cannot be excluded, or are pending';

CREATE OR REPLACE VIEW cycle_verdicts
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    site LowCardinality(String) COMMENT 'Site',
    device LowCardinality(String) COMMENT 'The sterilizer',
    cycle_uid String COMMENT 'The cycle',
    started_at DateTime64(6, 'UTC') COMMENT 'Start; UTC',
    verdict LowCardinality(String) COMMENT 'PASSED, FAILED, INDETERMINATE or PENDING, by its curve and its indicators',
    reason String COMMENT 'In words',
    hold_ms Nullable(Int64) COMMENT 'Longest continuous time in the recipe''s band, least over the sensors, ms; NULL = not known',
    f0_ms Nullable(Int64) COMMENT 'Lethality, conservative sum, least over the sensors, ms at the reference temperature; NULL = not known',
    f0_trapezoid_ms Nullable(Int64) COMMENT 'The same by the trapezoid rule, beside it; NULL = not known',
    release String COMMENT 'Latest decision: RELEASED or REJECTED; empty = none yet',
    recalled_by Array(String) COMMENT 'Cycles whose positive biological indicator recalls this one',
    recipe String COMMENT 'The limits that were used, JSON: band, hold time, gap, reference temperature and z',
    computed_at DateTime64(6, 'UTC') COMMENT 'When it was computed; UTC'
)
AS SELECT
    tenant, site, device, cycle_uid, at AS started_at, state AS verdict, reason,
    JSONExtract(evidence, 'physical', 'hold_ms', 'Nullable(Int64)') AS hold_ms,
    JSONExtract(evidence, 'physical', 'f0_ms', 'Nullable(Int64)') AS f0_ms,
    JSONExtract(evidence, 'physical', 'f0_trapezoid_ms', 'Nullable(Int64)') AS f0_trapezoid_ms,
    JSONExtractString(evidence, 'release') AS release,
    JSONExtract(evidence, 'recalled_by', 'Array(String)') AS recalled_by,
    parameters AS recipe, computed_at
FROM sterility_verdicts FINAL
WHERE rule = 0 AND state != 'CLEARED'
COMMENT 'The verdict on each sterilization cycle';
