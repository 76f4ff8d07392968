-- Sterilizers: cycles and what came of them.

-- Key: the event's identity. A few rows a day and sterilizer.
CREATE TABLE IF NOT EXISTS sterilization_cycles
(
    tenant LowCardinality(String) COMMENT 'Tenant, from the topic',
    site LowCardinality(String) COMMENT 'Site, from the topic at the time',
    device LowCardinality(String) COMMENT 'Device, from the topic',
    boot_id UInt64 COMMENT 'Boot of the device: high 32 bits its boot counter, low 32 bits random' CODEC(ZSTD(1)),
    seq UInt64 COMMENT 'Sequence number in the boot, from 1; (tenant, device, boot_id, seq) is the event''s identity' CODEC(Delta, ZSTD(1)),
    at DateTime64(6, 'UTC') COMMENT 'Device time if the clock was synced and showed a plausible time, else the time of receipt (see time_source); UTC, us; never corrected later' CODEC(Delta, ZSTD(1)),
    time_source LowCardinality(String) COMMENT 'Where `at` comes from: DEVICE or RECEIVED',
    received_at DateTime64(6, 'UTC') COMMENT 'When the bridge received the report; UTC, us' CODEC(Delta, ZSTD(1)),
    model LowCardinality(String) COMMENT 'Device model as the report says; empty = not said',
    firmware LowCardinality(String) COMMENT 'Firmware as the report says; empty = not said',
    session_id String COMMENT 'Session the event belongs to, 32 hex digits; empty = outside a session' CODEC(ZSTD(1)),
    cycle_uid String COMMENT 'The cycle, unique for ever' CODEC(ZSTD(1)),
    cycle_no Nullable(UInt64) COMMENT 'The sterilizer''s own counter, which may reset; NULL = not said' CODEC(T64, ZSTD(1)),
    recipe LowCardinality(String) COMMENT 'Recipe, see recipes; empty = not said',
    purpose LowCardinality(String) COMMENT 'LOAD, BOWIE_DICK, LEAK or BI; empty = not said',
    load_dry Nullable(Bool) COMMENT 'Whether the load came out dry; NULL = not said',
    items UInt32 COMMENT 'Items reported, see sterilization_items' CODEC(T64, ZSTD(1)),
    samples UInt32 COMMENT 'Samples reported, see sterilization_samples' CODEC(T64, ZSTD(1)),
    kafka_offset UInt64 COMMENT 'Offset of the Kafka record it came from' CODEC(Delta, ZSTD(1)),
    ingest_day Date COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table' CODEC(ZSTD(1)),
    incarnation UInt32 COMMENT 'Incarnation of the Kafka topic, see kafka_topics' CODEC(ZSTD(1)),
    kafka_partition Int32 COMMENT 'Kafka partition it came from' CODEC(ZSTD(1)),
    batch UInt64 COMMENT 'First Kafka offset of the batch that wrote the row' CODEC(ZSTD(1)),
    gen UInt32 COMMENT 'Attempt of the batch; rises when a deduplication token is burned' CODEC(ZSTD(1)),
    batch_hash UInt64 COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch' CODEC(ZSTD(1)),
    flags UInt32 COMMENT 'Bits: 2 = fields this version does not know; 4 = the device''s clock said that it was synced and showed a time that cannot be true, see implausible_times; 256 = what scanners append (CR, LF, tab, space) was trimmed from the end of a text; 512 = a text with control characters, an id with other characters than A-Za-z0-9_-, or an overlong text of the context, kept as it came' CODEC(T64, LZ4)
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, site, device, boot_id, seq)
SETTINGS non_replicated_deduplication_window = 100000, remove_empty_parts = 0, old_parts_lifetime = 480
COMMENT 'Sterilization cycles; `at` is the start of the cycle';

-- Key: the event's identity and the sample's number: a cycle's curve is read whole and in order.
-- The largest table of a sterilizer: offsets ascend evenly (DoubleDelta), temperature and pressure
-- change slowly (Delta).
CREATE TABLE IF NOT EXISTS sterilization_samples
(
    tenant LowCardinality(String) COMMENT 'Tenant, from the topic',
    site LowCardinality(String) COMMENT 'Site, from the topic at the time',
    device LowCardinality(String) COMMENT 'Device, from the topic',
    boot_id UInt64 COMMENT 'Boot of the device: high 32 bits its boot counter, low 32 bits random' CODEC(ZSTD(1)),
    seq UInt64 COMMENT 'Sequence number in the boot, from 1; (tenant, device, boot_id, seq) is the event''s identity' CODEC(Delta, ZSTD(1)),
    at DateTime64(6, 'UTC') COMMENT 'Device time if the clock was synced and showed a plausible time, else the time of receipt (see time_source); UTC, us; never corrected later' CODEC(Delta, ZSTD(1)),
    time_source LowCardinality(String) COMMENT 'Where `at` comes from: DEVICE or RECEIVED',
    received_at DateTime64(6, 'UTC') COMMENT 'When the bridge received the report; UTC, us' CODEC(Delta, ZSTD(1)),
    model LowCardinality(String) COMMENT 'Device model as the report says; empty = not said',
    firmware LowCardinality(String) COMMENT 'Firmware as the report says; empty = not said',
    session_id String COMMENT 'Session the event belongs to, 32 hex digits; empty = outside a session' CODEC(ZSTD(1)),
    `index` UInt32 COMMENT 'Number of the sample in the cycle, from 0' CODEC(T64, ZSTD(1)),
    cycle_uid String COMMENT 'The cycle, unique for ever' CODEC(ZSTD(1)),
    offset_ms UInt32 COMMENT 'Time from the start of the cycle (`at`), ms' CODEC(DoubleDelta, ZSTD(1)),
    sensor UInt32 COMMENT 'Number of the sensor, from 0' CODEC(T64, ZSTD(1)),
    temperature_mc Nullable(Int32) COMMENT 'Temperature, millidegrees Celsius; NULL = not said' CODEC(Delta, ZSTD(1)),
    pressure_pa Nullable(UInt32) COMMENT 'Absolute pressure, Pa; NULL = not said' CODEC(Delta, ZSTD(1)),
    kafka_offset UInt64 COMMENT 'Offset of the Kafka record it came from' CODEC(Delta, ZSTD(1)),
    ingest_day Date COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table' CODEC(ZSTD(1)),
    incarnation UInt32 COMMENT 'Incarnation of the Kafka topic, see kafka_topics' CODEC(ZSTD(1)),
    kafka_partition Int32 COMMENT 'Kafka partition it came from' CODEC(ZSTD(1)),
    batch UInt64 COMMENT 'First Kafka offset of the batch that wrote the row' CODEC(ZSTD(1)),
    gen UInt32 COMMENT 'Attempt of the batch; rises when a deduplication token is burned' CODEC(ZSTD(1)),
    batch_hash UInt64 COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch' CODEC(ZSTD(1)),
    flags UInt32 COMMENT 'Bits: 2 = fields this version does not know; 4 = the device''s clock said that it was synced and showed a time that cannot be true, see implausible_times; 256 = what scanners append (CR, LF, tab, space) was trimmed from the end of a text; 512 = a text with control characters, an id with other characters than A-Za-z0-9_-, or an overlong text of the context, kept as it came' CODEC(T64, LZ4)
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, site, device, boot_id, seq, index)
SETTINGS non_replicated_deduplication_window = 100000, remove_empty_parts = 0, old_parts_lifetime = 480
COMMENT 'Temperature and pressure of sterilization cycles, one row for each sample';

-- Key: the event's identity and the item's number; an item is followed through its life by the
-- bloom filter.
CREATE TABLE IF NOT EXISTS sterilization_items
(
    tenant LowCardinality(String) COMMENT 'Tenant, from the topic',
    site LowCardinality(String) COMMENT 'Site, from the topic at the time',
    device LowCardinality(String) COMMENT 'Device, from the topic',
    boot_id UInt64 COMMENT 'Boot of the device: high 32 bits its boot counter, low 32 bits random' CODEC(ZSTD(1)),
    seq UInt64 COMMENT 'Sequence number in the boot, from 1; (tenant, device, boot_id, seq) is the event''s identity' CODEC(Delta, ZSTD(1)),
    at DateTime64(6, 'UTC') COMMENT 'Device time if the clock was synced and showed a plausible time, else the time of receipt (see time_source); UTC, us; never corrected later' CODEC(Delta, ZSTD(1)),
    time_source LowCardinality(String) COMMENT 'Where `at` comes from: DEVICE or RECEIVED',
    received_at DateTime64(6, 'UTC') COMMENT 'When the bridge received the report; UTC, us' CODEC(Delta, ZSTD(1)),
    model LowCardinality(String) COMMENT 'Device model as the report says; empty = not said',
    firmware LowCardinality(String) COMMENT 'Firmware as the report says; empty = not said',
    session_id String COMMENT 'Session the event belongs to, 32 hex digits; empty = outside a session' CODEC(ZSTD(1)),
    `index` UInt32 COMMENT 'Number of the item in the cycle, from 0' CODEC(T64, ZSTD(1)),
    cycle_uid String COMMENT 'The cycle, unique for ever' CODEC(ZSTD(1)),
    item_id String COMMENT 'The item' CODEC(ZSTD(1)),
    pack_id String COMMENT 'Pack it was in; empty = not said' CODEC(ZSTD(1)),
    kafka_offset UInt64 COMMENT 'Offset of the Kafka record it came from' CODEC(Delta, ZSTD(1)),
    ingest_day Date COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table' CODEC(ZSTD(1)),
    incarnation UInt32 COMMENT 'Incarnation of the Kafka topic, see kafka_topics' CODEC(ZSTD(1)),
    kafka_partition Int32 COMMENT 'Kafka partition it came from' CODEC(ZSTD(1)),
    batch UInt64 COMMENT 'First Kafka offset of the batch that wrote the row' CODEC(ZSTD(1)),
    gen UInt32 COMMENT 'Attempt of the batch; rises when a deduplication token is burned' CODEC(ZSTD(1)),
    batch_hash UInt64 COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch' CODEC(ZSTD(1)),
    flags UInt32 COMMENT 'Bits: 2 = fields this version does not know; 4 = the device''s clock said that it was synced and showed a time that cannot be true, see implausible_times; 256 = what scanners append (CR, LF, tab, space) was trimmed from the end of a text; 512 = a text with control characters, an id with other characters than A-Za-z0-9_-, or an overlong text of the context, kept as it came' CODEC(T64, LZ4),
    INDEX item item_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, site, device, boot_id, seq, index)
SETTINGS non_replicated_deduplication_window = 100000, remove_empty_parts = 0, old_parts_lifetime = 480
COMMENT 'What was in the chamber, one row for each item';

-- Key: the event's identity. Few rows.
CREATE TABLE IF NOT EXISTS cycle_indicators
(
    tenant LowCardinality(String) COMMENT 'Tenant, from the topic',
    site LowCardinality(String) COMMENT 'Site, from the topic at the time',
    device LowCardinality(String) COMMENT 'Device, from the topic',
    boot_id UInt64 COMMENT 'Boot of the device: high 32 bits its boot counter, low 32 bits random' CODEC(ZSTD(1)),
    seq UInt64 COMMENT 'Sequence number in the boot, from 1; (tenant, device, boot_id, seq) is the event''s identity' CODEC(Delta, ZSTD(1)),
    at DateTime64(6, 'UTC') COMMENT 'Device time if the clock was synced and showed a plausible time, else the time of receipt (see time_source); UTC, us; never corrected later' CODEC(Delta, ZSTD(1)),
    time_source LowCardinality(String) COMMENT 'Where `at` comes from: DEVICE or RECEIVED',
    received_at DateTime64(6, 'UTC') COMMENT 'When the bridge received the report; UTC, us' CODEC(Delta, ZSTD(1)),
    model LowCardinality(String) COMMENT 'Device model as the report says; empty = not said',
    firmware LowCardinality(String) COMMENT 'Firmware as the report says; empty = not said',
    session_id String COMMENT 'Session the event belongs to, 32 hex digits; empty = outside a session' CODEC(ZSTD(1)),
    cycle_uid String COMMENT 'The cycle, unique for ever' CODEC(ZSTD(1)),
    kind LowCardinality(String) COMMENT 'CHEMICAL, BIOLOGICAL or BOWIE_DICK; empty = not said',
    lot LowCardinality(String) COMMENT 'Lot of the indicator; empty = not said',
    result LowCardinality(String) COMMENT 'NEGATIVE = pass, POSITIVE = fail, INVALID = not readable; empty = not said',
    read_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When it was read; UTC, us; NULL = not said' CODEC(Delta, ZSTD(1)),
    operator_id LowCardinality(String) COMMENT 'Pseudonym of the operator; empty = not said',
    kafka_offset UInt64 COMMENT 'Offset of the Kafka record it came from' CODEC(Delta, ZSTD(1)),
    ingest_day Date COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table' CODEC(ZSTD(1)),
    incarnation UInt32 COMMENT 'Incarnation of the Kafka topic, see kafka_topics' CODEC(ZSTD(1)),
    kafka_partition Int32 COMMENT 'Kafka partition it came from' CODEC(ZSTD(1)),
    batch UInt64 COMMENT 'First Kafka offset of the batch that wrote the row' CODEC(ZSTD(1)),
    gen UInt32 COMMENT 'Attempt of the batch; rises when a deduplication token is burned' CODEC(ZSTD(1)),
    batch_hash UInt64 COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch' CODEC(ZSTD(1)),
    flags UInt32 COMMENT 'Bits: 2 = fields this version does not know; 4 = the device''s clock said that it was synced and showed a time that cannot be true, see implausible_times; 256 = what scanners append (CR, LF, tab, space) was trimmed from the end of a text; 512 = a text with control characters, an id with other characters than A-Za-z0-9_-, or an overlong text of the context, kept as it came' CODEC(T64, LZ4)
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, site, device, boot_id, seq)
SETTINGS non_replicated_deduplication_window = 100000, remove_empty_parts = 0, old_parts_lifetime = 480
COMMENT 'Chemical and biological indicators, as they are read, perhaps days after the cycle';

-- Key: the event's identity. Few rows.
CREATE TABLE IF NOT EXISTS cycle_releases
(
    tenant LowCardinality(String) COMMENT 'Tenant, from the topic',
    site LowCardinality(String) COMMENT 'Site, from the topic at the time',
    device LowCardinality(String) COMMENT 'Device, from the topic',
    boot_id UInt64 COMMENT 'Boot of the device: high 32 bits its boot counter, low 32 bits random' CODEC(ZSTD(1)),
    seq UInt64 COMMENT 'Sequence number in the boot, from 1; (tenant, device, boot_id, seq) is the event''s identity' CODEC(Delta, ZSTD(1)),
    at DateTime64(6, 'UTC') COMMENT 'Device time if the clock was synced and showed a plausible time, else the time of receipt (see time_source); UTC, us; never corrected later' CODEC(Delta, ZSTD(1)),
    time_source LowCardinality(String) COMMENT 'Where `at` comes from: DEVICE or RECEIVED',
    received_at DateTime64(6, 'UTC') COMMENT 'When the bridge received the report; UTC, us' CODEC(Delta, ZSTD(1)),
    model LowCardinality(String) COMMENT 'Device model as the report says; empty = not said',
    firmware LowCardinality(String) COMMENT 'Firmware as the report says; empty = not said',
    session_id String COMMENT 'Session the event belongs to, 32 hex digits; empty = outside a session' CODEC(ZSTD(1)),
    cycle_uid String COMMENT 'The cycle, unique for ever' CODEC(ZSTD(1)),
    decision LowCardinality(String) COMMENT 'RELEASED or REJECTED; empty = not said',
    actor LowCardinality(String) COMMENT 'Pseudonym of the person; empty = not said',
    decided_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When it was decided; UTC, us; NULL = not said' CODEC(Delta, ZSTD(1)),
    kafka_offset UInt64 COMMENT 'Offset of the Kafka record it came from' CODEC(Delta, ZSTD(1)),
    ingest_day Date COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table' CODEC(ZSTD(1)),
    incarnation UInt32 COMMENT 'Incarnation of the Kafka topic, see kafka_topics' CODEC(ZSTD(1)),
    kafka_partition Int32 COMMENT 'Kafka partition it came from' CODEC(ZSTD(1)),
    batch UInt64 COMMENT 'First Kafka offset of the batch that wrote the row' CODEC(ZSTD(1)),
    gen UInt32 COMMENT 'Attempt of the batch; rises when a deduplication token is burned' CODEC(ZSTD(1)),
    batch_hash UInt64 COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch' CODEC(ZSTD(1)),
    flags UInt32 COMMENT 'Bits: 2 = fields this version does not know; 4 = the device''s clock said that it was synced and showed a time that cannot be true, see implausible_times; 256 = what scanners append (CR, LF, tab, space) was trimmed from the end of a text; 512 = a text with control characters, an id with other characters than A-Za-z0-9_-, or an overlong text of the context, kept as it came' CODEC(T64, LZ4)
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, site, device, boot_id, seq)
SETTINGS non_replicated_deduplication_window = 100000, remove_empty_parts = 0, old_parts_lifetime = 480
COMMENT 'Decisions to release a sterilized load or not';

-- One row a cycle with what came of it later: indicators and release.
CREATE OR REPLACE VIEW sterilizer_cycles
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    site LowCardinality(String) COMMENT 'Site',
    device LowCardinality(String) COMMENT 'The sterilizer',
    cycle_uid String COMMENT 'The cycle',
    cycle_no Nullable(UInt64) COMMENT 'The sterilizer''s own counter; NULL = not said',
    started_at DateTime64(6, 'UTC') COMMENT 'Start; UTC',
    recipe LowCardinality(String) COMMENT 'Recipe; empty = not said',
    purpose LowCardinality(String) COMMENT 'LOAD, BOWIE_DICK, LEAK or BI; empty = not said',
    load_dry Nullable(Bool) COMMENT 'Whether the load came out dry; NULL = not said',
    items UInt32 COMMENT 'Items in the chamber',
    samples UInt32 COMMENT 'Samples taken',
    duration_ms Nullable(UInt32) COMMENT 'Time of the last sample, ms from the start; NULL = no samples',
    temperature_max_mc Nullable(Int32) COMMENT 'Greatest temperature of any sensor, millidegrees Celsius; NULL = none',
    pressure_max_pa Nullable(UInt32) COMMENT 'Greatest absolute pressure, Pa; NULL = none',
    indicators_negative UInt64 COMMENT 'Indicators that passed',
    indicators_positive UInt64 COMMENT 'Indicators that failed',
    indicators_invalid UInt64 COMMENT 'Indicators that could not be read',
    decision String COMMENT 'Latest decision: RELEASED or REJECTED; empty = none yet',
    decided_by String COMMENT 'Pseudonym of the person; empty = none',
    decided_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When; UTC; NULL = not said or none yet'
)
AS WITH
    curves AS
    (
        SELECT
            tenant, site, device, boot_id, seq,
            max(offset_ms) AS duration_ms, max(temperature_mc) AS temperature_max_mc, max(pressure_pa) AS pressure_max_pa
        FROM sterilization_samples
        GROUP BY tenant, site, device, boot_id, seq
    ),
    readings AS
    (
        SELECT
            tenant, cycle_uid,
            countIf(result = 'NEGATIVE') AS negative, countIf(result = 'POSITIVE') AS positive, countIf(result = 'INVALID') AS invalid
        FROM cycle_indicators
        GROUP BY tenant, cycle_uid
    ),
    releases AS
    (
        SELECT
            tenant, cycle_uid,
            argMax((decision, actor, decided_at), (ifNull(decided_at, at), boot_id, seq)) AS latest
        FROM cycle_releases
        GROUP BY tenant, cycle_uid
    )
SELECT
    cycle.tenant AS tenant,
    cycle.site AS site,
    cycle.device AS device,
    cycle.cycle_uid AS cycle_uid,
    cycle.cycle_no AS cycle_no,
    cycle.at AS started_at,
    cycle.recipe AS recipe,
    cycle.purpose AS purpose,
    cycle.load_dry AS load_dry,
    cycle.items AS items,
    cycle.samples AS samples,
    if(cycle.samples = 0, NULL, curve.duration_ms) AS duration_ms,
    curve.temperature_max_mc AS temperature_max_mc,
    curve.pressure_max_pa AS pressure_max_pa,
    reading.negative AS indicators_negative,
    reading.positive AS indicators_positive,
    reading.invalid AS indicators_invalid,
    release.latest.1 AS decision,
    release.latest.2 AS decided_by,
    release.latest.3 AS decided_at
FROM sterilization_cycles AS cycle
LEFT JOIN curves AS curve ON curve.tenant = cycle.tenant AND curve.site = cycle.site AND curve.device = cycle.device
    AND curve.boot_id = cycle.boot_id AND curve.seq = cycle.seq
LEFT JOIN readings AS reading ON reading.tenant = cycle.tenant AND reading.cycle_uid = cycle.cycle_uid
LEFT JOIN releases AS release ON release.tenant = cycle.tenant AND release.cycle_uid = cycle.cycle_uid
SETTINGS join_use_nulls = 0
COMMENT 'Sterilization cycles with their indicators and release; without a verdict';
