//! Bytes on a connection to the HTTP port of the embedded ClickHouse.

use std::sync::LazyLock;

use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().expect("start a runtime"));

/// Whatever comes is read up to where the engine would get a statement.
pub fn check(bytes: &[u8]) {
    RUNTIME.block_on(embedded::clickhouse::read_requests(bytes));
}
