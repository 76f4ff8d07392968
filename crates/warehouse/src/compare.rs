//! Two relations held against each other, by key and column: what `reconcile` and `rebuild` find
//! differences with.

use async_recursion::async_recursion as boxed;
use serde::Deserialize;

use crate::{client::Warehouse, error::Error};

/// A key under which two relations do not hold the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The key, `column=value` each.
    pub key: String,
    /// Rows on the left.
    pub left: u64,
    /// Rows on the right.
    pub right: u64,
    /// Columns that differ: name, value on the left, value on the right. Several rows' values are
    /// separated by commas.
    pub columns: Vec<(String, String, String)>,
}

/// Two SELECTs with the same columns.
pub(crate) struct Pair<'a> {
    /// The left one.
    pub left: &'a str,
    /// The right one.
    pub right: &'a str,
    /// Columns that identify a row.
    pub keys: &'a [&'a str],
    /// All other columns that count.
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

/// What grouping and sorting may take in memory; beyond it ClickHouse goes to disk.
pub(crate) const SPILL: &str =
    " SETTINGS max_bytes_before_external_group_by = 500000000, max_bytes_before_external_sort = 500000000";

/// Text of a literal.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

impl Pair<'_> {
    /// The first differences by key, at most `limit`. One pass finds the keys; values are looked up
    /// for those only.
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
        // Raw payloads are any bytes; a person reads text.
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

/// A column as text; absent values have one too, and hashing would ignore them otherwise.
fn text(column: &str) -> String {
    format!("ifNull(toString(`{column}`), 'NULL')")
}

/// Columns as one text, each with its length, so that two rows never come to the same one.
pub(crate) fn concatenated(columns: &[&str]) -> String {
    let parts: Vec<String> =
        columns.iter().map(|column| format!("toString(length({0})), ':', {0}", text(column))).collect();
    format!("concat({})", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_quoted() {
        assert_eq!(quoted(r"it's \ that"), r"'it\'s \\ that'");
    }
}
