//! `doseline check`: validates the configuration. With `--connect` it also checks that the
//! configured engines exist and are set up as required.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde::Serialize;

use crate::{
    config::Config,
    options,
    running::Beside,
    table::{self, text},
};

#[derive(Args)]
#[command(after_help = "\
Without --connect nothing is sent. A configuration that is wrong ends with exit code 64 and one line
for each fault: file, key, value and remedy. With --connect each connection is tried once; exit code
1 when one fails. Without a configuration they are those of a running `doseline up`.

With --as and --certificate, check --connect also tries on the broker what that device must not be able to do:
publish and subscribe as other devices, sites and tenants, share groups, client ids, ports. It names
what the broker lets pass, and ends with exit code 1 then. Take a certificate that no device uses: a
device with the same one loses its connection. Empty messages that pass come from a tenant, site or
device called doseline-check. Last wills cannot be tried this way.

Examples:
  doseline check --connect
  doseline check --connect --config services.toml --as acme/berlin-1/check \\
      --certificate devices/acme/berlin-1/check.pem
  doseline check --connect --data-dir /srv/data
  doseline check --config services.toml
  doseline check --config services.toml --connect")]
pub struct Arguments {
    /// Try each connection and print what was found
    #[arg(long)]
    pub connect: bool,
    /// One JSON object for each line, one for each engine
    #[arg(long, requires = "connect")]
    json: bool,
    /// The device as which to try the broker, TENANT/SITE/DEVICE
    #[arg(long = "as", value_name = "NAME", requires_all = ["connect", "certificate"])]
    device: Option<String>,
    /// Its certificate (PEM); the key is beside it, with the ending .key
    #[arg(long, value_name = "FILE", requires = "device")]
    certificate: Option<PathBuf>,
    /// The broker's port for devices
    #[arg(long, default_value_t = 8_883, requires = "device")]
    device_port: u16,
    #[command(flatten)]
    pub beside: Beside,
}

/// What was found out about one engine.
#[derive(Serialize)]
struct Found {
    engine: &'static str,
    address: String,
    ok: bool,
    found: String,
}

/// Runs the command. The configuration has already been validated.
pub async fn run(arguments: Arguments, config: Config) -> anyhow::Result<ExitCode> {
    if !arguments.json {
        println!("configuration: valid");
    }
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
    let engine = |engine, address, outcome: Result<String, String>| Found {
        engine,
        address,
        ok: outcome.is_ok(),
        found: outcome.unwrap_or_else(|error| error),
    };
    let mqtt = mqtt.map(|()| "connected, MQTT 5".to_owned()).map_err(|error| error.to_string());
    let clickhouse = clickhouse.map(|()| "schema is up to date".to_owned()).map_err(|error| error.to_string());
    let mut engines = vec![
        engine("mqtt", format!("{}:{}", config.mqtt.host, config.mqtt.port), mqtt),
        engine("kafka", config.kafka.brokers.join(","), kafka.map_err(|error| error.to_string())),
        engine("clickhouse", config.clickhouse.url.clone(), clickhouse),
    ];
    if let Some((name, certificate)) = arguments.device.zip(arguments.certificate) {
        let (key, port) = (certificate.with_extension("key"), arguments.device_port);
        let device = bridge::forbidden::Device { name, certificate, key, port };
        let found = bridge::forbidden::let_pass(&bridge, &device).await.and_then(|(tried, passed)| {
            if passed.is_empty() {
                return Ok(format!("refuses {} all {tried} things that a device must not do", device.name));
            }
            Err(format!("lets {} {}", device.name, passed.join("; ")))
        });
        engines.push(engine("mqtt rules", format!("{}:{port}", config.mqtt.host), found));
    }
    let columns = [text("ENGINE"), text("ADDRESS"), text("STATE"), text("FOUND")];
    table::list(&engines, arguments.json, "no engine", columns, |Found { engine, address, ok, found }| {
        let state = if *ok { "ok" } else { "FAILED" };
        [(*engine).to_owned(), address.clone(), state.to_owned(), found.clone()]
    })?;
    Ok(if engines.iter().all(|engine| engine.ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
