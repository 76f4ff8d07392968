//! `doseline quarantine`: works through what could not be used.

pub mod limits;
mod list;
mod purge;
mod remake;
mod replay;
mod show;

use std::{
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use clap::{Args, Subcommand};
pub use replay::replay_row;
use telemetry::{quarantine::Id, reject::Reason};
use warehouse::quarantine::Filter;

use crate::{config::Config, hint::Hint as _, running::Beside};

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
    /// Print what is in quarantine, by reason, and how far its limits are used
    #[command(after_help = "\
With --json, the reasons come first and then the limits, or with --all the rows: one JSON object a line.

Examples:
  doseline quarantine list
  doseline quarantine list --config services.toml
  doseline quarantine list --all --reason implausible --device D-1 --config services.toml
  doseline quarantine list --from 2026-01-31 --json --config services.toml")]
    List(list::Arguments),
    /// Print one row: why it was refused, what can be read of it, and where reading stops
    #[command(after_help = "Example:\n  doseline quarantine show 1-0-345-12 --config services.toml")]
    Show(show::Arguments),
    /// Send rows through the loader again, after a fix
    #[command(after_help = "\
What can be used today goes through Kafka to the loader, which stores each event once, however often this is repeated.
A row that still cannot be used stays, and its reason is printed. Time of receipt, topic and site do not change.
Exit code 1 when something selected stays in quarantine.

Examples:
  doseline quarantine replay --dry-run --config services.toml
  doseline quarantine replay --reason implausible --device D-1 --config services.toml
  doseline quarantine replay --id 1-0-345-12 --by ann --config services.toml")]
    Replay(replay::Arguments),
    /// Delete rows of days that are older than quarantine.age_days_max; a journal records the
    /// person and the rows
    #[command(after_help = "\
Nothing in doseline deletes from quarantine by itself. Without --yes it says what would be deleted.

Example:
  doseline quarantine purge --before 2026-01-31 --reason bad_topic --because 'scanner of 2025' --yes --config services.toml")]
    Purge(purge::Arguments),
}

/// Which rows to select.
#[derive(Args, Default)]
pub struct Selection {
    /// Rows with this reason, e.g. implausible
    #[arg(long, value_name = "REASON", value_parser = reason)]
    reason: Option<Reason>,
    /// Rows of this tenant
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Rows of this device
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Received at this time or later: YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<i64>,
    /// Received before this time: YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<i64>,
    /// This row; can be given several times
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<Id>,
}

impl Selection {
    fn filter(&self, waiting: bool) -> Filter {
        Filter {
            reason: self.reason.map(|reason| reason.to_string()).unwrap_or_default(),
            tenant: self.tenant.clone().unwrap_or_default(),
            device: self.device.clone().unwrap_or_default(),
            from_us: self.from.unwrap_or(0),
            to_us: self.to.unwrap_or(0),
            ids: self.ids.clone(),
            waiting,
        }
    }
}

fn reason(text: &str) -> Result<Reason, String> {
    text.parse().map_err(|_| {
        let known: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        format!("there is no such reason; there are {}", known.join(", "))
    })
}

fn time(text: &str) -> Result<i64, String> {
    warehouse::registry::unix_us(text)
        .ok_or_else(|| "must be YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ (UTC), 1970..2100".to_owned())
}

/// The person who runs this: the given name, or the user of the operating system.
/// The person who does something: the one that is named, else the user of the operating system.
pub fn who(given: Option<&str>) -> anyhow::Result<String> {
    let named =
        given.map(str::to_owned).or_else(|| std::env::var("USER").ok()).or_else(|| std::env::var("LOGNAME").ok());
    let name = named.filter(|name| !name.trim().is_empty());
    name.context("nobody is named in USER or LOGNAME").hint("say who you are with --by NAME")
}

fn now_us() -> anyhow::Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?)
}

pub async fn run(arguments: Arguments, config: Config) -> anyhow::Result<ExitCode> {
    match arguments.action {
        Action::List(arguments) => list::run(arguments, &config).await,
        Action::Show(arguments) => show::run(arguments, &config).await,
        Action::Replay(arguments) => replay::run(arguments, &config).await,
        Action::Purge(arguments) => purge::run(arguments, &config).await,
    }
}

/// A number of bytes in the form that a person reads.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1_024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}
