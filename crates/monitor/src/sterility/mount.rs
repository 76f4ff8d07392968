//! One mount with its use: rules 2 (the same mount), 6 (expired, pack breached), 11 and 12.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use warehouse::{
    sterility::{Mount, Use},
    verdicts::Verdict,
};

use super::{
    calendar::{end_of, last_day},
    rules::{Book, Clock, Finding, Label, State, mount_query, stamp},
};

/// Everything known of one mount.
#[derive(Clone, Debug, Default)]
pub struct MountFacts<'a> {
    pub tenant: &'a str,
    pub device: &'a str,
    pub mount_id: &'a str,
    /// How it was announced; empty = not received.
    pub announced: Vec<&'a Mount>,
    pub uses: Vec<&'a Use>,
}

/// The unit of a mount.
pub fn unit(device: &str, mount_id: &str) -> String {
    format!("mount/{device}/{mount_id}")
}

/// Judges a mount. What was never used harms nobody.
pub fn evaluate(facts: &MountFacts<'_>, book: &Book, clock: Clock) -> Vec<Verdict> {
    let in_visits: Vec<_> = facts.uses.iter().filter(|used| !used.session_id.is_empty()).copied().collect();
    if in_visits.is_empty() {
        return Vec::new();
    }
    let judge = Judge {
        facts,
        unit: unit(facts.device, facts.mount_id),
        mount: facts.announced.iter().min().copied(),
        first_at: in_visits.iter().map(|used| used.first_at).min().unwrap_or_default(),
        last_at: in_visits.iter().map(|used| used.last_at).max().unwrap_or_default(),
        is_dated: in_visits.iter().all(|used| used.undated == 0),
        in_visits,
        clock,
    };
    let mut verdicts: Vec<Verdict> = judge.reuse().into_iter().chain(judge.worn(book)).collect();
    if let Some(mount) = judge.mount {
        verdicts.extend(judge.expired(mount).into_iter().chain(judge.breached(mount)));
        verdicts.extend(judge.recalled(mount, book).into_iter().chain(judge.lot_expired(mount, book)));
    }
    verdicts
}

struct Judge<'a> {
    facts: &'a MountFacts<'a>,
    unit: String,
    mount: Option<&'a Mount>,
    in_visits: Vec<&'a Use>,
    first_at: i64,
    last_at: i64,
    /// Every use has a time of the device.
    is_dated: bool,
    clock: Clock,
}

impl Judge<'_> {
    fn name(&self) -> String {
        match self.mount.filter(|mount| !mount.item_id.is_empty()) {
            Some(mount) => format!("{} {} (mount {})", word(&mount.slot), mount.item_id, self.facts.mount_id),
            None => format!("mount {}", self.facts.mount_id),
        }
    }

    fn say(&self, found: Found) -> Verdict {
        let Found { rule, key, subject, state, severity, reason, evidence, parameters } = found;
        let MountFacts { tenant, device, mount_id, .. } = *self.facts;
        let sessions: BTreeSet<_> = self.in_visits.iter().map(|used| used.session_id.clone()).collect();
        let sites: BTreeSet<&str> = self.in_visits.iter().map(|used| used.site.as_str()).collect();
        let mut rows = json!({"device": device, "mount": mount_id, "visits": self.visits()});
        if let (Some(rows), Value::Object(more)) = (rows.as_object_mut(), evidence) {
            rows.extend(more);
        }
        let finding = Finding {
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
            item_id: self.mount.map(|mount| mount.item_id.clone()).unwrap_or_default(),
            mount_id: mount_id.to_owned(),
            lot: self.mount.filter(|mount| !mount.lot.is_empty()).map(product).unwrap_or_default(),
            sessions: sessions.into_iter().collect(),
            ..finding.verdict()
        }
    }

    fn visits(&self) -> Vec<Value> {
        let mut visits: Vec<_> = self.in_visits.clone();
        visits.sort_unstable_by_key(|used| (used.first_at, &used.session_id));
        let json = |used: &&Use| {
            json!({"session": used.session_id, "first": stamp(used.first_at), "last": stamp(used.last_at),
                "injections": used.injections, "punctures": used.punctures})
        };
        visits.iter().map(json).collect()
    }

    /// Rule 2: the same mount in two visits. A reboot is no new visit: it keeps its session.
    fn reuse(&self) -> Option<Verdict> {
        let sessions: BTreeSet<_> = self.in_visits.iter().map(|used| &used.session_id).collect();
        let count = sessions.len();
        (count > 1).then(|| {
            let subject = format!("mount/{}/{}", self.facts.device, self.facts.mount_id);
            let reason = format!("{} was used in {count} visits without being changed", self.name());
            self.say(Found { rule: 2, key: "mount".to_owned(), subject, reason, ..Found::confirmed("critical") })
        })
    }

    /// Whether it was used after its last day.
    fn used_after(&self, last_day: i64, mount: &Mount) -> Option<State> {
        self.clock.used_after(end_of(last_day), self.last_at, self.is_dated && mount.synced)
    }

    /// Rule 6: expired by its label when it was used. The day is the device's, UTC.
    fn expired(&self, mount: &Mount) -> Option<Verdict> {
        let last = last_day(&mount.expiry)?;
        self.used_after(last, mount).map(|state| {
            let subject = format!("expired/{}/{}", self.facts.device, self.facts.mount_id);
            let reason = format!("{} was used after its expiry {}", self.name(), mount.expiry);
            let evidence = json!({"expiry": mount.expiry, "clock_synced": self.is_dated && mount.synced});
            self.say(Found {
                rule: 6,
                key: "expired".to_owned(),
                subject,
                reason,
                evidence,
                state,
                ..Found::confirmed("high")
            })
        })
    }

    /// Rule 6: its pack was breached.
    fn breached(&self, mount: &Mount) -> Option<Verdict> {
        (mount.pack_intact == Some(false)).then(|| {
            let subject = format!("pack/{}/{}", self.facts.device, self.facts.mount_id);
            let reason = format!("{} was used from a breached pack", self.name());
            let evidence = json!({"pack": mount.pack_id});
            self.say(Found {
                rule: 6,
                key: "pack".to_owned(),
                subject,
                reason,
                evidence,
                ..Found::confirmed("critical")
            })
        })
    }

    /// Rule 11: more punctures than the needle is good for.
    fn worn(&self, book: &Book) -> Option<Verdict> {
        let is_needle = |used: &&&Use| used.slot == "NEEDLE";
        let punctures: u64 = self.in_visits.iter().filter(is_needle).map(|used| used.punctures).sum();
        let most = book.punctures_max(self.facts.tenant, self.mount)?;
        (punctures > most).then(|| {
            let subject = format!("{}/{}", self.facts.device, self.facts.mount_id);
            let reason = format!("{} made {punctures} punctures, it is good for {most}", self.name());
            let (evidence, parameters) = (json!({"punctures": punctures}), json!({"punctures_max": most}));
            let found = Found { rule: 11, key: "punctures".to_owned(), subject, reason, ..Found::confirmed("low") };
            self.say(Found { evidence, parameters, ..found })
        })
    }

    /// Rule 12: of a recalled lot. A recall that comes later concerns uses before it as well.
    fn recalled(&self, mount: &Mount, book: &Book) -> Vec<Verdict> {
        let recalls = book.recalls(&Label::of(mount)).into_iter();
        let say = |(recall, is_certain): (&warehouse::sterility::Recall, bool)| {
            let doubt = if is_certain { "" } else { ", if it is that product: which one was not said" };
            let evidence = json!({"recall": recall.recall_id, "product": recall.udi_di, "lot": mount.lot});
            self.say(Found {
                rule: 12,
                key: format!("recall/{}/{}/{}", recall.recall_id, recall.udi_di, recall.lot),
                subject: format!("recall/{}/{}/{}", recall.recall_id, recall.udi_di, recall.lot),
                state: State::sure(is_certain),
                reason: format!("{} was used; recall {}: {}{doubt}", self.name(), recall.recall_id, recall.reason),
                evidence,
                ..Found::confirmed("high")
            })
        };
        recalls.map(say).collect()
    }

    /// Rule 12: of a lot that had expired by the registry.
    fn lot_expired(&self, mount: &Mount, book: &Book) -> Option<Verdict> {
        let last = book.expiry(&Label::of(mount))?;
        self.used_after(last, mount).map(|state| {
            let product = product(mount);
            let reason = format!("{} was used after its lot {} had expired", self.name(), mount.lot);
            let (key, subject) = (format!("expired/{product}"), format!("expired/{product}"));
            let evidence = json!({"lot_expiry_day": last, "clock_synced": self.is_dated && mount.synced});
            self.say(Found { rule: 12, key, subject, reason, evidence, state, ..Found::confirmed("high") })
        })
    }
}

fn product(mount: &Mount) -> String {
    format!("{}/{}", mount.udi_di, mount.lot)
}

fn word(slot: &str) -> &'static str {
    match slot {
        "NEEDLE" => "needle",
        "SYRINGE" => "syringe",
        "HANDPIECE" => "handpiece",
        "CARTRIDGE" => "cartridge",
        "TUBING" => "tubing",
        _ => "item",
    }
}

struct Found {
    rule: u8,
    key: String,
    subject: String,
    state: State,
    severity: &'static str,
    reason: String,
    evidence: Value,
    parameters: Value,
}

impl Found {
    fn confirmed(severity: &'static str) -> Self {
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
