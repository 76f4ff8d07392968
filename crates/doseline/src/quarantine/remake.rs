//! Decides whether a quarantined row can be used today. It makes the same decision as the bridge
//! makes for a message, and for an event also the loader's decision. The loader decides again by
//! its own ledger and rules. This check only spares it rows that it would certainly refuse.

use bridge::admit::{Admitted, Destination, admit};
use load::replay::Record;
use telemetry::{
    device_time,
    kafka::SOURCE_LOADER,
    plausibility::{Plausibility, check},
    reject::{Reason, Reject},
    report::Report,
};
use warehouse::quarantine::Raw;

/// The record that replays a row, or the reason why the row is still refused.
pub fn remake(raw: &Raw, plausibility: &Plausibility, device_time: &device_time::Limits) -> Result<Record, Reject> {
    if raw.reason == Reason::Conflict.as_str() {
        let detail = "another content is stored under its sequence number; a person must find out which device sent it";
        return Err(Reject::new(Reason::Conflict, detail));
    }
    let admitted = readmit(raw);
    if let Destination::Quarantine(reason) = admitted.destination {
        return Err(Reject::new(reason, admitted.detail.unwrap_or_default()));
    }
    let is_status = admitted.destination == Destination::Status;
    if raw.id.seq.is_some() && !is_status {
        plausible(&Report::decode(&admitted.value)?, raw, plausibility, device_time)?;
    }
    let no_key = || Reject::new(Reason::BadTopic, "the topic names no device");
    Ok(Record {
        id: raw.id,
        is_status,
        key: admitted.key.ok_or_else(no_key)?.to_string(),
        value: admitted.value.into_owned(),
        topic: raw.topic.clone(),
        received_at: raw.received_at,
    })
}

fn readmit(raw: &Raw) -> Admitted<'_> {
    let as_received = || admit(raw.topic.as_bytes(), &raw.payload);
    // A row that the loader refused has passed the bridge. For JSON it holds the report that the
    // bridge transcoded.
    match raw.topic.strip_suffix("/json") {
        Some(protobuf) if raw.source == SOURCE_LOADER => match admit(protobuf.as_bytes(), &raw.payload) {
            admitted
                if matches!(admitted.destination, Destination::Quarantine(_)) && raw.payload.first() == Some(&b'{') =>
            {
                as_received()
            }
            admitted => admitted,
        },
        _ => as_received(),
    }
}

fn plausible(
    report: &Report,
    raw: &Raw,
    plausibility: &Plausibility,
    device_time: &device_time::Limits,
) -> Result<(), Reject> {
    let message = report.message();
    let model = report.context().map_or("", |context| context.model.as_str());
    let ranges = plausibility.ranges(model);
    let time = device_time.judge(message, raw.received_at);
    message.events.iter().enumerate().try_for_each(|(index, event)| {
        report.texts(index).map_err(Reject::clone)?;
        check(event, time.at(event), &ranges)
    })
}

#[cfg(test)]
mod tests {
    use bytes_of::report;
    use telemetry::{plausibility::Range, quarantine::Id};

    use super::*;

    /// As [`super::remake`], with the default limits of times.
    fn remake(raw: &Raw, plausibility: &Plausibility) -> Result<Record, Reject> {
        super::remake(raw, plausibility, &device_time::Limits::default())
    }

    mod bytes_of {
        use telemetry::v1::{self, event::Kind};

        pub fn report(measured_um: u32) -> v1::Report {
            let injection = v1::Injection { measured_um: Some(measured_um), ..v1::Injection::default() };
            let event = v1::Event { offset_us: 0, kind: Some(Kind::Injection(injection)) };
            v1::Report { boot_id: 9, first_seq: 3, events: vec![event], ..v1::Report::default() }
        }
    }

    fn raw(source: &str, channel: &str, payload: Vec<u8>, seq: Option<u64>) -> Raw {
        Raw {
            id: Id { incarnation: 1, partition: 0, offset: 7, seq },
            reason: "implausible".to_owned(),
            tenant: "acme".to_owned(),
            device: "d1".to_owned(),
            topic: format!("doseline/v1/acme/berlin/d1/{channel}"),
            source: source.to_owned(),
            received_at: 5,
            payload,
        }
    }

    /// The report as JSON, and as the protobuf message into which the bridge transcodes it.
    fn encoded(measured_um: u32) -> (Vec<u8>, Vec<u8>) {
        let text = telemetry::json::to_json(&report(measured_um), "Report").into_bytes();
        let message = telemetry::json::transcode_report(&text).unwrap().message;
        (text, message)
    }

    #[test]
    fn a_row_becomes_what_the_bridge_would_make_of_it() {
        let (text, message) = encoded(1_500);
        let rules = Plausibility::default();
        for (source, channel, payload) in [
            ("bridge", "report", &message),
            ("bridge", "report/json", &text),
            ("loader", "report", &message),
            ("loader", "report/json", &message),
            ("loader", "report/json", &text),
        ] {
            let record = remake(&raw(source, channel, payload.clone(), None), &rules).unwrap();
            assert_eq!((record.key.as_str(), &record.value, record.is_status), ("acme/d1", &message, false));
            assert_eq!((record.received_at, record.topic.ends_with(channel)), (5, true));
        }
        let status = raw("bridge", "status", br#"{"state":"STATE_ONLINE"}"#.to_vec(), None);
        assert!(remake(&status, &rules).unwrap().is_status);
    }

    #[test]
    fn what_is_refused_still_says_why() {
        let rules = Plausibility::default();
        let refused = |raw: &Raw, rules: &Plausibility| remake(raw, rules).unwrap_err();
        assert_eq!(refused(&raw("bridge", "report", vec![], None), &rules).reason, Reason::Empty);
        let conflict = Raw { reason: "conflict".to_owned(), ..raw("check", "report", encoded(1_500).1, Some(3)) };
        assert_eq!(refused(&conflict, &rules).reason, Reason::Conflict);
        assert_eq!(refused(&raw("loader", "report/json", vec![0xff], None), &rules).reason, Reason::BadProtobuf);
        assert_eq!(refused(&raw("bridge", "x", vec![1], None), &rules).reason, Reason::BadTopic);
        let (_, deep) = encoded(12_500);
        let event = raw("loader", "report", deep, Some(3));
        assert!(remake(&event, &rules).is_ok());
        let mut narrow = Plausibility::default();
        let ranges = telemetry::plausibility::Ranges { depth_um: Range(0, 12_000), ..Default::default() };
        narrow.models.insert(String::new(), ranges);
        let reject = refused(&event, &narrow);
        assert_eq!(reject.to_string(), "implausible: measured_um 12500 is outside 0..12000");
        // The loader judges the events of a whole message one by one.
        assert!(remake(&Raw { id: Id { seq: None, ..event.id }, ..event }, &narrow).is_ok());
    }
}
