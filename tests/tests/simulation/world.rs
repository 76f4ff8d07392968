//! One seed: devices, broker, bridge, Kafka, loaders and ClickHouse run together until everything
//! is settled.

use std::{collections::BTreeMap, time::Duration};

use load::simulation::engine::{Engine, FAULTS, Fault};
use tokio::time::Instant;

use crate::{
    bridge::Bridge,
    broker::Broker,
    bug::Bug,
    chance::Chance,
    device::Device,
    kafka::Kafka,
    loader::{Loaders, SESSION},
    oracle,
};

const DEVICES: u64 = 4;
const CONNECTIONS: usize = 2;
const TICK: Duration = Duration::from_millis(20);
/// How long mishaps happen.
const TROUBLED: Duration = Duration::from_secs(7);
/// More virtual time than any seed needs.
const LONGEST: Duration = Duration::from_secs(300);

/// The options of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setting {
    /// The planted bug.
    pub bug: Option<Bug>,
    /// How many inserts into a table the engine remembers, if not as many as the real window.
    pub window: Option<usize>,
    /// Every write happens soon after it was decided, or never: no owner pauses beyond its lease,
    /// and no write arrives late.
    pub prompt: bool,
}

/// The result of a seed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Hash of everything that happened.
    pub trace: u64,
    /// How often each mishap happened.
    pub struck: BTreeMap<String, u64>,
    pub events: u64,
}

struct World {
    start: Instant,
    chance: Chance,
    devices: Vec<Device>,
    broker: Broker,
    bridge: Bridge,
    bridges: u64,
    /// The bridge is down until this time.
    bridge_down: Option<Instant>,
    kafka: Kafka,
    loaders: Loaders,
    bug: Option<Bug>,
    struck: BTreeMap<String, u64>,
}

/// Runs one seed in virtual time.
///
/// # Errors
/// A condition that does not hold. The checks at the end panic instead.
pub fn run(seed: u64, setting: Setting) -> Result<Outcome, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let mut world = World::new(seed, setting);
        world.live().await?;
        let undeclared = oracle::check(&world.loaders.engine, &world.devices);
        Ok(world.outcome(undeclared))
    })
}

impl World {
    fn new(seed: u64, setting: Setting) -> Self {
        let start = Instant::now();
        let mut chance = Chance::new(seed);
        let engine = Engine::new(seed);
        engine.trouble([0, 30, 100, 250][(seed % 4) as usize]);
        let window = match setting.bug {
            Some(Bug::WindowZero) => Some(0),
            Some(Bug::WindowTooSmall) => Some(2),
            _ => setting.window,
        };
        window.into_iter().for_each(|inserts| engine.window(inserts));
        if setting.prompt {
            let prompt: Vec<Fault> = FAULTS.into_iter().filter(|fault| *fault != Fault::Zombie).collect();
            engine.faults(&prompt);
        }
        Self {
            start,
            devices: (0..DEVICES).map(|number| Device::new(number, &mut chance)).collect(),
            broker: Broker::new(CONNECTIONS),
            bridge: Bridge::new(0, CONNECTIONS, start, setting.bug),
            bridges: 0,
            bridge_down: None,
            kafka: Kafka::new(start),
            loaders: Loaders::new(engine, setting.bug, !setting.prompt),
            bug: setting.bug,
            struck: BTreeMap::new(),
            chance,
        }
    }

    async fn live(&mut self) -> Result<(), String> {
        while self.start.elapsed() < TROUBLED {
            tokio::time::sleep(TICK).await;
            self.mishaps();
            self.step().await?;
        }
        self.chance.calm = true;
        self.loaders.engine.trouble(0);
        let (mut last_words, mut settled) = (0, None);
        loop {
            tokio::time::sleep(TICK).await;
            self.step().await?;
            let now = Instant::now();
            // A device's last report names its earlier boots. The first such report may be refused
            // together with the older events in it.
            let quiet = self.devices.iter().all(Device::is_online) && (last_words == 0 || self.is_idle());
            if quiet && last_words < 2 {
                let uptime = now - self.start;
                self.devices.iter_mut().for_each(|device| device.make(uptime, &mut self.chance));
                last_words += 1;
            }
            let idle = last_words == 2 && self.is_idle();
            settled = if idle { settled.or(Some(now)) } else { None };
            // Late writes and owners that wake up must change nothing.
            if settled.is_some_and(|since| now - since > SESSION * 4) {
                break;
            }
            if self.start.elapsed() > LONGEST {
                return Err(format!("stuck: {}", self.whereabouts()));
            }
        }
        self.loaders.end();
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.devices.iter().all(Device::is_settled)
            && self.broker.is_idle()
            && self.bridge.is_idle()
            && self.kafka.is_idle()
            && self.loaders.is_idle(&self.kafka)
    }

    fn whereabouts(&self) -> String {
        format!(
            "devices settled {:?}, broker idle {}, bridge idle {}, kafka idle {}, loaders idle {}",
            self.devices.iter().map(Device::is_settled).collect::<Vec<_>>(),
            self.broker.is_idle(),
            self.bridge.is_idle(),
            self.kafka.is_idle(),
            self.loaders.is_idle(&self.kafka)
        )
    }

    fn strikes(&mut self, mishap: &str, times: u64) -> bool {
        let strikes = self.chance.mishap(times);
        if strikes {
            *self.struck.entry(mishap.to_owned()).or_default() += 1;
            self.chance.note(mishap);
        }
        strikes
    }

    fn mishaps(&mut self) {
        let now = Instant::now();
        if self.strikes("broker restarted", 400) {
            self.broker.restart();
            self.devices.iter_mut().for_each(|device| device.link(false, now - self.start, &mut self.chance));
        }
        if self.strikes("bridge killed", 200) {
            self.bridge.die(&mut self.broker);
            self.bridges += 1;
            self.bridge_down = Some(now + self.chance.within(500));
            self.bridge = Bridge::new(self.bridges, CONNECTIONS, now, self.bug);
        }
        if self.strikes("kafka away", 200) {
            let until = now + self.chance.within(1_500);
            self.kafka.leave(until);
        }
        for index in 0..self.devices.len() {
            if self.devices[index].is_online() && self.strikes("device failed", 250) {
                self.devices[index].fail(now - self.start, &mut self.chance);
            }
        }
    }

    async fn step(&mut self) -> Result<(), String> {
        let now = Instant::now();
        let uptime = now - self.start;
        for device in &mut self.devices {
            let is_online = device.is_online();
            if !is_online && (self.chance.calm || self.chance.once_in(15)) {
                device.link(true, uptime, &mut self.chance);
            } else if is_online && self.chance.mishap(80) {
                device.link(false, uptime, &mut self.chance);
            }
            if !self.chance.calm && self.chance.once_in(20) {
                for _ in 0..=self.chance.below(3) {
                    device.make(uptime, &mut self.chance);
                }
            }
            for (topic, payload) in device.step(uptime, &mut self.chance) {
                self.broker.publish(now, &mut self.chance, &topic, &payload);
            }
        }
        for (topic, payload) in self.broker.step(now, &mut self.chance) {
            let topic = topic.trim_end_matches("/json");
            let device =
                self.devices.iter_mut().find(|device| device.identity.receipt_topic(device::Form::Protobuf) == topic);
            device.expect("receipts go to devices").receive(&payload, uptime, &self.kafka)?;
        }
        for (sent, answer) in self.kafka.step(now, &mut self.chance) {
            self.bridge.answer(now, &mut self.chance, &mut self.kafka, sent, answer);
        }
        if self.bridge_down.is_none_or(|until| until <= now) {
            self.bridge.step(now, &mut self.chance, &mut self.broker, &mut self.kafka)?;
        }
        self.loaders.step(now, &mut self.chance, &mut self.kafka).await
    }

    fn outcome(mut self, undeclared: u64) -> Outcome {
        for (fault, times) in self.loaders.engine.seen() {
            self.struck.insert(format!("engine {fault:?}"), times);
        }
        self.chance.note(self.loaders.engine.trace());
        let given_up = self.devices.iter().map(|device| device.truth.given_up.len() as u64).sum();
        self.struck.extend([("given up".to_owned(), given_up), ("undeclared".to_owned(), undeclared)]);
        let events = self.devices.iter().map(|device| device.truth.made.len() as u64).sum();
        Outcome { trace: self.chance.trace(), struck: self.struck, events }
    }
}
