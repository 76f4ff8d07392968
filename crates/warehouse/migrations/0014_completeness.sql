-- Injections received M of known N: quarantined ones count as received, and each visit is counted for itself.

ALTER TABLE quarantine ADD COLUMN IF NOT EXISTS injection_no Nullable(UInt64) COMMENT 'Lifetime number of the injection, where one injection was refused and carries it; NULL = anything else' CODEC(Delta, ZSTD(1));

-- Lifetime injection numbers never restart, so what lies between the smallest and the greatest one is known to exist. A number
-- that is stored and was quarantined before, because it was replayed, is one number.
CREATE OR REPLACE VIEW injection_completeness
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    device LowCardinality(String) COMMENT 'Device',
    received UInt64 COMMENT 'Injections received that carry a number, stored or in quarantine',
    known UInt64 COMMENT 'Injections known to exist since the first one received: by their numbers and by what the device says',
    missing Int64 COMMENT 'known - received',
    at_least UInt8 COMMENT '1 = the device has not said its last number, so known is a lower bound; 0 = it has, as of last_said',
    first_injection_no UInt64 COMMENT 'Smallest number received',
    last_injection_no UInt64 COMMENT 'Greatest number received or said',
    last_said Nullable(DateTime64(6, 'UTC')) COMMENT 'When the device last said its number; NULL = never'
)
AS SELECT
    tenant,
    device,
    uniqExact(number) AS received,
    toUInt64(assumeNotNull(greatest(max(number), ifNull(max(said), 0)) - min(number) + 1)) AS known,
    toInt64(known) - toInt64(received) AS missing,
    assumeNotNull(ifNull(max(said), 0) < max(number)) AS at_least,
    assumeNotNull(min(number)) AS first_injection_no,
    toUInt64(first_injection_no + known - 1) AS last_injection_no,
    maxIf(time, said IS NOT NULL) AS last_said
FROM
(
    SELECT tenant, device, injection_no AS number, NULL::Nullable(UInt64) AS said, NULL::Nullable(DateTime64(6, 'UTC')) AS time
    FROM injections
    WHERE injection_no IS NOT NULL
    UNION ALL
    SELECT tenant, device, injection_no, NULL, NULL
    FROM quarantine
    WHERE injection_no IS NOT NULL
    UNION ALL
    SELECT tenant, device, NULL, injection_no, received_at
    FROM device_status
    WHERE injection_no IS NOT NULL
)
GROUP BY tenant, device
HAVING received > 0
COMMENT 'Injections received M of known N, by device, from the lifetime counter';

-- A device makes the injections of a visit one after the other, so those between two received ones of the visit belong to it.
-- How many there were before the first and after the last one received only the device's SessionEnded says. Quarantined ones
-- do not say their visit: one whose number lies between two of the visit belongs to it as well.
CREATE OR REPLACE VIEW session_completeness
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    device LowCardinality(String) COMMENT 'Device; a visit with several devices has a row for each',
    session_id String COMMENT 'Visit, 32 hex digits',
    received UInt64 COMMENT 'Injections of the visit received from the device, stored or in quarantine',
    known UInt64 COMMENT 'Injections of the visit known to have been made with the device: between two received numbers, or as many as it said at the end',
    missing Int64 COMMENT 'known - received',
    at_least UInt8 COMMENT '1 = the device has not said how many there were (no SessionEnded, or none with shots), so known is a lower bound; 0 = it has',
    first_injection_no Nullable(UInt64) COMMENT 'Smallest number received; NULL = none carries a number',
    last_injection_no Nullable(UInt64) COMMENT 'Greatest number received; NULL = none carries a number',
    ended_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When the device ended the visit; NULL = no SessionEnded has arrived'
)
AS WITH
    visits AS
    (
        SELECT
            tenant, device, session_id, count() AS stored, min(injection_no) AS first_no, max(injection_no) AS last_no,
            countIf(injection_no IS NULL) AS unnumbered
        FROM injections
        WHERE session_id != ''
        GROUP BY tenant, device, session_id
    ),
    refused AS
    (
        SELECT tenant, device, arraySort(groupUniqArray(assumeNotNull(injection_no))) AS numbers
        FROM quarantine
        WHERE injection_no IS NOT NULL AND (tenant, device, assumeNotNull(injection_no)) NOT IN
            (SELECT tenant, device, assumeNotNull(injection_no) FROM injections WHERE injection_no IS NOT NULL)
        GROUP BY tenant, device
    ),
    ends AS
    (
        SELECT tenant, device, session_id, max(shots) AS said, max(at) AS ended_at
        FROM sessions
        WHERE event = 'ENDED' AND session_id != ''
        GROUP BY tenant, device, session_id
    ),
    counted AS
    (
        SELECT
            visits.tenant AS tenant, visits.device AS device, visits.session_id AS session_id, visits.first_no AS first_no,
            visits.last_no AS last_no, visits.unnumbered AS unnumbered,
            toUInt64(visits.stored + arrayCount(number -> ifNull(number BETWEEN first_no AND last_no, 0), refused.numbers)) AS here
        FROM visits
        LEFT JOIN refused ON refused.tenant = visits.tenant AND refused.device = visits.device
    )
SELECT
    if(counted.session_id = '', ends.tenant, counted.tenant) AS tenant,
    if(counted.session_id = '', ends.device, counted.device) AS device,
    if(counted.session_id = '', ends.session_id, counted.session_id) AS session_id,
    counted.here AS received,
    greatest(counted.here, toUInt64(ifNull(counted.last_no - counted.first_no + 1, 0)) + counted.unnumbered, toUInt64(ifNull(ends.said, 0))) AS known,
    toInt64(known) - toInt64(received) AS missing,
    toUInt8(ifNull(ends.said < known, 1)) AS at_least,
    counted.first_no AS first_injection_no,
    counted.last_no AS last_injection_no,
    if(ends.session_id = '', NULL, ends.ended_at) AS ended_at
FROM counted
FULL JOIN ends ON ends.tenant = counted.tenant AND ends.device = counted.device AND ends.session_id = counted.session_id
COMMENT 'Injections received M of known N, by visit and device';

-- The balance of each boot: stored + quarantined + lost + missing = made. A boot that was named without its last number has an
-- unknown tail.
CREATE OR REPLACE VIEW delivery_completeness
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    site String COMMENT 'Site the boot was last heard from',
    device LowCardinality(String) COMMENT 'Device',
    boot_id UInt64 COMMENT 'Boot of the device',
    made UInt64 COMMENT 'Events known to have been made in the boot',
    stored UInt64 COMMENT 'Events in their tables',
    quarantined UInt64 COMMENT 'Events in quarantine',
    lost UInt64 COMMENT 'Events the device declared lost',
    missing UInt64 COMMENT 'Events that have not arrived; stored + quarantined + lost + missing = made',
    tail_known UInt8 COMMENT '1 = the device has said how far the boot reached, and nothing beyond it has arrived; 0 = there may be more, made is a lower bound',
    last_arrival DateTime64(6, 'UTC') COMMENT 'When the latest report of the boot, or one that declared it, was received; 1970 = only the device''s status knows it',
    injections_received UInt64 COMMENT 'Injections of the device that arrived, all boots; 0 = none that carries a number',
    injections_known UInt64 COMMENT 'Injections of the device known to exist, all boots',
    injections_at_least UInt8 COMMENT '1 = injections_known is a lower bound'
)
AS SELECT
    boot.tenant AS tenant,
    boot.site AS site,
    boot.device AS device,
    boot.boot_id AS boot_id,
    boot.known_last AS made,
    toUInt64(arraySum(run -> if(run.state = 'STORED', run.last - run.first + 1, 0), boot.runs)) AS stored,
    toUInt64(arraySum(run -> if(run.state = 'QUARANTINED', run.last - run.first + 1, 0), boot.runs)) AS quarantined,
    toUInt64(arraySum(run -> if(run.state = 'LOST', run.last - run.first + 1, 0), boot.runs)) AS lost,
    toUInt64(arraySum(run -> if(run.state = 'MISSING', run.last - run.first + 1, 0), boot.runs)) AS missing,
    boot.declared_last > 0 AND boot.declared_last >= boot.known_last AS tail_known,
    boot.last_arrival AS last_arrival,
    injections.received AS injections_received,
    injections.known AS injections_known,
    injections.tenant = '' OR injections.at_least AS injections_at_least
FROM delivery_state AS boot
LEFT JOIN injection_completeness AS injections ON injections.tenant = boot.tenant AND injections.device = boot.device
COMMENT 'How much of what each boot made has arrived';
