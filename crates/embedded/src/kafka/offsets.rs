//! The offsets that consumer groups have committed. They are few and rarely change, so one file
//! holds them all, and every commit replaces it.

use std::{collections::BTreeMap, path::PathBuf};

use kafka_protocol::error::ResponseError;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{Error, catalog::read_json, write_durably};

/// How many offsets may be stored, over all groups and partitions.
const OFFSETS_MAX: usize = 10_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Committed {
    pub(super) offset: i64,
    pub(super) leader_epoch: i32,
    pub(super) metadata: String,
}

/// Offsets of one group by topic and partition.
pub(super) type GroupOffsets = BTreeMap<String, BTreeMap<i32, Committed>>;

/// The committed offsets of all groups.
#[derive(Debug)]
pub(super) struct Offsets {
    path: PathBuf,
    groups: Mutex<BTreeMap<String, GroupOffsets>>,
}

impl Offsets {
    /// Reads the file, if there is one. A damaged file is put aside: doseline keeps its own
    /// position in ClickHouse, and other groups start where their clients tell them to. This
    /// blocks.
    pub(super) fn open(path: PathBuf) -> Result<Self, Error> {
        let groups = match read_json(&path) {
            Err(Error::Corrupt(path)) => {
                let aside = path.with_extension("json.damaged");
                std::fs::rename(&path, &aside).map_err(|source| Error::Storage { path, source })?;
                tracing::error!(aside = %aside.display(), "committed offsets are damaged; going on without them");
                None
            }
            read => read?,
        };
        Ok(Self { path, groups: Mutex::new(groups.unwrap_or_default()) })
    }

    /// All committed offsets, as (group, topic, partition, offset).
    pub(super) fn all(&self) -> Vec<(String, String, i32, i64)> {
        let groups = self.groups.lock();
        let topics =
            groups.iter().flat_map(|(group, topics)| topics.iter().map(move |(topic, all)| (group, topic, all)));
        let of_topic = |(group, topic, all): (&String, &String, &BTreeMap<i32, Committed>)| -> Vec<_> {
            all.iter().map(|(index, committed)| (group.clone(), topic.clone(), *index, committed.offset)).collect()
        };
        topics.flat_map(of_topic).collect()
    }

    /// Stores offsets of a group, durable on return. This blocks.
    pub(super) fn commit(&self, group: &str, offsets: GroupOffsets) -> Result<(), ResponseError> {
        self.change(|groups| {
            let of_group = groups.entry(group.to_owned()).or_default();
            for (topic, partitions) in offsets {
                of_group.entry(topic).or_default().extend(partitions);
            }
        })
    }

    /// Removes what was committed for a topic that no longer exists. This blocks.
    pub(super) fn forget_topic(&self, topic: &str) -> Result<(), ResponseError> {
        if !self.groups.lock().values().any(|topics| topics.contains_key(topic)) {
            return Ok(());
        }
        self.change(|groups| {
            groups.values_mut().for_each(|topics| {
                topics.remove(topic);
            });
            groups.retain(|_, topics| !topics.is_empty());
        })
    }

    /// The offsets that a group has committed.
    pub(super) fn of_group(&self, group: &str) -> GroupOffsets {
        self.groups.lock().get(group).cloned().unwrap_or_default()
    }

    /// Changes a copy and writes it, and only then makes it visible.
    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, GroupOffsets>)) -> Result<(), ResponseError> {
        let mut groups = self.groups.lock();
        let mut changed = groups.clone();
        change(&mut changed);
        let count: usize = changed.values().flat_map(BTreeMap::values).map(BTreeMap::len).sum();
        if count > OFFSETS_MAX {
            return Err(ResponseError::InvalidCommitOffsetSize);
        }
        let written =
            serde_json::to_vec(&changed).map_err(Into::into).and_then(|json| write_durably(&self.path, &json));
        written.map_err(|error| {
            tracing::error!(%error, path = %self.path.display(), "cannot store committed offsets");
            ResponseError::KafkaStorageError
        })?;
        *groups = changed;
        Ok(())
    }
}
