//! One item in all of its sessions and cycles: rules 2 (by serial number), 3, 4, 5, 6 (wet load),
//! 7, 9 and 10.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use analysis::gs1;
use serde_json::{Value, json};
use warehouse::{
    states::{Decision, IdKind, Outcome, RinseWater, Severity, Slot},
    sterility::{Load, Mount, Reprocessing, Use},
    verdicts::Verdict,
};

use super::{
    assessment::{Assessment, Assessments},
    rules::{Clock, HOUR_US, Label, RegistryIndex, RuleFinding, State, item_query},
};
use crate::time::stamp;

/// Everything that is known of one item in one tenant.
#[derive(Clone, Debug, Default)]
pub struct ItemFacts<'a> {
    pub tenant: &'a str,
    /// Its identity, see [`gs1::item`].
    pub item_key: &'a str,
    pub mounts: Vec<&'a Mount>,
    pub uses: Vec<&'a Use>,
    /// Cycles it was in.
    pub loads: Vec<&'a Load>,
    /// How it was cleaned.
    pub reprocessings: Vec<&'a Reprocessing>,
}

/// The unit of an item.
pub fn unit(item_key: &str) -> String {
    format!("item/{item_key}")
}

/// Judges an item. Equal serial numbers on products with different UDI device identifiers are
/// different items. An identity that holds the product already is one item.
pub fn evaluate(
    facts: &ItemFacts<'_>,
    assessments: &Assessments,
    registry: &RegistryIndex,
    clock: Clock,
) -> Vec<Verdict> {
    let products = facts.mounts.iter().map(|mount| Label::of(mount).product).filter(|product| !product.is_empty());
    let names_product = gs1::part(facts.item_key, "01").is_some();
    let products: BTreeSet<String> = if names_product { BTreeSet::new() } else { products.collect() };
    let mut found: BTreeMap<String, Verdict> = BTreeMap::new();
    let groups = if products.is_empty() { vec![String::new()] } else { Vec::from_iter(products) };
    for product in groups {
        let item = Item::new(facts, &product, assessments, registry, clock);
        for verdict in item.verdicts() {
            let certainty = |verdict: &Verdict| (verdict.holds(), verdict.severity);
            match found.get_mut(&verdict.verdict_key) {
                Some(known) if certainty(known) >= certainty(&verdict) => {}
                _ => drop(found.insert(verdict.verdict_key.clone(), verdict)),
            }
        }
    }
    found.into_values().collect()
}

/// An item in one session.
#[derive(Debug)]
struct SessionUse<'a> {
    session_id: &'a str,
    first_at: i64,
    last_at: i64,
    mounts: BTreeSet<(&'a str, &'a str)>,
    site: &'a str,
    /// Every mount is known, and the times of mounts and uses come from synced clocks.
    synced: bool,
    /// A mount says that the id is a serial number.
    identified: bool,
    /// Some of it has arrived lately. A device that was offline sends hours later what happened.
    lately: bool,
}

/// A cycle that the item was in.
struct ItemCycle<'a> {
    cycle_uid: &'a str,
    assessment: &'a Assessment,
}

struct Item<'a> {
    tenant: &'a str,
    item_key: &'a str,
    unit: String,
    mount: Option<&'a Mount>,
    single_use: bool,
    /// A mount declares it as single-use.
    declared_single_use: bool,
    sessions: Vec<SessionUse<'a>>,
    cycles: Vec<ItemCycle<'a>>,
    reprocessings: Vec<&'a Reprocessing>,
    registry: &'a RegistryIndex,
    clock: Clock,
}

/// Whether items of a slot are reusable unless a mount declares the opposite.
fn is_usually_reusable(slot: Slot) -> bool {
    matches!(slot, Slot::Handpiece | Slot::Tubing)
}

impl<'a> Item<'a> {
    fn new(
        facts: &ItemFacts<'a>,
        product: &str,
        assessments: &'a Assessments,
        registry: &'a RegistryIndex,
        clock: Clock,
    ) -> Self {
        let mut mounts: HashMap<(&str, &str), &Mount> = HashMap::new();
        for mount in &facts.mounts {
            let first = mounts.entry((&mount.device, &mount.mount_id)).or_insert(mount);
            *first = (*first).min(*mount);
        }
        let foreign = |mount: &Mount| {
            let of_mount = Label::of(mount).product;
            !product.is_empty() && !of_mount.is_empty() && of_mount != product
        };
        mounts.retain(|_, mount| !foreign(mount));
        let foreign: BTreeSet<(&str, &str)> = facts
            .mounts
            .iter()
            .filter(|mount| foreign(mount))
            .map(|mount| (&*mount.device, &*mount.mount_id))
            .collect();
        let uses = facts.uses.iter().copied().filter(|used| {
            // A lot number, or no id, does not identify an item.
            let key = (used.device.as_str(), used.mount_id.as_str());
            let mount = mounts.get(&key);
            let is_item = mount.is_none_or(|mount| !matches!(mount.id_kind, IdKind::LotOnly | IdKind::None));
            !used.session_id.is_empty() && !foreign.contains(&key) && is_item
        });
        let uses: Vec<_> = uses.collect();
        let mut reprocessings = facts.reprocessings.clone();
        reprocessings.sort_unstable();
        let serial = || mounts.values().filter(|mount| mount.id_kind == IdKind::Serial);
        let declared = |reusable| serial().any(|mount| mount.reusable == Some(reusable));
        let mount = mounts.values().copied().min();
        let used_slot = uses.iter().map(|used| used.slot).max().unwrap_or_default();
        let slot = mount.map_or(used_slot, |mount| mount.slot);
        let declared_single_use = declared(false);
        Self {
            tenant: facts.tenant,
            item_key: facts.item_key,
            unit: unit(facts.item_key),
            mount,
            single_use: declared_single_use || (!declared(true) && !is_usually_reusable(slot)),
            declared_single_use,
            sessions: sessions_of(&uses, &mounts),
            cycles: cycles_of(facts, assessments),
            reprocessings,
            registry,
            clock,
        }
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let mut verdicts: Vec<Verdict> =
            self.reuse().into_iter().chain(self.worn_out()).chain(self.tap_water()).collect();
        if self.declared_single_use {
            verdicts.extend(self.cycles.iter().map(|cycle| self.sterilized_single_use(cycle)));
        }
        if !self.single_use {
            verdicts.extend((0..self.sessions.len()).filter_map(|place| self.unsterile(place)));
        }
        verdicts.extend(self.by_cycle());
        verdicts
    }

    fn find(&self, rule: u8, key: String, state: State, severity: Severity, reason: String) -> Found<'_> {
        Found { item: self, rule, key, subject: self.item_key.to_owned(), state, severity, reason }
    }

    /// Rule 2: a single-use item, identified by serial number, under different mounts in different
    /// sessions.
    fn reuse(&self) -> Option<Verdict> {
        if !self.single_use {
            return None;
        }
        let is_reused = |sessions: &[&SessionUse<'_>]| {
            let mounts: BTreeSet<_> = sessions.iter().flat_map(|session| &session.mounts).collect();
            sessions.len() > 1 && mounts.len() > 1
        };
        let identified: Vec<_> = self.sessions.iter().filter(|session| session.identified).collect();
        let all: Vec<_> = self.sessions.iter().collect();
        let (sessions, state) = match (is_reused(&identified), is_reused(&all)) {
            (true, _) => (identified, State::Confirmed),
            (false, true) => (all, State::Indeterminate),
            (false, false) => return None,
        };
        let doubt = if state == State::Confirmed { "" } else { "; it is not known whether its id is a serial number" };
        let reason = format!("single-use item {} was used in {} sessions{doubt}", self.item_key, sessions.len());
        let found = self.find(2, "item".to_owned(), state, Severity::Critical, reason);
        let found = Found { subject: format!("item/{}", self.item_key), ..found };
        Some(found.verdict(
            &sessions,
            json!({"sessions": sessions.iter().map(|session| session.json()).collect::<Vec<_>>()}),
            json!({}),
        ))
    }

    /// Rule 3: a single-use item inside a cycle.
    fn sterilized_single_use(&self, cycle: &ItemCycle<'_>) -> Verdict {
        let (uid, assessment) = (cycle.cycle_uid, cycle.assessment);
        let reason = format!("single-use item {} was in sterilization cycle {uid}", self.item_key);
        let found = self.find(3, uid.to_owned(), State::Confirmed, Severity::High, reason);
        let later: Vec<_> = self.sessions.iter().filter(|session| session.last_at >= assessment.at).collect();
        let evidence = json!({"cycle": uid, "sterilizer": assessment.device, "started": stamp(assessment.at)});
        Verdict { at: assessment.at, cycle_uid: uid.to_owned(), ..found.verdict(&later, evidence, json!({})) }
    }

    /// Rule 4: a reusable item used without a released, passed cycle since its previous session.
    fn unsterile(&self, place: usize) -> Option<Verdict> {
        let session = &self.sessions[place];
        let previous = place.checked_sub(1).map(|place| &self.sessions[place]);
        let since = previous.map_or(i64::MIN, |previous| previous.last_at);
        let is_ordered = session.synced && previous.is_none_or(|previous| previous.synced);
        let (mut between, mut unordered) = (Vec::new(), Vec::new());
        for cycle in self.cycles.iter().filter(|cycle| cycle.assessment.for_load) {
            let assessment = cycle.assessment;
            if !is_ordered || !assessment.synced {
                unordered.push(cycle);
            } else if assessment.at >= since && assessment.end <= session.first_at {
                between.push(cycle);
            }
        }
        if between.iter().any(|cycle| cycle.assessment.is_sterile()) {
            return None;
        }
        let hours = self.registry.release_hours(self.tenant);
        let until = session.first_at.saturating_add(i64::try_from(hours).unwrap_or_default().saturating_mul(HOUR_US));
        let from = if session.lately { self.clock.now } else { session.first_at };
        let late = from.saturating_add(self.clock.late);
        let awaited = between.iter().any(|cycle| cycle.assessment.is_awaited());
        let unsure = between.iter().any(|cycle| cycle.assessment.outcome == Outcome::Indeterminate);
        let possible = |cycle: &&ItemCycle<'_>| cycle.assessment.is_sterile() || cycle.assessment.is_awaited();
        let (state, why) = if unordered.iter().any(possible) {
            (State::Indeterminate, "a clock was not synchronised, so the order is not known".to_owned())
        } else if awaited && self.clock.now < until {
            (State::Pending(until), "the decision on its cycle is awaited".to_owned())
        } else if between.is_empty() && unordered.is_empty() && self.clock.now < late {
            (State::Pending(late), "its sterilizer's data are awaited".to_owned())
        } else if awaited {
            (State::Confirmed, format!("its load was neither released nor rejected within {hours} h"))
        } else if between.is_empty() && unordered.is_empty() && previous.is_none() {
            (State::Indeterminate, "neither a cycle nor an earlier session is known".to_owned())
        } else if unsure {
            (State::Indeterminate, "its cycle is indeterminate".to_owned())
        } else if let Some(last) = between.last() {
            (State::Confirmed, self.why_not_sterile(last))
        } else {
            (State::Confirmed, "there was no cycle since its previous session".to_owned())
        };
        let reason = format!(
            "reusable item {} was used in a session although it was not known to be sterile: {why}",
            self.item_key
        );
        let found = self.find(4, session.session_id.to_owned(), state, Severity::Critical, reason);
        let found = Found { subject: format!("{}/{}", self.item_key, session.session_id), ..found };
        let cycles: Vec<_> = between.iter().chain(&unordered).map(|cycle| cycle.json()).collect();
        let evidence = json!({"session": session.json(), "previous": previous.map(SessionUse::json), "cycles": cycles});
        let verdict = found.verdict(&[session], evidence, json!({"release_hours": hours}));
        Some(Verdict {
            cycle_uid: between.last().map(|cycle| cycle.cycle_uid.to_owned()).unwrap_or_default(),
            ..verdict
        })
    }

    fn why_not_sterile(&self, cycle: &ItemCycle<'_>) -> String {
        let (uid, assessment) = (cycle.cycle_uid, cycle.assessment);
        match assessment {
            Assessment { outcome: Outcome::Failed, .. } => format!("cycle {uid} failed"),
            assessment if assessment.is_recalled() => format!("cycle {uid} is recalled"),
            Assessment { wet: true, .. } => format!("the load of cycle {uid} was wet"),
            Assessment { release: Decision::Rejected, .. } => format!("the load of cycle {uid} was rejected"),
            _ => format!("cycle {uid} has not both passed and been released"),
        }
    }

    /// Rules 5, 6 and 9: sessions whose last cycle before them failed, came out wet or is recalled.
    fn by_cycle(&self) -> Vec<Verdict> {
        let mut used_after: BTreeMap<&str, (&ItemCycle<'_>, Vec<&SessionUse<'_>>)> = BTreeMap::new();
        for session in &self.sessions {
            let ended = |cycle: &&ItemCycle<'_>| cycle.assessment.for_load && cycle.assessment.end <= session.first_at;
            if let Some(last) = self.cycles.iter().rfind(ended) {
                used_after.entry(last.cycle_uid).or_insert_with(|| (last, Vec::new())).1.push(session);
            }
        }
        let mut verdicts = Vec::new();
        for (cycle, sessions) in used_after.values() {
            let (uid, assessment) = (cycle.cycle_uid, cycle.assessment);
            let is_certain = assessment.synced && sessions.iter().all(|session| session.synced);
            let mut add = |rule: u8, key: String, subject: &str, is_certain: bool, what: String| {
                let reason =
                    format!("item {} was used in {} sessions after cycle {uid}, {what}", self.item_key, sessions.len());
                let found = self.find(rule, key, State::certain(is_certain), Severity::Critical, reason);
                let found = Found { subject: subject.to_owned(), ..found };
                let sessions_json: Vec<_> = sessions.iter().map(|session| session.json()).collect();
                let evidence = json!({"cycle": cycle.json(), "sessions": sessions_json});
                let verdict = found.verdict(sessions, evidence, json!({}));
                verdicts.push(Verdict { cycle_uid: uid.to_owned(), ..verdict });
            };
            match assessment.outcome {
                Outcome::Failed => {
                    add(5, uid.to_owned(), uid, is_certain, format!("which failed: {}", assessment.reason))
                }
                Outcome::Indeterminate => {
                    add(5, uid.to_owned(), uid, false, format!("which is indeterminate: {}", assessment.reason));
                }
                Outcome::Passed | Outcome::Pending => {}
            }
            if assessment.wet {
                add(6, format!("wet/{uid}"), &format!("wet/{uid}"), is_certain, "whose load was wet".to_owned());
            }
            for positive in &assessment.recalled_by {
                let what = format!("recalled by the positive biological indicator of cycle {positive}");
                add(9, format!("{positive}/{uid}"), positive, is_certain, what);
            }
        }
        verdicts
    }

    /// Rule 7: reprocessed more often than allowed.
    fn worn_out(&self) -> Option<Verdict> {
        let most = self.registry.reprocessings_max(self.tenant, self.mount)?;
        let cycles = self.cycles.iter().filter(|cycle| cycle.assessment.for_load).count();
        let times = cycles.max(self.reprocessings.len()) as u64;
        if times <= most {
            return None;
        }
        let reason = format!("item {} was reprocessed {times} times, {most} are allowed", self.item_key);
        let since = |times: Vec<i64>| times.get(usize::try_from(most).unwrap_or(usize::MAX)).copied();
        let by_cycles = since(self.cycles.iter().map(|cycle| cycle.assessment.at).collect());
        let by_cleaning = since(self.reprocessings.iter().map(|cleaning| cleaning.at).collect());
        let at = by_cycles.or(by_cleaning).unwrap_or_default();
        let later: Vec<_> = self.sessions.iter().filter(|session| session.last_at >= at).collect();
        let found = self.find(7, "item".to_owned(), State::Confirmed, Severity::High, reason);
        let evidence = json!({"cycles": cycles, "cleanings": self.reprocessings.len()});
        Some(Verdict { at, ..found.verdict(&later, evidence, json!({"reprocessings_max": most})) })
    }

    /// Rule 10: rinsed with tap water.
    fn tap_water(&self) -> Option<Verdict> {
        let rinses: Vec<_> =
            self.reprocessings.iter().filter(|cleaning| cleaning.rinse_water == RinseWater::Tap).collect();
        let first = rinses.first()?;
        let after = |session: &&SessionUse<'_>| session.last_at >= first.at;
        let later: Vec<_> = self.sessions.iter().filter(after).collect();
        let between = |rinse: i64, session: &SessionUse<'_>| {
            let sterile = self.cycles.iter().filter(|cycle| cycle.assessment.is_sterile());
            sterile.into_iter().any(|cycle| cycle.assessment.at >= rinse && cycle.assessment.end <= session.first_at)
        };
        let is_unsterile = later.iter().any(|session| {
            let last = rinses.iter().rev().find(|rinse| rinse.at <= session.first_at);
            last.is_some_and(|rinse| !between(rinse.at, session))
        });
        let severity = if is_unsterile { Severity::Critical } else { Severity::High };
        let used = if is_unsterile { " and used without a sterile cycle after it" } else { "" };
        let reason = format!("item {} was rinsed with tap water{used}", self.item_key);
        let found = self.find(10, "item".to_owned(), State::Confirmed, severity, reason);
        let times: Vec<_> = rinses.iter().map(|rinse| stamp(rinse.at)).collect();
        let verdict = found.verdict(&later, json!({"rinsed": times, "told_by": first.device}), json!({}));
        Some(Verdict { at: first.at, site: first.site.clone(), ..verdict })
    }
}

/// The uses of an item by session, in the order of their time.
fn sessions_of<'a>(uses: &[&'a Use], mounts: &HashMap<(&str, &str), &Mount>) -> Vec<SessionUse<'a>> {
    let mut sessions: BTreeMap<&str, SessionUse<'a>> = BTreeMap::new();
    for used in uses {
        let key = (used.device.as_str(), used.mount_id.as_str());
        let mount = mounts.get(&key).copied();
        let session = sessions.entry(&used.session_id).or_insert(SessionUse {
            session_id: &used.session_id,
            first_at: used.first_at,
            last_at: used.last_at,
            mounts: BTreeSet::new(),
            site: &used.site,
            synced: true,
            identified: false,
            lately: false,
        });
        session.first_at = session.first_at.min(used.first_at);
        session.last_at = session.last_at.max(used.last_at);
        session.mounts.insert(key);
        session.site = session.site.max(&used.site);
        session.synced &= used.undated == 0 && mount.is_some_and(|mount| mount.synced);
        session.identified |= mount.is_some_and(|mount| mount.id_kind == IdKind::Serial);
        session.lately |= used.lately;
    }
    let mut sessions: Vec<_> = sessions.into_values().collect();
    sessions.sort_by_key(|session| (session.first_at, session.session_id));
    sessions
}

fn cycles_of<'a>(facts: &ItemFacts<'a>, assessments: &'a Assessments) -> Vec<ItemCycle<'a>> {
    let uids: BTreeSet<&str> = facts.loads.iter().map(|load| load.cycle_uid.as_str()).collect();
    let mut cycles: Vec<_> = uids
        .into_iter()
        .filter_map(|cycle_uid| {
            let assessment = assessments.get(&(facts.tenant.to_owned(), cycle_uid.to_owned()))?;
            Some(ItemCycle { cycle_uid, assessment })
        })
        .collect();
    cycles.sort_by_key(|cycle| (cycle.assessment.end, cycle.assessment.at, cycle.cycle_uid));
    cycles
}

impl SessionUse<'_> {
    fn json(&self) -> Value {
        let mounts: Vec<_> = self.mounts.iter().map(|(device, mount)| format!("{device}/{mount}")).collect();
        json!({"session": self.session_id, "first": stamp(self.first_at), "last": stamp(self.last_at), "mounts": mounts,
            "clock_synced": self.synced})
    }
}

impl ItemCycle<'_> {
    fn json(&self) -> Value {
        let Assessment { outcome, release, recalled_by, wet, device, .. } = self.assessment;
        json!({"cycle": self.cycle_uid, "sterilizer": device, "started": stamp(self.assessment.at),
            "outcome": outcome.as_str(), "release": release, "wet": wet, "recalled_by": recalled_by})
    }
}

/// A finding about an item.
struct Found<'a> {
    item: &'a Item<'a>,
    rule: u8,
    key: String,
    subject: String,
    state: State,
    severity: Severity,
    reason: String,
}

impl Found<'_> {
    fn verdict(self, sessions: &[&SessionUse<'_>], evidence: Value, parameters: Value) -> Verdict {
        let item = self.item;
        let mut session_ids: Vec<_> = sessions.iter().map(|session| session.session_id.to_owned()).collect();
        session_ids.sort_unstable();
        let devices: BTreeSet<&str> =
            sessions.iter().flat_map(|session| session.mounts.iter().map(|mount| mount.0)).collect();
        let sites: BTreeSet<&str> = sessions.iter().map(|session| session.site).collect();
        let only = |names: &BTreeSet<&str>| match names.len() {
            1 => names.first().map(|name| (*name).to_owned()).unwrap_or_default(),
            _ => String::new(),
        };
        let finding = RuleFinding {
            tenant: item.tenant,
            unit: &item.unit,
            rule: self.rule,
            key: self.key,
            subject: self.subject,
            state: self.state,
            severity: self.severity,
            reason: self.reason,
            evidence,
            query: item_query(item.tenant, item.item_key),
            parameters,
            at: sessions.iter().map(|session| session.first_at).min().unwrap_or_default(),
        };
        Verdict {
            site: only(&sites),
            device: only(&devices),
            item_id: item.item_key.to_owned(),
            sessions: session_ids,
            ..finding.verdict()
        }
    }
}
