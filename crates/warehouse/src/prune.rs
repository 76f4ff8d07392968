//! Deletes what the loader's own tables no longer need: ledger states that newer states have
//! replaced, and old commits and intents.
//!
//! These ledger states stay, for each boot in each shard:
//!
//! - Every state since the start of the last but one committed batch, and the latest state as of
//!   that start. The position never falls below the start of the last committed batch
//!   ([`crate::loader::Progress::position`]). So an owner that may still write reads states as of a
//!   later offset. An owner that works at an earlier offset may read anything. After it has read
//!   the ledgers it asks for the position, finds that another owner has overtaken it, and ends.
//! - The latest state as of the first batch of every ingest day that Kafka still holds, so that
//!   such a day can be rebuilt.
//! - States that were the first to show that a number is missing or lost, if it still is:
//!   `delivery_gaps.since` is computed from them. A state shows this for the numbers up to its last
//!   known one. It is the first if no older state knows a number as high.
//!
//! Commits and intents stay while their day may be rebuilt. Commits with losses stay for ever, and
//! so do the last two commits of each shard.
//!
//! Deleting is safe while loaders write, for these reasons:
//!
//! - The rows to delete are chosen first and recorded: ledger states in `loader_pruning`, the
//!   others as literals in the statement. So it does not matter when the engine carries out the
//!   deletion.
//! - All of these rows lie before the last but one commit. No batch in flight has such rows. No
//!   later commit can add any, because the position has passed them. A mutation does not touch
//!   parts that are inserted after it.
//! - The engine may forget the tokens of deleted rows. Only an owner that has been stopped since
//!   before the last two commits could use one of them. For whole parts of intents, it must have
//!   been stopped for days. A lease does not last that long.
//! - Two processes that prune at once choose the same rows, or one of them chooses a part of the
//!   rows.

use std::{future::Future, time::Duration};

use serde::Deserialize;

use crate::{client::Warehouse, error::Error};

/// Rewriting parts is not worth the effort for fewer rows than this.
pub const ROWS_MIN: u64 = 1_000;
/// Age at which the rows that an interrupted run has recorded are removed, s.
const LEFTOVER_AGE_S: u32 = 3_600;
/// Interval at which a running deletion is checked.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Number of rows that were deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub ledgers: u64,
    pub commits: u64,
    pub intents: u64,
}

/// How far one shard may be pruned.
#[derive(Deserialize)]
struct Prunable {
    incarnation: u32,
    partition: i32,
    /// First offset of the last but one committed batch.
    batch: u64,
    /// First offset of each ingest day that must stay rebuildable.
    days: Vec<u64>,
}

/// Deletes what is no longer needed. Ingest days of the last `days` days can still be rebuilt
/// afterwards. Nothing is deleted while an earlier deletion still runs, nor of a kind with fewer
/// than `rows_min` deletable rows. `stopped` ends the waiting, but not the deletion.
///
/// # Errors
/// As [`Warehouse::execute`]. After an error it is safe to call this again.
pub async fn prune(
    warehouse: &Warehouse,
    days: u32,
    rows_min: u64,
    stopped: impl Future<Output = ()>,
) -> Result<Pruned, Error> {
    let mut pruned = Pruned::default();
    if unfinished(warehouse).await? {
        return Ok(pruned);
    }
    sweep(warehouse).await?;
    let horizons = horizons(warehouse, days).await?;
    if horizons.is_empty() {
        return Ok(pruned);
    }
    let run: u64 = warehouse.row("SELECT rand64()").await?;
    pruned.ledgers = decide(warehouse, &horizons, run).await?;
    if pruned.ledgers >= rows_min {
        let database = warehouse.database();
        let sql = format!(
            "ALTER TABLE loader_commits DELETE WHERE kind = 'ledger' AND (incarnation, kafka_partition, \
             toString(tenant), toString(device), boot_id, batch_end, gen) IN (SELECT * EXCEPT run FROM {database}.loader_pruning WHERE run = {run}) \
             SETTINGS mutations_sync = 0"
        );
        warehouse.command(&sql).await?;
    } else {
        pruned.ledgers = 0;
    }
    let kept_from: u16 = warehouse.row(&format!("SELECT toUInt16(toDate(now('UTC')) - {days})")).await?;
    let old = |day: &str| format!("{day} < toDate({kept_from})");
    let commits = format!("kind = 'commit' AND empty(lost_first) AND {}", behind(&horizons, "batch"));
    pruned.commits = delete(warehouse, "loader_commits", &commits, &old("toDate(committed_at)"), rows_min).await?;
    let intents = behind(&horizons, "batch");
    pruned.intents = delete(warehouse, "loader_intents", &intents, &old("ingest_day"), rows_min).await?;

    let finished = async {
        while unfinished(warehouse).await? {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        forget(warehouse, run).await
    };
    tokio::select! {
        result = finished => result?,
        // The recorded rows stay until the engine has finished. A later run removes them.
        () = stopped => {}
    }
    Ok(pruned)
}

async fn unfinished(warehouse: &Warehouse) -> Result<bool, Error> {
    let sql = "SELECT count() > 0 FROM system.mutations WHERE database = ? AND NOT is_done \
               AND table IN ('loader_commits', 'loader_intents')";
    let query = warehouse.query(sql).bind(warehouse.database());
    Ok(warehouse.fetch::<bool>(query).await?.first().copied().unwrap_or(false))
}

async fn sweep(warehouse: &Warehouse) -> Result<(), Error> {
    let sql = "SELECT toUInt64(partition_id) AS run FROM system.parts WHERE database = ? AND table = 'loader_pruning' \
               AND active GROUP BY run HAVING max(modification_time) < now() - ?";
    let query = warehouse.query(sql).bind(warehouse.database()).bind(LEFTOVER_AGE_S);
    for run in warehouse.fetch::<u64>(query).await? {
        forget(warehouse, run).await?;
    }
    Ok(())
}

/// Removes the rows that a run has recorded.
async fn forget(warehouse: &Warehouse, run: u64) -> Result<(), Error> {
    warehouse.command(&format!("ALTER TABLE loader_pruning DROP PARTITION ID '{run}'")).await
}

/// The horizons of all shards with at least two commits.
async fn horizons(warehouse: &Warehouse, days: u32) -> Result<Vec<Prunable>, Error> {
    let sql = format!(
        "SELECT incarnation, kafka_partition AS partition, latest.batch AS batch, days.batches AS days \
         FROM ( \
            SELECT incarnation, kafka_partition, min(batch) AS batch FROM ( \
                SELECT DISTINCT incarnation, kafka_partition, batch FROM loader_commits \
                WHERE kind = 'commit' AND batch_end > batch \
                ORDER BY batch DESC LIMIT 2 BY incarnation, kafka_partition \
            ) GROUP BY incarnation, kafka_partition HAVING count() = 2 \
         ) AS latest \
         LEFT JOIN ( \
            SELECT incarnation, kafka_partition, groupArray(first) AS batches FROM ( \
                SELECT incarnation, kafka_partition, ingest_day, min(batch) AS first FROM loader_intents \
                WHERE ingest_day >= toDate(now('UTC')) - {days} GROUP BY incarnation, kafka_partition, ingest_day \
            ) GROUP BY incarnation, kafka_partition \
         ) AS days USING (incarnation, kafka_partition)"
    );
    warehouse.rows(&sql).await
}

fn behind(horizons: &[Prunable], column: &str) -> String {
    let shard = |horizon: &Prunable| {
        let Prunable { incarnation, partition, batch, .. } = horizon;
        format!("(incarnation = {incarnation} AND kafka_partition = {partition} AND {column} < {batch})")
    };
    format!("({})", horizons.iter().map(shard).collect::<Vec<_>>().join(" OR "))
}

/// Records which ledger states to delete, and returns their number.
async fn decide(warehouse: &Warehouse, horizons: &[Prunable], run: u64) -> Result<u64, Error> {
    let shard = |horizon: &Prunable| {
        let Prunable { incarnation, partition, batch, days } = horizon;
        let mut ends: Vec<u64> = days.iter().copied().filter(|first| first < batch).chain([*batch]).collect();
        ends.sort_unstable();
        ends.dedup();
        let ends: Vec<String> = ends.iter().map(u64::to_string).collect();
        format!(
            "SELECT toUInt32({incarnation}) AS incarnation, toInt32({partition}) AS kafka_partition, \
             [{}]::Array(UInt64) AS ends",
            ends.join(",")
        )
    };
    let shards: Vec<String> = horizons.iter().map(shard).collect();
    // `stretch`: the first horizon at or after the state; 0 = the state lies behind the last
    // horizon, and stays. `since`: the earliest time at which a number as high as the state's last
    // number was known.
    let sql = format!(
        "INSERT INTO loader_pruning \
         WITH \
            shards AS ({shards}), \
            gaps AS ( \
                SELECT tenant, device, boot_id, \
                    arrayFilter(run -> run.state IN ('MISSING', 'LOST'), runs) AS gaps FROM delivery_state \
                WHERE notEmpty(gaps) \
            ), \
            states AS ( \
                SELECT incarnation, kafka_partition, tenant, device, boot_id, batch_end, gen, last_arrival AS at, \
                    greatest(stored_last[-1], quarantined_last[-1], lost_last[-1], declared_last) AS known, \
                    arrayFirst(first -> first >= batch_end, shards.ends) AS stretch \
                FROM loader_commits INNER JOIN shards USING (incarnation, kafka_partition) WHERE kind = 'ledger' \
            ), \
            ranked AS ( \
                SELECT *, \
                    row_number() OVER (PARTITION BY incarnation, kafka_partition, tenant, device, boot_id, stretch \
                        ORDER BY batch_end DESC, gen DESC) AS rank, \
                    at = min(at) OVER (PARTITION BY incarnation, kafka_partition, tenant, device, boot_id \
                        ORDER BY known, at DESC, batch_end, gen ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS is_first \
                FROM states \
            ), \
            told AS ( \
                SELECT *, max(if(is_first, known, 0)) OVER (PARTITION BY incarnation, kafka_partition, tenant, device, \
                    boot_id ORDER BY known, at DESC, batch_end, gen ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS known_before \
                FROM ranked \
            ) \
         SELECT {run}, incarnation, kafka_partition, tenant, device, boot_id, batch_end, gen \
         FROM told LEFT JOIN gaps USING (tenant, device, boot_id) \
         WHERE stretch > 0 AND rank > 1 \
            AND NOT (is_first AND arrayExists(gap -> gap.first <= known AND gap.last > known_before, gaps.gaps)) \
         SETTINGS max_bytes_before_external_sort = 1000000000",
        shards = shards.join(" UNION ALL "),
    );
    warehouse.command(&sql).await?;
    warehouse.row(&format!("SELECT count() FROM loader_pruning WHERE run = {run}")).await
}

/// Deletes the rows of a table that satisfy both conditions, if there are enough. Returns their
/// number.
async fn delete(warehouse: &Warehouse, table: &str, which: &str, old: &str, rows_min: u64) -> Result<u64, Error> {
    let rows: u64 = warehouse.row(&format!("SELECT count() FROM {table} WHERE {which} AND {old}")).await?;
    if rows < rows_min {
        return Ok(0);
    }
    warehouse
        .command(&format!("ALTER TABLE {table} DELETE WHERE {which} AND {old} SETTINGS mutations_sync = 0"))
        .await?;
    Ok(rows)
}
