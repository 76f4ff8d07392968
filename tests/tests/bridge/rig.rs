//! What the tests of the bridge share: a Kafka, a bridge in this process, and a publisher that
//! collects receipts.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bridge::{Bridge, Handle, Options};
use harness::{Kafka, Mosquitto, Record, poll};
use prost::Message as _;
use rumqttc::v5::{
    Client, Event, Incoming, MqttOptions,
    mqttbytes::{QoS, v5::Filter},
};
use telemetry::{
    json,
    kafka::Topics,
    v1::{self, event::Kind},
};
use tokio::{runtime::Runtime, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Long enough for a loaded machine.
pub const WITHIN: Duration = Duration::from_secs(180);
/// A bridge waits at most 3.4 s for others when it ends. Its own work takes longer on a loaded
/// machine. A bridge that wrongly waits for something takes minutes.
pub const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// A Kafka that all tests share, except those that damage theirs.
pub fn kafka() -> &'static Kafka {
    static KAFKA: OnceLock<Kafka> = OnceLock::new();
    KAFKA.get_or_init(Kafka::start)
}

/// Creates topics for one test alone.
pub fn topics(kafka: &Kafka) -> Topics {
    let topics = planned_topics();
    create(kafka, &topics);
    topics
}

pub fn planned_topics() -> Topics {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let test = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = |kind: &str| format!("test{test}.{kind}");
    Topics { reports: name("reports"), status: name("status"), quarantine: name("quarantine"), ..Topics::default() }
}

pub fn create(kafka: &Kafka, topics: &Topics) {
    let bytes = (bridge::PACKET_BYTES_MAX + bridge::RECORD_OVERHEAD_BYTES).to_string();
    for topic in [&topics.reports, &topics.status, &topics.quarantine] {
        kafka.create_topic(topic, 3, &[("max.message.bytes", &bytes)]);
    }
}

/// Options for a bridge between this broker and this Kafka.
pub fn options(mosquitto: &Mosquitto, bootstrap: &str, topics: &Topics) -> Options {
    let mut options = Options { http: Some(([127, 0, 0, 1], 0).into()), ..Options::default() };
    "127.0.0.1".clone_into(&mut options.mqtt.host);
    options.mqtt.port = mosquitto.port();
    bootstrap.clone_into(&mut options.kafka.brokers);
    options.kafka.topics = topics.clone();
    options.limits.unconfirmed_age = Duration::from_secs(2);
    options
}

/// A bridge that runs in this process.
pub struct Running {
    runtime: Option<Runtime>,
    pub handle: Handle,
    shutdown: CancellationToken,
    task: Option<JoinHandle<Result<(), bridge::Error>>>,
}

impl Running {
    pub fn start(options: Options) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("bridge")
            .enable_all()
            .build()
            .expect("start a runtime");
        let entered = runtime.enter();
        let bridge = Bridge::new(options).expect("valid options");
        drop(entered);
        let (handle, shutdown) = (bridge.handle(), CancellationToken::new());
        let task = runtime.spawn(bridge.run(shutdown.clone()));
        Self { runtime: Some(runtime), handle, shutdown, task: Some(task) }
    }

    pub fn ready(options: Options) -> Self {
        let running = Self::start(options);
        running.wait_until_ready();
        running
    }

    pub fn wait_until_ready(&self) {
        poll(WITHIN, "the bridge to be ready", || match self.handle.readiness() {
            readiness if readiness.ready => Ok(()),
            readiness => Err(format!("{readiness:?}")),
        });
    }

    /// Waits until `/readyz` names a reason that contains `text`.
    pub fn wait_for_obstacle(&self, text: &str) {
        poll(WITHIN, "an obstacle", || {
            let readiness = self.handle.readiness();
            let named = readiness.obstacles.iter().any(|obstacle| obstacle.reason.contains(text));
            if named && !readiness.ready { Ok(()) } else { Err(format!("{text:?} is not in {readiness:?}")) }
        });
    }

    /// The value of a metric; 0 if it has no value yet.
    pub fn metric(&self, sample: &str) -> f64 {
        let text = self.handle.metrics();
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Waits until a metric satisfies `is_it`.
    #[track_caller]
    pub fn wait_for_metric(&self, sample: &str, is_it: impl Fn(f64) -> bool) {
        poll(WITHIN, sample, || match self.metric(sample) {
            value if is_it(value) => Ok(()),
            value => Err(value),
        });
    }

    /// Stops the bridge in order, and returns how long that took.
    pub fn stop(mut self) -> Duration {
        let began = Instant::now();
        self.shutdown.cancel();
        let (runtime, task) = (self.runtime.take().expect("running"), self.task.take().expect("running"));
        runtime.block_on(task).expect("no panic").expect("a clean end");
        drop(runtime);
        began.elapsed()
    }

    /// Ends the bridge like a crash: no flush, no DISCONNECT.
    pub fn crash(mut self) {
        self.runtime.take().expect("running").shutdown_timeout(Duration::ZERO);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A message to publish.
#[derive(Clone, Debug)]
pub struct Publication {
    pub topic: String,
    pub payload: Vec<u8>,
    /// `device/boot/first_seq` for reports.
    pub name: String,
}

/// A report of `events` injections, starting with `first_seq`.
pub fn report(device: &str, first_seq: u64, events: usize) -> v1::Report {
    let boot_id = device.bytes().fold(1, |boot: u64, byte| boot.wrapping_mul(31).wrapping_add(byte.into()));
    let event = |index: usize| {
        let injection = v1::Injection {
            shot: Some(index as u32 + 1),
            injection_no: Some(first_seq + index as u64),
            mode: v1::Mode::Single.into(),
            outcome: v1::Outcome::Ok.into(),
            target_nl: Some(20_000),
            delivered_nl: Some(19_900 + index as u64),
            target_um: Some(1_500),
            measured_um: Some(1_480),
            duration_us: Some(80_000),
            ..v1::Injection::default()
        };
        v1::Event { offset_us: 250_000 * index as u64, kind: Some(Kind::Injection(injection)) }
    };
    let context = v1::Context { model: "m1".to_owned(), session_id: vec![7; 16], ..v1::Context::default() };
    v1::Report {
        boot_id,
        first_seq,
        base_unix_us: 1_790_000_000_000_000,
        clock: v1::Clock::Synced.into(),
        context: Some(context),
        events: (0..events).map(event).collect(),
        ..v1::Report::default()
    }
}

/// The publication of a report. Every third device sends JSON.
pub fn publication(device: usize, first_seq: u64, events: usize) -> Publication {
    let id = format!("d{device}");
    let report = report(&id, first_seq, events);
    let name = name(&id, report.boot_id, first_seq);
    let (suffix, payload) = match device % 3 {
        0 => ("report/json", json::to_json(&report, "Report").into_bytes()),
        _ => ("report", report.encode_to_vec()),
    };
    Publication { topic: format!("doseline/v1/acme/berlin/{id}/{suffix}"), payload, name }
}

pub fn name(device: &str, boot_id: u64, first_seq: u64) -> String {
    format!("{device}/{boot_id}/{first_seq}")
}

/// The names of the reports in Kafka, one for each record.
pub fn names(records: &[Record]) -> Vec<String> {
    let name_of = |record: &Record| {
        let report = v1::Report::decode(record.value.as_slice()).expect("a report");
        let key = String::from_utf8(record.key.clone().expect("a key")).expect("a text key");
        name(key.split_once('/').expect("tenant/device").1, report.boot_id, report.first_seq)
    };
    records.iter().map(name_of).collect()
}

#[derive(Clone, Debug)]
pub struct Received {
    pub device: String,
    pub json: bool,
    pub receipt: v1::Receipt,
}

/// Publishes for all devices over one connection and collects their receipts.
pub struct Fleet {
    client: Client,
    pub receipts: Arc<Mutex<Vec<Received>>>,
    /// Number of publications that the broker has acknowledged.
    taken: Arc<AtomicUsize>,
    closed: Arc<AtomicBool>,
}

impl Fleet {
    pub fn connect(mosquitto: &Mosquitto) -> Self {
        let mut options = MqttOptions::new("fleet", "127.0.0.1", mosquitto.port());
        options.set_clean_start(false).set_session_expiry_interval(Some(3600));
        options.set_max_packet_size(Some(4 << 20)).set_keep_alive(Duration::from_secs(30));
        let (client, mut connection) = Client::new(options, 100_000);
        let receipts: Arc<Mutex<Vec<Received>>> = Arc::default();
        let taken: Arc<AtomicUsize> = Arc::default();
        let taking = Arc::clone(&taken);
        let closed: Arc<AtomicBool> = Arc::default();
        let closing = Arc::clone(&closed);
        let (collected, subscriber) = (Arc::clone(&receipts), client.clone());
        let (told, subscribed) = std::sync::mpsc::channel();
        thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Incoming::ConnAck(_))) => {
                        let filter =
                            |suffix: &str| Filter::new(format!("doseline/v1/+/+/+/{suffix}"), QoS::AtLeastOnce);
                        let _ = subscriber.try_subscribe_many([filter("receipt"), filter("receipt/json")]);
                    }
                    Ok(Event::Incoming(Incoming::PubAck(_))) => drop(taking.fetch_add(1, Ordering::Relaxed)),
                    Ok(Event::Incoming(Incoming::SubAck(_))) => drop(told.send(())),
                    Ok(Event::Incoming(Incoming::Publish(publish))) => {
                        collected.lock().expect("no panic").push(received(&publish.topic, &publish.payload));
                    }
                    Ok(_) => {}
                    Err(_) if closing.load(Ordering::Relaxed) => return,
                    // The broker is away and will come back.
                    Err(_) => thread::sleep(Duration::from_millis(20)),
                }
            }
        });
        subscribed.recv_timeout(WITHIN).expect("the fleet is subscribed");
        Self { client, receipts, taken, closed }
    }

    pub fn publish(&self, topic: &str, payload: &[u8]) {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload.to_vec()).expect("publish");
    }

    pub fn publish_all<'a>(&self, publications: impl IntoIterator<Item = &'a Publication>) {
        for Publication { topic, payload, .. } in publications {
            self.publish(topic, payload);
        }
    }

    /// Waits until the broker has acknowledged this many publications.
    pub fn wait_until_taken(&self, publications: usize) {
        poll(WITHIN, "the broker to take everything", || match self.taken.load(Ordering::Relaxed) {
            taken if taken >= publications => Ok(()),
            taken => Err(taken),
        });
    }

    /// The names of the reports with a STORED receipt.
    pub fn stored(&self) -> BTreeSet<String> {
        let receipts = self.receipts.lock().expect("no panic");
        let stored = receipts.iter().filter(|received| received.receipt.code() == v1::ReceiptCode::Stored);
        let names = stored.flat_map(|Received { device, receipt, .. }| {
            receipt.ranges.iter().map(move |range| name(device, receipt.boot_id, range.first))
        });
        names.collect()
    }

    /// Waits until each publication has its receipt.
    pub fn wait_for_receipts(&self, publications: &[Publication]) {
        poll(WITHIN, "all receipts", || {
            let stored = self.stored();
            let open = publications.iter().filter(|publication| !stored.contains(&publication.name)).count();
            if open == 0 { Ok(()) } else { Err(format!("{open} of {} without", publications.len())) }
        });
    }

    /// The REJECTED receipt for these bytes, if it has arrived.
    pub fn rejected(&self, payload: &[u8]) -> Option<Received> {
        use sha2::Digest as _;
        let hash = sha2::Sha256::digest(payload).to_vec();
        let receipts = self.receipts.lock().expect("no panic");
        receipts.iter().find(|received| received.receipt.payload_sha256 == hash).cloned()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        let _ = self.client.try_disconnect();
    }
}

fn received(topic: &[u8], payload: &[u8]) -> Received {
    let topic = String::from_utf8(topic.to_vec()).expect("a text topic");
    let device = topic.split('/').nth(4).expect("a device").to_owned();
    let json = topic.ends_with("/json");
    let receipt = match json {
        true => json::from_json(payload, "Receipt").expect("a JSON receipt").message,
        false => v1::Receipt::decode(payload).expect("a protobuf receipt"),
    };
    Received { device, json, receipt }
}
