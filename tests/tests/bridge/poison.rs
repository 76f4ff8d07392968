//! Each kind of bad input goes into quarantine with its reason, topic and raw bytes, gets a
//! REJECTED receipt, and does not stop the stream.

use harness::{Mosquitto, poll};
use prost::Message as _;
use telemetry::v1;

use crate::rig::{
    ENDS_WITHIN, Fleet, Publication, Running, WITHIN, kafka, names, options, publication, report, topics,
};

struct Bad {
    name: &'static str,
    suffix: &'static str,
    payload: Vec<u8>,
    reason: &'static str,
}

fn changed(change: impl FnOnce(&mut v1::Report)) -> Vec<u8> {
    let mut report = report("bad", 1, 2);
    change(&mut report);
    report.encode_to_vec()
}

fn bad_reports() -> Vec<Bad> {
    let protobuf = |name, reason, payload| Bad { name, suffix: "report", payload, reason };
    let json = |name, reason, payload: &str| {
        let payload = payload.as_bytes().to_vec();
        Bad { name, suffix: "report/json", payload, reason }
    };
    let injection = |field: &str| format!(r#"{{"bootId":"5","firstSeq":"1","events":[{{"injection":{{{field}}}}}]}}"#);
    let with_model = |model: &[u8]| {
        let mut bytes = changed(|report| report.context = None);
        bytes.extend([0x32, model.len() as u8 + 2, 0x0a, model.len() as u8]);
        bytes.extend(model);
        bytes
    };
    let session = |length| {
        changed(|report| report.context = Some(v1::Context { session_id: vec![1; length], ..v1::Context::default() }))
    };
    let long_model = |report: &mut v1::Report| {
        report.context = Some(v1::Context { model: "m".repeat(257), ..v1::Context::default() });
    };
    let many = |report: &mut v1::Report| report.events = vec![report.events[0].clone(); 4097];
    vec![
        protobuf("empty payload", "empty", vec![]),
        protobuf("truncated protobuf", "bad_protobuf", changed(|_| {})[..40].to_vec()),
        protobuf("256 KiB + 1", "too_large", vec![0; 256 * 1024 + 1]),
        protobuf("1.5 MiB", "too_large", vec![0; 1536 * 1024]),
        protobuf("4,097 events", "too_many_elements", changed(many)),
        protobuf("seq 0", "bad_sequence", changed(|report| report.first_seq = 0)),
        protobuf("seq overflow", "bad_sequence", changed(|report| report.first_seq = i64::MAX as u64 - 1)),
        protobuf("boot 0", "bad_boot", changed(|report| report.boot_id = 0)),
        protobuf("non-UTF-8 text", "bad_protobuf", with_model(b"m\xff\xfe")),
        protobuf("session id of 15 bytes", "bad_session", session(15)),
        protobuf("session id of 17 bytes", "bad_session", session(17)),
        protobuf("long model", "field_too_long", changed(long_model)),
        json("empty JSON", "empty", ""),
        json("truncated JSON", "bad_json", r#"{"bootId":"5","#),
        json("NaN", "bad_json", &injection(r#""deliveredNl":NaN"#)),
        json("NaN as text", "bad_json", &injection(r#""deliveredNl":"NaN""#)),
        json("a float", "bad_json", &injection(r#""deliveredNl":1.5"#)),
        json("1 MiB + 1 of JSON", "too_large", &" ".repeat(1024 * 1024 + 1)),
        json(
            "session id of 3 bytes in JSON",
            "bad_session",
            r#"{"bootId":"5","firstSeq":"1","context":{"sessionId":"AQID"},"events":[{"injection":{}}]}"#,
        ),
    ]
}

#[test]
fn each_bad_input_lands_in_quarantine_with_its_receipt_and_the_stream_goes_on() {
    let (mosquitto, kafka) = (Mosquitto::start(), kafka());
    let topics = topics(kafka);
    let running = Running::ready(options(&mosquitto, &kafka.bootstrap(), &topics));
    let fleet = Fleet::connect(&mosquitto);
    let bad = bad_reports();
    let mut good: Vec<Publication> = Vec::new();
    let topic = |bad: &Bad| format!("doseline/v1/acme/berlin/bad/{}", bad.suffix);
    for (index, bad) in bad.iter().enumerate() {
        fleet.publish(&topic(bad), &bad.payload);
        good.push(publication(index, 1, 3));
        fleet.publish_all(good.last());
    }
    fleet.wait_for_receipts(&good);
    assert_eq!(names(&kafka.records(&topics.reports)).len(), good.len());
    for bad in &bad {
        let received = poll(WITHIN, bad.name, || fleet.rejected(&bad.payload).ok_or("no receipt"));
        // Two empty payloads have the same hash, so this may be the receipt of the other form.
        let forms_differ = received.json != bad.suffix.ends_with("json");
        assert!(bad.payload.is_empty() || !forms_differ, "{}: receipt in the wrong form", bad.name);
        assert_eq!(received.receipt.code(), v1::ReceiptCode::Rejected, "{}", bad.name);
        assert_eq!(received.receipt.reason, bad.reason, "{}", bad.name);
        assert_eq!(received.device, "bad");
    }
    // The two empty payloads may share a receipt, but the quarantine has both.
    let quarantined = poll(WITHIN, "the quarantine", || match kafka.records(&topics.quarantine) {
        records if records.len() == bad.len() => Ok(records),
        records => Err(records.len()),
    });
    for bad in &bad {
        let record = quarantined
            .iter()
            .find(|record| record.value == bad.payload && record.header("topic") == Some(topic(bad)))
            .unwrap_or_else(|| panic!("{} is not in quarantine with its raw bytes", bad.name));
        assert_eq!(record.header("reason").as_deref(), Some(bad.reason), "{}", bad.name);
        assert_eq!(record.header("source").as_deref(), Some("bridge"), "{}", bad.name);
        assert_eq!(record.key.as_deref(), Some(b"acme/bad".as_slice()), "{}", bad.name);
        assert!(record.header("received_at").is_some(), "{}", bad.name);
    }
    assert!(running.stop() < ENDS_WITHIN);
}

#[test]
fn ids_with_forbidden_characters_land_in_quarantine_without_a_receipt() {
    let (mosquitto, kafka) = (Mosquitto::start(), kafka());
    let topics = topics(kafka);
    let running = Running::ready(options(&mosquitto, &kafka.bootstrap(), &topics));
    let fleet = Fleet::connect(&mosquitto);
    let good = publication(1, 1, 3);
    let long = "d".repeat(65);
    let ids = ["d 1", "d.1", "-d1", "_d1", "dé1", "", "d1;drop table", long.as_str()];
    for id in ids {
        fleet.publish(&format!("doseline/v1/acme/berlin/{id}/report"), &good.payload);
    }
    fleet.publish_all([&good]);
    fleet.wait_for_receipts(std::slice::from_ref(&good));
    let quarantined = poll(WITHIN, "the quarantine", || match kafka.records(&topics.quarantine) {
        records if records.len() == ids.len() => Ok(records),
        records => Err(records.len()),
    });
    for id in ids {
        let topic = format!("doseline/v1/acme/berlin/{id}/report");
        let record = quarantined.iter().find(|record| record.header("topic").as_ref() == Some(&topic));
        let record = record.unwrap_or_else(|| panic!("{id:?} is not in quarantine"));
        assert_eq!(record.header("reason").as_deref(), Some("bad_topic"));
        assert_eq!((&record.value, &record.key), (&good.payload, &None));
    }
    assert_eq!(fleet.receipts.lock().expect("no panic").len(), 1);
    drop(running);
}

#[test]
fn unknown_fields_and_enum_values_keep_working_and_are_counted() {
    let (mosquitto, kafka) = (Mosquitto::start(), kafka());
    let topics = topics(kafka);
    let running = Running::ready(options(&mosquitto, &kafka.bootstrap(), &topics));
    let fleet = Fleet::connect(&mosquitto);
    let mut with_field = report("d1", 1, 1).encode_to_vec();
    with_field.extend([0xf8, 0x07, 1]);
    fleet.publish("doseline/v1/acme/berlin/d1/report", &with_field);
    let json = br#"{"bootId":"5","firstSeq":"1","colour":"red","events":[{"injection":{"mode":"MODE_NEXT"}}]}"#;
    fleet.publish("doseline/v1/acme/berlin/d2/report/json", json);
    let records = poll(WITHIN, "both reports", || match kafka.records(&topics.reports) {
        records if records.len() == 2 => Ok(records),
        records => Err(records.len()),
    });
    assert!(records.iter().any(|record| record.value == with_field), "the unknown field is forwarded");
    running.wait_for_metric(bridge::metrics::UNKNOWN_FIELDS, |unknown| unknown == 3.0);
    assert_eq!(kafka.end_offsets(&topics.quarantine).values().sum::<i64>(), 0);
}
