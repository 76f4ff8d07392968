//! An injection device, which has one session after the other.

mod shot;

use telemetry::v1::{
    AllergyResult, Area, Component, ConsumableMounted, ConsumableRemoved, IdKind, Licence, MountInUse, Preparation,
    Primed, ResidualSource, SessionEnded, SessionStarted, Slot, event::Kind,
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
