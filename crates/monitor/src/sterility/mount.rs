//! One mount with its uses: rules 2 (the same mount), 6 (expired, pack breached), 11 and 12.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use warehouse::{
    states::{Severity, Slot},
    sterility::{Mount, Use},
    verdicts::Verdict,
};

use super::rules::{Clock, Label, RegistryIndex, RuleFinding, State, mount_query};
use crate::time::{end_of, last_day, stamp};

/// Everything that is known of one mount.
#[derive(Clone, Debug, Default)]
pub struct MountFacts<'a> {
    pub tenant: &'a str,
    pub device: &'a str,
    pub mount_id: &'a str,
    /// The events that report it; empty = none has arrived.
    pub announced: Vec<&'a Mount>,
    pub uses: Vec<&'a Use>,
}

/// The unit of a mount.
pub fn unit(device: &str, mount_id: &str) -> String {
    format!("mount/{device}/{mount_id}")
}

/// Judges a mount. A mount that was never used in a session has no verdicts.
pub fn evaluate(facts: &MountFacts<'_>, registry: &RegistryIndex, clock: Clock) -> Vec<Verdict> {
    let in_sessions: Vec<_> = facts.uses.iter().filter(|used| !used.session_id.is_empty()).copied().collect();
    if in_sessions.is_empty() {
        return Vec::new();
    }
    let judge = Judge {
        facts,
        unit: unit(facts.device, facts.mount_id),
        mount: facts.announced.iter().min().copied(),
        first_at: in_sessions.iter().map(|used| used.first_at).min().unwrap_or_default(),
        last_at: in_sessions.iter().map(|used| used.last_at).max().unwrap_or_default(),
        is_dated: in_sessions.iter().all(|used| used.undated == 0),
        in_sessions,
        clock,
    };
    let mut verdicts: Vec<Verdict> = judge.reuse().into_iter().chain(judge.worn(registry)).collect();
    if let Some(mount) = judge.mount {
        verdicts.extend(judge.expired(mount).into_iter().chain(judge.breached(mount)));
        verdicts.extend(judge.recalled(mount, registry).into_iter().chain(judge.lot_expired(mount, registry)));
    }
    verdicts
}

struct Judge<'a> {
    facts: &'a MountFacts<'a>,
    unit: String,
    mount: Option<&'a Mount>,
    in_sessions: Vec<&'a Use>,
    first_at: i64,
    last_at: i64,
    /// Every use has a time of the device.
    is_dated: bool,
    clock: Clock,
}

impl Judge<'_> {
    fn name(&self) -> String {
        match self.mount.filter(|mount| !mount.item_id.is_empty()) {
            Some(mount) => format!("{} {} (mount {})", mount.slot.item(), mount.item_id, self.facts.mount_id),
            None => format!("mount {}", self.facts.mount_id),
        }
    }

    fn verdict(&self, found: Found) -> Verdict {
        let Found { rule, key, subject, state, severity, reason, evidence, parameters } = found;
        let MountFacts { tenant, device, mount_id, .. } = *self.facts;
        let sessions: BTreeSet<_> = self.in_sessions.iter().map(|used| used.session_id.clone()).collect();
        let sites: BTreeSet<&str> = self.in_sessions.iter().map(|used| used.site.as_str()).collect();
        let mut rows = json!({"device": device, "mount": mount_id, "sessions": self.sessions()});
        if let (Some(rows), Value::Object(more)) = (rows.as_object_mut(), evidence) {
            rows.extend(more);
        }
        let finding = RuleFinding {
            tenant,
            unit: &self.unit,
            rule,
            key,
            subject,
            state,
            severity,
            reason,
            evidence: rows,
            query: mount_query(tenant, device, mount_id),
            parameters,
            at: self.first_at,
        };
        Verdict {
            site: if sites.len() == 1 { sites.into_iter().collect() } else { String::new() },
            device: device.to_owned(),
            item_id: self.mount.map(|mount| mount.item_key.clone()).unwrap_or_default(),
            mount_id: mount_id.to_owned(),
            lot: self.mount.filter(|mount| !mount.lot.is_empty()).map(product).unwrap_or_default(),
            sessions: sessions.into_iter().collect(),
            ..finding.verdict()
        }
    }

    fn sessions(&self) -> Vec<Value> {
        let mut sessions: Vec<_> = self.in_sessions.clone();
        sessions.sort_unstable_by_key(|used| (used.first_at, &used.session_id));
        let json = |used: &&Use| {
            json!({"session": used.session_id, "first": stamp(used.first_at), "last": stamp(used.last_at),
                "injections": used.injections, "punctures": used.punctures})
        };
        sessions.iter().map(json).collect()
    }

    /// Rule 2: the same mount in two sessions. A reboot of the device does not begin a new session.
    fn reuse(&self) -> Option<Verdict> {
        let sessions: BTreeSet<_> = self.in_sessions.iter().map(|used| &used.session_id).collect();
        let count = sessions.len();
        (count > 1).then(|| {
            let subject = format!("mount/{}/{}", self.facts.device, self.facts.mount_id);
            let reason = format!("{} was used in {count} sessions without being changed", self.name());
            self.verdict(Found {
                rule: 2,
                key: "mount".to_owned(),
                subject,
                reason,
                ..Found::confirmed(Severity::Critical)
            })
        })
    }

    /// Whether it was used after its last day of use.
    fn used_after(&self, last_day: i64, mount: &Mount) -> Option<State> {
        self.clock.used_after(end_of(last_day), self.last_at, self.is_dated && mount.synced)
    }

    /// Rule 6: it was used after the expiry on its label. The day of use is in UTC.
    fn expired(&self, mount: &Mount) -> Option<Verdict> {
        let last = last_day(&mount.expiry)?;
        self.used_after(last, mount).map(|state| {
            let subject = format!("expired/{}/{}", self.facts.device, self.facts.mount_id);
            let reason = format!("{} was used after its expiry {}", self.name(), mount.expiry);
            let evidence = json!({"expiry": mount.expiry, "clock_synced": self.is_dated && mount.synced});
            self.verdict(Found {
                rule: 6,
                key: "expired".to_owned(),
                subject,
                reason,
                evidence,
                state,
                ..Found::confirmed(Severity::High)
            })
        })
    }

    /// Rule 6: its sterile pack was not intact.
    fn breached(&self, mount: &Mount) -> Option<Verdict> {
        (mount.pack_intact == Some(false)).then(|| {
            let subject = format!("pack/{}/{}", self.facts.device, self.facts.mount_id);
            let reason = format!("{} was used from a breached pack", self.name());
            let evidence = json!({"pack": mount.pack_id});
            self.verdict(Found {
                rule: 6,
                key: "pack".to_owned(),
                subject,
                reason,
                evidence,
                ..Found::confirmed(Severity::Critical)
            })
        })
    }

    /// Rule 11: the needle made more punctures than allowed.
    fn worn(&self, registry: &RegistryIndex) -> Option<Verdict> {
        let is_needle = |used: &&&Use| used.slot == Slot::Needle;
        let punctures: u64 = self.in_sessions.iter().filter(is_needle).map(|used| used.punctures).sum();
        let most = registry.punctures_max(self.facts.tenant, self.mount)?;
        (punctures > most).then(|| {
            let subject = format!("{}/{}", self.facts.device, self.facts.mount_id);
            let reason = format!("{} made {punctures} punctures; {most} are allowed", self.name());
            let (evidence, parameters) = (json!({"punctures": punctures}), json!({"punctures_max": most}));
            let found =
                Found { rule: 11, key: "punctures".to_owned(), subject, reason, ..Found::confirmed(Severity::Low) };
            self.verdict(Found { evidence, parameters, ..found })
        })
    }

    /// Rule 12: its lot is recalled. A recall also concerns uses before it.
    fn recalled(&self, mount: &Mount, registry: &RegistryIndex) -> Vec<Verdict> {
        let recalls = registry.recalls(&Label::of(mount)).into_iter();
        let verdict = |(recall, is_certain): (&warehouse::sterility::Recall, bool)| {
            let doubt = if is_certain { "" } else { ", if it is that product: the product is not known" };
            let evidence = json!({"recall": recall.recall_id, "product": recall.udi_di, "lot": mount.lot});
            self.verdict(Found {
                rule: 12,
                key: format!("recall/{}/{}/{}", recall.recall_id, recall.udi_di, recall.lot),
                subject: format!("recall/{}/{}/{}", recall.recall_id, recall.udi_di, recall.lot),
                state: State::certain(is_certain),
                reason: format!("{} was used; recall {}: {}{doubt}", self.name(), recall.recall_id, recall.reason),
                evidence,
                ..Found::confirmed(Severity::High)
            })
        };
        recalls.map(verdict).collect()
    }

    /// Rule 12: it was used after the registered expiry of its lot.
    fn lot_expired(&self, mount: &Mount, registry: &RegistryIndex) -> Option<Verdict> {
        let last = registry.expiry(&Label::of(mount))?;
        self.used_after(last, mount).map(|state| {
            let product = product(mount);
            let reason = format!("{} was used after its lot {} had expired", self.name(), mount.lot);
            let (key, subject) = (format!("expired/{product}"), format!("expired/{product}"));
            let evidence = json!({"lot_expiry_day": last, "clock_synced": self.is_dated && mount.synced});
            self.verdict(Found { rule: 12, key, subject, reason, evidence, state, ..Found::confirmed(Severity::High) })
        })
    }
}

fn product(mount: &Mount) -> String {
    format!("{}/{}", mount.udi_di, mount.lot)
}

struct Found {
    rule: u8,
    key: String,
    subject: String,
    state: State,
    severity: Severity,
    reason: String,
    evidence: Value,
    parameters: Value,
}

impl Found {
    fn confirmed(severity: Severity) -> Self {
        Self {
            rule: 0,
            key: String::new(),
            subject: String::new(),
            state: State::Confirmed,
            severity,
            reason: String::new(),
            evidence: json!({}),
            parameters: json!({}),
        }
    }
}
