//! Tests of the generator with whole fleets and without IO.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use telemetry::{
    device_time,
    plausibility::{Ranges, check},
    report::Report,
    v1::{Clock, Injection, Outcome, ReleaseDecision},
};

use super::*;

const EPOCH: i64 = 1_780_000_000_000_000;

fn plan(devices: u32, seed: u64, scenarios: &str) -> Arc<Plan> {
    Arc::new(Plan { scenarios: scenarios.parse().unwrap(), ..Plan::new(devices, seed, EPOCH) })
}

/// The steps of a device up to a simulated second.
fn steps(plan: &Arc<Plan>, index: u32, seconds: u64) -> Vec<Step> {
    let device = Device::new(Arc::clone(plan), index, Life::default());
    device.take_while(|step| step.at_us < seconds * 1_000_000).collect()
}

fn events(steps: &[Step]) -> impl Iterator<Item = &Made> {
    steps.iter().filter_map(|step| match &step.act {
        Act::Event(made) => Some(made),
        _ => None,
    })
}

fn injections(steps: &[Step]) -> impl Iterator<Item = (&Made, Injection)> {
    events(steps).filter_map(|made| match made.kind {
        Some(Kind::Injection(injection)) => Some((made, injection)),
        _ => None,
    })
}

#[test]
fn the_same_seed_makes_the_same_fleet_and_another_another() {
    let fleet = |seed| {
        let plan = plan(20, seed, "all");
        (0..20).map(|index| steps(&plan, index, 1_200)).collect::<Vec<_>>()
    };
    let first = fleet(5);
    assert!(first == fleet(5));
    let other = fleet(6);
    for (index, (first, other)) in first.iter().zip(&other).enumerate() {
        // The curve of a sterilizer is noise on a schedule, yet its boot id and values differ.
        assert!(first != other, "device {index}");
    }
}

#[test]
fn lives_continue_and_do_not_repeat() {
    let plan = plan(1, 5, "healthy");
    let life = Life { boots: 3, injection_no: 1_000 };
    let next: Vec<_> = Device::new(Arc::clone(&plan), 0, life).take(200).collect();
    let Act::Boot { boot_id } = next[0].act else { panic!("no boot") };
    assert_eq!((boot_id >> 32, boot_id), (4, plan.boot_id(0, 4)));
    assert_eq!(injections(&next).next().unwrap().1.injection_no, Some(1_001));
    let first: Vec<_> = Device::new(Arc::clone(&plan), 0, Life::default()).take(200).collect();
    let sessions =
        |steps: &[Step]| events(steps).map(|made| made.context.message.session_id.clone()).collect::<BTreeSet<_>>();
    assert_eq!(sessions(&first).intersection(&sessions(&next)).count(), 0);
}

/// Every event keeps the contract and is plausible to the loader, unless the truth says otherwise.
#[test]
fn the_fate_is_what_the_contract_makes_of_it() {
    let plan = plan(32, 9, "all");
    let mut fates = BTreeMap::new();
    for index in 0..32 {
        let (mut boot, mut seq, mut at_us) = (0, 0, 0);
        for step in steps(&plan, index, 3_000) {
            assert!(step.at_us >= at_us, "time goes back on device {index}");
            at_us = step.at_us;
            let made = match step.act {
                Act::Boot { boot_id } => {
                    assert!(boot_id >> 32 == (boot >> 32) + 1);
                    (boot, seq) = (boot_id, 0);
                    continue;
                }
                Act::Event(made) => made,
                _ => continue,
            };
            seq += 1;
            assert_eq!((made.boot_id, made.seq), (boot, seq));
            let event = v1::Event { offset_us: 0, kind: made.kind.clone() };
            let report = v1::Report {
                boot_id: made.boot_id,
                first_seq: made.seq,
                base_unix_us: made.stamp.unix_us,
                clock: made.stamp.clock.into(),
                context: Some(made.context.message.clone()),
                events: vec![event.clone()],
                ..Default::default()
            };
            Report::decode(&report.encode_to_vec()).unwrap();
            let time = device_time::Limits::default().judge(&report, EPOCH + 86_400_000_000);
            let at = if time.is_device() { time.at(&event) } else { EPOCH };
            let reason = check(&event, at, &Ranges::default()).err().map(|reject| reject.reason);
            match made.fate {
                Fate::Stored => assert_eq!(reason, None, "{event:?}"),
                Fate::Quarantined(expected) => assert_eq!(reason, Some(expected)),
                Fate::Lost | Fate::Missing => {}
            }
            *fates.entry(made.fate.as_str()).or_insert(0) += 1;
        }
    }
    for fate in ["stored", "quarantined", "lost", "missing"] {
        assert!(fates.get(fate).is_some_and(|count| *count > 5), "{fates:?}");
    }
}

#[test]
fn a_device_makes_about_an_event_a_second() {
    let plan = plan(16, 3, "healthy");
    let made: usize = (0..16).map(|index| events(&steps(&plan, index, 3_600)).count()).sum();
    let rate = made as f64 / (16.0 * 3_600.0);
    assert!((0.8..1.2).contains(&rate), "{rate}");
    let first = injections(&steps(&plan, 0, 3_600)).next().unwrap().0.stamp.unix_us;
    assert!(first < EPOCH + 8_000_000, "the first injection comes soon");
}

/// Mean error, in percent of the target, of the injections in a span of simulated time.
fn error_pct(steps: &[Step], plan: &Plan, from: f64, to: f64, value: fn(&Injection) -> Option<(i64, i64)>) -> f64 {
    let period = schedule::calibration_us(plan) as f64;
    let (mut error, mut target) = (0, 0);
    for (made, injection) in injections(steps) {
        let fraction = (made.stamp.unix_us - EPOCH) as f64 / period;
        if (from..to).contains(&fraction)
            && injection.outcome() == Outcome::Ok
            && let Some((set, measured)) = value(&injection)
        {
            error += measured - set;
            target += set;
        }
    }
    100.0 * error as f64 / target as f64
}

#[test]
fn drift_is_visible_where_it_is_meant() {
    let plan = plan(16, 7, "dose-drift,depth-drift");
    let dose: fn(&Injection) -> _ = |i| Some((i.target_nl? as i64, i.delivered_nl? as i64));
    let depth: fn(&Injection) -> _ = |i| Some((i64::from(i.target_um?), i64::from(i.measured_um?)));
    let change = |index, value| {
        let steps = steps(&plan, index, 6 * 3_600 + 1_800);
        error_pct(&steps, &plan, 0.9, 1.0, value) - error_pct(&steps, &plan, 0.0, 0.2, value)
    };
    assert!(plan.affects(Scenario::DoseDrift, 0) && plan.affects(Scenario::DepthDrift, 1));
    assert!((9.0..14.0).contains(&change(0, dose)), "{}", change(0, dose));
    assert!(change(0, depth).abs() < 1.5);
    assert!(change(1, dose).abs() < 1.5);
    assert!((11.0..18.0).contains(&change(1, depth)), "{}", change(1, depth));
}

/// Sessions of each needle, and cycles of each item.
#[test]
fn needles_and_hand_pieces_tell_their_story() {
    let count_reused = |scenarios| {
        let plan = plan(16, 11, scenarios);
        let mut sessions: BTreeMap<String, BTreeSet<Vec<u8>>> = BTreeMap::new();
        for index in plan.block(0) {
            for made in events(&steps(&plan, index, 3_600)) {
                if let Some(Kind::ConsumableMounted(mounted)) = &made.kind
                    && mounted.slot() == v1::Slot::Needle
                {
                    let session = made.context.message.session_id.clone();
                    sessions.entry(mounted.item_id.clone()).or_default().insert(session);
                }
            }
        }
        sessions.values().filter(|sessions| sessions.len() > 1).count()
    };
    assert_eq!(count_reused("healthy"), 0);
    assert!(count_reused("needle-reuse") > 3);
}

#[test]
fn reusable_hand_pieces_are_sterilized_between_sessions() {
    let plan = plan(16, 11, "healthy");
    // Released cycles of an item as (end, start), and its uses, all in true time.
    let (mut released, mut cycles) = (BTreeSet::new(), Vec::new());
    for made in events(&steps(&plan, 3, 4 * 3_600)) {
        match &made.kind {
            Some(Kind::SterilizationCycle(cycle)) => cycles.push((made.stamp.unix_us, cycle.clone())),
            Some(Kind::CycleRelease(release)) if release.decision() == ReleaseDecision::Released => {
                released.insert(release.cycle_uid.clone());
            }
            _ => {}
        }
    }
    let mut uses = 0;
    for index in plan.block(0) {
        let mut last_use: BTreeMap<String, i64> = BTreeMap::new();
        for made in events(&steps(&plan, index, 4 * 3_600)) {
            let Some(Kind::ConsumableMounted(mounted)) = &made.kind else { continue };
            if mounted.reusable != Some(true) {
                continue;
            }
            let at = made.stamp.unix_us;
            let since = last_use.insert(mounted.item_id.clone(), at).unwrap_or(i64::MIN);
            let is_sterile = cycles.iter().any(|(start, cycle)| {
                (since..at).contains(start)
                    && released.contains(&cycle.cycle_uid)
                    && cycle.items.iter().any(|item| item.item_id == mounted.item_id && item.pack_id == mounted.pack_id)
            });
            assert!(is_sterile, "{} at {}", mounted.item_id, (at - EPOCH) / 1_000_000);
            uses += 1;
        }
    }
    assert!(uses > 200, "{uses}");
}

/// The longest time with every sample of both sensors in 134..137 C, s.
fn hold_s(cycle: &v1::SterilizationCycle) -> u32 {
    let (mut longest, mut since) = (0, None);
    for pair in cycle.samples.chunks(2) {
        let is_hot = pair.iter().all(|sample| (134_000..=137_000).contains(&sample.temperature_mc.unwrap()));
        let at = pair[0].offset_ms / 1_000;
        since = if is_hot { since.or(Some(at)) } else { None };
        longest = longest.max(since.map_or(0, |since| at - since));
    }
    longest
}

#[test]
fn cycles_hold_three_minutes_unless_they_fail() {
    let cycles = |scenarios| {
        let plan = plan(16, 2, scenarios);
        let steps = steps(&plan, 3, 12 * 3_600);
        events(&steps)
            .filter_map(|made| match &made.kind {
                Some(Kind::SterilizationCycle(cycle)) => Some(cycle.clone()),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    let healthy = cycles("healthy");
    assert!(healthy.len() >= 24);
    for cycle in &healthy {
        assert!(hold_s(cycle) >= 200, "{}", hold_s(cycle));
        // Saturated steam: 134 C is about 304 kPa.
        let plateau = cycle.samples.iter().filter(|sample| sample.temperature_mc > Some(134_500));
        assert!(plateau.clone().count() > 100);
        plateau.for_each(|sample| assert!((300_000..320_000).contains(&sample.pressure_pa.unwrap())));
    }
    let is_bad = |cycle: &&v1::SterilizationCycle| {
        let gap = cycle.samples.windows(2).map(|pair| pair[1].offset_ms - pair[0].offset_ms).max();
        hold_s(cycle) < 180 || cycle.load_dry == Some(false) || gap > Some(30_000)
    };
    assert_eq!(healthy.iter().filter(is_bad).count(), 0);
    assert!(cycles("failed-cycle").iter().filter(is_bad).count() >= 8);
}

#[test]
fn mishaps_happen_to_those_they_are_meant_for() {
    let names = ["offline", "clock-skew", "reboot", "poison"];
    for name in names {
        let plan = plan(16, 4, name);
        let scenario: Scenario = name.parse().unwrap();
        for index in plan.block(0) {
            let steps = steps(&plan, index, 3_600);
            let has = |wanted: fn(&Act) -> bool| steps.iter().skip(1).any(|step| wanted(&step.act));
            let seen = match scenario {
                Scenario::Offline => has(|act| matches!(act, Act::Link { .. })),
                Scenario::Reboot => has(|act| matches!(act, Act::Boot { .. })),
                Scenario::Poison => has(|act| matches!(act, Act::Poison(_))),
                _ => has(|act| matches!(act, Act::Event(made) if made.stamp.clock != Clock::Synced)),
            };
            assert_eq!(seen, plan.affects(scenario, index), "{name} on {index}");
        }
    }
}

#[test]
fn a_fleet_of_any_size_has_every_scenario() {
    for devices in [1, 2, 5, 16, 25, 200] {
        let plan = plan(devices, 1, "all");
        for scenario in Scenario::ALL.into_iter().filter(|scenario| *scenario != Scenario::Healthy) {
            let count = (0..devices).filter(|index| plan.affects(scenario, *index)).count();
            let is_possible = plan.count(scenario.role()) > 0;
            assert_eq!(count > 0, is_possible, "{scenario} among {devices}");
        }
        for role in [Role::Injector, Role::Sterilizer, Role::Bench] {
            let counted = (0..devices).filter(|index| plan.role(*index) == role).count();
            assert_eq!(plan.count(role) as usize, counted);
        }
    }
    let plan = plan(200, 1, "healthy");
    let names: BTreeSet<_> = (0..200).map(|index| plan.identity(index)).collect();
    assert_eq!(names.len(), 200);
    assert!(names.iter().all(|identity| Identity::new(&identity.tenant, &identity.site, &identity.device).is_some()));
}
