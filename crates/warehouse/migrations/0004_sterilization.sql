-- Sterilizers: cycles and what came of them.

-- Key: the event's identity. A few rows a day and sterilizer.
CREATE TABLE IF NOT EXISTS sterilization_cycles
(
    tenant LowCardinality(String) COMMENT 'Tenant, from the topic',
    site LowCardinality(String) COMMENT 'Site, from the topic at the time',
    device LowCardinality(String) COMMENT 'Device, from the topic',
    boot_id UInt64 CODEC(ZSTD(1)) COMMENT 'Boot of the device: high 32 bits its boot counter, low 32 bits random',
    seq UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'Sequence number in the boot, from 1; (tenant, device, boot_id, seq) is the event''s identity',
    at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Device time if the clock was synced, else the time of receipt (see time_source); UTC, us; never corrected later',
    time_source LowCardinality(String) COMMENT 'Where `at` comes from: DEVICE or RECEIVED',
    received_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'When the bridge received the report; UTC, us',
    model LowCardinality(String) COMMENT 'Device model as the report says; empty = not said',
    firmware LowCardinality(String) COMMENT 'Firmware as the report says; empty = not said',
    session_id String CODEC(ZSTD(1)) COMMENT 'Visit the event belongs to, 32 hex digits; empty = outside a session',
    cycle_uid String CODEC(ZSTD(1)) COMMENT 'The cycle, unique for ever',
    cycle_no Nullable(UInt64) CODEC(T64, ZSTD(1)) COMMENT 'The sterilizer''s own counter, which may reset; NULL = not said',
    recipe LowCardinality(String) COMMENT 'Recipe, see recipes; empty = not said',
    purpose LowCardinality(String) COMMENT 'LOAD, BOWIE_DICK, LEAK or BI; empty = not said',
    load_dry Nullable(Bool) COMMENT 'Whether the load came out dry; NULL = not said',
    items UInt32 CODEC(T64, ZSTD(1)) COMMENT 'Items reported, see sterilization_items',
    samples UInt32 CODEC(T64, ZSTD(1)) COMMENT 'Samples reported, see sterilization_samples',
    kafka_offset UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'Offset of the Kafka record it came from',
    ingest_day Date CODEC(ZSTD(1)) COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table',
    incarnation UInt32 CODEC(ZSTD(1)) COMMENT 'Life of the Kafka topic, see kafka_topics',
    kafka_partition Int32 CODEC(ZSTD(1)) COMMENT 'Kafka partition it came from',
    batch UInt64 CODEC(ZSTD(1)) COMMENT 'First Kafka offset of the batch that wrote the row',
    gen UInt32 CODEC(ZSTD(1)) COMMENT 'Attempt of the batch; rises when a deduplication token is burned',
    batch_hash UInt64 CODEC(ZSTD(1)) COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch'
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, site, device, boot_id, seq)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Sterilization cycles; `at` is the start of the cycle';

-- Key: the event's identity and the sample's number: a cycle's curve is read whole and in order.
-- The largest table of a sterilizer: offsets ascend evenly (DoubleDelta), temperature and pressure change slowly (Delta).
CREATE TABLE IF NOT EXISTS sterilization_samples
(
    tenant LowCardinality(String) COMMENT 'Tenant, from the topic',
    site LowCardinality(String) COMMENT 'Site, from the topic at the time',
    device LowCardinality(String) COMMENT 'Device, from the topic',
    boot_id UInt64 CODEC(ZSTD(1)) COMMENT 'Boot of the device: high 32 bits its boot counter, low 32 bits random',
    seq UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'Sequence number in the boot, from 1; (tenant, device, boot_id, seq) is the event''s identity',
    at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Device time if the clock was synced, else the time of receipt (see time_source); UTC, us; never corrected later',
    time_source LowCardinality(String) COMMENT 'Where `at` comes from: DEVICE or RECEIVED',
    received_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'When the bridge received the report; UTC, us',
    model LowCardinality(String) COMMENT 'Device model as the report says; empty = not said',
    firmware LowCardinality(String) COMMENT 'Firmware as the report says; empty = not said',
    session_id String CODEC(ZSTD(1)) COMMENT 'Visit the event belongs to, 32 hex digits; empty = outside a session',
    `index` UInt32 CODEC(T64, ZSTD(1)) COMMENT 'Number of the sample in the cycle, from 0',
    cycle_uid String CODEC(ZSTD(1)) COMMENT 'The cycle, unique for ever',
    offset_ms UInt32 CODEC(DoubleDelta, ZSTD(1)) COMMENT 'Time from the start of the cycle (`at`), ms',
    sensor UInt32 CODEC(T64, ZSTD(1)) COMMENT 'Number of the sensor, from 0',
    temperature_mc Nullable(Int32) CODEC(Delta, ZSTD(1)) COMMENT 'Temperature, millidegrees Celsius; NULL = not said',
    pressure_pa Nullable(UInt32) CODEC(Delta, ZSTD(1)) COMMENT 'Absolute pressure, Pa; NULL = not said',
    kafka_offset UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'Offset of the Kafka record it came from',
    ingest_day Date CODEC(ZSTD(1)) COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table',
    incarnation UInt32 CODEC(ZSTD(1)) COMMENT 'Life of the Kafka topic, see kafka_topics',
    kafka_partition Int32 CODEC(ZSTD(1)) COMMENT 'Kafka partition it came from',
    batch UInt64 CODEC(ZSTD(1)) COMMENT 'First Kafka offset of the batch that wrote the row',
    gen UInt32 CODEC(ZSTD(1)) COMMENT 'Attempt of the batch; rises when a deduplication token is burned',
    batch_hash UInt64 CODEC(ZSTD(1)) COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch'
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, site, device, boot_id, seq, index)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Temperature and pressure of sterilization cycles, one row for each sample';

-- Key: the event's identity and the item's number; an item is followed through its life by the bloom filter.
CREATE TABLE IF NOT EXISTS sterilization_items
(
    tenant LowCardinality(String) COMMENT 'Tenant, from the topic',
    site LowCardinality(String) COMMENT 'Site, from the topic at the time',
    device LowCardinality(String) COMMENT 'Device, from the topic',
    boot_id UInt64 CODEC(ZSTD(1)) COMMENT 'Boot of the device: high 32 bits its boot counter, low 32 bits random',
    seq UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'Sequence number in the boot, from 1; (tenant, device, boot_id, seq) is the event''s identity',
    at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Device time if the clock was synced, else the time of receipt (see time_source); UTC, us; never corrected later',
    time_source LowCardinality(String) COMMENT 'Where `at` comes from: DEVICE or RECEIVED',
    received_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'When the bridge received the report; UTC, us',
    model LowCardinality(String) COMMENT 'Device model as the report says; empty = not said',
    firmware LowCardinality(String) COMMENT 'Firmware as the report says; empty = not said',
    session_id String CODEC(ZSTD(1)) COMMENT 'Visit the event belongs to, 32 hex digits; empty = outside a session',
    `index` UInt32 CODEC(T64, ZSTD(1)) COMMENT 'Number of the item in the cycle, from 0',
    cycle_uid String CODEC(ZSTD(1)) COMMENT 'The cycle, unique for ever',
    item_id String CODEC(ZSTD(1)) COMMENT 'The item',
    pack_id String CODEC(ZSTD(1)) COMMENT 'Pack it was in; empty = not said',
    kafka_offset UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'Offset of the Kafka record it came from',
    ingest_day Date CODEC(ZSTD(1)) COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table',
    incarnation UInt32 CODEC(ZSTD(1)) COMMENT 'Life of the Kafka topic, see kafka_topics',
    kafka_partition Int32 CODEC(ZSTD(1)) COMMENT 'Kafka partition it came from',
    batch UInt64 CODEC(ZSTD(1)) COMMENT 'First Kafka offset of the batch that wrote the row',
    gen UInt32 CODEC(ZSTD(1)) COMMENT 'Attempt of the batch; rises when a deduplication token is burned',
    batch_hash UInt64 CODEC(ZSTD(1)) COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch',
    INDEX item item_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, site, device, boot_id, seq, index)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'What was in the chamber, one row for each item';

-- Key: the event's identity. Few rows.
CREATE TABLE IF NOT EXISTS cycle_indicators
(
    tenant LowCardinality(String) COMMENT 'Tenant, from the topic',
    site LowCardinality(String) COMMENT 'Site, from the topic at the time',
    device LowCardinality(String) COMMENT 'Device, from the topic',
    boot_id UInt64 CODEC(ZSTD(1)) COMMENT 'Boot of the device: high 32 bits its boot counter, low 32 bits random',
    seq UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'Sequence number in the boot, from 1; (tenant, device, boot_id, seq) is the event''s identity',
    at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Device time if the clock was synced, else the time of receipt (see time_source); UTC, us; never corrected later',
    time_source LowCardinality(String) COMMENT 'Where `at` comes from: DEVICE or RECEIVED',
    received_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'When the bridge received the report; UTC, us',
    model LowCardinality(String) COMMENT 'Device model as the report says; empty = not said',
    firmware LowCardinality(String) COMMENT 'Firmware as the report says; empty = not said',
    session_id String CODEC(ZSTD(1)) COMMENT 'Visit the event belongs to, 32 hex digits; empty = outside a session',
    cycle_uid String CODEC(ZSTD(1)) COMMENT 'The cycle, unique for ever',
    kind LowCardinality(String) COMMENT 'CHEMICAL, BIOLOGICAL or BOWIE_DICK; empty = not said',
    lot LowCardinality(String) COMMENT 'Lot of the indicator; empty = not said',
    result LowCardinality(String) COMMENT 'NEGATIVE = pass, POSITIVE = fail, INVALID = not readable; empty = not said',
    read_at Nullable(DateTime64(6, 'UTC')) CODEC(Delta, ZSTD(1)) COMMENT 'When it was read; UTC, us; NULL = not said',
    operator_id LowCardinality(String) COMMENT 'Pseudonym of the operator; empty = not said',
    kafka_offset UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'Offset of the Kafka record it came from',
    ingest_day Date CODEC(ZSTD(1)) COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table',
    incarnation UInt32 CODEC(ZSTD(1)) COMMENT 'Life of the Kafka topic, see kafka_topics',
    kafka_partition Int32 CODEC(ZSTD(1)) COMMENT 'Kafka partition it came from',
    batch UInt64 CODEC(ZSTD(1)) COMMENT 'First Kafka offset of the batch that wrote the row',
    gen UInt32 CODEC(ZSTD(1)) COMMENT 'Attempt of the batch; rises when a deduplication token is burned',
    batch_hash UInt64 CODEC(ZSTD(1)) COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch'
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, site, device, boot_id, seq)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Chemical and biological indicators, as they are read, perhaps days after the cycle';

-- Key: the event's identity. Few rows.
CREATE TABLE IF NOT EXISTS cycle_releases
(
    tenant LowCardinality(String) COMMENT 'Tenant, from the topic',
    site LowCardinality(String) COMMENT 'Site, from the topic at the time',
    device LowCardinality(String) COMMENT 'Device, from the topic',
    boot_id UInt64 CODEC(ZSTD(1)) COMMENT 'Boot of the device: high 32 bits its boot counter, low 32 bits random',
    seq UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'Sequence number in the boot, from 1; (tenant, device, boot_id, seq) is the event''s identity',
    at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Device time if the clock was synced, else the time of receipt (see time_source); UTC, us; never corrected later',
    time_source LowCardinality(String) COMMENT 'Where `at` comes from: DEVICE or RECEIVED',
    received_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'When the bridge received the report; UTC, us',
    model LowCardinality(String) COMMENT 'Device model as the report says; empty = not said',
    firmware LowCardinality(String) COMMENT 'Firmware as the report says; empty = not said',
    session_id String CODEC(ZSTD(1)) COMMENT 'Visit the event belongs to, 32 hex digits; empty = outside a session',
    cycle_uid String CODEC(ZSTD(1)) COMMENT 'The cycle, unique for ever',
    decision LowCardinality(String) COMMENT 'RELEASED or REJECTED; empty = not said',
    actor LowCardinality(String) COMMENT 'Pseudonym of the person; empty = not said',
    decided_at Nullable(DateTime64(6, 'UTC')) CODEC(Delta, ZSTD(1)) COMMENT 'When it was decided; UTC, us; NULL = not said',
    kafka_offset UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'Offset of the Kafka record it came from',
    ingest_day Date CODEC(ZSTD(1)) COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table',
    incarnation UInt32 CODEC(ZSTD(1)) COMMENT 'Life of the Kafka topic, see kafka_topics',
    kafka_partition Int32 CODEC(ZSTD(1)) COMMENT 'Kafka partition it came from',
    batch UInt64 CODEC(ZSTD(1)) COMMENT 'First Kafka offset of the batch that wrote the row',
    gen UInt32 CODEC(ZSTD(1)) COMMENT 'Attempt of the batch; rises when a deduplication token is burned',
    batch_hash UInt64 CODEC(ZSTD(1)) COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch'
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, site, device, boot_id, seq)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Decisions to release a sterilized load or not';
