//! Finds out why the loader has not read records that Kafka has.
//!
//! librdkafka reports an error once, or not at all: it fetches a batch with wrongly framed records
//! again and again in silence. So delivered records say nothing about a partition that is not read.
//! The polling thread asks for Kafka's end of each partition at intervals ([`ends`]) and compares
//! it with its own position. If nothing was read between two questions although Kafka has more, a
//! separate consumer asks for the next record ([`probe`]). Its answer is the reason that a person
//! sees.
//!
//! A batch that cannot be read is given up only by [`behind`], which looks for the first record
//! after it that can be: after a time, or when a person asks ([`crate::give_up`]).

use std::{
    collections::BTreeSet,
    fmt,
    sync::Mutex,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Message as _, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
};

use crate::{options::Kafka, partition::Key};

/// How long a broker may take to return its offsets.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// How long it may take once [`SLOW_MAX`] partitions were asked for in vain: a broker that is gone
/// led many, and they must not be waited for one by one.
const ANSWER_AT_ONCE: Duration = Duration::from_millis(100);
const SLOW_MAX: usize = 3;
/// How long a record that is there may take to come.
const RECORD_WITHIN: Duration = Duration::from_secs(4);
/// How long to wait for each offset in the search behind an unreadable batch.
const NEXT_WITHIN: Duration = Duration::from_secs(1);

/// Number of offsets that are tried if the last record cannot be read either.
const NEAR: u64 = 100;

/// First and next offset that Kafka has of a partition, or why it does not say.
pub(crate) type Ends = Result<(u64, u64), String>;

/// Kafka's offsets of each partition. Blocks.
pub(crate) fn ends(client: &BaseConsumer, keys: &[Key]) -> Vec<Ends> {
    let (mut asked, mut slow) = (BTreeSet::new(), 0);
    let mut end = |key: &Key, within| {
        // The leaders may have changed since the last question.
        if asked.insert(key.0.clone()) {
            client.fetch_metadata(Some(&key.0), ANSWER_WITHIN)?;
        }
        let (low, high) = client.fetch_watermarks(&key.0, key.1, within)?;
        Ok((low.max(0).unsigned_abs(), high.max(0).unsigned_abs()))
    };
    let ask = |key: &Key| {
        let end = end(key, if slow < SLOW_MAX { ANSWER_WITHIN } else { ANSWER_AT_ONCE });
        slow += usize::from(end.is_err());
        end.map_err(|error: KafkaError| format!("kafka does not say what it has: {error}"))
    };
    keys.iter().map(ask).collect()
}

/// The answer to a request for a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The first record from the requested offset on has this offset.
    Record(u64),
    /// The broker sent a batch that librdkafka cannot read.
    Unreadable(String),
    /// Nothing: the broker has no record, or librdkafka cannot parse its batch.
    Silence,
    /// The broker refuses, or cannot be reached.
    Refused(String),
}

impl Answer {
    /// Whether another attempt will probably end in the same way, because of the bytes in the log.
    pub(crate) fn lasts(&self) -> bool {
        matches!(self, Self::Unreadable(_) | Self::Silence)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(offset) => write!(f, "offset {offset} can be read"),
            Self::Unreadable(error) => write!(f, "the batch cannot be read: {error}"),
            Self::Silence => write!(f, "the broker sends no record that can be read, and no error"),
            Self::Refused(error) => f.write_str(error),
        }
    }
}

/// Keeps what librdkafka says of its latest error.
#[derive(Default)]
struct Listening(Mutex<String>);

impl Listening {
    fn latest(&self) -> String {
        service::lock(&self.0).clone()
    }
}

impl ClientContext for Listening {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
        reason.clone_into(&mut service::lock(&self.0));
    }
}

impl ConsumerContext for Listening {}

/// A consumer without a group that reads one partition from a given offset.
struct Prober {
    consumer: BaseConsumer<Listening>,
    key: Key,
}

impl Prober {
    fn new(kafka: &Kafka, key: &Key) -> Result<Self, KafkaError> {
        let mut config = kafka.client();
        config
            // Named, never joined: the partition is assigned by hand and nothing is committed.
            .set("group.id", "doseline-probe")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.error.backoff.ms", "10")
            .set("queued.max.messages.kbytes", "2048");
        Ok(Self { consumer: config.create_with_context(Listening::default())?, key: key.clone() })
    }

    fn ask(&self, from: u64, within: Duration) -> Answer {
        self.try_ask(from, within).unwrap_or_else(|error| Answer::Refused(error.to_string()))
    }

    fn try_ask(&self, from: u64, within: Duration) -> Result<Answer, KafkaError> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(&self.key.0, self.key.1, Offset::Offset(i64::try_from(from).unwrap_or(i64::MAX)))?;
        self.consumer.assign(&list)?;
        let (deadline, mut refused) = (Instant::now() + within, None);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.consumer.poll(left.min(Duration::from_millis(100))) {
                Some(Ok(message)) if message.offset().unsigned_abs() >= from => {
                    return Ok(Answer::Record(message.offset().unsigned_abs()));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    let said = self.consumer.context().latest();
                    let said = if said.is_empty() { error.to_string() } else { said };
                    if is_unreadable(&error) {
                        return Ok(Answer::Unreadable(said));
                    }
                    // It may pass: one broker of several that is down, a leader that moves.
                    refused = Some(said);
                }
                None if left.is_zero() => return Ok(refused.map_or(Answer::Silence, Answer::Refused)),
                None => {}
            }
        }
    }
}

/// Errors that are about the bytes of the log.
fn is_unreadable(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BadMessage
                | RDKafkaErrorCode::BadCompression
                | RDKafkaErrorCode::NotImplemented
                | RDKafkaErrorCode::InvalidMessage
                | RDKafkaErrorCode::InvalidMessageSize
                | RDKafkaErrorCode::MessageSizeTooLarge
        )
    )
}

/// Requests the record at an offset. Blocks.
pub(crate) fn probe(kafka: &Kafka, key: &Key, from: u64) -> Answer {
    match Prober::new(kafka, key) {
        Ok(prober) => prober.ask(from, RECORD_WITHIN),
        Err(error) => Answer::Refused(error.to_string()),
    }
}

/// The first record behind `from` that can be read, where the one at `from` cannot be; none where
/// that is not certain now: nothing behind it can be read, or the broker does not answer. Blocks,
/// for as long as the unreadable batch has offsets.
pub(crate) fn behind(kafka: &Kafka, client: &BaseConsumer, key: &Key, from: u64) -> Option<u64> {
    let prober = Prober::new(kafka, key).ok()?;
    let (_, high) = ends(client, std::slice::from_ref(key)).pop()?.ok()?;
    if high < from + 2 {
        return None;
    }
    // A broker that answers nothing has no unreadable batch, and is not asked for each offset.
    let ends_well = matches!(prober.ask(high - 1, RECORD_WITHIN), Answer::Record(_));
    let end = if ends_well { high } else { high.min(from + 1 + NEAR) };
    let mut offset = from + 1;
    while offset < end {
        match prober.ask(offset, NEXT_WITHIN) {
            Answer::Record(found) => return confirmed(&prober, from, found),
            answer if answer.lasts() => offset += 1,
            _ => return None,
        }
    }
    None
}

/// Goes back while earlier records can be read after all, and requests the one at `from` again: a
/// late answer must not become a loss.
fn confirmed(prober: &Prober, from: u64, mut found: u64) -> Option<u64> {
    while found > from + 1 {
        match prober.ask(found - 1, RECORD_WITHIN) {
            Answer::Record(offset) if offset < found => found = offset,
            Answer::Refused(_) => return None,
            _ => break,
        }
    }
    prober.ask(from, RECORD_WITHIN).lasts().then_some(found)
}

/// A partition that is not read although Kafka has more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnreadPartition {
    /// Offset of the next record to read.
    pub next: u64,
    /// Boot clock at which this was first seen.
    pub since: Duration,
    /// Kafka's next offset, if it is known.
    pub high: Option<u64>,
    /// The reason, if it is known.
    pub why: Option<String>,
}

impl UnreadPartition {
    /// A description for a person.
    pub fn text(&self, (topic, partition): (&str, i32), age: Duration) -> String {
        let has = self.high.map(|high| format!(" though kafka has records up to {}", high.saturating_sub(1)));
        let why = self.why.as_deref().unwrap_or("kafka gives no reason");
        format!(
            "nothing of topic {topic}, partition {partition}, has been read for {} s from offset {} on{}: {why}; look at the \
             brokers, the loader's rights and what was produced there; a batch that stays unreadable is given up after \
             load.unreadable_after_s, or at once by `doseline give-up`, and recorded in kafka_losses",
            age.as_secs(),
            self.next,
            has.unwrap_or_default()
        )
    }
}

/// The offsets `[from, to)` of a batch that is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GivenUp {
    pub from: u64,
    pub to: u64,
}

/// A partition's name, shared.
pub(crate) fn owned(key: &Key) -> (String, i32) {
    (key.0.to_string(), key.1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rdkafka::{
        mocking::MockCluster,
        producer::{BaseProducer, BaseRecord, Producer as _},
        types::{RDKafkaApiKey, RDKafkaRespErr},
    };

    use super::*;

    #[test]
    fn what_can_be_read_what_is_not_there_and_who_does_not_answer_are_told_apart() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("reports", 1, 1).unwrap();
        let kafka = Kafka { brokers: cluster.bootstrap_servers(), ..Kafka::default() };
        let producer: BaseProducer = kafka.client().create().unwrap();
        for _ in 0..3 {
            producer.send(BaseRecord::<(), str>::to("reports").payload("a")).unwrap();
        }
        producer.flush(Duration::from_secs(10)).unwrap();
        let key: Key = (Arc::from("reports"), 0);
        assert_eq!(probe(&kafka, &key, 1), Answer::Record(1));
        assert_eq!(probe(&kafka, &key, 3), Answer::Silence);
        // A disk that fails is told to the client, which asks again and says nothing.
        let failing = RDKafkaRespErr::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR;
        cluster.request_errors(RDKafkaApiKey::Fetch, &[failing; 5_000]);
        assert!(matches!(probe(&kafka, &key, 1), Answer::Silence | Answer::Refused(_)));
        cluster.clear_request_errors(RDKafkaApiKey::Fetch);
        cluster.broker_down(1).unwrap();
        assert!(matches!(probe(&kafka, &key, 1), Answer::Refused(_)));
    }
}
