-- How the error of units changes with the time since their calibration. A calibration counts from
-- the first day on which the unit was used under it, so the view needs no date of a bench. The
-- pseudonym and the lot of a unit are those of calibration_by_unit.
CREATE OR REPLACE VIEW calibration_by_age
(
    manufacturer LowCardinality(String) COMMENT 'Manufacturer by the registry: who may see the row',
    unit_key String COMMENT 'Pseudonym of the unit, as in calibration_by_unit',
    model LowCardinality(String) COMMENT 'Model as reported',
    firmware LowCardinality(String) COMMENT 'Firmware as reported',
    lot String COMMENT 'Lot of the unit, as in calibration_by_unit; empty = not said',
    channel String COMMENT 'DOSE (values in nl) or DEPTH (values in um)',
    target UInt32 COMMENT 'Set point, nl or um',
    days_since_calibration UInt32 COMMENT 'Days since the first day on which the unit was used under the calibration in force',
    n UInt64 COMMENT 'Injections with outcome OK (or not said), target and measured value and a source other than SETTING',
    sum_error Int128 COMMENT 'Exact sum of measured - target',
    sum_error_sq Int128 COMMENT 'Exact sum of squares of measured - target',
    sum_target Int128 COMMENT 'Exact sum of targets',
    judged UInt64 COMMENT 'DOSE: of these injections, those whose model has a registered tolerance at the set point',
    out UInt64 COMMENT 'Of the judged, those whose error lies outside the tolerance, which is rounded up to whole percents'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS WITH
    units AS
    (
        SELECT
            tenant, device, manufacturer,
            lower(hex(SHA256(concat(pads.outer_pad, SHA256(concat(pads.inner_pad, if(udi != '', udi, serial))))))) AS unit_key,
            arrayStringConcat(extractGroups(udi, '^[ \\t\\r\\n]*(?:\\](?:C1|e0|d2|Q3|J1))?[\\x1d|]*(?:\\((?:.*\\()?[ \\x{a0}]*10[ \\x{a0}]*\\)[ \\x{a0}]*([^(|\\x1d \\x{a0}]+)|01\\d{14}[\\x1d|]*(?:(?:00\\d{18}|0[23]\\d{14}|04\\d{16}|1[1-9]\\d{6}|20\\d\\d|3[1-6]\\d{8}|41\\d{14})[\\x1d|]*|(?:0[5-9]|2[1-9]|3[07-9]|4[02-9]|[5-9]\\d)[!"%-\\x27)-?A-Z_a-z]+[\\x1d|]+)*10([!"%-\\x27)-?A-Z_a-z]{1,20})(?:[\\x1d|]|[ \\t\\r\\n]*$))')) AS lot
        FROM devices_latest
        CROSS JOIN
        (
            SELECT
                arrayStringConcat(arrayMap(place -> char(bitXor(reinterpretAsUInt8(substring(key.secret, place, 1)), 54)), range(1, 65))) AS inner_pad,
                arrayStringConcat(arrayMap(place -> char(bitXor(reinterpretAsUInt8(substring(key.secret, place, 1)), 92)), range(1, 65))) AS outer_pad
            FROM (SELECT unhex(argMin(secret, made_at)) AS secret FROM unit_secret) AS key
        ) AS pads
        WHERE manufacturer != '' AND (udi != '' OR serial != '')
    )
SELECT
    unit.manufacturer AS manufacturer,
    unit.unit_key AS unit_key,
    days.model AS model,
    days.firmware AS firmware,
    unit.lot AS lot,
    days.channel AS channel,
    days.target AS target,
    toUInt32(days.day - days.first_day) AS days_since_calibration,
    sum(days.n) AS n,
    sum(days.error) AS sum_error,
    sum(days.error_sq) AS sum_error_sq,
    sum(days.targets) AS sum_target,
    sum(days.judged) AS judged,
    sum(days.out) AS out
FROM
(
    SELECT
        sums.tenant AS tenant, sums.device AS device, sums.model AS model, sums.firmware AS firmware, sums.channel AS channel,
        sums.target AS target, sums.day AS day,
        min(sums.day) OVER (PARTITION BY sums.tenant, sums.device, sums.channel, sums.calibration_id) AS first_day,
        sums.n AS n, sums.error AS error, sums.error_sq AS error_sq, sums.targets AS targets,
        greatest(known.dose_tolerance_ppm / 10000, 100 * known.dose_resolution_nl / sums.target) AS tolerance_pct,
        if(sums.channel = 'DOSE' AND sums.target > 0 AND known.dose_tolerance_ppm + known.dose_resolution_nl > 0,
            arraySum(sums.counts), 0) AS judged,
        if(judged = 0, 0, arraySum((bin, counted) -> if(bin >= tolerance_pct OR bin + 1 <= -tolerance_pct, counted, 0),
            sums.bins, sums.counts)) AS out
    FROM
    (
        SELECT
            tenant, device, model, firmware, toDate(first_at, 'UTC') AS day, 'DOSE' AS channel, dose_calibration_id AS calibration_id,
            assumeNotNull(target_nl) AS target, dose_n AS n, toInt128(dose_error_nl) AS error, toInt128(dose_error_sq) AS error_sq,
            toInt128(dose_target_nl) AS targets, dose_error_bins AS bins, dose_error_counts AS counts
        FROM accuracy_session WHERE dose_n > 0 AND outcome IN ('OK', '')
        UNION ALL
        SELECT
            tenant, device, model, firmware, toDate(first_at, 'UTC'), 'DEPTH', depth_calibration_id, toUInt32(assumeNotNull(target_um)),
            depth_n, toInt128(depth_error_um), toInt128(depth_error_sq), toInt128(depth_target_um), [], []
        FROM accuracy_session WHERE depth_n > 0 AND outcome IN ('OK', '')
    ) AS sums
    LEFT JOIN models_latest AS known ON known.model = sums.model
) AS days
INNER JOIN units AS unit ON unit.tenant = days.tenant AND unit.device = days.device
GROUP BY manufacturer, unit_key, model, firmware, lot, channel, target, days_since_calibration
COMMENT 'Accuracy sums by pseudonymous unit and days since its calibration, for manufacturers';
