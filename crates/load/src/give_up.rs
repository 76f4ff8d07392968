//! A person gives up a batch of Kafka that cannot be read, before `load.unreadable_after_s` has
//! passed.
//!
//! Only the owner of a partition moves its position. So a person leaves a request, which the owner
//! reads: the offset of the batch, committed for a consumer group that nobody joins. Kafka keeps it
//! where every loader can read it, and its access rights say who may ask. The group's name has the
//! incarnation of the topic, so that a request never meets a topic that was deleted and created
//! again.
//!
//! A request moves nothing by itself. The owner reads it only where its partition stands still, and
//! it counts only for the offset at which it stands. The owner then does what it would have done
//! after the time: it looks for a record behind the batch, and records what lies before that one.

use std::time::Duration;

use async_recursion::async_recursion as boxed;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer as _},
    error::KafkaError,
};
use warehouse::{
    Warehouse,
    loader::{CLOSED, Shard},
};

use crate::{
    error::Error,
    options::Kafka,
    partition::Key,
    start::watermarks,
    topics::incarnations,
    unread::{Answer, probe},
};

/// How long a broker may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take to answer an owner, which has other partitions to look at.
const OWNER_WITHIN: Duration = Duration::from_secs(3);
/// Between two looks at what has become of a request.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The offset of a request that was withdrawn: no partition comes so far.
const WITHDRAWN: i64 = 1 << 62;

/// The batch that a person gives up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub topic: String,
    pub partition: i32,
    /// Offset at which the partition stands still, as `/readyz` of its loader names it.
    pub offset: u64,
}

/// What the loader has recorded as lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LostOffsets {
    pub first_offset: u64,
    pub last_offset: u64,
}

/// Asks the owner of a partition to give up the batch at which it stands still, and waits until
/// that is recorded. A request that nobody has taken by then is withdrawn.
///
/// # Errors
/// [`Error::Topic`] or [`Error::Offsets`] where the request is not about a partition that stands
/// still at this offset because of an unreadable batch, or where no loader takes it in time.
/// [`Error::Kafka`] and [`Error::Warehouse`].
#[boxed]
pub async fn give_up(
    kafka: &Kafka,
    warehouse: &Warehouse,
    request: &Request,
    within: Duration,
) -> Result<LostOffsets, Error> {
    let shard = stands(kafka, warehouse, request).await?;
    note(kafka, request, shard.incarnation, request.offset.cast_signed()).await?;
    let deadline = tokio::time::Instant::now() + within;
    loop {
        let position = warehouse.progress(shard).await?.position().unwrap_or(0);
        if position > request.offset {
            let lost = warehouse.loss_at(shard, request.offset).await?;
            let read =
                || refused(request, format!("offset {} was read after all; nothing was given up", request.offset));
            return lost.map(|(first_offset, last_offset)| LostOffsets { first_offset, last_offset }).ok_or_else(read);
        }
        if tokio::time::Instant::now() > deadline {
            note(kafka, request, shard.incarnation, WITHDRAWN).await?;
            let fault = format!(
                "no loader has given up offset {} within {} s, and the request is withdrawn. A loader gives it up only once a record \
                 behind the batch can be read; see /readyz of the loader that reads this partition, then ask again, for longer where \
                 the batch has many records",
                request.offset,
                within.as_secs()
            );
            return Err(refused(request, fault));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether the partition stands still where the request says, and somebody is there to take it.
async fn stands(kafka: &Kafka, warehouse: &Warehouse, request: &Request) -> Result<Shard, Error> {
    let Request { topic, partition, offset } = request;
    let topics = kafka.topics.all();
    if !topics.contains(&topic.as_str()) {
        let fault = format!("no loader reads it; loaders read {}", topics.join(", "));
        return Err(Error::Topic { topic: topic.clone(), fault });
    }
    let incarnations = incarnations(kafka, &kafka.topics, warehouse).await?;
    let missing = || Error::Topic { topic: topic.clone(), fault: "is not known; run `doseline migrate`".to_owned() };
    let incarnation = incarnations.get(topic).ok_or_else(missing)?;
    if u32::try_from(*partition).is_ok_and(|partition| partition >= incarnation.partitions) || *partition < 0 {
        return Err(refused(
            request,
            format!("the topic has partitions 0 to {}", incarnation.partitions.saturating_sub(1)),
        ));
    }
    let shard = Shard { incarnation: incarnation.incarnation, partition: *partition };
    let position = match warehouse.progress(shard).await?.position() {
        Some(CLOSED) => return Err(Error::Closed { incarnation: incarnation.incarnation, partition: *partition }),
        position => position.unwrap_or(0),
    };
    let key: Key = (topic.as_str().into(), *partition);
    let (config, asked, owned) = (kafka.client(), key.clone(), kafka.clone());
    let asking = tokio::task::spawn_blocking(move || -> Result<_, KafkaError> {
        let client: BaseConsumer = config.create()?;
        let high = watermarks(&client, &asked)?.1;
        // Some brokers do not say; then it shows by nobody taking the request.
        let groups = client.fetch_group_list(Some(&owned.group), ANSWER_WITHIN).ok();
        Ok((high, groups.is_none_or(|list| list.groups().iter().any(|group| !group.members().is_empty()))))
    });
    let (high, read) = asking.await.map_err(|_| Error::Ended("kafka watermarks".to_owned()))??;
    if position.cast_signed() >= high {
        return Err(refused(
            request,
            format!("everything is written, up to offset {high}; nothing stands still there"),
        ));
    }
    if position != *offset {
        let fault = format!("the next record to be written has offset {position}, not {offset}; nothing is given up");
        return Err(refused(request, fault));
    }
    let (probing, from) = (kafka.clone(), *offset);
    let probed = tokio::task::spawn_blocking(move || probe(&probing, &key, from));
    let fault = match probed.await.map_err(|_| Error::Ended("kafka probe".to_owned()))? {
        Answer::Unreadable(_) | Answer::Silence if read => return Ok(shard),
        Answer::Unreadable(_) | Answer::Silence => format!(
            "no loader is running in the consumer group {} (load.group), and only the loader that reads the partition can give a \
             batch up; start it, then ask again",
            kafka.group
        ),
        Answer::Record(found) => {
            format!("offset {found} can be read, so nothing is given up; /readyz of the loader says what holds it up")
        }
        Answer::Refused(error) => {
            format!("whether the batch can be read is not certain, so nothing is given up; kafka says: {error}")
        }
    };
    Err(refused(request, fault))
}

fn refused(request: &Request, fault: String) -> Error {
    Error::Offsets { topic: request.topic.clone(), partition: request.partition, fault }
}

/// Leaves a request, or withdraws it.
async fn note(kafka: &Kafka, request: &Request, incarnation: u32, offset: i64) -> Result<(), Error> {
    let client = client(kafka, incarnation)?;
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(&request.topic, request.partition, Offset::Offset(offset))?;
    let committed = tokio::task::spawn_blocking(move || client.commit(&list, CommitMode::Sync));
    Ok(committed.await.map_err(|_| Error::Ended("kafka commit".to_owned()))??)
}

/// A client of the group that keeps requests. It never joins.
fn client(kafka: &Kafka, incarnation: u32) -> Result<BaseConsumer, KafkaError> {
    kafka
        .client()
        .set("group.id", format!("{}-give-up-{incarnation}", kafka.group))
        .set("enable.auto.commit", "false")
        .create()
}

/// Whether a person has given up what stands at this offset. Blocks.
pub(crate) fn is_asked(kafka: &Kafka, key: &Key, incarnation: u32, offset: u64) -> bool {
    let asked = || -> Result<bool, KafkaError> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&key.0, key.1);
        let committed = client(kafka, incarnation)?.committed_offsets(list, OWNER_WITHIN)?;
        let found = committed.find_partition(&key.0, key.1).map(|element| element.offset());
        Ok(found == Some(Offset::Offset(offset.cast_signed())))
    };
    asked().unwrap_or_else(|error| {
        tracing::warn!(topic = %key.0, partition = key.1, %error, "cannot see whether a person gives the batch up");
        false
    })
}
