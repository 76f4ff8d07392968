-- The registry: small tables filled by people. History is kept: a change is a new row with its
-- valid_from, never an update, so that what held at any time can be said later. The views *_latest
-- show what holds now. Keys: what is looked up, then time.

CREATE TABLE IF NOT EXISTS devices
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
    valid_from DateTime64(6, 'UTC') COMMENT 'From when the row holds; UTC, us; the latest that is not in the future wins' CODEC(Delta, ZSTD(1)),
    recorded_at DateTime64(6, 'UTC') COMMENT 'When the row was recorded; UTC, us; decides between rows with the same valid_from' CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
ORDER BY (tenant, device, valid_from, recorded_at)
SETTINGS old_parts_lifetime = 480
COMMENT 'Devices and the site they belong to, with history';

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

CREATE TABLE IF NOT EXISTS sites
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    site LowCardinality(String) COMMENT 'Site',
    name String COMMENT 'Name for people',
    time_zone LowCardinality(String) COMMENT 'IANA time zone, e.g. Europe/Paris',
    open_days Array(UInt8) COMMENT 'Opening days of the week: 1 = Monday to 7 = Sunday',
    closed_dates Array(Date) COMMENT 'Days it is closed beside that, local dates',
    valid_from DateTime64(6, 'UTC') COMMENT 'From when the row holds; UTC, us; the latest that is not in the future wins' CODEC(Delta, ZSTD(1)),
    recorded_at DateTime64(6, 'UTC') COMMENT 'When the row was recorded; UTC, us; decides between rows with the same valid_from' CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
ORDER BY (tenant, site, valid_from, recorded_at)
SETTINGS old_parts_lifetime = 480
COMMENT 'Sites, their time zone and opening days, with history';

CREATE OR REPLACE VIEW sites_latest
(
    tenant LowCardinality(String) COMMENT 'Tenant',
    site LowCardinality(String) COMMENT 'Site',
    name String COMMENT 'Name for people',
    time_zone LowCardinality(String) COMMENT 'IANA time zone, e.g. Europe/Paris',
    open_days Array(UInt8) COMMENT 'Opening days of the week: 1 = Monday to 7 = Sunday',
    closed_dates Array(Date) COMMENT 'Days it is closed beside that, local dates',
    valid_from DateTime64(6, 'UTC') COMMENT 'From when it holds; UTC, us'
)
AS SELECT
    tenant, site,
    argMax(sites.name, (sites.valid_from, recorded_at)) AS name,
    argMax(sites.time_zone, (sites.valid_from, recorded_at)) AS time_zone,
    argMax(sites.open_days, (sites.valid_from, recorded_at)) AS open_days,
    argMax(sites.closed_dates, (sites.valid_from, recorded_at)) AS closed_dates,
    argMax(sites.valid_from, (sites.valid_from, recorded_at)) AS valid_from
FROM sites
WHERE sites.valid_from <= now64(6)
GROUP BY tenant, site
COMMENT 'Sites as registered now';

CREATE TABLE IF NOT EXISTS models
(
    model LowCardinality(String) COMMENT 'Model, as devices report it',
    manufacturer LowCardinality(String) COMMENT 'Manufacturer',
    dose_min_nl UInt32 COMMENT 'Least plausible dose, nl',
    dose_max_nl UInt32 COMMENT 'Greatest plausible dose, nl',
    depth_min_um UInt16 COMMENT 'Least plausible depth, um along the needle',
    depth_max_um UInt16 COMMENT 'Greatest plausible depth, um along the needle',
    dose_resolution_nl UInt32 COMMENT 'Dose resolution, nl: the least tolerance of a dose',
    dose_tolerance_ppm UInt32 COMMENT 'Dose tolerance relative to the set point, millionths (50,000 = 5 %)',
    depth_resolution_um UInt16 COMMENT 'Depth resolution, um: the least tolerance of a depth',
    depth_tolerance_um UInt16 COMMENT 'Absolute depth tolerance, um',
    depth_tolerance_ppm UInt32 COMMENT 'Depth tolerance relative to the set point, millionths',
    safe_depth_um Map(LowCardinality(String), UInt16) COMMENT 'Greatest safe depth by body area, um along the needle',
    dose_bands_nl Array(UInt32) COMMENT 'Upper edges of the dose set-point bands, nl, ascending',
    depth_bands_um Array(UInt16) COMMENT 'Upper edges of the depth set-point bands, um, ascending',
    shots_per_s_max UInt16 COMMENT 'Greatest rate, injections a second',
    valid_from DateTime64(6, 'UTC') COMMENT 'From when the row holds; UTC, us; the latest that is not in the future wins' CODEC(Delta, ZSTD(1)),
    recorded_at DateTime64(6, 'UTC') COMMENT 'When the row was recorded; UTC, us; decides between rows with the same valid_from' CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
ORDER BY (model, valid_from, recorded_at)
SETTINGS old_parts_lifetime = 480
COMMENT 'Models: ranges, resolution, tolerance, safe depth, set-point bands, with history';

CREATE OR REPLACE VIEW models_latest
(
    model LowCardinality(String) COMMENT 'Model, as devices report it',
    manufacturer LowCardinality(String) COMMENT 'Manufacturer',
    dose_min_nl UInt32 COMMENT 'Least plausible dose, nl',
    dose_max_nl UInt32 COMMENT 'Greatest plausible dose, nl',
    depth_min_um UInt16 COMMENT 'Least plausible depth, um along the needle',
    depth_max_um UInt16 COMMENT 'Greatest plausible depth, um along the needle',
    dose_resolution_nl UInt32 COMMENT 'Dose resolution, nl: the least tolerance of a dose',
    dose_tolerance_ppm UInt32 COMMENT 'Dose tolerance relative to the set point, millionths (50,000 = 5 %)',
    depth_resolution_um UInt16 COMMENT 'Depth resolution, um: the least tolerance of a depth',
    depth_tolerance_um UInt16 COMMENT 'Absolute depth tolerance, um',
    depth_tolerance_ppm UInt32 COMMENT 'Depth tolerance relative to the set point, millionths',
    safe_depth_um Map(LowCardinality(String), UInt16) COMMENT 'Greatest safe depth by body area, um along the needle',
    dose_bands_nl Array(UInt32) COMMENT 'Upper edges of the dose set-point bands, nl, ascending',
    depth_bands_um Array(UInt16) COMMENT 'Upper edges of the depth set-point bands, um, ascending',
    shots_per_s_max UInt16 COMMENT 'Greatest rate, injections a second',
    valid_from DateTime64(6, 'UTC') COMMENT 'From when it holds; UTC, us'
)
AS SELECT
    model,
    argMax(models.manufacturer, (models.valid_from, recorded_at)) AS manufacturer,
    argMax(models.dose_min_nl, (models.valid_from, recorded_at)) AS dose_min_nl,
    argMax(models.dose_max_nl, (models.valid_from, recorded_at)) AS dose_max_nl,
    argMax(models.depth_min_um, (models.valid_from, recorded_at)) AS depth_min_um,
    argMax(models.depth_max_um, (models.valid_from, recorded_at)) AS depth_max_um,
    argMax(models.dose_resolution_nl, (models.valid_from, recorded_at)) AS dose_resolution_nl,
    argMax(models.dose_tolerance_ppm, (models.valid_from, recorded_at)) AS dose_tolerance_ppm,
    argMax(models.depth_resolution_um, (models.valid_from, recorded_at)) AS depth_resolution_um,
    argMax(models.depth_tolerance_um, (models.valid_from, recorded_at)) AS depth_tolerance_um,
    argMax(models.depth_tolerance_ppm, (models.valid_from, recorded_at)) AS depth_tolerance_ppm,
    argMax(models.safe_depth_um, (models.valid_from, recorded_at)) AS safe_depth_um,
    argMax(models.dose_bands_nl, (models.valid_from, recorded_at)) AS dose_bands_nl,
    argMax(models.depth_bands_um, (models.valid_from, recorded_at)) AS depth_bands_um,
    argMax(models.shots_per_s_max, (models.valid_from, recorded_at)) AS shots_per_s_max,
    argMax(models.valid_from, (models.valid_from, recorded_at)) AS valid_from
FROM models
WHERE models.valid_from <= now64(6)
GROUP BY model
COMMENT 'Models as registered now';

CREATE TABLE IF NOT EXISTS recipes
(
    tenant LowCardinality(String) COMMENT 'Tenant; empty = every tenant',
    recipe LowCardinality(String) COMMENT 'Recipe, as sterilizers report it',
    temperature_min_mc Int32 COMMENT 'Lower edge of the hold band, millidegrees Celsius, inclusive',
    temperature_max_mc Int32 COMMENT 'Upper edge of the hold band, millidegrees Celsius, inclusive',
    hold_ms UInt32 COMMENT 'Least continuous time in the band, ms',
    gap_max_ms UInt32 COMMENT 'Greatest gap between samples, ms; a longer one makes a cycle indeterminate',
    reference_mc Int32 COMMENT 'Reference temperature of F0, millidegrees Celsius',
    z_mk UInt32 COMMENT 'z value of F0, thousandths of a kelvin',
    saturated_steam Bool COMMENT 'Whether temperature and pressure must agree as in saturated steam',
    prevacuum Bool COMMENT 'Whether a passed Bowie-Dick test of the day is required',
    valid_from DateTime64(6, 'UTC') COMMENT 'From when the row holds; UTC, us; the latest that is not in the future wins' CODEC(Delta, ZSTD(1)),
    recorded_at DateTime64(6, 'UTC') COMMENT 'When the row was recorded; UTC, us; decides between rows with the same valid_from' CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
ORDER BY (tenant, recipe, valid_from, recorded_at)
SETTINGS old_parts_lifetime = 480
COMMENT 'Sterilization recipes, with history';

CREATE OR REPLACE VIEW recipes_latest
(
    tenant LowCardinality(String) COMMENT 'Tenant; empty = every tenant',
    recipe LowCardinality(String) COMMENT 'Recipe, as sterilizers report it',
    temperature_min_mc Int32 COMMENT 'Lower edge of the hold band, millidegrees Celsius, inclusive',
    temperature_max_mc Int32 COMMENT 'Upper edge of the hold band, millidegrees Celsius, inclusive',
    hold_ms UInt32 COMMENT 'Least continuous time in the band, ms',
    gap_max_ms UInt32 COMMENT 'Greatest gap between samples, ms; a longer one makes a cycle indeterminate',
    reference_mc Int32 COMMENT 'Reference temperature of F0, millidegrees Celsius',
    z_mk UInt32 COMMENT 'z value of F0, thousandths of a kelvin',
    saturated_steam Bool COMMENT 'Whether temperature and pressure must agree as in saturated steam',
    prevacuum Bool COMMENT 'Whether a passed Bowie-Dick test of the day is required',
    valid_from DateTime64(6, 'UTC') COMMENT 'From when it holds; UTC, us'
)
AS SELECT
    tenant, recipe,
    argMax(recipes.temperature_min_mc, (recipes.valid_from, recorded_at)) AS temperature_min_mc,
    argMax(recipes.temperature_max_mc, (recipes.valid_from, recorded_at)) AS temperature_max_mc,
    argMax(recipes.hold_ms, (recipes.valid_from, recorded_at)) AS hold_ms,
    argMax(recipes.gap_max_ms, (recipes.valid_from, recorded_at)) AS gap_max_ms,
    argMax(recipes.reference_mc, (recipes.valid_from, recorded_at)) AS reference_mc,
    argMax(recipes.z_mk, (recipes.valid_from, recorded_at)) AS z_mk,
    argMax(recipes.saturated_steam, (recipes.valid_from, recorded_at)) AS saturated_steam,
    argMax(recipes.prevacuum, (recipes.valid_from, recorded_at)) AS prevacuum,
    argMax(recipes.valid_from, (recipes.valid_from, recorded_at)) AS valid_from
FROM recipes
WHERE recipes.valid_from <= now64(6)
GROUP BY tenant, recipe
COMMENT 'Sterilization recipes as registered now';

CREATE TABLE IF NOT EXISTS lots
(
    udi_di LowCardinality(String) COMMENT 'UDI device identifier of the product',
    lot LowCardinality(String) COMMENT 'Lot',
    product String COMMENT 'Name of the product',
    manufacturer LowCardinality(String) COMMENT 'Manufacturer',
    manufactured Nullable(Date32) COMMENT 'Day of manufacture; NULL = not known',
    expiry Nullable(Date32) COMMENT 'Last day of use; NULL = not known',
    valid_from DateTime64(6, 'UTC') COMMENT 'From when the row holds; UTC, us; the latest that is not in the future wins' CODEC(Delta, ZSTD(1)),
    recorded_at DateTime64(6, 'UTC') COMMENT 'When the row was recorded; UTC, us; decides between rows with the same valid_from' CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
ORDER BY (udi_di, lot, valid_from, recorded_at)
SETTINGS old_parts_lifetime = 480
COMMENT 'Lots of consumables and products, with history';

CREATE OR REPLACE VIEW lots_latest
(
    udi_di LowCardinality(String) COMMENT 'UDI device identifier of the product',
    lot LowCardinality(String) COMMENT 'Lot',
    product String COMMENT 'Name of the product',
    manufacturer LowCardinality(String) COMMENT 'Manufacturer',
    manufactured Nullable(Date32) COMMENT 'Day of manufacture; NULL = not known',
    expiry Nullable(Date32) COMMENT 'Last day of use; NULL = not known',
    valid_from DateTime64(6, 'UTC') COMMENT 'From when it holds; UTC, us'
)
AS SELECT
    udi_di, lot,
    argMax(lots.product, (lots.valid_from, recorded_at)) AS product,
    argMax(lots.manufacturer, (lots.valid_from, recorded_at)) AS manufacturer,
    argMax(tuple(lots.manufactured), (lots.valid_from, recorded_at)).1 AS manufactured,
    argMax(tuple(lots.expiry), (lots.valid_from, recorded_at)).1 AS expiry,
    argMax(lots.valid_from, (lots.valid_from, recorded_at)) AS valid_from
FROM lots
WHERE lots.valid_from <= now64(6)
GROUP BY udi_di, lot
COMMENT 'Lots as registered now';

CREATE TABLE IF NOT EXISTS recalls
(
    recall_id String COMMENT 'The recall',
    udi_di LowCardinality(String) COMMENT 'UDI device identifier of the product',
    lot LowCardinality(String) COMMENT 'Lot; empty = all lots',
    reason String COMMENT 'Why',
    state LowCardinality(String) COMMENT 'OPEN or CLOSED',
    valid_from DateTime64(6, 'UTC') COMMENT 'From when the row holds; UTC, us; the latest that is not in the future wins' CODEC(Delta, ZSTD(1)),
    recorded_at DateTime64(6, 'UTC') COMMENT 'When the row was recorded; UTC, us; decides between rows with the same valid_from' CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
ORDER BY (recall_id, udi_di, lot, valid_from, recorded_at)
SETTINGS old_parts_lifetime = 480
COMMENT 'Recalled lots, with history';

CREATE OR REPLACE VIEW recalls_latest
(
    recall_id String COMMENT 'The recall',
    udi_di LowCardinality(String) COMMENT 'UDI device identifier of the product',
    lot LowCardinality(String) COMMENT 'Lot; empty = all lots',
    reason String COMMENT 'Why',
    state LowCardinality(String) COMMENT 'OPEN or CLOSED',
    valid_from DateTime64(6, 'UTC') COMMENT 'From when it holds; UTC, us'
)
AS SELECT
    recall_id, udi_di, lot,
    argMax(recalls.reason, (recalls.valid_from, recorded_at)) AS reason,
    argMax(recalls.state, (recalls.valid_from, recorded_at)) AS state,
    argMax(recalls.valid_from, (recalls.valid_from, recorded_at)) AS valid_from
FROM recalls
WHERE recalls.valid_from <= now64(6)
GROUP BY recall_id, udi_di, lot
COMMENT 'Recalls as registered now';

CREATE TABLE IF NOT EXISTS policies
(
    tenant LowCardinality(String) COMMENT 'Tenant; empty = every tenant that has none of its own',
    name LowCardinality(String) COMMENT 'Policy, e.g. unknown_devices',
    value String COMMENT 'Its value, e.g. keep or quarantine',
    valid_from DateTime64(6, 'UTC') COMMENT 'From when the row holds; UTC, us; the latest that is not in the future wins' CODEC(Delta, ZSTD(1)),
    recorded_at DateTime64(6, 'UTC') COMMENT 'When the row was recorded; UTC, us; decides between rows with the same valid_from' CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
ORDER BY (tenant, name, valid_from, recorded_at)
SETTINGS old_parts_lifetime = 480
COMMENT 'Policies by tenant, with history';

CREATE OR REPLACE VIEW policies_latest
(
    tenant LowCardinality(String) COMMENT 'Tenant; empty = every tenant that has none of its own',
    name LowCardinality(String) COMMENT 'Policy, e.g. unknown_devices',
    value String COMMENT 'Its value, e.g. keep or quarantine',
    valid_from DateTime64(6, 'UTC') COMMENT 'From when it holds; UTC, us'
)
AS SELECT
    tenant, name,
    argMax(policies.value, (policies.valid_from, recorded_at)) AS value,
    argMax(policies.valid_from, (policies.valid_from, recorded_at)) AS valid_from
FROM policies
WHERE policies.valid_from <= now64(6)
GROUP BY tenant, name
COMMENT 'Policies in force now';
