//! How far a half of the monitor has looked: what has changed since, which units that concerns,
//! what is written down then.

use std::collections::{BTreeSet, HashSet};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use warehouse::{
    Error, Warehouse,
    changes::{News, Seen},
    sterility::{Horizon, IDS_MAX},
};

/// More changed units than this and everything is evaluated instead, in slices.
pub const CHANGED_MAX: usize = 20_000;
/// Rows of a slice of everything: bounds memory.
pub const SLICE_ROWS: u64 = 200_000;
/// Tries to read a set of parts that merges do not take away meanwhile.
const TRIES: usize = 5;
/// Bytes of a record of what has been seen. More are not kept: everything is evaluated after a
/// restart then.
const RECORD_BYTES_MAX: usize = 16 << 20;
/// Between two records of what has been seen, us: what was not recorded is evaluated again after a
/// restart.
const RECORD_US: i64 = 60_000_000;

/// Units to evaluate.
pub trait Units: Clone + Default + Send + Serialize + DeserializeOwned {
    /// How many.
    fn count(&self) -> usize;
    /// Adds others.
    fn add(&mut self, other: Self);
    /// Those that parts of tables concern.
    fn concerned(warehouse: &Warehouse, news: &News<'_>) -> impl Future<Output = Result<Self, Error>> + Send;
    /// Those with rows that are not committed yet, more than [`CHANGED_MAX`] if not all of them.
    fn beyond(warehouse: &Warehouse, horizon: &Horizon) -> impl Future<Output = Result<Self, Error>> + Send;
}

/// What is written down after a pass.
#[derive(Default, Serialize, Deserialize)]
struct Position<U> {
    /// The limits it was judged by, JSON.
    limits: String,
    seen: Seen,
    /// How far batches were committed before that was looked at.
    #[serde(default)]
    since: Option<Horizon>,
    /// Units with rows of batches that were not committed.
    again: U,
    /// Whether everything has been evaluated, and what is left is named here.
    begun: bool,
}

/// What a pass has to look at.
pub struct Changes<U> {
    seen: Seen,
    has_news: bool,
    /// Units that changes concern; none = everything.
    pub units: Option<U>,
}

/// One half's place in the warehouse.
pub struct Reader<U> {
    warehouse: Warehouse,
    /// Name in `monitor_positions`.
    name: &'static str,
    /// Tables that are looked at for changes.
    tables: Vec<&'static str>,
    /// Those of them of which a change concerns everything.
    registries: &'static [&'static str],
    limits: String,
    position: Option<Position<U>>,
    recorded_at: i64,
}

impl<U: Units> Reader<U> {
    /// Nothing is read yet. `limits` are those that are judged by: under others everything is
    /// evaluated.
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

    /// What is new since the last pass that ended; `is_current` says whether the verdicts are of
    /// the present rules.
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
            // A part that was merged away meanwhile has not been read.
            let there = self.warehouse.parts(&self.tables).await?;
            let there: HashSet<_> = there.iter().map(|part| (&part.table, &part.name)).collect();
            if news.parts().all(|part| there.contains(&(&part.table, &part.name))) {
                units.add(position.again.clone());
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

    /// Ends a pass that has read up to a horizon: its changes have been seen. Units with rows
    /// beyond it stay until they are committed.
    ///
    /// # Errors
    /// As [`Warehouse::execute`]; the next pass takes the same changes up again.
    pub async fn finish(&mut self, changes: Changes<U>, horizon: &Horizon, now: i64) -> Result<(), Error> {
        let Changes { seen, has_news, units } = changes;
        let is_open = |position: &Position<U>| !position.begun || position.again.count() > 0;
        let is_open = has_news || self.position.as_ref().is_some_and(is_open);
        let again = if is_open { U::beyond(&self.warehouse, horizon).await? } else { U::default() };
        // So many are not named: the next pass evaluates everything.
        let begun = again.count() <= CHANGED_MAX;
        let again = if begun { again } else { U::default() };
        let since = Some(horizon.clone());
        let next = Position { limits: self.limits.clone(), seen, since, again, begun };
        if has_news && (units.is_none() || now - self.recorded_at >= RECORD_US) {
            let json = serde_json::to_string(&next).unwrap_or_default();
            // A restart takes what cannot be read for nothing seen.
            let json = if json.len() <= RECORD_BYTES_MAX { json } else { String::new() };
            self.warehouse.record_monitor_position(self.name, &json, now).await?;
            self.recorded_at = now;
        }
        self.position = Some(next);
        Ok(())
    }
}

/// Ids in as many lists as queries take.
pub fn chunks(ids: &BTreeSet<String>) -> Vec<Vec<String>> {
    let ids: Vec<_> = ids.iter().cloned().collect();
    ids.chunks(IDS_MAX).map(<[String]>::to_vec).collect()
}
