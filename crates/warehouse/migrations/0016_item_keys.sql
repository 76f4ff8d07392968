-- One item has one identity, whichever way its label was scanned or typed. `item_key` is that
-- identity: `(01)GTIN(21)SERIAL` with 14 digits of the GTIN if item_id is a GS1 element string that
-- holds both once, else item_id as it was sent. The pattern has two halves. The first reads a string
-- with brackets. The second reads one as scanned: elements of predefined length, and others up to
-- FNC1 (0x1D). Source: GS1 General Specifications, 3 and 7.8.5. `analysis::gs1::item` says the same.
ALTER TABLE mounts ADD COLUMN IF NOT EXISTS item_key String MATERIALIZED
    arrayMap(parts -> if(empty(parts), item_id,
            concat('(01)', leftPad(concat(parts[1], parts[3]), 14, '0'), '(21)', parts[2], parts[4])),
        [extractGroups(item_id, '^[ \\t\\r\\n\\x{a0}]*(?:\\](?:C1|e0|d2|Q3|J1))?\\x1d*(?:\\([ \\x{a0}]*01[ \\x{a0}]*\\)[ \\x{a0}]*(\\d{8}|\\d{12,14})[ \\x{a0}]*\\x1d*(?:\\([ \\x{a0}]*(?:0[02-9]|1\\d|2[02-9]|[3-9]\\d|\\d{3,4})[ \\x{a0}]*\\)[ \\x{a0}]*[!"%-\\x27)-?A-Z_a-z]+[ \\x{a0}]*\\x1d*)*\\([ \\x{a0}]*21[ \\x{a0}]*\\)[ \\x{a0}]*([!"%-\\x27)-?A-Z_a-z]{1,20})[ \\x{a0}]*\\x1d*(?:\\([ \\x{a0}]*(?:0[02-9]|1\\d|2[02-9]|[3-9]\\d|\\d{3,4})[ \\x{a0}]*\\)[ \\x{a0}]*[!"%-\\x27)-?A-Z_a-z]+[ \\x{a0}]*\\x1d*)*|01(\\d{14})\\x1d*(?:(?:00\\d{18}|0[23]\\d{14}|04\\d{16}|1[1-9]\\d{6}|20\\d\\d|3[1-6]\\d{8}|41\\d{14})\\x1d*|(?:0[5-9]|10|2[2-9]|3[07-9]|4[02-9]|[5-9]\\d)[!"%-\\x27)-?A-Z_a-z]+\\x1d+)*21([!"%-\\x27)-?A-Z_a-z]{1,20})(?:\\x1d+(?:(?:00\\d{18}|0[23]\\d{14}|04\\d{16}|1[1-9]\\d{6}|20\\d\\d|3[1-6]\\d{8}|41\\d{14})\\x1d*|(?:0[5-9]|10|2[2-9]|3[07-9]|4[02-9]|[5-9]\\d)[!"%-\\x27)-?A-Z_a-z]+\\x1d+)*(?:(?:0[5-9]|10|2[2-9]|3[07-9]|4[02-9]|[5-9]\\d)[!"%-\\x27)-?A-Z_a-z]+)?)?\\x1d*)[ \\t\\r\\n\\x{a0}]*$')])[1]
    COMMENT 'Identity of the item: (01)GTIN(21)SERIAL if item_id is a GS1 element string with both, else item_id' CODEC(ZSTD(1));

ALTER TABLE mounts ADD INDEX IF NOT EXISTS item_key item_key TYPE bloom_filter(0.01) GRANULARITY 1;

ALTER TABLE mounts MATERIALIZE COLUMN item_key;

ALTER TABLE mounts MATERIALIZE INDEX item_key;

ALTER TABLE sterilization_items ADD COLUMN IF NOT EXISTS item_key String MATERIALIZED
    arrayMap(parts -> if(empty(parts), item_id,
            concat('(01)', leftPad(concat(parts[1], parts[3]), 14, '0'), '(21)', parts[2], parts[4])),
        [extractGroups(item_id, '^[ \\t\\r\\n\\x{a0}]*(?:\\](?:C1|e0|d2|Q3|J1))?\\x1d*(?:\\([ \\x{a0}]*01[ \\x{a0}]*\\)[ \\x{a0}]*(\\d{8}|\\d{12,14})[ \\x{a0}]*\\x1d*(?:\\([ \\x{a0}]*(?:0[02-9]|1\\d|2[02-9]|[3-9]\\d|\\d{3,4})[ \\x{a0}]*\\)[ \\x{a0}]*[!"%-\\x27)-?A-Z_a-z]+[ \\x{a0}]*\\x1d*)*\\([ \\x{a0}]*21[ \\x{a0}]*\\)[ \\x{a0}]*([!"%-\\x27)-?A-Z_a-z]{1,20})[ \\x{a0}]*\\x1d*(?:\\([ \\x{a0}]*(?:0[02-9]|1\\d|2[02-9]|[3-9]\\d|\\d{3,4})[ \\x{a0}]*\\)[ \\x{a0}]*[!"%-\\x27)-?A-Z_a-z]+[ \\x{a0}]*\\x1d*)*|01(\\d{14})\\x1d*(?:(?:00\\d{18}|0[23]\\d{14}|04\\d{16}|1[1-9]\\d{6}|20\\d\\d|3[1-6]\\d{8}|41\\d{14})\\x1d*|(?:0[5-9]|10|2[2-9]|3[07-9]|4[02-9]|[5-9]\\d)[!"%-\\x27)-?A-Z_a-z]+\\x1d+)*21([!"%-\\x27)-?A-Z_a-z]{1,20})(?:\\x1d+(?:(?:00\\d{18}|0[23]\\d{14}|04\\d{16}|1[1-9]\\d{6}|20\\d\\d|3[1-6]\\d{8}|41\\d{14})\\x1d*|(?:0[5-9]|10|2[2-9]|3[07-9]|4[02-9]|[5-9]\\d)[!"%-\\x27)-?A-Z_a-z]+\\x1d+)*(?:(?:0[5-9]|10|2[2-9]|3[07-9]|4[02-9]|[5-9]\\d)[!"%-\\x27)-?A-Z_a-z]+)?)?\\x1d*)[ \\t\\r\\n\\x{a0}]*$')])[1]
    COMMENT 'Identity of the item: (01)GTIN(21)SERIAL if item_id is a GS1 element string with both, else item_id' CODEC(ZSTD(1));

ALTER TABLE sterilization_items ADD INDEX IF NOT EXISTS item_key item_key TYPE bloom_filter(0.01) GRANULARITY 1;

ALTER TABLE sterilization_items MATERIALIZE COLUMN item_key;

ALTER TABLE sterilization_items MATERIALIZE INDEX item_key;

ALTER TABLE item_uses ADD COLUMN IF NOT EXISTS item_key String MATERIALIZED
    arrayMap(parts -> if(empty(parts), item_id,
            concat('(01)', leftPad(concat(parts[1], parts[3]), 14, '0'), '(21)', parts[2], parts[4])),
        [extractGroups(item_id, '^[ \\t\\r\\n\\x{a0}]*(?:\\](?:C1|e0|d2|Q3|J1))?\\x1d*(?:\\([ \\x{a0}]*01[ \\x{a0}]*\\)[ \\x{a0}]*(\\d{8}|\\d{12,14})[ \\x{a0}]*\\x1d*(?:\\([ \\x{a0}]*(?:0[02-9]|1\\d|2[02-9]|[3-9]\\d|\\d{3,4})[ \\x{a0}]*\\)[ \\x{a0}]*[!"%-\\x27)-?A-Z_a-z]+[ \\x{a0}]*\\x1d*)*\\([ \\x{a0}]*21[ \\x{a0}]*\\)[ \\x{a0}]*([!"%-\\x27)-?A-Z_a-z]{1,20})[ \\x{a0}]*\\x1d*(?:\\([ \\x{a0}]*(?:0[02-9]|1\\d|2[02-9]|[3-9]\\d|\\d{3,4})[ \\x{a0}]*\\)[ \\x{a0}]*[!"%-\\x27)-?A-Z_a-z]+[ \\x{a0}]*\\x1d*)*|01(\\d{14})\\x1d*(?:(?:00\\d{18}|0[23]\\d{14}|04\\d{16}|1[1-9]\\d{6}|20\\d\\d|3[1-6]\\d{8}|41\\d{14})\\x1d*|(?:0[5-9]|10|2[2-9]|3[07-9]|4[02-9]|[5-9]\\d)[!"%-\\x27)-?A-Z_a-z]+\\x1d+)*21([!"%-\\x27)-?A-Z_a-z]{1,20})(?:\\x1d+(?:(?:00\\d{18}|0[23]\\d{14}|04\\d{16}|1[1-9]\\d{6}|20\\d\\d|3[1-6]\\d{8}|41\\d{14})\\x1d*|(?:0[5-9]|10|2[2-9]|3[07-9]|4[02-9]|[5-9]\\d)[!"%-\\x27)-?A-Z_a-z]+\\x1d+)*(?:(?:0[5-9]|10|2[2-9]|3[07-9]|4[02-9]|[5-9]\\d)[!"%-\\x27)-?A-Z_a-z]+)?)?\\x1d*)[ \\t\\r\\n\\x{a0}]*$')])[1]
    COMMENT 'Identity of the item: (01)GTIN(21)SERIAL if item_id is a GS1 element string with both, else item_id' CODEC(LZ4);

ALTER TABLE item_uses ADD INDEX IF NOT EXISTS item_key item_key TYPE bloom_filter(0.01) GRANULARITY 1;

ALTER TABLE item_uses MATERIALIZE COLUMN item_key;

ALTER TABLE item_uses MATERIALIZE INDEX item_key;

-- The history of an item asked for by its id reads what names the item through the index of the
-- tables; only what names the mount alone has to be looked up through the mounts.
CREATE OR REPLACE VIEW item_history
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    item_id String COMMENT 'The item, as it was sent',
    item_key String COMMENT 'Identity of the item: the same for every spelling of item_id',
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
        SELECT tenant, device, mount_id, argMin((mount.item_id, mount.item_key), at) AS item
        FROM mounts AS mount
        WHERE event = 'MOUNTED' AND mount.item_id != '' AND mount_id != ''
        GROUP BY tenant, device, mount_id
    ),
    events AS
    (
        SELECT
            tenant, toString(site) AS site, device, session_id, toString(slot) AS slot, mount_id, item_id, item_key, at,
            toString(event) AS event, '' AS cycle_uid, toString(id_kind) AS id_kind, toString(lot) AS lot, pack_id,
            pack_intact, toUInt64(0) AS injections, toUInt64(0) AS punctures, toUInt64(0) AS delivered_nl,
            toString(rinse_water) AS rinse_water
        FROM mounts
        UNION ALL
        SELECT
            tenant, any(toString(site)), device, session_id, toString(slot), mount_id, item_id, item_key, min(first_at),
            'USED', '', '', '', '',
            NULL, sum(use.injections), sum(use.punctures), sum(use.delivered_nl),
            ''
        FROM item_uses AS use
        GROUP BY tenant, device, session_id, slot, mount_id, item_id, item_key
        UNION ALL
        SELECT
            tenant, toString(site), device, session_id, '', '', item_id, item_key, at,
            'STERILIZED', cycle_uid, '', '', pack_id,
            NULL, 0, 0, 0,
            ''
        FROM sterilization_items
    )
SELECT
    tenant, item_id, item_key, at, event, site, device, session_id, slot, mount_id, cycle_uid, id_kind, lot, pack_id, pack_intact,
    injections, punctures, delivered_nl, rinse_water
FROM events
WHERE item_id != ''
UNION ALL
SELECT
    row.tenant, mounted.item.1, mounted.item.2, row.at, row.event, row.site, row.device, row.session_id, row.slot, row.mount_id, row.cycle_uid,
    row.id_kind, row.lot, row.pack_id, row.pack_intact, row.injections, row.punctures, row.delivered_nl, row.rinse_water
FROM (SELECT * FROM events WHERE item_id = '' AND mount_id != '') AS row
INNER JOIN mounted ON mounted.tenant = row.tenant AND mounted.device = row.device AND mounted.mount_id = row.mount_id
COMMENT 'Everything that happened to an item, in order of time';
