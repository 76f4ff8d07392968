-- What people report. Never changed: a correction is another row.

-- Key: tenant, then time.
CREATE TABLE IF NOT EXISTS incidents
(
    incident_id String COMMENT 'The incident' CODEC(ZSTD(1)),
    tenant LowCardinality(String) COMMENT 'Tenant',
    subject_kind LowCardinality(String) COMMENT 'What it is about: SESSION, ITEM, LOT or CYCLE',
    subject String COMMENT 'Which one; for a lot DI/LOT, or the lot alone' CODEC(ZSTD(1)),
    note String COMMENT 'What happened' CODEC(ZSTD(1)),
    reported_by LowCardinality(String) COMMENT 'Who reported it',
    recorded_at DateTime64(6, 'UTC') COMMENT 'When; UTC, us' CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
ORDER BY (tenant, recorded_at, incident_id)
COMMENT 'Incidents that people reported, append-only: where a trace starts (doseline trace --incident)';

-- A syringe's balance, with what primed the needle: a device may name the needle's mount, or the syringe's, when it primes. What
-- was primed through another mount left the syringe or cartridge that was mounted last before it.
CREATE OR REPLACE VIEW mass_balance
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    site String COMMENT 'Site of the mounting',
    device LowCardinality(String) COMMENT 'Device',
    mount_id String COMMENT 'The mount',
    item_id String COMMENT 'The syringe or cartridge; empty = not said',
    slot String COMMENT 'SYRINGE or CARTRIDGE',
    mounted_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When it was mounted; UTC; NULL = not received',
    removed_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When it was removed; UTC; NULL = not yet, or not received',
    fill_nl Nullable(UInt64) COMMENT 'Filling, nl; NULL = not said',
    primed_nl Nullable(UInt64) COMMENT 'Volume used for priming, nl; 0 = no priming reported; NULL = primed with an unknown volume',
    residual_nl Nullable(UInt64) COMMENT 'What was left in it, nl; NULL = not said',
    residual_source String COMMENT 'What measured the residual; empty = not said',
    injections UInt64 COMMENT 'Injections made from it',
    delivered_n UInt64 COMMENT 'Injections whose volume is known',
    delivered_nl UInt64 COMMENT 'Sum of the known volumes, nl',
    balance_nl Nullable(Int64) COMMENT 'fill - primed - residual - delivered, nl; NULL where any of it is not known',
    balance_pct Nullable(Float64) COMMENT '100 * balance / (fill - primed - residual); NULL where not known or nothing was used'
)
AS WITH vessels AS
(
    SELECT tenant, device, mount_id, min(row.at) AS at
    FROM mounts AS row WHERE event = 'MOUNTED' AND slot IN ('SYRINGE', 'CARTRIDGE') AND mount_id != ''
    GROUP BY tenant, device, mount_id
)
SELECT
    tenant,
    argMax(row.site, row.at) AS site,
    device,
    mount_id,
    max(row.item_id) AS item_id,
    max(row.slot) AS slot,
    minIf(toNullable(row.at), event = 'MOUNTED') AS mounted_at,
    maxIf(toNullable(row.at), event = 'REMOVED') AS removed_at,
    max(row.fill_nl) AS fill_nl,
    if(countIf(event = 'PRIMED') != count(row.primed_nl), NULL, toNullable(ifNull(sum(row.primed_nl), 0))) AS primed_nl,
    argMaxIf(tuple(row.residual_nl), row.at, event = 'REMOVED').1 AS residual_nl,
    argMaxIf(row.residual_source, row.at, event = 'REMOVED') AS residual_source,
    sum(row.injections) AS injections,
    sum(row.delivered_n) AS delivered_n,
    sum(row.delivered_nl) AS delivered_nl,
    if(delivered_n = injections, toInt64(fill_nl) - toInt64(primed_nl) - toInt64(residual_nl) - toInt64(delivered_nl), NULL) AS balance_nl,
    if(balance_nl + delivered_nl > 0, 100 * toFloat64(balance_nl) / toFloat64(balance_nl + delivered_nl), NULL) AS balance_pct
FROM
(
    SELECT
        tenant, site, device, mount_id, item_id, toString(slot) AS slot, toString(event) AS event, at, fill_nl,
        NULL AS primed_nl, residual_nl, toString(residual_source) AS residual_source,
        0 AS injections, 0 AS delivered_n, 0 AS delivered_nl
    FROM mounts
    WHERE mount_id != '' AND event != 'PRIMED'
    UNION ALL
    SELECT
        primed.tenant, primed.site, primed.device,
        if((primed.tenant, primed.device, primed.mount_id) IN (SELECT tenant, device, mount_id FROM vessels),
            primed.mount_id, vessel.mount_id) AS mount_id,
        '', '', 'PRIMED', primed.at, NULL,
        primed.volume_nl, NULL, '',
        0, 0, 0
    FROM (SELECT tenant, site, device, mount_id, at, volume_nl FROM mounts WHERE event = 'PRIMED') AS primed
    ASOF LEFT JOIN vessels AS vessel
        ON vessel.tenant = primed.tenant AND vessel.device = primed.device AND vessel.at <= primed.at
    WHERE mount_id != ''
    UNION ALL
    SELECT
        tenant, site, device, mount_id, item_id, slot, '', first_at, NULL,
        NULL, NULL, '',
        injections, delivered_n, delivered_nl
    FROM item_uses
    WHERE mount_id != ''
) AS row
GROUP BY tenant, device, mount_id
HAVING slot IN ('SYRINGE', 'CARTRIDGE')
SETTINGS join_use_nulls = 0
COMMENT 'Syringes and cartridges: what went in against what was delivered';
