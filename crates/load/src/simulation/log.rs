//! The records of a partition: devices report, repeat events in other groupings, lose events,
//! reboot and send malformed bytes.

use prost::Message as _;
use rand_chacha::rand_core::RngCore;
use telemetry::{
    quarantine::Id,
    report::Report,
    v1::{self, event::Kind},
};

use crate::inbox::{Headers, OtherHeaders, Record};

/// What devices did.
#[derive(Default)]
pub struct Log {
    pub records: Vec<Record>,
}

struct Device {
    name: String,
    boot_id: u64,
    made: Vec<v1::Event>,
    sent: usize,
}

/// A depth that the narrow rules of [`super::world`] refuse and the wide ones take.
pub const DEEP_UM: u32 = 12_000;
const START_US: i64 = 1_700_000_000_000_000;

pub fn generate(random: &mut impl RngCore, reports: usize) -> Log {
    let mut log = Log::default();
    let mut devices: Vec<Device> = (0..3)
        .map(|number| Device { name: format!("d{number}"), boot_id: number + 1, made: Vec::new(), sent: 0 })
        .collect();
    for _ in 0..reports {
        let device = &mut devices[(random.next_u64() % 3) as usize];
        match random.next_u64() % 20 {
            0 => log.push(&device.name, b"\xff\xffnonsense".to_vec()),
            1 => {
                let earlier = v1::EarlierBoot { boot_id: device.boot_id, last_seq: device.made.len() as u64 };
                device.boot_id += 100;
                device.made.clear();
                device.sent = 0;
                let report = v1::Report { boot_id: device.boot_id, earlier_boots: vec![earlier], ..Default::default() };
                log.push(&device.name, report.encode_to_vec());
            }
            2 if device.sent > 0 => {
                let report = v1::Report {
                    boot_id: device.boot_id,
                    lost: vec![v1::LostRange {
                        first_seq: 1,
                        last_seq: 1 + random.next_u64() % 4,
                        reason: "full".into(),
                    }],
                    ..Default::default()
                };
                log.push(&device.name, report.encode_to_vec());
            }
            // A person replays an event, whether it is in quarantine or not.
            9 if !log.records.is_empty() => log.replay(random),
            // Repeats in another grouping.
            3..=8 if device.sent > 0 => {
                let first = (random.next_u64() as usize) % device.sent;
                let count = 1 + (random.next_u64() as usize) % 6;
                log.report(device, first, count, random);
            }
            _ => {
                let count = 1 + (random.next_u64() as usize) % 5;
                let skipped = if random.next_u64().is_multiple_of(10) { 2 } else { 0 };
                for _ in 0..count + skipped {
                    let event = event(random);
                    device.made.push(event);
                }
                let first = device.sent + skipped;
                device.sent = device.made.len();
                log.report(device, first, count, random);
            }
        }
    }
    log
}

fn event(random: &mut impl RngCore) -> v1::Event {
    let offset_us = random.next_u64() % 300_000_000;
    let kind = match random.next_u64() % 10 {
        0 => Kind::Fault(v1::Fault { code: "E7".to_owned(), ..Default::default() }),
        roll => {
            let depth = match roll {
                1 => 60_000,
                2 => DEEP_UM,
                _ => 1_500,
            };
            Kind::Injection(v1::Injection {
                outcome: 1 + (random.next_u64() % 5) as i32,
                target_nl: Some(20_000),
                delivered_nl: Some(19_000 + random.next_u64() % 2_000),
                target_um: Some(1_500),
                measured_um: (roll != 3).then_some(depth),
                punctures: (roll == 4).then_some(3),
                ..Default::default()
            })
        }
    };
    v1::Event { offset_us, kind: Some(kind) }
}

impl Log {
    fn report(&mut self, device: &Device, first: usize, count: usize, random: &mut impl RngCore) {
        let end = (first + count).min(device.made.len());
        let mount = v1::MountInUse { slot: 1, mount_id: format!("m{}", random.next_u64() % 2), ..Default::default() };
        let report = v1::Report {
            boot_id: device.boot_id,
            first_seq: first as u64 + 1,
            base_unix_us: START_US,
            clock: v1::Clock::Synced as i32,
            context: Some(v1::Context { model: "pen".to_owned(), mounts: vec![mount], ..Default::default() }),
            events: device.made[first..end].to_vec(),
            ..Default::default()
        };
        self.push(&device.name, report.encode_to_vec());
    }

    fn replay(&mut self, random: &mut impl RngCore) {
        let record = &self.records[(random.next_u64() as usize) % self.records.len()];
        let Ok(report) = Report::decode(&record.payload) else { return };
        let Some(range) = report.sequence() else { return };
        let index = (random.next_u64() % range.count()) as usize;
        let payload = report.excerpt(&record.payload, index);
        let seq = Some(range.first + index as u64);
        let id = Id { incarnation: 1, partition: 0, offset: record.offset, seq };
        let others = OtherHeaders { replay: Some(id.to_string().into_bytes()), ..record.headers.others().clone() };
        let headers = Headers { others: Some(Box::new(others)), ..record.headers.clone() };
        let offset = self.records.len() as u64;
        self.records.push(Record { offset, payload, headers, ..record.clone() });
    }

    fn push(&mut self, device: &str, payload: Vec<u8>) {
        let offset = self.records.len() as u64;
        self.records.push(Record {
            offset,
            key: Some(format!("acme/{device}").into_bytes()),
            payload,
            headers: Headers {
                topic: Some(format!("doseline/v1/acme/berlin/{device}/report").into_bytes()),
                received_at: Some(START_US + offset as i64 * 1_000),
                ..Headers::default()
            },
            ..Record::default()
        });
    }
}
