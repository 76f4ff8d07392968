//! The Kafka record of one MQTT message.

use rdkafka::message::{Header, OwnedHeaders};
use telemetry::kafka::{
    PUBLISHER_HEADER, REASON_HEADER, RECEIVED_AT_HEADER, SOURCE_BRIDGE, SOURCE_HEADER, TOPIC_HEADER,
    TRACEPARENT_HEADER, Topics,
};

use crate::admit::{Admitted, Destination, Key, written};

/// Longest MQTT user property that becomes a header, bytes; a longer one is left out.
const PROPERTY_LEN_MAX: usize = 256;
/// Longest decimal of 64 bits with its sign.
const I64_LEN_MAX: usize = 20;

/// A record that is kept until Kafka has confirmed it. Its buffers are used again: see
/// [`crate::sink::Sink::record`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub destination: Destination,
    pub key: Option<Key>,
    pub value: Vec<u8>,
    /// The MQTT topic as received.
    pub topic: Vec<u8>,
    /// When it was received, us since 1970.
    pub received_at_us: i64,
    /// Who published; empty where the broker does not say.
    pub publisher: String,
    /// W3C trace context; empty = none.
    pub traceparent: String,
}

impl Record {
    /// Fills the record from a message, from the decision about it, and from those of its MQTT user
    /// properties that become headers.
    ///
    /// It copies all bytes: a slice would keep the connection's whole read buffer alive.
    pub fn fill(
        &mut self,
        admitted: &Admitted<'_>,
        topic: &[u8],
        received_at_us: i64,
        properties: &[(String, String)],
    ) {
        self.destination = admitted.destination;
        self.key = admitted.key;
        self.received_at_us = received_at_us;
        for (buffer, bytes) in [(&mut self.value, &*admitted.value), (&mut self.topic, topic)] {
            buffer.clear();
            buffer.extend_from_slice(bytes);
        }
        for (buffer, name) in [(&mut self.publisher, PUBLISHER_HEADER), (&mut self.traceparent, TRACEPARENT_HEADER)] {
            buffer.clear();
            let property = properties.iter().find(|(key, _)| key == name);
            if let Some((_, value)) = property.filter(|(_, value)| value.len() <= PROPERTY_LEN_MAX) {
                buffer.push_str(value);
            }
        }
    }

    /// Bytes of its buffers.
    pub fn capacity(&self) -> usize {
        self.value.capacity() + self.topic.capacity() + self.publisher.capacity() + self.traceparent.capacity()
    }

    /// Name of the Kafka topic it goes to.
    pub fn kafka_topic<'a>(&self, topics: &'a Topics) -> &'a str {
        match self.destination {
            Destination::Reports => &topics.reports,
            Destination::Status => &topics.status,
            Destination::Quarantine(_) => &topics.quarantine,
        }
    }

    /// The headers of the contract.
    pub fn headers(&self) -> OwnedHeaders {
        let received_at = written::<I64_LEN_MAX>(self.received_at_us);
        let mut headers = OwnedHeaders::new_with_capacity(6)
            .insert(Header { key: TOPIC_HEADER, value: Some(&self.topic) })
            .insert(Header { key: RECEIVED_AT_HEADER, value: Some(received_at.as_str()) });
        if let Destination::Quarantine(reason) = self.destination {
            headers = headers
                .insert(Header { key: REASON_HEADER, value: Some(reason.as_str()) })
                .insert(Header { key: SOURCE_HEADER, value: Some(SOURCE_BRIDGE) });
        }
        for (key, value) in [(PUBLISHER_HEADER, &self.publisher), (TRACEPARENT_HEADER, &self.traceparent)] {
            if !value.is_empty() {
                headers = headers.insert(Header { key, value: Some(value) });
            }
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Headers as _;
    use telemetry::reject::Reason;

    use super::*;
    use crate::admit::admit;

    fn record(destination: Destination, properties: &[(String, String)]) -> Record {
        let admitted = Admitted { destination, ..admit(b"a/b", b"") };
        // Whatever was in its buffers before.
        let before = ["x".repeat(9), "y".repeat(9)];
        let [publisher, traceparent] = before.clone();
        let [value, topic] = before.map(String::into_bytes);
        let mut record = Record { value, topic, publisher, traceparent, ..Record::default() };
        record.fill(&admitted, b"a/b", 1_700_000_000_000_001, properties);
        record
    }

    fn read(record: &Record) -> Vec<(String, String)> {
        let headers = record.headers();
        let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
        headers.iter().map(|header| (header.key.to_owned(), text(header.value))).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn headers_read_back() {
        let property = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let properties =
            [property("other", "x"), property("publisher", "gateway-7"), property("traceparent", &"y".repeat(257))];
        let report = record(Destination::Reports, &properties);
        assert_eq!(
            read(&report),
            pairs(&[("topic", "a/b"), ("received_at", "1700000000000001"), ("publisher", "gateway-7")])
        );
        assert_eq!(
            read(&record(Destination::Quarantine(Reason::BadJson), &[])),
            pairs(&[
                ("topic", "a/b"),
                ("received_at", "1700000000000001"),
                ("reason", "bad_json"),
                ("source", "bridge")
            ])
        );
    }
}
