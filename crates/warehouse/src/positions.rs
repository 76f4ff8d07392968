//! How far every partition is written, and what is recorded as lost at an offset.

use async_recursion::async_recursion as boxed;
use serde::Deserialize;

use crate::{Error, Warehouse, loader::Shard};

#[derive(Deserialize)]
struct Position {
    incarnation: u32,
    partition: i32,
    end: u64,
}

#[derive(Deserialize)]
struct Loss {
    first: u64,
    last: u64,
}

impl Warehouse {
    /// End of the latest commit of each shard of these incarnations; shards without one are not in
    /// it. An owner that writes that batch again may be behind this for a moment, see
    /// [`crate::loader::Progress::position`].
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn written_ends(&self, incarnations: &[u32]) -> Result<Vec<(Shard, u64)>, Error> {
        let numbers: Vec<String> = incarnations.iter().map(ToString::to_string).collect();
        let sql = format!(
            "SELECT incarnation, kafka_partition AS partition, max(batch_end) AS end FROM loader_commits \
             WHERE kind = 'commit' AND incarnation IN ({}) GROUP BY incarnation, kafka_partition",
            numbers.join(", ")
        );
        let rows: Vec<Position> = self.rows(&sql).await?;
        let shard = |row: &Position| Shard { incarnation: row.incarnation, partition: row.partition };
        Ok(rows.iter().map(|row| (shard(row), row.end)).collect())
    }

    /// First and last offset of the loss that an offset belongs to; none where it is not lost.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn loss_at(&self, shard: Shard, offset: u64) -> Result<Option<(u64, u64)>, Error> {
        let Shard { incarnation, partition } = shard;
        let sql = format!(
            "SELECT first_offset AS first, assumeNotNull(last_offset) AS last FROM kafka_losses \
             WHERE incarnation = {incarnation} AND kafka_partition = {partition} \
             AND first_offset <= {offset} AND last_offset >= {offset} LIMIT 1"
        );
        let rows: Vec<Loss> = self.rows(&sql).await?;
        Ok(rows.first().map(|loss| (loss.first, loss.last)))
    }
}
