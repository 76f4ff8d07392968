-- Accuracy is that of injections that ended OK: one that the device itself says went wrong delivers less by intent. So the sums by
-- visit and set point are kept apart by outcome, and whoever asks for all of them still sums over the rows.

-- Rows that were written before say it of all their injections alike, or are MIXED: these count in no figure of accuracy until
-- their day is rebuilt.
ALTER TABLE accuracy_session ADD COLUMN IF NOT EXISTS outcome LowCardinality(String)
    DEFAULT multiIf(ok = injections, 'OK', partial + aborted + occluded + no_contact = 0, '', 'MIXED')
    COMMENT 'How the injections ended: OK, PARTIAL, ABORTED, OCCLUDED or NO_CONTACT; empty = not said; a number = not known to this version; MIXED = several, written before they were kept apart'
    AFTER target_um;

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
    sessions UInt64 COMMENT 'Visits with such injections',
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
    sessions UInt64 COMMENT 'Visits with such injections',
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

-- As before, of injections that ended OK.
CREATE OR REPLACE VIEW calibration_by_unit
(
    manufacturer LowCardinality(String) COMMENT 'Manufacturer by the registry: who may see the row',
    unit_key String COMMENT 'Pseudonym of the unit: HMAC-SHA-256 of its UDI, 64 hex digits',
    model LowCardinality(String) COMMENT 'Model as reported',
    firmware LowCardinality(String) COMMENT 'Firmware as reported',
    lot String COMMENT 'Lot of the unit, from its UDI, element (10); empty = not said',
    day Date COMMENT 'Day of the first injection behind the row, UTC',
    channel String COMMENT 'DOSE (values in nl) or DEPTH (values in um)',
    target UInt32 COMMENT 'Set point, nl or um',
    n UInt64 COMMENT 'Injections with outcome OK (or not said), target and measured value and a source other than SETTING',
    sum_error Int128 COMMENT 'Exact sum of measured - target',
    sum_error_sq Int128 COMMENT 'Exact sum of squares of measured - target',
    sum_target Int128 COMMENT 'Exact sum of targets'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS WITH
    (SELECT unhex(argMin(secret, made_at)) FROM unit_secret) AS secret,
    arrayStringConcat(arrayMap(place -> char(bitXor(reinterpretAsUInt8(substring(secret, place, 1)), 54)), range(1, 65))) AS inner_pad,
    arrayStringConcat(arrayMap(place -> char(bitXor(reinterpretAsUInt8(substring(secret, place, 1)), 92)), range(1, 65))) AS outer_pad,
    units AS
    (
        SELECT
            tenant, device, manufacturer,
            lower(hex(SHA256(concat(outer_pad, SHA256(concat(inner_pad, if(udi != '', udi, serial))))))) AS unit_key,
            extract(replaceAll(udi, char(29), '|'), '\\(10\\)([^(|]+)') AS lot
        FROM devices_latest
        WHERE manufacturer != '' AND (udi != '' OR serial != '')
    )
SELECT
    unit.manufacturer AS manufacturer,
    unit.unit_key AS unit_key,
    sums.model AS model,
    sums.firmware AS firmware,
    unit.lot AS lot,
    sums.day AS day,
    sums.channel AS channel,
    sums.target AS target,
    sum(sums.n) AS n,
    sum(sums.error) AS sum_error,
    sum(sums.error_sq) AS sum_error_sq,
    sum(sums.targets) AS sum_target
FROM
(
    SELECT
        tenant, device, model, firmware, toDate(first_at, 'UTC') AS day, 'DOSE' AS channel, assumeNotNull(target_nl) AS target,
        dose_n AS n, toInt128(dose_error_nl) AS error, toInt128(dose_error_sq) AS error_sq, toInt128(dose_target_nl) AS targets
    FROM accuracy_session WHERE dose_n > 0 AND outcome IN ('OK', '')
    UNION ALL
    SELECT
        tenant, device, model, firmware, toDate(first_at, 'UTC'), 'DEPTH', toUInt32(assumeNotNull(target_um)),
        depth_n, toInt128(depth_error_um), toInt128(depth_error_sq), toInt128(depth_target_um)
    FROM accuracy_session WHERE depth_n > 0 AND outcome IN ('OK', '')
) AS sums
INNER JOIN units AS unit ON unit.tenant = sums.tenant AND unit.device = sums.device
GROUP BY manufacturer, unit_key, model, firmware, lot, day, channel, target
COMMENT 'Accuracy sums by pseudonymous unit and day, for manufacturers';
