//! Copies a message of librdkafka into a record of the loader.

use std::time::Duration;

use rdkafka::{
    Message as _,
    message::{BorrowedMessage, Headers as _},
};
use telemetry::kafka::{
    DETAIL_HEADER, REASON_HEADER, RECEIVED_AT_HEADER, REPLAY_HEADER, REPLAYED_AT_HEADER, REPLAYED_BY_HEADER,
    SOURCE_HEADER, TOPIC_HEADER,
};

use crate::inbox::{Headers, Record, decimal};

/// Detaches a message from the consumer, with the headers that the loader knows. `polled` is the
/// time on the boot clock.
pub(crate) fn detach(message: &BorrowedMessage<'_>, polled: Duration) -> Record {
    let mut headers = Headers::default();
    for header in message.headers().into_iter().flat_map(|headers| headers.iter()) {
        let value = || header.value.map(<[u8]>::to_vec);
        match header.key {
            TOPIC_HEADER => headers.topic = value(),
            RECEIVED_AT_HEADER => headers.received_at = header.value.and_then(decimal),
            REASON_HEADER => headers.others_mut().reason = value(),
            SOURCE_HEADER => headers.others_mut().source = value(),
            DETAIL_HEADER => headers.others_mut().detail = value(),
            REPLAY_HEADER => headers.others_mut().replay = value(),
            REPLAYED_BY_HEADER => headers.others_mut().replayed_by = value(),
            REPLAYED_AT_HEADER => headers.others_mut().replayed_at = value(),
            _ => {}
        }
    }
    Record {
        // Kafka's offsets are not negative.
        offset: message.offset().unsigned_abs(),
        key: message.key().map(<[u8]>::to_vec),
        payload: message.payload().unwrap_or_default().to_vec(),
        headers,
        timestamp: message.timestamp().to_millis().unwrap_or(0).saturating_mul(1_000),
        polled,
    }
}
