//! Import, history, enrolment, and how the view `fleet` shows them.

use harness::ClickHouse;
use telemetry::commands::Device;
use warehouse::{Error, Warehouse, registry};

use super::{migrated, now_us};

/// Imports a file, with the rows that the loader writes for its commands. Returns how many lines
/// were read, and how many devices were new.
async fn import(clickhouse: &ClickHouse, warehouse: &Warehouse, csv: &str) -> Result<(u64, usize), Error> {
    let novel = registry::novel_devices(warehouse, csv.as_bytes(), now_us()).await?;
    for (tenant, device) in &novel.devices {
        let Device { device, site, kind, model, manufacturer, serial, valid_from_us, .. } = device;
        clickhouse.query(&format!(
            "INSERT INTO doseline.devices (tenant, device, site, kind, model, manufacturer, serial, origin, valid_from, \
             recorded_at, incarnation) SELECT '{tenant}', '{device}', '{site}', '{kind}', '{model}', '{manufacturer}', \
             '{serial}', 'IMPORTED', fromUnixTimestamp64Micro({valid_from_us}), now64(6), 1"
        ));
    }
    Ok((novel.read, novel.devices.len()))
}

const FILE: &str = "\
tenant,site,device,kind,model,manufacturer,serial,valid_from
acme,paris,pen-1,INJECTOR,MX-1,maker,S1,2024-01-01
acme,paris,steri-1,STERILIZER,,,,
";

#[tokio::test(flavor = "multi_thread")]
async fn imports_keep_history_and_add_nothing_twice() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    let import = async |csv: &str| import(&clickhouse, &warehouse, csv).await;
    assert_eq!(import(FILE).await.unwrap(), (2, 2));
    assert_eq!(import(FILE).await.unwrap(), (2, 0));

    let moved = "tenant,site,device,kind,valid_from\nacme,lyon,pen-1,INJECTOR,2025-06-01T08:30:00Z\n";
    assert_eq!(import(moved).await.unwrap(), (1, 1));
    let later = "tenant,site,device,kind,valid_from\nacme,nice,pen-1,INJECTOR,2099-01-01\n";
    assert_eq!(import(later).await.unwrap(), (1, 1));
    let history = "SELECT site, valid_from FROM doseline.devices WHERE device = 'pen-1' ORDER BY valid_from";
    let expected =
        "paris\t2024-01-01 00:00:00.000000\nlyon\t2025-06-01 08:30:00.000000\nnice\t2099-01-01 00:00:00.000000";
    assert_eq!(clickhouse.query(history), expected);
    let now = "SELECT site, model, valid_from FROM doseline.devices_latest WHERE device = 'pen-1'";
    assert_eq!(clickhouse.query(now), "lyon\t\t2025-06-01 08:30:00.000000");

    let wrong = format!("{FILE}acme,pa ris,pen-2,INJECTOR,,,,\n");
    let error = import(&wrong).await.unwrap_err();
    assert!(matches!(error, Error::Row { line: 4, .. }), "{error}");
    assert_eq!(clickhouse.number("SELECT count() FROM doseline.devices"), 4, "nothing of a faulty file is imported");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fleet_shows_registered_enrolled_and_unknown_devices() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    import(&clickhouse, &warehouse, FILE).await.unwrap();
    let status = |device: &str, state: &str, site: &str| {
        clickhouse.query(&format!(
            "INSERT INTO doseline.device_status (tenant, site, device, received_at, source, state, firmware, battery_pct) \
             VALUES ('acme', '{site}', '{device}', now64(6), 'STATUS', '{state}', '1.2', 80)"
        ));
    };
    let fleet = || {
        clickhouse.query(
            "SELECT device, site, registration, registered_site, kind, model, state, battery_pct, last_seen IS NULL, \
             open_gaps, missing_events FROM doseline.fleet ORDER BY device",
        )
    };
    status("pen-1", "ONLINE", "lyon");
    status("pen-9", "LOST", "paris");
    clickhouse.query(
        "INSERT INTO doseline.loader_commits (kind, tenant, site, device, boot_id, stored_first, stored_last, last_arrival, \
         batch_end) VALUES ('ledger', 'acme', 'lyon', 'pen-1', 1, [3, 9], [4, 9], now64(6), 1)",
    );
    let known = "pen-1\tlyon\tREGISTERED\tparis\tINJECTOR\tMX-1\tONLINE\t80\t0\t2\t6";
    let silent = "steri-1\tparis\tREGISTERED\tparis\tSTERILIZER\t\t\t\\N\t1\t0\t0";
    assert_eq!(fleet(), format!("{known}\npen-9\tparis\tUNKNOWN\t\t\t\tLOST\t80\t1\t0\t0\n{silent}"));

    registry::enrol(&warehouse).await.unwrap();
    registry::enrol(&warehouse).await.unwrap();
    assert_eq!(clickhouse.number("SELECT count() FROM doseline.devices"), 3, "the registered are not enrolled");
    assert_eq!(fleet(), format!("{known}\npen-9\tparis\tENROLLED\tparis\t\t\tLOST\t80\t1\t0\t0\n{silent}"));

    // A person's entry overrides an enrolment, even with an earlier date.
    let csv = "tenant,site,device,kind,valid_from\nacme,nice,pen-9,INJECTOR,2024-01-01\n";
    import(&clickhouse, &warehouse, csv).await.unwrap();
    let shown = "SELECT registration, registered_site, kind FROM doseline.fleet WHERE device = 'pen-9'";
    assert_eq!(clickhouse.query(shown), "REGISTERED\tnice\tINJECTOR");
}
