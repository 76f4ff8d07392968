//! Reads the records of Kafka: headers, topic, key, payload. A record that cannot be read gets a
//! reason.

use std::borrow::Cow;

use telemetry::{
    command::{self, Command},
    kafka::{COMMANDS_TOPIC, REPLAY_HEADER, SOURCE_BRIDGE, SOURCE_CHECK, SOURCE_LOADER, record_key},
    limits::UNIX_US_MAX,
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
pub enum TopicKind {
    /// Reports of devices.
    Reports,
    /// Status messages of devices.
    Status,
    /// Messages that could not be used.
    Quarantine,
    /// What people write.
    Commands,
}

/// A record that was read.
pub(crate) struct Decoded<'r> {
    pub record: &'r Record,
    /// The MQTT topic; not necessarily one of the contract. The Kafka topic if it is a command.
    pub topic: Cow<'r, str>,
    /// When the bridge received it, us since 1970. Kafka's time of the record if the header cannot
    /// be read.
    pub received_at: i64,
    /// The sender, if the topic is one of the contract.
    pub device: Option<Topic<'r>>,
    /// Set if a person replays it: it is in quarantine already.
    pub replay: Option<Replay<'r>>,
    /// The message, or why there is none.
    pub message: Result<Message<'r>, Reject>,
}

/// The mark of a record that a person replays out of quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replay<'r> {
    pub id: Id,
    /// The person who replays it.
    pub by: Cow<'r, str>,
    /// When the replay was requested, us since 1970; 0 if the header is missing.
    pub at: i64,
}

/// How much later than Kafka's time of a record its time of receipt may be, us: a day, because the
/// clocks of a bridge and a Kafka broker may differ. The loader's clock does not matter: a record
/// means the same whenever it is read.
const RECEIVED_LATER_MAX_US: i64 = 86_400_000_000;

/// Whether a time of receipt can be true. Without Kafka's time of the record, any time of this
/// century can.
fn is_credible(received_at: i64, record: &Record) -> bool {
    let latest = match record.timestamp {
        kafkas @ 1.. => kafkas.saturating_add(RECEIVED_LATER_MAX_US).min(UNIX_US_MAX),
        _ => UNIX_US_MAX,
    };
    (0..=latest).contains(&received_at)
}

/// The content of a record.
pub(crate) enum Message<'r> {
    Report(Box<Report>),
    /// A status, and the flags of its texts.
    Status(Box<v1::Status>, u32),
    /// A message that is not in the quarantine table yet: the bridge refused it, or a loader found
    /// a conflict.
    Quarantined {
        reason: &'r str,
        /// The role that refused it.
        source: &'static str,
        /// The exact fault.
        detail: Cow<'r, str>,
    },
    /// A copy of what a loader refused: it is in the quarantine table already.
    Copy,
    /// What a person wants to be written.
    Command(Box<Command>),
}

/// The partition that a record was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// What the topic carries.
    pub kind: TopicKind,
    pub partition: i32,
    /// Number of partitions of the topic.
    pub partitions: u32,
}

/// Reads a record.
pub(crate) fn decode<'r>(record: &'r Record, place: Place, contexts: &mut Contexts<'r>) -> Decoded<'r> {
    if place.kind == TopicKind::Commands {
        return decode_command(record, place);
    }
    let headers = &record.headers;
    let topic = headers.topic.as_deref().unwrap_or_default();
    let text = std::str::from_utf8(topic).ok();
    let device = text.and_then(|topic| Topic::parse(topic).ok());
    let topic = text.map_or_else(|| String::from_utf8_lossy(topic), Cow::Borrowed);
    let (replay, message) = match replay(record, place) {
        Ok(replay) => (replay, read(record, place, &topic, device, contexts)),
        Err(reject) => (None, Err(reject)),
    };
    let kafkas = record.timestamp.clamp(0, UNIX_US_MAX);
    let received_at = headers.received_at.filter(|at| is_credible(*at, record)).unwrap_or(kafkas);
    Decoded { record, received_at, device, replay, message, topic }
}

/// Reads a record of the commands topic. Its headers mean nothing.
fn decode_command(record: &Record, place: Place) -> Decoded<'_> {
    let command = Command::decode(&record.payload).and_then(|command| {
        check_command_key(record, place, &command)?;
        Ok(Message::Command(Box::new(command)))
    });
    let (topic, received_at) = (Cow::Borrowed(COMMANDS_TOPIC), record.timestamp.clamp(0, UNIX_US_MAX));
    Decoded { record, received_at, device: None, replay: None, message: command, topic }
}

/// Checks that the record is in the partition of its tenant, whose owner has the numbers of the
/// commands that were applied.
fn check_command_key(record: &Record, place: Place, command: &Command) -> Result<(), Reject> {
    let expected = command::record_key(command.tenant());
    let key = record.key.as_deref().unwrap_or_default();
    if key != expected.as_bytes() {
        let found = String::from_utf8_lossy(key);
        return Err(Reject::new(Reason::BadRecord, format!("key {found:?} is not {expected:?}, the command's tenant")));
    }
    let right = partition::of(key, place.partitions);
    if right != place.partition {
        let detail = format!("key {expected:?} belongs to partition {right}, not {}", place.partition);
        return Err(Reject::new(Reason::WrongPartition, detail));
    }
    Ok(())
}

/// The mark of a replay. A mark that cannot be read refuses the record: as a device's own record it
/// could count twice.
fn replay(record: &Record, place: Place) -> Result<Option<Replay<'_>>, Reject> {
    let headers = record.headers.others();
    let Some(mark) = headers.replay.as_deref().filter(|_| place.kind != TopicKind::Quarantine) else {
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
    if place.kind == TopicKind::Quarantine {
        let headers = headers.others();
        let source = match headers.source.as_deref() {
            Some(source) if source == SOURCE_LOADER.as_bytes() => return Ok(Message::Copy),
            Some(source) if source == SOURCE_CHECK.as_bytes() => SOURCE_CHECK,
            _ => SOURCE_BRIDGE,
        };
        let detail = String::from_utf8_lossy(headers.detail.as_deref().unwrap_or_default());
        let reason = headers.reason.as_deref().and_then(|reason| std::str::from_utf8(reason).ok());
        let reason = reason.filter(|reason| !reason.is_empty());
        let none = || Reject::new(Reason::BadRecord, "no header `reason`");
        return reason.map(|reason| Message::Quarantined { reason, source, detail }).ok_or_else(none);
    }
    if headers.topic.is_none() {
        return Err(Reject::new(Reason::BadRecord, "no header `topic`"));
    }
    // Parsing the topic again gives the reason.
    let device = device.map_or_else(|| Topic::parse(topic), Ok)?;
    if headers.received_at.is_none() {
        return Err(Reject::new(Reason::BadRecord, "header `received_at` is not decimal microseconds since 1970"));
    }
    if let Some(at) = headers.received_at.filter(|at| !is_credible(*at, record)) {
        let detail =
            format!("header `received_at` is {at}, Kafka's own time of the record {} us since 1970", record.timestamp);
        return Err(Reject::new(Reason::BadRecord, detail));
    }
    check_key(record, place, &device)?;
    match place.kind {
        TopicKind::Reports => Ok(Message::Report(Box::new(Report::decode_among(&record.payload, contexts)?))),
        TopicKind::Status => {
            let (status, flags) = status::parse(&record.payload)?;
            Ok(Message::Status(Box::new(status), flags))
        }
        // Both are read before.
        TopicKind::Quarantine | TopicKind::Commands => Ok(Message::Copy),
    }
}

/// Checks that the record is in the partition of its device: that partition's owner has the
/// device's ledgers, so a record elsewhere must not be counted.
fn check_key(record: &Record, place: Place, topic: &Topic<'_>) -> Result<(), Reject> {
    let expected = || record_key(topic.tenant, topic.device);
    let key = record.key.as_deref().filter(|key| {
        let device = key.strip_prefix(topic.tenant.as_bytes()).and_then(|rest| rest.strip_prefix(b"/"));
        device == Some(topic.device.as_bytes())
    });
    let Some(key) = key else {
        let found = record.key.as_deref().map_or_else(
            || "there is no key; it must be".to_owned(),
            |key| format!("key {:?} is not", String::from_utf8_lossy(key)),
        );
        return Err(Reject::new(Reason::BadRecord, format!("{found} {:?}", expected())));
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
            Ok(Message::Status(status, _)) => (status.boot_id.filter(|boot_id| *boot_id > 0), &[][..], &[][..], false),
            Ok(Message::Quarantined { .. } | Message::Copy | Message::Command(_)) | Err(_) => {
                (None, &[][..], &[][..], true)
            }
        };
        let beats = events.iter().filter_map(|event| match &event.kind {
            Some(Kind::Heartbeat(heartbeat)) => heartbeat.boot_id.filter(|boot_id| *boot_id > 0),
            _ => None,
        });
        let replayed = (self.replay.is_some() && !numbered).then_some(REPLAYED_BOOT);
        let device = self.device;
        let boots = own.into_iter().chain(earlier.iter().map(|boot| boot.boot_id)).chain(beats).chain(replayed);
        boots.filter_map(move |boot_id| Some(BootRef::of(&device?, boot_id))).chain(self.command())
    }

    /// The ledger of a command: without a device, under the number of its idempotency key.
    pub fn command(&self) -> Option<BootRef<'r>> {
        let Ok(Message::Command(command)) = &self.message else { return None };
        let key = std::str::from_utf8(self.record.key.as_deref()?).ok()?;
        Some(BootRef { tenant: command::tenant_of(key), device: "", boot_id: command.key_number() })
    }

    /// A number for a message without sequence numbers, for the ledger of [`REPLAYED_BOOT`].
    pub fn number(&self) -> u64 {
        quarantine::number(&self.topic, self.received_at, &self.record.payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::Headers;

    #[test]
    fn a_time_of_receipt_that_cannot_be_true_is_refused_and_stored_nowhere() {
        let kafkas = 1_790_000_000_000_000;
        let place = Place { kind: TopicKind::Status, partition: 0, partitions: 1 };
        let check = |received_at: i64, timestamp: i64, expected: Option<i64>| {
            let topic = Some(b"doseline/v1/acme/berlin/pen-1/status".to_vec());
            let headers = Headers { topic, received_at: Some(received_at), ..Headers::default() };
            let key = Some(b"acme/pen-1".to_vec());
            let record = Record { key, headers, timestamp, ..Record::default() };
            let decoded = decode(&record, place, &mut Contexts::default());
            let detail = decoded.message.err().map(|reject| reject.to_string()).unwrap_or_default();
            assert_eq!(detail.contains("header `received_at` is"), expected.is_none(), "{received_at}: {detail}");
            assert_eq!(decoded.received_at, expected.unwrap_or(timestamp.clamp(0, UNIX_US_MAX)));
        };
        let year_9999 = 253_370_764_800_000_000;
        check(kafkas - 1, kafkas, Some(kafkas - 1));
        check(0, kafkas, Some(0));
        check(kafkas + RECEIVED_LATER_MAX_US, kafkas, Some(kafkas + RECEIVED_LATER_MAX_US));
        check(kafkas + RECEIVED_LATER_MAX_US + 1, kafkas, None);
        check(year_9999, kafkas, None);
        check(year_9999, year_9999, None);
        check(UNIX_US_MAX, 0, Some(UNIX_US_MAX));
        check(UNIX_US_MAX + 1, 0, None);
    }
}
