//! `doseline audit`: who did what.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use warehouse::{audit::Entry, registry::unix_us};

use crate::{
    config::Config,
    options,
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
    /// List what people did, the latest first: acknowledged alerts, incidents, registered devices,
    /// policies, replays and purges of quarantine
    #[command(after_help = "\
Outcomes: APPLIED; REPEATED = the same command was applied before, and nothing changed; REFUSED = nothing changed, the
reason follows; UNLOGGED = applied without a command, or before there were commands.

Examples:
  doseline audit list
  doseline audit list --tenant acme --since 2026-01-31 --config services.toml
  doseline audit list --json | jq -r 'select(.outcome == \"REFUSED\")'")]
    List {
        /// Only this tenant
        #[arg(long, value_name = "TENANT", default_value = "")]
        tenant: String,
        /// Only since this time: YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ, UTC
        #[arg(long, value_name = "TIME", value_parser = since)]
        since: Option<i64>,
        /// List at most this many entries
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        limit: u64,
        /// One JSON object for each line; times are us since 1970
        #[arg(long)]
        json: bool,
    },
}

fn since(text: &str) -> Result<i64, String> {
    unix_us(text).ok_or_else(|| format!("{text:?} must be YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ, 1970..2100"))
}

pub async fn run(arguments: Arguments, config: Config) -> anyhow::Result<ExitCode> {
    let Action::List { tenant, since, limit, json } = arguments.action;
    let entries =
        options::warehouse(&config)?.audit(&tenant, since.unwrap_or(0), limit).await.context("read the audit")?;
    let columns =
        [text("TIME"), text("TENANT"), text("AUTHOR"), text("ROLE"), text("ACTION"), text("SUBJECT"), text("OUTCOME")];
    table::list(&entries, json, "nothing is in the audit", columns, |entry| {
        let Entry { tenant, given_at, author, role, action, subject, outcome, reason, .. } = entry.clone();
        let outcome = if reason.is_empty() { outcome } else { format!("{outcome} ({reason})") };
        [monitor::stamp(given_at), tenant, author, role, action, subject, outcome]
    })?;
    Ok(ExitCode::SUCCESS)
}
