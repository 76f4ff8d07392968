//! What a pass over a large fleet costs. It runs in a process of its own, whose CPU time is that of
//! the pass.

use harness::{ClickHouse, cpu_s};
use monitor::{Monitor, Options};
use warehouse::{Warehouse, migrate};

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_over_ten_thousand_devices_takes_less_than_30_cpu_seconds() {
    let mut clickhouse = ClickHouse::start();
    let options = clickhouse.warehouse_options();
    let warehouse = Warehouse::new(options).expect("a valid address");
    migrate::migrate(&warehouse, migrate::Options::default()).await.expect("migrate");
    let mut monitor = Monitor::bind(Options::default(), warehouse).await.expect("no address to bind");
    harness::ten_thousand_devices(&clickhouse);
    clickhouse.rest();
    let engine = clickhouse.process().id();
    let (before, began) = ((cpu_s(std::process::id()), cpu_s(engine)), std::time::Instant::now());
    let summary = monitor.pass(monitor::now_us()).await.expect("a pass");
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
    assert_eq!(clickhouse.number(reused), 10);
    assert_eq!(
        clickhouse.number("SELECT count() FROM doseline.open_alerts WHERE kind LIKE 'sterility-%' AND holds"),
        10
    );
    let judged = "SELECT count() FROM doseline.accuracy_verdicts FINAL WHERE sessions = 8 AND k_clustered > 0";
    assert_eq!(clickhouse.number(judged), 2 * 9_375);

    // One more session, so only what changed is judged.
    clickhouse.query(
        "INSERT INTO doseline.item_uses (tenant, site, device, session_id, slot, mount_id, item_id, injections, first_at, last_at) \
         VALUES ('acme', 'paris', 'inj-9', 'again', 'NEEDLE', 'm0NEEDLE', 'N9-0', 1, '2026-01-06 08:00:00', '2026-01-06 08:00:00')",
    );
    let (before, began) = (cpu_s(std::process::id()) + cpu_s(engine), std::time::Instant::now());
    let summary = monitor.pass(monitor::now_us()).await.expect("a pass");
    let after = cpu_s(std::process::id()) + cpu_s(engine) - before;
    println!("one change: {} units, {after:.2} CPU-s, {:?}", summary.units, began.elapsed());
    assert!(!summary.whole && summary.units < 10_000, "{summary:?}");
    // Half a second on an idle machine. A pass over everything would take twenty.
    assert!(after < 5.0, "{after} CPU-s");
    assert_eq!(clickhouse.number(reused), 11);
    assert!(own + engines < 30.0, "{own} + {engines} CPU-s");
}
