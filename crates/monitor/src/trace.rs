//! Traces a session, an item, a lot or a cycle: backwards to its origin and forwards to the
//! sessions that it reached. The trace names what is not known.

use analysis::gs1;
use async_recursion::async_recursion as boxed;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
};

use serde::Serialize;
use warehouse::{
    Error, Warehouse,
    horizon::Horizon,
    sql::{IDS_MAX, Scope},
    states::{Decision, IdKind, Severity, VerdictState},
    sterility::{Component, Load, Mount, Use},
    verdicts::Verdict,
};

use crate::{reader::chunks, sterility::assessment::Assessment, time::stamp};

/// Where a trace starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A session, 32 hex digits.
    Session(String),
    Item(String),
    /// A lot: `DI/LOT`, or the lot alone.
    Lot(String),
    /// A sterilization cycle.
    Cycle(String),
}

impl Subject {
    /// Its kind, as in `incidents`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Session(_) => "SESSION",
            Self::Item(_) => "ITEM",
            Self::Lot(_) => "LOT",
            Self::Cycle(_) => "CYCLE",
        }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        match self {
            Self::Session(id) | Self::Item(id) | Self::Lot(id) | Self::Cycle(id) => id,
        }
    }

    /// A subject by kind and id.
    pub fn new(kind: &str, id: &str) -> Option<Self> {
        let id = id.to_owned();
        match kind {
            "SESSION" => Some(Self::Session(id)),
            "ITEM" => Some(Self::Item(id)),
            "LOT" => Some(Self::Lot(id)),
            "CYCLE" => Some(Self::Cycle(id)),
            _ => None,
        }
    }
}

/// One element of a trace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Node {
    /// `session`, `item`, `lot`, `cycle`, `mixture`, `cleaning`.
    pub kind: &'static str,
    pub id: String,
    /// Its known facts, as text.
    pub facts: Vec<String>,
    /// Its origins.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backwards: Vec<Node>,
    /// What it reached.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forwards: Vec<Node>,
}

impl Node {
    fn new(kind: &'static str, id: &str, facts: Vec<String>) -> Self {
        Self { kind, id: id.to_owned(), facts, ..Self::default() }
    }
}

/// A breach that concerns the subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Breach {
    pub rule: u8,
    pub state: VerdictState,
    pub severity: Severity,
    pub reason: String,
}

/// The result of a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trace {
    pub tenant: String,
    /// The subject.
    pub root: Node,
    /// Breaches that concern the subject.
    pub breaches: Vec<Breach>,
    /// What is not known.
    pub unknown: Vec<String>,
}

/// Traces a subject within a tenant.
///
/// # Errors
/// As [`Warehouse::fetch`].
#[boxed]
pub async fn trace(warehouse: &Warehouse, tenant: &str, subject: &Subject) -> Result<Trace, Error> {
    let mut tracer = Tracer { warehouse, tenant, unknown: BTreeSet::new() };
    let root = match subject {
        Subject::Session(id) => tracer.session(id).await?,
        Subject::Item(id) => tracer.item(id).await?,
        Subject::Lot(id) => tracer.lot(id).await?,
        Subject::Cycle(id) => tracer.cycle(id).await?,
    };
    let lot = subject.id().rsplit('/').next().unwrap_or_default();
    let about = match subject {
        Subject::Lot(_) => lot.to_owned(),
        Subject::Item(id) => gs1::item(id),
        Subject::Session(id) | Subject::Cycle(id) => id.clone(),
    };
    let verdicts = warehouse.verdicts_about(tenant, &about).await?;
    let mut breaches: Vec<_> =
        verdicts.into_iter().filter(|verdict| verdict.rule > 0 && verdict.state != VerdictState::Cleared).collect();
    breaches.sort_by_key(|verdict| (std::cmp::Reverse(verdict.severity), verdict.rule, verdict.at));
    let breach = |verdict: Verdict| Breach {
        rule: verdict.rule,
        state: verdict.state,
        severity: verdict.severity,
        reason: verdict.reason,
    };
    let breaches = breaches.into_iter().map(breach).collect();
    Ok(Trace { tenant: tenant.to_owned(), root, breaches, unknown: tracer.unknown.into_iter().collect() })
}

struct Tracer<'a> {
    warehouse: &'a Warehouse,
    tenant: &'a str,
    unknown: BTreeSet<String>,
}

impl Tracer<'_> {
    async fn session(&mut self, id: &str) -> Result<Node, Error> {
        let ids = [id.to_owned()];
        let mut root = self.session_nodes(ids.iter().cloned().collect()).await?.pop().unwrap_or_default();
        let uses = self.warehouse.uses_of_sessions(Scope::Ids(&ids)).await?;
        let uses: Vec<_> = self.mine(uses, |used| &used.tenant);
        let mounts = self.mounts(&uses).await?;
        let mut items = BTreeSet::new();
        for used in &uses {
            let mount = mounts.get(&(used.device.clone(), used.mount_id.clone()));
            let (item_id, item_key) = mount
                .map(|mount| (mount.item_id.clone(), mount.item_key.clone()))
                .filter(|(item, _)| !item.is_empty())
                .unwrap_or_else(|| (used.item_id.clone(), used.item_key.clone()));
            if mount.is_none() {
                self.unknown.insert(format!(
                    "the event that reports mount {} on {} has not arrived",
                    used.mount_id, used.device
                ));
            }
            let is_serial = mount.is_some_and(|mount| mount.id_kind == IdKind::Serial);
            if !is_serial {
                let name = if item_id.is_empty() { &used.mount_id } else { &item_id };
                self.unknown.insert(format!("{} {name} has no serial number and cannot be traced", used.slot.item()));
                root.backwards.push(Node::new("item", name, facts_of(used, mount)));
            } else if items.insert(item_key.clone()) {
                let mut node = Node::new("item", &item_id, facts_of(used, mount));
                let history = self.history(&item_id, &item_key).await?;
                node.backwards = history.backwards;
                node.backwards
                    .retain(|past| past.facts.first().is_none_or(|at| at.as_str() <= stamp(used.first_at).as_str()));
                root.forwards.extend(history.forwards.into_iter().filter(|session| session.id != id).map(
                    |mut session| {
                        session.facts.push(format!("also used item {item_id}"));
                        session
                    },
                ));
                root.backwards.push(node);
            }
        }
        let shots = self.warehouse.shots_of_sessions(Scope::Ids(&ids), &Horizon::default()).await?;
        let mixtures: BTreeSet<_> =
            shots.iter().map(|part| part.preparation_id.clone()).filter(|id| !id.is_empty()).collect();
        if !shots.is_empty() && shots.iter().any(|part| part.needle_mount_id.is_empty()) {
            self.unknown.insert("some injections name no needle mount".to_owned());
        }
        for mixture in &mixtures {
            let (node, containers) = self.mixture(mixture).await?;
            root.backwards.push(node);
            root.forwards.extend(self.shared(id, mixture, containers).await?);
        }
        Ok(root)
    }

    /// Sessions that share a mixture or one of its containers.
    async fn shared(&mut self, session: &str, mixture: &str, containers: BTreeSet<String>) -> Result<Vec<Node>, Error> {
        let mut mixtures: BTreeMap<String, String> = [(mixture.to_owned(), format!("mixture {mixture}"))].into();
        for ids in chunks(&containers) {
            for component in self.warehouse.components_of_containers(Scope::Ids(&ids)).await? {
                if component.tenant == self.tenant {
                    let how = format!("container {}", component.container_id);
                    mixtures.entry(component.preparation_id).or_insert(how);
                }
            }
        }
        let ids: Vec<_> = mixtures.keys().cloned().collect();
        let mut found = Vec::new();
        for ids in ids.chunks(IDS_MAX) {
            let shots = self.warehouse.shots_of_mixtures(Scope::Ids(ids)).await?;
            for part in self.mine(shots, |part| &part.tenant) {
                if part.session_id != session && !part.session_id.is_empty() {
                    found.push((part.session_id, mixtures.get(&part.preparation_id).cloned().unwrap_or_default()));
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        let mut nodes = self.session_nodes(found.iter().map(|(session, _)| session.clone()).collect()).await?;
        for node in &mut nodes {
            let how = found.iter().filter(|(session, _)| *session == node.id).map(|(_, how)| how.as_str());
            node.facts.push(format!("also used {}", how.collect::<Vec<_>>().join(", ")));
        }
        Ok(nodes)
    }

    async fn mixture(&mut self, mixture: &str) -> Result<(Node, BTreeSet<String>), Error> {
        let ids = [mixture.to_owned()];
        let components = self.warehouse.components(Scope::Ids(&ids)).await?;
        let components: Vec<Component> = self.mine(components, |component| &component.tenant);
        if components.is_empty() {
            self.unknown.insert(format!("the components of mixture {mixture} have not arrived"));
        }
        let mut node = Node::new("mixture", mixture, Vec::new());
        for component in &components {
            let mut facts = Vec::new();
            add_fact(&mut facts, "container", &component.container_id);
            add_fact(&mut facts, "expiry", &component.expiry);
            node.backwards.push(Node::new("lot", &format!("{}/{}", component.udi_di, component.lot), facts));
        }
        let containers = components.into_iter().map(|component| component.container_id).filter(|id| !id.is_empty());
        Ok((node, containers.collect()))
    }

    async fn item(&mut self, id: &str) -> Result<Node, Error> {
        let node = self.history(id, &gs1::item(id)).await?;
        if node.backwards.is_empty() && node.forwards.is_empty() {
            self.unknown.insert(format!("nothing is known of item {id} except its mount"));
        }
        Ok(node)
    }

    /// An item with its cycles and cleanings (backwards) and its sessions (forwards). `id` is how
    /// it is shown, `key` its identity.
    async fn history(&mut self, id: &str, key: &str) -> Result<Node, Error> {
        let ids = [key.to_owned()];
        let scope = Scope::Ids(&ids);
        let mounts = self.warehouse.mounts_of_items(scope).await?;
        let mounts: Vec<Mount> = self.mine(mounts, |mount| &mount.tenant);
        let uses = self.warehouse.uses_of_items(scope, &Horizon::default()).await?;
        let uses: Vec<Use> = self.mine(uses, |used| &used.tenant);
        let loads = self.warehouse.loads_of_items(scope).await?;
        let loads: Vec<Load> = self.mine(loads, |load| &load.tenant);
        let mut node = Node::new("item", id, mounts.iter().min().map(about_mount).unwrap_or_default());
        let sent = mounts.iter().map(|mount| &mount.item_id).chain(uses.iter().map(|used| &used.item_id));
        let sent: BTreeSet<_> = sent.chain(loads.iter().map(|load| &load.item_id)).collect();
        for other in sent.into_iter().filter(|other| !other.is_empty() && *other != id) {
            node.facts.push(format!("also sent as {other}"));
        }
        if mounts.is_empty() {
            self.unknown.insert(format!("no mount of item {id} has arrived, so its type is not known"));
        }
        if mounts.iter().any(|mount| matches!(mount.id_kind, IdKind::LotOnly | IdKind::None)) {
            self.unknown.insert(format!("{id} is not a serial number: its sessions may belong to several items"));
        }
        let cycles: BTreeSet<_> = loads.into_iter().map(|load| load.cycle_uid).collect();
        node.backwards = self.cycle_nodes(&cycles).await?;
        for cleaning in self.warehouse.reprocessings(scope).await? {
            if cleaning.tenant == self.tenant {
                let facts = vec![stamp(cleaning.at), format!("rinsed: {}", or_unknown(cleaning.rinse_water.as_str()))];
                node.backwards.push(Node::new("cleaning", &cleaning.device, facts));
            }
        }
        node.backwards.sort_by(|left, right| left.facts.cmp(&right.facts));
        node.forwards = self
            .session_nodes(uses.iter().map(|used| used.session_id.clone()).filter(|id| !id.is_empty()).collect())
            .await?;
        for session in &mut node.forwards {
            let devices: BTreeSet<_> =
                uses.iter().filter(|used| used.session_id == session.id).map(|used| used.device.as_str()).collect();
            session.facts.push(format!("on {}", devices.into_iter().collect::<Vec<_>>().join(", ")));
        }
        Ok(node)
    }

    async fn cycle(&mut self, id: &str) -> Result<Node, Error> {
        let one: BTreeSet<_> = [id.to_owned()].into();
        let mut node = self.cycle_nodes(&one).await?.pop().unwrap_or_default();
        let loads = self.warehouse.loads_of_cycle(id).await?;
        let loads: Vec<Load> = self.mine(loads, |load| &load.tenant);
        if loads.is_empty() {
            self.unknown.insert(format!("the items of cycle {id} are not known"));
        }
        let started = node.facts.first().cloned().unwrap_or_default();
        for load in loads {
            let mut item = self.history(&load.item_id, &load.item_key).await?;
            item.backwards.clear();
            item.forwards.retain(|session| session.facts.first().is_none_or(|at| *at >= started));
            node.forwards.push(item);
        }
        Ok(node)
    }

    async fn cycle_nodes(&mut self, uids: &BTreeSet<String>) -> Result<Vec<Node>, Error> {
        let (mut cycles, mut assessments) = (HashMap::new(), HashMap::new());
        for ids in chunks(uids) {
            for cycle in self.warehouse.cycles_by_uid(Scope::Ids(&ids)).await? {
                if cycle.tenant == self.tenant {
                    cycles.insert(cycle.cycle_uid.clone(), cycle);
                }
            }
            for row in self.warehouse.assessments_of_cycles(&ids).await? {
                if row.tenant == self.tenant {
                    assessments.insert(row.cycle_uid.clone(), Assessment::from(&row));
                }
            }
        }
        let mut nodes = Vec::new();
        for uid in uids {
            let mut facts = Vec::new();
            match cycles.get(uid) {
                Some(cycle) => {
                    facts.push(stamp(cycle.at));
                    facts.push(format!("sterilizer {}", cycle.device));
                    add_fact(&mut facts, "recipe", &cycle.recipe);
                    add_fact(&mut facts, "purpose", cycle.purpose.as_str());
                    if cycle.load_dry == Some(false) {
                        facts.push("load wet".to_owned());
                    }
                }
                None => drop(self.unknown.insert(format!("the report of cycle {uid} has not arrived"))),
            }
            match assessments.get(uid) {
                Some(assessment) => {
                    facts.push(format!("{}: {}", assessment.outcome.as_str(), assessment.reason));
                    facts.push(if assessment.release == Decision::None {
                        "not decided".to_owned()
                    } else {
                        assessment.release.to_string()
                    });
                    if assessment.release == Decision::None && assessment.for_load {
                        self.unknown.insert(format!("it is not known whether the load of cycle {uid} was released"));
                    }
                    if assessment.is_recalled() {
                        facts.push(format!(
                            "RECALLED by the positive indicator of {}",
                            assessment.recalled_by.join(", ")
                        ));
                    }
                }
                None => drop(self.unknown.insert(format!("cycle {uid} has not been judged yet"))),
            }
            nodes.push(Node::new("cycle", uid, facts));
        }
        nodes.sort_by(|left, right| left.facts.cmp(&right.facts));
        Ok(nodes)
    }

    async fn lot(&mut self, id: &str) -> Result<Node, Error> {
        let mut root = Node::new("lot", id, Vec::new());
        let mounts = self.warehouse.mounts_of_lot(id).await?;
        let mounts: Vec<Mount> = self.mine(mounts, |mount| &mount.tenant);
        let named = mounts.iter().filter(|mount| !mount.mount_id.is_empty());
        let ids: BTreeSet<_> = named.map(|mount| format!("{}/{}", mount.device, mount.mount_id)).collect();
        let mut sessions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for ids in chunks(&ids) {
            for used in self.warehouse.uses_of_mounts(Scope::Ids(&ids), &Horizon::default()).await? {
                if used.tenant == self.tenant && !used.session_id.is_empty() {
                    let what = format!("{} (mount {})", used.slot.item(), used.mount_id);
                    sessions.entry(used.session_id).or_default().insert(what);
                }
            }
        }
        let components = self.warehouse.components_of_lot(id).await?;
        let components: Vec<Component> = self.mine(components, |component| &component.tenant);
        let mixtures: BTreeSet<_> = components.into_iter().map(|component| component.preparation_id).collect();
        for ids in chunks(&mixtures) {
            for part in self.warehouse.shots_of_mixtures(Scope::Ids(&ids)).await? {
                if part.tenant == self.tenant && !part.session_id.is_empty() {
                    sessions.entry(part.session_id).or_default().insert(format!("mixture {}", part.preparation_id));
                }
            }
        }
        root.facts.push(format!("{} mounts, {} mixtures, {} sessions", ids.len(), mixtures.len(), sessions.len()));
        root.forwards = self.session_nodes(sessions.keys().cloned().collect()).await?;
        for session in &mut root.forwards {
            let how = sessions.get(&session.id).into_iter().flatten().cloned().collect::<Vec<_>>();
            session.facts.push(format!("by {}", how.join(", ")));
        }
        if mounts.len() >= warehouse::trace::ROWS_MAX {
            self.unknown.insert(format!(
                "there are more mounts than the first {}, which were traced",
                warehouse::trace::ROWS_MAX
            ));
        }
        Ok(root)
    }

    async fn session_nodes(&mut self, ids: BTreeSet<String>) -> Result<Vec<Node>, Error> {
        let mut sessions = HashMap::new();
        for ids in chunks(&ids) {
            for session in self.warehouse.visits(&ids).await? {
                if session.tenant == self.tenant {
                    sessions.insert(session.session_id.clone(), session);
                }
            }
        }
        let node = |id: &String| {
            let Some(session) = sessions.get(id) else {
                return Node::new("session", id, Vec::new());
            };
            let mut facts = vec![stamp(session.started_at)];
            add_fact(&mut facts, "client", &session.client_ref);
            Node::new("session", id, facts)
        };
        let mut nodes: Vec<_> = ids.iter().map(node).collect();
        for unheard in nodes.iter().filter(|node| node.facts.is_empty()) {
            self.unknown
                .insert(format!("the start of session {} has not arrived, so its client is not known", unheard.id));
        }
        nodes.sort_by(|left, right| left.facts.cmp(&right.facts));
        Ok(nodes)
    }

    async fn mounts(&self, uses: &[Use]) -> Result<HashMap<(String, String), Mount>, Error> {
        let named = uses.iter().filter(|used| !used.mount_id.is_empty());
        let ids = named.map(|used| format!("{}/{}", used.device, used.mount_id)).collect();
        let mut mounts: HashMap<(String, String), Mount> = HashMap::new();
        for ids in chunks(&ids) {
            for mount in self.warehouse.mounts_by_id(Scope::Ids(&ids)).await? {
                if mount.tenant == self.tenant {
                    mounts.entry((mount.device.clone(), mount.mount_id.clone())).or_insert(mount);
                }
            }
        }
        Ok(mounts)
    }

    fn mine<T>(&self, rows: Vec<T>, tenant: impl Fn(&T) -> &String) -> Vec<T> {
        rows.into_iter().filter(|row| tenant(row) == self.tenant).collect()
    }
}

fn facts_of(used: &Use, mount: Option<&Mount>) -> Vec<String> {
    let mut facts = vec![format!("{} on {}", used.slot.item(), used.device), format!("{} injections", used.injections)];
    facts.extend(mount.map(about_mount).unwrap_or_default());
    facts
}

fn about_mount(mount: &Mount) -> Vec<String> {
    let mut facts = Vec::new();
    add_fact(&mut facts, "type", &mount.designation);
    add_fact(&mut facts, "product", &mount.udi_di);
    add_fact(&mut facts, "lot", &mount.lot);
    add_fact(&mut facts, "expiry", &mount.expiry);
    add_fact(&mut facts, "pack", &mount.pack_id);
    if let Some(reusable) = mount.reusable {
        facts.push(if reusable { "reusable" } else { "single use" }.to_owned());
    }
    facts
}

fn add_fact(facts: &mut Vec<String>, name: &str, value: &str) {
    if !value.is_empty() {
        facts.push(format!("{name} {value}"));
    }
}

fn or_unknown(text: &str) -> &str {
    if text.is_empty() { "not known" } else { text }
}

impl Trace {
    /// The elements as a text tree, without breaches and without what is not known.
    pub fn tree(&self) -> String {
        let mut text = format!("tenant {}\n", self.tenant);
        draw(&mut text, &self.root, "", "");
        text
    }
}

fn draw(text: &mut String, node: &Node, head: &str, tail: &str) {
    let facts = node.facts.iter().map(|fact| format!("  {fact}")).collect::<String>();
    let _ = writeln!(text, "{head}{} {}{facts}", node.kind, node.id);
    let branches: Vec<_> =
        node.backwards.iter().map(|node| ("<- ", node)).chain(node.forwards.iter().map(|node| ("-> ", node))).collect();
    for (place, (arrow, branch)) in branches.iter().enumerate() {
        let (corner, line) = if place + 1 == branches.len() { ("└", " ") } else { ("├", "│") };
        draw(text, branch, &format!("{tail}{corner}{arrow}"), &format!("{tail}{line}  "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_drawn_as_a_tree() {
        let leaf = |kind, id: &str| Node::new(kind, id, vec!["2026-01-05T10:00:00Z".to_owned()]);
        let mut item = leaf("item", "H1");
        item.backwards.push(leaf("cycle", "c1"));
        item.forwards.push(leaf("session", "b"));
        let root = Node { backwards: vec![item], ..leaf("session", "a") };
        let trace = Trace { tenant: "acme".to_owned(), root, breaches: Vec::new(), unknown: vec!["x".to_owned()] };
        let expected = "tenant acme\nsession a  2026-01-05T10:00:00Z\n└<- item H1  2026-01-05T10:00:00Z\n   \
                        ├<- cycle c1  2026-01-05T10:00:00Z\n   └-> session b  2026-01-05T10:00:00Z\n";
        assert_eq!(trace.tree(), expected);
    }
}
