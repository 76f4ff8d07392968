//! Finds what has changed in the warehouse since a pass last finished, and records how far it has
//! read.
//!
//! Each half of the monitor has a [`Reader`]. It compares the parts of the tables with those it has
//! seen, and asks which units the new parts concern ([`Units`]).

use std::collections::{BTreeSet, HashSet};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use warehouse::{
    Error, Warehouse,
    changes::{News, Seen},
    horizon::Horizon,
    sql::IDS_MAX,
};

/// Most changed units that are evaluated one by one. With more, everything is evaluated in slices.
pub const CHANGED_MAX: usize = 20_000;
/// Rows of one slice when everything is evaluated. This bounds memory.
pub const SLICE_ROWS: u64 = 200_000;
/// Attempts to read a set of parts before a merge replaces one of them.
const TRIES: usize = 5;
/// Most bytes of a recorded position. A longer one is not recorded, and everything is evaluated
/// after a restart.
const RECORD_BYTES_MAX: usize = 16 << 20;
/// Time between two records of the position, us. After a restart, changes since the last record are
/// evaluated again.
const RECORD_US: i64 = 60_000_000;

/// The units that one half of the monitor evaluates.
pub trait Units: Clone + Default + Send + Serialize + DeserializeOwned {
    /// Number of units.
    fn count(&self) -> usize;
    /// Adds the units of another set.
    fn add(&mut self, other: Self);
    /// The units that new parts of tables concern.
    fn concerned(warehouse: &Warehouse, news: &News<'_>) -> impl Future<Output = Result<Self, Error>> + Send;
    /// The units with rows of batches that are not committed yet. More than [`CHANGED_MAX`] units
    /// may be an incomplete set.
    fn uncommitted(warehouse: &Warehouse, horizon: &Horizon) -> impl Future<Output = Result<Self, Error>> + Send;
}

/// How far a reader has read; recorded after a pass.
#[derive(Default, Serialize, Deserialize)]
struct Position<U> {
    /// The limits that verdicts were judged by, JSON.
    limits: String,
    seen: Seen,
    /// How far batches were committed when the tables were read.
    #[serde(default)]
    since: Option<Horizon>,
    /// Units with rows of batches that were not committed.
    uncommitted: U,
    /// Whether everything has been evaluated, except what `uncommitted` names.
    begun: bool,
}

/// What a pass has to evaluate.
pub struct Changes<U> {
    seen: Seen,
    has_news: bool,
    /// Units that the changes concern; none = everything.
    pub units: Option<U>,
}

/// Finds changes for one half of the monitor.
pub struct Reader<U> {
    warehouse: Warehouse,
    /// Name in `monitor_positions`.
    name: &'static str,
    /// Tables that are looked at for changes.
    tables: Vec<&'static str>,
    /// The tables among them of which a change concerns every unit.
    registries: &'static [&'static str],
    limits: String,
    position: Option<Position<U>>,
    recorded_at: i64,
}

impl<U: Units> Reader<U> {
    /// Reads nothing yet. A change of `limits` makes the next pass evaluate everything.
    pub fn new(
        warehouse: Warehouse,
        name: &'static str,
        facts: &[&'static str],
        registries: &'static [&'static str],
        limits: String,
    ) -> Self {
        let tables = facts.iter().chain(registries).copied().collect();
        Self { warehouse, name, tables, registries, limits, position: None, recorded_at: 0 }
    }

    /// Forgets what has been seen: the next pass evaluates everything.
    pub fn start_over(&mut self) {
        self.position = Some(Position::default());
    }

    /// The changes since the last finished pass. `is_current`: whether the stored verdicts come
    /// from the present version of the rules.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub async fn changes(
        &mut self,
        is_current: impl Future<Output = Result<bool, Error>>,
    ) -> Result<Changes<U>, Error> {
        let position = match self.position.take() {
            Some(position) => position,
            None if is_current.await? => self.stored().await?,
            None => Position::default(),
        };
        let position = self.position.insert(position);
        for _ in 0..TRIES {
            let parts = self.warehouse.parts(&self.tables).await?;
            let news = position.seen.news(&parts, position.since.as_ref());
            let mut seen = position.seen.clone();
            seen.see(&parts);
            let has_news = !news.is_empty();
            if !position.begun || self.registries.iter().any(|table| news.concerns(table)) {
                return Ok(Changes { seen, has_news, units: None });
            }
            let mut units = U::concerned(&self.warehouse, &news).await?;
            if units.count() > CHANGED_MAX {
                return Ok(Changes { seen, has_news, units: None });
            }
            // A part that a merge has replaced was not read.
            let there = self.warehouse.parts(&self.tables).await?;
            let there: HashSet<_> = there.iter().map(|part| (&part.table, &part.name)).collect();
            if news.parts().all(|part| there.contains(&(&part.table, &part.name))) {
                units.add(position.uncommitted.clone());
                return Ok(Changes { seen, has_news, units: Some(units) });
            }
        }
        let mut seen = position.seen.clone();
        seen.see(&self.warehouse.parts(&self.tables).await?);
        Ok(Changes { seen, has_news: true, units: None })
    }

    async fn stored(&self) -> Result<Position<U>, Error> {
        let stored = self.warehouse.monitor_position(self.name).await?;
        let stored: Option<Position<U>> = stored.and_then(|stored| serde_json::from_str(&stored).ok());
        Ok(stored.filter(|position| position.limits == self.limits).unwrap_or_default())
    }

    /// Ends a pass that has read up to a horizon: its changes count as seen. Units with rows beyond
    /// the horizon are evaluated in every pass until these rows are committed.
    ///
    /// # Errors
    /// As [`Warehouse::execute`]; the next pass finds the same changes.
    pub async fn finish(&mut self, changes: Changes<U>, horizon: &Horizon, now: i64) -> Result<(), Error> {
        let Changes { seen, has_news, units } = changes;
        let is_open = |position: &Position<U>| !position.begun || position.uncommitted.count() > 0;
        let is_open = has_news || self.position.as_ref().is_some_and(is_open);
        let uncommitted = if is_open { U::uncommitted(&self.warehouse, horizon).await? } else { U::default() };
        // Too many to name: the next pass evaluates everything.
        let begun = uncommitted.count() <= CHANGED_MAX;
        let uncommitted = if begun { uncommitted } else { U::default() };
        let since = Some(horizon.clone());
        let next = Position { limits: self.limits.clone(), seen, since, uncommitted, begun };
        if has_news && (units.is_none() || now - self.recorded_at >= RECORD_US) {
            let json = serde_json::to_string(&next).unwrap_or_default();
            // An empty record makes a restart evaluate everything.
            let json = if json.len() <= RECORD_BYTES_MAX { json } else { String::new() };
            self.warehouse.record_monitor_position(self.name, &json, now).await?;
            self.recorded_at = now;
        }
        self.position = Some(next);
        Ok(())
    }
}

/// The ids in lists that each fit one query.
pub fn chunks(ids: &BTreeSet<String>) -> Vec<Vec<String>> {
    let ids: Vec<_> = ids.iter().cloned().collect();
    ids.chunks(IDS_MAX).map(<[String]>::to_vec).collect()
}
