//! The roles as tasks of a [`Group`], and as services of their own: `bridge`, `load`, `monitor` and
//! `serve`, against engines that run elsewhere.
//!
//! Each service takes over the signals first: an earlier signal would end it without a drain.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use bridge::settings::UnknownDevices;
use service::{renewal::Renewal, role_faults::RoleFaults};
use tokio::time::Instant;
use warehouse::Warehouse;

use crate::{
    config::Config,
    group::{Group, STOP_WITHIN, stopped_by_signal},
    options,
    upkeep::{self, Rounds},
};

/// Starts the bridge. If the configuration asks the registry about unknown devices, a second task
/// reads the registry.
///
/// # Errors
/// Options that the bridge refuses, or a password file that cannot be read.
pub fn start_bridge(
    group: &mut Group,
    config: &Config,
    mut options: bridge::Options,
) -> anyhow::Result<bridge::Handle> {
    let mut registry = None;
    if config.bridge.unknown_devices == UnknownDevices::Policy {
        let (sender, current) = tokio::sync::watch::channel(None);
        options.registry = Some(current);
        registry = Some((options::warehouse(config)?, sender));
    }
    let bridge = bridge::Bridge::new(options)?;
    let handle = bridge.handle();
    if let Some((warehouse, sender)) = registry {
        let rounds = Rounds::new("registry", upkeep::REGISTRY_EVERY, group.shutdown());
        group.spawn("registry", upkeep::read_registry(warehouse, sender, handle.clone(), rounds));
    }
    group.spawn("bridge", bridge.run(group.shutdown()));
    Ok(handle)
}

/// Starts the loader, and what it does now and then beside loading. Returns its handle and its HTTP
/// address.
///
/// # Errors
/// Options that the loader refuses, or an HTTP address that cannot be bound.
pub async fn start_load(
    group: &mut Group,
    config: &Config,
    options: load::Options,
    warehouse: &Warehouse,
) -> anyhow::Result<(load::Handle, Option<SocketAddr>)> {
    let load = load::Loader::bind(options, warehouse.clone()).await?;
    let (handle, http) = (load.handle(), load.http_address());
    group.spawn("load", load.run(group.shutdown()));
    let shutdown = group.shutdown();
    let rounds = |task, every| Rounds::new(task, every, shutdown.clone()).reported_to(&handle);
    let watch = rounds("quarantine watch", upkeep::QUARANTINE_EVERY);
    let watch = upkeep::watch_quarantine(warehouse.clone(), handle.clone(), config.quarantine.clone(), watch);
    group.spawn("quarantine watch", watch);
    let rollup = upkeep::roll_up(warehouse.clone(), rounds("rollup", upkeep::ROLLUP_EVERY));
    group.spawn("rollup", rollup);
    let pruning = rounds("pruning", upkeep::PRUNE_EVERY);
    group.spawn("pruning", upkeep::prune(warehouse.clone(), config.kafka.retention_days, pruning));
    Ok((handle, http))
}

/// `doseline bridge`
pub async fn bridge(config: Config) -> anyhow::Result<ExitCode> {
    until_stopped(&config, async |group: &mut Group| start_bridge(group, &config, options::bridge(&config)?).map(drop))
        .await
}

/// `doseline load`
pub async fn load(config: Config) -> anyhow::Result<ExitCode> {
    let warehouse = options::warehouse(&config)?;
    until_stopped(&config, async |group: &mut Group| {
        start_load(group, &config, options::load(&config)?, &warehouse).await.map(drop)
    })
    .await
}

/// `doseline monitor`, with a monitor of the configuration for each start.
pub async fn monitor(
    config: &Config,
    bind: impl AsyncFn() -> anyhow::Result<monitor::Monitor>,
) -> anyhow::Result<ExitCode> {
    until_stopped(config, async |group: &mut Group| {
        let monitor = bind().await?;
        group.spawn("monitor", monitor.run(group.shutdown()));
        Ok(())
    })
    .await
}

/// `doseline serve`
pub async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    until_stopped(&config, async |group: &mut Group| {
        let dashboard = options::dashboard(&config, config.serve.http, RoleFaults::default());
        let dashboard = dashboard::Dashboard::bind(dashboard, options::warehouse(&config)?).await?;
        tracing::info!(url = format!("http://{}", dashboard.address()), "dashboard serves");
        group.spawn("dashboard", dashboard.run(group.shutdown()));
        Ok(())
    })
    .await
}

/// How often the files of Kafka's connection are looked at.
const RENEWAL_EVERY: Duration = Duration::from_secs(5);

/// Runs what `start` starts until a signal comes or a task fails. When the password or a
/// certificate of Kafka was renewed, it stops everything as the signal does and starts it again:
/// librdkafka takes neither while a client lives. Those of MQTT are read at each connection, that
/// of ClickHouse at each request.
async fn until_stopped(
    config: &Config,
    start: impl AsyncFn(&mut Group) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let stop = stopped_by_signal()?;
    loop {
        let mut renewal = Renewal::new(config.kafka.files());
        let mut group = Group::new();
        start(&mut group).await?;
        let ended = tokio::select! {
            () = stop.cancelled() => Some(Ok(())),
            failure = group.failure() => Some(Err(failure)),
            () = renewed(config, &mut renewal) => None,
        };
        let stopped = group.stop(Instant::now() + STOP_WITHIN).await;
        match ended {
            Some(ended) => return ended.and(stopped).map(|()| ExitCode::SUCCESS),
            None => stopped?,
        }
        tracing::info!("files of kafka's connection were renewed; starting again with them");
    }
}

/// Waits for files that can be used.
async fn renewed(config: &Config, renewal: &mut Renewal) {
    loop {
        renewal.changed(RENEWAL_EVERY).await;
        match config.kafka.check_files() {
            Ok(()) => return,
            Err(error) => {
                tracing::error!(%error, "new files of kafka's connection cannot be used; going on with the old")
            }
        }
    }
}
