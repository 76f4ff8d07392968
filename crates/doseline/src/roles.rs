//! The roles as services of their own: `bridge`, `load`, `monitor` and `serve` against engines that run elsewhere.

use std::process::ExitCode;

use tokio::time::Instant;

use crate::{
    config::Config,
    group::{Group, STOP_WITHIN, stopped_by_signal},
    options, upkeep,
};

/// `doseline bridge`
pub async fn bridge(config: Config) -> anyhow::Result<ExitCode> {
    let mut group = Group::new();
    group.spawn("bridge", bridge::run(options::bridge(&config)?, group.shutdown()));
    until_stopped(group).await
}

/// `doseline load`
pub async fn load(config: Config) -> anyhow::Result<ExitCode> {
    let mut group = Group::new();
    let warehouse = options::warehouse(&config)?;
    group.spawn("load", load::run(options::load(&config)?, warehouse.clone(), group.shutdown()));
    group.spawn("rollup", upkeep::roll_up(warehouse, group.shutdown()));
    until_stopped(group).await
}

/// `doseline monitor`
pub async fn monitor(monitor: monitor::Monitor) -> anyhow::Result<ExitCode> {
    let mut group = Group::new();
    group.spawn("monitor", monitor.run(group.shutdown()));
    until_stopped(group).await
}

/// `doseline serve`
pub async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    let dashboard = dashboard::Options { listen: config.serve.http };
    let dashboard = dashboard::Dashboard::bind(dashboard, options::warehouse(&config)?).await?;
    tracing::info!(url = format!("http://{}", dashboard.address()), "dashboard serves");
    let mut group = Group::new();
    group.spawn("dashboard", dashboard.run(group.shutdown()));
    until_stopped(group).await
}

async fn until_stopped(mut group: Group) -> anyhow::Result<ExitCode> {
    let stop = stopped_by_signal()?;
    let failure = tokio::select! {
        () = stop.cancelled() => Ok(()),
        failure = group.failure() => Err(failure),
    };
    let stopped = group.stop(Instant::now() + STOP_WITHIN).await;
    failure.and(stopped).map(|()| ExitCode::SUCCESS)
}
