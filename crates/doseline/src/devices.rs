//! `doseline devices`: the registry of devices.

mod acl;

use std::{collections::BTreeMap, fs::File, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use telemetry::{
    command::{Command, DEVICES_MAX, UNKNOWN_DEVICES},
    commands::{self, RegisterDevices, SetPolicy, command::Kind},
};
use warehouse::registry::{Device, Novel};

use crate::{
    command,
    config::Config,
    options,
    quarantine::who,
    running::Beside,
    table::{self, text},
};

#[derive(Args)]
#[command(arg_required_else_help = true)]
pub struct Arguments {
    #[command(flatten)]
    pub beside: Beside,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List the registry: devices that a person imported, or that were enrolled because they were
    /// seen
    #[command(after_help = "\
Examples:
  doseline devices list
  doseline devices list --tenant acme --config services.toml
  doseline devices list --json | jq -r 'select(.origin == \"ENROLLED\").device'")]
    List {
        /// Only this tenant
        #[arg(long, value_name = "TENANT", default_value = "")]
        tenant: String,
        /// One JSON object for each line; times are us since 1970
        #[arg(long)]
        json: bool,
    },
    /// Add devices, or changes to them, from a CSV file
    #[command(after_help = "\
Columns, in any order: tenant, site, device, kind (INJECTOR, STERILIZER, BENCH, GATEWAY); and where wanted model,
manufacturer, serial, udi, gateway, valid_from (YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ). Commas or semicolons separate them.
History is kept: a changed line adds a row, an unchanged one adds nothing. A wrong line imports nothing.
The devices go through Kafka, so a loader must run; the command ends when ClickHouse holds them.

Example:
  doseline devices import fleet.csv --config services.toml")]
    Import {
        /// The CSV file, with a header line
        file: PathBuf,
        /// Person who registers them; by default the user of the operating system
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
    /// Write the rules of the MQTT broker, with the devices that each gateway may publish for
    #[command(after_help = "\
The user name of a gateway is the common name of its certificate, TENANT/SITE/GATEWAY, with the site that
the registry has for it. For Mosquitto the output is a whole file: put it in place of deploy/mosquitto/acl
and send SIGHUP to the broker. Only the rules for Mosquitto are tested against the broker.

Examples:
  doseline devices acl --config services.toml > acl
  doseline devices acl --format emqx --config services.toml > acl.conf")]
    Acl {
        /// The broker
        #[arg(long, value_enum, default_value = "mosquitto")]
        format: acl::Format,
    },
    /// Set what happens to reports of devices that no person has registered
    #[command(after_help = "\
Bridges that run with bridge.unknown_devices = \"policy\" follow within seconds.
The policy goes through Kafka, so a loader must run; the command ends when ClickHouse holds it.

Example:
  doseline devices unknown quarantine --tenant acme --config services.toml")]
    Unknown {
        /// Keep and flag the reports, or put them into quarantine
        #[arg(value_parser = ["keep", "quarantine"])]
        policy: String,
        /// For this tenant; without it for every tenant that has no policy of its own
        #[arg(long, default_value = "")]
        tenant: String,
        /// Person who sets it; by default the user of the operating system
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
}

pub async fn run(arguments: Arguments, config: Config) -> anyhow::Result<ExitCode> {
    let warehouse = options::warehouse(&config)?;
    let (file, by) = match arguments.action {
        Action::Import { file, by } => (file, who(by.as_deref())?),
        Action::List { tenant, json } => {
            list(&config, &tenant, json).await?;
            return Ok(ExitCode::SUCCESS);
        }
        Action::Acl { format } => {
            let devices = warehouse::registry::devices(&options::warehouse(&config)?, "").await;
            let (gateways, unknown) = acl::gateways(&devices.context("read the registry")?);
            for (gateway, device) in unknown {
                eprintln!(
                    "warning: {gateway} is not registered, so it gets no rule for {device}: import it with its site"
                );
            }
            table::show(&acl::text(format, &gateways))?;
            return Ok(ExitCode::SUCCESS);
        }
        Action::Unknown { policy, tenant, by } => {
            let kind = Kind::SetPolicy(SetPolicy { name: UNKNOWN_DEVICES.to_owned(), value: policy.clone() });
            let set = command::command(&tenant, &who(by.as_deref())?, monitor::now_us(), kind)?;
            command::give(&config, &warehouse, &[set]).await?;
            println!("unknown devices of {}: {policy}", if tenant.is_empty() { "all other tenants" } else { &tenant });
            return Ok(ExitCode::SUCCESS);
        }
    };
    let csv = File::open(&file).with_context(|| format!("open {}", file.display()))?;
    let now_us = monitor::now_us();
    let novel = warehouse::registry::novel_devices(&warehouse, csv, now_us)
        .await
        .with_context(|| format!("import {}", file.display()))?;
    let commands = registrations(&novel, &by, now_us)?;
    command::give(&config, &warehouse, &commands).await?;
    println!("{}: {} lines read, {} rows added", file.display(), novel.read, novel.devices.len());
    Ok(ExitCode::SUCCESS)
}

/// The commands that register devices: for each tenant, as many as hold its devices.
fn registrations(novel: &Novel, by: &str, now_us: i64) -> anyhow::Result<Vec<Command>> {
    let mut tenants: BTreeMap<&str, Vec<commands::Device>> = BTreeMap::new();
    for (tenant, device) in &novel.devices {
        tenants.entry(tenant).or_default().push(device.clone());
    }
    let mut commands = Vec::new();
    for (tenant, devices) in tenants {
        for devices in devices.chunks(DEVICES_MAX) {
            let kind = Kind::RegisterDevices(RegisterDevices { devices: devices.to_vec() });
            commands.push(command::command(tenant, by, now_us, kind)?);
        }
    }
    Ok(commands)
}

async fn list(config: &Config, tenant: &str, json: bool) -> anyhow::Result<()> {
    let devices =
        warehouse::registry::devices(&options::warehouse(config)?, tenant).await.context("read the registry")?;
    let columns = [
        text("TENANT"),
        text("SITE"),
        text("DEVICE"),
        text("KIND"),
        text("ORIGIN"),
        text("SINCE"),
        text("GATEWAY"),
        text("SERIAL"),
        text("MODEL"),
        text("MANUFACTURER"),
    ];
    table::list(&devices, json, "no device is registered", columns, |device| {
        let Device { tenant, device, site, kind, model, manufacturer, serial, gateway, origin, valid_from, .. } =
            device.clone();
        [tenant, site, device, kind, origin, monitor::stamp(valid_from), gateway, serial, model, manufacturer]
    })
}
