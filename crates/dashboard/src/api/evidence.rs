//! The facts that an alert was raised on, one a row, and what was told outside about it.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    endpoint::{Audience, Computed, Endpoint, Key, Parameter, Rows, Shape},
    row::row,
};

/// Most facts of an alert.
const FACTS_MAX: usize = 1_000;

row! {
    /// A fact that an alert was raised on.
    pub struct Evidence {
        /// When it happened; of a fact without a time, when the first fact of the alert happened;
        /// UTC
        at: String,
        /// Device, or sterilizer; empty = several or not known
        device: String,
        /// Session; empty = none
        session_id: String,
        /// The fact, in words
        what: String,
        /// What was measured or counted; null = nothing
        value: Option<f64>,
        /// The greatest value that is allowed, by magnitude; null = none
        limit_value: Option<f64>,
        /// Unit of both; empty = a count
        unit: String,
    }
}

/// An alert with what it was raised on.
#[derive(Debug, Deserialize)]
pub struct RaisedAlert {
    alert_key: String,
    device: String,
    since: String,
    evidence_rows: String,
    parameters: String,
}

/// Names of measured values in the facts, with their units and the names of their limits in the
/// parameters of the rule.
const MEASURED: [(&str, &str, &str); 7] = [
    ("deepest_um", "um", ""),
    ("largest_error_nl", "nl", ""),
    ("largest_error_um", "um", ""),
    ("balance_nl", "nl", ""),
    ("punctures", "", "punctures_max"),
    ("cleanings", "", "reprocessings_max"),
    ("times", "", ""),
];

impl Computed for Evidence {
    type Source = RaisedAlert;

    fn compute(sources: Vec<RaisedAlert>) -> Vec<Self> {
        sources.iter().flat_map(RaisedAlert::facts).collect()
    }
}

impl RaisedAlert {
    fn facts(&self) -> Vec<Evidence> {
        let facts: Vec<Value> = serde_json::from_str(&self.evidence_rows).unwrap_or_default();
        let mut rows = Vec::new();
        for fact in &facts {
            match fact {
                Value::Object(fact) => self.fact(fact, &mut rows),
                other => rows.push(self.said(words(other))),
            }
        }
        rows
    }

    /// A row without more than a sentence.
    fn said(&self, what: String) -> Evidence {
        Evidence {
            at: self.since.clone(),
            device: self.device.clone(),
            session_id: String::new(),
            what,
            value: None,
            limit_value: None,
            unit: String::new(),
        }
    }

    /// A row for the fact itself, and one for each session and cycle that it names.
    fn fact(&self, fact: &Map<String, Value>, rows: &mut Vec<Evidence>) {
        let mut own = Map::new();
        let mut named = Vec::new();
        for (name, value) in fact {
            match (name.as_str(), value) {
                ("sessions" | "cycles", Value::Array(values)) => {
                    named.extend(values.iter().map(|value| (singular(name), value)));
                }
                ("session" | "cycle" | "previous", Value::Object(_)) => named.push((name.as_str(), value)),
                (_, Value::Object(inner)) => own.extend(inner.clone()),
                _ => {
                    own.insert(name.clone(), value.clone());
                }
            }
        }
        if !own.is_empty() {
            rows.push(self.own(&own));
        }
        rows.extend(named.into_iter().map(|(kind, value)| self.named(kind, value)));
    }

    fn own(&self, fact: &Map<String, Value>) -> Evidence {
        let text = |name: &str| fact.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let limits: Vec<f64> =
            fact.get("limits").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_f64).collect();
        let mut row = self.said(sentence(fact));
        row.session_id =
            [text("session"), text("signal_session")].into_iter().find(|id| !id.is_empty()).unwrap_or_default();
        if let Some(at) = [text("started"), text("first")].into_iter().find(|at| !at.is_empty()) {
            row.at = at;
        }
        if !text("sterilizer").is_empty() {
            row.device = text("sterilizer");
        }
        if let Some(error) = fact.get("mean_error").and_then(Value::as_f64) {
            let unit = if self.alert_key.contains("/depth/") { "um" } else { "nl" };
            (row.value, row.unit) = (Some(error), unit.to_owned());
            if let [low, high] = limits[..] {
                row.limit_value = Some((high - low) / 2.0);
            }
        }
        let parameters: Map<String, Value> = serde_json::from_str(&self.parameters).unwrap_or_default();
        for (name, unit, limit) in MEASURED {
            if let Some(value) = fact.get(name).and_then(Value::as_f64) {
                (row.value, row.unit) = (Some(value), unit.to_owned());
                row.limit_value = parameters.get(limit).and_then(Value::as_f64);
            }
        }
        row
    }

    /// A session or cycle that a fact names.
    fn named(&self, kind: &str, value: &Value) -> Evidence {
        let Value::Object(named) = value else {
            let name = words(value);
            let session_id = if kind == "session" { name.clone() } else { String::new() };
            return Evidence { session_id, ..self.said(format!("{kind} {name}")) };
        };
        let text = |name: &str| named.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (session_id, cycle) = (text("session"), text("cycle"));
        let said: Map<_, _> = named
            .iter()
            .filter(|(name, _)| !["session", "cycle", "first", "started", "sterilizer"].contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let subject = match kind {
            "previous" => "the session before".to_owned(),
            "cycle" => format!("cycle {cycle}"),
            _ => "used in the session".to_owned(),
        };
        let at = [text("first"), text("started")].into_iter().find(|at| !at.is_empty());
        let device = Some(text("sterilizer")).filter(|device| !device.is_empty());
        let base = self.said(if said.is_empty() { subject } else { format!("{subject}: {}", sentence(&said)) });
        Evidence { at: at.unwrap_or(base.at), device: device.unwrap_or(base.device), session_id, ..base }
    }
}

fn singular(name: &str) -> &str {
    name.strip_suffix('s').unwrap_or(name)
}

/// The named values, in words; those that say nothing are left out.
fn sentence(fact: &Map<String, Value>) -> String {
    let part = |(name, value): (&String, &Value)| {
        let said = words(value);
        (!said.is_empty()).then(|| if name == "detail" { said } else { format!("{} {said}", name.replace('_', " ")) })
    };
    fact.iter().filter_map(part).collect::<Vec<_>>().join(", ")
}

fn words(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(words).collect::<Vec<_>>().join(" and "),
        Value::Number(number) => match number.as_f64() {
            Some(value) if number.is_f64() => format!("{value:.3}"),
            _ => number.to_string(),
        },
        Value::Object(object) => sentence(object),
    }
}

row! {
    /// What was told outside about an alert.
    pub struct AlertDelivery {
        /// When the other side confirmed it; UTC
        at: String,
        /// Where to: kafka or webhook
        target: String,
        /// firing or resolved
        status: String,
        /// Severity that was told
        severity: String,
        /// Stable id of the alert outside
        fingerprint: String,
        /// The alert
        alert_key: String,
    }
}

pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/tenants/{tenant}/alerts/{alert}/evidence",
        about: "The facts that an alert was raised on, in its order",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::path("tenant", "Tenant", "1"),
            Parameter::path("alert", "Key of the alert, percent-encoded", "t.alert_key = ?"),
        ],
        sql: "
            SELECT t.alert_key AS alert_key, toString(t.device) AS device, formatDateTime(t.since, '%FT%T.%fZ') AS since,
                t.evidence_rows AS evidence_rows, t.parameters AS parameters
            FROM alerts AS t FINAL
            WHERE {where}",
        shape: Shape::Computed,
        rows: Rows::computed::<Evidence>(FACTS_MAX),
    },
    Endpoint {
        path: "/tenants/{tenant}/alerts/{alert}/deliveries",
        about: "What was told outside about an alert, the latest first",
        audience: Audience::Tenants,
        parameters: &[
            Parameter::path("tenant", "Tenant", "1"),
            Parameter::path("alert", "Key of the alert, percent-encoded", "t.alert_key = ?"),
        ],
        sql: "
            SELECT formatDateTime(t.delivered_at, '%FT%T.%fZ') AS at, toString(t.target) AS target, toString(t.status) AS status,
                toString(t.severity) AS severity, t.fingerprint AS fingerprint, t.alert_key AS alert_key
            FROM alert_deliveries AS t
            WHERE {where}",
        shape: Shape::List {
            keys: &[Key::Text("at"), Key::Text("target"), Key::Text("status"), Key::Text("severity")],
            newest_first: true,
        },
        rows: Rows::of::<AlertDelivery>(),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(alert_key: &str, evidence_rows: &str, parameters: &str) -> Vec<Evidence> {
        Evidence::compute(vec![RaisedAlert {
            alert_key: alert_key.to_owned(),
            device: "pen".to_owned(),
            since: "2026-11-01T00:00:00.000000Z".to_owned(),
            evidence_rows: evidence_rows.to_owned(),
            parameters: parameters.to_owned(),
        }])
    }

    #[test]
    fn a_verdict_has_its_value_and_limit() {
        let rows = facts(
            "accuracy-verdict/t/pen/dose/10000",
            r#"[{"calibration":"c1","k":2.2887,"limits":[9500.0,10500.0],"mean_error":275.89,"n":1053,"sessions":61}]"#,
            "{}",
        );
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].value, rows[0].limit_value, rows[0].unit.as_str()), (Some(275.89), Some(500.0), "nl"));
        let said = "calibration c1, k 2.289, limits 9500.000 and 10500.000, mean error 275.890, n 1053, sessions 61";
        assert_eq!(rows[0].what, said);
        let punctures = facts("sterility-11/t/x", r#"[{"mount":"m1","punctures":31}]"#, r#"{"punctures_max":30}"#);
        assert_eq!((punctures[0].value, punctures[0].limit_value), (Some(31.0), Some(30.0)));
    }

    #[test]
    fn each_session_and_cycle_is_a_row() {
        let rows = facts(
            "sterility-4/t/x",
            r#"[{"cycles":[{"cycle":"c7","outcome":"FAILED","recalled_by":[],"release":"RELEASED","started":"2026-11-25T02:00:00Z",
                "sterilizer":"ster","wet":false}],
                "previous":{"first":"2026-11-24T11:21:51Z","last":"2026-11-24T11:27:44Z","session":"s1"},
                "session":{"first":"2026-11-27T08:19:03Z","last":"2026-11-27T08:23:46Z","session":"s2"}}]"#,
            "{}",
        );
        let shown: Vec<_> = rows
            .iter()
            .map(|row| (row.at.as_str(), row.device.as_str(), row.session_id.as_str(), row.what.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                ("2026-11-25T02:00:00Z", "ster", "", "cycle c7: outcome FAILED, release RELEASED, wet no"),
                ("2026-11-24T11:21:51Z", "pen", "s1", "the session before: last 2026-11-24T11:27:44Z"),
                ("2026-11-27T08:19:03Z", "pen", "s2", "used in the session: last 2026-11-27T08:23:46Z"),
            ]
        );
        assert_eq!(facts("x", r#"[{"sessions":["s1","s2"]}]"#, "{}")[1].session_id, "s2");
        assert!(facts("x", "no JSON", "").is_empty());
    }
}
