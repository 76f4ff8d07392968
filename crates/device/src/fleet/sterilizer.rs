//! A sterilizer, which in each slot washes and sterilizes the hand-pieces used in the slot before.

use telemetry::v1::{
    CycleIndicator, CycleItem, CycleRelease, CycleSample, IndicatorKind, IndicatorResult, Purpose, ReleaseDecision,
    Reprocessed, RinseWater, SterilizationCycle, event::Kind,
};

use super::{Scenario, base::Base, demo, schedule};

const S: i64 = 1_000_000;
/// Begin of a cycle after the begin of its slot, us; washing takes the time before it.
const START_US: i64 = 240 * S;
/// Ambient pressure, Pa.
const AMBIENT_PA: f64 = 101_325.0;

/// What goes wrong in a cycle.
#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    None,
    ShortHold,
    ColdSpot,
    Gap,
    WetLoad,
}

pub(super) struct Sterilizer {
    /// Number of cycles in this run.
    cycles: u64,
    slot: i64,
}

/// Temperature (millidegrees) and pressure (Pa) that a phase of `seconds` reaches linearly.
struct Phase {
    seconds: u32,
    to_mc: f64,
    to_pa: f64,
    every_s: u32,
}

impl Sterilizer {
    pub(super) fn new(base: &Base) -> Self {
        let slot = match base.plan.demo {
            // The present continues with the next midnight.
            Some(demo) if !demo.is_past => {
                (base.plan.epoch_unix_us - demo.began_unix_us + schedule::slot_us(&base.plan) - 1)
                    .div_euclid(schedule::slot_us(&base.plan))
            }
            _ => -2,
        };
        Self { cycles: 0, slot }
    }

    /// Makes all events of the next slot. The first two slots are before the epoch and are reported
    /// at its beginning.
    pub(super) fn advance(&mut self, base: &mut Base) {
        let slot = self.slot;
        self.slot += 1;
        if let Some(demo) = base.plan.demo {
            let begin_us = demo.began_unix_us - base.plan.epoch_unix_us + slot * demo::DAY_US;
            self.demonstrate(base, slot, begin_us);
            return;
        }
        let begin_us = slot * schedule::slot_us(&base.plan);
        let items = self.items(base, slot);
        if slot >= 0 {
            self.wash(base, begin_us, &items);
            let day = 86_400 * S;
            if begin_us.div_euclid(day) != (begin_us - schedule::slot_us(&base.plan)).div_euclid(day) {
                self.bowie_dick(base, begin_us + 200 * S);
            }
        }
        let flaw = self.flaw(base);
        let is_tested = self.cycles % 8 == 1;
        self.load(base, begin_us + START_US, items, flaw, is_tested);
    }

    /// A day of a demonstration from midnight on: washing, the Bowie-Dick test, the load of the
    /// day. The present has no reusable hand-pieces (see [`schedule::handpieces`]), so it
    /// sterilizes the clinic's trays.
    fn demonstrate(&mut self, base: &mut Base, slot: i64, begin_us: i64) {
        if !demo::holds_sterilizer(&base.plan, begin_us) {
            base.is_over = true;
            return;
        }
        let mut items = self.items(base, slot);
        if items.is_empty() {
            let tray = |number| format!("tray-{}-{number}", base.name);
            let pack_id = schedule::pack(&base.plan, &base.name, slot + 2);
            items = (1..=4).map(|number| CycleItem { item_id: tray(number), pack_id: pack_id.clone() }).collect();
        }
        if slot >= 0 {
            self.wash(base, begin_us, &items);
        }
        let failing = demo::failing(&base.plan, base.index, slot).map(|(device, number)| {
            schedule::handpiece(&base.plan, &base.plan.identity(device).device, slot - 1, number)
        });
        let (failing, items): (Vec<_>, Vec<_>) =
            items.into_iter().partition(|item| Some(&item.item_id) == failing.as_ref());
        self.bowie_dick(base, begin_us + 200 * S);
        // A biological test at least once a week, and always first after a pause of unknown length.
        let is_tested = slot.rem_euclid(3) == 0 || self.cycles == 1;
        self.load(base, begin_us + 3_600 * S, items, Flaw::None, is_tested);
        if !failing.is_empty() {
            self.load(base, begin_us + 7_200 * S, failing, Flaw::ShortHold, false);
        }
    }

    fn items(&self, base: &Base, slot: i64) -> Vec<CycleItem> {
        // Washed and packed now, used in the slot after the next.
        let pack_id = schedule::pack(&base.plan, &base.name, slot + 2);
        let devices = base.plan.block(base.index).map(|device| base.plan.identity(device).device);
        devices
            .flat_map(|device| {
                (0..schedule::handpieces(&base.plan))
                    .map(move |number| schedule::handpiece(&base.plan, &device, slot - 1, number))
            })
            .map(|item_id| CycleItem { item_id, pack_id: pack_id.clone() })
            .collect()
    }

    fn wash(&self, base: &mut Base, begin_us: i64, items: &[CycleItem]) {
        let step_us = START_US * 3 / 4 / items.len().max(1) as i64;
        for (place, item) in items.iter().enumerate() {
            let reprocessed =
                Reprocessed { item_id: item.item_id.clone(), rinse_water: RinseWater::Demineralised.into() };
            base.event(begin_us + place as i64 * step_us, Kind::Reprocessed(reprocessed));
        }
    }

    fn bowie_dick(&mut self, base: &mut Base, at_us: i64) {
        let cycle_uid = self.cycle(base, at_us, "134C-3.5min-BD", Purpose::BowieDick, Vec::new(), Flaw::None);
        self.indicator(base, at_us + 1_300 * S, &cycle_uid, IndicatorKind::BowieDick, IndicatorResult::Negative);
    }

    fn flaw(&self, base: &mut Base) -> Flaw {
        match self.cycles {
            cycles if base.plan.affects(Scenario::FailedCycle, base.index) && cycles % 3 == 2 => {
                base.noise.pick(&[Flaw::ShortHold, Flaw::ColdSpot, Flaw::Gap, Flaw::WetLoad], Flaw::ShortHold)
            }
            _ => Flaw::None,
        }
    }

    fn load(&mut self, base: &mut Base, at_us: i64, items: Vec<CycleItem>, flaw: Flaw, is_tested: bool) {
        let cycle_uid = self.cycle(base, at_us, "134C-3min", Purpose::Load, items, flaw);
        let end_us = (at_us + 1_180 * S).max(0);
        let has_failed = matches!(flaw, Flaw::ShortHold | Flaw::ColdSpot);
        let result = if has_failed { IndicatorResult::Positive } else { IndicatorResult::Negative };
        self.indicator(base, end_us + 10 * S, &cycle_uid, IndicatorKind::Chemical, result);
        // Half of the failed loads are released by mistake.
        let decision = match flaw {
            Flaw::None => ReleaseDecision::Released,
            _ if base.plan.demo.is_some() => ReleaseDecision::Released,
            _ if base.noise.chance(0.5) => ReleaseDecision::Released,
            _ => ReleaseDecision::Rejected,
        };
        let release_us = end_us + 90 * S;
        let release = CycleRelease {
            cycle_uid: cycle_uid.clone(),
            decision: decision.into(),
            actor: format!("op-{}", 1 + base.index % 5),
            at_unix_us: Some(base.unix_us(release_us)),
        };
        base.event(release_us, Kind::CycleRelease(release));
        if is_tested {
            self.indicator(base, release_us + 20 * S, &cycle_uid, IndicatorKind::Biological, result);
        }
    }

    fn indicator(&self, base: &mut Base, at_us: i64, cycle: &str, kind: IndicatorKind, result: IndicatorResult) {
        let indicator = CycleIndicator {
            cycle_uid: cycle.to_owned(),
            kind: kind.into(),
            lot: "CI-2601".to_owned(),
            result: result.into(),
            read_unix_us: Some(base.unix_us(at_us)),
        };
        base.event(at_us, Kind::CycleIndicator(indicator));
    }

    fn cycle(
        &mut self,
        base: &mut Base,
        at_us: i64,
        recipe: &str,
        purpose: Purpose,
        items: Vec<CycleItem>,
        flaw: Flaw,
    ) -> String {
        self.cycles += 1;
        let cycle_uid = format!("cyc-{}-{}-{}", base.name, base.life + 1, self.cycles);
        let samples = curve(base, flaw);
        let length_us = samples.last().map_or(0, |sample| i64::from(sample.offset_ms) * 1_000);
        let cycle = SterilizationCycle {
            cycle_uid: cycle_uid.clone(),
            cycle_no: Some(self.cycles),
            recipe: recipe.to_owned(),
            purpose: purpose.into(),
            items,
            samples,
            load_dry: Some(flaw != Flaw::WetLoad),
        };
        base.event_told(at_us + length_us, at_us, Kind::SterilizationCycle(cycle));
        cycle_uid
    }
}

/// Absolute pressure of saturated steam, Pa, at a temperature in millidegrees Celsius: the inverse
/// of T = 42.6776 - 3892.70 / (ln P - 9.48654), T in K, P in MPa.
fn saturated_pa(temperature_mc: f64) -> f64 {
    let kelvin = temperature_mc / 1_000.0 + 273.15;
    (9.486_54 - 3_892.70 / (kelvin - 42.677_6)).exp() * 1e6
}

/// Fractionated pre-vacuum, plateau at 134 C, drying.
fn curve(base: &mut Base, flaw: Flaw) -> Vec<CycleSample> {
    let steam = |seconds, to_mc, every_s| Phase { seconds, to_mc, to_pa: saturated_pa(to_mc), every_s };
    let vacuum = |seconds, to_mc, to_pa| Phase { seconds, to_mc, to_pa, every_s: 10 };
    let mut phases = Vec::new();
    for pulse in 0..3 {
        phases.push(vacuum(70, 55_000.0 + 12_000.0 * f64::from(pulse), 9_000.0));
        phases.push(vacuum(60, 100_000.0 + 4_000.0 * f64::from(pulse), 160_000.0));
    }
    phases.push(steam(120, 134_600.0, 2));
    match flaw {
        Flaw::ShortHold => phases.push(steam(90, 134_700.0, 2)),
        Flaw::ColdSpot => {
            phases.push(steam(80, 134_600.0, 2));
            phases.push(steam(20, 132_800.0, 2));
            phases.push(steam(20, 134_600.0, 2));
            phases.push(steam(90, 134_700.0, 2));
        }
        _ => phases.push(steam(210, 134_800.0, 2)),
    }
    phases.push(vacuum(60, 104_000.0, AMBIENT_PA));
    phases.push(vacuum(300, 80_000.0, 6_000.0));
    phases.push(vacuum(60, 70_000.0, AMBIENT_PA));

    let (mut samples, mut second, mut from_mc, mut from_pa) = (Vec::new(), 0, 24_000.0, AMBIENT_PA);
    for phase in phases {
        let mut passed = 0;
        while passed < phase.seconds {
            let fraction = f64::from(passed) / f64::from(phase.seconds);
            let mc = from_mc + (phase.to_mc - from_mc) * fraction;
            let pa = from_pa + (phase.to_pa - from_pa) * fraction;
            // The logger stops for a minute during the plateau.
            if !(flaw == Flaw::Gap && (560..620).contains(&(second + passed))) {
                for sensor in 0..2 {
                    let noise_mc = if mc > 134_000.0 { 60.0 } else { 150.0 } * base.noise.normal();
                    samples.push(CycleSample {
                        offset_ms: (second + passed) * 1_000,
                        sensor,
                        temperature_mc: Some((mc + noise_mc + 40.0 * f64::from(sensor)).round() as i32),
                        pressure_pa: Some((pa + 120.0 * base.noise.normal()).round().max(0.0) as u32),
                    });
                }
            }
            passed += phase.every_s;
        }
        second += phase.seconds;
        (from_mc, from_pa) = (phase.to_mc, phase.to_pa);
    }
    samples
}
