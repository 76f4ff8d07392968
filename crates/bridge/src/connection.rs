//! One MQTT connection that receives.
//!
//! One task owns the event loop, the ring and the connection's end of the confirmations, so there is no lock between
//! acknowledger and receiver: with a new network connection comes a new event loop, and with it goes everything that the
//! old one had buffered, acknowledgements included. Messages it had buffered go to Kafka unacknowledged; the broker
//! delivers them again.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rumqttc::{
    Outgoing,
    v5::{
        AsyncClient, ConnectionError, Event, EventLoop,
        mqttbytes::{
            QoS,
            v5::{Filter, Packet, Publish, RetainForwardRule, SubAck, SubscribeReasonCode},
        },
    },
};
use telemetry::topic::SUBSCRIPTIONS;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    admit::{Destination, admit_registered},
    backoff::Backoff,
    broker::{self, Purpose},
    desk::Desk,
    health::Health,
    metrics::Metrics,
    options::Options,
    record::Record,
    ring::{Ring, Slot},
    sink::{OnConfirm, Sink},
};

/// What a message costs beside its topic and payload, bytes: key, headers, receipt, bookkeeping.
const MESSAGE_OVERHEAD_BYTES: usize = 512;
/// Most confirmations taken at once before the acknowledgements go out.
const SETTLE_BATCH: usize = 256;

/// What the connections of one bridge share.
pub(crate) struct Shared {
    pub options: Arc<Options>,
    pub sink: Arc<Sink>,
    pub desk: Option<Desk>,
    /// Bytes that may be in flight.
    pub budget: Arc<Semaphore>,
    pub health: Arc<Health>,
    pub metrics: Arc<Metrics>,
    /// Stop receiving; acknowledge what is confirmed.
    pub shutdown: CancellationToken,
    /// Disconnect, whatever is left.
    pub close: CancellationToken,
}

/// One receiving connection.
pub(crate) struct Connection {
    index: u16,
    shared: Arc<Shared>,
    ring: Ring<u16>,
    /// Bounded by what is in flight: one entry for each message.
    settled: (mpsc::UnboundedSender<Slot>, mpsc::UnboundedReceiver<Slot>),
    /// Taken from there at once.
    slots: Vec<Slot>,
    backoff: Backoff,
}

/// How far one network connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No CONNACK yet.
    Connecting,
    Receiving,
    /// No new messages; waiting for confirmations.
    Draining,
    /// DISCONNECT is on its way.
    Leaving,
}

impl Connection {
    pub fn new(index: u16, shared: Arc<Shared>) -> Self {
        Self {
            index,
            shared,
            ring: Ring::default(),
            settled: mpsc::unbounded_channel(),
            slots: Vec::with_capacity(SETTLE_BATCH),
            backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(10)),
        }
    }

    /// Receives until shutdown, over as many network connections as it takes.
    pub async fn run(mut self) {
        while !self.shared.shutdown.is_cancelled() {
            let Err(reason) = self.session().await else { return };
            // Before anything of the next connection: nothing of this one may be acknowledged there.
            self.ring.reconnect();
            self.shared.metrics.reconnects.inc();
            if self.shared.health.link_down(self.index.into(), &reason) {
                tracing::warn!(connection = self.index, reason, "MQTT connection failed; retrying");
            }
            tokio::select! {
                () = tokio::time::sleep(self.backoff.next()) => {}
                () = self.shared.shutdown.cancelled() => {}
            }
        }
    }

    /// One network connection, from connect to disconnect (`Ok`) or failure.
    async fn session(&mut self) -> Result<(), String> {
        let purpose = Purpose::Receive { index: self.index };
        let (client, mut eventloop) = broker::client(&self.shared.options.mqtt, &purpose)?;
        let mut phase = Phase::Connecting;
        loop {
            let event = match self.next(&client, &mut eventloop, &mut phase).await {
                Ok(event) => event,
                Err(_) if phase == Phase::Leaving => return Ok(()),
                Err(error) => {
                    self.rescue(&mut eventloop).await;
                    return Err(broker::reason(&error));
                }
            };
            let handled = match event {
                Event::Incoming(Packet::ConnAck(_)) => {
                    phase = Phase::Receiving;
                    self.subscribe(&client)
                }
                Event::Incoming(Packet::SubAck(suback)) => self.granted(&suback),
                Event::Incoming(Packet::Publish(publish)) => {
                    if phase == Phase::Receiving {
                        self.ingest(&publish, true).await;
                    }
                    Ok(())
                }
                Event::Outgoing(Outgoing::Disconnect) => return Ok(()),
                _ => Ok(()),
            };
            if let Err(reason) = handled {
                self.rescue(&mut eventloop).await;
                return Err(reason);
            }
        }
    }

    /// The next event. Meanwhile acknowledges what gets confirmed: the poll is kept until it has an answer, because a
    /// dropped one loses what it had dequeued, and the requests go to its queue without waiting.
    async fn next(
        &mut self,
        client: &AsyncClient,
        eventloop: &mut EventLoop,
        phase: &mut Phase,
    ) -> Result<Event, ConnectionError> {
        let shared = Arc::clone(&self.shared);
        let poll = eventloop.poll();
        tokio::pin!(poll);
        loop {
            let drained = *phase == Phase::Draining && (self.ring.is_empty() || shared.close.is_cancelled());
            if drained && client.try_disconnect().is_ok() {
                *phase = Phase::Leaving;
            }
            tokio::select! {
                event = &mut poll => return event,
                _ = self.settled.1.recv_many(&mut self.slots, SETTLE_BATCH) => {
                    for slot in self.slots.drain(..) {
                        self.ring.settle(slot);
                    }
                    self.acknowledge(client);
                }
                () = shared.shutdown.cancelled(), if *phase == Phase::Receiving => *phase = Phase::Draining,
                () = shared.shutdown.cancelled(), if *phase == Phase::Connecting => {
                    *phase = Phase::Leaving;
                    return Err(ConnectionError::RequestsDone);
                }
                () = shared.close.cancelled(), if *phase == Phase::Draining => {}
            }
        }
    }

    /// Acknowledges the contiguous head. The request queue has room for every packet id there is.
    fn acknowledge(&mut self, client: &AsyncClient) {
        let mut acknowledged = 0;
        for pkid in self.ring.head() {
            let publish = Publish { qos: QoS::AtLeastOnce, pkid, ..Publish::default() };
            // Fails only when the event loop is gone, and with it the connection.
            acknowledged += u64::from(client.try_ack(&publish).is_ok());
        }
        self.shared.metrics.acknowledged.inc_by(acknowledged);
    }

    /// Subscribes, also where the broker has kept the session: Mosquitto 2.0 keeps a session over a restart and forgets its
    /// shared subscriptions, and an earlier version of this bridge may have subscribed to other filters.
    fn subscribe(&self, client: &AsyncClient) -> Result<(), String> {
        let group = &self.shared.options.mqtt.share_group;
        let filters = SUBSCRIPTIONS.map(|filter| Filter {
            // A shared subscription gets no retained messages at all; should a broker send them, then at most once.
            retain_forward_rule: RetainForwardRule::OnNewSubscribe,
            ..Filter::new(format!("$share/{group}/{filter}"), QoS::AtLeastOnce)
        });
        client.try_subscribe_many(filters).map_err(|error| format!("subscribe: {error}"))
    }

    fn granted(&mut self, suback: &SubAck) -> Result<(), String> {
        for (code, filter) in suback.return_codes.iter().zip(SUBSCRIPTIONS) {
            match code {
                SubscribeReasonCode::Success(QoS::AtLeastOnce | QoS::ExactlyOnce) => {}
                SubscribeReasonCode::Success(QoS::AtMostOnce) => {
                    return Err(format!("the broker grants only QoS 0 for {filter}"));
                }
                code => return Err(format!("the broker refuses the subscription to {filter}: {code:?}")),
            }
        }
        self.backoff.reset();
        if self.shared.health.link_up(self.index.into()) {
            tracing::info!(connection = self.index, "MQTT connected and subscribed");
        }
        Ok(())
    }

    /// What the event loop had received and not delivered when its connection ended: into Kafka, never acknowledged.
    async fn rescue(&mut self, eventloop: &mut EventLoop) {
        for event in std::mem::take(&mut eventloop.state.events) {
            if let Event::Incoming(Packet::Publish(publish)) = event
                && !self.shared.shutdown.is_cancelled()
            {
                self.ingest(&publish, false).await;
            }
        }
    }

    /// Takes one message on its way to Kafka. Waits for room, which is what slows the broker down; gives up at shutdown,
    /// the message being unacknowledged.
    async fn ingest(&mut self, publish: &Publish, acknowledge: bool) {
        let shared = Arc::clone(&self.shared);
        let taken = async {
            let Some((record, on_confirm)) = self.take(publish, acknowledge).await else { return };
            shared.sink.submit(record, on_confirm).await;
        };
        tokio::select! {
            biased;
            () = taken => {}
            () = shared.shutdown.cancelled() => {}
        }
    }

    /// The record of a message, and what happens when Kafka has confirmed it. None at the end, when there is no room.
    ///
    /// Allocates nothing for a protobuf report of injections, once records that were confirmed can be filled again.
    pub(crate) async fn take(&mut self, publish: &Publish, acknowledge: bool) -> Option<(Arc<Record>, OnConfirm)> {
        let shared = &self.shared;
        let received = Instant::now();
        let received_at_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64);
        let permit = self.budgeted(publish).await?;
        // Not held over the awaits below: it is replaced while messages wait.
        let registry = shared.options.registry.as_ref().and_then(|current| current.borrow().clone());
        let mut admitted = admit_registered(&publish.topic, &publish.payload, registry.as_deref());
        shared.metrics.received(admitted.channel, publish.payload.len());
        shared.metrics.unknown_fields.inc_by(admitted.unknown as u64);
        if let Destination::Quarantine(reason) = admitted.destination {
            let count = shared.metrics.rejected(reason);
            // The 1st, 2nd, 4th, ...: a device gone mad must not fill the log.
            if count.is_power_of_two() {
                let topic = String::from_utf8_lossy(&publish.topic);
                tracing::warn!(%topic, %reason, detail = admitted.detail, count, "message quarantined");
            }
        }
        let receipt = match (&shared.desk, admitted.receipt.take()) {
            (Some(desk), Some(receipt)) => desk.reserve(receipt).await,
            _ => None,
        };
        let properties = publish.properties.as_ref().map_or(&[][..], |properties| &properties.user_properties);
        let record = shared.sink.record(|record| record.fill(&admitted, &publish.topic, received_at_us, properties));
        let acknowledged = acknowledge && publish.qos == QoS::AtLeastOnce;
        let slot = acknowledged.then(|| (self.settled.0.clone(), self.ring.push(publish.pkid)));
        Some((record, OnConfirm { slot, receipt, received, permit }))
    }

    async fn budgeted(&self, publish: &Publish) -> Option<OwnedSemaphorePermit> {
        let cost = publish.payload.len() + publish.topic.len() + MESSAGE_OVERHEAD_BYTES;
        let cost = u32::try_from(cost.min(self.shared.options.limits.in_flight_bytes)).unwrap_or(u32::MAX);
        Arc::clone(&self.shared.budget).acquire_many_owned(cost).await.ok()
    }
}

#[cfg(feature = "contract")]
pub mod path;
#[cfg(test)]
mod tests;
