-- Visits, mixtures and consumables.

-- Key: the event's identity behind tenant and site. Two rows a visit: few, so no index beside the visit's.
CREATE TABLE IF NOT EXISTS sessions
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
    event LowCardinality(String) COMMENT 'STARTED or ENDED',
    operator_id LowCardinality(String) COMMENT 'Pseudonym of the operator; empty = not said',
    course_id String CODEC(ZSTD(1)) COMMENT 'Course of treatment, hex; empty = not said',
    course_index Nullable(UInt32) CODEC(T64, ZSTD(1)) COMMENT 'Number of this session in the course, from 1; NULL = not said',
    course_planned Nullable(UInt32) CODEC(T64, ZSTD(1)) COMMENT 'Sessions planned in the course; NULL = not said',
    interval_days Nullable(UInt32) CODEC(T64, ZSTD(1)) COMMENT 'Planned days between sessions; NULL = not said',
    client_ref String CODEC(ZSTD(1)) COMMENT 'Opaque reference of the clinic; empty = not said',
    allergy_result LowCardinality(String) COMMENT 'Allergy test: NEGATIVE, POSITIVE, NOT_DONE; empty = not said',
    allergy_at Nullable(DateTime64(6, 'UTC')) CODEC(Delta, ZSTD(1)) COMMENT 'When the allergy test was read; UTC, us; NULL = not said',
    allergy_formula_id String CODEC(ZSTD(1)) COMMENT 'Formula of the allergy test; empty = not said',
    licence LowCardinality(String) COMMENT 'Licence of the operator: VERIFIED, EXPIRED, NONE; empty = not said',
    shots Nullable(UInt32) CODEC(T64, ZSTD(1)) COMMENT 'ENDED: injections the device made in the session; NULL = not said',
    delivered_nl Nullable(UInt64) CODEC(T64, ZSTD(1)) COMMENT 'ENDED: volume the device delivered in the session, nl; NULL = not said',
    reason LowCardinality(String) COMMENT 'ENDED: why, e.g. completed; empty = not said',
    kafka_offset UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'Offset of the Kafka record it came from',
    ingest_day Date CODEC(ZSTD(1)) COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table',
    incarnation UInt32 CODEC(ZSTD(1)) COMMENT 'Life of the Kafka topic, see kafka_topics',
    kafka_partition Int32 CODEC(ZSTD(1)) COMMENT 'Kafka partition it came from',
    batch UInt64 CODEC(ZSTD(1)) COMMENT 'First Kafka offset of the batch that wrote the row',
    gen UInt32 CODEC(ZSTD(1)) COMMENT 'Attempt of the batch; rises when a deduplication token is burned',
    batch_hash UInt64 CODEC(ZSTD(1)) COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch',
    INDEX visit session_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, site, device, boot_id, seq)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Starts and ends of visits, one row each';

-- Key: the event's identity; a mixture is looked up by tenant and preparation_id (bloom filter).
CREATE TABLE IF NOT EXISTS preparations
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
    `index` UInt32 CODEC(T64, ZSTD(1)) COMMENT 'Number of the component, from 0',
    components UInt32 CODEC(T64, ZSTD(1)) COMMENT 'Components of the mixture; 0 = none was said, and the row stands for the mixture alone',
    preparation_id String CODEC(ZSTD(1)) COMMENT 'The mixture',
    formula_id LowCardinality(String) COMMENT 'Formula it follows; empty = not said',
    prepared_at Nullable(DateTime64(6, 'UTC')) CODEC(Delta, ZSTD(1)) COMMENT 'When it was prepared; UTC, us; NULL = not said',
    use_by Nullable(DateTime64(6, 'UTC')) CODEC(Delta, ZSTD(1)) COMMENT 'Use by; UTC, us; NULL = not said',
    operator_id LowCardinality(String) COMMENT 'Pseudonym of the operator; empty = not said',
    udi_di LowCardinality(String) COMMENT 'UDI device identifier of the product; empty = not said',
    lot LowCardinality(String) COMMENT 'Lot of the product; empty = not said',
    expiry LowCardinality(String) COMMENT 'Expiry as YYYY-MM-DD, day 00 = end of the month; empty = not said',
    container_id String CODEC(ZSTD(1)) COMMENT 'Container it was taken from; empty = not said',
    opened_at Nullable(DateTime64(6, 'UTC')) CODEC(Delta, ZSTD(1)) COMMENT 'When the container was first opened; UTC, us; NULL = not said',
    volume_nl Nullable(UInt64) CODEC(T64, ZSTD(1)) COMMENT 'Volume taken, nl; NULL = not said',
    kafka_offset UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'Offset of the Kafka record it came from',
    ingest_day Date CODEC(ZSTD(1)) COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table',
    incarnation UInt32 CODEC(ZSTD(1)) COMMENT 'Life of the Kafka topic, see kafka_topics',
    kafka_partition Int32 CODEC(ZSTD(1)) COMMENT 'Kafka partition it came from',
    batch UInt64 CODEC(ZSTD(1)) COMMENT 'First Kafka offset of the batch that wrote the row',
    gen UInt32 CODEC(ZSTD(1)) COMMENT 'Attempt of the batch; rises when a deduplication token is burned',
    batch_hash UInt64 CODEC(ZSTD(1)) COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch',
    INDEX mixture preparation_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, site, device, boot_id, seq, index)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Mixtures, one row for each component';

-- Key: the event's identity; an item is followed through its life by the bloom filters.
CREATE TABLE IF NOT EXISTS mounts
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
    event LowCardinality(String) COMMENT 'MOUNTED, PRIMED, REMOVED or REPROCESSED',
    slot LowCardinality(String) COMMENT 'MOUNTED: NEEDLE, SYRINGE, HANDPIECE, CARTRIDGE or TUBING; empty = not said',
    mount_id String CODEC(ZSTD(1)) COMMENT 'The mount, new for each mounting; empty for REPROCESSED',
    item_id String CODEC(ZSTD(1)) COMMENT 'The item (serial or lot, see id_kind); empty = not said',
    id_kind LowCardinality(String) COMMENT 'What item_id identifies: SERIAL, LOT_ONLY (never proves reuse), NONE; empty = not said',
    udi_di LowCardinality(String) COMMENT 'UDI device identifier; empty = not said',
    lot LowCardinality(String) COMMENT 'Lot; empty = not said',
    expiry LowCardinality(String) COMMENT 'Expiry as YYYY-MM-DD, day 00 = end of the month; empty = not said',
    type LowCardinality(String) COMMENT 'Type designation; empty = not said',
    gauge Nullable(UInt32) CODEC(T64, ZSTD(1)) COMMENT 'Needle gauge, G; NULL = not said',
    reusable Nullable(Bool) COMMENT 'Whether it may be reprocessed; NULL = not said',
    pack_id String CODEC(ZSTD(1)) COMMENT 'Sterile pack it came from; empty = not said',
    pack_intact Nullable(Bool) COMMENT 'Whether the pack was intact; NULL = not said',
    fill_nl Nullable(UInt64) CODEC(T64, ZSTD(1)) COMMENT 'MOUNTED: filling of a syringe or cartridge, nl; NULL = not said',
    volume_nl Nullable(UInt64) CODEC(T64, ZSTD(1)) COMMENT 'PRIMED: volume used for priming, nl; NULL = not said',
    residual_nl Nullable(UInt64) CODEC(T64, ZSTD(1)) COMMENT 'REMOVED: what was left in it, nl; NULL = not said',
    residual_source LowCardinality(String) COMMENT 'REMOVED: what measured residual_nl: ENCODER, SCALE, OPERATOR; empty = not said',
    rinse_water LowCardinality(String) COMMENT 'REPROCESSED: last rinse: STERILE, DEMINERALISED, TAP; empty = not said',
    operator_id LowCardinality(String) COMMENT 'Pseudonym of the operator; empty = not said',
    kafka_offset UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'Offset of the Kafka record it came from',
    ingest_day Date CODEC(ZSTD(1)) COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table',
    incarnation UInt32 CODEC(ZSTD(1)) COMMENT 'Life of the Kafka topic, see kafka_topics',
    kafka_partition Int32 CODEC(ZSTD(1)) COMMENT 'Kafka partition it came from',
    batch UInt64 CODEC(ZSTD(1)) COMMENT 'First Kafka offset of the batch that wrote the row',
    gen UInt32 CODEC(ZSTD(1)) COMMENT 'Attempt of the batch; rises when a deduplication token is burned',
    batch_hash UInt64 CODEC(ZSTD(1)) COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch',
    INDEX mounting mount_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX item item_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, site, device, boot_id, seq)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Life of consumables: mounted, primed, removed, reprocessed, one row each';
