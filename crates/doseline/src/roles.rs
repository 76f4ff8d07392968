//! The roles as services of their own: `bridge`, `load`, `monitor` and `serve` against engines that
//! run elsewhere.
//!
//! Each takes over the signals first: one that comes before would end it without a drain.

use std::process::ExitCode;

use service::troubles::Troubles;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, UnknownDevices},
    group::{Group, STOP_WITHIN, stopped_by_signal},
    options, upkeep,
};

/// `doseline bridge`
pub async fn bridge(config: Config) -> anyhow::Result<ExitCode> {
    let stop = stopped_by_signal()?;
    let mut group = Group::new();
    let (mut options, mut reads) = (options::bridge(&config)?, None);
    if config.bridge.unknown_devices == UnknownDevices::Policy {
        let (sender, current) = tokio::sync::watch::channel(None);
        options.registry = Some(current);
        reads = Some((options::warehouse(&config)?, sender));
    }
    let bridge = bridge::Bridge::new(options)?;
    if let Some((warehouse, sender)) = reads {
        group.spawn("registry", upkeep::read_registry(warehouse, sender, bridge.handle(), group.shutdown()));
    }
    group.spawn("bridge", bridge.run(group.shutdown()));
    until_stopped(group, stop).await
}

/// `doseline load`
pub async fn load(config: Config) -> anyhow::Result<ExitCode> {
    let stop = stopped_by_signal()?;
    let mut group = Group::new();
    let warehouse = options::warehouse(&config)?;
    let load = load::Loader::bind(options::load(&config)?, warehouse.clone()).await?;
    let handle = load.handle();
    let watch = upkeep::watch_quarantine(warehouse.clone(), handle.clone(), config.quarantine, group.shutdown());
    group.spawn("load", load.run(group.shutdown()));
    group.spawn("quarantine watch", watch);
    group.spawn("rollup", upkeep::roll_up(warehouse.clone(), handle.clone(), group.shutdown()));
    group.spawn("pruning", upkeep::prune(warehouse, handle, config.kafka.retention_days, group.shutdown()));
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
    let names = config.http.names.clone();
    let dashboard = dashboard::Options { listen: config.serve.http, names, troubles: Troubles::default() };
    let dashboard = dashboard::Dashboard::bind(dashboard, options::warehouse(&config)?).await?;
    tracing::info!(url = format!("http://{}", dashboard.address()), "dashboard serves");
    let mut group = Group::new();
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
