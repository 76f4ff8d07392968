//! `doseline monitor`: verdicts and alerts, as a service or once.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use crate::{config::Config, options, roles, running::Beside};

#[derive(Args)]
#[command(after_help = "\
Evaluates what has changed since the last pass and writes verdicts and alerts; running it again changes nothing.
Several may run at once: they write the same.

Examples:
  doseline monitor --config services.toml
  doseline monitor --once --config services.toml
  doseline monitor --once --from-scratch --config services.toml")]
pub struct Arguments {
    /// Run one pass and end; this finds a running `doseline up` as the other sub-commands do
    #[arg(long)]
    pub once: bool,
    /// Evaluate everything, not only what has changed; a curve whose samples are gone keeps its
    /// judgement
    #[arg(long)]
    from_scratch: bool,
    #[command(flatten)]
    pub beside: Beside,
}

pub async fn run(arguments: Arguments, config: Config) -> anyhow::Result<ExitCode> {
    let warehouse = options::warehouse(&config)?;
    let mut options = options::monitor(&config)?;
    if arguments.once {
        options.http = None;
        // One pass sends no alerts: a target that does not answer would delay it.
        options.notification = ::monitor::alerts::notification::Options::default();
    }
    let mut monitor = ::monitor::Monitor::bind(options, warehouse).await?;
    if arguments.from_scratch {
        monitor.start_over();
    }
    if !arguments.once {
        return roles::monitor(monitor).await;
    }
    let summary = monitor.pass(::monitor::now_us()).await.context("evaluate")?;
    let ::monitor::Summary { units, verdicts, alerts, whole } = summary;
    let scope = if whole { "everything" } else { "what has changed" };
    println!("evaluated {scope}: {units} units, {verdicts} verdicts and {alerts} alerts changed");
    Ok(ExitCode::SUCCESS)
}
