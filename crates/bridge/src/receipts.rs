//! Receipts, sent over an MQTT connection of their own.
//!
//! A message reserves a place in the queue of receipts before its record goes to Kafka. The queue
//! is therefore bounded, and a broker that takes receipts slowly slows the bridge down. If no place
//! becomes free for a while, the message goes on without a receipt, and a metric counts it. A
//! missing receipt is harmless, because the device sends the report again; a report held back would
//! not be harmless.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rumqttc::v5::mqttbytes::{
    QoS,
    v5::{Packet, PubAckReason, Publish},
};
use service::backoff::Backoff;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    admit::Receipt,
    health::Health,
    metrics::Metrics,
    mqtt_link::{Link, Purpose, RETRY_FIRST, RETRY_MOST},
    options::Options,
};

/// How long a message waits for a place before it goes on without a receipt.
const PLACE_WITHIN: Duration = Duration::from_secs(2);
/// Most receipts sent and not acknowledged by the broker.
const WINDOW: u16 = 512;

/// A receipt with its place in the queue.
pub(crate) struct PendingReceipt {
    receipt: Receipt,
    queue: mpsc::UnboundedSender<PendingReceipt>,
    _place: OwnedSemaphorePermit,
}

impl PendingReceipt {
    /// Queues the receipt: Kafka has confirmed the record.
    pub fn send(self) {
        let queue = self.queue.clone();
        // The receiver is gone only at shutdown; the device then sends the report again.
        let _ = queue.send(self);
    }
}

/// The queue of receipts, for the connections that receive.
#[derive(Clone)]
pub(crate) struct ReceiptQueue {
    places: Arc<Semaphore>,
    /// At most one entry for each place.
    queue: mpsc::UnboundedSender<PendingReceipt>,
    /// No place became free in time, and none has since.
    stuck: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
}

impl ReceiptQueue {
    pub fn new(places: usize, metrics: Arc<Metrics>) -> (Self, mpsc::UnboundedReceiver<PendingReceipt>) {
        let (queue, receiver) = mpsc::unbounded_channel();
        let places = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        (Self { places, queue, stuck: Arc::default(), metrics }, receiver)
    }

    /// Reserves a place for a receipt. `None` if no place becomes free in time: the message then
    /// gets no receipt.
    pub async fn reserve(&self, receipt: Receipt) -> Option<PendingReceipt> {
        let place = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => Some(place),
            Err(_) if self.stuck.load(Ordering::Relaxed) => None,
            Err(_) => {
                let place = Arc::clone(&self.places).acquire_owned();
                tokio::time::timeout(PLACE_WITHIN, place).await.ok().and_then(Result::ok)
            }
        };
        match place {
            Some(place) => {
                self.stuck.store(false, Ordering::Relaxed);
                Some(PendingReceipt { receipt, queue: self.queue.clone(), _place: place })
            }
            None => {
                if !self.stuck.swap(true, Ordering::Relaxed) {
                    tracing::error!(
                        "the broker takes no receipts; messages go to kafka without receipts, and devices will send again"
                    );
                }
                self.metrics.receipts_dropped.inc();
                None
            }
        }
    }
}

/// Sends the receipts of the [`ReceiptQueue`] over one MQTT connection.
pub(crate) struct ReceiptSender {
    pub options: Arc<Options>,
    pub queue: mpsc::UnboundedReceiver<PendingReceipt>,
    /// Index of the connection in [`Health`].
    pub link: usize,
    pub health: Arc<Health>,
    pub metrics: Arc<Metrics>,
    /// No receipt follows: send what is left, then end.
    pub finish: CancellationToken,
}

/// The receipts sent on one network connection and not acknowledged by the broker, by packet id.
struct Window {
    sent: HashMap<u16, PendingReceipt>,
    /// Packet ids that are free.
    free: Vec<u16>,
}

impl Window {
    fn new(places: u16) -> Self {
        Self { sent: HashMap::new(), free: (1..=places).collect() }
    }

    fn remove(&mut self, id: u16) -> Option<PendingReceipt> {
        let due = self.sent.remove(&id)?;
        self.free.push(id);
        Some(due)
    }
}

impl ReceiptSender {
    /// Sends until `finish`, over as many connections as it takes.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST);
        let mut due = Vec::new();
        loop {
            let Err(reason) = self.session(&mut due, &mut backoff).await else { return };
            self.metrics.reconnects.inc();
            if self.health.link_down(self.link, &reason) {
                tracing::warn!(connection = "receipts", reason, "MQTT connection failed; retrying");
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.pause()) => {}
                () = self.finish.cancelled() => return,
            }
        }
    }

    /// One network connection, until `finish` (`Ok`) or failure. It sends the receipts in `due`. At
    /// its end, `due` holds those that the broker has not acknowledged.
    async fn session(&mut self, due: &mut Vec<PendingReceipt>, backoff: &mut Backoff) -> Result<(), String> {
        let (mut link, connack) = tokio::select! {
            opened = Link::open(&self.options.mqtt, &Purpose::Receipts) => opened?,
            () = self.finish.cancelled() => return Ok(()),
        };
        backoff.reset();
        if self.health.link_up(self.link) {
            tracing::info!(connection = "receipts", "MQTT connected");
        }
        let allowed = connack.properties.and_then(|properties| properties.receive_max);
        let mut window = Window::new(allowed.map_or(WINDOW, |allowed| allowed.clamp(1, WINDOW)));
        let sent = self.send(&mut link, &mut window, due).await;
        due.extend(window.sent.into_values());
        sent?;
        link.close().await;
        Ok(())
    }

    async fn send(
        &mut self,
        link: &mut Link,
        window: &mut Window,
        due: &mut Vec<PendingReceipt>,
    ) -> Result<(), String> {
        loop {
            // The order of receipts has no meaning.
            while let Some(&id) = window.free.last()
                && let Some(due) = due.pop()
            {
                if self.hand_over(link, id, &due.receipt) {
                    window.free.pop();
                    window.sent.insert(id, due);
                }
            }
            let finishing = self.finish.is_cancelled();
            if finishing && due.is_empty() && window.sent.is_empty() && self.queue.is_empty() {
                return Ok(());
            }
            let room = window.free.len();
            tokio::select! {
                biased;
                1.. = self.queue.recv_many(due, room), if room > 0 => {}
                packet = link.next() => {
                    if let Packet::PubAck(ack) = packet?
                        && let Some(due) = window.remove(ack.pkid)
                    {
                        self.count(&due.receipt, ack.reason);
                    }
                }
                () = self.finish.cancelled(), if !finishing => {}
            }
        }
    }

    /// Sends a receipt under a packet id. False if it cannot be sent; the metric counts it.
    fn hand_over(&self, link: &mut Link, id: u16, receipt: &Receipt) -> bool {
        let mut publish = Publish::new(receipt.topic.as_str(), QoS::AtLeastOnce, receipt.payload(), None);
        publish.pkid = id;
        let sent = link.send(Packet::Publish(publish));
        if let Err(reason) = &sent {
            self.metrics.receipts_dropped.inc();
            tracing::warn!(topic = %receipt.topic, reason, "a receipt cannot be sent");
        }
        sent.is_ok()
    }

    fn count(&self, receipt: &Receipt, reason: PubAckReason) {
        match reason {
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers => {
                self.metrics.receipt_sent(receipt.rejected())
            }
            reason => {
                self.metrics.receipts_dropped.inc();
                tracing::warn!(topic = %receipt.topic, ?reason, "the broker refuses a receipt; check its ACL");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rumqttc::v5::mqttbytes::v5::{ConnAckProperties, PubAck};
    use tokio::net::TcpListener;

    use super::*;
    use crate::{
        admit::admit_registered,
        peer::{Peer, WITHIN, listen},
    };

    struct Rig {
        listener: TcpListener,
        receipts: ReceiptQueue,
        metrics: Arc<Metrics>,
        finish: CancellationToken,
        running: tokio::task::JoinHandle<()>,
    }

    async fn rig() -> Rig {
        let (listener, options) = listen().await;
        let metrics = Arc::new(Metrics::new());
        let (receipts, queue) = ReceiptQueue::new(100, Arc::clone(&metrics));
        let health = Arc::new(Health::new(options.limits, 0, true));
        let finish = CancellationToken::new();
        let sender = ReceiptSender {
            options: Arc::new(options),
            queue,
            link: 0,
            health,
            metrics: Arc::clone(&metrics),
            finish: finish.clone(),
        };
        Rig { listener, receipts, metrics, finish, running: tokio::spawn(sender.run()) }
    }

    impl Rig {
        /// A receipt to the device of that name is due.
        async fn due(&self, device: &str) {
            let topic = format!("doseline/v1/acme/berlin/{device}/report");
            let receipt = admit_registered(topic.as_bytes(), b"garbage", None).receipt.unwrap();
            self.receipts.reserve(receipt).await.unwrap().send();
        }
    }

    /// Packet id and device of the next receipt.
    async fn receipt(peer: &mut Peer) -> (u16, String) {
        let Packet::Publish(publish) = peer.read().await else { panic!("no PUBLISH") };
        assert_eq!(publish.qos, QoS::AtLeastOnce);
        let topic = std::str::from_utf8(&publish.topic).unwrap();
        (publish.pkid, topic.split('/').nth(4).unwrap().to_owned())
    }

    fn allowed(receive_max: Option<u16>, max_packet_size: Option<u32>) -> Option<ConnAckProperties> {
        Some(ConnAckProperties {
            session_expiry_interval: None,
            receive_max,
            max_qos: None,
            retain_available: None,
            max_packet_size,
            assigned_client_identifier: None,
            topic_alias_max: None,
            reason_string: None,
            user_properties: Vec::new(),
            wildcard_subscription_available: None,
            subscription_identifiers_available: None,
            shared_subscription_available: None,
            server_keep_alive: None,
            response_information: None,
            server_reference: None,
            authentication_method: None,
            authentication_data: None,
        })
    }

    /// No more are under way than the broker takes, each under a packet id of its own; what it has
    /// not acknowledged when the connection ends is sent again; at the end nothing is left.
    #[tokio::test]
    async fn every_receipt_is_sent_until_the_broker_has_it() {
        let rig = rig().await;
        for device in ["a", "b", "c", "d", "e"] {
            rig.due(device).await;
        }
        let (mut peer, connect) = Peer::connect(&rig.listener, false, allowed(Some(2), None)).await;
        assert!(connect.clean_start && connect.client_id.ends_with("-receipts"));
        let (first, second) = (receipt(&mut peer).await, receipt(&mut peer).await);
        assert_ne!(first.0, second.0);
        peer.write(&[Packet::PubAck(PubAck::new(first.0, None))]).await;
        // The third could only follow the acknowledgement.
        let third = receipt(&mut peer).await;
        assert_eq!(third.0, first.0);
        drop(peer);
        let (mut peer, _) = Peer::connect(&rig.listener, false, None).await;
        let mut again = Vec::new();
        for _ in 0..4 {
            let (id, device) = receipt(&mut peer).await;
            again.push(device);
            peer.write(&[Packet::PubAck(PubAck::new(id, None))]).await;
        }
        again.push(first.1);
        again.sort();
        assert_eq!(again, ["a", "b", "c", "d", "e"]);
        rig.finish.cancel();
        assert!(matches!(peer.read().await, Packet::Disconnect(_)));
        tokio::time::timeout(WITHIN, rig.running).await.unwrap().unwrap();
        assert_eq!(rig.metrics.receipts_dropped.get(), 0);
    }

    /// A receipt that is larger than what the broker takes is left out and counted; the others are
    /// sent.
    #[tokio::test]
    async fn a_receipt_that_the_broker_would_not_take_is_left_out() {
        let rig = rig().await;
        let long = "d".repeat(60);
        for device in [&long, &long, "a"] {
            rig.due(device).await;
        }
        // Room for one at a time; what it refuses takes none.
        let (mut peer, _) = Peer::connect(&rig.listener, false, allowed(Some(1), Some(100))).await;
        let (id, device) = receipt(&mut peer).await;
        assert_eq!(device, "a");
        peer.write(&[Packet::PubAck(PubAck::new(id, None))]).await;
        rig.finish.cancel();
        assert!(matches!(peer.read().await, Packet::Disconnect(_)));
        assert_eq!(rig.metrics.receipts_dropped.get(), 2);
        tokio::time::timeout(WITHIN, rig.running).await.unwrap().unwrap();
    }
}
