//! Alerts, and what people did about them.

use async_recursion::async_recursion as boxed;
use clickhouse::Row;
use serde::{Deserialize, Serialize};
use telemetry::commands::AcknowledgeAlert;

use crate::{
    client::Warehouse,
    error::Error,
    sql::{list, quoted},
    states::{AlertChange, AlertState, Severity},
};

/// An alert, as the monitor last wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct Alert {
    pub tenant: String,
    /// Stable key of the alert's condition.
    pub alert_key: String,
    /// Kind of the condition, for example `sterility-2`.
    pub kind: String,
    pub severity: Severity,
    pub state: AlertState,
    /// Whether the condition holds by all data that has arrived.
    pub holds: bool,
    /// A number that rises whenever there is something new to acknowledge.
    pub attention: u32,
    pub site: String,
    pub device: String,
    pub title: String,
    /// Sessions affected, ascending.
    pub sessions: Vec<String>,
    pub items: Vec<String>,
    pub cycles: Vec<String>,
    /// SQL that shows the rows behind the alert.
    pub evidence_query: String,
    /// The facts behind the alert, as a JSON array.
    pub evidence_rows: String,
    /// Time of the first of these facts, us since 1970.
    pub since: i64,
    /// Time at which it was raised, us since 1970.
    pub raised_at: i64,
    /// Version of the rules.
    pub rule_version: u32,
    /// Limits that were used, JSON.
    pub parameters: String,
    /// What was known to be missing at that time.
    pub completeness: String,
    /// Time of the computation, us since 1970.
    pub computed_at: i64,
}

impl Alert {
    /// The acknowledgement of the alert in its present state.
    pub fn acknowledgement(self, note: String) -> AcknowledgeAlert {
        let Self { alert_key, kind, severity, holds, attention, sessions, evidence_rows, .. } = self;
        let severity = severity.to_string();
        AcknowledgeAlert { alert_key, attention, note, alert_kind: kind, severity, holds, sessions, evidence_rows }
    }
}

/// An entry of an alert's history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct AlertEvent {
    pub tenant: String,
    pub alert_key: String,
    /// Time of the entry, us since 1970.
    pub at: i64,
    pub event: AlertChange,
    /// Who; empty = the monitor.
    pub actor: String,
    /// Kind of the condition.
    pub kind: String,
    pub severity: Severity,
    /// Whether the condition held then.
    pub holds: bool,
    /// The alert's `attention` at that time. An acknowledgement covers numbers up to it.
    pub attention: u32,
    /// Sessions affected then.
    pub sessions: Vec<String>,
    /// The alert's title, or the person's note.
    pub note: String,
    /// The facts at that time, as a JSON array.
    pub evidence_rows: String,
}

/// An open alert that nobody has acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct OpenAlert {
    pub tenant: String,
    pub alert_key: String,
    pub severity: Severity,
    /// What it is about.
    pub kind: String,
    pub site: String,
    pub device: String,
    pub title: String,
    pub holds: bool,
    pub sessions: u64,
    /// Time at which it was raised, us since 1970.
    pub raised_at: i64,
}

const COLUMNS: &str = "tenant, alert_key, kind, severity, state, holds, attention, site, device, title, sessions, items, \
                       cycles, evidence_query, evidence_rows, toUnixTimestamp64Micro(alert.since) AS since, \
                       toUnixTimestamp64Micro(alert.raised_at) AS raised_at, rule_version, parameters, completeness, \
                       toUnixTimestamp64Micro(alert.computed_at) AS computed_at";

impl Warehouse {
    /// Alerts with these keys, of all tenants.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn alerts(&self, keys: &[String]) -> Result<Vec<Alert>, Error> {
        let keys = list(keys.iter().map(String::as_str));
        self.rows(&format!("SELECT {COLUMNS} FROM (SELECT * FROM alerts FINAL WHERE alert_key IN {keys}) AS alert"))
            .await
    }

    /// Up to which `attention` each alert is acknowledged, as (tenant, key, attention).
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn acknowledged(&self, keys: &[String]) -> Result<Vec<(String, String, u32)>, Error> {
        let keys = list(keys.iter().map(String::as_str));
        self.rows(&format!(
            "SELECT toString(tenant), alert_key, max(attention) FROM alert_history \
             WHERE event = 'ACKNOWLEDGED' AND alert_key IN {keys} GROUP BY tenant, alert_key"
        ))
        .await
    }

    /// Keys of open alerts whose condition no longer holds and that a person has acknowledged.
    /// Nothing but their severity kept them open.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn alerts_to_clear(&self) -> Result<Vec<String>, Error> {
        let sql = "SELECT DISTINCT alert_key FROM alerts FINAL WHERE state = 'OPEN' AND NOT holds \
                   AND (tenant, alert_key, attention) IN \
                     (SELECT tenant, alert_key, max(attention) FROM alert_history WHERE event = 'ACKNOWLEDGED' \
                      GROUP BY tenant, alert_key)";
        self.rows(sql).await
    }

    /// Writes alerts and the entries of their history. The history comes first, so that no alert
    /// changes without an entry.
    ///
    /// # Errors
    /// As [`Warehouse::execute`].
    #[boxed]
    pub async fn write_alerts(&self, alerts: &[Alert], events: &[AlertEvent]) -> Result<(), Error> {
        self.add("alert_history", events).await?;
        self.add("alerts", alerts).await
    }

    /// Open alerts that nobody has acknowledged, the most severe first; `tenant` empty = all.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn open_alerts(&self, tenant: &str) -> Result<Vec<OpenAlert>, Error> {
        let tenant = quoted(tenant);
        self.rows(&format!(
            "SELECT tenant, alert_key, severity, kind, site, device, title, holds, length(open.sessions) AS sessions, \
             toUnixTimestamp64Micro(open.raised_at) AS raised_at FROM open_alerts AS open \
             WHERE {tenant} IN ('', tenant) \
             ORDER BY indexOf(['critical', 'high', 'medium', 'low'], severity), open.raised_at, alert_key"
        ))
        .await
    }
}
