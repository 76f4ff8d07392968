//! `doseline quarantine list`.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use warehouse::quarantine::{Group, Item};

use super::{
    Selection,
    limits::{Level, limits},
    size,
};
use crate::{config::Config, options};

/// Flags of `doseline quarantine list`.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// One line for each row instead of one for each reason
    #[arg(long)]
    all: bool,
    /// Only what has not been replayed
    #[arg(long)]
    waiting: bool,
    /// Most rows with --all
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    limit: u64,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// `doseline quarantine list`
pub async fn run(arguments: Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let warehouse = options::warehouse(config)?;
    let filter = arguments.selection.filter(arguments.waiting);
    if arguments.all {
        let items = warehouse.quarantine_items(&filter, arguments.limit).await?;
        if arguments.json {
            items.iter().try_for_each(|item| serde_json::to_string(item).map(|line| println!("{line}")))?;
        } else {
            print_items(&items);
            if items.len() as u64 == arguments.limit {
                println!("there may be more; see --limit");
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let groups = warehouse.quarantine_groups(&filter).await?;
    let limits = limits(&warehouse.quarantine_usage().await?, config.quarantine);
    if arguments.json {
        let limits: Vec<_> = limits
            .iter()
            .map(|limit| json!({ "limit": limit.name, "ratio": limit.ratio(), "alarm": alarm(limit.level) }))
            .collect();
        println!("{}", json!({ "reasons": groups, "limits": limits }));
    } else {
        print_groups(&groups);
        for limit in &limits {
            match alarm(limit.level) {
                "" => println!("limit: {limit}"),
                alarm => println!("limit: {limit}: {alarm}"),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn alarm(level: Level) -> &'static str {
    match level {
        Level::Fine => "",
        Level::Warning => "WARNING",
        Level::Error => "ERROR",
    }
}

fn print_groups(groups: &[Group]) {
    if groups.is_empty() {
        println!("nothing is in quarantine");
        return;
    }
    println!("{:<18} {:>9} {:>9} {:>11}  {:<19}  {:<19}", "reason", "rows", "replayed", "size", "oldest", "newest");
    for Group { reason, rows, bytes, replayed, oldest, newest } in groups {
        println!("{reason:<18} {rows:>9} {replayed:>9} {:>11}  {oldest}  {newest}", size(*bytes));
    }
}

fn print_items(items: &[Item]) {
    if items.is_empty() {
        println!("nothing is in quarantine");
        return;
    }
    println!("{:<20} {:<26}  {:<16} {:<11} {:>10}  topic: detail", "id", "received", "reason", "replay", "size");
    for item in items {
        let Item { id, received, reason, outcome, topic, detail, bytes, .. } = item;
        let outcome = if outcome.is_empty() { "-" } else { outcome };
        println!(
            "{id:<20} {received:<26}  {reason:<16} {outcome:<11} {:>10}  {}: {}",
            size(*bytes),
            topic.escape_debug(),
            detail.escape_debug()
        );
    }
}
