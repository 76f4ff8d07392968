-- Calibrations, faults and signs of life.

-- Key: the event's identity (of the bench) and the point's number. Few rows.
CREATE TABLE IF NOT EXISTS calibrations
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
COMMENT 'Calibrations, one row for each point';

-- The latest calibration of each device and channel, by the time it was performed. An injector that
-- was never calibrated shows too.
CREATE OR REPLACE VIEW calibrations_due
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    device LowCardinality(String) COMMENT 'Device',
    channel String COMMENT 'DOSE or DEPTH',
    calibration_id String COMMENT 'Latest calibration; empty = never calibrated',
    performed_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When it was performed; UTC; NULL = never, or not said',
    due_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When the next one is due; UTC; NULL = not said',
    days_left Nullable(Int64) COMMENT 'Days until it is due, negative when overdue; NULL = not known',
    state String COMMENT 'OVERDUE, DUE (within 30 days), OK, UNKNOWN (no due date said) or NEVER'
)
AS SELECT
    tenant,
    device,
    channel,
    argMax(row.calibration_id, row.rank) AS calibration_id,
    argMax(tuple(row.performed_at), row.rank).1 AS performed_at,
    argMax(tuple(row.due_at), row.rank).1 AS due_at,
    dateDiff('day', now64(6, 'UTC'), due_at) AS days_left,
    multiIf(calibration_id = '', 'NEVER', due_at IS NULL, 'UNKNOWN', due_at < now64(6, 'UTC'), 'OVERDUE', days_left <= 30, 'DUE', 'OK') AS state
FROM
(
    SELECT
        tenant, toString(subject_device) AS device, toString(channel) AS channel, toString(calibration_id) AS calibration_id,
        performed_at, due_at, (ifNull(performed_at, at), at, seq) AS rank
    FROM calibrations
    UNION ALL
    SELECT
        tenant, device, arrayJoin(['DOSE', 'DEPTH']), '', NULL, NULL,
        (toDateTime64(0, 6, 'UTC'), toDateTime64(0, 6, 'UTC'), toUInt64(0))
    FROM devices_latest
    WHERE kind = 'INJECTOR'
) AS row
GROUP BY tenant, device, channel
COMMENT 'When each device and channel is due for calibration';

-- Key: the event's identity. Few rows.
CREATE TABLE IF NOT EXISTS faults
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
    code LowCardinality(String) COMMENT 'The maker''s code',
    state LowCardinality(String) COMMENT 'RAISED or CLEARED; empty = not said',
    detail String COMMENT 'Free text' CODEC(ZSTD(1)),
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
COMMENT 'Faults raised and cleared by devices';

-- Key: device, then boot and time: the latest state of a device, and what it says it made in each
-- boot. Heartbeats outside the sequence and status messages have seq 0. The projections keep what
-- is asked for most: one row for each device, for each boot and for each number said, in each part,
-- instead of one for each heartbeat. The engine writes, moves and deletes them with the rows they
-- sum up.
CREATE TABLE IF NOT EXISTS device_status
(
    tenant LowCardinality(String) COMMENT 'Tenant, from the topic',
    site LowCardinality(String) COMMENT 'Site, from the topic at the time',
    device LowCardinality(String) COMMENT 'Device, from the topic',
    boot_id UInt64 COMMENT 'Boot of the device: high 32 bits its boot counter, low 32 bits random' CODEC(LZ4),
    seq UInt64 COMMENT 'Sequence number in the boot, from 1; (tenant, device, boot_id, seq) is the event''s identity' CODEC(Delta, LZ4),
    at DateTime64(6, 'UTC') COMMENT 'Device time if the clock was synced and showed a plausible time, else the time of receipt (see time_source); UTC, us; never corrected later' CODEC(Delta, LZ4),
    time_source LowCardinality(String) COMMENT 'Where `at` comes from: DEVICE or RECEIVED',
    received_at DateTime64(6, 'UTC') COMMENT 'When the bridge received the report; UTC, us' CODEC(Delta, LZ4),
    model LowCardinality(String) COMMENT 'Device model as the report says; empty = not said',
    firmware LowCardinality(String) COMMENT 'Firmware as the report says; empty = not said',
    session_id String COMMENT 'Session the event belongs to, 32 hex digits; empty = outside a session' CODEC(LZ4),
    source LowCardinality(String) COMMENT 'HEARTBEAT (in a report) or STATUS (retained message, also the last will)',
    state LowCardinality(String) COMMENT 'STATUS: ONLINE, SLEEPING, OFF or LOST; empty = not said',
    since Nullable(DateTime64(6, 'UTC')) COMMENT 'STATUS: since when the state holds, by the device''s clock; UTC, us; NULL = not said' CODEC(Delta, LZ4),
    battery_pct Nullable(UInt32) COMMENT 'Battery, percent; NULL = not said' CODEC(T64, LZ4),
    temperature_mc Nullable(Int32) COMMENT 'Temperature of the device, millidegrees Celsius; NULL = not said' CODEC(T64, LZ4),
    outbox_events Nullable(UInt64) COMMENT 'Events in the device''s outbox; NULL = not said' CODEC(T64, LZ4),
    oldest_unreceipted_s Nullable(UInt32) COMMENT 'Age of the oldest event without a receipt, s; NULL = not said' CODEC(T64, LZ4),
    injection_no Nullable(UInt64) COMMENT 'Last lifetime injection number; NULL = not said' CODEC(Delta, LZ4),
    last_boot_id Nullable(UInt64) COMMENT 'Boot that last_seq belongs to; NULL = not said' CODEC(LZ4),
    last_seq Nullable(UInt64) COMMENT 'Last sequence number the device says it made in last_boot_id; NULL = not said' CODEC(Delta, LZ4),
    kafka_offset UInt64 COMMENT 'Offset of the Kafka record it came from' CODEC(Delta, LZ4),
    ingest_day Date COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table' CODEC(LZ4),
    incarnation UInt32 COMMENT 'Incarnation of the Kafka topic, see kafka_topics' CODEC(LZ4),
    kafka_partition Int32 COMMENT 'Kafka partition it came from' CODEC(LZ4),
    batch UInt64 COMMENT 'First Kafka offset of the batch that wrote the row' CODEC(LZ4),
    gen UInt32 COMMENT 'Attempt of the batch; rises when a deduplication token is burned' CODEC(LZ4),
    batch_hash UInt64 COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch' CODEC(LZ4),
    flags UInt32 COMMENT 'Bits: 2 = fields this version does not know; 4 = the device''s clock said that it was synced and showed a time that cannot be true, see implausible_times; 256 = what scanners append (CR, LF, tab, space) was trimmed from the end of a text; 512 = a text with control characters, an id with other characters than A-Za-z0-9_-, or an overlong text of the context, kept as it came' CODEC(T64, LZ4),
    PROJECTION latest
    (
        SELECT
            tenant, device,
            argMax(site, received_at),
            argMax(model, received_at),
            argMaxIf(firmware, received_at, firmware != ''),
            argMaxIf(state, received_at, state != ''),
            argMaxIf(tuple(since), received_at, state != ''),
            argMax(battery_pct, received_at),
            argMax(temperature_mc, received_at),
            argMax(outbox_events, received_at),
            argMax(oldest_unreceipted_s, received_at),
            argMax(injection_no, received_at),
            maxIf(received_at, state != 'LOST'),
            max(injection_no),
            maxIf(received_at, injection_no IS NOT NULL)
        GROUP BY tenant, device
    ),
    PROJECTION boots
    (
        SELECT
            tenant, device, last_boot_id,
            argMaxIf(site, received_at, last_seq > 0),
            max(last_seq)
        GROUP BY tenant, device, last_boot_id
    ),
    PROJECTION said
    (
        SELECT
            tenant, device, last_boot_id, last_seq,
            min(received_at)
        GROUP BY tenant, device, last_boot_id, last_seq
    )
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, site, device, boot_id, received_at, seq)
SETTINGS non_replicated_deduplication_window = 100000, remove_empty_parts = 0, old_parts_lifetime = 480,
         merge_selector_base = 10, auto_statistics_types = ''
COMMENT 'Heartbeats and status messages, one row each';

-- Key: the identity of the event that told the time. A device's time is a claim that the loader
-- holds against the time of receipt (`[device_time]` of the configuration). No rows as long as
-- clocks are right; one for each event of a clock that is wrong. It keeps what the other tables do
-- not take over: `at` is then the time of receipt, another time NULL.
CREATE TABLE IF NOT EXISTS implausible_times
(
    tenant LowCardinality(String) COMMENT 'Tenant, from the topic',
    site LowCardinality(String) COMMENT 'Site, from the topic at the time',
    device LowCardinality(String) COMMENT 'Device, from the topic',
    model LowCardinality(String) COMMENT 'Device model as the report says; empty = not said',
    firmware LowCardinality(String) COMMENT 'Firmware as the report says; empty = not said',
    boot_id UInt64 COMMENT 'Boot of the device: high 32 bits its boot counter, low 32 bits random; 0 = a status without one' CODEC(ZSTD(1)),
    seq UInt64 COMMENT 'Sequence number of the event in the boot; 0 = outside the sequence, or a status' CODEC(Delta, ZSTD(1)),
    received_at DateTime64(6, 'UTC') COMMENT 'When the bridge received the message; UTC, us' CODEC(Delta, ZSTD(1)),
    field LowCardinality(String) COMMENT 'Field of the contract that told the time; base_unix_us = the time of the event itself',
    claim_us Int64 COMMENT 'What it told, us since 1970; for base_unix_us the base and the offset of the event together' CODEC(Delta, ZSTD(1)),
    doubt LowCardinality(String) COMMENT 'Why it cannot be true: ABSENT = 0; BEFORE_FLEET = before the earliest year; TOO_OLD = longer before its receipt than an outbox holds events; AHEAD = after its receipt',
    kafka_offset UInt64 COMMENT 'Offset of the Kafka record it came from' CODEC(Delta, ZSTD(1)),
    ingest_day Date COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table' CODEC(ZSTD(1)),
    incarnation UInt32 COMMENT 'Incarnation of the Kafka topic, see kafka_topics' CODEC(ZSTD(1)),
    kafka_partition Int32 COMMENT 'Kafka partition it came from' CODEC(ZSTD(1)),
    batch UInt64 COMMENT 'First Kafka offset of the batch that wrote the row' CODEC(ZSTD(1)),
    gen UInt32 COMMENT 'Attempt of the batch; rises when a deduplication token is burned' CODEC(ZSTD(1)),
    batch_hash UInt64 COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch' CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, device, boot_id, seq)
SETTINGS non_replicated_deduplication_window = 100000, remove_empty_parts = 0, old_parts_lifetime = 480
COMMENT 'Times that devices told and that cannot be true';
