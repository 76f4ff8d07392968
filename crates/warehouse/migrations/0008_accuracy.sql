-- Exact integer sums, written by the loader with each batch: several rows a key, summed when read.
-- Integers, so that sums do not depend on order or batching and equal a recomputation from the base
-- rows, to the last digit. Nothing here judges: verdicts are the monitor's.

-- Key: device first, for a device over time; the fleet over time prunes by ingest_day and the
-- minmax index on the minute.
CREATE TABLE IF NOT EXISTS accuracy_minute
(
    tenant LowCardinality(String) COMMENT 'Tenant, from the topic',
    site LowCardinality(String) COMMENT 'Site, from the topic at the time',
    device LowCardinality(String) COMMENT 'Device, from the topic',
    model LowCardinality(String) COMMENT 'Device model as the report says; empty = not said',
    firmware LowCardinality(String) COMMENT 'Firmware as the report says; empty = not said',
    minute DateTime('UTC') COMMENT 'Start of the minute of `at`, UTC' CODEC(Delta, LZ4),
    injections UInt64 COMMENT 'Injections, with or without measured values' CODEC(T64, LZ4),
    dose_n UInt64 COMMENT 'Injections with target and delivered dose and a source other than SETTING' CODEC(T64, LZ4),
    dose_target_nl UInt64 COMMENT 'Sum of their targets, nl' CODEC(T64, LZ4),
    dose_delivered_nl UInt64 COMMENT 'Sum of their delivered values, nl' CODEC(T64, LZ4),
    dose_error_nl Int64 COMMENT 'Sum of delivered - target, nl' CODEC(T64, LZ4),
    dose_error_sq UInt64 COMMENT 'Sum of the squares of delivered - target, nl^2' CODEC(T64, LZ4),
    dose_error_min Nullable(Int32) COMMENT 'Least delivered - target, nl; NULL = none' CODEC(T64, LZ4),
    dose_error_max Nullable(Int32) COMMENT 'Greatest delivered - target, nl; NULL = none' CODEC(T64, LZ4),
    depth_n UInt64 COMMENT 'Injections with target and measured depth and a source other than SETTING' CODEC(T64, LZ4),
    depth_target_um UInt64 COMMENT 'Sum of their targets, um' CODEC(T64, LZ4),
    depth_measured_um UInt64 COMMENT 'Sum of their measured values, um' CODEC(T64, LZ4),
    depth_error_um Int64 COMMENT 'Sum of measured - target, um' CODEC(T64, LZ4),
    depth_error_sq UInt64 COMMENT 'Sum of the squares of measured - target, um^2' CODEC(T64, LZ4),
    depth_error_min Nullable(Int32) COMMENT 'Least measured - target, um; NULL = none' CODEC(T64, LZ4),
    depth_error_max Nullable(Int32) COMMENT 'Greatest measured - target, um; NULL = none' CODEC(T64, LZ4),
    ok UInt64 COMMENT 'Injections with outcome OK' CODEC(T64, LZ4),
    partial UInt64 COMMENT 'Injections with outcome PARTIAL' CODEC(T64, LZ4),
    aborted UInt64 COMMENT 'Injections with outcome ABORTED' CODEC(T64, LZ4),
    occluded UInt64 COMMENT 'Injections with outcome OCCLUDED' CODEC(T64, LZ4),
    no_contact UInt64 COMMENT 'Injections with outcome NO_CONTACT' CODEC(T64, LZ4),
    first_at DateTime64(6, 'UTC') COMMENT 'Time of the first injection; UTC, us' CODEC(Delta, LZ4),
    last_at DateTime64(6, 'UTC') COMMENT 'Time of the last injection; UTC, us' CODEC(Delta, LZ4),
    ingest_day Date COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table' CODEC(LZ4),
    incarnation UInt32 COMMENT 'Incarnation of the Kafka topic, see kafka_topics' CODEC(LZ4),
    kafka_partition Int32 COMMENT 'Kafka partition it came from' CODEC(LZ4),
    batch UInt64 COMMENT 'First Kafka offset of the batch that wrote the row' CODEC(LZ4),
    gen UInt32 COMMENT 'Attempt of the batch; rises when a deduplication token is burned' CODEC(LZ4),
    batch_hash UInt64 COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch' CODEC(LZ4),
    INDEX minute_range minute TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, site, device, model, firmware, minute)
SETTINGS non_replicated_deduplication_window = 100000, remove_empty_parts = 0, old_parts_lifetime = 480,
         merge_selector_base = 10, auto_statistics_types = ''
COMMENT 'Accuracy sums by device and minute of `at`; sum over rows';

-- Key: device, calibration and set point, the order in which accuracy is judged; sessions by the
-- bloom filter. The sums are kept apart by outcome, because an injection that the device itself
-- says went wrong delivers less by intent. Accuracy is that of injections that ended OK; whoever
-- asks for all of them sums over the rows.
CREATE TABLE IF NOT EXISTS accuracy_session
(
    tenant LowCardinality(String) COMMENT 'Tenant, from the topic',
    site LowCardinality(String) COMMENT 'Site, from the topic at the time',
    device LowCardinality(String) COMMENT 'Device, from the topic',
    model LowCardinality(String) COMMENT 'Device model as the report says; empty = not said',
    firmware LowCardinality(String) COMMENT 'Firmware as the report says; empty = not said',
    session_id String COMMENT 'Session, 32 hex digits; empty = outside a session' CODEC(LZ4),
    dose_calibration_id LowCardinality(String) COMMENT 'Dose calibration in force; empty = not said',
    depth_calibration_id LowCardinality(String) COMMENT 'Depth calibration in force; empty = not said',
    target_nl Nullable(UInt32) COMMENT 'Dose set point, nl; NULL = not said' CODEC(T64, LZ4),
    target_um Nullable(UInt16) COMMENT 'Depth set point, um; NULL = not said' CODEC(T64, LZ4),
    outcome LowCardinality(String) COMMENT 'How the injections ended: OK, PARTIAL, ABORTED, OCCLUDED or NO_CONTACT; empty = not said; a number = not known to this version',
    injections UInt64 COMMENT 'Injections, with or without measured values' CODEC(T64, LZ4),
    dose_n UInt64 COMMENT 'Injections with target and delivered dose and a source other than SETTING' CODEC(T64, LZ4),
    dose_target_nl UInt64 COMMENT 'Sum of their targets, nl' CODEC(T64, LZ4),
    dose_delivered_nl UInt64 COMMENT 'Sum of their delivered values, nl' CODEC(T64, LZ4),
    dose_error_nl Int64 COMMENT 'Sum of delivered - target, nl' CODEC(T64, LZ4),
    dose_error_sq UInt64 COMMENT 'Sum of the squares of delivered - target, nl^2' CODEC(T64, LZ4),
    dose_error_min Nullable(Int32) COMMENT 'Least delivered - target, nl; NULL = none' CODEC(T64, LZ4),
    dose_error_max Nullable(Int32) COMMENT 'Greatest delivered - target, nl; NULL = none' CODEC(T64, LZ4),
    depth_n UInt64 COMMENT 'Injections with target and measured depth and a source other than SETTING' CODEC(T64, LZ4),
    depth_target_um UInt64 COMMENT 'Sum of their targets, um' CODEC(T64, LZ4),
    depth_measured_um UInt64 COMMENT 'Sum of their measured values, um' CODEC(T64, LZ4),
    depth_error_um Int64 COMMENT 'Sum of measured - target, um' CODEC(T64, LZ4),
    depth_error_sq UInt64 COMMENT 'Sum of the squares of measured - target, um^2' CODEC(T64, LZ4),
    depth_error_min Nullable(Int32) COMMENT 'Least measured - target, um; NULL = none' CODEC(T64, LZ4),
    depth_error_max Nullable(Int32) COMMENT 'Greatest measured - target, um; NULL = none' CODEC(T64, LZ4),
    ok UInt64 COMMENT 'Injections with outcome OK' CODEC(T64, LZ4),
    partial UInt64 COMMENT 'Injections with outcome PARTIAL' CODEC(T64, LZ4),
    aborted UInt64 COMMENT 'Injections with outcome ABORTED' CODEC(T64, LZ4),
    occluded UInt64 COMMENT 'Injections with outcome OCCLUDED' CODEC(T64, LZ4),
    no_contact UInt64 COMMENT 'Injections with outcome NO_CONTACT' CODEC(T64, LZ4),
    first_at DateTime64(6, 'UTC') COMMENT 'Time of the first injection; UTC, us' CODEC(Delta, LZ4),
    last_at DateTime64(6, 'UTC') COMMENT 'Time of the last injection; UTC, us' CODEC(Delta, LZ4),
    dose_error_bins Array(Int32) COMMENT 'Histogram: floor(100 * dose error / target) in percent, for targets above 0' CODEC(Delta, LZ4),
    dose_error_counts Array(UInt32) COMMENT 'Histogram: injections in each bin of dose_error_bins; combine with sumMap' CODEC(T64, LZ4),
    ingest_day Date COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table' CODEC(LZ4),
    incarnation UInt32 COMMENT 'Incarnation of the Kafka topic, see kafka_topics' CODEC(LZ4),
    kafka_partition Int32 COMMENT 'Kafka partition it came from' CODEC(LZ4),
    batch UInt64 COMMENT 'First Kafka offset of the batch that wrote the row' CODEC(LZ4),
    gen UInt32 COMMENT 'Attempt of the batch; rises when a deduplication token is burned' CODEC(LZ4),
    batch_hash UInt64 COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch' CODEC(LZ4),
    INDEX visit session_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, site, device, model, firmware, dose_calibration_id, depth_calibration_id, session_id)
SETTINGS non_replicated_deduplication_window = 100000, remove_empty_parts = 0, old_parts_lifetime = 480,
         merge_selector_base = 10, auto_statistics_types = ''
COMMENT 'Accuracy sums by session, calibration and set point; sum over rows';

-- Key: device and session; an item or mount is followed by the bloom filters.
CREATE TABLE IF NOT EXISTS item_uses
(
    tenant LowCardinality(String) COMMENT 'Tenant, from the topic',
    site LowCardinality(String) COMMENT 'Site, from the topic at the time',
    device LowCardinality(String) COMMENT 'Device, from the topic',
    session_id String COMMENT 'Session, 32 hex digits; empty = outside a session' CODEC(LZ4),
    slot LowCardinality(String) COMMENT 'NEEDLE, SYRINGE, HANDPIECE, CARTRIDGE or TUBING; empty = not said',
    mount_id String COMMENT 'The mount; empty = not said' CODEC(LZ4),
    item_id String COMMENT 'The item as the device knew it; empty = not said' CODEC(LZ4),
    injections UInt64 COMMENT 'Injections made with it' CODEC(T64, LZ4),
    punctures UInt64 COMMENT 'Punctures made with it; an injection that does not say counts 1' CODEC(T64, LZ4),
    delivered_nl UInt64 COMMENT 'Volume delivered through it, nl, as far as known' CODEC(T64, LZ4),
    delivered_n UInt64 COMMENT 'Injections whose volume is known' CODEC(T64, LZ4),
    first_at DateTime64(6, 'UTC') COMMENT 'Time of the first injection; UTC, us' CODEC(Delta, LZ4),
    last_at DateTime64(6, 'UTC') COMMENT 'Time of the last injection; UTC, us' CODEC(Delta, LZ4),
    undated UInt64 COMMENT 'Injections whose device time is not known, so that their time in first_at and last_at is that of receipt' CODEC(T64, LZ4),
    ingest_day Date COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table' CODEC(LZ4),
    incarnation UInt32 COMMENT 'Incarnation of the Kafka topic, see kafka_topics' CODEC(LZ4),
    kafka_partition Int32 COMMENT 'Kafka partition it came from' CODEC(LZ4),
    batch UInt64 COMMENT 'First Kafka offset of the batch that wrote the row' CODEC(LZ4),
    gen UInt32 COMMENT 'Attempt of the batch; rises when a deduplication token is burned' CODEC(LZ4),
    batch_hash UInt64 COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch' CODEC(LZ4),
    INDEX mounting mount_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX item item_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, site, device, session_id, slot, mount_id, item_id)
SETTINGS non_replicated_deduplication_window = 100000, remove_empty_parts = 0, old_parts_lifetime = 480,
         merge_selector_base = 10, auto_statistics_types = ''
COMMENT 'Use of mounted items by session; sum over rows';

-- Key: as accuracy_minute, one row a key and ingest day. Made for closed ingest days and swapped in
-- whole; not written by the loader.
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
SETTINGS old_parts_lifetime = 480
COMMENT 'Accuracy sums by device and hour, for closed ingest days only; sum over rows';

-- Key: as accuracy_minute, one row a key and ingest day. Made for closed ingest days and swapped in
-- whole; not written by the loader.
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
SETTINGS old_parts_lifetime = 480
COMMENT 'Accuracy sums by device and day, for closed ingest days only; sum over rows';

-- Sums in 128 bits: exact for any number of rows; only the last step is floating point.
CREATE OR REPLACE VIEW dose_accuracy
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    site LowCardinality(String) COMMENT 'Site',
    device LowCardinality(String) COMMENT 'Device',
    model LowCardinality(String) COMMENT 'Device model as reported',
    firmware LowCardinality(String) COMMENT 'Firmware as reported',
    dose_calibration_id LowCardinality(String) COMMENT 'Dose calibration in force; empty = not said',
    target_nl UInt32 COMMENT 'Set point, nl',
    sessions UInt64 COMMENT 'Sessions with such injections',
    n UInt64 COMMENT 'Injections with outcome OK (or not said), target and delivered dose and a source other than SETTING',
    mean_error Float64 COMMENT 'Mean of delivered - target, nl',
    sd_error Nullable(Float64) COMMENT 'Standard deviation of delivered - target (n - 1), nl; NULL for n < 2',
    error_pct Nullable(Float64) COMMENT '100 * sum of errors / sum of targets; NULL at target 0',
    least_error Int32 COMMENT 'Least delivered - target, nl',
    greatest_error Int32 COMMENT 'Greatest delivered - target, nl',
    sum_error Int128 COMMENT 'Exact sum of errors, nl',
    sum_error_sq Int128 COMMENT 'Exact sum of squared errors, nl^2',
    sum_target Int128 COMMENT 'Exact sum of targets, nl',
    first_at DateTime64(6, 'UTC') COMMENT 'Time of the first injection; UTC',
    last_at DateTime64(6, 'UTC') COMMENT 'Time of the last injection; UTC'
)
AS SELECT
    tenant,
    site,
    device,
    model,
    firmware,
    dose_calibration_id,
    assumeNotNull(target_nl) AS target_nl,
    uniqExact(session_id) AS sessions,
    sum(dose_n) AS n,
    toFloat64(sum_error) / n AS mean_error,
    if(n < 2, NULL, sqrt(toFloat64(toInt128(n) * sum_error_sq - sum_error * sum_error) / n / (n - 1))) AS sd_error,
    if(sum_target = 0, NULL, 100 * toFloat64(sum_error) / toFloat64(sum_target)) AS error_pct,
    assumeNotNull(min(dose_error_min)) AS least_error,
    assumeNotNull(max(dose_error_max)) AS greatest_error,
    sum(toInt128(dose_error_nl)) AS sum_error,
    sum(toInt128(dose_error_sq)) AS sum_error_sq,
    sum(toInt128(dose_target_nl)) AS sum_target,
    min(accuracy.first_at) AS first_at,
    max(accuracy.last_at) AS last_at
FROM accuracy_session AS accuracy
WHERE dose_n > 0 AND outcome IN ('OK', '')
GROUP BY tenant, site, device, model, firmware, dose_calibration_id, target_nl
COMMENT 'Dose accuracy by device, calibration and set point';

-- Sums in 128 bits: exact for any number of rows; only the last step is floating point.
CREATE OR REPLACE VIEW depth_accuracy
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    site LowCardinality(String) COMMENT 'Site',
    device LowCardinality(String) COMMENT 'Device',
    model LowCardinality(String) COMMENT 'Device model as reported',
    firmware LowCardinality(String) COMMENT 'Firmware as reported',
    depth_calibration_id LowCardinality(String) COMMENT 'Depth calibration in force; empty = not said',
    target_um UInt16 COMMENT 'Set point, um',
    sessions UInt64 COMMENT 'Sessions with such injections',
    n UInt64 COMMENT 'Injections with outcome OK (or not said), target and measured depth and a source other than SETTING',
    mean_error Float64 COMMENT 'Mean of measured - target, um',
    sd_error Nullable(Float64) COMMENT 'Standard deviation of measured - target (n - 1), um; NULL for n < 2',
    error_pct Nullable(Float64) COMMENT '100 * sum of errors / sum of targets; NULL at target 0',
    least_error Int32 COMMENT 'Least measured - target, um',
    greatest_error Int32 COMMENT 'Greatest measured - target, um',
    sum_error Int128 COMMENT 'Exact sum of errors, um',
    sum_error_sq Int128 COMMENT 'Exact sum of squared errors, um^2',
    sum_target Int128 COMMENT 'Exact sum of targets, um',
    first_at DateTime64(6, 'UTC') COMMENT 'Time of the first injection; UTC',
    last_at DateTime64(6, 'UTC') COMMENT 'Time of the last injection; UTC'
)
AS SELECT
    tenant,
    site,
    device,
    model,
    firmware,
    depth_calibration_id,
    assumeNotNull(target_um) AS target_um,
    uniqExact(session_id) AS sessions,
    sum(depth_n) AS n,
    toFloat64(sum_error) / n AS mean_error,
    if(n < 2, NULL, sqrt(toFloat64(toInt128(n) * sum_error_sq - sum_error * sum_error) / n / (n - 1))) AS sd_error,
    if(sum_target = 0, NULL, 100 * toFloat64(sum_error) / toFloat64(sum_target)) AS error_pct,
    assumeNotNull(min(depth_error_min)) AS least_error,
    assumeNotNull(max(depth_error_max)) AS greatest_error,
    sum(toInt128(depth_error_um)) AS sum_error,
    sum(toInt128(depth_error_sq)) AS sum_error_sq,
    sum(toInt128(depth_target_um)) AS sum_target,
    min(accuracy.first_at) AS first_at,
    max(accuracy.last_at) AS last_at
FROM accuracy_session AS accuracy
WHERE depth_n > 0 AND outcome IN ('OK', '')
GROUP BY tenant, site, device, model, firmware, depth_calibration_id, target_um
COMMENT 'Depth accuracy by device, calibration and set point';

-- A syringe's balance, with what primed the needle: a device may name the needle's mount, or the
-- syringe's, when it primes. What was primed through another mount left the syringe or cartridge
-- that was mounted last before it.
CREATE OR REPLACE VIEW mass_balance
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    site String COMMENT 'Site of the mounting',
    device LowCardinality(String) COMMENT 'Device',
    mount_id String COMMENT 'The mount',
    item_id String COMMENT 'The syringe or cartridge; empty = not said',
    slot String COMMENT 'SYRINGE or CARTRIDGE',
    mounted_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When it was mounted; UTC; NULL = not received',
    removed_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When it was removed; UTC; NULL = not yet, or not received',
    fill_nl Nullable(UInt64) COMMENT 'Filling, nl; NULL = not said',
    primed_nl Nullable(UInt64) COMMENT 'Volume used for priming, nl; 0 = no priming reported; NULL = primed with an unknown volume',
    residual_nl Nullable(UInt64) COMMENT 'What was left in it, nl; NULL = not said',
    residual_source String COMMENT 'What measured the residual; empty = not said',
    injections UInt64 COMMENT 'Injections made from it',
    delivered_n UInt64 COMMENT 'Injections whose volume is known',
    delivered_nl UInt64 COMMENT 'Sum of the known volumes, nl',
    balance_nl Nullable(Int64) COMMENT 'fill - primed - residual - delivered, nl; NULL where any of it is not known',
    balance_pct Nullable(Float64) COMMENT '100 * balance / (fill - primed - residual); NULL where not known or nothing was used'
)
AS WITH vessels AS
(
    SELECT tenant, device, mount_id, min(row.at) AS at
    FROM mounts AS row WHERE event = 'MOUNTED' AND slot IN ('SYRINGE', 'CARTRIDGE') AND mount_id != ''
    GROUP BY tenant, device, mount_id
)
SELECT
    tenant,
    argMax(row.site, row.at) AS site,
    device,
    mount_id,
    max(row.item_id) AS item_id,
    max(row.slot) AS slot,
    minIf(toNullable(row.at), event = 'MOUNTED') AS mounted_at,
    maxIf(toNullable(row.at), event = 'REMOVED') AS removed_at,
    max(row.fill_nl) AS fill_nl,
    if(countIf(event = 'PRIMED') != count(row.primed_nl), NULL, toNullable(ifNull(sum(row.primed_nl), 0))) AS primed_nl,
    argMaxIf(tuple(row.residual_nl), row.at, event = 'REMOVED').1 AS residual_nl,
    argMaxIf(row.residual_source, row.at, event = 'REMOVED') AS residual_source,
    sum(row.injections) AS injections,
    sum(row.delivered_n) AS delivered_n,
    sum(row.delivered_nl) AS delivered_nl,
    if(delivered_n = injections, toInt64(fill_nl) - toInt64(primed_nl) - toInt64(residual_nl) - toInt64(delivered_nl), NULL) AS balance_nl,
    if(balance_nl + delivered_nl > 0, 100 * toFloat64(balance_nl) / toFloat64(balance_nl + delivered_nl), NULL) AS balance_pct
FROM
(
    SELECT
        tenant, site, device, mount_id, item_id, toString(slot) AS slot, toString(event) AS event, at, fill_nl,
        NULL AS primed_nl, residual_nl, toString(residual_source) AS residual_source,
        0 AS injections, 0 AS delivered_n, 0 AS delivered_nl
    FROM mounts
    WHERE mount_id != '' AND event != 'PRIMED'
    UNION ALL
    SELECT
        primed.tenant, primed.site, primed.device,
        if((primed.tenant, primed.device, primed.mount_id) IN (SELECT tenant, device, mount_id FROM vessels),
            primed.mount_id, vessel.mount_id) AS mount_id,
        '', '', 'PRIMED', primed.at, NULL,
        primed.volume_nl, NULL, '',
        0, 0, 0
    FROM (SELECT tenant, site, device, mount_id, at, volume_nl FROM mounts WHERE event = 'PRIMED') AS primed
    ASOF LEFT JOIN vessels AS vessel
        ON vessel.tenant = primed.tenant AND vessel.device = primed.device AND vessel.at <= primed.at
    WHERE mount_id != ''
    UNION ALL
    SELECT
        tenant, site, device, mount_id, item_id, slot, '', first_at, NULL,
        NULL, NULL, '',
        injections, delivered_n, delivered_nl
    FROM item_uses
    WHERE mount_id != ''
) AS row
GROUP BY tenant, device, mount_id
HAVING slot IN ('SYRINGE', 'CARTRIDGE')
SETTINGS join_use_nulls = 0
COMMENT 'Syringes and cartridges: what went in against what was delivered';
