-- Verdicts on accuracy and the state of the drift charts, written by the monitor. They are not on the loader's path: a row may
-- be written twice, and the latest of a key stands.

-- Key: device, channel, calibration and exact set point. A change is a new row; what has no facts any more gets a row CLEARED.
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
    sessions UInt64 COMMENT 'Visits; injections outside a visit count for pass_simple only' CODEC(ZSTD(1)),
    n UInt64 COMMENT 'Injections with outcome OK (or not said), a target, a measured value and a source other than SETTING' CODEC(ZSTD(1)),
    mean_error Float64 COMMENT 'Mean of measured - target, nl or um' CODEC(ZSTD(1)),
    sd_error Nullable(Float64) COMMENT 'Standard deviation of measured - target (n - 1), nl or um; NULL for n < 2' CODEC(ZSTD(1)),
    limit_low Nullable(Float64) COMMENT 'Lower limit, nl or um; NULL = the model has no registered tolerance' CODEC(ZSTD(1)),
    limit_high Nullable(Float64) COMMENT 'Upper limit, nl or um; NULL = the model has no registered tolerance' CODEC(ZSTD(1)),
    pass_simple Nullable(Bool) COMMENT 'Verdict as if injections were independent, beside the other; NULL = not possible' CODEC(ZSTD(1)),
    k_simple Nullable(Float64) COMMENT 'Its exact two-sided tolerance factor' CODEC(ZSTD(1)),
    pass_clustered Nullable(Bool) COMMENT 'Verdict that knows that injections of a visit are alike: the one that decides; NULL = not possible' CODEC(ZSTD(1)),
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
COMMENT 'Whether each device keeps its tolerance, by calibration and set point; read with FINAL';

-- Key: a chart: device, channel, set-point band and what started it. A calibration and a change of firmware start a new one.
CREATE TABLE IF NOT EXISTS drift
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    device LowCardinality(String) COMMENT 'Device',
    channel LowCardinality(String) COMMENT 'DOSE or DEPTH',
    band UInt32 COMMENT 'Upper edge of the set-point band, nl or um; 0 = above the last edge, or the model has no bands' CODEC(ZSTD(1)),
    calibration_id LowCardinality(String) COMMENT 'Calibration in force; empty = not said',
    firmware LowCardinality(String) COMMENT 'Firmware; empty = not said',
    site LowCardinality(String) COMMENT 'Site of the last visit',
    model LowCardinality(String) COMMENT 'Model; empty = not said',
    current Bool COMMENT 'Whether it is the chart that the last visit is on: only such drift raises alerts',
    state LowCardinality(String) COMMENT 'LEARNING (too few visits for a standardised value), IN_CONTROL, DRIFT (a chart has signalled since the calibration), CLEARED (its visits are gone)',
    side LowCardinality(String) COMMENT 'DRIFT: UPPER (too much) or LOWER (too little); empty otherwise',
    sessions UInt64 COMMENT 'Visits on the chart' CODEC(ZSTD(1)),
    n UInt64 COMMENT 'Injections behind them' CODEC(ZSTD(1)),
    last_error_pct Float64 COMMENT 'Error of the last visit: 100 * sum(measured - target) / sum(target)' CODEC(ZSTD(1)),
    last_z Nullable(Float64) COMMENT 'The same, standardised; NULL while the chart learns' CODEC(ZSTD(1)),
    cusum_upper Nullable(Float64) COMMENT 'Upper CUSUM after the last visit, sigma' CODEC(ZSTD(1)),
    cusum_lower Nullable(Float64) COMMENT 'Lower CUSUM after the last visit, sigma' CODEC(ZSTD(1)),
    ewma Nullable(Float64) COMMENT 'EWMA after the last visit, sigma' CODEC(ZSTD(1)),
    ewma_limit Nullable(Float64) COMMENT 'Its limit then, sigma' CODEC(ZSTD(1)),
    signal_session String COMMENT 'DRIFT: visit at which a chart signalled first; empty otherwise' CODEC(ZSTD(1)),
    onset_session String COMMENT 'DRIFT: last visit before the change by the CUSUM; empty = from the first one on, or not known' CODEC(ZSTD(1)),
    spikes Array(String) COMMENT 'Visits beyond the Shewhart limit, in order of time' CODEC(ZSTD(1)),
    forecast LowCardinality(String) COMMENT 'NOT_SIGNALLED, TOO_SHORT, NO_SLOPE, NO_TOLERANCE, CROSSING',
    crossing_at Nullable(DateTime64(6, 'UTC')) COMMENT 'CROSSING: when the fitted line leaves the tolerance; UTC' CODEC(ZSTD(1)),
    crossing_low Nullable(DateTime64(6, 'UTC')) COMMENT 'Its lower bound (Fieller, 95 %); UTC' CODEC(ZSTD(1)),
    crossing_high Nullable(DateTime64(6, 'UTC')) COMMENT 'Its upper bound; UTC' CODEC(ZSTD(1)),
    alarm Bool COMMENT 'Whether the lower bound is less than 30 days after the last visit',
    first_at DateTime64(6, 'UTC') COMMENT 'Time of the first injection; UTC, us' CODEC(Delta, ZSTD(1)),
    last_at DateTime64(6, 'UTC') COMMENT 'Time of the last injection; UTC, us' CODEC(Delta, ZSTD(1)),
    rule_version UInt32 COMMENT 'Version of the rules' CODEC(ZSTD(1)),
    parameters String COMMENT 'Limits that were used, JSON' CODEC(ZSTD(1)),
    completeness String COMMENT 'What was known to be missing when it was computed; empty = nothing' CODEC(ZSTD(1)),
    computed_at DateTime64(6, 'UTC') COMMENT 'When the row was computed; UTC, us; the latest of a key stands' CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(computed_at)
ORDER BY (tenant, device, channel, band, calibration_id, firmware)
COMMENT 'Drift charts since each calibration, by set-point band; read with FINAL, or through calibration_drift';

CREATE OR REPLACE VIEW calibration_drift
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    site LowCardinality(String) COMMENT 'Site of the last visit',
    device LowCardinality(String) COMMENT 'Device',
    model LowCardinality(String) COMMENT 'Model; empty = not said',
    firmware LowCardinality(String) COMMENT 'Firmware; empty = not said',
    channel LowCardinality(String) COMMENT 'DOSE or DEPTH',
    band UInt32 COMMENT 'Upper edge of the set-point band, nl or um; 0 = above the last edge, or no bands',
    calibration_id LowCardinality(String) COMMENT 'Calibration in force; empty = not said',
    state LowCardinality(String) COMMENT 'LEARNING, IN_CONTROL or DRIFT',
    side LowCardinality(String) COMMENT 'UPPER, LOWER; empty = no drift',
    sessions UInt64 COMMENT 'Visits since the calibration',
    last_error_pct Float64 COMMENT 'Error of the last visit, percent of the target',
    ewma Nullable(Float64) COMMENT 'EWMA, sigma',
    ewma_limit Nullable(Float64) COMMENT 'Its limit, sigma',
    cusum_upper Nullable(Float64) COMMENT 'Upper CUSUM, sigma',
    cusum_lower Nullable(Float64) COMMENT 'Lower CUSUM, sigma',
    onset_session String COMMENT 'Last visit before the change by the CUSUM; empty = not known',
    spikes Array(String) COMMENT 'Visits beyond the Shewhart limit',
    forecast LowCardinality(String) COMMENT 'NOT_SIGNALLED, TOO_SHORT, NO_SLOPE, NO_TOLERANCE, CROSSING',
    crossing_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When the fitted line leaves the tolerance; UTC',
    crossing_low Nullable(DateTime64(6, 'UTC')) COMMENT 'Its lower bound; UTC',
    last_at DateTime64(6, 'UTC') COMMENT 'Time of the last injection; UTC',
    computed_at DateTime64(6, 'UTC') COMMENT 'When it was computed; UTC'
)
AS SELECT
    tenant, site, device, model, firmware, channel, band, calibration_id, state, side, sessions, last_error_pct, ewma,
    ewma_limit, cusum_upper, cusum_lower, onset_session, spikes, forecast, crossing_at, crossing_low, last_at, computed_at
FROM drift FINAL
WHERE current AND state != 'CLEARED'
COMMENT 'The drift chart that each device, channel and set-point band is on now';
