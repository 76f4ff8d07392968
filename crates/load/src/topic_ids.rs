//! Reads Kafka's ids of topics through librdkafka's `DescribeTopics`, which rdkafka does not offer.
//!
//! The only unsafe code of this crate. A guard destroys each object that librdkafka returns, after
//! the objects that were made from it. Borrowed values (the array of topics, their names and ids)
//! are copied before the answer is destroyed.

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString, c_char},
    time::Duration,
};

use rdkafka::{
    bindings as native,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::{IsError as _, KafkaError, RDKafkaErrorCode},
    types::{RDKafkaErrorCode as Code, RDKafkaRespErr},
};

/// The id that librdkafka returns if the broker gives none.
const NO_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// An object of librdkafka with the function that destroys it.
struct Guard<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Guard<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: it was made by librdkafka, is destroyed once, and by the function that
            // belongs to it.
            unsafe { (self.1)(self.0) }
        }
    }
}

/// Base64 ids of the topics that exist; an id is empty if the broker gives none. Blocks for at most
/// `timeout`.
///
/// # Errors
/// Kafka does not answer, or refuses to describe them.
pub(crate) fn describe<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    topics: &[&str],
    timeout: Duration,
) -> Result<BTreeMap<String, String>, KafkaError> {
    let names = topics.iter().map(|topic| CString::new(*topic)).collect::<Result<Vec<_>, _>>()?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let client = client.client().native_ptr();
    // SAFETY: `client` outlives this call, which borrows its owner; the names outlive the
    // collection, which copies them.
    let event = unsafe {
        let queue = Guard(native::rd_kafka_queue_new(client), native::rd_kafka_queue_destroy);
        let operation = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options =
            Guard(native::rd_kafka_AdminOptions_new(client, operation), native::rd_kafka_AdminOptions_destroy);
        native::rd_kafka_AdminOptions_set_request_timeout(options.0, milliseconds, std::ptr::null_mut(), 0);
        let collection = Guard(
            native::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len()),
            native::rd_kafka_TopicCollection_destroy,
        );
        native::rd_kafka_DescribeTopics(client, collection.0, options.0, queue.0);
        // The answer is put on the queue when the request has timed out, too.
        Guard(native::rd_kafka_queue_poll(queue.0, milliseconds.saturating_add(1_000)), native::rd_kafka_event_destroy)
    };
    if event.0.is_null() {
        return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut));
    }
    // SAFETY: the event is there until the end of this function, and so is everything that is read
    // from it.
    unsafe {
        let error = native::rd_kafka_event_error(event.0);
        if error.is_error() {
            return Err(KafkaError::MetadataFetch(error.into()));
        }
        let result = native::rd_kafka_event_DescribeTopics_result(event.0);
        let mut count = 0;
        let described = native::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        let mut ids = BTreeMap::new();
        for index in 0..count {
            let topic = *described.add(index);
            let error = native::rd_kafka_error_code(native::rd_kafka_TopicDescription_error(topic));
            if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART {
                continue;
            }
            if error.is_error() {
                return Err(KafkaError::MetadataFetch(Code::from(error)));
            }
            let name = text(native::rd_kafka_TopicDescription_name(topic));
            let id = text(native::rd_kafka_Uuid_base64str(native::rd_kafka_TopicDescription_topic_id(topic)));
            ids.insert(name, if id == NO_ID { String::new() } else { id });
        }
        Ok(ids)
    }
}

/// SAFETY: `pointer` is null or a C string.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: as the caller says.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}
