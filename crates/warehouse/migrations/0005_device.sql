-- Calibrations, faults and signs of life.

-- Key: the event's identity (of the bench) and the point's number. Few rows.
CREATE TABLE IF NOT EXISTS calibrations
(
    tenant LowCardinality(String) COMMENT 'Tenant, from the topic',
    site LowCardinality(String) COMMENT 'Site, from the topic at the time',
    device LowCardinality(String) COMMENT 'Device, from the topic',
    boot_id UInt64 COMMENT 'Boot of the device: high 32 bits its boot counter, low 32 bits random' CODEC(ZSTD(1)),
    seq UInt64 COMMENT 'Sequence number in the boot, from 1; (tenant, device, boot_id, seq) is the event''s identity' CODEC(Delta, ZSTD(1)),
    at DateTime64(6, 'UTC') COMMENT 'Device time if the clock was synced, else the time of receipt (see time_source); UTC, us; never corrected later' CODEC(Delta, ZSTD(1)),
    time_source LowCardinality(String) COMMENT 'Where `at` comes from: DEVICE or RECEIVED',
    received_at DateTime64(6, 'UTC') COMMENT 'When the bridge received the report; UTC, us' CODEC(Delta, ZSTD(1)),
    model LowCardinality(String) COMMENT 'Device model as the report says; empty = not said',
    firmware LowCardinality(String) COMMENT 'Firmware as the report says; empty = not said',
    session_id String COMMENT 'Visit the event belongs to, 32 hex digits; empty = outside a session' CODEC(ZSTD(1)),
    `index` UInt32 COMMENT 'Number of the point, from 0' CODEC(T64, ZSTD(1)),
    points UInt32 COMMENT 'Points of the calibration; 0 = none was said, and the row stands for the calibration alone' CODEC(T64, ZSTD(1)),
    subject_device LowCardinality(String) COMMENT 'Device that was calibrated',
    channel LowCardinality(String) COMMENT 'DOSE (values in nl) or DEPTH (values in um); empty = not said',
    calibration_id LowCardinality(String) COMMENT 'The calibration, as in injections.dose_calibration_id or depth_calibration_id',
    performed_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When it was performed; UTC, us; NULL = not said' CODEC(Delta, ZSTD(1)),
    due_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When the next one is due; UTC, us; NULL = not said' CODEC(Delta, ZSTD(1)),
    certificate String COMMENT 'Certificate; empty = not said' CODEC(ZSTD(1)),
    operator_id LowCardinality(String) COMMENT 'Pseudonym of the operator; empty = not said',
    target Nullable(Int64) COMMENT 'Set point, nl or um by channel; NULL = not said' CODEC(T64, ZSTD(1)),
    reference Nullable(Int64) COMMENT 'What the reference showed, nl or um by channel; NULL = not said' CODEC(T64, ZSTD(1)),
    indicated Nullable(Int64) COMMENT 'What the device showed, nl or um by channel; NULL = not said' CODEC(T64, ZSTD(1)),
    phase LowCardinality(String) COMMENT 'AS_FOUND or AS_LEFT; empty = not said',
    expanded_uncertainty Nullable(UInt64) COMMENT 'Expanded uncertainty of the reference, thousandths of nl or um; NULL = not said' CODEC(T64, ZSTD(1)),
    k Nullable(UInt32) COMMENT 'Coverage factor of the uncertainty, thousandths; NULL = not said' CODEC(T64, ZSTD(1)),
    kafka_offset UInt64 COMMENT 'Offset of the Kafka record it came from' CODEC(Delta, ZSTD(1)),
    ingest_day Date COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table' CODEC(ZSTD(1)),
    incarnation UInt32 COMMENT 'Life of the Kafka topic, see kafka_topics' CODEC(ZSTD(1)),
    kafka_partition Int32 COMMENT 'Kafka partition it came from' CODEC(ZSTD(1)),
    batch UInt64 COMMENT 'First Kafka offset of the batch that wrote the row' CODEC(ZSTD(1)),
    gen UInt32 COMMENT 'Attempt of the batch; rises when a deduplication token is burned' CODEC(ZSTD(1)),
    batch_hash UInt64 COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch' CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, site, device, boot_id, seq, index)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Calibrations, one row for each point';

-- Key: the event's identity. Few rows.
CREATE TABLE IF NOT EXISTS faults
(
    tenant LowCardinality(String) COMMENT 'Tenant, from the topic',
    site LowCardinality(String) COMMENT 'Site, from the topic at the time',
    device LowCardinality(String) COMMENT 'Device, from the topic',
    boot_id UInt64 COMMENT 'Boot of the device: high 32 bits its boot counter, low 32 bits random' CODEC(ZSTD(1)),
    seq UInt64 COMMENT 'Sequence number in the boot, from 1; (tenant, device, boot_id, seq) is the event''s identity' CODEC(Delta, ZSTD(1)),
    at DateTime64(6, 'UTC') COMMENT 'Device time if the clock was synced, else the time of receipt (see time_source); UTC, us; never corrected later' CODEC(Delta, ZSTD(1)),
    time_source LowCardinality(String) COMMENT 'Where `at` comes from: DEVICE or RECEIVED',
    received_at DateTime64(6, 'UTC') COMMENT 'When the bridge received the report; UTC, us' CODEC(Delta, ZSTD(1)),
    model LowCardinality(String) COMMENT 'Device model as the report says; empty = not said',
    firmware LowCardinality(String) COMMENT 'Firmware as the report says; empty = not said',
    session_id String COMMENT 'Visit the event belongs to, 32 hex digits; empty = outside a session' CODEC(ZSTD(1)),
    code LowCardinality(String) COMMENT 'The maker''s code',
    state LowCardinality(String) COMMENT 'RAISED or CLEARED; empty = not said',
    detail String COMMENT 'Free text' CODEC(ZSTD(1)),
    kafka_offset UInt64 COMMENT 'Offset of the Kafka record it came from' CODEC(Delta, ZSTD(1)),
    ingest_day Date COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table' CODEC(ZSTD(1)),
    incarnation UInt32 COMMENT 'Life of the Kafka topic, see kafka_topics' CODEC(ZSTD(1)),
    kafka_partition Int32 COMMENT 'Kafka partition it came from' CODEC(ZSTD(1)),
    batch UInt64 COMMENT 'First Kafka offset of the batch that wrote the row' CODEC(ZSTD(1)),
    gen UInt32 COMMENT 'Attempt of the batch; rises when a deduplication token is burned' CODEC(ZSTD(1)),
    batch_hash UInt64 COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch' CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, site, device, boot_id, seq)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Faults raised and cleared by devices';

-- Key: device, then boot and time: the latest state of a device, and what it says it made in each boot.
-- Heartbeats outside the sequence and status messages have seq 0.
CREATE TABLE IF NOT EXISTS device_status
(
    tenant LowCardinality(String) COMMENT 'Tenant, from the topic',
    site LowCardinality(String) COMMENT 'Site, from the topic at the time',
    device LowCardinality(String) COMMENT 'Device, from the topic',
    boot_id UInt64 COMMENT 'Boot of the device: high 32 bits its boot counter, low 32 bits random' CODEC(ZSTD(1)),
    seq UInt64 COMMENT 'Sequence number in the boot, from 1; (tenant, device, boot_id, seq) is the event''s identity' CODEC(Delta, ZSTD(1)),
    at DateTime64(6, 'UTC') COMMENT 'Device time if the clock was synced, else the time of receipt (see time_source); UTC, us; never corrected later' CODEC(Delta, ZSTD(1)),
    time_source LowCardinality(String) COMMENT 'Where `at` comes from: DEVICE or RECEIVED',
    received_at DateTime64(6, 'UTC') COMMENT 'When the bridge received the report; UTC, us' CODEC(Delta, ZSTD(1)),
    model LowCardinality(String) COMMENT 'Device model as the report says; empty = not said',
    firmware LowCardinality(String) COMMENT 'Firmware as the report says; empty = not said',
    session_id String COMMENT 'Visit the event belongs to, 32 hex digits; empty = outside a session' CODEC(ZSTD(1)),
    source LowCardinality(String) COMMENT 'HEARTBEAT (in a report) or STATUS (retained message, also the last will)',
    state LowCardinality(String) COMMENT 'STATUS: ONLINE, SLEEPING, OFF or LOST; empty = not said',
    since Nullable(DateTime64(6, 'UTC')) COMMENT 'STATUS: since when the state holds, by the device''s clock; UTC, us; NULL = not said' CODEC(Delta, ZSTD(1)),
    battery_pct Nullable(UInt32) COMMENT 'Battery, percent; NULL = not said' CODEC(T64, ZSTD(1)),
    temperature_mc Nullable(Int32) COMMENT 'Temperature of the device, millidegrees Celsius; NULL = not said' CODEC(T64, ZSTD(1)),
    outbox_events Nullable(UInt64) COMMENT 'Events in the device''s outbox; NULL = not said' CODEC(T64, ZSTD(1)),
    oldest_unreceipted_s Nullable(UInt32) COMMENT 'Age of the oldest event without a receipt, s; NULL = not said' CODEC(T64, ZSTD(1)),
    injection_no Nullable(UInt64) COMMENT 'Last lifetime injection number; NULL = not said' CODEC(Delta, ZSTD(1)),
    last_boot_id Nullable(UInt64) COMMENT 'Boot that last_seq belongs to; NULL = not said' CODEC(ZSTD(1)),
    last_seq Nullable(UInt64) COMMENT 'Last sequence number the device says it made in last_boot_id; NULL = not said' CODEC(Delta, ZSTD(1)),
    kafka_offset UInt64 COMMENT 'Offset of the Kafka record it came from' CODEC(Delta, ZSTD(1)),
    ingest_day Date COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table' CODEC(ZSTD(1)),
    incarnation UInt32 COMMENT 'Life of the Kafka topic, see kafka_topics' CODEC(ZSTD(1)),
    kafka_partition Int32 COMMENT 'Kafka partition it came from' CODEC(ZSTD(1)),
    batch UInt64 COMMENT 'First Kafka offset of the batch that wrote the row' CODEC(ZSTD(1)),
    gen UInt32 COMMENT 'Attempt of the batch; rises when a deduplication token is burned' CODEC(ZSTD(1)),
    batch_hash UInt64 COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch' CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, site, device, boot_id, received_at, seq)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Heartbeats and status messages, one row each';
