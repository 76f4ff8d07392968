//! `doseline alerts`: what waits for somebody, and the answer to it.

use std::{fmt::Write as _, process::ExitCode};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};

use crate::{config::Config, options, trace::show};

/// Flags of `doseline alerts`.
#[derive(Args)]
#[command(arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Alerts that wait for somebody, the most severe first
    #[command(after_help = "Example:\n  doseline alerts list --tenant acme")]
    List {
        /// One tenant only
        #[arg(long, value_name = "TENANT", default_value = "")]
        tenant: String,
    },
    /// Acknowledge an alert by name, as it stands now
    #[command(after_help = "\
A critical alert stays until this. It comes back when more visits are affected or it gets worse.

Example:
  doseline alerts ack sterility-2/acme/item/N30-1 --by \"Dr. Ada\" --note \"client informed\"")]
    #[command(alias = "acknowledge")]
    Ack {
        /// The alert, as `list` shows it
        key: String,
        /// Who acknowledges it
        #[arg(long, value_name = "NAME")]
        by: String,
        /// What was done
        #[arg(long, value_name = "TEXT", default_value = "")]
        note: String,
    },
}

/// `doseline alerts`
pub async fn run(arguments: Arguments, config: Config) -> anyhow::Result<ExitCode> {
    let warehouse = options::warehouse(&config)?;
    match arguments.action {
        Action::List { tenant } => {
            let mut text = String::new();
            for alert in warehouse.open_alerts(&tenant).await.context("read the alerts")? {
                let gone = if alert.holds { "" } else { " (later data say otherwise)" };
                let _ = writeln!(text, "{}\t{}\t{}{gone}", alert.severity, alert.alert_key, alert.title);
            }
            show(&text)?;
        }
        Action::Ack { key, by, note } => {
            if by.trim().is_empty() {
                bail!("--by {by:?} is empty; an alert is acknowledged by name");
            }
            let alerts = warehouse.acknowledge(&key, &by, &note, monitor::now_us()).await.context("acknowledge")?;
            if alerts.is_empty() {
                bail!("there is no alert {key:?}; see `doseline alerts list`");
            }
            println!("acknowledged {key} by {by}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
