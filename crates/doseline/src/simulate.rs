//! `doseline simulate`: a fleet of reference devices.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use device::{
    gateway::{Broker, Tls},
    simulate::{Options, Pace},
};
use tokio::time::Instant;
use warehouse::Warehouse;

use crate::{
    config::Config,
    group::{Group, STOP_WITHIN, stopped_by_signal},
    running::refuse_as_outboxes,
};

#[derive(Args)]
#[command(after_help = "\
Scenarios: healthy, dose-drift, depth-drift, retransmit, offline, clock-skew, reboot, needle-reuse, failed-cycle, poison.
The same seed and epoch make the same data.

Without a configuration it sends to the `doseline up` that runs in ./doseline-data, or in the
directory named with --up-data-dir. --data-dir is the devices' own.

Examples:
  doseline simulate --devices 200 --rate 500 --duration 60
  doseline simulate --devices 5 --up-data-dir /srv/data
  doseline simulate --devices 50 --rate 0 --duration 600 --seed 7 --scenario retransmit,reboot --truth truth.jsonl")]
pub struct Arguments {
    /// Number of devices
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    devices: u32,
    /// Events per second over the whole fleet; 0 = as fast as receipts allow; without it real time,
    /// about 1 for each device
    #[arg(long, value_name = "R")]
    rate: Option<f64>,
    /// Simulated time to run, s (with --rate: R * S events are made); without it until stopped
    #[arg(long, value_name = "S")]
    duration: Option<u64>,
    /// Seed of all random choices
    #[arg(long, value_name = "K", default_value_t = 1)]
    seed: u64,
    /// Planted faults, separated by commas
    #[arg(long, value_name = "NAME[,NAME..]", default_value = "healthy")]
    scenario: device::fleet::Scenarios,
    /// Write every event to this file, one JSON object for each line: the expected result of a test
    #[arg(long, value_name = "FILE")]
    truth: Option<PathBuf>,
    /// Start of the simulated time, us since 1970. Default: now; with --rate, a day ago; with
    /// --rate 0, --duration ago
    #[arg(long, value_name = "T")]
    epoch: Option<i64>,
    /// How long a device waits for a receipt before it sends again, s; each further wait is twice
    /// as long
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=900))]
    resend: u64,
    /// How long to wait for the last receipts after the last event, s
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    drain: u64,
    /// Folder of the devices' outboxes
    #[arg(long, value_name = "DIR", default_value = "./doseline-simulator")]
    data_dir: PathBuf,
    /// Data directory of the running `doseline up` to send to; it overrides --config and the
    /// environment; without it, and without a configuration, ./doseline-data
    #[arg(long, value_name = "DIR")]
    pub up_data_dir: Option<PathBuf>,
}

pub async fn run(arguments: Arguments, config: Config) -> anyhow::Result<ExitCode> {
    refuse_as_outboxes(&arguments.data_dir)?;
    let stop = stopped_by_signal()?;
    let mut options = Options {
        seed: arguments.seed,
        epoch_unix_us: arguments.epoch,
        pace: arguments.rate.map_or(Pace::RealTime, Pace::from_rate),
        duration: arguments.duration.map(Duration::from_secs),
        scenarios: arguments.scenario,
        truth: arguments.truth,
        ..Options::new(arguments.devices, arguments.data_dir, broker(&config)?)
    };
    options.gateway.sender.resend_first = Duration::from_secs(arguments.resend);
    options.gateway.drain = Duration::from_secs(arguments.drain);
    let group = Group::new();
    let shutdown = group.shutdown();
    let mut fleet = tokio::spawn(device::simulate::run(options, shutdown));
    let summary = tokio::select! {
        summary = &mut fleet => summary,
        () = stop.cancelled() => {
            group.stop(Instant::now()).await?;
            tokio::time::timeout(STOP_WITHIN, fleet).await?
        }
    };
    let summary = summary??;
    println!(
        "made {} receipted {} rejected {} lost {} not saved {} bad messages {} refused {} re-sent {} without receipt {}",
        summary.made,
        summary.receipted,
        summary.rejected,
        summary.lost,
        summary.missing,
        summary.poison,
        summary.refused,
        summary.resent,
        summary.open
    );
    if summary.open > 0 {
        tracing::warn!(
            events = summary.open,
            "events without a receipt stay on disk; run again with the same --data-dir to send them"
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// The fleet of `doseline up --simulate`: a past with planted stories, then the present until it is
/// stopped.
pub fn demo(config: &Config, devices: u32, data_dir: PathBuf) -> anyhow::Result<Options> {
    Ok(Options { is_demo: true, ..Options::new(devices, data_dir, broker(config)?) })
}

/// Tolerances of the models that measure a dose or a depth: model, dose resolution (nl), depth
/// resolution and tolerance (um). The dose tolerance is 5 %. There are no bands, so a device has
/// one chart for each channel.
const TOLERANCES: [(&str, u32, u32, u32); 4] =
    [("mesogun-2", 100, 50, 150), ("vacuject-5", 100, 50, 150), ("papula-1", 100, 0, 0), ("dermapen-x", 0, 25, 150)];

/// Registers those models of the demonstration that are not registered yet. Without tolerances
/// there would be no verdicts.
pub async fn register_models(warehouse: &Warehouse) -> Result<(), warehouse::Error> {
    let rows = TOLERANCES.map(|(model, dose_nl, depth_resolution, depth_um)| {
        let dose_ppm = if dose_nl > 0 { 50_000 } else { 0 };
        format!("('{model}', {dose_nl}, {dose_ppm}, {depth_resolution}, {depth_um})")
    });
    let columns = "model, dose_resolution_nl, dose_tolerance_ppm, depth_resolution_um, depth_tolerance_um";
    let types = "model String, dose_resolution_nl UInt32, dose_tolerance_ppm UInt32, depth_resolution_um UInt16, \
                 depth_tolerance_um UInt16";
    let values = rows.join(", ");
    let sql = format!(
        "INSERT INTO models ({columns}, recorded_at) SELECT {columns}, now64(6) FROM values('{types}', {values}) \
         WHERE model NOT IN (SELECT model FROM models)"
    );
    warehouse.command(&sql).await
}

fn broker(config: &Config) -> anyhow::Result<Broker> {
    let mqtt = &config.mqtt;
    let password = mqtt.password().map(|password| password.read()).transpose();
    let password = password.context("read mqtt.password_file")?;
    let password = password.as_ref().map(|password| password.reveal().to_owned()).unwrap_or_default();
    let tls = match &mqtt.tls {
        Some(tls) if tls.certificate.is_some() => {
            bail!(
                "mqtt.tls.certificate: a simulated fleet cannot show one certificate for many devices; use a listener with passwords"
            )
        }
        Some(tls) => {
            let ca_pem = fs::read(&tls.ca).with_context(|| format!("read mqtt.tls.ca {}", tls.ca.display()))?;
            Some(Tls::Private { ca_pem, client: None })
        }
        None => None,
    };
    Ok(Broker {
        login: mqtt.username.clone().map(|name| (name, password)),
        tls,
        ..Broker::plain(mqtt.host.clone(), mqtt.port)
    })
}
