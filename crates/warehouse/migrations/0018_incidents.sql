-- What people report. Never changed: a correction is another row.

-- Key: tenant, then time.
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
COMMENT 'Incidents that people reported, append-only: where a trace starts (doseline trace --incident)';
