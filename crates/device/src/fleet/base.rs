//! The common part of every simulated device: boots, sequence, clock, context, heartbeats and the
//! faults of its scenarios.

use std::{collections::VecDeque, sync::Arc};

use prost::Message as _;
use telemetry::{
    reject::Reason,
    v1::{self, Clock, event::Kind},
};

use super::{Act, Context, Fate, Made, Plan, Poison, Scenario, Step, demo, noise::Noise, schedule};
use crate::store::{Life, Stamp};

const S: i64 = 1_000_000;
/// Interval of heartbeats, us.
const HEARTBEAT_US: i64 = 300 * S;
/// The same in the past of a demonstration, where only the latest heartbeat matters.
const HEARTBEAT_PAST_US: i64 = 6 * 3_600 * S;

/// Times of the next faults, us; `i64::MAX` means never.
struct Mishaps {
    link_us: i64,
    is_up: bool,
    reboot_us: i64,
    clock_us: i64,
    poison_us: i64,
    poisons: u64,
}

pub(super) struct Base {
    pub plan: Arc<Plan>,
    pub index: u32,
    /// Id of the device.
    pub name: String,
    /// Number of boots before this run; it makes the ids of different runs differ.
    pub life: u32,
    pub noise: Noise,
    pub injection_no: u64,
    context: Arc<Context>,
    counter: u32,
    boot_id: u64,
    seq: u64,
    booted_us: i64,
    clock: Clock,
    clock_offset_us: i64,
    at_us: i64,
    heartbeat_us: i64,
    mishaps: Mishaps,
    /// Number of the next events that are lost or go missing.
    doomed: Option<(Fate, u64)>,
    /// The steps of the device are complete.
    pub is_over: bool,
    /// The next event must still report something about the steps so far.
    is_unsettled: bool,
    queue: VecDeque<Step>,
}

impl Base {
    pub(super) fn new(plan: Arc<Plan>, index: u32, life: Life) -> Self {
        let mut noise = Noise::new(plan.seed, index, life.boots);
        let session = schedule::session_us(&plan);
        let mut after = |scenario, from: i64, to: i64| match plan.affects(scenario, index) {
            true => noise.between((from * session) as u64, (to * session) as u64) as i64,
            false => i64::MAX,
        };
        let mishaps = Mishaps {
            link_us: demo::link_us(&plan, index).unwrap_or_else(|| after(Scenario::Offline, 1, 3)),
            is_up: demo::is_past(&plan) || demo::link_us(&plan, index).is_none(),
            reboot_us: after(Scenario::Reboot, 1, 3),
            clock_us: after(Scenario::ClockSkew, 0, 1),
            poison_us: after(Scenario::Poison, 0, 1),
            poisons: 0,
        };
        let message = v1::Context {
            model: plan.model(index).to_owned(),
            firmware: plan.firmware(index).to_owned(),
            ..v1::Context::default()
        };
        let mut base = Self {
            name: plan.identity(index).device,
            index,
            life: life.boots,
            injection_no: life.injection_no,
            context: share(message),
            counter: life.boots,
            boot_id: 0,
            seq: 0,
            // Early enough for everything that a sterilizer reports of the time before the epoch.
            booted_us: -2 * schedule::slot_us(&plan) - 3_600 * S,
            clock: Clock::Synced,
            clock_offset_us: 0,
            at_us: 0,
            heartbeat_us: noise.between(1, (HEARTBEAT_US / 4) as u64) as i64,
            noise,
            mishaps,
            doomed: None,
            is_over: false,
            is_unsettled: false,
            queue: VecDeque::new(),
            plan,
        };
        base.boot();
        base
    }

    pub(super) fn pop(&mut self) -> Option<Step> {
        let step = self.queue.pop_front()?;
        match &step.act {
            Act::Boot { .. } => self.is_unsettled = true,
            Act::Event(made) => self.is_unsettled = matches!(made.fate, Fate::Lost | Fate::Missing),
            _ => {}
        }
        Some(step)
    }

    /// See [`super::Device::is_unsettled`].
    pub(super) fn is_unsettled(&self) -> bool {
        self.is_unsettled
    }

    /// The state that the next run continues from.
    pub(super) fn life(&self) -> Life {
        Life { boots: self.counter, injection_no: self.injection_no }
    }

    /// Moves the time on without an event.
    pub(super) fn idle(&mut self, at_us: i64) {
        self.pass(at_us);
    }

    /// The next events are never kept. The boot after them reports their number.
    pub(super) fn lose_power(&mut self, events: u64) {
        self.doomed = Some((Fate::Missing, events));
    }

    /// Whether the next event is not kept.
    pub(super) fn is_doomed(&self) -> bool {
        self.doomed.is_some()
    }

    pub(super) fn change_context(&mut self, change: impl FnOnce(&mut v1::Context)) {
        let mut message = self.context.message.clone();
        change(&mut message);
        self.context = share(message);
    }

    /// Simulated time as true wall clock, us since 1970.
    pub(super) fn unix_us(&self, at_us: i64) -> i64 {
        self.plan.epoch_unix_us + at_us
    }

    /// An event at a time. It is reported at that time or now, whichever is later.
    pub(super) fn event(&mut self, at_us: i64, kind: Kind) {
        self.make(at_us, at_us, Some(kind), Fate::Stored);
    }

    /// An event that is reported later than it happened.
    pub(super) fn event_told(&mut self, told_us: i64, at_us: i64, kind: Kind) {
        self.make(told_us, at_us, Some(kind), Fate::Stored);
    }

    /// An event that must be quarantined; `kind` is `None` for a kind that no server knows.
    pub(super) fn bad_event(&mut self, at_us: i64, kind: Option<Kind>, reason: Reason) {
        self.make(at_us, at_us, kind, Fate::Quarantined(reason));
    }

    /// An event at a time out of every calendar: the clock is not believed, and the event is
    /// stored.
    pub(super) fn event_out_of_time(&mut self, at_us: i64, kind: Kind) {
        // A heartbeat or a clock step before the event has the time of before.
        self.pass(at_us);
        if self.clock == Clock::Synced {
            let offset_us = std::mem::replace(&mut self.clock_offset_us, 4_200_000_000 * S);
            self.make(at_us, at_us, Some(kind), Fate::Stored);
            self.clock_offset_us = offset_us;
        } else {
            self.event(at_us, kind);
        }
    }

    fn make(&mut self, told_us: i64, at_us: i64, kind: Option<Kind>, fate: Fate) {
        self.pass(told_us);
        let fate = self.doom(fate);
        self.seq += 1;
        let made = Made {
            boot_id: self.boot_id,
            seq: self.seq,
            stamp: self.stamp(at_us),
            context: Arc::clone(&self.context),
            kind,
            fate,
        };
        self.push(Act::Event(made));
        if fate == Fate::Missing && self.doomed.is_none() {
            self.boot();
        }
    }

    /// The end of the next event: that of the fault that it falls into.
    fn doom(&mut self, fate: Fate) -> Fate {
        let Some((doom, left)) = self.doomed.take() else { return fate };
        if left > 1 {
            self.doomed = Some((doom, left - 1));
        }
        doom
    }

    /// Moves the time on to `at_us`, and lets everything due before it happen.
    fn pass(&mut self, at_us: i64) {
        while self.heartbeat_us <= at_us {
            self.at_us = self.at_us.max(self.heartbeat_us);
            self.heartbeat();
            self.heartbeat_us += if demo::is_past(&self.plan) { HEARTBEAT_PAST_US } else { HEARTBEAT_US };
        }
        self.at_us = self.at_us.max(at_us);
        let session = schedule::session_us(&self.plan);
        if self.mishaps.link_us <= at_us {
            self.mishaps.is_up ^= true;
            let is_up = self.mishaps.is_up;
            self.push(Act::Link { is_up });
            let longest = if is_up { 3 * session } else { 5 * session };
            self.mishaps.link_us = match self.plan.demo {
                Some(_) => i64::MAX,
                None => at_us + self.noise.between(session as u64, longest as u64) as i64,
            };
        }
        if self.mishaps.clock_us <= at_us {
            self.step_clock();
            self.mishaps.clock_us = at_us + self.noise.between(session as u64, 4 * session as u64) as i64;
        }
        if self.mishaps.reboot_us <= at_us && self.doomed.is_none() {
            match self.noise.between(0, 10) {
                0..4 => self.doomed = Some((Fate::Missing, self.noise.between(1, 6))),
                4..7 => self.doomed = Some((Fate::Lost, self.noise.between(1, 5))),
                _ => self.boot(),
            }
            self.mishaps.reboot_us = at_us + self.noise.between(session as u64, 4 * session as u64) as i64;
        }
        if self.mishaps.poison_us <= at_us {
            let poison = Poison::new(&self.plan, self.index, self.mishaps.poisons);
            self.mishaps.poisons += 1;
            self.push(Act::Poison(poison));
            self.mishaps.poison_us = at_us + self.noise.between(session as u64 / 8, session as u64 / 3) as i64;
        }
    }

    fn boot(&mut self) {
        self.counter += 1;
        self.boot_id = self.plan.boot_id(self.index, self.counter);
        self.seq = 0;
        if self.counter > self.life + 1 {
            self.booted_us = self.at_us;
        }
        let boot_id = self.boot_id;
        self.push(Act::Boot { boot_id });
    }

    fn heartbeat(&mut self) {
        let heartbeat = v1::Heartbeat {
            battery_pct: Some(self.noise.between(30, 101) as u32),
            temperature_mc: Some(self.noise.between(21_000, 36_000) as i32),
            injection_no: Some(self.injection_no).filter(|number| *number > 0),
            boot_id: Some(self.boot_id),
            last_seq: Some(self.seq),
            ..v1::Heartbeat::default()
        };
        let (stamp, context) = (self.stamp(self.at_us), Arc::clone(&self.context));
        self.push(Act::Heartbeat { stamp, context, heartbeat });
    }

    fn step_clock(&mut self) {
        let day = 86_400 * S;
        (self.clock, self.clock_offset_us) = match self.noise.between(0, 4) {
            // A correction of a clock that is synchronised.
            0 => (Clock::Synced, self.noise.between(0, 400_000) as i64 - 200_000),
            1 => (Clock::Unsynced, -(self.noise.between(1, 400) as i64) * day),
            2 => (Clock::Unsynced, self.noise.between(1, 400) as i64 * day),
            _ => (Clock::Unknown, i64::MIN),
        };
    }

    fn stamp(&self, at_us: i64) -> Stamp {
        let unix_us = match self.clock_offset_us {
            i64::MIN => 0,
            offset_us => self.unix_us(at_us).saturating_add(offset_us),
        };
        Stamp { uptime_us: (at_us - self.booted_us).max(0) as u64, unix_us, clock: self.clock }
    }

    fn push(&mut self, act: Act) {
        self.queue.push_back(Step { at_us: self.at_us.max(0) as u64, act });
    }
}

fn share(message: v1::Context) -> Arc<Context> {
    let encoded = message.encode_to_vec().into();
    Arc::new(Context { message, encoded })
}
