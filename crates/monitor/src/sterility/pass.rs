//! One pass: which units a change concerns, what is known of each, what becomes of verdicts and alerts.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use warehouse::{
    Error, Warehouse,
    changes::{News, Part, Seen},
    sterility::{Cycle, Horizon, IDS_MAX, Registry, Scope},
    verdicts::Verdict,
};

use super::{
    Book, Clock, RULE_VERSION,
    conditions::condition,
    curve,
    item::{self, ItemFacts},
    mount::{self, MountFacts},
    session::{self, SessionFacts},
    sterilizer::{self, Chamber, Standing, Standings},
};
use crate::{balance, settlement};

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
/// Rows of a slice of everything: bounds memory.
const SLICE_ROWS: u64 = 200_000;
/// Cycles whose curves are read at once.
const CURVES: usize = 100;
/// Tries to read a set of parts that merges do not take away meanwhile.
const TRIES: usize = 5;
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
struct Dirty {
    items: BTreeSet<String>,
    mounts: BTreeSet<String>,
    sessions: BTreeSet<String>,
    sterilizers: BTreeSet<String>,
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
    seen: Seen,
    /// Units with rows of batches that were not committed.
    again: Dirty,
}

/// The sterility half of the monitor.
pub struct Sterility {
    warehouse: Warehouse,
    late: i64,
    position: Option<Position>,
    /// Units that are pending, and until when.
    pending: HashMap<String, i64>,
    looked_at_waiting: i64,
}

impl Sterility {
    /// Nothing is read yet. `late` is how long a sterilizer's data are awaited after a use, us.
    pub fn new(warehouse: Warehouse, late: i64) -> Self {
        Self { warehouse, late, position: None, pending: HashMap::new(), looked_at_waiting: 0 }
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
        Ok(stored.and_then(|stored| serde_json::from_str(&stored).ok()).unwrap_or_default())
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
            return Ok(Summary { alerts, ..Summary::default() });
        }
        let registry = self.warehouse.sterility_registry().await?;
        let mut work = Work {
            warehouse: &self.warehouse,
            book: Book::new(&registry),
            registry,
            horizon: &horizon,
            clock: Clock { now, late: self.late },
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
        let next = Position { seen: found.seen, again };
        let json = serde_json::to_string(&next).unwrap_or_default();
        self.warehouse.record_monitor_position(READER, &json, now).await?;
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
            if dirty.is_none() || news.values().flatten().all(|part| is_read(part)) {
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

/// One pass under way.
struct Work<'a> {
    warehouse: &'a Warehouse,
    book: Book,
    registry: Registry,
    horizon: &'a Horizon,
    clock: Clock,
    standings: Standings,
    /// Alerts to settle.
    keys: BTreeSet<String>,
    pending: HashMap<String, i64>,
    evaluated: HashSet<String>,
    /// Items of cycles whose standing changed.
    changed_items: BTreeSet<String>,
    alerts: u64,
    verdicts: u64,
}

type Named<'a> = (&'a str, &'a str);

impl Work<'_> {
    /// Evaluates units; none = all.
    async fn run(&mut self, dirty: Option<Dirty>) -> Result<(), Error> {
        let Some(mut dirty) = dirty else {
            let of = 1 + self.warehouse.sterility_rows().await? / SLICE_ROWS;
            for index in 0..of {
                self.sterilizers(Scope::Slice { index, of }).await?;
            }
            for index in 0..of {
                self.items(Scope::Slice { index, of }).await?;
                self.mounts(Scope::Slice { index, of }).await?;
                self.sessions(Scope::Slice { index, of }).await?;
            }
            return Ok(());
        };
        for ids in chunks(&dirty.sterilizers) {
            self.sterilizers(Scope::Ids(&ids)).await?;
        }
        dirty.items.append(&mut self.changed_items);
        for ids in chunks(&dirty.mounts) {
            let (items, sessions) = self.mounts(Scope::Ids(&ids)).await?;
            dirty.items.extend(items);
            dirty.sessions.extend(sessions);
        }
        for ids in chunks(&dirty.items) {
            self.items(Scope::Ids(&ids)).await?;
        }
        for ids in chunks(&dirty.sessions) {
            self.sessions(Scope::Ids(&ids)).await?;
        }
        Ok(())
    }

    async fn sterilizers(&mut self, scope: Scope<'_>) -> Result<(), Error> {
        let warehouse = self.warehouse;
        let cycles = warehouse.cycles(scope, &self.registry).await?;
        let (indicators, releases) = (warehouse.indicators(scope).await?, warehouse.releases(scope).await?);
        let known = warehouse.verdicts_of_units("sterilizer", scope).await?;
        let physical = self.physical(&cycles, &known).await?;
        let mut chambers: BTreeMap<Named<'_>, Chamber<'_>> = BTreeMap::new();
        let mut sterilizer_of: HashMap<Named<'_>, Named<'_>> = HashMap::new();
        for cycle in &cycles {
            let name = (cycle.tenant.as_str(), cycle.device.as_str());
            sterilizer_of.insert((&cycle.tenant, &cycle.cycle_uid), name);
            let chamber = chambers.entry(name).or_insert_with(|| Chamber {
                tenant: name.0,
                device: name.1,
                cycles: Vec::new(),
                physical: HashMap::new(),
                indicators: Vec::new(),
                releases: Vec::new(),
            });
            chamber.cycles.push(cycle);
            if let Some(physical) = physical.get(&(name.0, cycle.cycle_uid.as_str())) {
                chamber.physical.insert(&cycle.cycle_uid, physical.clone());
            }
        }
        for indicator in &indicators {
            let name = sterilizer_of.get(&(indicator.tenant.as_str(), indicator.cycle_uid.as_str()));
            if let Some(chamber) = name.and_then(|name| chambers.get_mut(name)) {
                chamber.indicators.push(indicator);
            }
        }
        for release in &releases {
            let name = sterilizer_of.get(&(release.tenant.as_str(), release.cycle_uid.as_str()));
            if let Some(chamber) = name.and_then(|name| chambers.get_mut(name)) {
                chamber.releases.push(release);
            }
        }
        let (mut verdicts, mut units) = (Vec::new(), Vec::new());
        for chamber in chambers.values() {
            let evaluated = sterilizer::evaluate(chamber, &self.book, self.clock);
            verdicts.extend(evaluated.verdicts);
            units.push(sterilizer::unit(chamber.device));
            let tenant = chamber.tenant.to_owned();
            self.standings
                .extend(evaluated.standings.into_iter().map(|(uid, standing)| ((tenant.clone(), uid), standing)));
        }
        let changed = self.write(verdicts, known, units).await?;
        let changed: HashSet<_> = changed
            .iter()
            .filter(|verdict| verdict.rule == 0)
            .map(|verdict| (&verdict.tenant, &verdict.cycle_uid))
            .collect();
        let of_changed: Vec<_> =
            cycles.iter().filter(|cycle| changed.contains(&(&cycle.tenant, &cycle.cycle_uid))).collect();
        if matches!(scope, Scope::Ids(_)) {
            for cycles in of_changed.chunks(IDS_MAX) {
                let loads = warehouse.items_of_cycles(cycles).await?;
                self.changed_items.extend(loads.into_iter().map(|load| load.item_id));
            }
        }
        Ok(())
    }

    /// What the curves say: as it was judged before under the same limits, else by their samples.
    async fn physical<'c>(
        &self,
        cycles: &'c [Cycle],
        known: &[Verdict],
    ) -> Result<HashMap<Named<'c>, curve::Physical>, Error> {
        let known: HashMap<Named<'_>, &Verdict> = known
            .iter()
            .filter(|verdict| verdict.rule == 0 && verdict.rule_version == RULE_VERSION)
            .map(|verdict| ((verdict.tenant.as_str(), verdict.cycle_uid.as_str()), verdict))
            .collect();
        let judged = |cycle: &Cycle| {
            let verdict = known.get(&(cycle.tenant.as_str(), cycle.cycle_uid.as_str()))?;
            let standing: Standing = serde_json::from_str(&verdict.evidence).ok()?;
            Some((verdict.parameters.as_str(), standing.physical))
        };
        let (mut physical, mut open) = (HashMap::new(), Vec::new());
        for cycle in cycles {
            let recipe = self.book.recipe(&cycle.tenant, &cycle.recipe);
            match judged(cycle) {
                Some((parameters, said))
                    if said.outcome != curve::Outcome::Pending
                        && said.samples == cycle.samples
                        && parameters == curve::parameters(recipe).to_string() =>
                {
                    physical.insert((cycle.tenant.as_str(), cycle.cycle_uid.as_str()), said);
                }
                _ => open.push(cycle),
            }
        }
        for cycles in open.chunks(CURVES) {
            let curves = self.warehouse.curves(cycles).await?;
            let curves: HashMap<Named<'_>, _> =
                curves.iter().map(|curve| ((curve.tenant.as_str(), curve.cycle_uid.as_str()), curve)).collect();
            for cycle in cycles {
                let curve = curves.get(&(cycle.tenant.as_str(), cycle.cycle_uid.as_str())).copied();
                let said = judged(cycle).map(|(_, said)| said).filter(|said| said.samples > 0);
                let judgement = match said {
                    // Samples may be kept for a shorter time than what they said.
                    Some(said) if curve.is_none() => said,
                    _ => curve::judge(cycle, curve, self.book.recipe(&cycle.tenant, &cycle.recipe)),
                };
                physical.insert((cycle.tenant.as_str(), cycle.cycle_uid.as_str()), judgement);
            }
        }
        Ok(physical)
    }

    async fn items(&mut self, scope: Scope<'_>) -> Result<(), Error> {
        let warehouse = self.warehouse;
        let mounts = warehouse.mounts_of_items(scope).await?;
        let uses = warehouse.uses_of_items(scope, self.horizon).await?;
        let loads = warehouse.loads_of_items(scope).await?;
        let reprocessings = warehouse.reprocessings(scope).await?;
        let known = warehouse.verdicts_of_units("item", scope).await?;
        self.learn(loads.iter().map(|load| (load.tenant.as_str(), load.cycle_uid.as_str()))).await?;
        let mut items: BTreeMap<Named<'_>, ItemFacts<'_>> = BTreeMap::new();
        let mut item_of: HashMap<(&str, &str, &str), &str> = HashMap::new();
        for mount in &mounts {
            item_of.insert((&mount.tenant, &mount.device, &mount.mount_id), &mount.item_id);
            facts(&mut items, &mount.tenant, &mount.item_id).mounts.push(mount);
        }
        for used in &uses {
            let told = item_of.get(&(used.tenant.as_str(), used.device.as_str(), used.mount_id.as_str())).copied();
            if let Some(item_id) = Some(used.item_id.as_str()).filter(|id| !id.is_empty()).or(told) {
                facts(&mut items, &used.tenant, item_id).uses.push(used);
            }
        }
        for load in &loads {
            facts(&mut items, &load.tenant, &load.item_id).loads.push(load);
        }
        for reprocessing in &reprocessings {
            facts(&mut items, &reprocessing.tenant, &reprocessing.item_id).reprocessings.push(reprocessing);
        }
        let (mut verdicts, mut units) = (Vec::new(), Vec::new());
        for item in items.values() {
            verdicts.extend(item::evaluate(item, &self.standings, &self.book, self.clock));
            units.push(item::unit(item.item_id));
        }
        self.write(verdicts, known, units).await?;
        Ok(())
    }

    /// Learns the standings of cycles that this pass did not evaluate.
    async fn learn<'c>(&mut self, cycles: impl Iterator<Item = Named<'c>>) -> Result<(), Error> {
        let unknown =
            cycles.filter(|(tenant, uid)| !self.standings.contains_key(&((*tenant).to_owned(), (*uid).to_owned())));
        let uids: BTreeSet<String> = unknown.map(|(_, uid)| uid.to_owned()).collect();
        for uids in chunks(&uids) {
            for verdict in self.warehouse.verdicts_of_cycles(&uids).await? {
                if let Ok(standing) = serde_json::from_str(&verdict.evidence) {
                    self.standings.insert((verdict.tenant, verdict.cycle_uid), standing);
                }
            }
        }
        Ok(())
    }

    /// Evaluates mounts; returns the items and visits that they concern.
    async fn mounts(&mut self, scope: Scope<'_>) -> Result<(BTreeSet<String>, BTreeSet<String>), Error> {
        let warehouse = self.warehouse;
        let announced = warehouse.mounts_by_id(scope).await?;
        let uses = warehouse.uses_of_mounts(scope, self.horizon).await?;
        let known = warehouse.verdicts_of_units("mount", scope).await?;
        let mut mounts: BTreeMap<(&str, &str, &str), MountFacts<'_>> = BTreeMap::new();
        for mount in &announced {
            let empty = || MountFacts {
                tenant: &mount.tenant,
                device: &mount.device,
                mount_id: &mount.mount_id,
                ..MountFacts::default()
            };
            mounts.entry(name_of(mount)).or_insert_with(empty).announced.push(mount);
        }
        for used in &uses {
            let empty = || MountFacts {
                tenant: &used.tenant,
                device: &used.device,
                mount_id: &used.mount_id,
                ..MountFacts::default()
            };
            let name = (used.tenant.as_str(), used.device.as_str(), used.mount_id.as_str());
            mounts.entry(name).or_insert_with(empty).uses.push(used);
        }
        let (mut verdicts, mut units, mut vessels) = (Vec::new(), Vec::new(), BTreeSet::new());
        for facts in mounts.values() {
            verdicts.extend(mount::evaluate(facts, &self.book));
            units.push(mount::unit(facts.device, facts.mount_id));
            if facts.announced.iter().any(|mount| matches!(mount.slot.as_str(), "SYRINGE" | "CARTRIDGE")) {
                vessels.insert(balance::key(facts.tenant, facts.device, facts.mount_id));
            }
        }
        let items = announced.iter().map(|mount| mount.item_id.clone()).filter(|item_id| !item_id.is_empty()).collect();
        let sessions = uses.iter().map(|used| used.session_id.clone()).filter(|id| !id.is_empty()).collect();
        self.write(verdicts, known, units).await?;
        self.alerts += balance::settle(warehouse, scope, &vessels, self.clock.now).await?;
        Ok((items, sessions))
    }

    async fn sessions(&mut self, scope: Scope<'_>) -> Result<(), Error> {
        let warehouse = self.warehouse;
        let shots = warehouse.shots_of_sessions(scope, self.horizon).await?;
        let known = warehouse.verdicts_of_units("session", scope).await?;
        let needles = shots.iter().filter(|part| !part.needle_mount_id.is_empty());
        let needles = needles.map(|part| format!("{}/{}", part.device, part.needle_mount_id)).collect();
        let mixtures: BTreeSet<String> =
            shots.iter().map(|part| part.preparation_id.clone()).filter(|id| !id.is_empty()).collect();
        let (mut mounts, mut components) = (Vec::new(), Vec::new());
        for ids in chunks(&needles) {
            mounts.extend(warehouse.mounts_by_id(Scope::Ids(&ids)).await?);
        }
        for ids in chunks(&mixtures) {
            components.extend(warehouse.components(Scope::Ids(&ids)).await?);
        }
        let mut mount_of: HashMap<(&str, &str, &str), &warehouse::sterility::Mount> = HashMap::new();
        for mount in &mounts {
            let first = mount_of.entry(name_of(mount)).or_insert(mount);
            *first = (*first).min(mount);
        }
        let mut components_of: HashMap<Named<'_>, Vec<&warehouse::sterility::Component>> = HashMap::new();
        for component in &components {
            components_of.entry((&component.tenant, &component.preparation_id)).or_default().push(component);
        }
        let mut visits: BTreeMap<Named<'_>, SessionFacts<'_>> = BTreeMap::new();
        for part in &shots {
            let visit = visits.entry((&part.tenant, &part.session_id)).or_insert_with(|| SessionFacts {
                tenant: &part.tenant,
                session_id: &part.session_id,
                ..SessionFacts::default()
            });
            visit.shots.push(part);
            let name = (part.tenant.as_str(), part.device.as_str(), part.needle_mount_id.as_str());
            if let Some(mount) = mount_of.get(&name) {
                visit.mounts.insert((name.1, name.2), mount);
            }
        }
        for visit in visits.values_mut() {
            let mixtures: BTreeSet<_> = visit.shots.iter().map(|part| part.preparation_id.as_str()).collect();
            let of_visit = mixtures.into_iter().filter_map(|mixture| components_of.get(&(visit.tenant, mixture)));
            visit.components = of_visit.flatten().copied().collect();
        }
        let (mut verdicts, mut units) = (Vec::new(), Vec::new());
        let missing = self.missing(&visits).await?;
        for visit in visits.values_mut() {
            let devices = visit.shots.iter().map(|part| part.device.as_str());
            let missing = devices
                .filter_map(|device| Some((device, *missing.get(&(visit.tenant.to_owned(), device.to_owned()))?)));
            visit.missing = missing.collect();
            verdicts.extend(session::evaluate(visit, &self.book, self.clock));
            units.push(session::unit(visit.session_id));
        }
        self.write(verdicts, known, units).await?;
        Ok(())
    }

    /// What has not arrived of devices whose needle mounts are not known. Asked for those only: it is the one costly question.
    async fn missing(
        &self,
        visits: &BTreeMap<Named<'_>, SessionFacts<'_>>,
    ) -> Result<HashMap<(String, String), u64>, Error> {
        let unknown = visits.values().flat_map(|visit| {
            let parts = visit
                .shots
                .iter()
                .filter(|part| !visit.mounts.contains_key(&(part.device.as_str(), part.needle_mount_id.as_str())));
            parts.map(|part| (part.tenant.as_str(), part.device.as_str()))
        });
        let devices: Vec<_> = unknown.collect::<BTreeSet<_>>().into_iter().collect();
        let mut missing = HashMap::new();
        for devices in devices.chunks(IDS_MAX) {
            let rows = self.warehouse.missing_events(devices).await?;
            missing.extend(rows.into_iter().map(|(tenant, device, count)| ((tenant, device), count)));
        }
        Ok(missing)
    }

    /// Writes what says something else than before, and clears what holds no more. Returns what was written.
    async fn write(
        &mut self,
        verdicts: Vec<Verdict>,
        known: Vec<Verdict>,
        units: Vec<String>,
    ) -> Result<Vec<Verdict>, Error> {
        self.evaluated.extend(units);
        let name = |verdict: &Verdict| (verdict.tenant.clone(), verdict.unit.clone(), verdict.verdict_key.clone());
        let mut before: HashMap<_, Verdict> = known.into_iter().map(|verdict| (name(&verdict), verdict)).collect();
        self.keys.extend(before.values().map(|verdict| verdict.alert_key.clone()).filter(|key| !key.is_empty()));
        let mut rows = Vec::new();
        for verdict in verdicts {
            if !verdict.alert_key.is_empty() {
                self.keys.insert(verdict.alert_key.clone());
            }
            if verdict.state == "PENDING" {
                let until = self.pending.entry(verdict.unit.clone()).or_insert(verdict.decide_at);
                *until = if *until == 0 { verdict.decide_at } else { (*until).min(verdict.decide_at.max(1)) };
            }
            if before.remove(&name(&verdict)).is_none_or(|before| !before.says_the_same(&verdict)) {
                rows.push(Verdict { computed_at: self.clock.now, ..verdict });
            }
        }
        let gone = before.into_values().filter(|verdict| verdict.state != "CLEARED");
        rows.extend(gone.map(|verdict| Verdict {
            state: "CLEARED".to_owned(),
            decide_at: 0,
            computed_at: self.clock.now,
            ..verdict
        }));
        self.verdicts += rows.len() as u64;
        self.warehouse.add_verdicts(&rows).await?;
        Ok(rows)
    }
}

fn name_of(mount: &warehouse::sterility::Mount) -> (&str, &str, &str) {
    (&mount.tenant, &mount.device, &mount.mount_id)
}

fn facts<'i, 'a>(
    items: &'i mut BTreeMap<Named<'a>, ItemFacts<'a>>,
    tenant: &'a str,
    item_id: &'a str,
) -> &'i mut ItemFacts<'a> {
    items.entry((tenant, item_id)).or_insert_with(|| ItemFacts { tenant, item_id, ..ItemFacts::default() })
}

fn chunks(ids: &BTreeSet<String>) -> Vec<Vec<String>> {
    let ids: Vec<_> = ids.iter().cloned().collect();
    ids.chunks(IDS_MAX).map(<[String]>::to_vec).collect()
}
