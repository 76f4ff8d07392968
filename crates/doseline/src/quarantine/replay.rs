//! `doseline quarantine replay`.
//!
//! This command only puts records into Kafka. The loader decides whether an event is stored, was
//! already stored, or is refused again. The command reads the loader's answer from the tables.

use std::{collections::HashSet, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Args;
use dashboard::write::{NotWritten, Replayed};
use load::replay::{Record, Replayer};
use telemetry::{
    quarantine::Id,
    reject::{Reason, Reject},
    topic::Topic,
};
use tokio::time::Instant;
use warehouse::{
    Warehouse,
    quarantine::{Item, Raw, ReplayResult},
    sight::Sight,
};

use super::{Selection, now_us, remake::remake, who};
use crate::{config::Config, hint::Hint as _, options, table::printable, writer};

/// Size of the payloads held at a time, bytes.
const CHUNK_BYTES: u64 = 8 << 20;
/// Number of rows held at a time.
const CHUNK_ROWS: usize = 1_000;
/// How many rows that stay in quarantine are printed.
const LINES: usize = 20;
/// Interval at which the command reads what the loader has written.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// Only print what would be replayed and what would still be refused
    #[arg(long)]
    dry_run: bool,
    /// Person who replays; by default the user of the operating system
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Replay at most this many rows
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    limit: u64,
    /// How long to wait for the loader, s; 0 = not at all
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
}

pub async fn run(arguments: Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let warehouse = options::warehouse(config)?;
    // A row that is named by its id may be replayed again. Its outcome is then only DUPLICATE.
    let filter = arguments.selection.filter(arguments.selection.ids.is_empty());
    let items = warehouse.quarantine_items(&filter, arguments.limit).await.context("look into the quarantine")?;
    if items.is_empty() {
        println!("nothing to replay");
        return Ok(ExitCode::SUCCESS);
    }
    // A dry run changes nothing, so it needs no name.
    let by = if arguments.dry_run { String::new() } else { who(arguments.by.as_deref())? };
    let at_us = now_us()?;
    let replayer = Replayer::new(&options::load_kafka(config)?, &by, at_us)?;
    let mut command = Command { replayer, warehouse, config, refused: Vec::new(), produced: 0 };
    for chunk in chunks(&items) {
        command.replay(&chunk, arguments.dry_run).await?;
    }
    command.report_refused();
    let Command { warehouse, refused, produced, .. } = command;
    if arguments.dry_run {
        println!("{produced} rows can be replayed, {} are refused still; nothing was done", refused.len());
        return Ok(ExitCode::SUCCESS);
    }
    let results = wait(&warehouse, &by, at_us, produced, Duration::from_secs(arguments.wait)).await?;
    let done = report(&results, produced);
    if done {
        // The loader also does this, a little later.
        warehouse.mark_replayed().await.context("mark the rows as replayed")?;
    }
    Ok(if done && refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Replays one row of a tenant's quarantine, and waits for what the loader makes of it.
///
/// # Errors
/// It is not known whether it was replayed; a second attempt does no harm.
pub async fn replay_row(
    config: &Config,
    warehouse: &Warehouse,
    tenant: &str,
    id: Id,
    by: &str,
    within: Duration,
) -> anyhow::Result<Result<Replayed, NotWritten>> {
    let warehouse = warehouse.seen_by(&Sight::Tenants(vec![tenant.to_owned()]));
    let at_us = now_us()?;
    let replayer = Replayer::new(&options::load_kafka(config)?, by, at_us)?;
    let mut command = Command { replayer, warehouse, config, refused: Vec::new(), produced: 0 };
    command.replay(&[id], false).await?;
    let Command { warehouse, refused, produced, .. } = command;
    if let Some((_, reject)) = refused.first() {
        return Ok(Ok(Replayed { stays: reject.to_string(), ..Replayed::default() }));
    }
    if produced == 0 {
        return Ok(Err(NotWritten::Failed));
    }
    let results = wait(&warehouse, by, at_us, produced, within).await?;
    Ok(results.first().map(writer::replayed).ok_or(NotWritten::Late))
}

struct Command<'a> {
    replayer: Replayer,
    warehouse: Warehouse,
    config: &'a Config,
    refused: Vec<(Id, Reject)>,
    produced: usize,
}

impl Command<'_> {
    async fn replay(&mut self, ids: &[Id], dry_run: bool) -> anyhow::Result<()> {
        let raws = self.warehouse.quarantine_raw(ids).await.context("read from quarantine")?;
        let registered = self.registered(&raws).await?;
        let mut records: Vec<Record> = Vec::new();
        for raw in &raws {
            let unknown = || {
                let site = site(raw);
                let detail = format!(
                    "{}/{} is not registered at site {site}; `doseline devices import`",
                    raw.tenant, raw.device
                );
                Reject::new(Reason::UnknownDevice, detail)
            };
            let known = raw.reason != Reason::UnknownDevice.as_str()
                || registered.contains(&(raw.tenant.clone(), site(raw).to_owned(), raw.device.clone()));
            let Config { plausibility, device_time, .. } = self.config;
            match known.then_some(()).ok_or_else(unknown).and_then(|()| remake(raw, plausibility, device_time)) {
                Ok(record) => records.push(record),
                Err(reject) => self.refused.push((raw.id, reject)),
            }
        }
        self.produced += records.len();
        if !dry_run {
            self.replayer
                .produce(&records)
                .await
                .context("put replays into Kafka")
                .hint("run it again, nothing counts twice")?;
        }
        Ok(())
    }

    /// Where the devices that were refused as unknown are registered, as (tenant, site, device): at
    /// their site of now, and at those where they were before.
    async fn registered(&self, raws: &[Raw]) -> anyhow::Result<HashSet<(String, String, String)>> {
        let unknown = raws.iter().filter(|raw| raw.reason == Reason::UnknownDevice.as_str());
        let devices: HashSet<_> = unknown.map(|raw| (raw.tenant.clone(), raw.device.clone())).collect();
        let devices: Vec<_> = devices.into_iter().collect();
        Ok(self.warehouse.registered(&devices).await.context("look into the registry")?.into_iter().collect())
    }

    fn report_refused(&self) {
        if self.refused.is_empty() {
            return;
        }
        println!("{} rows are refused still, by the rules of this configuration, and stay:", self.refused.len());
        for (id, reject) in self.refused.iter().take(LINES) {
            println!("  {id}  {}", printable(&reject.to_string()));
        }
        if self.refused.len() > LINES {
            println!("  and {} more", self.refused.len() - LINES);
        }
    }
}

/// The site in the topic; empty if the topic is none of the contract.
fn site(raw: &Raw) -> &str {
    Topic::parse(&raw.topic).map_or("", |topic| topic.site)
}

/// The ids of the rows, in groups that fit into memory.
fn chunks(items: &[Item]) -> Vec<Vec<Id>> {
    let (mut chunks, mut chunk, mut bytes) = (Vec::new(), Vec::new(), 0);
    for item in items {
        // The view writes ids in this form, so none is skipped.
        let Ok(id) = item.id.parse::<Id>() else { continue };
        if chunk.len() == CHUNK_ROWS || (bytes + item.bytes > CHUNK_BYTES && !chunk.is_empty()) {
            chunks.push(std::mem::take(&mut chunk));
            bytes = 0;
        }
        bytes += item.bytes;
        if chunk.last() != Some(&id) {
            chunk.push(id);
        }
    }
    chunks.push(chunk);
    chunks
}

/// What the loader has written about the replay, once it is complete or the time is over.
async fn wait(
    warehouse: &Warehouse,
    by: &str,
    at_us: i64,
    produced: usize,
    within: Duration,
) -> anyhow::Result<Vec<ReplayResult>> {
    let deadline = Instant::now() + within;
    loop {
        let results = warehouse.quarantine_results(by, at_us).await.context("read what the loader has written")?;
        if results.len() >= produced || Instant::now() >= deadline {
            return Ok(results);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Prints the outcomes. Returns whether everything that was produced has left the quarantine.
fn report(results: &[ReplayResult], produced: usize) -> bool {
    let refused: Vec<_> = results.iter().filter(|result| result.outcome == "REFUSED").collect();
    if !refused.is_empty() {
        println!("{} rows are refused by the loader, by its rules, and stay:", refused.len());
    }
    for result in refused.iter().take(LINES) {
        let detail = printable(&result.detail);
        println!("  {}-{}-{}  {detail}", result.incarnation, result.partition, result.offset);
    }
    let count = |outcome: &str| results.iter().filter(|result| result.outcome == outcome).count();
    println!(
        "replayed {produced} rows: {} stored, {} were there already, {} refused again, {} refused event by event ({} events stored)",
        count("STORED"),
        count("DUPLICATE"),
        refused.len(),
        count("REFUSED_SINGLY"),
        results.iter().map(|result| result.stored).sum::<u64>()
    );
    if results.len() < produced {
        println!(
            "the loader has not written {} of them yet; they are in Kafka, and `doseline quarantine list` shows when they are",
            produced - results.len()
        );
    }
    refused.is_empty() && results.len() >= produced
}
