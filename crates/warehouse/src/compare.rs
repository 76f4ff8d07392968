//! Compares two relations by key and column. `reconcile` and `rebuild` use it to find differences.

use async_recursion::async_recursion as boxed;
use serde::Deserialize;

use crate::{client::Warehouse, error::Error};

/// A key for which two relations hold different rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The key, as `column=value` for each of its columns.
    pub key: String,
    /// Number of rows on the left.
    pub left: u64,
    /// Number of rows on the right.
    pub right: u64,
    /// Columns that differ: name, value on the left, value on the right. Commas separate the values
    /// of several rows.
    pub columns: Vec<(String, String, String)>,
}

/// Two SELECT statements with the same columns.
pub(crate) struct Pair<'a> {
    pub left: &'a str,
    pub right: &'a str,
    /// Columns that identify a row.
    pub keys: &'a [&'a str],
    /// The other columns to compare.
    pub columns: &'a [&'a str],
}

#[derive(Deserialize)]
struct DifferenceRow {
    name: String,
    left_rows: u64,
    right_rows: u64,
    columns: Vec<(String, String, String)>,
}

impl From<DifferenceRow> for Difference {
    fn from(row: DifferenceRow) -> Self {
        Self { key: row.name, left: row.left_rows, right: row.right_rows, columns: row.columns }
    }
}

/// Limits the memory of grouping and sorting; beyond it ClickHouse uses its disk.
pub(crate) const SPILL: &str =
    " SETTINGS max_bytes_before_external_group_by = 500000000, max_bytes_before_external_sort = 500000000";

impl Pair<'_> {
    /// The first differences by key, at most `limit`. One pass finds the keys. A second query reads
    /// the values of these keys only.
    #[boxed]
    pub async fn differences(&self, warehouse: &Warehouse, limit: usize) -> Result<Vec<Difference>, Error> {
        let names = self.names();
        let hash = format!("cityHash64({})", concatenated(&names));
        let sql = format!(
            "SELECT k FROM (SELECT {} AS k, side, {hash} AS h FROM {}) GROUP BY k \
             HAVING countIf(side = 0) != countIf(side = 1) OR sumIf(h, side = 0) != sumIf(h, side = 1) \
             ORDER BY k LIMIT {limit}{SPILL}",
            self.key_hash(),
            self.both(),
        );
        let keys: Vec<u64> = warehouse.rows(&sql).await?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<String> = keys.iter().map(u64::to_string).collect();
        // A raw payload may hold any bytes, but a person needs text.
        let name = self
            .keys
            .iter()
            .map(|key| format!("'{key}=', toValidUTF8({})", text(key)))
            .collect::<Vec<_>>()
            .join(", ' ', ");
        let values = |column: &str, side: u8| {
            let values = format!("arrayStringConcat(arraySort(groupArrayIf({}, side = {side})), ', ')", text(column));
            format!("toValidUTF8({values})")
        };
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|column| format!("('{column}', {}, {})", values(column, 0), values(column, 1)))
            .collect();
        let columns = match columns.as_slice() {
            [] => "[]::Array(Tuple(String, String, String))".to_owned(),
            some => format!("arrayFilter(column -> column.2 != column.3, [{}])", some.join(", ")),
        };
        let sql = format!(
            "SELECT any(concat({name})) AS name, countIf(side = 0) AS left_rows, countIf(side = 1) AS right_rows, \
                {columns} AS columns \
             FROM {} WHERE {} IN ({}) GROUP BY {} ORDER BY name{SPILL}",
            self.both(),
            self.key_hash(),
            keys.join(", "),
            self.key_hash(),
        );
        let rows: Vec<DifferenceRow> = warehouse.rows(&sql).await?;
        Ok(rows.into_iter().map(Difference::from).collect())
    }

    fn names(&self) -> Vec<&str> {
        self.keys.iter().chain(self.columns).copied().collect()
    }

    fn both(&self) -> String {
        let names: Vec<String> = self.names().iter().map(|name| format!("`{name}`")).collect();
        let names = names.join(", ");
        format!(
            "(SELECT 0 AS side, {names} FROM ({}) UNION ALL SELECT 1 AS side, {names} FROM ({}))",
            self.left, self.right
        )
    }

    fn key_hash(&self) -> String {
        format!("cityHash64({})", concatenated(self.keys))
    }
}

/// SQL expression for a column as text. An absent value becomes `NULL`, because hashing would
/// ignore it.
fn text(column: &str) -> String {
    format!("ifNull(toString(`{column}`), 'NULL')")
}

/// SQL expression that joins columns into one text. Each part carries its length, so that two
/// different rows never give the same text.
pub(crate) fn concatenated(columns: &[&str]) -> String {
    let parts: Vec<String> =
        columns.iter().map(|column| format!("toString(length({0})), ':', {0}", text(column))).collect();
    format!("concat({})", parts.join(", "))
}
