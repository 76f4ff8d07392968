-- What has arrived, and what has not. Everything is computed from the sequence ledger that the
-- loader commits with each batch.

-- One row for each boot: the ledgers of all incarnations of the Kafka topic laid over each other,
-- and what the device itself says it made. A boot's latest state is that of the greatest end of a
-- batch, and of its highest generation where it was written twice: `version` has both, offsets up
-- to 2^48 and generations up to 2^16. `edges` are the ends of all intervals, sorted, where one
-- opens before another closes at the same number. How many are open behind an edge is counted in
-- one number, those of each kind in 20 bits of their own: stored, quarantined, lost. It gives the
-- state of the stretch up to the next edge: 3 stored, 2 quarantined, 1 lost, 0 missing, in this
-- order of precedence. The last edge lies behind known_last.
CREATE OR REPLACE VIEW delivery_state
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    site String COMMENT 'Site the boot was last heard from',
    device LowCardinality(String) COMMENT 'Device',
    boot_id UInt64 COMMENT 'Boot of the device',
    known_last UInt64 COMMENT 'Last sequence number known to exist: the greatest of what arrived, was lost by declaration, or the device says it made',
    declared_last UInt64 COMMENT 'Last sequence number the device says it made; 0 = it has not said',
    last_arrival DateTime64(6, 'UTC') COMMENT 'When the latest report of the boot, or one that declared it, was received; 1970 = only the device''s status knows it',
    runs Array(Tuple(first UInt64, last UInt64, state String)) COMMENT 'Stretches from 1 to known_last, ascending: first and last sequence number, state STORED, QUARANTINED, LOST or MISSING'
)
AS WITH
    boots AS
    (
        SELECT
            tenant, device, boot_id,
            argMax(commit.site, bitShiftLeft(batch_end, 16) + gen AS version) AS site,
            argMax(commit.stored_first, version) AS stored_first,
            argMax(commit.stored_last, version) AS stored_last,
            argMax(commit.quarantined_first, version) AS quarantined_first,
            argMax(commit.quarantined_last, version) AS quarantined_last,
            argMax(commit.lost_first, version) AS lost_first,
            argMax(commit.lost_last, version) AS lost_last,
            argMax(commit.declared_last, version) AS declared_last,
            argMax(commit.last_arrival, version) AS last_arrival
        FROM loader_commits AS commit
        WHERE kind = 'ledger'
        GROUP BY tenant, device, boot_id, incarnation, kafka_partition
        UNION ALL
        SELECT
            tenant, device, assumeNotNull(last_boot_id), argMaxIf(said.site, received_at, last_seq > 0),
            [], [], [], [], [], [], assumeNotNull(max(last_seq)), toDateTime64(0, 6, 'UTC')
        FROM device_status AS said
        WHERE last_boot_id > 0
        GROUP BY tenant, device, last_boot_id
        HAVING max(last_seq) > 0
    ),
    united AS
    (
        SELECT
            tenant, device, boot_id,
            argMax(boot.site, (boot.last_arrival, boot.site)) AS site,
            max(greatest(stored_last[-1], quarantined_last[-1], lost_last[-1], boot.declared_last)) AS known_last,
            max(boot.declared_last) AS declared_last,
            max(boot.last_arrival) AS last_arrival,
            arraySort(arrayConcat(
                [(toUInt64(1), 0), (known_last + 1, -1)],
                arrayMap(first -> (first, -1), groupArrayArray(stored_first)),
                arrayMap(last -> (last + 1, 1), groupArrayArray(stored_last)),
                arrayMap(first -> (first, -1048576), groupArrayArray(quarantined_first)),
                arrayMap(last -> (last + 1, 1048576), groupArrayArray(quarantined_last)),
                arrayMap(first -> (first, -1099511627776), groupArrayArray(lost_first)),
                arrayMap(last -> (last + 1, 1099511627776), groupArrayArray(lost_last)))) AS edges
        FROM boots AS boot
        GROUP BY tenant, device, boot_id
    ),
    arrayMap(open -> multiIf(-open % 1048576 > 0, 3, intDiv(-open, 1048576) % 1048576 > 0, 2, open < 0, 1, 0),
        arrayCumSum(edges.2)) AS states,
    arrayFilter((change, state, before) -> state != before,
        arrayZip(edges.1, states), states, arrayPushFront(arrayPopBack(states), 255)) AS changes
SELECT
    tenant,
    site,
    device,
    boot_id,
    known_last,
    declared_last,
    last_arrival,
    arrayFilter(run -> run.1 <= run.2, arrayMap(
        (change, next) -> (change.1, toUInt64(least(next - 1, known_last)), ['MISSING', 'LOST', 'QUARANTINED', 'STORED'][change.2 + 1]),
        changes, arrayPushBack(arrayPopFront(changes.1), known_last + 1)))
        ::Array(Tuple(first UInt64, last UInt64, state String)) AS runs
FROM united
COMMENT 'Delivery of every boot: what arrived, what was lost, what is missing';

-- One row for each stretch of sequence numbers that is not there. A number is known to be missing
-- from the moment that a greater one, or itself, is known to exist: `marks` has the gaps of a boot
-- and every last number that was ever known, with the time; the earliest time among those from the
-- gap on is when it was first known.
CREATE OR REPLACE VIEW delivery_gaps
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    site String COMMENT 'Site the boot was last heard from',
    device LowCardinality(String) COMMENT 'Device',
    boot_id UInt64 COMMENT 'Boot of the device',
    first_missing UInt64 COMMENT 'First sequence number of the gap',
    last_missing UInt64 COMMENT 'Last sequence number of the gap, inclusive',
    state String COMMENT 'OPEN = may still arrive; LOST = the device declared that it will never arrive',
    since DateTime64(6, 'UTC') COMMENT 'When it was first known that something is missing here; UTC, us; later arrivals do not reset it'
)
AS WITH
    knowledge AS
    (
        SELECT
            tenant, device, boot_id, greatest(stored_last[-1], quarantined_last[-1], lost_last[-1], declared_last) AS last,
            last_arrival AS at
        FROM loader_commits
        WHERE kind = 'ledger'
        UNION ALL
        SELECT tenant, device, assumeNotNull(last_boot_id), assumeNotNull(last_seq), min(received_at)
        FROM device_status
        WHERE last_boot_id > 0 AND last_seq > 0
        GROUP BY tenant, device, last_boot_id, last_seq
    ),
    marked AS
    (
        SELECT
            tenant, device, boot_id, any(boot.site) AS site,
            arrayConcat(any(boot.gaps), groupArray((last, toUInt64(0), '', at))) AS marks
        FROM knowledge
        INNER JOIN
        (
            SELECT
                tenant, site, device, boot_id,
                arrayMap(run -> (run.first, run.last, run.state, toDateTime64(0, 6, 'UTC')),
                    arrayFilter(run -> run.state IN ('MISSING', 'LOST'), runs)) AS gaps
            FROM delivery_state
            WHERE notEmpty(gaps)
        ) AS boot USING (tenant, device, boot_id)
        GROUP BY tenant, device, boot_id
    )
SELECT
    tenant,
    site,
    device,
    boot_id,
    mark.1 AS first_missing,
    mark.2 AS last_missing,
    if(mark.3 = 'LOST', 'LOST', 'OPEN') AS state,
    since
FROM
(
    SELECT
        tenant, site, device, boot_id, mark,
        minIf(mark.4, mark.3 = '') OVER (PARTITION BY tenant, device, boot_id ORDER BY mark.1 DESC, mark.3
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS since
    FROM marked
    ARRAY JOIN marks AS mark
)
WHERE mark.3 != ''
COMMENT 'Sequence numbers that have not arrived, by boot';

-- Lifetime injection numbers never restart, so what lies between the smallest and the greatest one
-- is known to exist. A number that is stored and was quarantined before, because it was replayed,
-- is one number.
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
    SELECT tenant, device, NULL, max(said.injection_no), maxIf(received_at, said.injection_no IS NOT NULL)
    FROM device_status AS said
    GROUP BY tenant, device
)
GROUP BY tenant, device
HAVING received > 0
COMMENT 'Injections received M of known N, by device, from the lifetime counter';

-- A device makes the injections of a session one after the other, so those between two received
-- ones of the session belong to it. How many there were before the first and after the last one
-- received only the device's SessionEnded says. Quarantined ones do not say their session: one
-- whose number lies between two of the session belongs to it as well.
CREATE OR REPLACE VIEW session_completeness
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    device LowCardinality(String) COMMENT 'Device; a session with several devices has a row for each',
    session_id String COMMENT 'Session, 32 hex digits',
    received UInt64 COMMENT 'Injections of the session received from the device, stored or in quarantine',
    known UInt64 COMMENT 'Injections of the session known to have been made with the device: between two received numbers, or as many as it said at the end',
    missing Int64 COMMENT 'known - received',
    at_least UInt8 COMMENT '1 = the device has not said how many there were (no SessionEnded, or none with shots), so known is a lower bound; 0 = it has',
    first_injection_no Nullable(UInt64) COMMENT 'Smallest number received; NULL = none carries a number',
    last_injection_no Nullable(UInt64) COMMENT 'Greatest number received; NULL = none carries a number',
    ended_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When the device ended the session; NULL = no SessionEnded has arrived'
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
COMMENT 'Injections received M of known N, by session and device';

-- The balance of each boot: stored + quarantined + lost + missing = made. A boot that was named
-- without its last number has an unknown tail.
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
