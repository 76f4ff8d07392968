//! Producing: giving out producer ids, and handing batches to the owners of their partitions.

use std::future::Future;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse,
        produce_request::PartitionProduceData,
        produce_response::{PartitionProduceResponse, TopicProduceResponse},
    },
};
use tokio::sync::oneshot;

use super::{
    batch, config,
    context::{Context, blocking},
    partition::Appended,
};

enum Submitted {
    Waiting(oneshot::Receiver<Result<Appended, ResponseError>>),
    Refused(ResponseError),
}

/// Hands every batch to its partition, in order. Returns whether an answer is due, and the answer,
/// which waits for the disk. This waits while a partition is too slow.
pub(super) async fn submit(
    context: &Context,
    request: ProduceRequest,
) -> (bool, impl Future<Output = ProduceResponse> + Send + 'static) {
    let refused = match request.acks {
        -1..=1 if request.transactional_id.is_none() => None,
        -1..=1 => Some(ResponseError::InvalidRequest),
        _ => Some(ResponseError::InvalidRequiredAcks),
    };
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for data in topic.partition_data {
            let index = data.index;
            let submitted = match refused {
                Some(error) => Submitted::Refused(error),
                None => append(context, &topic.name, data).await.map_or_else(Submitted::Refused, Submitted::Waiting),
            };
            partitions.push((index, submitted));
        }
        topics.push((topic.name, partitions));
    }
    let answer = async move {
        let mut responses = Vec::with_capacity(topics.len());
        for (name, partitions) in topics {
            let mut answers = Vec::with_capacity(partitions.len());
            for (index, submitted) in partitions {
                let outcome = match submitted {
                    // The owner has ended because of a failure, and so will the broker.
                    Submitted::Waiting(waiting) => waiting.await.unwrap_or(Err(ResponseError::KafkaStorageError)),
                    Submitted::Refused(error) => Err(error),
                };
                answers.push(partition_response(index, outcome));
            }
            responses.push(TopicProduceResponse::default().with_name(name).with_partition_responses(answers));
        }
        ProduceResponse::default().with_responses(responses)
    };
    (request.acks != 0, answer)
}

async fn append(
    context: &Context,
    topic: &str,
    data: PartitionProduceData,
) -> Result<oneshot::Receiver<Result<Appended, ResponseError>>, ResponseError> {
    let catalog = &context.broker.catalog;
    let bytes_max = catalog.topic(topic).map(|topic| config::batch_bytes_max(&topic.configuration));
    let (Some(bytes_max), Some(partition)) = (bytes_max, catalog.partition(topic, data.index)) else {
        return Err(ResponseError::UnknownTopicOrPartition);
    };
    let admitted = batch::admit(data.records.ok_or(ResponseError::CorruptMessage)?, bytes_max)?;
    Ok(partition.append(admitted).await)
}

fn partition_response(index: i32, outcome: Result<Appended, ResponseError>) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default().with_index(index);
    match outcome {
        Ok(appended) => response.with_base_offset(appended.base_offset).with_log_start_offset(appended.start_offset),
        Err(error) => response.with_base_offset(-1).with_error_code(error.code()),
    }
}

/// Gives out a new producer id, or the next epoch for the producer's own id.
pub(super) async fn init_producer_id(context: Context, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let refuse = |error: ResponseError| InitProducerIdResponse::default().with_error_code(error.code());
    if request.transactional_id.is_some() {
        return refuse(ResponseError::InvalidRequest);
    }
    if request.producer_id.0 >= 0
        && let Some(epoch) = request.producer_epoch.checked_add(1).filter(|epoch| *epoch < i16::MAX)
    {
        return InitProducerIdResponse::default().with_producer_id(request.producer_id).with_producer_epoch(epoch);
    }
    match blocking(move || context.broker.catalog.next_producer_id()).await {
        Ok(id) => InitProducerIdResponse::default().with_producer_id(id.into()).with_producer_epoch(0),
        Err(error) => refuse(error),
    }
}
