//! Thousands of devices that are active at the same time, without any fault.

use harness::ClickHouse;
use warehouse::Warehouse;

use crate::Rig;

/// One session with 20 injections on each of `devices`, whose names have a realistic length, in a
/// batch of an incarnation. Incarnation 0 belongs to no batch, and the batch of incarnation 1 is
/// not committed.
fn visits(clickhouse: &ClickHouse, devices: std::ops::Range<u32>, incarnation: u32) {
    let device = "concat('injector-dermatology-', leftPad(toString(number), 8, '0'))";
    let visit = "concat('visit-20260105-', leftPad(toString(number), 8, '0'), '-treatment-room-03')";
    let from = format!("FROM numbers({}, {})", devices.start, devices.len());
    let key = format!("'clinic-chain-europe', 'paris', {device}, {visit}, {incarnation}, today()");
    let columns = "tenant, site, device, session_id, incarnation, ingest_day";
    let first = "toDateTime64('2026-01-05 08:00:00', 6, 'UTC')";
    clickhouse.query(&format!(
        "INSERT INTO doseline.accuracy_session ({columns}, model, dose_calibration_id, target_nl, injections, dose_n, \
         dose_target_nl, dose_error_nl, dose_error_sq, first_at, last_at) \
         SELECT {key}, 'pen', 'c1', 10000, 20, 20, 200000, 100, 900000, {first}, {first} + 1200 {from} \
         SETTINGS max_block_size = 40, min_insert_block_size_rows = 0, min_insert_block_size_bytes = 0"
    ));
    clickhouse.query(&format!(
        "INSERT INTO doseline.injections ({columns}, boot_id, seq, at, outcome) SELECT {key}, 1, 1, {first}, 'OK' {from}"
    ));
    clickhouse.query(&format!(
        "INSERT INTO doseline.item_uses ({columns}, slot, mount_id, item_id, injections, first_at, last_at) \
         SELECT {key}, 'NEEDLE', concat('mount-', toString(number)), concat('needle-20260105-', toString(number)), 20, \
         {first}, {first} + 1200 {from}"
    ));
}

fn longest_position(clickhouse: &ClickHouse) -> u64 {
    clickhouse.number("SELECT max(length(seen)) FROM doseline.monitor_positions FINAL")
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_devices_with_news_at_once_do_not_end_the_monitor() {
    let mut rig = Rig::start().await;
    rig.clickhouse.query("SYSTEM STOP MERGES doseline.accuracy_session");
    rig.clickhouse.query("INSERT INTO doseline.models (model, dose_tolerance_ppm) VALUES ('pen', 100000)");
    visits(&rig.clickhouse, 0..10, 0);
    assert!(rig.pass().await.whole);

    // More sessions than one statement can name, and in more parts than one statement names.
    visits(&rig.clickhouse, 10..4_010, 1);
    let later = monitor::now_us() + 61_000_000;
    let summary = rig.monitor.pass(later).await.expect("a pass over what 4,000 devices sent");
    assert!(!summary.whole, "{summary:?}");
    let bytes = longest_position(&rig.clickhouse);
    assert!(bytes > 300_000, "{bytes} bytes are no test");
    // A restart reads the recorded position. Only sessions that were not committed must be judged
    // again.
    let mut again = Rig::monitor(&rig.warehouse).await;
    let summary = again.pass(later).await.expect("a pass after a restart");
    assert!(!summary.whole, "{summary:?}");
    rig.monitor = again;

    // Too many sessions to judge them one by one, so everything is judged until they are committed.
    visits(&rig.clickhouse, 4_010..24_010, 1);
    assert!(rig.pass().await.whole);
    committed(&rig.warehouse).await;
    assert!(rig.pass().await.whole, "what was left open is judged now");
    let judged = "SELECT uniqExact(device) FROM doseline.accuracy_verdicts FINAL";
    assert_eq!(rig.clickhouse.number(judged), 24_010);
}

/// Commits everything of incarnation 1.
async fn committed(warehouse: &Warehouse) {
    let sql = "INSERT INTO loader_commits (kind, incarnation, kafka_partition, batch, batch_end, committed_at) \
               SELECT 'commit', 1, 0, 0, 1, now64(6)";
    warehouse.command(sql).await.expect("commit");
}
