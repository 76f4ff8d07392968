//! Against a broker that does what the test says, byte by byte; Kafka's confirmations are given by
//! hand.

use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::SubscribeReasonCode;
use telemetry::topic::SUBSCRIPTIONS;
use tokio::{io::AsyncWriteExt as _, net::TcpListener};

use super::*;
use crate::{
    confirmations::Confirmations,
    peer::{Peer, WITHIN, encoded, listen, publish},
};

struct Rig {
    listener: TcpListener,
    shared: Arc<Shared>,
    confirmations: Arc<Confirmations>,
    running: tokio::task::JoinHandle<()>,
}

async fn rig() -> Rig {
    rig_in_group(None).await
}

async fn rig_in_group(share_group: Option<&str>) -> Rig {
    let (listener, mut options) = listen().await;
    options.mqtt.share_group = share_group.map(str::to_owned);
    // Nobody is there: nothing is confirmed but by hand.
    options.kafka.brokers = "127.0.0.1:1".to_owned();
    options.kafka.properties.insert("message.timeout.ms".to_owned(), "0".to_owned());
    let metrics = Arc::new(Metrics::new());
    let health = Arc::new(Health::new(options.limits, 1, false));
    let (confirmations, _failures) = Confirmations::new(Arc::clone(&metrics), Arc::clone(&health));
    let sink = Sink::new(&options, Arc::clone(&confirmations), Arc::clone(&metrics), Arc::clone(&health)).unwrap();
    let shared = Arc::new(Shared {
        budget: Arc::new(Semaphore::new(options.limits.in_flight_bytes)),
        options: Arc::new(options),
        sink: Arc::new(sink),
        receipts: None,
        health,
        metrics,
        shutdown: CancellationToken::new(),
        close: CancellationToken::new(),
    });
    let running = tokio::spawn(Connection::new(0, Arc::clone(&shared)).run());
    Rig { listener, shared, confirmations, running }
}

impl Rig {
    async fn wait_for_in_flight(&self, messages: i64) {
        let deadline = Instant::now() + WITHIN;
        while self.shared.metrics.in_flight_messages.get() != messages {
            let in_flight = self.shared.metrics.in_flight_messages.get();
            assert!(Instant::now() < deadline, "{in_flight} messages in flight, not {messages}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn end(self) {
        tokio::time::timeout(WITHIN, self.running).await.unwrap().unwrap();
        tokio::task::spawn_blocking(move || self.shared.sink.close()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_go_out_in_the_order_of_receipt() {
    let rig = rig().await;
    let mut peer = Peer::accept(&rig.listener, false).await;
    peer.write(&[publish(11, "a"), publish(12, "b"), publish(13, "c")]).await;
    rig.wait_for_in_flight(3).await;
    for number in [2, 1, 0] {
        rig.confirmations.confirm(number);
    }
    rig.shared.shutdown.cancel();
    assert_eq!(peer.acknowledgements().await, [11, 12, 13]);
    rig.end().await;
}

/// What was confirmed late, for an earlier connection, is acknowledged neither there nor here,
/// where its packet id means another message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confirmations_of_an_earlier_connection_acknowledge_nothing() {
    let rig = rig().await;
    let mut peer = Peer::accept(&rig.listener, false).await;
    peer.write(&[publish(1, "a"), publish(2, "b")]).await;
    rig.wait_for_in_flight(2).await;
    drop(peer);
    let mut peer = Peer::accept(&rig.listener, true).await;
    // Other messages under the same packet ids.
    peer.write(&[publish(1, "c"), publish(2, "d"), publish(3, "e")]).await;
    rig.wait_for_in_flight(5).await;
    for earlier in [0, 1] {
        rig.confirmations.confirm(earlier);
    }
    rig.confirmations.confirm(2);
    rig.confirmations.confirm(4);
    rig.wait_for_in_flight(1).await;
    let Packet::PubAck(acknowledged) = peer.read().await else { panic!("no PUBACK") };
    assert_eq!(acknowledged.pkid, 1);
    rig.shared.shutdown.cancel();
    // "d" is never confirmed: neither it nor "e" behind it may be acknowledged.
    rig.shared.close.cancel();
    assert_eq!(peer.acknowledgements().await, [0u16; 0]);
    rig.end().await;
}

/// Messages that had arrived when the connection ended, and were not looked at, go to Kafka; nobody
/// acknowledges them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_buffered_at_the_end_of_a_connection_is_rescued() {
    let rig = rig().await;
    let mut peer = Peer::accept(&rig.listener, false).await;
    let packets: Vec<_> = (1..=5).map(|pkid| publish(pkid, "a")).collect();
    let mut bytes = encoded(&packets);
    // DISCONNECT, "server shutting down": in one segment with the messages, so that it is read
    // together with them.
    bytes.extend_from_slice(&[0xe0, 2, 0x8b, 0]);
    peer.stream.write_all(&bytes).await.unwrap();
    rig.wait_for_in_flight(5).await;
    let mut peer = Peer::accept(&rig.listener, true).await;
    for number in 0..5 {
        rig.confirmations.confirm(number);
    }
    rig.shared.shutdown.cancel();
    assert_eq!(peer.acknowledgements().await, [0u16; 0]);
    rig.end().await;
}

/// A session from before there was a group has plain subscriptions; with them every message would
/// come twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_group_replaces_the_plain_subscriptions() {
    let rig = rig_in_group(Some("g")).await;
    let (mut peer, _) = Peer::connect(&rig.listener, true, None).await;
    let Packet::Subscribe(subscribe) = peer.read().await else { panic!("no SUBSCRIBE") };
    let filters: Vec<_> = subscribe.filters.iter().map(|filter| filter.path.clone()).collect();
    assert_eq!(filters, SUBSCRIPTIONS.map(|filter| format!("$share/g/{filter}")));
    let return_codes = vec![SubscribeReasonCode::Success(QoS::AtLeastOnce); 3];
    peer.write(&[Packet::SubAck(SubAck { pkid: subscribe.pkid, return_codes, properties: None })]).await;
    let Packet::Unsubscribe(unsubscribe) = peer.read().await else { panic!("no UNSUBSCRIBE") };
    assert_eq!(unsubscribe.filters, SUBSCRIPTIONS);
    assert_ne!(unsubscribe.pkid, subscribe.pkid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_subscription_is_named() {
    let rig = rig().await;
    let (mut peer, _) = Peer::connect(&rig.listener, false, None).await;
    let Packet::Subscribe(subscribe) = peer.read().await else { panic!("no SUBSCRIBE") };
    let granted = SubscribeReasonCode::Success(QoS::AtLeastOnce);
    let return_codes = vec![granted, SubscribeReasonCode::NotAuthorized, granted];
    peer.write(&[Packet::SubAck(SubAck { pkid: subscribe.pkid, return_codes, properties: None })]).await;
    let deadline = Instant::now() + WITHIN;
    loop {
        let readiness = rig.shared.health.readiness(Instant::now(), None);
        let expected = "the broker refuses the subscription to doseline/v1/+/+/+/report/json: NotAuthorized";
        if readiness.obstacles.iter().any(|obstacle| obstacle.reason.ends_with(expected)) {
            break;
        }
        assert!(Instant::now() < deadline, "{readiness:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    rig.shared.shutdown.cancel();
    rig.end().await;
}

/// The broker delivers it again on each connection, and nothing behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_ends_the_connection_twice_is_named() {
    let rig = rig().await;
    let too_large = "x".repeat(crate::PACKET_BYTES_MAX as usize + 1);
    for time in 1..=3 {
        let mut peer = Peer::accept(&rig.listener, time > 1).await;
        // The bridge hangs up before it has read everything.
        let _ = peer.stream.write_all(&encoded(&[publish(1, &too_large), publish(2, "behind it")])).await;
        let deadline = Instant::now() + WITHIN;
        let count = || (rig.shared.metrics.reconnects.get(), rig.shared.metrics.undeliverable.get());
        while count() != (time, time - 1) {
            assert!(Instant::now() < deadline, "{:?}", count());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let told = rig.shared.health.readiness(Instant::now(), None).obstacles.into_iter().find(|obstacle| {
            obstacle.part == "mqtt" && obstacle.reason.contains("on topic \"doseline/v1/acme/berlin/d1/report\"")
        });
        assert_eq!(told.is_some(), time > 1, "{told:?}");
        if let Some(told) = told {
            assert!(told.reason.contains("max_packet_size") && told.reason.contains("a packet of "), "{told:?}");
        }
    }
    rig.shared.shutdown.cancel();
    rig.end().await;
}

/// At the limit of bytes in flight MQTT is not read; what was confirmed is acknowledged all the
/// same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_in_flight_are_bounded() {
    let rig = rig().await;
    // Leaves room for two of the messages.
    let each = 1_000_000 + "doseline/v1/acme/berlin/d1/report".len() + MESSAGE_OVERHEAD_BYTES;
    let total = rig.shared.options.limits.in_flight_bytes;
    let held = u32::try_from(total - 2 * each).unwrap();
    let held = Arc::clone(&rig.shared.budget).acquire_many_owned(held).await.unwrap();
    let mut peer = Peer::accept(&rig.listener, false).await;
    let large = "x".repeat(1_000_000);
    peer.write(&[publish(1, &large), publish(2, &large), publish(3, &large), publish(4, "x")]).await;
    rig.wait_for_in_flight(2).await;
    assert_eq!(rig.shared.budget.available_permits(), 0);
    rig.confirmations.confirm(0);
    let Packet::PubAck(acknowledged) = peer.read().await else { panic!("no PUBACK") };
    assert_eq!(acknowledged.pkid, 1);
    rig.wait_for_in_flight(2).await;
    drop(held);
    rig.wait_for_in_flight(3).await;
    for number in [1, 2, 3] {
        rig.confirmations.confirm(number);
    }
    rig.wait_for_in_flight(0).await;
    rig.shared.shutdown.cancel();
    assert_eq!(peer.acknowledgements().await, [2, 3, 4]);
    rig.end().await;
}
