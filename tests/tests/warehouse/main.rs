//! The schema on the real engine: migrations, verification, registry, rollups, views.

mod delivery;
mod grants;
mod incarnations;
mod prune;
mod reading;
mod registry;
mod rollup;
mod schema;
mod users;
mod work;

use std::time::{SystemTime, UNIX_EPOCH};

use harness::ClickHouse;
use warehouse::{Warehouse, migrate};

/// A warehouse on an engine, without a schema.
fn empty(clickhouse: &ClickHouse) -> Warehouse {
    Warehouse::new(clickhouse.warehouse_options()).expect("the address is valid")
}

/// A warehouse with the schema.
async fn migrated(clickhouse: &ClickHouse) -> Warehouse {
    let warehouse = empty(clickhouse);
    migrate::migrate(&warehouse, migrate::Options::default()).await.expect("migrate an empty warehouse");
    warehouse
}

fn now_us() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_micros()).expect("before 2262")
}
