//! `doseline migrate`: creates or upgrades the ClickHouse tables and the Kafka topics.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use crate::{config::Config, options, running::Beside};

#[derive(Args)]
#[command(after_help = "\
Can be run again at any time; what is there stays.

Example:
  doseline migrate --config services.toml")]
pub struct Arguments {
    #[command(flatten)]
    pub beside: Beside,
}

pub async fn run(config: Config) -> anyhow::Result<ExitCode> {
    apply(&config).await?;
    Ok(ExitCode::SUCCESS)
}

/// Creates or upgrades everything that is missing or old. Running it again changes nothing.
pub async fn apply(config: &Config) -> anyhow::Result<()> {
    let warehouse = options::warehouse(config)?;
    let options = warehouse::migrate::Options { fsync: config.clickhouse.fsync };
    let done = warehouse::migrate::migrate(&warehouse, options).await.context("migrate ClickHouse")?;
    tracing::info!(
        url = config.clickhouse.url,
        applied = done.applied.len(),
        restored = done.restored.len(),
        corrected = done.corrected.len(),
        "tables are up to date"
    );
    let (kafka, topics) = (options::load_kafka(config)?, options::topics(config));
    load::ensure_topics(&kafka, &topics, &warehouse).await.context("create the Kafka topics")?;
    tracing::info!(
        brokers = config.kafka.brokers.join(","),
        partitions = config.kafka.partitions,
        "topics are up to date"
    );
    Ok(())
}
