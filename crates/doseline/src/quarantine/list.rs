//! `doseline quarantine list`.

use std::{fmt::Write as _, process::ExitCode};

use clap::Args;
use serde_json::json;
use warehouse::quarantine::{Group, Item};

use super::{
    Selection,
    limits::{Level, Limit, limits},
    size,
};
use crate::{
    config::Config,
    options,
    table::{self, number, text},
};

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// One line for each row instead of one for each reason
    #[arg(long)]
    all: bool,
    /// Only rows that have not been replayed
    #[arg(long)]
    waiting: bool,
    /// Print at most this many rows with --all
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    limit: u64,
    /// One JSON object for each line
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let warehouse = options::warehouse(config)?;
    let filter = arguments.selection.filter(arguments.waiting);
    if arguments.all {
        let items = warehouse.quarantine_items(&filter, arguments.limit).await?;
        show_items(&items, arguments.json)?;
        if items.len() as u64 == arguments.limit {
            eprintln!("there may be more; see --limit");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let groups = warehouse.quarantine_groups(&filter).await?;
    let limits = limits(&warehouse.quarantine_usage().await?, &config.quarantine);
    show_groups(&groups, arguments.json)?;
    if arguments.json {
        let limit = |limit: &Limit| json!({ "limit": limit.name, "ratio": limit.ratio(), "alarm": alarm(limit.level) });
        table::lines(&limits.each_ref().map(limit))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    for limit in &limits {
        // Writing to a `String` cannot fail.
        let _ = match alarm(limit.level) {
            "" => writeln!(text, "limit: {limit}"),
            alarm => writeln!(text, "limit: {limit}: {alarm}"),
        };
    }
    table::show(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn alarm(level: Level) -> &'static str {
    match level {
        Level::Fine => "",
        Level::Warning => "WARNING",
        Level::Error => "ERROR",
    }
}

fn show_groups(groups: &[Group], json: bool) -> anyhow::Result<()> {
    let columns = [text("REASON"), number("ROWS"), number("REPLAYED"), number("SIZE"), text("OLDEST"), text("NEWEST")];
    table::list(groups, json, NOTHING, columns, |group| {
        let Group { reason, rows, bytes, replayed, oldest, newest } = group.clone();
        [reason, rows.to_string(), replayed.to_string(), size(bytes), oldest, newest]
    })
}

fn show_items(items: &[Item], json: bool) -> anyhow::Result<()> {
    let columns =
        [text("ID"), text("RECEIVED"), text("REASON"), text("REPLAY"), number("SIZE"), text("TOPIC"), text("DETAIL")];
    table::list(items, json, NOTHING, columns, |item| {
        let Item { id, received, reason, outcome, topic, detail, bytes, .. } = item.clone();
        [id, received, reason, outcome, size(bytes), topic, detail]
    })
}

const NOTHING: &str = "nothing is in quarantine";
