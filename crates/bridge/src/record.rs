//! A Kafka record made from one MQTT message.

use bytes::Bytes;
use rdkafka::message::{Header, OwnedHeaders};
use telemetry::kafka::{
    PUBLISHER_HEADER, REASON_HEADER, RECEIVED_AT_HEADER, SOURCE_BRIDGE, SOURCE_HEADER, TOPIC_HEADER, TRACEPARENT_HEADER,
};

use crate::{admit::Destination, options::Topics};

/// Longest MQTT user property that becomes a header, bytes; a longer one is left out.
const PROPERTY_LEN_MAX: usize = 256;

/// A record that is kept until Kafka has confirmed it.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub destination: Destination,
    pub key: Option<String>,
    pub value: Bytes,
    /// The MQTT topic as received.
    pub topic: Bytes,
    /// When it was received, us since 1970.
    pub received_at_us: i64,
    pub publisher: Option<String>,
    pub traceparent: Option<String>,
}

impl Record {
    /// Takes what the headers need from MQTT user properties.
    pub fn with_properties(mut self, properties: &[(String, String)]) -> Self {
        let find = |name: &str| {
            let (_, value) = properties.iter().find(|(key, _)| key == name)?;
            (value.len() <= PROPERTY_LEN_MAX).then(|| value.clone())
        };
        self.publisher = find(PUBLISHER_HEADER);
        self.traceparent = find(TRACEPARENT_HEADER);
        self
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
        let received_at = self.received_at_us.to_string();
        let mut headers = OwnedHeaders::new_with_capacity(6)
            .insert(Header { key: TOPIC_HEADER, value: Some(self.topic.as_ref()) })
            .insert(Header { key: RECEIVED_AT_HEADER, value: Some(&received_at) });
        if let Destination::Quarantine(reason) = self.destination {
            headers = headers
                .insert(Header { key: REASON_HEADER, value: Some(reason.as_str()) })
                .insert(Header { key: SOURCE_HEADER, value: Some(SOURCE_BRIDGE) });
        }
        for (key, value) in [(PUBLISHER_HEADER, &self.publisher), (TRACEPARENT_HEADER, &self.traceparent)] {
            if let Some(value) = value {
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

    fn record(destination: Destination) -> Record {
        Record {
            destination,
            key: None,
            value: Bytes::new(),
            topic: Bytes::from_static(b"a/b"),
            received_at_us: 1_700_000_000_000_001,
            publisher: None,
            traceparent: None,
        }
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
        let report = record(Destination::Reports).with_properties(&[
            property("other", "x"),
            property("publisher", "gateway-7"),
            property("traceparent", &"y".repeat(257)),
        ]);
        assert_eq!(
            read(&report),
            pairs(&[("topic", "a/b"), ("received_at", "1700000000000001"), ("publisher", "gateway-7")])
        );
        assert_eq!(
            read(&record(Destination::Quarantine(Reason::BadJson))),
            pairs(&[
                ("topic", "a/b"),
                ("received_at", "1700000000000001"),
                ("reason", "bad_json"),
                ("source", "bridge")
            ])
        );
    }
}
