//! Reads the records of one partition between two offsets.

use async_recursion::async_recursion as boxed;
use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::sync::mpsc;

use crate::{error::Error, inbox::Record, options::Kafka, record::detach};

/// Offsets that Kafka holds of a partition: the first one, and the one after the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub first: u64,
    /// Offset the next record will have.
    pub end: u64,
}

const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Longest wait for the next record of a range that Kafka holds.
const RECORD_WITHIN: Duration = Duration::from_secs(60);
/// How long the thread may take to notice that its reader is gone.
const POLL: Duration = Duration::from_millis(200);
/// The most records, and the most bytes, of a chunk.
const CHUNK_RECORDS: usize = 1_000;
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks that may wait. With librdkafka's own queue a reader takes at most about 16 MiB.
const CHUNKS: usize = 8;

/// What Kafka holds of each partition of a topic; empty if there is no such topic.
///
/// # Errors
/// [`Error::Kafka`].
#[boxed]
pub async fn held(kafka: &Kafka, topic: &str) -> Result<BTreeMap<i32, Held>, Error> {
    let (config, topic) = (kafka.client(), topic.to_owned());
    let held = tokio::task::spawn_blocking(move || -> Result<_, KafkaError> {
        let client: BaseConsumer = config.create()?;
        // All topics: asking for one by name would create it on a broker that creates topics by
        // itself.
        let metadata = client.fetch_metadata(None, ANSWER_WITHIN)?;
        let partitions =
            metadata.topics().iter().filter(|found| found.name() == topic).flat_map(|found| found.partitions());
        let held = |id| {
            let (first, end) = client.fetch_watermarks(&topic, id, ANSWER_WITHIN)?;
            Ok((id, Held { first: first.max(0).unsigned_abs(), end: end.max(0).unsigned_abs() }))
        };
        partitions.map(|partition| held(partition.id())).collect()
    });
    Ok(held.await.map_err(|_| Error::Ended("kafka watermarks".to_owned()))??)
}

/// Reads the records `[from, to)` of a partition on a thread of its own, which ends when this is
/// dropped.
pub struct Reader {
    chunks: mpsc::Receiver<Result<Vec<Record>, Error>>,
    chunk: VecDeque<Record>,
}

impl Reader {
    /// Starts reading.
    ///
    /// # Errors
    /// [`Error::Kafka`] if librdkafka refuses the configuration.
    pub fn open(kafka: &Kafka, topic: &str, partition: i32, from: u64, to: u64) -> Result<Self, Error> {
        let (sender, chunks) = mpsc::channel(CHUNKS);
        let source = Source::assign(kafka, topic, partition, from, to)?;
        let thread = std::thread::Builder::new().name("kafka-reread".to_owned()).spawn(move || source.run(&sender));
        if thread.is_err() {
            return Err(Error::Ended("kafka-reread".to_owned()));
        }
        Ok(Self { chunks, chunk: VecDeque::new() })
    }

    /// The next record; `None` at the end of the range. Offsets without a record are skipped.
    ///
    /// # Errors
    /// [`Error::Offsets`] if Kafka does not hold the range or no longer does; [`Error::Kafka`].
    #[boxed]
    pub async fn next(&mut self) -> Result<Option<Record>, Error> {
        while self.chunk.is_empty() {
            match self.chunks.recv().await {
                Some(chunk) => self.chunk = chunk?.into(),
                None => return Ok(None),
            }
        }
        Ok(self.chunk.pop_front())
    }
}

/// The side of the thread.
struct Source {
    consumer: BaseConsumer,
    topic: String,
    partition: i32,
    next: u64,
    to: u64,
}

impl Source {
    fn assign(kafka: &Kafka, topic: &str, partition: i32, from: u64, to: u64) -> Result<Self, Error> {
        let mut config = kafka.client();
        config
            // librdkafka needs a name. The group is never joined: the partition is assigned
            // directly, and nothing is committed.
            .set("group.id", "doseline-reread")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            .set("queued.max.messages.kbytes", "8192");
        let consumer: BaseConsumer = config.create()?;
        let offset = Offset::Offset(i64::try_from(from).unwrap_or(i64::MAX));
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(topic, partition, offset)?;
        consumer.assign(&list)?;
        Ok(Self { consumer, topic: topic.to_owned(), partition, next: from, to })
    }

    fn run(mut self, chunks: &mpsc::Sender<Result<Vec<Record>, Error>>) {
        while self.next < self.to && !chunks.is_closed() {
            let chunk = self.chunk(chunks);
            let failed = chunk.is_err();
            if chunks.blocking_send(chunk).is_err() || failed {
                return;
            }
        }
    }

    /// The next records; empty if the reader is gone.
    fn chunk(&mut self, chunks: &mpsc::Sender<Result<Vec<Record>, Error>>) -> Result<Vec<Record>, Error> {
        let (mut records, mut bytes, deadline) = (Vec::new(), 0, Instant::now() + RECORD_WITHIN);
        while self.next < self.to && records.len() < CHUNK_RECORDS && bytes < CHUNK_BYTES {
            // Only the first record of a chunk is waited for.
            let wait = if records.is_empty() { POLL } else { Duration::ZERO };
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    let record = detach(&message, Duration::ZERO);
                    self.next = record.offset + 1;
                    if record.offset < self.to {
                        bytes += record.bytes();
                        records.push(record);
                    }
                }
                // The rest of the range holds no record.
                Some(Err(KafkaError::PartitionEOF(_))) => self.next = self.to,
                Some(Err(error)) => self.fault(error)?,
                None if !records.is_empty() || chunks.is_closed() => break,
                None if Instant::now() > deadline => {
                    return Err(self
                        .offsets(format!("no record from offset {} on arrived within {RECORD_WITHIN:?}", self.next)));
                }
                None => {}
            }
        }
        Ok(records)
    }

    /// librdkafka itself retries after a temporary error.
    fn fault(&self, error: KafkaError) -> Result<(), Error> {
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                Err(self.offsets(format!("records from offset {} on are gone: {error}", self.next)))
            }
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                Err(self.offsets(error.to_string()))
            }
            // librdkafka skips such a batch. Its offsets must not pass for offsets without a
            // record.
            Some(
                RDKafkaErrorCode::BadMessage | RDKafkaErrorCode::BadCompression | RDKafkaErrorCode::NotImplemented,
            ) => Err(self.offsets(format!("the batch with offset {} cannot be read: {error}", self.next))),
            _ if fatal => Err(error.into()),
            _ => {
                tracing::debug!(%error, "kafka");
                Ok(())
            }
        }
    }

    fn offsets(&self, fault: String) -> Error {
        Error::Offsets { topic: self.topic.clone(), partition: self.partition, fault }
    }
}
