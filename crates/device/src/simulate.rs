//! Runs a simulated fleet against a broker.

mod past;

use async_recursion::async_recursion as boxed;
use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    error::Error,
    fleet::{Act, Demo, Device, Fate, LOST_REASON, Plan, Scenarios, Step, Story, turn_us},
    gateway::{Broker, Command, Counters, Gateway, Notice, Observer, Options as GatewayOptions, Profile},
    outbox::OUTBOX_FULL,
    store::{self, Life},
    truth::{Subject, Truth},
};

/// Greatest number of steps that the gateway gets at once.
const BATCH: usize = 512;
/// Greatest number of batches that wait for the gateway.
const BATCHES: usize = 8;
/// Longest wait for the receipts of a demonstration's past. The fleet then goes live without them.
const PAST_DRAIN: Duration = Duration::from_secs(60);

/// Pace of the simulated time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// The pace of real time: about one event per device and second, with current times.
    RealTime,
    /// The pace at which the fleet makes this many events a second.
    EventsPerSecond(f64),
    /// As fast as receipts come.
    Unbounded,
    /// As [`Self::Unbounded`], but a device loses its network only after everything made before has
    /// arrived, as in the simulated time.
    Replay,
}

impl Pace {
    /// The pace for a rate in events a second over the whole fleet; 0 means as fast as receipts
    /// allow.
    pub fn from_rate(rate: f64) -> Self {
        if rate > 0.0 { Self::EventsPerSecond(rate) } else { Self::Unbounded }
    }
}

/// Options of a simulated fleet.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of devices.
    pub devices: u32,
    /// Seed of all random choices.
    pub seed: u64,
    /// Start of the simulated time, us since 1970. `None` means now, or, where simulated time may
    /// pass faster than real time, so long ago that no event is told before its time: the duration
    /// with [`Pace::Unbounded`], otherwise a day.
    pub epoch_unix_us: Option<i64>,
    /// Pace of the simulated time.
    pub pace: Pace,
    /// Length of the run; `None` means until shutdown. With [`Pace::EventsPerSecond`] the first
    /// `rate * duration` events are made, otherwise those of this much simulated time. In both
    /// cases the data do not depend on the machine.
    pub duration: Option<Duration>,
    /// Greatest number of events to make. 0 makes none and only delivers what an earlier run left.
    pub events_max: Option<u64>,
    /// Faults to simulate.
    pub scenarios: Scenarios,
    /// Number of tenants.
    pub tenants: u32,
    /// Sites of each tenant.
    pub sites: u32,
    /// Mean pause between two sessions of a device.
    pub pause: Duration,
    /// A demonstration: first a past of four weeks with planted stories, as fast as possible, then
    /// the present in real time. A data directory gets its past once; an interrupted past
    /// continues. Scenarios, epoch and pause are those of the demonstration.
    pub is_demo: bool,
    /// Path of the truth file. It is appended to if the data directory continues an earlier run.
    pub truth: Option<PathBuf>,
    /// With [`Pace::Unbounded`], the greatest number of events without a receipt. By default a
    /// single device's outbox holds as many at half a KiB an event. So the fleet's own speed
    /// overflows no outbox, even if receipts are slow.
    pub open_max: u64,
    /// Interval of progress messages; `None` means never.
    pub progress: Option<Duration>,
    /// How long a shutdown waits for the last receipts. Without a shutdown,
    /// [`GatewayOptions::drain`] applies.
    pub shutdown_drain: Duration,
    /// Outbox, broker and connections.
    pub gateway: GatewayOptions,
}

impl Options {
    /// A healthy fleet in real time without an end, with one connection for each 250 devices.
    pub fn new(devices: u32, data_dir: impl Into<PathBuf>, broker: Broker) -> Self {
        let plan = Plan::new(devices, 1, 0);
        let mut gateway = GatewayOptions::new(data_dir, broker, format!("doseline-simulate-{}", std::process::id()));
        gateway.connections = devices.div_ceil(250).max(1) as usize;
        Self {
            devices,
            seed: plan.seed,
            epoch_unix_us: None,
            pace: Pace::RealTime,
            duration: None,
            events_max: None,
            scenarios: plan.scenarios,
            tenants: plan.tenants,
            sites: plan.sites,
            pause: plan.pause,
            is_demo: false,
            truth: None,
            open_max: 8_192,
            progress: Some(Duration::from_secs(5)),
            shutdown_drain: Duration::from_secs(2),
            gateway,
        }
    }

    fn check(&self) -> Result<(), Error> {
        let zero = |key, value: u64, remedy| match value {
            0 => Err(Error::Option { key, value: "0".to_owned(), remedy }),
            _ => Ok(()),
        };
        zero("devices", self.devices.into(), "at least 1")?;
        zero("tenants", self.tenants.into(), "at least 1")?;
        zero("sites", self.sites.into(), "at least 1")?;
        zero("open_max", self.open_max, "at least 1")?;
        match self.pace {
            Pace::EventsPerSecond(rate) if !(rate.is_finite() && rate > 0.0) => {
                let remedy = "a positive number, or 0 for as fast as receipts allow";
                Err(Error::Option { key: "rate", value: rate.to_string(), remedy })
            }
            _ => Ok(()),
        }
    }

    /// The fleet of these options, as of `now_unix_us`.
    pub fn plan(&self, now_unix_us: i64) -> Plan {
        const DAY: Duration = Duration::from_secs(86_400);
        let ago = match self.pace {
            Pace::RealTime | Pace::Replay => Duration::ZERO,
            Pace::EventsPerSecond(_) => DAY,
            Pace::Unbounded => self.duration.unwrap_or(DAY),
        };
        let began_unix_us = now_unix_us.saturating_sub(i64::try_from(ago.as_micros()).unwrap_or(i64::MAX));
        Plan {
            seed: self.seed,
            epoch_unix_us: self.epoch_unix_us.unwrap_or(began_unix_us),
            devices: self.devices,
            tenants: self.tenants,
            sites: self.sites,
            pause: self.pause,
            scenarios: self.scenarios.clone(),
            demo: None,
        }
    }
}

/// Result of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events made, whatever their end.
    pub made: u64,
    /// Events receipted as stored, including those of earlier runs.
    pub receipted: u64,
    /// Events in rejected reports.
    pub rejected: u64,
    /// Events declared lost.
    pub lost: u64,
    /// Events that were never kept and not declared (scenario `reboot`).
    pub missing: u64,
    /// Bad messages published (scenario `poison`).
    pub poison: u64,
    /// Bad messages whose REJECTED receipt came.
    pub refused: u64,
    /// Reports sent for the first time.
    pub reports: u64,
    /// Reports sent again.
    pub resent: u64,
    /// Events still without a receipt. They are on disk for the next run.
    pub open: u64,
    /// Simulated time covered, us.
    pub simulated_us: u64,
}

/// Runs a fleet until its duration is over or `shutdown` is cancelled, then waits for the last
/// receipts.
///
/// # Errors
/// [`Error::Option`], [`Error::Locked`], [`Error::File`].
#[boxed]
pub async fn run(options: Options, shutdown: CancellationToken) -> Result<Summary, Error> {
    options.check()?;
    let truth = match &options.truth {
        Some(path) => Some(Truth::open(path, store::exists(&options.gateway.store.dir))?),
        None => None,
    };
    let plan = Arc::new(plan(&options, now_us())?);
    if plan.is_past() {
        for story in Story::of(&plan).filter(|story| story.device() < options.devices) {
            tracing::info!("{}", story.tell(&plan));
        }
    } else if options.is_demo {
        tracing::info!(
            "the data directory belongs to another fleet, so no past is generated; use a new data directory for one"
        );
    }
    let truth = Arc::new(Mutex::new(truth));
    let counters = Arc::new(Counters::default());
    let profiles: Vec<_> = (0..options.devices).map(|index| profile(&plan, index)).collect();
    let observer = observer(Arc::clone(&truth));
    let gateway = Gateway::open(options.gateway.clone(), &profiles, Arc::clone(&counters), observer)?;
    let mut fleet = Fleet::new(&plan, &profiles, &gateway, truth)?;

    let (commands, batches) = mpsc::channel(BATCHES);
    let ended = CancellationToken::new();
    let mut serving = tokio::spawn(gateway.run(batches, ended.clone()));
    let reporter = tokio::spawn(report(options.progress, Arc::clone(&counters), Arc::clone(&fleet.now_us)));
    // If the gateway ends by itself, sending to it fails. Its error is the one to report.
    let driven = run_fleet(&options, &mut fleet, &counters, commands, &shutdown).await;
    let served = tokio::select! {
        served = &mut serving => served,
        () = async {
            shutdown.cancelled().await;
            tokio::time::sleep(options.shutdown_drain).await;
        } => {
            ended.cancel();
            (&mut serving).await
        }
    };
    reporter.abort();
    served.map_err(|_| Error::Ended("gateway"))??;
    driven?;
    fleet.truth_flush()?;
    let summary = fleet.summary(&counters);
    tracing::info!(
        made = summary.made,
        receipted = summary.receipted,
        rejected = summary.rejected,
        lost = summary.lost,
        missing = summary.missing,
        poison = summary.poison,
        resent = summary.resent,
        open = summary.open,
        "simulation ended"
    );
    Ok(summary)
}

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as i64
}

fn plan(options: &Options, now_us: i64) -> Result<Plan, Error> {
    let plan = options.plan(now_us);
    if !options.is_demo {
        return Ok(plan);
    }
    // The pace of a clinic: each device has a session every few minutes.
    let plan = Plan { pause: Duration::from_secs(180), scenarios: Scenarios::default(), ..plan };
    Ok(match past::of(&options.gateway.store.dir, options.devices, now_us)? {
        Some(past) => Demo::ending(past.ended_unix_us).past(Plan { devices: past.devices, ..plan }),
        None => Demo::beginning(now_us).present(plan, now_us),
    })
}

fn profile(plan: &Plan, index: u32) -> Profile {
    let is_regrouped = plan.affects(crate::fleet::Scenario::Retransmit, index);
    Profile {
        identity: Some(plan.identity(index)),
        form: plan.form(index),
        model: plan.model(index).to_owned(),
        firmware: plan.firmware(index).to_owned(),
        regroup: is_regrouped.then_some(plan.seed ^ u64::from(index)),
    }
}

type SharedTruth = Arc<Mutex<Option<Truth>>>;

/// Writes the real end of events to the truth file.
fn observer(truth: SharedTruth) -> Observer {
    Box::new(move |notice| {
        let mut truth = truth.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(truth) = truth.as_mut() else { return };
        let written = match notice {
            Notice::GivenUp { identity, boot_id, seq } => {
                truth.correct(&identity, boot_id, telemetry::interval::Interval::new(seq, seq), "lost", OUTBOX_FULL)
            }
            Notice::Rejected { identity, boot_id, range, reason } => {
                truth.correct(&identity, boot_id, range, "quarantined", &reason)
            }
        };
        if let Err(error) = written {
            tracing::error!(%error, "truth not written");
        }
    })
}

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

struct Fleet {
    plan: Arc<Plan>,
    members: Vec<Member>,
    /// The time of each member's next step.
    order: BinaryHeap<Reverse<(u64, usize)>>,
    truth: SharedTruth,
    now_us: Arc<AtomicU64>,
    events: u64,
    missing: u64,
    poison: u64,
}

impl Fleet {
    fn new(plan: &Arc<Plan>, profiles: &[Profile], gateway: &Gateway, truth: SharedTruth) -> Result<Self, Error> {
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
    fn go_live(&mut self, now_us: i64) {
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
    fn is_parting(&self) -> bool {
        let next = self.order.peek().and_then(|Reverse((_, index))| self.members[*index].upcoming.as_ref());
        next.is_some_and(|next| next.step.act == Act::Link { is_up: false })
    }

    /// Takes the network from the devices that had none when an earlier run was interrupted in the
    /// past.
    fn part_again(&self) -> Vec<Command> {
        let offline = self.members.iter().filter(|member| !member.is_up);
        offline.map(|member| Command::Link { device: member.number, is_up: false }).collect()
    }

    /// Time of the next step, us.
    fn next_us(&self) -> u64 {
        self.order.peek().map_or(u64::MAX, |Reverse((at_us, _))| *at_us)
    }

    /// Takes the earliest step and appends its commands.
    fn step(&mut self, batch: &mut Vec<Command>) -> Result<(), Error> {
        let Some(Reverse((at_us, index))) = self.order.pop() else { return Ok(()) };
        self.now_us.store(at_us, Ordering::Relaxed);
        if let Some(upcoming) = self.members[index].take() {
            self.perform(index, upcoming.step, batch)?;
        }
        self.enqueue(index);
        Ok(())
    }

    /// Ends cleanly: devices report whatever is still open, and all have their network again.
    fn settle(&mut self, batch: &mut Vec<Command>) -> Result<(), Error> {
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

    fn truth_flush(&self) -> Result<(), Error> {
        match self.truth.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(truth) => truth.flush(),
            None => Ok(()),
        }
    }

    fn summary(&self, counters: &Counters) -> Summary {
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

/// Runs a fleet to its end; a demonstration begins with its past.
async fn run_fleet(
    options: &Options,
    fleet: &mut Fleet,
    counters: &Counters,
    commands: mpsc::Sender<Vec<Command>>,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    if fleet.plan.is_past() {
        tell_past(options, fleet, counters, &commands, shutdown).await?;
    }
    drive(options, fleet, counters, &commands, shutdown).await?;
    let mut batch = Vec::new();
    fleet.settle(&mut batch)?;
    // A gateway that is gone reports its own error.
    let _ = commands.send(batch).await;
    Ok(())
}

/// Sends the past of a demonstration, waits until it has arrived, and begins the present.
async fn tell_past(
    options: &Options,
    fleet: &mut Fleet,
    counters: &Counters,
    commands: &mpsc::Sender<Vec<Command>>,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let start = Instant::now();
    // A gateway that is gone reports its own error.
    let _ = commands.send(fleet.part_again()).await;
    let replay = Options { pace: Pace::Replay, duration: None, ..options.clone() };
    drive(&replay, fleet, counters, commands, shutdown).await?;
    if !fleet.order.is_empty() {
        // Ended early: the next run continues from here.
        return Ok(());
    }
    let arrived = async {
        while !is_all_receipted(fleet, counters) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        arrived = tokio::time::timeout(PAST_DRAIN, arrived) => {
            let seconds = format!("{:.1}", start.elapsed().as_secs_f64());
            let open = counters.open.load(Ordering::Relaxed);
            match arrived {
                Ok(()) if fleet.events > 0 => {
                    tracing::info!(events = fleet.events, seconds, "four weeks of the past have arrived; the fleet goes on live");
                }
                Ok(()) => {}
                Err(_) => tracing::warn!(open, seconds, "not all of the past has a receipt yet; the fleet goes on live"),
            }
        }
        () = shutdown.cancelled() => return Ok(()),
        () = commands.closed() => return Ok(()),
    }
    fleet.go_live(now_us());
    Ok(())
}

/// Whether every event has its receipt, except those of devices without network.
fn is_all_receipted(fleet: &Fleet, counters: &Counters) -> bool {
    waiting(fleet, counters) == 0 && counters.open.load(Ordering::Relaxed) == 0
}

/// Number of events that the gateway has not accepted yet.
fn waiting(fleet: &Fleet, counters: &Counters) -> u64 {
    fleet.events.saturating_sub(counters.made.load(Ordering::Relaxed))
}

/// Sends steps to the gateway at the given pace, until the end.
async fn drive(
    options: &Options,
    fleet: &mut Fleet,
    counters: &Counters,
    commands: &mpsc::Sender<Vec<Command>>,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let mut events_max = options.events_max.unwrap_or(u64::MAX);
    let mut end_us = u64::MAX;
    match (options.pace, options.duration) {
        (Pace::EventsPerSecond(rate), Some(duration)) => {
            events_max = events_max.min((rate * duration.as_secs_f64()).round() as u64);
        }
        (Pace::RealTime | Pace::Unbounded | Pace::Replay, Some(duration)) => end_us = duration.as_micros() as u64,
        (_, None) => {}
    }
    let start = Instant::now();
    let is_over = |fleet: &Fleet| fleet.events >= events_max || fleet.next_us() >= end_us;
    while !shutdown.is_cancelled() && !is_over(fleet) {
        let mut batch = Vec::new();
        let elapsed = start.elapsed();
        while batch.len() < BATCH && !is_over(fleet) && is_due(options, fleet, counters, elapsed) {
            fleet.step(&mut batch)?;
        }
        if batch.is_empty() {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
                () = shutdown.cancelled() => {}
                // The gateway has failed and reports its error.
                () = commands.closed() => return Ok(()),
            }
            continue;
        }
        // The truth file has the event before the gateway has it.
        fleet.truth_flush()?;
        if commands.send(batch).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn is_due(options: &Options, fleet: &Fleet, counters: &Counters, elapsed: Duration) -> bool {
    match options.pace {
        Pace::RealTime => fleet.next_us() <= elapsed.as_micros() as u64,
        Pace::EventsPerSecond(rate) => (fleet.events as f64) < elapsed.as_secs_f64() * rate,
        Pace::Replay if fleet.is_parting() => is_all_receipted(fleet, counters),
        // Events that the gateway has not accepted yet are open too.
        Pace::Unbounded | Pace::Replay => {
            counters.open.load(Ordering::Relaxed) + waiting(fleet, counters) < options.open_max
        }
    }
}

/// Logs progress until it is aborted.
async fn report(every: Option<Duration>, counters: Arc<Counters>, now_us: Arc<AtomicU64>) {
    let Some(every) = every else { return };
    loop {
        tokio::time::sleep(every).await;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        tracing::info!(
            made = load(&counters.made),
            receipted = load(&counters.receipted),
            rejected = load(&counters.rejected),
            lost = load(&counters.lost),
            resent = load(&counters.resent),
            open = load(&counters.open),
            offline = load(&counters.parked),
            connected = load(&counters.connected),
            simulated_s = load(&now_us) / 1_000_000,
            "simulating"
        );
    }
}
