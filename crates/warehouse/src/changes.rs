//! What has been inserted into a table since a reader last looked, whoever inserted it.
//!
//! A part's name tells which blocks of its partition it holds; merging keeps them. So a part with a block that the reader
//! has not seen holds something new (and perhaps something old, which does no harm to a reader that evaluates again).

use async_recursion::async_recursion as boxed;
use std::collections::{BTreeMap, BTreeSet};

use clickhouse::Row;
use serde::{Deserialize, Serialize};

use crate::{
    client::Warehouse,
    error::Error,
    sterility::{Horizon, list},
};

/// A part that is active.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Part {
    /// Table.
    pub table: String,
    /// Partition.
    pub partition_id: String,
    /// Name.
    pub name: String,
    /// First block.
    pub first: i64,
    /// Last block.
    pub last: i64,
    /// Rows.
    pub rows: u64,
}

/// Blocks seen, by table and partition: ascending, disjoint runs with both ends included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen(BTreeMap<String, BTreeMap<String, Vec<(i64, i64)>>>);

/// What is new: names and rows of parts by table.
pub type News<'a> = BTreeMap<&'a str, Vec<&'a Part>>;

impl Seen {
    /// Parts that hold a block which has not been seen.
    pub fn news<'a>(&self, parts: &'a [Part]) -> News<'a> {
        let mut news = News::new();
        for part in parts {
            let runs = self.0.get(&part.table).and_then(|table| table.get(&part.partition_id));
            let seen = runs.is_some_and(|runs| runs.iter().any(|run| run.0 <= part.first && part.last <= run.1));
            if !seen {
                news.entry(&part.table).or_default().push(part);
            }
        }
        news
    }

    /// All blocks of `parts` have been seen; what is no longer among them is forgotten.
    pub fn see(&mut self, parts: &[Part]) {
        let mut seen: BTreeMap<String, BTreeMap<String, Vec<(i64, i64)>>> = BTreeMap::new();
        for part in parts {
            let known = self.0.get(&part.table).and_then(|table| table.get(&part.partition_id));
            let runs = seen.entry(part.table.clone()).or_default().entry(part.partition_id.clone());
            runs.or_insert_with(|| known.cloned().unwrap_or_default()).push((part.first, part.last));
        }
        for runs in seen.values_mut().flat_map(BTreeMap::values_mut) {
            *runs = joined(std::mem::take(runs));
        }
        self.0 = seen;
    }
}

/// Names of parts in one statement.
const PARTS_PER_QUERY: usize = 500;

/// A row of `monitor_positions`.
#[derive(Row, Serialize)]
struct PositionRow {
    reader: String,
    seen: String,
    recorded_at: i64,
}

fn joined(mut runs: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    runs.sort_unstable();
    let mut joined: Vec<(i64, i64)> = Vec::new();
    for run in runs {
        match joined.last_mut().filter(|last| run.0 <= last.1 + 1) {
            Some(last) => last.1 = last.1.max(run.1),
            None => joined.push(run),
        }
    }
    joined
}

impl Warehouse {
    /// Active parts of tables.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn parts(&self, tables: &[&str]) -> Result<Vec<Part>, Error> {
        let tables = list(tables.iter().copied());
        let sql = format!(
            "SELECT table, partition_id, name, min_block_number AS first, max_block_number AS last, rows \
             FROM system.parts WHERE database = ? AND active AND rows > 0 AND table IN {tables} ORDER BY table, name"
        );
        self.fetch(self.query(&sql).bind(self.database())).await
    }

    /// Distinct texts of a column in parts of a table, empty ones left out, `limit` at most.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn texts(&self, table: &str, column: &str, parts: &[&Part], limit: usize) -> Result<Vec<String>, Error> {
        self.of_parts(parts, limit, &|names| {
            format!("SELECT DISTINCT toString({column}) AS text FROM {table} WHERE _part IN {names} AND text != ''")
        })
        .await
    }

    /// The distinct answers to a question about parts, asked for as many parts at once as a statement names. No more are
    /// asked for once there are `limit`.
    async fn of_parts(
        &self,
        parts: &[&Part],
        limit: usize,
        question: &(dyn Fn(&str) -> String + Sync),
    ) -> Result<Vec<String>, Error> {
        let mut answers = BTreeSet::new();
        for parts in parts.chunks(PARTS_PER_QUERY) {
            let names = list(parts.iter().map(|part| part.name.as_str()));
            answers.extend(self.rows::<String>(&format!("{} LIMIT {limit}", question(&names))).await?);
            if answers.len() >= limit {
                break;
            }
        }
        Ok(answers.into_iter().take(limit).collect())
    }

    /// The same of rows that belong to batches beyond a horizon: they are not judged yet and have to be looked at again.
    /// Batches are of today or yesterday.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn texts_beyond(
        &self,
        table: &str,
        column: &str,
        horizon: &Horizon,
        limit: usize,
    ) -> Result<Vec<String>, Error> {
        let committed = horizon.filter();
        self.rows(&format!(
            "SELECT DISTINCT toString({column}) AS text FROM {table} \
             WHERE ingest_day >= toDate(now('UTC')) - 2 AND NOT ({committed}) AND text != '' LIMIT {limit}"
        ))
        .await
    }

    /// Texts of a table's rows in the boots whose clock parts of `implausible_times` show to be wrong.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn texts_of_doubted_boots(
        &self,
        table: &str,
        column: &str,
        parts: &[&Part],
        limit: usize,
    ) -> Result<Vec<String>, Error> {
        self.of_parts(parts, limit, &|names| {
            format!(
                "SELECT DISTINCT toString({column}) AS text FROM {table} WHERE (tenant, device, boot_id) IN ( \
                   SELECT tenant, device, boot_id FROM implausible_times \
                   WHERE _part IN {names} AND field = 'base_unix_us') AND text != ''"
            )
        })
        .await
    }

    /// Visits in which a mixture was used, for mixtures told of in parts of `preparations`. A mixture is told when it is
    /// made, so injections long before are not looked at.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn sessions_of_mixtures(&self, parts: &[&Part], limit: usize) -> Result<Vec<String>, Error> {
        self.of_parts(parts, limit, &|names| {
            let told = format!("FROM preparations WHERE _part IN {names} AND preparation_id != ''");
            format!(
                "SELECT DISTINCT session_id FROM injections WHERE session_id != '' \
                 AND at >= (SELECT min(at) - toIntervalDay(2) {told}) \
                 AND preparation_id IN (SELECT preparation_id {told})"
            )
        })
        .await
    }

    /// Sterilizers of the cycles named in parts of a table.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn sterilizers_of_cycles(
        &self,
        table: &str,
        parts: &[&Part],
        limit: usize,
    ) -> Result<Vec<String>, Error> {
        self.of_parts(parts, limit, &|names| {
            format!(
                "SELECT DISTINCT toString(device) AS text FROM sterilization_cycles \
                 WHERE (tenant, cycle_uid) IN (SELECT tenant, cycle_uid FROM {table} WHERE _part IN {names})"
            )
        })
        .await
    }

    /// What the monitor has seen, as it last said; none where it has not, or where its verdicts are gone.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn monitor_position(&self, reader: &str) -> Result<Option<String>, Error> {
        let sql = "SELECT argMax(seen, recorded_at) FROM monitor_positions WHERE reader = ? GROUP BY reader";
        let rows: Vec<String> = self.fetch(self.query(sql).bind(reader)).await?;
        Ok(rows.into_iter().next())
    }

    /// Records what the monitor has seen. It is sent as data: it grows with the number of devices.
    ///
    /// # Errors
    /// As [`Warehouse::execute`].
    #[boxed]
    pub async fn record_monitor_position(&self, reader: &str, seen: &str, now_us: i64) -> Result<(), Error> {
        self.add(
            "monitor_positions",
            &[PositionRow { reader: reader.to_owned(), seen: seen.to_owned(), recorded_at: now_us }],
        )
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str) -> Part {
        let numbers: Vec<&str> = name.split('_').collect();
        let number = |at: usize| numbers[at].parse().unwrap();
        let (table, partition_id) = ("t".to_owned(), numbers[0].to_owned());
        Part { table, partition_id, name: name.to_owned(), first: number(1), last: number(2), rows: 1 }
    }

    fn new(seen: &Seen, names: &[&str]) -> Vec<String> {
        let parts: Vec<_> = names.iter().map(|name| part(name)).collect();
        seen.news(&parts).values().flatten().map(|part| part.name.clone()).collect()
    }

    fn see(seen: &mut Seen, names: &[&str]) {
        seen.see(&names.iter().map(|name| part(name)).collect::<Vec<_>>());
    }

    #[test]
    fn only_parts_with_an_unseen_block_are_new() {
        let mut seen = Seen::default();
        assert_eq!(new(&seen, &["a_1_1_0", "b_1_1_0"]), ["a_1_1_0", "b_1_1_0"]);
        see(&mut seen, &["a_1_1_0", "b_1_1_0"]);
        assert_eq!(new(&seen, &["a_1_1_0", "a_2_2_0", "b_1_1_0"]), ["a_2_2_0"]);
        see(&mut seen, &["a_1_1_0", "a_2_2_0", "b_1_1_0"]);
        assert!(new(&seen, &["a_1_2_1", "b_1_1_0_7"]).is_empty(), "merged or mutated is not new");
        // Block 3 became visible after block 4.
        see(&mut seen, &["a_1_2_1", "a_4_4_0"]);
        assert_eq!(new(&seen, &["a_1_2_1", "a_3_3_0", "a_4_4_0"]), ["a_3_3_0"]);
        assert_eq!(new(&seen, &["a_1_4_2"]), ["a_1_4_2"], "merged with the unseen one");
        assert_eq!(new(&seen, &["c_1_1_0"]), ["c_1_1_0"]);
    }

    #[test]
    fn what_was_seen_survives_being_written_down() {
        let mut seen = Seen::default();
        see(&mut seen, &["a_1_3_1", "a_5_5_0", "b_1_1_0"]);
        let text = serde_json::to_string(&seen).unwrap();
        assert_eq!(serde_json::from_str::<Seen>(&text).unwrap(), seen);
        see(&mut seen, &["a_1_3_1"]);
        assert_eq!(new(&seen, &["b_1_1_0"]), ["b_1_1_0"], "a partition that went and came again is new");
    }
}
