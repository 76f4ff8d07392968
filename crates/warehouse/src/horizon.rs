//! How far the loader has committed, as a filter of rows.
//!
//! A batch is written table by table, and its commit comes last. A query that reads several tables
//! leaves out the rows of batches beyond one horizon, so that it never sees half of a batch.

use std::{collections::BTreeMap, fmt::Write as _};

use async_recursion::async_recursion as boxed;
use serde::{Deserialize, Serialize};

use crate::{Error, Warehouse};

/// How far each Kafka partition is committed. Rows beyond the horizon are being written or will be
/// written again. The same holds for every row of a partition that the horizon does not list. The
/// default horizon has no limit: no row is beyond it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Horizon(Option<Vec<Committed>>);

/// One partition of a [`Horizon`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Committed {
    incarnation: u32,
    kafka_partition: i32,
    /// The first offset that is not committed.
    position: u64,
    /// First offset of the first batch that was committed recently; `u64::MAX` = there is none.
    lately: u64,
}

impl Horizon {
    /// SQL condition: whether a row is committed. A partition without a batch may get its first one
    /// after this horizon was read, and so may the topic's next incarnation. The condition excludes
    /// both. Rows that come from no topic (incarnation 0) belong to no batch and count as
    /// committed.
    pub(crate) fn filter(&self) -> String {
        let mut filter = "1".to_owned();
        let Some(partitions) = &self.0 else { return filter };
        let newest = partitions.iter().map(|partition| partition.incarnation).max().unwrap_or_default();
        let positions = partitions.iter().map(|partition| (partition, partition.position));
        // In the newest incarnation, a partition that the horizon does not list has no committed
        // batch.
        for batch in batches_from(positions, |incarnation| if incarnation == newest { 0 } else { u64::MAX }) {
            let _ = write!(filter, " AND NOT {batch}");
        }
        let _ = write!(filter, " AND incarnation <= {newest}");
        filter
    }

    /// SQL condition: whether a row may have been inserted after this horizon was read. Rows that
    /// come from no topic (incarnation 0) always may.
    pub(crate) fn after(&self) -> String {
        match self.0 {
            Some(_) => format!("(incarnation = 0 OR NOT ({}))", self.filter()),
            None => "1".to_owned(),
        }
    }

    /// SQL condition: whether a row was committed recently.
    pub(crate) fn lately(&self) -> String {
        let partitions = self.0.iter().flatten().filter(|partition| partition.lately < u64::MAX);
        let late = batches_from(partitions.map(|partition| (partition, partition.lately)), |_| u64::MAX);
        if late.is_empty() { "0".to_owned() } else { format!("({})", late.join(" OR ")) }
    }
}

/// One SQL condition for each incarnation: whether a row's batch starts at or after the given
/// position of its partition. `other` gives the position for partitions that are not listed. Two
/// array literals hold all partitions and positions, because there can be thousands.
fn batches_from<'a>(positions: impl Iterator<Item = (&'a Committed, u64)>, other: impl Fn(u32) -> u64) -> Vec<String> {
    let mut incarnations: BTreeMap<u32, (Vec<i32>, Vec<u64>)> = BTreeMap::new();
    for (partition, position) in positions {
        let (partitions, positions) = incarnations.entry(partition.incarnation).or_default();
        partitions.push(partition.kafka_partition);
        positions.push(position);
    }
    let sql = |(incarnation, (partitions, positions)): (u32, (Vec<i32>, Vec<u64>))| {
        let other = other(incarnation);
        format!(
            "(incarnation = {incarnation} AND batch >= transform(kafka_partition, {partitions:?}, {positions:?}, {other}))"
        )
    };
    incarnations.into_iter().map(sql).collect()
}

impl Warehouse {
    /// How far batches are committed. A batch counts as committed recently if that happened at
    /// `lately` (us since 1970) or after it.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub async fn horizon(&self, lately: i64) -> Result<Horizon, Error> {
        let never = u64::MAX;
        let partitions = self
            .rows(&format!(
                "SELECT incarnation, kafka_partition, max(batch_end) AS position, min(lately) AS lately FROM ( \
                   SELECT incarnation, kafka_partition, toUInt64(0) AS batch_end, toUInt64({never}) AS lately \
                   FROM loader_intents \
                   UNION ALL \
                   SELECT incarnation, kafka_partition, batch_end, \
                     if(committed_at >= fromUnixTimestamp64Micro(toInt64({lately})), batch, toUInt64({never})) AS lately \
                   FROM loader_commits WHERE kind = 'commit' \
                 ) GROUP BY incarnation, kafka_partition ORDER BY incarnation, kafka_partition"
            ))
            .await?;
        Ok(Horizon(Some(partitions)))
    }

    /// How far batches are committed, by their commits alone. No batch counts as committed
    /// recently.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    #[boxed]
    pub(crate) async fn commits(&self) -> Result<Horizon, Error> {
        let never = u64::MAX;
        let partitions = self
            .rows(&format!(
                "SELECT incarnation, kafka_partition, max(batch_end) AS position, toUInt64({never}) AS lately \
                 FROM loader_commits WHERE kind = 'commit' GROUP BY incarnation, kafka_partition"
            ))
            .await?;
        Ok(Horizon(Some(partitions)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_beyond_its_partition_s_position_is_left_out() {
        assert_eq!(Horizon::default().filter(), "1");
        let none = Horizon(Some(Vec::new()));
        assert_eq!(none.filter(), "1 AND incarnation <= 0", "a first batch may begin at any time");
        let committed = |incarnation, kafka_partition, position, lately| Committed {
            incarnation,
            kafka_partition,
            position,
            lately,
        };
        let partitions = vec![committed(1, 0, 9, u64::MAX), committed(2, 0, 7, 5), committed(2, 1, 8, u64::MAX)];
        let horizon = Horizon(Some(partitions));
        assert_eq!(
            horizon.filter(),
            "1 AND NOT (incarnation = 1 AND batch >= transform(kafka_partition, [0], [9], 18446744073709551615)) \
             AND NOT (incarnation = 2 AND batch >= transform(kafka_partition, [0, 1], [7, 8], 0)) \
             AND incarnation <= 2"
        );
        assert_eq!(
            horizon.lately(),
            "((incarnation = 2 AND batch >= transform(kafka_partition, [0], [5], 18446744073709551615)))"
        );
        assert_eq!(none.lately(), "0");
    }
}
