//! The monitor: reads what has changed in the warehouse, judges it, and writes verdicts and alerts.
//!
//! What it is for: was that needle sterile ([`sterility`]), do syringes balance ([`balance`]), does
//! a device keep its tolerance ([`accuracy`]), does it drift ([`drift`]), what is the matter with
//! single visits and devices ([`conditions`]). Each pass asks what was inserted since the last,
//! evaluates the items, mounts, visits, sterilizers and devices that this concerns, writes the
//! verdicts that say something else than before, and settles the alerts they belong to ([`alert`],
//! [`settlement`]). [`delivery`] tells of alerts outside.
//!
//! Absent: MQTT, the mathematics (`analysis`), SQL (`warehouse`). The rules do no IO and know no
//! clock.
//!
//! Invariants:
//! - A verdict is a function of facts, registry and time; not of the order of arrival, nor of
//!   verdicts before. Evaluating what changed, doing it twice, and evaluating everything end in the
//!   same verdicts.
//! - One alert for each condition, by a stable key. Late data can raise an alert, and never ends a
//!   critical one: it stays until somebody acknowledges it. Every change leaves a row in
//!   `alert_history`.
//! - What has been seen is recorded last: whatever a pass did not finish, the next does.

pub mod accuracy;
pub mod alert;
pub mod balance;
pub mod conditions;
pub mod delivery;
pub mod drift;
pub mod limits;
pub mod precision;
mod reader;
pub mod settings;
pub mod settlement;
pub mod status;
pub mod sterility;
pub mod trace;

use async_recursion::async_recursion as boxed;
use std::{
    net::SocketAddr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use service::health;
use telemetry::device_time;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use warehouse::{Advice, Warehouse};

pub use crate::status::Handle;
use crate::{
    delivery::Courier,
    limits::{Limits, Rules},
    precision::Precision,
    sterility::pass::{Sterility, Summary},
};

/// Options of the monitor: [`settings::Monitor`], in the types of the program.
#[derive(Clone, Debug)]
pub struct Options {
    /// Pause between two passes.
    pub interval: Duration,
    /// How long the monitor waits for a sterilizer's data before their absence means anything.
    pub late: Duration,
    /// The limits of all judgements.
    pub limits: Limits,
    /// Time without a finished pass at which `/readyz` fails.
    pub stalled_after: Duration,
    /// Address of `/livez`, `/readyz` and `/metrics`. `None` serves none; port 0 takes any free
    /// port.
    pub http: Option<SocketAddr>,
    /// Host names by which that port may be called besides its address.
    pub http_names: Vec<String>,
    /// The targets outside to which alerts go.
    pub delivery: delivery::Options,
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
        options.delivery.webhook.clone_from(&monitor.webhook);
        options.delivery.kafka = match monitor.kafka {
            true => Some(delivery::Kafka { brokers: kafka.bootstrap(), properties: kafka.properties()? }),
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
            delivery: delivery::Options { repeat, ..delivery::Options::default() },
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
        /// What the system said.
        source: std::io::Error,
    },
    /// Limits that no chart can keep.
    #[error("limits of the monitor: {0}")]
    Limits(#[from] analysis::Error),
    #[error(transparent)]
    Warehouse(#[from] warehouse::Error),
    /// Delivery of alerts.
    #[error(transparent)]
    Delivery(#[from] delivery::Error),
}

/// A monitor that has its address and has not started.
pub struct Monitor {
    options: Options,
    handle: Handle,
    listener: Option<TcpListener>,
    warehouse: Warehouse,
    /// The schema was seen whole.
    ready: bool,
    sterility: Sterility,
    precision: Precision,
    courier: Option<Courier>,
}

impl Monitor {
    /// Binds the HTTP address.
    ///
    /// # Errors
    /// [`Error::Listen`], [`Error::Limits`], [`Error::Delivery`].
    #[boxed]
    pub async fn bind(options: Options, warehouse: Warehouse) -> Result<Self, Error> {
        let listening = |(address, source)| Error::Listen { address, source };
        let listener = health::bind(options.http).await.map_err(listening)?;
        let handle = Handle::new(options.stalled_after);
        let late = i64::try_from(options.late.as_micros()).unwrap_or(i64::MAX);
        let courier = Some(Courier::new(options.delivery.clone(), warehouse.clone())?);
        let sterility = Sterility::new(warehouse.clone(), late, &options.limits);
        let precision = Precision::new(warehouse.clone(), Rules::new(options.limits.clone())?);
        Ok(Self { options, handle, listener, warehouse, ready: false, sterility, precision, courier })
    }

    /// What it says about itself.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.listener.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// The next pass evaluates everything.
    pub fn start_over(&mut self) {
        self.sterility.start_over();
        self.precision.start_over();
    }

    /// One pass, as of `now_us`, us since 1970.
    ///
    /// # Errors
    /// [`Error::Warehouse`]; the next pass takes up what this one did not finish.
    #[boxed]
    pub async fn pass(&mut self, now_us: i64) -> Result<Summary, Error> {
        let began = Instant::now();
        let horizon = self.warehouse.horizon(now_us.saturating_sub(self.sterility.late)).await?;
        let released = self.warehouse.released_alerts().await?;
        let sterility = self.sterility.pass(&horizon, &released, now_us).await?;
        let precision = self.precision.pass(&horizon, &released, now_us).await?;
        let summary = Summary {
            units: sterility.units + precision.units,
            verdicts: sterility.verdicts + precision.verdicts,
            alerts: sterility.alerts + precision.alerts,
            whole: sterility.whole || precision.whole,
        };
        self.handle.finished(&summary, began.elapsed());
        if summary != Summary::default() {
            let Summary { units, verdicts, alerts, whole } = summary;
            tracing::debug!(units, verdicts, alerts, whole, seconds = began.elapsed().as_secs_f64(), "pass finished");
        }
        Ok(summary)
    }

    /// Passes until `shutdown`.
    ///
    /// # Errors
    /// What a person must see; everything that can heal is tried again.
    #[boxed]
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let serving = CancellationToken::new();
        let _stop_serving = serving.clone().drop_guard();
        if let Some(listener) = self.listener.take() {
            tokio::spawn(health::serve(listener, self.options.http_names.clone(), self.handle(), serving));
        }
        // A target that does not answer must not hold up what is judged.
        let courier = self.courier.take();
        let telling = courier.map(|courier| tokio::spawn(courier.run(self.handle(), shutdown.clone())));
        let ended = self.judge(&shutdown).await;
        // Over with the service, or with what ended it.
        if let Some(telling) = telling {
            if ended.is_err() {
                telling.abort();
            }
            let _ = telling.await;
        }
        ended
    }

    /// A pass; none before the schema is whole, since a column that comes later would look like a
    /// fault of this program.
    async fn pass_when_ready(&mut self) -> Result<(), Error> {
        if !self.ready {
            warehouse::schema::ready(&self.warehouse).await?;
            self.ready = true;
        }
        self.pass(now_us()).await.map(drop)
    }

    async fn judge(&mut self, shutdown: &CancellationToken) -> Result<(), Error> {
        loop {
            match shutdown.run_until_cancelled(self.pass_when_ready()).await {
                None => return Ok(()),
                Some(Ok(())) => {}
                Some(Err(Error::Warehouse(error))) if error.advice() != Advice::Fatal => {
                    if self.handle.failed(&error.to_string()) {
                        tracing::warn!(%error, "pass failed, trying again");
                    }
                }
                Some(Err(error)) => return Err(error),
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(self.options.interval)).await.is_none() {
                return Ok(());
            }
        }
    }
}

/// The system's clock, us since 1970.
pub fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// A time, us since 1970, as a date and time in UTC, seconds cut off.
pub fn day(at_us: i64) -> String {
    sterility::rules::stamp(at_us)
}

/// Runs a monitor: [`Monitor::bind`], then [`Monitor::run`].
///
/// # Errors
/// As both.
#[boxed]
pub async fn run(options: Options, warehouse: Warehouse, shutdown: CancellationToken) -> Result<(), Error> {
    Monitor::bind(options, warehouse).await?.run(shutdown).await
}
