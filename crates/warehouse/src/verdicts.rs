//! The monitor's verdicts about sterility: one row for each finding, and one more for each change
//! of it.

use async_recursion::async_recursion as boxed;
use clickhouse::{Row, RowOwned, RowWrite};
use serde::{Deserialize, Serialize};

use crate::{
    client::{Answer, Warehouse},
    error::Error,
    sql::{Scope, list},
    states::{Severity, VerdictState},
};

/// What one rule says about one unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct Verdict {
    pub tenant: String,
    /// The unit that was judged as a whole: `item/ID`, `mount/DEVICE/ID`, `session/ID` or
    /// `sterilizer/DEVICE`.
    pub unit: String,
    /// Key within the unit: the rule, and whatever else distinguishes the finding.
    pub verdict_key: String,
    /// Alert that the verdict belongs to; empty = none.
    pub alert_key: String,
    /// Sterility rule, 1..=12; 0 = a verdict about a cycle.
    pub rule: u8,
    pub state: VerdictState,
    pub severity: Severity,
    pub site: String,
    /// The device or sterilizer.
    pub device: String,
    /// The item; empty = none.
    pub item_id: String,
    /// The mount; empty = none.
    pub mount_id: String,
    /// The cycle; empty = none.
    pub cycle_uid: String,
    /// Product and lot, or mixture; empty = none.
    pub lot: String,
    /// Sessions affected, ascending.
    pub sessions: Vec<String>,
    /// Time of the first fact behind it, us since 1970.
    pub at: i64,
    /// Time at which it changes without new data, us since 1970; 0 = never.
    pub decide_at: i64,
    pub reason: String,
    pub evidence: String,
    /// SQL that shows the rows behind the verdict.
    pub evidence_query: String,
    /// Version of the rules.
    pub rule_version: u32,
    /// Limits that were used, JSON.
    pub parameters: String,
    /// What was known to be missing at that time.
    pub completeness: String,
    /// Time of the computation, us since 1970.
    pub computed_at: i64,
}

impl Verdict {
    /// Whether two are equal except for the time of computation and what was missing then.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let plain = |verdict: &Self| Self { computed_at: 0, completeness: String::new(), ..verdict.clone() };
        plain(self) == plain(other)
    }

    /// Whether it shows a breach, or cannot exclude one.
    pub fn holds(&self) -> bool {
        matches!(self.state, VerdictState::Confirmed | VerdictState::Indeterminate)
    }
}

const COLUMNS: &str = "tenant, unit, verdict_key, alert_key, rule, state, severity, site, device, item_id, mount_id, \
                       cycle_uid, lot, sessions, toUnixTimestamp64Micro(verdict.at) AS at, \
                       toUnixTimestamp64Micro(verdict.decide_at) AS decide_at, reason, evidence, evidence_query, \
                       rule_version, parameters, completeness, toUnixTimestamp64Micro(verdict.computed_at) AS computed_at";

impl Warehouse {
    /// The latest verdicts about units of one kind (`item`, `mount`, `session` or `sterilizer`),
    /// chosen by the rest of their names.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub fn verdicts_of_units<'a>(&'a self, kind: &'a str, scope: Scope<'a>) -> Answer<'a, Vec<Verdict>> {
        Box::pin(async move {
            let name = format!("substring(unit, {})", kind.len() + 2);
            self.verdicts(&format!("startsWith(unit, '{kind}/') AND {}", scope.filter(&name))).await
        })
    }

    /// The latest verdicts that belong to alerts.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn verdicts_of_alerts(&self, alert_keys: &[String]) -> Result<Vec<Verdict>, Error> {
        let keys = list(alert_keys.iter().map(String::as_str));
        self.verdicts(&format!("alert_key IN {keys}")).await
    }

    /// The latest verdicts that concern a session, item or cycle.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn verdicts_about(&self, tenant: &str, subject: &str) -> Result<Vec<Verdict>, Error> {
        let (tenant, subject) = (crate::sql::quoted(tenant), crate::sql::quoted(subject));
        self.verdicts(&format!(
            "tenant = {tenant} AND (has(sessions, {subject}) OR item_id = {subject} OR cycle_uid = {subject} \
             OR lot = {subject} OR endsWith(lot, concat('/', {subject})))"
        ))
        .await
    }

    async fn verdicts(&self, filter: &str) -> Result<Vec<Verdict>, Error> {
        let sql = format!(
            "SELECT {COLUMNS} FROM (SELECT * FROM sterility_verdicts FINAL WHERE {filter}) AS verdict \
             ORDER BY tenant, unit, verdict_key"
        );
        self.rows(&sql).await
    }

    /// Units with a pending verdict, each with the time at which it is decided without new data (0
    /// = only new data decides it).
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn pending_units(&self) -> Result<Vec<(String, i64)>, Error> {
        let sql = "SELECT unit, toUnixTimestamp64Micro(min(decide_at)) FROM sterility_verdicts FINAL \
                   WHERE state = 'PENDING' GROUP BY unit";
        self.rows(sql).await
    }

    /// Whether there are verdicts, and all of the latest ones are of this version of the rules. If
    /// not, the monitor evaluates everything.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn verdicts_are_current(&self, rule_version: u32) -> Result<bool, Error> {
        let sql = format!(
            "SELECT count() > 0 AND countIf(rule_version != {rule_version}) = 0 FROM \
                           (SELECT rule_version FROM sterility_verdicts FINAL WHERE state != 'CLEARED')"
        );
        Ok(self.row::<u8>(&sql).await? != 0)
    }

    /// Adds verdicts. The latest row of a key is the one that holds.
    ///
    /// # Errors
    /// As [`Warehouse::execute`].
    #[boxed]
    pub async fn add_verdicts(&self, verdicts: &[Verdict]) -> Result<(), Error> {
        self.add("sterility_verdicts", verdicts).await
    }

    /// Inserts rows that may be inserted twice without harm.
    pub(crate) async fn add<T>(&self, table: &str, rows: &[T]) -> Result<(), Error>
    where
        T: RowOwned + RowWrite,
    {
        if rows.is_empty() {
            return Ok(());
        }
        let options = self.options();
        let written = async {
            let mut insert = self
                .client()
                .insert::<T>(table)
                .await?
                .with_setting("async_insert", "0")
                .with_setting("wait_end_of_query", "1")
                .with_timeouts(Some(options.send_timeout), Some(options.receive_timeout));
            for row in rows {
                insert.write(row).await?;
            }
            insert.end().await
        };
        written.await.map_err(|error| self.error(error))
    }
}
