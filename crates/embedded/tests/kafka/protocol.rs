//! Requests from the encoders of the protocol library: one for each kind and version that the log
//! supports.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::{
    messages::*,
    protocol::{Decodable, Encodable, Request, StrBytes},
    records::{Compression, NO_PARTITION_LEADER_EPOCH, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType},
};

/// The topic of all requests. It has one partition with one record.
pub const TOPIC: &str = "t";

/// A connection that sends one request after the other.
pub struct Client(TcpStream);

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self(stream)
    }

    /// Sends a request and decodes its answer. No byte may follow the answer.
    pub fn ask<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.0.write_all(&framed(&encoded(version, request))).unwrap();
        let mut answer = self.answer().unwrap_or_else(|error| panic!("{:?} v{version}: {error}", key::<R>()));
        let header = key::<R>().response_header_version(version);
        assert_eq!(ResponseHeader::decode(&mut answer, header).unwrap().correlation_id, 7);
        let response = R::Response::decode(&mut answer, version).unwrap();
        assert!(answer.is_empty(), "{:?} v{version}: {} bytes too many", key::<R>(), answer.len());
        response
    }

    /// Sends only these bytes, and waits for an answer or for the end of the connection.
    pub fn poke(mut self, body: &[u8]) {
        let _ = self.0.write_all(&framed(body));
        let _ = self.0.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        match self.0.read_to_end(&mut answer) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("neither an answer nor the end"),
            _ => {}
        }
    }

    fn answer(&mut self) -> std::io::Result<Bytes> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let mut answer = BytesMut::zeroed(usize::try_from(i32::from_be_bytes(length)).unwrap());
        self.0.read_exact(&mut answer)?;
        Ok(answer.freeze())
    }
}

fn key<R: Request>() -> ApiKey {
    ApiKey::try_from(R::KEY).unwrap()
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat()
}

/// A request with its header.
pub fn encoded<R: Request>(version: i16, request: &R) -> Vec<u8> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(7)
        .with_client_id(Some(text("test")));
    let mut body = BytesMut::new();
    header.encode(&mut body, key::<R>().request_header_version(version)).unwrap();
    request.encode(&mut body, version).unwrap_or_else(|error| panic!("{:?} v{version}: {error}", key::<R>()));
    body.to_vec()
}

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub fn topic() -> TopicName {
    TopicName(text(TOPIC))
}

fn group() -> GroupId {
    GroupId(text("g"))
}

/// A batch of one record with this value.
pub fn batch(value: &[u8]) -> Bytes {
    let record = Record {
        transactional: false,
        control: false,
        partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset: 0,
        sequence: -1,
        timestamp: 1_000,
        delete_horizon: false,
        key: None,
        value: Some(Bytes::copy_from_slice(value)),
        headers: Default::default(),
    };
    let mut batch = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut batch, [&record], &options).unwrap();
    batch.freeze()
}

pub fn produce(records: Bytes) -> ProduceRequest {
    use produce_request::{PartitionProduceData, TopicProduceData};
    let data = PartitionProduceData::default().with_index(0).with_records(Some(records));
    let data = TopicProduceData::default().with_name(topic()).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(-1).with_timeout_ms(1_000).with_topic_data(vec![data])
}

pub fn fetch() -> FetchRequest {
    use fetch_request::{FetchPartition, FetchTopic};
    let partition = FetchPartition::default().with_partition(0).with_fetch_offset(0).with_partition_max_bytes(1 << 20);
    let topics = vec![FetchTopic::default().with_topic(topic()).with_partitions(vec![partition])];
    FetchRequest::default().with_max_wait_ms(100).with_min_bytes(1).with_max_bytes(1 << 20).with_topics(topics)
}

pub fn commit(partition: i32, offset: i64, metadata: &str) -> OffsetCommitRequest {
    use offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text(metadata)));
    let topics = vec![OffsetCommitRequestTopic::default().with_name(topic()).with_partitions(vec![partition])];
    OffsetCommitRequest::default().with_group_id(group()).with_generation_id_or_member_epoch(-1).with_topics(topics)
}

/// What a test does with each request.
pub trait Visitor {
    fn visit<R: Request>(&mut self, version: i16, request: R, check: fn(R::Response, i16));
}

/// Visits all requests that the log supports, in every version, the lowest first.
pub fn visit_all(address: SocketAddr, visitor: &mut impl Visitor) {
    let offered = Client::connect(address).ask(0, &ApiVersionsRequest::default());
    assert_eq!(offered.api_keys.len(), 16);
    for api in offered.api_keys {
        for version in api.min_version..=api.max_version {
            visit(ApiKey::try_from(api.api_key).unwrap(), version, visitor);
        }
    }
}

fn visit(key: ApiKey, version: i16, visitor: &mut impl Visitor) {
    match key {
        ApiKey::Produce => visitor.visit(version, produce(batch(b"value")), |answer, version| {
            assert_eq!(answer.responses[0].partition_responses[0].error_code, 0, "v{version}");
        }),
        ApiKey::Fetch => visitor.visit(version, fetch(), |answer, version| {
            let partition = &answer.responses[0].partitions[0];
            assert!(partition.records.as_ref().is_some_and(|records| records.has_remaining()), "v{version}");
        }),
        ApiKey::ListOffsets => visit_list_offsets(version, visitor),
        ApiKey::Metadata => {
            let asked = vec![metadata_request::MetadataRequestTopic::default().with_name(Some(topic()))];
            visitor.visit(version, MetadataRequest::default().with_topics(Some(asked)), |answer, version| {
                assert_eq!(answer.topics[0].partitions.len(), 1, "v{version}");
            });
        }
        ApiKey::OffsetCommit => visitor.visit(version, commit(0, 1, "noted"), |answer, version| {
            assert_eq!(answer.topics[0].partitions[0].error_code, 0, "v{version}");
        }),
        ApiKey::OffsetFetch => visit_offset_fetch(version, visitor),
        ApiKey::FindCoordinator => {
            let request = FindCoordinatorRequest::default();
            let request = match version {
                ..4 => request.with_key(text("g")),
                _ => request.with_coordinator_keys(vec![text("g"), text("h")]),
            };
            visitor.visit(version, request, |answer, version| {
                let ports: Vec<_> = answer.coordinators.iter().map(|found| found.port).collect();
                assert!(if version < 4 { answer.port > 0 } else { ports.len() == 2 && ports[0] > 0 });
            });
        }
        ApiKey::JoinGroup => {
            let protocol = join_group_request::JoinGroupRequestProtocol::default()
                .with_name(text("range"))
                .with_metadata(Bytes::from_static(b"metadata"));
            let request = JoinGroupRequest::default()
                .with_group_id(GroupId(text(&format!("joined-{version}"))))
                .with_session_timeout_ms(6_000)
                .with_protocol_type(text("consumer"))
                .with_protocols(vec![protocol]);
            visitor.visit(version, request, |answer, version| {
                assert_eq!(answer.error_code, 0, "v{version}");
                assert!(!answer.member_id.is_empty(), "v{version}");
            });
        }
        _ => visit_rest(key, version, visitor),
    }
}

fn visit_list_offsets(version: i16, visitor: &mut impl Visitor) {
    use list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
    for timestamp in [-2, -1, 1_000] {
        let partition = ListOffsetsPartition::default().with_partition_index(0).with_timestamp(timestamp);
        let topics = vec![ListOffsetsTopic::default().with_name(topic()).with_partitions(vec![partition])];
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(topics);
        visitor.visit(version, request, |answer, version| {
            let partition = &answer.topics[0].partitions[0];
            assert_eq!((partition.error_code, partition.offset >= 0), (0, true), "v{version}");
        });
    }
}

fn visit_offset_fetch(version: i16, visitor: &mut impl Visitor) {
    use offset_fetch_request::*;
    let request = OffsetFetchRequest::default();
    let request = if version < 8 {
        let topic = OffsetFetchRequestTopic::default().with_name(topic()).with_partition_indexes(vec![0]);
        request.with_group_id(group()).with_topics(Some(vec![topic]))
    } else {
        let topic = OffsetFetchRequestTopics::default().with_name(topic()).with_partition_indexes(vec![0]);
        let group = OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(Some(vec![topic]));
        request.with_groups(vec![group])
    };
    visitor.visit(version, request, |answer, version| {
        let committed = match version {
            ..8 => answer.topics[0].partitions[0].committed_offset,
            _ => answer.groups[0].topics[0].partitions[0].committed_offset,
        };
        assert_eq!(committed, 1, "v{version}");
    });
}

fn visit_rest(key: ApiKey, version: i16, visitor: &mut impl Visitor) {
    /// Kafka's code for a member that the group does not know.
    const UNKNOWN_MEMBER: i16 = 25;
    match key {
        ApiKey::Heartbeat => {
            let request = HeartbeatRequest::default().with_group_id(group()).with_member_id(text("m"));
            visitor.visit(version, request, |answer, _| assert_eq!(answer.error_code, UNKNOWN_MEMBER));
        }
        ApiKey::LeaveGroup => {
            let member = leave_group_request::MemberIdentity::default().with_member_id(text("m"));
            let request = LeaveGroupRequest::default().with_group_id(group());
            let request =
                if version < 3 { request.with_member_id(text("m")) } else { request.with_members(vec![member]) };
            visitor.visit(version, request, |answer, version| {
                let code = if version < 3 { answer.error_code } else { answer.members[0].error_code };
                assert_eq!(code, UNKNOWN_MEMBER, "v{version}");
            });
        }
        ApiKey::SyncGroup => {
            let assignment = sync_group_request::SyncGroupRequestAssignment::default()
                .with_member_id(text("m"))
                .with_assignment(Bytes::from_static(b"assignment"));
            let request = SyncGroupRequest::default()
                .with_group_id(group())
                .with_member_id(text("m"))
                .with_assignments(vec![assignment]);
            visitor.visit(version, request, |answer, _| assert_eq!(answer.error_code, UNKNOWN_MEMBER));
        }
        ApiKey::ApiVersions => {
            let request = ApiVersionsRequest::default();
            let request = if version < 3 {
                request
            } else {
                request.with_client_software_name(text("test")).with_client_software_version(text("1"))
            };
            visitor.visit(version, request, |answer, _| assert_eq!(answer.api_keys.len(), 16));
        }
        ApiKey::CreateTopics => {
            use create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
            let assignment = CreatableReplicaAssignment::default().with_broker_ids(vec![BrokerId(1)]);
            let config =
                CreatableTopicConfig::default().with_name(text("retention.ms")).with_value(Some(text("100000000")));
            let topic = CreatableTopic::default()
                .with_name(TopicName(text(&format!("made-{version}"))))
                .with_num_partitions(-1)
                .with_replication_factor(-1)
                .with_assignments(vec![assignment])
                .with_configs(vec![config]);
            let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(1_000);
            visitor.visit(version, request, |answer, version| {
                assert_eq!(answer.topics[0].error_code, 0, "v{version}");
            });
        }
        ApiKey::DeleteTopics => {
            let name = TopicName(text("absent"));
            let request = DeleteTopicsRequest::default().with_timeout_ms(1_000);
            let request = if version < 6 {
                request.with_topic_names(vec![name])
            } else {
                request.with_topics(vec![delete_topics_request::DeleteTopicState::default().with_name(Some(name))])
            };
            visitor.visit(version, request, |answer, _| assert_eq!(answer.responses[0].error_code, 3));
        }
        ApiKey::InitProducerId => {
            let request =
                InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(1_000);
            visitor.visit(version, request, |answer, _| assert_eq!(answer.error_code, 0));
        }
        ApiKey::DescribeConfigs => {
            let resource = describe_configs_request::DescribeConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text(TOPIC))
                .with_configuration_keys(Some(vec![text("retention.ms"), text("segment.bytes")]));
            let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
            visitor.visit(version, request, |answer, _| assert_eq!(answer.results[0].configs.len(), 2));
        }
        key => panic!("{key:?} is offered, and no test asks for it"),
    }
}
