//! The client: it keeps events in the outbox, publishes them, and takes receipts. It serves one
//! device, or as a gateway many devices over few connections, with the same code.
//!
//! One task owns the store and all senders; each connection is a task of its own. Nothing here
//! waits for the network: whatever a connection does not accept now stays in the outbox.

mod command;
mod counters;
mod port;
mod presence;
mod publish;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use prost::Message as _;
use telemetry::{
    interval::Interval,
    json,
    limits::UNIX_US_MAX,
    v1::{self, Clock, ReceiptCode, State, event::Kind},
};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

pub use crate::link::{Backoff, Broker, Tls};
pub use command::{Command, Notice, Observer};
pub use counters::Counters;

use crate::{
    error::Error,
    identity::{Form, Identity},
    link::{self, Occurrence},
    sender,
    store::{self, Life, Stamp, Store},
};
use port::Ports;

/// Options of a gateway.
#[derive(Clone, Debug)]
pub struct Options {
    /// How the outboxes keep events.
    pub store: store::Options,
    /// When the senders send reports.
    pub sender: sender::Options,
    /// Broker to connect to.
    pub broker: Broker,
    /// MQTT client id. With several connections, `-1`, `-2`, ... is added.
    pub client_id: String,
    /// Number of connections, over which the devices are spread. With one device for each, its
    /// status is the last will.
    pub connections: usize,
    /// Waits between attempts to connect.
    pub backoff: Backoff,
    /// How long to wait for the last receipts at the end.
    pub drain: Duration,
}

impl Options {
    /// Default options with one connection.
    pub fn new(dir: impl Into<std::path::PathBuf>, broker: Broker, client_id: impl Into<String>) -> Self {
        Self {
            store: store::Options::new(dir),
            sender: sender::Options::default(),
            broker,
            client_id: client_id.into(),
            connections: 1,
            backoff: Backoff::default(),
            drain: Duration::from_secs(60),
        }
    }
}

/// A device that a gateway publishes for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Its identity; `None` for a device that the journal knows from an earlier run.
    pub identity: Option<Identity>,
    /// The form that it sends.
    pub form: Form,
    /// Its model, for the status message.
    pub model: String,
    /// Its firmware, for the status message.
    pub firmware: String,
    /// Seed for repeating reports in other groupings and orders; `None` leaves them as they are.
    /// For tests of the server.
    pub regroup: Option<u64>,
}

/// A gateway, ready to run.
pub struct Gateway {
    options: Options,
    store: Store,
    ports: Ports,
    by_topic: HashMap<String, usize>,
    counters: Arc<Counters>,
    observer: Observer,
    start: Instant,
    /// Devices to look at now.
    dirty: BTreeSet<usize>,
    /// Devices to look at later, by time.
    wakes: BTreeSet<(Duration, usize)>,
    is_draining: bool,
}

impl Gateway {
    /// Opens the outboxes. Connects to nothing yet.
    ///
    /// # Errors
    /// [`Error::Option`], [`Error::Locked`], [`Error::File`].
    pub fn open(
        options: Options,
        profiles: &[Profile],
        counters: Arc<Counters>,
        observer: Observer,
    ) -> Result<Self, Error> {
        if options.connections == 0 || options.sender.window == 0 {
            let (key, remedy) = ("connections, window", "at least 1");
            return Err(Error::Option { key, value: "0".to_owned(), remedy });
        }
        let identities: Vec<_> = profiles.iter().filter_map(|profile| profile.identity.clone()).collect();
        let store = Store::open(options.store.clone(), &identities)?;
        let (mut by_topic, mut ordered) = (HashMap::new(), vec![Profile::default(); store.devices()]);
        for profile in profiles {
            if let Some(number) = profile.identity.as_ref().and_then(|identity| store.number(identity)) {
                ordered[number] = profile.clone();
            }
        }
        for (number, profile) in ordered.iter().enumerate() {
            by_topic.insert(store.identity(number)?.receipt_topic(profile.form), number);
        }
        let ports = Ports::new(ordered, options.connections.min(store.devices().max(1)));
        for device in 0..store.devices() {
            Counters::add(&counters.open, store.outbox(device)?.events() as u64);
        }
        let (start, dirty, wakes) = (Instant::now(), BTreeSet::new(), BTreeSet::new());
        Ok(Self { options, store, ports, by_topic, counters, observer, start, dirty, wakes, is_draining: false })
    }

    /// The number of a device.
    pub fn number(&self, identity: &Identity) -> Option<usize> {
        self.store.number(identity)
    }

    /// The state that a device continues from.
    ///
    /// # Errors
    /// [`Error::UnknownDevice`].
    pub fn life(&self, device: usize) -> Result<Life, Error> {
        self.store.life(device)
    }

    /// Boot and sequence number of the last event that a device has made, kept or not; `None`
    /// before its first boot.
    ///
    /// # Errors
    /// [`Error::UnknownDevice`].
    pub fn reached(&self, device: usize) -> Result<Option<(u64, u64)>, Error> {
        Ok(self.store.outbox(device)?.current().map(|boot| (boot.id, boot.last_seq)))
    }

    /// Runs until `commands` is closed and every receipt has come, or the drain time is over.
    /// Cancelling `shutdown` ends the wait for receipts early. Events without a receipt stay on
    /// disk for the next run.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::EventTooLarge`], [`Error::Sequence`], [`Error::UnknownDevice`].
    pub async fn run(
        mut self,
        mut commands: mpsc::Receiver<Vec<Command>>,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let (occurred, mut occurrences) = mpsc::channel(1024);
        let (mut links, closing) = (JoinSet::new(), CancellationToken::new());
        for plan in self.plans()? {
            links.spawn(link::run(plan, occurred.clone(), closing.clone()));
        }
        drop(occurred);
        let mut result = self.serve(&mut commands, &mut occurrences, &shutdown).await;
        if result.is_ok() {
            result = self.store.sync();
        }
        closing.cancel();
        if result.is_ok() {
            result = self.say_goodbye().await;
        }
        drop(occurrences);
        let ended = async { while links.join_next().await.is_some() {} };
        // The broker closes the connection at our DISCONNECT. A broker that does not is left alone.
        if tokio::time::timeout(Duration::from_secs(2), ended).await.is_err() {
            links.abort_all();
        }
        result
    }

    async fn serve(
        &mut self,
        commands: &mut mpsc::Receiver<Vec<Command>>,
        occurrences: &mut mpsc::Receiver<Occurrence>,
        shutdown: &CancellationToken,
    ) -> Result<(), Error> {
        let mut deadline = None;
        loop {
            let now = self.start.elapsed();
            if let Some(deadline) = deadline
                && (now >= deadline || self.is_settled()?)
            {
                return Ok(());
            }
            let wake = self.wakes.first().map(|(at, _)| *at).into_iter().chain(deadline).min();
            let wake = self.start + wake.unwrap_or(now + Duration::from_secs(1)).max(now + Duration::from_millis(1));
            tokio::select! {
                occurrence = occurrences.recv() => {
                    self.occur(occurrence.ok_or(Error::Ended("mqtt connection"))?)?;
                    for _ in 0..256 {
                        let Ok(occurrence) = occurrences.try_recv() else { break };
                        self.occur(occurrence)?;
                    }
                }
                batch = commands.recv(), if deadline.is_none() => match batch {
                    Some(batch) => batch.into_iter().try_for_each(|command| self.execute(command))?,
                    None => {
                        deadline = Some(self.start.elapsed() + self.options.drain);
                        self.drain()?;
                    }
                },
                () = tokio::time::sleep_until(wake) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
            self.pump()?;
        }
    }

    /// From here on, only receipts are awaited.
    fn drain(&mut self) -> Result<(), Error> {
        self.is_draining = true;
        self.dirty.extend(0..self.store.devices());
        for device in 0..self.store.devices() {
            let channel = self.ports.device(device)?.profile.form.channel();
            self.ports.release(device, self.store.identity(device)?.topic(channel))?;
        }
        Ok(())
    }

    fn is_settled(&self) -> Result<bool, Error> {
        for device in 0..self.store.devices() {
            if !self.store.outbox(device)?.is_settled() || !self.ports.device(device)?.raws.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn plans(&self) -> Result<Vec<link::Plan>, Error> {
        let mut plans = Vec::new();
        for (number, port) in self.ports.links().iter().enumerate() {
            let mut filters = Vec::with_capacity(port.devices.len());
            for device in &port.devices {
                let form = self.ports.device(*device)?.profile.form;
                filters.push(self.store.identity(*device)?.receipt_topic(form));
            }
            let will = match port.devices.as_slice() {
                [device] => Some(self.status(*device, State::Lost)?),
                _ => None,
            };
            let client_id = match self.ports.links().len() {
                1 => self.options.client_id.clone(),
                _ => format!("{}-{}", self.options.client_id, number + 1),
            };
            let (broker, backoff) = (self.options.broker.clone(), self.options.backoff);
            plans.push(link::Plan { number, broker, client_id, will, filters, backoff });
        }
        Ok(plans)
    }

    fn occur(&mut self, occurrence: Occurrence) -> Result<(), Error> {
        match occurrence {
            Occurrence::Up { link, client } => {
                Counters::add(&self.counters.connected, 1);
                tracing::info!(link, "mqtt connected");
                for device in self.ports.connected(link, client) {
                    self.join(device)?;
                }
            }
            Occurrence::Down { link } => {
                Counters::subtract(&self.counters.connected, 1);
                for device in self.ports.lost(link) {
                    self.ports.device_mut(device)?.sender.disconnected();
                }
            }
            Occurrence::Message { topic, payload } => self.receipt(&topic, &payload)?,
        }
        Ok(())
    }

    /// A device goes online when it has both its connection and its network.
    fn join(&mut self, device: usize) -> Result<(), Error> {
        let now = self.start.elapsed();
        let port = self.ports.device_mut(device)?;
        if port.is_up {
            port.sender.connected(now, rand::random(), &self.options.sender);
            self.announce(device, State::Online)?;
            self.dirty.insert(device);
        }
        Ok(())
    }

    fn execute(&mut self, command: Command) -> Result<(), Error> {
        match command {
            Command::Boot { device, boot_id } => self.store.begin(device, boot_id),
            Command::Event { device, seq, stamp, context, kind } => self.offer(device, seq, stamp, &context, kind),
            Command::Lose { device, reason } => {
                let outbox = self.store.outbox(device)?;
                if let Some((boot_id, seq)) = outbox.current().map(|boot| (boot.id, boot.last_seq + 1)) {
                    self.store.lose(device, boot_id, Interval::new(seq, seq), reason)?;
                }
                Counters::add(&self.counters.made, 1);
                Counters::add(&self.counters.lost, 1);
                Ok(())
            }
            Command::Forfeit { device } => {
                Counters::add(&self.counters.made, 1);
                self.store.forfeit(device, 1)
            }
            Command::Heartbeat { device, stamp, context, heartbeat } => {
                self.heartbeat(device, stamp, &context, heartbeat)
            }
            Command::Link { device, is_up } => self.switch(device, is_up),
            Command::Raw { device, topic, payload, is_receipted } => {
                self.dirty.insert(device);
                self.ports.device_mut(device)?.raw(topic, payload, is_receipted);
                Ok(())
            }
        }
    }

    fn offer(
        &mut self,
        device: usize,
        expected: u64,
        stamp: Stamp,
        context: &[u8],
        kind: Option<Kind>,
    ) -> Result<(), Error> {
        let port = self.ports.device_mut(device)?;
        let offered = {
            let sender = &port.sender;
            self.store.offer(device, stamp, context, kind, |boot_id, seq| sender.is_in_flight(boot_id, seq))?
        };
        if offered.seq != expected {
            let device = self.store.identity(device)?.to_string();
            return Err(Error::Sequence { device, got: expected, expected: offered.seq });
        }
        // A status with an impossible time would be refused.
        if stamp.clock == Clock::Synced && (0..UNIX_US_MAX).contains(&stamp.unix_us) {
            port.unix_us = stamp.unix_us;
        }
        port.sender.offered(self.start.elapsed(), &self.options.sender);
        let waiting = if port.is_up { &self.counters.open } else { &self.counters.parked };
        Counters::add(waiting, 1);
        Counters::add(&self.counters.made, 1);
        if !offered.given_up.is_empty() {
            let count = offered.given_up.len() as u64;
            Counters::subtract(waiting, count);
            Counters::add(&self.counters.lost, count);
            let identity = self.store.identity(device)?;
            for (boot_id, seq) in offered.given_up {
                (self.observer)(Notice::GivenUp { identity: identity.clone(), boot_id, seq });
            }
        }
        self.dirty.insert(device);
        Ok(())
    }

    fn switch(&mut self, device: usize, is_up: bool) -> Result<(), Error> {
        let events = self.store.outbox(device)?.events() as u64;
        let port = self.ports.device_mut(device)?;
        if std::mem::replace(&mut port.is_up, is_up) == is_up {
            return Ok(());
        }
        let (from, to) = match is_up {
            true => (&self.counters.parked, &self.counters.open),
            false => (&self.counters.open, &self.counters.parked),
        };
        Counters::subtract(from, events);
        Counters::add(to, events);
        if is_up {
            if self.ports.is_connected(device) {
                self.join(device)?;
            }
            return Ok(());
        }
        port.sender.disconnected();
        self.announce(device, State::Lost)
    }

    fn receipt(&mut self, topic: &[u8], payload: &[u8]) -> Result<(), Error> {
        let device = std::str::from_utf8(topic).ok().and_then(|topic| self.by_topic.get(topic).copied());
        let Some(device) = device else { return Ok(()) };
        let port = self.ports.device_mut(device)?;
        if !port.is_up {
            // A device without its network hears nothing; it will send again.
            return Ok(());
        }
        let receipt = match port.profile.form {
            Form::Protobuf => v1::Receipt::decode(payload).ok(),
            Form::Json => json::from_json(payload, "Receipt").ok().map(|read| read.message),
        };
        let Some(receipt) = receipt else {
            tracing::warn!(device = %self.store.identity(device)?, "receipt not understood");
            return Ok(());
        };
        if receipt.code() == ReceiptCode::Rejected && port.refused(&receipt.payload_sha256) {
            Counters::add(&self.counters.refused, 1);
            return Ok(());
        }
        let now = self.start.elapsed();
        let settlement = port.sender.receipt(&receipt, now, self.store.outbox_mut(device)?);
        self.store.settled(device, receipt.boot_id, &settlement)?;
        Counters::add(&self.counters.receipted, settlement.stored_events);
        Counters::subtract(&self.counters.open, settlement.stored_events);
        if let Some(rejected) = &settlement.rejected {
            let events = self.store.reject(device, rejected)? as u64;
            Counters::add(&self.counters.rejected, events);
            Counters::subtract(&self.counters.open, events);
            let identity = self.store.identity(device)?.clone();
            tracing::warn!(device = %identity, reason = %rejected.reason, events, "report rejected");
            if let Some(range) = rejected.range {
                let (boot_id, reason) = (rejected.boot_id, rejected.reason.clone());
                (self.observer)(Notice::Rejected { identity, boot_id, range, reason });
            }
        }
        self.dirty.insert(device);
        Ok(())
    }
}
