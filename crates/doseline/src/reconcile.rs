//! `doseline reconcile`: compares what devices say they sent, what Kafka holds, the loader's
//! ledgers, the tables and the sums.
//!
//! It takes one Kafka partition at a time. It reads the partition's records again, and compares
//! them with the ledgers at both ends of the period and with the rows between. Afterwards it
//! compares what concerns several partitions: sums, sessions, lifetime numbers.

mod compare;
mod content;
mod finding;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use clap::Args;
use load::{
    decode::{Place, TopicKind},
    history::{self, Filter, Found, Held, Inventory, Reader},
};
use serde::Serialize;
use telemetry::{ledger::Ledger, topic::is_id};
use warehouse::{
    Warehouse,
    columns::LedgerRow,
    loader::{BootKey, TopicIncarnation},
    reconcile::{ReportedCount, Scope, Span},
    rollup::{Day, day_text, parse_day},
};

use crate::{
    config::Config,
    options,
    progress::Progress,
    reconcile::{
        compare::{Boot, Figures, compare},
        finding::{Finding, Kind},
    },
    running::Beside,
    table::{Table, json_line, number, printable, show, terminal_width, text},
};

#[derive(Args)]
#[command(after_help = "\
Compares, behind the loaders' positions only, so that it can run while data flows:
  what devices say (heartbeats, status, earlier boots, shots of a session, lifetime numbers), the records in Kafka, the
  loader's ledger, the rows of each event, the sums against their recomputation, rollups against their minutes.
Exit codes: 0 no difference, 1 differences, each named with what was expected and found.

Examples:
  doseline reconcile
  doseline reconcile --config services.toml
  doseline reconcile --tenant acme --device D-0001 --from 2026-11-20 --to 2026-11-24 --config services.toml
  doseline reconcile --json --config services.toml | jq .findings")]
pub struct Arguments {
    /// Only this tenant
    #[arg(long, value_name = "ID", value_parser = id)]
    tenant: Option<String>,
    /// Only this device
    #[arg(long, value_name = "ID", value_parser = id)]
    device: Option<String>,
    /// First ingest day, UTC; without it six days before --to
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = day)]
    from: Option<Day>,
    /// Last ingest day, UTC; without it today
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = day)]
    to: Option<Day>,
    /// Ignore what was received in the last S seconds when looking for missing events: it may still
    /// be on its way
    #[arg(long, value_name = "S", default_value_t = 60)]
    grace: u32,
    /// One JSON object instead of the table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub beside: Beside,
}

/// The value of a flag that names an ingest day.
pub fn day(text: &str) -> Result<Day, String> {
    parse_day(text).ok_or_else(|| format!("{text:?} is no day; write YYYY-MM-DD, 1970 to 2099"))
}

fn id(text: &str) -> Result<String, String> {
    let right = is_id(text).then(|| text.to_owned());
    right.ok_or_else(|| format!("{text:?} is no id; ids match [A-Za-z0-9][A-Za-z0-9_-]{{0,63}}"))
}

/// How many days before the last one are compared by default. Together with the last one they are a
/// week, which Kafka keeps at least.
const DAYS_BEFORE: Day = 6;
/// How many conflicts are read again to compare their two contents.
const CONFLICTS_SHOWN: usize = 100;

pub async fn run(arguments: Arguments, config: Config) -> anyhow::Result<ExitCode> {
    let warehouse = options::warehouse_with_long_timeout(&config)?;
    warehouse::schema::verify(&warehouse).await?;
    let to = match arguments.to {
        Some(to) => to,
        None => warehouse.today().await?,
    };
    let from = arguments.from.unwrap_or(to.saturating_sub(DAYS_BEFORE));
    if from > to {
        eprintln!("error: --from {} lies after --to {}", day_text(from), day_text(to));
        return Ok(ExitCode::from(2));
    }
    let spans = warehouse.spans(from, to).await?;
    let scope = Scope { from, to, spans, tenant: arguments.tenant, device: arguments.device };
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?;
    let settled = now - i64::from(arguments.grace) * 1_000_000;

    let mut audit = Audit::start(&warehouse, options::load_kafka(&config)?, scope, settled).await?;
    audit.hear_status().await?;
    audit.compare_partitions().await?;
    audit.compare_tables().await?;
    let report = audit.report();
    let text = if arguments.json { json_line(&report)? + "\n" } else { report.text() };
    show(&text)?;
    Ok(if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The state of one comparison.
struct Audit<'w> {
    warehouse: &'w Warehouse,
    kafka: load::Kafka,
    scope: Scope,
    settled: i64,
    incarnations: Vec<TopicIncarnation>,
    held: BTreeMap<String, BTreeMap<i32, Held>>,
    /// The last sequence number of each boot according to the status topic.
    words: BTreeMap<BootKey, u64>,
    figures: BTreeMap<(String, String), Device>,
    /// For each device, how many events are known to be absent from the tables. They explain lower
    /// counts there.
    explained: BTreeMap<(String, String), u64>,
    findings: BTreeSet<Finding>,
    notes: Vec<String>,
}

#[derive(Default)]
struct Device {
    boots: u64,
    figures: Figures,
}

/// A span with its place in Kafka.
#[derive(Clone)]
struct Stretch {
    span: Span,
    topic: String,
    place: Place,
    /// First offset that can be read; `None` if the topic has a newer incarnation.
    readable: Option<u64>,
}

impl<'w> Audit<'w> {
    async fn start(warehouse: &'w Warehouse, kafka: load::Kafka, scope: Scope, settled: i64) -> anyhow::Result<Self> {
        let incarnations = warehouse.topic_incarnations().await?;
        let mut held = BTreeMap::new();
        for topic in kafka.topics.of_devices() {
            held.insert(topic.to_owned(), history::held(&kafka, topic).await.context("ask Kafka what it holds")?);
        }
        Ok(Self {
            warehouse,
            kafka,
            scope,
            settled,
            incarnations,
            held,
            words: BTreeMap::new(),
            figures: BTreeMap::new(),
            explained: BTreeMap::new(),
            findings: BTreeSet::new(),
            notes: Vec::new(),
        })
    }

    /// The spans of topics that carry `content`, as far as they may hold the selected devices.
    fn stretches(&self, kind: TopicKind) -> Vec<Stretch> {
        let stretch = |span: &Span| {
            let incarnation =
                self.incarnations.iter().find(|incarnation| incarnation.incarnation == span.shard.incarnation)?;
            let partition = span.shard.partition;
            let place = Place { kind, partition, partitions: incarnation.partitions };
            if history::topic_kind(&self.kafka.topics, &incarnation.topic) != Some(kind) {
                return None;
            }
            if let (Some(tenant), Some(device)) = (&self.scope.tenant, &self.scope.device)
                && !history::may_hold(place, tenant, device)
            {
                return None;
            }
            let latest = self
                .incarnations
                .iter()
                .filter(|other| other.topic == incarnation.topic)
                .map(|other| other.incarnation)
                .max();
            let held = self.held.get(&incarnation.topic).and_then(|held| held.get(&partition));
            let held = held.filter(|_| latest == Some(incarnation.incarnation));
            let readable = held.map(|held| held.first.max(span.from)).filter(|first| *first <= span.to);
            Some(Stretch { span: *span, topic: incarnation.topic.clone(), place, readable })
        };
        self.scope.spans.iter().filter_map(stretch).collect()
    }

    async fn hear_status(&mut self) -> anyhow::Result<()> {
        for stretch in self.stretches(TopicKind::Status) {
            let mut progress =
                Progress::new(format!("{}/{}", stretch.topic, stretch.place.partition), "records", count(&stretch));
            for (boot, seen) in self.inventory(&stretch, &mut progress).await?.boots {
                let words = self.words.entry(boot).or_default();
                *words = seen.known_last.max(*words);
            }
        }
        Ok(())
    }

    /// Everything that Kafka still has of a stretch.
    async fn inventory(&mut self, stretch: &Stretch, progress: &mut Progress) -> anyhow::Result<Found> {
        let Stretch { span, topic, place, readable } = stretch;
        let filter = Filter { tenant: self.scope.tenant.clone(), device: self.scope.device.clone() };
        let mut inventory = Inventory::new(*place, filter, self.settled).context("create temporary files")?;
        let Some(first) = readable.filter(|first| *first < span.to) else { return Ok(Found::default()) };
        let mut reader = Reader::open(&self.kafka, topic, place.partition, first, span.to)?;
        while let Some(record) = reader.next().await? {
            inventory.add(&record).context("write a temporary file")?;
            progress.add(1);
        }
        inventory.finish().context("read a temporary file")
    }

    async fn compare_partitions(&mut self) -> anyhow::Result<()> {
        for stretch in self.stretches(TopicKind::Reports) {
            let (span, partition) = (stretch.span, stretch.place.partition);
            let whole = stretch.readable == Some(span.from) || span.from == span.to;
            if !whole {
                let held = stretch.readable.map_or("nothing".to_owned(), |first| format!("offsets from {first} on"));
                self.notes.push(format!(
                    "{} partition {partition}: of offsets {}..{} Kafka holds {held}; the rest is compared without it",
                    stretch.topic, span.from, span.to
                ));
            }
            let mut progress = Progress::new(format!("{}/{partition}", stretch.topic), "records", count(&stretch));
            let found = self.inventory(&stretch, &mut progress).await?;
            drop(progress);
            let before = ledgers(self.warehouse.ledgers_of(span.shard, span.from, &self.scope).await?, stretch.place);
            let after = ledgers(self.warehouse.ledgers_of(span.shard, span.to, &self.scope).await?, stretch.place);
            self.compare_boots(&stretch, whole, &found, &before, &after).await?;
            self.conflicts(&stretch, &found).await?;
        }
        // Boots that only the status topic mentions, in partitions that never had a report.
        let silent = std::mem::take(&mut self.words);
        let (nothing, none) = (Ledger::default(), Default::default());
        for (key, words) in silent.into_iter().filter(|(_, words)| *words > 0) {
            let boot = Boot {
                key: &key,
                seen: &Default::default(),
                words,
                whole: true,
                before: &nothing,
                after: &nothing,
                rows: &none,
            };
            self.note(&key, compare(&boot));
        }
        Ok(())
    }

    async fn compare_boots(
        &mut self,
        stretch: &Stretch,
        whole: bool,
        found: &Found,
        before: &BTreeMap<BootKey, Ledger>,
        after: &BTreeMap<BootKey, Ledger>,
    ) -> anyhow::Result<()> {
        let rows = self.warehouse.rows_of(stretch.span, &self.scope).await?;
        let mine = |key: &BootKey| history::may_hold(stretch.place, &key.tenant, &key.device);
        let words: BTreeMap<BootKey, u64> =
            self.words.iter().filter(|(key, _)| mine(key)).map(|(key, last)| (key.clone(), *last)).collect();
        let changed = after.iter().filter(|(key, ledger)| before.get(*key) != Some(*ledger)).map(|(key, _)| key);
        let keys: BTreeSet<&BootKey> =
            found.boots.keys().chain(words.keys()).chain(rows.keys()).chain(changed).collect();
        let (unseen, nothing, none) = (Default::default(), Ledger::default(), Default::default());
        for key in keys {
            let boot = Boot {
                key,
                seen: found.boots.get(key).unwrap_or(&unseen),
                words: words.get(key).copied().unwrap_or(0),
                whole,
                before: before.get(key).unwrap_or(&nothing),
                after: after.get(key).unwrap_or(&nothing),
                rows: rows.get(key).unwrap_or(&none),
            };
            self.note(key, compare(&boot));
        }
        self.words.retain(|key, _| !words.contains_key(key));
        for (key, ledger) in after {
            let explained = self.explained.entry((key.tenant.clone(), key.device.clone())).or_default();
            let missing: u64 = ledger.missing().iter().map(telemetry::interval::Interval::count).sum();
            *explained += ledger.quarantined.count() + ledger.declared_lost.count() + missing;
        }
        Ok(())
    }

    fn note(&mut self, key: &BootKey, (figures, findings): (Figures, Vec<Finding>)) {
        let device = self.figures.entry((key.tenant.clone(), key.device.clone())).or_default();
        device.boots += 1;
        device.figures.says += figures.says;
        device.figures.kafka += figures.kafka;
        device.figures.stored += figures.stored;
        device.figures.quarantined += figures.quarantined;
        device.figures.lost += figures.lost;
        device.figures.missing += figures.missing;
        self.findings.extend(findings);
    }

    async fn conflicts(&mut self, stretch: &Stretch, found: &Found) -> anyhow::Result<()> {
        for (index, conflict) in found.conflicts.iter().enumerate() {
            let (first, other) = (conflict.first_offset, conflict.other_offset);
            let detail = if index < CONFLICTS_SHOWN {
                let [left, right] = [
                    self.content(stretch, first, conflict.seq).await?,
                    self.content(stretch, other, conflict.seq).await?,
                ];
                content::difference(&left, &right)
            } else {
                String::new()
            };
            let run = telemetry::interval::Interval::new(conflict.seq, conflict.seq);
            let partition = stretch.place.partition;
            let finding = Finding::of(Kind::Conflict, &conflict.boot, run).saying(
                format!("the content at offset {first} of partition {partition}, which is stored"),
                format!("another at offset {other}"),
                detail,
            );
            self.findings.insert(finding);
        }
        Ok(())
    }

    async fn content(&self, stretch: &Stretch, offset: u64, seq: u64) -> anyhow::Result<String> {
        let mut reader = Reader::open(&self.kafka, &stretch.topic, stretch.place.partition, offset, offset + 1)?;
        let record = reader.next().await?;
        Ok(record.and_then(|record| history::contents(&record, stretch.place, seq)).unwrap_or_default())
    }

    /// Compares what the tables alone can show.
    async fn compare_tables(&mut self) -> anyhow::Result<()> {
        for parts in self.warehouse.incomplete_events(&self.scope).await? {
            let boot = BootKey { tenant: parts.tenant, device: parts.device, boot_id: parts.boot_id };
            let run = telemetry::interval::Interval::new(parts.seq, parts.seq);
            let detail = if parts.found == parts.distinct { "" } else { "a part is stored more than once" };
            let finding = Finding::of(Kind::Parts, &boot, run).table(&parts.table);
            self.findings.insert(finding.saying(format!("{} rows", parts.expected), parts.found, detail));
        }
        let sessions = self.warehouse.sessions_told(&self.scope).await?;
        let numbers = self.warehouse.numbers_told(&self.scope, self.settled).await?;
        self.compare_counts(Kind::Session, sessions);
        self.compare_counts(Kind::InjectionNumbers, numbers);
        for (table, difference) in self.warehouse.wrong_sums(&self.scope).await? {
            let of = Finding { key: difference.key, ..Finding::new(Kind::Aggregate) }.table(table);
            match (difference.left, difference.right) {
                (0, _) => drop(self.findings.insert(of.saying("a sum", "none", "its rows exist"))),
                (_, 0) => drop(self.findings.insert(of.saying("no sum", "one", "no row for it exists"))),
                (1, 1) => {
                    let columns = difference.columns.into_iter();
                    let finding = |(column, found, expected)| {
                        Finding { column, ..of.clone() }.saying(expected, found, "recomputed from its rows")
                    };
                    self.findings.extend(columns.map(finding));
                }
                (left, _) => drop(self.findings.insert(of.saying("1 row", left, ""))),
            }
        }
        Ok(())
    }

    /// Reports counts of devices that differ from the tables. Lower counts in the tables are
    /// accepted as long as their sum for a device does not exceed the number of its events that
    /// are known to be quarantined, lost or missing.
    fn compare_counts(&mut self, kind: Kind, counts: Vec<ReportedCount>) {
        let mut left = self.explained.clone();
        for ReportedCount { tenant, device, session_id, said, found } in counts {
            let left = left.entry((tenant.clone(), device.clone())).or_default();
            let absent = said.checked_sub(found);
            if let Some(rest) = absent.and_then(|absent| left.checked_sub(absent)) {
                *left = rest;
                continue;
            }
            let key = if session_id.is_empty() { String::new() } else { format!("session {session_id}") };
            let detail = format!("{left} more events of the device are in quarantine, lost or missing");
            let finding = Finding { tenant, device, key, ..Finding::new(kind) };
            self.findings.insert(finding.saying(format!("{said} injections by the device's count"), found, detail));
        }
    }

    fn report(self) -> Report {
        let mut differences: BTreeMap<(String, String), u64> = BTreeMap::new();
        for finding in &self.findings {
            *differences.entry((finding.tenant.clone(), finding.device.clone())).or_default() += 1;
        }
        let line = |((tenant, device), of): ((String, String), Device)| {
            let differences = differences.get(&(tenant.clone(), device.clone())).copied().unwrap_or(0);
            let Figures { says, kafka, stored, quarantined, lost, missing } = of.figures;
            DeviceFigures {
                tenant,
                device,
                boots: of.boots,
                says,
                kafka,
                stored,
                quarantined,
                lost,
                missing,
                differences,
            }
        };
        Report {
            from: day_text(self.scope.from),
            to: day_text(self.scope.to),
            devices: self.figures.into_iter().map(line).collect(),
            findings: self.findings.into_iter().collect(),
            notes: self.notes,
        }
    }
}

fn count(stretch: &Stretch) -> u64 {
    stretch.readable.map_or(0, |first| stretch.span.to.saturating_sub(first))
}

/// The ledgers of the boots that a partition may hold. Earlier incarnations of the topic may have
/// had other boots in the same partition.
fn ledgers(rows: Vec<LedgerRow>, place: Place) -> BTreeMap<BootKey, Ledger> {
    let rows = rows.into_iter().filter(|row| history::may_hold(place, &row.tenant, &row.device));
    let ledger =
        |row: LedgerRow| (BootKey { tenant: row.tenant, device: row.device, boot_id: row.boot_id }, row.ledger);
    rows.map(ledger).collect()
}

/// The result of the comparison.
#[derive(Serialize)]
struct Report {
    from: String,
    to: String,
    devices: Vec<DeviceFigures>,
    findings: Vec<Finding>,
    notes: Vec<String>,
}

/// The figures of one device.
#[derive(Serialize)]
struct DeviceFigures {
    tenant: String,
    device: String,
    boots: u64,
    says: u64,
    kafka: u64,
    stored: u64,
    quarantined: u64,
    lost: u64,
    missing: u64,
    differences: u64,
}

impl Report {
    fn text(&self) -> String {
        let Self { from, to, devices, findings, notes } = self;
        let mut table = Table::new([
            text("TENANT"),
            text("DEVICE"),
            number("BOOTS"),
            number("SAYS"),
            number("KAFKA"),
            number("STORED"),
            number("QUARANTINED"),
            number("LOST"),
            number("MISSING"),
            number("DIFFERENCES"),
        ]);
        for line in devices {
            let DeviceFigures { tenant, device, boots, says, kafka, stored, quarantined, lost, missing, differences } =
                line;
            let [boots, says, kafka, stored, quarantined, lost, missing, differences] =
                [boots, says, kafka, stored, quarantined, lost, missing, differences].map(u64::to_string);
            let (tenant, device) = (tenant.clone(), device.clone());
            table.add([tenant, device, boots, says, kafka, stored, quarantined, lost, missing, differences]);
        }
        let mut lines = vec![format!("ingest days {from} to {to}")];
        lines.push(table.text(terminal_width()).trim_end().to_owned());
        lines.extend(notes.iter().map(|note| format!("note: {note}")));
        lines.extend(findings.iter().map(|finding| printable(&finding.to_string()).into_owned()));
        lines.push(match findings.len() {
            0 => "no difference".to_owned(),
            count => format!("{count} differences"),
        });
        lines.join("\n") + "\n"
    }
}
