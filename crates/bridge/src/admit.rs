//! The decision about one MQTT message. It does no IO.
//!
//! Each message becomes exactly one Kafka record: a report, a status, or the raw bytes of a message
//! for quarantine. No message is dropped.
//!
//! Admitting a protobuf report of injections allocates nothing: the value borrows the payload, and
//! the receipt is encoded when it is sent. Transcoding JSON and explaining a refusal allocate.

use std::{borrow::Cow, fmt};

use arrayvec::ArrayString;
use telemetry::{
    head::Head,
    interval::Interval,
    json,
    kafka::KEY_LEN_MAX,
    receipt,
    reject::{Reason, Reject},
    status,
    topic::{Channel, RECEIPT_TOPIC_LEN_MAX, Topic},
    v1,
};

use crate::registry::Registry;

/// Where a record goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Destination {
    /// The reports topic.
    #[default]
    Reports,
    /// The status topic.
    Status,
    /// The quarantine topic, with the reason.
    Quarantine(Reason),
}

/// A receipt to send once Kafka has confirmed the record.
#[derive(Clone, Debug, PartialEq)]
pub struct Receipt {
    /// The MQTT topic it goes to.
    pub topic: ArrayString<RECEIPT_TOPIC_LEN_MAX>,
    channel: Channel,
    body: ReceiptBody,
}

#[derive(Clone, Debug, PartialEq)]
enum ReceiptBody {
    Stored { boot_id: u64, sequence: Option<Interval> },
    Rejected(Box<v1::Receipt>),
}

impl Receipt {
    /// The message, in the form the device sent.
    pub fn payload(&self) -> Vec<u8> {
        match &self.body {
            ReceiptBody::Stored { boot_id, sequence } => {
                receipt::encode(&receipt::stored(*boot_id, *sequence), self.channel)
            }
            ReceiptBody::Rejected(receipt) => receipt::encode(receipt, self.channel),
        }
    }

    /// Whether the device's data was refused.
    pub fn rejected(&self) -> bool {
        matches!(self.body, ReceiptBody::Rejected(_))
    }
}

/// Key of a record.
pub type Key = ArrayString<KEY_LEN_MAX>;

/// The decision about a message.
#[derive(Clone, Debug, PartialEq)]
pub struct Admitted<'a> {
    /// Where it goes.
    pub destination: Destination,
    /// What was published; `None` if the topic is outside of the contract.
    pub channel: Option<Channel>,
    /// Key of the record, `tenant/device`; `None` if the topic names no device.
    pub key: Option<Key>,
    /// Value of the record: the bytes as received, or the transcoded report.
    pub value: Cow<'a, [u8]>,
    /// The receipt; `None` if the message was no report of a device.
    pub receipt: Option<Receipt>,
    /// Whether it is a report whose events have sequence numbers.
    pub numbered: bool,
    /// Fields and enum values this version does not know.
    pub unknown: usize,
    /// What exactly was wrong, for quarantined messages.
    pub detail: Option<String>,
}

/// Decides about one message.
///
/// A message on a topic outside of the contract is quarantined without a receipt, because its topic
/// names no device. A status never gets a receipt.
pub fn admit<'a>(topic: &[u8], payload: &'a [u8]) -> Admitted<'a> {
    let parsed = std::str::from_utf8(topic)
        .map_err(|_| Reject::new(Reason::BadTopic, "the topic is not UTF-8"))
        .and_then(Topic::parse);
    let topic = match parsed {
        Ok(topic) => topic,
        Err(reject) => return quarantined(None, payload, reject),
    };
    let (value, head, unknown) = match accept(topic.channel, payload) {
        Ok(accepted) => accepted,
        Err(reject) => return quarantined(Some(topic), payload, reject),
    };
    let stored = |head: Head| ReceiptBody::Stored { boot_id: head.boot_id, sequence: head.sequence };
    Admitted {
        destination: if topic.channel == Channel::Status { Destination::Status } else { Destination::Reports },
        channel: Some(topic.channel),
        key: Some(key(topic)),
        value,
        numbered: head.is_some_and(|head| head.sequence.is_some()),
        receipt: head.and_then(|head| receipt_to(topic, stored(head))),
        unknown,
        detail: None,
    }
}

/// Whether a message only clears the retained status of a device. By the rules of MQTT it is then
/// empty.
pub(crate) fn clears_status(topic: &[u8], payload: &[u8]) -> bool {
    let topic = || std::str::from_utf8(topic).ok().and_then(|topic| Topic::parse(topic).ok());
    payload.is_empty() && topic().is_some_and(|topic| topic.channel == Channel::Status)
}

/// Decides about one message, also by the registry.
///
/// If a device is not registered at the site of its topic and its tenant refuses unknown devices,
/// its reports with sequence numbers are quarantined. A status passes, and so does a heartbeat
/// without a sequence number: it holds no measurement. It shows that the device exists, and its
/// last sequence number shows how many of the device's events are not stored.
pub fn admit_registered<'a>(topic: &[u8], payload: &'a [u8], registry: Option<&Registry>) -> Admitted<'a> {
    let admitted = admit(topic, payload);
    let (Some(registry), Some(key), true) = (registry, &admitted.key, admitted.numbered) else { return admitted };
    let Some(topic) = std::str::from_utf8(topic).ok().and_then(|topic| Topic::parse(topic).ok()) else {
        return admitted;
    };
    match registry.refusal(key, topic.site) {
        Some(detail) => quarantined(Some(topic), payload, Reject::new(Reason::UnknownDevice, detail)),
        None => admitted,
    }
}

/// The record's value, the report's head if it is one, and how much of it is unknown.
type Accepted<'a> = (Cow<'a, [u8]>, Option<Head>, usize);

fn accept(channel: Channel, payload: &[u8]) -> Result<Accepted<'_>, Reject> {
    Ok(match channel {
        Channel::Report => {
            let head = Head::read(payload)?;
            (Cow::Borrowed(payload), Some(head), head.unknown)
        }
        Channel::ReportJson => {
            let transcoded = json::transcode_report(payload)?;
            let head = Head::read(&transcoded.message)?;
            // Transcoding removes what JSON does not know, or turns it into numbers. The larger of
            // the two counts includes both.
            let unknown = transcoded.unknown.max(head.unknown);
            (Cow::Owned(transcoded.message), Some(head), unknown)
        }
        Channel::Status => {
            status::parse(payload)?;
            (Cow::Borrowed(payload), None, 0)
        }
    })
}

fn quarantined<'a>(topic: Option<Topic<'_>>, payload: &'a [u8], reject: Reject) -> Admitted<'a> {
    let rejected = || ReceiptBody::Rejected(Box::new(receipt::rejected(payload, reject.reason)));
    Admitted {
        destination: Destination::Quarantine(reject.reason),
        channel: topic.map(|topic| topic.channel),
        key: topic.map(key),
        value: Cow::Borrowed(payload),
        receipt: topic.and_then(|topic| receipt_to(topic, rejected())),
        numbered: false,
        unknown: 0,
        detail: Some(reject.detail),
    }
}

fn key(topic: Topic<'_>) -> Key {
    written(telemetry::kafka::key(topic.tenant, topic.device))
}

fn receipt_to(topic: Topic<'_>, body: ReceiptBody) -> Option<Receipt> {
    topic.receipt().map(|to| Receipt { topic: written(to), channel: topic.channel, body })
}

/// A text that is known to fit.
pub(crate) fn written<const LEN: usize>(text: impl fmt::Display) -> ArrayString<LEN> {
    let mut written = ArrayString::new();
    let fits = fmt::write(&mut written, format_args!("{text}"));
    debug_assert!(fits.is_ok(), "{text}");
    written
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use telemetry::{
        limits::{JSON_BYTES_MAX, REPORT_BYTES_MAX},
        v1::{self, event::Kind},
    };

    use super::*;
    use crate::registry::Device;

    const REPORT: &[u8] = b"doseline/v1/acme/berlin/d1/report";
    const JSON: &[u8] = b"doseline/v1/acme/berlin/d1/report/json";
    const STATUS: &[u8] = b"doseline/v1/acme/berlin/d1/status";

    fn report(events: usize) -> v1::Report {
        let event = v1::Event { offset_us: 5, kind: Some(Kind::Injection(v1::Injection::default())) };
        v1::Report { boot_id: 9, first_seq: 3, events: vec![event; events], ..v1::Report::default() }
    }

    #[test]
    fn a_report_passes_untouched_and_is_receipted_as_protobuf() {
        let payload = report(2).encode_to_vec();
        let admitted = admit(REPORT, &payload);
        assert_eq!(admitted.destination, Destination::Reports);
        assert_eq!(admitted.key.as_deref(), Some("acme/d1"));
        assert_eq!(*admitted.value, payload);
        let receipt = admitted.receipt.unwrap();
        assert_eq!((receipt.topic.as_str(), receipt.rejected()), ("doseline/v1/acme/berlin/d1/receipt", false));
        let receipt = v1::Receipt::decode(receipt.payload().as_slice()).unwrap();
        assert_eq!((receipt.boot_id, receipt.code()), (9, v1::ReceiptCode::Stored));
        assert_eq!(receipt.ranges, [v1::SeqRange { first: 3, last: 4 }]);
    }

    #[test]
    fn json_is_transcoded_and_receipted_as_json() {
        let payload = json::to_json(&report(1), "Report");
        let admitted = admit(JSON, payload.as_bytes());
        assert_eq!(admitted.destination, Destination::Reports);
        assert_eq!(v1::Report::decode(&*admitted.value).unwrap(), report(1));
        let receipt = admitted.receipt.unwrap();
        assert_eq!(&*receipt.topic, "doseline/v1/acme/berlin/d1/receipt/json");
        let text = String::from_utf8(receipt.payload()).unwrap();
        assert!(text.contains(r#""bootId":"9""#) && text.contains("RECEIPT_CODE_STORED"), "{text}");
    }

    #[test]
    fn a_status_passes_untouched_without_receipt() {
        let payload = br#"{"state":"STATE_ONLINE","battery_pct":80}"#;
        let admitted = admit(STATUS, payload);
        assert_eq!(admitted.destination, Destination::Status, "{:?}", admitted.detail);
        assert_eq!((&*admitted.value, admitted.receipt), (payload.as_slice(), None));
    }

    #[test]
    fn unknown_fields_are_counted_and_kept_working() {
        let mut payload = report(1).encode_to_vec();
        payload.extend([0xf8, 0x07, 1]);
        let admitted = admit(REPORT, &payload);
        assert_eq!((admitted.destination, admitted.unknown), (Destination::Reports, 1));
        assert_eq!(*admitted.value, payload);
        let admitted =
            admit(JSON, br#"{"bootId":"9","firstSeq":"1","colour":"red","events":[{"injection":{"mode":"MODE_X"}}]}"#);
        assert_eq!((admitted.destination, admitted.unknown), (Destination::Reports, 2));
    }

    #[test]
    fn only_an_empty_status_clears_one() {
        assert!(clears_status(STATUS, b""));
        for (topic, payload) in [(STATUS, &b"{}"[..]), (REPORT, b""), (JSON, b""), (b"doseline/v1/status", b"")] {
            assert!(!clears_status(topic, payload));
        }
    }

    #[test]
    fn an_unusable_message_is_quarantined_raw_with_a_rejected_receipt() {
        let with = |change: fn(&mut v1::Report)| {
            let mut report = report(1);
            change(&mut report);
            report.encode_to_vec()
        };
        let cases: Vec<(&str, &[u8], Vec<u8>, Reason)> = vec![
            ("empty", REPORT, vec![], Reason::Empty),
            ("truncated", REPORT, report(1).encode_to_vec()[..12].to_vec(), Reason::BadProtobuf),
            ("256 KiB + 1", REPORT, vec![0; REPORT_BYTES_MAX + 1], Reason::TooLarge),
            ("4,097 events", REPORT, report(4097).encode_to_vec(), Reason::TooManyElements),
            ("seq 0", REPORT, with(|report| report.first_seq = 0), Reason::BadSequence),
            ("seq overflow", REPORT, with(|report| report.first_seq = i64::MAX as u64), Reason::BadSequence),
            ("boot 0", REPORT, with(|report| report.boot_id = 0), Reason::BadBoot),
            ("no content", REPORT, with(|report| report.events.clear()), Reason::NoContent),
            (
                "session of 15 bytes",
                REPORT,
                with(|report| {
                    report.context = Some(v1::Context { session_id: vec![1; 15], ..v1::Context::default() });
                }),
                Reason::BadSession,
            ),
            ("non-UTF-8 id", REPORT, vec![0x09, 1, 0, 0, 0, 0, 0, 0, 0, 0x32, 3, 0x0a, 1, 0xff], Reason::BadProtobuf),
            ("empty JSON", JSON, vec![], Reason::Empty),
            ("NaN", JSON, br#"{"bootId":NaN}"#.to_vec(), Reason::BadJson),
            ("float", JSON, br#"{"bootId":"1","firstSeq":1.5}"#.to_vec(), Reason::BadJson),
            ("large JSON", JSON, vec![b' '; JSON_BYTES_MAX + 1], Reason::TooLarge),
            (
                "4,097 events in JSON",
                JSON,
                json::to_json(&report(4097), "Report").into_bytes(),
                Reason::TooManyElements,
            ),
            ("status", STATUS, b"{\"state\":".to_vec(), Reason::BadJson),
        ];
        for (name, topic, payload, reason) in cases {
            let admitted = admit(topic, &payload);
            assert_eq!(admitted.destination, Destination::Quarantine(reason), "{name}: {:?}", admitted.detail);
            assert_eq!(*admitted.value, payload, "{name}");
            assert_eq!(admitted.key.as_deref(), Some("acme/d1"), "{name}");
            if topic == STATUS {
                assert_eq!(admitted.receipt, None, "{name}");
            } else {
                let receipt = admitted.receipt.expect(name);
                assert!(
                    receipt.rejected()
                        && receipt.topic.ends_with(if topic == JSON { "/receipt/json" } else { "/receipt" })
                );
            }
        }
    }

    #[test]
    fn numbered_reports_of_unknown_devices_are_refused_where_the_tenant_says_so() {
        let text = str::to_owned;
        let known = Device { tenant: text("acme"), site: text("berlin"), device: text("d1") };
        let registry = Registry::new([(text("acme"), true)], [known]);
        let stranger = b"doseline/v1/acme/berlin/d2/report";
        let payload = report(1).encode_to_vec();
        let beat = v1::Event { offset_us: 0, kind: Some(Kind::Heartbeat(v1::Heartbeat::default())) };
        let beat = v1::Report { boot_id: 9, events: vec![beat], ..v1::Report::default() }.encode_to_vec();
        fn check<'a>(
            topic: &[u8],
            payload: &'a [u8],
            registry: Option<&Registry>,
            expected: Destination,
        ) -> Admitted<'a> {
            let admitted = admit_registered(topic, payload, registry);
            assert_eq!(admitted.destination, expected, "{:?}", admitted.detail);
            assert_eq!(*admitted.value, *payload);
            admitted
        }
        check(REPORT, &payload, Some(&registry), Destination::Reports);
        check(stranger, &payload, None, Destination::Reports);
        let elsewhere = b"doseline/v1/acme/paris/d1/report";
        check(elsewhere, &payload, Some(&registry), Destination::Quarantine(Reason::UnknownDevice));
        check(elsewhere, &beat, Some(&registry), Destination::Reports);
        check(stranger, &beat, Some(&registry), Destination::Reports);
        let refused = check(stranger, &payload, Some(&registry), Destination::Quarantine(Reason::UnknownDevice));
        assert_eq!(refused.key.as_deref(), Some("acme/d2"));
        let receipt = v1::Receipt::decode(refused.receipt.unwrap().payload().as_slice()).unwrap();
        assert_eq!((receipt.code(), receipt.reason.as_str()), (v1::ReceiptCode::Rejected, "unknown_device"));
    }

    #[test]
    fn a_message_of_nobody_is_quarantined_without_receipt() {
        for topic in [&b"doseline/v1/acme/berlin/d 1/report"[..], b"doseline/v1/acme/b\xff/d1/report", b"doseline/v1/x"]
        {
            let admitted = admit(topic, b"abc");
            assert_eq!(admitted.destination, Destination::Quarantine(Reason::BadTopic));
            assert_eq!((admitted.key, admitted.receipt), (None, None));
            assert_eq!(&*admitted.value, b"abc");
        }
    }
}
