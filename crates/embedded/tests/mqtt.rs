//! The embedded broker under rumqttc, the client doseline uses.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use embedded::mqtt::{self, Handle, Options};
use rumqttc::v5::{
    AsyncClient, Event, MqttOptions,
    mqttbytes::{
        QoS,
        v5::{ConnectProperties, LastWill, Packet, Publish},
    },
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(30);

struct Broker {
    handle: Handle,
    shutdown: CancellationToken,
}

impl Broker {
    async fn start(adjust: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options::new(SocketAddr::from(([127, 0, 0, 1], 0)));
        adjust(&mut options);
        let shutdown = CancellationToken::new();
        Self { handle: mqtt::start(options, shutdown.clone()).await.unwrap(), shutdown }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.handle.join().await.unwrap();
    }
}

/// A connection that is polled by a task of its own until dropped.
struct Client {
    client: AsyncClient,
    received: mpsc::UnboundedReceiver<Publish>,
    acknowledged: Arc<AtomicUsize>,
    subscribed: Arc<AtomicUsize>,
    session_present: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn options(broker: &Broker, id: &str) -> MqttOptions {
    let address = broker.handle.address();
    let mut options = MqttOptions::new(id, address.ip().to_string(), address.port());
    let mut properties = ConnectProperties::new();
    properties.session_expiry_interval = Some(3_600);
    properties.max_packet_size = Some(4 << 20);
    options.set_connect_properties(properties).set_clean_start(false).set_manual_acks(true);
    options
}

impl Client {
    async fn connect(options: MqttOptions) -> Self {
        let (client, mut events) = AsyncClient::new(options, 100);
        let (sender, received) = mpsc::unbounded_channel();
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let session_present = Arc::new(AtomicUsize::new(0));
        let subscribed = Arc::new(AtomicUsize::new(0));
        let (counter, present) = (Arc::clone(&acknowledged), Arc::clone(&session_present));
        let granted = Arc::clone(&subscribed);
        let (connected, mut ready) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::Publish(publish))) => drop(sender.send(publish)),
                    Ok(Event::Incoming(Packet::PubAck(_))) => drop(counter.fetch_add(1, Ordering::SeqCst)),
                    Ok(Event::Incoming(Packet::SubAck(_))) => drop(granted.fetch_add(1, Ordering::SeqCst)),
                    Ok(Event::Incoming(Packet::ConnAck(ack))) => {
                        present.fetch_add(usize::from(ack.session_present), Ordering::SeqCst);
                        let _ = connected.send(());
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
        tokio::time::timeout(DEADLINE, ready.recv()).await.expect("connected in time");
        Self { client, received, acknowledged, subscribed, session_present, task }
    }

    async fn subscribe(&self, filter: &str) {
        let before = self.subscribed.load(Ordering::SeqCst);
        self.client.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
        wait_until("subscribed", || self.subscribed.load(Ordering::SeqCst) > before).await;
    }

    async fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>) {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload.into()).await.unwrap();
    }

    async fn next(&mut self) -> Publish {
        let publish = tokio::time::timeout(DEADLINE, self.received.recv()).await.expect("a message in time").unwrap();
        self.client.ack(&publish).await.unwrap();
        publish
    }

    fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::SeqCst)
    }
}

async fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !reached() {
        assert!(Instant::now() < deadline, "{what}: not within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn number(publish: &Publish) -> usize {
    std::str::from_utf8(&publish.payload).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_subscription_gets_each_message_once() {
    let broker = Broker::start(|_| {}).await;
    let mut members = Vec::new();
    for id in ["bridge-0", "bridge-1"] {
        let client = Client::connect(options(&broker, id)).await;
        client.subscribe("$share/bridge/doseline/v1/+/+/+/report").await;
        members.push(client);
    }
    let publisher = Client::connect(options(&broker, "device")).await;
    for n in 0..500usize {
        publisher.publish(&format!("doseline/v1/a/b/d{}/report", n % 10), n.to_string()).await;
    }
    wait_until("all acknowledged", || publisher.acknowledged() == 500).await;
    let [first, second] = members.as_mut_slice() else { unreachable!() };
    let (mut seen, mut of_second) = (Vec::new(), 0);
    while seen.len() < 500 {
        let (publish, client) = tokio::select! {
            publish = first.received.recv() => (publish.unwrap(), &first.client),
            publish = second.received.recv() => {
                of_second += 1;
                (publish.unwrap(), &second.client)
            }
        };
        client.ack(&publish).await.unwrap();
        seen.push(number(&publish));
    }
    assert!((100..400).contains(&of_second), "{of_second} of 500 to the second");
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), (0..500).collect());
    assert_eq!(broker.handle.dropped().count(), 0);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_will_is_sent_and_retained() {
    let broker = Broker::start(|_| {}).await;
    let mut watcher = Client::connect(options(&broker, "watcher")).await;
    watcher.subscribe("s/+/status").await;
    let mut with_will = options(&broker, "device");
    with_will.set_last_will(LastWill::new("s/device/status", "offline", QoS::AtLeastOnce, true, None));
    let device = Client::connect(with_will).await;
    device.client.publish("s/device/status", QoS::AtLeastOnce, true, "online").await.unwrap();
    assert_eq!(watcher.next().await.payload, "online");
    drop(device);
    assert_eq!(watcher.next().await.payload, "offline");
    let mut late = Client::connect(options(&broker, "late")).await;
    late.subscribe("s/#").await;
    let retained = late.next().await;
    assert_eq!((retained.payload.as_ref(), retained.retain), (&b"offline"[..], true));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_its_connection() {
    let broker = Broker::start(|_| {}).await;
    let mut bridge = Client::connect(options(&broker, "bridge")).await;
    bridge.subscribe("$share/g/r/#").await;
    let device = Client::connect(options(&broker, "device")).await;
    for n in 0..300 {
        device.publish("r/1", n.to_string()).await;
    }
    // Received, but only ten of them acknowledged.
    for n in 0..10 {
        assert_eq!(number(&bridge.next().await), n);
    }
    // The broker has read those once it answers what was sent after them.
    bridge.publish("barrier", "x").await;
    wait_until("acknowledgements have arrived", || bridge.acknowledged() == 1).await;
    drop(bridge);
    for n in 300..600 {
        device.publish("r/1", n.to_string()).await;
    }
    wait_until("all acknowledged", || device.acknowledged() == 600).await;
    let mut bridge = Client::connect(options(&broker, "bridge")).await;
    assert_eq!(bridge.session_present.load(Ordering::SeqCst), 1);
    let mut seen = BTreeSet::new();
    while seen.len() < 590 {
        seen.insert(number(&bridge.next().await));
    }
    assert_eq!(seen, (10..600).collect());
    assert_eq!(broker.handle.dropped().count(), 0);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publishers_wait_for_a_shared_subscriber_that_is_behind() {
    let broker = Broker::start(|options| {
        options.queue_messages_max = 100;
        options.publish_patience = DEADLINE;
    })
    .await;
    let bridge = Client::connect(options(&broker, "bridge")).await;
    bridge.subscribe("$share/g/r/#").await;
    drop(bridge);
    let device = Arc::new(Client::connect(options(&broker, "device")).await);
    let publishing = tokio::spawn({
        let device = Arc::clone(&device);
        async move {
            for n in 0..1_000 {
                device.publish("r/1", n.to_string()).await;
            }
        }
    });
    wait_until("the queue is full", || device.acknowledged() >= 100).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(device.acknowledged(), 100);
    // Others are not held up.
    let other = Client::connect(options(&broker, "other")).await;
    other.publish("elsewhere", "x").await;
    wait_until("the other goes on", || other.acknowledged() == 1).await;

    let mut bridge = Client::connect(options(&broker, "bridge")).await;
    let mut seen = BTreeSet::new();
    while seen.len() < 1_000 {
        seen.insert(number(&bridge.next().await));
    }
    publishing.await.unwrap();
    wait_until("all acknowledged", || device.acknowledged() == 1_000).await;
    assert_eq!(broker.handle.dropped().count(), 0);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_is_cut_off_unacknowledged_after_its_patience() {
    let broker = Broker::start(|options| {
        options.queue_bytes_max = 10_000;
        options.publish_patience = Duration::from_millis(300);
    })
    .await;
    let bridge = Client::connect(options(&broker, "bridge")).await;
    bridge.subscribe("$share/g/r/#").await;
    drop(bridge);
    let device = Client::connect(options(&broker, "device")).await;
    for n in 0..30u8 {
        device.publish("r/1", vec![n; 1_000]).await;
    }
    wait_until("reconnected", || device.session_present.load(Ordering::SeqCst) >= 1).await;
    assert_eq!(device.acknowledged(), 10);
    let mut bridge = Client::connect(options(&broker, "bridge")).await;
    let mut seen = BTreeSet::new();
    while seen.len() < 30 {
        seen.insert(bridge.next().await.payload[0]);
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_mebibytes_pass() {
    let broker = Broker::start(|_| {}).await;
    let mut bridge = Client::connect(options(&broker, "bridge")).await;
    bridge.subscribe("$share/g/r/#").await;
    let device = Client::connect(options(&broker, "device")).await;
    let large: Vec<u8> = (0..2 << 20).map(|n: u32| (n % 251) as u8).collect();
    device.publish("r/1", large.clone()).await;
    assert_eq!(bridge.next().await.payload, large);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mqtt_3_1_1_is_spoken_too() {
    let broker = Broker::start(|_| {}).await;
    let mut watcher = Client::connect(options(&broker, "watcher")).await;
    watcher.subscribe("old/#").await;
    let address = broker.handle.address();
    let old = rumqttc::MqttOptions::new("old-device", address.ip().to_string(), address.port());
    let (client, mut events) = rumqttc::AsyncClient::new(old, 10);
    client.publish("old/1", rumqttc::QoS::ExactlyOnce, false, "hello").await.unwrap();
    let polling = tokio::spawn(async move { while events.poll().await.is_ok() {} });
    assert_eq!(watcher.next().await.payload, "hello");
    polling.abort();
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_broker_frees_its_port() {
    let broker = Broker::start(|_| {}).await;
    let address = broker.handle.address();
    let _client = Client::connect(options(&broker, "device")).await;
    let taken = mqtt::start(Options::new(address), CancellationToken::new()).await.err();
    assert!(matches!(taken, Some(mqtt::Error::Listen { .. })), "{taken:?}");
    broker.stop().await;
    let again = Broker::start(|options| options.listen = address).await;
    again.stop().await;
}
