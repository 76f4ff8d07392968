//! Facts that the devices of a block share without communication: functions of the simulated time.

use super::{Plan, Scenario, demo};

const S: i64 = 1_000_000;

/// Typical length of a session with its pause, us.
pub(super) fn session_us(plan: &Plan) -> i64 {
    60 * S + plan.pause.as_micros() as i64
}

/// Hand-pieces rotate in slots of this length, us: used in one slot, sterilized in the next, stored
/// in the third.
pub(super) fn slot_us(plan: &Plan) -> i64 {
    match plan.demo {
        Some(_) => demo::DAY_US,
        None => (1_800 * S).max(4 * plan.pause.as_micros() as i64),
    }
}

/// Number of a device's reusable hand-pieces in one slot. Further sessions of the slot use
/// single-use ones.
pub(super) fn handpieces(plan: &Plan) -> u64 {
    match plan.demo {
        Some(demo) if demo.is_past => demo::HANDPIECES,
        // Several presents may follow one past. A hand-piece used by one of them would lack a cycle
        // in the next.
        Some(_) => 0,
        None => 16,
    }
}

/// A reusable hand-piece. Each epoch has its own: a hand-piece used by an earlier run would lack a
/// cycle since then.
pub(super) fn handpiece(plan: &Plan, device: &str, slot: i64, number: u64) -> String {
    format!("hp-{device}-{}-{}-{number}", plan.epoch_unix_us / S, slot.rem_euclid(3))
}

/// The pack of the hand-pieces that are used in a slot. It was sterilized one slot before, two
/// slots after their last use.
pub(super) fn pack(plan: &Plan, device: &str, used_in_slot: i64) -> String {
    format!("pk-{device}-{}-{used_in_slot}", plan.epoch_unix_us / S)
}

/// Time between two calibrations of a device, us.
pub(super) fn calibration_us(plan: &Plan) -> i64 {
    (6 * 3_600 * S).max(300 * session_us(plan))
}

/// Time of the calibration with a number; number 0 is at the beginning.
pub(super) fn calibrated_us(plan: &Plan, index: u32, number: i64) -> i64 {
    let place = i64::from(index % super::BLOCK);
    number * calibration_us(plan) + if number == 0 { place * 3 * S / 2 } else { place * 60 * S }
}

/// Number of the calibration in force.
pub(super) fn calibration_at(plan: &Plan, index: u32, at_us: i64) -> i64 {
    if plan.demo.is_some() {
        return 0;
    }
    let number = at_us / calibration_us(plan);
    if calibrated_us(plan, index, number) > at_us { (number - 1).max(0) } else { number }
}

/// Id of a calibration; `channel` is `dose` or `depth`.
pub(super) fn calibration_id(plan: &Plan, index: u32, channel: &str, number: i64) -> String {
    let epoch_unix_us = plan.demo.map_or(plan.epoch_unix_us, |demo| demo.began_unix_us);
    let second = (epoch_unix_us + calibrated_us(plan, index, number)) / S;
    format!("cal-{channel}-{}-{second}", plan.identity(index).device)
}

/// Drift as a fraction, of a device that a scenario affects. It is zero for the first fifth of the
/// time between two calibrations, then rises linearly to 12 % (dose) or 15 % (depth).
pub(super) fn drift(plan: &Plan, index: u32, scenario: Scenario, at_us: i64) -> f64 {
    if !plan.affects(scenario, index) {
        return 0.0;
    }
    let most = if scenario == Scenario::DoseDrift { 0.12 } else { 0.15 };
    let since = at_us - calibrated_us(plan, index, calibration_at(plan, index, at_us));
    let fraction = since as f64 / calibration_us(plan) as f64;
    most * ((fraction - 0.2) / 0.8).clamp(0.0, 1.0)
}
