//! An injection device, which has one session after the other.

use telemetry::{
    reject::Reason,
    v1::{
        AllergyResult, Area, Component, ConsumableMounted, ConsumableRemoved, DepthSource, DoseSource, Fault,
        FaultState, IdKind, Injection, Licence, MountInUse, Outcome, Preparation, Primed, ResidualSource, SessionEnded,
        SessionStarted, Slot, event::Kind,
    },
};

use super::{Model, Scenario, base::Base, demo, noise::Noise, schedule};

const S: i64 = 1_000_000;
const AREAS: [Area; 9] = [
    Area::Face,
    Area::Neck,
    Area::Scalp,
    Area::Decollete,
    Area::Abdomen,
    Area::Arm,
    Area::Hand,
    Area::Thigh,
    Area::Gluteal,
];
/// Shots generated at once; it bounds the memory of a large fleet.
const SHOTS_AT_ONCE: u32 = 8;
/// Volume that primes a needle, nl.
const PRIME_NL: u64 = 150_000;

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Start,
    Shots,
    End,
}

/// The item mounted in a slot.
struct Mount {
    mount_id: String,
    item_id: String,
}

pub(super) struct Injector {
    model: &'static Model,
    /// Bias of dose and depth of this device, as fractions.
    bias: (f64, f64),
    phase: Phase,
    at_us: i64,
    sessions: u64,
    slot: i64,
    sessions_in_slot: u64,
    mounts: u64,
    needles: u64,
    bad: u64,
    session: Session,
    needle: Option<Mount>,
    syringe: Option<Mount>,
    handpiece: Option<Mount>,
    /// The item of the last needle, for reuse.
    last_needle: Option<String>,
    was_occluded: bool,
}

/// The running session.
#[derive(Default)]
struct Session {
    shots: u32,
    planned: u32,
    area: Area,
    target_nl: Option<u64>,
    target_um: Option<u32>,
    /// Deviation of this session from the device's bias, as fractions.
    deviation: (f64, f64),
    delivered_nl: u64,
    /// Volume that really left the syringe, nl. An encoder cannot see it.
    drawn_nl: u64,
    punctures: u32,
}

impl Injector {
    pub(super) fn new(base: &mut Base) -> Self {
        let model = Model::of(base.plan.ordinal(base.index));
        let (bias, first_us) = match base.plan.demo {
            Some(_) => {
                // A different bias in the next run would look like drift.
                let mut noise = Noise::lasting(base.plan.seed, base.index);
                ((0.004 * noise.signed(), 0.004 * noise.signed()), 30_000_000)
            }
            None => ((0.005 * base.noise.normal(), 0.008 * base.noise.normal()), 4_000_000),
        };
        Self {
            model,
            bias,
            phase: Phase::Start,
            at_us: base.noise.between(0, first_us) as i64,
            sessions: 0,
            slot: -1,
            sessions_in_slot: 0,
            mounts: 0,
            needles: 0,
            bad: 0,
            session: Session::default(),
            needle: None,
            syringe: None,
            handpiece: None,
            last_needle: None,
            was_occluded: false,
        }
    }

    /// Makes the next part of a session.
    pub(super) fn advance(&mut self, base: &mut Base) {
        self.phase = match self.phase {
            Phase::Start => {
                if demo::is_past(&base.plan) && !self.await_session(base) {
                    base.is_over = true;
                    return;
                }
                self.start(base);
                Phase::Shots
            }
            Phase::Shots => {
                for _ in 0..SHOTS_AT_ONCE.min(self.session.planned - self.session.shots) {
                    self.shot(base);
                }
                if self.session.shots >= self.session.planned { Phase::End } else { Phase::Shots }
            }
            Phase::End => {
                self.end(base);
                Phase::Start
            }
        };
    }

    fn wait(&mut self, base: &mut Base, from_us: i64, to_us: i64) -> i64 {
        self.at_us += base.noise.between(from_us as u64, to_us as u64) as i64;
        self.at_us
    }

    /// Waits for the next session of a demonstration's past. Returns false if the past ends before
    /// it would.
    fn await_session(&mut self, base: &mut Base) -> bool {
        let span = base.plan.demo.and_then(|demo| demo.session_us(self.sessions));
        let Some((from_us, to_us)) = span else { return false };
        self.at_us = base.noise.between(from_us as u64, to_us as u64) as i64;
        demo::holds_session(&base.plan, self.at_us)
    }

    /// A session of a demonstration. Each pair of sessions has the same set points and opposite
    /// deviations. So the charts of a healthy device never signal by chance, however many sessions
    /// there are.
    fn demonstrated(&self, base: &mut Base) -> Session {
        let keeps_one_dose = demo::Story::DoseDrift.is_of(&base.plan, base.index);
        let noise = &mut base.noise;
        let planned = noise.between(demo::SHOTS.0, demo::SHOTS.1) as u32;
        let area = noise.pick(&AREAS, Area::Face);
        if self.sessions.is_multiple_of(2) {
            let Session { target_nl, target_um, deviation: (dose, depth), .. } = self.session;
            return Session { planned, area, target_nl, target_um, deviation: (-dose, -depth), ..Session::default() };
        }
        let doses = if keeps_one_dose { self.model.doses_nl.get(..1) } else { None };
        let target_nl = Some(noise.pick(doses.unwrap_or(self.model.doses_nl), 0)).filter(|nl| *nl > 0);
        let target_um = Some(noise.pick(self.model.depths_um, 0)).filter(|um| *um > 0);
        // Not near 0: with a scale from such a pair, later sessions would look like outliers.
        let mut deviation = |most: f64| most * (0.5 + 0.5 * noise.unit()) * if noise.chance(0.5) { 1.0 } else { -1.0 };
        let deviation = (deviation(demo::DEVIATION.0), deviation(demo::DEVIATION.1));
        Session { planned, area, target_nl, target_um, deviation, ..Session::default() }
    }

    fn start(&mut self, base: &mut Base) {
        self.sessions += 1;
        self.session = match base.plan.demo {
            Some(_) => self.demonstrated(base),
            None => self.ordinary(base),
        };
        let noise = &mut base.noise;
        let (session_id, operator) = (noise.bytes::<16>(), noise.between(1, 6));
        let number = schedule::calibration_at(&base.plan, base.index, self.at_us);
        let calibration = |channel, is_measured| match is_measured {
            true => schedule::calibration_id(&base.plan, base.index, channel, number),
            false => String::new(),
        };
        let dose_calibration_id = calibration("dose", self.session.target_nl.is_some());
        let depth_calibration_id = calibration("depth", self.session.target_um.is_some());
        base.change_context(|context| {
            context.session_id = session_id.to_vec();
            context.operator_id = format!("op-{operator}");
            context.dose_calibration_id = dose_calibration_id;
            context.depth_calibration_id = depth_calibration_id;
        });
        let started = self.started(base);
        base.event(self.at_us, Kind::SessionStarted(started));
        self.mount_handpiece(base);
        if self.session.target_nl.is_some() {
            self.prepare(base);
            self.mount_syringe(base);
        }
        self.mount_needle(base);
    }

    fn ordinary(&self, base: &mut Base) -> Session {
        let noise = &mut base.noise;
        Session {
            planned: noise.between(30, 81) as u32,
            area: noise.pick(&AREAS, Area::Face),
            target_nl: Some(noise.pick(self.model.doses_nl, 0)).filter(|nl| *nl > 0),
            target_um: Some(noise.pick(self.model.depths_um, 0)).filter(|um| *um > 0),
            deviation: (0.01 * noise.normal(), 0.012 * noise.normal()),
            ..Session::default()
        }
    }

    fn started(&self, base: &mut Base) -> SessionStarted {
        let planned = base.noise.between(4, 16) as u32;
        let tested_us = base.unix_us(self.at_us) - base.noise.between(3, 30) as i64 * 86_400 * S;
        SessionStarted {
            course_id: base.noise.bytes::<16>().to_vec(),
            course_index: Some(base.noise.between(1, u64::from(planned) + 1) as u32),
            course_planned: Some(planned),
            interval_days: Some(base.noise.pick(&[7, 14], 7)),
            client_ref: format!("ref-{:06}", base.noise.between(0, 1_000_000)),
            allergy_result: AllergyResult::Negative.into(),
            allergy_unix_us: Some(tested_us),
            allergy_formula_id: "formula-7".to_owned(),
            licence: Licence::Verified.into(),
        }
    }

    fn prepare(&mut self, base: &mut Base) {
        let at_us = self.wait(base, 200_000, 400_000);
        let preparation_id = format!("prep-{}-{}-{}", base.name, base.life + 1, self.sessions);
        let prepared_us = base.unix_us(at_us) - 600 * S;
        let component = |product: u64, volume_nl| Component {
            udi_di: format!("0401234500{product:04}"),
            lot: format!("P{product}-26{:02}", 1 + self.sessions / 20 % 12),
            expiry: expiry(base, 2),
            container_id: format!("vial-{}-{product}-{}", base.name, self.sessions / 4),
            opened_unix_us: Some(prepared_us - 60 * S),
            volume_nl: Some(volume_nl),
        };
        let preparation = Preparation {
            preparation_id: preparation_id.clone(),
            formula_id: "formula-7".to_owned(),
            prepared_unix_us: Some(prepared_us),
            use_by_unix_us: Some(prepared_us + 24 * 3_600 * S),
            components: vec![component(17, 2_000_000), component(23, 3_000_000)],
        };
        base.event(at_us, Kind::Preparation(preparation));
        base.change_context(|context| context.preparation_id = preparation_id);
    }

    /// Makes the event of a mount, and puts the mount into the context of the following events.
    fn mount(&mut self, base: &mut Base, slot: Slot, mut mounted: ConsumableMounted) -> Mount {
        let at_us = self.wait(base, 200_000, 400_000);
        self.mounts += 1;
        mounted.slot = slot.into();
        mounted.mount_id = format!("m{}-{}-{}", base.life + 1, base.name, self.mounts);
        mounted.pack_intact = Some(true);
        let mount = Mount { mount_id: mounted.mount_id.clone(), item_id: mounted.item_id.clone() };
        let in_use = MountInUse {
            slot: slot.into(),
            mount_id: mount.mount_id.clone(),
            // A lot does not identify an item.
            item_id: if mounted.id_kind() == IdKind::Serial { mount.item_id.clone() } else { String::new() },
        };
        base.event(at_us, Kind::ConsumableMounted(mounted));
        base.change_context(|context| context.mounts.push(in_use));
        mount
    }

    fn remove(&mut self, base: &mut Base, mount: Option<Mount>, residual_nl: Option<u64>) {
        let Some(mount) = mount else { return };
        let at_us = self.wait(base, 200_000, 400_000);
        let source = if residual_nl.is_some() { ResidualSource::Scale } else { ResidualSource::Unspecified };
        let removed =
            ConsumableRemoved { mount_id: mount.mount_id.clone(), residual_nl, residual_source: source.into() };
        base.event(at_us, Kind::ConsumableRemoved(removed));
        base.change_context(|context| context.mounts.retain(|in_use| in_use.mount_id != mount.mount_id));
    }

    fn mount_handpiece(&mut self, base: &mut Base) {
        let slot = self.at_us.div_euclid(schedule::slot_us(&base.plan));
        if slot != self.slot {
            (self.slot, self.sessions_in_slot) = (slot, 0);
        }
        let number = self.sessions_in_slot;
        self.sessions_in_slot += 1;
        let is_reusable = base.plan.has_sterilizer(base.index) && number < schedule::handpieces(&base.plan);
        let sterilizer = base.plan.identity(base.index / super::BLOCK * super::BLOCK + super::STERILIZER).device;
        let (item_id, pack_id) = match is_reusable {
            true => (
                schedule::handpiece(&base.plan, &base.name, slot, number),
                schedule::pack(&base.plan, &sterilizer, slot),
            ),
            false => (format!("hs-{}-{}-{}", base.name, base.life + 1, self.sessions), String::new()),
        };
        let mounted = ConsumableMounted {
            item_id,
            pack_id,
            id_kind: IdKind::Serial.into(),
            udi_di: "04012345000031".to_owned(),
            r#type: self.model.name.to_owned(),
            reusable: Some(is_reusable),
            ..ConsumableMounted::default()
        };
        self.handpiece = Some(self.mount(base, Slot::Handpiece, mounted));
    }

    fn mount_syringe(&mut self, base: &mut Base) {
        let lot = format!("SY-26{:02}", 1 + self.sessions / 50 % 12);
        let mounted = ConsumableMounted {
            item_id: lot.clone(),
            id_kind: IdKind::LotOnly.into(),
            udi_di: "04012345000048".to_owned(),
            lot,
            expiry: expiry(base, 3),
            r#type: "syringe".to_owned(),
            reusable: Some(false),
            fill_nl: Some(self.model.fill_nl),
            ..ConsumableMounted::default()
        };
        self.session.drawn_nl = 0;
        self.syringe = Some(self.mount(base, Slot::Syringe, mounted));
    }

    fn mount_needle(&mut self, base: &mut Base) {
        self.needles += 1;
        let fresh = format!("N{}-{}-{}-{}", self.model.gauge, base.name, base.life + 1, self.needles);
        let is_affected = base.plan.affects(Scenario::NeedleReuse, base.index);
        let is_reused = demo::reuses_needle(&base.plan, base.index, self.sessions - 1)
            || is_affected && self.session.shots == 0 && base.noise.chance(0.3);
        let item_id = self.last_needle.take().filter(|_| is_reused).unwrap_or(fresh);
        self.last_needle = Some(item_id.clone());
        let mounted = ConsumableMounted {
            item_id,
            id_kind: IdKind::Serial.into(),
            udi_di: "04012345000055".to_owned(),
            lot: format!("ND-26{:02}", 1 + self.sessions / 30 % 12),
            expiry: expiry(base, 3),
            r#type: format!("needle-{}G", self.model.gauge),
            gauge: Some(self.model.gauge),
            reusable: Some(false),
            ..ConsumableMounted::default()
        };
        let mount = self.mount(base, Slot::Needle, mounted);
        self.session.punctures = 0;
        if self.session.target_nl.is_some() {
            let at_us = self.wait(base, 200_000, 400_000);
            let primed = Primed { mount_id: mount.mount_id.clone(), volume_nl: Some(PRIME_NL) };
            base.event(at_us, Kind::Primed(primed));
            self.session.drawn_nl += PRIME_NL;
        }
        self.needle = Some(mount);
    }

    fn residual_nl(&self) -> u64 {
        self.model.fill_nl.saturating_sub(self.session.drawn_nl)
    }

    fn shot(&mut self, base: &mut Base) {
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

    fn end(&mut self, base: &mut Base) {
        let (needle, syringe, handpiece) = (self.needle.take(), self.syringe.take(), self.handpiece.take());
        self.remove(base, needle, None);
        let residual_nl = self.residual_nl();
        self.remove(base, syringe, Some(residual_nl));
        self.remove(base, handpiece, None);
        let at_us = self.wait(base, 200_000, 400_000);
        let ended = SessionEnded {
            shots: Some(self.session.shots),
            delivered_nl: self.session.target_nl.map(|_| self.session.delivered_nl),
            reason: "completed".to_owned(),
        };
        base.event(at_us, Kind::SessionEnded(ended));
        base.change_context(|context| {
            context.session_id.clear();
            context.operator_id.clear();
            context.preparation_id.clear();
        });
        let pause_us = base.plan.pause.as_micros() as i64;
        self.wait(base, pause_us / 2, pause_us * 3 / 2);
    }
}

/// Date some years after the epoch, in the form of a label.
fn expiry(base: &Base, years: i64) -> String {
    let year = 1970 + base.unix_us(0) / (31_556_952 * S);
    format!("{}-06-30", year + years)
}
