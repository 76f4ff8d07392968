//! What becomes of an alert: pure.
//!
//! Each condition has one alert. The alert is raised when the condition begins to hold, changes
//! with it, and is cleared when the condition holds no longer. A critical alert is latched: it is
//! cleared only after a person has acknowledged it. An acknowledgement covers the `attention` that
//! the alert had by then. `attention` rises if a further session is affected, if the severity
//! rises, or if the condition holds again; other changes leave it. Every change is recorded as an
//! event.

use warehouse::{
    alerts::{Alert, AlertEvent},
    states::{AlertChange, AlertState, Severity},
};

/// A condition that holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    pub tenant: String,
    pub alert_key: String,
    /// Kind of alert, for example `drift`.
    pub kind: String,
    pub severity: Severity,
    /// Site; empty = several.
    pub site: String,
    /// Device; empty = several.
    pub device: String,
    pub title: String,
    /// Sessions affected, ascending.
    pub sessions: Vec<String>,
    pub items: Vec<String>,
    pub cycles: Vec<String>,
    /// SQL that shows the rows behind it.
    pub evidence_query: String,
    /// The facts behind it, JSON array.
    pub evidence_rows: String,
    /// Time of its first fact, us since 1970.
    pub since: i64,
    /// Version of the rules.
    pub rule_version: u32,
    /// Limits that were used, JSON.
    pub parameters: String,
    /// What was known to be missing; empty = nothing.
    pub completeness: String,
}

/// The next state of an alert, and the event to record with it. Returns `None` if nothing changes.
/// `acknowledged` is the greatest `attention` that a person has acknowledged. `condition` is what
/// holds now.
pub fn advance(
    previous: Option<&Alert>,
    acknowledged: u32,
    condition: Option<&Condition>,
    now_us: i64,
) -> Option<(Alert, AlertEvent)> {
    let (alert, event) = match (previous, condition) {
        (None, None) => return None,
        (Some(previous), None) => end(previous, acknowledged)?,
        (Some(previous), Some(condition)) if previous.state == AlertState::Open => change(previous, condition)?,
        (previous, Some(condition)) => raise(previous, condition, now_us),
    };
    let alert = Alert { computed_at: now_us, ..alert };
    let event = AlertEvent {
        tenant: alert.tenant.clone(),
        alert_key: alert.alert_key.clone(),
        at: now_us,
        event,
        actor: String::new(),
        kind: alert.kind.clone(),
        severity: alert.severity,
        holds: alert.holds,
        attention: alert.attention,
        sessions: alert.sessions.clone(),
        note: alert.title.clone(),
        evidence_rows: alert.evidence_rows.clone(),
    };
    Some((alert, event))
}

fn raise(previous: Option<&Alert>, condition: &Condition, now_us: i64) -> (Alert, AlertChange) {
    let attention = previous.map_or(0, |previous| previous.attention) + 1;
    (Alert { attention, raised_at: now_us, ..written(condition) }, AlertChange::Raised)
}

fn change(previous: &Alert, condition: &Condition) -> Option<(Alert, AlertChange)> {
    let mut alert = written(condition);
    // An open alert keeps its greatest severity, also if later data would lower it.
    alert.severity = alert.severity.max(previous.severity);
    let spreads = alert.sessions.iter().any(|session| !previous.sessions.contains(session));
    let escalates = alert.severity > previous.severity;
    alert.attention = previous.attention + u32::from(spreads || escalates || !previous.holds);
    alert.raised_at = previous.raised_at;
    let plain = |alert: &Alert| Alert { computed_at: 0, completeness: String::new(), ..alert.clone() };
    (plain(&alert) != plain(previous)).then_some((alert, AlertChange::Changed))
}

fn end(previous: &Alert, acknowledged: u32) -> Option<(Alert, AlertChange)> {
    let is_latched = previous.severity == Severity::Critical && acknowledged < previous.attention;
    let gone = Alert { holds: false, ..previous.clone() };
    match (previous.state, is_latched) {
        (AlertState::Open, false) => Some((Alert { state: AlertState::Cleared, ..gone }, AlertChange::Cleared)),
        (AlertState::Open, true) if previous.holds => Some((gone, AlertChange::Retracted)),
        _ => None,
    }
}

fn written(condition: &Condition) -> Alert {
    let Condition { tenant, alert_key, kind, severity, site, device, title, .. } = condition.clone();
    let Condition { sessions, items, cycles, evidence_query, evidence_rows, .. } = condition.clone();
    let Condition { since, rule_version, parameters, completeness, .. } = condition.clone();
    Alert {
        tenant,
        alert_key,
        kind,
        severity,
        state: AlertState::Open,
        holds: true,
        attention: 1,
        site,
        device,
        title,
        sessions,
        items,
        cycles,
        evidence_query,
        evidence_rows,
        since,
        raised_at: 0,
        rule_version,
        parameters,
        completeness,
        computed_at: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(severity: Severity, sessions: &[&str]) -> Condition {
        Condition {
            alert_key: "k".to_owned(),
            severity,
            sessions: sessions.iter().map(|session| (*session).to_owned()).collect(),
            ..Condition::default()
        }
    }

    /// Plays conditions and acknowledgements one after the other. Returns the events and the last
    /// alert.
    fn play(steps: &[(Option<Condition>, bool)]) -> (Vec<AlertChange>, Option<Alert>) {
        let (mut alert, mut acknowledged, mut events) = (None::<Alert>, 0, Vec::new());
        for (at, (condition, acknowledge)) in steps.iter().enumerate() {
            if let Some((next, event)) = advance(alert.as_ref(), acknowledged, condition.as_ref(), at as i64 + 1) {
                events.push(event.event);
                alert = Some(next);
            }
            if *acknowledge {
                acknowledged = alert.as_ref().map_or(0, |alert| alert.attention);
            }
        }
        (events, alert)
    }

    #[test]
    fn a_condition_raises_one_alert_however_often_it_is_evaluated() {
        let holds = || (Some(condition(Severity::High, &["a"])), false);
        let (events, alert) = play(&[holds(), holds(), holds()]);
        assert_eq!(events, [AlertChange::Raised]);
        assert_eq!(alert.map(|alert| (alert.attention, alert.raised_at)), Some((1, 1)));
    }

    #[test]
    fn a_critical_alert_stays_until_it_is_acknowledged() {
        let holds = (Some(condition(Severity::Critical, &["a"])), false);
        let (events, alert) = play(&[holds.clone(), (None, false), (None, false)]);
        assert_eq!(events, [AlertChange::Raised, AlertChange::Retracted]);
        assert_eq!(alert.map(|alert| (alert.state, alert.holds)), Some((AlertState::Open, false)));
        let (events, alert) = play(&[holds, (None, true), (None, false)]);
        assert_eq!(events, [AlertChange::Raised, AlertChange::Retracted, AlertChange::Cleared]);
        assert_eq!(alert.map(|alert| alert.state), Some(AlertState::Cleared));
    }

    #[test]
    fn an_acknowledgement_covers_what_stood_then() {
        let acknowledged = (Some(condition(Severity::Critical, &["a"])), true);
        let (events, alert) =
            play(&[acknowledged.clone(), (Some(condition(Severity::Critical, &["a", "b"])), false), (None, false)]);
        assert_eq!(
            events,
            [AlertChange::Raised, AlertChange::Changed, AlertChange::Retracted],
            "another session is affected"
        );
        assert_eq!(alert.map(|alert| alert.attention), Some(2));
        let (_, alert) = play(&[(Some(condition(Severity::High, &["a"])), true), acknowledged]);
        assert_eq!(alert.map(|alert| alert.attention), Some(2), "it got worse");
    }

    #[test]
    fn a_lesser_alert_ends_with_its_condition_and_says_so() {
        let holds = || (Some(condition(Severity::Medium, &["a"])), false);
        let (events, alert) = play(&[holds(), (None, false), (None, false), holds()]);
        assert_eq!(events, [AlertChange::Raised, AlertChange::Cleared, AlertChange::Raised]);
        assert_eq!(alert.map(|alert| (alert.attention, alert.raised_at)), Some((2, 4)));
    }

    #[test]
    fn severity_never_falls_while_it_is_open() {
        let step = |severity| (Some(condition(severity, &["a"])), false);
        let (events, alert) = play(&[step(Severity::Critical), step(Severity::Low), (None, false)]);
        assert_eq!(events, [AlertChange::Raised, AlertChange::Retracted]);
        assert_eq!(alert.map(|alert| alert.severity), Some(Severity::Critical));
    }
}
