//! What the warehouse needs now and then, beside the data path: rollups of ingest days that are over, the pruning of what the
//! loader wrote for itself, and in `up` the enrolment of devices that were heard of.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use warehouse::{
    Warehouse,
    prune::{self, Pruned},
    registry, rollup,
};

const ROLLUP_INTERVAL: Duration = Duration::from_secs(600);
const PRUNE_INTERVAL: Duration = Duration::from_secs(600);
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

/// Deletes ledger states, commits and intents that nobody needs any more, until `shutdown`. Days that Kafka still holds can be
/// made again as before. Several loaders may do so at once.
pub async fn prune(
    warehouse: Warehouse,
    retention_days: u32,
    shutdown: CancellationToken,
) -> Result<(), warehouse::Error> {
    let mut interval = tokio::time::interval(PRUNE_INTERVAL);
    // Kafka deletes whole files, some time after the last record in them is old enough.
    let days = retention_days.saturating_add(1);
    while shutdown.run_until_cancelled(interval.tick()).await.is_some() {
        match prune::prune(&warehouse, days, prune::ROWS_MIN, shutdown.cancelled()).await {
            Ok(Pruned { ledgers, commits, intents }) if ledgers + commits + intents > 0 => {
                tracing::info!(ledgers, commits, intents, "pruned what the loader needs no more");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "nothing is pruned yet; trying again in {PRUNE_INTERVAL:?}"),
        }
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
