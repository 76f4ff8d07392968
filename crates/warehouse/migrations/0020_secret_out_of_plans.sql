-- The secret of the pseudonyms is joined as a column. As the result of a subquery it is a constant,
-- which EXPLAIN shows to whoever may read the view.
CREATE OR REPLACE VIEW calibration_by_unit
(
    manufacturer LowCardinality(String) COMMENT 'Manufacturer by the registry: who may see the row',
    unit_key String COMMENT 'Pseudonym of the unit: HMAC-SHA-256 of its UDI, 64 hex digits',
    model LowCardinality(String) COMMENT 'Model as reported',
    firmware LowCardinality(String) COMMENT 'Firmware as reported',
    lot String COMMENT 'Lot of the unit: element (10) of its UDI, written with brackets or as scanned; empty = not said',
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
