//! Evaluates the units of one pass: reads their facts, has them judged, and writes the verdicts
//! that differ from before.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use warehouse::{
    Error, Warehouse,
    assessments::AssessmentRow,
    horizon::Horizon,
    sql::{IDS_MAX, Scope},
    states::{Slot, VerdictState},
    sterility::{Component, Cycle, Mount, Registry},
    verdicts::Verdict,
};

use super::{
    assessment::Assessments,
    curve::{self, Physical},
    item::{self, ItemFacts},
    mount::{self, MountFacts},
    rules::{Clock, RegistryIndex},
    session::{self, SessionFacts},
    sterilizer::{self, SterilizerFacts},
    units::ChangedUnits,
};
use crate::{
    diff::{Diff, diff},
    mass_balance,
    reader::{SLICE_ROWS, chunks},
};

/// Cycles whose curves are read in one query.
const CURVES: usize = 100;

/// The evaluation of one pass, with what it has found so far.
pub(super) struct Evaluation<'a> {
    pub warehouse: &'a Warehouse,
    pub registry: RegistryIndex,
    pub registered: Registry,
    pub horizon: &'a Horizon,
    pub clock: Clock,
    pub mass_balance_pct: u32,
    /// Judges every curve again whose samples are stored.
    pub from_scratch: bool,
    pub assessments: Assessments,
    /// Keys of the alerts to update.
    pub keys: BTreeSet<String>,
    pub pending: HashMap<String, i64>,
    pub evaluated: HashSet<String>,
    /// Rows of the assessments that changed. They are stored when the pass has evaluated every unit
    /// and updated every alert: if it fails before, the next pass finds the same cycles changed.
    pub assessment_rows: Vec<AssessmentRow>,
    /// Items of the cycles whose assessment changed.
    pub changed_items: BTreeSet<String>,
    pub alerts: u64,
    pub verdicts: u64,
}

type Named<'a> = (&'a str, &'a str);

impl Evaluation<'_> {
    /// Evaluates units; none = every unit.
    pub async fn run(&mut self, changed: Option<ChangedUnits>) -> Result<(), Error> {
        let Some(mut changed) = changed else {
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
        for ids in chunks(&changed.sterilizers) {
            self.sterilizers(Scope::Ids(&ids)).await?;
        }
        changed.items.append(&mut self.changed_items);
        for ids in chunks(&changed.mounts) {
            let (items, sessions) = self.mounts(Scope::Ids(&ids)).await?;
            changed.items.extend(items);
            changed.sessions.extend(sessions);
        }
        for ids in chunks(&changed.items) {
            self.items(Scope::Ids(&ids)).await?;
        }
        for ids in chunks(&changed.sessions) {
            self.sessions(Scope::Ids(&ids)).await?;
        }
        Ok(())
    }

    async fn sterilizers(&mut self, scope: Scope<'_>) -> Result<(), Error> {
        let warehouse = self.warehouse;
        let cycles = warehouse.cycles(scope, &self.registered).await?;
        let (indicators, releases) = (warehouse.indicators(scope).await?, warehouse.releases(scope).await?);
        let known = warehouse.verdicts_of_units("sterilizer", scope).await?;
        let stored = warehouse.assessments(scope).await?;
        let physical = self.physical(&cycles, &stored).await?;
        let mut sterilizers: BTreeMap<Named<'_>, SterilizerFacts<'_>> = BTreeMap::new();
        let mut sterilizer_of: HashMap<Named<'_>, Named<'_>> = HashMap::new();
        for cycle in &cycles {
            let name = (cycle.tenant.as_str(), cycle.device.as_str());
            sterilizer_of.insert((&cycle.tenant, &cycle.cycle_uid), name);
            let facts = sterilizers.entry(name).or_insert_with(|| SterilizerFacts {
                tenant: name.0,
                device: name.1,
                cycles: Vec::new(),
                physical: HashMap::new(),
                indicators: Vec::new(),
                releases: Vec::new(),
            });
            facts.cycles.push(cycle);
            if let Some(physical) = physical.get(&(name.0, cycle.cycle_uid.as_str())) {
                facts.physical.insert(&cycle.cycle_uid, physical.clone());
            }
        }
        for indicator in &indicators {
            let name = sterilizer_of.get(&(indicator.tenant.as_str(), indicator.cycle_uid.as_str()));
            if let Some(facts) = name.and_then(|name| sterilizers.get_mut(name)) {
                facts.indicators.push(indicator);
            }
        }
        for release in &releases {
            let name = sterilizer_of.get(&(release.tenant.as_str(), release.cycle_uid.as_str()));
            if let Some(facts) = name.and_then(|name| sterilizers.get_mut(name)) {
                facts.releases.push(release);
            }
        }
        let (mut verdicts, mut units, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for facts in sterilizers.values() {
            let evaluated = sterilizer::evaluate(facts, &self.registry, self.clock);
            rows.extend(evaluated.assessments.iter().map(|(uid, assessment)| assessment.row(facts.tenant, uid)));
            verdicts.extend(evaluated.verdicts);
            units.push(sterilizer::unit(facts.device));
            let tenant = facts.tenant.to_owned();
            self.assessments
                .extend(evaluated.assessments.into_iter().map(|(uid, assessment)| ((tenant.clone(), uid), assessment)));
        }
        self.write(verdicts, known, units).await?;
        let key = |row: &AssessmentRow| (row.tenant.clone(), row.cycle_uid.clone());
        let Diff { changed, gone } = diff(stored, rows, key, AssessmentRow::is_same);
        if matches!(scope, Scope::Ids(_)) {
            let names: HashSet<_> = changed.iter().map(|row| (&row.tenant, &row.cycle_uid)).collect();
            let of_changed: Vec<_> =
                cycles.iter().filter(|cycle| names.contains(&(&cycle.tenant, &cycle.cycle_uid))).collect();
            for cycles in of_changed.chunks(IDS_MAX) {
                let loads = warehouse.items_of_cycles(cycles).await?;
                self.changed_items.extend(loads.into_iter().map(|load| load.item_key));
            }
        }
        let gone =
            gone.into_iter().filter(|row| row.is_present && self.evaluated.contains(&sterilizer::unit(&row.device)));
        let gone = gone.map(|row| AssessmentRow { is_present: false, ..row });
        let dated = |row| AssessmentRow { computed_at: self.clock.now, ..row };
        self.assessment_rows.extend(changed.into_iter().chain(gone).map(dated));
        Ok(())
    }

    /// The judgements of curves. `stored` are the assessments of the same sterilizers. Samples are
    /// read only where a stored judgement may be out of date.
    async fn physical<'c>(
        &self,
        cycles: &'c [Cycle],
        stored: &[AssessmentRow],
    ) -> Result<HashMap<Named<'c>, Physical>, Error> {
        let stored: HashMap<Named<'_>, Physical> =
            stored.iter().map(|row| ((row.tenant.as_str(), row.cycle_uid.as_str()), row.into())).collect();
        let (mut physical, mut open) = (HashMap::new(), Vec::new());
        for cycle in cycles {
            let name = (cycle.tenant.as_str(), cycle.cycle_uid.as_str());
            let limits = curve::parameters(self.registry.recipe(&cycle.tenant, &cycle.recipe)).to_string();
            match stored.get(&name) {
                Some(earlier) if !self.from_scratch && earlier.is_settled(cycle, &limits) => {
                    physical.insert(name, earlier.clone());
                }
                _ => open.push(cycle),
            }
        }
        for cycles in open.chunks(CURVES) {
            let curves = self.warehouse.curves(cycles).await?;
            let curves: HashMap<Named<'_>, _> =
                curves.iter().map(|curve| ((curve.tenant.as_str(), curve.cycle_uid.as_str()), curve)).collect();
            for cycle in cycles {
                let name = (cycle.tenant.as_str(), cycle.cycle_uid.as_str());
                let recipe = self.registry.recipe(&cycle.tenant, &cycle.recipe);
                let judgement = curve::judge_or_keep(cycle, curves.get(&name).copied(), recipe, stored.get(&name));
                physical.insert(name, judgement);
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
        let mut known = warehouse.verdicts_of_units("item", scope).await?;
        self.read_assessments(loads.iter().map(|load| (load.tenant.as_str(), load.cycle_uid.as_str()))).await?;
        let mut items: BTreeMap<Named<'_>, ItemFacts<'_>> = BTreeMap::new();
        let mut item_of: HashMap<(&str, &str, &str), &str> = HashMap::new();
        for mount in &mounts {
            item_of.insert((&mount.tenant, &mount.device, &mount.mount_id), &mount.item_key);
            facts(&mut items, &mount.tenant, &mount.item_key).mounts.push(mount);
        }
        for used in &uses {
            let mounted = item_of.get(&(used.tenant.as_str(), used.device.as_str(), used.mount_id.as_str())).copied();
            if let Some(item_key) = Some(used.item_key.as_str()).filter(|key| !key.is_empty()).or(mounted) {
                facts(&mut items, &used.tenant, item_key).uses.push(used);
            }
        }
        for load in &loads {
            facts(&mut items, &load.tenant, &load.item_key).loads.push(load);
        }
        for reprocessing in &reprocessings {
            facts(&mut items, &reprocessing.tenant, &reprocessing.item_key).reprocessings.push(reprocessing);
        }
        let (mut verdicts, mut units) = (Vec::new(), Vec::new());
        for item in items.values() {
            verdicts.extend(item::evaluate(item, &self.assessments, &self.registry, self.clock));
            units.push(item::unit(item.item_key));
        }
        if matches!(scope, Scope::Slice { .. }) {
            // Rules before version 4 named a unit by the id as it was sent. Verdicts under another
            // spelling are cleared: the verdicts of the identity replace them.
            let spellings = mounts.iter().map(|mount| (&mount.item_id, &mount.item_key));
            let spellings = spellings.chain(uses.iter().map(|used| (&used.item_id, &used.item_key)));
            let spellings = spellings.chain(loads.iter().map(|load| (&load.item_id, &load.item_key)));
            let spellings: BTreeSet<_> = spellings.filter(|(id, key)| id != key).map(|(id, _)| id.clone()).collect();
            for ids in chunks(&spellings) {
                let units: HashSet<_> = known.iter().map(|verdict| verdict.unit.clone()).collect();
                let earlier = warehouse.verdicts_of_units("item", Scope::Ids(&ids)).await?;
                known.extend(earlier.into_iter().filter(|verdict| !units.contains(&verdict.unit)));
            }
            units.extend(spellings.iter().map(|id| item::unit(id)));
        }
        self.write(verdicts, known, units).await?;
        Ok(())
    }

    /// Reads the assessments of cycles that this pass did not evaluate.
    async fn read_assessments<'c>(&mut self, cycles: impl Iterator<Item = Named<'c>>) -> Result<(), Error> {
        let unknown =
            cycles.filter(|(tenant, uid)| !self.assessments.contains_key(&((*tenant).to_owned(), (*uid).to_owned())));
        let uids: BTreeSet<String> = unknown.map(|(_, uid)| uid.to_owned()).collect();
        for uids in chunks(&uids) {
            for row in self.warehouse.assessments_of_cycles(&uids).await? {
                self.assessments.insert((row.tenant.clone(), row.cycle_uid.clone()), (&row).into());
            }
        }
        Ok(())
    }

    /// Evaluates mounts. Returns the items and sessions that they concern.
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
            verdicts.extend(mount::evaluate(facts, &self.registry, self.clock));
            units.push(mount::unit(facts.device, facts.mount_id));
            if facts.announced.iter().any(|mount| matches!(mount.slot, Slot::Syringe | Slot::Cartridge)) {
                vessels.insert(mass_balance::key(facts.tenant, facts.device, facts.mount_id));
            }
        }
        let items = announced.iter().map(|mount| mount.item_key.clone()).filter(|key| !key.is_empty()).collect();
        let sessions = uses.iter().map(|used| used.session_id.clone()).filter(|id| !id.is_empty()).collect();
        self.write(verdicts, known, units).await?;
        self.alerts +=
            mass_balance::update_alerts(warehouse, scope, vessels, self.mass_balance_pct, self.horizon, self.clock.now)
                .await?;
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
        let mut mount_of: HashMap<(&str, &str, &str), &Mount> = HashMap::new();
        for mount in &mounts {
            let first = mount_of.entry(name_of(mount)).or_insert(mount);
            *first = (*first).min(mount);
        }
        let mut components_of: HashMap<Named<'_>, Vec<&Component>> = HashMap::new();
        for component in &components {
            components_of.entry((&component.tenant, &component.preparation_id)).or_default().push(component);
        }
        let mut sessions: BTreeMap<Named<'_>, SessionFacts<'_>> = BTreeMap::new();
        for part in &shots {
            let session = sessions.entry((&part.tenant, &part.session_id)).or_insert_with(|| SessionFacts {
                tenant: &part.tenant,
                session_id: &part.session_id,
                ..SessionFacts::default()
            });
            session.shots.push(part);
            let name = (part.tenant.as_str(), part.device.as_str(), part.needle_mount_id.as_str());
            if let Some(mount) = mount_of.get(&name) {
                session.mounts.insert((name.1, name.2), mount);
            }
        }
        for session in sessions.values_mut() {
            let mixtures: BTreeSet<_> = session.shots.iter().map(|part| part.preparation_id.as_str()).collect();
            let of_session = mixtures.into_iter().filter_map(|mixture| components_of.get(&(session.tenant, mixture)));
            session.components = of_session.flatten().copied().collect();
        }
        let (mut verdicts, mut units) = (Vec::new(), Vec::new());
        let missing = self.missing(&sessions).await?;
        for session in sessions.values_mut() {
            let devices = session.shots.iter().map(|part| part.device.as_str());
            let missing = devices
                .filter_map(|device| Some((device, *missing.get(&(session.tenant.to_owned(), device.to_owned()))?)));
            session.missing = missing.collect();
            verdicts.extend(session::evaluate(session, &self.registry, self.clock));
            units.push(session::unit(session.session_id));
        }
        self.write(verdicts, known, units).await?;
        Ok(())
    }

    /// Number of missing events of each device whose needle mounts are not known. It is read for
    /// these devices only, because the query is costly.
    async fn missing(
        &self,
        sessions: &BTreeMap<Named<'_>, SessionFacts<'_>>,
    ) -> Result<HashMap<(String, String), u64>, Error> {
        let unknown = sessions.values().flat_map(|session| {
            let parts = session
                .shots
                .iter()
                .filter(|part| !session.mounts.contains_key(&(part.device.as_str(), part.needle_mount_id.as_str())));
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

    /// Writes the verdicts that differ from before and clears those that hold no longer.
    async fn write(&mut self, verdicts: Vec<Verdict>, known: Vec<Verdict>, units: Vec<String>) -> Result<(), Error> {
        let units: HashSet<String> = units.into_iter().collect();
        let keys = known.iter().chain(&verdicts).map(|verdict| &verdict.alert_key).filter(|key| !key.is_empty());
        self.keys.extend(keys.cloned());
        for verdict in verdicts.iter().filter(|verdict| verdict.state == VerdictState::Pending) {
            let until = self.pending.entry(verdict.unit.clone()).or_insert(verdict.decide_at);
            *until = if *until == 0 { verdict.decide_at } else { (*until).min(verdict.decide_at.max(1)) };
        }
        let key = |verdict: &Verdict| (verdict.tenant.clone(), verdict.unit.clone(), verdict.verdict_key.clone());
        let Diff { changed, gone } = diff(known, verdicts, key, Verdict::says_the_same);
        // A unit without facts keeps its verdicts: facts may be retained for a shorter time than
        // verdicts.
        let gone =
            gone.into_iter().filter(|verdict| verdict.state != VerdictState::Cleared && units.contains(&verdict.unit));
        let cleared = gone.map(|verdict| Verdict { state: VerdictState::Cleared, decide_at: 0, ..verdict });
        let dated = |verdict| Verdict { computed_at: self.clock.now, ..verdict };
        let rows: Vec<_> = changed.into_iter().chain(cleared).map(dated).collect();
        self.evaluated.extend(units);
        self.verdicts += rows.len() as u64;
        self.warehouse.add_verdicts(&rows).await
    }
}

fn name_of(mount: &Mount) -> (&str, &str, &str) {
    (&mount.tenant, &mount.device, &mount.mount_id)
}

fn facts<'i, 'a>(
    items: &'i mut BTreeMap<Named<'a>, ItemFacts<'a>>,
    tenant: &'a str,
    item_key: &'a str,
) -> &'i mut ItemFacts<'a> {
    items.entry((tenant, item_key)).or_insert_with(|| ItemFacts { tenant, item_key, ..ItemFacts::default() })
}
