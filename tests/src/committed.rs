//! What the loader has committed of the records in Kafka.
//!
//! A loader writes the rows of a batch table by table, several tables at once and in no order. Last
//! it writes the ledgers and the commit row in one insert. So rows in one table say nothing about
//! rows in another, or about sums, gaps, completeness or marks. Only the commit row says that the
//! whole batch is there. A test that has seen part of it, and checks the rest once, must wait for
//! the commit row first.

use std::time::Duration;

use telemetry::kafka::{COMMANDS_TOPIC, QUARANTINE_TOPIC, REPORTS_TOPIC, STATUS_TOPIC};

use crate::{ClickHouse, Kafka, Offsets, Refused, poll};

/// Long enough for a busy machine, and for killed loaders whose sessions must end first.
const WITHIN: Duration = Duration::from_secs(300);

const POSITIONS: &str = "SELECT topic, kafka_partition, toInt64(max(batch_end)) FROM doseline.loader_commits AS c INNER JOIN \
                         (SELECT topic, max(incarnation) AS incarnation FROM doseline.kafka_topics GROUP BY topic) AS l \
                         USING (incarnation) WHERE kind = 'commit' GROUP BY ALL";

/// Waits until everything in Kafka now is committed. If a row, a receipt or a flush was seen, the
/// record is in Kafka.
#[track_caller]
pub fn wait_until_committed(clickhouse: &ClickHouse, kafka: &Kafka) {
    let ends = ends(kafka);
    poll(WITHIN, "everything in Kafka to be committed", || is_committed(clickhouse, &ends));
}

/// The ends of all partitions that loaders read: (topic, partition) to offset.
pub fn ends(kafka: &Kafka) -> Offsets {
    let topics = [REPORTS_TOPIC, STATUS_TOPIC, QUARANTINE_TOPIC, COMMANDS_TOPIC].into_iter();
    let of_topic = |topic: &'static str| {
        kafka.end_offsets(topic).into_iter().map(move |(partition, end)| ((topic.to_owned(), partition), end))
    };
    topics.flat_map(of_topic).collect()
}

/// Whether everything below these offsets is committed; otherwise names the first partition that is
/// behind.
pub fn is_committed(clickhouse: &ClickHouse, ends: &Offsets) -> Result<(), String> {
    let positions = positions(clickhouse)?;
    let behind = ends.iter().find(|(key, end)| **end > positions.get(*key).copied().unwrap_or(0));
    match behind {
        None => Ok(()),
        Some((key, end)) => Err(format!("{key:?} is at {:?} of {end}", positions.get(key))),
    }
}

/// The position of each partition in each topic's latest incarnation: (topic, partition) to offset.
pub(crate) fn positions(clickhouse: &ClickHouse) -> Result<Offsets, String> {
    parse(clickhouse.try_query(POSITIONS))
}

/// As [`positions`], asked of the ClickHouse at an address.
pub(crate) fn positions_at(agent: &ureq::Agent, url: &str) -> Result<Offsets, String> {
    parse(crate::clickhouse::query(agent, url, Some(crate::clickhouse::PASSWORD), POSITIONS))
}

fn parse(answer: Result<String, Refused>) -> Result<Offsets, String> {
    let text = answer.map_err(|refused| refused.to_string())?;
    let row = |line: &str| {
        let mut cells = line.split('\t');
        let mut cell = || cells.next().expect("three columns").to_owned();
        let (topic, partition, end) = (cell(), cell(), cell());
        ((topic, partition.parse().expect("a number")), end.parse().expect("a number"))
    };
    Ok(text.lines().map(row).collect())
}
