//! Inputs of the cases: reports as devices send them, the same at each run.

use load::inbox::{Headers, Record};
use prost::Message as _;
use rumqttc::v5::mqttbytes::{QoS, v5::Publish};
use telemetry::{
    interval::Interval,
    report::Report,
    topic::Topic,
    v1::{self, event::Kind},
};
use warehouse::columns::{Common, Origin, Provenance};

/// 2026-01-01, us since 1970.
pub const BASE_US: i64 = 1_767_225_600_000_000;

/// The batch to which the rows belong.
pub const PROVENANCE: Provenance = Provenance { ingest_day: 20_454, incarnation: 1, partition: 0, batch: 0 };

/// A report with everything that the cases need besides.
pub struct Sent {
    pub topic: String,
    pub payload: Vec<u8>,
    pub report: Report,
    session_id: String,
    pub device: u32,
}

/// `count` reports of `devices` devices in turn. Each device numbers its injections continuously.
pub fn sent(count: u64, devices: u64, injections: u64) -> Vec<Sent> {
    let one = |index: u64| {
        let (device, turn) = (index % devices, index / devices);
        let message = report(device, 1 + turn * injections, injections);
        let payload = message.encode_to_vec();
        let report = Report::decode(&payload).expect("a valid report");
        let session_id = format!("{:032x}", device);
        Sent { topic: topic(device), payload, report, session_id, device: device as u32 }
    };
    (0..count).map(one).collect()
}

fn topic(device: u64) -> String {
    format!("doseline/v1/dermacare/berlin-{:02}/MGA3-{:06}/report", device % 7, 100_000 + device)
}

/// Values vary with device and number, and stay plausible.
fn report(device: u64, first_seq: u64, injections: u64) -> v1::Report {
    let event = |index: u64| {
        let number = first_seq + index;
        let vary = |span: u64| (number * 7_919 + device * 104_729) % span;
        let injection = v1::Injection {
            shot: Some(number as u32),
            injection_no: Some(41_000 + number),
            mode: v1::Mode::Single.into(),
            outcome: v1::Outcome::Ok.into(),
            area: v1::Area::Face.into(),
            target_nl: Some(20_000),
            delivered_nl: Some(19_600 + vary(800)),
            dose_source: v1::DoseSource::Flow.into(),
            target_um: Some(1_500),
            measured_um: Some(1_450 + vary(100) as u32),
            depth_source: v1::DepthSource::Encoder.into(),
            angle_mdeg: Some(85_000 + vary(10_000) as u32),
            duration_us: Some(60_000 + vary(360_000)),
            peak_force_mn: Some(250 + vary(1_550) as u32),
            pressure_pa: Some(80_000 + vary(180_000) as i32),
            motor_ma: Some(120 + vary(360) as u32),
            ..v1::Injection::default()
        };
        v1::Event { offset_us: 1_200_000 * index, kind: Some(Kind::Injection(injection)) }
    };
    let mount = |slot: v1::Slot, kind: &str, item_id: String| {
        let mount_id = format!("m1-MGA3-{:06}-{kind}", 100_000 + device);
        v1::MountInUse { slot: slot.into(), mount_id, item_id }
    };
    let context = v1::Context {
        model: "MesoGun A3".to_owned(),
        firmware: "3.4.1+8c2f".to_owned(),
        session_id: u128::from(device).to_be_bytes().to_vec(),
        mounts: vec![
            mount(v1::Slot::Needle, "1", format!("N30-{:08}", 20_000_000 + device)),
            mount(v1::Slot::Syringe, "2", String::new()),
            mount(v1::Slot::Handpiece, "3", format!("HP-{:05}", 10_000 + device)),
        ],
        dose_calibration_id: format!("dose-{}-17", 100_000 + device),
        depth_calibration_id: format!("depth-{}-17", 100_000 + device),
        preparation_id: format!("prep-{}-1-3", 100_000 + device),
        operator_id: format!("op-{}", device % 40),
    };
    v1::Report {
        boot_id: 3 << 32 | (device + 1),
        first_seq,
        base_unix_us: BASE_US + 1_200_000 * first_seq as i64,
        base_uptime_us: 1_200_000 * first_seq,
        clock: v1::Clock::Synced.into(),
        context: Some(context),
        events: (0..injections).map(event).collect(),
        ..v1::Report::default()
    }
}

impl Sent {
    /// The packet that the bridge's MQTT client passes on.
    pub fn publish(&self, pkid: u16) -> Publish {
        Publish { pkid, ..Publish::new(self.topic.as_str(), QoS::AtLeastOnce, self.payload.clone(), None) }
    }

    /// The record that the loader reads from Kafka.
    pub fn record(&self, offset: u64) -> Record {
        let topic = self.parsed();
        // Received when its last injection has been made.
        let message = self.report.message();
        let received_at = message.base_unix_us + message.events.last().map_or(0, |event| event.offset_us as i64);
        let topic_header = Some(self.topic.clone().into_bytes());
        let headers = Headers { topic: topic_header, received_at: Some(received_at), ..Headers::default() };
        let key = telemetry::kafka::record_key(topic.tenant, topic.device).into_bytes();
        Record { offset, key: Some(key), payload: self.payload.clone(), headers, ..Record::default() }
    }

    pub fn parsed(&self) -> Topic<'_> {
        Topic::parse(&self.topic).expect("a topic of the contract")
    }

    pub fn sequence(&self) -> Interval {
        self.report.sequence().expect("a report with events")
    }

    pub fn context(&self) -> &v1::Context {
        self.report.context().expect("a report with a context")
    }

    /// The injections: sequence number, time, values.
    pub fn injections(&self) -> impl Iterator<Item = (u64, i64, &v1::Injection)> {
        let message = self.report.message();
        message.events.iter().zip(self.sequence().first..).filter_map(|(event, seq)| match &event.kind {
            Some(Kind::Injection(injection)) => Some((seq, message.base_unix_us + event.offset_us as i64, injection)),
            _ => None,
        })
    }

    /// The part that all reports of the device share.
    pub fn common(&self) -> Common<'_> {
        let (topic, context) = (self.parsed(), self.context());
        Common {
            tenant: topic.tenant,
            site: topic.site,
            device: topic.device,
            time_source: "DEVICE",
            model: &context.model,
            firmware: &context.firmware,
            session_id: &self.session_id,
            clock: "SYNCED",
            dose_calibration_id: &context.dose_calibration_id,
            depth_calibration_id: &context.depth_calibration_id,
            preparation_id: &context.preparation_id,
            operator_id: &context.operator_id,
            mounts: &context.mounts,
        }
    }

    /// The origin of its events. The number of the common part is that of the device.
    pub fn origin(&self, kafka_offset: u64) -> Origin<'_> {
        Origin {
            common: self.device,
            boot_id: self.report.boot_id(),
            received_at: BASE_US,
            kafka_offset,
            operator_id: &self.context().operator_id,
            flags: 0,
        }
    }
}
