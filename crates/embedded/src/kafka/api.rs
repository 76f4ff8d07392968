//! Decodes requests and encodes their answers. Lists the supported requests and versions.

use std::future::Future;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    error::ResponseError,
    messages::{
        ApiKey, ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader,
        api_versions_response::ApiVersion,
    },
    protocol::{Decodable, Encodable, HeaderVersion},
};

use super::{
    context::{Context, Malformed, Reply},
    coordination, fetch,
    memory::Held,
    produce, shape, topics,
};

/// The supported requests, with the lowest and highest version. Fetch and Produce stay below the
/// versions that name topics by id. `JoinGroup` stays below the version in which a broker may skip
/// the assignment.
const SUPPORTED: &[(ApiKey, i16, i16)] = &[
    (ApiKey::Produce, 3, 9),
    (ApiKey::Fetch, 4, 12),
    (ApiKey::ListOffsets, 1, 7),
    (ApiKey::Metadata, 0, 12),
    (ApiKey::OffsetCommit, 2, 9),
    (ApiKey::OffsetFetch, 1, 9),
    (ApiKey::FindCoordinator, 0, 4),
    (ApiKey::JoinGroup, 0, 7),
    (ApiKey::Heartbeat, 0, 4),
    (ApiKey::LeaveGroup, 0, 5),
    (ApiKey::SyncGroup, 0, 5),
    (ApiKey::ApiVersions, 0, 3),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::DeleteTopics, 1, 6),
    (ApiKey::InitProducerId, 0, 4),
    (ApiKey::DescribeConfigs, 1, 4),
];

/// The fields that address an answer.
#[derive(Clone, Copy, Debug)]
struct Head {
    correlation_id: i32,
    version: i16,
}

/// Whether a request that begins like this may be larger than the memory of one connection.
pub(super) fn may_be_large(frame: &[u8]) -> Result<(), Malformed> {
    match peek(frame)? {
        (ApiKey::Produce, _) => Ok(()),
        (key, _) => Err(Malformed::new(format!("{key:?} is too large; only Produce may be"))),
    }
}

/// The number of elements in all arrays of a request; 0 for an unsupported one, which is refused
/// later.
pub(super) fn items(frame: &[u8]) -> Result<usize, Malformed> {
    let (key, version) = peek(frame)?;
    if !is_supported(key, version) {
        return Ok(0);
    }
    shape::items(frame, key, version)
        .ok_or_else(|| Malformed::new(format!("{key:?} version {version} announces more than it holds")))
}

fn is_supported(key: ApiKey, version: i16) -> bool {
    SUPPORTED.iter().any(|(known, low, high)| *known == key && (*low..=*high).contains(&version))
}

/// Reads a request that [`items`] has measured, and starts to answer it. `held` is released with
/// the request. Work that must keep the order of the requests is done before this returns. Work
/// that may wait (for a disk, other clients, or time) is left to the reply.
pub(super) async fn dispatch(context: &Context, mut frame: Bytes, held: Held) -> Result<Reply, Malformed> {
    let (key, version) = peek(&frame)?;
    let head = Head { correlation_id: peek_correlation_id(&frame)?, version };
    if !is_supported(key, version) {
        return if key == ApiKey::ApiVersions {
            let response = api_versions().with_error_code(ResponseError::UnsupportedVersion.code());
            Ok(reply(Head { version: 0, ..head }, held, async move { response }))
        } else {
            Err(Malformed::new(format!("{key:?} version {version} is not supported")))
        };
    }
    let header = RequestHeader::decode(&mut frame, key.request_header_version(version)).map_err(Malformed::new)?;
    let client_id = header.client_id.as_deref().unwrap_or_default().to_owned();
    let context = context.clone();
    Ok(match key {
        ApiKey::Produce => {
            let request = decode(&mut frame, version)?;
            let (due, response) = produce::submit(&context, request).await;
            // It runs as a task of its own. A reply that waits for other answers of its connection
            // then holds no memory that other connections need.
            let stored = tokio::spawn(async move {
                let response = response.await;
                drop(held);
                response
            });
            Box::pin(async move {
                let response = stored.await.map_err(Malformed::new)?;
                // A producer that wants no answer still waits here, so that its requests count
                // against the limit of the pipeline.
                if due { encode(head, &response).map(Some) } else { Ok(None) }
            })
        }
        ApiKey::Fetch => reply(head, held, fetch::fetch(context, decode(&mut frame, version)?)),
        ApiKey::ListOffsets => reply(head, held, fetch::list_offsets(context, decode(&mut frame, version)?, version)),
        ApiKey::Metadata => reply(head, held, topics::metadata(context, decode(&mut frame, version)?, version)),
        ApiKey::CreateTopics => reply(head, held, topics::create(context, decode(&mut frame, version)?)),
        ApiKey::DeleteTopics => reply(head, held, topics::delete(context, decode(&mut frame, version)?, version)),
        ApiKey::DescribeConfigs => reply(head, held, topics::describe_configs(context, decode(&mut frame, version)?)),
        ApiKey::InitProducerId => reply(head, held, produce::init_producer_id(context, decode(&mut frame, version)?)),
        ApiKey::FindCoordinator => {
            reply(head, held, coordination::find(context, decode(&mut frame, version)?, version))
        }
        ApiKey::JoinGroup => reply(head, held, coordination::join(context, client_id, decode(&mut frame, version)?)),
        ApiKey::SyncGroup => reply(head, held, coordination::sync(context, decode(&mut frame, version)?)),
        ApiKey::Heartbeat => reply(head, held, coordination::heartbeat(context, decode(&mut frame, version)?)),
        ApiKey::LeaveGroup => reply(head, held, coordination::leave(context, decode(&mut frame, version)?, version)),
        ApiKey::OffsetCommit => reply(head, held, coordination::commit(context, decode(&mut frame, version)?)),
        ApiKey::OffsetFetch => {
            reply(head, held, coordination::committed(context, decode(&mut frame, version)?, version))
        }
        _ => {
            let _: ApiVersionsRequest = decode(&mut frame, version)?;
            reply(head, held, async { api_versions() })
        }
    })
}

fn decode<T: Decodable>(frame: &mut Bytes, version: i16) -> Result<T, Malformed> {
    T::decode(frame, version).map_err(Malformed::new)
}

fn reply<R, F>(head: Head, held: Held, response: F) -> Reply
where
    R: Encodable + HeaderVersion + Send,
    F: Future<Output = R> + Send + 'static,
{
    Box::pin(async move {
        let response = response.await;
        drop(held);
        encode(head, &response).map(Some)
    })
}

fn encode<R: Encodable + HeaderVersion>(head: Head, response: &R) -> Result<Bytes, Malformed> {
    let header = ResponseHeader::default().with_correlation_id(head.correlation_id);
    let body = response.compute_size(head.version).map_err(Malformed::new)?;
    let mut frame = BytesMut::with_capacity(body.saturating_add(16));
    frame.put_i32(0);
    header.encode(&mut frame, R::header_version(head.version)).map_err(Malformed::new)?;
    response.encode(&mut frame, head.version).map_err(Malformed::new)?;
    let length = i32::try_from(frame.len().saturating_sub(4)).map_err(Malformed::new)?;
    frame[0..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame.freeze())
}

fn peek(frame: &[u8]) -> Result<(ApiKey, i16), Malformed> {
    let [k0, k1, v0, v1] = frame.first_chunk().copied().ok_or_else(|| Malformed::new("no header"))?;
    let key = i16::from_be_bytes([k0, k1]);
    let known = ApiKey::try_from(key).map_err(|()| Malformed::new(format!("unknown request {key}")))?;
    Ok((known, i16::from_be_bytes([v0, v1])))
}

fn peek_correlation_id(frame: &[u8]) -> Result<i32, Malformed> {
    let bytes = frame.get(4..8).and_then(|bytes| bytes.first_chunk()).ok_or_else(|| Malformed::new("no header"))?;
    Ok(i32::from_be_bytes(*bytes))
}

fn api_versions() -> ApiVersionsResponse {
    let version = |(key, low, high): &(ApiKey, i16, i16)| {
        ApiVersion::default().with_api_key(*key as i16).with_min_version(*low).with_max_version(*high)
    };
    ApiVersionsResponse::default().with_api_keys(SUPPORTED.iter().map(version).collect())
}
