//! What the warehouse needs now and then, beside the data path: rollups of ingest days that are over, and in `up` the
//! enrolment of devices that were heard of.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use warehouse::{Warehouse, registry, rollup};

const ROLLUP_INTERVAL: Duration = Duration::from_secs(600);
const ENROL_INTERVAL: Duration = Duration::from_secs(60);

/// Rolls up every ingest day that is over, until `shutdown`. Several loaders may do so at once: a day is swapped in whole.
pub async fn roll_up(warehouse: Warehouse, shutdown: CancellationToken) -> Result<(), warehouse::Error> {
    let mut interval = tokio::time::interval(ROLLUP_INTERVAL);
    while shutdown.run_until_cancelled(interval.tick()).await.is_some() {
        if let Err(error) = close_days(&warehouse).await {
            tracing::warn!(%error, "days are not rolled up yet; trying again in {ROLLUP_INTERVAL:?}");
        }
    }
    Ok(())
}

async fn close_days(warehouse: &Warehouse) -> Result<(), warehouse::Error> {
    for day in rollup::due(warehouse).await? {
        rollup::close_day(warehouse, day).await?;
        tracing::info!(days_since_1970 = day, "rolled up an ingest day");
    }
    Ok(())
}

/// Takes unknown devices into the registry as ENROLLED, until `shutdown`.
pub async fn enrol(warehouse: Warehouse, shutdown: CancellationToken) -> Result<(), warehouse::Error> {
    let mut interval = tokio::time::interval(ENROL_INTERVAL);
    while shutdown.run_until_cancelled(interval.tick()).await.is_some() {
        if let Err(error) = registry::enrol(&warehouse).await {
            tracing::warn!(%error, "devices are not enrolled yet; trying again in {ENROL_INTERVAL:?}");
        }
    }
    Ok(())
}
