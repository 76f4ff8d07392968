//! Reports as devices send them, without a device. The same number always gives the same report.

use prost::Message as _;
use telemetry::v1::{self, event::Kind};

/// Time of the first injection, us since 1970: 2026-01-05 08:00 UTC.
const EPOCH_US: i64 = 1_767_600_000_000_000;
const S: i64 = 1_000_000;
const TENANTS: u64 = 20;
const SITES: u64 = 5;
/// Injections of one session, which has one needle and one set point: one injection a second.
const VISIT: u64 = 300;

/// Devices from this number on belong to the tenant `marker`, whose rows a query finds at once.
pub const MARKERS: u64 = 900_000;

/// A fleet whose devices report in turn.
#[derive(Clone, Copy, Debug)]
pub struct Fleet {
    /// Number of the first device.
    pub first: u64,
    /// Number of devices.
    pub devices: u64,
    /// Injections in each report; it divides [`VISIT`].
    pub per_report: u64,
}

/// A report with its sender.
pub struct Sent {
    /// `tenant/device`.
    pub key: String,
    /// MQTT topic.
    pub topic: String,
    /// Time of receipt, us since 1970.
    pub received_at: i64,
    /// The encoded report.
    pub payload: Vec<u8>,
}

impl Fleet {
    /// Tenant, site and device.
    pub fn identity(device: u64) -> [String; 3] {
        let (tenant, site) = (device % TENANTS, device / TENANTS % SITES);
        let tenant = if device < MARKERS { format!("clinic-{tenant}") } else { "marker".to_owned() };
        [tenant, format!("site-{site}"), format!("pen-{device:06}")]
    }

    /// The report with a number from 0, encoded.
    pub fn sent(&self, number: u64) -> Sent {
        let [tenant, site, device] = Self::identity(self.first + number % self.devices);
        let report = self.report(number);
        Sent {
            key: telemetry::kafka::record_key(&tenant, &device),
            topic: format!("doseline/v1/{tenant}/{site}/{device}/report"),
            received_at: self.received_at(&report),
            payload: report.encode_to_vec(),
        }
    }

    /// Assumed time of receipt, us since 1970: right after the report's last injection.
    pub fn received_at(&self, report: &v1::Report) -> i64 {
        report.base_unix_us + self.per_report as i64 * S
    }

    /// The report with a number from 0.
    pub fn report(&self, number: u64) -> v1::Report {
        let (device, round) = (self.first + number % self.devices, number / self.devices);
        let first = round * self.per_report;
        let visit = first / VISIT;
        let event = |index: u64| v1::Event {
            offset_us: index * S as u64,
            kind: Some(Kind::Injection(injection(device, first + index))),
        };
        v1::Report {
            boot_id: 1 << 32 | device,
            first_seq: first + 1,
            base_unix_us: EPOCH_US + first as i64 * S,
            base_uptime_us: first * S as u64,
            clock: v1::Clock::Synced.into(),
            context: Some(context(device, visit)),
            events: (0..self.per_report).map(event).collect(),
            ..v1::Report::default()
        }
    }

    /// Sum of the sequence numbers in this many reports. It changes if an injection is missing or
    /// doubled.
    pub fn seq_sum(&self, reports: u64) -> u64 {
        let of_device = |device: u64| {
            let rounds = (reports + self.devices - 1 - device) / self.devices;
            let last = rounds * self.per_report;
            last * (last + 1) / 2
        };
        (0..self.devices).map(of_device).sum()
    }
}

fn context(device: u64, visit: u64) -> v1::Context {
    let noise = mix(device << 32 | visit);
    let mount = |slot: v1::Slot, name: &str, item: u64| v1::MountInUse {
        slot: slot.into(),
        mount_id: format!("m{visit}-{name}-{device}"),
        item_id: format!("{name}{item:010}"),
    };
    v1::Context {
        model: format!("mesogun-{}", device % 4),
        firmware: "4.2.1".to_owned(),
        session_id: [noise.to_be_bytes(), mix(noise).to_be_bytes()].concat(),
        mounts: vec![
            mount(v1::Slot::Needle, "N", noise % 10_000_000_000),
            mount(v1::Slot::Syringe, "S", noise % 1_000),
            mount(v1::Slot::Handpiece, "H", device * 2 + visit % 2),
        ],
        dose_calibration_id: format!("dose-{device}-1"),
        depth_calibration_id: format!("depth-{device}-1"),
        preparation_id: format!("prep-{}", noise % 100_000),
        operator_id: format!("op-{}", device % 500),
    }
}

fn injection(device: u64, index: u64) -> v1::Injection {
    let visit = index / VISIT;
    let noise = mix(device << 40 | index);
    // Some bits of the noise, as a number from 0 below a power of two.
    let within = |shift: u32, count: u64| (noise >> shift) & (count - 1);
    let target_nl = [10_000, 20_000, 50_000][(visit % 3) as usize];
    let target_um = [1_500, 3_000, 4_000][(visit % 3) as usize];
    let outcome = if within(0, 128) == 0 { v1::Outcome::Partial } else { v1::Outcome::Ok };
    v1::Injection {
        shot: Some((index % VISIT) as u32 + 1),
        injection_no: Some(index + 1),
        mode: v1::Mode::Single.into(),
        outcome: outcome.into(),
        area: v1::Area::Face.into(),
        target_nl: Some(target_nl),
        delivered_nl: Some(target_nl - 256 + within(8, 512)),
        target_um: Some(target_um),
        measured_um: Some(target_um - 64 + within(16, 128) as u32),
        dose_source: v1::DoseSource::Encoder.into(),
        depth_source: v1::DepthSource::Encoder.into(),
        angle_mdeg: Some(88_000 + within(24, 4_096) as u32),
        duration_us: Some(80_000 + within(32, 16_384)),
        peak_force_mn: Some(700 + within(44, 512) as u32),
        ..v1::Injection::default()
    }
}

/// Spreads a number over 64 bits (splitmix64).
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_numbers_its_injections_without_gaps() {
        let fleet = Fleet { first: 0, devices: 3, per_report: 10 };
        let firsts: Vec<_> = (0..7).map(|number| fleet.report(number).first_seq).collect();
        assert_eq!(firsts, [1, 1, 1, 11, 11, 11, 21]);
        let sum: u64 = (0..7).flat_map(|number| (0..10).map(move |at| fleet.report(number).first_seq + at)).sum();
        assert_eq!(fleet.seq_sum(7), sum);
    }

    #[test]
    fn injections_have_the_usual_size() {
        let size = |per_report| Fleet { first: 0, devices: 2_000, per_report }.sent(4_711_000).payload.len();
        let each = (size(50) - size(10)) / 40;
        assert!((35..60).contains(&each), "{each} bytes an injection");
    }
}
