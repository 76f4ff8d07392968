//! Finds what was inserted into a table since a reader last looked, no matter who inserted it.
//!
//! The name of a part tells which blocks of its partition it holds, and merging keeps these
//! numbers. So a part with a block that the reader has not seen holds new rows. A merge may have
//! joined these rows with rows of blocks that were seen. Of such a part, the reader leaves out rows
//! of batches that were already committed when it last looked. Otherwise every pass would read the
//! whole day again.

use async_recursion::async_recursion as boxed;
use std::collections::{BTreeMap, BTreeSet};

use clickhouse::Row;
use serde::{Deserialize, Serialize};

use crate::{client::Warehouse, error::Error, horizon::Horizon, sql::list};

/// An active part of a table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Part {
    pub table: String,
    pub partition_id: String,
    pub name: String,
    pub first: i64,
    pub last: i64,
    pub rows: u64,
}

/// Blocks that were seen, by table and partition: ascending, disjoint runs, both ends inclusive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen(BTreeMap<String, BTreeMap<String, Vec<(i64, i64)>>>);

/// The parts that hold something new.
pub struct News<'a> {
    /// By table: its new parts, and whether a merge has joined the new rows with rows that were
    /// seen.
    tables: BTreeMap<&'a str, Vec<(&'a Part, bool)>>,
    /// SQL condition: whether a row may have been inserted since the reader last looked.
    unseen: String,
}

impl<'a> News<'a> {
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Whether a table has new parts.
    pub fn concerns(&self, table: &str) -> bool {
        self.tables.contains_key(table)
    }

    pub fn parts(&self) -> impl Iterator<Item = &'a Part> + '_ {
        self.tables.values().flatten().map(|(part, _)| *part)
    }

    /// SQL condition for the rows in the given parts that may be new.
    fn filter(&self, parts: &[(&Part, bool)]) -> String {
        let all = list(parts.iter().map(|(part, _)| part.name.as_str()));
        let mut merged =
            parts.iter().filter(|(_, is_merged)| *is_merged).map(|(part, _)| part.name.as_str()).peekable();
        if merged.peek().is_none() {
            return format!("_part IN {all}");
        }
        format!("_part IN {all} AND (_part NOT IN {} OR {})", list(merged), self.unseen)
    }
}

impl Seen {
    /// Parts with a block that was not seen. `since` is a horizon that was read before the reader
    /// last looked at the parts, or at that time; `None` = not known.
    pub fn news<'a>(&self, parts: &'a [Part], since: Option<&Horizon>) -> News<'a> {
        self.news_where(parts, since.map_or_else(|| "1".to_owned(), Horizon::after))
    }

    /// The same, with the condition that a row may be new.
    pub(crate) fn news_where<'a>(&self, parts: &'a [Part], unseen: String) -> News<'a> {
        let mut tables: BTreeMap<&str, Vec<(&Part, bool)>> = BTreeMap::new();
        for part in parts {
            let runs = self.0.get(&part.table).and_then(|table| table.get(&part.partition_id));
            let mut runs =
                runs.into_iter().flatten().filter(|run| run.0 <= part.last && part.first <= run.1).peekable();
            let is_merged = runs.peek().is_some();
            if !runs.any(|run| run.0 <= part.first && part.last <= run.1) {
                tables.entry(&part.table).or_default().push((part, is_merged));
            }
        }
        News { tables, unseen }
    }

    /// Marks all blocks of `parts` as seen, and forgets blocks that are no longer among them.
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

/// How many parts one statement names.
const PARTS_PER_QUERY: usize = 500;

/// A row of `monitor_positions`.
#[derive(Row, Serialize)]
struct PositionRow {
    reader: String,
    seen: String,
    recorded_at: i64,
}

/// SQL condition: whether a row belongs to a batch beyond a horizon. It is searched for in the
/// ingest days since the day before yesterday, and since the first day of a batch that is not
/// committed.
fn beyond(horizon: &Horizon) -> String {
    let committed = horizon.filter();
    format!(
        "ingest_day >= least(toDate(now('UTC')) - 2, ifNull( \
           (SELECT minOrNull(ingest_day) FROM loader_intents WHERE NOT ({committed})), toDate(now('UTC')))) \
         AND NOT ({committed})"
    )
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

    /// Distinct non-empty texts of a column in the new rows of a table, at most `limit`.
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn texts(&self, news: &News<'_>, table: &str, column: &str, limit: usize) -> Result<Vec<String>, Error> {
        self.of_news(news, table, limit, &|new| {
            format!("SELECT DISTINCT toString({column}) AS text FROM {table} WHERE {new} AND text != ''")
        })
        .await
    }

    /// The distinct answers of a query over the new rows of a table. The query runs once for each
    /// group of [`PARTS_PER_QUERY`] parts and stops at `limit` answers.
    async fn of_news(
        &self,
        news: &News<'_>,
        table: &str,
        limit: usize,
        question: &(dyn Fn(&str) -> String + Sync),
    ) -> Result<Vec<String>, Error> {
        let mut answers = BTreeSet::new();
        for parts in news.tables.get(table).map_or(&[][..], Vec::as_slice).chunks(PARTS_PER_QUERY) {
            let new = news.filter(parts);
            answers.extend(self.rows::<String>(&format!("{} LIMIT {limit}", question(&new))).await?);
            if answers.len() >= limit {
                break;
            }
        }
        Ok(answers.into_iter().take(limit).collect())
    }

    /// A digest of all active parts. It changes with every insert into any table, and with every
    /// merge.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn parts_digest(&self) -> Result<u64, Error> {
        let sql = "SELECT groupBitXor(cityHash64(table, name)) FROM system.parts WHERE database = ? AND active";
        let rows: Vec<u64> = self.fetch(self.query(sql).bind(self.database())).await?;
        Ok(rows.into_iter().next().unwrap_or_default())
    }

    /// Distinct texts of a column in rows of batches beyond a horizon. Such rows are not judged
    /// yet, so the caller must look at them again.
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
        let beyond = beyond(horizon);
        self.rows(&format!(
            "SELECT DISTINCT toString({column}) AS text FROM {table} WHERE {beyond} AND text != '' LIMIT {limit}"
        ))
        .await
    }

    /// Texts of a table's rows that belong to boots about which `implausible_times` has a row
    /// beyond a horizon. If that row is written again or taken back, these rows are judged
    /// otherwise.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn texts_of_boots_doubted_beyond(
        &self,
        table: &str,
        column: &str,
        horizon: &Horizon,
        limit: usize,
    ) -> Result<Vec<String>, Error> {
        let beyond = beyond(horizon);
        self.rows(&format!(
            "SELECT DISTINCT toString({column}) AS text FROM {table} WHERE (tenant, device, boot_id) IN ( \
               SELECT tenant, device, boot_id FROM implausible_times \
               WHERE {beyond} AND field = 'base_unix_us') AND text != '' LIMIT {limit}"
        ))
        .await
    }

    /// Texts of a table's rows that belong to boots for which `implausible_times` has a new row
    /// about the time of events.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn texts_of_doubted_boots(
        &self,
        news: &News<'_>,
        table: &str,
        column: &str,
        limit: usize,
    ) -> Result<Vec<String>, Error> {
        self.of_news(news, "implausible_times", limit, &|new| {
            format!(
                "SELECT DISTINCT toString({column}) AS text FROM {table} WHERE (tenant, device, boot_id) IN ( \
                   SELECT tenant, device, boot_id FROM implausible_times \
                   WHERE {new} AND field = 'base_unix_us') AND text != ''"
            )
        })
        .await
    }

    /// Sessions in which a mixture was used, for the new rows of `preparations`. A mixture is not
    /// used before it is made, so injections more than two days earlier are not searched. That
    /// needs a time of the device: a mixture with the time of receipt may be older.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn sessions_of_mixtures(&self, news: &News<'_>, limit: usize) -> Result<Vec<String>, Error> {
        self.of_news(news, "preparations", limit, &|new| {
            let told = format!("FROM preparations WHERE {new} AND preparation_id != ''");
            format!(
                "SELECT DISTINCT session_id FROM injections WHERE session_id != '' \
                 AND at >= (SELECT min(if(time_source = 'DEVICE', at - toIntervalDay(2), toDateTime64(0, 6, 'UTC'))) {told}) \
                 AND preparation_id IN (SELECT preparation_id {told})"
            )
        })
        .await
    }

    /// Sterilizers of the cycles that the new rows of a table name.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn sterilizers_of_cycles(
        &self,
        news: &News<'_>,
        table: &str,
        limit: usize,
    ) -> Result<Vec<String>, Error> {
        self.of_news(news, table, limit, &|new| {
            format!(
                "SELECT DISTINCT toString(device) AS text FROM sterilization_cycles \
                 WHERE (tenant, cycle_uid) IN (SELECT tenant, cycle_uid FROM {table} WHERE {new})"
            )
        })
        .await
    }

    /// What a reader of the monitor recorded last as seen; `None` if it has recorded nothing.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn monitor_position(&self, reader: &str) -> Result<Option<String>, Error> {
        let sql = "SELECT argMax(seen, recorded_at) FROM monitor_positions WHERE reader = ? GROUP BY reader";
        let rows: Vec<String> = self.fetch(self.query(sql).bind(reader)).await?;
        Ok(rows.into_iter().next())
    }

    /// Records what the monitor has seen. The text is sent as data, because it grows with the
    /// number of devices.
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
        seen.news(&parts, None).parts().map(|part| part.name.clone()).collect()
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
    fn of_a_merged_part_only_what_came_since_is_new() {
        let mut seen = Seen::default();
        see(&mut seen, &["a_1_3_1"]);
        let since: Horizon =
            serde_json::from_str(r#"[{"incarnation":2,"kafka_partition":0,"position":70,"lately":9}]"#).unwrap();
        let filter = |names: &[&str], since| {
            let parts: Vec<_> = names.iter().map(|name| part(name)).collect();
            let news = seen.news(&parts, since);
            news.filter(&news.tables["t"])
        };
        assert_eq!(filter(&["a_4_4_0"], Some(&since)), "_part IN ('a_4_4_0')");
        assert_eq!(
            filter(&["a_1_4_2", "b_1_1_0"], Some(&since)),
            "_part IN ('a_1_4_2', 'b_1_1_0') AND (_part NOT IN ('a_1_4_2') OR (incarnation = 0 OR NOT (1 AND NOT \
             (incarnation = 2 AND batch >= transform(kafka_partition, [0], [70], 0)) AND incarnation <= 2)))"
        );
        assert!(filter(&["a_1_4_2"], None).ends_with("OR 1)"), "not known, so all of it");
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
