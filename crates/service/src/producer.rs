//! Producers whose polling thread costs nothing while nothing is produced.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering, fence},
    },
    thread::JoinHandle,
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext,
    config::{FromClientConfigAndContext as _, RDKafkaLogLevel},
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, OwnedHeaders, ToBytes},
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext},
};
use tokio::sync::oneshot;

/// Time for which the thread waits for events while records are in flight. Dropping the producer
/// takes as long at most.
///
/// At the end of each wait rust-rdkafka busy-polls for up to a millisecond, because it cuts the
/// remaining time to whole milliseconds. Its own threads wait for 0.1 s at a time, which takes
/// 0.4 % of a processor for each producer.
const WAIT: Duration = Duration::from_millis(500);
/// Time for which the thread sleeps while nothing is in flight. Errors of idle connections are
/// taken as late at most.
const SLEEP: Duration = Duration::from_secs(5);
/// Between two attempts to enqueue, when the producer's queue is full.
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(20);

/// A producer with a thread that takes its delivery reports as they come. The thread ends with it.
pub struct PolledProducer<C: ProducerContext + 'static> {
    polled: Arc<Polled<C>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread and the owner of a producer share.
struct Polled<C: ProducerContext + 'static> {
    producer: BaseProducer<C>,
    stopped: AtomicBool,
    /// Whether the thread sleeps, or will unless it sees a record in flight.
    asleep: AtomicBool,
}

impl<C: ProducerContext + 'static> Polled<C> {
    /// Takes delivery reports until the producer is stopped.
    fn poll(&self) {
        while !self.stopped.load(Ordering::Relaxed) {
            self.asleep.store(true, Ordering::Relaxed);
            // A sender counts its record in flight before it reads `asleep`. Either it sees the
            // flag, or the thread sees the record.
            fence(Ordering::SeqCst);
            let idle = self.producer.in_flight_count() == 0;
            if idle {
                std::thread::park_timeout(SLEEP);
            }
            self.asleep.store(false, Ordering::Relaxed);
            self.producer.poll(if idle { Duration::ZERO } else { WAIT });
        }
    }
}

impl<C: ProducerContext + 'static> PolledProducer<C> {
    /// Creates the producer and starts its thread.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration, or the system another thread.
    pub fn new(config: &ClientConfig, context: C) -> Result<Self, KafkaError> {
        let producer = BaseProducer::from_config_and_context(config, context)?;
        let polled = Arc::new(Polled { producer, stopped: AtomicBool::new(false), asleep: AtomicBool::new(false) });
        let thread = std::thread::Builder::new().name("kafka-delivery".to_owned()).spawn({
            let polled = Arc::clone(&polled);
            move || polled.poll()
        });
        let thread = thread.map_err(|error| KafkaError::ClientCreation(format!("start a thread: {error}")))?;
        Ok(Self { polled, thread: Some(thread) })
    }

    /// Hands a record to librdkafka, as [`BaseProducer::send`] does, and wakes the thread.
    ///
    /// # Errors
    /// As [`BaseProducer::send`].
    #[expect(clippy::result_large_err, clippy::type_complexity, reason = "the type of BaseProducer::send")]
    pub fn send<'a, K, P>(
        &self,
        record: BaseRecord<'a, K, P, C::DeliveryOpaque>,
    ) -> Result<(), (KafkaError, BaseRecord<'a, K, P, C::DeliveryOpaque>)>
    where
        K: ToBytes + ?Sized,
        P: ToBytes + ?Sized,
    {
        self.polled.producer.send(record)?;
        fence(Ordering::SeqCst);
        if self.polled.asleep.load(Ordering::Relaxed) {
            self.wake();
        }
        Ok(())
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl<C: ProducerContext + 'static> Deref for PolledProducer<C> {
    type Target = BaseProducer<C>;

    fn deref(&self) -> &Self::Target {
        &self.polled.producer
    }
}

impl<C: ProducerContext + 'static> Drop for PolledProducer<C> {
    fn drop(&mut self) {
        self.polled.stopped.store(true, Ordering::Relaxed);
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Hands each delivery report to the one that waits for it.
struct Confirmations;

impl ClientContext for Confirmations {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // Each attempt ends in an error as well, which the caller sees.
        tracing::debug!(?level, facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ProducerContext for Confirmations {
    type DeliveryOpaque = Box<oneshot::Sender<Result<(), KafkaError>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Self::DeliveryOpaque) {
        let outcome = result.as_ref().map(drop).map_err(|(error, _)| error.clone());
        // The caller may have given up.
        let _ = waiting.send(outcome);
    }
}

/// A record of a [`ConfirmingProducer`].
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    pub topic: &'a str,
    pub key: Option<&'a [u8]>,
    pub payload: &'a [u8],
    /// Names and values, in order.
    pub headers: &'a [(&'a str, &'a str)],
}

/// A producer that says of each record whether Kafka has confirmed it.
pub struct ConfirmingProducer(PolledProducer<Confirmations>);

impl ConfirmingProducer {
    /// Prepares the producer; nothing is sent.
    ///
    /// # Errors
    /// As [`PolledProducer::new`].
    pub fn new(config: &ClientConfig) -> Result<Self, KafkaError> {
        PolledProducer::new(config, Confirmations).map(Self)
    }

    /// Hands a record to librdkafka, and waits while its queue is full.
    ///
    /// # Errors
    /// When librdkafka refuses the record.
    pub async fn enqueue(&self, outgoing: Outgoing<'_>) -> Result<Pending, KafkaError> {
        let Outgoing { topic, key, payload, headers } = outgoing;
        let (waiting, confirmed) = oneshot::channel();
        let mut record = BaseRecord::with_opaque_to(topic, Box::new(waiting)).payload(payload);
        if let Some(key) = key {
            record = record.key(key);
        }
        if !headers.is_empty() {
            let empty = OwnedHeaders::new_with_capacity(headers.len());
            record = record.headers(
                headers.iter().fold(empty, |headers, (key, value)| headers.insert(Header { key, value: Some(*value) })),
            );
        }
        loop {
            match self.0.send(record) {
                Ok(()) => return Ok(Pending(confirmed)),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    tokio::time::sleep(QUEUE_FULL_WAIT).await;
                }
                Err((error, _)) => return Err(error),
            }
        }
    }
}

/// A record that Kafka has not confirmed yet.
pub struct Pending(oneshot::Receiver<Result<(), KafkaError>>);

impl Pending {
    /// Waits until Kafka has confirmed the record.
    ///
    /// # Errors
    /// Kafka did not confirm it in time; it may have stored it all the same.
    pub async fn confirmed(self) -> Result<(), KafkaError> {
        self.0.await.map_err(|_| KafkaError::Canceled)?
    }
}
