//! Which tables get new rows, and of which tenants: for pages that are told when to ask again.
//!
//! A look costs one digest of the list of parts while nothing is inserted or merged.

use async_recursion::async_recursion as boxed;
use std::collections::BTreeSet;

use crate::{
    changes::{Part, Seen},
    client::Warehouse,
    error::Error,
    horizon::Horizon,
    schema::{Kind, RELATIONS},
};

/// Most tenants that a look tells of, for each table.
const TENANTS_MAX: usize = 10_000;
/// The monitor names no batch in its rows. Where a merge has joined new rows with earlier ones,
/// those count as new whose time is this recent: longer than a pass takes.
const LATELY: &str = ">= now64(6) - 600";

/// The monitor writes it beside the loader.
const HISTORY: &str = "alert_history";

/// A table with new rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub table: &'static str,
    /// The tenants of the new rows. Rows without a tenant add none.
    pub tenants: BTreeSet<String>,
}

/// How far a watcher has seen some tables.
#[derive(Debug)]
pub struct Watch {
    /// Tables whose rows name their batch.
    loaded: Vec<&'static str>,
    /// Tables of the monitor.
    computed: Vec<&'static str>,
    seen: Seen,
    since: Horizon,
    digest: u64,
}

impl Watch {
    /// Begins to watch tables: rows that are there now are no change.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn begin(warehouse: &Warehouse, tables: &[&'static str]) -> Result<Self, Error> {
        let is_computed = |table: &&str| RELATIONS.iter().any(|(name, kind)| name == table && *kind == Kind::Monitor);
        let (computed, loaded): (Vec<_>, Vec<_>) = tables.iter().copied().partition(is_computed);
        let digest = warehouse.parts_digest().await?;
        let since = warehouse.commits().await?;
        let mut seen = Seen::default();
        seen.see(&warehouse.parts(tables).await?);
        Ok(Self { loaded, computed, seen, since, digest })
    }

    /// What has changed since the last look, or since the begin. It may name a change twice.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`]; the next look finds what this one would have found.
    #[boxed]
    pub async fn look(&mut self, warehouse: &Warehouse) -> Result<Vec<Change>, Error> {
        let digest = warehouse.parts_digest().await?;
        if digest == self.digest {
            return Ok(Vec::new());
        }
        let since = warehouse.commits().await?;
        let tables = [self.loaded.as_slice(), &self.computed].concat();
        let parts = warehouse.parts(&tables).await?;
        let loaded = self.seen.news(&parts, Some(&self.since));
        let computed = self.seen.news_where(&parts, format!("computed_at {LATELY}"));
        let said = self.seen.news_where(&parts, format!("at {LATELY}"));
        let mut changes = Vec::new();
        for (tables, news) in [(&self.loaded, &loaded), (&self.computed, &computed)] {
            for table in tables.iter().copied().filter(|table| news.concerns(table)) {
                let news = if table == HISTORY { &said } else { news };
                let tenants = warehouse.texts(news, table, "tenant", TENANTS_MAX).await?;
                changes.push(Change { table, tenants: tenants.into_iter().collect() });
            }
        }
        // A part that was merged before its rows were read has shown none. The next look reads them
        // in the merged part.
        let now = warehouse.parts(&tables).await?;
        let is_there = |part: &Part| now.iter().any(|other| (&other.table, &other.name) == (&part.table, &part.name));
        if loaded.parts().all(is_there) {
            self.seen.see(&parts);
            (self.since, self.digest) = (since, digest);
        }
        Ok(changes)
    }
}
