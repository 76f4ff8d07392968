-- Views whose rows are the same as before, found with less reading.

-- The history of an item asked for by its id reads what names the item through the index of the tables; only what names the mount
-- alone has to be looked up through the mounts.
CREATE OR REPLACE VIEW item_history
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    item_id String COMMENT 'The item',
    at DateTime64(6, 'UTC') COMMENT 'When; UTC; for uses the first injection',
    event String COMMENT 'MOUNTED, PRIMED, USED, REMOVED, REPROCESSED or STERILIZED',
    site String COMMENT 'Site',
    device LowCardinality(String) COMMENT 'Device, or sterilizer',
    session_id String COMMENT 'Visit; empty = outside a session',
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

-- As in 0009; which boots have gaps is found once for all that is known of them, instead of once for what the ledger knows and
-- once for what devices say.
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
        WHERE kind = 'ledger'
        UNION ALL
        SELECT tenant, device, assumeNotNull(last_boot_id), assumeNotNull(last_seq), received_at
        FROM device_status
        WHERE last_seq > 0
    ),
    first_known AS
    (
        SELECT
            tenant, device, boot_id, last,
            min(min(at)) OVER (PARTITION BY tenant, device, boot_id ORDER BY last
                ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS since
        FROM knowledge
        WHERE (tenant, device, boot_id) IN (SELECT tenant, device, boot_id FROM gaps)
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
