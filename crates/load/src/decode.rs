//! Records of Kafka become messages: headers, topic, key, payload. What cannot be read comes with the reason.

use std::borrow::Cow;

use telemetry::{
    kafka::{REPLAY_HEADER, SOURCE_LOADER, record_key},
    quarantine::{self, Id},
    reject::{Reason, Reject},
    report::{Contexts, Report},
    status,
    topic::Topic,
    v1::{self, event::Kind},
};
use warehouse::columns::REPLAYED_BOOT;

use crate::{
    inbox::{Record, decimal},
    ledgers::BootRef,
    partition,
};

/// What a topic carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// Reports of devices.
    Reports,
    /// Status messages of devices.
    Status,
    /// What could not be used.
    Quarantine,
}

/// A record that was read.
pub(crate) struct Decoded<'r> {
    /// The record.
    pub record: &'r Record,
    /// The MQTT topic; not necessarily one of the contract.
    pub topic: Cow<'r, str>,
    /// When the bridge received it, us since 1970; Kafka's time of the record where that cannot be read.
    pub received_at: i64,
    /// Who sent it, where the topic is one of the contract.
    pub device: Option<Topic<'r>>,
    /// What a person replays with it; the loader knows that this stands in quarantine.
    pub replay: Option<Replay<'r>>,
    /// The message, or why there is none.
    pub message: Result<Message<'r>, Reject>,
}

/// The mark of a record that a person replays out of quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replay<'r> {
    /// The row.
    pub id: Id,
    /// Who replays it.
    pub by: Cow<'r, str>,
    /// When that was asked for, us since 1970; 0 where it does not say.
    pub at: i64,
}

/// What a record holds.
pub(crate) enum Message<'r> {
    /// A report.
    Report(Box<Report>),
    /// A status.
    Status(Box<v1::Status>),
    /// Something the bridge refused, for this reason.
    Quarantined(&'r str),
    /// A copy of what a loader refused: it stands in its table already.
    Copy,
}

/// Where a record was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// What the topic carries.
    pub content: Content,
    /// Partition.
    pub partition: i32,
    /// Number of partitions of the topic.
    pub partitions: u32,
}

/// Reads a record.
pub(crate) fn decode<'r>(record: &'r Record, place: Place, contexts: &mut Contexts<'r>) -> Decoded<'r> {
    let headers = &record.headers;
    let topic = headers.topic.as_deref().unwrap_or_default();
    let text = std::str::from_utf8(topic).ok();
    let device = text.and_then(|topic| Topic::parse(topic).ok());
    let topic = text.map_or_else(|| String::from_utf8_lossy(topic), Cow::Borrowed);
    let (replay, message) = match replay(record, place) {
        Ok(replay) => (replay, read(record, place, &topic, device, contexts)),
        Err(reject) => (None, Err(reject)),
    };
    let received_at = headers.received_at.unwrap_or(record.timestamp);
    Decoded { record, received_at, device, replay, message, topic }
}

/// The mark of a replay. One that cannot be read is refused: taken for a device's own record it could count twice.
fn replay(record: &Record, place: Place) -> Result<Option<Replay<'_>>, Reject> {
    let headers = record.headers.others();
    let Some(mark) = headers.replay.as_deref().filter(|_| place.content != Content::Quarantine) else {
        return Ok(None);
    };
    let mark = String::from_utf8_lossy(mark);
    let id =
        mark.parse().map_err(|error| Reject::new(Reason::BadRecord, format!("header `{REPLAY_HEADER}`: {error}")))?;
    Ok(Some(Replay {
        id,
        by: String::from_utf8_lossy(headers.replayed_by.as_deref().unwrap_or_default()),
        at: headers.replayed_at.as_deref().and_then(decimal).unwrap_or(0),
    }))
}

fn read<'r>(
    record: &'r Record,
    place: Place,
    topic: &str,
    device: Option<Topic<'_>>,
    contexts: &mut Contexts<'r>,
) -> Result<Message<'r>, Reject> {
    let headers = &record.headers;
    if place.content == Content::Quarantine {
        let headers = headers.others();
        if headers.source.as_deref() == Some(SOURCE_LOADER.as_bytes()) {
            return Ok(Message::Copy);
        }
        let reason = headers.reason.as_deref().and_then(|reason| std::str::from_utf8(reason).ok());
        let reason = reason.filter(|reason| !reason.is_empty());
        return reason.map(Message::Quarantined).ok_or_else(|| Reject::new(Reason::BadRecord, "no header `reason`"));
    }
    if headers.topic.is_none() {
        return Err(Reject::new(Reason::BadRecord, "no header `topic`"));
    }
    // Where there is none, parsing it again says why.
    let device = device.map_or_else(|| Topic::parse(topic), Ok)?;
    if headers.received_at.is_none() {
        return Err(Reject::new(Reason::BadRecord, "header `received_at` is not decimal microseconds since 1970"));
    }
    check_key(record, place, &device)?;
    match place.content {
        Content::Reports => Ok(Message::Report(Box::new(Report::decode_among(&record.payload, contexts)?))),
        Content::Status => Ok(Message::Status(Box::new(status::parse(&record.payload)?))),
        Content::Quarantine => Ok(Message::Copy),
    }
}

/// The ledger of a device lives with its partition, so a record elsewhere must not be counted.
fn check_key(record: &Record, place: Place, topic: &Topic<'_>) -> Result<(), Reject> {
    let expected = || record_key(topic.tenant, topic.device);
    let key = record.key.as_deref().filter(|key| {
        let device = key.strip_prefix(topic.tenant.as_bytes()).and_then(|rest| rest.strip_prefix(b"/"));
        device == Some(topic.device.as_bytes())
    });
    let Some(key) = key else {
        let key = record.key.as_deref().map(String::from_utf8_lossy);
        return Err(Reject::new(Reason::BadRecord, format!("key {key:?} is not {:?}", expected())));
    };
    let right = partition::of(key, place.partitions);
    if right != place.partition {
        let detail = format!("key {:?} belongs to partition {right}, not {}", expected(), place.partition);
        return Err(Reject::new(Reason::WrongPartition, detail));
    }
    Ok(())
}

impl<'r> Decoded<'r> {
    /// The boots whose ledgers the record may touch, the report's own first.
    pub fn boots(&self) -> impl Iterator<Item = BootRef<'r>> {
        let (own, earlier, events, numbered) = match &self.message {
            Ok(Message::Report(report)) => {
                let v1::Report { earlier_boots, events, .. } = report.message();
                (Some(report.boot_id()), &earlier_boots[..], &events[..], report.sequence().is_some())
            }
            Ok(Message::Status(status)) => (status.boot_id.filter(|boot_id| *boot_id > 0), &[][..], &[][..], false),
            Ok(Message::Quarantined(_) | Message::Copy) | Err(_) => (None, &[][..], &[][..], true),
        };
        let beats = events.iter().filter_map(|event| match &event.kind {
            Some(Kind::Heartbeat(heartbeat)) => heartbeat.boot_id.filter(|boot_id| *boot_id > 0),
            _ => None,
        });
        let replayed = (self.replay.is_some() && !numbered).then_some(REPLAYED_BOOT);
        let device = self.device;
        let boots = own.into_iter().chain(earlier.iter().map(|boot| boot.boot_id)).chain(beats).chain(replayed);
        boots.filter_map(move |boot_id| Some(BootRef::of(&device?, boot_id)))
    }

    /// The number of a message that has no sequence numbers, for the ledger of [`REPLAYED_BOOT`].
    pub fn number(&self) -> u64 {
        quarantine::number(&self.topic, self.received_at, &self.record.payload)
    }
}
