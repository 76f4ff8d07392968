-- The assessment of each sterilization cycle, written by the monitor. A row may be written twice, and
-- the latest of a cycle stands. Samples may be retained for a shorter time than these rows: the
-- judgement of a curve stays when its samples are gone.

CREATE TABLE IF NOT EXISTS cycle_assessments
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    device LowCardinality(String) COMMENT 'The sterilizer',
    cycle_uid String COMMENT 'The cycle' CODEC(ZSTD(1)),
    site LowCardinality(String) COMMENT 'Site',
    is_present Bool COMMENT 'Whether the cycle is in sterilization_cycles; false = it was once' CODEC(ZSTD(1)),
    outcome LowCardinality(String) COMMENT 'PASSED, FAILED, INDETERMINATE or PENDING, by curve and chemical indicators',
    reason String COMMENT 'Reason of the outcome, in words' CODEC(ZSTD(1)),
    release LowCardinality(String) COMMENT 'Latest decision: RELEASED or REJECTED; empty = none yet',
    wet Bool COMMENT 'Whether the load was wet' CODEC(ZSTD(1)),
    recalled_by Array(String) COMMENT 'Cycles whose positive biological indicator recalls this one' CODEC(ZSTD(1)),
    for_load Bool COMMENT 'Whether the cycle sterilised a load; false = it tested the sterilizer' CODEC(ZSTD(1)),
    started_at DateTime64(6, 'UTC') COMMENT 'Start; UTC, us' CODEC(Delta, ZSTD(1)),
    ended_at DateTime64(6, 'UTC') COMMENT 'Time of the last sample; UTC, us' CODEC(Delta, ZSTD(1)),
    synced Bool COMMENT 'Whether the clock of the sterilizer was synced' CODEC(ZSTD(1)),
    curve_outcome LowCardinality(String) COMMENT 'PASSED, FAILED, INDETERMINATE or PENDING, by the curve alone',
    curve_reason String COMMENT 'Reason of the outcome of the curve, in words' CODEC(ZSTD(1)),
    samples UInt32 COMMENT 'Samples that the curve was judged by' CODEC(ZSTD(1)),
    end_ms UInt32 COMMENT 'Time of the last sample, ms from the start' CODEC(ZSTD(1)),
    hold_ms Nullable(Int64) COMMENT 'Longest continuous time in the recipe''s band, ms; the smallest of all sensors; NULL = not known' CODEC(ZSTD(1)),
    f0_ms Nullable(Int64) COMMENT 'Lethality, conservative sum, ms at the reference temperature; the smallest of all sensors; NULL = not known' CODEC(ZSTD(1)),
    f0_trapezoid_ms Nullable(Int64) COMMENT 'The same by the trapezoid rule; NULL = not known' CODEC(ZSTD(1)),
    saturation_mk Nullable(Int64) COMMENT 'Largest difference to saturated steam during the hold, mK; NULL = not known' CODEC(ZSTD(1)),
    limits String COMMENT 'Limits that the curve was judged by, JSON' CODEC(ZSTD(1)),
    curve_version UInt32 COMMENT 'Version of the judgement of curves' CODEC(ZSTD(1)),
    computed_at DateTime64(6, 'UTC') COMMENT 'When the row was computed; UTC, us; the latest of a cycle stands' CODEC(Delta, ZSTD(1)),
    INDEX cycle cycle_uid TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(computed_at)
ORDER BY (tenant, device, cycle_uid)
SETTINGS old_parts_lifetime = 480
COMMENT 'Whether each sterilization cycle made its items sterile, and the judgement of its curve; read with FINAL';

INSERT INTO cycle_assessments
SELECT
    tenant, device, cycle_uid, site, true AS is_present, state AS outcome, reason,
    JSONExtractString(evidence, 'release') AS release, JSONExtractBool(evidence, 'wet') AS wet,
    JSONExtract(evidence, 'recalled_by', 'Array(String)') AS recalled_by,
    JSONExtractBool(evidence, 'for_load') AS for_load, at AS started_at,
    fromUnixTimestamp64Micro(JSONExtractInt(evidence, 'end'), 'UTC') AS ended_at,
    JSONExtractBool(evidence, 'synced') AS synced,
    JSONExtractString(evidence, 'physical', 'outcome') AS curve_outcome,
    JSONExtractString(evidence, 'physical', 'reason') AS curve_reason,
    toUInt32(JSONExtractUInt(evidence, 'physical', 'samples')) AS samples,
    toUInt32(JSONExtractUInt(evidence, 'physical', 'end_ms')) AS end_ms,
    JSONExtract(evidence, 'physical', 'hold_ms', 'Nullable(Int64)') AS hold_ms,
    JSONExtract(evidence, 'physical', 'f0_ms', 'Nullable(Int64)') AS f0_ms,
    JSONExtract(evidence, 'physical', 'f0_trapezoid_ms', 'Nullable(Int64)') AS f0_trapezoid_ms,
    JSONExtract(evidence, 'physical', 'saturation_mk', 'Nullable(Int64)') AS saturation_mk,
    parameters AS limits, 1 AS curve_version, computed_at
FROM sterility_verdicts FINAL WHERE (SELECT count() FROM cycle_assessments) = 0
    AND rule = 0 AND state != 'CLEARED';
