//! One MQTT connection that receives.
//!
//! One task owns the link, the ring and the receiver of confirmed slots, so receiving and
//! acknowledging need no lock between them. If the network connection fails, the acknowledgements
//! that were not written are lost with it. A message that was received before the failure still
//! goes to Kafka, but is not acknowledged: the broker delivers it again on the next connection.

use std::{
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use rumqttc::v5::mqttbytes::{
    QoS,
    v5::{Packet, PubAck, Publish, SubAck},
};
use service::backoff::Backoff;
use telemetry::topic::Channel;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    admit::{Destination, admit_registered, clears_status},
    confirmations::OnConfirm,
    health::{Health, remedy},
    metrics::Metrics,
    mqtt_link::{Link, Purpose, RETRY_FIRST, RETRY_MOST},
    options::Options,
    receipts::ReceiptQueue,
    record::Record,
    ring::{Ring, Slot},
    sink::Sink,
    subscription,
};

/// Memory of a message beside its topic and payload, bytes: key, headers, receipt, bookkeeping.
const MESSAGE_OVERHEAD_BYTES: usize = 512;
/// Most confirmations taken at once before the acknowledgements go out.
const CONFIRMED_BATCH: usize = 256;

/// What the connections of one bridge share.
pub(crate) struct Shared {
    pub options: Arc<Options>,
    pub sink: Arc<Sink>,
    pub receipts: Option<ReceiptQueue>,
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
    /// Slots whose records Kafka has confirmed; at most one for each message in flight.
    confirmed: (mpsc::UnboundedSender<Slot>, mpsc::UnboundedReceiver<Slot>),
    /// Slots received together.
    slots: Vec<Slot>,
    backoff: Backoff,
    /// The unreadable delivery that ended this network connection.
    unreadable: Option<String>,
    /// Whether the broker has granted the subscription since the start.
    was_granted: bool,
    /// When the subscription was lost; none while it holds.
    lost_at: Option<Instant>,
    /// The last unreadable delivery that ended an earlier network connection.
    stumbled_over: Option<String>,
}

impl Connection {
    pub fn new(index: u16, shared: Arc<Shared>) -> Self {
        Self {
            index,
            shared,
            ring: Ring::default(),
            confirmed: mpsc::unbounded_channel(),
            slots: Vec::with_capacity(CONFIRMED_BATCH),
            backoff: Backoff::new(RETRY_FIRST, RETRY_MOST),
            was_granted: false,
            lost_at: None,
            unreadable: None,
            stumbled_over: None,
        }
    }

    /// Receives until shutdown, over as many network connections as it takes.
    pub async fn run(mut self) {
        while !self.shared.shutdown.is_cancelled() {
            let Err(reason) = self.serve_link().await else { return };
            // No message of this network connection may be acknowledged on the next.
            self.ring.reconnect();
            if self.was_granted {
                self.lost_at.get_or_insert_with(Instant::now);
            }
            self.shared.metrics.reconnects.inc();
            self.notice_what_stops_it();
            if self.shared.health.link_down(self.index.into(), &reason) {
                tracing::warn!(connection = self.index, reason, "MQTT connection failed; retrying");
            }
            tokio::select! {
                () = tokio::time::sleep(self.backoff.pause()) => {}
                () = self.shared.shutdown.cancelled() => {}
            }
        }
    }

    /// The broker delivers an unreadable message again, and nothing behind it. If the same delivery
    /// ends a second connection, a person must learn of it.
    fn notice_what_stops_it(&mut self) {
        let Some(unreadable) = self.unreadable.take() else { return };
        if self.stumbled_over.as_ref() == Some(&unreadable) {
            self.shared.metrics.undeliverable.inc();
            if self.shared.health.stopped_by(self.index.into(), &unreadable) {
                let connection = self.index;
                tracing::error!(
                    connection,
                    delivery = unreadable,
                    remedy = remedy(),
                    "a delivery ends the connection each time"
                );
            }
        }
        self.stumbled_over = Some(unreadable);
    }

    /// One network connection, from connect to disconnect (`Ok`) or failure.
    async fn serve_link(&mut self) -> Result<(), String> {
        let shared = Arc::clone(&self.shared);
        let purpose = Purpose::Receive { index: self.index };
        let (mut link, connack) = tokio::select! {
            opened = Link::open(&shared.options.mqtt, &purpose) => opened?,
            () = shared.shutdown.cancelled() => return Ok(()),
        };
        if self.was_granted && !connack.session_present {
            shared.metrics.sessions_lost.inc();
            let connection = self.index;
            tracing::error!(connection, "the broker has lost the bridge's session, and the messages that waited in it");
        }
        subscription::subscribe(&mut link, shared.options.mqtt.share_group.as_deref())?;
        loop {
            let draining = shared.shutdown.is_cancelled();
            if draining && (self.ring.is_empty() || shared.close.is_cancelled()) {
                while let Ok(slot) = self.confirmed.1.try_recv() {
                    self.ring.settle(slot);
                }
                self.acknowledge(&mut link)?;
                link.close().await;
                return Ok(());
            }
            tokio::select! {
                // Confirmed messages are acknowledged before the next message is read. The link
                // writes when nothing is left to read.
                biased;
                _ = self.confirmed.1.recv_many(&mut self.slots, CONFIRMED_BATCH) => {
                    for slot in self.slots.drain(..) {
                        self.ring.settle(slot);
                    }
                    self.acknowledge(&mut link)?;
                }
                packet = link.next() => match packet.inspect_err(|_| self.unreadable = link.unreadable())? {
                    Packet::SubAck(suback) => self.granted(&mut link, &suback)?,
                    Packet::Publish(publish) if !draining => tokio::select! {
                        biased;
                        () = self.ingest(&publish) => {}
                        never = link.hold() => match never {},
                    },
                    _ => {}
                },
                () = shared.shutdown.cancelled(), if !draining => {}
                () = shared.close.cancelled(), if draining => {}
            }
        }
    }

    /// Acknowledges the contiguous head.
    fn acknowledge(&mut self, link: &mut Link) -> Result<(), String> {
        for pkid in self.ring.head() {
            link.send(Packet::PubAck(PubAck::new(pkid, None)))?;
            self.shared.metrics.acknowledged.inc();
        }
        Ok(())
    }

    fn granted(&mut self, link: &mut Link, suback: &SubAck) -> Result<(), String> {
        subscription::granted(link, suback, self.shared.options.mqtt.share_group.as_deref())?;
        self.backoff.reset();
        self.was_granted = true;
        if let Some(lost_at) = self.lost_at.take() {
            self.shared.metrics.unsubscribed.inc_by(lost_at.elapsed().as_secs_f64());
        }
        if self.shared.health.link_up(self.index.into()) {
            tracing::info!(connection = self.index, "MQTT connected and subscribed");
        }
        Ok(())
    }

    /// Sends one message to Kafka. It waits until there is room, which slows the broker down. At
    /// shutdown it gives up, and the message stays unacknowledged.
    async fn ingest(&mut self, publish: &Publish) {
        let shared = Arc::clone(&self.shared);
        if clears_status(&publish.topic, &publish.payload) {
            shared.metrics.received(Some(Channel::Status), 0);
            if publish.qos == QoS::AtLeastOnce {
                let slot = self.ring.push(publish.pkid);
                // The receiver is this connection's own, so it exists.
                let _ = self.confirmed.0.send(slot);
            }
            return;
        }
        let taken = async {
            let Some((record, on_confirm)) = self.take(publish).await else { return };
            shared.sink.submit(record, on_confirm).await;
        };
        tokio::select! {
            biased;
            () = taken => {}
            () = shared.shutdown.cancelled() => {}
        }
    }

    /// The record of a message, and what happens when Kafka has confirmed it. `None` at shutdown,
    /// while there is no room.
    ///
    /// For a protobuf report of injections it allocates nothing once there are confirmed records to
    /// fill again.
    pub(crate) async fn take(&mut self, publish: &Publish) -> Option<(Arc<Record>, OnConfirm)> {
        let shared = &self.shared;
        let received = Instant::now();
        let received_at_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64);
        let permit = self.budgeted(publish).await?;
        // The borrow must not be held over the awaits below: the registry is replaced meanwhile.
        let registry = shared.options.registry.as_ref().and_then(|current| current.borrow().clone());
        let mut admitted = admit_registered(&publish.topic, &publish.payload, registry.as_deref());
        shared.metrics.received(admitted.channel, publish.payload.len());
        shared.metrics.unknown_fields.inc_by(admitted.unknown as u64);
        if let Destination::Quarantine(reason) = admitted.destination {
            let count = shared.metrics.rejected(reason);
            // Only the 1st, 2nd, 4th, ...: a device that sends bad messages without end must not
            // fill the log.
            if count.is_power_of_two() {
                let topic = String::from_utf8_lossy(&publish.topic);
                tracing::warn!(%topic, %reason, detail = admitted.detail, count, "message quarantined");
            }
        }
        let receipt = match (&shared.receipts, admitted.receipt.take()) {
            (Some(queue), Some(receipt)) => queue.reserve(receipt).await,
            _ => None,
        };
        let properties = publish.properties.as_ref().map_or(&[][..], |properties| &properties.user_properties);
        let record = shared.sink.record(|record| record.fill(&admitted, &publish.topic, received_at_us, properties));
        let acknowledged = publish.qos == QoS::AtLeastOnce;
        let slot = acknowledged.then(|| (self.confirmed.0.clone(), self.ring.push(publish.pkid)));
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
