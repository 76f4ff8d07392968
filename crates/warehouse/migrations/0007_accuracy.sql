-- Exact integer sums, written by the loader with each batch: several rows a key, summed when read. Integers, so that sums do not
-- depend on order or batching and equal a recomputation from the base rows, to the last digit.

-- Key: device first, for a device over time; the fleet over time prunes by ingest_day and the minmax index on the minute.
-- Codecs: small integers T64, times Delta.
CREATE TABLE IF NOT EXISTS accuracy_minute
(
    tenant LowCardinality(String) COMMENT 'Tenant, from the topic',
    site LowCardinality(String) COMMENT 'Site, from the topic at the time',
    device LowCardinality(String) COMMENT 'Device, from the topic',
    model LowCardinality(String) COMMENT 'Device model as the report says; empty = not said',
    firmware LowCardinality(String) COMMENT 'Firmware as the report says; empty = not said',
    minute DateTime('UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Start of the minute of `at`, UTC',
    injections UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections, with or without measured values',
    dose_n UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections with target and delivered dose and a source other than SETTING',
    dose_target_nl UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of their targets, nl',
    dose_delivered_nl UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of their delivered values, nl',
    dose_error_nl Int64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of delivered - target, nl',
    dose_error_sq UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of the squares of delivered - target, nl^2',
    dose_error_min Nullable(Int32) CODEC(T64, ZSTD(1)) COMMENT 'Least delivered - target, nl; NULL = none',
    dose_error_max Nullable(Int32) CODEC(T64, ZSTD(1)) COMMENT 'Greatest delivered - target, nl; NULL = none',
    depth_n UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections with target and measured depth and a source other than SETTING',
    depth_target_um UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of their targets, um',
    depth_measured_um UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of their measured values, um',
    depth_error_um Int64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of measured - target, um',
    depth_error_sq UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of the squares of measured - target, um^2',
    depth_error_min Nullable(Int32) CODEC(T64, ZSTD(1)) COMMENT 'Least measured - target, um; NULL = none',
    depth_error_max Nullable(Int32) CODEC(T64, ZSTD(1)) COMMENT 'Greatest measured - target, um; NULL = none',
    ok UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections with outcome OK',
    partial UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections with outcome PARTIAL',
    aborted UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections with outcome ABORTED',
    occluded UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections with outcome OCCLUDED',
    no_contact UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections with outcome NO_CONTACT',
    first_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Time of the first injection; UTC, us',
    last_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Time of the last injection; UTC, us',
    ingest_day Date CODEC(ZSTD(1)) COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table',
    incarnation UInt32 CODEC(ZSTD(1)) COMMENT 'Life of the Kafka topic, see kafka_topics',
    kafka_partition Int32 CODEC(ZSTD(1)) COMMENT 'Kafka partition it came from',
    batch UInt64 CODEC(ZSTD(1)) COMMENT 'First Kafka offset of the batch that wrote the row',
    gen UInt32 CODEC(ZSTD(1)) COMMENT 'Attempt of the batch; rises when a deduplication token is burned',
    batch_hash UInt64 CODEC(ZSTD(1)) COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch',
    INDEX minute_range minute TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, site, device, model, firmware, minute)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Accuracy sums by device and minute of `at`; sum over rows';

-- Key: device, calibration and set point, the order in which accuracy is judged; visits by the bloom filter.
CREATE TABLE IF NOT EXISTS accuracy_session
(
    tenant LowCardinality(String) COMMENT 'Tenant, from the topic',
    site LowCardinality(String) COMMENT 'Site, from the topic at the time',
    device LowCardinality(String) COMMENT 'Device, from the topic',
    model LowCardinality(String) COMMENT 'Device model as the report says; empty = not said',
    firmware LowCardinality(String) COMMENT 'Firmware as the report says; empty = not said',
    session_id String CODEC(ZSTD(1)) COMMENT 'Visit, 32 hex digits; empty = outside a session',
    dose_calibration_id LowCardinality(String) COMMENT 'Dose calibration in force; empty = not said',
    depth_calibration_id LowCardinality(String) COMMENT 'Depth calibration in force; empty = not said',
    target_nl Nullable(UInt32) CODEC(T64, ZSTD(1)) COMMENT 'Dose set point, nl; NULL = not said',
    target_um Nullable(UInt16) CODEC(T64, ZSTD(1)) COMMENT 'Depth set point, um; NULL = not said',
    injections UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections, with or without measured values',
    dose_n UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections with target and delivered dose and a source other than SETTING',
    dose_target_nl UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of their targets, nl',
    dose_delivered_nl UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of their delivered values, nl',
    dose_error_nl Int64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of delivered - target, nl',
    dose_error_sq UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of the squares of delivered - target, nl^2',
    dose_error_min Nullable(Int32) CODEC(T64, ZSTD(1)) COMMENT 'Least delivered - target, nl; NULL = none',
    dose_error_max Nullable(Int32) CODEC(T64, ZSTD(1)) COMMENT 'Greatest delivered - target, nl; NULL = none',
    depth_n UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections with target and measured depth and a source other than SETTING',
    depth_target_um UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of their targets, um',
    depth_measured_um UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of their measured values, um',
    depth_error_um Int64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of measured - target, um',
    depth_error_sq UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of the squares of measured - target, um^2',
    depth_error_min Nullable(Int32) CODEC(T64, ZSTD(1)) COMMENT 'Least measured - target, um; NULL = none',
    depth_error_max Nullable(Int32) CODEC(T64, ZSTD(1)) COMMENT 'Greatest measured - target, um; NULL = none',
    ok UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections with outcome OK',
    partial UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections with outcome PARTIAL',
    aborted UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections with outcome ABORTED',
    occluded UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections with outcome OCCLUDED',
    no_contact UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections with outcome NO_CONTACT',
    first_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Time of the first injection; UTC, us',
    last_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Time of the last injection; UTC, us',
    dose_error_bins Array(Int32) CODEC(Delta, ZSTD(1)) COMMENT 'Histogram: floor(100 * dose error / target) in percent, for targets above 0',
    dose_error_counts Array(UInt32) CODEC(T64, ZSTD(1)) COMMENT 'Histogram: injections in each bin of dose_error_bins; combine with sumMap',
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
ORDER BY (tenant, site, device, model, firmware, dose_calibration_id, depth_calibration_id, session_id)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Accuracy sums by visit, calibration and set point; sum over rows';

-- Key: device and visit; an item or mount is followed by the bloom filters.
CREATE TABLE IF NOT EXISTS item_uses
(
    tenant LowCardinality(String) COMMENT 'Tenant, from the topic',
    site LowCardinality(String) COMMENT 'Site, from the topic at the time',
    device LowCardinality(String) COMMENT 'Device, from the topic',
    session_id String CODEC(ZSTD(1)) COMMENT 'Visit, 32 hex digits; empty = outside a session',
    slot LowCardinality(String) COMMENT 'NEEDLE, SYRINGE, HANDPIECE, CARTRIDGE or TUBING; empty = not said',
    mount_id String CODEC(ZSTD(1)) COMMENT 'The mount; empty = not said',
    item_id String CODEC(ZSTD(1)) COMMENT 'The item as the device knew it; empty = not said',
    injections UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections made with it',
    punctures UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Punctures made with it; an injection that does not say counts 1',
    delivered_nl UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Volume delivered through it, nl, as far as known',
    delivered_n UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections whose volume is known',
    first_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Time of the first injection; UTC, us',
    last_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Time of the last injection; UTC, us',
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
ORDER BY (tenant, site, device, session_id, slot, mount_id, item_id)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Use of mounted items by visit; sum over rows';

-- Key: as accuracy_minute, one row a key and ingest day. Made for closed ingest days and swapped in whole; not written by the loader.
CREATE TABLE IF NOT EXISTS accuracy_hour
(
    tenant LowCardinality(String) COMMENT 'Tenant, from the topic',
    site LowCardinality(String) COMMENT 'Site, from the topic at the time',
    device LowCardinality(String) COMMENT 'Device, from the topic',
    model LowCardinality(String) COMMENT 'Device model as the report says; empty = not said',
    firmware LowCardinality(String) COMMENT 'Firmware as the report says; empty = not said',
    hour DateTime('UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Start of the hour of `at`, UTC',
    injections UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections, with or without measured values',
    dose_n UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections with target and delivered dose and a source other than SETTING',
    dose_target_nl UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of their targets, nl',
    dose_delivered_nl UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of their delivered values, nl',
    dose_error_nl Int64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of delivered - target, nl',
    dose_error_sq UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of the squares of delivered - target, nl^2',
    dose_error_min Nullable(Int32) CODEC(T64, ZSTD(1)) COMMENT 'Least delivered - target, nl; NULL = none',
    dose_error_max Nullable(Int32) CODEC(T64, ZSTD(1)) COMMENT 'Greatest delivered - target, nl; NULL = none',
    depth_n UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections with target and measured depth and a source other than SETTING',
    depth_target_um UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of their targets, um',
    depth_measured_um UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of their measured values, um',
    depth_error_um Int64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of measured - target, um',
    depth_error_sq UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of the squares of measured - target, um^2',
    depth_error_min Nullable(Int32) CODEC(T64, ZSTD(1)) COMMENT 'Least measured - target, um; NULL = none',
    depth_error_max Nullable(Int32) CODEC(T64, ZSTD(1)) COMMENT 'Greatest measured - target, um; NULL = none',
    ok UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections with outcome OK',
    partial UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections with outcome PARTIAL',
    aborted UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections with outcome ABORTED',
    occluded UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections with outcome OCCLUDED',
    no_contact UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections with outcome NO_CONTACT',
    first_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Time of the first injection; UTC, us',
    last_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Time of the last injection; UTC, us',
    ingest_day Date CODEC(ZSTD(1)) COMMENT 'Closed ingest day the sums are of; partition of the table'
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, site, device, model, firmware, hour)
COMMENT 'Accuracy sums by device and hour, for closed ingest days only; sum over rows';

-- Key: as accuracy_minute, one row a key and ingest day. Made for closed ingest days and swapped in whole; not written by the loader.
CREATE TABLE IF NOT EXISTS accuracy_day
(
    tenant LowCardinality(String) COMMENT 'Tenant, from the topic',
    site LowCardinality(String) COMMENT 'Site, from the topic at the time',
    device LowCardinality(String) COMMENT 'Device, from the topic',
    model LowCardinality(String) COMMENT 'Device model as the report says; empty = not said',
    firmware LowCardinality(String) COMMENT 'Firmware as the report says; empty = not said',
    day Date CODEC(Delta, ZSTD(1)) COMMENT 'Day of `at`, UTC',
    injections UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections, with or without measured values',
    dose_n UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections with target and delivered dose and a source other than SETTING',
    dose_target_nl UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of their targets, nl',
    dose_delivered_nl UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of their delivered values, nl',
    dose_error_nl Int64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of delivered - target, nl',
    dose_error_sq UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of the squares of delivered - target, nl^2',
    dose_error_min Nullable(Int32) CODEC(T64, ZSTD(1)) COMMENT 'Least delivered - target, nl; NULL = none',
    dose_error_max Nullable(Int32) CODEC(T64, ZSTD(1)) COMMENT 'Greatest delivered - target, nl; NULL = none',
    depth_n UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections with target and measured depth and a source other than SETTING',
    depth_target_um UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of their targets, um',
    depth_measured_um UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of their measured values, um',
    depth_error_um Int64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of measured - target, um',
    depth_error_sq UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Sum of the squares of measured - target, um^2',
    depth_error_min Nullable(Int32) CODEC(T64, ZSTD(1)) COMMENT 'Least measured - target, um; NULL = none',
    depth_error_max Nullable(Int32) CODEC(T64, ZSTD(1)) COMMENT 'Greatest measured - target, um; NULL = none',
    ok UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections with outcome OK',
    partial UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections with outcome PARTIAL',
    aborted UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections with outcome ABORTED',
    occluded UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections with outcome OCCLUDED',
    no_contact UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Injections with outcome NO_CONTACT',
    first_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Time of the first injection; UTC, us',
    last_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Time of the last injection; UTC, us',
    ingest_day Date CODEC(ZSTD(1)) COMMENT 'Closed ingest day the sums are of; partition of the table'
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, site, device, model, firmware, day)
COMMENT 'Accuracy sums by device and day, for closed ingest days only; sum over rows';
