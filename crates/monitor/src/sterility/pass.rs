//! One pass: which units a change concerns, what is known of each, what becomes of verdicts and
//! alerts.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use warehouse::{
    Error, Warehouse,
    changes::News,
    sterility::{Horizon, IDS_MAX},
    verdicts::Verdict,
};

use super::{Book, Clock, RULE_VERSION, conditions::condition, rules::HOUR_US, sterilizer::Standings, work::Work};
use crate::{
    limits::Limits,
    reader::{CHANGED_MAX, Reader, Units},
    settlement,
};

/// Name of this half in `monitor_positions`.
const READER: &str = "sterility";
/// Facts that are looked at for changes.
const FACTS: [&str; 10] = [
    "injections",
    "item_uses",
    "mounts",
    "preparations",
    "sterilization_cycles",
    "sterilization_samples",
    "sterilization_items",
    "cycle_indicators",
    "cycle_releases",
    "implausible_times",
];
/// SQL of the name of a mount, `DEVICE/MOUNT`; empty where there is none.
const MOUNT: &str = "if(mount_id = '', '', concat(device, '/', mount_id))";
/// Registries: a change of one concerns everything.
const REGISTRIES: [&str; 5] = ["recipes", "lots", "recalls", "policies", "sites"];
/// Between two looks at what waits for further data, us.
const WAITING_US: i64 = 60_000_000;

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
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

impl Units for Dirty {
    fn count(&self) -> usize {
        self.items.len() + self.mounts.len() + self.sessions.len() + self.sterilizers.len()
    }

    fn add(&mut self, other: Self) {
        self.items.extend(other.items);
        self.mounts.extend(other.mounts);
        self.sessions.extend(other.sessions);
        self.sterilizers.extend(other.sterilizers);
    }

    async fn concerned(warehouse: &Warehouse, news: &News<'_>) -> Result<Self, Error> {
        let (limit, mut dirty) = (CHANGED_MAX + 1, Self::default());
        let texts = async |table: &str, column: &str| warehouse.texts(news, table, column, limit).await;
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
            dirty.sterilizers.extend(warehouse.sterilizers_of_cycles(news, table, limit).await?);
        }
        if news.concerns("implausible_times") {
            let texts =
                async |table: &str, column: &str| warehouse.texts_of_doubted_boots(news, table, column, limit).await;
            dirty.mounts.extend(texts("mounts", MOUNT).await?);
            dirty.items.extend(texts("mounts", "item_id").await?);
            dirty.sessions.extend(texts("injections", "session_id").await?);
            dirty.sterilizers.extend(texts("sterilization_cycles", "device").await?);
        }
        dirty.sessions.extend(warehouse.sessions_of_mixtures(news, limit).await?);
        Ok(dirty)
    }

    async fn beyond(warehouse: &Warehouse, horizon: &Horizon) -> Result<Self, Error> {
        let texts = async |table: &str, column: &str| {
            warehouse.texts_beyond(table, column, horizon, CHANGED_MAX + 1).await.map(BTreeSet::from_iter)
        };
        let mut mounts = texts("item_uses", MOUNT).await?;
        mounts.extend(texts("mounts", MOUNT).await?);
        Ok(Self {
            sessions: texts("injections", "session_id").await?,
            mounts,
            items: texts("item_uses", "item_id").await?,
            sterilizers: BTreeSet::new(),
        })
    }
}

impl Dirty {
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

/// The sterility half of the monitor.
pub struct Sterility {
    warehouse: Warehouse,
    reader: Reader<Dirty>,
    pub(crate) late: i64,
    mass_balance_pct: u32,
    ahead: i64,
    age: i64,
    /// Units that are pending, and until when.
    pending: HashMap<String, i64>,
    /// Whether those that were left pending by an earlier monitor have been looked up.
    knows_pending: bool,
    looked_at_waiting: i64,
}

impl Sterility {
    /// Nothing is read yet. `late` is how long a sterilizer's data are awaited after a use, us.
    pub fn new(warehouse: Warehouse, late: i64, limits: &Limits) -> Self {
        let reader = Reader::new(warehouse.clone(), READER, &FACTS, &REGISTRIES, limits.to_string());
        Self {
            warehouse,
            reader,
            late,
            mass_balance_pct: limits.mass_balance_pct,
            ahead: i64::from(limits.ahead_max_s) * 1_000_000,
            age: i64::from(limits.age_max_days) * 24 * HOUR_US,
            pending: HashMap::new(),
            knows_pending: false,
            looked_at_waiting: 0,
        }
    }

    /// Forgets what has been seen: the next pass evaluates everything.
    pub fn start_over(&mut self) {
        self.reader.start_over();
    }

    /// Evaluates what has changed since the last pass, or became due by time, and the alerts that
    /// people have let go (`released`, by key). Doing it again changes nothing.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`]; the next pass takes up everything that this one did not finish.
    pub async fn pass(&mut self, horizon: &Horizon, released: &[String], now: i64) -> Result<Summary, Error> {
        let warehouse = self.warehouse.clone();
        if !self.knows_pending {
            self.pending = warehouse.pending_units().await?.into_iter().collect();
            self.knows_pending = true;
        }
        let is_current = warehouse.verdicts_are_current(RULE_VERSION);
        let mut changes = self.reader.changes(is_current).await?;
        if let Some(dirty) = &mut changes.units {
            self.add_due(dirty, now);
        }
        let mut summary = Summary { whole: changes.units.is_none(), ..Summary::default() };
        let mut keys: BTreeSet<String> = released.iter().cloned().collect();
        if changes.units.as_ref().is_none_or(|dirty| dirty.count() > 0) {
            let registry = warehouse.sterility_registry().await?;
            let mut work = Work {
                warehouse: &warehouse,
                book: Book::new(&registry),
                registry,
                horizon,
                clock: Clock { now, late: self.late, ahead: self.ahead, age: self.age },
                mass_balance_pct: self.mass_balance_pct,
                standings: Standings::new(),
                keys: BTreeSet::new(),
                pending: HashMap::new(),
                evaluated: HashSet::new(),
                changed_items: BTreeSet::new(),
                alerts: 0,
                verdicts: 0,
            };
            work.run(changes.units.clone()).await?;
            let Work { keys: concerned, pending, evaluated, alerts, verdicts, .. } = work;
            keys.extend(concerned);
            summary = Summary { units: evaluated.len() as u64, verdicts, alerts, ..summary };
            self.pending.retain(|unit, _| !summary.whole && !evaluated.contains(unit));
            self.pending.extend(pending);
        }
        summary.alerts += self.settle(keys, now).await?;
        self.reader.finish(changes, horizon, now).await?;
        Ok(summary)
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
