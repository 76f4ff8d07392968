//! What ClickHouse itself shows of every table and view under the settings of an asker.

use harness::ClickHouse;
use warehouse::{
    Warehouse,
    rights::{DECISIONS, Owner},
    schema::{Kind, RELATIONS},
    sight::Sight,
};

use super::{
    marks::{self, MAKER, RIVAL_MODEL, TENANTS},
    migrated,
};

/// Tables without a tenant that only somebody who may see everything reads.
const CLOSED: [&str; 5] = ["kafka_topics", "loader_intents", "monitor_positions", "schema_migrations", "unit_secret"];

/// All rows of a query as JSON, sorted.
async fn rows(warehouse: &Warehouse, sql: &str) -> Vec<String> {
    let mut bytes = warehouse.query(sql).fetch_bytes("JSONEachRow").expect("a query");
    let text = bytes.collect().await.unwrap_or_else(|error| panic!("{error}: {sql}"));
    let mut rows: Vec<_> = String::from_utf8(text.to_vec()).expect("UTF-8").lines().map(str::to_owned).collect();
    rows.sort();
    rows
}

/// No relation shows a row of another tenant, and each shows every row of one's own, whether or not
/// the query has a condition of its own.
#[tokio::test(flavor = "multi_thread")]
async fn every_table_and_view_shows_exactly_the_rows_of_the_tenant() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    marks::fill(&clickhouse);
    let with_tenant: Vec<String> = warehouse
        .rows("SELECT table FROM system.columns WHERE database = currentDatabase() AND name = 'tenant' ORDER BY table")
        .await
        .unwrap();
    for tenant in TENANTS {
        let foreign = if tenant == "alpha" { "beta" } else { "alpha" };
        let seen = warehouse.seen_by(&Sight::Tenants(vec![tenant.to_owned()]));
        for (relation, _) in RELATIONS {
            let sql = format!("SELECT * FROM {relation}");
            let shown = rows(&seen, &sql).await;
            assert!(!shown.iter().any(|row| row.contains(foreign)), "{relation} shows {tenant} {shown:#?}");
            if with_tenant.iter().any(|name| name == relation) {
                let is_for_all = ["policies", "recipes", "audit_trail"].iter().any(|name| relation.starts_with(name));
                let own = if is_for_all { format!("('', '{tenant}')") } else { format!("('{tenant}')") };
                let expected = rows(&warehouse, &format!("{sql} WHERE tenant IN {own}")).await;
                assert_eq!(shown, expected, "{relation}");
                let of_foreign = format!("{sql} WHERE tenant = '{foreign}'");
                assert_eq!(rows(&seen, &of_foreign).await, [""; 0], "{relation}");
            }
            if CLOSED.contains(relation) {
                assert_eq!(shown, [""; 0], "{relation}");
            }
        }
        // What is not there cannot be hidden: the tables with a tenant are those of the decisions.
        let tables = DECISIONS.iter().zip(RELATIONS).filter(|(_, (_, kind))| *kind != Kind::View);
        let of_tenants = tables.filter(|(table, _)| matches!(table.owner, Owner::Tenant | Owner::TenantOrGeneral));
        for table in of_tenants.map(|(table, _)| table.relation) {
            assert!(with_tenant.iter().any(|name| name == table), "{table}");
            let count = rows(&seen, &format!("SELECT count() AS n FROM {table} HAVING n > 0")).await;
            assert_eq!(count.len(), 1, "{table} has no row of {tenant}");
        }
    }
}

/// Also what ClickHouse answers without reading rows, and what a subquery or a join reads.
#[tokio::test(flavor = "multi_thread")]
async fn no_form_of_a_query_goes_past_the_sight() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    marks::fill(&clickhouse);
    let seen = warehouse.seen_by(&Sight::Tenants(vec!["alpha".to_owned()]));
    for sql in [
        "SELECT count() AS n FROM injections",
        "SELECT count() AS n FROM doseline.injections",
        "SELECT count() AS n FROM injections AS alias",
        "SELECT count() AS n FROM (SELECT * FROM injections)",
        "WITH x AS (SELECT * FROM injections) SELECT count() AS n FROM x",
        "SELECT (SELECT count() FROM injections) AS n",
        "SELECT count() AS n FROM injections AS a INNER JOIN injections AS b USING (seq)",
        "SELECT count() AS n FROM (SELECT tenant FROM injections UNION ALL SELECT tenant FROM injections WHERE 0)",
        "SELECT uniqExact(tenant) AS n FROM injections",
        "SELECT count() AS n FROM injections WHERE tenant IN (SELECT tenant FROM injections)",
        "SELECT count() AS n FROM alerts FINAL",
        "SELECT count() AS n FROM alerts SETTINGS optimize_trivial_count_query = 1",
        "SELECT count() AS n FROM alerts PREWHERE state = 'OPEN'",
    ] {
        assert_eq!(rows(&seen, sql).await, [r#"{"n":1}"#], "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manufacturer_sees_its_units_and_nothing_else() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    marks::fill(&clickhouse);
    let seen = warehouse.seen_by(&Sight::Manufacturer(MAKER.to_owned()));
    // What the three views read; no endpoint of a manufacturer reads it itself.
    let read = ["accuracy_session", "devices", "devices_latest", "models", "models_latest", "unit_secret"];
    for (relation, _) in RELATIONS.iter().filter(|(name, _)| !read.contains(name)) {
        let shown = rows(&seen, &format!("SELECT * FROM {relation}")).await;
        if relation.starts_with("calibration_by_") {
            assert!(!shown.is_empty(), "{relation}");
            for row in &shown {
                let is_foreign = TENANTS.iter().any(|tenant| row.contains(tenant)) || row.contains(RIVAL_MODEL);
                assert!(!is_foreign && row.contains(r#""manufacturer":"maker""#), "{relation}: {row}");
            }
        } else {
            assert_eq!(shown, [""; 0], "{relation}");
        }
    }
    let rival = warehouse.seen_by(&Sight::Manufacturer("rival".to_owned()));
    assert_eq!(rows(&rival, "SELECT DISTINCT model FROM calibration_by_unit").await, [r#"{"model":"rival-model"}"#]);
    assert_eq!(rows(&rival, "SELECT uniqExact(unit_key) AS n FROM calibration_by_unit").await, [r#"{"n":2}"#]);
    let nobody = warehouse.seen_by(&Sight::Manufacturer("' OR 1 --\\".to_owned()));
    assert_eq!(rows(&nobody, "SELECT * FROM calibration_by_model").await, [""; 0]);
}

/// A query that would take too much ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_bounded() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    let seen = warehouse.seen_by(&Sight::All);
    let many = seen.rows::<u64>("SELECT number FROM numbers(10002)").await.expect_err("too many rows").to_string();
    assert!(many.contains("TOO_MANY_ROWS"), "{many}");
    let long = "SELECT repeat(repeat('x', 1000), 70000) AS x";
    let error = seen.rows::<String>(long).await.map(|rows| rows.len()).expect_err("too many bytes").to_string();
    assert!(error.contains("more than 67108864 bytes"), "{error}");
    assert_eq!(warehouse.rows::<String>(long).await.expect("no asker, no limit").len(), 1);
}
