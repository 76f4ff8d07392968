//! One pass: which units a change concerns, what is known of each, what becomes of verdicts and alerts.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use warehouse::{
    Error, Warehouse,
    changes::{News, Part, Seen},
    sterility::{Horizon, IDS_MAX},
    verdicts::Verdict,
};

use super::{Book, Clock, RULE_VERSION, conditions::condition, sterilizer::Standings, work::Work};
use crate::{limits::Limits, settlement};

/// Name of this half in `monitor_positions`.
const READER: &str = "sterility";
/// Facts that are looked at for changes.
const FACTS: [&str; 9] = [
    "injections",
    "item_uses",
    "mounts",
    "preparations",
    "sterilization_cycles",
    "sterilization_samples",
    "sterilization_items",
    "cycle_indicators",
    "cycle_releases",
];
/// SQL of the name of a mount, `DEVICE/MOUNT`; empty where there is none.
const MOUNT: &str = "if(mount_id = '', '', concat(device, '/', mount_id))";
/// Registries: a change of one concerns everything.
const REGISTRIES: [&str; 5] = ["recipes", "lots", "recalls", "policies", "sites"];
/// More changed ids than this and everything is evaluated instead, in slices.
const CHANGED_MAX: usize = 20_000;
/// Tries to read a set of parts that merges do not take away meanwhile.
const TRIES: usize = 5;
/// Between two records of what has been seen, us: what was not recorded is evaluated again after a restart.
const RECORD_US: i64 = 60_000_000;
/// Between two looks at what waits for further data, us.
const WAITING_US: i64 = 60_000_000;

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Units evaluated.
    pub units: u64,
    /// Verdicts that are new or say something else.
    pub verdicts: u64,
    /// Alerts that were raised or changed.
    pub alerts: u64,
    /// Whether everything was evaluated.
    pub whole: bool,
}

/// Ids of units to evaluate; those of mounts are `DEVICE/MOUNT`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Dirty {
    pub items: BTreeSet<String>,
    pub mounts: BTreeSet<String>,
    pub sessions: BTreeSet<String>,
    pub sterilizers: BTreeSet<String>,
}

impl Dirty {
    fn is_empty(&self) -> bool {
        self.count() == 0
    }

    fn count(&self) -> usize {
        self.items.len() + self.mounts.len() + self.sessions.len() + self.sterilizers.len()
    }

    fn add(&mut self, other: Self) {
        self.items.extend(other.items);
        self.mounts.extend(other.mounts);
        self.sessions.extend(other.sessions);
        self.sterilizers.extend(other.sterilizers);
    }

    /// Adds a unit by its name.
    fn add_unit(&mut self, unit: &str) {
        let Some((kind, name)) = unit.split_once('/') else { return };
        let (ids, id) = match kind {
            "item" => (&mut self.items, name),
            "session" => (&mut self.sessions, name),
            "sterilizer" => (&mut self.sterilizers, name),
            _ => (&mut self.mounts, name),
        };
        ids.insert(id.to_owned());
    }
}

/// What is written down after a pass.
#[derive(Default, Serialize, Deserialize)]
struct Position {
    /// The limits it was judged by, JSON.
    limits: String,
    seen: Seen,
    /// Units with rows of batches that were not committed.
    again: Dirty,
}

/// The sterility half of the monitor.
pub struct Sterility {
    warehouse: Warehouse,
    late: i64,
    limits: Limits,
    position: Option<Position>,
    /// Units that are pending, and until when.
    pending: HashMap<String, i64>,
    looked_at_waiting: i64,
    recorded_at: i64,
}

impl Sterility {
    /// Nothing is read yet. `late` is how long a sterilizer's data are awaited after a use, us.
    pub fn new(warehouse: Warehouse, late: i64, limits: Limits) -> Self {
        Self { warehouse, late, limits, position: None, pending: HashMap::new(), looked_at_waiting: 0, recorded_at: 0 }
    }

    /// Forgets what has been seen: the next pass evaluates everything.
    pub fn start_over(&mut self) {
        self.position = Some(Position::default());
    }

    /// Evaluates what has changed since the last pass, or became due by time. Doing it again changes nothing.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`]; the next pass takes up everything that this one did not finish.
    pub async fn pass(&mut self, now: i64) -> Result<Summary, Error> {
        if self.pending.is_empty() && self.position.is_none() {
            self.pending = self.warehouse.pending_units().await?.into_iter().collect();
        }
        let mut position = match self.position.take() {
            Some(position) => position,
            None => self.stored_position().await?,
        };
        let outcome = self.evaluate(&mut position, now).await;
        // A pass that failed is repeated from where it began.
        self.position = Some(position);
        outcome
    }

    async fn stored_position(&self) -> Result<Position, Error> {
        if !self.warehouse.verdicts_are_current(RULE_VERSION).await? {
            return Ok(Position::default());
        }
        let stored = self.warehouse.monitor_position(READER).await?;
        let stored = stored.and_then(|stored| serde_json::from_str(&stored).ok());
        let limits = self.limits.to_string();
        Ok(stored.filter(|position: &Position| position.limits == limits).unwrap_or_default())
    }

    async fn evaluate(&mut self, position: &mut Position, now: i64) -> Result<Summary, Error> {
        let horizon = self.warehouse.horizon().await?;
        let found = self.changes(&position.seen).await?;
        let mut dirty = position.again.clone();
        let is_first = position.seen == Seen::default();
        let has_news = found.has_news;
        self.add_due(&mut dirty, now);
        let whole = is_first || found.dirty.is_none();
        dirty.add(found.dirty.unwrap_or_default());
        if !whole && dirty.is_empty() {
            let released = self.warehouse.released_alerts().await?;
            let alerts = self.settle(released.into_iter().collect(), now).await?;
            position.seen = found.seen;
            return Ok(Summary { alerts, ..Summary::default() });
        }
        let registry = self.warehouse.sterility_registry().await?;
        let mut work = Work {
            warehouse: &self.warehouse,
            book: Book::new(&registry),
            registry,
            horizon: &horizon,
            clock: Clock { now, late: self.late },
            mass_balance_pct: self.limits.mass_balance_pct,
            standings: Standings::new(),
            keys: BTreeSet::new(),
            pending: HashMap::new(),
            evaluated: HashSet::new(),
            changed_items: BTreeSet::new(),
            alerts: 0,
            verdicts: 0,
        };
        work.run(if whole { None } else { Some(dirty) }).await?;
        let Work { keys, pending, evaluated, alerts, verdicts, .. } = work;
        let alerts = alerts + self.settle(keys, now).await?;
        let again = if has_news { self.beyond(&horizon).await? } else { Dirty::default() };
        let next = Position { limits: self.limits.to_string(), seen: found.seen, again };
        if has_news && (whole || now - self.recorded_at >= RECORD_US) {
            let json = serde_json::to_string(&next).unwrap_or_default();
            self.warehouse.record_monitor_position(READER, &json, now).await?;
            self.recorded_at = now;
        }
        *position = next;
        if whole {
            self.pending.clear();
        }
        self.pending.retain(|unit, _| !evaluated.contains(unit));
        self.pending.extend(pending);
        Ok(Summary { units: evaluated.len() as u64, verdicts, alerts, whole })
    }

    /// Units whose time has come.
    fn add_due(&mut self, dirty: &mut Dirty, now: i64) {
        let look = now - self.looked_at_waiting >= WAITING_US;
        if look {
            self.looked_at_waiting = now;
        }
        for (unit, until) in &self.pending {
            if (*until > 0 && *until <= now) || (*until == 0 && look) {
                dirty.add_unit(unit);
            }
        }
    }

    /// What is new, and what will have been seen then. No ids where there are too many, or a registry has changed.
    async fn changes(&self, seen: &Seen) -> Result<Found, Error> {
        let tables: Vec<_> = FACTS.into_iter().chain(REGISTRIES).collect();
        for _ in 0..TRIES {
            let parts = self.warehouse.parts(&tables).await?;
            let news = seen.news(&parts);
            let mut next = seen.clone();
            next.see(&parts);
            let has_news = !news.is_empty();
            let is_whole = *seen == Seen::default() || REGISTRIES.iter().any(|table| news.contains_key(table));
            let dirty = if is_whole { None } else { self.dirty(&news).await? };
            // A part that was merged away meanwhile has not been read.
            let now_there: HashSet<String> =
                self.warehouse.parts(&tables).await?.into_iter().map(|part| part.table + &part.name).collect();
            let is_read = |part: &&Part| now_there.contains(&format!("{}{}", part.table, part.name));
            if dirty.is_none() || news.values().flatten().all(is_read) {
                return Ok(Found { seen: next, dirty, has_news });
            }
        }
        let parts = self.warehouse.parts(&tables).await?;
        let mut next = seen.clone();
        next.see(&parts);
        Ok(Found { seen: next, dirty: None, has_news: true })
    }

    async fn dirty(&self, news: &News<'_>) -> Result<Option<Dirty>, Error> {
        let (warehouse, mut dirty) = (&self.warehouse, Dirty::default());
        let limit = CHANGED_MAX + 1;
        let texts = async |table: &str, column: &str| match news.get(table) {
            Some(parts) => warehouse.texts(table, column, parts, limit).await,
            None => Ok(Vec::new()),
        };
        dirty.sessions.extend(texts("injections", "session_id").await?);
        dirty.mounts.extend(texts("item_uses", MOUNT).await?);
        dirty.items.extend(texts("item_uses", "item_id").await?);
        dirty.mounts.extend(texts("mounts", MOUNT).await?);
        dirty.items.extend(texts("mounts", "item_id").await?);
        dirty.items.extend(texts("sterilization_items", "item_id").await?);
        for table in ["sterilization_cycles", "sterilization_samples", "sterilization_items"] {
            dirty.sterilizers.extend(texts(table, "device").await?);
        }
        for table in ["cycle_indicators", "cycle_releases"] {
            if let Some(parts) = news.get(table) {
                dirty.sterilizers.extend(warehouse.sterilizers_of_cycles(table, parts, limit).await?);
            }
        }
        if let Some(parts) = news.get("preparations") {
            dirty.sessions.extend(warehouse.sessions_of_mixtures(parts, limit).await?);
        }
        Ok((dirty.count() <= CHANGED_MAX).then_some(dirty))
    }

    /// Units with rows that are not committed yet.
    async fn beyond(&self, horizon: &Horizon) -> Result<Dirty, Error> {
        let texts = async |table: &str, column: &str| {
            self.warehouse.texts_beyond(table, column, horizon, CHANGED_MAX).await.map(BTreeSet::from_iter)
        };
        Ok(Dirty {
            sessions: texts("injections", "session_id").await?,
            mounts: texts("item_uses", MOUNT).await?,
            items: texts("item_uses", "item_id").await?,
            sterilizers: BTreeSet::new(),
        })
    }

    async fn settle(&self, keys: BTreeSet<String>, now: i64) -> Result<u64, Error> {
        let mut changed = 0;
        let keys: Vec<_> = keys.into_iter().filter(|key| key.starts_with("sterility-")).collect();
        for keys in keys.chunks(IDS_MAX) {
            let verdicts = self.warehouse.verdicts_of_alerts(keys).await?;
            let mut by_key: BTreeMap<(&str, &str), Vec<&Verdict>> = BTreeMap::new();
            for verdict in &verdicts {
                by_key.entry((&verdict.tenant, &verdict.alert_key)).or_default().push(verdict);
            }
            let conditions = by_key.values().filter_map(|verdicts| condition(verdicts)).collect();
            changed += settlement::settle(&self.warehouse, keys, conditions, now).await?;
        }
        Ok(changed)
    }
}

/// What changed.
struct Found {
    seen: Seen,
    dirty: Option<Dirty>,
    has_news: bool,
}
