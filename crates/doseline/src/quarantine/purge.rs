//! `doseline quarantine purge`: a person deletes rows from the quarantine. Rows leave it for good
//! in no other way.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use telemetry::reject::Reason;
use warehouse::quarantine::Purge;

use super::{now_us, reason, size, time, who};
use crate::{config::Config, hint::fault, options};

const DAY_US: i64 = 86_400_000_000;

#[derive(Args)]
pub struct Arguments {
    /// Delete rows of ingest days before this day (UTC)
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = time)]
    before: i64,
    /// Only rows with this reason
    #[arg(long, value_name = "REASON", value_parser = reason)]
    reason: Option<Reason>,
    /// The reason for the deletion, for the journal
    #[arg(long, value_name = "TEXT")]
    because: String,
    /// Person who deletes; by default the user of the operating system
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Delete. Without this flag the command only prints what it would delete
    #[arg(long)]
    yes: bool,
}

pub async fn run(arguments: Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let (now_us, least) = (now_us()?, i64::from(config.quarantine.age_days_max));
    let (day, today) = (arguments.before.div_euclid(DAY_US), now_us.div_euclid(DAY_US));
    if day > today - least {
        let text = format!(
            "--before lies {} days back, quarantine.age_days_max is {least}: younger rows may still be wanted",
            (today - day).max(0)
        );
        return Err(fault(text, "replay them, choose an earlier day, or lower the limit"));
    }
    let because = arguments.because.trim();
    if because.is_empty() {
        return Err(fault("--because is empty", "say why, for whoever reads the journal"));
    }
    let warehouse = options::warehouse(config)?;
    let purge = Purge {
        before: u16::try_from(day).context("--before is no day that a row can have")?,
        reason: arguments.reason.map(|reason| reason.to_string()).unwrap_or_default(),
        by: who(arguments.by.as_deref())?,
        because: because.to_owned(),
        now_us,
    };
    let found = warehouse.purgeable(purge.before, &purge.reason).await?;
    let what = format!("{} rows ({}), of them {} never replayed", found.rows, size(found.bytes), found.waiting);
    if found.rows == 0 {
        println!("nothing to delete");
    } else if arguments.yes {
        warehouse.purge_quarantine(&purge).await.context("delete from quarantine")?;
        println!("deleted {what}; see the table quarantine_purges");
    } else {
        println!("would delete {what}; do it with --yes");
    }
    Ok(ExitCode::SUCCESS)
}
