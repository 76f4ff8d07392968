-- The latest word of each device, and what it said of its deliveries, kept by the engine beside the rows of `device_status`: one
-- row for each device, for each boot and for each number said, in each part, instead of one for each heartbeat. As projections they are
-- written, moved and deleted with the rows they sum up, so they never say anything else than the rows do.

ALTER TABLE device_status ADD PROJECTION IF NOT EXISTS latest
(
    SELECT
        tenant, device,
        argMax(site, received_at),
        argMax(model, received_at),
        argMaxIf(firmware, received_at, firmware != ''),
        argMaxIf(state, received_at, state != ''),
        argMaxIf(tuple(since), received_at, state != ''),
        argMax(battery_pct, received_at),
        argMax(temperature_mc, received_at),
        argMax(outbox_events, received_at),
        argMax(oldest_unreceipted_s, received_at),
        argMax(injection_no, received_at),
        maxIf(received_at, state != 'LOST'),
        max(injection_no),
        maxIf(received_at, injection_no IS NOT NULL)
    GROUP BY tenant, device
);

ALTER TABLE device_status ADD PROJECTION IF NOT EXISTS boots
(
    SELECT
        tenant, device, last_boot_id,
        argMaxIf(site, received_at, last_seq > 0),
        max(last_seq)
    GROUP BY tenant, device, last_boot_id
);

ALTER TABLE device_status ADD PROJECTION IF NOT EXISTS said
(
    SELECT
        tenant, device, last_boot_id, last_seq,
        min(received_at)
    GROUP BY tenant, device, last_boot_id, last_seq
);

ALTER TABLE device_status MATERIALIZE PROJECTION latest;

ALTER TABLE device_status MATERIALIZE PROJECTION boots;

ALTER TABLE device_status MATERIALIZE PROJECTION said;

-- Views whose rows are the same as before, found with less reading.

CREATE OR REPLACE VIEW devices_latest
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    device LowCardinality(String) COMMENT 'Device',
    site LowCardinality(String) COMMENT 'Site it belongs to from valid_from on',
    kind LowCardinality(String) COMMENT 'INJECTOR, STERILIZER, BENCH or GATEWAY; empty = not known',
    model LowCardinality(String) COMMENT 'Model, see models; empty = not known',
    manufacturer LowCardinality(String) COMMENT 'Manufacturer; decides what a manufacturer may see; empty = none',
    serial String COMMENT 'Serial number; empty = not known',
    udi String COMMENT 'UDI of the device; empty = not known',
    gateway LowCardinality(String) COMMENT 'Device that may publish for it; empty = none',
    origin LowCardinality(String) COMMENT 'IMPORTED = registered by a person; ENROLLED = taken in because it was seen',
    valid_from DateTime64(6, 'UTC') COMMENT 'From when it holds; UTC, us'
)
AS SELECT tenant, device, site, kind, model, manufacturer, serial, udi, gateway, origin, valid_from
FROM devices
WHERE valid_from <= now64(6)
ORDER BY tenant, device, origin = 'IMPORTED' DESC, valid_from DESC, recorded_at DESC
LIMIT 1 BY tenant, device
COMMENT 'Devices as registered now; a row a person imported wins over one that was enrolled';

-- One row for each boot: the ledgers of all lives of the Kafka topic laid over each other, and what the device itself says it
-- made. A boot's latest state is that of the greatest end of a batch, and of its highest generation where it was written twice:
-- `version` has both, offsets up to 2^48 and generations up to 2^16.
-- `edges` are the ends of all intervals, sorted, where one opens before another closes at the same number. How many are open behind
-- an edge is counted in one number, those of each kind in 20 bits of their own: stored, quarantined, lost. It gives the state of
-- the stretch up to the next edge: 3 stored, 2 quarantined, 1 lost, 0 missing, in this order of precedence. The last edge lies
-- behind known_last.
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

-- One row for each stretch of sequence numbers that is not there. A number is known to be missing from the moment that a greater
-- one, or itself, is known to exist: `marks` has the gaps of a boot and every last number that was ever known, with the time; the
-- earliest time among those from the gap on is when it was first known.
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
    SELECT tenant, device, NULL, max(said.injection_no), maxIf(received_at, said.injection_no IS NOT NULL)
    FROM device_status AS said
    GROUP BY tenant, device
)
GROUP BY tenant, device
HAVING received > 0
COMMENT 'Injections received M of known N, by device, from the lifetime counter';

-- Every device that is registered or was ever heard of, with its latest word. Each device has one row at most from each of the
-- three sources, so that the greatest value is the one that was said.
CREATE OR REPLACE VIEW fleet
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    site String COMMENT 'Site it was last heard from, else the registered one',
    device LowCardinality(String) COMMENT 'Device',
    registration String COMMENT 'REGISTERED = imported by a person, ENROLLED = taken in because it was seen, UNKNOWN = not in the registry',
    registered_site LowCardinality(String) COMMENT 'Site by the registry; empty = none. Differs from site when a device moved without being registered',
    kind LowCardinality(String) COMMENT 'INJECTOR, STERILIZER, BENCH or GATEWAY; empty = not known',
    model String COMMENT 'Model by the registry, else as reported',
    manufacturer LowCardinality(String) COMMENT 'Manufacturer by the registry; empty = none',
    serial String COMMENT 'Serial number; empty = not known',
    gateway LowCardinality(String) COMMENT 'Device that may publish for it; empty = none',
    firmware String COMMENT 'Latest firmware reported; empty = not said',
    state String COMMENT 'Latest state: ONLINE, SLEEPING, OFF or LOST; empty = never said',
    state_since Nullable(DateTime64(6, 'UTC')) COMMENT 'Since when, by the device''s clock; UTC; NULL = not said',
    battery_pct Nullable(UInt32) COMMENT 'Latest battery level, percent; NULL = not said',
    temperature_mc Nullable(Int32) COMMENT 'Latest temperature of the device, millidegrees Celsius; NULL = not said',
    outbox_events Nullable(UInt64) COMMENT 'Latest number of events in the outbox; NULL = not said',
    oldest_unreceipted_s Nullable(UInt32) COMMENT 'Latest age of the oldest event without a receipt, s; NULL = not said',
    injection_no Nullable(UInt64) COMMENT 'Latest lifetime injection number the device said; NULL = not said',
    last_seen Nullable(DateTime64(6, 'UTC')) COMMENT 'When anything was last received from it; UTC; NULL = never',
    open_gaps UInt64 COMMENT 'Gaps that may still close',
    missing_events UInt64 COMMENT 'Events in open gaps',
    lost_events UInt64 COMMENT 'Events declared lost'
)
AS WITH
    latest AS
    (
        SELECT
            tenant, device, site AS registered_site, kind, model AS registered_model, manufacturer, serial, gateway, origin,
            '' AS status_site, '' AS status_model, '' AS firmware, '' AS state, NULL AS state_since, NULL AS battery_pct,
            NULL AS temperature_mc, NULL AS outbox_events, NULL AS oldest_unreceipted_s, NULL AS injection_no,
            toDateTime64(0, 6, 'UTC') AS status_seen,
            '' AS delivery_site, toDateTime64(0, 6, 'UTC') AS delivery_seen, 0 AS open_gaps, 0 AS missing_events, 0 AS lost_events
        FROM devices_latest
        UNION ALL
        SELECT
            tenant, device, '', '', '', '', '', '', '',
            argMax(said.site, received_at),
            argMax(said.model, received_at),
            argMaxIf(said.firmware, received_at, said.firmware != ''),
            argMaxIf(said.state, received_at, said.state != ''),
            argMaxIf(tuple(said.since), received_at, said.state != '').1,
            argMax(said.battery_pct, received_at),
            argMax(said.temperature_mc, received_at),
            argMax(said.outbox_events, received_at),
            argMax(said.oldest_unreceipted_s, received_at),
            argMax(said.injection_no, received_at),
            -- A last will is sent by the broker: not a word from the device.
            maxIf(received_at, said.state != 'LOST'),
            '', toDateTime64(0, 6, 'UTC'), 0, 0, 0
        FROM device_status AS said
        WHERE device != ''
        GROUP BY tenant, device
        UNION ALL
        SELECT
            tenant, device, '', '', '', '', '', '', '',
            '', '', '', '', NULL, NULL,
            NULL, NULL, NULL, NULL,
            toDateTime64(0, 6, 'UTC'),
            argMax(boot.site, boot.last_arrival),
            max(boot.last_arrival),
            sum(arrayCount(run -> run.state = 'MISSING', runs)),
            toUInt64(sum(arraySum(run -> if(run.state = 'MISSING', run.last - run.first + 1, 0), runs))),
            toUInt64(sum(arraySum(run -> if(run.state = 'LOST', run.last - run.first + 1, 0), runs)))
        FROM delivery_state AS boot
        GROUP BY tenant, device
    )
SELECT
    tenant,
    multiIf(max(status_site) != '' AND max(status_seen) >= max(delivery_seen), max(status_site),
        max(delivery_site) != '', max(delivery_site), max(latest.registered_site)) AS site,
    device,
    multiIf(max(origin) = '', 'UNKNOWN', max(origin) = 'IMPORTED', 'REGISTERED', 'ENROLLED') AS registration,
    max(latest.registered_site) AS registered_site,
    max(latest.kind) AS kind,
    if(max(registered_model) != '', max(registered_model), max(status_model)) AS model,
    max(latest.manufacturer) AS manufacturer,
    max(latest.serial) AS serial,
    max(latest.gateway) AS gateway,
    max(latest.firmware) AS firmware,
    max(latest.state) AS state,
    max(latest.state_since) AS state_since,
    max(latest.battery_pct) AS battery_pct,
    max(latest.temperature_mc) AS temperature_mc,
    max(latest.outbox_events) AS outbox_events,
    max(latest.oldest_unreceipted_s) AS oldest_unreceipted_s,
    max(latest.injection_no) AS injection_no,
    nullIf(greatest(max(status_seen), max(delivery_seen)), toDateTime64(0, 6, 'UTC')) AS last_seen,
    sum(latest.open_gaps) AS open_gaps,
    sum(latest.missing_events) AS missing_events,
    sum(latest.lost_events) AS lost_events
FROM latest
GROUP BY tenant, device
COMMENT 'Every device, registered or seen, with its latest word';
