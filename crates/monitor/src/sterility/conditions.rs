//! Which alert the verdicts of one alert key raise together: pure.

use std::collections::BTreeSet;

use warehouse::verdicts::Verdict;

use crate::alerts::lifecycle::Condition;

/// Most facts that an alert shows; its query shows all.
const ROWS_MAX: usize = 100;

/// The condition that the verdicts of one alert key raise. Returns `None` if none of them holds.
pub fn condition(verdicts: &[&Verdict]) -> Option<Condition> {
    let mut holding: Vec<_> = verdicts.iter().filter(|verdict| verdict.holds()).copied().collect();
    holding.sort_unstable_by(|left, right| (&left.unit, &left.verdict_key).cmp(&(&right.unit, &right.verdict_key)));
    let first = *holding.first()?;
    // Of several verdicts with the greatest severity, the first is shown.
    let greatest = holding.iter().map(|verdict| verdict.severity).max();
    let worst = holding.iter().copied().find(|verdict| Some(verdict.severity) == greatest).unwrap_or(first);
    let all = |of: fn(&Verdict) -> &str| -> Vec<String> {
        let texts: BTreeSet<&str> = holding.iter().map(|verdict| of(verdict)).filter(|text| !text.is_empty()).collect();
        texts.into_iter().map(str::to_owned).collect()
    };
    let only = |of: fn(&Verdict) -> &str| match <[String; 1]>::try_from(all(of)) {
        Ok([text]) => text,
        Err(_) => String::new(),
    };
    let sessions: BTreeSet<&String> = holding.iter().flat_map(|verdict| &verdict.sessions).collect();
    let more = match holding.len() {
        1 => String::new(),
        2 => " (and 1 more finding)".to_owned(),
        count => format!(" (and {} more findings)", count - 1),
    };
    let rows: Vec<_> = holding.iter().take(ROWS_MAX).map(|verdict| verdict.evidence.as_str()).collect();
    Some(Condition {
        tenant: worst.tenant.clone(),
        alert_key: worst.alert_key.clone(),
        kind: format!("sterility-{}", worst.rule),
        severity: worst.severity,
        site: only(|verdict| &verdict.site),
        device: only(|verdict| &verdict.device),
        title: format!("{}{more}", worst.reason),
        sessions: sessions.into_iter().cloned().collect(),
        items: all(|verdict| &verdict.item_id),
        cycles: all(|verdict| &verdict.cycle_uid),
        evidence_query: worst.evidence_query.clone(),
        evidence_rows: format!("[{}]", rows.join(",")),
        since: holding.iter().map(|verdict| verdict.at).min().unwrap_or_default(),
        rule_version: worst.rule_version,
        parameters: worst.parameters.clone(),
        completeness: all(|verdict| &verdict.completeness).join("; "),
    })
}
