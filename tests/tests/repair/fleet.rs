//! A small fleet with known events of every kind. Some are sent twice, in another grouping.

use telemetry::v1::{self, event::Kind};

use crate::rig::Rig;

const BASE_US: i64 = 1_749_000_000_000_000;
const SHOTS: u64 = 40;
/// Number of events in one session: start, mount, mixture, shots, fault, calibration, cycle, end.
pub const VISIT: u64 = SHOTS + 7;
/// Position of the implausible shot in a session, which goes to quarantine.
const IMPLAUSIBLE: u64 = 9;

/// A device that has had some sessions.
#[derive(Clone)]
pub struct Device {
    pub name: String,
    pub boot_id: u64,
    visits: u64,
}

/// A fleet of this many devices, called `pen-0` and so on.
pub fn fleet(devices: usize) -> Vec<Device> {
    let device = |number: usize| {
        let boot_id = (number as u64 + 1) << 32 | 7;
        Device { name: format!("pen-{number}"), boot_id, visits: 0 }
    };
    (0..devices).map(device).collect()
}

impl Device {
    /// Number of events made so far, which is also the last sequence number.
    pub fn made(&self) -> u64 {
        self.visits * VISIT
    }

    /// Adds a session and sends it in three reports, with the middle one twice in another grouping,
    /// and then a heartbeat.
    pub fn visit(&mut self, rig: &mut Rig) {
        let first = self.made() + 1;
        self.visits += 1;
        for (from, to) in [(0, 20), (20, 35), (15, 30), (35, VISIT)] {
            rig.report(&self.name, &self.report(first, from, to));
        }
        let beat = v1::Heartbeat {
            injection_no: Some(self.visits * SHOTS),
            boot_id: Some(self.boot_id),
            last_seq: Some(self.made()),
            ..Default::default()
        };
        let beat = v1::Event { offset_us: 0, kind: Some(Kind::Heartbeat(beat)) };
        rig.report(&self.name, &v1::Report { first_seq: 0, events: vec![beat], ..self.report(first, 0, 0) });
    }

    /// Events `from..to` of the session that starts with the sequence number `first`.
    pub fn report(&self, first: u64, from: u64, to: u64) -> v1::Report {
        let visit = (first - 1) / VISIT;
        let mount = v1::MountInUse {
            slot: v1::Slot::Needle as i32,
            mount_id: format!("m{visit}"),
            item_id: format!("needle-{}-{visit}", self.name),
        };
        v1::Report {
            boot_id: self.boot_id,
            first_seq: first + from,
            base_unix_us: BASE_US + (first + from) as i64 * 400_000,
            clock: v1::Clock::Synced as i32,
            context: Some(v1::Context {
                model: "pen".to_owned(),
                firmware: "1.2".to_owned(),
                session_id: vec![visit as u8 + 1; 16],
                mounts: vec![mount],
                dose_calibration_id: "cal-1".to_owned(),
                ..Default::default()
            }),
            events: (from..to).map(|index| self.event(visit, index, (index - from) * 400_000)).collect(),
            ..Default::default()
        }
    }

    fn event(&self, visit: u64, index: u64, offset_us: u64) -> v1::Event {
        let text = str::to_owned;
        let kind = match index {
            0 => Kind::SessionStarted(v1::SessionStarted { course_index: Some(visit as u32), ..Default::default() }),
            1 => Kind::ConsumableMounted(v1::ConsumableMounted { mount_id: format!("m{visit}"), ..Default::default() }),
            2 => Kind::Preparation(v1::Preparation {
                preparation_id: text("mix-1"),
                components: vec![v1::Component::default(), v1::Component { lot: text("L2"), ..Default::default() }],
                ..Default::default()
            }),
            43 => Kind::Fault(v1::Fault { code: text("E1"), ..Default::default() }),
            44 => Kind::Calibration(v1::Calibration {
                points: vec![v1::CalibrationPoint::default(); 3],
                ..Default::default()
            }),
            45 => Kind::SterilizationCycle(v1::SterilizationCycle {
                cycle_uid: format!("{}-{visit}", self.name),
                items: vec![v1::CycleItem { item_id: text("h1"), pack_id: text("p1") }; 2],
                samples: vec![v1::CycleSample { temperature_mc: Some(134_000), ..Default::default() }; 4],
                ..Default::default()
            }),
            46 => Kind::SessionEnded(v1::SessionEnded { shots: Some(SHOTS as u32), ..Default::default() }),
            shot => Kind::Injection(self.injection(visit, shot - 3)),
        };
        v1::Event { offset_us, kind: Some(kind) }
    }

    fn injection(&self, visit: u64, shot: u64) -> v1::Injection {
        let target = 10_000 * (1 + shot % 3);
        v1::Injection {
            injection_no: Some(visit * SHOTS + shot + 1),
            shot: Some(shot as u32 + 1),
            mode: 1,
            outcome: 1 + (shot % 5) as i32,
            target_nl: Some(target),
            delivered_nl: if shot == IMPLAUSIBLE { Some(9_000_000) } else { Some(target - 300 + shot * 17) },
            dose_source: 1 + (shot % 4) as i32,
            target_um: Some(1_500),
            measured_um: (!shot.is_multiple_of(4)).then_some(1_400 + shot as u32 * 3),
            depth_source: 1,
            punctures: (!shot.is_multiple_of(2)).then_some(5),
            ..Default::default()
        }
    }
}

/// Number of rows of this many sessions: injections, and quarantined events.
pub fn expected(visits: u64) -> (u64, u64) {
    (visits * (SHOTS - 1), visits)
}
