//! The plan of a demonstration, checked for any time of day against the rules by which a server
//! judges it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use telemetry::v1::{self, CycleIndicator, IndicatorKind, IndicatorResult, Outcome, Purpose, event::Kind};

use super::*;
use crate::{
    fleet::{Act, Device, Fate, Made, Step},
    store::Life,
};

/// 2026-05-28 00:00 UTC.
const MIDNIGHT: i64 = 20_601 * DAY_US;
const DEVICES: u32 = 25;

fn past(devices: u32, ended: i64) -> Arc<Plan> {
    Arc::new(Demo::ending(ended).past(Plan::new(devices, 1, 0)))
}

fn steps(plan: &Arc<Plan>, index: u32) -> Vec<Step> {
    Device::new(Arc::clone(plan), index, Life::default()).collect()
}

fn made(steps: &[Step]) -> impl Iterator<Item = &Made> {
    steps.iter().filter_map(|step| match &step.act {
        Act::Event(made) => Some(made),
        _ => None,
    })
}

fn injections(steps: &[Step]) -> impl Iterator<Item = (&Made, &v1::Injection)> {
    made(steps).filter_map(|made| match &made.kind {
        Some(Kind::Injection(injection)) => Some((made, injection)),
        _ => None,
    })
}

/// Ends of the past that might cut something in two: just after midnight, during the sterilizer's
/// work, during the sessions, and just before midnight.
fn ends() -> [i64; 6] {
    [1, 40, 65, 9 * 60, 15 * 60 + 7, 24 * 60 - 1].map(|minute| MIDNIGHT + minute * 60 * S)
}

#[test]
fn the_days_of_a_past_are_the_same_whenever_it_ends() {
    let whole: Vec<_> = (0..DEVICES).map(|index| steps(&past(DEVICES, MIDNIGHT + DAY_US - 1), index)).collect();
    for end in ends() {
        let plan = past(DEVICES, end);
        assert_eq!(plan.epoch_unix_us, MIDNIGHT - 28 * DAY_US);
        for (index, whole) in whole.iter().enumerate() {
            let steps = steps(&plan, index as u32);
            assert!(whole.starts_with(&steps), "device {index}");
            let last = plan.epoch_unix_us + steps.last().unwrap().at_us as i64;
            assert!(last <= end, "device {index} tells of the future");
            for made in made(&steps) {
                assert!(made.stamp.unix_us <= end && made.stamp.clock == v1::Clock::Synced);
            }
        }
    }
}

#[test]
fn a_past_is_large_enough_to_judge_and_small_enough_to_tell() {
    let plan = past(DEVICES, MIDNIGHT + DAY_US / 2);
    let all: Vec<_> = (0..DEVICES).map(|index| steps(&plan, index)).collect();
    let events: usize = all.iter().map(|steps| made(steps).count()).sum();
    assert!((25_000..60_000).contains(&events), "{events}");
    for index in (0..DEVICES).filter(|index| plan.role(*index) == Role::Injector) {
        let sessions: BTreeSet<_> =
            injections(&all[index as usize]).map(|(made, _)| &made.context.message.session_id).collect();
        assert!(sessions.len() >= 56, "device {index}: {} sessions", sessions.len());
    }
}

#[test]
fn only_the_planted_pen_leaves_its_tolerance() {
    let plan = past(DEVICES, MIDNIGHT + DAY_US / 2);
    for index in (0..DEVICES).filter(|index| plan.role(*index) == Role::Injector) {
        let (mut errors, mut occluded) = (BTreeMap::new(), 0);
        for (made, injection) in injections(&steps(&plan, index)) {
            occluded = if injection.outcome() == Outcome::Occluded { occluded + 1 } else { 0 };
            assert!(occluded < 2, "device {index} is clogged");
            if injection.outcome() != Outcome::Ok {
                continue;
            }
            let day = (made.stamp.unix_us - plan.epoch_unix_us) / DAY_US;
            let session = (day, made.context.message.session_id.clone());
            if let (Some(target), Some(delivered)) = (injection.target_nl, injection.delivered_nl) {
                let error = 100.0 * (delivered as f64 - target as f64) / target as f64;
                assert!(error.abs() < 10.0, "device {index}: {error} % is twice the tolerance");
                errors.entry(session).or_insert_with(Vec::new).push(error);
            }
            if let (Some(target), Some(measured)) = (injection.target_um, injection.measured_um) {
                let error_um = f64::from(measured) - f64::from(target);
                assert!(error_um.abs() < 150.0, "device {index}: {error_um} um are beyond the tolerance");
            }
        }
        for ((day, _), errors) in errors {
            let mean = errors.iter().sum::<f64>() / errors.len() as f64;
            let drifted = if index == Story::DoseDrift.device() { 100.0 * DRIFT } else { 0.0 };
            let most = 2.0 + drifted * ((day - DRIFT_DAY + 1) as f64 / (DAYS - DRIFT_DAY) as f64).clamp(0.0, 1.0);
            assert!(mean.abs() < most, "device {index}, day {day}: {mean} %");
            if index == Story::DoseDrift.device() && day >= DAYS - 2 {
                assert!(mean > 5.0, "day {day}: {mean} %");
            }
        }
    }
}

/// Sessions of each mounted item, by slot.
fn sessions_of_items(all: &[Vec<Step>], slot: v1::Slot) -> BTreeMap<String, BTreeSet<Vec<u8>>> {
    let mut sessions: BTreeMap<String, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for made in all.iter().flat_map(|steps| made(steps)) {
        if let Some(Kind::ConsumableMounted(mounted)) = &made.kind
            && mounted.slot() == slot
        {
            sessions.entry(mounted.item_id.clone()).or_default().insert(made.context.message.session_id.clone());
        }
    }
    sessions
}

#[test]
fn one_needle_is_used_in_two_sessions() {
    for end in ends() {
        let plan = past(DEVICES, end);
        let all: Vec<_> = (0..DEVICES).map(|index| steps(&plan, index)).collect();
        let needles = sessions_of_items(&all, v1::Slot::Needle);
        let reused: Vec<_> = needles.iter().filter(|(_, sessions)| sessions.len() > 1).collect();
        assert_eq!(reused.len(), 1, "{reused:?}");
        assert!(reused[0].0.contains("inj-0002"), "{reused:?}");
    }
}

#[test]
fn one_hand_piece_is_used_after_a_failed_cycle_and_every_other_is_sterile() {
    for end in ends() {
        let plan = past(DEVICES, end);
        let all: Vec<_> = (0..DEVICES).map(|index| steps(&plan, index)).collect();
        // Loads as (start, end, items), and the failed ones.
        let (mut loads, mut failed) = (Vec::new(), BTreeSet::new());
        for made in all.iter().flat_map(|steps| made(steps)) {
            match &made.kind {
                Some(Kind::SterilizationCycle(cycle)) if cycle.purpose() == Purpose::Load => {
                    let length_us = i64::from(cycle.samples.last().unwrap().offset_ms) * 1_000;
                    loads.push((made.stamp.unix_us, made.stamp.unix_us + length_us, cycle.clone()));
                }
                Some(Kind::CycleIndicator(indicator)) if indicator.result() == IndicatorResult::Positive => {
                    failed.insert(indicator.cycle_uid.clone());
                }
                _ => {}
            }
        }
        assert_eq!(failed.len(), 1, "{failed:?}");
        let (mut last_use, mut unsterile) = (BTreeMap::new(), Vec::new());
        for made in all.iter().flat_map(|steps| made(steps)) {
            let Some(Kind::ConsumableMounted(mounted)) = &made.kind else { continue };
            if mounted.reusable != Some(true) {
                continue;
            }
            let at = made.stamp.unix_us;
            let since = last_use.insert(mounted.item_id.clone(), at).unwrap_or(i64::MIN);
            let is_sterile = loads.iter().any(|(start, end, cycle)| {
                *start >= since
                    && *end <= at
                    && !failed.contains(&cycle.cycle_uid)
                    && cycle.items.iter().any(|item| item.item_id == mounted.item_id)
            });
            if !is_sterile {
                unsterile.push(mounted.item_id.clone());
            }
        }
        assert!(last_use.len() > 50, "{}", last_use.len());
        assert_eq!(unsterile.len(), 1, "{unsterile:?}");
        assert!(unsterile[0].contains("inj-0005"), "{unsterile:?}");
    }
}

/// Starts of a sterilizer's cycles in order, with their purposes and readings.
fn cycles(steps: &[Step]) -> Vec<(i64, Purpose, Vec<&CycleIndicator>)> {
    let mut cycles: Vec<(i64, &v1::SterilizationCycle, Vec<&CycleIndicator>)> = Vec::new();
    for made in made(steps) {
        match &made.kind {
            Some(Kind::SterilizationCycle(cycle)) => cycles.push((made.stamp.unix_us, cycle, Vec::new())),
            Some(Kind::CycleIndicator(indicator)) => {
                let cycle = cycles.iter_mut().find(|(_, cycle, _)| cycle.cycle_uid == indicator.cycle_uid).unwrap();
                cycle.2.push(indicator);
            }
            _ => {}
        }
    }
    cycles.into_iter().map(|(at, cycle, indicators)| (at, cycle.purpose(), indicators)).collect()
}

fn assert_tested(steps: &[Step]) {
    let is_negative = |indicators: &[&CycleIndicator], kind| {
        indicators.iter().any(|reading| reading.kind() == kind && reading.result() == IndicatorResult::Negative)
    };
    let (mut bowie_dick_day, mut biological_us) = (None, None);
    let cycles = cycles(steps);
    assert!(cycles.is_sorted_by_key(|(at, _, _)| *at));
    for (at, purpose, indicators) in cycles {
        if is_negative(&indicators, IndicatorKind::Biological) {
            biological_us = Some(at);
        }
        match purpose {
            Purpose::BowieDick => {
                assert!(is_negative(&indicators, IndicatorKind::BowieDick));
                bowie_dick_day = Some(at.div_euclid(DAY_US));
            }
            _ => {
                assert_eq!(bowie_dick_day, Some(at.div_euclid(DAY_US)), "a load without the test of its day");
                assert!(
                    biological_us.is_some_and(|tested| at - tested <= 7 * DAY_US),
                    "a load without its weekly test"
                );
            }
        }
    }
}

#[test]
fn the_tests_of_every_sterilizer_are_done_in_past_and_present() {
    for end in ends() {
        let plan = past(DEVICES, end);
        for index in (0..DEVICES).filter(|index| plan.role(*index) == Role::Sterilizer) {
            let mut device = Device::new(Arc::clone(&plan), index, Life::default());
            let told: Vec<_> = device.by_ref().collect();
            assert_tested(&told);
            // The present may follow after any pause.
            for pause in [20 * S, DAY_US, 30 * DAY_US] {
                let present = plan.demo.unwrap().present(Plan::clone(&plan), end + pause);
                let device = Device::new(Arc::new(present), index, device.life());
                let live: Vec<_> = device.take_while(|step| step.at_us < 20 * DAY_US as u64).collect();
                assert!(cycles(&live).len() >= 2 * 19, "a test and a load a day");
                assert_tested(&[told.as_slice(), &live].concat());
            }
        }
    }
}

#[test]
fn one_gap_stays_open() {
    for end in ends() {
        let plan = past(DEVICES, end);
        for index in 0..DEVICES {
            let steps = steps(&plan, index);
            let boots = steps.iter().filter(|step| matches!(step.act, Act::Boot { .. })).count();
            let missing: Vec<_> = made(&steps).filter(|made| made.fate == Fate::Missing).collect();
            assert_eq!(made(&steps).filter(|made| made.fate != Fate::Stored).count(), missing.len());
            if index != Story::Gap.device() {
                assert_eq!((boots, missing.len()), (1, 0), "device {index}");
                continue;
            }
            assert_eq!((boots, missing.len() as u64), (2, GAP_EVENTS));
            let shots = missing.iter().filter(|made| matches!(made.kind, Some(Kind::Injection(_)))).count();
            assert_eq!(shots, GAP_SHOTS as usize);
            assert!(matches!(missing.last().unwrap().kind, Some(Kind::SessionEnded(_))));
            // The syringe with missing shots has no balance.
            assert!(missing.iter().any(|made| matches!(&made.kind,
                Some(Kind::ConsumableRemoved(removed)) if removed.residual_nl.is_some())));
        }
    }
}

#[test]
fn one_device_is_offline_from_the_last_days_into_the_present() {
    let plan = past(DEVICES, MIDNIGHT + DAY_US / 2);
    let links = |steps: &[Step]| -> Vec<_> {
        let link = |step: &Step| match step.act {
            Act::Link { is_up } => Some((step.at_us as i64, is_up)),
            _ => None,
        };
        steps.iter().filter_map(link).collect()
    };
    for index in 0..DEVICES {
        let mut device = Device::new(Arc::clone(&plan), index, Life::default());
        let told: Vec<_> = device.by_ref().collect();
        let present = plan.demo.unwrap().present(Plan::clone(&plan), MIDNIGHT + DAY_US / 2);
        let live = Device::new(Arc::new(present), index, device.life());
        let live: Vec<_> = live.take_while(|step| step.at_us < 3_600_000_000).collect();
        if index != Story::Offline.device() {
            assert_eq!((links(&told), links(&live)), (Vec::new(), Vec::new()), "device {index}");
            continue;
        }
        let (told_links, live_links) = (links(&told), links(&live));
        assert!(told_links.len() == 1 && told_links[0].0 >= OFFLINE_DAY * DAY_US && !told_links[0].1, "{told_links:?}");
        assert!(live_links.len() == 1 && live_links[0].0 < 300 * S && live_links[0].1, "{live_links:?}");
        // No session is running when the network fails; otherwise a session would seem to have lost
        // it.
        let before = told.iter().take_while(|step| !matches!(step.act, Act::Link { .. }));
        let before: Vec<_> = before.cloned().collect();
        assert!(matches!(made(&before).last().unwrap().kind, Some(Kind::SessionEnded(_))));
        assert!(made(&told).count() - made(&before).count() > 100, "it has a backlog");
    }
}

#[test]
fn calibrations_are_due_on_different_days_after_more_than_a_month() {
    let plan = past(DEVICES, MIDNIGHT + DAY_US / 2);
    let mut due = BTreeMap::new();
    for index in (0..DEVICES).filter(|index| plan.role(*index) == Role::Bench) {
        for made in made(&steps(&plan, index)) {
            let Some(Kind::Calibration(calibration)) = &made.kind else { panic!("a bench calibrates") };
            let days = (calibration.due_unix_us.unwrap() - MIDNIGHT) / DAY_US;
            assert!((32..365).contains(&days), "{} is due in {days} days", calibration.subject_device);
            due.insert(calibration.subject_device.clone(), days);
        }
    }
    assert_eq!(due.len() as u32, plan.count(Role::Injector));
    assert_eq!(due.values().collect::<BTreeSet<_>>().len(), due.len(), "each on its own day");
}

#[test]
fn a_past_goes_on_behind_any_event() {
    let plan = past(DEVICES, MIDNIGHT + DAY_US / 2);
    for index in [0, Story::Gap.device(), 3, Story::Offline.device(), 7] {
        let whole = steps(&plan, index);
        let all: Vec<_> = made(&whole).cloned().collect();
        let online: Vec<_> = whole.iter().take_while(|step| !matches!(step.act, Act::Link { .. })).cloned().collect();
        let before_parting = made(&online).count();
        for place in [0, 1, 10, all.len() / 2, all.len() - 1] {
            let mut device = Device::new(Arc::clone(&plan), index, Life::default());
            let has_network = device.resume(all[place].boot_id, all[place].seq);
            assert_eq!(has_network, Some(place < before_parting), "device {index} behind event {place}");
            let rest: Vec<_> = device.by_ref().collect();
            assert!(made(&rest).eq(&all[place + 1..]), "device {index} behind event {place}");
        }
        let mut device = Device::new(Arc::clone(&plan), index, Life::default());
        assert_eq!(device.resume(plan.boot_id(index, 1), 0), Some(true), "booted and killed");
        assert!(made(&device.by_ref().collect::<Vec<_>>()).eq(&all));
        let life = device.life();
        let mut device = Device::new(Arc::clone(&plan), index, Life::default());
        assert_eq!(device.resume(plan.boot_id(index, 9), 4), None, "a boot of the present");
        assert_eq!((device.next(), device.life()), (None, life), "nothing of the past is left");
    }
}

/// Several presents may follow one past.
#[test]
fn the_present_repeats_nothing_and_plants_nothing_new() {
    let plan = past(DEVICES, MIDNIGHT + DAY_US / 2);
    let mut all = Vec::new();
    for index in 0..DEVICES {
        let mut device = Device::new(Arc::clone(&plan), index, Life::default());
        let mut told: Vec<_> = device.by_ref().collect();
        let mut life = device.life();
        for start in [20, 900, 7_200] {
            let unix_us = MIDNIGHT + DAY_US / 2 + start * S;
            let present = plan.demo.unwrap().present(Plan::clone(&plan), unix_us);
            let mut device = Device::new(Arc::new(present), index, life);
            let live: Vec<_> = device.by_ref().take_while(|step| step.at_us < 600_000_000).collect();
            assert!(made(&live).all(|made| made.fate == Fate::Stored && made.stamp.unix_us >= unix_us));
            life = device.life();
            told.extend(live);
        }
        all.push(told);
    }
    let reused = |slot| sessions_of_items(&all, slot).into_values().filter(|sessions| sessions.len() > 1).count();
    assert_eq!(reused(v1::Slot::Needle), 1, "that of the story");
    let presents = sessions_of_items(&all, v1::Slot::Handpiece).into_iter().filter(|(item, _)| item.starts_with("hs-"));
    assert!(presents.map(|(_, sessions)| sessions.len()).all(|sessions| sessions == 1));
    let boots = all.iter().flatten().filter_map(|step| match step.act {
        Act::Boot { boot_id } => Some(boot_id),
        _ => None,
    });
    let mut seen = BTreeSet::new();
    assert!(boots.into_iter().all(|boot_id| seen.insert(boot_id)), "no boot twice");
    // The bias of a device and the drift of the pen are those of the past.
    for (index, steps) in all.iter().enumerate().filter(|(index, _)| plan.role(*index as u32) == Role::Injector) {
        let error = |is_live: bool| {
            let shots = injections(steps).filter(|(made, shot)| {
                (made.stamp.unix_us > MIDNIGHT + DAY_US / 2) == is_live
                    && made.stamp.unix_us > MIDNIGHT - DAY_US
                    && shot.outcome() == Outcome::Ok
            });
            let sums = shots.filter_map(|(_, shot)| Some((shot.delivered_nl? as i64, shot.target_nl? as i64)));
            let (delivered, target) = sums.fold((0, 0), |sum, shot| (sum.0 + shot.0, sum.1 + shot.1));
            if target == 0 { 0.0 } else { 100.0 * (delivered - target) as f64 / target as f64 }
        };
        assert!((error(true) - error(false)).abs() < 1.0, "device {index}: {} {}", error(true), error(false));
    }
}

#[test]
fn a_small_fleet_has_the_stories_it_has_devices_for() {
    let count = |devices| Story::of(&past(devices, MIDNIGHT)).count();
    assert_eq!([1, 2, 3, 4, 5, 6, 25, 1_000].map(count), [1, 2, 3, 3, 4, 5, 5, 5]);
    assert_eq!(Story::of(&Plan::new(25, 1, MIDNIGHT)).count(), 0, "an ordinary fleet has none");
    for devices in 1..=6 {
        let plan = past(devices, MIDNIGHT + DAY_US / 2);
        for story in Story::of(&plan) {
            assert!(story.tell(&plan).to_string().starts_with(&plan.identity(story.device()).device));
        }
        let all: Vec<_> = (0..devices).map(|index| steps(&plan, index)).collect();
        let is_positive = |made: &&Made| matches!(&made.kind, Some(Kind::CycleIndicator(reading)) if reading.result() == IndicatorResult::Positive);
        let failed = all.iter().flat_map(|steps| made(steps)).filter(is_positive).count();
        assert_eq!(failed, usize::from(devices > Story::FailedCycle.device()));
    }
}
