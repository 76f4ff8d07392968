-- What people ask for every day about devices, sessions and items. Nothing here judges.

-- Every device that is registered or was ever heard of, with its latest word. Each device has one
-- row at most from each of the three sources, so that the greatest value is the one that was said.
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

-- One row a session, over all devices used in it. What is not said stays NULL.
CREATE OR REPLACE VIEW session_report
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    session_id String COMMENT 'Session, 32 hex digits',
    sites Array(String) COMMENT 'Sites it was reported from; more than one is worth a look',
    devices Array(String) COMMENT 'Devices used in it',
    started_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Start, as the device said; UTC; NULL = not said',
    ended_at Nullable(DateTime64(6, 'UTC')) COMMENT 'End, as the device said; UTC; NULL = not said',
    first_injection_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Time of the first injection; UTC; NULL = none',
    last_injection_at Nullable(DateTime64(6, 'UTC')) COMMENT 'Time of the last injection; UTC; NULL = none',
    course_id String COMMENT 'Course of treatment; empty = not said',
    course_index Nullable(UInt32) COMMENT 'Number of the session in the course; NULL = not said',
    client_ref String COMMENT 'Opaque reference of the clinic; empty = not said',
    licence String COMMENT 'Licence of the operator; empty = not said',
    allergy_result String COMMENT 'Allergy test; empty = not said',
    injections UInt64 COMMENT 'Injections received',
    injections_declared Nullable(UInt64) COMMENT 'Injections the devices say they made, all ends of the session added up; NULL = not said',
    complete Nullable(UInt8) COMMENT '1 = as many received as declared; 0 = not; NULL = not declared yet, so injections is a lower bound',
    ok UInt64 COMMENT 'Outcome OK',
    partial UInt64 COMMENT 'Outcome PARTIAL',
    aborted UInt64 COMMENT 'Outcome ABORTED',
    occluded UInt64 COMMENT 'Outcome OCCLUDED',
    no_contact UInt64 COMMENT 'Outcome NO_CONTACT',
    dose_n UInt64 COMMENT 'Injections with a measured dose and a target',
    dose_target_nl UInt64 COMMENT 'Sum of their targets, nl',
    dose_delivered_nl UInt64 COMMENT 'Sum of their delivered doses, nl',
    dose_error_pct Nullable(Float64) COMMENT '100 * (delivered - target) / target of the sums; NULL at target 0',
    delivered_declared_nl Nullable(UInt64) COMMENT 'Volume the devices say they delivered, all ends of the session added up, nl; NULL = not said',
    depth_n UInt64 COMMENT 'Injections with a measured depth and a target',
    depth_mean_error_um Nullable(Float64) COMMENT 'Mean of measured - target, um; NULL = none'
)
AS SELECT
    tenant,
    session_id,
    groupUniqArray(site) AS sites,
    groupUniqArray(device) AS devices,
    minIf(toNullable(at), event = 'STARTED') AS started_at,
    maxIf(toNullable(at), event = 'ENDED') AS ended_at,
    minIf(toNullable(row.first_at), event = '') AS first_injection_at,
    maxIf(toNullable(row.last_at), event = '') AS last_injection_at,
    max(row.course_id) AS course_id,
    max(row.course_index) AS course_index,
    max(row.client_ref) AS client_ref,
    argMaxIf(row.licence, at, row.licence != '') AS licence,
    argMaxIf(row.allergy_result, at, row.allergy_result != '') AS allergy_result,
    sum(row.injections) AS injections,
    sum(row.shots) AS injections_declared,
    injections_declared = injections AS complete,
    sum(row.ok) AS ok,
    sum(row.partial) AS partial,
    sum(row.aborted) AS aborted,
    sum(row.occluded) AS occluded,
    sum(row.no_contact) AS no_contact,
    sum(row.dose_n) AS dose_n,
    sum(row.dose_target_nl) AS dose_target_nl,
    sum(row.dose_delivered_nl) AS dose_delivered_nl,
    if(dose_target_nl = 0, NULL, 100 * toFloat64(sum(row.dose_error_nl)) / dose_target_nl) AS dose_error_pct,
    sum(row.delivered_nl) AS delivered_declared_nl,
    sum(row.depth_n) AS depth_n,
    if(depth_n = 0, NULL, toFloat64(sum(row.depth_error_um)) / depth_n) AS depth_mean_error_um
FROM
(
    SELECT
        tenant, session_id, toString(event) AS event, site, device, at, at AS first_at, at AS last_at, course_id, course_index,
        client_ref, licence, allergy_result, shots, delivered_nl, 0 AS injections, 0 AS ok, 0 AS partial, 0 AS aborted,
        0 AS occluded, 0 AS no_contact, 0 AS dose_n, 0 AS dose_target_nl, 0 AS dose_delivered_nl, 0 AS dose_error_nl,
        0 AS depth_n, 0 AS depth_error_um
    FROM sessions
    WHERE session_id != ''
    UNION ALL
    SELECT
        tenant, session_id, '', site, device, first_at, first_at, last_at, '', NULL,
        '', '', '', NULL, NULL, injections, ok, partial, aborted,
        occluded, no_contact, dose_n, dose_target_nl, dose_delivered_nl, dose_error_nl,
        depth_n, depth_error_um
    FROM accuracy_session
    WHERE session_id != ''
) AS row
GROUP BY tenant, session_id
COMMENT 'Sessions: what was done, and whether all of it has arrived';

-- From the starts of sessions only.
CREATE OR REPLACE VIEW course_progress
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    course_id String COMMENT 'Course of treatment',
    client_ref String COMMENT 'Opaque reference of the clinic; empty = not said',
    sessions UInt64 COMMENT 'Sessions started',
    last_index Nullable(UInt32) COMMENT 'Greatest number of a session in the course; NULL = not said',
    planned Nullable(UInt32) COMMENT 'Sessions planned, as last said; NULL = not said',
    interval_days Nullable(UInt32) COMMENT 'Planned days between sessions, as last said; NULL = not said',
    first_at DateTime64(6, 'UTC') COMMENT 'Start of the first session; UTC',
    last_at DateTime64(6, 'UTC') COMMENT 'Start of the last session; UTC',
    next_due Nullable(DateTime64(6, 'UTC')) COMMENT 'last_at + interval_days; NULL = finished or not said'
)
AS SELECT
    tenant,
    course_id,
    max(visit.client_ref) AS client_ref,
    uniqExact(session_id) AS sessions,
    max(course_index) AS last_index,
    argMax(course_planned, at) AS planned,
    argMax(visit.interval_days, at) AS interval_days,
    min(at) AS first_at,
    max(at) AS last_at,
    if(ifNull(greatest(ifNull(last_index, 0), sessions) >= planned, false), NULL, last_at + toIntervalDay(interval_days)) AS next_due
FROM sessions AS visit
WHERE event = 'STARTED' AND course_id != ''
GROUP BY tenant, course_id
COMMENT 'Courses of treatment: sessions done and planned';

-- The history of an item asked for by its id reads what names the item through the index of the
-- tables; only what names the mount alone has to be looked up through the mounts.
CREATE OR REPLACE VIEW item_history
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    item_id String COMMENT 'The item',
    at DateTime64(6, 'UTC') COMMENT 'When; UTC; for uses the first injection',
    event String COMMENT 'MOUNTED, PRIMED, USED, REMOVED, REPROCESSED or STERILIZED',
    site String COMMENT 'Site',
    device LowCardinality(String) COMMENT 'Device, or sterilizer',
    session_id String COMMENT 'Session; empty = outside a session',
    slot String COMMENT 'Slot; empty = not said',
    mount_id String COMMENT 'Mount; empty = none',
    cycle_uid String COMMENT 'STERILIZED: the cycle; empty otherwise',
    id_kind String COMMENT 'MOUNTED: what item_id identifies; LOT_ONLY never proves reuse',
    lot String COMMENT 'MOUNTED: lot; empty = not said',
    pack_id String COMMENT 'MOUNTED, STERILIZED: pack; empty = not said',
    pack_intact Nullable(Bool) COMMENT 'MOUNTED: whether the pack was intact; NULL = not said',
    injections UInt64 COMMENT 'USED: injections made with it',
    punctures UInt64 COMMENT 'USED: punctures made with it',
    delivered_nl UInt64 COMMENT 'USED: volume delivered through it as far as known, nl',
    rinse_water String COMMENT 'REPROCESSED: last rinse; empty = not said'
)
AS WITH
    mounted AS
    (
        SELECT tenant, device, mount_id, argMin(mount.item_id, at) AS item
        FROM mounts AS mount
        WHERE event = 'MOUNTED' AND mount.item_id != '' AND mount_id != ''
        GROUP BY tenant, device, mount_id
    ),
    events AS
    (
        SELECT
            tenant, toString(site) AS site, device, session_id, toString(slot) AS slot, mount_id, item_id, at,
            toString(event) AS event, '' AS cycle_uid, toString(id_kind) AS id_kind, toString(lot) AS lot, pack_id,
            pack_intact, toUInt64(0) AS injections, toUInt64(0) AS punctures, toUInt64(0) AS delivered_nl,
            toString(rinse_water) AS rinse_water
        FROM mounts
        UNION ALL
        SELECT
            tenant, any(toString(site)), device, session_id, toString(slot), mount_id, item_id, min(first_at),
            'USED', '', '', '', '',
            NULL, sum(use.injections), sum(use.punctures), sum(use.delivered_nl),
            ''
        FROM item_uses AS use
        GROUP BY tenant, device, session_id, slot, mount_id, item_id
        UNION ALL
        SELECT
            tenant, toString(site), device, session_id, '', '', item_id, at,
            'STERILIZED', cycle_uid, '', '', pack_id,
            NULL, 0, 0, 0,
            ''
        FROM sterilization_items
    )
SELECT
    tenant, item_id, at, event, site, device, session_id, slot, mount_id, cycle_uid, id_kind, lot, pack_id, pack_intact,
    injections, punctures, delivered_nl, rinse_water
FROM events
WHERE item_id != ''
UNION ALL
SELECT
    row.tenant, mounted.item, row.at, row.event, row.site, row.device, row.session_id, row.slot, row.mount_id, row.cycle_uid,
    row.id_kind, row.lot, row.pack_id, row.pack_intact, row.injections, row.punctures, row.delivered_nl, row.rinse_water
FROM (SELECT * FROM events WHERE item_id = '' AND mount_id != '') AS row
INNER JOIN mounted ON mounted.tenant = row.tenant AND mounted.device = row.device AND mounted.mount_id = row.mount_id
COMMENT 'Everything that happened to an item, in order of time';
