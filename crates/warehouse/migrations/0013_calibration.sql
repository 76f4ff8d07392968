-- Verdicts on accuracy and the state of the drift charts, written by the monitor; what a failed
-- calibration means for earlier injections; what a manufacturer may see. A row may be written
-- twice, and the latest of a key stands.

-- Key: device, channel, calibration and exact set point. A change is a new row; what has no facts
-- any more gets a row CLEARED.
CREATE TABLE IF NOT EXISTS accuracy_verdicts
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    device LowCardinality(String) COMMENT 'Device',
    channel LowCardinality(String) COMMENT 'DOSE (values in nl) or DEPTH (values in um)',
    calibration_id LowCardinality(String) COMMENT 'Calibration in force; empty = not said',
    target UInt32 COMMENT 'Exact set point, nl or um by channel' CODEC(ZSTD(1)),
    site LowCardinality(String) COMMENT 'Site of the last injection',
    model LowCardinality(String) COMMENT 'Model as last reported; empty = not said',
    firmware LowCardinality(String) COMMENT 'Firmware as last reported; empty = not said',
    current Bool COMMENT 'Whether it is the calibration of the last injection: only such verdicts raise alerts',
    state LowCardinality(String) COMMENT 'PASS, FAIL, UNDECIDED (too little, or the model has no registered tolerance), CLEARED (its injections are gone)',
    reason String COMMENT 'In words' CODEC(ZSTD(1)),
    sessions UInt64 COMMENT 'Sessions; injections outside a session count for pass_simple only' CODEC(ZSTD(1)),
    n UInt64 COMMENT 'Injections with outcome OK (or not said), a target, a measured value and a source other than SETTING' CODEC(ZSTD(1)),
    mean_error Float64 COMMENT 'Mean of measured - target, nl or um' CODEC(ZSTD(1)),
    sd_error Nullable(Float64) COMMENT 'Standard deviation of measured - target (n - 1), nl or um; NULL for n < 2' CODEC(ZSTD(1)),
    limit_low Nullable(Float64) COMMENT 'Lower limit, nl or um; NULL = the model has no registered tolerance' CODEC(ZSTD(1)),
    limit_high Nullable(Float64) COMMENT 'Upper limit, nl or um; NULL = the model has no registered tolerance' CODEC(ZSTD(1)),
    pass_simple Nullable(Bool) COMMENT 'Verdict as if injections were independent, beside the other; NULL = not possible' CODEC(ZSTD(1)),
    k_simple Nullable(Float64) COMMENT 'Its exact two-sided tolerance factor' CODEC(ZSTD(1)),
    pass_clustered Nullable(Bool) COMMENT 'Verdict that knows that injections of a session are alike: the one that decides; NULL = not possible' CODEC(ZSTD(1)),
    k_clustered Nullable(Float64) COMMENT 'Its tolerance factor (one-way random effects)' CODEC(ZSTD(1)),
    k_actual Nullable(Float64) COMMENT 'Factor that would just have kept the limits; FAIL where it is below k_clustered' CODEC(ZSTD(1)),
    first_at DateTime64(6, 'UTC') COMMENT 'Time of the first injection; UTC, us' CODEC(Delta, ZSTD(1)),
    last_at DateTime64(6, 'UTC') COMMENT 'Time of the last injection; UTC, us' CODEC(Delta, ZSTD(1)),
    rule_version UInt32 COMMENT 'Version of the rules' CODEC(ZSTD(1)),
    parameters String COMMENT 'Limits that were used, JSON' CODEC(ZSTD(1)),
    completeness String COMMENT 'What was known to be missing when it was computed; empty = nothing' CODEC(ZSTD(1)),
    computed_at DateTime64(6, 'UTC') COMMENT 'When the row was computed; UTC, us; the latest of a key stands' CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(computed_at)
ORDER BY (tenant, device, channel, calibration_id, target)
SETTINGS old_parts_lifetime = 480
COMMENT 'Whether each device keeps its tolerance, by calibration and set point; read with FINAL';

-- Key: a chart: device, channel, set-point band and what started it. A calibration and a change of
-- firmware start a new one. The Western Electric rules are shown and raise nothing: their rate of
-- false alarms fits no alarm budget.
CREATE TABLE IF NOT EXISTS drift
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    device LowCardinality(String) COMMENT 'Device',
    channel LowCardinality(String) COMMENT 'DOSE or DEPTH',
    band UInt32 COMMENT 'Upper edge of the set-point band, nl or um; 0 = above the last edge, or the model has no bands' CODEC(ZSTD(1)),
    calibration_id LowCardinality(String) COMMENT 'Calibration in force; empty = not said',
    firmware LowCardinality(String) COMMENT 'Firmware; empty = not said',
    site LowCardinality(String) COMMENT 'Site of the last session',
    model LowCardinality(String) COMMENT 'Model; empty = not said',
    current Bool COMMENT 'Whether it is the chart that the last session is on: only such drift raises alerts',
    state LowCardinality(String) COMMENT 'LEARNING (too few sessions for a standardised value), IN_CONTROL, DRIFT (a chart has signalled since the calibration), CLEARED (its sessions are gone)',
    side LowCardinality(String) COMMENT 'DRIFT: UPPER (too much) or LOWER (too little); empty otherwise',
    sessions UInt64 COMMENT 'Sessions on the chart' CODEC(ZSTD(1)),
    n UInt64 COMMENT 'Injections behind them' CODEC(ZSTD(1)),
    last_error_pct Float64 COMMENT 'Error of the last session: 100 * sum(measured - target) / sum(target)' CODEC(ZSTD(1)),
    last_z Nullable(Float64) COMMENT 'The same, standardised; NULL while the chart learns' CODEC(ZSTD(1)),
    cusum_upper Nullable(Float64) COMMENT 'Upper CUSUM after the last session, sigma' CODEC(ZSTD(1)),
    cusum_lower Nullable(Float64) COMMENT 'Lower CUSUM after the last session, sigma' CODEC(ZSTD(1)),
    ewma Nullable(Float64) COMMENT 'EWMA after the last session, sigma' CODEC(ZSTD(1)),
    ewma_limit Nullable(Float64) COMMENT 'Its limit then, sigma' CODEC(ZSTD(1)),
    signal_session String COMMENT 'DRIFT: session at which a chart signalled first; empty otherwise' CODEC(ZSTD(1)),
    onset_session String COMMENT 'DRIFT: last session before the change by the CUSUM; empty = from the first one on, or not known' CODEC(ZSTD(1)),
    spikes Array(String) COMMENT 'Sessions beyond the Shewhart limit, in order of time' CODEC(ZSTD(1)),
    western_electric Array(UInt8) COMMENT 'Western Electric rules that the last session breaks, ascending: 1 = beyond 3 sigma, 2 = 2 of 3 beyond 2 sigma, 3 = 4 of 5 beyond 1 sigma, 4 = 8 on one side; shown, never an alert' CODEC(ZSTD(1)),
    forecast LowCardinality(String) COMMENT 'NOT_SIGNALLED, TOO_SHORT, NO_SLOPE, NO_TOLERANCE, CROSSING',
    crossing_at Nullable(DateTime64(6, 'UTC')) COMMENT 'CROSSING: when the fitted line leaves the tolerance; UTC' CODEC(ZSTD(1)),
    crossing_low Nullable(DateTime64(6, 'UTC')) COMMENT 'Its lower bound (Fieller, 95 %); UTC' CODEC(ZSTD(1)),
    crossing_high Nullable(DateTime64(6, 'UTC')) COMMENT 'Its upper bound; UTC' CODEC(ZSTD(1)),
    alarm Bool COMMENT 'Whether the lower bound is less than forecast_days (parameters) after the last session',
    first_at DateTime64(6, 'UTC') COMMENT 'Time of the first injection; UTC, us' CODEC(Delta, ZSTD(1)),
    last_at DateTime64(6, 'UTC') COMMENT 'Time of the last injection; UTC, us' CODEC(Delta, ZSTD(1)),
    rule_version UInt32 COMMENT 'Version of the rules' CODEC(ZSTD(1)),
    parameters String COMMENT 'Limits that were used, JSON' CODEC(ZSTD(1)),
    completeness String COMMENT 'What was known to be missing when it was computed; empty = nothing' CODEC(ZSTD(1)),
    computed_at DateTime64(6, 'UTC') COMMENT 'When the row was computed; UTC, us; the latest of a key stands' CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(computed_at)
ORDER BY (tenant, device, channel, band, calibration_id, firmware)
SETTINGS old_parts_lifetime = 480
COMMENT 'Drift charts since each calibration, by set-point band; read with FINAL, or through calibration_drift';

CREATE OR REPLACE VIEW calibration_drift
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    site LowCardinality(String) COMMENT 'Site of the last session',
    device LowCardinality(String) COMMENT 'Device',
    model LowCardinality(String) COMMENT 'Model; empty = not said',
    firmware LowCardinality(String) COMMENT 'Firmware; empty = not said',
    channel LowCardinality(String) COMMENT 'DOSE or DEPTH',
    band UInt32 COMMENT 'Upper edge of the set-point band, nl or um; 0 = above the last edge, or no bands',
    calibration_id LowCardinality(String) COMMENT 'Calibration in force; empty = not said',
    state LowCardinality(String) COMMENT 'LEARNING, IN_CONTROL or DRIFT',
    side LowCardinality(String) COMMENT 'UPPER, LOWER; empty = no drift',
    sessions UInt64 COMMENT 'Sessions since the calibration',
    last_error_pct Float64 COMMENT 'Error of the last session, percent of the target',
    ewma Nullable(Float64) COMMENT 'EWMA, sigma',
    ewma_limit Nullable(Float64) COMMENT 'Its limit, sigma',
    cusum_upper Nullable(Float64) COMMENT 'Upper CUSUM, sigma',
    cusum_lower Nullable(Float64) COMMENT 'Lower CUSUM, sigma',
    onset_session String COMMENT 'Last session before the change by the CUSUM; empty = not known',
    spikes Array(String) COMMENT 'Sessions beyond the Shewhart limit',
    western_electric Array(UInt8) COMMENT 'Western Electric rules that the last session breaks, 1 to 4: shown, never an alert',
    forecast LowCardinality(String) COMMENT 'NOT_SIGNALLED, TOO_SHORT, NO_SLOPE, NO_TOLERANCE, CROSSING',
    crossing_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When the fitted line leaves the tolerance; UTC',
    crossing_low Nullable(DateTime64(6, 'UTC')) COMMENT 'Its lower bound; UTC',
    last_at DateTime64(6, 'UTC') COMMENT 'Time of the last injection; UTC',
    computed_at DateTime64(6, 'UTC') COMMENT 'When it was computed; UTC'
)
AS SELECT
    tenant, site, device, model, firmware, channel, band, calibration_id, state, side, sessions, last_error_pct, ewma,
    ewma_limit, cusum_upper, cusum_lower, onset_session, spikes, western_electric, forecast, crossing_at, crossing_low, last_at,
    computed_at
FROM drift FINAL
WHERE current AND state != 'CLEARED'
COMMENT 'The drift chart that each device, channel and set-point band is on now';

-- The injections of the calibrated device between its last good calibration and this one. As found
-- = what the bench measured before it adjusted anything. The device's own calibration before this
-- one is the last good one; without any, all before.
CREATE OR REPLACE VIEW calibration_impact
(
    calibration_id LowCardinality(String) COMMENT 'The calibration whose result raises the question',
    channel String COMMENT 'DOSE or DEPTH',
    performed_at DateTime64(6, 'UTC') COMMENT 'When it was performed; UTC',
    as_found_error_pct Nullable(Float64) COMMENT 'Largest as-found error by magnitude: 100 * (indicated - reference) / reference; NULL = none said',
    since DateTime64(6, 'UTC') COMMENT 'When the last calibration before it was performed; UTC; 1970 = there was none',
    tenant LowCardinality(String) COMMENT 'Tenant',
    site LowCardinality(String) COMMENT 'Site of the injection',
    device LowCardinality(String) COMMENT 'The device that was calibrated',
    boot_id UInt64 COMMENT 'Boot of the device',
    seq UInt64 COMMENT 'Sequence number in the boot; with tenant, device and boot_id the identity of the injection',
    at DateTime64(6, 'UTC') COMMENT 'Time of the injection; UTC',
    session_id String COMMENT 'Session; empty = outside a session',
    outcome LowCardinality(String) COMMENT 'How it ended',
    target Nullable(UInt32) COMMENT 'Set point, nl or um by channel; NULL = not said',
    measured Nullable(UInt32) COMMENT 'What the device showed, nl or um by channel; NULL = not said'
)
AS WITH done AS
(
    SELECT
        tenant, toString(subject_device) AS subject, toString(channel) AS channel, toString(calibration_id) AS calibration_id,
        min(ifNull(performed_at, at)) AS performed,
        argMaxIf(100 * (indicated - reference) / reference, abs((indicated - reference) / reference),
            phase = 'AS_FOUND' AND ifNull(reference, 0) != 0 AND indicated IS NOT NULL) AS as_found,
        countIf(phase = 'AS_FOUND' AND ifNull(reference, 0) != 0 AND indicated IS NOT NULL) AS found_points
    FROM calibrations
    WHERE calibration_id != ''
    GROUP BY tenant, subject, channel, calibration_id
),
spans AS
(
    SELECT
        tenant, subject, channel, calibration_id, performed, if(found_points = 0, NULL, as_found) AS as_found,
        lagInFrame(performed, 1, toDateTime64(0, 6, 'UTC')) OVER
            (PARTITION BY tenant, subject, channel ORDER BY performed, calibration_id
             ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS before
    FROM done
)
SELECT
    span.calibration_id AS calibration_id,
    span.channel AS channel,
    span.performed AS performed_at,
    span.as_found AS as_found_error_pct,
    span.before AS since,
    shot.tenant AS tenant,
    shot.site AS site,
    shot.device AS device,
    shot.boot_id AS boot_id,
    shot.seq AS seq,
    shot.at AS at,
    shot.session_id AS session_id,
    shot.outcome AS outcome,
    if(span.channel = 'DOSE', shot.target_nl, toUInt32(shot.target_um)) AS target,
    if(span.channel = 'DOSE', shot.delivered_nl, toUInt32(shot.measured_um)) AS measured
FROM injections AS shot
INNER JOIN spans AS span ON span.tenant = shot.tenant AND span.subject = shot.device
WHERE shot.at >= span.before AND shot.at < span.performed
COMMENT 'Injections between the last calibration before it and each calibration: filter by calibration_id';

-- Key: none, one row matters. The secret that pseudonyms of units are made with; the first one made
-- stands for ever, so that a unit keeps its pseudonym. Nobody but the owner of the database is
-- granted this table.
CREATE TABLE IF NOT EXISTS unit_secret
(
    secret String COMMENT '64 random bytes, hex: the key of HMAC-SHA-256 behind calibration_by_unit.unit_key' CODEC(ZSTD(1)),
    made_at DateTime64(6, 'UTC') COMMENT 'When it was made; UTC; the first one counts' CODEC(ZSTD(1))
)
ENGINE = MergeTree
ORDER BY made_at
SETTINGS old_parts_lifetime = 480
COMMENT 'Secret of the pseudonyms of units; grant it to nobody';

INSERT INTO unit_secret (secret, made_at)
SELECT hex(randomString(64)), now64(6) WHERE (SELECT count() FROM unit_secret) = 0;

-- Sums of injections that ended OK.
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

CREATE OR REPLACE VIEW calibration_by_model
(
    manufacturer LowCardinality(String) COMMENT 'Manufacturer by the registry: who may see the row',
    model LowCardinality(String) COMMENT 'Model as reported',
    firmware LowCardinality(String) COMMENT 'Firmware as reported',
    lot String COMMENT 'Lot of the units; empty = not said',
    day Date COMMENT 'Day, UTC',
    channel String COMMENT 'DOSE or DEPTH',
    target UInt32 COMMENT 'Set point, nl or um',
    units UInt64 COMMENT 'Units behind the row',
    n UInt64 COMMENT 'Injections',
    mean_error Float64 COMMENT 'Mean of measured - target, nl or um, each unit with the weight of its injections',
    error_pct Nullable(Float64) COMMENT '100 * sum of errors / sum of targets; NULL at target 0',
    adjusted_error_pct Nullable(Float64) COMMENT 'The same after each unit''s own mean at the set point is taken off: drift of the model without the mix of units; NULL at target 0'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS WITH own AS
(
    SELECT
        manufacturer, unit_key, channel, target,
        toFloat64(sum(unit.sum_error)) / sum(unit.n) AS mean
    FROM calibration_by_unit AS unit
    GROUP BY manufacturer, unit_key, channel, target
)
SELECT
    unit.manufacturer AS manufacturer,
    unit.model AS model,
    unit.firmware AS firmware,
    unit.lot AS lot,
    unit.day AS day,
    unit.channel AS channel,
    unit.target AS target,
    uniqExact(unit.unit_key) AS units,
    sum(unit.n) AS n,
    toFloat64(sum(unit.sum_error)) / sum(unit.n) AS mean_error,
    if(sum(unit.sum_target) = 0, NULL, 100 * toFloat64(sum(unit.sum_error)) / toFloat64(sum(unit.sum_target))) AS error_pct,
    if(sum(unit.sum_target) = 0, NULL,
        100 * sum(toFloat64(unit.sum_error) - own.mean * unit.n) / toFloat64(sum(unit.sum_target))) AS adjusted_error_pct
FROM calibration_by_unit AS unit
INNER JOIN own ON own.manufacturer = unit.manufacturer AND own.unit_key = unit.unit_key AND own.channel = unit.channel
    AND own.target = unit.target
GROUP BY manufacturer, model, firmware, lot, day, channel, target
COMMENT 'Accuracy by model, firmware and lot, for manufacturers; adjusted within the unit';
