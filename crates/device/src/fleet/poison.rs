//! Bad messages. Each must be rejected as a whole, and must be in quarantine, raw, with its reason.

use prost::Message as _;
use telemetry::{
    limits::{EVENTS_MAX, MOUNTS_MAX, REPORT_BYTES_MAX},
    reject::Reason,
    topic::Channel,
    v1::{Clock, Context, EarlierBoot, Event, Injection, LostRange, MountInUse, Report, event::Kind},
};

use super::Plan;
use crate::identity::Form;

/// A bad message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poison {
    /// What is bad, as the truth file names it.
    pub name: &'static str,
    /// Topic of the message.
    pub topic: String,
    /// Payload of the message.
    pub payload: Vec<u8>,
    /// The reason with which it must be quarantined.
    pub reason: Reason,
    /// Whether its topic names a device that gets a receipt.
    pub is_receipted: bool,
}

/// Makes a well-formed report bad.
type Spoil = fn(&mut Report);

const REPORTS: [(&str, Reason, Spoil); 11] = [
    ("4097 events", Reason::TooManyElements, |report| {
        report.events = vec![Event::default(); EVENTS_MAX + 1];
    }),
    ("boot 0", Reason::BadBoot, |report| report.boot_id = 0),
    ("seq 0", Reason::BadSequence, |report| report.first_seq = 0),
    ("seq overflow", Reason::BadSequence, |report| report.first_seq = u64::MAX),
    ("session id of 15 bytes", Reason::BadSession, |report| context(report).session_id = vec![7; 15]),
    ("mount id of 257 bytes", Reason::FieldTooLong, |report| {
        let mount = MountInUse { mount_id: "m".repeat(257), ..MountInUse::default() };
        context(report).mounts.push(mount);
    }),
    ("17 mounts", Reason::TooManyElements, |report| {
        context(report).mounts = vec![MountInUse::default(); MOUNTS_MAX + 1];
    }),
    ("model of 257 bytes", Reason::FieldTooLong, |report| context(report).model = "m".repeat(257)),
    ("lost range backwards", Reason::BadSequence, |report| {
        report.lost = vec![LostRange { first_seq: 5, last_seq: 4, reason: String::new() }];
    }),
    ("no content", Reason::NoContent, |report| report.events.clear()),
    ("earlier boot 0", Reason::BadBoot, |report| report.earlier_boots = vec![EarlierBoot::default()]),
];

fn context(report: &mut Report) -> &mut Context {
    report.context.get_or_insert_default()
}

/// Number of kinds; a device goes through all of them.
const KINDS: u64 = 20;

impl Poison {
    /// The `number`-th bad message of a device. It uses none of the device's own boots, and every
    /// message differs.
    pub(super) fn new(plan: &Plan, index: u32, number: u64) -> Self {
        let identity = plan.identity(index);
        // Each device begins with another kind, so that a short run of a small fleet has many
        // kinds.
        let kind = (number + 7 * u64::from(plan.ordinal(index) / 5)) % KINDS;
        let report = good(0xffff_ffff_0000_0000 | plan.boot_id(index, 0) & 0xffff_ffff, number + 1);
        let channel = plan.form(index).channel();
        let (name, payload, reason, channel) = match kind {
            0..=10 => {
                let (name, reason, spoil) = REPORTS[kind as usize];
                let mut report = report;
                spoil(&mut report);
                (name, encode(&report, plan.form(index)), reason, channel)
            }
            11 => ("truncated protobuf", cut(report.encode_to_vec()), Reason::BadProtobuf, Channel::Report),
            12 => ("invalid utf-8", not_utf8(&report), Reason::BadProtobuf, Channel::Report),
            13 => ("256 KiB + 1", too_large(number), Reason::TooLarge, Channel::Report),
            14 => ("empty", Vec::new(), Reason::Empty, channel),
            15 => {
                ("garbage json", format!("{{\"bootId\": {number},").into_bytes(), Reason::BadJson, Channel::ReportJson)
            }
            16 => (
                "nan in json",
                format!("{{\"bootId\":NaN,\"n\":{number}}}").into(),
                Reason::BadJson,
                Channel::ReportJson,
            ),
            17 => {
                let json = format!(
                    r#"{{"bootId":"{}","firstSeq":"1","events":[{{"injection":{{"targetNl":20000.5}}}}]}}"#,
                    1 + number
                );
                ("float in json", json.into_bytes(), Reason::BadJson, Channel::ReportJson)
            }
            18 => ("garbage status", format!("online {number}").into_bytes(), Reason::BadJson, Channel::Status),
            _ => ("topic with a blank", report.encode_to_vec(), Reason::BadTopic, Channel::Report),
        };
        let is_blank = reason == Reason::BadTopic;
        let mut topic = identity.topic(channel);
        if is_blank {
            topic = topic.replace(&identity.device, &format!("{} {}", &identity.device, number));
        }
        // A receipt has the form of the message, and a device listens to one form only.
        let is_receipted = channel == plan.form(index).channel() && !is_blank;
        Self { name, topic, payload, reason, is_receipted }
    }
}

fn encode(report: &Report, form: Form) -> Vec<u8> {
    crate::draft::payload(report.encode_to_vec(), form)
}

fn good(boot_id: u64, first_seq: u64) -> Report {
    let injection = Injection { target_nl: Some(20_000), delivered_nl: Some(19_900), ..Injection::default() };
    Report {
        boot_id,
        first_seq,
        base_unix_us: 1_700_000_000_000_000,
        clock: Clock::Synced.into(),
        context: Some(Context { model: "mesogun-2".to_owned(), ..Context::default() }),
        events: vec![Event { offset_us: 0, kind: Some(Kind::Injection(injection)) }],
        ..Report::default()
    }
}

fn cut(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.pop();
    bytes
}

fn not_utf8(report: &Report) -> Vec<u8> {
    let mut bytes = report.encode_to_vec();
    if let Some(at) = bytes.windows(9).position(|window| window == b"mesogun-2") {
        bytes[at] = 0xff;
    }
    bytes
}

fn too_large(number: u64) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(REPORT_BYTES_MAX + 1, 0x5a);
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use telemetry::{report, topic::Topic};

    use super::*;

    /// The contract's own checks refuse each message for the reason that it names.
    #[test]
    fn every_kind_is_refused_for_its_reason() {
        let plan = Plan { scenarios: crate::fleet::Scenarios::all(), ..Plan::new(400, 3, 1_700_000_000_000_000) };
        let mut seen = BTreeSet::new();
        for index in (0..400).filter(|index| plan.affects(crate::fleet::Scenario::Poison, *index)) {
            for number in 0..2 * KINDS {
                let poison = Poison::new(&plan, index, number);
                seen.insert(poison.name);
                let reason = match Topic::parse(&poison.topic) {
                    Err(reject) => reject.reason,
                    Ok(topic) => match topic.channel {
                        Channel::Report => report::Report::decode(&poison.payload).unwrap_err().reason,
                        Channel::Status => telemetry::status::parse(&poison.payload).unwrap_err().reason,
                        Channel::ReportJson => {
                            telemetry::json::transcode_report(&poison.payload)
                                .and_then(|read| report::Report::decode(&read.message))
                                .unwrap_err()
                                .reason
                        }
                    },
                };
                assert_eq!(reason, poison.reason, "{} of {index}", poison.name);
            }
        }
        assert_eq!(seen.len() as u64, KINDS);
    }
}
