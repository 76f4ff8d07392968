//! One injection: what the device measures of it, and what goes wrong.

use telemetry::{
    reject::Reason,
    v1::{DepthSource, DoseSource, Fault, FaultState, Injection, Outcome, event::Kind},
};

use super::{Injector, S};
use crate::fleet::{Scenario, base::Base, demo, schedule};

impl Injector {
    pub(super) fn shot(&mut self, base: &mut Base) {
        if self.session.target_nl.is_some_and(|target_nl| self.residual_nl() < 2 * target_nl) {
            let (syringe, residual_nl) = (self.syringe.take(), self.residual_nl());
            self.remove(base, syringe, Some(residual_nl));
            self.mount_syringe(base);
        }
        // Tips deform, so a new needle follows after some twenty shots.
        if self.session.punctures >= 25 && self.session.shots + 5 < self.session.planned {
            let needle = self.needle.take();
            self.remove(base, needle, None);
            self.mount_needle(base);
        }
        let (from_us, to_us) = match base.plan.demo {
            Some(demo) if demo.is_past => (8 * S, 25 * S),
            Some(_) => (S, 4 * S),
            None => (500_000, 1_300_000),
        };
        let at_us = self.wait(base, from_us, to_us);
        if self.session.planned - self.session.shots == demo::GAP_SHOTS
            && demo::loses_power(&base.plan, base.index, self.sessions - 1)
        {
            base.lose_power(demo::GAP_EVENTS);
        }
        let injection = self.injection(base);
        let is_occluded = injection.outcome() == Outcome::Occluded;
        if !self.spoil(base, at_us, &injection) {
            base.event(at_us, Kind::Injection(injection));
        }
        if !base.is_doomed() && (is_occluded || base.noise.chance(0.001)) {
            let code = if is_occluded { "E-OCC" } else { "E-TEMP" };
            for (state, wait_us) in [(FaultState::Raised, 50_000), (FaultState::Cleared, 1_500_000)] {
                let at_us = self.wait(base, wait_us, 2 * wait_us);
                let detail = format!("shot {}", self.session.shots);
                base.event(at_us, Kind::Fault(Fault { code: code.to_owned(), state: state.into(), detail }));
            }
        }
    }

    fn injection(&mut self, base: &mut Base) -> Injection {
        self.session.shots += 1;
        self.session.punctures += 1;
        base.injection_no += 1;
        let model = self.model;
        let outcome = match base.noise.between(0, 1_000) {
            0..970 => Outcome::Ok,
            970..982 => Outcome::Partial,
            982..985 => Outcome::Aborted,
            985..995 => Outcome::Occluded,
            _ => Outcome::NoContact,
        };
        // In a demonstration, only the stories go wrong; a needle that clogs repeatedly is none of
        // them.
        let is_clogged = base.plan.demo.is_some() && self.was_occluded && outcome == Outcome::Occluded;
        let outcome = if base.is_doomed() || is_clogged { Outcome::Ok } else { outcome };
        self.was_occluded = outcome == Outcome::Occluded;
        let (delivered_nl, measured_um) = (self.dose(base, outcome), self.depth(base, outcome));
        let noise = &mut base.noise;
        let duration_us = match model.needles {
            12 => noise.between(1_000_000, 4_000_000),
            _ => noise.between(60_000, 420_000),
        };
        Injection {
            shot: Some(self.session.shots),
            injection_no: Some(base.injection_no),
            mode: model.mode.into(),
            outcome: outcome.into(),
            area: self.session.area.into(),
            target_nl: self.session.target_nl,
            delivered_nl,
            target_um: self.session.target_um,
            measured_um,
            dose_source: delivered_nl.map_or(DoseSource::Unspecified, |_| model.dose_source).into(),
            depth_source: measured_um.map_or(DepthSource::Unspecified, |_| model.depth_source).into(),
            angle_mdeg: Some(noise.between(85_000, 95_001) as u32),
            duration_us: Some(duration_us),
            // 120 strokes a second. Other devices make one, which an absent value means.
            punctures: (model.needles == 12).then_some((duration_us * 120 / 1_000_000) as u32),
            needle_count: (model.needles > 1).then_some(model.needles),
            peak_force_mn: Some(noise.between(250, 1_800) as u32),
            pressure_pa: delivered_nl.map(|_| match outcome {
                Outcome::Occluded => noise.between(600_000, 900_000) as i32,
                _ => noise.between(80_000, 260_000) as i32,
            }),
            vacuum_pa: model.has_vacuum.then(|| noise.between(20_000, 45_000) as u32),
            motor_ma: Some(noise.between(120, 480) as u32),
        }
    }

    fn dose(&mut self, base: &mut Base, outcome: Outcome) -> Option<u64> {
        let target_nl = self.session.target_nl?;
        let drift = schedule::drift(&base.plan, base.index, Scenario::DoseDrift, self.at_us);
        let noise = match base.plan.demo {
            Some(_) => demo::SCATTER.0 * base.noise.clipped(),
            None => self.model.dose_sd * base.noise.normal(),
        };
        // The pen of a demonstration measures all of its drift, so its syringes balance.
        let seen = demo::drift(&base.plan, base.index, self.at_us);
        let error = match self.model.dose_source {
            DoseSource::Setting => 0.0,
            _ => self.bias.0 + self.session.deviation.0 + drift + seen + noise,
        };
        let part = match outcome {
            Outcome::Ok => 1.0,
            Outcome::Partial => 0.2 + 0.6 * base.noise.unit(),
            Outcome::Aborted => 0.5 * base.noise.unit(),
            Outcome::Occluded => 0.1 * base.noise.unit(),
            _ => return None,
        };
        let delivered = target_nl as f64 * part * (1.0 + error);
        // Never 0 if anything was delivered.
        let delivered_nl = delivered.round().max(1.0) as u64;
        // An encoder does not see half of the drift; only the mass balance shows it.
        let hidden = if self.model.dose_source == DoseSource::Encoder { delivered * drift } else { 0.0 };
        self.session.delivered_nl += delivered_nl;
        self.session.drawn_nl += delivered_nl + hidden.round() as u64;
        Some(delivered_nl)
    }

    fn depth(&mut self, base: &mut Base, outcome: Outcome) -> Option<u32> {
        let target_um = self.session.target_um.filter(|_| outcome != Outcome::NoContact)?;
        if self.model.depth_source == DepthSource::Setting {
            return Some(target_um);
        }
        // The sensor sometimes fails; the value is then absent.
        if base.noise.chance(0.004) {
            return None;
        }
        let drift = schedule::drift(&base.plan, base.index, Scenario::DepthDrift, self.at_us);
        let error = self.bias.1 + self.session.deviation.1 + drift;
        let target = f64::from(target_um);
        let noise_um = match base.plan.demo {
            Some(_) => demo::SCATTER.1 * target * base.noise.clipped(),
            None => self.model.depth_sd_um * base.noise.normal(),
        };
        let measured = target * (1.0 + error) + noise_um;
        Some(measured.round().clamp(0.0, 13_000.0) as u32)
    }

    /// Scenario `poison`: makes a bad event of every twelfth injection. Returns false if the
    /// injection stays good.
    fn spoil(&mut self, base: &mut Base, at_us: i64, good: &Injection) -> bool {
        if !base.plan.affects(Scenario::Poison, base.index) || !base.injection_no.is_multiple_of(12) {
            return false;
        }
        self.bad += 1;
        let implausible = |injection| (Some(Kind::Injection(injection)), Reason::Implausible);
        let (kind, reason) = match self.bad % 8 {
            1 => implausible(Injection { delivered_nl: Some(2_000_001), ..*good }),
            2 => implausible(Injection { measured_um: Some(13_001), ..*good }),
            3 => implausible(Injection { outcome: Outcome::Ok.into(), delivered_nl: Some(0), ..*good }),
            4 => implausible(Injection { angle_mdeg: Some(180_001), ..*good }),
            5 => implausible(Injection { needle_count: Some(0), ..*good }),
            6 => (None, Reason::UnknownEvent),
            7 => {
                base.event_out_of_time(at_us, Kind::Injection(*good));
                return true;
            }
            // Unknown enum values are tolerated, so the event is stored.
            _ => {
                base.event(at_us, Kind::Injection(Injection { mode: 77, area: 99, ..*good }));
                return true;
            }
        };
        base.bad_event(at_us, kind, reason);
        true
    }
}
