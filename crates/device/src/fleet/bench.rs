//! A calibration bench, which calibrates the injection devices of its block one after the other.

use telemetry::v1::{Calibration, CalibrationPoint, Channel, Phase, event::Kind};

use super::{Model, Scenario, base::Base, demo, schedule};

const S: i64 = 1_000_000;

pub(super) struct Bench {
    subjects: Vec<u32>,
    next: usize,
    round: i64,
}

impl Bench {
    pub(super) fn new(base: &Base) -> Self {
        let subjects: Vec<_> = base.plan.block(base.index).collect();
        // In the present of a demonstration, the calibrations of the past are in force.
        let next = if demo::is_present(&base.plan) { subjects.len() } else { 0 };
        Self { subjects, next, round: 0 }
    }

    /// Calibrates the next injection device.
    pub(super) fn advance(&mut self, base: &mut Base) {
        let Some(subject) = self.subjects.get(self.next).copied() else {
            self.round += 1;
            if demo::is_past(&base.plan) {
                base.is_over = true;
                return;
            }
            if demo::is_present(&base.plan) {
                base.idle(self.round * 3_600 * S);
                return;
            }
            self.next = 0;
            if self.subjects.is_empty() {
                // A bench without devices must still move the time on.
                base.event(self.round * schedule::calibration_us(&base.plan), Kind::Fault(idle()));
            }
            return;
        };
        self.next += 1;
        let at_us = schedule::calibrated_us(&base.plan, subject, self.round);
        let model = Model::of(base.plan.ordinal(subject));
        if !model.doses_nl.is_empty() {
            let targets: Vec<_> = model.doses_nl.iter().map(|nl| *nl as i64).collect();
            self.calibrate(base, subject, at_us, Channel::Dose, &targets);
        }
        if !model.depths_um.is_empty() {
            let targets: Vec<_> = model.depths_um.iter().map(|um| i64::from(*um)).collect();
            self.calibrate(base, subject, at_us + S / 2, Channel::Depth, &targets);
        }
    }

    fn calibrate(&self, base: &mut Base, subject: u32, at_us: i64, channel: Channel, targets: &[i64]) {
        let (name, scenario, uncertainty) = match channel {
            Channel::Depth => ("depth", Scenario::DepthDrift, 5_000),
            _ => ("dose", Scenario::DoseDrift, 50_000),
        };
        let drift = schedule::drift(&base.plan, subject, scenario, at_us - S);
        let mut points = Vec::new();
        for (phase, error) in [(Phase::AsFound, drift), (Phase::AsLeft, 0.0)] {
            for target in targets {
                let noise = 0.004 * base.noise.normal();
                let indicated = (*target as f64 * (1.0 + error + noise)).round() as i64;
                points.push(CalibrationPoint {
                    target: Some(*target),
                    reference: Some(*target),
                    indicated: Some(indicated),
                    phase: phase.into(),
                    expanded_uncertainty: Some(uncertainty),
                    k: Some(2_000),
                });
            }
        }
        let calibration_id = schedule::calibration_id(&base.plan, subject, name, self.round);
        let (performed_us, due_us) = match base.plan.demo {
            Some(demo) => demo::calibration(demo, base.plan.ordinal(subject)),
            None => (base.unix_us(at_us), base.unix_us(at_us) + 2 * schedule::calibration_us(&base.plan)),
        };
        let calibration = Calibration {
            subject_device: base.plan.identity(subject).device,
            channel: channel.into(),
            certificate: format!("C-{calibration_id}"),
            calibration_id,
            performed_unix_us: Some(performed_us),
            due_unix_us: Some(due_us),
            points,
        };
        base.event(at_us, Kind::Calibration(calibration));
    }
}

fn idle() -> telemetry::v1::Fault {
    telemetry::v1::Fault {
        code: "W-IDLE".to_owned(),
        detail: "no device to calibrate".to_owned(),
        ..Default::default()
    }
}
