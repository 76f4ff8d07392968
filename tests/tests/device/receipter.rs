//! Records every event that it receives and sends receipts, as the bridge does.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rumqttc::v5::{
    AsyncClient, Event, MqttOptions,
    mqttbytes::{
        QoS,
        v5::{Filter, Packet, Publish},
    },
};
use sha2::{Digest as _, Sha256};
use telemetry::{
    json, receipt,
    reject::Reject,
    report::Report,
    status,
    topic::{Channel, SUBSCRIPTIONS, Topic},
    v1::{self, State},
};

/// Device, boot and sequence number.
pub type Key = (String, u64, u64);

/// How the receipter misbehaves.
#[derive(Clone, Copy, Default)]
pub struct Temper {
    /// The share of receipts that it withholds.
    pub forgets: f64,
    pub seed: u64,
}

/// An event, as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrived {
    pub at_unix_us: Option<i64>,
    pub event: v1::Event,
    pub context: v1::Context,
}

#[derive(Default)]
pub struct Seen {
    pub events: BTreeMap<Key, Arrived>,
    pub lost: BTreeSet<Key>,
    /// The last sequence number of each (device, boot), according to later boots.
    pub ends: BTreeMap<(String, u64), u64>,
    /// SHA-256 of each refused payload, with the reason.
    pub refused: BTreeMap<Vec<u8>, &'static str>,
    pub states: BTreeMap<String, State>,
}

/// A server that only sends receipts.
pub struct Receipter {
    seen: Arc<Mutex<Seen>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Receipter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receipter {
    /// Starts it, and returns once it is subscribed.
    pub async fn start(port: u16, temper: Temper) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (subscribed, is_subscribed) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(serve(port, temper, Arc::clone(&seen), subscribed));
        is_subscribed.await.expect("the receipter subscribes");
        Self { seen, task }
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    pub async fn until(&self, what: &str, reached: impl Fn(&Seen) -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
        while !reached(&self.seen()) {
            assert!(tokio::time::Instant::now() < deadline, "waited for {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn serve(port: u16, temper: Temper, seen: Arc<Mutex<Seen>>, subscribed: tokio::sync::oneshot::Sender<()>) {
    let (mut random, mut subscribed) = (StdRng::seed_from_u64(temper.seed), Some(subscribed));
    loop {
        let mut options = MqttOptions::new("receipter", "127.0.0.1", port);
        options.set_clean_start(false);
        options.set_session_expiry_interval(Some(600));
        options.set_max_packet_size(Some(2 << 20));
        let (client, mut eventloop) = AsyncClient::new(options, 100_000);
        loop {
            match eventloop.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    let filters = SUBSCRIPTIONS.iter().map(|filter| Filter::new(*filter, QoS::AtLeastOnce));
                    client.try_subscribe_many(filters).expect("subscribe");
                }
                Ok(Event::Incoming(Packet::SubAck(_))) => {
                    if let Some(subscribed) = subscribed.take() {
                        let _ = subscribed.send(());
                    }
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let answer = seen.lock().unwrap().take(&publish);
                    if let Some((topic, payload)) = answer.filter(|_| random.random::<f64>() >= temper.forgets) {
                        client.try_publish(topic, QoS::AtLeastOnce, false, payload).expect("publish a receipt");
                    }
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Seen {
    /// Handles a message, and returns the topic and payload of its receipt.
    fn take(&mut self, publish: &Publish) -> Option<(String, Vec<u8>)> {
        let topic = std::str::from_utf8(&publish.topic).expect("a topic is text");
        let parsed = match Topic::parse(topic) {
            Ok(parsed) => parsed,
            Err(reject) => {
                self.refuse(&publish.payload, &reject);
                return None;
            }
        };
        let report = match parsed.channel {
            Channel::Status => {
                match status::parse(&publish.payload).map(|(status, _)| status) {
                    Ok(status) => drop(self.states.insert(parsed.device.to_owned(), status.state())),
                    Err(reject) => self.refuse(&publish.payload, &reject),
                }
                return None;
            }
            Channel::Report => Report::decode(&publish.payload),
            Channel::ReportJson => {
                json::transcode_report(&publish.payload).and_then(|read| Report::decode(&read.message))
            }
        };
        let receipt = match report {
            Ok(report) => {
                self.store(parsed.device, &report);
                receipt::stored(report.boot_id(), report.sequence())
            }
            Err(reject) => {
                self.refuse(&publish.payload, &reject);
                receipt::rejected(&publish.payload, reject.reason)
            }
        };
        Some((parsed.receipt()?.to_string(), receipt::encode(&receipt, parsed.channel)))
    }

    fn refuse(&mut self, payload: &[u8], reject: &Reject) {
        self.refused.insert(Sha256::digest(payload).to_vec(), reject.reason.as_str());
    }

    fn store(&mut self, device: &str, report: &Report) {
        let (boot_id, message) = (report.boot_id(), report.message());
        for (index, event) in message.events.iter().enumerate().filter(|_| report.sequence().is_some()) {
            let is_synced = message.clock() == v1::Clock::Synced;
            let at_unix_us = is_synced.then(|| message.base_unix_us + event.offset_us as i64);
            // A time beyond the calendar counts as absent.
            let at_unix_us = at_unix_us.filter(|at| *at < telemetry::limits::UNIX_US_MAX);
            let arrived = Arrived {
                at_unix_us,
                event: v1::Event { offset_us: 0, ..event.clone() },
                context: report.context().map(|context| v1::Context::clone(context)).unwrap_or_default(),
            };
            let key = (device.to_owned(), boot_id, message.first_seq + index as u64);
            // A repeated event must have the same content.
            let known = self.events.entry(key.clone()).or_insert_with(|| arrived.clone());
            assert_eq!(*known, arrived, "{key:?}");
        }
        for lost in &message.lost {
            self.lost.extend((lost.first_seq..=lost.last_seq).map(|seq| (device.to_owned(), boot_id, seq)));
        }
        for boot in &message.earlier_boots {
            let end = self.ends.entry((device.to_owned(), boot.boot_id)).or_default();
            *end = boot.last_seq.max(*end);
        }
    }
}
