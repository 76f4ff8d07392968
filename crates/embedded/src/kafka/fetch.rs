//! Fetching records, with long polling, and listing offsets by time.

use std::time::Duration;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        BrokerId, FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse,
        fetch_request::FetchPartition,
        fetch_response::{FetchableTopicResponse, PartitionData},
        list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
    },
};
use tokio::time::Instant;

use super::{
    Broker, LEADER_EPOCH,
    context::{Context, blocking, code},
    partition::{Log, ReadError},
};

/// Size of one answer, bytes. A single larger batch is still sent.
const FETCH_BYTES_MAX: usize = 8 << 20;
const WAIT_MAX: Duration = Duration::from_secs(60);
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// Answers at once if there is something to read or to report. Otherwise it waits for that, at most
/// for the client's waiting time. A `min_bytes` above 1 counts as 1.
pub(super) async fn fetch(context: Context, request: FetchRequest) -> FetchResponse {
    let patience = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(WAIT_MAX);
    let deadline = Instant::now() + patience;
    let mut appended = context.broker.appended.subscribe();
    while request.min_bytes > 0 && nothing_new(&context.broker, &request) {
        let changed = tokio::select! {
            changed = appended.changed() => changed.is_ok(),
            () = tokio::time::sleep_until(deadline) => false,
            () = context.broker.shutdown.cancelled() => false,
        };
        if !changed {
            break;
        }
    }
    let collected = blocking(move || Ok(collect(&context.broker, request))).await;
    collected.unwrap_or_else(|error| FetchResponse::default().with_error_code(error.code()))
}

fn nothing_new(broker: &Broker, request: &FetchRequest) -> bool {
    request.topics.iter().all(|topic| {
        topic.partitions.iter().all(|asked| {
            let partition = broker.catalog.partition(&topic.topic, asked.partition);
            partition.is_some_and(|partition| partition.log.is_at_end(asked.fetch_offset))
        })
    })
}

fn collect(broker: &Broker, request: FetchRequest) -> FetchResponse {
    let mut bytes_left = usize::try_from(request.max_bytes).unwrap_or(0).min(FETCH_BYTES_MAX);
    let mut responses = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let read = |asked: &FetchPartition| match broker.catalog.partition(&topic.topic, asked.partition) {
            Some(partition) => read(&partition.log, asked, &mut bytes_left),
            None => failed(asked, ResponseError::UnknownTopicOrPartition),
        };
        let partitions = topic.partitions.iter().map(read).collect();
        responses.push(FetchableTopicResponse::default().with_topic(topic.topic.clone()).with_partitions(partitions));
    }
    FetchResponse::default().with_responses(responses)
}

fn read(log: &Log, asked: &FetchPartition, bytes_left: &mut usize) -> PartitionData {
    // Before the read, so that the answer never claims a start below what was read.
    let start_offset = log.start_offset();
    let bytes_max = usize::try_from(asked.partition_max_bytes).unwrap_or(0).min(*bytes_left);
    let records = if *bytes_left == 0 { Ok(bytes::Bytes::new()) } else { log.read(asked.fetch_offset, bytes_max) };
    match records {
        Ok(records) => {
            *bytes_left = bytes_left.saturating_sub(records.len());
            let end_offset = log.end_offset();
            answer(asked)
                .with_high_watermark(end_offset)
                .with_last_stable_offset(end_offset)
                .with_log_start_offset(start_offset)
                .with_records(Some(records))
        }
        Err(ReadError::OutOfRange) => failed(asked, ResponseError::OffsetOutOfRange)
            .with_high_watermark(log.end_offset())
            .with_log_start_offset(start_offset),
        Err(ReadError::Io(error)) => {
            tracing::error!(%error, partition = asked.partition, offset = asked.fetch_offset, "cannot read kafka log");
            failed(asked, ResponseError::KafkaStorageError)
        }
    }
}

fn answer(asked: &FetchPartition) -> PartitionData {
    PartitionData::default()
        .with_partition_index(asked.partition)
        .with_preferred_read_replica(BrokerId(-1))
        .with_aborted_transactions(None)
}

fn failed(asked: &FetchPartition, error: ResponseError) -> PartitionData {
    answer(asked)
        .with_error_code(error.code())
        .with_high_watermark(-1)
        .with_last_stable_offset(-1)
        .with_log_start_offset(-1)
        .with_records(Some(bytes::Bytes::new()))
}

/// The first offset, the next offset, or the first one at or after a time. A search by time is
/// exact to the batch: records shortly before the time may be included.
pub(super) async fn list_offsets(context: Context, request: ListOffsetsRequest, version: i16) -> ListOffsetsResponse {
    // An older answer has no field for the leader epoch.
    let leader_epoch = if version >= 4 { LEADER_EPOCH } else { -1 };
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let found = match context.broker.catalog.partition(&topic.name, asked.partition_index) {
                Some(partition) => blocking(move || find(&partition.log, asked.timestamp)).await,
                None => Err(ResponseError::UnknownTopicOrPartition),
            };
            let (offset, timestamp) = found.unwrap_or((-1, -1));
            partitions.push(
                ListOffsetsPartitionResponse::default()
                    .with_partition_index(asked.partition_index)
                    .with_error_code(code(&found))
                    .with_offset(offset)
                    .with_timestamp(timestamp)
                    .with_leader_epoch(leader_epoch),
            );
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    ListOffsetsResponse::default().with_topics(topics)
}

fn find(log: &Log, timestamp_ms: i64) -> Result<(i64, i64), ResponseError> {
    match timestamp_ms {
        LATEST => Ok((log.end_offset(), -1)),
        EARLIEST => Ok((log.start_offset(), -1)),
        0.. => log.find_timestamp(timestamp_ms).map(|found| found.unwrap_or((-1, -1))).map_err(|error| {
            tracing::error!(%error, "cannot search kafka log");
            ResponseError::KafkaStorageError
        }),
        _ => Err(ResponseError::UnsupportedVersion),
    }
}
