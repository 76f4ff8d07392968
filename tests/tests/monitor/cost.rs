//! What a pass over a large fleet costs.

use std::time::Duration;

use super::Rig;

/// CPU time of this process and of another, s.
fn cpu_s(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("its CPU time");
    let fields: Vec<_> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("ticks");
    (ticks(11) + ticks(12)) / 100.0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_over_ten_thousand_devices_takes_less_than_30_cpu_seconds() {
    let mut rig = Rig::start().await;
    // 9,375 injection devices with 8 visits of 40 injections each, 625 sterilizers with 8 cycles of 16 handpieces and 200
    // samples. Each visit has a needle, a syringe and a handpiece; every thousandth needle is used twice.
    let visit = "concat('v', toString(device), '-', toString(visit))";
    let base = "FROM (SELECT number % 9375 AS device, intDiv(number, 9375) AS visit, \
                toDateTime64('2026-01-05 08:00:00', 6, 'UTC') + toIntervalHour(visit) AS time FROM numbers(75000)) AS visits";
    let name = "concat('inj-', toString(device))";
    let slots = "ARRAY JOIN ['NEEDLE', 'SYRINGE', 'HANDPIECE'] AS kind";
    let item = "multiIf(kind = 'NEEDLE', concat('N', toString(device), '-', toString(if(device % 1000 = 7 AND visit = 3, 2, visit))), \
                kind = 'SYRINGE', 'SY-1', concat('H', toString(device), '-', toString(visit % 2)))";
    rig.clickhouse.query(&format!(
        "INSERT INTO doseline.mounts (tenant, site, device, boot_id, seq, at, time_source, session_id, event, slot, mount_id, \
         item_id, id_kind, udi_di, lot, reusable, pack_intact) \
         SELECT 'acme', 'paris', {name}, 1, visit * 10 + indexOf(['NEEDLE', 'SYRINGE', 'HANDPIECE'], kind), time, 'DEVICE', \
         {visit}, 'MOUNTED', kind, concat('m', toString(visit), kind), {item}, if(kind = 'SYRINGE', 'LOT_ONLY', 'SERIAL'), \
         kind, 'L1', kind = 'HANDPIECE', true {base} {slots}"
    ));
    rig.clickhouse.query(&format!(
        "INSERT INTO doseline.item_uses (tenant, site, device, session_id, slot, mount_id, item_id, injections, punctures, \
         first_at, last_at) SELECT 'acme', 'paris', {name}, {visit}, kind, concat('m', toString(visit), kind), \
         if(kind = 'SYRINGE', '', {item}), 40, 40, time + 60, time + 1200 {base} {slots}"
    ));
    rig.clickhouse.query(&format!(
        "INSERT INTO doseline.injections (tenant, site, device, boot_id, seq, at, time_source, session_id, needle_mount_id, \
         preparation_id, outcome) SELECT 'acme', 'paris', {name}, 1, visit * 100 + shot, time + 60 + shot * 20, 'DEVICE', \
         {visit}, concat('m', toString(visit), 'NEEDLE'), concat('p', toString(device)), 'OK' {base} ARRAY JOIN range(40) AS shot"
    ));
    let cycles = "FROM (SELECT number % 625 AS device, intDiv(number, 625) AS slot, \
                  toDateTime64('2026-01-05 07:10:00', 6, 'UTC') + toIntervalHour(slot) AS time FROM numbers(5000)) AS cycles";
    let key = "'acme', 'paris', concat('ster-', toString(device)), 1, slot + 1, time, 'DEVICE', \
               concat('c', toString(device), '-', toString(slot))";
    let columns = "tenant, site, device, boot_id, seq, at, time_source, cycle_uid";
    rig.clickhouse.query(&format!(
        "INSERT INTO doseline.sterilization_cycles ({columns}, recipe, purpose, load_dry, items, samples) \
         SELECT {key}, '134C-3min', 'LOAD', true, 15, 200 {cycles}"
    ));
    rig.clickhouse.query(&format!(
        "INSERT INTO doseline.sterilization_samples ({columns}, index, offset_ms, sensor, temperature_mc, pressure_pa) \
         SELECT {key}, sample, sample * 2000, 0, 134500, 308500 {cycles} ARRAY JOIN range(200) AS sample"
    ));
    rig.clickhouse.query(&format!(
        "INSERT INTO doseline.sterilization_items ({columns}, index, item_id) \
         SELECT {key}, place, concat('H', toString(device * 15 + place), '-', toString(slot % 2)) {cycles} ARRAY JOIN range(15) AS place"
    ));
    rig.clickhouse.query(&format!(
        "INSERT INTO doseline.cycle_releases (tenant, site, device, boot_id, seq, at, cycle_uid, decision) \
         SELECT 'acme', 'paris', concat('ster-', toString(device)), 1, slot + 100, time, concat('c', toString(device), '-', \
         toString(slot)), 'RELEASED' {cycles}"
    ));
    rig.clickhouse.query("INSERT INTO doseline.policies (name, value) VALUES ('sterility.bowie_dick', 'off')");
    let error = "(toInt64(cityHash64(device, visit) % 4001) - 2000)";
    rig.clickhouse.query(&format!(
        "INSERT INTO doseline.accuracy_session (tenant, site, device, model, firmware, session_id, dose_calibration_id, \
         depth_calibration_id, target_nl, target_um, injections, dose_n, dose_target_nl, dose_error_nl, dose_error_sq, depth_n, \
         depth_target_um, depth_error_um, depth_error_sq, first_at, last_at) SELECT 'acme', 'paris', {name}, 'pen', 'f1', {visit}, \
         'c1', 'd1', 10000, 3000, 40, 40, 400000, {error}, intDiv({error} * {error}, 40) + 1600000, 40, 120000, intDiv({error}, 4), \
         intDiv({error} * {error}, 640) + 36000, time + 60, time + 1200 {base}"
    ));
    rig.clickhouse.query(
        "INSERT INTO doseline.models (model, dose_tolerance_ppm, depth_tolerance_um, safe_depth_um) \
         VALUES ('pen', 100000, 200, map('FACE', 4000))",
    );

    let engine = rig.clickhouse.process().id();
    let (before, began) = ((cpu_s(std::process::id()), cpu_s(engine)), std::time::Instant::now());
    let summary = rig.pass().await;
    let (own, engines) = (cpu_s(std::process::id()) - before.0, cpu_s(engine) - before.1);
    println!(
        "{} units, {} verdicts, {} alerts: {own:.1} CPU-s here, {engines:.1} in the engine, {:?}",
        summary.units,
        summary.verdicts,
        summary.alerts,
        began.elapsed()
    );
    assert!(summary.whole && summary.units > 200_000, "{summary:?}");
    let reused = "SELECT count() FROM doseline.open_alerts WHERE kind = 'sterility-2'";
    assert_eq!(rig.clickhouse.number(reused), 10);
    assert_eq!(
        rig.clickhouse.number("SELECT count() FROM doseline.open_alerts WHERE kind LIKE 'sterility-%' AND holds"),
        10
    );
    let judged = "SELECT count() FROM doseline.accuracy_verdicts FINAL WHERE sessions = 8 AND k_clustered > 0";
    assert_eq!(rig.clickhouse.number(judged), 2 * 9_375);

    // One more visit: what changed, not everything.
    rig.clickhouse.query(
        "INSERT INTO doseline.item_uses (tenant, site, device, session_id, slot, mount_id, item_id, injections, first_at, last_at) \
         VALUES ('acme', 'paris', 'inj-9', 'again', 'NEEDLE', 'm0NEEDLE', 'N9-0', 1, '2026-01-06 08:00:00', '2026-01-06 08:00:00')",
    );
    let (before, began) = (cpu_s(std::process::id()) + cpu_s(engine), std::time::Instant::now());
    let summary = rig.pass().await;
    let after = cpu_s(std::process::id()) + cpu_s(engine) - before;
    println!("one change: {} units, {after:.2} CPU-s, {:?}", summary.units, began.elapsed());
    assert!(!summary.whole && summary.units < 10_000, "{summary:?}");
    assert!(began.elapsed() < Duration::from_secs(30));
    assert_eq!(rig.clickhouse.number(reused), 11);
    assert!(own + engines < 30.0, "{own} + {engines} CPU-s");
}
