//! Open alerts to send, and the deliveries that targets have confirmed.

use async_recursion::async_recursion as boxed;
use clickhouse::Row;
use serde::{Deserialize, Serialize};

use crate::{
    client::Warehouse,
    error::Error,
    sql::quoted,
    states::{DeliveryStatus, Severity},
};

/// An open alert that nobody has acknowledged, as it is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct Waiting {
    pub tenant: String,
    pub alert_key: String,
    /// Kind of the condition.
    pub kind: String,
    pub severity: Severity,
    /// Site; empty = several or not known.
    pub site: String,
    /// Device; empty = several or not known.
    pub device: String,
    pub title: String,
    pub sessions: u64,
    pub holds: bool,
    /// Number that an acknowledgement must cover.
    pub attention: u32,
    /// SQL that shows the rows behind the alert.
    pub evidence_query: String,
    /// Time at which it was raised, us since 1970.
    pub raised_at: i64,
}

/// A row of `alert_deliveries`: what a target has confirmed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct Delivery {
    pub target: String,
    pub tenant: String,
    pub alert_key: String,
    /// Time of the confirmation, us since 1970.
    pub delivered_at: i64,
    pub status: DeliveryStatus,
    /// Severity that was sent.
    pub severity: Severity,
    /// What it is about.
    pub kind: String,
    /// Attention that was sent.
    pub attention: u32,
    /// Stable id for other systems.
    pub fingerprint: String,
    /// Time at which the alert was raised, us since 1970.
    pub raised_at: i64,
}

impl Warehouse {
    /// Every open alert that nobody has acknowledged.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn waiting_alerts(&self) -> Result<Vec<Waiting>, Error> {
        self.rows(
            "SELECT tenant, alert_key, kind, severity, site, device, title, length(open.sessions) AS sessions, holds, \
             attention, evidence_query, toUnixTimestamp64Micro(open.raised_at) AS raised_at FROM open_alerts AS open \
             ORDER BY tenant, alert_key",
        )
        .await
    }

    /// The alerts that a target last confirmed as firing.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn told(&self, target: &str) -> Result<Vec<Delivery>, Error> {
        let target = quoted(target);
        self.rows(&format!(
            "SELECT toString(target) AS target, toString(tenant) AS tenant, alert_key, \
             toUnixTimestamp64Micro(row.delivered_at) AS delivered_at, toString(row.status) AS status, \
             toString(row.severity) AS severity, toString(row.kind) AS kind, row.attention AS attention, \
             row.fingerprint AS fingerprint, toUnixTimestamp64Micro(row.raised_at) AS raised_at \
             FROM (SELECT * FROM alert_deliveries WHERE target = {target} \
                   ORDER BY alert_deliveries.delivered_at DESC, status LIMIT 1 BY tenant, alert_key) AS row \
             WHERE row.status = 'firing' ORDER BY tenant, alert_key"
        ))
        .await
    }

    /// Records notices that a target has confirmed.
    ///
    /// # Errors
    /// As [`Warehouse::execute`].
    #[boxed]
    pub async fn record_deliveries(&self, deliveries: &[Delivery]) -> Result<(), Error> {
        self.add("alert_deliveries", deliveries).await
    }
}
