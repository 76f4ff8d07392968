-- What people look for on a chart, beside what the charts say; and a horizon that is configuration.

-- Their rate of false alarms fits no alarm budget, so they raise nothing.
ALTER TABLE drift ADD COLUMN IF NOT EXISTS western_electric Array(UInt8)
    COMMENT 'Western Electric rules that the last visit breaks, ascending: 1 = beyond 3 sigma, 2 = 2 of 3 beyond 2 sigma, 3 = 4 of 5 beyond 1 sigma, 4 = 8 on one side; shown, never an alert'
    CODEC(ZSTD(1)) AFTER spikes;
ALTER TABLE drift MODIFY COLUMN alarm COMMENT 'Whether the lower bound is less than forecast_days (parameters) after the last visit';

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
    western_electric Array(UInt8) COMMENT 'Western Electric rules that the last visit breaks, 1 to 4: shown, never an alert',
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
