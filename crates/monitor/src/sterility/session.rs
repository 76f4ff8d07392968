//! One session: rule 1 (no needle mount), and rules 6 and 12 for its mixtures.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};
use warehouse::{
    states::Severity,
    sterility::{Component, Mount, Shots, quoted},
    verdicts::Verdict,
};

use super::rules::{Clock, Finding, Label, RegistryIndex, State};
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
    verdicts.extend(mixtures.into_iter().flat_map(|mixture| self::mixture(facts, mixture, registry, clock, &unit)));
    verdicts
}

/// Rule 1: injections with no needle mount in this session.
fn needle(facts: &SessionFacts<'_>, device: &str, shots: &[&Shots], clock: Clock, unit: &str) -> Option<Verdict> {
    let mut none = 0;
    let mut elsewhere = BTreeSet::new();
    let mut unknown = BTreeSet::new();
    let mut last_at = i64::MIN;
    for part in shots {
        let mount_id = part.needle_mount_id.as_str();
        let is_valid = match facts.mounts.get(&(device, mount_id)) {
            _ if mount_id.is_empty() => {
                none += part.injections;
                false
            }
            // A needle may be mounted before the session begins, but not in another session.
            Some(mount) if mount.session_id.is_empty() || mount.session_id == facts.session_id => true,
            Some(mount) => {
                elsewhere.insert((mount_id, mount.session_id.as_str()));
                false
            }
            None => {
                unknown.insert(mount_id);
                false
            }
        };
        if !is_valid {
            last_at = last_at.max(part.last_at);
        }
    }
    let missing = facts.missing.get(device).copied().unwrap_or_default();
    let late = last_at.saturating_add(clock.late);
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
    let finding = Finding {
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

/// Rules 6 and 12 for a mixture: it was used after its use-by time, or it contains an expired or
/// recalled component.
fn mixture(
    facts: &SessionFacts<'_>,
    mixture: &str,
    registry: &RegistryIndex,
    clock: Clock,
    unit: &str,
) -> Vec<Verdict> {
    let mut used: Vec<_> = facts.shots.iter().filter(|part| part.preparation_id == mixture).collect();
    used.sort_unstable();
    let of_mixture = facts.components.iter().filter(|component| component.preparation_id == mixture);
    let mut components: Vec<_> = of_mixture.collect();
    components.sort_unstable();
    let first_at = used.iter().map(|part| part.first_at).min().unwrap_or_default();
    let last_at = used.iter().map(|part| part.last_at).max().unwrap_or_default();
    let verdict = |rule: u8, key: String, subject: String, state, reason: String, lot: String, evidence: Value| {
        let finding = Finding {
            tenant: facts.tenant,
            unit,
            rule,
            key,
            subject,
            state,
            severity: Severity::High,
            reason,
            evidence,
            query: format!(
                "SELECT * FROM preparations WHERE tenant = {} AND preparation_id = {} ORDER BY index",
                quoted(facts.tenant),
                quoted(mixture)
            ),
            parameters: json!({}),
            at: first_at,
        };
        Verdict {
            site: used.first().map(|part| part.site.clone()).unwrap_or_default(),
            device: used.first().map(|part| part.device.clone()).unwrap_or_default(),
            sessions: vec![facts.session_id.to_owned()],
            lot,
            ..finding.verdict()
        }
    };
    let mut verdicts = Vec::new();
    let evidence =
        |what: Value| json!({"mixture": mixture, "session": facts.session_id, "first": stamp(first_at), "fact": what});
    let is_dated = used.iter().all(|part| part.undated == 0);
    let used_after = |until: i64| clock.used_after(until, last_at, is_dated);
    let use_by = components.iter().filter_map(|component| component.use_by).min().filter(|use_by| last_at > *use_by);
    let ends = components.iter().filter_map(|component| Some((end_of(last_day(&component.expiry)?), component)));
    let expired = ends.min_by_key(|(end, _)| *end).filter(|(end, _)| last_at > *end);
    // The earliest limit is the one that was most certainly exceeded.
    let until = use_by.into_iter().chain(expired.map(|(end, _)| end)).min();
    if let Some(state) = until.and_then(used_after) {
        let expired = expired.map(|(_, component)| component);
        let what = match (use_by, expired) {
            (Some(use_by), _) => format!("after its use-by time {}", stamp(use_by)),
            (None, Some(component)) => format!("with lot {} expired {}", component.lot, component.expiry),
            (None, None) => String::new(),
        };
        let key = format!("mixture/{mixture}");
        let reason = format!("mixture {mixture} was used {what}");
        let fact = json!({"use_by": use_by.map(stamp), "expired_lot": expired.map(|component| &component.lot)});
        verdicts.push(verdict(6, key.clone(), key, state, reason, mixture.to_owned(), evidence(fact)));
    }
    for component in &components {
        let product = format!("{}/{}", component.udi_di, component.lot);
        let fact = || {
            evidence(json!({"product": component.udi_di, "lot": component.lot, "container": component.container_id}))
        };
        let label = Label::of_component(component);
        for (recall, is_certain) in registry.recalls(&label) {
            let subject = format!("recall/{}/{}/{}", recall.recall_id, recall.udi_di, recall.lot);
            let reason = format!("mixture {mixture} was used; recall {}: {}", recall.recall_id, recall.reason);
            let (key, state) = (format!("{subject}/{mixture}/{product}"), State::certain(is_certain));
            verdicts.push(verdict(12, key, subject, state, reason, product.clone(), fact()));
        }
        if let Some(state) = registry.expiry(&label).and_then(|last| used_after(end_of(last))) {
            let subject = format!("expired/{product}");
            let reason = format!("mixture {mixture} was used after lot {} had expired", component.lot);
            let key = format!("{subject}/{mixture}");
            verdicts.push(verdict(12, key, subject, state, reason, product, fact()));
        }
    }
    // Two components of one lot give one finding.
    verdicts.sort_by(|left, right| left.verdict_key.cmp(&right.verdict_key));
    verdicts.dedup_by(|left, right| left.verdict_key == right.verdict_key);
    verdicts
}
