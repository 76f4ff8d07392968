//! One item through its life: rules 2 (by serial), 3, 4, 5, 6 (wet load), 7, 9 and 10.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};
use warehouse::{
    sterility::{Load, Mount, Reprocessing, Use},
    verdicts::Verdict,
};

use super::{
    curve::Outcome,
    rules::{Book, Clock, Finding, HOUR_US, Label, State, item_query, stamp},
    sterilizer::{Standing, Standings},
};

/// Everything known of one item id in one tenant.
#[derive(Clone, Debug, Default)]
pub struct ItemFacts<'a> {
    pub tenant: &'a str,
    pub item_id: &'a str,
    pub mounts: Vec<&'a Mount>,
    pub uses: Vec<&'a Use>,
    /// Cycles it was in.
    pub loads: Vec<&'a Load>,
    /// How it was cleaned.
    pub reprocessings: Vec<&'a Reprocessing>,
}

/// The unit of an item.
pub fn unit(item_id: &str) -> String {
    format!("item/{item_id}")
}

/// Judges an item. The same id on products of different UDI device identifiers is not the same
/// item.
pub fn evaluate(facts: &ItemFacts<'_>, standings: &Standings, book: &Book, clock: Clock) -> Vec<Verdict> {
    let products = facts.mounts.iter().map(|mount| Label::of(mount).product).filter(|product| !product.is_empty());
    let products: BTreeSet<String> = products.collect();
    let mut found: BTreeMap<String, Verdict> = BTreeMap::new();
    let groups = if products.is_empty() { vec![String::new()] } else { Vec::from_iter(products) };
    for product in groups {
        let item = Item::new(facts, &product, standings, book, clock);
        for verdict in item.verdicts() {
            let sureness = |verdict: &Verdict| (verdict.holds(), super::super::alert::rank(&verdict.severity));
            match found.get_mut(&verdict.verdict_key) {
                Some(known) if sureness(known) >= sureness(&verdict) => {}
                _ => drop(found.insert(verdict.verdict_key.clone(), verdict)),
            }
        }
    }
    found.into_values().collect()
}

/// An item in one visit.
#[derive(Debug)]
struct Visit<'a> {
    session_id: &'a str,
    first_at: i64,
    last_at: i64,
    mounts: BTreeSet<(&'a str, &'a str)>,
    site: &'a str,
    /// Every mount is known, and it and every use were told by a synced clock.
    synced: bool,
    /// A mount says that the id is a serial number.
    identified: bool,
    /// It arrived lately, at least in part: of a device that was offline, what happened hours ago
    /// may be all new.
    lately: bool,
}

/// A cycle it was in.
struct Treatment<'a> {
    cycle_uid: &'a str,
    standing: &'a Standing,
}

struct Item<'a> {
    tenant: &'a str,
    item_id: &'a str,
    unit: String,
    mount: Option<&'a Mount>,
    single_use: bool,
    said_single_use: bool,
    visits: Vec<Visit<'a>>,
    treatments: Vec<Treatment<'a>>,
    reprocessings: Vec<&'a Reprocessing>,
    book: &'a Book,
    clock: Clock,
}

/// Whether something that did not say so may be used again.
fn is_reusable_by_nature(slot: &str) -> bool {
    matches!(slot, "HANDPIECE" | "TUBING")
}

impl<'a> Item<'a> {
    fn new(facts: &ItemFacts<'a>, product: &str, standings: &'a Standings, book: &'a Book, clock: Clock) -> Self {
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
        let mut visits: BTreeMap<&str, Visit<'a>> = BTreeMap::new();
        let mut slot = "";
        for used in facts.uses.iter().filter(|used| !used.session_id.is_empty()) {
            let key = (used.device.as_str(), used.mount_id.as_str());
            let mount = mounts.get(&key).copied();
            // A lot, or nothing, is no item.
            if foreign.contains(&key) || mount.is_some_and(|mount| matches!(&*mount.id_kind, "LOT_ONLY" | "NONE")) {
                continue;
            }
            slot = slot.max(&used.slot);
            let visit = visits.entry(&used.session_id).or_insert(Visit {
                session_id: &used.session_id,
                first_at: used.first_at,
                last_at: used.last_at,
                mounts: BTreeSet::new(),
                site: &used.site,
                synced: true,
                identified: false,
                lately: false,
            });
            visit.first_at = visit.first_at.min(used.first_at);
            visit.last_at = visit.last_at.max(used.last_at);
            visit.mounts.insert(key);
            visit.site = visit.site.max(&used.site);
            visit.synced &= used.undated == 0 && mount.is_some_and(|mount| mount.synced);
            visit.identified |= mount.is_some_and(|mount| mount.id_kind == "SERIAL");
            visit.lately |= used.lately;
        }
        let mut reprocessings = facts.reprocessings.clone();
        reprocessings.sort_unstable();
        let mut visits: Vec<_> = visits.into_values().collect();
        visits.sort_by_key(|visit| (visit.first_at, visit.session_id));
        let serial = || mounts.values().filter(|mount| mount.id_kind == "SERIAL");
        let said = |reusable| serial().any(|mount| mount.reusable == Some(reusable));
        let mount = mounts.values().copied().min();
        let slot = mount.map_or(slot, |mount| &mount.slot);
        let said_single_use = said(false);
        Self {
            tenant: facts.tenant,
            item_id: facts.item_id,
            unit: unit(facts.item_id),
            mount,
            single_use: said_single_use || (!said(true) && !is_reusable_by_nature(slot)),
            said_single_use,
            visits,
            treatments: treatments(facts, standings),
            reprocessings,
            book,
            clock,
        }
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let mut verdicts: Vec<Verdict> =
            self.reuse().into_iter().chain(self.worn_out()).chain(self.tap_water()).collect();
        if self.said_single_use {
            verdicts.extend(self.treatments.iter().map(|treatment| self.sterilized_single_use(treatment)));
        }
        if !self.single_use {
            verdicts.extend((0..self.visits.len()).filter_map(|place| self.unsterile(place)));
        }
        verdicts.extend(self.by_cycle());
        verdicts
    }

    fn find(&self, rule: u8, key: String, state: State, severity: &str, reason: String) -> Found<'_> {
        Found { item: self, rule, key, subject: self.item_id.to_owned(), state, severity: severity.to_owned(), reason }
    }

    /// Rule 2: a single-use item, known by serial, under different mounts in different visits.
    fn reuse(&self) -> Option<Verdict> {
        if !self.single_use {
            return None;
        }
        let spread = |visits: &[&Visit<'_>]| {
            let mounts: BTreeSet<_> = visits.iter().flat_map(|visit| &visit.mounts).collect();
            visits.len() > 1 && mounts.len() > 1
        };
        let identified: Vec<_> = self.visits.iter().filter(|visit| visit.identified).collect();
        let all: Vec<_> = self.visits.iter().collect();
        let (visits, state) = match (spread(&identified), spread(&all)) {
            (true, _) => (identified, State::Confirmed),
            (false, true) => (all, State::Indeterminate),
            (false, false) => return None,
        };
        let doubt = if state == State::Confirmed { "" } else { "; that its id is a serial number has not arrived" };
        let reason = format!("single-use item {} was used in {} visits{doubt}", self.item_id, visits.len());
        let found = self.find(2, "item".to_owned(), state, "critical", reason);
        let found = Found { subject: format!("item/{}", self.item_id), ..found };
        Some(found.verdict(
            &visits,
            json!({"visits": visits.iter().map(|visit| visit.json()).collect::<Vec<_>>()}),
            json!({}),
        ))
    }

    /// Rule 3: a single-use item inside a cycle.
    fn sterilized_single_use(&self, treatment: &Treatment<'_>) -> Verdict {
        let (uid, standing) = (treatment.cycle_uid, treatment.standing);
        let reason = format!("single-use item {} was in sterilization cycle {uid}", self.item_id);
        let found = self.find(3, uid.to_owned(), State::Confirmed, "high", reason);
        let later: Vec<_> = self.visits.iter().filter(|visit| visit.last_at >= standing.at).collect();
        let evidence = json!({"cycle": uid, "sterilizer": standing.device, "started": stamp(standing.at)});
        Verdict { at: standing.at, cycle_uid: uid.to_owned(), ..found.verdict(&later, evidence, json!({})) }
    }

    /// Rule 4: a reusable item used without a released, passed cycle since its previous visit.
    fn unsterile(&self, place: usize) -> Option<Verdict> {
        let visit = &self.visits[place];
        let previous = place.checked_sub(1).map(|place| &self.visits[place]);
        let since = previous.map_or(i64::MIN, |previous| previous.last_at);
        let is_ordered = visit.synced && previous.is_none_or(|previous| previous.synced);
        let (mut between, mut unordered) = (Vec::new(), Vec::new());
        for treatment in self.treatments.iter().filter(|treatment| treatment.standing.for_load) {
            let standing = treatment.standing;
            if !is_ordered || !standing.synced {
                unordered.push(treatment);
            } else if standing.at >= since && standing.end <= visit.first_at {
                between.push(treatment);
            }
        }
        if between.iter().any(|treatment| treatment.standing.is_sterile()) {
            return None;
        }
        let hours = self.book.release_hours(self.tenant);
        let until = visit.first_at.saturating_add(i64::try_from(hours).unwrap_or_default().saturating_mul(HOUR_US));
        let from = if visit.lately { self.clock.now } else { visit.first_at };
        let late = from.saturating_add(self.clock.late);
        let awaited = between.iter().any(|treatment| treatment.standing.is_awaited());
        let unsure = between.iter().any(|treatment| treatment.standing.outcome == Outcome::Indeterminate);
        let possible = |treatment: &&Treatment<'_>| treatment.standing.is_sterile() || treatment.standing.is_awaited();
        let (state, why) = if unordered.iter().any(possible) {
            (State::Indeterminate, "a clock was not synchronised, so the order cannot be told".to_owned())
        } else if awaited && self.clock.now < until {
            (State::Pending(until), "the decision on its cycle is awaited".to_owned())
        } else if between.is_empty() && unordered.is_empty() && self.clock.now < late {
            (State::Pending(late), "its sterilizer's data are awaited".to_owned())
        } else if awaited {
            (State::Confirmed, format!("its cycle was not decided on within {hours} h"))
        } else if between.is_empty() && unordered.is_empty() && previous.is_none() {
            (State::Indeterminate, "neither a cycle nor an earlier visit is known".to_owned())
        } else if unsure {
            (State::Indeterminate, "its cycle is indeterminate".to_owned())
        } else if let Some(last) = between.last() {
            (State::Confirmed, self.blame(last))
        } else {
            (State::Confirmed, "there was no cycle since its previous visit".to_owned())
        };
        let reason = format!("reusable item {} was used in a visit without being sterile: {why}", self.item_id);
        let found = self.find(4, visit.session_id.to_owned(), state, "critical", reason);
        let found = Found { subject: format!("{}/{}", self.item_id, visit.session_id), ..found };
        let cycles: Vec<_> = between.iter().chain(&unordered).map(|treatment| treatment.json()).collect();
        let evidence = json!({"visit": visit.json(), "previous": previous.map(Visit::json), "cycles": cycles});
        let verdict = found.verdict(&[visit], evidence, json!({"release_hours": hours}));
        Some(Verdict {
            cycle_uid: between.last().map(|treatment| treatment.cycle_uid.to_owned()).unwrap_or_default(),
            ..verdict
        })
    }

    fn blame(&self, treatment: &Treatment<'_>) -> String {
        let (uid, standing) = (treatment.cycle_uid, treatment.standing);
        match standing {
            Standing { outcome: Outcome::Failed, .. } => format!("cycle {uid} failed"),
            standing if standing.is_recalled() => format!("cycle {uid} is recalled"),
            Standing { wet: true, .. } => format!("the load of cycle {uid} was wet"),
            Standing { release, .. } if release == "REJECTED" => format!("the load of cycle {uid} was rejected"),
            _ => format!("cycle {uid} is not released and passed"),
        }
    }

    /// Rules 5, 6 and 9: what a visit took from the cycle before it.
    fn by_cycle(&self) -> Vec<Verdict> {
        let mut taken: BTreeMap<&str, (&Treatment<'_>, Vec<&Visit<'_>>)> = BTreeMap::new();
        for visit in &self.visits {
            let ended =
                |treatment: &&Treatment<'_>| treatment.standing.for_load && treatment.standing.end <= visit.first_at;
            if let Some(last) = self.treatments.iter().rfind(ended) {
                taken.entry(last.cycle_uid).or_insert_with(|| (last, Vec::new())).1.push(visit);
            }
        }
        let mut verdicts = Vec::new();
        for (treatment, visits) in taken.values() {
            let (uid, standing) = (treatment.cycle_uid, treatment.standing);
            let is_sure = standing.synced && visits.iter().all(|visit| visit.synced);
            let mut say = |rule: u8, key: String, subject: &str, is_sure: bool, what: String| {
                let reason =
                    format!("item {} was used in {} visits after cycle {uid}, {what}", self.item_id, visits.len());
                let found = self.find(rule, key, State::sure(is_sure), "critical", reason);
                let found = Found { subject: subject.to_owned(), ..found };
                let visits_json: Vec<_> = visits.iter().map(|visit| visit.json()).collect();
                let evidence = json!({"cycle": treatment.json(), "visits": visits_json});
                let verdict = found.verdict(visits, evidence, json!({}));
                verdicts.push(Verdict { cycle_uid: uid.to_owned(), ..verdict });
            };
            match standing.outcome {
                Outcome::Failed => say(5, uid.to_owned(), uid, is_sure, format!("which failed: {}", standing.reason)),
                Outcome::Indeterminate => {
                    say(5, uid.to_owned(), uid, false, format!("which is indeterminate: {}", standing.reason));
                }
                Outcome::Passed | Outcome::Pending => {}
            }
            if standing.wet {
                say(6, format!("wet/{uid}"), &format!("wet/{uid}"), is_sure, "whose load came out wet".to_owned());
            }
            for positive in &standing.recalled_by {
                let what = format!("recalled by the positive biological indicator of cycle {positive}");
                say(9, format!("{positive}/{uid}"), positive, is_sure, what);
            }
        }
        verdicts
    }

    /// Rule 7: reprocessed more often than allowed.
    fn worn_out(&self) -> Option<Verdict> {
        let most = self.book.reprocessings_max(self.tenant, self.mount)?;
        let cycles = self.treatments.iter().filter(|treatment| treatment.standing.for_load).count();
        let times = cycles.max(self.reprocessings.len()) as u64;
        if times <= most {
            return None;
        }
        let reason = format!("item {} was reprocessed {times} times, {most} are allowed", self.item_id);
        let since = |times: Vec<i64>| times.get(usize::try_from(most).unwrap_or(usize::MAX)).copied();
        let by_cycles = since(self.treatments.iter().map(|treatment| treatment.standing.at).collect());
        let by_cleaning = since(self.reprocessings.iter().map(|cleaning| cleaning.at).collect());
        let at = by_cycles.or(by_cleaning).unwrap_or_default();
        let later: Vec<_> = self.visits.iter().filter(|visit| visit.last_at >= at).collect();
        let found = self.find(7, "item".to_owned(), State::Confirmed, "high", reason);
        let evidence = json!({"cycles": cycles, "cleanings": self.reprocessings.len()});
        Some(Verdict { at, ..found.verdict(&later, evidence, json!({"reprocessings_max": most})) })
    }

    /// Rule 10: rinsed with tap water.
    fn tap_water(&self) -> Option<Verdict> {
        let rinses: Vec<_> = self.reprocessings.iter().filter(|cleaning| cleaning.rinse_water == "TAP").collect();
        let first = rinses.first()?;
        let after = |visit: &&Visit<'_>| visit.last_at >= first.at;
        let later: Vec<_> = self.visits.iter().filter(after).collect();
        let between = |rinse: i64, visit: &Visit<'_>| {
            let sterile = self.treatments.iter().filter(|treatment| treatment.standing.is_sterile());
            sterile
                .into_iter()
                .any(|treatment| treatment.standing.at >= rinse && treatment.standing.end <= visit.first_at)
        };
        let is_bare = later.iter().any(|visit| {
            let last = rinses.iter().rev().find(|rinse| rinse.at <= visit.first_at);
            last.is_some_and(|rinse| !between(rinse.at, visit))
        });
        let severity = if is_bare { "critical" } else { "high" };
        let used = if is_bare { " and used without a sterile cycle after it" } else { "" };
        let reason = format!("item {} was rinsed with tap water{used}", self.item_id);
        let found = self.find(10, "item".to_owned(), State::Confirmed, severity, reason);
        let times: Vec<_> = rinses.iter().map(|rinse| stamp(rinse.at)).collect();
        let verdict = found.verdict(&later, json!({"rinsed": times, "told_by": first.device}), json!({}));
        Some(Verdict { at: first.at, site: first.site.clone(), ..verdict })
    }
}

fn treatments<'a>(facts: &ItemFacts<'a>, standings: &'a Standings) -> Vec<Treatment<'a>> {
    let uids: BTreeSet<&str> = facts.loads.iter().map(|load| load.cycle_uid.as_str()).collect();
    let mut treatments: Vec<_> = uids
        .into_iter()
        .filter_map(|cycle_uid| {
            let standing = standings.get(&(facts.tenant.to_owned(), cycle_uid.to_owned()))?;
            Some(Treatment { cycle_uid, standing })
        })
        .collect();
    treatments.sort_by_key(|treatment| (treatment.standing.end, treatment.standing.at, treatment.cycle_uid));
    treatments
}

impl Visit<'_> {
    fn json(&self) -> Value {
        let mounts: Vec<_> = self.mounts.iter().map(|(device, mount)| format!("{device}/{mount}")).collect();
        json!({"session": self.session_id, "first": stamp(self.first_at), "last": stamp(self.last_at), "mounts": mounts,
            "clock_synced": self.synced})
    }
}

impl Treatment<'_> {
    fn json(&self) -> Value {
        let Standing { outcome, release, recalled_by, wet, device, .. } = self.standing;
        json!({"cycle": self.cycle_uid, "sterilizer": device, "started": stamp(self.standing.at),
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
    severity: String,
    reason: String,
}

impl Found<'_> {
    fn verdict(self, visits: &[&Visit<'_>], evidence: Value, parameters: Value) -> Verdict {
        let item = self.item;
        let mut sessions: Vec<_> = visits.iter().map(|visit| visit.session_id.to_owned()).collect();
        sessions.sort_unstable();
        let devices: BTreeSet<&str> =
            visits.iter().flat_map(|visit| visit.mounts.iter().map(|mount| mount.0)).collect();
        let sites: BTreeSet<&str> = visits.iter().map(|visit| visit.site).collect();
        let only = |names: &BTreeSet<&str>| match names.len() {
            1 => names.first().map(|name| (*name).to_owned()).unwrap_or_default(),
            _ => String::new(),
        };
        let finding = Finding {
            tenant: item.tenant,
            unit: &item.unit,
            rule: self.rule,
            key: self.key,
            subject: self.subject,
            state: self.state,
            severity: &self.severity,
            reason: self.reason,
            evidence,
            query: item_query(item.tenant, item.item_id),
            parameters,
            at: visits.iter().map(|visit| visit.first_at).min().unwrap_or_default(),
        };
        Verdict {
            site: only(&sites),
            device: only(&devices),
            item_id: item.item_id.to_owned(),
            sessions,
            ..finding.verdict()
        }
    }
}
