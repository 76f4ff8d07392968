//! Periodic tasks beside the path of an injection: rollups of past ingest days, the quarantine's
//! column `replayed` and its limits, the pruning of what the loader wrote for itself, and the
//! registry for the bridge. Only `up` enrols unknown devices and watches its broker.
//!
//! Each task does a round at once and then at every interval: see [`Rounds`]. Several loaders may
//! run the same task at once.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bridge::registry::{Device, Registry};
use embedded::mosquitto;
use tokio::{
    sync::watch,
    time::{Interval, interval},
};
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

pub const ROLLUP_EVERY: Duration = Duration::from_secs(600);
pub const QUARANTINE_EVERY: Duration = Duration::from_secs(30);
pub const REGISTRY_EVERY: Duration = Duration::from_secs(5);
/// Each state of a device's ledger that is not pruned makes the views that read it slower.
pub const PRUNE_EVERY: Duration = Duration::from_secs(120);
pub const ENROL_EVERY: Duration = Duration::from_secs(60);
pub const BROKER_EVERY: Duration = Duration::from_secs(1);

/// The rounds of one periodic task, until its shutdown.
pub struct Rounds {
    task: &'static str,
    interval: Interval,
    shutdown: CancellationToken,
    /// The loader whose `/readyz` fails if no round succeeds for an hour.
    loader: Option<load::Handle>,
}

impl Rounds {
    /// The first round is due at once.
    pub fn new(task: &'static str, every: Duration, shutdown: CancellationToken) -> Self {
        Self { task, interval: interval(every), shutdown, loader: None }
    }

    /// The same rounds, with their outcomes among the health of a loader.
    pub fn reported_to(self, loader: &load::Handle) -> Self {
        loader.upkeep(self.task, None);
        Self { loader: Some(loader.clone()), ..self }
    }

    /// Waits for the next round; false at shutdown.
    async fn next(&mut self) -> bool {
        self.shutdown.run_until_cancelled(self.interval.tick()).await.is_some()
    }

    /// Reports the outcome of a round; returns what it gave if it succeeded.
    fn ended<T>(&self, outcome: Result<T, warehouse::Error>) -> Option<T> {
        if let Some(loader) = &self.loader {
            loader.upkeep(self.task, outcome.as_ref().err().map(ToString::to_string));
        }
        let (task, every_s) = (self.task, self.interval.period().as_secs());
        outcome.inspect_err(|error| tracing::warn!(task, %error, every_s, "a periodic task failed; retrying")).ok()
    }
}

/// Rolls up every ingest day that has been over for an hour. A day is swapped in as a whole.
pub async fn roll_up(warehouse: Warehouse, mut rounds: Rounds) -> Result<(), Infallible> {
    while rounds.next().await {
        rounds.ended(rollup::close_due(&warehouse).await);
    }
    Ok(())
}

/// Deletes ledger states, commits and intents that nobody needs any more. Days that Kafka still
/// holds can still be rebuilt.
pub async fn prune(warehouse: Warehouse, retention_days: u32, mut rounds: Rounds) -> Result<(), Infallible> {
    // Kafka deletes whole files, some time after the last record in them is old enough.
    let days = retention_days.saturating_add(1);
    let shutdown = rounds.shutdown.clone();
    while rounds.next().await {
        let pruned = prune::prune(&warehouse, days, prune::ROWS_MIN, shutdown.cancelled()).await;
        if let Some(Pruned { ledgers, commits, intents }) = rounds.ended(pruned)
            && ledgers + commits + intents > 0
        {
            tracing::info!(ledgers, commits, intents, "pruned what the loader no longer needs");
        }
    }
    Ok(())
}

/// Adds restarts of the MQTT broker to the bridge's metrics.
pub async fn count_restarts(
    broker: mosquitto::Status,
    bridge: bridge::Handle,
    mut rounds: Rounds,
) -> Result<(), Infallible> {
    let mut counted = 0;
    while rounds.next().await {
        let restarts = broker.restarts();
        bridge.broker_restarted(restarts - counted);
        counted = restarts;
    }
    Ok(())
}

/// Takes unknown devices into the registry as ENROLLED.
pub async fn enrol(warehouse: Warehouse, mut rounds: Rounds) -> Result<(), Infallible> {
    while rounds.next().await {
        rounds.ended(registry::enrol(&warehouse).await);
    }
    Ok(())
}

/// Updates the quarantine's column `replayed` and checks the limits of the quarantine. The log
/// tells when an alarm begins, rises and ends; the metrics show it all the time.
pub async fn watch_quarantine(
    warehouse: Warehouse,
    handle: load::Handle,
    configured: Quarantine,
    mut rounds: Rounds,
) -> Result<(), Infallible> {
    let mut known = Vec::new();
    while rounds.next().await {
        let looked = look_at_quarantine(&warehouse, &handle, &configured).await;
        let Some(limits) = rounds.ended(looked) else { continue };
        let levels: Vec<Level> = limits.iter().map(|limit| limit.level).collect();
        if levels == known {
            continue;
        }
        limits.iter().for_each(raise);
        if known.iter().any(|level| *level != Level::Fine) && levels.iter().all(|level| *level == Level::Fine) {
            tracing::info!("the quarantine is within its limits again");
        }
        known = levels;
    }
    Ok(())
}

async fn look_at_quarantine(
    warehouse: &Warehouse,
    handle: &load::Handle,
    configured: &Quarantine,
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

/// Reads registered devices and policies for the bridge. While they cannot be read, the bridge uses
/// what was read last.
pub async fn read_registry(
    warehouse: Warehouse,
    current: watch::Sender<Option<Arc<Registry>>>,
    bridge: bridge::Handle,
    mut rounds: Rounds,
) -> Result<(), Infallible> {
    while rounds.next().await {
        let read = registry(&warehouse).await;
        bridge.registry_read(read.as_ref().err().map(ToString::to_string).as_deref());
        let Some(registry) = rounds.ended(read) else { continue };
        current.send_if_modified(|known| {
            let new = known.as_deref() != Some(&registry);
            if new {
                *known = Some(Arc::new(registry));
            }
            new
        });
    }
    Ok(())
}

async fn registry(warehouse: &Warehouse) -> Result<Registry, warehouse::Error> {
    let policies = warehouse.unknown_device_policies().await?;
    let refusing = policies.into_iter().map(|(tenant, value)| (tenant, value == "quarantine"));
    let devices = warehouse.all_registered().await?.into_iter();
    Ok(Registry::new(refusing, devices.map(|(tenant, site, device)| Device { tenant, site, device })))
}
