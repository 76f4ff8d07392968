//! Metadata; creating, removing and describing topics.

use std::{collections::HashSet, sync::Arc};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        BrokerId, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
        DescribeConfigsRequest, DescribeConfigsResponse, MetadataRequest, MetadataResponse, TopicName,
        create_topics_request::CreatableTopic,
        create_topics_response::CreatableTopicResult,
        delete_topics_response::DeletableTopicResult,
        describe_configs_request::DescribeConfigsResource,
        describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult},
        metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
    },
};
use uuid::Uuid;

use super::{
    LEADER_EPOCH, NODE_ID,
    catalog::Topic,
    config,
    context::{Context, blocking, code, text},
};

const TOPIC_RESOURCE: i8 = 2;
/// Kafka's codes for the source of a configuration value.
const FROM_TOPIC: i8 = 1;
const FROM_DEFAULT: i8 = 5;

/// The one broker and the requested topics. A request for a topic does not create it.
pub(super) async fn metadata(context: Context, request: MetadataRequest, version: i16) -> MetadataResponse {
    let catalog = &context.broker.catalog;
    let asked = request.topics.filter(|topics| version > 0 || !topics.is_empty());
    // A topic that is named several times is described once, so that the answer cannot grow without
    // limit.
    let mut described = HashSet::new();
    let topics = match asked {
        None => catalog.topics().iter().map(|(name, topic)| describe(Some(name), topic)).collect(),
        Some(asked) => asked
            .into_iter()
            .filter(|asked| {
                let id = if asked.name.is_some() { Uuid::nil() } else { asked.topic_id };
                described.insert((asked.name.clone(), id))
            })
            .map(|asked| match asked.name {
                Some(name) => match catalog.topic(&name) {
                    Some(topic) => describe(Some(&name), &topic),
                    None => unknown(Some(name), asked.topic_id, ResponseError::UnknownTopicOrPartition),
                },
                None => match catalog.topics().iter().find(|(_, topic)| topic.id == asked.topic_id) {
                    Some((name, topic)) => describe(Some(name), topic),
                    None => unknown(None, asked.topic_id, ResponseError::UnknownTopicId),
                },
            })
            .collect(),
    };
    let broker = MetadataResponseBroker::default()
        .with_node_id(BrokerId(NODE_ID))
        .with_host(text(context.local.ip().to_string()))
        .with_port(i32::from(context.local.port()));
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(text(catalog.cluster_id.as_str())))
        .with_controller_id(BrokerId(NODE_ID))
        .with_topics(topics)
}

fn describe(name: Option<&str>, topic: &Topic) -> MetadataResponseTopic {
    let partition = |index| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(BrokerId(NODE_ID))
            .with_leader_epoch(LEADER_EPOCH)
            .with_replica_nodes(vec![BrokerId(NODE_ID)])
            .with_isr_nodes(vec![BrokerId(NODE_ID)])
    };
    MetadataResponseTopic::default()
        .with_name(name.map(|name| TopicName(text(name))))
        .with_topic_id(topic.id)
        .with_partitions((0..).zip(&topic.partitions).map(|(index, _)| partition(index)).collect())
}

fn unknown(name: Option<TopicName>, id: Uuid, error: ResponseError) -> MetadataResponseTopic {
    MetadataResponseTopic::default().with_name(name).with_topic_id(id).with_error_code(error.code())
}

/// Creates topics. Each is durable when this answers.
pub(super) async fn create(context: Context, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let name = topic.name.clone();
        let (broker, dry_run) = (Arc::clone(&context.broker), request.validate_only);
        let partitions = partition_count(&topic);
        let created = blocking(move || {
            let mut configuration = config::Values::new();
            for entry in &topic.configs {
                let value = entry.value.as_deref().ok_or(ResponseError::InvalidConfig)?;
                configuration.insert(entry.name.to_string(), value.to_owned());
            }
            let id = broker.catalog.create(&topic.name, partition_count(&topic)?, configuration, dry_run)?;
            if !dry_run {
                // A crash may have interrupted the removal of an earlier topic of this name.
                broker.offsets.forget_topic(&topic.name)?;
            }
            Ok(id)
        })
        .await;
        let result = CreatableTopicResult::default().with_name(name).with_error_code(code(&created));
        topics.push(match created {
            Ok(id) => result
                .with_topic_id(id)
                .with_num_partitions(partitions.unwrap_or_default())
                .with_replication_factor(1)
                .with_configs(Some(Vec::new())),
            Err(error) => result.with_error_message(Some(text(error.to_string()))),
        });
    }
    CreateTopicsResponse::default().with_topics(topics)
}

/// The number of partitions. Each has one copy; -1 asks for the default.
fn partition_count(topic: &CreatableTopic) -> Result<i32, ResponseError> {
    let assigned = i32::try_from(topic.assignments.len()).map_err(|_| ResponseError::InvalidPartitions)?;
    if assigned > 0 {
        let own = |brokers: &[BrokerId]| brokers == [BrokerId(NODE_ID)];
        return match topic.assignments.iter().all(|assignment| own(&assignment.broker_ids)) {
            true => Ok(assigned),
            false => Err(ResponseError::InvalidReplicaAssignment),
        };
    }
    match (topic.replication_factor, topic.num_partitions) {
        (-1 | 1, -1) => Ok(1),
        (-1 | 1, count) => Ok(count),
        _ => Err(ResponseError::InvalidReplicationFactor),
    }
}

/// Removes topics, their records, and the offsets that groups committed for them.
pub(super) async fn delete(context: Context, request: DeleteTopicsRequest, version: i16) -> DeleteTopicsResponse {
    let by_state = request.topics.into_iter().map(|state| (state.name, state.topic_id));
    let by_name = request.topic_names.into_iter().map(|name| (Some(name), Uuid::nil()));
    let asked: Vec<_> = if version >= 6 { by_state.collect() } else { by_name.collect() };
    let mut responses = Vec::with_capacity(asked.len());
    for (name, id) in asked {
        let named = name.or_else(|| {
            let topics = context.broker.catalog.topics();
            topics.iter().find(|(_, topic)| topic.id == id).map(|(name, _)| TopicName(text(name.as_str())))
        });
        let deleted = match named.clone() {
            Some(name) => {
                let broker = Arc::clone(&context.broker);
                blocking(move || {
                    broker.catalog.delete(&name)?;
                    broker.offsets.forget_topic(&name)
                })
                .await
            }
            None => Err(ResponseError::UnknownTopicId),
        };
        responses
            .push(DeletableTopicResult::default().with_name(named).with_topic_id(id).with_error_code(code(&deleted)));
    }
    DeleteTopicsResponse::default().with_responses(responses)
}

/// The configuration of topics. The broker itself has none.
pub(super) async fn describe_configs(context: Context, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let describe = |resource: DescribeConfigsResource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        if resource.resource_type != TOPIC_RESOURCE {
            return result;
        }
        let Some(topic) = context.broker.catalog.topic(&resource.resource_name) else {
            return result.with_error_code(ResponseError::UnknownTopicOrPartition.code());
        };
        let wanted = |known: &&config::Known| {
            let keys = resource.configuration_keys.as_ref();
            keys.is_none_or(|keys| keys.iter().any(|key| key.as_str() == known.name))
        };
        let entry = |known: &config::Known| {
            let (value, own) = config::value(&topic.configuration, known);
            DescribeConfigsResourceResult::default()
                .with_name(text(known.name))
                .with_value(Some(text(value)))
                .with_config_source(if own { FROM_TOPIC } else { FROM_DEFAULT })
                .with_config_type(known.kind as i8)
        };
        result.with_configs(config::KNOWN.iter().filter(wanted).map(entry).collect())
    };
    DescribeConfigsResponse::default().with_results(request.resources.into_iter().map(describe).collect())
}
