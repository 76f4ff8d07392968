//! The devices of a simulated fleet, and the order of their steps.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{SharedTruth, Summary};
use crate::{
    error::Error,
    fleet::{Act, Device, Fate, LOST_REASON, Plan, Step, turn_us},
    gateway::{Command, Counters, Gateway, Profile},
    store::Life,
    truth::Subject,
};

/// The next step of a device, already taken from its iterator.
struct Upcoming {
    step: Step,
    /// Whether the steps before it were incomplete.
    was_unsettled: bool,
}

struct Member {
    device: Device,
    number: usize,
    subject: Subject,
    upcoming: Option<Upcoming>,
    boot_id: u64,
    is_up: bool,
    /// The state from earlier runs, if the past is already over.
    life: Option<Life>,
}

impl Member {
    fn take(&mut self) -> Option<Upcoming> {
        let was_unsettled = self.device.is_unsettled();
        let next = self.device.next().map(|step| Upcoming { step, was_unsettled });
        std::mem::replace(&mut self.upcoming, next)
    }
}

pub(super) struct Fleet {
    pub plan: Arc<Plan>,
    members: Vec<Member>,
    /// The time of each member's next step.
    pub order: BinaryHeap<Reverse<(u64, usize)>>,
    truth: SharedTruth,
    pub now_us: Arc<AtomicU64>,
    pub events: u64,
    missing: u64,
    poison: u64,
}

impl Fleet {
    pub(super) fn new(
        plan: &Arc<Plan>,
        profiles: &[Profile],
        gateway: &Gateway,
        truth: SharedTruth,
    ) -> Result<Self, Error> {
        let (mut members, order) = (Vec::with_capacity(profiles.len()), BinaryHeap::new());
        for (index, profile) in profiles.iter().enumerate() {
            let identity = profile.identity.as_ref().ok_or(Error::UnknownDevice(index))?;
            let number = gateway.number(identity).ok_or(Error::UnknownDevice(index))?;
            let subject = Subject::new(identity, profile.form);
            let life = gateway.life(number)?;
            // A past is one run, which begins at its start.
            let device =
                Device::new(Arc::clone(plan), index as u32, if plan.is_past() { Life::default() } else { life });
            let (upcoming, boot_id) = (None, 0);
            let mut member = Member { device, number, subject, upcoming, boot_id, is_up: true, life: None };
            if plan.is_past() {
                let is_within = match gateway.reached(number)? {
                    Some((boot_id, seq)) => {
                        member.boot_id = boot_id;
                        let has_network = member.device.resume(boot_id, seq);
                        member.is_up = has_network.unwrap_or(true);
                        has_network.is_some()
                    }
                    None => plan.devices > index as u32,
                };
                member.life = (!is_within).then_some(life);
            }
            if member.life.is_none() {
                member.take();
            }
            members.push(member);
        }
        let (plan, now_us) = (Arc::clone(plan), Arc::new(AtomicU64::new(0)));
        let mut fleet = Self { plan, members, order, truth, now_us, events: 0, missing: 0, poison: 0 };
        (0..fleet.members.len()).for_each(|index| fleet.enqueue(index));
        Ok(fleet)
    }

    /// Stores the next step of a member by its time.
    fn enqueue(&mut self, index: usize) {
        let next = self.members[index].upcoming.as_ref();
        let turn = next.map(|next| turn_us(&self.plan, index as u32, next.step.at_us));
        self.order.extend(turn.map(|turn_us| Reverse((turn_us, index))));
    }

    /// Begins the present after the past of a demonstration, at a time in us since 1970. A device
    /// that had no network still has none.
    pub(super) fn go_live(&mut self, now_us: i64) {
        let Some(demo) = self.plan.demo else { return };
        let plan = Plan { devices: self.members.len() as u32, ..Plan::clone(&self.plan) };
        self.plan = Arc::new(demo.present(plan, now_us));
        self.order.clear();
        for (index, member) in self.members.iter_mut().enumerate() {
            let life = member.life.unwrap_or_else(|| member.device.life());
            member.device = Device::new(Arc::clone(&self.plan), index as u32, life);
            member.upcoming = None;
            member.take();
        }
        (0..self.members.len()).for_each(|index| self.enqueue(index));
    }

    /// Whether a device loses its network next.
    pub(super) fn is_parting(&self) -> bool {
        let next = self.order.peek().and_then(|Reverse((_, index))| self.members[*index].upcoming.as_ref());
        next.is_some_and(|next| next.step.act == Act::Link { is_up: false })
    }

    /// Takes the network from the devices that had none when an earlier run was interrupted in the
    /// past.
    pub(super) fn part_again(&self) -> Vec<Command> {
        let offline = self.members.iter().filter(|member| !member.is_up);
        offline.map(|member| Command::Link { device: member.number, is_up: false }).collect()
    }

    /// Time of the next step, us.
    pub(super) fn next_us(&self) -> u64 {
        self.order.peek().map_or(u64::MAX, |Reverse((at_us, _))| *at_us)
    }

    /// Takes the earliest step and appends its commands.
    pub(super) fn step(&mut self, batch: &mut Vec<Command>) -> Result<(), Error> {
        let Some(Reverse((at_us, index))) = self.order.pop() else { return Ok(()) };
        self.now_us.store(at_us, Ordering::Relaxed);
        if let Some(upcoming) = self.members[index].take() {
            self.perform(index, upcoming.step, batch)?;
        }
        self.enqueue(index);
        Ok(())
    }

    /// Ends cleanly: devices report whatever is still open, and all have their network again.
    pub(super) fn settle(&mut self, batch: &mut Vec<Command>) -> Result<(), Error> {
        for index in 0..self.members.len() {
            while self.members[index].upcoming.as_ref().is_some_and(|next| next.was_unsettled) {
                if let Some(upcoming) = self.members[index].take() {
                    self.perform(index, upcoming.step, batch)?;
                }
            }
            let member = &mut self.members[index];
            if !member.is_up {
                member.is_up = true;
                batch.push(Command::Link { device: member.number, is_up: true });
            }
        }
        self.truth_flush()
    }

    fn perform(&mut self, index: usize, step: Step, batch: &mut Vec<Command>) -> Result<(), Error> {
        let member = &mut self.members[index];
        if let Act::Boot { boot_id } = &step.act {
            member.boot_id = *boot_id;
        }
        if let Some(truth) = self.truth.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            truth.step(&mut member.subject, &step, member.boot_id)?;
        }
        let device = member.number;
        batch.push(match step.act {
            Act::Boot { boot_id } => Command::Boot { device, boot_id },
            Act::Event(made) => {
                self.events += 1;
                match made.fate {
                    Fate::Lost => Command::Lose { device, reason: LOST_REASON },
                    Fate::Missing => {
                        self.missing += 1;
                        Command::Forfeit { device }
                    }
                    Fate::Stored | Fate::Quarantined(_) => Command::Event {
                        device,
                        seq: made.seq,
                        stamp: made.stamp,
                        context: Arc::clone(&made.context.encoded),
                        kind: made.kind,
                    },
                }
            }
            Act::Heartbeat { stamp, context, heartbeat } => {
                Command::Heartbeat { device, stamp, context: Arc::clone(&context.encoded), heartbeat }
            }
            Act::Link { is_up } => {
                member.is_up = is_up;
                Command::Link { device, is_up }
            }
            Act::Poison(poison) => {
                self.poison += 1;
                let (topic, payload, is_receipted) = (poison.topic, poison.payload, poison.is_receipted);
                Command::Raw { device, topic, payload, is_receipted }
            }
        });
        Ok(())
    }

    pub(super) fn truth_flush(&self) -> Result<(), Error> {
        match self.truth.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(truth) => truth.flush(),
            None => Ok(()),
        }
    }

    pub(super) fn summary(&self, counters: &Counters) -> Summary {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Summary {
            made: load(&counters.made),
            receipted: load(&counters.receipted),
            rejected: load(&counters.rejected),
            lost: load(&counters.lost),
            missing: self.missing,
            poison: self.poison,
            refused: load(&counters.refused),
            reports: load(&counters.reports),
            resent: load(&counters.resent),
            open: load(&counters.open) + load(&counters.parked),
            simulated_us: load(&self.now_us),
        }
    }
}
