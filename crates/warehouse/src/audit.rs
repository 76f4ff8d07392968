//! The audit: what people did, and what became of the commands that they gave.

use async_recursion::async_recursion as boxed;
use clickhouse::Row;
use serde::{Deserialize, Serialize};

use crate::{client::Warehouse, error::Error, sql::list};

/// A row of the view `audit_trail`.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct Entry {
    /// Tenant; empty = every tenant, or none is named.
    pub tenant: String,
    /// When it was done, us since 1970.
    pub given_at: i64,
    /// Who; empty = it was not recorded.
    pub author: String,
    pub role: String,
    /// What was to be done, for example `acknowledge_alert`.
    pub action: String,
    /// What it is about.
    pub subject: String,
    /// What exactly was to be done, JSON; empty = it was not recorded.
    pub content: String,
    pub idempotency_key: String,
    /// `APPLIED`, `REPEATED`, `REFUSED` or `UNLOGGED`.
    pub outcome: String,
    /// Why it was refused; empty = it was not.
    pub reason: String,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq, Row, Deserialize)]
pub struct Outcome {
    pub idempotency_key: String,
    /// When it was given, us since 1970.
    pub given_at: i64,
    /// `APPLIED`, `REPEATED` or `REFUSED`.
    pub outcome: String,
    /// Why it was refused; empty = it was not.
    pub reason: String,
}

impl Warehouse {
    /// What people did since a time (us since 1970), the latest first, at most `limit` entries. An
    /// empty `tenant` = of all tenants.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn audit(&self, tenant: &str, since_us: i64, limit: u64) -> Result<Vec<Entry>, Error> {
        let sql = format!(
            "SELECT entry.tenant AS tenant, toUnixTimestamp64Micro(entry.given_at) AS given_at, author, role, action, \
             subject, content, idempotency_key, outcome, reason FROM audit_trail AS entry \
             WHERE ? IN ('', entry.tenant) AND entry.given_at >= fromUnixTimestamp64Micro(?) \
             ORDER BY entry.given_at DESC, tenant, action, subject LIMIT {limit}"
        );
        self.fetch(self.query(&sql).bind(tenant).bind(since_us)).await
    }

    /// What became of commands of a tenant: those of these idempotency keys whose batches are
    /// committed, so that every table holds what they mean. `topic` is the Kafka topic. A key that
    /// was used several times has several outcomes.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn outcomes(&self, topic: &str, tenant: &str, keys: &[String]) -> Result<Vec<Outcome>, Error> {
        let keys = list(keys.iter().map(String::as_str));
        let sql = format!(
            "SELECT idempotency_key, toUnixTimestamp64Micro(audit.given_at) AS given_at, toString(audit.outcome) AS outcome, audit.reason AS reason FROM audit \
             INNER JOIN ( \
                 SELECT incarnation, kafka_partition, max(batch_end) AS position FROM loader_commits \
                 WHERE kind = 'commit' AND incarnation IN (SELECT incarnation FROM kafka_topics WHERE topic = ?) \
                 GROUP BY incarnation, kafka_partition \
             ) AS committed USING (incarnation, kafka_partition) \
             WHERE audit.tenant = ? AND idempotency_key IN {keys} AND kafka_offset < position \
             ORDER BY incarnation, kafka_offset"
        );
        self.fetch(self.query(&sql).bind(topic).bind(tenant)).await
    }
}
