//! Data of a large fleet, which ClickHouse itself generates.

use crate::ClickHouse;

/// Fills migrated tables with 9,375 injection devices of 8 sessions with 40 injections each, and
/// 625 sterilizers of 8 cycles with 15 handpieces and 200 samples. Each session has a needle, a
/// syringe and a handpiece. Every thousandth needle is used twice, which makes 10 alerts.
pub fn ten_thousand_devices(clickhouse: &ClickHouse) {
    let visit = "concat('v', toString(device), '-', toString(visit))";
    let base = "FROM (SELECT number % 9375 AS device, intDiv(number, 9375) AS visit, \
                toDateTime64('2026-01-05 08:00:00', 6, 'UTC') + toIntervalHour(visit) AS time FROM numbers(75000)) AS visits";
    let name = "concat('inj-', toString(device))";
    let slots = "ARRAY JOIN ['NEEDLE', 'SYRINGE', 'HANDPIECE'] AS kind";
    let item = "multiIf(kind = 'NEEDLE', concat('N', toString(device), '-', toString(if(device % 1000 = 7 AND visit = 3, 2, visit))), \
                kind = 'SYRINGE', 'SY-1', concat('H', toString(device), '-', toString(visit % 2)))";
    clickhouse.query(&format!(
        "INSERT INTO doseline.mounts (tenant, site, device, boot_id, seq, at, time_source, session_id, event, slot, mount_id, \
         item_id, id_kind, udi_di, lot, reusable, pack_intact) \
         SELECT 'acme', 'paris', {name}, 1, visit * 10 + indexOf(['NEEDLE', 'SYRINGE', 'HANDPIECE'], kind), time, 'DEVICE', \
         {visit}, 'MOUNTED', kind, concat('m', toString(visit), kind), {item}, if(kind = 'SYRINGE', 'LOT_ONLY', 'SERIAL'), \
         kind, 'L1', kind = 'HANDPIECE', true {base} {slots}"
    ));
    clickhouse.query(&format!(
        "INSERT INTO doseline.item_uses (tenant, site, device, session_id, slot, mount_id, item_id, injections, punctures, \
         first_at, last_at) SELECT 'acme', 'paris', {name}, {visit}, kind, concat('m', toString(visit), kind), \
         if(kind = 'SYRINGE', '', {item}), 40, 40, time + 60, time + 1200 {base} {slots}"
    ));
    clickhouse.query(&format!(
        "INSERT INTO doseline.injections (tenant, site, device, boot_id, seq, at, time_source, session_id, needle_mount_id, \
         preparation_id, outcome) SELECT 'acme', 'paris', {name}, 1, visit * 100 + shot, time + 60 + shot * 20, 'DEVICE', \
         {visit}, concat('m', toString(visit), 'NEEDLE'), concat('p', toString(device)), 'OK' {base} ARRAY JOIN range(40) AS shot"
    ));
    let cycles = "FROM (SELECT number % 625 AS device, intDiv(number, 625) AS slot, \
                  toDateTime64('2026-01-05 07:10:00', 6, 'UTC') + toIntervalHour(slot) AS time FROM numbers(5000)) AS cycles";
    let key = "'acme', 'paris', concat('ster-', toString(device)), 1, slot + 1, time, 'DEVICE', \
               concat('c', toString(device), '-', toString(slot))";
    let columns = "tenant, site, device, boot_id, seq, at, time_source, cycle_uid";
    clickhouse.query(&format!(
        "INSERT INTO doseline.sterilization_cycles ({columns}, recipe, purpose, load_dry, items, samples) \
         SELECT {key}, '134C-3min', 'LOAD', true, 15, 200 {cycles}"
    ));
    clickhouse.query(&format!(
        "INSERT INTO doseline.sterilization_samples ({columns}, index, offset_ms, sensor, temperature_mc, pressure_pa) \
         SELECT {key}, sample, sample * 2000, 0, 134500, 308500 {cycles} ARRAY JOIN range(200) AS sample"
    ));
    clickhouse.query(&format!(
        "INSERT INTO doseline.sterilization_items ({columns}, index, item_id) \
         SELECT {key}, place, concat('H', toString(device * 15 + place), '-', toString(slot % 2)) {cycles} ARRAY JOIN range(15) AS place"
    ));
    clickhouse.query(&format!(
        "INSERT INTO doseline.cycle_releases (tenant, site, device, boot_id, seq, at, cycle_uid, decision) \
         SELECT 'acme', 'paris', concat('ster-', toString(device)), 1, slot + 100, time, concat('c', toString(device), '-', \
         toString(slot)), 'RELEASED' {cycles}"
    ));
    clickhouse.query("INSERT INTO doseline.policies (name, value) VALUES ('sterility.bowie_dick', 'off')");
    let error = "(toInt64(cityHash64(device, visit) % 4001) - 2000)";
    clickhouse.query(&format!(
        "INSERT INTO doseline.accuracy_session (tenant, site, device, model, firmware, session_id, dose_calibration_id, \
         depth_calibration_id, target_nl, target_um, injections, dose_n, dose_target_nl, dose_error_nl, dose_error_sq, depth_n, \
         depth_target_um, depth_error_um, depth_error_sq, first_at, last_at) SELECT 'acme', 'paris', {name}, 'pen', 'f1', {visit}, \
         'c1', 'd1', 10000, 3000, 40, 40, 400000, {error}, intDiv({error} * {error}, 40) + 1600000, 40, 120000, intDiv({error}, 4), \
         intDiv({error} * {error}, 640) + 36000, time + 60, time + 1200 {base}"
    ));
    clickhouse.query(
        "INSERT INTO doseline.models (model, dose_tolerance_ppm, depth_tolerance_um, safe_depth_um) \
         VALUES ('pen', 100000, 200, map('FACE', 4000))",
    );
}
