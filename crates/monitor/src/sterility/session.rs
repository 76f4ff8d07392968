//! One session: rule 1 (no needle mount), and rules 6 and 12 for its mixtures.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};
use warehouse::{
    sql::quoted,
    states::Severity,
    sterility::{Component, Mount, Shots},
    verdicts::Verdict,
};

use super::rules::{Clock, Label, RegistryIndex, RuleFinding, State};
use crate::time::{end_of, last_day, stamp};

/// Everything that is known of one session.
#[derive(Clone, Debug, Default)]
pub struct SessionFacts<'a> {
    pub tenant: &'a str,
    pub session_id: &'a str,
    pub shots: Vec<&'a Shots>,
    /// The needle mounts of its injections, by device and mount.
    pub mounts: HashMap<(&'a str, &'a str), &'a Mount>,
    /// Components of its mixtures.
    pub components: Vec<&'a Component>,
    /// Number of missing events, by device; read only for devices with an unknown needle mount.
    pub missing: HashMap<&'a str, u64>,
}

/// The unit of a session.
pub fn unit(session_id: &str) -> String {
    format!("session/{session_id}")
}

/// Judges a session.
pub fn evaluate(facts: &SessionFacts<'_>, registry: &RegistryIndex, clock: Clock) -> Vec<Verdict> {
    let unit = unit(facts.session_id);
    let mut by_device: BTreeMap<&str, Vec<&Shots>> = BTreeMap::new();
    let mut all = facts.shots.clone();
    all.sort_unstable();
    for shots in all {
        by_device.entry(&shots.device).or_default().push(shots);
    }
    let mut verdicts: Vec<Verdict> =
        by_device.iter().filter_map(|(device, shots)| needle(facts, device, shots, clock, &unit)).collect();
    let mixtures: BTreeSet<&str> =
        facts.shots.iter().map(|shots| shots.preparation_id.as_str()).filter(|mixture| !mixture.is_empty()).collect();
    verdicts
        .extend(mixtures.into_iter().flat_map(|mixture| Mixture::new(facts, mixture, clock, &unit).verdicts(registry)));
    verdicts
}

/// Injections of one device in one session whose needle mount is not valid.
#[derive(Default)]
struct InvalidNeedles<'a> {
    /// Injections that name no mount.
    none: u64,
    /// Mounts of another session, with that session.
    elsewhere: BTreeSet<(&'a str, &'a str)>,
    /// Mounts that are not known.
    unknown: BTreeSet<&'a str>,
    /// Last such injection, us since 1970.
    last_at: Option<i64>,
}

impl<'a> InvalidNeedles<'a> {
    fn new(facts: &SessionFacts<'a>, device: &'a str, shots: &[&'a Shots]) -> Self {
        let mut needles = Self::default();
        for part in shots {
            let mount_id = part.needle_mount_id.as_str();
            match facts.mounts.get(&(device, mount_id)) {
                _ if mount_id.is_empty() => needles.none += part.injections,
                // A needle may be mounted before the session begins, but not in another session.
                Some(mount) if mount.session_id.is_empty() || mount.session_id == facts.session_id => continue,
                Some(mount) => drop(needles.elsewhere.insert((mount_id, &mount.session_id))),
                None => drop(needles.unknown.insert(mount_id)),
            }
            needles.last_at = needles.last_at.max(Some(part.last_at));
        }
        needles
    }
}

/// Rule 1: injections with no needle mount in this session.
fn needle(facts: &SessionFacts<'_>, device: &str, shots: &[&Shots], clock: Clock, unit: &str) -> Option<Verdict> {
    let InvalidNeedles { none, elsewhere, unknown, last_at } = InvalidNeedles::new(facts, device, shots);
    let missing = facts.missing.get(device).copied().unwrap_or_default();
    let late = last_at?.saturating_add(clock.late);
    let (state, what) = match (none, elsewhere.is_empty(), unknown.is_empty()) {
        (0, true, true) => return None,
        (0, true, false) if missing > 0 => {
            (State::Pending(0), "the event that reports its needle mount has not arrived".to_owned())
        }
        (0, true, false) if clock.now < late => {
            (State::Pending(late), "the event that reports its needle mount has not arrived".to_owned())
        }
        (0, true, false) => (State::Indeterminate, "its needle mount is not known".to_owned()),
        (0, false, _) => (State::Confirmed, "its needle was mounted in another session".to_owned()),
        (count, _, _) => (State::Confirmed, format!("{count} injections had no needle mount")),
    };
    let first_at = shots.iter().map(|part| part.first_at).min().unwrap_or_default();
    let elsewhere: Vec<_> =
        elsewhere.iter().map(|(mount, session)| json!({"mount": mount, "session": session})).collect();
    let finding = RuleFinding {
        tenant: facts.tenant,
        unit,
        rule: 1,
        key: device.to_owned(),
        subject: format!("{}/{device}", facts.session_id),
        state,
        severity: Severity::High,
        reason: format!("device {device}, session {}: {what}", facts.session_id),
        evidence: json!({"device": device, "session": facts.session_id, "without_mount": none,
            "mounted_elsewhere": elsewhere, "mounting_unknown": unknown, "first": stamp(first_at)}),
        query: format!(
            "SELECT at, shot, needle_mount_id, needle_item_id FROM injections WHERE tenant = {} AND device = {} AND \
             session_id = {} ORDER BY boot_id, seq",
            quoted(facts.tenant),
            quoted(device),
            quoted(facts.session_id),
        ),
        parameters: json!({}),
        at: first_at,
    };
    let completeness =
        if missing > 0 { format!("{missing} events of {device} have not arrived") } else { String::new() };
    Some(Verdict {
        site: shots.first().map(|part| part.site.clone()).unwrap_or_default(),
        device: device.to_owned(),
        sessions: vec![facts.session_id.to_owned()],
        completeness,
        ..finding.verdict()
    })
}

/// One mixture in one session: rules 6 and 12.
struct Mixture<'a> {
    session: &'a SessionFacts<'a>,
    id: &'a str,
    unit: &'a str,
    clock: Clock,
    used: Vec<&'a Shots>,
    components: Vec<&'a Component>,
    first_at: i64,
    last_at: i64,
    /// Every use has a time of the device.
    is_dated: bool,
}

impl<'a> Mixture<'a> {
    fn new(session: &'a SessionFacts<'a>, id: &'a str, clock: Clock, unit: &'a str) -> Self {
        let mut used: Vec<_> = session.shots.iter().copied().filter(|part| part.preparation_id == id).collect();
        used.sort_unstable();
        let of_mixture = session.components.iter().copied().filter(|component| component.preparation_id == id);
        let mut components: Vec<_> = of_mixture.collect();
        components.sort_unstable();
        Self {
            session,
            id,
            unit,
            clock,
            first_at: used.iter().map(|part| part.first_at).min().unwrap_or_default(),
            last_at: used.iter().map(|part| part.last_at).max().unwrap_or_default(),
            is_dated: used.iter().all(|part| part.undated == 0),
            used,
            components,
        }
    }

    fn verdicts(&self, registry: &RegistryIndex) -> Vec<Verdict> {
        let mut verdicts = Vec::from_iter(self.expired());
        for component in &self.components {
            verdicts.extend(self.by_lot(component, registry));
        }
        // Two components of one lot give one finding.
        verdicts.sort_by(|left, right| left.verdict_key.cmp(&right.verdict_key));
        verdicts.dedup_by(|left, right| left.verdict_key == right.verdict_key);
        verdicts
    }

    fn used_after(&self, until: i64) -> Option<State> {
        self.clock.used_after(until, self.last_at, self.is_dated)
    }

    /// Rule 6: it was used after its use-by time, or after the expiry on the label of a component.
    fn expired(&self) -> Option<Verdict> {
        let use_by = self.components.iter().filter_map(|component| component.use_by).min();
        let use_by = use_by.filter(|use_by| self.last_at > *use_by);
        let ends =
            self.components.iter().filter_map(|component| Some((end_of(last_day(&component.expiry)?), component)));
        let expired = ends.min_by_key(|(end, _)| *end).filter(|(end, _)| self.last_at > *end);
        // The earliest limit is the one that was most certainly exceeded.
        let until = use_by.into_iter().chain(expired.map(|(end, _)| end)).min();
        let state = self.used_after(until?)?;
        let expired = expired.map(|(_, component)| component);
        let what = match (use_by, expired) {
            (Some(use_by), _) => format!("after its use-by time {}", stamp(use_by)),
            (None, Some(component)) => format!("with lot {} expired {}", component.lot, component.expiry),
            (None, None) => String::new(),
        };
        let key = format!("mixture/{}", self.id);
        let reason = format!("mixture {} was used {what}", self.id);
        let fact = json!({"use_by": use_by.map(stamp), "expired_lot": expired.map(|component| &component.lot)});
        Some(self.verdict(6, key.clone(), key, state, reason, self.id.to_owned(), &fact))
    }

    /// Rule 12: the lot of a component is recalled, or was used after its registered expiry.
    fn by_lot(&self, component: &Component, registry: &RegistryIndex) -> Vec<Verdict> {
        let id = self.id;
        let product = format!("{}/{}", component.udi_di, component.lot);
        let fact = json!({"product": component.udi_di, "lot": component.lot, "container": component.container_id});
        let label = Label::of_component(component);
        let recalled = registry.recalls(&label).into_iter().map(|(recall, is_certain)| {
            let subject = format!("recall/{}/{}/{}", recall.recall_id, recall.udi_di, recall.lot);
            let reason = format!("mixture {id} was used; recall {}: {}", recall.recall_id, recall.reason);
            let (key, state) = (format!("{subject}/{id}/{product}"), State::certain(is_certain));
            self.verdict(12, key, subject, state, reason, product.clone(), &fact)
        });
        let mut verdicts: Vec<_> = recalled.collect();
        if let Some(state) = registry.expiry(&label).and_then(|last| self.used_after(end_of(last))) {
            let subject = format!("expired/{product}");
            let reason = format!("mixture {id} was used after lot {} had expired", component.lot);
            let key = format!("{subject}/{id}");
            verdicts.push(self.verdict(12, key, subject, state, reason, product, &fact));
        }
        verdicts
    }

    #[allow(clippy::too_many_arguments, reason = "each names a column of the verdict")]
    fn verdict(
        &self,
        rule: u8,
        key: String,
        subject: String,
        state: State,
        reason: String,
        lot: String,
        fact: &Value,
    ) -> Verdict {
        let session_id = self.session.session_id;
        let finding = RuleFinding {
            tenant: self.session.tenant,
            unit: self.unit,
            rule,
            key,
            subject,
            state,
            severity: Severity::High,
            reason,
            evidence: json!({"mixture": self.id, "session": session_id, "first": stamp(self.first_at), "fact": fact}),
            query: format!(
                "SELECT * FROM preparations WHERE tenant = {} AND preparation_id = {} ORDER BY index",
                quoted(self.session.tenant),
                quoted(self.id)
            ),
            parameters: json!({}),
            at: self.first_at,
        };
        Verdict {
            site: self.used.first().map(|part| part.site.clone()).unwrap_or_default(),
            device: self.used.first().map(|part| part.device.clone()).unwrap_or_default(),
            sessions: vec![session_id.to_owned()],
            lot,
            ..finding.verdict()
        }
    }
}
