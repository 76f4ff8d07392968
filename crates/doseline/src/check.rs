//! `doseline check`: is the configuration right, and with `--connect`, is what it names there and as it must be?

use std::process::ExitCode;

use clap::Args;

use crate::{config::Config, options};

/// Flags of `doseline check`.
#[derive(Args)]
#[command(after_help = "\
Without --connect nothing is sent. A configuration that is wrong ends with exit code 64 and one line for each fault:
file, key, value and remedy. With --connect each connection is tried once; exit code 1 when one fails.

Examples:
  doseline check --config services.toml
  doseline check --config services.toml --connect")]
pub struct Arguments {
    /// Try each connection and say what was found
    #[arg(long)]
    connect: bool,
}

/// `doseline check`; the configuration has been validated already.
pub async fn run(arguments: Arguments, config: Config) -> anyhow::Result<ExitCode> {
    println!("configuration: valid");
    if !arguments.connect {
        return Ok(ExitCode::SUCCESS);
    }
    let warehouse = options::warehouse(&config)?;
    let (bridge, kafka, topics) = (options::bridge(&config)?, options::load_kafka(&config)?, options::topics(&config));
    let (mqtt, kafka, clickhouse) = tokio::join!(
        bridge::probe(&bridge),
        load::inspect_topics(&kafka, &topics),
        warehouse::schema::verify(&warehouse),
    );
    let mut good = true;
    let mut say = |name: &str, address: String, found: Result<String, String>| {
        good &= found.is_ok();
        println!("{name} {address}: {}", found.unwrap_or_else(|error| format!("FAILED: {error}")));
    };
    say(
        "mqtt",
        format!("{}:{}", config.mqtt.host, config.mqtt.port),
        mqtt.map(|()| "connected, MQTT 5".to_owned()).map_err(|error| error.to_string()),
    );
    say("kafka", config.kafka.brokers.join(","), kafka.map_err(|error| error.to_string()));
    say(
        "clickhouse",
        config.clickhouse.url.clone(),
        clickhouse.map(|()| "schema is up to date".to_owned()).map_err(|error| error.to_string()),
    );
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
