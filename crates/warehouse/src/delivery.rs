//! What has arrived and what is missing, for programs. People query the views themselves.

use async_recursion::async_recursion as boxed;
use serde::Deserialize;

use crate::{client::Warehouse, error::Error};

/// Which devices a query covers; an empty field = all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    pub tenant: String,
    /// One device of the tenant.
    pub device: String,
}

/// A row of `delivery_gaps`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Gap {
    pub tenant: String,
    /// Site from which the boot's latest report came.
    pub site: String,
    pub device: String,
    pub boot_id: u64,
    /// First missing sequence number.
    pub first_missing: u64,
    /// Last missing sequence number, inclusive.
    pub last_missing: u64,
    /// `OPEN` or `LOST`.
    pub state: String,
    /// Time at which something was first known to be missing here, us since 1970.
    pub since: i64,
}

/// A row of `delivery_completeness`, without the lifetime counter.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Balance {
    pub tenant: String,
    /// Site from which the boot's latest report came.
    pub site: String,
    pub device: String,
    pub boot_id: u64,
    /// Events that the device is known to have made.
    pub made: u64,
    pub stored: u64,
    pub quarantined: u64,
    pub lost: u64,
    pub missing: u64,
    /// Whether `made` is exact; otherwise it is a lower bound.
    pub tail_known: bool,
}

impl Warehouse {
    /// Gaps in a scope that were first known at `until_us` (us since 1970) or earlier, ordered by
    /// boot and number. A reader can leave out the last seconds, because reports that overtake each
    /// other open gaps for a moment.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn gaps(&self, scope: &Scope, until_us: i64) -> Result<Vec<Gap>, Error> {
        let sql = "SELECT toString(tenant) AS tenant, site, toString(device) AS device, boot_id, first_missing, \
                   last_missing, state, toUnixTimestamp64Micro(gaps.since) AS since \
                   FROM delivery_gaps AS gaps \
                   WHERE (? = '' OR gaps.tenant = ?) AND (? = '' OR gaps.device = ?) \
                   AND toUnixTimestamp64Micro(gaps.since) <= ? \
                   ORDER BY tenant, device, boot_id, first_missing";
        self.fetch(self.scoped(sql, scope).bind(until_us)).await
    }

    /// The balance of every boot in a scope, ordered by device and boot.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn balances(&self, scope: &Scope) -> Result<Vec<Balance>, Error> {
        let sql = "SELECT toString(boots.tenant) AS tenant, site, toString(boots.device) AS device, boot_id, made, \
                   stored, quarantined, lost, missing, CAST(tail_known AS Bool) AS tail_known \
                   FROM delivery_completeness AS boots \
                   WHERE (? = '' OR boots.tenant = ?) AND (? = '' OR boots.device = ?) ORDER BY tenant, device, boot_id";
        self.fetch(self.scoped(sql, scope)).await
    }

    fn scoped(&self, sql: &str, scope: &Scope) -> clickhouse::query::Query {
        let Scope { tenant, device } = scope;
        self.query(sql).bind(tenant).bind(tenant).bind(device).bind(device)
    }
}
