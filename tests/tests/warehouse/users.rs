//! The users of `deploy/clickhouse/users.d` on the engine.

use std::fs;

use harness::ClickHouse;

use super::migrated;

#[tokio::test(flavor = "multi_thread")]
async fn dashboards_read_everything_but_the_secret_of_the_pseudonyms() {
    let mut clickhouse = ClickHouse::start();
    assert!(clickhouse.stop().success());
    // In the deployment, passwords come from the environment.
    let users = include_str!("../../../deploy/clickhouse/users.d/doseline.xml");
    let without_password =
        |line: &str| if line.contains("<password_sha256_hex ") { "<no_password/>".to_owned() } else { line.to_owned() };
    let users: Vec<_> = users.lines().map(without_password).collect();
    let folder = clickhouse.data_dir().join("users.d");
    fs::create_dir(&folder).expect("a folder beside users.xml");
    fs::write(folder.join("doseline.xml"), users.join("\n")).expect("the users");
    clickhouse.start_again();
    migrated(&clickhouse).await;
    clickhouse.query(
        "INSERT INTO doseline.devices (tenant, device, site, kind, manufacturer, serial) VALUES \
         ('acme', 'pen-1', 'paris', 'INJECTOR', 'maker', 'SN-1')",
    );
    clickhouse.query(
        "INSERT INTO doseline.accuracy_session (tenant, device, target_nl, outcome, injections, dose_n) VALUES \
         ('acme', 'pen-1', 1000, 'OK', 1, 1)",
    );
    // A view reads with the rights of its definer and through the definer's row filters.
    let seen = |user: &str, of: &str| {
        clickhouse.query(&format!(
            "CREATE OR REPLACE VIEW doseline.seen DEFINER = {user} SQL SECURITY DEFINER AS SELECT count() AS n FROM doseline.{of}"
        ));
        clickhouse.number("SELECT n FROM doseline.seen")
    };
    assert_eq!(seen("doseline", "unit_secret"), 1);
    assert_eq!(seen("dashboards", "unit_secret"), 0);
    assert_eq!(seen("dashboards", "accuracy_session"), 1);
    assert_eq!(seen("dashboards", "calibration_by_unit"), 1, "the view reads the secret with its owner's rights");
    assert_eq!(clickhouse.query("SHOW GRANTS FOR dashboards"), "GRANT SELECT ON doseline.* TO dashboards");
}
