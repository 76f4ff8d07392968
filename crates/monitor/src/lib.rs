//! The monitor: turns stored facts into verdicts and alerts.
//!
//! It answers: was this item sterile ([`sterility`])? Does this device keep its tolerance, does it
//! drift ([`accuracy`])? Is a device silent, lost or unsynchronised ([`fleet`])? Does what left a
//! syringe agree with what was delivered ([`mass_balance`])? Each pass finds what was inserted
//! since the last one ([`reader`]), evaluates every unit that the change concerns, writes the
//! verdicts that differ from before, and updates the alerts that they belong to ([`alerts`]).
//!
//! Boundary: this crate decides, except for the conditions of silent, lost or powerless devices:
//! those are SQL with kind, title and severity in `warehouse::devices`. Its queries are in
//! `warehouse`, its mathematics in `analysis`; it has no MQTT. It contains two kinds of SQL text:
//! the queries that an alert shows to a person, and the names of units as expressions of a table's
//! columns (`units.rs`). Its rules do no IO and read no clock.
//!
//! Invariants:
//! - A verdict is a function of facts, registry and time. It does not depend on the order of
//!   arrival or on earlier verdicts. Evaluating what has changed, evaluating it twice, and
//!   evaluating everything give the same verdicts. One exception: samples of a sterilization cycle
//!   may be retained for a shorter time than its verdict. The judgement of its curve by the most
//!   samples that were ever stored is kept in `cycle_assessments` and counts as a fact.
//! - Each condition has one alert with a stable key. Late data can raise an alert, but cannot clear
//!   a critical one: it is latched until a person acknowledges it. Every change has a row in
//!   `alert_history`.
//! - A position moves only after the verdicts and alerts are written: the next pass evaluates
//!   whatever a failed one did not finish. The position is stored after a pass with news, at most
//!   once a minute, and after one that evaluated everything. A restart evaluates again what came
//!   after the stored position.
//!
//! Start reading at [`Monitor::pass`], then `sterility/pass.rs` and `sterility/item.rs`.

pub mod accuracy;
pub mod alerts;
mod diff;
pub mod fleet;
mod idle_gate;
pub mod limits;
pub mod mass_balance;
pub mod reader;
pub mod settings;
pub mod status;
pub mod sterility;
pub mod time;
pub mod trace;

use async_recursion::async_recursion as boxed;
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use service::health;
use telemetry::device_time;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use warehouse::{Advice, Warehouse};

use crate::{
    accuracy::{pass::AccuracyPass, rules::Rules},
    alerts::notification::{self, Notifier},
    fleet::FleetPass,
    idle_gate::IdleGate,
    limits::Limits,
    sterility::pass::SterilityPass,
};
pub use crate::{
    status::{Handle, Summary},
    time::{now_us, stamp},
};

/// The pause after a pass, as a multiple of the pass: passes take 2 % of the time.
const PAUSE_PER_PASS: u32 = 50;
/// The longest pause, as a multiple of [`Options::interval`].
const PAUSE_GROWTH_MAX: u32 = 5;

/// Options of the monitor.
#[derive(Clone, Debug)]
pub struct Options {
    /// Time from the end of a pass to the start of the next; longer after a long pass. A shorter
    /// time finds changes earlier and queries ClickHouse more often.
    pub interval: Duration,
    /// How long a sterilizer's data are awaited after a use has happened and arrived. Before, their
    /// absence is no finding. A longer time raises alerts later, and raises fewer alerts that later
    /// data retract.
    pub late: Duration,
    /// The limits that the monitor judges by.
    pub limits: Limits,
    /// Time without a finished pass at which `/readyz` fails.
    pub stalled_after: Duration,
    /// Address of `/livez`, `/readyz` and `/metrics`; `None` = not served, port 0 = any free port.
    pub http: Option<SocketAddr>,
    /// Host names under which that port answers, besides its address.
    pub http_names: Vec<String>,
    /// Where alerts are sent.
    pub notification: notification::Options,
}

impl Options {
    /// The options of a configuration.
    ///
    /// # Errors
    /// The password file of Kafka cannot be read.
    pub fn new(
        kafka: &service::kafka::Kafka,
        monitor: &settings::Monitor,
        device_time: device_time::Limits,
        http_names: Vec<String>,
    ) -> std::io::Result<Self> {
        let mut options = Self::of(monitor, device_time);
        (options.http, options.http_names) = (Some(monitor.http), http_names);
        options.notification.webhook.clone_from(&monitor.webhook);
        options.notification.kafka = match monitor.kafka {
            true => Some(notification::Kafka { brokers: kafka.bootstrap(), properties: kafka.properties()? }),
            false => None,
        };
        Ok(options)
    }

    fn of(monitor: &settings::Monitor, device_time: device_time::Limits) -> Self {
        let repeat = Duration::from_secs(monitor.webhook_repeat_s.into());
        Self {
            interval: Duration::from_millis(monitor.interval_ms.into()),
            late: Duration::from_secs(monitor.late_s.into()),
            limits: Limits::new(monitor, device_time),
            stalled_after: Duration::from_secs(monitor.stalled_s.into()),
            http: None,
            http_names: Vec::new(),
            notification: notification::Options { repeat, ..notification::Options::default() },
        }
    }
}

impl Default for Options {
    /// The default configuration, without a port and without targets outside.
    fn default() -> Self {
        Self::of(&settings::Monitor::default(), device_time::Limits::default())
    }
}

/// Why the monitor ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("listen on {address}: {source}; choose another with monitor.http")]
    Listen {
        address: SocketAddr,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A limit is out of its range.
    #[error("limits of the monitor: {0}")]
    Limits(#[from] analysis::Error),
    #[error(transparent)]
    Warehouse(#[from] warehouse::Error),
    /// The options of a target of alerts.
    #[error(transparent)]
    Notification(#[from] notification::Error),
}

/// A monitor that has bound its address and has not started.
pub struct Monitor {
    options: Options,
    handle: Handle,
    listener: Option<TcpListener>,
    warehouse: Warehouse,
    /// The schema was found complete.
    ready: bool,
    sterility: SterilityPass,
    accuracy: AccuracyPass,
    fleet: FleetPass,
    notifier: Option<Notifier>,
    /// Tells the notifier of each pass.
    passes: watch::Sender<()>,
    idle_gate: IdleGate,
}

impl Monitor {
    /// Binds the HTTP address.
    ///
    /// # Errors
    /// [`Error::Listen`], [`Error::Limits`], [`Error::Notification`].
    #[boxed]
    pub async fn bind(options: Options, warehouse: Warehouse) -> Result<Self, Error> {
        let listening = |(address, source)| Error::Listen { address, source };
        let listener = health::bind(options.http).await.map_err(listening)?;
        let handle = Handle::new(options.stalled_after);
        let late = i64::try_from(options.late.as_micros()).unwrap_or(i64::MAX);
        let notifier = Some(Notifier::new(options.notification.clone(), warehouse.clone())?);
        let sterility = SterilityPass::new(warehouse.clone(), late, &options.limits);
        let accuracy = AccuracyPass::new(warehouse.clone(), Rules::new(options.limits.clone())?);
        let fleet = FleetPass::new(warehouse.clone(), options.limits.fleet);
        Ok(Self {
            options,
            handle,
            listener,
            warehouse,
            ready: false,
            sterility,
            accuracy,
            fleet,
            notifier,
            passes: watch::Sender::new(()),
            idle_gate: IdleGate::default(),
        })
    }

    /// What it reports of itself.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The bound address of `/livez`, `/readyz` and `/metrics`.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.listener.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// The next pass evaluates everything.
    pub fn start_over(&mut self) {
        self.sterility.start_over();
        self.accuracy.start_over();
    }

    /// One pass, as of `now_us`, us since 1970.
    ///
    /// # Errors
    /// [`Error::Warehouse`]; the next pass evaluates everything that this one did not finish.
    #[boxed]
    pub async fn pass(&mut self, now_us: i64) -> Result<Summary, Error> {
        let began = Instant::now();
        let horizon = self.warehouse.horizon(now_us.saturating_sub(self.sterility.late)).await?;
        let to_clear = self.warehouse.alerts_to_clear().await?;
        let sterility = self.sterility.pass(&horizon, &to_clear, now_us).await?;
        let accuracy = self.accuracy.pass(&horizon, &to_clear, now_us).await?;
        let fleet_alerts = self.fleet.pass(accuracy.whole, now_us).await?;
        let summary = Summary {
            units: sterility.units + accuracy.units,
            verdicts: sterility.verdicts + accuracy.verdicts,
            alerts: sterility.alerts + accuracy.alerts + fleet_alerts,
            whole: sterility.whole || accuracy.whole,
        };
        self.handle.finished(&summary, began.elapsed());
        if summary != Summary::default() {
            let Summary { units, verdicts, alerts, whole } = summary;
            tracing::debug!(units, verdicts, alerts, whole, seconds = began.elapsed().as_secs_f64(), "pass finished");
        }
        Ok(summary)
    }

    /// Runs passes until `shutdown`.
    ///
    /// # Errors
    /// Errors that a person must resolve. After any other error the pass is repeated.
    #[boxed]
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let serving = CancellationToken::new();
        let _stop_serving = serving.clone().drop_guard();
        if let Some(listener) = self.listener.take() {
            tokio::spawn(health::serve(listener, self.options.http_names.clone(), self.handle(), serving));
        }
        // A target that does not answer must not delay the passes.
        let notifier = self.notifier.take();
        let passes = self.passes.subscribe();
        let notifying = notifier.map(|notifier| tokio::spawn(notifier.run(self.handle(), passes, shutdown.clone())));
        let ended = self.run_passes(&shutdown).await;
        // The notifier ends at shutdown; after an error it is stopped.
        if let Some(notifying) = notifying {
            if ended.is_err() {
                notifying.abort();
            }
            let _ = notifying.await;
        }
        ended
    }

    /// Runs a pass once the schema is complete, unless the pass could find nothing new. An older
    /// schema lacks columns, and a pass would report that as an error of its own.
    /// Returns how long the pass took.
    async fn pass_when_ready(&mut self) -> Result<Duration, Error> {
        if !self.ready {
            warehouse::schema::ready(&self.warehouse).await?;
            self.ready = true;
        }
        let (began, now) = (Instant::now(), now_us());
        // Read before the pass, so that what is inserted during the pass is a change.
        let digest = self.warehouse.parts_digest().await?;
        if self.idle_gate.may_idle(digest, now, self.sterility.late) && !self.sterility.is_due(now) {
            self.handle.finished(&Summary::default(), began.elapsed());
        } else {
            self.pass(now).await?;
            self.idle_gate.passed(now);
            self.passes.send_replace(());
        }
        Ok(began.elapsed())
    }

    async fn run_passes(&mut self, shutdown: &CancellationToken) -> Result<(), Error> {
        loop {
            let interval = self.options.interval;
            let pause = match shutdown.run_until_cancelled(self.pass_when_ready()).await {
                None => return Ok(()),
                Some(Ok(took)) => pause_after(took, interval),
                Some(Err(Error::Warehouse(error))) if error.advice() != Advice::Fatal => {
                    if self.handle.failed(&error.to_string()) {
                        tracing::warn!(%error, "pass failed, trying again");
                    }
                    interval
                }
                Some(Err(error)) => return Err(error),
            };
            if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Ok(());
            }
        }
    }
}

/// The pause after a pass that took `took`.
fn pause_after(took: Duration, interval: Duration) -> Duration {
    (took * PAUSE_PER_PASS).clamp(interval, interval * PAUSE_GROWTH_MAX)
}

/// Runs a monitor: [`Monitor::bind`], then [`Monitor::run`].
///
/// # Errors
/// As both.
#[boxed]
pub async fn run(options: Options, warehouse: Warehouse, shutdown: CancellationToken) -> Result<(), Error> {
    Monitor::bind(options, warehouse).await?.run(shutdown).await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::pause_after;

    #[test]
    fn passes_take_a_fiftieth_of_the_time_unless_the_pause_would_grow_over_five_intervals() {
        let pause = |took_ms, interval_ms| {
            pause_after(Duration::from_millis(took_ms), Duration::from_millis(interval_ms)).as_millis()
        };
        assert_eq!([pause(0, 2_000), pause(40, 2_000)], [2_000, 2_000]);
        assert_eq!([pause(100, 2_000), pause(199, 2_000)], [5_000, 9_950]);
        assert_eq!([pause(300, 2_000), pause(60_000, 2_000)], [10_000, 10_000]);
    }
}
