//! `doseline rebuild`: loads a closed ingest day once more from Kafka into shadow tables, and
//! compares them with the live tables. With `--apply` the rebuilt rows replace the live ones.
//!
//! It uses the day's own batches, which the loader's intents define, and the loader's own pure
//! decoder. The ledgers start as they were at the day's first batch. An interrupted run can
//! continue: it recognises the rows in the shadow tables by batch, count and hash.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use load::{
    batch::{DECODER_VERSION, DecodeRules},
    decode::Place,
    history::{self, Reader},
    inbox::Record,
};
use serde_json::{Value, json};
use telemetry::interval::{Interval, IntervalSet};
use warehouse::{
    Warehouse,
    columns::{Block, LedgerRow, Provenance, TABLES},
    compare::Difference,
    loader::{BootKey, Shard},
    rebuild::{Comparison, DayShard, LoadedBatch, Shadow},
    rollup::{self, Day},
};

use crate::{
    config::{self, Config},
    hint::{Hint as _, fault},
    options,
    progress::Progress,
    reconcile::day,
    running::Beside,
    table::{Table, json_line, number, printable, show, terminal_width, text},
};

#[derive(Args)]
#[command(after_help = "\
The day must be over, all of its batches committed, and its records still in Kafka. Without --apply no table
that people read is changed: the day is loaded into shadow tables (rebuild_YYYYMMDD_*), compared and reported. To
continue an interrupted run, run the command again. With --apply the day's partition of each table is replaced in one
step, and its rollups are rebuilt. Meanwhile a reader may see some tables already swapped and others not yet.
Exit codes: 0 no difference, or swapped in; 1 differences, or refused.

Examples:
  doseline rebuild --day 2026-11-24
  doseline rebuild --day 2026-11-24 --config services.toml
  doseline rebuild --day 2026-11-24 --json | jq '.tables[] | select(.differing_batches > 0)'
  doseline rebuild --day 2026-11-24 --apply --config services.toml
  doseline rebuild --day 2026-11-24 --discard --config services.toml")]
pub struct Arguments {
    /// The ingest day, UTC
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = day)]
    day: Day,
    /// Replace the live rows by the rebuilt ones
    #[arg(long)]
    apply: bool,
    /// Only remove the shadow tables that an earlier run has left
    #[arg(long, conflicts_with = "apply")]
    discard: bool,
    /// Configuration file of an earlier time, for batches that were written under its
    /// `[plausibility]` and `[device_time]`; may be repeated
    #[arg(long, value_name = "FILE")]
    rules: Vec<PathBuf>,
    /// One JSON object instead of the table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub beside: Beside,
}

/// How many rows one insert writes. As many wait in memory, besides one batch.
const GROUP_ROWS: u64 = 100_000;
/// How many characters of a value are printed.
const VALUE_CHARS_MAX: usize = 100;
/// How many differing rows are printed for each table.
const PRINTED_MAX: usize = 20;

pub async fn run(arguments: Arguments, config: Config) -> anyhow::Result<ExitCode> {
    let warehouse = options::warehouse_with_long_timeout(&config)?;
    warehouse::schema::verify(&warehouse).await?;
    let (text, id) = rollup::require_closed(&warehouse, arguments.day).await?;
    let shadow = Shadow::new(&warehouse, arguments.day, &id);
    if arguments.discard {
        shadow.discard().await?;
        // With --json, standard output only carries the comparison.
        say(arguments.json, &format!("ingest day {text}: shadow tables removed"));
        return Ok(ExitCode::SUCCESS);
    }
    let rules = rules(&arguments, &config)?;
    let mut rebuild = DayRebuild::plan(&warehouse, options::load_kafka(&config)?, arguments.day, rules).await?;
    rebuild.fill(&text, &shadow).await?;
    shadow.carry_notes().await?;
    let comparisons = shadow.compare().await?;
    let differing = comparisons.iter().filter(|comparison| comparison.batches > 0).count();
    show(&match arguments.json {
        true => json_line(&as_json(&text, &rebuild, &comparisons))? + "\n",
        false => as_text(&text, &rebuild, &comparisons),
    })?;
    if !arguments.apply {
        if differing == 0 {
            shadow.discard().await?;
            say(arguments.json, "no difference");
            return Ok(ExitCode::SUCCESS);
        }
        let remedy = "--apply swaps the rebuilt rows in, --discard removes the shadow tables";
        say(arguments.json, &format!("{differing} tables differ; {remedy}"));
        return Ok(ExitCode::FAILURE);
    }
    if !rebuild.moved.is_empty() {
        let text = format!(
            "nothing was swapped: in {} ranges of sequence numbers the rebuilt day differs from the recorded ledgers, on \
             which later days depend",
            rebuild.moved.len()
        );
        let remedy = "if the plausibility rules have changed, give the configuration of that day with --rules; `doseline \
                      quarantine replay` loads quarantined events";
        return Err(fault(text, remedy));
    }
    if differing > 0 {
        rebuild.require_unchanged().await?;
        for table in TABLES {
            shadow.swap(table).await.with_context(|| format!("swap {table}")).hint(AGAIN)?;
        }
    }
    rollup::replace_day(&warehouse, arguments.day).await.context("rebuild the rollups").hint(AGAIN)?;
    shadow.discard().await?;
    say(arguments.json, &format!("{differing} tables swapped in, rollups rebuilt"));
    Ok(ExitCode::SUCCESS)
}

const AGAIN: &str = "run the same command again: it continues where it stopped";

/// Prints a result for a person. With `--json` it goes to standard error, because a program reads
/// standard output.
fn say(json: bool, text: &str) {
    match json {
        true => eprintln!("{text}"),
        false => println!("{text}"),
    }
}

/// The rules of the present configuration, then those of the earlier ones.
fn rules(arguments: &Arguments, config: &Config) -> anyhow::Result<Vec<DecodeRules>> {
    let mut rules = vec![DecodeRules::new(config.plausibility.clone(), config.device_time)];
    for path in &arguments.rules {
        let earlier = config::load(config::Sources { file: Some(path), ..Default::default() });
        let earlier = earlier.map_err(|faults| anyhow::anyhow!("--rules: {}", joined(&faults)))?;
        rules.push(DecodeRules::new(earlier.plausibility, earlier.device_time));
    }
    Ok(rules)
}

fn joined(faults: &[config::Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A day that is being rebuilt.
struct DayRebuild<'w> {
    warehouse: &'w Warehouse,
    kafka: load::Kafka,
    day: Day,
    rules: Vec<DecodeRules>,
    shards: Vec<Source>,
    /// For each table, the number of rows that its shadow must hold, and the sum of their hashes.
    made: BTreeMap<&'static str, (u64, u64)>,
    batches: u64,
    /// Batches that were written by another decoder version, or under rules that are no longer
    /// known.
    by_others: u64,
    /// Ranges of sequence numbers whose ledgers would differ from the recorded ones.
    moved: Vec<String>,
}

/// A shard and its place in Kafka.
struct Source {
    of: DayShard,
    topic: String,
    place: Place,
    /// First offset that Kafka holds.
    first: u64,
    /// Offsets that Kafka no longer held when the loader reached them.
    lost: IntervalSet,
}

/// How a pass over a shard ended.
enum Pass {
    Whole,
    /// The shadow tables hold other rows. The pass must be repeated with empty shadow tables.
    Stale,
}

impl<'w> DayRebuild<'w> {
    /// Finds the day's batches. Refuses a day if Kafka no longer holds all of its records.
    async fn plan(
        warehouse: &'w Warehouse,
        kafka: load::Kafka,
        day: Day,
        rules: Vec<DecodeRules>,
    ) -> anyhow::Result<Self> {
        let incarnations = warehouse.topic_incarnations().await?;
        let (mut shards, mut held) = (Vec::new(), HashMap::new());
        for of in warehouse.day_shards(day).await? {
            let shard = of.shard;
            let incarnation = incarnations.iter().find(|incarnation| incarnation.incarnation == shard.incarnation);
            let incarnation =
                incarnation.with_context(|| format!("no topic of incarnation {} is known", shard.incarnation))?;
            let latest = incarnations
                .iter()
                .filter(|other| other.topic == incarnation.topic)
                .map(|other| other.incarnation)
                .max();
            ensure!(
                latest == Some(incarnation.incarnation),
                "Kafka topic {} was deleted and created again after that day",
                incarnation.topic
            );
            let kind = history::topic_kind(&kafka.topics, &incarnation.topic)
                .with_context(|| format!("Kafka topic {} is not one of the loader's any more", incarnation.topic))?;
            if !held.contains_key(&incarnation.topic) {
                let answer = history::held(&kafka, &incarnation.topic).await.context("ask Kafka what it holds")?;
                held.insert(incarnation.topic.clone(), answer);
            }
            let lost = warehouse.lost_offsets(shard, of.from, of.to).await?;
            let first = held[&incarnation.topic].get(&shard.partition).filter(|held| held.end >= of.to);
            let first = first.with_context(|| {
                format!(
                    "Kafka topic {} partition {} does not reach offset {}",
                    incarnation.topic, shard.partition, of.to
                )
            })?;
            let mut gone = IntervalSet::default();
            if first.first > of.from {
                gone.insert(Interval::new(of.from, first.first.min(of.to) - 1));
            }
            let gone = gone.minus(&lost);
            if gone.count() > 0 {
                bail!(
                    "ingest day {} can no longer be rebuilt: of offsets {}..{} of {} partition {} Kafka holds those from {} on, {} \
                     records of the day are gone (retention)",
                    rollup::day_text(day),
                    of.from,
                    of.to,
                    incarnation.topic,
                    shard.partition,
                    first.first,
                    gone.count()
                );
            }
            let place = Place { kind, partition: shard.partition, partitions: incarnation.partitions };
            shards.push(Source { of, topic: incarnation.topic.clone(), place, first: first.first.max(of.from), lost });
        }
        ensure!(!shards.is_empty(), "no batch was loaded on ingest day {}", rollup::day_text(day));
        let made = BTreeMap::new();
        Ok(Self { warehouse, kafka, day, rules, shards, made, batches: 0, by_others: 0, moved: Vec::new() })
    }

    /// Writes every row that the shadow tables do not hold yet.
    async fn fill(&mut self, text: &str, shadow: &Shadow<'_>) -> anyhow::Result<()> {
        shadow.create().await?;
        if matches!(self.pass(text, shadow).await?, Pass::Stale) {
            eprintln!("the shadow tables hold other rows from an earlier run; starting again without them");
            shadow.discard().await?;
            shadow.create().await?;
            if matches!(self.pass(text, shadow).await?, Pass::Stale) {
                return Err(fault(
                    "the shadow tables change under this run",
                    "wait for another run of the same day, if one is under way, then run this again",
                ));
            }
        }
        for table in TABLES {
            let (rows, hashes) = self.made.get(table).copied().unwrap_or_default();
            if !shadow.holds(table, rows, hashes).await? {
                let text = format!("the shadow of {table} does not hold the rebuilt rows");
                return Err(fault(text, "remove it with --discard and begin again"));
            }
        }
        Ok(())
    }

    async fn pass(&mut self, text: &str, shadow: &Shadow<'_>) -> anyhow::Result<Pass> {
        (self.made, self.batches, self.by_others, self.moved) = Default::default();
        let records = self.shards.iter().map(|source| source.of.to - source.first).sum();
        let mut progress = Progress::new(format!("rebuild {text}"), "records", records);
        for index in 0..self.shards.len() {
            if matches!(self.shard(index, shadow, &mut progress).await?, Pass::Stale) {
                return Ok(Pass::Stale);
            }
        }
        Ok(Pass::Whole)
    }

    async fn shard(&mut self, index: usize, shadow: &Shadow<'_>, progress: &mut Progress) -> anyhow::Result<Pass> {
        let Source { of: DayShard { shard, from, to, .. }, topic, place, first, lost } = &self.shards[index];
        let (shard, from, to, place) = (*shard, *from, *to, *place);
        let written = self.warehouse.batches(shard, from, to).await?;
        let mut next = from;
        for batch in &written {
            ensure!(batch.batch == next, "{topic} partition {}: no batch starts at offset {next}", shard.partition);
            next = batch.batch_end;
        }
        ensure!(next == to, "{topic} partition {}: the batches end at offset {next}, not {to}", shard.partition);
        let Some(mut standing) = shadow.standing(shard).await? else { return Ok(Pass::Stale) };
        let mut records =
            Records { reader: Reader::open(&self.kafka, topic, shard.partition, *first, to)?, ahead: None };
        let (lost, warehouse) = (lost.clone(), self.warehouse);
        let mut batches = history::BatchRebuilder::new(warehouse, shard, place, from);
        let mut group = Group::default();
        for batch in written {
            let read = records.batch(&batch, &lost).await?;
            let rules = self.rules.iter().find(|rules| rules.hash == batch.rules_hash);
            let other = rules.is_none() || batch.decoder_version != DECODER_VERSION;
            let rules = rules.unwrap_or(&self.rules[0]);
            let Shard { incarnation, partition } = shard;
            let provenance = Provenance { ingest_day: batch.ingest_day, incarnation, partition, batch: batch.batch };
            let blocks = batches.batch(&read, rules, provenance).await.context("read ledgers").hint(AGAIN)?;
            progress.add(batch.batch_end.saturating_sub(batch.batch.max(self.shards[index].first)));
            if batch.ingest_day != i32::from(self.day) {
                continue;
            }
            (self.batches, self.by_others) = (self.batches + 1, self.by_others + u64::from(other));
            // What commands wrote into other tables is not partitioned by day, so it is not
            // swapped.
            for block in blocks.into_iter().filter(|block| TABLES.contains(&block.table())) {
                let made = self.made.entry(block.table()).or_default();
                made.0 += block.rows();
                made.1 = made.1.wrapping_add(block.hash().wrapping_mul(block.rows()));
                match standing.remove(&(block.table(), batch.batch)) {
                    None => group.add(block, batch.generation),
                    Some(stands) if stands == (block.hash(), block.rows()) => {}
                    Some(_) => return Ok(Pass::Stale),
                }
            }
            if group.rows >= GROUP_ROWS {
                group.write(shadow).await?;
            }
        }
        group.write(shadow).await?;
        if !standing.is_empty() {
            return Ok(Pass::Stale);
        }
        let rebuilt = batches.ledgers();
        let keys: Vec<BootKey> = rebuilt.iter().map(key).collect();
        let recorded = self.warehouse.ledgers(shard, to, &keys).await?;
        self.moved.extend(moved(&rebuilt, &recorded));
        Ok(Pass::Whole)
    }

    /// Fails if a loader has written another batch into the day meanwhile, which a slow clock can
    /// cause. A swap would remove the rows of that batch.
    async fn require_unchanged(&self) -> anyhow::Result<()> {
        rollup::require_closed(self.warehouse, self.day).await?;
        let now = self.warehouse.day_shards(self.day).await?;
        let same = now.iter().eq(self.shards.iter().map(|source| &source.of));
        ensure!(same, "a loader has written batches into the day meanwhile: is its clock right? Nothing was swapped");
        Ok(())
    }
}

/// The records of one shard, batch by batch.
struct Records {
    reader: Reader,
    ahead: Option<Record>,
}

impl Records {
    /// Exactly the records of a batch. A record may only be absent if it was already missing when
    /// the loader reached it.
    async fn batch(&mut self, batch: &LoadedBatch, lost: &IntervalSet) -> anyhow::Result<Vec<Record>> {
        let mut records = Vec::new();
        loop {
            let record = match self.ahead.take() {
                Some(record) => Some(record),
                None => self.reader.next().await?,
            };
            match record {
                Some(record) if record.offset < batch.batch_end => records.push(record),
                rest => {
                    self.ahead = rest;
                    break;
                }
            }
        }
        let there = IntervalSet::from_ranges(records.iter().map(|record| (record.offset, record.offset)));
        let mut absent = IntervalSet::from_ranges([(batch.batch, batch.batch_end - 1)]).minus(&there).minus(lost);
        absent.extend(&there.minus(&there.minus(lost)));
        if let Some(Interval { first, .. }) = absent.intervals().first() {
            bail!(
                "the batch at offset {}: Kafka does not hold the records it held when it was loaded, e.g. offset {first}",
                batch.batch
            );
        }
        Ok(records)
    }
}

/// Blocks that are collected to be written together.
#[derive(Default)]
struct Group {
    blocks: BTreeMap<&'static str, Vec<(Block, u32)>>,
    rows: u64,
}

impl Group {
    fn add(&mut self, block: Block, generation: u32) {
        self.rows += block.rows();
        self.blocks.entry(block.table()).or_default().push((block, generation));
    }

    async fn write(&mut self, shadow: &Shadow<'_>) -> anyhow::Result<()> {
        for (table, blocks) in std::mem::take(&mut self.blocks) {
            shadow.write(table, &blocks).await.with_context(|| format!("write the shadow of {table}")).hint(AGAIN)?;
        }
        self.rows = 0;
        Ok(())
    }
}

fn key(row: &LedgerRow) -> BootKey {
    BootKey { tenant: row.tenant.clone(), device: row.device.clone(), boot_id: row.boot_id }
}

/// Ranges of sequence numbers whose state differs between the rebuilt and the recorded ledgers.
fn moved(rebuilt: &[LedgerRow], recorded: &[LedgerRow]) -> Vec<String> {
    let recorded: HashMap<BootKey, &LedgerRow> = recorded.iter().map(|row| (key(row), row)).collect();
    let nothing = LedgerRow::default();
    let mut moved = Vec::new();
    for row in rebuilt {
        let before = recorded.get(&key(row)).copied().unwrap_or(&nothing);
        let fates = [
            ("stored", &row.ledger.stored, &before.ledger.stored),
            ("quarantined", &row.ledger.quarantined, &before.ledger.quarantined),
        ];
        for (fate, now, then) in fates {
            for (set, text) in [(now.minus(then), "would be"), (then.minus(now), "would no longer be")] {
                moved.extend(set.intervals().iter().map(|Interval { first, last }| {
                    let LedgerRow { tenant, device, boot_id, .. } = row;
                    format!("tenant {tenant} device {device} boot {boot_id} seq {first}..{last} {text} {fate}")
                }));
            }
        }
    }
    moved
}

/// The comparison as text for a person.
fn as_text(day: &str, rebuild: &DayRebuild<'_>, comparisons: &[Comparison]) -> String {
    let DayRebuild { shards, batches, by_others, moved, .. } = rebuild;
    let mut lines = vec![format!("ingest day {day}: {} partitions, {batches} batches", shards.len())];
    if *by_others > 0 {
        let note = "batches were written by another decoder version or under other plausibility rules";
        lines.push(format!("note: {by_others} {note}"));
    }
    let mut tables = Table::new([text("TABLE"), number("LIVE"), number("REBUILT"), number("DIFFERING BATCHES")]);
    for Comparison { table, live, rebuilt, batches, .. } in comparisons {
        tables.add([(*table).to_owned(), live.to_string(), rebuilt.to_string(), batches.to_string()]);
    }
    lines.push(tables.text(terminal_width()).trim_end().to_owned());
    for comparison in comparisons {
        let differences = comparison.differences.iter().take(PRINTED_MAX);
        lines.extend(differences.map(|different| printable(&in_words(comparison.table, different)).into_owned()));
    }
    lines.extend(moved.iter().take(PRINTED_MAX).map(|line| format!("ledger: {line}")));
    lines.join("\n") + "\n"
}

fn in_words(table: &str, difference: &Difference) -> String {
    let Difference { key, left, right, columns } = difference;
    match (*left, *right) {
        (live, 0) => format!("{table}: only live ({live} rows): {key}"),
        (0, rebuilt) => format!("{table}: only rebuilt ({rebuilt} rows): {key}"),
        (live, rebuilt) if live != rebuilt => format!("{table}: {live} rows live, {rebuilt} rebuilt: {key}"),
        _ => {
            let columns = columns
                .iter()
                .map(|(column, live, rebuilt)| format!("{column} live {}, rebuilt {}", short(live), short(rebuilt)));
            format!("{table}: different: {key}: {}", columns.collect::<Vec<_>>().join("; "))
        }
    }
}

/// The comparison as JSON for a program.
fn as_json(day: &str, rebuild: &DayRebuild<'_>, comparisons: &[Comparison]) -> Value {
    let DayRebuild { shards, batches, by_others, moved, .. } = rebuild;
    let difference = |Difference { key, left, right, columns }: &Difference| {
        let columns =
            columns.iter().map(|(name, live, rebuilt)| json!({ "column": name, "live": live, "rebuilt": rebuilt }));
        json!({ "key": key, "live_rows": left, "rebuilt_rows": right, "columns": columns.collect::<Vec<_>>() })
    };
    let table = |Comparison { table, live, rebuilt, batches, differences, .. }: &Comparison| {
        let differences: Vec<_> = differences.iter().map(difference).collect();
        json!({ "table": table, "live": live, "rebuilt": rebuilt, "differing_batches": batches, "differences": differences })
    };
    let tables: Vec<_> = comparisons.iter().map(table).collect();
    json!({
        "day": day, "partitions": shards.len(), "batches": batches, "batches_by_others": by_others, "tables": tables,
        "ledger": moved,
    })
}

/// The start of a value, because payloads are large.
fn short(value: &str) -> &str {
    value.char_indices().nth(VALUE_CHARS_MAX).map_or(value, |(at, _)| &value[..at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use telemetry::ledger::Ledger;

    #[test]
    fn a_fate_that_moves_is_named() {
        let row = |stored: &[(u64, u64)], quarantined: &[(u64, u64)]| LedgerRow {
            device: "pen".to_owned(),
            tenant: "acme".to_owned(),
            boot_id: 7,
            ledger: Ledger {
                stored: IntervalSet::from_ranges(stored.iter().copied()),
                quarantined: IntervalSet::from_ranges(quarantined.iter().copied()),
                ..Ledger::default()
            },
            ..LedgerRow::default()
        };
        assert!(moved(&[row(&[(1, 9)], &[])], &[row(&[(1, 9)], &[])]).is_empty());
        let found = moved(&[row(&[(1, 9)], &[])], &[row(&[(1, 8)], &[(9, 9)])]);
        assert_eq!(
            found,
            [
                "tenant acme device pen boot 7 seq 9..9 would be stored",
                "tenant acme device pen boot 7 seq 9..9 would no longer be quarantined"
            ]
        );
    }
}
