-- What has arrived, and what has not. Everything is computed from the sequence ledger that the loader commits with each batch.

-- One row for each boot: the ledgers of all lives of the Kafka topic laid over each other, and what the device itself says it
-- made. The condition on batch_end only spares reading the intervals of states that are not the latest of their boot.
-- `edges` are the ends of all intervals, sorted; counting open intervals along them gives the state of every stretch between
-- two edges: 3 stored, 2 quarantined, 1 lost, 0 missing, in this order of precedence. The last edge lies behind known_last.
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
            argMax((site, stored_first, stored_last, quarantined_first, quarantined_last, lost_first, lost_last,
                    declared_last, last_arrival), (batch_end, gen)) AS state
        FROM loader_commits
        WHERE kind = 'ledger' AND (incarnation, kafka_partition, batch_end) IN
        (
            SELECT incarnation, kafka_partition, max(batch_end)
            FROM loader_commits
            WHERE kind = 'ledger'
            GROUP BY incarnation, kafka_partition, tenant, device, boot_id
        )
        GROUP BY tenant, device, boot_id, incarnation, kafka_partition
        UNION ALL
        SELECT
            tenant, device, assumeNotNull(last_boot_id) AS boot,
            (argMax(site, received_at), [], [], [], [], [], [], max(assumeNotNull(last_seq)), toDateTime64(0, 6, 'UTC'))
        FROM device_status
        WHERE last_boot_id > 0 AND last_seq > 0
        GROUP BY tenant, device, boot
    ),
    united AS
    (
        SELECT
            tenant, device, boot_id,
            argMax(state.1, (state.9, state.1)) AS site,
            max(greatest(state.3[-1], state.5[-1], state.7[-1], state.8)) AS known_last,
            max(state.8) AS declared_last,
            max(state.9) AS last_arrival,
            arraySort(arrayConcat(
                [(toUInt64(1), 0, 0, 0), (known_last + 1, 1, 0, 0)],
                arrayMap(first -> (first, 1, 0, 0), groupArrayArray(state.2)),
                arrayMap(last -> (last + 1, -1, 0, 0), groupArrayArray(state.3)),
                arrayMap(first -> (first, 0, 1, 0), groupArrayArray(state.4)),
                arrayMap(last -> (last + 1, 0, -1, 0), groupArrayArray(state.5)),
                arrayMap(first -> (first, 0, 0, 1), groupArrayArray(state.6)),
                arrayMap(last -> (last + 1, 0, 0, -1), groupArrayArray(state.7)))) AS edges
        FROM boots
        GROUP BY tenant, device, boot_id
    ),
    arrayMap(edge -> edge.1, edges) AS positions,
    arrayFilter((stretch, next) -> stretch.1 != next,
        arrayZip(positions, arrayCumSum(arrayMap(edge -> edge.2, edges)), arrayCumSum(arrayMap(edge -> edge.3, edges)),
            arrayCumSum(arrayMap(edge -> edge.4, edges))),
        arrayPushBack(arrayPopFront(positions), toUInt64(0))) AS stretches,
    arrayMap(stretch -> multiIf(stretch.2 > 0, 3, stretch.3 > 0, 2, stretch.4 > 0, 1, 0), stretches) AS states,
    arrayFilter((change, state, before) -> state != before,
        arrayMap((stretch, state) -> (stretch.1, state), stretches, states),
        states, arrayPushFront(arrayPopBack(states), 255)) AS changes
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
        changes, arrayPushBack(arrayPopFront(arrayMap(change -> change.1, changes)), known_last + 1)))
        ::Array(Tuple(first UInt64, last UInt64, state String)) AS runs
FROM united
COMMENT 'Delivery of every boot: what arrived, what was lost, what is missing';

-- One row for each stretch of sequence numbers that is not there. A number is known to be missing from the moment that a greater
-- one, or itself, is known to exist: the earliest of all such moments is found by the nearest last number known and all after it.
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
    gaps AS
    (
        SELECT tenant, site, device, boot_id, gap.first AS first_missing, gap.last AS last_missing, gap.state AS fate
        FROM delivery_state
        ARRAY JOIN arrayFilter(run -> run.state IN ('MISSING', 'LOST'), runs) AS gap
    ),
    knowledge AS
    (
        SELECT
            tenant, device, boot_id, greatest(stored_last[-1], quarantined_last[-1], lost_last[-1], declared_last) AS last,
            last_arrival AS at
        FROM loader_commits
        WHERE kind = 'ledger' AND (tenant, device, boot_id) IN (SELECT tenant, device, boot_id FROM gaps)
        UNION ALL
        SELECT tenant, device, assumeNotNull(last_boot_id), assumeNotNull(last_seq), received_at
        FROM device_status
        WHERE last_seq > 0 AND (tenant, device, assumeNotNull(last_boot_id)) IN (SELECT tenant, device, boot_id FROM gaps)
    ),
    first_known AS
    (
        SELECT
            tenant, device, boot_id, last,
            min(min(at)) OVER (PARTITION BY tenant, device, boot_id ORDER BY last
                ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS since
        FROM knowledge
        GROUP BY tenant, device, boot_id, last
    )
SELECT
    gaps.tenant AS tenant,
    gaps.site AS site,
    gaps.device AS device,
    gaps.boot_id AS boot_id,
    gaps.first_missing AS first_missing,
    gaps.last_missing AS last_missing,
    if(gaps.fate = 'LOST', 'LOST', 'OPEN') AS state,
    first_known.since AS since
FROM gaps
ASOF LEFT JOIN first_known ON first_known.tenant = gaps.tenant AND first_known.device = gaps.device
    AND first_known.boot_id = gaps.boot_id AND first_known.last >= gaps.first_missing
COMMENT 'Sequence numbers that have not arrived, by boot';

-- Lifetime injection numbers never restart, so what lies between the smallest and the greatest one is known to exist.
CREATE OR REPLACE VIEW injection_completeness
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    device LowCardinality(String) COMMENT 'Device',
    received UInt64 COMMENT 'Injections received that carry a number',
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
    count(number) AS received,
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
    SELECT tenant, device, NULL, injection_no, received_at
    FROM device_status
    WHERE injection_no IS NOT NULL
)
GROUP BY tenant, device
HAVING received > 0
COMMENT 'Injections received M of known N, by device, from the lifetime counter';

-- The balance of each boot: stored + quarantined + lost + missing = made.
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
    boot.declared_last >= boot.known_last AS tail_known,
    boot.last_arrival AS last_arrival,
    injections.received AS injections_received,
    injections.known AS injections_known,
    injections.tenant = '' OR injections.at_least AS injections_at_least
FROM delivery_state AS boot
LEFT JOIN injection_completeness AS injections ON injections.tenant = boot.tenant AND injections.device = boot.device
COMMENT 'How much of what each boot made has arrived';
