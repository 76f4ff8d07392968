//! Whether the partitions that this loader does not read are written all the same.
//!
//! A loader sees what stands still among its own partitions ([`crate::unread`]). A partition that
//! the consumer group gave to nobody, or to a member that does not read it, is no loader's own. So
//! every loader holds what Kafka has of the partitions that it does not read against what
//! ClickHouse says is written. It asks only while there are such partitions.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use rdkafka::consumer::BaseConsumer;
use warehouse::{
    Warehouse,
    loader::{Shard, TopicIncarnation},
};

use crate::{
    error::Error,
    options::Kafka,
    partition::Key,
    status::Handle,
    unread::{Ends, UnreadPartition, ends, owned},
};

const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Time for which a partition stands still before the log reports it. The group may be dividing the
/// partitions again until then.
const TOLD_AFTER: Duration = Duration::from_secs(30);

/// Looks again and again; ends only with an error.
pub(crate) async fn watch(
    kafka: &Kafka,
    warehouse: &Warehouse,
    incarnations: &BTreeMap<String, TopicIncarnation>,
    handle: &Handle,
) -> Error {
    let client: Arc<BaseConsumer> = match kafka.client().create() {
        Ok(client) => Arc::new(client),
        Err(error) => return error.into(),
    };
    let (mut standing, mut told) = (BTreeMap::new(), BTreeSet::new());
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let keys: Vec<Key> = not_read(incarnations, handle);
        let (asking, asked) = (client.clone(), keys.clone());
        let ends = match tokio::task::spawn_blocking(move || ends(&asking, &asked)).await {
            Ok(ends) => ends,
            Err(_) => return Error::Ended("kafka watermarks".to_owned()),
        };
        let written = match keys.is_empty() {
            true => HashMap::new(),
            false => {
                match warehouse
                    .written_ends(&incarnations.values().map(|incarnation| incarnation.incarnation).collect::<Vec<_>>())
                    .await
                {
                    Ok(written) => written.into_iter().collect(),
                    Err(error) => {
                        // What is known to stand still grows older meanwhile.
                        tracing::debug!(%error, "what other loaders have written cannot be read");
                        continue;
                    }
                }
            }
        };
        let mut now = BTreeMap::new();
        for (key, end) in keys.iter().zip(ends) {
            let known = standing.remove(&owned(key));
            let incarnation = incarnations.get(&*key.0).map_or(0, |topic| topic.incarnation);
            let next = written.get(&Shard { incarnation, partition: key.1 }).copied().unwrap_or(0);
            if let Some(found) = stands(known, next, end, handle.now()) {
                now.insert(owned(key), found);
            }
        }
        standing = now;
        told.retain(|place| standing.contains_key(place));
        for ((topic, partition), found) in &standing {
            let stood = handle.now().saturating_sub(found.since);
            if stood > TOLD_AFTER && told.insert((topic.clone(), *partition)) {
                let (next, why) = (found.next, &found.why);
                tracing::error!(topic, partition, next, high = found.high, ?stood, why, "no loader writes a partition");
            }
        }
        handle.elsewhere(standing.clone());
    }
}

/// Partitions of all topics without those that this loader reads.
fn not_read(incarnations: &BTreeMap<String, TopicIncarnation>, handle: &Handle) -> Vec<Key> {
    let read = handle.partitions();
    let mut keys = Vec::new();
    for (topic, incarnation) in incarnations {
        let name: Arc<str> = Arc::from(topic.as_str());
        let partitions = 0..i32::try_from(incarnation.partitions).unwrap_or(i32::MAX);
        keys.extend(partitions.map(|partition| (name.clone(), partition)));
    }
    keys.retain(|key| !read.contains(&owned(key)));
    keys
}

/// Since when a partition stands still that is written up to `next`. Where Kafka does not say what
/// it has, it may have more.
fn stands(known: Option<UnreadPartition>, next: u64, end: Ends, now: Duration) -> Option<UnreadPartition> {
    let since = known.filter(|known| known.next == next).map_or(now, |known| known.since);
    match end {
        Ok((_, high)) if high <= next => None,
        Ok((_, high)) => Some(UnreadPartition { next, since, high: Some(high), why: None }),
        Err(why) => Some(UnreadPartition { next, since, high: None, why: Some(why) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_stands_still_since_its_end_did_not_move_although_kafka_has_more() {
        let at = Duration::from_secs;
        let found = |since, next, high| Some(UnreadPartition { next, since: at(since), high: Some(high), why: None });
        assert_eq!(stands(None, 5, Ok((0, 5)), at(1)), None);
        let first = stands(None, 5, Ok((0, 7)), at(1));
        assert_eq!(first, found(1, 5, 7));
        assert_eq!(stands(first.clone(), 5, Ok((0, 9)), at(11)), found(1, 5, 9), "more came, nothing was written");
        assert_eq!(stands(first.clone(), 6, Ok((0, 9)), at(11)), found(11, 6, 9), "something was written");
        assert_eq!(stands(first.clone(), 9, Ok((0, 9)), at(11)), None);
        let silent = stands(first, 5, Err("no leader".to_owned()), at(11)).unwrap();
        assert!(silent.since == at(1) && silent.why.unwrap().ends_with("no leader"), "it may have more");
    }
}
