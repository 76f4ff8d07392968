//! Receipts, sent through an MQTT client of their own.
//!
//! A place in the desk is reserved before a message goes to Kafka, so the queue is bounded and a slow broker slows the
//! source. Only for a while: where the broker takes no receipts at all, messages go on without them, counted. A receipt
//! left out is harmless, since the device sends again; data held back would not be.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rumqttc::{
    Outgoing,
    v5::{
        AsyncClient, ConnectionError, Event, EventLoop,
        mqttbytes::{
            QoS,
            v5::{Packet, PubAckReason},
        },
    },
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    admit::Receipt,
    backoff::Backoff,
    broker::{self, Purpose},
    health::Health,
    metrics::Metrics,
    options::Options,
};

/// How long a message waits for a place before it goes on without a receipt.
const PLACE_WITHIN: Duration = Duration::from_secs(2);
/// Most receipts handed to the client and not acknowledged by the broker.
const WINDOW: u16 = 512;

/// A receipt with its place in the queue.
pub(crate) struct Due {
    receipt: Receipt,
    desk: mpsc::UnboundedSender<Due>,
    _place: OwnedSemaphorePermit,
}

impl Due {
    /// Queues the receipt: Kafka has confirmed the record.
    pub fn send(self) {
        let desk = self.desk.clone();
        // The desk is gone only at the end; the device then sends again.
        let _ = desk.send(self);
    }
}

/// Where receipts are handed in.
#[derive(Clone)]
pub(crate) struct Desk {
    places: Arc<Semaphore>,
    /// At most one entry for each place.
    queue: mpsc::UnboundedSender<Due>,
    /// No place came free in time, and none has since.
    stuck: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
}

impl Desk {
    pub fn new(places: usize, metrics: Arc<Metrics>) -> (Self, mpsc::UnboundedReceiver<Due>) {
        let (queue, receiver) = mpsc::unbounded_channel();
        let places = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        (Self { places, queue, stuck: Arc::default(), metrics }, receiver)
    }

    /// Takes a place for a receipt that will be due; `None` where there is none in time: it is left out.
    pub async fn reserve(&self, receipt: Receipt) -> Option<Due> {
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
                Some(Due { receipt, desk: self.queue.clone(), _place: place })
            }
            None => {
                if !self.stuck.swap(true, Ordering::Relaxed) {
                    tracing::error!(
                        "the broker takes no receipts; messages go on without, and devices will send again"
                    );
                }
                self.metrics.receipts_dropped.inc();
                None
            }
        }
    }
}

/// Sends what is handed in at the [`Desk`].
pub(crate) struct Clerk {
    pub options: Arc<Options>,
    pub queue: mpsc::UnboundedReceiver<Due>,
    /// Index of the connection in [`Health`].
    pub link: usize,
    pub health: Arc<Health>,
    pub metrics: Arc<Metrics>,
    /// Nothing more will be handed in: send what is left, then end.
    pub finish: CancellationToken,
}

/// What is under way on one network connection.
#[derive(Default)]
struct Window {
    /// Handed to the client, in order; their packet ids are not known yet.
    handed: VecDeque<Due>,
    /// Sent, by packet id.
    sent: HashMap<u16, Due>,
}

impl Window {
    fn len(&self) -> usize {
        self.handed.len() + self.sent.len()
    }

    /// Everything under way, to be sent again.
    fn take(&mut self) -> Vec<Due> {
        self.sent.drain().map(|(_, due)| due).chain(self.handed.drain(..)).collect()
    }
}

impl Clerk {
    /// Sends until `finish`, over as many connections as it takes.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        let mut again: VecDeque<Due> = VecDeque::new();
        loop {
            let purpose = Purpose::Receipts { window: WINDOW };
            let reason = match broker::client(&self.options.mqtt, &purpose) {
                Ok((client, eventloop)) => match self.serve(client, eventloop, &mut again, &mut backoff).await {
                    Ok(()) => return,
                    Err(error) => broker::reason(&error),
                },
                Err(reason) => reason,
            };
            self.metrics.reconnects.inc();
            if self.health.link_down(self.link, &reason) {
                tracing::warn!(connection = "receipts", reason, "MQTT connection failed; retrying");
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                () = self.finish.cancelled() => return,
            }
        }
    }

    /// One network connection. What the broker has not acknowledged at its end is in `again`.
    async fn serve(
        &mut self,
        client: AsyncClient,
        mut eventloop: EventLoop,
        again: &mut VecDeque<Due>,
        backoff: &mut Backoff,
    ) -> Result<(), ConnectionError> {
        let mut window = Window::default();
        let (mut connected, mut finishing, mut leaving) = (false, false, false);
        loop {
            // A dropped poll loses what it had taken from the socket: the future is kept until it has an answer.
            let polled = {
                let poll = eventloop.poll();
                tokio::pin!(poll);
                loop {
                    if finishing
                        && connected
                        && !leaving
                        && again.is_empty()
                        && window.len() == 0
                        && self.queue.is_empty()
                    {
                        leaving = client.try_disconnect().is_ok();
                    }
                    let room = connected && window.len() < usize::from(WINDOW);
                    if room && let Some(due) = again.pop_front() {
                        hand_over(&client, &mut window, due);
                        continue;
                    }
                    tokio::select! {
                        polled = &mut poll => break polled,
                        Some(due) = self.queue.recv(), if room => hand_over(&client, &mut window, due),
                        () = self.finish.cancelled(), if !connected => return Ok(()),
                        () = self.finish.cancelled(), if !finishing => finishing = true,
                    }
                }
            };
            match polled {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    connected = true;
                    backoff.reset();
                    if self.health.link_up(self.link) {
                        tracing::info!(connection = "receipts", "MQTT connected");
                    }
                }
                Ok(Event::Outgoing(Outgoing::Publish(packet_id))) => {
                    if let Some(due) = window.handed.pop_front() {
                        window.sent.insert(packet_id, due);
                    }
                }
                Ok(Event::Incoming(Packet::PubAck(ack))) => {
                    if let Some(due) = window.sent.remove(&ack.pkid) {
                        self.count(&due.receipt, ack.reason);
                    }
                }
                Ok(Event::Outgoing(Outgoing::Disconnect)) => return Ok(()),
                Ok(_) => {}
                Err(_) if leaving => return Ok(()),
                Err(error) => {
                    again.extend(window.take());
                    return Err(error);
                }
            }
        }
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

fn hand_over(client: &AsyncClient, window: &mut Window, due: Due) {
    // The request queue is larger than the window and the topic was built from valid ids: this cannot fail.
    if client.try_publish(due.receipt.topic.as_str(), QoS::AtLeastOnce, false, due.receipt.payload()).is_ok() {
        window.handed.push_back(due);
    }
}
