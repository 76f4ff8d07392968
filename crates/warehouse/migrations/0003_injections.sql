-- The base table: one row for each injection.

-- Key: the event's identity behind tenant and site. Dashboards ask for one device, one site or one
-- tenant over time; boots are numbered in time, so within a device the key is also the order of
-- time, and repeated text next to itself packs well. Time ranges prune by the minmax index on `at`
-- (a day's parts hold that day, late data apart), sessions by a bloom filter.
CREATE TABLE IF NOT EXISTS injections
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
    injection_no Nullable(UInt64) COMMENT 'Lifetime counter of the device, never reset; NULL = not said' CODEC(Delta, LZ4),
    shot Nullable(UInt32) COMMENT 'Number of the shot in the session, from 1; NULL = not said' CODEC(Delta, LZ4),
    clock LowCardinality(String) COMMENT 'State of the device clock: SYNCED, UNSYNCED or UNKNOWN',
    mode LowCardinality(String) COMMENT 'How it was triggered: SINGLE, CONTINUOUS, BURST; empty = not said, a number = unknown to this version',
    outcome LowCardinality(String) COMMENT 'How it ended: OK, PARTIAL, ABORTED, OCCLUDED, NO_CONTACT; empty = not said, a number = unknown to this version',
    area LowCardinality(String) COMMENT 'Body area, e.g. FACE; empty = not said, a number = unknown to this version',
    target_nl Nullable(UInt32) COMMENT 'Dose asked for, nl, whole head; NULL = not said' CODEC(T64, LZ4),
    delivered_nl Nullable(UInt32) COMMENT 'Dose delivered, nl, whole head; NULL = not said' CODEC(T64, LZ4),
    dose_source LowCardinality(String) COMMENT 'What measured delivered_nl: ENCODER, FLOW, FORCE; SETTING = not measured, kept out of accuracy; empty = not said',
    target_um Nullable(UInt16) COMMENT 'Depth asked for, um along the needle; NULL = not said' CODEC(T64, LZ4),
    measured_um Nullable(UInt16) COMMENT 'Depth measured, um along the needle; NULL = not said' CODEC(T64, LZ4),
    depth_source LowCardinality(String) COMMENT 'What measured measured_um: ENCODER, FORCE, OPTICAL; SETTING = not measured, kept out of accuracy; empty = not said',
    angle_mdeg Nullable(UInt32) COMMENT 'Angle from the skin''s surface, millidegrees, 90,000 = perpendicular; NULL = not said' CODEC(T64, LZ4),
    duration_us Nullable(UInt32) COMMENT 'From contact to withdrawal, us; NULL = not said' CODEC(T64, LZ4),
    punctures Nullable(UInt16) COMMENT 'Punctures made; NULL = not said, which counts as 1' CODEC(T64, LZ4),
    needle_count Nullable(UInt8) COMMENT 'Needles of the head; NULL = not said' CODEC(T64, LZ4),
    peak_force_mn Nullable(UInt32) COMMENT 'Peak force, mN; NULL = not said' CODEC(T64, LZ4),
    pressure_pa Nullable(Int32) COMMENT 'Peak pressure, Pa, gauge; NULL = not said' CODEC(T64, LZ4),
    vacuum_pa Nullable(UInt32) COMMENT 'Vacuum, Pa, positive below ambient; NULL = not said' CODEC(T64, LZ4),
    motor_ma Nullable(UInt32) COMMENT 'Motor current, mA; NULL = not said' CODEC(T64, LZ4),
    needle_mount_id String COMMENT 'Mount in the needle slot; empty = not said' CODEC(LZ4),
    needle_item_id String COMMENT 'Item in the needle slot as the device knew it; empty = not said, join mounts by the mount' CODEC(LZ4),
    syringe_mount_id String COMMENT 'Mount in the syringe slot; empty = not said' CODEC(LZ4),
    syringe_item_id String COMMENT 'Item in the syringe slot as the device knew it; empty = not said, join mounts by the mount' CODEC(LZ4),
    handpiece_mount_id String COMMENT 'Mount in the handpiece slot; empty = not said' CODEC(LZ4),
    handpiece_item_id String COMMENT 'Item in the handpiece slot as the device knew it; empty = not said, join mounts by the mount' CODEC(LZ4),
    dose_calibration_id LowCardinality(String) COMMENT 'Dose calibration in force; empty = not said',
    depth_calibration_id LowCardinality(String) COMMENT 'Depth calibration in force; empty = not said',
    preparation_id String COMMENT 'Prepared mixture in use, see preparations; empty = not said' CODEC(LZ4),
    operator_id LowCardinality(String) COMMENT 'Pseudonym of the operator; empty = not said',
    flags UInt32 COMMENT 'Bits: 1 = an enum value this version does not know, kept as its number; 2 = fields this version does not know; 4 = the device''s clock said that it was synced and showed a time that cannot be true, see implausible_times; 256 = what scanners append (CR, LF, tab, space) was trimmed from the end of a text; 512 = a text with control characters, an id with other characters than A-Za-z0-9_-, or an overlong text of the context, kept as it came' CODEC(T64, LZ4),
    kafka_offset UInt64 COMMENT 'Offset of the Kafka record it came from' CODEC(Delta, LZ4),
    ingest_day Date COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table' CODEC(LZ4),
    incarnation UInt32 COMMENT 'Incarnation of the Kafka topic, see kafka_topics' CODEC(LZ4),
    kafka_partition Int32 COMMENT 'Kafka partition it came from' CODEC(LZ4),
    batch UInt64 COMMENT 'First Kafka offset of the batch that wrote the row' CODEC(LZ4),
    gen UInt32 COMMENT 'Attempt of the batch; rises when a deduplication token is burned' CODEC(LZ4),
    batch_hash UInt64 COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch' CODEC(LZ4),
    INDEX at_range at TYPE minmax GRANULARITY 1,
    INDEX visit session_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, site, device, boot_id, seq)
SETTINGS non_replicated_deduplication_window = 100000, remove_empty_parts = 0, old_parts_lifetime = 480,
         merge_selector_base = 10, auto_statistics_types = ''
COMMENT 'One row for each injection, once';
