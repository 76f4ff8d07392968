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
    minute DateTime('UTC') COMMENT 'Start of the minute of `at`, UTC' CODEC(Delta, ZSTD(1)),
    injections UInt64 COMMENT 'Injections, with or without measured values' CODEC(T64, ZSTD(1)),
    dose_n UInt64 COMMENT 'Injections with target and delivered dose and a source other than SETTING' CODEC(T64, ZSTD(1)),
    dose_target_nl UInt64 COMMENT 'Sum of their targets, nl' CODEC(T64, ZSTD(1)),
    dose_delivered_nl UInt64 COMMENT 'Sum of their delivered values, nl' CODEC(T64, ZSTD(1)),
    dose_error_nl Int64 COMMENT 'Sum of delivered - target, nl' CODEC(T64, ZSTD(1)),
    dose_error_sq UInt64 COMMENT 'Sum of the squares of delivered - target, nl^2' CODEC(T64, ZSTD(1)),
    dose_error_min Nullable(Int32) COMMENT 'Least delivered - target, nl; NULL = none' CODEC(T64, ZSTD(1)),
    dose_error_max Nullable(Int32) COMMENT 'Greatest delivered - target, nl; NULL = none' CODEC(T64, ZSTD(1)),
    depth_n UInt64 COMMENT 'Injections with target and measured depth and a source other than SETTING' CODEC(T64, ZSTD(1)),
    depth_target_um UInt64 COMMENT 'Sum of their targets, um' CODEC(T64, ZSTD(1)),
    depth_measured_um UInt64 COMMENT 'Sum of their measured values, um' CODEC(T64, ZSTD(1)),
    depth_error_um Int64 COMMENT 'Sum of measured - target, um' CODEC(T64, ZSTD(1)),
    depth_error_sq UInt64 COMMENT 'Sum of the squares of measured - target, um^2' CODEC(T64, ZSTD(1)),
    depth_error_min Nullable(Int32) COMMENT 'Least measured - target, um; NULL = none' CODEC(T64, ZSTD(1)),
    depth_error_max Nullable(Int32) COMMENT 'Greatest measured - target, um; NULL = none' CODEC(T64, ZSTD(1)),
    ok UInt64 COMMENT 'Injections with outcome OK' CODEC(T64, ZSTD(1)),
    partial UInt64 COMMENT 'Injections with outcome PARTIAL' CODEC(T64, ZSTD(1)),
    aborted UInt64 COMMENT 'Injections with outcome ABORTED' CODEC(T64, ZSTD(1)),
    occluded UInt64 COMMENT 'Injections with outcome OCCLUDED' CODEC(T64, ZSTD(1)),
    no_contact UInt64 COMMENT 'Injections with outcome NO_CONTACT' CODEC(T64, ZSTD(1)),
    first_at DateTime64(6, 'UTC') COMMENT 'Time of the first injection; UTC, us' CODEC(Delta, ZSTD(1)),
    last_at DateTime64(6, 'UTC') COMMENT 'Time of the last injection; UTC, us' CODEC(Delta, ZSTD(1)),
    ingest_day Date COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table' CODEC(ZSTD(1)),
    incarnation UInt32 COMMENT 'Life of the Kafka topic, see kafka_topics' CODEC(ZSTD(1)),
    kafka_partition Int32 COMMENT 'Kafka partition it came from' CODEC(ZSTD(1)),
    batch UInt64 COMMENT 'First Kafka offset of the batch that wrote the row' CODEC(ZSTD(1)),
    gen UInt32 COMMENT 'Attempt of the batch; rises when a deduplication token is burned' CODEC(ZSTD(1)),
    batch_hash UInt64 COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch' CODEC(ZSTD(1)),
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
    session_id String COMMENT 'Visit, 32 hex digits; empty = outside a session' CODEC(ZSTD(1)),
    dose_calibration_id LowCardinality(String) COMMENT 'Dose calibration in force; empty = not said',
    depth_calibration_id LowCardinality(String) COMMENT 'Depth calibration in force; empty = not said',
    target_nl Nullable(UInt32) COMMENT 'Dose set point, nl; NULL = not said' CODEC(T64, ZSTD(1)),
    target_um Nullable(UInt16) COMMENT 'Depth set point, um; NULL = not said' CODEC(T64, ZSTD(1)),
    injections UInt64 COMMENT 'Injections, with or without measured values' CODEC(T64, ZSTD(1)),
    dose_n UInt64 COMMENT 'Injections with target and delivered dose and a source other than SETTING' CODEC(T64, ZSTD(1)),
    dose_target_nl UInt64 COMMENT 'Sum of their targets, nl' CODEC(T64, ZSTD(1)),
    dose_delivered_nl UInt64 COMMENT 'Sum of their delivered values, nl' CODEC(T64, ZSTD(1)),
    dose_error_nl Int64 COMMENT 'Sum of delivered - target, nl' CODEC(T64, ZSTD(1)),
    dose_error_sq UInt64 COMMENT 'Sum of the squares of delivered - target, nl^2' CODEC(T64, ZSTD(1)),
    dose_error_min Nullable(Int32) COMMENT 'Least delivered - target, nl; NULL = none' CODEC(T64, ZSTD(1)),
    dose_error_max Nullable(Int32) COMMENT 'Greatest delivered - target, nl; NULL = none' CODEC(T64, ZSTD(1)),
    depth_n UInt64 COMMENT 'Injections with target and measured depth and a source other than SETTING' CODEC(T64, ZSTD(1)),
    depth_target_um UInt64 COMMENT 'Sum of their targets, um' CODEC(T64, ZSTD(1)),
    depth_measured_um UInt64 COMMENT 'Sum of their measured values, um' CODEC(T64, ZSTD(1)),
    depth_error_um Int64 COMMENT 'Sum of measured - target, um' CODEC(T64, ZSTD(1)),
    depth_error_sq UInt64 COMMENT 'Sum of the squares of measured - target, um^2' CODEC(T64, ZSTD(1)),
    depth_error_min Nullable(Int32) COMMENT 'Least measured - target, um; NULL = none' CODEC(T64, ZSTD(1)),
    depth_error_max Nullable(Int32) COMMENT 'Greatest measured - target, um; NULL = none' CODEC(T64, ZSTD(1)),
    ok UInt64 COMMENT 'Injections with outcome OK' CODEC(T64, ZSTD(1)),
    partial UInt64 COMMENT 'Injections with outcome PARTIAL' CODEC(T64, ZSTD(1)),
    aborted UInt64 COMMENT 'Injections with outcome ABORTED' CODEC(T64, ZSTD(1)),
    occluded UInt64 COMMENT 'Injections with outcome OCCLUDED' CODEC(T64, ZSTD(1)),
    no_contact UInt64 COMMENT 'Injections with outcome NO_CONTACT' CODEC(T64, ZSTD(1)),
    first_at DateTime64(6, 'UTC') COMMENT 'Time of the first injection; UTC, us' CODEC(Delta, ZSTD(1)),
    last_at DateTime64(6, 'UTC') COMMENT 'Time of the last injection; UTC, us' CODEC(Delta, ZSTD(1)),
    dose_error_bins Array(Int32) COMMENT 'Histogram: floor(100 * dose error / target) in percent, for targets above 0' CODEC(Delta, ZSTD(1)),
    dose_error_counts Array(UInt32) COMMENT 'Histogram: injections in each bin of dose_error_bins; combine with sumMap' CODEC(T64, ZSTD(1)),
    ingest_day Date COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table' CODEC(ZSTD(1)),
    incarnation UInt32 COMMENT 'Life of the Kafka topic, see kafka_topics' CODEC(ZSTD(1)),
    kafka_partition Int32 COMMENT 'Kafka partition it came from' CODEC(ZSTD(1)),
    batch UInt64 COMMENT 'First Kafka offset of the batch that wrote the row' CODEC(ZSTD(1)),
    gen UInt32 COMMENT 'Attempt of the batch; rises when a deduplication token is burned' CODEC(ZSTD(1)),
    batch_hash UInt64 COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch' CODEC(ZSTD(1)),
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
    session_id String COMMENT 'Visit, 32 hex digits; empty = outside a session' CODEC(ZSTD(1)),
    slot LowCardinality(String) COMMENT 'NEEDLE, SYRINGE, HANDPIECE, CARTRIDGE or TUBING; empty = not said',
    mount_id String COMMENT 'The mount; empty = not said' CODEC(ZSTD(1)),
    item_id String COMMENT 'The item as the device knew it; empty = not said' CODEC(ZSTD(1)),
    injections UInt64 COMMENT 'Injections made with it' CODEC(T64, ZSTD(1)),
    punctures UInt64 COMMENT 'Punctures made with it; an injection that does not say counts 1' CODEC(T64, ZSTD(1)),
    delivered_nl UInt64 COMMENT 'Volume delivered through it, nl, as far as known' CODEC(T64, ZSTD(1)),
    delivered_n UInt64 COMMENT 'Injections whose volume is known' CODEC(T64, ZSTD(1)),
    first_at DateTime64(6, 'UTC') COMMENT 'Time of the first injection; UTC, us' CODEC(Delta, ZSTD(1)),
    last_at DateTime64(6, 'UTC') COMMENT 'Time of the last injection; UTC, us' CODEC(Delta, ZSTD(1)),
    ingest_day Date COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table' CODEC(ZSTD(1)),
    incarnation UInt32 COMMENT 'Life of the Kafka topic, see kafka_topics' CODEC(ZSTD(1)),
    kafka_partition Int32 COMMENT 'Kafka partition it came from' CODEC(ZSTD(1)),
    batch UInt64 COMMENT 'First Kafka offset of the batch that wrote the row' CODEC(ZSTD(1)),
    gen UInt32 COMMENT 'Attempt of the batch; rises when a deduplication token is burned' CODEC(ZSTD(1)),
    batch_hash UInt64 COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch' CODEC(ZSTD(1)),
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
    hour DateTime('UTC') COMMENT 'Start of the hour of `at`, UTC' CODEC(Delta, ZSTD(1)),
    injections UInt64 COMMENT 'Injections, with or without measured values' CODEC(T64, ZSTD(1)),
    dose_n UInt64 COMMENT 'Injections with target and delivered dose and a source other than SETTING' CODEC(T64, ZSTD(1)),
    dose_target_nl UInt64 COMMENT 'Sum of their targets, nl' CODEC(T64, ZSTD(1)),
    dose_delivered_nl UInt64 COMMENT 'Sum of their delivered values, nl' CODEC(T64, ZSTD(1)),
    dose_error_nl Int64 COMMENT 'Sum of delivered - target, nl' CODEC(T64, ZSTD(1)),
    dose_error_sq UInt64 COMMENT 'Sum of the squares of delivered - target, nl^2' CODEC(T64, ZSTD(1)),
    dose_error_min Nullable(Int32) COMMENT 'Least delivered - target, nl; NULL = none' CODEC(T64, ZSTD(1)),
    dose_error_max Nullable(Int32) COMMENT 'Greatest delivered - target, nl; NULL = none' CODEC(T64, ZSTD(1)),
    depth_n UInt64 COMMENT 'Injections with target and measured depth and a source other than SETTING' CODEC(T64, ZSTD(1)),
    depth_target_um UInt64 COMMENT 'Sum of their targets, um' CODEC(T64, ZSTD(1)),
    depth_measured_um UInt64 COMMENT 'Sum of their measured values, um' CODEC(T64, ZSTD(1)),
    depth_error_um Int64 COMMENT 'Sum of measured - target, um' CODEC(T64, ZSTD(1)),
    depth_error_sq UInt64 COMMENT 'Sum of the squares of measured - target, um^2' CODEC(T64, ZSTD(1)),
    depth_error_min Nullable(Int32) COMMENT 'Least measured - target, um; NULL = none' CODEC(T64, ZSTD(1)),
    depth_error_max Nullable(Int32) COMMENT 'Greatest measured - target, um; NULL = none' CODEC(T64, ZSTD(1)),
    ok UInt64 COMMENT 'Injections with outcome OK' CODEC(T64, ZSTD(1)),
    partial UInt64 COMMENT 'Injections with outcome PARTIAL' CODEC(T64, ZSTD(1)),
    aborted UInt64 COMMENT 'Injections with outcome ABORTED' CODEC(T64, ZSTD(1)),
    occluded UInt64 COMMENT 'Injections with outcome OCCLUDED' CODEC(T64, ZSTD(1)),
    no_contact UInt64 COMMENT 'Injections with outcome NO_CONTACT' CODEC(T64, ZSTD(1)),
    first_at DateTime64(6, 'UTC') COMMENT 'Time of the first injection; UTC, us' CODEC(Delta, ZSTD(1)),
    last_at DateTime64(6, 'UTC') COMMENT 'Time of the last injection; UTC, us' CODEC(Delta, ZSTD(1)),
    ingest_day Date COMMENT 'Closed ingest day the sums are of; partition of the table' CODEC(ZSTD(1))
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
    day Date COMMENT 'Day of `at`, UTC' CODEC(Delta, ZSTD(1)),
    injections UInt64 COMMENT 'Injections, with or without measured values' CODEC(T64, ZSTD(1)),
    dose_n UInt64 COMMENT 'Injections with target and delivered dose and a source other than SETTING' CODEC(T64, ZSTD(1)),
    dose_target_nl UInt64 COMMENT 'Sum of their targets, nl' CODEC(T64, ZSTD(1)),
    dose_delivered_nl UInt64 COMMENT 'Sum of their delivered values, nl' CODEC(T64, ZSTD(1)),
    dose_error_nl Int64 COMMENT 'Sum of delivered - target, nl' CODEC(T64, ZSTD(1)),
    dose_error_sq UInt64 COMMENT 'Sum of the squares of delivered - target, nl^2' CODEC(T64, ZSTD(1)),
    dose_error_min Nullable(Int32) COMMENT 'Least delivered - target, nl; NULL = none' CODEC(T64, ZSTD(1)),
    dose_error_max Nullable(Int32) COMMENT 'Greatest delivered - target, nl; NULL = none' CODEC(T64, ZSTD(1)),
    depth_n UInt64 COMMENT 'Injections with target and measured depth and a source other than SETTING' CODEC(T64, ZSTD(1)),
    depth_target_um UInt64 COMMENT 'Sum of their targets, um' CODEC(T64, ZSTD(1)),
    depth_measured_um UInt64 COMMENT 'Sum of their measured values, um' CODEC(T64, ZSTD(1)),
    depth_error_um Int64 COMMENT 'Sum of measured - target, um' CODEC(T64, ZSTD(1)),
    depth_error_sq UInt64 COMMENT 'Sum of the squares of measured - target, um^2' CODEC(T64, ZSTD(1)),
    depth_error_min Nullable(Int32) COMMENT 'Least measured - target, um; NULL = none' CODEC(T64, ZSTD(1)),
    depth_error_max Nullable(Int32) COMMENT 'Greatest measured - target, um; NULL = none' CODEC(T64, ZSTD(1)),
    ok UInt64 COMMENT 'Injections with outcome OK' CODEC(T64, ZSTD(1)),
    partial UInt64 COMMENT 'Injections with outcome PARTIAL' CODEC(T64, ZSTD(1)),
    aborted UInt64 COMMENT 'Injections with outcome ABORTED' CODEC(T64, ZSTD(1)),
    occluded UInt64 COMMENT 'Injections with outcome OCCLUDED' CODEC(T64, ZSTD(1)),
    no_contact UInt64 COMMENT 'Injections with outcome NO_CONTACT' CODEC(T64, ZSTD(1)),
    first_at DateTime64(6, 'UTC') COMMENT 'Time of the first injection; UTC, us' CODEC(Delta, ZSTD(1)),
    last_at DateTime64(6, 'UTC') COMMENT 'Time of the last injection; UTC, us' CODEC(Delta, ZSTD(1)),
    ingest_day Date COMMENT 'Closed ingest day the sums are of; partition of the table' CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, site, device, model, firmware, day)
COMMENT 'Accuracy sums by device and day, for closed ingest days only; sum over rows';
