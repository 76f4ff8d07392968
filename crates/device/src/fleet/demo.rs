//! The fleet of a demonstration: four weeks of a mostly healthy past with a few planted stories,
//! then the present.
//!
//! The past begins at a midnight (UTC) and ends at a given time. Its days do not depend on that
//! time: a later end only adds to the last day. The present is an ordinary fleet at the pace of a
//! clinic. Past and present share the calibrations, the bias of each device and the pen that has
//! drifted.

use std::fmt;

use super::{Plan, Role};

const S: i64 = 1_000_000;
/// Length of a day, us.
pub(super) const DAY_US: i64 = 86_400 * S;
/// Whole days of the past. The day on which the past ends is added to them.
const DAYS: i64 = 28;

/// Sessions of an injection device on each day of the past: earliest and latest begin, us after
/// midnight.
const SESSIONS: [(i64, i64); 2] = [(8 * 3_600 * S, 12 * 3_600 * S), (13 * 3_600 * S, 17 * 3_600 * S)];
/// Longest session of the past, us.
const SESSION_US_MAX: i64 = 1_200 * S;
/// A sterilizer has finished this long after the beginning of its day, us.
pub(super) const STERILIZER_US_MAX: i64 = 3 * 3_600 * S;
/// Reusable hand-pieces that a device uses on a day: one for each session.
pub(super) const HANDPIECES: u64 = SESSIONS.len() as u64;

/// Day on which the second session uses the needle of the first again.
const REUSE_DAY: i64 = 24;
/// Day on which the power fails at the end of the second session.
const GAP_DAY: i64 = 25;
/// Day on which the cycle fails. Its hand-piece was used on the day before, and is used again two
/// days later.
const FAILED_DAY: i64 = 22;
/// First day without network for one device, until some time into the present.
const OFFLINE_DAY: i64 = 26;
/// Time of the present that the device spends without network, us.
const OFFLINE_PRESENT_US: i64 = 60 * S;
/// Last day on which the drifting pen is exact.
const DRIFT_DAY: i64 = 7;
/// Its deviation at the end of the past: beyond a tolerance of 5 %, but no single shot beyond twice
/// that.
const DRIFT: f64 = 0.065;

/// Shots of a session, few enough for one needle.
pub(super) const SHOTS: (u64, u64) = (14, 23);
/// Number of last shots that are never written in the session with the power failure.
pub(super) const GAP_SHOTS: u32 = 3;
/// Events of that session that are never written: those shots, the removal of needle, syringe and
/// hand-piece, and the end. The syringe's removal is among them, because its balance would be wrong
/// without the shots.
pub(super) const GAP_EVENTS: u64 = GAP_SHOTS as u64 + 4;
/// Scatter of the dose and of the depth within a session, as fractions of the target.
pub(super) const SCATTER: (f64, f64) = (0.01, 0.006);
/// Largest deviation of a session from the device's bias, for dose and depth, as fractions.
pub(super) const DEVIATION: (f64, f64) = (0.008, 0.005);

/// Begin and end of a demonstration's past, and which half a plan describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demo {
    /// Midnight, UTC, at which the past begins, us since 1970.
    pub began_unix_us: i64,
    /// End of the past, us since 1970.
    pub ended_unix_us: i64,
    /// Whether the plan is of the past; otherwise it is of the present after it.
    pub is_past: bool,
}

impl Demo {
    /// The past that ends at `unix_us`, us since 1970.
    pub fn ending(unix_us: i64) -> Self {
        let began_unix_us = (unix_us.div_euclid(DAY_US) - DAYS) * DAY_US;
        Self { began_unix_us, ended_unix_us: unix_us, is_past: true }
    }

    /// A present without a past. Its only story is the drift, which takes the next four weeks.
    pub fn beginning(unix_us: i64) -> Self {
        Self { began_unix_us: unix_us, ended_unix_us: unix_us, is_past: false }
    }

    /// The fleet of the past.
    pub fn past(self, plan: Plan) -> Plan {
        Plan { epoch_unix_us: self.began_unix_us, demo: Some(Self { is_past: true, ..self }), ..plan }
    }

    /// The fleet of the present from `unix_us` on, us since 1970.
    pub fn present(self, plan: Plan, unix_us: i64) -> Plan {
        Plan { epoch_unix_us: unix_us, demo: Some(Self { is_past: false, ..self }), ..plan }
    }

    /// Earliest and latest begin of a session of the past, counted from 0, us after the epoch.
    pub(super) fn session_us(self, number: u64) -> Option<(i64, i64)> {
        let number = i64::try_from(number).ok()?;
        let count = SESSIONS.len() as i64;
        let day_us = number.div_euclid(count) * DAY_US;
        let (from_us, to_us) = SESSIONS.get(usize::try_from(number.rem_euclid(count)).ok()?)?;
        Some((day_us + from_us, day_us + to_us))
    }

    /// Whether something of `length_us` that begins at `at_us`, us after the epoch, ends within the
    /// past.
    fn holds(self, at_us: i64, length_us: i64) -> bool {
        self.began_unix_us + at_us + length_us <= self.ended_unix_us
    }
}

/// Whether a plan is of a demonstration's past.
pub(super) fn is_past(plan: &Plan) -> bool {
    plan.demo.is_some_and(|demo| demo.is_past)
}

/// Whether a plan is of a demonstration's present.
pub(super) fn is_present(plan: &Plan) -> bool {
    plan.demo.is_some_and(|demo| !demo.is_past)
}

/// Whether a session that begins at a time, us after the epoch, ends before the past does.
pub(super) fn holds_session(plan: &Plan, at_us: i64) -> bool {
    plan.demo.is_none_or(|demo| demo.holds(at_us, SESSION_US_MAX))
}

/// The same for a day of a sterilizer.
pub(super) fn holds_sterilizer(plan: &Plan, begin_us: i64) -> bool {
    plan.demo.is_none_or(|demo| !demo.is_past || demo.holds(begin_us, STERILIZER_US_MAX))
}

/// A planted story, which the dashboard and the alerts show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Story {
    /// A pen's dose drifts out of tolerance.
    DoseDrift,
    /// A needle is used in two sessions.
    NeedleReuse,
    /// Events that were never kept leave a gap that stays open.
    Gap,
    /// A hand-piece is used after a failed cycle.
    FailedCycle,
    /// A device was offline and then delivers its backlog.
    Offline,
}

impl Story {
    /// All stories, in the order in which they are listed.
    pub const ALL: [Self; 5] = [Self::DoseDrift, Self::NeedleReuse, Self::Gap, Self::FailedCycle, Self::Offline];

    /// Number of the device of the story; a fleet without that device lacks the story. The
    /// sterilizer of the failed cycle has a smaller number than the device that uses its load.
    pub const fn device(self) -> u32 {
        match self {
            Self::DoseDrift => 0,
            Self::NeedleReuse => 1,
            Self::Gap => 2,
            Self::FailedCycle => 4,
            Self::Offline => 5,
        }
    }

    /// The stories of a plan; empty without a demonstration.
    pub fn of(plan: &Plan) -> impl Iterator<Item = Self> {
        let (devices, is_demo) = (plan.devices, plan.demo.is_some());
        Self::ALL.into_iter().filter(move |story| is_demo && story.device() < devices)
    }

    /// Whether a device has the story.
    pub(super) fn is_of(self, plan: &Plan, index: u32) -> bool {
        plan.demo.is_some() && self.device() == index
    }

    /// The story in a few words.
    pub fn tell(self, plan: &Plan) -> Telling<'_> {
        Telling { story: self, plan }
    }
}

/// Formats a story for people.
pub struct Telling<'a> {
    story: Story,
    plan: &'a Plan,
}

impl fmt::Display for Telling<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = self.plan.identity(self.story.device()).device;
        let before = |day: i64| format!("{} days before the first start", DAYS - day);
        match self.story {
            Story::DoseDrift => write!(
                f,
                "{device} drifts: its dose rose over three weeks and is now {:.1} % too high, where 5 % are allowed. Expect \
                 three alerts: a drift chart has signalled, a forecast, a failed verdict.",
                100.0 * DRIFT
            ),
            Story::NeedleReuse => write!(
                f,
                "{device} used one needle in two sessions, {}. Expect a critical alert about that needle.",
                before(REUSE_DAY)
            ),
            Story::Gap => write!(
                f,
                "{device} lost its power at the end of a session, {}. It never wrote the last {GAP_EVENTS} events, and its \
                 next boot said so. Expect a gap that stays open, and after five minutes an alert of low severity.",
                before(GAP_DAY)
            ),
            Story::FailedCycle => write!(
                f,
                "{device} used a hand-piece from a sterilization cycle that had failed and was released by mistake. The cycle \
                 ran {}, the session followed two days later. Expect two critical alerts: the cycle and the use.",
                before(FAILED_DAY)
            ),
            Story::Offline => write!(
                f,
                "{device} had no network for the last days before the first start. It finds its network a minute after the \
                 fleet has gone live and delivers its backlog. Expect late data and no alert."
            ),
        }
    }
}

/// Whether a session uses the needle of the session before it.
pub(super) fn reuses_needle(plan: &Plan, index: u32, session: u64) -> bool {
    is_past(plan) && Story::NeedleReuse.is_of(plan, index) && is_second_of(session, REUSE_DAY)
}

/// Whether the power fails at the end of the session.
pub(super) fn loses_power(plan: &Plan, index: u32, session: u64) -> bool {
    is_past(plan) && Story::Gap.is_of(plan, index) && is_second_of(session, GAP_DAY)
}

/// Whether the session, counted from 0, is the second of a day.
fn is_second_of(session: u64, day: i64) -> bool {
    i64::try_from(session) == Ok(day * SESSIONS.len() as i64 + 1)
}

/// Device and number of the hand-piece that has a cycle of its own on a day; that cycle fails.
pub(super) fn failing(plan: &Plan, sterilizer: u32, day: i64) -> Option<(u32, u64)> {
    let device = Story::FailedCycle.device();
    let is_planted = is_past(plan) && device < plan.devices && device / super::BLOCK == sterilizer / super::BLOCK;
    (is_planted && day == FAILED_DAY).then_some((device, 0))
}

/// Time at which a device loses or finds its network, us after the epoch.
pub(super) fn link_us(plan: &Plan, index: u32) -> Option<i64> {
    let is_planted = Story::Offline.is_of(plan, index);
    is_planted.then_some(if is_past(plan) { OFFLINE_DAY * DAY_US } else { OFFLINE_PRESENT_US })
}

/// Deviation of a device's dose at a time, us after the epoch, as a fraction.
pub(super) fn drift(plan: &Plan, index: u32, at_us: i64) -> f64 {
    let Some(demo) = plan.demo.filter(|_| Story::DoseDrift.is_of(plan, index)) else { return 0.0 };
    let days = (plan.epoch_unix_us + at_us - demo.began_unix_us) as f64 / DAY_US as f64;
    let from = DRIFT_DAY as f64;
    DRIFT * ((days - from) / (DAYS as f64 - from)).clamp(0.0, 1.0)
}

/// When a device was calibrated and when it is due again, us since 1970. The calibration is long
/// before the past, the due date months after it, on a different day for each device.
pub(super) fn calibration(demo: Demo, ordinal: u32) -> (i64, i64) {
    let performed_us = demo.began_unix_us - (10 + i64::from(ordinal) * 23 % 240) * DAY_US;
    (performed_us, performed_us + 365 * DAY_US)
}

/// The time at which a step of a device is due, us of simulated time. In the past, sterilizers and
/// benches run increasingly ahead of the other devices. A sterilized item thus arrives before its
/// use, however unevenly receipts come.
pub(crate) fn turn_us(plan: &Plan, index: u32, at_us: u64) -> u64 {
    let is_ahead = is_past(plan) && plan.role(index) != Role::Injector;
    if is_ahead { at_us / 2 } else { at_us }
}

#[cfg(test)]
mod tests;
