-- Sessions, mixtures and consumables.

-- Key: the event's identity behind tenant and site. Two rows a session: few, so no index beside the
-- session's.
CREATE TABLE IF NOT EXISTS sessions
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
    event LowCardinality(String) COMMENT 'STARTED or ENDED',
    operator_id LowCardinality(String) COMMENT 'Pseudonym of the operator; empty = not said',
    course_id String COMMENT 'Course of treatment, hex; empty = not said' CODEC(ZSTD(1)),
    course_index Nullable(UInt32) COMMENT 'Number of this session in the course, from 1; NULL = not said' CODEC(T64, ZSTD(1)),
    course_planned Nullable(UInt32) COMMENT 'Sessions planned in the course; NULL = not said' CODEC(T64, ZSTD(1)),
    interval_days Nullable(UInt32) COMMENT 'Planned days between sessions; NULL = not said' CODEC(T64, ZSTD(1)),
    client_ref String COMMENT 'Opaque reference of the clinic; empty = not said' CODEC(ZSTD(1)),
    allergy_result LowCardinality(String) COMMENT 'Allergy test: NEGATIVE, POSITIVE, NOT_DONE; empty = not said',
    allergy_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When the allergy test was read; UTC, us; NULL = not said' CODEC(Delta, ZSTD(1)),
    allergy_formula_id String COMMENT 'Formula of the allergy test; empty = not said' CODEC(ZSTD(1)),
    licence LowCardinality(String) COMMENT 'Licence of the operator: VERIFIED, EXPIRED, NONE; empty = not said',
    shots Nullable(UInt32) COMMENT 'ENDED: injections the device made in the session; NULL = not said' CODEC(T64, ZSTD(1)),
    delivered_nl Nullable(UInt64) COMMENT 'ENDED: volume the device delivered in the session, nl; NULL = not said' CODEC(T64, ZSTD(1)),
    reason LowCardinality(String) COMMENT 'ENDED: why, e.g. completed; empty = not said',
    kafka_offset UInt64 COMMENT 'Offset of the Kafka record it came from' CODEC(Delta, ZSTD(1)),
    ingest_day Date COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table' CODEC(ZSTD(1)),
    incarnation UInt32 COMMENT 'Incarnation of the Kafka topic, see kafka_topics' CODEC(ZSTD(1)),
    kafka_partition Int32 COMMENT 'Kafka partition it came from' CODEC(ZSTD(1)),
    batch UInt64 COMMENT 'First Kafka offset of the batch that wrote the row' CODEC(ZSTD(1)),
    gen UInt32 COMMENT 'Attempt of the batch; rises when a deduplication token is burned' CODEC(ZSTD(1)),
    batch_hash UInt64 COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch' CODEC(ZSTD(1)),
    flags UInt32 COMMENT 'Bits: 2 = fields this version does not know; 4 = the device''s clock said that it was synced and showed a time that cannot be true, see implausible_times; 256 = what scanners append (CR, LF, tab, space) was trimmed from the end of a text; 512 = a text with control characters, an id with other characters than A-Za-z0-9_-, or an overlong text of the context, kept as it came' CODEC(T64, LZ4),
    INDEX visit session_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, site, device, boot_id, seq)
SETTINGS non_replicated_deduplication_window = 100000, remove_empty_parts = 0, old_parts_lifetime = 480
COMMENT 'Starts and ends of sessions, one row each';

-- Key: the event's identity; a mixture is looked up by tenant and preparation_id (bloom filter).
CREATE TABLE IF NOT EXISTS preparations
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
    `index` UInt32 COMMENT 'Number of the component, from 0' CODEC(T64, ZSTD(1)),
    components UInt32 COMMENT 'Components of the mixture; 0 = none was said, and the row stands for the mixture alone' CODEC(T64, ZSTD(1)),
    preparation_id String COMMENT 'The mixture' CODEC(ZSTD(1)),
    formula_id LowCardinality(String) COMMENT 'Formula it follows; empty = not said',
    prepared_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When it was prepared; UTC, us; NULL = not said' CODEC(Delta, ZSTD(1)),
    use_by Nullable(DateTime64(6, 'UTC')) COMMENT 'Use by; UTC, us; NULL = not said' CODEC(Delta, ZSTD(1)),
    operator_id LowCardinality(String) COMMENT 'Pseudonym of the operator; empty = not said',
    udi_di LowCardinality(String) COMMENT 'UDI device identifier of the product; empty = not said',
    lot LowCardinality(String) COMMENT 'Lot of the product; empty = not said',
    expiry LowCardinality(String) COMMENT 'Expiry as YYYY-MM-DD, day 00 = end of the month; empty = not said',
    container_id String COMMENT 'Container it was taken from; empty = not said' CODEC(ZSTD(1)),
    opened_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When the container was first opened; UTC, us; NULL = not said' CODEC(Delta, ZSTD(1)),
    volume_nl Nullable(UInt64) COMMENT 'Volume taken, nl; NULL = not said' CODEC(T64, ZSTD(1)),
    kafka_offset UInt64 COMMENT 'Offset of the Kafka record it came from' CODEC(Delta, ZSTD(1)),
    ingest_day Date COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table' CODEC(ZSTD(1)),
    incarnation UInt32 COMMENT 'Incarnation of the Kafka topic, see kafka_topics' CODEC(ZSTD(1)),
    kafka_partition Int32 COMMENT 'Kafka partition it came from' CODEC(ZSTD(1)),
    batch UInt64 COMMENT 'First Kafka offset of the batch that wrote the row' CODEC(ZSTD(1)),
    gen UInt32 COMMENT 'Attempt of the batch; rises when a deduplication token is burned' CODEC(ZSTD(1)),
    batch_hash UInt64 COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch' CODEC(ZSTD(1)),
    flags UInt32 COMMENT 'Bits: 2 = fields this version does not know; 4 = the device''s clock said that it was synced and showed a time that cannot be true, see implausible_times; 256 = what scanners append (CR, LF, tab, space) was trimmed from the end of a text; 512 = a text with control characters, an id with other characters than A-Za-z0-9_-, or an overlong text of the context, kept as it came' CODEC(T64, LZ4),
    INDEX mixture preparation_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, site, device, boot_id, seq, index)
SETTINGS non_replicated_deduplication_window = 100000, remove_empty_parts = 0, old_parts_lifetime = 480
COMMENT 'Mixtures, one row for each component';

-- Key: the event's identity; an item is followed through its life by the bloom filters.
CREATE TABLE IF NOT EXISTS mounts
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
    event LowCardinality(String) COMMENT 'MOUNTED, PRIMED, REMOVED or REPROCESSED',
    slot LowCardinality(String) COMMENT 'MOUNTED: NEEDLE, SYRINGE, HANDPIECE, CARTRIDGE or TUBING; empty = not said',
    mount_id String COMMENT 'The mount, new for each mounting; empty for REPROCESSED' CODEC(ZSTD(1)),
    item_id String COMMENT 'The item (serial or lot, see id_kind); empty = not said' CODEC(ZSTD(1)),
    id_kind LowCardinality(String) COMMENT 'What item_id identifies: SERIAL, LOT_ONLY (never proves reuse), NONE; empty = not said',
    udi_di LowCardinality(String) COMMENT 'UDI device identifier; empty = not said',
    lot LowCardinality(String) COMMENT 'Lot; empty = not said',
    expiry LowCardinality(String) COMMENT 'Expiry as YYYY-MM-DD, day 00 = end of the month; empty = not said',
    type LowCardinality(String) COMMENT 'Type designation; empty = not said',
    gauge Nullable(UInt32) COMMENT 'Needle gauge, G; NULL = not said' CODEC(T64, ZSTD(1)),
    reusable Nullable(Bool) COMMENT 'Whether it may be reprocessed; NULL = not said',
    pack_id String COMMENT 'Sterile pack it came from; empty = not said' CODEC(ZSTD(1)),
    pack_intact Nullable(Bool) COMMENT 'Whether the pack was intact; NULL = not said',
    fill_nl Nullable(UInt64) COMMENT 'MOUNTED: filling of a syringe or cartridge, nl; NULL = not said' CODEC(T64, ZSTD(1)),
    volume_nl Nullable(UInt64) COMMENT 'PRIMED: volume used for priming, nl; NULL = not said' CODEC(T64, ZSTD(1)),
    residual_nl Nullable(UInt64) COMMENT 'REMOVED: what was left in it, nl; NULL = not said' CODEC(T64, ZSTD(1)),
    residual_source LowCardinality(String) COMMENT 'REMOVED: what measured residual_nl: ENCODER, SCALE, OPERATOR; empty = not said',
    rinse_water LowCardinality(String) COMMENT 'REPROCESSED: last rinse: STERILE, DEMINERALISED, TAP; empty = not said',
    operator_id LowCardinality(String) COMMENT 'Pseudonym of the operator; empty = not said',
    kafka_offset UInt64 COMMENT 'Offset of the Kafka record it came from' CODEC(Delta, ZSTD(1)),
    ingest_day Date COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table' CODEC(ZSTD(1)),
    incarnation UInt32 COMMENT 'Incarnation of the Kafka topic, see kafka_topics' CODEC(ZSTD(1)),
    kafka_partition Int32 COMMENT 'Kafka partition it came from' CODEC(ZSTD(1)),
    batch UInt64 COMMENT 'First Kafka offset of the batch that wrote the row' CODEC(ZSTD(1)),
    gen UInt32 COMMENT 'Attempt of the batch; rises when a deduplication token is burned' CODEC(ZSTD(1)),
    batch_hash UInt64 COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch' CODEC(ZSTD(1)),
    flags UInt32 COMMENT 'Bits: 2 = fields this version does not know; 4 = the device''s clock said that it was synced and showed a time that cannot be true, see implausible_times; 256 = what scanners append (CR, LF, tab, space) was trimmed from the end of a text; 512 = a text with control characters, an id with other characters than A-Za-z0-9_-, or an overlong text of the context, kept as it came' CODEC(T64, LZ4),
    INDEX mounting mount_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX item item_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, site, device, boot_id, seq)
SETTINGS non_replicated_deduplication_window = 100000, remove_empty_parts = 0, old_parts_lifetime = 480
COMMENT 'Life of consumables: mounted, primed, removed, reprocessed, one row each';
