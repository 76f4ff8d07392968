//! Prometheus metrics. The names are public.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use telemetry::{reject::Reason, topic::Channel};

/// Messages received over MQTT, by `channel`: `report`, `report_json`, `status` or `none` (no topic
/// of the contract).
pub const MESSAGES: &str = "doseline_bridge_messages_total";
/// Their payloads, bytes, by `channel`.
pub const BYTES: &str = "doseline_bridge_bytes_total";
/// Messages put into quarantine, by `reason`.
pub const REJECTED: &str = "doseline_bridge_rejected_total";
/// Fields and enum values this version does not know.
pub const UNKNOWN_FIELDS: &str = "doseline_bridge_unknown_fields_total";
/// Messages received and not confirmed by Kafka.
pub const IN_FLIGHT_MESSAGES: &str = "doseline_bridge_in_flight_messages";
/// The same in bytes, as counted against the limit.
pub const IN_FLIGHT_BYTES: &str = "doseline_bridge_in_flight_bytes";
/// Age of the oldest message that Kafka has not confirmed, seconds.
pub const OLDEST_UNCONFIRMED_SECONDS: &str = "doseline_bridge_oldest_unconfirmed_seconds";
/// Time from the receipt of a message to Kafka's confirmation, when it may be acknowledged,
/// seconds.
pub const ACK_LATENCY_SECONDS: &str = "doseline_bridge_ack_latency_seconds";
/// Trouble with Kafka, by `kind`: `delivery`, `queue_full`, `fatal` or `client`.
pub const KAFKA_ERRORS: &str = "doseline_bridge_kafka_errors_total";
/// Receipts that the broker has taken, by `code`: `stored` or `rejected`.
pub const RECEIPTS: &str = "doseline_bridge_receipts_total";
/// Receipts left out because the broker did not take them in time or refused them; the devices send
/// again.
pub const RECEIPTS_DROPPED: &str = "doseline_bridge_receipts_dropped_total";
/// MQTT connections lost or not made, receipts included.
pub const RECONNECTS: &str = "doseline_bridge_reconnects_total";
/// Time without a subscription on a connection that had one, seconds: from its loss until the
/// broker granted it again. What is published meanwhile waits on a broker that keeps the
/// subscription over it, and is dropped by one that does not.
pub const UNSUBSCRIBED_SECONDS: &str = "doseline_bridge_unsubscribed_seconds_total";
/// Sessions that the broker had forgotten when their connection came back, with what waited in
/// them.
pub const SESSIONS_LOST: &str = "doseline_bridge_sessions_lost_total";
/// Restarts of the MQTT broker that `doseline up` runs, after it died; 0 elsewhere.
pub const BROKER_RESTARTS: &str = "doseline_bridge_broker_restarts_total";
/// Connections ended by a delivery that cannot be read and had ended one before: nothing behind it
/// arrives.
pub const UNDELIVERABLE: &str = "doseline_bridge_undeliverable_total";
/// Time since the registry of devices was read last, seconds; 0 where the bridge uses none.
pub const REGISTRY_AGE_SECONDS: &str = "doseline_bridge_registry_age_seconds";
/// Acknowledgements sent to the MQTT broker.
pub const ACKNOWLEDGED: &str = "doseline_bridge_acknowledged_total";

/// Every name.
pub const ALL: [&str; 18] = [
    MESSAGES,
    BYTES,
    REJECTED,
    UNKNOWN_FIELDS,
    IN_FLIGHT_MESSAGES,
    IN_FLIGHT_BYTES,
    OLDEST_UNCONFIRMED_SECONDS,
    ACK_LATENCY_SECONDS,
    KAFKA_ERRORS,
    RECEIPTS,
    RECEIPTS_DROPPED,
    RECONNECTS,
    UNSUBSCRIBED_SECONDS,
    SESSIONS_LOST,
    BROKER_RESTARTS,
    UNDELIVERABLE,
    REGISTRY_AGE_SECONDS,
    ACKNOWLEDGED,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChannelLabel {
    channel: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: &'static str,
}

/// Trouble with Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KafkaTrouble {
    /// A record was not confirmed and is produced again.
    Delivery,
    /// The producer's queue was full; the source waits.
    QueueFull,
    /// The producer had to be rebuilt.
    Fatal,
    /// The client reported an error: a broker unreachable, an authentication refused.
    Client,
}

/// The metrics of one bridge.
pub(crate) struct Metrics {
    registry: Registry,
    messages: Family<ChannelLabel, Counter>,
    bytes: Family<ChannelLabel, Counter>,
    rejected: Family<ReasonLabel, Counter>,
    pub unknown_fields: Counter,
    pub in_flight_messages: Gauge,
    pub in_flight_bytes: Gauge,
    pub oldest_unconfirmed: Gauge<f64, AtomicU64>,
    ack_latency: Histogram,
    kafka_errors: Family<KindLabel, Counter>,
    receipts: Family<CodeLabel, Counter>,
    pub receipts_dropped: Counter,
    pub reconnects: Counter,
    pub unsubscribed: Counter<f64, AtomicU64>,
    pub sessions_lost: Counter,
    pub broker_restarts: Counter,
    pub undeliverable: Counter,
    pub registry_age: Gauge<f64, AtomicU64>,
    pub acknowledged: Counter,
}

impl Metrics {
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            messages: Family::default(),
            bytes: Family::default(),
            rejected: Family::default(),
            unknown_fields: Counter::default(),
            in_flight_messages: Gauge::default(),
            in_flight_bytes: Gauge::default(),
            oldest_unconfirmed: Gauge::default(),
            // 1 ms .. 16 s.
            ack_latency: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            kafka_errors: Family::default(),
            receipts: Family::default(),
            receipts_dropped: Counter::default(),
            reconnects: Counter::default(),
            unsubscribed: Counter::default(),
            sessions_lost: Counter::default(),
            broker_restarts: Counter::default(),
            undeliverable: Counter::default(),
            registry_age: Gauge::default(),
            acknowledged: Counter::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        // The encoder adds `_total` to counters itself.
        let counter = |name: &'static str| name.strip_suffix("_total").unwrap_or(name);
        registry.register(counter(MESSAGES), "Messages received over MQTT", self.messages.clone());
        registry.register(counter(BYTES), "Payload bytes received over MQTT", self.bytes.clone());
        registry.register(counter(REJECTED), "Messages put into quarantine", self.rejected.clone());
        let help = "Fields and enum values this version does not know";
        registry.register(counter(UNKNOWN_FIELDS), help, self.unknown_fields.clone());
        let help = "Messages received and not confirmed by Kafka";
        registry.register(IN_FLIGHT_MESSAGES, help, self.in_flight_messages.clone());
        let help = "Bytes received and not confirmed by Kafka";
        registry.register(IN_FLIGHT_BYTES, help, self.in_flight_bytes.clone());
        let help = "Age of the oldest message that Kafka has not confirmed";
        registry.register(OLDEST_UNCONFIRMED_SECONDS, help, self.oldest_unconfirmed.clone());
        let help = "Time from a message's receipt to Kafka's confirmation";
        registry.register(ACK_LATENCY_SECONDS, help, self.ack_latency.clone());
        registry.register(counter(KAFKA_ERRORS), "Trouble with Kafka", self.kafka_errors.clone());
        registry.register(counter(RECEIPTS), "Receipts that the broker has taken", self.receipts.clone());
        registry.register(counter(RECEIPTS_DROPPED), "Receipts left out", self.receipts_dropped.clone());
        registry.register(counter(RECONNECTS), "MQTT connections lost or not made", self.reconnects.clone());
        let help = "Time without a subscription on a connection that had one";
        registry.register(counter(UNSUBSCRIBED_SECONDS), help, self.unsubscribed.clone());
        registry.register(counter(SESSIONS_LOST), "Sessions that the broker had forgotten", self.sessions_lost.clone());
        registry.register(counter(BROKER_RESTARTS), "Restarts of the broker of up", self.broker_restarts.clone());
        let help = "Connections ended by a delivery that had ended one before";
        registry.register(counter(UNDELIVERABLE), help, self.undeliverable.clone());
        let help = "Time since the registry of devices was read last";
        registry.register(REGISTRY_AGE_SECONDS, help, self.registry_age.clone());
        registry.register(counter(ACKNOWLEDGED), "Acknowledgements sent to the broker", self.acknowledged.clone());
        // Series that exist from the start can be alerted on.
        for kind in [KafkaTrouble::Delivery, KafkaTrouble::QueueFull, KafkaTrouble::Fatal, KafkaTrouble::Client] {
            drop(self.kafka_errors.get_or_create(&kind_label(kind)));
        }
        for code in ["stored", "rejected"] {
            drop(self.receipts.get_or_create(&CodeLabel { code }));
        }
    }

    pub fn received(&self, channel: Option<Channel>, bytes: usize) {
        let channel = match channel {
            Some(Channel::Report) => "report",
            Some(Channel::ReportJson) => "report_json",
            Some(Channel::Status) => "status",
            None => "none",
        };
        self.messages.get_or_create(&ChannelLabel { channel }).inc();
        self.bytes.get_or_create(&ChannelLabel { channel }).inc_by(bytes as u64);
    }

    /// Counts a refusal; how many there have been for this reason.
    pub fn rejected(&self, reason: Reason) -> u64 {
        self.rejected.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc() + 1
    }

    pub fn confirmed(&self, after: Duration) {
        self.ack_latency.observe(after.as_secs_f64());
    }

    pub fn kafka_trouble(&self, kind: KafkaTrouble) {
        self.kafka_errors.get_or_create(&kind_label(kind)).inc();
    }

    pub fn receipt_sent(&self, rejected: bool) {
        let code = if rejected { "rejected" } else { "stored" };
        self.receipts.get_or_create(&CodeLabel { code }).inc();
    }

    /// All metrics in the OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a `String` cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

fn kind_label(kind: KafkaTrouble) -> KindLabel {
    let kind = match kind {
        KafkaTrouble::Delivery => "delivery",
        KafkaTrouble::QueueFull => "queue_full",
        KafkaTrouble::Fatal => "fatal",
        KafkaTrouble::Client => "client",
    };
    KindLabel { kind }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_exposed() {
        let metrics = Metrics::new();
        metrics.received(Some(Channel::Report), 10);
        metrics.rejected(Reason::Empty);
        metrics.confirmed(Duration::from_millis(3));
        let text = metrics.text();
        for name in ALL {
            let exposed = text.lines().any(|line| {
                let sample = line.split([' ', '{']).next().unwrap_or_default();
                sample == name || sample.strip_suffix("_count") == Some(name)
            });
            assert!(exposed, "{name} is not in\n{text}");
        }
        assert!(text.contains("doseline_bridge_messages_total{channel=\"report\"} 1"), "{text}");
        assert!(text.contains("doseline_bridge_rejected_total{reason=\"empty\"} 1"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
