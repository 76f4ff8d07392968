//! Options of a simulated fleet, and the plan that they make.

use std::{path::PathBuf, time::Duration};

use crate::{
    error::Error,
    fleet::{Plan, Scenarios},
    gateway::{Broker, Options as GatewayOptions},
};

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

    pub(super) fn check(&self) -> Result<(), Error> {
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
