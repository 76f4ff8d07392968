-- Calibrations, faults and signs of life.

-- Key: the event's identity (of the bench) and the point's number. Few rows.
CREATE TABLE IF NOT EXISTS calibrations
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
    `index` UInt32 CODEC(T64, ZSTD(1)) COMMENT 'Number of the point, from 0',
    points UInt32 CODEC(T64, ZSTD(1)) COMMENT 'Points of the calibration; 0 = none was said, and the row stands for the calibration alone',
    subject_device LowCardinality(String) COMMENT 'Device that was calibrated',
    channel LowCardinality(String) COMMENT 'DOSE (values in nl) or DEPTH (values in um); empty = not said',
    calibration_id LowCardinality(String) COMMENT 'The calibration, as in injections.dose_calibration_id or depth_calibration_id',
    performed_at Nullable(DateTime64(6, 'UTC')) CODEC(Delta, ZSTD(1)) COMMENT 'When it was performed; UTC, us; NULL = not said',
    due_at Nullable(DateTime64(6, 'UTC')) CODEC(Delta, ZSTD(1)) COMMENT 'When the next one is due; UTC, us; NULL = not said',
    certificate String CODEC(ZSTD(1)) COMMENT 'Certificate; empty = not said',
    operator_id LowCardinality(String) COMMENT 'Pseudonym of the operator; empty = not said',
    target Nullable(Int64) CODEC(T64, ZSTD(1)) COMMENT 'Set point, nl or um by channel; NULL = not said',
    reference Nullable(Int64) CODEC(T64, ZSTD(1)) COMMENT 'What the reference showed, nl or um by channel; NULL = not said',
    indicated Nullable(Int64) CODEC(T64, ZSTD(1)) COMMENT 'What the device showed, nl or um by channel; NULL = not said',
    phase LowCardinality(String) COMMENT 'AS_FOUND or AS_LEFT; empty = not said',
    expanded_uncertainty Nullable(UInt64) CODEC(T64, ZSTD(1)) COMMENT 'Expanded uncertainty of the reference, thousandths of nl or um; NULL = not said',
    k Nullable(UInt32) CODEC(T64, ZSTD(1)) COMMENT 'Coverage factor of the uncertainty, thousandths; NULL = not said',
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
COMMENT 'Calibrations, one row for each point';

-- Key: the event's identity. Few rows.
CREATE TABLE IF NOT EXISTS faults
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
    code LowCardinality(String) COMMENT 'The maker''s code',
    state LowCardinality(String) COMMENT 'RAISED or CLEARED; empty = not said',
    detail String CODEC(ZSTD(1)) COMMENT 'Free text',
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
COMMENT 'Faults raised and cleared by devices';

-- Key: device, then boot and time: the latest state of a device, and what it says it made in each boot.
-- Heartbeats outside the sequence and status messages have seq 0.
CREATE TABLE IF NOT EXISTS device_status
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
    source LowCardinality(String) COMMENT 'HEARTBEAT (in a report) or STATUS (retained message, also the last will)',
    state LowCardinality(String) COMMENT 'STATUS: ONLINE, SLEEPING, OFF or LOST; empty = not said',
    since Nullable(DateTime64(6, 'UTC')) CODEC(Delta, ZSTD(1)) COMMENT 'STATUS: since when the state holds, by the device''s clock; UTC, us; NULL = not said',
    battery_pct Nullable(UInt32) CODEC(T64, ZSTD(1)) COMMENT 'Battery, percent; NULL = not said',
    temperature_mc Nullable(Int32) CODEC(T64, ZSTD(1)) COMMENT 'Temperature of the device, millidegrees Celsius; NULL = not said',
    outbox_events Nullable(UInt64) CODEC(T64, ZSTD(1)) COMMENT 'Events in the device''s outbox; NULL = not said',
    oldest_unreceipted_s Nullable(UInt32) CODEC(T64, ZSTD(1)) COMMENT 'Age of the oldest event without a receipt, s; NULL = not said',
    injection_no Nullable(UInt64) CODEC(Delta, ZSTD(1)) COMMENT 'Last lifetime injection number; NULL = not said',
    last_boot_id Nullable(UInt64) CODEC(ZSTD(1)) COMMENT 'Boot that last_seq belongs to; NULL = not said',
    last_seq Nullable(UInt64) CODEC(Delta, ZSTD(1)) COMMENT 'Last sequence number the device says it made in last_boot_id; NULL = not said',
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
ORDER BY (tenant, site, device, boot_id, received_at, seq)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Heartbeats and status messages, one row each';
