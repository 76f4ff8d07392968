//! Consumer groups in the protocol: membership goes to [`Group`], commits go to the offsets file.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        BrokerId, FindCoordinatorRequest, FindCoordinatorResponse, GroupId, HeartbeatRequest, HeartbeatResponse,
        JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, OffsetCommitRequest,
        OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, SyncGroupRequest, SyncGroupResponse, TopicName,
        find_coordinator_response::Coordinator,
        join_group_response::JoinGroupResponseMember,
        leave_group_request::MemberIdentity,
        leave_group_response::MemberResponse,
        offset_commit_request::OffsetCommitRequestPartition,
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
        offset_fetch_request::OffsetFetchRequestTopics,
        offset_fetch_response::{
            OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
            OffsetFetchResponseTopic, OffsetFetchResponseTopics,
        },
    },
};
use tokio::sync::oneshot;

use super::{
    NODE_ID,
    context::{Context, blocking, code, text},
    group::{Group, Join, Joined},
    offsets::{Committed, GroupOffsets},
};

const GROUPS_MAX: usize = 1_000;
const GROUP_KEY: i8 = 0;
/// Longest name of a group, and longest note beside an offset, bytes. Both are kept in memory and
/// on disk. The limits are those of Apache Kafka.
const GROUP_ID_BYTES_MAX: usize = 1_024;
const METADATA_BYTES_MAX: usize = 4_096;
const SESSION_TIMEOUT_MS: std::ops::RangeInclusive<i32> = 100..=1_800_000;

/// Names the only node, which coordinates every group.
pub(super) async fn find(context: Context, request: FindCoordinatorRequest, version: i16) -> FindCoordinatorResponse {
    let error = if request.key_type == GROUP_KEY { 0 } else { ResponseError::CoordinatorNotAvailable.code() };
    let (host, port) = (text(context.local.ip().to_string()), i32::from(context.local.port()));
    if version < 4 {
        return FindCoordinatorResponse::default()
            .with_error_code(error)
            .with_node_id(BrokerId(NODE_ID))
            .with_host(host)
            .with_port(port);
    }
    let coordinator = |key| {
        Coordinator::default()
            .with_key(key)
            .with_error_code(error)
            .with_node_id(BrokerId(NODE_ID))
            .with_host(host.clone())
            .with_port(port)
    };
    FindCoordinatorResponse::default()
        .with_coordinators(request.coordinator_keys.into_iter().map(coordinator).collect())
}

/// Waits until the members of the group have joined.
pub(super) async fn join(context: Context, client_id: String, request: JoinGroupRequest) -> JoinGroupResponse {
    let member_id = request.member_id.clone();
    match try_join(&context, client_id, request).await {
        Ok(joined) => {
            let member = |member: super::group::Described| {
                JoinGroupResponseMember::default()
                    .with_member_id(text(member.member_id))
                    .with_group_instance_id(member.instance_id.map(text))
                    .with_metadata(member.metadata)
            };
            JoinGroupResponse::default()
                .with_generation_id(joined.generation)
                .with_protocol_type(Some(text(joined.protocol_type)))
                .with_protocol_name(Some(text(joined.protocol)))
                .with_leader(text(joined.leader))
                .with_member_id(text(joined.member_id))
                .with_members(joined.members.into_iter().map(member).collect())
        }
        Err(error) => JoinGroupResponse::default()
            .with_error_code(error.code())
            .with_generation_id(-1)
            .with_protocol_name(Some(text("")))
            .with_member_id(member_id),
    }
}

async fn try_join(context: &Context, client_id: String, request: JoinGroupRequest) -> Result<Joined, ResponseError> {
    if request.group_id.is_empty() {
        return Err(ResponseError::InvalidGroupId);
    }
    if !SESSION_TIMEOUT_MS.contains(&request.session_timeout_ms) {
        return Err(ResponseError::InvalidSessionTimeout);
    }
    let session_timeout = milliseconds(request.session_timeout_ms);
    let join = Join {
        member_id: request.member_id.to_string(),
        client_id: if client_id.is_empty() { "member".to_owned() } else { client_id },
        instance_id: request.group_instance_id.map(|id| id.to_string()),
        protocol_type: request.protocol_type.to_string(),
        protocols: request.protocols.into_iter().map(|entry| (entry.name.to_string(), entry.metadata)).collect(),
        session_timeout,
        rebalance_timeout: milliseconds(request.rebalance_timeout_ms).max(session_timeout),
    };
    let (reply, joined) = oneshot::channel();
    {
        let mut groups = context.broker.groups.lock();
        if groups.len() >= GROUPS_MAX && !groups.contains_key(request.group_id.as_str()) {
            return Err(ResponseError::CoordinatorNotAvailable);
        }
        groups.entry(request.group_id.to_string()).or_default().join(Instant::now(), join, reply);
    }
    answered(context, joined).await
}

pub(super) async fn sync(context: Context, request: SyncGroupRequest) -> SyncGroupResponse {
    let (reply, assigned) = oneshot::channel();
    let assignments = request.assignments.into_iter().map(|entry| (entry.member_id.to_string(), entry.assignment));
    let assignments = assignments.collect();
    let found = with_group(&context, &request.group_id, |group| {
        group.sync(Instant::now(), &request.member_id, request.generation_id, assignments, reply);
        Ok(())
    });
    let outcome = match found {
        Ok(()) => answered(&context, assigned).await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(assigned) => SyncGroupResponse::default()
            .with_protocol_type(Some(text(assigned.protocol_type)))
            .with_protocol_name(Some(text(assigned.protocol)))
            .with_assignment(assigned.assignment),
        Err(error) => SyncGroupResponse::default().with_error_code(error.code()),
    }
}

pub(super) async fn heartbeat(context: Context, request: HeartbeatRequest) -> HeartbeatResponse {
    let outcome = with_group(&context, &request.group_id, |group| {
        group.heartbeat(Instant::now(), &request.member_id, request.generation_id)
    });
    HeartbeatResponse::default().with_error_code(code(&outcome))
}

pub(super) async fn leave(context: Context, request: LeaveGroupRequest, version: i16) -> LeaveGroupResponse {
    let leave = |member: &MemberIdentity| {
        with_group(&context, &request.group_id, |group| {
            group.leave(Instant::now(), &member.member_id, member.group_instance_id.as_deref())
        })
    };
    if version < 3 {
        let outcome = leave(&MemberIdentity::default().with_member_id(request.member_id.clone()));
        return LeaveGroupResponse::default().with_error_code(code(&outcome));
    }
    let member = |member: &MemberIdentity| {
        MemberResponse::default()
            .with_member_id(member.member_id.clone())
            .with_group_instance_id(member.group_instance_id.clone())
            .with_error_code(code(&leave(member)))
    };
    LeaveGroupResponse::default().with_members(request.members.iter().map(member).collect())
}

/// Stores offsets, which are durable when this answers. An offset is refused if its partition does
/// not exist, or if no reader can have reached it; the others are still stored.
pub(super) async fn commit(context: Context, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let mut offsets = GroupOffsets::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let checked = check_commit(&context, &topic.name, asked).map(|committed| {
                offsets.entry(topic.name.to_string()).or_default().insert(asked.partition_index, committed);
            });
            partitions.push((asked.partition_index, checked));
        }
        topics.push((topic.name, partitions));
    }
    let (member_id, generation) = (&request.member_id, request.generation_id_or_member_epoch);
    let allowed = match context.broker.groups.lock().get_mut(request.group_id.as_str()) {
        Some(group) => group.may_commit(Instant::now(), member_id, generation),
        None => Group::default().may_commit(Instant::now(), member_id, generation),
    };
    let stored = match allowed {
        Ok(()) if request.group_id.len() > GROUP_ID_BYTES_MAX => Err(ResponseError::InvalidGroupId),
        Ok(()) if offsets.is_empty() => Ok(()),
        Ok(()) => blocking(move || context.broker.offsets.commit(&request.group_id, offsets)).await,
        Err(error) => Err(error),
    };
    let partition = |(index, checked): (i32, Result<(), ResponseError>)| {
        let outcome = stored.and(checked);
        OffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code(&outcome))
    };
    let topic = |(name, partitions): (TopicName, Vec<_>)| {
        let partitions = partitions.into_iter().map(partition).collect();
        OffsetCommitResponseTopic::default().with_name(name).with_partitions(partitions)
    };
    OffsetCommitResponse::default().with_topics(topics.into_iter().map(topic).collect())
}

fn check_commit(
    context: &Context,
    topic: &str,
    asked: &OffsetCommitRequestPartition,
) -> Result<Committed, ResponseError> {
    let partition = context.broker.catalog.partition(topic, asked.partition_index);
    let end = partition.ok_or(ResponseError::UnknownTopicOrPartition)?.log.end_offset();
    // At its next start the broker would conclude from such an offset that it has lost records.
    if asked.committed_offset > end {
        return Err(ResponseError::OffsetOutOfRange);
    }
    let metadata = asked.committed_metadata.as_deref().unwrap_or_default();
    if metadata.len() > METADATA_BYTES_MAX {
        return Err(ResponseError::OffsetMetadataTooLarge);
    }
    Ok(Committed {
        offset: asked.committed_offset,
        leader_epoch: asked.committed_leader_epoch,
        metadata: metadata.to_owned(),
    })
}

/// The offsets that groups have committed; -1 = none.
pub(super) async fn committed(context: Context, request: OffsetFetchRequest, version: i16) -> OffsetFetchResponse {
    if version >= 8 {
        let group = |asked: kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup| {
            let topics = group_offsets(&context, &asked.group_id, asked.topics);
            OffsetFetchResponseGroup::default().with_group_id(asked.group_id).with_topics(topics)
        };
        // A group that is named several times is answered once, so that the answer cannot grow
        // without limit.
        let mut answered = HashSet::new();
        let groups = request.groups.into_iter().filter(|asked| answered.insert(asked.group_id.clone()));
        return OffsetFetchResponse::default().with_groups(groups.map(group).collect());
    }
    // The older form asks for one group. Its parts have the same fields under other names.
    let asked = request.topics.map(|topics| {
        let topic = |topic: kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic| {
            OffsetFetchRequestTopics::default().with_name(topic.name).with_partition_indexes(topic.partition_indexes)
        };
        topics.into_iter().map(topic).collect()
    });
    let topic = |topic: OffsetFetchResponseTopics| {
        let partition = |partition: OffsetFetchResponsePartitions| {
            OffsetFetchResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_committed_offset(partition.committed_offset)
                .with_committed_leader_epoch(if version >= 5 { partition.committed_leader_epoch } else { -1 })
                .with_metadata(partition.metadata)
        };
        let partitions = topic.partitions.into_iter().map(partition).collect();
        OffsetFetchResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    };
    let topics = group_offsets(&context, &request.group_id, asked).into_iter().map(topic).collect();
    OffsetFetchResponse::default().with_topics(topics)
}

/// The requested offsets, or all offsets of the group for `None`.
fn group_offsets(
    context: &Context,
    group: &GroupId,
    asked: Option<Vec<OffsetFetchRequestTopics>>,
) -> Vec<OffsetFetchResponseTopics> {
    let offsets = context.broker.offsets.of_group(group);
    let all = || {
        let topic = |(name, partitions): (&String, &BTreeMap<i32, Committed>)| {
            OffsetFetchRequestTopics::default()
                .with_name(TopicName(text(name.as_str())))
                .with_partition_indexes(partitions.keys().copied().collect())
        };
        offsets.iter().map(topic).collect()
    };
    let topic = |asked: OffsetFetchRequestTopics| {
        let partition = |index: &i32| {
            let found = offsets.get(asked.name.as_str()).and_then(|partitions| partitions.get(index));
            OffsetFetchResponsePartitions::default()
                .with_partition_index(*index)
                .with_committed_offset(found.map_or(-1, |found| found.offset))
                .with_committed_leader_epoch(found.map_or(-1, |found| found.leader_epoch))
                .with_metadata(Some(text(found.map_or("", |found| found.metadata.as_str()))))
        };
        let partitions = asked.partition_indexes.iter().map(partition).collect();
        OffsetFetchResponseTopics::default().with_name(asked.name).with_partitions(partitions)
    };
    asked.unwrap_or_else(all).into_iter().map(topic).collect()
}

fn with_group<T>(
    context: &Context,
    group_id: &GroupId,
    act: impl FnOnce(&mut Group) -> Result<T, ResponseError>,
) -> Result<T, ResponseError> {
    context.broker.groups.lock().get_mut(group_id.as_str()).map_or(Err(ResponseError::UnknownMemberId), act)
}

/// The group's answer. A stopping broker answers in its place.
async fn answered<T>(
    context: &Context,
    answer: oneshot::Receiver<Result<T, ResponseError>>,
) -> Result<T, ResponseError> {
    tokio::select! {
        answer = answer => answer.unwrap_or(Err(ResponseError::UnknownMemberId)),
        () = context.broker.shutdown.cancelled() => Err(ResponseError::CoordinatorNotAvailable),
    }
}

fn milliseconds(count: i32) -> Duration {
    Duration::from_millis(u64::try_from(count).unwrap_or(0))
}
