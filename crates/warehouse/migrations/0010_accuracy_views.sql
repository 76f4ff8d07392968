-- How accurate devices are. Nothing here judges: verdicts are the monitor's.

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
    sessions UInt64 COMMENT 'Visits with measured injections',
    n UInt64 COMMENT 'Injections with target and delivered dose and a source other than SETTING',
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
WHERE dose_n > 0
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
    sessions UInt64 COMMENT 'Visits with measured injections',
    n UInt64 COMMENT 'Injections with target and measured depth and a source other than SETTING',
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
WHERE depth_n > 0
GROUP BY tenant, site, device, model, firmware, depth_calibration_id, target_um
COMMENT 'Depth accuracy by device, calibration and set point';

-- fill - primed - residual against the sum delivered: a dose computed from an encoder cannot see its own drift.
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
AS SELECT
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
        if(event = 'PRIMED', volume_nl, NULL) AS primed_nl, residual_nl, toString(residual_source) AS residual_source,
        0 AS injections, 0 AS delivered_n, 0 AS delivered_nl
    FROM mounts
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
COMMENT 'Syringes and cartridges: what went in against what was delivered';

-- The latest calibration of each device and channel, by the time it was performed. An injector that was never calibrated shows too.
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
