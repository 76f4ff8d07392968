//! A simulated fleet: pure iterators over the steps of each device, deterministic by seed and
//! epoch.
//!
//! Blocks of 16 devices share a site: 14 injection devices, one sterilizer (the fourth) and one
//! calibration bench (the eighth). A smaller fleet has the first devices of a block. A day of the
//! fleet is compressed: sessions of 30 to 80 shots, about one a second, follow each other after
//! [`Plan::pause`]. A pause of 10 s gives one event per device and second.
//!
//! Devices of a block agree without communication. Shared facts, such as the hand-pieces in a cycle
//! or the drift that a bench measures, are functions of the simulated time.

mod base;
mod bench;
mod demo;
mod injector;
mod model;
mod noise;
mod poison;
mod scenario;
mod schedule;
mod sterilizer;

use std::{sync::Arc, time::Duration};

use sha2::{Digest as _, Sha256};
use telemetry::{
    reject::Reason,
    v1::{self, event::Kind},
};

pub(crate) use demo::turn_us;
pub use demo::{Demo, Story};
pub use model::{BENCH_MODEL, Model, STERILIZER_MODEL};
pub use poison::Poison;
pub use scenario::{Scenario, Scenarios, UnknownScenario};

use crate::{
    identity::{Form, Identity},
    store::{Life, Stamp},
};
use base::Base;

/// Devices in a block.
pub const BLOCK: u32 = 16;
const STERILIZER: u32 = 3;
const BENCH: u32 = 7;

/// Parameters of a fleet.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Seed of all random choices.
    pub seed: u64,
    /// Start of the simulated time, us since 1970.
    pub epoch_unix_us: i64,
    /// Number of devices.
    pub devices: u32,
    /// Number of tenants, at least 1; blocks are assigned to them round-robin.
    pub tenants: u32,
    /// Sites of each tenant, at least 1.
    pub sites: u32,
    /// Mean pause between two sessions of a device. Longer pauses also stretch calibrations and
    /// sterilizer cycles.
    pub pause: Duration,
    /// Faults to simulate.
    pub scenarios: Scenarios,
    /// Past or present of a demonstration; `None` for an ordinary fleet.
    pub demo: Option<Demo>,
}

impl Plan {
    /// A healthy fleet in two tenants with two sites each.
    pub fn new(devices: u32, seed: u64, epoch_unix_us: i64) -> Self {
        let scenarios = Scenarios::default();
        let pause = Duration::from_secs(10);
        Self { seed, epoch_unix_us, devices, tenants: 2, sites: 2, pause, scenarios, demo: None }
    }

    /// Whether it is the past of a demonstration; only then the steps of its devices end.
    pub fn is_past(&self) -> bool {
        demo::is_past(self)
    }

    /// The kind of a device.
    pub fn role(&self, index: u32) -> Role {
        match index % BLOCK {
            STERILIZER => Role::Sterilizer,
            BENCH => Role::Bench,
            _ => Role::Injector,
        }
    }

    /// Identity of a device: `tenant-1/site-1/inj-0001`, `ster-0004`, `bench-0008`.
    pub fn identity(&self, index: u32) -> Identity {
        let block = index / BLOCK;
        let (tenants, sites) = (self.tenants.max(1), self.sites.max(1));
        let kind = match self.role(index) {
            Role::Injector => "inj",
            Role::Sterilizer => "ster",
            Role::Bench => "bench",
        };
        Identity {
            tenant: format!("tenant-{}", 1 + block % tenants),
            site: format!("site-{}", 1 + block / tenants % sites),
            device: format!("{kind}-{:04}", index + 1),
        }
    }

    /// The model of a device.
    pub fn model(&self, index: u32) -> &'static str {
        match self.role(index) {
            Role::Injector => Model::of(self.ordinal(index)).name,
            Role::Sterilizer => STERILIZER_MODEL,
            Role::Bench => BENCH_MODEL,
        }
    }

    /// The firmware of a device.
    pub fn firmware(&self, index: u32) -> &'static str {
        if index.is_multiple_of(3) { "2.4.1" } else { "2.5.0" }
    }

    /// The form that a device sends: every twentieth injection device sends JSON.
    pub fn form(&self, index: u32) -> Form {
        match self.role(index) {
            Role::Injector if self.ordinal(index) % 20 == 12 => Form::Json,
            _ => Form::Protobuf,
        }
    }

    /// Number of a device among those of its kind, from 0.
    pub fn ordinal(&self, index: u32) -> u32 {
        let (blocks, rest) = (index / BLOCK, index % BLOCK);
        match self.role(index) {
            Role::Sterilizer | Role::Bench => blocks,
            Role::Injector => blocks * (BLOCK - 2) + rest - u32::from(rest > STERILIZER) - u32::from(rest > BENCH),
        }
    }

    /// Number of devices of a kind.
    pub fn count(&self, role: Role) -> u32 {
        let ending_with = |place| (self.devices + BLOCK - 1 - place) / BLOCK;
        match role {
            Role::Sterilizer => ending_with(STERILIZER),
            Role::Bench => ending_with(BENCH),
            Role::Injector => self.devices - ending_with(STERILIZER) - ending_with(BENCH),
        }
    }

    /// Whether a scenario affects a device.
    pub fn affects(&self, scenario: Scenario, index: u32) -> bool {
        self.scenarios.contains(scenario)
            && scenario.role() == self.role(index)
            && scenario.affects(self.ordinal(index), self.count(scenario.role()))
    }

    /// Injection devices of a device's block.
    pub fn block(&self, index: u32) -> impl Iterator<Item = u32> + '_ {
        let first = index / BLOCK * BLOCK;
        (first..(first + BLOCK).min(self.devices)).filter(|index| self.role(*index) == Role::Injector)
    }

    /// Whether a device's block has a sterilizer.
    pub fn has_sterilizer(&self, index: u32) -> bool {
        index / BLOCK * BLOCK + STERILIZER < self.devices
    }

    /// The id of a boot: its counter, and a random half that depends on seed, epoch, device and
    /// counter. The epoch makes the boots of two runs with one seed differ.
    pub fn boot_id(&self, index: u32, counter: u32) -> u64 {
        let mut hash = Sha256::new();
        hash.update(b"boot");
        hash.update(self.seed.to_le_bytes());
        hash.update(self.epoch_unix_us.to_le_bytes());
        hash.update(self.identity(index).to_string());
        hash.update(counter.to_le_bytes());
        let random = hash.finalize().iter().take(4).fold(0u64, |random, byte| random << 8 | u64::from(*byte));
        u64::from(counter) << 32 | random
    }
}

/// The kind of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An injection device.
    Injector,
    /// A device that sterilizes hand-pieces.
    Sterilizer,
    /// A bench that calibrates injection devices.
    Bench,
}

/// The intended end of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The event arrives and is stored.
    Stored,
    /// The event arrives and is quarantined.
    Quarantined(Reason),
    /// The device declares the event lost.
    Lost,
    /// The event never arrives and is not declared, but a later boot reports how far this one
    /// reached.
    Missing,
}

impl Fate {
    /// The name in the truth file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Quarantined(_) => "quarantined",
            Self::Lost => "lost",
            Self::Missing => "missing",
        }
    }
}

/// The reason with which the simulator declares events lost.
pub const LOST_REASON: &str = "flash error";

/// A context in both forms, shared by its events.
#[derive(Clone, Debug, PartialEq)]
pub struct Context {
    /// The message, for the truth file.
    pub message: v1::Context,
    /// The protobuf bytes, for the report.
    pub encoded: Arc<[u8]>,
}

/// An event of a simulated device.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// Boot of the event.
    pub boot_id: u64,
    /// Sequence number within the boot.
    pub seq: u64,
    /// Time of the event.
    pub stamp: Stamp,
    /// Context of the event.
    pub context: Arc<Context>,
    /// The content; `None` for an event of a kind that no server knows.
    pub kind: Option<Kind>,
    /// The intended end.
    pub fate: Fate,
}

/// One action of a device.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// The device boots.
    Boot {
        /// The new boot.
        boot_id: u64,
    },
    /// The device makes an event.
    Event(Made),
    /// The device sends a heartbeat, outside the sequence.
    Heartbeat {
        /// Time of the heartbeat.
        stamp: Stamp,
        /// Context of the heartbeat.
        context: Arc<Context>,
        /// Its content, without the state of the outbox.
        heartbeat: v1::Heartbeat,
    },
    /// The device loses or finds its network.
    Link {
        /// Whether the device has its network now.
        is_up: bool,
    },
    /// The simulator publishes a bad message in the device's name.
    Poison(Poison),
}

/// One step of a device, with its time.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Time in us of simulated time since the epoch; never before the previous step.
    pub at_us: u64,
    pub act: Act,
}

enum Script {
    Injector(Box<injector::Injector>),
    Sterilizer(sterilizer::Sterilizer),
    Bench(bench::Bench),
}

/// A simulated device: an iterator of its steps. It is endless, except in the past of a
/// demonstration.
pub struct Device {
    base: Base,
    script: Script,
}

impl Device {
    /// The device with a number, which continues after its earlier runs. Its first step is a boot.
    pub fn new(plan: Arc<Plan>, index: u32, life: Life) -> Self {
        let role = plan.role(index);
        let mut base = Base::new(plan, index, life);
        let script = match role {
            Role::Injector => Script::Injector(Box::new(injector::Injector::new(&mut base))),
            Role::Sterilizer => Script::Sterilizer(sterilizer::Sterilizer::new(&base)),
            Role::Bench => Script::Bench(bench::Bench::new(&base)),
        };
        Self { base, script }
    }

    /// Whether later steps must still complete the steps so far: a lost tail whose end the next
    /// boot reports, or a loss to declare. A caller that stops a device should continue until this
    /// is false.
    pub fn is_unsettled(&self) -> bool {
        self.base.is_unsettled()
    }

    /// Drops the steps up to an event that an earlier run made, or up to the boot if `seq` is 0.
    /// Returns whether the device has its network there; `None` if the event does not exist,
    /// because nothing of the past is left.
    pub fn resume(&mut self, boot_id: u64, seq: u64) -> Option<bool> {
        let (mut reached, mut has_network) = ((0, 0), true);
        while reached != (boot_id, seq) {
            match self.next()?.act {
                Act::Boot { boot_id } => reached = (boot_id, 0),
                Act::Event(made) => reached.1 = made.seq,
                Act::Link { is_up } => has_network = is_up,
                Act::Heartbeat { .. } | Act::Poison(_) => {}
            }
        }
        Some(has_network)
    }

    /// The state that the next run continues from.
    pub fn life(&self) -> Life {
        self.base.life()
    }
}

impl Iterator for Device {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        loop {
            if let Some(step) = self.base.pop() {
                return Some(step);
            }
            if self.base.is_over {
                return None;
            }
            match &mut self.script {
                Script::Injector(injector) => injector.advance(&mut self.base),
                Script::Sterilizer(sterilizer) => sterilizer.advance(&mut self.base),
                Script::Bench(bench) => bench.advance(&mut self.base),
            }
        }
    }
}

#[cfg(test)]
mod tests;
