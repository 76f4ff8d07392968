//! What the warehouse needs now and then, beside the data path: rollups of ingest days that are
//! over, the quarantine's column `replayed` and its limits, the pruning of what the loader wrote
//! for itself, and in `up` the enrolment of devices that were heard of.

use std::{sync::Arc, time::Duration};

use bridge::registry::Registry;
use embedded::mosquitto;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use warehouse::{
    Warehouse,
    prune::{self, Pruned},
    registry, rollup,
};

use crate::{
    config::Quarantine,
    quarantine::limits::{Level, Limit, limits},
};

const ROLLUP_INTERVAL: Duration = Duration::from_secs(600);
const QUARANTINE_INTERVAL: Duration = Duration::from_secs(30);
const REGISTRY_INTERVAL: Duration = Duration::from_secs(5);
/// What the views read of a device grows with every state of its ledger that is left.
const PRUNE_INTERVAL: Duration = Duration::from_secs(120);
const ENROL_INTERVAL: Duration = Duration::from_secs(60);
const BROKER_INTERVAL: Duration = Duration::from_secs(1);

/// Rolls up every ingest day that has been over for an hour, until `shutdown`. Several loaders may
/// do so at once: the first one counts.
pub async fn roll_up(
    warehouse: Warehouse,
    handle: load::Handle,
    shutdown: CancellationToken,
) -> Result<(), warehouse::Error> {
    let mut interval = tokio::time::interval(ROLLUP_INTERVAL);
    handle.upkeep("rollup", None);
    while shutdown.run_until_cancelled(interval.tick()).await.is_some() {
        let closed = rollup::close_due(&warehouse).await;
        handle.upkeep("rollup", closed.as_ref().err().map(ToString::to_string));
        if let Err(error) = closed {
            tracing::warn!(%error, "days are not rolled up yet; trying again in {ROLLUP_INTERVAL:?}");
        }
    }
    Ok(())
}

/// Deletes ledger states, commits and intents that nobody needs any more, until `shutdown`. Days
/// that Kafka still holds can still be rebuilt. Several loaders may do so at once.
pub async fn prune(
    warehouse: Warehouse,
    handle: load::Handle,
    retention_days: u32,
    shutdown: CancellationToken,
) -> Result<(), warehouse::Error> {
    let mut interval = tokio::time::interval(PRUNE_INTERVAL);
    // Kafka deletes whole files, some time after the last record in them is old enough.
    let days = retention_days.saturating_add(1);
    handle.upkeep("pruning", None);
    while shutdown.run_until_cancelled(interval.tick()).await.is_some() {
        let pruned = prune::prune(&warehouse, days, prune::ROWS_MIN, shutdown.cancelled()).await;
        handle.upkeep("pruning", pruned.as_ref().err().map(ToString::to_string));
        match pruned {
            Ok(Pruned { ledgers, commits, intents }) if ledgers + commits + intents > 0 => {
                tracing::info!(ledgers, commits, intents, "pruned what the loader needs no more");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "nothing is pruned yet; trying again in {PRUNE_INTERVAL:?}"),
        }
    }
    Ok(())
}

/// Counts restarts of the MQTT broker among the bridge's metrics, until `shutdown`.
pub async fn count_restarts(
    broker: mosquitto::Status,
    bridge: bridge::Handle,
    shutdown: CancellationToken,
) -> Result<(), std::convert::Infallible> {
    let (mut interval, mut counted) = (tokio::time::interval(BROKER_INTERVAL), 0);
    while shutdown.run_until_cancelled(interval.tick()).await.is_some() {
        let restarts = broker.restarts();
        bridge.broker_restarted(restarts - counted);
        counted = restarts;
    }
    Ok(())
}

/// Takes unknown devices into the registry as ENROLLED, until `shutdown`.
pub async fn enrol(
    warehouse: Warehouse,
    handle: load::Handle,
    shutdown: CancellationToken,
) -> Result<(), warehouse::Error> {
    let mut interval = tokio::time::interval(ENROL_INTERVAL);
    handle.upkeep("enrolment", None);
    while shutdown.run_until_cancelled(interval.tick()).await.is_some() {
        let enrolled = registry::enrol(&warehouse).await;
        handle.upkeep("enrolment", enrolled.as_ref().err().map(ToString::to_string));
        if let Err(error) = enrolled {
            tracing::warn!(%error, "devices are not enrolled yet; trying again in {ENROL_INTERVAL:?}");
        }
    }
    Ok(())
}

/// Keeps the quarantine's column `replayed` in line and looks at its limits, until `shutdown`. An
/// alarm is logged when it begins, rises and ends; the metrics have it all the time.
pub async fn watch_quarantine(
    warehouse: Warehouse,
    handle: load::Handle,
    configured: Quarantine,
    shutdown: CancellationToken,
) -> Result<(), warehouse::Error> {
    let mut interval = tokio::time::interval(QUARANTINE_INTERVAL);
    let mut known = Vec::new();
    handle.upkeep("quarantine watch", None);
    while shutdown.run_until_cancelled(interval.tick()).await.is_some() {
        let looked = look_at_quarantine(&warehouse, &handle, configured).await;
        handle.upkeep("quarantine watch", looked.as_ref().err().map(ToString::to_string));
        match looked {
            Ok(limits) => {
                let levels: Vec<Level> = limits.iter().map(|limit| limit.level).collect();
                if levels != known {
                    limits.iter().for_each(raise);
                    if known.iter().any(|level| *level != Level::Fine)
                        && levels.iter().all(|level| *level == Level::Fine)
                    {
                        tracing::info!("the quarantine is within its limits again");
                    }
                    known = levels;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the quarantine could not be looked at; trying again in {QUARANTINE_INTERVAL:?}")
            }
        }
    }
    Ok(())
}

async fn look_at_quarantine(
    warehouse: &Warehouse,
    handle: &load::Handle,
    configured: Quarantine,
) -> Result<[Limit; 3], warehouse::Error> {
    warehouse.mark_replayed().await?;
    let usage = warehouse.quarantine_usage().await?;
    let limits = limits(&usage, configured);
    let ratios = limits.each_ref().map(|limit| (limit.name, limit.ratio()));
    handle.quarantine(usage.rows, usage.bytes, usage.waiting, &ratios);
    Ok(limits)
}

fn raise(limit: &Limit) {
    const REMEDY: &str = "`doseline quarantine list` shows it; replay what can be used, nothing is deleted by itself";
    match limit.level {
        Level::Fine => {}
        Level::Warning => tracing::warn!(limit = limit.name, "quarantine: {limit}; {REMEDY}"),
        Level::Error => tracing::error!(limit = limit.name, "quarantine: {limit}; {REMEDY}"),
    }
}

/// Reads registered devices and policies for the bridge again and again, until `shutdown`. While
/// they cannot be read, what was read last holds.
pub async fn read_registry(
    warehouse: Warehouse,
    current: watch::Sender<Option<Arc<Registry>>>,
    shutdown: CancellationToken,
) -> Result<(), warehouse::Error> {
    let mut interval = tokio::time::interval(REGISTRY_INTERVAL);
    while shutdown.run_until_cancelled(interval.tick()).await.is_some() {
        match registry(&warehouse).await {
            Ok(registry) => drop(current.send_if_modified(|known| {
                let new = known.as_deref() != Some(&registry);
                if new {
                    *known = Some(Arc::new(registry));
                }
                new
            })),
            Err(error) => tracing::warn!(%error, "the registry cannot be read; what was read last holds"),
        }
    }
    Ok(())
}

async fn registry(warehouse: &Warehouse) -> Result<Registry, warehouse::Error> {
    let policies = warehouse.unknown_device_policies().await?;
    let refusing = policies.into_iter().map(|(tenant, value)| (tenant, value == "quarantine"));
    Ok(Registry::new(refusing, warehouse.all_registered().await?))
}
