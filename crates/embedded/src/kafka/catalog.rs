//! What the disk holds besides the records: the topics, the cluster's identity, and the producer
//! ids that were given out.
//!
//! The files are `cluster.json`, `topics/<name>/topic.json` and `topics/<name>/<partition>/<base
//! offset>.log`. One rename creates or removes a whole topic, so a crash leaves either all of it or
//! nothing.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use kafka_protocol::error::ResponseError;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{
    End, Error,
    config::{self, Values},
    partition::{Partition, Signals},
    sync_directory, write_durably,
};

/// Prefix of folders that are being created or removed. No topic name starts with it, because topic
/// names are checked on creation.
const UNFINISHED: &str = ".tmp-";
const PARTITIONS_MAX: i32 = 256;
/// Each partition keeps a file open. All topics together may use one part in this number of the
/// allowed files.
const PARTITIONS_SHARE: u64 = 4;
/// How many producer ids are reserved on disk at a time. A start skips the rest of the last
/// reservation.
const PRODUCER_IDS_RESERVED: i64 = 1_000;

#[derive(Debug, Serialize, Deserialize)]
struct ClusterFile {
    cluster_id: String,
    /// Ids below this may have been given out.
    producer_ids_reserved: i64,
}

#[derive(Debug, Serialize, Deserialize)]
struct TopicFile {
    id: Uuid,
    partitions: i32,
    configuration: Values,
}

#[derive(Debug)]
pub(super) struct Topic {
    pub(super) id: Uuid,
    pub(super) partitions: Vec<Partition>,
    pub(super) configuration: Values,
    signals: Signals,
}

#[derive(Debug)]
struct ProducerIds {
    next: i64,
    reserved: i64,
}

/// All topics by name, and the ids that were given out.
#[derive(Debug)]
pub(super) struct Catalog {
    directory: PathBuf,
    pub(super) cluster_id: String,
    topics: RwLock<BTreeMap<String, Arc<Topic>>>,
    producer_ids: Mutex<ProducerIds>,
    /// Locked while topics are created or removed.
    changes: Mutex<()>,
    signals: Signals,
}

impl Catalog {
    /// Opens everything below `directory`, and creates it if it is missing. This blocks.
    pub(super) fn open(directory: &Path, signals: Signals) -> Result<Self, Error> {
        let failed = |source| Error::Storage { path: directory.to_owned(), source };
        let topics_directory = directory.join("topics");
        std::fs::create_dir_all(&topics_directory).map_err(failed)?;
        let cluster = read_json::<ClusterFile>(&directory.join("cluster.json"))?.unwrap_or_else(|| ClusterFile {
            cluster_id: Uuid::new_v4().simple().to_string(),
            producer_ids_reserved: 1,
        });
        let mut topics = BTreeMap::new();
        for entry in std::fs::read_dir(&topics_directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if name.starts_with(UNFINISHED) {
                std::fs::remove_dir_all(&path).map_err(failed)?;
            } else if let Some(file) = read_json::<TopicFile>(&path.join("topic.json"))? {
                topics.insert(name.to_owned(), Arc::new(open_topic(&path, file, &signals)?));
            }
        }
        let reserved = cluster.producer_ids_reserved;
        let catalog = Self {
            directory: directory.to_owned(),
            cluster_id: cluster.cluster_id,
            topics: RwLock::new(topics),
            producer_ids: Mutex::new(ProducerIds { next: reserved, reserved }),
            changes: Mutex::new(()),
            signals,
        };
        catalog.save_cluster(reserved).map_err(failed)?;
        Ok(catalog)
    }

    pub(super) fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.topics.read().get(name).cloned()
    }

    pub(super) fn partition(&self, name: &str, index: i32) -> Option<Partition> {
        let topics = self.topics.read();
        usize::try_from(index).ok().and_then(|index| topics.get(name)?.partitions.get(index).cloned())
    }

    pub(super) fn topics(&self) -> Vec<(String, Arc<Topic>)> {
        self.topics.read().iter().map(|(name, topic)| (name.clone(), Arc::clone(topic))).collect()
    }

    /// The end offsets of all partitions.
    pub(super) fn ends(&self) -> Vec<End> {
        let of_topic = |(name, topic): (&String, &Arc<Topic>)| -> Vec<End> {
            let end = |(partition, log): (i32, &Partition)| {
                let (offset, directory) = (log.log.end_offset(), log.log.directory().to_owned());
                End { topic: name.clone(), partition, offset, directory }
            };
            (0..).zip(&topic.partitions).map(end).collect()
        };
        self.topics.read().iter().flat_map(of_topic).collect()
    }

    /// Creates a topic, which is durable on return. `dry_run` only checks the request. This blocks.
    pub(super) fn create(
        &self,
        name: &str,
        partitions: i32,
        configuration: Values,
        dry_run: bool,
    ) -> Result<Uuid, ResponseError> {
        check_name(name)?;
        if !(1..=PARTITIONS_MAX).contains(&partitions) {
            return Err(ResponseError::InvalidPartitions);
        }
        configuration.iter().try_for_each(|(name, value)| config::check(name, value))?;
        let _changes = self.changes.lock();
        if self.topics.read().contains_key(name) {
            return Err(ResponseError::TopicAlreadyExists);
        }
        let open: usize = self.topics.read().values().map(|topic| topic.partitions.len()).sum();
        let most = service::files::limit() / PARTITIONS_SHARE;
        if open as u64 + u64::from(partitions.unsigned_abs()) > most {
            tracing::warn!(
                topic = name,
                partitions,
                open,
                most,
                "topic refused: too many partitions for the files that may be open"
            );
            return Err(ResponseError::InvalidPartitions);
        }
        let file = TopicFile { id: Uuid::new_v4(), partitions, configuration };
        let id = file.id;
        if dry_run {
            return Ok(id);
        }
        let topic = self.create_files(name, file).map_err(|error| {
            tracing::error!(topic = name, %error, "cannot create topic");
            ResponseError::KafkaStorageError
        })?;
        self.topics.write().insert(name.to_owned(), Arc::new(topic));
        Ok(id)
    }

    fn create_files(&self, name: &str, file: TopicFile) -> Result<Topic, Error> {
        let topics_directory = self.directory.join("topics");
        let path = topics_directory.join(name);
        let failed = |source| Error::Storage { path: path.clone(), source };
        let unfinished = topics_directory.join(format!("{UNFINISHED}{}", file.id));
        std::fs::create_dir(&unfinished).map_err(failed)?;
        for partition in 0..file.partitions {
            std::fs::create_dir(unfinished.join(partition.to_string())).map_err(failed)?;
        }
        let content = serde_json::to_vec_pretty(&file).map_err(|error| failed(error.into()))?;
        write_durably(&unfinished.join("topic.json"), &content).map_err(failed)?;
        std::fs::rename(&unfinished, &path).map_err(failed)?;
        sync_directory(&topics_directory).map_err(failed)?;
        open_topic(&path, file, &self.signals)
    }

    /// Removes a topic and its records. This blocks.
    pub(super) fn delete(&self, name: &str) -> Result<(), ResponseError> {
        let _changes = self.changes.lock();
        let topic = self.topics.write().remove(name).ok_or(ResponseError::UnknownTopicOrPartition)?;
        topic.signals.shutdown.cancel();
        let topics_directory = self.directory.join("topics");
        let unfinished = topics_directory.join(format!("{UNFINISHED}{}", topic.id));
        let removed = std::fs::rename(topics_directory.join(name), &unfinished)
            .and_then(|()| sync_directory(&topics_directory))
            .and_then(|()| std::fs::remove_dir_all(&unfinished));
        removed.map_err(|error| {
            tracing::error!(topic = name, %error, "cannot remove topic");
            ResponseError::KafkaStorageError
        })
    }

    /// A producer id that was never given out before. This blocks once in a thousand calls.
    pub(super) fn next_producer_id(&self) -> Result<i64, ResponseError> {
        let mut ids = self.producer_ids.lock();
        if ids.next >= ids.reserved {
            let reserved = ids.next.saturating_add(PRODUCER_IDS_RESERVED);
            self.save_cluster(reserved).map_err(|error| {
                tracing::error!(%error, "cannot reserve producer ids");
                ResponseError::KafkaStorageError
            })?;
            ids.reserved = reserved;
        }
        let id = ids.next;
        ids.next = id.saturating_add(1);
        Ok(id)
    }

    fn save_cluster(&self, producer_ids_reserved: i64) -> io::Result<()> {
        let file = ClusterFile { cluster_id: self.cluster_id.clone(), producer_ids_reserved };
        write_durably(&self.directory.join("cluster.json"), &serde_json::to_vec_pretty(&file)?)
    }
}

fn open_topic(path: &Path, file: TopicFile, signals: &Signals) -> Result<Topic, Error> {
    let signals = Signals { shutdown: signals.shutdown.child_token(), ..signals.clone() };
    let limits = config::limits(&file.configuration);
    let partitions = (0..file.partitions)
        .map(|partition| Partition::open(&path.join(partition.to_string()), limits, signals.clone()))
        .collect::<Result<_, _>>()?;
    Ok(Topic { id: file.id, partitions, configuration: file.configuration, signals })
}

fn check_name(name: &str) -> Result<(), ResponseError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let fits = (1..=249).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(allowed);
    if fits { Ok(()) } else { Err(ResponseError::InvalidTopicException) }
}

/// Reads a JSON file; `None` if there is no file.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    match std::fs::read(path) {
        Ok(content) => serde_json::from_slice(&content).map(Some).map_err(|_| Error::Corrupt(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Storage { path: path.to_owned(), source }),
    }
}
