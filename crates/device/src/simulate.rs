//! Runs a simulated fleet against a broker.

mod members;
mod options;
mod past;

use async_recursion::async_recursion as boxed;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

pub use options::{Options, Pace};

use crate::{
    error::Error,
    fleet::{Demo, Plan, Scenarios, Story},
    gateway::{Command, Counters, Gateway, Notice, Observer, Profile},
    outbox::OUTBOX_FULL,
    store,
    truth::Truth,
};
use members::Fleet;

/// Greatest number of steps that the gateway gets at once.
const BATCH: usize = 512;
/// Greatest number of batches that wait for the gateway.
const BATCHES: usize = 8;
/// Longest wait for the receipts of a demonstration's past. The fleet then goes live without them.
const PAST_DRAIN: Duration = Duration::from_secs(60);

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
