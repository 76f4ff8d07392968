//! One sterilizer with all of its cycles: the assessment of each cycle, the required tests, and the
//! loads that a positive biological indicator recalls. Rules 5 (the cycle itself), 8 and 9.

use std::collections::{BTreeMap, HashMap};

use serde_json::json;
use warehouse::{
    states::{Decision, IndicatorKind, IndicatorResult, Outcome, Purpose, Severity, VerdictState},
    sterility::{Cycle, Indicator, Release},
    verdicts::Verdict,
};

use super::{
    assessment::Assessment,
    curve::Physical,
    rules::{Clock, HOUR_US, RegistryIndex, RuleFinding, STERILITY_RULE_VERSION, State, cycle_query},
};
use crate::time::stamp;

/// Indicators that are read at the end of a cycle. One without a kind counts as such.
const NOT_BIOLOGICAL: [IndicatorKind; 3] = [IndicatorKind::Chemical, IndicatorKind::BowieDick, IndicatorKind::Unknown];

/// Everything that is known of one sterilizer.
pub struct SterilizerFacts<'a> {
    pub tenant: &'a str,
    pub device: &'a str,
    pub cycles: Vec<&'a Cycle>,
    /// The judgements of their curves.
    pub physical: HashMap<&'a str, Physical>,
    pub indicators: Vec<&'a Indicator>,
    pub releases: Vec<&'a Release>,
}

/// Result of the evaluation of a sterilizer.
#[derive(Debug, Default)]
pub struct Evaluated {
    /// One assessment for each cycle.
    pub assessments: Vec<(String, Assessment)>,
    pub verdicts: Vec<Verdict>,
}

/// The unit of a sterilizer.
pub fn unit(device: &str) -> String {
    format!("sterilizer/{device}")
}

/// Judges every cycle of a sterilizer.
pub fn evaluate(facts: &SterilizerFacts<'_>, registry: &RegistryIndex, clock: Clock) -> Evaluated {
    let unit = unit(facts.device);
    let history = History::new(facts);
    let mut evaluated = Evaluated::default();
    for cycle in &history.cycles {
        let assessment = history.assessment(cycle, facts);
        evaluated.verdicts.push(on_cycle(cycle, &assessment, &unit));
        if assessment.for_load {
            evaluated.verdicts.extend(failed(cycle, &assessment, &unit));
        }
        evaluated.assessments.push((cycle.cycle_uid.clone(), assessment));
    }
    evaluated.verdicts.extend(history.positive.iter().map(|cycle| positive(cycle, &evaluated.assessments, &unit)));
    evaluated.verdicts.extend(tests(&history, &evaluated.assessments, registry, clock, &unit));
    evaluated
}

/// The cycles of a sterilizer in their order, with the indicators and releases of each.
struct History<'a> {
    cycles: Vec<&'a Cycle>,
    readings: HashMap<&'a str, Vec<&'a Indicator>>,
    releases: HashMap<&'a str, &'a Release>,
    positive: Vec<&'a Cycle>,
    negative: Vec<&'a Cycle>,
}

impl<'a> History<'a> {
    fn new(facts: &SterilizerFacts<'a>) -> Self {
        let mut by_uid: BTreeMap<&str, &Cycle> = BTreeMap::new();
        for cycle in &facts.cycles {
            // A cycle that was reported under two sequence numbers: the first counts.
            let first = by_uid.entry(&cycle.cycle_uid).or_insert(cycle);
            *first = (*first).min(*cycle);
        }
        let mut cycles: Vec<_> = by_uid.into_values().collect();
        cycles.sort_by_key(|cycle| (cycle.boot_id, cycle.seq));
        let mut readings: HashMap<&str, Vec<&Indicator>> = HashMap::new();
        for indicator in &facts.indicators {
            readings.entry(&indicator.cycle_uid).or_default().push(indicator);
        }
        for readings in readings.values_mut() {
            readings.sort_unstable();
        }
        let mut releases: HashMap<&str, &Release> = HashMap::new();
        for release in &facts.releases {
            let latest = releases.entry(&release.cycle_uid).or_insert(release);
            *latest = (*latest).max(*release);
        }
        let biological = |cycle: &&&Cycle, result: IndicatorResult| {
            let of_cycle = readings.get(cycle.cycle_uid.as_str()).into_iter().flatten();
            of_cycle.filter(|reading| reading.kind == IndicatorKind::Biological).any(|reading| reading.result == result)
        };
        let positive: Vec<_> =
            cycles.iter().filter(|cycle| biological(cycle, IndicatorResult::Positive)).copied().collect();
        let negative = cycles.iter().filter(|cycle| {
            biological(cycle, IndicatorResult::Negative) && !biological(cycle, IndicatorResult::Positive)
        });
        let negative = negative.copied().collect();
        Self { cycles, readings, releases, positive, negative }
    }

    fn result(&self, cycle: &Cycle, kinds: &[IndicatorKind]) -> Option<IndicatorResult> {
        let of_cycle = self.readings.get(cycle.cycle_uid.as_str()).into_iter().flatten();
        let results: Vec<_> =
            of_cycle.filter(|reading| kinds.contains(&reading.kind)).map(|reading| reading.result).collect();
        [IndicatorResult::Positive, IndicatorResult::Negative, IndicatorResult::Invalid]
            .into_iter()
            .find(|result| results.contains(result))
    }

    fn assessment(&self, cycle: &Cycle, facts: &SterilizerFacts<'_>) -> Assessment {
        let physical = facts.physical.get(cycle.cycle_uid.as_str()).cloned().unwrap_or_default();
        let chemical = self.result(cycle, &NOT_BIOLOGICAL);
        let (outcome, reason) = match (chemical, physical.outcome) {
            (Some(IndicatorResult::Positive), _) => (Outcome::Failed, "the chemical indicator failed".to_owned()),
            (Some(IndicatorResult::Invalid), Outcome::Passed) => {
                (Outcome::Indeterminate, "the chemical indicator could not be read".to_owned())
            }
            _ => (physical.outcome, physical.reason.clone()),
        };
        let release = self.releases.get(cycle.cycle_uid.as_str()).map_or(Decision::None, |release| release.decision);
        let for_load = !matches!(cycle.purpose, Purpose::BowieDick | Purpose::Leak);
        Assessment {
            outcome,
            reason,
            release,
            wet: cycle.load_dry == Some(false),
            recalled_by: if for_load { self.recalled_by(cycle) } else { Vec::new() },
            for_load,
            at: cycle.at,
            end: cycle.at + i64::from(physical.end_ms) * 1_000,
            synced: cycle.synced,
            device: cycle.device.clone(),
            site: cycle.site.clone(),
            physical,
        }
    }

    /// The positive cycles that recall a cycle. A positive indicator recalls the loads since the
    /// last negative indicator, and the loads after it until the next negative one.
    fn recalled_by(&self, cycle: &Cycle) -> Vec<String> {
        let recalls = |positive: &&&Cycle| {
            let cleared = |negative: &&Cycle| {
                negative.cycle_uid == cycle.cycle_uid
                    || (before(cycle, negative) && before(negative, positive))
                    || (before(positive, negative) && before(negative, cycle))
            };
            positive.cycle_uid == cycle.cycle_uid || !self.negative.iter().any(cleared)
        };
        let mut uids: Vec<_> =
            self.positive.iter().filter(recalls).map(|positive| positive.cycle_uid.clone()).collect();
        uids.sort_unstable();
        uids
    }
}

/// Whether a cycle certainly came before another of the same sterilizer: boot and sequence number
/// order them, and synced clocks do not contradict. (A factory reset restarts the boot counter.)
fn before(left: &Cycle, right: &Cycle) -> bool {
    let contradicts = left.synced && right.synced && left.at > right.at;
    (left.boot_id, left.seq) < (right.boot_id, right.seq) && !contradicts
}

fn concerning(cycle: &Cycle, verdict: Verdict) -> Verdict {
    Verdict { site: cycle.site.clone(), device: cycle.device.clone(), cycle_uid: cycle.cycle_uid.clone(), ..verdict }
}

/// Rule 0: the verdict on the cycle.
fn on_cycle(cycle: &Cycle, assessment: &Assessment, unit: &str) -> Verdict {
    Verdict {
        tenant: cycle.tenant.clone(),
        unit: unit.to_owned(),
        verdict_key: format!("0/{}", cycle.cycle_uid),
        state: assessment.outcome.into(),
        site: cycle.site.clone(),
        device: cycle.device.clone(),
        cycle_uid: cycle.cycle_uid.clone(),
        at: cycle.at,
        reason: assessment.reason.clone(),
        evidence: json!(assessment).to_string(),
        evidence_query: format!(
            "SELECT * FROM sterilization_samples WHERE cycle_uid = {} ORDER BY index",
            warehouse::sql::quoted(&cycle.cycle_uid)
        ),
        rule_version: STERILITY_RULE_VERSION,
        parameters: assessment.physical.limits.clone(),
        ..Verdict::default()
    }
}

/// Rule 5 for the cycle itself. The uses of its items are judged with the items.
fn failed(cycle: &Cycle, assessment: &Assessment, unit: &str) -> Option<Verdict> {
    let state = match assessment.outcome {
        Outcome::Failed => State::Confirmed,
        Outcome::Indeterminate => State::Indeterminate,
        Outcome::Passed | Outcome::Pending => return None,
    };
    let verb = if state == State::Confirmed { "failed" } else { "is indeterminate" };
    let released = if assessment.release == Decision::Released { " and was released" } else { "" };
    let finding = RuleFinding {
        tenant: &cycle.tenant,
        unit,
        rule: 5,
        key: cycle.cycle_uid.clone(),
        subject: cycle.cycle_uid.clone(),
        state,
        severity: if assessment.release == Decision::Released { Severity::High } else { Severity::Medium },
        reason: format!("cycle {} {verb}{released}: {}", cycle.cycle_uid, assessment.reason),
        evidence: json!({"cycle": cycle.cycle_uid, "sterilizer": cycle.device, "outcome": assessment.outcome.as_str(),
            "reason": assessment.reason, "release": assessment.release, "started": stamp(cycle.at)}),
        query: cycle_query(&cycle.tenant, &cycle.cycle_uid),
        parameters: json!({"recipe": cycle.recipe}),
        at: cycle.at,
    };
    Some(concerning(cycle, finding.verdict()))
}

/// Rule 9 for the positive cycle itself, whether or not an item of the recalled loads was used.
fn positive(cycle: &Cycle, assessments: &[(String, Assessment)], unit: &str) -> Verdict {
    let recalled: Vec<_> = assessments
        .iter()
        .filter(|(_, assessment)| assessment.recalled_by.contains(&cycle.cycle_uid))
        .map(|(uid, _)| uid.as_str())
        .collect();
    let finding = RuleFinding {
        tenant: &cycle.tenant,
        unit,
        rule: 9,
        key: cycle.cycle_uid.clone(),
        subject: cycle.cycle_uid.clone(),
        state: State::Confirmed,
        severity: Severity::Critical,
        reason: format!(
            "biological indicator of cycle {} was positive; loads recalled since the last negative one: {}",
            cycle.cycle_uid,
            recalled.len()
        ),
        evidence: json!({"positive": cycle.cycle_uid, "sterilizer": cycle.device, "started": stamp(cycle.at),
            "recalled_cycles": recalled}),
        query: cycle_query(&cycle.tenant, &cycle.cycle_uid),
        parameters: json!({}),
        at: cycle.at,
    };
    concerning(cycle, finding.verdict())
}

/// Rule 8: loads without a required test.
fn tests(
    history: &History<'_>,
    assessments: &[(String, Assessment)],
    registry: &RegistryIndex,
    clock: Clock,
    unit: &str,
) -> Vec<Verdict> {
    let outcomes: HashMap<&str, Outcome> =
        assessments.iter().map(|(uid, assessment)| (uid.as_str(), assessment.physical.outcome)).collect();
    let mut found: BTreeMap<String, Verdict> = BTreeMap::new();
    for load in history.cycles.iter().filter(|cycle| matches!(cycle.purpose, Purpose::Load | Purpose::Unknown)) {
        let recipe = registry.recipe(&load.tenant, &load.recipe);
        if recipe.is_some_and(|recipe| recipe.prevacuum) && registry.bowie_dick(&load.tenant) {
            keep(&mut found, bowie_dick(history, load, &outcomes, registry, clock, unit));
        }
        keep(&mut found, biological(history, load, registry, clock, unit));
        keep(&mut found, leak(history, load, unit));
    }
    found.into_values().collect()
}

/// Keeps one verdict for each missing test: the most certain, else that of the first load.
fn keep(found: &mut BTreeMap<String, Verdict>, verdict: Option<Verdict>) {
    let Some(verdict) = verdict else { return };
    let certainty = |verdict: &Verdict| (verdict.state == VerdictState::Confirmed, verdict.severity);
    match found.get_mut(&verdict.verdict_key) {
        Some(known) if certainty(known) >= certainty(&verdict) => {}
        _ => drop(found.insert(verdict.verdict_key.clone(), verdict)),
    }
}

fn test(load: &Cycle, unit: &str, key: String, state: State, severity: Severity, reason: String, at: i64) -> Verdict {
    let finding = RuleFinding {
        tenant: &load.tenant,
        unit,
        rule: 8,
        subject: format!("{}/{key}", load.device),
        key,
        state,
        severity,
        evidence: json!({"load": load.cycle_uid, "sterilizer": load.device, "started": stamp(load.at), "reason": reason}),
        reason,
        query: format!(
            "SELECT * FROM sterilizer_cycles WHERE tenant = {} AND device = {} AND started_at BETWEEN \
             fromUnixTimestamp64Micro({at}) - toIntervalDay(1) AND fromUnixTimestamp64Micro({at}) + toIntervalDay(1) \
             ORDER BY started_at",
            warehouse::sql::quoted(&load.tenant),
            warehouse::sql::quoted(&load.device),
        ),
        parameters: json!({}),
        at,
    };
    concerning(load, finding.verdict())
}

/// A Bowie-Dick test must have passed on the same day before the load. The latest one counts.
fn bowie_dick(
    history: &History<'_>,
    load: &Cycle,
    outcomes: &HashMap<&str, Outcome>,
    registry: &RegistryIndex,
    clock: Clock,
    unit: &str,
) -> Option<Verdict> {
    let of_day = |cycle: &&&Cycle| cycle.purpose == Purpose::BowieDick && cycle.day == load.day && before(cycle, load);
    let key = format!("bowie-dick/{}", load.day);
    let verdict = |state, severity, reason| Some(test(load, unit, key.clone(), state, severity, reason, load.at));
    let Some(latest) = history.cycles.iter().rev().find(of_day) else {
        let reason = format!("no Bowie-Dick test on sterilizer {} before load {}", load.device, load.cycle_uid);
        // A test without a known day may have been on this day.
        let is_certain = history.cycles.iter().all(|cycle| cycle.synced || cycle.purpose != Purpose::BowieDick);
        return verdict(State::certain(load.synced && is_certain), Severity::Medium, reason);
    };
    let uid = &latest.cycle_uid;
    match (
        history.result(latest, &[IndicatorKind::BowieDick, IndicatorKind::Chemical]),
        outcomes.get(uid.as_str()).copied(),
    ) {
        (Some(IndicatorResult::Positive), _) | (_, Some(Outcome::Failed)) => verdict(
            State::Confirmed,
            Severity::High,
            format!("Bowie-Dick test {uid} failed before load {}", load.cycle_uid),
        ),
        (Some(IndicatorResult::Negative), _) => None,
        (Some(_), _) => {
            verdict(State::Indeterminate, Severity::High, format!("Bowie-Dick test {uid} could not be read"))
        }
        (None, _) => {
            let until =
                latest.at + i64::try_from(registry.release_hours(&load.tenant)).unwrap_or(i64::MAX / HOUR_US) * HOUR_US;
            let reason = format!("the result of Bowie-Dick test {uid} has not arrived");
            let state = if clock.now < until { State::Pending(until) } else { State::Confirmed };
            verdict(state, Severity::Medium, reason)
        }
    }
}

/// A negative biological indicator must lie within the last `sterility.biological_days`. A
/// sterilizer that is known for a shorter time is not judged.
fn biological(
    history: &History<'_>,
    load: &Cycle,
    registry: &RegistryIndex,
    clock: Clock,
    unit: &str,
) -> Option<Verdict> {
    let days = i64::try_from(registry.biological_days(&load.tenant)).unwrap_or_default().min(36_500);
    let (span, first) = (days * 24 * HOUR_US, history.cycles.first()?);
    if days == 0 || load.at - first.at < span {
        return None;
    }
    let tested = |cycle: &&&Cycle| before(cycle, load) || cycle.cycle_uid == load.cycle_uid;
    let last = history.negative.iter().rev().find(tested);
    if last.is_some_and(|last| load.at - last.at <= span) {
        return None;
    }
    // The indicator of a test cycle is read days later.
    let awaited = history.cycles.iter().rev().filter(tested).find(|cycle| {
        cycle.purpose == Purpose::Biological
            && load.at - cycle.at <= span
            && history.result(cycle, &[IndicatorKind::Biological]).is_none()
    });
    let until = |cycle: &Cycle| {
        cycle.at + i64::try_from(registry.release_hours(&load.tenant)).unwrap_or(i64::MAX / HOUR_US) * HOUR_US
    };
    let state = match awaited.map(|cycle| until(cycle)) {
        Some(until) if clock.now < until => State::Pending(until),
        _ => State::certain(load.synced),
    };
    let since = last.map_or("in its history".to_owned(), |last| format!("since cycle {}", last.cycle_uid));
    let key = format!("biological/{}", last.map_or("none", |last| &last.cycle_uid));
    let reason = format!(
        "no negative biological indicator on sterilizer {} {since}; one every {days} days is required",
        load.device
    );
    Some(test(load, unit, key, state, Severity::Medium, reason, load.at))
}

/// The latest leak test of the day before the load must not have failed. A leak test is not
/// required.
fn leak(history: &History<'_>, load: &Cycle, unit: &str) -> Option<Verdict> {
    let of_day = |cycle: &&&Cycle| cycle.purpose == Purpose::Leak && cycle.day == load.day && before(cycle, load);
    let latest = history.cycles.iter().rev().find(of_day)?;
    let failed = history.result(latest, &NOT_BIOLOGICAL) == Some(IndicatorResult::Positive)
        || history
            .releases
            .get(latest.cycle_uid.as_str())
            .is_some_and(|release| release.decision == Decision::Rejected);
    let reason = format!("leak test {} failed before load {}", latest.cycle_uid, load.cycle_uid);
    failed.then(|| {
        test(load, unit, format!("leak/{}", latest.cycle_uid), State::Confirmed, Severity::High, reason, load.at)
    })
}
