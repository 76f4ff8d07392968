//! `doseline alerts`: lists the alerts that wait for a person, and acknowledges them.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use telemetry::commands::command::Kind;

use crate::{
    command,
    config::Config,
    hint::fault,
    options,
    running::Beside,
    table::{self, number, text},
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
    /// List the alerts that wait for a person, the most severe first
    #[command(after_help = "\
Examples:
  doseline alerts list
  doseline alerts list --tenant acme --config services.toml
  doseline alerts list --json | jq -r .alert_key")]
    List {
        /// Only this tenant
        #[arg(long, value_name = "TENANT", default_value = "")]
        tenant: String,
        /// One JSON object for each line; times are us since 1970
        #[arg(long)]
        json: bool,
    },
    /// Acknowledge an alert in its present state
    #[command(after_help = "\
A critical alert stays open until a person acknowledges it. It comes back when more sessions are affected or when it
gets worse.

Example:
  doseline alerts ack sterility-2/acme/item/N30-1 --by \"Dr. Ada\" --note \"client informed\"")]
    #[command(alias = "acknowledge")]
    Ack {
        /// Key of the alert, as `list` prints it
        key: String,
        /// Person who acknowledges it
        #[arg(long, value_name = "NAME")]
        by: String,
        /// What was done
        #[arg(long, value_name = "TEXT", default_value = "")]
        note: String,
    },
}

pub async fn run(arguments: Arguments, config: Config) -> anyhow::Result<ExitCode> {
    let warehouse = options::warehouse(&config)?;
    match arguments.action {
        Action::List { tenant, json } => {
            let alerts = warehouse.open_alerts(&tenant).await.context("read the alerts")?;
            let columns = [text("SEVERITY"), text("RAISED"), number("SESSIONS"), text("ALERT"), text("TITLE")];
            table::list(&alerts, json, "no alert is open", columns, |alert| {
                let gone = if alert.holds { "" } else { " (later data say otherwise)" };
                [
                    alert.severity.to_string(),
                    monitor::stamp(alert.raised_at),
                    alert.sessions.to_string(),
                    alert.alert_key.clone(),
                    format!("{}{gone}", alert.title),
                ]
            })?;
        }
        Action::Ack { key, by, note } => {
            if by.trim().is_empty() {
                return Err(fault(format!("--by {by:?} is empty"), "an alert is acknowledged by name: --by NAME"));
            }
            let alerts = warehouse.alerts(std::slice::from_ref(&key)).await.context("read the alert")?;
            if alerts.is_empty() {
                return Err(fault(format!("there is no alert {key:?}"), "see `doseline alerts list`"));
            }
            let given_us = monitor::now_us();
            let commands = alerts.into_iter().map(|alert| {
                let tenant = alert.tenant.clone();
                command::command(&tenant, &by, given_us, Kind::AcknowledgeAlert(alert.acknowledgement(note.clone())))
            });
            let commands = commands.collect::<anyhow::Result<Vec<_>>>()?;
            command::give(&config, &warehouse, &commands).await?;
            println!("acknowledged {key} by {by}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
