//! `doseline give-up`: a batch of Kafka that cannot be read is given up now, not after a time.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Args;
use load::give_up::Request;

use crate::{config::Config, hint::Hint as _, options, running::Beside};

/// Flags of `doseline give-up`.
#[derive(Args)]
#[command(after_help = "\
A batch whose compression, checksum or framing is broken holds up its partition: what follows waits. /readyz of the
loader then names topic, partition and offset. First try what brings the batch back: another replica of the partition as
its leader, or the broker's disk. What is given up is lost, unless devices still have it. It is given up by itself after
load.unreadable_after_s.

The loader that reads the partition gives up exactly the offsets before the next record that can be read, and records
them in kafka_losses with the reason UNREADABLE. Nothing is given up at an offset that can be read, or at another offset
than the one at which the partition stands still.

Examples:
  doseline give-up --topic doseline.reports.v1 --partition 3 --offset 4711
  doseline give-up --topic doseline.reports.v1 --partition 3 --offset 4711 --within-s 600 --config services.toml
  doseline give-up --topic doseline.status.v1 --partition 0 --offset 12 --json")]
pub struct Arguments {
    /// Topic that the loader reads, by its name in Kafka
    #[arg(long, value_name = "TOPIC")]
    topic: String,
    /// Partition that stands still
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(0..))]
    partition: i32,
    /// Offset at which it stands still, as /readyz of the loader says
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(u64).range(0..1 << 62))]
    offset: u64,
    /// How long to wait for the loader, s
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..))]
    within_s: u32,
    /// One JSON object: first_offset and last_offset of what is lost
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub beside: Beside,
}

/// `doseline give-up`
pub async fn run(arguments: Arguments, config: Config) -> anyhow::Result<ExitCode> {
    let Arguments { topic, partition, offset, within_s, json, .. } = arguments;
    let (kafka, warehouse) = (options::load_kafka(&config)?, options::warehouse(&config)?);
    let request = Request { topic, partition, offset };
    let given_up = load::give_up::give_up(&kafka, &warehouse, &request, Duration::from_secs(within_s.into())).await;
    let lost =
        given_up.context("nothing was given up").hint("/readyz of the loader names what stands still, and where")?;
    if json {
        println!("{}", serde_json::to_string(&lost)?);
        return Ok(ExitCode::SUCCESS);
    }
    let Request { topic, partition, .. } = request;
    let (first, last) = (lost.first_offset, lost.last_offset);
    println!("gave up offsets {first} to {last} of topic {topic}, partition {partition}; they are in kafka_losses");
    Ok(ExitCode::SUCCESS)
}
