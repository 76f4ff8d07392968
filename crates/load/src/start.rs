//! Finds the offset where reading starts: the position in ClickHouse, compared with what Kafka has.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
};
use tokio_util::sync::CancellationToken;
use warehouse::{
    Advice,
    loader::{CLOSED, Shard},
};

use crate::{
    error::Error,
    partition::Key,
    status::Handle,
    store::{Store, backoff},
};

/// Where an owner starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    /// Offset its first batch starts at.
    pub position: u64,
    /// Offset to read from. It is larger than `position` if Kafka no longer has the next records;
    /// the owner records the offsets between as lost.
    pub read_from: u64,
}

const KAFKA_ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Finds where reading starts. Repeats the question until ClickHouse and Kafka have answered.
/// Returns `None` if it was cancelled.
pub(crate) async fn find<S: Store>(
    store: &S,
    client: &Arc<BaseConsumer>,
    handle: &Handle,
    key: &Key,
    shard: Shard,
    cancelled: &CancellationToken,
) -> Result<Option<Start>, Error> {
    let mut waits = backoff();
    loop {
        let trouble = match attempt(store, client, key, shard).await {
            Ok(start) => {
                handle.clickhouse(None);
                return Ok(Some(start));
            }
            Err(Trouble::Fatal(error)) => return Err(error),
            Err(Trouble::Passing(text)) => text,
        };
        let place = format!("topic {}, partition {}", key.0, key.1);
        if handle.clickhouse(Some(&format!("the position of {place} cannot be read: {trouble}"))) {
            tracing::warn!(topic = %key.0, partition = key.1, trouble, "the position cannot be read, trying again");
        }
        tokio::select! {
            biased;
            () = cancelled.cancelled() => return Ok(None),
            () = tokio::time::sleep(waits.pause()) => {}
        }
    }
}

enum Trouble {
    Passing(String),
    Fatal(Error),
}

async fn attempt<S: Store>(store: &S, client: &Arc<BaseConsumer>, key: &Key, shard: Shard) -> Result<Start, Trouble> {
    let progress = store.progress(shard).await.map_err(|error| match error.advice() {
        Advice::Retry => Trouble::Passing(error.to_string()),
        Advice::Reject | Advice::Fatal => Trouble::Fatal(error.into()),
    })?;
    let (client, asked) = (client.clone(), key.clone());
    let watermarks = tokio::task::spawn_blocking(move || watermarks(&client, &asked));
    let (low, high) = match watermarks.await {
        Ok(Ok(watermarks)) => watermarks,
        Ok(Err(error)) => return Err(Trouble::Passing(error.to_string())),
        Err(_) => return Err(Trouble::Fatal(Error::Ended("kafka watermarks".to_owned()))),
    };
    if progress.position() == Some(CLOSED) {
        let Shard { incarnation, partition } = shard;
        return Err(Trouble::Fatal(Error::Closed { incarnation, partition }));
    }
    decide(progress.position(), low.max(0) as u64, high.max(0) as u64)
        .map_err(|fault| Trouble::Fatal(Error::Offsets { topic: key.0.to_string(), partition: key.1, fault }))
}

/// The first and the next offset that Kafka has. Blocks.
pub(crate) fn watermarks(client: &BaseConsumer, key: &Key) -> Result<(i64, i64), KafkaError> {
    // This client remembers the leaders from its last request. Without new metadata it would wait
    // for a leader that has died since, until librdkafka refreshes them after minutes.
    client.fetch_metadata(Some(&key.0), KAFKA_ANSWER_WITHIN)?;
    client.fetch_watermarks(&key.0, key.1, KAFKA_ANSWER_WITHIN)
}

/// Decides where to start, from the position and the first and next offset that Kafka has.
fn decide(position: Option<u64>, low: u64, high: u64) -> Result<Start, String> {
    let position = position.unwrap_or(0);
    if position > high {
        return Err(format!(
            "records up to offset {position} are written, but Kafka's next offset is {high}: the topic was created again, \
             or lost records that were confirmed; restore it, or delete it, create it again and run `doseline migrate`"
        ));
    }
    // If retention has passed the position, reading goes on behind the deleted records.
    Ok(Start { position, read_from: position.max(low) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_where_clickhouse_ends() {
        assert_eq!(decide(None, 0, 9), Ok(Start { position: 0, read_from: 0 }));
        assert_eq!(decide(None, 4, 9), Ok(Start { position: 0, read_from: 4 }));
        assert_eq!(decide(Some(5), 4, 9), Ok(Start { position: 5, read_from: 5 }));
        assert_eq!(decide(Some(9), 4, 9), Ok(Start { position: 9, read_from: 9 }));
        assert_eq!(decide(Some(3), 4, 9), Ok(Start { position: 3, read_from: 4 }));
        assert_eq!(decide(Some(3), 9, 9), Ok(Start { position: 3, read_from: 9 }));
        assert!(decide(Some(10), 4, 9).unwrap_err().contains("created again"));
    }
}
