//! Against librdkafka's mock cluster, which makes Kafka's errors.

use std::time::Instant;

use rdkafka::{
    ClientContext as _,
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use tokio::sync::Semaphore;

use super::*;
use crate::{
    admit::{Admitted, Destination, admit},
    receipts::ReceiptQueue,
    ring::{Ring, Slot},
};

type Cluster = MockCluster<'static, DefaultProducerContext>;

struct Rig {
    cluster: Cluster,
    sink: Arc<Sink>,
    confirmations: Arc<Confirmations>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    budget: Arc<Semaphore>,
    ring: Ring<u16>,
    confirmed: (mpsc::UnboundedSender<Slot>, mpsc::UnboundedReceiver<Slot>),
}

fn rig(properties: &[(&str, &str)]) -> Rig {
    let cluster = MockCluster::new(1).unwrap();
    let mut options = Options::default();
    options.kafka.brokers = cluster.bootstrap_servers();
    for (name, value) in properties {
        options.kafka.properties.insert((*name).to_owned(), (*value).to_owned());
    }
    let topics = &options.kafka.topics;
    for topic in [&topics.reports, &topics.status, &topics.quarantine] {
        cluster.create_topic(topic, 3, 1).unwrap();
    }
    let metrics = Arc::new(Metrics::new());
    let health = Arc::new(Health::new(options.limits, 0, false));
    let (confirmations, failures) = Confirmations::new(Arc::clone(&metrics), Arc::clone(&health));
    let sink = Sink::new(&options, Arc::clone(&confirmations), Arc::clone(&metrics), Arc::clone(&health)).unwrap();
    let sink = Arc::new(sink);
    let supervised = Arc::clone(&sink);
    tokio::spawn(async move { supervised.supervise(failures).await });
    let budget = Arc::new(Semaphore::new(1 << 20));
    Rig {
        cluster,
        sink,
        confirmations,
        metrics,
        health,
        budget,
        ring: Ring::default(),
        confirmed: mpsc::unbounded_channel(),
    }
}

impl Rig {
    async fn submit(&mut self, count: u16) {
        for packet in 0..count {
            let topic = format!("doseline/v1/acme/berlin/d{}/report", packet % 7);
            let admitted = Admitted { destination: Destination::Reports, ..admit(topic.as_bytes(), &[1; 100]) };
            let record = self.sink.record(|record| record.fill(&admitted, topic.as_bytes(), 1, &[]));
            let slot = Some((self.confirmed.0.clone(), self.ring.push(packet)));
            let permit = Arc::clone(&self.budget).acquire_many_owned(600).await.unwrap();
            let on_confirm = OnConfirm { slot, receipt: None, received: Instant::now(), permit };
            self.sink.submit(record, on_confirm).await;
        }
    }

    /// Waits until everything is confirmed; the packets to acknowledge, in order.
    async fn drained(&mut self) -> Vec<u16> {
        let within = Duration::from_secs(60);
        tokio::time::timeout(within, self.confirmations.drained()).await.expect("everything is confirmed");
        // The last record leaves the unconfirmed ones before its slot is sent and before its bytes
        // are given back.
        let all = tokio::time::timeout(within, self.budget.acquire_many(1 << 20)).await;
        drop(all.expect("all bytes are given back"));
        let mut acknowledged = Vec::new();
        while let Ok(slot) = self.confirmed.1.try_recv() {
            self.ring.settle(slot);
            acknowledged.extend(self.ring.head());
        }
        assert_eq!(self.metrics.in_flight_messages.get(), 0);
        acknowledged
    }

    fn sample(&self, sample: &str) -> f64 {
        let text = self.metrics.text();
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    async fn close(self) {
        let sink = Arc::clone(&self.sink);
        tokio::task::spawn_blocking(move || sink.close()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_confirmed_is_acknowledged_in_order() {
    let mut rig = rig(&[]);
    assert!(rig.sink.verify(&CancellationToken::new()).await);
    rig.submit(300).await;
    assert_eq!(rig.drained().await, (0..300).collect::<Vec<_>>());
    assert!(rig.health.readiness(Instant::now(), None).ready);
    rig.close().await;
}

/// An error that librdkafka does not retry comes back as a failed record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_fails_is_produced_again() {
    let mut rig = rig(&[]);
    let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    rig.cluster.request_errors(RDKafkaApiKey::Produce, &[denied; 3]);
    rig.submit(200).await;
    assert_eq!(rig.drained().await, (0..200).collect::<Vec<_>>());
    assert!(rig.sample("doseline_bridge_kafka_errors_total{kind=\"delivery\"}") >= 1.0);
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_producer_is_replaced_and_everything_sent_again() {
    let mut rig = rig(&[]);
    let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    rig.cluster.request_errors(RDKafkaApiKey::InitProducerId, &[denied]);
    rig.submit(200).await;
    assert_eq!(rig.drained().await, (0..200).collect::<Vec<_>>());
    assert_eq!(rig.sample("doseline_bridge_kafka_errors_total{kind=\"fatal\"}"), 1.0);
    assert_eq!(rig.sink.generation.load(Ordering::Relaxed), 1);
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_slows_the_source_and_loses_nothing() {
    let mut rig = rig(&[]);
    // The budget is 1 MiB; a queue of less is made by hand.
    let mut options = Options::default();
    options.kafka.brokers = rig.cluster.bootstrap_servers();
    let mut config = producer::configuration(&options);
    config.set("queue.buffering.max.kbytes", "16");
    let (confirmations, config_of) = (Arc::clone(&rig.confirmations), &config);
    rig.sink.live.write().unwrap().producer = Some(Sink::create(config_of, 0, &confirmations).unwrap());
    rig.cluster.broker_round_trip_time(1, Duration::from_millis(50)).unwrap();
    rig.submit(1000).await;
    assert_eq!(rig.drained().await.len(), 1000);
    assert!(rig.sample("doseline_bridge_kafka_errors_total{kind=\"queue_full\"}") >= 1.0);
    rig.close().await;
}

/// Delivery reports of a producer that is gone: a success counts, a failure does not start
/// anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_of_an_earlier_producer_do_no_harm() {
    let mut rig = rig(&[]);
    rig.cluster.broker_down(1).unwrap();
    rig.submit(2).await;
    rig.sink.generation.store(1, Ordering::Relaxed);
    rig.sink.live.write().unwrap().generation = 1;
    let error = KafkaError::MessageProduction(RDKafkaErrorCode::PurgeQueue);
    rig.confirmations.fail(0, 0, &error);
    rig.confirmations.confirm(1);
    rig.confirmations.confirm(1);
    rig.confirmations.confirm(0);
    assert_eq!(rig.drained().await, [0, 1]);
    assert_eq!(rig.sample("doseline_bridge_kafka_errors_total{kind=\"delivery\"}"), 0.0);
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_record_says_why_it_waits() {
    let mut rig = rig(&[]);
    rig.cluster.broker_down(1).unwrap();
    rig.submit(1).await;
    assert!(rig.confirmations.oldest(Instant::now()).unwrap().reason.is_none());
    let error = KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge);
    rig.confirmations.fail(0, 0, &error);
    let deadline = Instant::now() + Duration::from_secs(60);
    let reason = loop {
        match rig.confirmations.oldest(Instant::now()).unwrap().reason {
            Some(reason) => break reason,
            None => assert!(Instant::now() < deadline, "the failure is not noted"),
        }
        tokio::task::yield_now().await;
    };
    assert!(reason.contains("size"), "{reason}");
    rig.confirmations.confirm(0);
    rig.close().await;
}

#[tokio::test]
async fn a_receipt_is_due_only_after_the_confirmation() {
    let mut rig = rig(&[]);
    rig.cluster.broker_down(1).unwrap();
    let (receipts, mut queue) = ReceiptQueue::new(1, Arc::clone(&rig.metrics));
    let topic = b"doseline/v1/acme/berlin/d1/report";
    let admitted = admit(topic, b"");
    let receipt = || admitted.receipt.clone().unwrap();
    let due = receipts.reserve(receipt()).await;
    let permit = Arc::clone(&rig.budget).acquire_many_owned(1).await.unwrap();
    let record = rig.sink.record(|record| record.fill(&admitted, topic, 1, &[]));
    let on_confirm = OnConfirm { slot: None, receipt: due, received: Instant::now(), permit };
    rig.sink.submit(record, on_confirm).await;
    assert!(queue.try_recv().is_err());
    // The only place is taken: the next message goes on without a receipt, counted, and the one
    // after it at once.
    assert!(receipts.reserve(receipt()).await.is_none());
    assert!(receipts.reserve(receipt()).await.is_none());
    assert_eq!(rig.metrics.receipts_dropped.get(), 2);
    rig.confirmations.confirm(0);
    drop(queue.try_recv().unwrap());
    assert!(receipts.reserve(receipt()).await.is_some());
    assert!(rig.drained().await.is_empty());
    rig.close().await;
}

#[test]
fn client_errors_are_remembered() {
    let (metrics, health) = (Arc::new(Metrics::new()), Arc::new(Health::new(crate::Limits::default(), 0, false)));
    let (confirmations, _failures) = Confirmations::new(metrics, health);
    let context = Context { generation: 0, confirmations: Arc::clone(&confirmations) };
    context.error(KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure), "Connection refused");
    context.error(KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
    assert_eq!(confirmations.last_client_error().as_deref(), Some("Connection refused"));
}
