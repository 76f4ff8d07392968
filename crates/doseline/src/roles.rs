//! The roles as tasks of a [`Group`], and as services of their own: `bridge`, `load`, `monitor` and
//! `serve`, against engines that run elsewhere.
//!
//! Each service takes over the signals first: an earlier signal would end it without a drain.

use std::{net::SocketAddr, process::ExitCode};

use bridge::settings::UnknownDevices;
use service::role_faults::RoleFaults;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use warehouse::Warehouse;

use crate::{
    config::Config,
    group::{Group, STOP_WITHIN, stopped_by_signal},
    options,
    upkeep::{self, Rounds},
    writer,
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
    let stop = stopped_by_signal()?;
    let mut group = Group::new();
    start_bridge(&mut group, &config, options::bridge(&config)?)?;
    until_stopped(group, stop).await
}

/// `doseline load`
pub async fn load(config: Config) -> anyhow::Result<ExitCode> {
    let stop = stopped_by_signal()?;
    let mut group = Group::new();
    let warehouse = options::warehouse(&config)?;
    start_load(&mut group, &config, options::load(&config)?, &warehouse).await?;
    until_stopped(group, stop).await
}

/// `doseline monitor`
pub async fn monitor(monitor: monitor::Monitor) -> anyhow::Result<ExitCode> {
    let stop = stopped_by_signal()?;
    let mut group = Group::new();
    group.spawn("monitor", monitor.run(group.shutdown()));
    until_stopped(group, stop).await
}

/// `doseline serve`
pub async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    let stop = stopped_by_signal()?;
    let warehouse = options::warehouse(&config)?;
    let mut group = Group::new();
    let writer = writer::start(&mut group, &config, &warehouse);
    let dashboard = options::dashboard(&config, config.serve.http, RoleFaults::default(), writer);
    let dashboard = dashboard::Dashboard::bind(dashboard, warehouse).await?;
    tracing::info!(url = dashboard.url(), "dashboard serves");
    group.spawn("dashboard", dashboard.run(group.shutdown()));
    until_stopped(group, stop).await
}

async fn until_stopped(mut group: Group, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let failure = tokio::select! {
        () = stop.cancelled() => Ok(()),
        failure = group.failure() => Err(failure),
    };
    let stopped = group.stop(Instant::now() + STOP_WITHIN).await;
    failure.and(stopped).map(|()| ExitCode::SUCCESS)
}
